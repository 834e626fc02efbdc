"""Survey files in tar and zip archives: they hold what the unpacked folder holds, and nothing is lost unsaid."""

from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specshards.common.errors import BadObjectError
from specshards.common.jobs import Engine
from specshards.ingest import archives
from specshards.ingest.archives.members import tar_members, zip_members
from specshards.ingest.files import find_files
from specshards.ingest.job.build import IngestConfig, build
from specshards.ingest.job.summary import Summary
from specshards.ingest.listing import open_input
from tests.ingest.made import galah

FORMATS = (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
TEXT = "wavelength,flux\n" + "".join(f"{5000 + i},{1 + i % 7}\n" for i in range(80))
FITS = b"SIMPLE  =".ljust(700, b".")


def ingested(data: Path, out: Path, limit: int | None = None) -> tuple[Summary, list[dict], dict[str, str]]:
    """The account, the rows of spectra in order, and file -> reason of what is not one."""
    summary = build(IngestConfig(survey=None, limit=limit), str(data), out, engine=Engine(0), max_bad_fraction=1)
    lost = pq.read_table(out / "ingest/quarantine.parquet").to_pylist()
    assert summary.objects == summary.samples + summary.quarantined and summary.quarantined == len(lost)
    return summary, pq.read_table(out / "spectra").to_pylist(), {row["file"]: row["reason"] for row in lost}


def packed(folder: Path, archive: Path) -> Path:
    archive.parent.mkdir(exist_ok=True)
    if archive.suffix == ".tar":
        with tarfile.open(archive, "w") as tar:
            tar.add(folder, ".")
    else:
        with zipfile.ZipFile(archive, "w") as made:
            for i, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
                kind = zipfile.ZIP_DEFLATED if i % 2 else zipfile.ZIP_STORED
                made.write(path, path.relative_to(folder).as_posix(), kind)
    return archive


def small_tar(path: Path, names: list[str]) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(FITS)
            tar.addfile(info, io.BytesIO(FITS))
    return path


def test_what_an_archive_holds_is_what_the_folder_holds(tmp_path: Path) -> None:
    made = galah.write(tmp_path / "plain", 3)
    spectra = made.spectra
    (spectra / "sub").mkdir()
    (spectra / "sub" / "one.csv").write_text(TEXT)
    pq.write_table(pq.read_table(_table(tmp_path)), spectra / "rows.parquet")
    ours, rows, lost = ingested(spectra, tmp_path / "out")
    assert ours.samples > 3 and lost  # the other arms, read with the first one's
    for name, data in (("a.tar", "tar"), ("b.ZIP", "zip/b.ZIP")):
        packed(spectra, tmp_path / Path(data).parts[0] / name)
        its, found, its_lost = ingested(tmp_path / data, tmp_path / f"out-{name}")
        assert repr(renamed(rows, name)) == repr(found)  # NaN is NaN
        assert {f"{name}/{file}": why for file, why in lost.items()} == its_lost and its.files == ours.files
    archive, parts = tmp_path / "tar/a.tar", tmp_path / "out-a.tar/ingest/parts"
    records = {path: path.stat().st_mtime_ns for path in parts.iterdir()}
    ingested(tmp_path / "tar", tmp_path / "out-a.tar")
    assert records == {path: path.stat().st_mtime_ns for path in parts.iterdir()}  # nothing is read again
    os.utime(archive, ns=(1, 1))
    assert repr(ingested(tmp_path / "tar", tmp_path / "out-a.tar")[1]) == repr(renamed(rows, "a.tar"))
    assert records != {path: path.stat().st_mtime_ns for path in parts.iterdir()}


def renamed(rows: list[dict], name: str) -> list[dict]:
    return [{**row, "source_file": f"{name}/{row['source_file']}"} for row in rows]


def _table(folder: Path) -> Path:
    """A sealed table of spectra, as this program writes it."""
    (folder / "csv").mkdir()
    for k in range(2):
        text = "wavelength,flux,ivar\n" + "".join(f"{4000 + i},{1 + (i + k) % 5},1\n" for i in range(90))
        (folder / "csv" / f"s{k}.csv").write_text(text)
    build(IngestConfig(survey=None), str(folder / "csv"), folder / "table", engine=Engine(0))
    return folder / "table/spectra/part-00000.parquet"


def test_each_damage_is_one_row_and_the_rest_is_read(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    content = small_tar(data / "hole.tar", [f"s{i}.fits" for i in range(6)]).read_bytes()
    step = 512 + 1024
    (data / "hole.tar").write_bytes(content[: 2 * step] + b"?" * 512 + content[2 * step + 512 :])
    (data / "cut.tar").write_bytes(content[: 3 * step + 600])
    (data / "two.tar").write_bytes(content + small_tar(tmp_path / "more.tar", ["t.fits"]).read_bytes())
    with tarfile.open(data / "odd.tar", "w") as tar:
        for name, kind in (("../../out.fits", b"0"), ("/abs.fits", b"0"), ("link.fits", b"2"), ("in.zip", b"0")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    with zipfile.ZipFile(data / "a.zip", "w", zipfile.ZIP_DEFLATED) as made:
        for name in ("good.fits", "bad.fits"):
            made.writestr(name, FITS)
        made.writestr("method.fits", FITS, zipfile.ZIP_BZIP2)
        made.writestr("bomb.fits", bytes(1 << 20))
    raw = bytearray((data / "a.zip").read_bytes())
    raw[raw.index(b"bad.fits") + 12] ^= 255
    bomb = raw.rindex(b"bomb.fits") - 46
    raw[bomb + 24 : bomb + 28] = (1 << 10).to_bytes(4, "little")  # it promises less than it holds
    (data / "a.zip").write_bytes(raw)
    (data / "half.zip").write_bytes(raw[: len(raw) // 2])
    (data / "s.tar.gz").write_bytes(b"\x1f\x8b")
    (data / "whole.csv").write_text(TEXT)
    summary, rows, lost = ingested(data, tmp_path / "out")
    assert [row["source_file"] for row in rows] == ["whole.csv"] and summary.files == len(lost) + 1
    # Whole members are read (and are no spectra, here).
    assert {f"hole.tar/s{i}.fits" for i in (0, 1, 3, 4, 5)} | {"two.tar/s0.fits", "two.tar/t.fits"} <= lost.keys()
    assert "hole.tar/s2.fits" not in lost and "a.zip/good.fits" in lost
    reasons = {
        "hole.tar": "damaged at byte 3,072: what lay before byte 4,608 is lost",
        "cut.tar": "it has no end mark: cut short? What lay behind its last member is lost",
        "cut.tar/s3.fits": "cut short: its archive ends within it",
        "odd.tar/__/__/out.fits": "its name leads out of its archive",
        "odd.tar/abs.fits": "its name leads out of its archive",
        "odd.tar/link.fits": "a link within an archive, which is not followed",
        "odd.tar/in.zip": "an archive within an archive: unpack the outer one",
        "a.zip/method.fits": "compressed by method 12 of zip, which is not read here: unpack it",
        "a.zip/bomb.fits": "damaged in its zip: not the bytes of its checksum",
        "half.zip": "no directory at its end: not a zip, or cut short; zip -FF may mend it",
    }
    assert {name: lost[name] for name in reasons} == reasons
    assert "damaged in its zip" in lost["a.zip/bad.fits"] and "compressed tar" in lost["s.tar.gz"]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(("a", "é" * 60, "x" * 150, "d/e")), st.integers(0, 3)), max_size=8, unique=True
    ),
    st.sampled_from(FORMATS),
)
def test_members_are_those_of_tarfile_and_zipfile(names: list[tuple[str, int]], form: int) -> None:
    tarred, zipped = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w", format=form) as tar, zipfile.ZipFile(zipped, "w") as made:
        for name, size in names:
            info = tarfile.TarInfo(f"{name}{size}")
            info.size = size * 400
            tar.addfile(info, io.BytesIO(bytes(info.size)))
            made.writestr(f"{name}{size}", bytes(info.size), zipfile.ZIP_DEFLATED)
    with tarfile.open(fileobj=io.BytesIO(tarred.getvalue())) as tar:
        expected = [(one.name, one.offset_data, one.size) for one in tar]
    assert [(one.name, one.start, one.size) for one in tar_members(tarred)] == expected
    infos = zipfile.ZipFile(zipped).infolist()
    found = [(one.name, one.start, one.size, one.crc) for one in zip_members(zipped)]
    assert found == [(info.filename, info.header_offset, info.file_size, info.CRC) for info in infos]


def test_memory_does_not_grow_with_the_archive(tmp_path: Path) -> None:
    peaks = []
    for count in (500, 4_000):
        path = tmp_path / f"{count}.tar"
        with path.open("wb") as file:
            for i in range(count):
                info = tarfile.TarInfo(f"folder/spec-{i:09d}.fits")
                file.write(info.tobuf(tarfile.USTAR_FORMAT))
            file.write(bytes(1024))
        tracemalloc.start()
        assert sum(1 for _ in archives.names_in(path)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (1 << 18)


def test_a_member_is_read_at_any_place_and_an_archive_may_change(tmp_path: Path) -> None:
    path = small_tar(tmp_path / "a.tar", ["x/b.fits", "c.fits"])
    root, names = find_files(str(path))
    assert (root, names) == (tmp_path, ["a.tar/c.fits", "a.tar/x/b.fits"])
    assert find_files(str(tmp_path / "*.tar"))[1] == names
    with open_input(root / names[1]) as file:
        file.seek(-10, 2)
        assert file.read() == FITS[-10:] and file.seek(3) == 3 and file.read(4) == FITS[3:7]
    small_tar(path, ["other.fits"])
    with pytest.raises(BadObjectError, match="gone from its archive"):
        open_input(root / names[1])
    assert archives.is_there(tmp_path / "a.tar/other.fits") and not archives.is_there(tmp_path / "a.tar/x")

"""The job around the readers: what is kept, redone and appended; kills; cuts; accounts that add up."""

from __future__ import annotations

import gzip
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st

from specshards.common.errors import UsageError
from specshards.common.jobs import Engine
from specshards.common.quarantine import QUARANTINE_SCHEMA
from specshards.ingest.catalogue.cuts import parse
from specshards.ingest.files import find_files
from specshards.ingest.job import plan
from specshards.ingest.job.build import IngestConfig, build
from specshards.ingest.job.plan import make_plan
from specshards.ingest.job.survey import ingest_survey
from specshards.ingest.mock import MockConfig, write
from specshards.ingest.surveys import SUFFIXES, TEXT_SUFFIXES
from tests.oracles import commands
from tests.oracles.survey_files import HEADER, lamost_table, sdss_spec

HERE = Engine(workers=0)


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred mock LAMOST files, three of them damaged."""
    return write(MockConfig("lamost", n_files=200), tmp_path_factory.mktemp("survey") / "mock", workers=1).folder


def copy_of(survey: Path, folder: Path, names: slice = slice(None)) -> Path:
    for path in sorted(survey.rglob("spec-*"))[names]:
        target = folder / path.relative_to(survey)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)
    return folder


def content(out: Path) -> dict[str, bytes]:
    found = [*(out / "spectra").iterdir(), out / "ingest" / "quarantine.parquet", out / "ingest" / "summary.json"]
    return {path.name: path.read_bytes() for path in found}


def rows(out: Path, *columns: str) -> list[dict[str, object]]:
    return pq.ParquetDataset(sorted((out / "spectra").glob("*.parquet"))).read(list(columns)).to_pylist()


def test_a_job_killed_at_random_moments_ends_as_if_it_had_not_been(survey: Path, tmp_path: Path) -> None:
    config = IngestConfig(files_per_part=6, row_group_rows=8)
    build(config, str(survey), tmp_path / "whole", engine=HERE, max_bad_fraction=0.1)
    out = tmp_path / "killed"
    code = (
        "from pathlib import Path\n"
        "from specshards.common.jobs import Engine\n"
        "from specshards.ingest.job.build import IngestConfig, build\n"
        f"build(IngestConfig(files_per_part=6, row_group_rows=8), {str(survey)!r}, Path({str(out)!r}), "
        "engine=Engine(workers=0), max_bad_fraction=0.1)\n"
    )
    chance = random.Random(4)
    killed = 0
    for _ in range(6):
        wanted = len(list(out.glob("ingest/parts/*.json"))) + chance.randint(1, 3)
        process = commands.start(commands.script(code))
        while process.poll() is None and len(list(out.glob("ingest/parts/*.json"))) < wanted:
            time.sleep(0.001)
        time.sleep(0.01 * chance.random())
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        for part in out.glob("spectra/part-*.parquet"):  # whole, or not there
            pq.ParquetFile(part).read()
    assert killed >= 4
    build(config, str(survey), out, engine=HERE, max_bad_fraction=0.1)
    assert content(out) == content(tmp_path / "whole")
    assert not list(out.rglob("*.tmp"))


def test_what_a_killed_writer_left_is_swept(survey: Path, tmp_path: Path) -> None:
    config, out = IngestConfig(files_per_part=60), tmp_path / "out"
    build(config, str(survey), out, engine=HERE, max_bad_fraction=0.1)
    before = content(out)
    for folder in ("spectra", "ingest", "ingest/parts"):
        (out / folder / ".part-00001.parquet.0a1b2c3d.tmp").write_bytes(b"PAR1")
    build(config, str(survey), out, engine=HERE, max_bad_fraction=0.1)
    assert content(out) == before and not list(out.rglob("*.tmp"))


def test_a_rerun_reads_only_what_is_new_or_changed(
    survey: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    config = IngestConfig(files_per_part=20)
    copy_of(survey, data, slice(0, 100))
    build(config, str(data), out, engine=HERE, max_bad_fraction=0.1)
    before = {path.name: path.stat().st_mtime_ns for path in (out / "spectra").iterdir()}
    first = content(out)
    copy_of(survey, data, slice(100, 130))
    summary = build(config, str(data), out, engine=HERE, max_bad_fraction=0.1)
    assert "resuming: 5 of 7 parts are done" in capsys.readouterr().out
    assert summary.files == 130 and len(rows(out, "object_id")) == summary.samples
    assert {name: value for name, value in before.items()} == {
        name: (out / "spectra" / name).stat().st_mtime_ns for name in before
    }
    # A file that is gone, and one that has changed, redo their parts and no others.
    files = pq.read_table(out / "ingest" / "plan.parquet").to_pylist()
    gone, changed = files[3], files[25]
    (data / gone["file"]).unlink()
    whole = (data / changed["file"]).read_bytes()
    (data / changed["file"]).unlink()
    (data / changed["file"]).write_bytes(whole + b"\0" * (0 if changed["file"].endswith(".gz") else 2880))
    os.utime(data / changed["file"], ns=(1, 1))
    summary = build(config, str(data), out, engine=HERE, max_bad_fraction=0.1)
    redone = [name for name in before if (out / "spectra" / name).stat().st_mtime_ns != before[name]]
    assert sorted(redone) == [f"part-{n:05d}.parquet" for n in sorted({gone["part"], changed["part"]})]
    assert summary.files == 129 and gone["file"] not in {row["source_file"] for row in rows(out, "source_file")}
    assert content(out)["part-00004.parquet"] == first["part-00004.parquet"]


def test_names_that_are_trusted_are_not_looked_at(
    survey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    config = IngestConfig(files_per_part=20)
    copy_of(survey, data, slice(0, 60))
    build(config, str(data), out, engine=HERE, max_bad_fraction=0.1, trust_names=True)  # nothing is known yet
    files = pq.read_table(out / "ingest" / "plan.parquet").to_pylist()
    gone, changed = (file["file"] for file in (files[3], files[45]))
    (data / gone).unlink()
    os.utime(data / changed, ns=(1, 1))
    copy_of(survey, data, slice(60, 70))
    looked: list[str] = []
    monkeypatch.setattr(plan, "_stamp", lambda path, stamp=plan._stamp: looked.append(path) or stamp(path))
    summary = build(config, str(data), out, engine=HERE, max_bad_fraction=0.1, trust_names=True)
    assert summary.files == 69 and len(looked) == 10 and not any(changed in path for path in looked)
    assert "resuming: 2 of 4 parts are done" in capsys.readouterr().out
    ingest_survey(config, out, data=str(data), engine=HERE, max_bad_fraction=0.1)  # and those that changed
    assert "resuming: 3 of 4 parts are done" in capsys.readouterr().out


def test_labels_that_appear_beside_a_coadd_are_read(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "desi" / "fastspecfit"
    coadd = "coadd-4-80613-thru20210324.fits"
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    (data / coadd).symlink_to(source / coadd)
    build(IngestConfig("desi"), str(data), out, engine=HERE)
    assert rows(out, "class", "label_source") == [{"class": None, "label_source": None}]
    (data / coadd.replace("coadd", "redrock")).symlink_to(source / coadd.replace("coadd", "redrock"))
    summary = build(IngestConfig("desi"), str(data), out, engine=HERE)
    assert rows(out, "class", "label_source") == [{"class": "GALAXY", "label_source": "redrock"}]
    assert (summary.files, summary.objects, summary.set_aside) == (2, 2, 1)


def test_positions_that_a_desi_file_lacks_come_from_a_catalogue(real_data: Path, tmp_path: Path) -> None:
    data = str(real_data / "desi" / "picca" / "coadd-main-dark-9144.fits")
    build(IngestConfig("desi"), data, tmp_path / "without", engine=HERE)
    assert rows(tmp_path / "without", "ra", "dec", "_healpix_29") == 2 * [
        {"ra": None, "dec": None, "_healpix_29": None}
    ]
    with fits.open(data) as hdus:
        ids = hdus["FIBERMAP"].data["TARGETID"]
    catalogue = tmp_path / "qso.fits"
    Table({"TARGETID": ids, "TARGET_RA": [10.0, 20.0], "TARGET_DEC": [1.0, 2.0], "Z": [2.5, 3.0]}).write(catalogue)
    build(IngestConfig("desi"), data, tmp_path / "with", catalogue=catalogue, engine=HERE)
    assert rows(tmp_path / "with", "object_id", "ra", "dec", "z") == [
        {"object_id": str(ids[0]), "ra": 10.0, "dec": 1.0, "z": 2.5},
        {"object_id": str(ids[1]), "ra": 20.0, "dec": 2.0, "z": 3.0},
    ]


def test_files_and_objects_add_up_for_everything_that_is_there(real_data: Path, tmp_path: Path) -> None:
    """All real files in one job: a row for each layout, every file in one of them."""
    summary = build(IngestConfig(), str(real_data), tmp_path, engine=Engine(workers=2))
    files = [path for path in real_data.rglob("*") if path.name.endswith((*SUFFIXES, *TEXT_SUFFIXES))]
    assert summary.files == len(files) == sum(count.files for count in summary.layouts.values())
    assert summary.objects == summary.samples + summary.quarantined == len(rows(tmp_path, "ra")) + summary.quarantined
    quarantine = pq.read_table(tmp_path / "ingest" / "quarantine.parquet")
    assert quarantine.schema.equals(QUARANTINE_SCHEMA)
    assert quarantine.num_rows == summary.quarantined == sum(summary.reasons.values())
    read = rows(tmp_path, "source_file", "layout")
    names = {*(row["source_file"] for row in read), *quarantine["file"].to_pylist()}
    assert names == {path.relative_to(real_data).as_posix() for path in files}
    # Of the folders that hold what the readers are made for, not one file is astropy's.
    usual = ("lamost/", "sdss/", "desi/")
    assert Counter(row["layout"] for row in read if str(row["source_file"]).startswith(usual)) == {
        "lamost-table": 1478, "lamost-image": 246, "lamost-image-dr1": 59, "sdss-spec-lite": 233, "sdss-spec": 9,
        "sdss-spspec": 2, "desi-coadd": 18,
    }  # fmt: skip
    for row in read:
        if str(row["source_file"]).startswith(usual):
            assert set(summary.layouts[str(row["layout"])].parsers) == {"direct"}


def test_the_papers_cuts(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    kinds = {"whole": {}, "warned": {"ZWARNING": 4}, "legacy": {"RUN2D": "26"},
             "standard": {"OBJTYPE": "SPECTROPHOTO_STD"}, "boss": {"INSTRUMENT": "BOSS", "RUN2D": "26"}}  # fmt: skip
    for name, labels in kinds.items():
        sdss_spec(data / f"{name}.fits", **{"RUN2D": "v5_13_2", "OBJTYPE": "QSO", **labels})
    summary = build(IngestConfig("sdss", cuts="paper"), str(data), tmp_path / "sdss", engine=HERE)
    assert sorted(row["source_file"] for row in rows(tmp_path / "sdss", "source_file")) == ["boss.fits", "whole.fits"]
    assert (summary.set_aside, summary.bad) == (3, 0)
    data = tmp_path / "lamost-data"
    data.mkdir()
    bands = {f"SNR{band}": 10.0 for band in "UGRIZ"}
    for name, labels in {"whole": {}, "no u": {"SNRU": -9999.0}, "no z": {"Z": -9999.0}}.items():
        lamost_table(data / f"{name}.fits", **{**bands, **labels})
    build(IngestConfig("lamost", cuts="paper"), str(data), tmp_path / "lamost", engine=HERE)
    assert [row["source_file"] for row in rows(tmp_path / "lamost", "source_file")] == ["whole.fits"]
    with pytest.raises(UsageError, match="cuts paper: is of lamost and sdss"):
        IngestConfig("desi", cuts="paper")


def test_filters_of_columns_and_of_the_catalogue(survey: Path, tmp_path: Path) -> None:
    catalogue = survey / "mock_catalogue.csv"
    config = IngestConfig("lamost", where="class == 'STAR' and teff > 5000", listed_only=True)
    summary = build(config, str(survey), tmp_path / "stars", catalogue=catalogue, engine=HERE, max_bad_fraction=0.1)
    kept = rows(tmp_path / "stars", "class", "teff")
    assert kept and all(row["class"] == "STAR" and row["teff"] > 5000 for row in kept)
    assert summary.objects == 200 and any(reason == "not in the catalogue" for reason in summary.reasons)
    lines = [line.split(",") for line in catalogue.read_text().splitlines()]
    at = [lines[0].index(name) for name in ("class", "teff")]
    listed = [[line[i] for i in at] for line in lines[1:]]
    assert len(kept) == sum(kind == "STAR" and float(teff) > 5000 for kind, teff in listed)
    with pytest.raises(UsageError, match="no column colour in the spectra or the catalogue"):
        build(
            IngestConfig("lamost", where="colour > 1"), str(survey), tmp_path / "x", catalogue=catalogue, engine=HERE
        )


VALUES = st.one_of(st.none(), st.floats(-5, 5, width=32))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(VALUES, st.sampled_from([None, "STAR", "QSO"])), min_size=1, max_size=20), st.data())
def test_a_filter_keeps_what_python_would(table: list[tuple[float | None, str | None]], data: st.DataObject) -> None:
    number = data.draw(st.floats(-5, 5, width=32))
    cases = {
        f"a > {number}": lambda z, c: z is not None and z > number,
        f"not a > {number}": lambda z, c: z is not None and not z > number,
        f"a*2 + 1 <= {number} or class == 'QSO'": lambda z, c: (z is not None and z * 2 + 1 <= number) or c == "QSO",
        "class in ('STAR', 'QSO')": lambda z, c: c is not None,
        "class not in ['STAR']": lambda z, c: c == "QSO",
        "a is null": lambda z, c: z is None,
        "class is not null and not (a is null)": lambda z, c: z is not None and c is not None,
        f"-1 < a < {number}": lambda z, c: z is not None and -1 < z < number,
    }
    text = data.draw(st.sampled_from(sorted(cases)))
    columns = {"a": [row[0] for row in table], "class": [row[1] for row in table]}
    assert parse(text).keeps(columns, len(table)).tolist() == [cases[text](*row) for row in table]


@pytest.mark.parametrize(
    "text", ["", "z >", "class", "-z", "1 > 0", "__import__('os').system('x')", "z.real > 1", "(lambda: 1)() > z",
             "class > 3", "z > 'a' and z > 1", "[z for z in y]", "z if z else y", "f'{z}' == 'a'", "z > 1 and y"],
)  # fmt: skip
def test_what_is_no_filter_is_told_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert "\n" not in str(caught.value) and "write for example" in str(caught.value)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(1, 9))
def test_the_plan_never_moves_a_file(tmp_path_factory, additions: list[int], per_part: int) -> None:
    folder = tmp_path_factory.mktemp("plan")
    names: list[str] = []
    seen: dict[str, int] = {}
    for addition in additions:
        for _ in range(addition):
            names.append(f"f{len(names):03d}.fits")
            (folder / names[-1]).touch()
        parts = make_plan(folder, sorted(names), folder / "plan.parquet", files_per_part=per_part, seed=1)
        placed = {name: part.number for part in parts for name in part.files}
        assert sorted(placed) == names and all(len(part.files) <= per_part for part in parts)
        assert seen.items() <= placed.items()
        again = make_plan(folder, sorted(names), folder / "plan.parquet", files_per_part=per_part, seed=1)
        assert list(again) == list(parts)
        seen = placed


def test_a_wrong_command_does_not_stand_in_the_way_of_the_right_one(survey: Path, tmp_path: Path) -> None:
    catalogue = tmp_path / "labels.csv"
    wrong = [
        (IngestConfig("lamost"), {"catalogue": catalogue}, "no such catalogue"),
        (IngestConfig("lamost", listed_only=True), {}, "needs a --catalog"),
        (IngestConfig("lamost", where="colour > 1"), {}, "no column colour"),
    ]
    for config, more, message in wrong:
        with pytest.raises(UsageError, match=message):
            build(config, str(survey), tmp_path / "out", engine=HERE, **more)
    build(IngestConfig("lamost"), str(survey), tmp_path / "out", engine=HERE, max_bad_fraction=0.1)


def test_row_groups_are_mixed_and_full(survey: Path, tmp_path: Path) -> None:
    build(
        IngestConfig(files_per_part=100, row_group_rows=16), str(survey), tmp_path, engine=HERE, max_bad_fraction=0.1
    )
    files = sorted((tmp_path / "spectra").iterdir())
    for path in files:
        groups = [pq.ParquetFile(path).metadata.row_group(i).num_rows
                  for i in range(pq.ParquetFile(path).num_row_groups)]  # fmt: skip
        assert set(groups[:-1]) == {16}
    names = [row["source_file"] for row in rows(tmp_path, "source_file")]
    order = np.argsort(np.argsort(names))
    assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.3


def test_gzip_of_several_members_is_whole(tmp_path: Path) -> None:
    whole = lamost_table(tmp_path / "a.fits").read_bytes()
    (tmp_path / "a.fits.gz").write_bytes(gzip.compress(whole[:9000]) + gzip.compress(whole[9000:]))
    (tmp_path / "a.fits").unlink()
    summary = build(IngestConfig("lamost"), str(tmp_path / "a.fits.gz"), tmp_path / "out", engine=HERE)
    assert summary.samples == 1 and rows(tmp_path / "out", "object_id")[0]["object_id"] == str(HEADER["OBSID"])


def test_a_bad_deflate_block_is_named(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(lamost_table(tmp_path / "a.fits").read_bytes(), mtime=0))
    whole[10:40] = bytes([255]) * 30
    (tmp_path / "a.fits").rename(tmp_path / "good.fits")
    (tmp_path / "a.fits.gz").write_bytes(whole)
    build(IngestConfig("lamost"), str(tmp_path), tmp_path / "out", engine=HERE, max_bad_fraction=1)
    reasons = [row["reason"] for row in pq.read_table(tmp_path / "out" / "ingest" / "quarantine.parquet").to_pylist()]
    assert len(reasons) == 1 and reasons[0].startswith("damaged gzip: ")


def test_what_a_glob_finds(tmp_path: Path) -> None:
    names = ("a/x.fits", "a/deep/y.fits.gz", "b/x.fits", "b/notes.txt", "c.fits", "c.txt")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    spectra = ["a/deep/y.fits.gz", "a/x.fits", "b/x.fits"]
    assert find_files(str(tmp_path)) == (tmp_path, [*spectra, "c.fits"])
    assert find_files(f"{tmp_path}/[ab]") == (tmp_path, spectra)
    assert find_files(f"{tmp_path}/*") == (tmp_path, [*spectra, "c.fits", "c.txt"])  # a file that is named is meant
    assert find_files(f"{tmp_path}/*/*.fits") == (tmp_path, spectra[1:])
    assert find_files(f"{tmp_path}/a*") == (tmp_path / "a", ["deep/y.fits.gz", "x.fits"])
    with pytest.raises(UsageError, match="no spectra there"):
        find_files(f"{tmp_path}/q*")

"""Objects that are named by their files: with the folder where names repeat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from specshards.common.errors import UsageError
from specshards.common.jobs import Engine
from specshards.common.spectrum import Spectrum
from specshards.ingest.job.build import IngestConfig, build
from specshards.ingest.job.summary import Summary
from specshards.ingest.spectra.objects import objects
from specshards.ingest.stems import depth_of, repeated, stem_of, with_folder
from specshards.ingest.surveys import open_file

HERE = Engine(workers=0)


def spectrum(path: Path, level: float, head: str = "", row: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"wave,flux{head}\n" + "".join(f"{4000 + 10 * i},{level + i / 100}{row}\n" for i in range(100)))


def rows(out: Path) -> dict[str, dict[str, object]]:
    files = sorted((out / "spectra").glob("*.parquet"))
    tables = [pq.read_table(path).drop_columns(["spectrum"]).to_pylist() for path in files]
    return {row["object_id"]: row for table in tables for row in table}


def test_names() -> None:
    files = ["s1/spectrum.csv", "s2/spectrum.csv", "other.csv", "a/x.fits", "a/x.csv"]
    assert repeated(files) == {"s1/spectrum.csv", "s2/spectrum.csv"} and depth_of(files) == 2
    assert depth_of(["a/b.csv", "c/d.csv", "a/b.fits"]) == 1
    assert depth_of(["x/s1/a.csv", "y/s1/a.csv"]) == 3
    assert stem_of("n/s1/a.fits.gz", 2) == "s1/a" and stem_of("a.b.c") == "a.b.c"
    assert with_folder("a-12", "s/t/a.fits") == "s/t/a-12" and with_folder("a", "a.fits") == "a"
    assert with_folder("HD1", "s/a.fits") == "HD1"


def test_a_folder_a_sample(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name, level in (("s1/spectrum", 1), ("s2/spectrum", 2), ("s3/other", 3), ("nan", 4)):
        spectrum(data / f"{name}.csv", level)
    catalogue = tmp_path / "catalogue.csv"
    catalogue.write_text("file,carbon\ndata/s1/spectrum.csv,1\ndata/s2/spectrum.csv,2\nother.csv,3\nnan.csv,4\n")
    for per_part in (1, 100):
        out = tmp_path / f"out{per_part}"
        config = IngestConfig(files_per_part=per_part, labels="carbon")
        summary = build(config, str(data), out, catalogue=catalogue, engine=HERE, max_bad_fraction=0)
        found = rows(out)
        assert {name: row.get("carbon") for name, row in found.items()} == {
            "s1/spectrum": 1.0, "s2/spectrum": 2.0, "other": 3.0, "nan": 4.0,
        }  # fmt: skip
        assert summary.matched == 4 and summary.repeats is not None and not summary.repeats.lines()
    told = [meta["object_id"] for meta, _ in objects(data, [])]  # what predictions are written under
    assert sorted(told) == ["nan", "other", "s1/spectrum", "s2/spectrum"]
    # A name that comes to be another's, too, is made again.
    spectrum(data / "s4/other.csv", 5)
    build(config, str(data), out, catalogue=catalogue, engine=HERE)
    assert {"s3/other", "s4/other"} < rows(out).keys() and "other" not in rows(out)
    assert rows(out)["s3/other"].get("carbon") is None  # `other.csv` is either
    catalogue.write_text("file,carbon\ns1/spectrum.csv,1\ns1/spectrum.csv,2\n")
    with pytest.raises(UsageError, match="file repeats in 1 rows"):
        build(config, str(data), tmp_path / "again", catalogue=catalogue, engine=HERE)


def test_a_table_of_too_many_columns_is_bad_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    spectrum(data / "good.csv", 1)
    many = [f"c{i}" for i in range(300)]
    cells = [",".join(f'"[{start}, 2, 3]"' if i else '"[4000, 4001, 4002]"' for i in range(2)) for start in (1, 2)]
    (data / "many.csv").write_text(
        "\n".join([",".join(["id", "wavelength", "flux", *many])]
                  + [",".join([f"s{i}", cell, *(["1.5"] * 300)]) for i, cell in enumerate(cells)]) + "\n"
    )  # fmt: skip
    summary = build(IngestConfig(), str(data), tmp_path / "out", engine=HERE, max_bad_fraction=1)
    (reason,) = summary.reasons
    assert "300 further columns" in reason and "more than 256" in reason and "tmp" not in reason
    assert rows(tmp_path / "out").keys() == {"good"}


def test_every_remark_is_in_the_summary() -> None:
    said = {f"are read as column {i}" if i % 2 else f"are of kind {chr(65 + i)}": 1000 - i for i in range(26)}
    summary = Summary(None, {}, None, {}, converted={**said, "are vacuum by a guess": 1})
    assert all(f"samples {what}" in summary.table() for what in summary.converted)
    grouped = {f"are stored divided by 1e-{i} (flux_scale)": 2 for i in range(100)}
    summary = Summary(None, {}, None, {}, converted={**grouped, **said, "are vacuum by a guess": 1})
    assert "of 200 samples are stored divided by # (...)" in summary.table() and "by a guess" in summary.table()
    letters = [f"{chr(97 + i)}{chr(97 + j)}" for i in range(9) for j in range(9)]
    summary = Summary(None, {}, None, {}, converted={**{f"are {w}": 9 for w in letters}, "are air: a guess": 1})
    lines = summary.table().splitlines()
    assert sum(line.startswith("of ") for line in lines) == 40 and "... and 42 more remarks in summary.json" in lines
    assert "of 1 samples are air: a guess" in lines


def test_names_with_zeros_in_front_and_places_at_0_0(tmp_path: Path) -> None:
    head = ["sample", "Site", "pit", "RA", "Dec", *(str(350 + i) for i in range(20))]
    lines = [["a", "01", "1"], ["b", "1", "2"], ["c", "1.0", "3"]]

    def write(name: str, *places: str) -> list[Spectrum]:
        flux = ["0.5"] * 20
        both = zip(lines, places, strict=True)
        text = "\n".join(",".join(row) for row in [head, *([*line, *p.split(), *flux] for line, p in both)])
        (tmp_path / name).write_bytes(text.encode("utf-16" if "16" in name else "utf-8"))
        found = list(open_file(tmp_path / name).objects())
        assert all(isinstance(one, Spectrum) for one in found), found
        return [one for one in found if isinstance(one, Spectrum)]

    for name in ("none.csv", "none16.csv"):
        found = write(name, "0 0", "0 0.0", "0 0")
        assert [one.labels["site"] for one in found] == ["01", "1", "1.0"], name
        assert [one.labels["pit"] for one in found] == [1, 2, 3]
        assert np.isnan([[one.ra, one.dec] for one in found]).all()
    found = write("some.csv", "0 0", "1 2", "3 4")
    assert [(one.ra, one.dec) for one in found] == [(0, 0), (1, 2), (3, 4)]
    # A catalogue says the same of such names.
    (tmp_path / "data").mkdir()
    for i in range(3):
        spectrum(tmp_path / "data" / f"{i}x.csv", 1)
    catalogue = tmp_path / "sites.csv"
    catalogue.write_text("file,site,pit\n0x,01,1\n1x,1,2\n2x,1.0,3\n")
    build(IngestConfig(labels="all"), str(tmp_path / "data"), tmp_path / "out", catalogue=catalogue, engine=HERE)
    assert [rows(tmp_path / "out")[f"{i}x"]["site"] for i in range(3)] == ["01", "1", "1.0"]
    assert [rows(tmp_path / "out")[f"{i}x"]["pit"] for i in range(3)] == [1, 2, 3]

"""Labels that no object can have are missing behind every door, and counted with examples."""

from __future__ import annotations

import io
import json
import math
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from specshards.common.errors import BadObjectError, JobError
from specshards.common.impossible import Impossible
from specshards.common.jobs import Engine
from specshards.common.label_columns import sifted
from specshards.common.spectrum import LABELS, NUMBERS, RANGES, sift
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.job.build import build as ingest
from specshards.ingest.spectra.blocks import iter_blocks
from specshards.ingest.spectra.folder import SpectraFolder
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.ingest.surveys import open_file, read_file
from specshards.shards.format.archive import Archive, read_sidecars
from specshards.shards.format.manifest import LabelStats, Manifest, ShardConfig, key, label_npy
from specshards.shards.format.tar import TarWriter
from specshards.shards.write.build import build
from specshards.shards.write.reshard import remake
from specshards.train.tasks.task import TrainSplit
from tests.conftest import make_spectrum
from tests.oracles.mmu_tables import mock, sdss_table
from tests.oracles.survey_files import lamost_table, sdss_spec

HERE = Engine(workers=0)
IMPOSSIBLE_Z = (9999.0, 99.0, -9.99, math.inf, 1e30)


@pytest.mark.parametrize(
    ("label", "possible", "impossible"),
    [
        ("z", (-0.0076, 0.0, 14.44), (-0.05, 20.5, 99, 9999, math.inf)),
        ("z_err", (1e-6, 0.3), (0.0, -1.0, 99, math.inf)),
        ("zwarning", (0, 4, 2**31 - 1), (-1, 0.5, 2**31, 1e300)),
        ("teff", (250.0, 5772.0, 250_000.0, 99_998.0), (0, 99, 99_999, 999_999)),
        ("logg", (-1.0, 4.4, 9.3), (99, 9999, -9.99)),
        ("feh", (-7.1, 0.5, 1.9), (9.99, 99, -99)),
        ("sn_median", (-0.1, 3000.0), (1e30, math.inf)),
        ("ra", (0, 360), (-1, 361)),
        ("dec", (-90, 90), (91,)),
    ],
)
def test_what_is_possible(label: str, possible: tuple[float, ...], impossible: tuple[float, ...]) -> None:
    for value in possible:
        labels: dict[str, Any] = {label: value}
        assert sift(labels) == {} and labels == {label: value}
    for value in impossible:
        labels = {label: value}
        assert sift(labels) == {label: value} and labels == {label: None}


@given(st.sampled_from(sorted(RANGES)), st.lists(st.floats(allow_nan=True), max_size=20))
def test_columns_and_single_values_are_judged_alike(label: str, values: list[float]) -> None:
    assert RANGES[label].holds(np.array(values)).tolist() == [RANGES[label].has(value) for value in values]
    table, found = sifted(pa.table({label: pa.array(values, pa.float64())}))
    singles = [{label: value} for value in values]
    taken = [value for single in singles for value in sift(single).values()]
    if label not in ("ra", "dec"):  # of a table they stay: its rows are split by them
        assert table[label].to_pylist() == [single[label] for single in singles]
        assert found.counts == ({label: len(taken)} if taken else {})


def test_words_and_lists_are_no_labels() -> None:
    labels: dict[str, Any] = {
        "z": "abc",
        "teff": [5000.0],
        "zwarning": 4.0,
        "class": "star",
        "subclass": 3,
        "note": 1,
    }
    assert sift(labels) == {"z": "abc", "teff": [5000.0], "class": "star", "subclass": 3}
    assert labels == {"z": None, "teff": None, "zwarning": 4, "class": None, "subclass": None, "note": 1}


def test_an_error_goes_with_its_value() -> None:
    spectrum = make_spectrum(0, np.random.default_rng(0), labels={"z": 99.0, "z_err": 0.1, "teff": 5000.0})
    spectrum.sift()
    assert spectrum.labels == {"z": None, "z_err": None, "teff": 5000.0} and spectrum.impossible == {"z": 99.0}
    table, found = sifted(pa.table({"object_id": ["a", "b"], "z": [99.0, 0.1], "z_err": [0.1, 0.2]}))
    assert table.to_pydict() == {"object_id": ["a", "b"], "z": [None, 0.1], "z_err": [None, 0.2]}
    assert found.lines() == ["impossible       1  z, now missing: 99 (a); possible: -0.02 to 20"]


def test_an_account_keeps_the_first_examples() -> None:
    total = Impossible()
    for start in (0, 2):
        part = Impossible()
        for i in range(start, start + 2):
            part.add("teff", 99_999.0, f"o{i}")
        total.update(Impossible.from_dict(json.loads(json.dumps({"counts": part.counts, "examples": part.examples}))))
    assert total.counts == {"teff": 4} and [who for _, who in total.examples["teff"]] == ["o0", "o1", "o2"]
    assert "4  teff, now missing: 99999 (o0), 99999 (o1), 99999 (o2), ...; possible: 200" in total.lines()[0]


def test_a_files_header_and_its_table(tmp_path: Path) -> None:
    spectrum = read_file(lamost_table(tmp_path / "a.fits", Z=99.0))
    assert spectrum.labels["z"] is None and spectrum.labels["z_err"] is None and spectrum.impossible == {"z": 99.0}
    path = sdss_spec(tmp_path / "b.fits")
    with fits.open(path) as hdus:
        hdus[2].data["Z"] = 9999.0
        hdus.writeto(tmp_path / "c.fits")
    spectrum = read_file(tmp_path / "c.fits")
    assert spectrum.labels["z"] is None and spectrum.impossible == {"z": 9999.0}


def test_a_catalogue_and_the_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for obsid in range(1, 7):
        lamost_table(data / f"{obsid}.fits", OBSID=obsid)
    (tmp_path / "c.csv").write_text(
        "obsid,z,teff,logg,zwarning\n1,9999,5000,99,1e300\n2,0.1,99999,4.5,0\n3,1e30,abc,4.5,4\n4,inf,,4.5,\n5,0.2,,,2.5\n"
    )
    summary = ingest(IngestConfig("lamost"), str(data), tmp_path / "out", catalogue=tmp_path / "c.csv", engine=HERE)
    assert summary.impossible.counts == {"z": 3, "teff": 1, "logg": 1, "zwarning": 2}
    table = pq.read_table(tmp_path / "out" / "spectra").sort_by("object_id")
    # Where the catalogue has nothing, the file's own value stands.
    assert table["z"].to_pylist() == pytest.approx([-5e-4, 0.1, -5e-4, -5e-4, 0.2, -5e-4])
    assert table["teff"].to_pylist() == [5000.0, None, None, None, None, None]
    assert table["logg"].to_pylist() == [None, 4.5, 4.5, 4.5, None, None]
    assert table["zwarning"].to_pylist() == [None, 0, 4, None, None, None]
    said = capsys.readouterr().out
    for words in ("3  z, now missing: ", "99999 (2)", "99 (1)", "1e+300 (1)", "1  teff of the catalogue, missing "):
        assert words in said, words
    written = json.loads((tmp_path / "out" / "ingest" / "summary.json").read_text())["impossible"]
    assert written["counts"] == summary.impossible.counts
    again = ingest(IngestConfig("lamost"), str(data), tmp_path / "out", catalogue=tmp_path / "c.csv", engine=HERE)
    assert again.impossible == summary.impossible


def label_of(folder: Path, name: str) -> list[float]:
    """A label of every sample, from the tars; NaN = missing."""
    found = []
    for path in sorted(folder.glob("*/*.tar")):
        with tarfile.open(path) as tar:
            vectors = [np.load(io.BytesIO(tar.extractfile(m).read())) for m in tar if m.name.endswith(".npy")]  # type: ignore[union-attr]
        found += [float(vector[LABELS.index(name)]) for vector in vectors]
    return found


def check_set(folder: Path) -> None:
    manifest = Manifest.load(folder)
    stats = manifest.label_stats["z"]
    assert stats.count > 0 and 0 <= stats.min <= stats.max <= 0.3
    values = np.array(label_of(folder, "z"))
    assert np.isnan(values).sum() == 5 and np.nanmax(values) <= 0.3
    sidecars = pa.concat_tables(pq.read_table(path) for path in folder.glob("*/*.parquet"))
    assert sidecars["z"].null_count == 5 and max(filter(None, sidecars["z"].to_pylist())) <= 0.3


@pytest.mark.parametrize("kind", ["foreign", "own"])
def test_parquet_drawn_as_it_is(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    spectra = mock(40)
    for spectrum, z in zip(spectra, IMPOSSIBLE_Z, strict=False):
        spectrum.labels["z"] = z
    (tmp_path / "in").mkdir()
    if kind == "own":
        write_parquet(to_table(spectra), tmp_path / "in" / "a.parquet", {}, row_group_rows=16)
    else:
        pq.write_table(sdss_table(spectra, survey=["sdss"] * 40), tmp_path / "in" / "a.parquet", row_group_size=16)
    build(ShardConfig(samples_per_shard=10), tmp_path / "in", tmp_path / "out", engine=HERE)
    check_set(tmp_path / "out")
    said = capsys.readouterr().out
    assert "impossible       5  z, now missing: " in said and "; possible: -0.02 to 20" in said
    blocks = [block for _, block in iter_blocks(SpectraFolder.scan(tmp_path / "in"))]
    assert sum(block.impossible.counts.get("z", 0) for block in blocks) == 5


def test_a_data_set_of_an_earlier_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spectra = mock(40)
    for spectrum, z in zip(spectra, (99.0, 9999.0, -9.99, 1e30, 21.0), strict=False):
        spectrum.labels["z"] = z
    (tmp_path / "in").mkdir()
    write_parquet(to_table(spectra), tmp_path / "in" / "a.parquet", {}, row_group_rows=16)
    with monkeypatch.context() as earlier:
        earlier.setattr("specshards.ingest.spectra.blocks.sifted", lambda table: (table, Impossible()))
        build(ShardConfig(samples_per_shard=10), tmp_path / "in", tmp_path / "old", engine=HERE)
    assert max(label_of(tmp_path / "old", "z")) == pytest.approx(1e30)
    manifest = Manifest.load(tmp_path / "old")
    split = next(split for split in ("train", "val", "test") if 9999.0 in read_raw(tmp_path / "old", split))
    assert read_sidecars([tmp_path / "old"], [manifest], split)["z"].null_count > 0
    remake([tmp_path / "old"], tmp_path / "new", samples_per_shard=20, engine=HERE)
    check_set(tmp_path / "new")


def read_raw(folder: Path, split: str) -> list[float | None]:
    return [z for path in folder.glob(f"{split}/*.parquet") for z in pq.read_table(path)["z"].to_pylist()]


def test_a_label_vector_of_an_earlier_version(tmp_path: Path) -> None:
    vector = np.full(len(LABELS), 99_999.0)
    vector[:2] = 0
    with TarWriter(tmp_path / "a.tar") as tar:
        tar.add(key(0), [("png", b"x"), ("npy", label_npy(vector))])
    archive = Archive([tmp_path / "a.tar"], [1], "png", LABELS)
    labels, wrong = archive.labels(archive.read(np.array([0])))
    kept = {name for name, value in zip(LABELS, labels[0], strict=True) if not np.isnan(value)}
    assert not wrong and kept == {"class", "survey", "zwarning", "teff_err", "sn_median", "ra", "dec"} & set(LABELS)


def test_statistics_of_an_earlier_version_teach_nothing(sets: Any) -> None:
    manifest = Manifest.load(sets("png"))
    split = TrainSplit(("old",), [manifest], lambda columns: pa.table({}))
    assert split.statistics("z") == manifest.label_stats["z"]
    manifest.label_stats["z"] = LabelStats(10, 100.0, 300.0, 0.0, 9999.0)
    with pytest.raises(JobError, match="old: z goes from 0 to 9999, which no object has"):
        split.statistics("z")


def test_every_label_has_a_range() -> None:
    assert set(RANGES) >= set(LABELS) - {"class", "survey"}
    for label in NUMBERS:
        assert label.range.low < label.range.high < math.inf


@pytest.mark.parametrize(("name", "labels"), [("sentinel", {"z", "teff"}), ("infz", {"z"})])
def test_the_tables_that_went_wrong(real_data: Path, tmp_path: Path, name: str, labels: set[str]) -> None:
    source = real_data / "faults" / f"{name}.parquet"
    if not source.is_file():
        pytest.skip(f"no {source}")
    build(ShardConfig(samples_per_shard=30), source, tmp_path / "out", engine=HERE)
    manifest = Manifest.load(tmp_path / "out")
    for label in labels:
        stats = manifest.label_stats[label]
        assert stats.count and RANGES[label].has(stats.min) and RANGES[label].has(stats.max)
        assert np.isnan(label_of(tmp_path / "out", label)).any()


def test_a_struct_of_labels_in_spectra_is_one_line(tmp_path: Path) -> None:
    table = sdss_table(mock(6), survey=["sdss"] * 6)
    table = table.set_column(table.column_names.index("Z"), "Z", pa.array([{"a": 1}] * 6))
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    with pytest.raises(
        JobError, match=r"a\.parquet: column Z holds struct<a: int64>, where one number or text a row"
    ):
        build(ShardConfig(), tmp_path / "in", tmp_path / "out", engine=HERE)
    with pytest.raises(JobError, match=r"no usable  ?spectrum|no usable spectrum"):
        ingest(IngestConfig(), str(tmp_path / "in"), tmp_path / "out", engine=HERE)


def test_another_class_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for obsid, kind in enumerate(["AGN", "Unknown", "", "STAR", "STAR", "SKY"], 1):
        lamost_table(data / f"{obsid}.fits", OBSID=obsid, CLASS=kind, SUBCLASS="G2", RA=20.0 * obsid)
    summary = ingest(IngestConfig("lamost"), str(data), tmp_path / "out", engine=HERE)
    assert summary.impossible.counts == {"class": 1} and summary.impossible.examples == {"class": [["AGN", "1"]]}
    assert "1  class, now missing: AGN (1); possible: STAR, GALAXY, QSO" in capsys.readouterr().out
    (tmp_path / "c.csv").write_text("obsid,class,subclass\n1,QSO,\n2,,\n3,unknown,\n4,AGN,BL\n5,agn,\n6,STAR,\n")
    summary = ingest(IngestConfig("lamost"), str(data), tmp_path / "o2", catalogue=tmp_path / "c.csv", engine=HERE)
    assert summary.impossible.examples == {"class": [["AGN", "4"], ["agn", "5"]]}
    table = pq.read_table(tmp_path / "o2" / "spectra").sort_by("object_id")
    assert table["class"].to_pylist() == ["QSO", None, None, "STAR", "STAR", "STAR"]
    assert table["subclass"].to_pylist()[3] == "G2"
    assert table["label_source"].to_pylist() == ["catalogue", *["header"] * 4, "catalogue"]


def test_another_class_in_a_table_and_an_sdss_file_is_counted(tmp_path: Path) -> None:
    spectra = mock(2)
    table = sdss_table(spectra)
    place = table.column_names.index("CLASS")
    table = table.set_column(place, "CLASS", pa.array(["AGN", "Galaxy"]))
    pq.write_table(table, tmp_path / "t.parquet")
    found = [item for item in open_file(tmp_path / "t.parquet").objects() if not isinstance(item, BadObjectError)]
    assert [item.impossible for item in found] == [{"class": "AGN"}, {}] and found[1].labels["class"] == "GALAXY"
    with fits.open(sdss_spec(tmp_path / "b.fits")) as hdus:
        hdus[2].data["CLASS"] = "AGN"
        hdus.writeto(tmp_path / "c.fits")
    assert read_file(tmp_path / "c.fits").impossible == {"class": "AGN"}

"""Joining label tables: every format, ids beyond int64, missing values, and one-line refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from specshards.common.errors import JobError, UsageError
from specshards.ingest.catalogue.labels import Catalogue, check_matches, conflict
from specshards.ingest.catalogue.prepared import prepare
from tests.conftest import make_spectrum

BIG = 11537156405737052160  # a real specObjID beyond int64


@pytest.mark.parametrize("kind", ["csv", "bar.csv", "fits", "fits-text", "parquet"])
def test_ids_beyond_int64_survive_every_format(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"labels.{kind.partition('-')[0]}"
    ids, z = [BIG, 299492975510054912], [0.25, 0.5]
    if kind.endswith("csv"):
        mark = "|" if kind == "bar.csv" else ","
        rows = [f"SPECOBJID{mark}Z{mark}CLASS", *(f"{i}{mark}{v}{mark}QSO   " for i, v in zip(ids, z, strict=True))]
        path.write_text("\n".join(rows) + "\n")
    elif kind.startswith("fits"):
        column = np.array([f"{i:>22}" for i in ids]) if kind == "fits-text" else np.array(ids, np.uint64)
        Table({"SPECOBJID": column, "Z": z, "CLASS": ["QSO", "QSO"]}).write(path)
    else:
        pq.write_table(pa.table({"specobjid": pa.array(ids, pa.uint64()), "z": z, "class": ["QSO", "QSO"]}), path)
    catalogue = Catalogue(prepare(path, "sdss", tmp_path / "out"))
    assert catalogue.lookup(str(BIG)) == {"class": "QSO", "z": 0.25}
    assert catalogue.lookup(str(BIG + 2048)) is None


def test_missing_values_do_not_overwrite_the_header(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("obsid,class,teff,logg,z\n1007,STAR,-9999,4.5,\n")
    catalogue = Catalogue(prepare(path, "lamost", tmp_path))
    spectrum = make_spectrum(7, np.random.default_rng(0))
    before = dict(spectrum.labels)
    assert catalogue.apply(spectrum)
    assert spectrum.labels == {**before, "class": "STAR", "logg": 4.5} and spectrum.label_source == "catalogue"
    other = make_spectrum(8, np.random.default_rng(0))
    assert not catalogue.apply(other) and other.label_source == "header"


def test_every_key_of_a_catalogue_is_found_and_no_other(tmp_path: Path) -> None:
    keys = np.random.default_rng(0).choice(10**9, 500, replace=False)
    path = tmp_path / "labels.csv"
    for rows in (keys, keys[:1], keys[:0]):
        path.write_text("obsid,z\n" + "".join(f"{key},{key % 7}\n" for key in rows))
        catalogue = Catalogue(prepare(path, "lamost", tmp_path))
        assert len(catalogue) == len(rows)
        assert all(catalogue.lookup(str(key)) == {"z": key % 7} for key in rows)
        assert all(catalogue.lookup(other) is None for other in ("", "-1", "0", "9" * 30, "x"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,z\n1,0\n", "no key column for lamost: expected obsid, found id, z"),
        ("obsid,x\n1,0\n", "no label column"),
        ("obsid,z\n1,0\n2,0\n1,0\n", "obsid repeats in 1 rows .such as 1"),
        ("", "not a readable table"),
    ],
)
def test_useless_catalogues_are_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(content)
    with pytest.raises(UsageError, match=message) as caught:
        prepare(path, "lamost", tmp_path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such catalogue"):
        prepare(tmp_path / "labels.csv", "lamost", tmp_path)
    (tmp_path / "labels.xlsx").write_bytes(b"")
    with pytest.raises(UsageError, match="unknown kind of catalogue"):
        prepare(tmp_path / "labels.xlsx", "lamost", tmp_path)
    (tmp_path / "labels.fits").write_bytes(b"not FITS")
    with pytest.raises(UsageError, match=r"labels\.fits: not a readable table"):
        prepare(tmp_path / "labels.fits", "lamost", tmp_path)


def test_a_join_that_matches_under_half_is_an_error() -> None:
    check_matches(50, 100, Path("c.csv"), [])
    with pytest.raises(JobError, match="only 49 of 100"):
        check_matches(49, 100, Path("c.csv"), ["1", "2"])


@pytest.mark.parametrize(
    ("file", "catalogue", "expected"),
    [
        (
            {"class": "STAR", "subclass": "K5"},
            {"class": "STAR", "subclass": "A6"},
            "type K in the file, A in the cat",
        ),
        ({"class": "STAR", "subclass": "G2"}, {"subclass": "G9V"}, None),
        (
            {"class": "STAR", "subclass": "G2"},
            {"class": "QSO", "subclass": "BROADLINE"},
            "class STAR in the file, QSO",
        ),
        ({"class": "STAR"}, {"subclass": "A1"}, None),
        ({"class": "GALAXY"}, {"teff": 5000.0}, None),
    ],
)
def test_what_file_and_catalogue_say_otherwise(
    tmp_path: Path, file: dict[str, str], catalogue: dict[str, object], expected: str | None
) -> None:
    (tmp_path / "c.csv").write_text(f"obsid,{','.join(catalogue)}\n7,{','.join(map(str, catalogue.values()))}\n")
    spectrum = make_spectrum(0, np.random.default_rng(0), object_id="7", labels=dict(file))
    assert Catalogue(prepare(tmp_path / "c.csv", "lamost", tmp_path)).apply(spectrum)
    found = conflict(spectrum)
    assert (found is None) if expected is None else (found or "").startswith(expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("z,z_err\n9999,0.001", (0.1, 1e-5, "header")),  # impossible: neither value nor error is taken
        ("z,z_err\n,0.02", (0.1, 1e-5, "header")),
        ("z_err,class\n0.02,STAR", (0.1, 1e-5, "catalogue")),
        ("z,z_err\n0.5,-1", (0.5, None, "catalogue")),
        ("z,z_err\n0.5,", (0.5, None, "catalogue")),
        ("z,z_err\n0.5,0.02", (0.5, 0.02, "catalogue")),
        ("z\n0.5", (0.5, 1e-5, "catalogue")),  # no such column: the file's stays
    ],
)
def test_a_value_and_its_error_are_of_one_source(
    tmp_path: Path, content: str, expected: tuple[float, float | None, str]
) -> None:
    header, _, row = content.partition("\n")
    (tmp_path / "c.csv").write_text(f"obsid,{header}\n7,{row}\n")
    labels = {"z": 0.1, "z_err": 1e-5}
    spectrum = make_spectrum(0, np.random.default_rng(0), object_id="7", labels=labels, label_source="header")
    assert Catalogue(prepare(tmp_path / "c.csv", "lamost", tmp_path)).apply(spectrum)
    assert (spectrum.labels["z"], spectrum.labels["z_err"], spectrum.label_source) == expected


@pytest.mark.parametrize(("said", "subclass"), [("QSO,", None), ("STAR,", "G2"), (",", "G2"), ("QSO,BL", "BL")])
def test_a_subclass_of_the_file_does_not_stand_under_another_class(
    tmp_path: Path, said: str, subclass: str | None
) -> None:
    (tmp_path / "c.csv").write_text(f"obsid,class,subclass,z\n7,{said},0.1\n")
    labels = {"class": "STAR", "subclass": "G2"}
    spectrum = make_spectrum(0, np.random.default_rng(0), object_id="7", labels=labels)
    assert Catalogue(prepare(tmp_path / "c.csv", "lamost", tmp_path)).apply(spectrum)
    assert spectrum.labels["subclass"] == subclass
    assert conflict(spectrum) == ("class STAR in the file, QSO in the catalogue" if "QSO" in said else None)

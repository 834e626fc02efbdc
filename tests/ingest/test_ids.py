"""Ids are exact or refused, wherever they enter: no object takes the name, or the labels, of its neighbour."""

from __future__ import annotations

import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from hypothesis import given
from hypothesis import strategies as st

from specshards.common.errors import BadObjectError, JobError, UsageError
from specshards.common.jobs import Engine
from specshards.ingest.catalogue.config import SelectConfig
from specshards.ingest.catalogue.labels import Catalogue
from specshards.ingest.catalogue.prepared import prepare
from specshards.ingest.catalogue.subset import select
from specshards.ingest.download.fetch import Policy
from specshards.ingest.download.job import download
from specshards.ingest.ids import id_text, id_texts, refuse_multiples
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.job.build import build as ingest
from specshards.ingest.spectra.folder import SpectraFolder
from specshards.ingest.spectra.objects import objects
from specshards.ingest.surveys import open_file, read_file
from specshards.ingest.surveys.lamost import object_id
from specshards.ingest.surveys.survey import SURVEYS, Reader, Survey, register
from tests.conftest import make_spectrum
from tests.oracles.mmu_tables import arrays_of, mock, spectrum_columns
from tests.oracles.survey_files import lamost_table, sdss_spec

TARGETIDS = [39627785483846390 + i for i in range(20)]
MEND = "write ids as integers or text"
HERE = Engine(workers=0)


def texts(values: Any, kind: pa.DataType | None = None) -> list[str | None]:
    found: list[str | None] = id_texts(pa.array(values, kind), "ID", "t.csv").to_pylist()
    return found


def outcome(values: Any, kind: pa.DataType) -> list[str | None] | None:
    """The ids, or None where they are refused, with the column and the mend in one line."""
    try:
        return texts(values, kind)
    except UsageError as error:
        assert str(error).startswith("t.csv: ") and "ID" in str(error) and str(error).endswith(MEND)
        assert "\n" not in str(error)
        return None


@given(st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**25)))
def test_an_id_comes_out_to_the_last_digit_or_not_at_all(number: int) -> None:
    exact = str(number)
    assert texts([number], pa.uint64() if number >= 0 else pa.int64()) == [exact]
    assert texts([f" {number} "]) == texts([exact.encode()]) == texts([f"b' {number}'"]) == [exact]
    assert texts([Decimal(number)], pa.decimal128(25, 2)) == [exact]
    assert id_text(number, "ID") == id_text(exact, "ID") == exact
    for kind, limit in ((pa.float64(), 2**53), (pa.float32(), 2**24), (pa.float16(), 2**11)):
        with np.errstate(over="ignore"):
            rounded = np.array([number], kind.to_pandas_dtype())
        assert outcome(rounded, kind) == ([exact] if abs(number) < limit else None)
    for written in (f"{number}.0", f"{number}.", f"{float(number):.3e}", f"{float(number):.5E}"):
        assert outcome([written], pa.string()) is None
        with pytest.raises(BadObjectError, match="rounds ids"):
            id_text(written, "ID")
    with pytest.raises(BadObjectError, match=r"ID = .* is a float"):
        id_text(float(number), "ID")


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1))
def test_names_stay_as_they_are_spelled(name: str) -> None:
    try:
        found = id_text(name, "ID")
    except BadObjectError:
        assert not any(letter.isalpha() and letter not in "eE" for letter in name)
        return
    assert found in (name, None) or name.startswith("b")
    assert texts([name]) == [found]


def said_of(values: Any, kind: pa.DataType | None = None) -> str | None:
    try:
        refuse_multiples(pa.array(values, kind), "ID")
    except BadObjectError as error:
        return error.reason
    return None


@given(st.lists(st.integers(2**55, 2**62), min_size=20, max_size=40, unique=True), st.booleans())
def test_integers_that_a_float_has_rounded_are_recognised(ids: list[int], short: bool) -> None:
    """As pandas makes them of a column with a missing value, once it is filled."""
    drawn = np.random.default_rng(ids).integers(2**29, 2**30, 20) if short else np.array(ids)
    kind = np.float32 if short else np.float64
    rounded = drawn.astype(kind).astype(np.int64)
    for values in (drawn, [str(number) for number in drawn]):
        if (drawn % 2).any():
            assert said_of(values) is None
    # Those that become one id are noticed as repeats.
    if (rounded % 1024).any() and len(np.unique(rounded)) > 15:
        for column in (rounded, [f" {number}" for number in rounded], rounded.astype(np.uint64)):
            assert f"is one that {kind.__name__} can hold" in str(said_of(column))
            with pytest.raises(UsageError, match=rf"t\.csv: column ID: every id .* been rounded; {MEND}"):
                texts(column)


def test_ids_that_are_round_by_themselves_are_taken() -> None:
    plates = [(4000 + i) << 50 | 7 << 38 | 5000 << 24 | 103 << 10 for i in range(40)]  # specObjIDs of SDSS
    assert said_of(plates) is None and said_of([str(number) for number in plates]) is None
    assert said_of(np.arange(1000, dtype=np.float32)) is None and said_of([2**30, None], pa.int64()) is None
    assert said_of([-(2**40), 5]) is None and said_of(["9" * 30, "x"]) is None and said_of([True]) is None


def test_what_is_no_id() -> None:
    nothing = ["", "  ", "nan", "NULL", "<NA>", None, "\0\0"]
    assert texts(nothing) == [None] * len(nothing) and texts([None, None]) == [None, None]
    assert texts([1.0, float("nan"), None, 7.0]) == ["1", None, None, "7"]
    assert [id_text(value, "ID") for value in (None, "", b"  ", float("nan"), np.ma.masked)] == [None] * 5
    for values, kind in (
        ([1.5], pa.float64()), ([float("inf")], pa.float64()), ([True], pa.bool_()), ([{"a": 1}], None),
        ([[1]], None), ([b"\xe9toile"], pa.binary()), ([Decimal("1.5")], None),
    ):  # fmt: skip
        assert outcome(values, pa.array(values, kind).type) is None
    # Hashes and names of parts that only look like numbers.
    assert texts(["1234e567", "3.045", "0007", "HD 1.0"]) == ["1234e567", "3.045", "0007", "HD 1.0"]
    assert texts(["a", "b"], pa.dictionary(pa.int8(), pa.string())) == ["a", "b"]


def catalogue(path: Path, kind: str, values: list[Any], name: str = "TARGETID") -> Path:
    path = path / f"c-{kind}.{kind.partition('-')[0]}"
    columns = {name: np.array(values), "Z": np.arange(len(values)) / 100, "SPECTYPE": ["STAR"] * len(values)}
    if kind == "csv":
        rows = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
        path.write_text("\n".join([",".join(columns), *rows]) + "\n")
    elif kind == "fits":
        Table(columns).write(path, overwrite=True)
    else:
        pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("kind", ["csv", "fits", "parquet"])
@pytest.mark.parametrize(("survey", "ids"), [("desi", np.array(TARGETIDS, float)),
                                             ("lamost", np.array([101401001, 101401002], np.float32))])  # fmt: skip
def test_a_catalogue_of_rounded_keys_is_refused(tmp_path: Path, kind: str, survey: str, ids: Any) -> None:
    name = SURVEYS[survey].keys[0]
    path = catalogue(tmp_path, kind, list(ids), name)
    for use in (
        lambda: prepare(path, survey, tmp_path / "out"),
        lambda: select(path, tmp_path / "subset.parquet", SelectConfig(survey=survey)),
    ):
        with pytest.raises(UsageError, match=f"(?i){path.name}: .*{name}.*{MEND}"):
            use()
    assert not (tmp_path / "subset.parquet").exists()


def test_a_catalogue_of_floats_that_are_exact_is_read(tmp_path: Path) -> None:
    for kind in ("fits", "parquet"):
        path = catalogue(tmp_path, kind, [101401001.0, 101401002.0], "obsid")
        assert Catalogue(prepare(path, "lamost", tmp_path / kind)).lookup("101401002") == {"class": "STAR", "z": 0.01}


@pytest.mark.parametrize("kind", ["fits", "parquet"])
def test_a_masked_key_is_no_key(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"c.{kind}"
    if kind == "fits":  # TNULL stands for what is masked
        masked = MaskedColumn([5, 7, 9], mask=[False, True, True], dtype=np.int64)
        Table({"obsid": masked, "z": [0.1, 0.2, 0.3]}).write(path)
    else:
        pq.write_table(pa.table({"obsid": pa.array([5, None, None], pa.int64()), "z": [0.1, 0.2, 0.3]}), path)
    assert len(Catalogue(prepare(path, "lamost", tmp_path))) == 1


def test_a_catalogue_that_has_the_id_at_another_place_gives_no_labels(tmp_path: Path) -> None:
    """As of an id that was rounded on its way, and is another object's."""
    path = tmp_path / "c.csv"
    near = 8 / 3600
    path.write_text(f"obsid,z,ra,dec\n1,0.1,10,{20 + near}\n2,0.2,10,20.01\n3,0.3,-350,20\n4,0.4,,\n5,0.5,11,21\n")
    catalogue = Catalogue(prepare(path, "lamost", tmp_path))
    rng = np.random.default_rng(0)
    said = []
    for number in range(1, 6):
        spectrum = make_spectrum(0, rng, object_id=str(number), ra=np.nan if number == 5 else 10.0, dec=20.0)
        try:
            said.append((catalogue.apply(spectrum), spectrum.labels["z"], spectrum.ra))
        except BadObjectError as error:
            said.append(error.reason)
    assert said[0] == (True, 0.1, 10.0) and said[2:] == [(True, 0.3, 10.0), (True, 0.4, 10.0), (True, 0.5, 11.0)]
    assert said[1] == (
        "2 is at 10.0000 +20.0000, in the catalogue at 10.0000 +20.0100, 0.01 degrees from there: its labels are "
        "another object's"
    )


def test_objects_at_other_places_than_in_the_catalogue_are_counted_together(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for obsid in range(1, 7):
        lamost_table(data / f"{obsid}.fits", OBSID=obsid, RA=10.0 * obsid, DEC=20.0)
    rows = "".join(f"{i},0.1,{10 * i + (i < 3)},20\n" for i in range(1, 7))
    (tmp_path / "c.csv").write_text(f"obsid,z,ra,dec\n{rows}")
    summary = ingest(
        IngestConfig("lamost"), str(data), tmp_path / "out", catalogue=tmp_path / "c.csv", engine=Engine(workers=0),
        max_bad_fraction=0.5,
    )  # fmt: skip
    assert summary.reasons == {"at another place than in the catalogue: its labels are another object's": 2}


@pytest.mark.parametrize("kind", ["csv", "fits", "parquet"])
def test_nothing_is_fetched_for_a_rounded_id(tmp_path: Path, kind: str) -> None:
    for survey, ids in (("sdss", [float(2**62)]), ("lamost", list(np.array([101401001], np.float32)))):
        path = catalogue(tmp_path, kind, ids, "specobjid" if survey == "sdss" else "obsid")
        with pytest.raises(UsageError, match=MEND):
            download(survey, path, tmp_path / "out", policy=Policy(), base="http://127.0.0.1:1")
        assert not (tmp_path / "out").exists()


def table(ids: Any, name: str = "targetid") -> pa.Table:
    n = len(ids)
    columns = {"ra": np.arange(n) * 3.0, "dec": np.arange(n) * 0.1 - 5.0, "survey": ["desi"] * n, name: ids}
    return pa.table({**spectrum_columns(mock(n), "struct"), **columns})


def refused(path: Path, out: Path, message: str) -> None:
    """Every use of the table at `path` says so in one line, and makes nothing."""
    bad: list[dict[str, Any]] = []
    with pytest.raises(JobError, match=f"no usable spectrum .*{message}"):
        ingest(IngestConfig(), str(path), out, engine=HERE)
    assert not list((out / "spectra").iterdir())
    assert pq.read_table(out / "ingest/quarantine.parquet").num_rows == 1
    with pytest.raises(UsageError, match=message):
        SpectraFolder.scan(path)
    with pytest.raises(UsageError, match=message):
        list(objects(path, bad))
    with pytest.raises(BadObjectError, match=message):
        list(open_file(path).objects())


def test_spectra_of_rounded_ids_are_refused_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    late = np.arange(20.0)
    late[-1] = 2.0**53
    again = (
        (np.array(TARGETIDS) + 1001 * np.arange(20)).astype(float).astype(np.int64)
    )  # integers, but they were floats
    wrong = (np.array(TARGETIDS, float), np.arange(20, dtype=np.float32) + 2**24, late, again, list(map(str, again)))
    for number, ids in enumerate(wrong):
        pq.write_table(table(ids), path)
        refused(path, tmp_path / f"out-{number}", rf"column targetid( is (double|float),|: every id) .*{MEND}")


def test_an_hdf5_table_of_rounded_ids_is_refused(tmp_path: Path) -> None:
    parts = arrays_of(mock(20))
    for kind in (float, int):
        path = tmp_path / f"{kind.__name__}.hdf5"
        with h5py.File(path, "w") as file:
            file["object_id"], file["ra"], file["dec"] = np.array(TARGETIDS, kind), np.arange(20.0), np.arange(20.0)
            for name, values in parts.items():
                file[f"spectrum_{name}"] = values
    names = [getattr(item, "object_id", None) for item in open_file(path).objects()]
    assert names == list(map(str, TARGETIDS))
    with pytest.raises(BadObjectError, match=f"column object_id is double.*{MEND}"):
        list(open_file(tmp_path / "float.hdf5").objects())


def test_spectra_of_exact_floats_are_read_and_text_of_floats_is_a_bad_object(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(table(np.array([5.0, 2.0**53 - 1, np.nan])), path)
    found = list(open_file(path).objects())
    assert [getattr(item, "object_id", str(item)) for item in found] == ["5", str(2**53 - 1), "no object_id"]
    pq.write_table(table(["39627785483846390", "3.9e+16", "7.0"]), path)
    bad: list[dict[str, Any]] = []
    assert [meta["object_id"] for meta, _ in objects(path, bad)] == ["39627785483846390"]
    assert [row["row"] for row in bad] == [1, 2] and all(MEND in row["reason"] for row in bad)


@pytest.mark.parametrize(
    ("value", "found"), [(101401001, "101401001"), ("101401001 ", "101401001"), (-5, "56000-P-01-002"),
                         (None, "56000-P-01-002"), (1.01401e8, None), ("101401001.0", None)]
)  # fmt: skip
def test_an_obsid_of_a_header(value: Any, found: str | None) -> None:
    header = {"OBSID": value, "LMJD": 56000, "PLANID": "P", "SPID": 1, "FIBERID": 2}
    if found is not None:
        assert object_id(header) == found
        return
    with pytest.raises(BadObjectError, match=f"OBSID.*{MEND}"):
        object_id(header)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, "299492975510054912"), ({"SPECOBJID": 299492975510054912}, "299492975510054912"),
        ({"SPECOBJID": 299492975510054912.0}, "SPECOBJID = .*is a float, which rounds ids"),
        ({"SPECOBJID": "2.9949E+17"}, "SPECOBJID holds '2.9949E.17', the text of a float"),
        ({"SPECOBJID": None}, "266-51602-13"), ({"SPECOBJID": 0}, "266-51602-13"),
        ({"SPECOBJID": None, "PLATE": 266.5}, "PLATE = .*is a float"),
    ],
)  # fmt: skip
def test_a_specobjid_of_a_file(tmp_path: Path, changes: dict[str, Any], found: str) -> None:
    path = sdss_spec(tmp_path / "s.fits", **changes)
    if "float" not in found:
        assert read_file(path).object_id == found
        return
    with pytest.raises(BadObjectError, match=f"{found}.*{MEND}"):
        read_file(path)


def test_an_obsid_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(BadObjectError, match=f"OBSID = 101401001.0 is a float.*{MEND}"):
        read_file(lamost_table(tmp_path / "s.fits", OBSID=101401001.0))


def test_labels_of_rounded_targetids_beside_a_coadd_are_refused(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "desi" / "fastspecfit"
    coadd = folder / "coadd-4-80613-thru20210324.fits"
    shutil.copy(coadd, tmp_path)
    with fits.open(folder / "redrock-4-80613-thru20210324.fits") as hdus:
        labels = Table(hdus[1].data)
    labels["TARGETID"] = labels["TARGETID"].astype(float)
    labels.write(tmp_path / "redrock-4-80613-thru20210324.fits")
    with pytest.raises(BadObjectError, match=r"redrock-4.* TARGETID that is not a column of integers"):
        list(open_file(tmp_path / coadd.name).objects())


def test_a_reader_of_ones_own_cannot_give_a_float(tmp_path: Path) -> None:
    def read(file: Any, layout: str, source_file: str) -> Any:
        for row, name in enumerate((np.int64(TARGETIDS[1]), 1.5e16, "7.0", " ok ", None)):
            spectrum = make_spectrum(row, np.random.default_rng(0))
            spectrum.object_id, spectrum.row = name, row  # type: ignore[assignment]
            yield spectrum

    register(Survey("ids-test", (Reader(lambda file: "ids" if "own" in file.names else None, read, takes="table"),)))
    pq.write_table(pa.table({"own": [1]}), tmp_path / "t.parquet")
    found = list(open_file(tmp_path / "t.parquet").objects())
    said = [item.reason if isinstance(item, BadObjectError) else item.object_id for item in found]
    assert said[0] == str(TARGETIDS[1]) and said[3:] == ["ok", "no object_id"]
    assert "1.5e+16 is a float" in said[1] and "'7.0', the text of a float" in said[2]


@pytest.mark.parametrize("name", ["desifloat", "floatid"])
def test_real_tables_of_rounded_ids_are_refused(real_data: Path, tmp_path: Path, name: str) -> None:
    message = f"rounds whole numbers from {2**53} on.*{MEND}"
    if name == "desifloat":
        given = {"catalogue": real_data / "faults" / "desifloat_catalogue.csv", "engine": HERE}
        with pytest.raises(JobError, match=message):
            ingest(IngestConfig(survey="desi"), str(real_data / "faults/desifloat.parquet"), tmp_path / "in", **given)
    refused(real_data / "faults" / f"{name}.parquet", tmp_path / "out", message)


def test_a_real_catalogue_of_rounded_ids_is_refused(real_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"column TARGETID is double.*{MEND}"):
        prepare(real_data / "faults/float_targetid_catalogue.parquet", "desi", tmp_path)

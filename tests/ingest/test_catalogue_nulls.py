"""Catalogues as programs write them: masked values, odd headers, and columns of the wrong kind."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table

from specshards.common.errors import UsageError
from specshards.ingest.catalogue.config import SelectConfig
from specshards.ingest.catalogue.labels import Catalogue
from specshards.ingest.catalogue.prepared import prepare, unread
from specshards.ingest.catalogue.rows import open_rows
from specshards.ingest.catalogue.subset import select
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.surveys import read_file
from specshards.ingest.surveys.common import number
from tests.oracles.survey_files import sdss_spec


def joined(path: Path, survey: str = "lamost") -> Catalogue:
    return Catalogue(prepare(path, survey, path.parent / "out"))


def masked_table(path: Path) -> Path:
    columns = [
        fits.Column("obsid", "K", null=-1, array=np.array([1, 2, -1, 4])),
        fits.Column("teff", "K", null=999999, array=np.array([5000, 999999, 6000, 999999])),
        fits.Column("logg", "I", null=-32768, array=np.array([450, -32768, 430, 420])),
        fits.Column("zwarning", "J", null=7, bzero=2**31, array=np.array([0, 4, 4, 7], np.uint32)),
        fits.Column("ok", "L", array=np.array([True, False, True, False])),
        fits.Column("flags", "2J", null=9, array=np.array([[1, 9], [2, 3], [9, 9], [4, 5]])),
    ]
    table = fits.BinTableHDU.from_columns(columns)
    table.writeto(path)
    row = table.header["NAXIS1"]
    content = bytearray(path.read_bytes())
    content[-2880 + 2 * row + 22] = 0  # ok of the third row
    card = b"TNULL3  =               -32768"
    at = content.index(card)
    end = content.index(b"END" + b" " * 77, at)
    content[end : end + 160] = b"TSCAL3  =                 0.01".ljust(80) + b"END".ljust(80)
    path.write_bytes(bytes(content))
    return path


def test_masked_values_of_a_fits_catalogue_are_missing(tmp_path: Path) -> None:
    path = masked_table(tmp_path / "c.fits")
    table = pa.concat_tables(open_rows(path).tables(None))
    assert table["obsid"].to_pylist() == [1, 2, None, 4] and table["teff"].to_pylist() == [5000, None, 6000, None]
    logg = table["logg"].to_pylist()
    assert logg[1] is None and [round(value, 6) for value in logg if value is not None] == [4.5, 4.3, 4.2]
    assert table["ok"].to_pylist() == [True, False, None, False]
    assert table["flags"].to_pylist() == [[1, None], [2, 3], [None, None], [4, 5]]
    assert next(iter(open_rows(path).batches(["teff"]))) == {"teff": [5000, None, 6000, None]}
    catalogue = joined(path)
    assert len(catalogue) == 3  # a masked key is no key
    assert catalogue.lookup("2") == {"teff": None, "logg": None, "zwarning": 4.0}
    select(path, tmp_path / "o.parquet", SelectConfig(where="teff is null", survey="lamost"))
    copy = pq.read_table(tmp_path / "o.parquet")
    assert copy["obsid"].to_pylist() == [2, 4] and copy["teff"].null_count == 2


def test_the_masked_catalogue_that_went_wrong(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "faults" / "masked_integers_catalogue.fits"
    if not source.is_file():
        pytest.skip(f"no {source}")
    catalogue = Catalogue(prepare(source, "lamost", tmp_path))
    values = [row["teff"] for row in open_rows(source).tables(["teff"]) for row in row.to_pylist()]
    assert len(catalogue) == 40 and set(values) == {None, 5000} and values.count(None) == 20


@pytest.mark.parametrize("kind", ["fits", "ecsv", "parquet", "csv"])
def test_masked_columns_of_astropy_tables_are_missing(tmp_path: Path, kind: str) -> None:
    table = Table({"obsid": [1, 2, 3], "z": MaskedColumn([0.1, 0.2, 0.3], mask=[False, True, False])})
    table["teff"] = MaskedColumn([5000, 6000, 7000], mask=[False, True, False])
    table["class"] = MaskedColumn(["STAR", "QSO", "STAR"], mask=[False, True, False])
    path = tmp_path / f"c.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({n: pa.array(c.tolist()) for n, c in table.columns.items()}), path)
    else:
        table.write(path, format={"csv": "ascii.csv", "ecsv": "ascii.ecsv", "fits": "fits"}[kind])
    catalogue = joined(path)
    assert catalogue.lookup("2") == {"class": None, "z": None, "teff": None}
    assert catalogue.lookup("3") == {"class": "STAR", "z": 0.3, "teff": 7000.0}


def test_masked_labels_of_a_survey_file_are_missing(tmp_path: Path) -> None:
    with fits.open(sdss_spec(tmp_path / "a.fits")) as hdus:
        names = [column.name for column in hdus[2].columns]
        place = next(i for i, name in enumerate(names) if name.lower() == "zwarning")
        hdus[2].header[f"TNULL{place + 1}"] = 77
        hdus[2].data[names[place]] = 77
        hdus.writeto(tmp_path / "b.fits")
    file = FitsFile.open(tmp_path / "b.fits")
    assert file[2].column("zwarning")[0] is np.ma.masked and file.parser == "direct"
    assert read_file(tmp_path / "b.fits").labels["zwarning"] is None
    assert file.with_astropy()[2].column("zwarning")[0] is np.ma.masked


@pytest.mark.parametrize(
    "content",
    [
        "obsid, z, class\n7, 0.5, STAR\n",
        "#obsid,z,class\n7,0.5,STAR\n",
        "# obsid,z,class\n7,0.5,STAR\n",
        "# made by hand\n# two lines\nobsid,z,class\n7,0.5,STAR\n",
        "# made by hand, twice\nobsid,z,class\n7,0.5,STAR\n",
        "\ufeffobsid,z,class\n7,0.5,STAR\n",
        '"obsid","z","class"\n"7","0.5","STAR"\n',
        "OBSID;Z;Class\n7;0.5;STAR\n",
        "obsid\tz\tclass\n7\t0.5\tSTAR\n",
        "obsid,z,class,\n7,0.5,STAR,\n",
        "obsid,z,class\r\n7,0.5,STAR\r\n",
        "obsid,z,class,notes\n,,,deg\n7,0.5,STAR,\n",
        "obsid,z,class,teff\n7,0.5,STAR,--\n8,N/A,null,nan\n9,NULL,,None\n",
        "obsid|z|class\n7|0.5|STAR  \n",
        "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: obsid}\n# delimiter: ','\nobsid,z,class\n7,0.5,STAR\n",
        "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: obsid, datatype: int64}\nobsid z class\n7 0.5 STAR\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("packed", [False, True])
def test_headers_of_every_program_are_read(tmp_path: Path, content: str, packed: bool) -> None:
    path = tmp_path / ("c.csv.gz" if packed else "c.csv")
    path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    row = joined(path).lookup("7")
    assert (
        row is not None
        and (row["z"], row["class"]) == (0.5, "STAR")
        and not unread(tmp_path / "out" / "catalogue.arrow")
    )
    rows = open_rows(path)
    assert {"obsid", "z", "class"} <= {name.lower() for name in rows.columns}
    assert next(iter(rows.batches([rows.columns[0]])))[rows.columns[0]]
    for other in ("8", "9"):
        if (row := joined(path).lookup(other)) is not None:
            assert set(row.values()) == {None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"obsid,z,z\n1,0.5,0.6\n", "several columns named z; rename all but one"),
        (b"obsid,z,Z\n1,0.5,0.6\n", "columns z and Z differ by case alone; rename all but one"),
        (b"obsid;z\n1;0,5\n2;0,7\n", "z is written with decimal commas (0,5); write decimal points"),
        (b'obsid, "z"\n1, "0.5"\n', "blanks between delimiter and quote"),
        ("obsid,z\n1,0.5\n".encode("utf-16"), "not text in UTF-8; save it as CSV"),
        (b"obsid,z\n1,0.5,7\n", "not a readable table"),
        (b"obsid,z,ra,dec\n1,0.5,10:20:30.5,-5:10:00\n", "ra is in sexagesimal (10:20:30.5): give degrees"),
        (b"obsid,z,ra,dec\n1,0.5,10 20 30.5,-5 10 00\n", "ra is in sexagesimal (10 20 30.5): give degrees"),
        (b"obsid,z,plug_ra,target_ra\n1,0.5,10,20\n", "columns plug_ra and target_ra both mean ra; rename or drop"),
        (b"# only a note\n", "not a readable table: no header"),
        (b"obsid z\n1 0.5\n", "no key column for lamost: expected obsid, found obsid z"),
        (b"obsid,subclass\n1,caf\xe9\n", "not a readable table"),
    ],
)
def test_what_cannot_be_read_rightly_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        joined(path)
    assert message in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"z": [[0.5], [0.6]]}, "z holds list<element: double>, where one number or text a row belongs"),
        ({"z": [{"a": 1}, {"a": 2}]}, "z holds struct<a: int64>, where"),
        ({"z": [True, False]}, "z holds true and false, where numbers belong"),
        ({"obsid": [{"a": 1}, {"a": 2}], "z": [0.5, 0.6]}, "obsid is of type struct<a: int64>, which holds no ids"),
        ({"obsid": [[1], [2]], "z": [0.5, 0.6]}, "column obsid is of type list<element: int64>, which holds no ids"),
        ({"class": [["STAR"], ["QSO"]]}, "class holds list<element: string>, where"),
    ],
)  # fmt: skip
def test_columns_of_the_wrong_kind_are_one_line(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    pq.write_table(pa.table({"obsid": [1, 2], **columns}), tmp_path / "c.parquet")
    with pytest.raises(UsageError) as caught:
        joined(tmp_path / "c.parquet")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_digits_with_underscores_are_no_number(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("obsid,z,class\n1,1_5,STAR\n")
    assert (joined(tmp_path / "c.csv").lookup("1") or {})["z"] is None
    assert unread(tmp_path / "out" / "catalogue.arrow").examples == {"z": [["1_5", "in z"]]}
    assert number("1_5") is number(b"1_5") is None and number("15") == 15


def test_labels_of_any_type_of_number_and_text_are_read(tmp_path: Path) -> None:
    columns = {
        "obsid": pa.array([1, 2, 3], pa.uint64()), "z": pa.array(["0.5", " ", "word"]),
        "teff": pa.array([5000, None, 6000], pa.int16()), "logg": pa.array([4.5, np.nan, -9999.0], pa.float32()),
        "zwarning": pa.array([b"4", b"", b"N/A"]), "class": pa.array(["STAR", "QSO", None]).dictionary_encode(),
        "feh": pa.nulls(3), "subclass": pa.array([b"K5 ", b"Non", None]),
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "c.parquet")
    catalogue = joined(tmp_path / "c.parquet")
    assert catalogue.lookup("1") == {
        "class": "STAR", "subclass": "K5", "z": 0.5, "teff": 5000.0, "logg": 4.5, "feh": None, "zwarning": 4.0,
    }  # fmt: skip
    assert [value for value in (catalogue.lookup("2") or {}).values() if value is not None] == ["QSO"]
    assert (catalogue.lookup("3") or {})["z"] is None
    assert unread(tmp_path / "out" / "catalogue.arrow").counts == {"z": 1}


def test_of_two_columns_of_one_meaning_that_of_the_name_is_taken_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "c.csv").write_text("obsid,SPECTYPE,class,zerr,z_err,z,fe_h\n7,QSO,STAR,0.5,0.001,0.1,-1\n")
    with caplog.at_level("INFO"):
        row = joined(tmp_path / "c.csv").lookup("7") or {}
    assert (row["class"], row["z_err"], row["feh"]) == ("STAR", 0.001, -1.0)
    assert "column class is taken for class, and not SPECTYPE" in caplog.text
    assert "column z_err is taken for z_err, and not zerr" in caplog.text and "feh" not in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        select(tmp_path / "c.csv", tmp_path / "o.parquet", SelectConfig(where="z_err < 0.1", survey="lamost"))
    assert "column z_err is taken for z_err, and not zerr" in caplog.text


def test_the_first_table_of_a_fits_file_is_the_catalogue(tmp_path: Path) -> None:
    table = fits.BinTableHDU(Table({"obsid": [1, 2], "z": [0.1, 0.2], "class": ["STAR", "QSO"], "c": [1j, 2j]}))
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((2, 2))), table]).writeto(tmp_path / "c.fits")
    assert joined(tmp_path / "c.fits").lookup("2") == {"class": "QSO", "z": 0.2}  # c is not needed
    with pytest.raises(UsageError, match=r"c\.fits: column c holds complex numbers, which Parquet has not; drop it"):
        select(tmp_path / "c.fits", tmp_path / "o.parquet", SelectConfig(survey="lamost"))
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((2, 2)))]).writeto(tmp_path / "d.fits")
    with pytest.raises(UsageError, match=r"d\.fits: no table in it"):
        joined(tmp_path / "d.fits")

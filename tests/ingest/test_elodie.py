"""Teff, log g and [Fe/H] that SDSS takes from the ELODIE library: in its files, in its catalogues, and where the fit
failed, which the columns beside them tell."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from specshards.common.errors import JobError
from specshards.common.jobs import Engine
from specshards.common.spectrum import Spectrum
from specshards.ingest import inspect
from specshards.ingest.catalogue.config import SelectConfig
from specshards.ingest.catalogue.subset import select
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.job.build import build as ingest
from specshards.ingest.job.summary import Summary
from specshards.ingest.surveys import open_file, read_file
from tests.conftest import ROOT
from tests.oracles.survey_files import sdss_spec

HERE = Engine(workers=0)
STAR: dict[str, Any] = {
    "CLASS": "STAR", "Z": 1e-4, "ELODIE_TEFF": 5800.0, "ELODIE_LOGG": 4.4, "ELODIE_FEH": 0.0, "ELODIE_DOF": 2100,
    "ELODIE_RCHI2": 1.2,
}  # fmt: skip


def stellar(spectrum: Spectrum) -> tuple[float | None, ...]:
    return tuple(spectrum.labels.get(name) for name in ("teff", "logg", "feh"))


@pytest.mark.parametrize("upper", [False, True])
def test_a_star_has_them_and_solar_metallicity_is_a_value(tmp_path: Path, upper: bool) -> None:
    spectrum = read_file(sdss_spec(tmp_path / "a.fits", upper=upper, **STAR))
    assert stellar(spectrum) == (5800.0, 4.4, 0.0) and not spectrum.told()
    assert "teff 5800 K, logg 4.4 dex, feh 0 dex" in inspect.facts(spectrum)["labels"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ELODIE_TEFF": 0.0, "ELODIE_LOGG": 0.0}, (None, None, None)),
        ({"ELODIE_TEFF": 0.0}, (None, None, None)),
        ({"ELODIE_LOGG": 0.0}, (5800.0, None, 0.0)),  # of a library star without gravity
        ({"ELODIE_TEFF": 99999.0}, (None, 4.4, 0.0)),
        ({"CLASS": "GALAXY"}, (None, None, None)),  # nothing is fitted to one
        ({"CLASS": "QSO"}, (None, None, None)),
        ({"ELODIE_DOF": 0, "ELODIE_RCHI2": 0.0}, (None, None, None)),
        ({"ELODIE_DOF": None, "ELODIE_RCHI2": None}, (5800.0, 4.4, 0.0)),
        ({"ELODIE_TEFF": None, "ELODIE_LOGG": None, "ELODIE_FEH": None}, (None, None, None)),
    ],
)
def test_what_says_nothing_is_missing(
    tmp_path: Path, changes: dict[str, Any], expected: tuple[float | None, ...]
) -> None:
    path = sdss_spec(tmp_path / "a.fits", **{**STAR, **changes})
    (spectrum,) = open_file(path).objects()
    assert isinstance(spectrum, Spectrum)
    assert stellar(spectrum) == expected
    has_failed = changes.get("ELODIE_DOF", 1) == 0
    assert bool(spectrum.told()) == has_failed
    assert ("the fit with ELODIE failed" in inspect.facts(spectrum)["labels"]) == has_failed


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Four stars, 11 to 14, at their own places; the fit to 13 failed."""
    (tmp_path / "files").mkdir()
    for i in range(4):
        labels = {**STAR, "SPECOBJID": str(11 + i), "PLUG_RA": 10.0 * i, "ELODIE_DOF": 0 if i == 2 else 2000}
        sdss_spec(tmp_path / "files" / f"{i}.fits", **labels)
    return tmp_path


def joined(files: Path, text: str, name: str = "data", **options: Any) -> tuple[Summary, dict[str, tuple[Any, ...]]]:
    """The account, and what the spectra say by object."""
    catalogue = None
    if text:
        catalogue = files / f"{name}.csv"
        catalogue.write_text(text)
    config = IngestConfig(survey="sdss", **options)
    summary = ingest(config, str(files / "files"), files / name, catalogue=catalogue, engine=HERE)
    table = pa.concat_tables(map(pq.read_table, sorted((files / name / "spectra").iterdir())))
    columns = ("object_id", "teff", "logg", "feh", "label_source")
    return summary, {row[0]: row[1:] for row in zip(*(table[c].to_pylist() for c in columns), strict=True)}


def approximately(*values: float | None) -> list[Any]:
    return [None if value is None else pytest.approx(value) for value in values]


def test_the_summary_counts_what_failed(files: Path) -> None:
    summary, found = joined(files, "")
    assert found["13"] == (None, None, None, "table") and list(found["11"][:3]) == approximately(5800, 4.4, 0)
    assert any("of 1 samples the fit with ELODIE failed" in line for line in summary.table().splitlines())


@pytest.mark.parametrize(
    "names",
    [("specObjID", "elodieTEff", "elodieLogG", "elodieFeH", "elodieDOF"),
     ("SPECOBJID", "ELODIE_TEFF", "ELODIE_LOGG", "ELODIE_FEH", "ELODIE_DOF"),
     ("specobjid", "elodieteff", "elodielogg", "elodiefeh", "elodiedof"),
     ("specobjid", "elodieTEff", "elodie_logg", "ELODIE_FEH", "elodieDOF"),
     ("specobjid", "elodie_teff", "elodieLogG", "elodieFeH", "elodie_dof")],
)  # fmt: skip
def test_a_catalogue_with_nothing_else_is_one(files: Path, names: tuple[str, ...]) -> None:
    rows = "11,4800,2.5,-1.5,2000\n12,0,0,0,0\n13,9899,2.924,0.09,0\n14,5000,0,0,1900\n"
    summary, found = joined(files, ",".join(names) + "\n" + rows)
    assert list(found["11"]) == [*approximately(4800, 2.5, -1.5), "catalogue"]
    assert list(found["12"][:3]) == approximately(5800, 4.4, 0)  # the catalogue says nothing, the file does
    assert found["13"][:3] == (None, None, None)
    assert list(found["14"][:3]) == approximately(5000, 4.4, 0)
    table = summary.table()
    assert f"{names[1]} is taken for teff" in table
    for name, rows_lost in zip(names[1:4], (2, 3, 2), strict=True):  # with the zeros, but for the solar one
        assert f"{name} says nothing in {rows_lost} rows" in table
    assert "nobody can tell" not in table and "not used" not in table


WITHOUT_DOF = "specObjID,elodieTEff,elodieLogG,elodieFeH\n11,4800,2.5,-1.5\n12,0,0,0\n13,9899,2.9,0\n"


def test_what_the_file_knows_to_be_failed_is_not_taken_of_a_catalogue(files: Path) -> None:
    summary, found = joined(files, WITHOUT_DOF)
    assert list(found["11"][:3]) == approximately(4800, 2.5, -1.5)
    assert list(found["12"][:3]) == approximately(5800, 4.4, 0)
    assert found["13"] == (None, None, None, "table")
    table = summary.table()
    assert "of 1 samples the fit with ELODIE failed (0 degrees of freedom): its teff, logg and feh are not" in table
    assert "nobody can tell" not in table  # each file does
    for where in ("teff > 9000", "elodieTEff > 9000"):
        _, found = joined(files, WITHOUT_DOF, f"cut-{where[:4]}", where=f"{where} or teff == 4800")
        assert found.keys() == {"11"}


def test_the_file_tells_of_its_own_fit_whatever_the_catalogue_says(files: Path) -> None:
    text = "specObjID,elodieTEff,elodie_DOF\n11,4800,2000\n13,9899,2000\n"
    assert joined(files, text)[1]["13"] == (None, None, None, "table")


@pytest.mark.parametrize(
    ("head", "row", "expected", "lost"),
    [
        ("teff_lasp,logg_lasp,feh_lasp", "5000,4.1,-0.5", (5000, 4.1, -0.5), None),
        ("teffadop,loggadop,fehadop", "5000,4.1,-0.5", (5000, 4.1, -0.5), None),
        ("teff,logg,feh", "5000,4.1,-0.5", (5000, 4.1, -0.5), None),
        ("teff,logg,feh", "5000,,-0.5", (5000, None, -0.5), "logg is"),
        ("teff", "5000", (5000, None, None), "logg and feh are"),
        ("teff,elodieTEff,elodieLogG,elodie_FeH", "5000,9899,2.9,0.09", (5000, None, None), "logg and feh are"),
    ],
)
def test_labels_of_other_pipelines_are_taken_in_place_of_a_failed_fit(
    files: Path, head: str, row: str, expected: tuple[float | None, ...], lost: str | None
) -> None:
    summary, found = joined(files, f"specObjID,{head}\n11,{row}\n12,{row}\n13,{row}\n")
    assert list(found["13"]) == [*approximately(*expected), "catalogue"]
    said = [line for line in summary.table().splitlines() if "failed" in line]
    wanted = f"of 1 samples the fit with ELODIE failed (0 degrees of freedom): its {lost} not taken"
    assert said == ([] if lost is None else [wanted])


def test_where_neither_file_nor_catalogue_tells_it_is_said(files: Path) -> None:
    labels = {**STAR, "SPECOBJID": "11", "ELODIE_DOF": None, "ELODIE_RCHI2": None}
    (files / "files" / "0.fits").unlink()
    sdss_spec(files / "files" / "0.fits", **labels)
    summary, found = joined(files, WITHOUT_DOF)
    assert list(found["11"][:3]) == approximately(4800, 2.5, -1.5)
    assert "of 1 samples ELODIE's degrees of freedom (elodieDOF) are not known" in summary.table()
    with_dof = "specObjID,elodieTEff,elodieDOF\n11,4800,2000\n13,9899,0\n"
    assert "not known" not in joined(files, with_dof, "with-dof")[0].table()


def test_filters_see_what_is_kept(files: Path) -> None:
    text = "specObjID,class,elodieTEff,elodieLogG,elodieFeH,elodieDOF\n"
    text += "11,STAR,4800,2.5,-1.5,2000\n12,STAR,0,0,0,0\n13,STAR,9899,0.5,0.09,0\n14,STAR,5000,0.7,0,1900\n"
    _, found = joined(files, text, where="logg < 1")
    assert found.keys() == {"14"}
    out = files / "chosen.parquet"
    select(files / "data.csv", out, SelectConfig(survey="sdss", where="logg < 1"))
    assert pq.read_table(out)["specObjID"].to_pylist() == ["14"]


def test_a_subset_leaves_out_what_failed_also_where_a_column_names_the_survey(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [("11", 4800, 2000), ("12", 0, 0), ("13", 9899, 0), ("14", 5000, 1900)]
    for survey in (None, "sdss"):
        for with_dof in (True, False):
            head = "specObjID,survey,class,elodieTEff" + ",elodie_dof" * with_dof
            lines = [",".join(map(str, (i, "sdss", "STAR", teff, *[dof] * with_dof))) for i, teff, dof in rows]
            (tmp_path / "all.csv").write_text("\n".join([head, *lines]) + "\n")
            out = tmp_path / f"{survey}-{with_dof}.parquet"
            caplog.clear()
            select(tmp_path / "all.csv", out, SelectConfig(survey=survey, where="teff > 4900"))
            assert pq.read_table(out)["specObjID"].to_pylist() == (["14"] if with_dof else ["13", "14"])
            assert ("nobody can tell" in caplog.text) != with_dof


@pytest.mark.parametrize("where", ["elodieTEff is not null", "elodieTEff > 0 and teff > 0"])
def test_a_filter_may_ask_for_the_column_by_its_name(files: Path, where: str) -> None:
    text = "specObjID,elodieTEff,elodieDOF\n11,4800,2000\n12,0,0\n13,9899,0\n14,5000,1900\n"
    summary, found = joined(files, text, where=where)
    assert found.keys() == {"11", "14"}
    assert "elodieTEff says nothing in 2 rows" in summary.table()


def test_what_says_something_in_every_row_is_not_named(files: Path) -> None:
    summary, _ = joined(files, "specObjID,elodieTEff,elodieDOF\n11,4800,2000\n12,4900,2000\n14,5000,1900\n")
    assert "says nothing" not in summary.table()


def test_a_column_of_our_own_name_goes_first(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, found = joined(files, "specobjid,teff,elodieTEff,elodieDOF\n11,4000,4800,0\n12,4100,4800,0\n13,4200,0,0\n")
    assert found["11"][0] == pytest.approx(4000) and found["13"][0] == pytest.approx(4200)


#: What the columns of the page's queries hold of a star, by the beginning of their names.
GIVEN = {"class": "STAR", "subclass": "G2", "z": 0.0001, "elodiedof": 1900, "elodieteff": 5100, "elodielogg": 4.1,
         "elodiefeh": -0.3, "teffadop": 5100, "loggadop": 4.1, "fehadop": -0.3, "zwarning": 0}  # fmt: skip


@pytest.mark.parametrize("has_errors", [False, True], ids=["elodie", "sspp"])
def test_the_queries_of_the_page_give_catalogues(files: Path, has_errors: bool) -> None:
    page = (ROOT / "docs" / "ingest.md").read_text()
    queries = re.findall(r"```sql\nSELECT (\w+\.specObjID.*?)\nFROM", page, re.S)
    assert len(queries) == 2
    names = [name.strip().partition(".")[2] for name in queries[has_errors].split(",")]
    rows = []
    for key in (11, 12, 14):
        row = {"specobjid": key, **GIVEN}
        rows.append(",".join(str(row.get(name.lower(), 0.5)) for name in names))  # errors are 0.5
    summary, labels = joined(files, "\n".join([",".join(names), *rows]), "page")
    assert summary.columns is not None and summary.columns.unused == () and summary.columns.notes == ()
    for key in ("11", "12", "14"):
        assert labels[key][:3] == tuple(approximately(5100.0, 4.1, -0.3))
    table = pq.read_table(files / "page" / "spectra")
    errors = table.filter(pc.equal(table["object_id"], "11")).select(["teff_err", "logg_err", "feh_err"]).to_pylist()
    assert list(errors[0].values()) == [0.5 if has_errors else None] * 3


def test_real_stars_have_what_astropy_reads(real_data: Path) -> None:
    kinds = {True: 0, False: 0}
    for folder in ("full", "mixed", "dr8_galaxies"):
        for path in sorted((real_data / "sdss" / folder).glob("*.fits*")):
            with fits.open(path) as hdus:
                row = {name.upper(): hdus[2].data[name][0] for name in hdus[2].data.names}
            found = stellar(read_file(path, "sdss"))
            if row["CLASS"].strip() != "STAR":
                assert found == (None, None, None) and row["ELODIE_TEFF"] == 0
            elif row["ELODIE_DOF"] == 0:  # every one of BOSS here
                assert found == (None, None, None) and row["ELODIE_TEFF"] > 0 and row["ELODIE_RCHI2"] == 0
                kinds[False] += 1
            else:
                np.testing.assert_array_equal(
                    np.array(found, "f4"), [row[f"ELODIE_{name}"] for name in ("TEFF", "LOGG", "FEH")]
                )
                kinds[True] += 1
    assert kinds == {True: 4, False: 8}


def test_a_catalogue_does_not_give_real_stars_back_what_failed(real_data: Path, tmp_path: Path) -> None:
    rows = ["specObjID,elodieTEff,elodieLogG,elodieFeH"]
    (tmp_path / "files").mkdir()
    for folder in ("full", "mixed", "dr8_galaxies"):
        for path in sorted((real_data / "sdss" / folder).glob("*.fits*")):
            (tmp_path / "files" / path.name).symlink_to(path)
            spectrum = read_file(path, "sdss")
            with fits.open(path) as hdus:
                said = [hdus[2].data[f"ELODIE_{name}"][0] for name in ("TEFF", "LOGG", "FEH")]
            rows.append(",".join(map(str, [spectrum.object_id, *said])))
    text = "\n".join(rows) + "\n"
    summary, found = joined(tmp_path, text)
    assert sum(row[0] is not None for row in found.values()) == 4
    assert any("of 8 samples the fit with ELODIE failed" in line for line in summary.table().splitlines())
    assert "elodieFeH says nothing in 23 rows" in summary.table() and "not known" not in summary.table()
    with pytest.raises(JobError):  # an O9.5 star for one of type G8 is nothing that a filter finds
        joined(tmp_path, text, "hot", where="teff > 9000")

"""What catalogues call our labels: every spelling is taken or said not to be, and errors go with their own values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specshards.common.errors import BadObjectError, UsageError
from specshards.common.jobs import Engine
from specshards.ingest.catalogue.columns import choose
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.job.build import build as ingest
from specshards.ingest.surveys import read_file
from specshards.ingest.surveys.spellings import ALIASES, OF_STARS
from tests.oracles.survey_files import lamost_table

HERE = Engine(workers=0)
CATALOGUE = Path("catalogue.csv")


def taken(*columns: str, survey: str = "lamost", key: str = "obsid") -> dict[str, str]:
    return choose(CATALOGUE, (key, *columns), survey).names


@pytest.mark.parametrize(
    "columns",
    [
        ("TEFF", "TEFF_ERR", "LOGG", "LOGG_ERR", "FE_H", "FE_H_ERR"),  # APOGEE
        ("teff", "e_teff", "logg", "e_logg", "fe_h", "e_fe_h"),  # GALAH
        ("teff", "teff_err", "logg", "logg_err", "feh", "feh_err"),  # LAMOST LASP
        ("teff_lasp", "teff_lasp_err", "logg_lasp", "logg_lasp_err", "feh_lasp", "feh_lasp_err"),  # LAMOST MRS
        ("TEFF_PAYNE", "TEFF_PAYNE_ERR", "LOGG_PAYNE", "LOGG_PAYNE_ERR", "FEH_PAYNE", "FEH_PAYNE_ERR"),
        ("teffadop", "teffadopunc", "loggadop", "loggadopunc", "fehadop", "fehadopunc"),  # SSPP in CasJobs
        ("TEFF_ADOP", "TEFF_ADOP_UNC", "LOGG_ADOP", "LOGG_ADOP_UNC", "FEH_ADOP", "FEH_ADOP_UNC"),  # SSPP
        ("Teff", "e_Teff", "log(g)", "e_log(g)", "[Fe/H]", "e_[Fe/H]"),  # VizieR
    ],
)
def test_the_tables_of_surveys(columns: tuple[str, ...]) -> None:
    ours = ("teff", "teff_err", "logg", "logg_err", "feh", "feh_err")
    assert taken(*columns) == dict(zip(ours, columns, strict=True))


def test_gaia() -> None:
    choice = choose(
        CATALOGUE, ("obsid", "teff_gspphot", "logg_gspphot", "mh_gspphot", "teff_gspphot_lower"), "lamost"
    )
    assert choice.names == {"teff": "teff_gspphot", "logg": "logg_gspphot"}
    assert choice.account.unused == ("mh_gspphot", "teff_gspphot_lower")
    assert any("[M/H]" in line for line in choice.account.lines())


@given(st.sampled_from(sorted(ALIASES)), st.booleans())
def test_every_spelling_means_one_thing(name: str, upper: bool) -> None:
    ours = ALIASES[name]
    spelled = name.upper() if upper else name
    error_of = {"teff_err": "teff", "logg_err": "logg", "feh_err": "feh"}
    if ours in error_of:  # never without its value, nor with another one's
        assert ours not in taken(spelled, "z") and ours not in taken(spelled, "z", f"{error_of[ours]}_hasp")
    elif ours in ("ra", "dec"):
        assert taken(spelled, "z")[ours] == spelled
    else:
        assert taken(spelled)[ours] == spelled


def test_an_error_goes_with_its_own_value() -> None:
    assert taken("teff", "teff_lasp_err") == {"teff": "teff"}
    assert taken("teff_cnn", "e_teff_cnn", "teff_lasp_err") == {"teff": "teff_cnn", "teff_err": "e_teff_cnn"}
    assert taken("teff", "teff_cnn", "teff_cnn_err") == {"teff": "teff"}
    assert taken("fe_h", "feh_err") == {"feh": "fe_h", "feh_err": "feh_err"}
    with pytest.raises(UsageError, match="e_teff and teff_unc both mean teff_err"):
        taken("teff", "e_teff", "teff_unc")


def test_two_pipelines_are_refused_and_our_own_name_goes_first() -> None:
    with pytest.raises(UsageError, match="teff_lasp and teff_cnn both mean teff; rename or drop all but one"):
        taken("z", "teff_lasp", "teff_cnn")
    assert taken("teff_lasp", "teff", "teff_cnn") == {"teff": "teff"}
    with pytest.raises(UsageError, match="both mean feh"):
        taken("elodiefeh", "fehadop", survey="sdss", key="specobjid")


def test_elodie_is_of_sdss() -> None:
    assert taken("elodieTEff", survey="sdss", key="specObjID") == {"teff": "elodieTEff"}
    with pytest.raises(UsageError, match="no label column"):
        taken("elodieTEff")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spelled")
    (folder / "files").mkdir()
    for i in range(2):
        lamost_table(folder / "files" / f"{i}.fits", OBSID=1 + i, RA=10.0 * i)
    return folder


def test_the_account_names_what_was_not_used(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = [f"extra{i}" for i in range(23)]
    catalogue = files / "c.csv"
    head, row = ["obsid", "Fe_H", "e_Fe_H", "m_h", "snrg", *others], ["-0.5", "0.1", "-0.4", "30", *others]
    catalogue.write_text("\n".join([",".join(head), *(",".join([str(i), *row]) for i in (1, 2))]) + "\n")
    out = files / "data"
    summary = ingest(IngestConfig(survey="lamost"), str(files / "files"), out, catalogue=catalogue, engine=HERE)
    table = summary.table()
    assert "catalogue: Fe_H is taken for feh" in table and "catalogue: e_Fe_H is taken for feh_err" in table
    assert "catalogue: 25 columns are not used: m_h, snrg, extra0, extra1" in table and "extra17 and 5 more" in table
    assert "extra18" not in table
    content: dict[str, Any] = json.loads((out / "ingest" / "summary.json").read_text())["columns"]
    assert content["taken"] == {"feh": "Fe_H", "feh_err": "e_Fe_H"} and content["more"] == 5
    found = pq.read_table(next((out / "spectra").iterdir()))
    assert found["feh"].to_pylist() == [-0.5, -0.5] and found["feh_err"].to_pylist() == [pytest.approx(0.1)] * 2
    again = ingest(IngestConfig(survey="lamost"), str(files / "files"), out, catalogue=catalogue, engine=HERE)
    assert again.columns == summary.columns  # as the prepared catalogue remembers it


def test_what_a_cut_asks_for_is_used(files: Path) -> None:
    choice = choose(CATALOGUE, ("obsid", "z", "plate", "snrg", "w"), "lamost", ["plate", "snrg"])
    assert choice.account.unused == ("w",) and choice.names["snrg"] == "snrg"


def test_a_cut_knows_a_column_by_its_own_name_and_by_ours(files: Path, tmp_path: Path) -> None:
    catalogue = tmp_path / "c.csv"
    catalogue.write_text("obsid,fe_h,redshift\n1,-0.5,0.001\n2,-1.5,0.001\n")
    for i, where in enumerate(("fe_h > -1", "feh > -1", "FE_H > -1 and feh > -1 and redshift < 0.1 and z < 0.1")):
        config, out = IngestConfig(survey="lamost", where=where), tmp_path / str(i)
        ingest(config, str(files / "files"), out, catalogue=catalogue, engine=HERE)
        assert pq.read_table(next((out / "spectra").iterdir()))["object_id"].to_pylist() == ["1"]


def test_without_a_catalogue_nothing_is_said(files: Path, tmp_path: Path) -> None:
    summary = ingest(IngestConfig(survey="lamost"), str(files / "files"), tmp_path / "data", engine=HERE)
    assert summary.columns is None and "catalogue:" not in summary.table()


def table(path: Path, **labels: Any) -> Path:
    """One spectrum of a star as Parquet of somebody else."""
    n = 300
    arrays = {"flux": [2.0] * n, "ivar": [1.0] * n, "lambda": [4000.0 + i for i in range(n)], "mask": [False] * n}
    row = {"object_id": "1", "survey": "mine", "ra": 1.0, "dec": 2.0, "class": "STAR", "spectrum": arrays, **labels}
    pq.write_table(pa.Table.from_pylist([row]), path)
    return path


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"Teff": 5800.0, "E_TEFF": 50.0, "fe_h": -0.5}, {"teff": 5800.0, "teff_err": 50.0, "feh": -0.5}),
        ({"teff_lasp": 5800.0, "teff_cnn_err": 9.0}, {"teff": 5800.0}),
        ({"teff": 5800.0, "teff_cnn": 6000.0, "m_h": 0.1}, {"teff": 5800.0}),
        (
            {"elodieTEff": 5800.0, "elodieLogG": 0.0, "elodieFeH": 0.0, "elodieDOF": 2000},
            {"teff": 5800.0, "feh": 0.0},
        ),
        ({"ELODIE_TEFF": 5800.0, "ELODIE_LOGG": 4.0, "ELODIE_DOF": 0}, {}),
        ({"teff": 5000.0, "ELODIE_TEFF": 5800.0, "ELODIE_LOGG": 4.0}, {"teff": 5000.0, "logg": 4.0}),
    ],
)
def test_tables_of_spectra(tmp_path: Path, labels: dict[str, Any], expected: dict[str, float]) -> None:
    spectrum = read_file(table(tmp_path / "a.parquet", **labels))
    stellar = {name: value for name, value in spectrum.labels.items() if name in OF_STARS}
    assert {name: value for name, value in stellar.items() if value is not None} == expected


def test_tables_of_two_pipelines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadObjectError, match="teff_cnn and teff_lasp both mean teff"):
        read_file(table(tmp_path / "a.parquet", teff_lasp=5800.0, teff_cnn=5900.0))

"""What the documentation shows of ingest is run as printed."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pytest
from astropy.io import fits

import ingest.surveys
from ingest.surveys import open_file
from tests.conftest import ROOT


def block(document: str, language: str, containing: str) -> str:
    text = (ROOT / "docs" / document).read_text()
    return next(code for code in re.findall(rf"```{language}\n(.*?)```", text, re.S) if containing in code)


def test_the_example_of_a_new_survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = block("layouts.md", "python", "MYSURVEY")
    assert code.count("\n") <= 45
    module = types.ModuleType("mysurvey")
    exec(compile(code, "docs/layouts.md", "exec"), module.__dict__)
    monkeypatch.setattr(ingest.surveys, "FITS", (*ingest.surveys.FITS, module))
    wave, sigma = np.linspace(600, 700, 50), np.full(50, 2.0)
    sigma[3] = 0
    columns = [fits.Column(name, "E", array=values) for name, values in
               (("WAVE", wave), ("COUNTS", wave - 500), ("SIGMA", sigma))]  # fmt: skip
    primary = fits.PrimaryHDU()
    primary.header.update({"ID": "a1", "RA": 10.0, "DEC": -5.0, "Z": 0.5, "CLASS": "GALAXY"})
    fits.HDUList([primary, fits.BinTableHDU.from_columns(columns)]).writeto(tmp_path / "x.fits")
    opened = open_file(tmp_path / "x.fits")
    (spectrum,) = opened.objects()
    assert (opened.survey, opened.layout, spectrum.object_id) == ("mysurvey", "mysurvey-red", "a1")
    assert (
        spectrum.wavelength[0] == 6000 and spectrum.ivar[0] == 0.25 and np.flatnonzero(spectrum.mask).tolist() == [3]
    )
    assert spectrum.labels == {"class": "GALAXY", "z": 0.5}


@pytest.fixture(scope="module")
def counts(spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """A folder that holds the spectra where the recipes look for them, and its class counts."""
    where = tmp_path_factory.mktemp("recipes")
    (where / "data" / "dr10").mkdir(parents=True)
    (where / "data" / "dr10" / "spectra").symlink_to(spectra_folder)
    return where, {"STAR": 100, "GALAXY": 100, "QSO": 100}


def test_pyarrow_counts_classes(counts: tuple[Path, dict[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(counts[0])
    code = block("ingest.md", "python", "pyarrow").strip().splitlines()
    found = eval(code[-1], {"ds": ds})
    assert {row["values"]: row["counts"] for row in found.to_pylist()} == counts[1]


def test_duckdb_counts_classes(counts: tuple[Path, dict[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    duckdb = pytest.importorskip("duckdb")
    monkeypatch.chdir(counts[0])
    assert dict(duckdb.sql(block("ingest.md", "sql", "duckdb")).fetchall()) == counts[1]


def test_polars_counts_classes(counts: tuple[Path, dict[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    polars = pytest.importorskip("polars")
    monkeypatch.chdir(counts[0])
    code = block("ingest.md", "python", "polars").strip().splitlines()
    assert dict(eval(code[-1], {"pl": polars}).rows()) == counts[1]


@pytest.mark.parametrize(
    ("document", "room"), [("ingest.md", "ingest"), ("data-sets.md", "shards"), ("training.md", "train")]
)
def test_every_command_that_the_docs_name_exists(document: str, room: str) -> None:
    text = (ROOT / "docs" / document).read_text()
    for name in sorted(set(re.findall(rf"python -m {room} (\w+)", text))):
        done = subprocess.run([sys.executable, "-m", room, name, "--help"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, name
        for option in re.findall(rf"python -m {room} {name}[^\n`#]*", text):
            for flag in re.findall(r"(--[a-z-]+)", option):
                assert flag in done.stdout.replace("\n", " "), f"{name} {flag}"

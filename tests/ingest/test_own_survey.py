"""A survey that another package adds says all about itself: nothing here is edited, and every command knows it."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from typer.testing import CliRunner

from specshards.common.errors import UsageError
from specshards.ingest.__main__ import app as ingest
from specshards.ingest.spectra import plots
from specshards.ingest.surveys import SURVEYS, Reader, Survey, companions_of, open_file, register
from specshards.shards.__main__ import app as shards
from tests.conftest import ROOT


@pytest.fixture
def survey(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of the survey, known while a test runs."""
    monkeypatch.setattr(SURVEYS, "_things", dict(SURVEYS))
    sys.modules.pop("tests.oracles.own_survey", None)
    yield importlib.import_module("tests.oracles.own_survey")


def run(app: Any, *arguments: object) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)])
    if done.exception is not None:
        raise done.exception
    return done.output


def labels(out: Path) -> list[tuple[Any, ...]]:
    rows = ds.dataset(out / "spectra").to_table().sort_by("object_id").to_pylist()
    return [tuple(row[name] for name in ("object_id", "survey", "class", "teff", "label_source")) for row in rows]


EXPECTED = [(f"s{i}", "mysky", "STAR", 5000.0 + i, "catalogue") for i in (1, 3, 4, 6, 7)]  # s0 is too cool


def test_files_catalogue_and_cut_of_a_survey_lead_to_labels(survey: Any, tmp_path: Path) -> None:
    survey.mock(tmp_path / "files", 9, 0)
    table = (tmp_path / "files" / "mock_catalogue.csv").rename(tmp_path / "mysky.csv")
    run(ingest, "build", "--survey", "mysky", "--data", tmp_path / "files", "--catalog", table, "--cuts", "good",
        "--workers", 0, "--out", tmp_path / "out")  # fmt: skip
    assert labels(tmp_path / "out") == EXPECTED
    run(ingest, "select", "--survey", "mysky", "--from", table, "--per-class", 4, "--out", tmp_path / "few.parquet")
    assert ds.dataset(tmp_path / "few.parquet").count_rows() == 4
    (spectrum,) = open_file(tmp_path / "files" / "s4.fits").objects()
    assert isinstance(spectrum, survey.Spectrum)
    assert plots.one(spectrum, "").axes[0].get_ylabel() == "flux (mJy)"
    assert companions_of()("a/s4.fits") == ["a/s4.txt"]


def test_shards_are_made_of_its_mock_survey(survey: Any, tmp_path: Path) -> None:
    run(shards, "make", "--survey", "mysky", "--n", 9, "--cuts", "good", "--workers", 0, "--out", tmp_path)
    assert labels(tmp_path) == EXPECTED
    assert (tmp_path / "shards" / "map2d" / "manifest.json").is_file()


def test_mistakes_are_told_with_its_name(survey: Any, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("obsid,class\n1,STAR\n")
    for arguments, message in (
        (["--survey", "x"], "unknown SURVEY=x: choose"),
        (["--survey", "desi"], "a mock survey is only of lamost or sdss or mysky"),
        (["--survey", "mysky", "--cuts", "bad"], "unknown cuts bad: choose paper, good"),
        (["--survey", "lamost", "--cuts", "good"], "--cuts good: is of mysky"),
    ):
        with pytest.raises(UsageError, match=message):
            run(shards, "make", *arguments, "--out", tmp_path / "o", "--workers", 0)
    survey.mock(tmp_path / "files", 1, 0)
    with pytest.raises(UsageError, match="no key column for mysky: expected sky_name, found obsid"):
        run(ingest, "build", "--survey", "mysky", "--data", tmp_path / "files", "--catalog", tmp_path / "c.csv",
            "--out", tmp_path / "o", "--workers", 0)  # fmt: skip
    with pytest.raises(UsageError, match="slomost is sdss and lamost; read one of them at a time"):
        run(ingest, "build", "--survey", "slomost", "--data", tmp_path / "files", "--out", tmp_path / "o")


def test_help_names_it(survey: Any) -> None:
    for app, command in ((ingest, "build"), (ingest, "select"), (shards, "make")):
        text = re.sub(r"\W+", " ", run(app, command, "--help"))
        assert re.search(r"Also (\w+ )*mysky", text) and "Also good" in text


def test_readers_are_asked_in_order_ours_first_but_for_a_higher_priority(survey: Any, tmp_path: Path) -> None:
    survey.mock(tmp_path / "files", 1, 0)
    path = tmp_path / "files" / "s0.fits"
    greedy = Reader(lambda file: "anything", survey.read)
    register(Survey("late", (greedy,)))
    assert open_file(path).survey == "mysky"
    register(Survey("early", (greedy,), priority=1))
    assert open_file(path).survey == "early"


def test_a_name_is_given_once(survey: Any) -> None:
    with pytest.raises(UsageError, match=r"SURVEY=sdss is registered twice: by .*sdss\.read and .*own_survey\.read"):
        register(Survey("sdss", (Reader(survey.recognise, survey.read),)))
    with pytest.raises(UsageError, match="SURVEY=empty: needs either readers or parts"):
        Survey("empty")


def test_workers_load_it_by_its_entry_point(tmp_path: Path) -> None:
    info = tmp_path / "site" / "mysky-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mysky\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[specshards.surveys]\nmysky = mysky_reader\n")
    (tmp_path / "site" / "mysky_reader.py").write_text((ROOT / "tests/oracles/own_survey.py").read_text())
    command = [sys.executable, "-m", "specshards", "ingest", "build", "--survey", "mysky", "--n", "9"]
    command += ["--cuts", "good", "--workers", "1", "--out", str(tmp_path / "out")]
    path = f"{tmp_path / 'site'}:{ROOT / 'src'}"
    done = subprocess.run(command, env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert labels(tmp_path / "out") == EXPECTED

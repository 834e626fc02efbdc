"""The command line as a user meets it: exit codes, one-line errors, Ctrl-C, and a job killed outright."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer

from specshards.__main__ import ROOMS, main
from specshards.ingest.mock import MockConfig, write
from specshards.shards.format.manifest import Manifest
from tests.conftest import ROOT
from tests.oracles import commands
from tests.oracles.data_sets import tree


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return commands.run(commands.program(*arguments), **environment)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["shards", "make", "--survey", "galaxia"], 2, "unknown SURVEY=galaxia: choose"),
        (["shards", "make", "--survey", "lamost", "--image", "map3d"], 2, "unknown IMAGE=map3d"),
        (["shards", "make", "--survey", "lamost", "--encoding", "gif"], 2, "unknown ENCODING=gif"),
        (["shards", "make", "--survey", "lamost", "--n", "0"], 2, "N=0: give a number of files"),
        (["shards", "make", "--survey", "lamost", "--seed", "-1"], 2, "seed=-1"),
        (["shards", "make", "--survey", "lamost", "--data", "nowhere"], 2, "DATA=nowhere: no such file or folder"),
        (["shards", "make", "--survey", "lamost", "--data", ROOT / "docs"], 2, "/docs: no spectra there"),
        (["shards", "build", "--spectra", ROOT / "docs"], 2, "/docs: no spectra Parquet there"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, arguments: list[object], code: int, message: str) -> None:
    done = run(*arguments, "--out", tmp_path / "out")
    assert done.returncode == code
    assert done.stderr.startswith("error: ") and message in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out" / "spectra").exists()


def test_a_folder_that_cannot_be_made_is_named() -> None:
    done = run("shards", "make", "--survey", "lamost", "--out", "/proc/nothing")
    assert done.returncode == 1 and done.stderr.startswith("error: /proc/nothing: cannot be made a folder")


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_lists_its_commands_and_they_their_options(
    room: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")

    def printed(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["specshards", *words, "--help"])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        return capsys.readouterr().out

    app: Any = typer.main.get_command(importlib.import_module(ROOMS[room][0]).app)
    overview = printed(room)
    for name, command in getattr(app, "commands", {"": app}).items():
        assert not name or re.search(rf"^\W*{name} +[A-Z]", overview, re.M), f"nothing says what {name} does"
        page = printed(room, *([name] if name else []))
        for option in (option for parameter in command.params for option in parameter.opts if option[0] == "-"):
            assert re.search(rf"{option}[ ,].*\S", page), f"{room} {name}: {option}"


def test_the_list_of_benchmarks_imports_none_of_them() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from specshards.benchmarks.__main__ import app; "
        "print(CliRunner().invoke(app, ['--help']).stdout); print('torch' in sys.modules)"
    )
    done = commands.run(commands.script(code))
    assert "Time the loaders" in done.stdout and done.stdout.endswith("False\n"), done.stderr


@pytest.mark.parametrize("folder", ["ingest", "render", "common", "benchmarks", "tests", "docs", "src"])
def test_make_of_a_folder_is_an_error(folder: str) -> None:
    done = subprocess.run(["make", folder], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and f"error: make {folder}: no such target; use 'make shards" in done.stderr


def test_make_help_lists_every_target_and_each_starts_a_command() -> None:
    def make(*words: str) -> str:
        return subprocess.run(["make", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    phony = re.search(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.M)
    listed = dict(re.findall(r"^  make ([a-z-]+) +(\S.*)", make("help").split("\n\n")[1], re.M))
    assert phony is not None and sorted(listed) == sorted(phony[1].split())
    for target in listed:
        more = ["a.json", "b.json"] if target == "bench-compare" else []
        assert make("-n", "-o", ".venv/.made", target, *more).strip(), target


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """A job of some shards, and the data set that it makes undisturbed."""
    folder = tmp_path_factory.mktemp("made")
    mock = write(MockConfig("lamost", n_files=240), folder / "data")
    make = ["shards", "make", "--survey", "lamost", "--data", str(mock.folder), "--catalog", str(mock.catalogue),
            "--samples-per-shard", "40"]  # fmt: skip
    done = run(*make, "--out", folder / "whole", "--workers", "0")
    assert done.returncode == 0, done.stderr
    return make, folder / "whole" / "shards" / "map2d"


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_job_goes_on_to_the_same_bytes(
    made: tuple[list[str], Path], tmp_path: Path, sign: int, code: int
) -> None:
    make, whole = made
    command = commands.program(*make, "--out", tmp_path / "again")
    job = commands.start(command, output=subprocess.PIPE, errors=subprocess.STDOUT, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("again/shards/map2d/.ledger/0*.json")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(job.pid, sign)
    output, _ = job.communicate(timeout=60)
    if job.returncode != 0:  # it may have won the race to the end
        assert job.returncode == code and "Traceback" not in output
        assert not (tmp_path / "again" / "shards" / "map2d" / "manifest.json").exists()
        if sign == signal.SIGINT:
            assert "interrupted: what is finished is kept" in output
    again = run(*make, "--out", tmp_path / "again", "--workers", "0")
    assert again.returncode == 0, again.stderr
    assert tree(tmp_path / "again" / "shards" / "map2d") == tree(whole)
    manifest = Manifest.load(tmp_path / "again" / "shards" / "map2d")
    assert manifest.mock and manifest.samples() + manifest.quarantined == manifest.objects


def test_another_mock_in_the_same_folder_is_refused_before_anything_is_replaced(tmp_path: Path) -> None:
    first = run("ingest", "build", "--survey", "sdss", "--n", "20", "--out", tmp_path, "--workers", "0")
    assert first.returncode == 0 and "20 files = " in first.stdout
    before = tree(tmp_path)
    other = run("ingest", "build", "--survey", "sdss", "--n", "15", "--out", tmp_path, "--workers", "0")
    assert other.returncode == 2 and "mock_files: 20 -> 15" in other.stderr and "FORCE=1" in other.stderr
    assert tree(tmp_path) == before
    forced = run("ingest", "build", "--survey", "sdss", "--n", "15", "--out", tmp_path, "--workers", "0", "--force")
    assert forced.returncode == 0 and "15 files = " in forced.stdout


def test_surveys_are_listed_with_what_joins_their_catalogues() -> None:
    listed = run("ingest", "surveys")
    assert listed.returncode == 0
    for line in (
        "lamost +obsid +relative +yes",
        "apogee +apogee_id or object_id",
        "slomost +of sdss and lamost, merged",
        "table +",
    ):
        assert re.search(f"^{line}", listed.stdout, re.M), listed.stdout

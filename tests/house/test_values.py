"""Values given to make reach the commands as one word each, whatever is in them; nothing of them is run."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from specshards.common.errors import UsageError
from specshards.ingest.__main__ import app as ingest
from specshards.shards.__main__ import app as shards
from specshards.train.__main__ import app as train
from tests.conftest import ROOT, call

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
TELL = f"SPECSHARDS={shlex.quote(sys.executable)} -c 'import json, sys; print(json.dumps(sys.argv[1:]))'"
HOSTILE = (
    "it's here", 'a "b" c', "a  b", "$x ${HOME} $$", "$(touch {})", "`touch {}`", "; touch {}", "a\nb; touch {}",
    "#a", "$(shell touch {})", "'; touch {}; '", "a\\", "%", "*", "~", "(", "é",
)  # fmt: skip


def told(*words: str, **environment: str) -> dict[str, str]:
    """Option -> value, of the command that make starts."""
    apart = {name: value for name, value in os.environ.items() if name not in ("ARGS", "MAKEFLAGS", "MAKEOVERRIDES")}
    done = subprocess.run(
        ["make", "--no-print-directory", "-o", ".venv/.made", TELL, *words], cwd=ROOT, env={**apart, **environment},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    (line,) = done.stdout.splitlines()
    words_of = json.loads(line)
    return {flag: words_of[i + 1] for i, flag in enumerate(words_of[:-1]) if flag.startswith("--")}


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_is_one_word_and_is_not_run(value: str, tmp_path: Path) -> None:
    value = value.replace("{}", str(tmp_path / "run"))
    names = ("DATA", "CATALOG", "OUT", "WHERE", "SURVEY", "IMAGE", "PRESET", "WINDOW", "SCHEDULER")
    options = [f"--{name.lower()}" for name in names]
    found = told("shards", *(f"{name}={value}" for name in names))
    assert [found[option] for option in options] == [value] * len(names)
    found = told("shards", **dict.fromkeys(names, value))  # from the environment, likewise
    assert [found[option] for option in options] == [value] * len(names)
    found = told("predict", *(f"{name}={value}" for name in ("MODEL", "INPUT", "OUT")))
    assert [found[option] for option in ("--model", "--input", "--out")] == [value] * 3
    assert told("train", f"SHARDS={value}", f"MODEL=tokenizer:{value}")["--backbone"] == f"tokenizer:{value}"
    assert told("evaluate", f"MODEL={value}")["--model"] == value
    assert not list(tmp_path.iterdir())


def test_defaults_follow_what_is_given() -> None:
    assert told("shards") == {"--survey": "lamost", "--out": "data/lamost", "--image": "map2d", "--encoding": "png"}
    assert told("shards", "SURVEY=sdss")["--out"] == "data/sdss"
    assert told("train", "TASK=redshift")["--out"] == "runs/redshift" == told("evaluate", "TASK=redshift")["--model"]
    assert "--window" not in told("shards", "WINDOW=") and "--force" not in told("shards", "FORCE=")
    assert told("shards", 'ARGS=--seed 7 --where "z > 1"')["--where"] == "z > 1"  # words of the shell


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (shards, ["make", "--survey", "lamost", "--out", "s3://bucket/folder"]),
        (shards, ["make", "--survey", "lamost", "--catalog", "https://host/c.csv"]),
        (ingest, ["build", "--survey", "lamost", "--out", "s3://bucket/folder"]),
        (ingest, ["select", "--from", "s3://bucket/c.csv", "--out", "o.parquet"]),
        (ingest, ["mock", 5, "--out", "gs://bucket/folder"]),
    ],
)
def test_an_address_is_no_path(
    app: object, words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if "--out" not in words:
        words = [*words, "--out", "o"]
    with pytest.raises(UsageError, match=r"an address, where a path of this machine belongs"):
        call(app, *words)
    assert not list(tmp_path.iterdir())


def test_data_of_an_address_are_refused_too(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="DATA=s3://bucket/folder: no such file or folder"):
        call(shards, "make", "--survey", "lamost", "--data", "s3://bucket/folder", "--out", tmp_path / "o")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("blank", ["", " "])
@pytest.mark.parametrize(
    ("app", "words", "what"),
    [
        (shards, ["make", "--survey", "lamost", "--out", None], "--out"),
        (shards, ["build", "--spectra", "s", "--out", None], "--out"),
        (shards, ["build", "--spectra", None, "--out", "o"], "--spectra"),
        (shards, ["reshard", None, "--out", "o"], "FOLDER"),
        (shards, ["merge", "a", None, "--out", "o"], "FOLDERS"),
        (shards, ["verify", None], "FOLDER"),
        (ingest, ["build", "--out", None], "--out"),
        (ingest, ["build", "--data", None, "--out", "o"], "--data"),
        (ingest, ["build", "--catalog", None, "--out", "o"], "--catalog"),
        (ingest, ["select", "--from", None, "--out", "o.parquet"], "--from"),
        (ingest, ["mock", 5, "--out", None], "--out"),
        (train, ["embed", "--model", "m", "--input", "i", "--out", None], "--out"),
        (train, ["predict", "--model", None, "--input", "i"], "--model"),
    ],
)
def test_a_blank_is_no_path(
    app: object, words: list[object], what: str, blank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"^{what} is blank: name a path"):
        call(app, *(blank if word is None else word for word in words))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["1", "yes", "true", "0", "no", "false", ""])
def test_force_says_yes_or_no(value: str) -> None:
    apart = {name: text for name, text in os.environ.items() if name not in ("ARGS", "MAKEFLAGS", "MAKEOVERRIDES")}
    done = subprocess.run(
        ["make", "--no-print-directory", "-o", ".venv/.made", TELL, "shards", f"FORCE={value}"], cwd=ROOT, env=apart,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ("--force" in json.loads(done.stdout)) == (value in ("1", "yes", "true"))

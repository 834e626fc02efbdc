"""A mistake in an option leaves nothing behind, and the corrected command works in the same folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specshards.common.errors import JobError, UsageError
from specshards.ingest.__main__ import app as ingest
from specshards.shards.__main__ import app as shards
from specshards.train.__main__ import app as train
from specshards.train.tokenizer.__main__ import app as tokenizer
from tests.conftest import call

Sets = Callable[[str], Path]

CUTS = [
    ["--where", "z >"], ["--where", "tef > 1"], ["--where", "class + 1 > 2"], ["--cuts", "nope"],
    ["--catalog", "none.csv"], ["--catalog", "bad.csv"], ["--catalog", "words.csv", "--where", "grade > 1"],
    ["--catalog", "commas.csv"],
]  # fmt: skip
SPECTRA = [
    *CUTS, ["--files-per-part", 0], ["--row-group-rows", 0], ["--seed", -1], ["--n", 0], ["--memory", "x"],
    ["--max-bad-fraction", 7], ["--max-bad-fraction", "nan"], ["--workers", -1], ["--survey", "nowhere"],
]  # fmt: skip
PICTURE = [
    ["--window", "9000,3600"], ["--image", "nope"], ["--encoding", "gif"], ["--split", "0.5,0.1,0.1"],
    ["--samples-per-shard", 0], ["--split-nside", 3], ["--size", 3], ["--block", 0], ["--preset", "nope"],
    ["--jpeg-quality", 5],
]  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a mock survey as files, and catalogues with a mistake in each."""
    folder = tmp_path_factory.mktemp("files")
    call(ingest, "mock", 40, "--survey", "lamost", "--as", "fits", "--damaged-fraction", 0, "--out", folder / "mock",
         "--workers", 0)  # fmt: skip
    (folder / "bad.csv").write_text("id,z\n1,2\n")
    (folder / "words.csv").write_text("obsid,z,grade\n1,0.5,A\n")
    (folder / "commas.csv").write_text("obsid;z\n1;0,5\n")
    (folder / "foreign.csv").write_text("obsid,z\n1,0.5\n")
    return folder


def refuse(app: Any, words: list[Any], out: Path, wrong: list[list[Any]]) -> None:
    """Each of the mistakes is refused, and leaves nothing."""
    for options in wrong:
        with pytest.raises((UsageError, JobError, SystemExit)) as caught:
            call(app, *words, "--out", out, *options)
        assert caught.type is not SystemExit or caught.value.code == 2, options
        assert "\n" not in str(caught.value) and not out.exists(), (options, str(caught.value))
        assert not list(out.parent.glob(f".{out.name}*")), options


def test_ingest(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    words = ["build", "--survey", "lamost", "--data", files / "mock", "--workers", 0]
    refuse(ingest, words, tmp_path / "out", [*SPECTRA, ["--data", "none"], ["--listed-only"]])
    call(ingest, *words, "--out", tmp_path / "out")


def test_a_mock_survey(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    words = ["build", "--survey", "lamost", "--n", 20, "--workers", 0, "--max-bad-fraction", 0.5]
    refuse(ingest, words, tmp_path / "out", SPECTRA)
    call(ingest, *words, "--out", tmp_path / "out", "--where", "teff is not null or class is not null")
    words = ["mock", 20, "--workers", 0]
    wrong = [["--as", "csv"], ["--seed", -1], ["--part-rows", 0], ["--row-group-rows", 0], ["--damaged-fraction", 2],
             ["--memory", "x"], ["--survey", "nowhere"]]  # fmt: skip
    refuse(ingest, words, tmp_path / "mock", [*wrong, *([*options, "--as", "fits"] for options in wrong[1:])])
    call(ingest, *words, "--out", tmp_path / "mock", "--templates", 8)


@pytest.mark.parametrize(
    "options", [["--survey", "sdss"], ["--where", "z > 19"], ["--catalog", "foreign.csv"]], ids=lambda o: str(o[0])
)
def test_what_shows_at_the_end_only(
    files: Path, tmp_path: Path, options: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    words = ["build", "--survey", "lamost", "--data", files / "mock", "--workers", 0, "--out", tmp_path / "out"]
    with pytest.raises(JobError):
        call(ingest, *words, *options)
    call(ingest, *words)


def test_select_and_download(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    source = files / "mock" / "mock_catalogue.csv"
    words = ["select", "--from", source, "--survey", "lamost"]
    wrong = [*CUTS[:4], ["--per-class", "x"], ["--per-class", 0], ["--seed", -1], ["--where", "z > 19"]]
    refuse(ingest, words, tmp_path / "o.parquet", wrong)
    call(ingest, *words, "--out", tmp_path / "o.parquet")
    words = ["download", "--survey", "lamost", "--catalog", source]
    wrong = [["--catalog", "none.csv"], ["--catalog", "bad.csv"], ["--base", "ftp:/x"], ["--survey", "nowhere"],
             ["--checksums", "none"], ["--n", -1]]  # fmt: skip
    refuse(ingest, words, tmp_path / "files", wrong)


def test_shards_of_a_survey(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    words = ["make", "--survey", "lamost", "--data", files / "mock", "--workers", 0]
    refuse(shards, words, tmp_path / "out", [*PICTURE, *SPECTRA])
    call(shards, *words, "--out", tmp_path / "out")


def test_shards(sets: Sets, spectra_folder: Path, tmp_path: Path) -> None:
    words = ["build", "--spectra", spectra_folder, "--workers", 0]
    refuse(shards, words, tmp_path / "out", [*PICTURE, ["--survey", "sdss"], ["--spectra", tmp_path / "none"]])
    call(shards, *words, "--out", tmp_path / "out")
    wrong = [*CUTS[:3], ["--split", "0.5,0.1,0.1"], ["--samples-per-shard", 0], ["--seed", -1], ["--memory", "x"]]
    for command in ("reshard", "merge"):
        refuse(shards, [command, sets("png"), "--workers", 0], tmp_path / command, wrong)
        with pytest.raises(UsageError):
            call(shards, command, tmp_path / "none", "--out", tmp_path / command)
        call(shards, command, sets("png"), "--workers", 0, "--out", tmp_path / command)
    refuse(shards, ["reshard", sets("png"), "--workers", 0], tmp_path / "other", [["--encoding", "flux"]])


def test_training(sets: Sets, tmp_path: Path, one_thread: None) -> None:
    options = ["--device", "cpu", "--epochs", 1, "--max-steps", 1, "--backend", "plain", "--batch-size", 16]
    words = ["fit", "--shards", sets("png"), "--task", "classify", "--backbone", "tiny", *options]
    wrong: list[list[Any]] = [
        ["--task", "nope"], ["--shards", tmp_path / "none"], ["--backbone", tmp_path], ["--epochs", 0],
        ["--lr", "nan"],
        ["--backbone", f"tokenizer:{tmp_path}/none"], ["--backbone", "sequence-tiny"], ["--device", "tpu"],
        ["--backend", "nope"], ["--tracker", "nope"], ["--augment", "nope"], ["--seed", -1], ["--on-error", "x"],
        ["--preset", "nope"], ["--task", "teff"], ["--checkpoint-minutes", -1], ["--clip", "nan"],
    ]  # fmt: skip
    refuse(train, words, tmp_path / "run", wrong)
    call(train, *words, "--out", tmp_path / "run", "--tracker", "none")
    words = ["pretrain", "--shards", sets("flux"), "--size", "tiny", *options]
    wrong = [["--size", "huge"], ["--shards", sets("png")], ["--epochs", 0], ["--masked", 2], ["--augment", "x"],
             ["--seed", -1]]  # fmt: skip
    refuse(tokenizer, words, tmp_path / "tokenizer", wrong)
    for command in ("predict", "embed", "explain"):
        refuse(train, [command, "--model", tmp_path / "none", "--input", tmp_path], tmp_path / "answers", [[]])
    refuse(train, ["predict", "--model", tmp_path / "run"], tmp_path / "a.csv", [["--input", tmp_path / "none"]])
    refuse(tokenizer, ["reconstruct", tmp_path, "--model", tmp_path / "none"], tmp_path / "drawn", [[]])

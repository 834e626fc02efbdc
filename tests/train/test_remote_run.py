"""Training, scoring and predicting where the data are: a run on a bucket is the run on the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from specshards.common.cache import FOLDER
from specshards.common.errors import UsageError
from specshards.common.files import location
from specshards.train import __main__ as train
from specshards.train.use.predict import Predictor
from tests.conftest import call
from tests.oracles.small_run import small_run, small_shards

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_run_at_an_address_is_the_local_one(
    spectra_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "cache"))
    here, there = small_shards(spectra_folder, tmp_path / "set"), "memory://bucket/set"
    for path in here.rglob("*"):
        if path.is_file():
            location(f"{there}/{path.relative_to(here).as_posix()}").write_bytes(path.read_bytes())
    mine, theirs = (
        small_run(where, tmp_path / name, epochs=1) for where, name in ((here, "mine"), (there, "theirs"))
    )
    weights = [(run / "model.safetensors").read_bytes() for run in (mine, theirs)]
    assert weights[0] == weights[1]
    for run in (mine, theirs):
        call(train.app, "evaluate", "--model", run, "--device", "cpu", "--workers", 1)
    scores: list[dict[str, Any]] = [json.loads((run / "metrics.json").read_text()) for run in (mine, theirs)]
    assert scores[0]["splits"] == scores[1]["splits"] and set(scores[0]["splits"]) == {"val", "test"}
    assert scores[1]["data"][0]["folder"] == there
    predict = Predictor.open(theirs, device="cpu")
    assert predict(there).equals(predict(here))
    call(train.app, "embed", "--model", theirs, "--input", there, "--out", tmp_path / "e.parquet", "--device", "cpu")
    with pytest.raises(UsageError, match="INPUT=memory://bucket/set: an address, where a path"):
        call(train.app, "explain", "--model", theirs, "--input", there)
    with pytest.raises(UsageError, match=r"memory://bucket/nothing: no manifest\.json there"):
        call(train.app, "predict", "--model", theirs, "--input", "memory://bucket/nothing", "--device", "cpu")
    MemoryFileSystem.store.clear()

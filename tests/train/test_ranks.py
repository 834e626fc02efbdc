"""Several processes: as one, on another number of them, with one killed; refused where they do not see each other."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from specshards.common.errors import UsageError
from specshards.train import checkpoint, loop
from specshards.train.config import RunOptions, TrainConfig
from specshards.train.evaluation.evaluate import evaluate
from specshards.train.fit import fit
from specshards.train.launch import alone
from specshards.train.run import RUN
from specshards.train.tokenizer.config import PretrainConfig
from specshards.train.tokenizer.pretrain import pretrain
from tests.oracles import commands
from tests.oracles.rounding import assert_equal_but_for_rounding
from tests.oracles.small_run import small_shards

pytestmark = pytest.mark.usefixtures("one_thread")
QUIET = RunOptions(device="cpu", threads=1, tracker="none")

#: Two processes of torchrun's own agent, which starts both again when one dies, as `--max-restarts` does. They are
#: forked, so that the program is imported once. Each notes which samples it sees at which step.
TWO = """
import json, os, signal, sys
from pathlib import Path
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from specshards.train import loop
from specshards.train.config import RunOptions, TrainConfig
from specshards.train.tokenizer.config import PretrainConfig
from specshards.train.evaluation.evaluate import evaluate
from specshards.train.fit import fit
from specshards.train.tokenizer.pretrain import pretrain

def work(out, configs):
    import torch
    torch.set_num_threads(1)
    rank, again = os.environ["RANK"], int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    step = loop._Trainer.step

    def noting(self, window):
        at = self.progress.step
        if at == 10 and rank == "1" and not again:
            os.kill(os.getpid(), signal.SIGKILL)
        keys = [k for batch in window for k, ok in zip(batch["key"], batch["valid"].tolist()) if ok]
        (self.out / f"seen-{at}-{rank}.json").write_text(json.dumps([again, keys]))
        if self.out.name == "cut" and at == 4:
            self.stop.set()
        return step(self, window)

    loop._Trainer.step, loop._AGREE_EVERY = noting, 1
    quiet = RunOptions(threads=1, tracker="none")
    classify, tokens = TrainConfig.from_dict(configs[0]), PretrainConfig.from_dict(configs[1])
    if not again:
        try:
            fit(classify, out / "cut", quiet)
        except KeyboardInterrupt:
            pass
    fit(classify, out / "two", quiet)
    evaluate(out / "two", splits=["test"])
    pretrain(tokens, out / "tokens", quiet)

if __name__ == "__main__":
    config = LaunchConfig(1, 1, 2, max_restarts=1, monitor_interval=0.1, start_method="fork", run_id="test",
                          rdzv_backend="c10d", rdzv_endpoint="localhost:0")
    elastic_launch(config, work)(Path(sys.argv[1]), json.loads(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def shards(spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_shards(spectra_folder, tmp_path_factory.mktemp("ranks") / "shards"))


@pytest.fixture(scope="module")
def config(shards: str) -> TrainConfig:
    return TrainConfig(task="classify", shards=(shards,), backbone="tiny", epochs=2, batch_size=16)


def assert_same_weights(ours: Path, theirs: Path) -> None:
    """But for rounding: a rank's gradient is a sum of its own, of another order."""
    found, expected = (load_file(run / "model.safetensors") for run in (ours, theirs))
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=5e-4)


@pytest.mark.skipif(sys.platform != "linux", reason="forks processes that have threads")
def test_two_ranks_are_one_though_one_of_them_is_killed(config: TrainConfig, sets: Any, tmp_path: Path) -> None:
    tokens = PretrainConfig(shards=(str(sets("flux")),), size="tiny", batch_size=8, epochs=1, max_steps=3)
    done = commands.run(
        commands.script(TWO, tmp_path, json.dumps([config.to_dict(), tokens.to_dict()])), OMP_NUM_THREADS="1",
        CUDA_VISIBLE_DEVICES="",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    run, one = tmp_path / "two", fit(replace(config, batch_size=32), tmp_path / "one", QUIET)
    assert_same_weights(run, one)
    ours, theirs = (json.loads((each / RUN).read_text()) for each in (run, one))
    assert_equal_but_for_rounding(ours["history"], theirs["history"], rel=1e-3, abs=1e-4)
    assert ours["ranks"] == 2 and ours["steps"] == theirs["steps"]
    # What was learnt from: each sample once an epoch. After the eighth step there was a checkpoint.
    assert ours["steps"] == 16
    for epoch in (0, 1):
        seen = [json.loads((run / f"seen-{8 * epoch + step}-{rank}.json").read_text())
                for step in range(8) for rank in (0, 1)]  # fmt: skip
        keys = [key for _, part in seen for key in part]
        assert len(keys) == len(set(keys)) > 200 and {again for again, _ in seen} == {epoch}
    # The test split is judged as on one process, and a state of two goes on with one.
    scored = json.loads((run / "metrics.json").read_text())["splits"]["test"]
    assert_equal_but_for_rounding(scored, evaluate(run, splits=["test"], device="cpu")["splits"]["test"], rel=1e-3)
    assert checkpoint.latest(tmp_path / "cut") is not None
    assert_same_weights(fit(config, tmp_path / "cut", QUIET), one)
    # Without labels, too.
    alone = pretrain(replace(tokens, batch_size=16), tmp_path / "tokens-one", QUIET)
    assert_same_weights(tmp_path / "tokens", alone)


def test_a_run_begun_on_three_ranks_takes_their_steps_on_one(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three batches of 16 a step are one of 48; the last step of an epoch has fewer."""
    config = replace(config, epochs=1)
    whole = fit(replace(config, batch_size=48), tmp_path / "whole", QUIET)
    claim = loop.claim
    with monkeypatch.context() as patch:
        patch.setattr(loop, "claim", lambda *args: claim(*args[:-1], 3))
        fit(config, tmp_path / "three", QUIET)
    assert_same_weights(tmp_path / "three", whole)
    record = json.loads((tmp_path / "three" / RUN).read_text())
    assert record["ranks"] == 3 and record["steps"] == json.loads((whole / RUN).read_text())["steps"]


@pytest.mark.parametrize(("variables", "why"), [
    ({"WORLD_SIZE": "2"}, r"^WORLD_SIZE=2: .*do not see each other \(no RANK, LOCAL_RANK, MASTER_ADDR"),
    ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1"}, r"^SLURM_STEP_NUM_TASKS=4: .* by srun .*unset SLURM"),
    ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, r"^OMPI_COMM_WORLD_SIZE=2: .*mpirun.*torchrun"),
    # Each of two torchruns that were not told of the other.
    ({"SLURM_STEP_NUM_TASKS": "2", "WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost",
      "MASTER_PORT": "0"}, r"^SLURM_STEP_NUM_TASKS=2: "),
])  # fmt: skip
def test_processes_that_do_not_see_each_other_are_refused(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], why: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=why):
        fit(config, tmp_path / "run", QUIET)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="train predict is one process"):
        alone("train predict")

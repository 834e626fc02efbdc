"""Other runs as baselines: the same numbers as their own evaluation, on the same objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from specshards.common.errors import UsageError
from specshards.common.jobs import Engine
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.write.build import build
from specshards.train.config import RunOptions, TrainConfig
from specshards.train.evaluation.evaluate import evaluate
from specshards.train.evaluation.other_runs import add_runs
from specshards.train.evaluation.predictions import Answers
from specshards.train.fit import fit
from tests.oracles.small_run import IMAGE, small_run, small_shards

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def runs(spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> tuple[Path, Path]:
    """A model of pictures with two tasks, and one of spectra with one of them, cut and rounded otherwise."""
    folder = tmp_path_factory.mktemp("rivals")
    mine = small_run(small_shards(spectra_folder, folder / "pictures"), folder / "mine", epochs=1)
    flux = ShardConfig(encoding="flux", image=IMAGE, samples_per_shard=17)
    build(flux, spectra_folder, folder / "flux", engine=Engine(workers=0))
    config = TrainConfig(task="classify", shards=(str(folder / "flux"),), backbone="sequence-tiny", epochs=2,
                         precision="bf16")  # fmt: skip
    return mine, fit(config, folder / "theirs", RunOptions(device="cpu", threads=1, tracker="none"))


def test_a_rival_scores_what_its_own_evaluation_says(runs: tuple[Path, Path]) -> None:
    mine, theirs = runs
    for _ in range(2):  # a second time replaces, and adds nothing
        add_runs(mine, [theirs], device="cpu", threads=1)
    assert Answers.read(mine).record["runs"]["theirs"]["backbone"] == "sequence-tiny"
    own = evaluate(theirs, device="cpu", threads=1)["splits"]
    beside = evaluate(mine, device="cpu", threads=1)["splits"]
    for split in ("val", "test"):
        rival, alone = beside[split]["classify"]["baselines"]["theirs"], own[split]["classify"]["all"]
        assert rival["count"] == alone["count"] > 10
        for metric in ("accuracy", "macro_f1"):
            assert rival[metric] == pytest.approx(alone[metric])
        assert not beside[split]["redshift"]["baselines"].get("theirs", {}).get("count")
    assert "theirs" in (mine / "report.md").read_text()


def test_rivals_that_do_not_fit_are_refused(runs: tuple[Path, Path], spectra_folder: Path, tmp_path: Path) -> None:
    mine, theirs = runs
    with pytest.raises(UsageError, match="two of one name"):
        add_runs(mine, [theirs, theirs], device="cpu")
    with pytest.raises(UsageError, match="no such folder"):
        add_runs(mine, [tmp_path / "nowhere"], device="cpu")
    other = small_shards(spectra_folder, tmp_path / "pictures")
    z = small_run(other, tmp_path / "z", task="redshift", epochs=1)
    with pytest.raises(UsageError, match="has learnt classify, and nothing of redshift"):
        add_runs(z, [theirs], device="cpu", threads=1)
    build(ShardConfig(image=IMAGE, seed=5), spectra_folder, tmp_path / "otherwise", engine=Engine(workers=0))
    elsewhere = small_run(tmp_path / "otherwise", tmp_path / "elsewhere", task="classify", epochs=1)
    with pytest.raises(UsageError, match="have no answer there"):
        add_runs(elsewhere, [theirs], device="cpu", threads=1)

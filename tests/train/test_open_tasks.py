"""A task that another package adds: a column that the label vectors of the shards do not hold, in a few lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine
from specshards.ingest.mock.scale.config import ScaleConfig
from specshards.ingest.mock.scale.job import write_parquet_survey
from specshards.shards import loader as shard_loader
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.write.build import build
from specshards.train.config import RunOptions, TrainConfig
from specshards.train.evaluation.evaluate import evaluate
from specshards.train.fit import fit
from specshards.train.tasks.classification import classification
from specshards.train.tasks.multitask import add_targets
from specshards.train.tasks.regression import regression
from specshards.train.tasks.task import TASKS, TrainSplit
from specshards.train.use.predict import Predictor

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", autouse=True)
def tasks() -> Iterator[None]:
    """What the modules that another package names as entry points would say."""
    TASKS.choose("classify")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TASKS, "_things", dict(TASKS))
        TASKS.register("ebv")(regression("ebv_label", unit="mag"))
        TASKS.register("morphology")(classification("shape"))
        yield


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Spectra with two columns more: a number, missing for every seventh object, and a text."""
    out = tmp_path_factory.mktemp("survey")
    write_parquet_survey(ScaleConfig("lamost", n=200, templates=20), out, engine=Engine(workers=0))
    for path in sorted((out / "spectra").glob("part-*.parquet")):
        table = pq.read_table(path)
        ebv = [None if i % 7 == 0 else 0.1 + (i % 10) / 50 for i in range(len(table))]
        table = table.append_column("ebv_label", pa.array(ebv, pa.float64()))
        table = table.append_column("shape", pa.array(["disc" if i % 3 else "bulge" for i in range(len(table))]))
        pq.write_table(table, path)
    return out / "spectra"


@pytest.fixture(scope="module")
def shards(survey: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("open") / "shards"
    build(ShardConfig(samples_per_shard=60), survey, out, engine=Engine(workers=0))
    return out


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = TrainConfig(
        task="ebv,morphology,teff", shards=(str(shards),), backbone="tiny", epochs=1, batch_size=32, precision="fp32"
    )
    return fit(config, tmp_path_factory.mktemp("run") / "run", RunOptions(device="cpu", tracker="none"))


def test_it_learns_what_the_sidecar_says(shards: Path) -> None:
    config = TrainConfig(task="ebv", shards=(str(shards),))
    with shard_loader.open(shards, "train", 16, shuffle=False) as loader:
        task = TASKS["ebv"].fit("ebv", config, TrainSplit(config.shards, loader.manifests, loader.sidecar))
        add_targets([task], loader)
        batch = next(iter(loader))
        expected = task.targets(loader.sidecar(["ebv_label"]))
    np.testing.assert_array_equal(batch["labels"]["ebv"].numpy(), expected[:16])
    assert np.isnan(expected).any() and task.to_dict()["low"] == np.nanmin(expected)


def test_its_metrics_and_figures_stand_in_the_report(run: Path) -> None:
    content = evaluate(run, splits=["test"], device="cpu")
    scores = content["splits"]["test"]
    assert 0 < scores["ebv"]["labelled"] < scores["ebv"]["objects"] and scores["ebv"]["all"]["mae"] is not None
    assert set(scores["morphology"]["all"]["per_class"]) == {"bulge", "disc"}
    assert "MAE (mag)" in (run / "report.html").read_text() and (run / "figure_test_ebv.png").is_file()
    counts = json.loads((run / "specshards.json").read_text())["baselines"]["morphology"]["counts"]
    assert counts["class disc"] + counts["class bulge"] == counts["all"]


def test_its_predictions_have_calibrated_intervals(run: Path, survey: Path) -> None:
    table = Predictor.open(run, device="cpu")(survey)
    assert {"ebv_label", "ebv_label_std", "ebv_label_lo68", "predicted_shape", "p_disc"} <= set(table.column_names)
    assert set(table["predicted_shape"].to_pylist()) <= {"bulge", "disc"}


def test_a_column_that_the_spectra_had_not_is_named(shards: Path, tmp_path: Path) -> None:
    TASKS.register("age")(regression("age"))
    with pytest.raises(UsageError, match=r"train-000000\.parquet: has no column age"):
        fit(
            TrainConfig(task="age", shards=(str(shards),), backbone="tiny"),
            tmp_path / "run",
            RunOptions(device="cpu"),
        )


def test_a_run_of_a_task_that_is_gone_names_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TASKS, "_things", {name: kind for name, kind in TASKS.items() if name != "ebv"})
    with pytest.raises(JobError, match=r"specshards\.json: unknown TASK=ebv: choose classify, subclass"):
        Predictor.open(run, device="cpu")

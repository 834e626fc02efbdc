"""The paper's recipe, and each line of it as an option: schedule, normalisation, target, choice of epoch, classes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer

from specshards.common.errors import UsageError
from specshards.common.jobs import Engine
from specshards.ingest.mock.scale.config import ScaleConfig
from specshards.ingest.mock.scale.job import write_parquet_survey
from specshards.shards import loader as shard_loader
from specshards.shards.format.manifest import LabelStats
from specshards.train import loop
from specshards.train.config import RunOptions, TrainConfig, configure
from specshards.train.evaluation.evaluate import evaluate
from specshards.train.fit import fit
from specshards.train.models.parameters import parameter_groups
from specshards.train.models.picture import IMAGENET_MEAN, build
from specshards.train.report import tables
from specshards.train.report.modelcard import modelcard
from specshards.train.run import Card, read_metrics
from specshards.train.tasks.classification import Classify
from specshards.train.tasks.multitask import check_tasks, make_tasks, task_from_dict
from specshards.train.tasks.regression import Redshift, regression
from specshards.train.tasks.task import TASKS, TrainSplit
from specshards.train.use.predict import Predictor
from tests.oracles.small_run import small_shards

QUIET = RunOptions(device="cpu", threads=1, tracker="none")
STATS = LabelStats(count=1000, mean=0.4, std=0.6, min=-0.002, max=4.0)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Spectra with every label; the temperatures are of stars only."""
    out = tmp_path_factory.mktemp("survey")
    write_parquet_survey(ScaleConfig("lamost", n=240, templates=30), out, engine=Engine(workers=0))
    return small_shards(out / "spectra", out / "shards")


@pytest.fixture(scope="module")
def recipe(shards: Path) -> TrainConfig:
    return configure("paper", task="redshift,classify", shards=(str(shards),), backbone="tiny", epochs=2,
                     batch_size=16, lr=1e-3, only="STAR,QSO")  # fmt: skip


@pytest.fixture(scope="module")
def trained(recipe: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(recipe, tmp_path_factory.mktemp("run") / "run", QUIET)


def test_the_preset_is_the_published_recipe_and_gives_way() -> None:
    config = configure("paper", task="redshift", shards=("s",), backbone="tiny")
    asked = {
        "lr": 1e-5, "weight_decay": 0.01, "decay": "trainer", "schedule": "linear", "warmup": 0.0, "clip": 1.0,
        "epochs": 30, "batch_size": 64, "precision": "fp32", "seed": 42, "head": "mse", "target": "max",
        "normalise": "0.5", "select": "r2,accuracy",
    }  # fmt: skip
    assert {name: getattr(config, name) for name in asked} == asked
    mine = configure("paper", task="redshift", shards=("s",), backbone="tiny", seed=3, target="z", select="nmad")
    assert (mine.seed, mine.target, mine.select) == (3, "z", "nmad")


def test_a_spectrum_model_takes_the_preset_without_a_normalisation() -> None:
    assert configure("paper", task="redshift", shards=("s",), backbone="sequence").normalise == "backbone"
    with pytest.raises(UsageError, match=r"normalise=0\.5: BACKBONE=sequence reads no pictures"):
        configure("paper", task="redshift", shards=("s",), backbone="sequence", normalise="0.5")


def test_fields_at_their_defaults_are_not_written() -> None:
    plain = TrainConfig(task="classify", shards=("s",), backbone="tiny", lr=1e-3)
    assert not {"decay", "normalise", "target", "select", "only"} & set(plain.to_dict())
    mine = replace(plain, only="STAR", select="accuracy", normalise="imagenet", target="max", decay="trainer")
    assert TrainConfig.from_dict(json.loads(json.dumps(mine.to_dict()))) == mine
    assert TrainConfig.from_dict(plain.to_dict()) == plain
    for task in (Redshift.scaled_by(STATS, "redshift"), Classify(("STAR", "QSO"), "classify")):
        assert not {"divisor", "only", "select"} & set(task.to_dict())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"schedule": "steps"}, "unknown schedule steps: choose cosine, linear, constant"),
        ({"normalise": "1"}, "unknown normalise 1: choose backbone, 0.5, imagenet"),
        ({"target": "z", "head": "gaussian"}, "target=z: is learnt by squared errors; give head=mse, not gaussian"),
        ({"only": "STARS"}, "only=STARS: no class STARS; choose of STAR, GALAXY, QSO"),
        ({"select": ","}, "select: name a metric"),
        (
            {"select": "accuracy"},
            "select=accuracy: nothing that a task on z is chosen by; give one of mean_abs_dz, r2",
        ),
        ({"task": "teff", "target": "z"}, "target=z: TASK=teff learns no redshift"),
        ({"task": "teff,logg", "select": "crps"}, "select=crps: TASK=teff is one of several"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_mend(wrong: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        check_tasks(replace(TrainConfig(task="redshift", shards=("s",), backbone="tiny"), **wrong))  # type: ignore[arg-type]
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("normalise", ["backbone", "0.5", "imagenet"])
def test_pictures_are_normalised_as_asked(normalise: str) -> None:
    model = build("tiny", 2, 32, normalise=normalise)
    caught: list[torch.Tensor] = []
    model.network.register_forward_pre_hook(
        lambda _, __, given: caught.append(given["pixel_values"]), with_kwargs=True
    )
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    model(pixels)
    mean = IMAGENET_MEAN[0] if normalise == "imagenet" else 0.5
    std = 0.229 if normalise == "imagenet" else 0.5
    torch.testing.assert_close(caught[0][:, 0], (pixels[:, 0] / 255 - mean) / std, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("target", "divisor"), [("z", 1.0), ("max", 4.0)])
def test_a_target_is_learnt_by_its_squared_error(target: str, divisor: float) -> None:
    task = Redshift.scaled_by(STATS, "redshift", target=target)
    logits, z = torch.tensor([[0.5], [0.1]]), torch.tensor([1.0, 0.2])
    torch.testing.assert_close(task.sample_loss(logits, z), (logits[:, 0] - z / divisor) ** 2)
    np.testing.assert_allclose(task.decode(logits)["point"], np.array([0.5, 0.1]) * divisor, rtol=1e-6)
    error = np.abs(np.log1p(np.array([0.5, 0.1]) * divisor) - np.log1p(z.double().numpy()))
    np.testing.assert_allclose(task.calibration(logits, z.double().numpy())["crps"], error, rtol=1e-5)
    np.testing.assert_allclose(task.from_estimator(task.to_estimator(z.numpy().astype(float))), z, rtol=1e-6)
    assert task_from_dict(task.to_dict()) == task and f"z / {divisor:g}" in task.meaning()


def test_other_labels_are_no_redshift_and_divide_by_their_largest() -> None:
    feh = regression("feh", unit="dex")
    assert feh.scaled_by(STATS, "feh", target="z").divisor is None
    assert feh.scaled_by(STATS, "feh", target="max").divisor == STATS.max
    with pytest.raises(UsageError, match=r"target=max: the largest feh of the train split is -0\.1"):
        feh.scaled_by(replace(STATS, min=-2.0, max=-0.1), "feh", target="max")


def test_a_run_says_what_it_took_and_by_what_its_epoch_was_chosen(trained: Path, recipe: TrainConfig) -> None:
    record = json.loads((trained / "run.json").read_text())
    assert {name: record["config"][name] for name in ("schedule", "normalise", "target", "select", "only")} == {
        "schedule": "linear", "normalise": "0.5", "target": "max", "select": "r2,accuracy", "only": "STAR,QSO",
    }  # fmt: skip
    steps = record["steps"]
    for entry in record["history"]:
        last = recipe.peak_lr * (steps - entry["step"] + 1) / steps
        assert entry["learning_rate"] == pytest.approx(last, rel=1e-9)
        mean = np.mean([entry["redshift_r2"], entry["classify_accuracy"]])
        assert entry["mean_skill"] == pytest.approx(mean)
    best = max(record["history"], key=lambda entry: entry["mean_skill"])
    assert record["best"] == {"epoch": best["epoch"], "metric": "mean_skill", "value": best["mean_skill"]}
    preprocessor = json.loads((trained / "preprocessor_config.json").read_text())
    assert preprocessor["image_mean"] == preprocessor["image_std"] == [0.5] * 3


def test_the_printed_table_has_the_metric_that_chose_the_epoch(trained: Path) -> None:
    card, content = Card.read(trained / "specshards.json"), read_metrics(trained / "metrics.json")
    head = next(line for line in tables.short(content, card).splitlines() if line.startswith("val redshift"))
    assert head.split()[-1] == "R2"
    dz, of_z = tables.tables(content["splits"]["val"]["redshift"], card.tasks[0])[:2]
    assert "CRPS" in dz[0] and of_z[0] == ["In z itself", "objects", "R2", "MAE", "RMSE"]  # CRPS is of ln(1 + z)


def test_only_some_classes_count_everywhere(trained: Path, shards: Path) -> None:
    card = Card.read(trained / "specshards.json")
    with shard_loader.open(shards, "train", 16, shuffle=False, threads=1) as loader:
        rows = loader.sidecar(["class", "z"]).to_pylist()
    known = [row["z"] for row in rows if row["class"] in ("STAR", "QSO")]
    redshift, classify = card.tasks
    assert isinstance(redshift, Redshift) and redshift.only == ("STAR", "QSO")
    assert redshift.high == pytest.approx(max(known)) == redshift.divisor
    assert card.baselines["redshift"].constant == pytest.approx(np.mean(known), rel=1e-6)
    assert card.baselines["classify"].counts["class GALAXY"] == 0 < card.baselines["classify"].counts["class QSO"]
    scores = evaluate(trained, splits=["test"], device="cpu", threads=1)["splits"]["test"]
    for task in ("redshift", "classify"):
        assert set(scores[task]["by_class"]) == {"STAR", "QSO"} and scores[task]["labelled"] < scores[task]["objects"]
    assert "class STAR, QSO" in redshift.limits() and isinstance(classify, Classify)


def test_a_model_reads_what_the_trainer_of_transformers_decays() -> None:
    model = build("tiny", 2, 32)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, 0.01, 1.0, "trainer")
    ours = {names[id(p)] for group in groups for p in group["params"] if group["weight_decay"]}
    theirs = Trainer.get_decay_parameter_names(None, model)  # type: ignore[arg-type]
    assert ours == set(theirs)


def test_another_recipe_in_the_same_folder_is_refused(trained: Path, recipe: TrainConfig) -> None:
    with pytest.raises(UsageError, match=r"normalise: 0\.5 -> unset, target: max -> z"):
        fit(replace(recipe, normalise="backbone", target="z"), trained, QUIET)
    with pytest.raises(UsageError, match="only: STAR,QSO -> unset"):
        fit(replace(recipe, only=""), trained, QUIET)


def test_an_interrupted_run_goes_on_with_the_recipe_bit_for_bit(
    trained: Path, recipe: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop._Trainer.step

    def stopping(self: Any, window: Any) -> torch.Tensor:
        if self.progress.step == 4:
            self.stop.set()
        return real(self, window)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Trainer, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            fit(recipe, tmp_path / "run", QUIET)
    fit(recipe, tmp_path / "run", QUIET)
    ours, theirs = (load_file(run / "model.safetensors") for run in (tmp_path / "run", trained))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    records = [json.loads((run / "run.json").read_text()) for run in (tmp_path / "run", trained)]
    assert records[0]["history"] == records[1]["history"] and records[0]["best"] == records[1]["best"]


def test_who_counted_stands_in_report_card_and_predictions(trained: Path, shards: Path) -> None:
    for report in ("report.md", "report.html"):
        assert "labelled train objects of class STAR, QSO" in (trained / report).read_text()
    front, text = modelcard(trained).split("\n---\n", 1)
    assert "with a z of class STAR, QSO" in text and "train objects of class STAR, QSO from" in text and front
    assert "z / " in text  # what the output is
    table = Predictor.open(trained, device="cpu")(shards)
    assert len(table) == 240 and {"z", "z_lo68", "predicted_class"} <= set(table.column_names)
    card = Card.read(trained / "specshards.json")
    redshift = card.tasks[0]
    assert isinstance(redshift, Redshift) and max(table["z"].to_pylist()) < 2 * redshift.high


def test_a_run_of_a_class_that_no_object_has_says_so(recipe: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"shards \(class GALAXY alone\): no object of the train split has a teff"):
        fit(replace(recipe, task="teff", only="GALAXY", select="r2"), tmp_path / "run", QUIET)
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_task_of_another_package_that_knows_nothing_of_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its class makes itself in `fit` and takes no notice."""

    class Deaf(regression("feh")):  # type: ignore[misc]
        @classmethod
        def fit(cls, name: str, config: TrainConfig, train: TrainSplit) -> Deaf:
            return cls.scaled_by(STATS, name)

    monkeypatch.setitem(TASKS._things, "deaf", Deaf)
    for asked in ({"only": "STAR"}, {"select": "r2"}):
        config = TrainConfig(task="deaf", shards=("s",), backbone="tiny", **asked)
        with pytest.raises(UsageError, match="TASK=deaf: its class knows no --only and no --select"):
            make_tasks(config, [], lambda columns: pa.table({}))
    assert make_tasks(TrainConfig(task="deaf", shards=("s",), backbone="tiny"), [], lambda columns: pa.table({}))


@pytest.mark.parametrize("wrong", [{"only": ["STARS"]}, {"select": "luck"}, {"divisor": -1.0}, {"only": "STAR"}])
def test_a_record_that_no_run_writes_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        task_from_dict({**Redshift.scaled_by(STATS, "redshift", "mse").to_dict(), **wrong})
    if "divisor" not in wrong:
        with pytest.raises(ValueError):
            task_from_dict({**Classify(("STAR", "QSO"), "classify").to_dict(), **wrong})

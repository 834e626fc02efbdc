"""What a run can be asked for: several tasks, big steps of small batches, averaged weights, frozen backbones."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from specshards.common.errors import UsageError
from specshards.common.jobs import Engine
from specshards.ingest.mock.scale.config import ScaleConfig
from specshards.ingest.mock.scale.job import write_parquet_survey
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.write.build import build as build_shards
from specshards.train.config import RunOptions, TrainConfig
from specshards.train.evaluation.conformal import LEVELS, calibrate, intervals
from specshards.train.evaluation.evaluate import evaluate
from specshards.train.evaluation.score import Scored
from specshards.train.fit import fit
from specshards.train.meter import forward_flops
from specshards.train.models.picture import SpectrumModel, build
from specshards.train.network import open_model
from specshards.train.tasks.classification import Subclass
from specshards.train.tasks.regression import regression
from specshards.train.use.predict import Predictor
from tests.oracles import commands
from tests.oracles.small_run import IMAGE

QUIET = RunOptions(device="cpu", tracker="none")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Spectra with every label; the temperatures are of stars only."""
    out = tmp_path_factory.mktemp("survey")
    write_parquet_survey(ScaleConfig("lamost", n=360, templates=40), out, engine=Engine(workers=0))
    return out / "spectra"


@pytest.fixture(scope="module")
def config(survey: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    out = tmp_path_factory.mktemp("options") / "shards"
    build_shards(ShardConfig(image=IMAGE, samples_per_shard=80), survey, out, engine=Engine(workers=0))
    return TrainConfig(
        task="classify", shards=(str(out),), backbone="tiny", epochs=1, batch_size=16, precision="fp32"
    )


@pytest.fixture(scope="module")
def together(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    mine = replace(config, task="redshift,classify,teff,subclass", epochs=5, ema=0.9)
    return fit(mine, tmp_path_factory.mktemp("runs") / "together", RunOptions(device="cpu"))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def same(one: Path, two: Path) -> bool:
    ours, theirs = weights(one), weights(two)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_several_tasks_share_a_backbone_and_are_judged_one_by_one(together: Path) -> None:
    content = json.loads((together / "metrics.json").read_text())
    scores = content["splits"]["val"]
    assert list(scores) == ["redshift", "classify", "teff", "subclass"]
    constant = scores["classify"]["baselines"]["constant"]["macro_f1"]
    assert scores["classify"]["all"]["macro_f1"] > constant + 0.2
    assert scores["redshift"]["all"]["mean_abs_dz"] < scores["redshift"]["baselines"]["constant"]["mean_abs_dz"]
    # Only stars have a temperature: the mask must leave the others out, and the account must say so.
    assert 0 < scores["teff"]["labelled"] < scores["teff"]["objects"] == scores["classify"]["objects"]
    assert content["training"]["best"]["metric"] == "mean_skill"
    assert set(evaluate(together, splits=["test"], device="cpu")["splits"]["test"]) == set(scores)


def test_one_table_answers_all_tasks(together: Path, survey: Path, config: TrainConfig) -> None:
    model = Predictor.open(together, device="cpu")
    table = model(survey)
    wanted = {"z", "z_lo68", "z_hi95", "predicted_class", "classify_set95", "teff", "teff_std", "predicted_subclass"}
    assert wanted <= set(table.column_names)
    assert (table["z_lo95"].to_numpy() <= table["z"].to_numpy()).all()
    shards = model(config.shards[0])
    assert len(shards) == len(table) and set(shards["split"].to_pylist()) == {"train", "val", "test"}
    # The same objects, drawn now or read from shards, are the same pictures and get the same answers.
    ours = {row["object_id"]: row for row in table.to_pylist()}
    for row in shards.to_pylist()[:50]:
        assert row["z"] == pytest.approx(ours[row["object_id"]]["z"], abs=1e-4)
        for name in ("STAR", "GALAXY", "QSO"):  # not the likeliest: a rounding may turn a tie
            assert row[f"p_{name}"] == pytest.approx(ours[row["object_id"]][f"p_{name}"], abs=1e-4)


def test_small_batches_make_the_step_of_a_big_one(config: TrainConfig, tmp_path: Path) -> None:
    """With labels spread unevenly: temperatures exist for stars only."""
    mine = replace(config, task="teff,classify", max_steps=3, head="mse")
    big = fit(replace(mine, batch_size=32), tmp_path / "big", QUIET)
    small = fit(replace(mine, batch_size=8, accumulate=4), tmp_path / "small", QUIET)
    ours, theirs = weights(small), weights(big)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=2e-5)
    start = fit(
        replace(mine, batch_size=32, max_steps=1, lr=1e-12),
        tmp_path / "start",
        QUIET,
    )
    assert max(float((weights(start)[name] - theirs[name]).abs().max()) for name in theirs) > 1e-3


def test_the_average_follows_the_weights(config: TrainConfig, tmp_path: Path) -> None:
    slow = fit(replace(config, ema=0.999, max_steps=8), tmp_path / "slow", QUIET)
    fast = fit(replace(config, ema=1e-9, max_steps=8), tmp_path / "fast", QUIET)
    plain = fit(replace(config, max_steps=8), tmp_path / "plain", QUIET)
    ours, theirs = weights(fast), weights(plain)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-7)
    assert not same(slow, plain)


def test_a_frozen_backbone_stays_as_it_was(config: TrainConfig, tmp_path: Path) -> None:
    build("tiny", 3, IMAGE.size).save(tmp_path / "backbone")
    mine = replace(config, backbone=str(tmp_path / "backbone"), freeze="backbone", max_steps=4, lr=1e-2)
    after, before = (
        weights(fit(mine, tmp_path / "run", QUIET)),
        weights(tmp_path / "backbone"),
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_a_few_batches_are_learnt_by_heart(config: TrainConfig, tmp_path: Path) -> None:
    mine = replace(config, overfit_batches=4, batch_size=8, epochs=25, warmup=0.0, schedule="constant")
    run = fit(mine, tmp_path / "run", RunOptions(device="cpu"))
    training = json.loads((run / "metrics.json").read_text())["training"]
    assert training["steps"] == 100
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next((run / "tensorboard").rglob("events*")).parent)).Reload()
    assert {"train/loss", "train/lr", "train/samples_per_second", "val/macro_f1"} <= set(events.Tags()["scalars"])
    assert events.Scalars("train/loss")[-1].value < 0.2


@pytest.mark.parametrize("task", ["redshift,teff"])
def test_a_killed_run_ends_with_the_same_weights_bit_for_bit(config: TrainConfig, tmp_path: Path, task: str) -> None:
    mine = replace(config, task=task, epochs=3, ema=0.99, accumulate=2, augment="mask=0.2")
    whole = fit(mine, tmp_path / "whole", RunOptions(device="cpu"))
    command = commands.program(
        "train", "fit", "--task", task, "--shards", config.shards[0], "--out", tmp_path / "cut", "--backbone", "tiny",
        "--epochs", 3, "--batch-size", 16, "--ema", 0.99, "--accumulate", 2, "--augment", "mask=0.2",
        "--precision", "fp32", "--device", "cpu", "--checkpoint-minutes", 0.001,
    )  # fmt: skip
    run = commands.start(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and run.poll() is None:
        # In the second epoch, in the middle of a step as like as not.
        found = [int(path.name.split("-")[2]) for path in (tmp_path / "cut" / "checkpoints").glob("step-*[0-9]")]
        if any(epoch >= 1 for epoch in found):
            break
        time.sleep(0.02)
    assert run.poll() is None, "the run ended before it could be killed"
    run.send_signal(signal.SIGKILL)
    run.wait()
    done = commands.run(command, OMP_NUM_THREADS="1")
    assert done.returncode == 0 and "resuming" in done.stdout, done.stderr
    assert same(tmp_path / "cut", whole)
    histories = [json.loads((r / "run.json").read_text())["history"] for r in (tmp_path / "cut", whole)]
    assert histories[0] == histories[1]


def test_drop_path_reaches_a_backbone_that_has_it(tmp_path: Path) -> None:
    from transformers import Dinov2Config, Dinov2ForImageClassification

    small = Dinov2Config(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=14
    )
    Dinov2ForImageClassification(small).save_pretrained(tmp_path / "dino")
    model = build(str(tmp_path / "dino"), 3, 56, drop_path=0.3)
    assert model.network.config.drop_path_rate == 0.3
    pixels = torch.randint(0, 256, (4, 3, 56, 56), dtype=torch.uint8)
    model.train()
    assert not torch.equal(model(pixels), model(pixels))
    model.eval()
    assert torch.equal(model(pixels), model(pixels))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
def test_what_a_step_frees_is_kept_for_the_next_one() -> None:
    code = """
import resource, sys, torch
from specshards.train.accelerator import keep_freed_memory
if "keep" in sys.argv:
    keep_freed_memory()
pages = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
values, given_out = torch.ones(10_000_000), []
for _ in range(21):
    before = pages()
    doubled = values * 2
    del doubled
    given_out.append(pages() - before)
print(sorted(given_out)[10])
"""
    # The median of 21 steps: a machine short of memory takes pages away from any process.
    # dask sets these for its workers, and leaves them behind.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    given_out = {
        word: int(subprocess.check_output(commands.script(code, word), cwd=commands.user_folder(), env=plain))
        for word in ("keep", "not")
    }
    assert given_out["keep"] < given_out["not"] / 4, given_out


def test_the_arithmetic_of_a_vit_b_16_is_counted() -> None:
    """17.6 G multiply-adds (Dosovitskiy et al. 2021 and timm's tables): 35.2 GFLOP."""
    from transformers import ViTConfig, ViTForImageClassification

    with torch.device("meta"):
        network = ViTForImageClassification(ViTConfig(num_labels=3))
    model = SpectrumModel(network.to_empty(device="cpu"), (0.5,) * 3, (0.5,) * 3)
    assert forward_flops(model, 224, torch.device("cpu")) == pytest.approx(35.2e9, rel=0.02)


@pytest.mark.parametrize("head", ["gaussian", "mse"])
def test_conformal_intervals_hold_what_they_say(head: str) -> None:
    """Errors twice as large as the model believes: calibration must find out, on objects of the same kind."""
    rng = np.random.default_rng(0)
    task = regression("teff")("teff", 3000, 9000, 6000, 1000, head)

    def draw(n: int) -> Scored:
        width = rng.uniform(50, 300, n)
        point = rng.uniform(4000, 8000, n)
        truth = point + 2 * width * rng.standard_normal(n)
        nan = np.full(n, np.nan)
        columns = {"point": point, "teff_std": width if head == "gaussian" else nan}
        return Scored(columns, {"teff": truth}, np.full(n, "mock", object), 0.0)

    record = calibrate([task], {"teff": draw(2000)})["teff"]
    new = draw(20000)
    found = intervals(task, record, new.columns)
    for level in LEVELS:
        low, high = (np.asarray(found[f"teff_{end}{100 * level:g}"]) for end in ("lo", "hi"))
        inside = (new.labels["teff"] >= low) & (new.labels["teff"] <= high)
        assert inside.mean() == pytest.approx(level, abs=0.03)


def test_conformal_sets_hold_the_true_class() -> None:
    rng = np.random.default_rng(1)
    task = Subclass(("A", "F", "G"), "subclass")

    def draw(n: int) -> Scored:
        p = rng.dirichlet([0.7, 0.7, 0.7], n)
        truth = np.array([rng.choice(3, p=row) for row in p], np.float64)
        sharp = p**3 / (p**3).sum(axis=1, keepdims=True)  # overconfident
        columns = {f"p_{name}": sharp[:, i] for i, name in enumerate(task.classes)}
        return Scored(
            {**columns, "point": sharp.argmax(axis=1)}, {"subclass": truth}, np.full(n, "mock", object), 0.0
        )

    record = calibrate([task], {"subclass": draw(3000)})["subclass"]
    new = draw(4000)
    sets = intervals(task, record, new.columns)["subclass_set95"]
    inside = [task.classes[int(t)] in s.split() for t, s in zip(new.labels["subclass"], sets, strict=True)]
    assert np.mean(inside) >= 0.94 and all(sets)


def test_few_objects_promise_nothing() -> None:
    task = regression("teff")("teff", 3000, 9000, 6000, 1000, "mse")
    nan = np.full(5, np.nan)
    scored = Scored({"point": np.zeros(5), "teff_std": nan}, {"teff": np.arange(5.0)}, np.full(5, "m", object), 0.0)
    record = calibrate([task], {"teff": scored})["teff"]
    assert record["scores"]["0.95"] is None and record["count"] == 5
    assert set(intervals(task, record, scored.columns)) == {"teff_lo68", "teff_hi68"}


def test_what_cannot_be_is_one_line(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name one task, or several different ones"):
        replace(config, task="teff,teff")
    with pytest.raises(UsageError, match="unknown tracker paper: choose tensorboard, wandb, none"):
        fit(config, tmp_path / "run", RunOptions(device="cpu", tracker="paper"))
    with pytest.raises(UsageError, match="augment: no blur; choose noise, scale, mask, tilt"):
        fit(replace(config, augment="blur=1"), tmp_path / "run", RunOptions(device="cpu"))
    with pytest.raises(UsageError, match="noise, scale and tilt change the spectrum"):
        fit(replace(config, augment="noise=1"), tmp_path / "run", RunOptions(device="cpu"))
    card, _ = open_model(fit(replace(config, task="logg", max_steps=1), tmp_path / "one", RunOptions(device="cpu")))
    assert card.tasks[0].unit == "dex"


def test_two_processes_share_an_epoch_and_judge_every_object_once(config: TrainConfig, tmp_path: Path) -> None:
    """Labels that are missing on one rank more than on the other; a second run continues a stopped one."""
    options = ["--task", "teff,classify", "--shards", config.shards[0], "--backbone", "tiny", "--batch-size", "16",
               "--tracker", "none"]  # fmt: skip

    def run(out: Path, *more: str) -> None:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command = [*launcher, "-m", "specshards", "train", "fit", *options, "--out", str(out), *more]
        # Without a GPU `--device auto` is the CPU, for all of them together.
        done = commands.run(command, OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
        assert done.returncode == 0, done.stderr[-2000:]

    run(tmp_path / "two", "--epochs", "2")
    content = json.loads((tmp_path / "two" / "metrics.json").read_text())
    alone = json.loads((fit(replace(config, task="teff,classify"), tmp_path / "one", QUIET)
                        / "metrics.json").read_text())  # fmt: skip
    for task in ("teff", "classify"):
        ours, theirs = (c["splits"]["val"][task] for c in (content, alone))
        assert (ours["objects"], ours["labelled"]) == (theirs["objects"], theirs["labelled"])
    # The whole split on one process, by the weights that two processes made, gives the numbers that they gave.
    again = evaluate(tmp_path / "two", splits=["val"], device="cpu")["splits"]["val"]
    for task in ("teff", "classify"):
        two = content["splits"]["val"][task]
        assert again[task]["loss"] == pytest.approx(two["loss"], rel=1e-3)
        # Objects are drawn anew in the order of the split, whichever process scored them.
        for name, ends in two["intervals"].items():
            assert again[task]["intervals"][name] == pytest.approx(ends, rel=1e-2, abs=1e-2), name

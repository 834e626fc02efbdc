"""The recipe against the real thing: transformers' own Trainer and schedule, same weights at first, same batches.

The published code of A&A 709, A122 trains by that Trainer: a linear layer on the CLS token of `ViTModel`. Where
`SPECSHARDS_PUBLISHED` names a clone of it (astromer-science/spectromer), its own classes are trained, too.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainingArguments, ViTConfig, ViTModel, get_linear_schedule_with_warmup

from specshards.common.jobs import Engine
from specshards.ingest.mock.scale.config import ScaleConfig
from specshards.ingest.mock.scale.job import write_parquet_survey
from specshards.shards import loader as shard_loader
from specshards.train import fit as fitting
from specshards.train.config import RunOptions, TrainConfig, configure
from specshards.train.models.picture import SpectrumModel
from specshards.train.schedule import share_of_peak
from specshards.train.tasks.multitask import make_tasks
from tests.oracles.small_run import IMAGE, small_shards

PUBLISHED = os.environ.get("SPECSHARDS_PUBLISHED", "")
NOT_NEEDED = ("datasets", "torchvision", "torchvision.transforms", "pandas", "seaborn", "rewrite_subclasses")
EPOCHS, BATCH, RATE = 2, 16, 3e-4
#: A hundred times the recipe's: its own leaves no trace in so few steps.
DECAY = 1.0
#: Weights that differ by less are the same: they went a thousand times as far.
SAME = 3e-6

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 objects, so that the last batch of an epoch is not full."""
    out = tmp_path_factory.mktemp("survey")
    write_parquet_survey(ScaleConfig("lamost", n=150, templates=20), out, engine=Engine(workers=0))
    return small_shards(out / "spectra", out / "shards")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bare encoder, as one from the hub; its own normalisation is another one than the recipe's."""
    out = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(5)
    ViTModel(
        ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
                  image_size=IMAGE.size, patch_size=16)
    ).save_pretrained(out)  # fmt: skip
    return str(out)


class Theirs(nn.Module):
    """What the published code trains: an encoder with a pooler that nothing reads, and a linear layer."""

    def __init__(self, encoder: ViTModel, outputs: int) -> None:
        super().__init__()
        self.encoder, self.last = encoder, nn.Linear(encoder.config.hidden_size, outputs)

    def forward(self, pixel_values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        found = self.last(self.encoder(pixel_values=pixel_values).last_hidden_state[:, 0])
        if found.shape[1] == 1:
            return F.mse_loss(found.view(-1), labels.view(-1)), found
        return F.cross_entropy(found, labels), found


class Samples(Dataset[dict[str, Tensor]]):
    def __init__(self, pixels: list[Tensor], labels: list[Tensor], numbers: bool) -> None:
        self.pixels, self.labels, self.numbers = pixels, labels, numbers

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        label = self.labels[place] if self.numbers else self.labels[place].long()
        return {"pixel_values": (self.pixels[place] / 255 - 0.5) / 0.5, "labels": label}


class InOrder(Trainer):  # type: ignore[misc]
    """The Trainer on batches that stand fixed: those that our loop saw."""

    batches: list[list[int]]

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train_dataset, batch_sampler=self.batches)


def seen(config: TrainConfig, divisor: float) -> tuple[Samples, list[list[int]]]:
    """What a run is given, in its order; labels as the published code scales them."""
    pixels: list[Tensor] = []
    labels: list[Tensor] = []
    batches = []
    name = "z" if config.task == "redshift" else "class"
    with shard_loader.open(config.shards, "train", BATCH, seed=config.seed, threads=1) as loader:
        for _ in range(config.epochs):
            for batch in loader:
                kept = batch["valid"]
                batches.append(list(range(len(pixels), len(pixels) + int(kept.sum()))))
                pixels += list(batch["pixel_values"][kept])
                labels += list((batch["labels"][name][kept] / divisor).float())
    return Samples(pixels, labels, name == "z"), batches


def ours(
    config: TrainConfig, out: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights before the first step of a run, and after the last one."""
    models: list[nn.Module] = []
    start: dict[str, Tensor] = {}

    def build(card: Any) -> nn.Module:
        models.append(real(card))
        start.update({name: weight.detach().clone() for name, weight in models[0].state_dict().items()})
        return models[0]

    real = fitting.build_model
    monkeypatch.setattr(fitting, "build_model", build)
    fitting.fit(config, out, RunOptions(device="cpu", threads=1, tracker="none"))
    assert isinstance(models[0], SpectrumModel)
    return start, models[0].state_dict()


def translated(weights: dict[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Our names of weights to others; what they begin with, ours and theirs."""
    return {
        new + name.removeprefix(old): weight
        for name, weight in weights.items() for old, new in names.items() if name.startswith(old)
    }  # fmt: skip


@pytest.fixture
def recipe(shards: Path, backbone: str) -> TrainConfig:
    """In small; a rate and a decay that leave traces after a few steps."""
    return configure("paper", task="redshift", shards=(str(shards),), backbone=backbone, epochs=EPOCHS,
                     batch_size=BATCH, lr=RATE, weight_decay=DECAY)  # fmt: skip


def distances(
    config: TrainConfig, like: TrainConfig, out: Path, monkeypatch: pytest.MonkeyPatch,
    make: Callable[[str, int], nn.Module] = lambda encoder, n: Theirs(ViTModel.from_pretrained(encoder), n),
    names: Mapping[str, str] = MappingProxyType({"network.vit.": "encoder.", "network.classifier.": "last."}),
) -> dict[str, tuple[float, float]]:  # fmt: skip
    """Of every weight how far our run ends from the Trainer's, which does `like`, and how far it went.

    Args:
        make: from the folder of an encoder and a number of outputs to what the Trainer trains.
        names: what its names of weights begin with, by what ours do.
    """
    with shard_loader.open(like.shards, "train", BATCH, threads=1) as loader:
        (learnt,) = make_tasks(like, loader.manifests, loader.sidecar)
    samples, batches = seen(like, getattr(learnt, "divisor", None) or 1.0)
    assert len(batches[-1]) < BATCH == len(batches[0]) and len(samples) > EPOCHS * BATCH
    before, after = (translated(weights, names) for weights in ours(config, out / "run", monkeypatch))
    model = make(like.backbone, learnt.head_size)
    missing = model.load_state_dict(before, strict=False)
    assert all(".pooler." in name for name in missing.missing_keys) and not missing.unexpected_keys
    arguments = TrainingArguments(
        output_dir=str(out / "theirs"), num_train_epochs=1, learning_rate=RATE, weight_decay=DECAY,
        save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, logging_strategy="no",
        remove_unused_columns=False, label_names=["labels"],
    )  # fmt: skip
    trainer = InOrder(model=model, args=arguments, train_dataset=samples)
    trainer.batches = batches
    trainer.train()
    assert trainer.state.global_step == len(batches)
    theirs = model.state_dict()
    return {
        name: (float((after[name] - theirs[name]).abs().max()), float((after[name] - start).abs().max()))
        for name, start in before.items() if not name.endswith("k_proj.bias")
    }  # fmt: skip


@pytest.mark.parametrize("task", ["redshift", "classify"])
def test_our_loop_ends_with_the_weights_of_the_real_trainer(
    task: str, recipe: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same batches from the same weights: two epochs, the last batch of each not full, a descent to 0.

    Biases of keys are left out: a softmax does not see them, so that their gradients are rounding errors.
    """
    mine = replace(recipe, task=task)
    found = distances(mine, mine, tmp_path, monkeypatch)
    assert max(apart for apart, _ in found.values()) < SAME
    assert min(went for _, went in found.values()) > 100 * SAME


@pytest.mark.parametrize("task", ["redshift", "classify"])
@pytest.mark.skipif(not PUBLISHED, reason="SPECSHARDS_PUBLISHED names no clone of the published code")
def test_so_it_does_with_the_published_classes_themselves(
    task: str, recipe: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, kind, layer = {
        "redshift": ("reg_vit_spectra", "ViTRegressionModel", "classifier.0."),
        "classify": ("cls_vit_spectra", "ViTClassificationModel", "classifier."),
    }[task]
    absent = [name for name in NOT_NEEDED if importlib.util.find_spec(name.split(".")[0]) is None]
    for name in (*absent, "wandb"):  # imported by the scripts for their tables and plots
        monkeypatch.setitem(sys.modules, name, MagicMock())
    monkeypatch.setenv("USE_CPU_ONLY", "1")
    spec = importlib.util.spec_from_file_location(script, Path(PUBLISHED) / f"{script}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "device", torch.device("cpu"))

    def make(encoder: str, outputs: int) -> nn.Module:
        more = () if task == "redshift" else (outputs,)
        model: nn.Module = getattr(module, kind)(*more, pretrained_model=encoder)
        return model

    mine = replace(recipe, task=task)
    names = {"network.vit.": "vit.", "network.classifier.": layer}
    found = distances(mine, mine, tmp_path, monkeypatch, make, names)
    assert max(apart for apart, _ in found.values()) < SAME < min(went for _, went in found.values()) / 100


@pytest.mark.parametrize(
    "other", [{"schedule": "constant"}, {"decay": "matrices"}, {"normalise": "backbone"}, {"target": "z"}],
    ids=lambda other: next(iter(other)),
)  # fmt: skip
def test_every_line_of_the_recipe_counts(
    other: dict[str, Any], recipe: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = distances(replace(recipe, **other), recipe, tmp_path, monkeypatch)
    assert max(apart for apart, _ in found.values()) > 5 * SAME


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (7, 0.0), (100, 0.0), (100, 0.1)])
def test_the_schedule_is_that_of_transformers_step_by_step(steps: int, warmup: float, recipe: TrainConfig) -> None:
    config = replace(recipe, warmup=warmup)
    mine = [RATE * share_of_peak(config, steps, step) for step in range(steps)]
    rising = round(warmup * steps)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=RATE)
    scheduler = get_linear_schedule_with_warmup(optimizer, rising, steps)
    theirs = []
    for _ in range(steps):
        theirs.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr()[0] == 0
    np.testing.assert_allclose(mine[rising:], theirs[rising:], rtol=1e-12)
    np.testing.assert_allclose(mine[:rising], theirs[1 : rising + 1], rtol=1e-12)  # our first step is not one of 0

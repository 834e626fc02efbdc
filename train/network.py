"""The network of a run folder: built, saved, opened."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from specshards.common.errors import JobError, UsageError
from specshards.common.files import publish, sha256, write_text
from specshards.common.json import shown
from specshards.render import ImageConfig
from specshards.train import checkpoint
from specshards.train.models.backbone import WEIGHTS, Plan
from specshards.train.run import CARD, MODEL_FILES, RUN, Card
from specshards.train.tasks.multitask import output_names


def plan(card: Card) -> Plan:
    """What the network of a card is built for."""
    image = ImageConfig.from_dict(card.image)
    config = card.config
    return Plan(
        tuple(output_names(card.tasks)), image, config.pool, config.drop_path, config.normalise, config.patch,
        config.keep_tokens, config.sizes,
    )  # fmt: skip


def build_model(card: Card) -> nn.Module:
    """A fresh network; see `train.models.backbone.Backbone.build`."""
    return card.config.architecture.build(plan(card))


def save_model(run: Path, model: nn.Module, card: Card) -> Card:
    """Replace the model of a run folder; the card comes last and carries the weights' checksum."""
    checksum = replace_files(run, partial(card.config.architecture.save, model))
    card = replace(card, model=checksum, files=file_checksums(run))
    write_text(run / CARD, card.dumps())
    return card


def replace_files(run: Path, save: Callable[[Path], object]) -> str:
    """Replace the files of a model by what `save` writes to a folder; the sha256 of its weights."""
    temporary = run / ".model.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    with checkpoint.writing(temporary):
        temporary.mkdir(parents=True)
        save(temporary)
    checksum = sha256(temporary / WEIGHTS)
    for name in MODEL_FILES:
        if (temporary / name).is_file():
            publish(temporary / name, run / name)
    shutil.rmtree(temporary)
    return checksum


def file_checksums(run: Path) -> dict[str, str]:
    """sha256 of the files of a model beside its weights: a layer less in one of them is another model."""
    return {name: sha256(run / name) for name in MODEL_FILES if name != WEIGHTS and (run / name).is_file()}


def open_model(run: Path, export: str = "hub") -> tuple[Card, nn.Module]:
    """A model of pictures that can be exported, and its card; see `open_any`.

    Args:
        export: to what: `hub` or `onnx`.

    Raises:
        UsageError: it reads spectra, or its backbone is of another kind.
    """
    card, model = open_any(run)
    backbone = card.config.architecture
    if backbone.view != "picture":
        raise UsageError(f"MODEL={run}: reads spectra, and has no pictures to look at; name a model of pictures")
    if export not in backbone.exports:
        raise UsageError(f"MODEL={run}: BACKBONE={backbone.name} cannot be exported to {export}; name another model")
    return card, model


def open_any(run: Path) -> tuple[Card, nn.Module]:
    """The model of a run folder, whatever it reads, and its card.

    Raises:
        UsageError: no such folder, or not one that `train fit` wrote. JobError: damaged.
    """
    if not run.is_dir():
        raise UsageError(f"MODEL={run}: no such folder; name the OUT of a `make train`")
    if not (run / CARD).is_file():
        state = "its run has not finished an epoch" if (run / RUN).is_file() else "not the OUT of a `make train`"
        if (run / "tokenizer.json").is_file():
            state = f"a tokenizer without a task; `make train MODEL=tokenizer:{run} TASK=...` first"
        raise UsageError(f"MODEL={run}: no {CARD} there: {state}")
    card = Card.read(run / CARD)
    weights = run / WEIGHTS
    if not weights.is_file():
        raise JobError(f"{weights}: missing; train the model again")
    if sha256(weights) != card.model:
        raise JobError(f"{weights}: not the weights that {CARD} speaks of (checksum); train the model again")
    for name, checksum in card.files.items():
        if name not in MODEL_FILES or not (run / name).is_file() or sha256(run / name) != checksum:
            raise JobError(f"{run / CARD}: {shown(name)} is not the file that it speaks of; train the model again")
    return card, card.config.architecture.load(run, plan(card))

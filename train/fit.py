"""Learning from labels: the objective of a run on one or several tasks, and `fit`, which trains it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from specshards.common.errors import UsageError
from specshards.common.files import location
from specshards.common.messages import LOGGER
from specshards.shards.format.manifest import Manifest
from specshards.shards.loader.batch import Batch, SpectraBatch
from specshards.shards.loader.loader import Loader
from specshards.train import loop
from specshards.train.config import RunOptions, TrainConfig
from specshards.train.evaluation import evaluate
from specshards.train.evaluation.conformal import calibrate
from specshards.train.evaluation.measure import measure, over_pictures
from specshards.train.evaluation.score import Scored, score
from specshards.train.evaluation.witnesses import add_witnesses
from specshards.train.models.layers import model_input
from specshards.train.models.parameters import freeze
from specshards.train.network import build_model, save_model
from specshards.train.objective import Start, Verdict
from specshards.train.report import figures
from specshards.train.run import CARD, Card
from specshards.train.tasks.column import check_frames, spelled
from specshards.train.tasks.constant import Baselines
from specshards.train.tasks.multitask import (
    add_targets,
    check_tasks,
    make_tasks,
    masked_loss,
    split_logits,
)
from specshards.train.tasks.task import Task

_MOST_COUNTS = 30


def fit(config: TrainConfig, out: Path, options: RunOptions = RunOptions()) -> Path:
    """Train, keep the best epoch by validation, write its model, `metrics.json` and report to `out`.

    Args:
        options: how it runs, which does not change the weights.

    Returns:
        `out`.

    Raises:
        UsageError: the configuration, the shards or `out` do not fit. JobError: hub, disk or a checkpoint failed.
        KeyboardInterrupt: on Ctrl-C, after a checkpoint.
    """
    check_tasks(config)
    if config.views == "each" and len(config.images) < 2:
        raise UsageError("views=each: is for several pictures of an object; name them in images, or leave it out")
    manifests = [Manifest.load(location(folder)) for folder in config.shards]
    config = spelled(config, manifests)
    check_frames(config, manifests)  # before loaders of splits that have nothing to learn from are opened
    return loop.train(config, out, lambda start: Labels.of(config, out, start), options)


class Labels:
    """The objective: the masked loss of every task, and the skill on validation. See `train.objective`."""

    def __init__(
        self, card: Card, out: Path, images: tuple[int, int], left_out: Mapping[str, Mapping[str, int]], drawn_by: str
    ) -> None:
        """Of a card without a model yet; `images` of the train and the validation split, the rest of the latter."""
        self.card, self.tasks, self.config = card, card.tasks, card.config
        self._out, self._images, self._left_out, self._drawn_by = out, images, left_out, drawn_by

    @classmethod
    def of(cls, config: TrainConfig, out: Path, start: Start) -> Labels:
        """The tasks of a run, scaled by the train split, and its constant baselines."""
        train = start.train
        for line in config.architecture.remarks(config.shards, train.manifests):
            LOGGER.info(line)
        tasks = make_tasks(config, train.manifests, train.sidecar)
        for loader in (train, start.val):
            add_targets(tasks, loader)
        labels = train.sidecar(list(dict.fromkeys(["survey", *(name for task in tasks for name in task.columns)])))
        baselines = {task.name: Baselines.learn(task, labels) for task in tasks}
        mock = any(manifest.mock for manifest in train.manifests)
        pictures = [image.to_dict() for image in train.images]
        images = tuple(pictures) if len(pictures) > 1 else ()
        card = Card(tasks, config, pictures[0], start.data, mock, baselines, images=images)
        left_out = {task.name: task.left_out(start.val.sidecar(task.columns)) for task in tasks}
        drawn_by = add_witnesses(start.val)
        return cls(card, out, (train.samples, start.val.samples * len(pictures)), left_out, drawn_by)

    @property
    def title(self) -> str:
        """The names of the tasks."""
        return self.card.title

    def build(self, device: torch.device) -> nn.Module:
        """The backbone with a fresh head."""
        model = build_model(self.card).to(device)
        if self.config.freeze == "backbone":
            freeze(model)
        return model

    def counts(self, batch: Batch | SpectraBatch) -> list[int]:
        """Labelled samples, for each task."""
        valid = batch["valid"].cpu()
        return [int((torch.isfinite(batch["labels"][task.target]) & valid).sum()) for task in self.tasks]

    def totals(self, model: nn.Module, batch: Batch | SpectraBatch, accelerator: Accelerator) -> list[Tensor]:
        """The loss of each task, summed over its labelled samples."""
        with accelerator.autocast():
            logits = model(model_input(batch))
        return [
            masked_loss(task, part, batch["labels"][task.target], batch["valid"])[0]
            for task, part in zip(self.tasks, split_logits(self.tasks, logits), strict=True)
        ]

    def validate(
        self, model: nn.Module, loader: Loader, accelerator: Accelerator, check: Callable[[], None]
    ) -> Verdict:
        """Everything that is measured of every task."""
        scored = score(model, self.card, loader, accelerator, check, self._drawn_by)
        # What the main process finds, the others are told: all go on with the same best epoch.
        verdict = self._verdict(scored) if scored else None
        if accelerator.num_processes == 1 and verdict is not None:
            return verdict
        told = broadcast_object_list([verdict and replace(verdict, found=None)])[0]
        return verdict or told

    def _verdict(self, scored: Mapping[str, Scored]) -> Verdict:
        scores = {task.name: self._measured(task, scored[task.name]) for task in self.tasks}
        each = self.config.views == "each"
        judged = {name: over_pictures(found) if each else found for name, found in scores.items()}
        entry = {f"loss_{name}": found["loss"] for name, found in judged.items()}
        metrics = {task.name: task.criterion[0] for task in self.tasks}
        entry |= {f"{name}_{metric}": judged[name]["all"][metric] for name, metric in metrics.items()}
        return Verdict(*self.criterion(judged), entry, (scored, scores))

    def _measured(self, task: Task, scored: Scored) -> dict[str, Any]:
        return measure(task, scored, self.card.baselines[task.name], left_out=self._left_out.get(task.name))

    def criterion(self, scores: Mapping[str, Mapping[str, Any]]) -> tuple[str, float, bool]:
        """Metric, value and whether more is better: the task's, or the mean skill where there are several."""
        if len(self.tasks) == 1:
            metric, more = self.tasks[0].criterion
            return metric, scores[self.tasks[0].name]["all"][metric], more
        skills = [skill for task in self.tasks if math.isfinite(skill := task.skill(scores[task.name]))]
        return "mean_skill", sum(skills) / len(skills) if skills else math.nan, True

    def keep(self, model: nn.Module, verdict: Verdict, best: dict[str, Any]) -> None:
        """The model, its card, and the report of the validation."""
        scored, scores = verdict.found
        card = replace(self.card, best=best, conformal=calibrate(self.tasks, scored))
        self.card = save_model(self._out, model, card)
        for task in self.tasks:
            figures.draw(self._out, task, scored[task.name], "val", self.card.mock)
        evaluate.write(self._out, self.card, {"val": scores}, page=False)

    def restore(self) -> None:
        """The card of the best model so far."""
        self.card = Card.read(self._out / CARD)

    def describe(self) -> str:
        """Images, labels and backbone."""
        counted = {name: dict(baselines.counts) for name, baselines in self.card.baselines.items()}
        counts = "; ".join(
            f"{name} {numbers.pop('all'):,} labelled ({_first(numbers)})" for name, numbers in counted.items()
        )
        train, val = self._images
        mock = "MOCK data: " if self.card.mock else ""
        names = self.card.several
        each = f" ({', '.join(names)} of {train // len(names):,} and {val // len(names):,} objects)" if names else ""
        only = f" (labels{self.tasks[0].whose} alone)" if self.config.only_classes else ""
        return f"{mock}{train:,} train images, {val:,} val images{each}; {counts}{only}\n{self.config.backbone}"

    def finish(self, summary: dict[str, Any]) -> str:
        """The report with the whole history."""
        return evaluate.write(self._out, self.card, {}, training=summary)


def _first(counts: Mapping[str, int]) -> str:
    """Counts for one line of a terminal; of many classes the first."""
    shown = [f"{name} {n:,}" for name, n in list(counts.items())[:_MOST_COUNTS]]
    return ", ".join([*shown, f"and {len(counts) - _MOST_COUNTS:,} more"] if len(counts) > _MOST_COUNTS else shown)

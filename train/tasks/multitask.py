"""Tasks side by side in one model: made, read back, and their outputs and losses told apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from specshards.shards.format.manifest import Manifest
from specshards.shards.loader.loader import Loader
from specshards.train.config import TrainConfig
from specshards.train.tasks.task import TASKS, Task, TrainSplit


def check_tasks(config: TrainConfig) -> None:
    """Raise UsageError for a task that does not exist."""
    for name in config.tasks:
        TASKS.choose(name)


def make_tasks(
    config: TrainConfig, manifests: Sequence[Manifest], sidecar: Callable[[Sequence[str]], pa.Table]
) -> tuple[Task, ...]:
    """The tasks of a run, scaled by the train split of its data sets.

    Args:
        sidecar: columns of the train split's table; read for labels that the manifests have no statistics of.

    Raises:
        UsageError: no such task, or no object of the train split has its label, or it was used to make the data set.
    """
    train = TrainSplit(config.shards, manifests, sidecar)
    return tuple(TASKS.choose(name).fit(name, config, train) for name in config.tasks)


def task_from_dict(content: Mapping[str, Any]) -> Task:
    """The inverse of `Task.to_dict`.

    Raises:
        UsageError: no such task. TypeError, KeyError, ValueError: not such a record.
    """
    return TASKS.choose(content["name"]).from_dict(content)


def add_targets(tasks: Iterable[Task], loader: Loader) -> None:
    """Give a loader what the tasks learn and its shards do not hold."""
    for task in tasks:
        if not task.is_stored:
            loader.add_label(task.target, task.targets(loader.sidecar([task.label])))


def output_names(tasks: Sequence[Task]) -> list[str]:
    """A name for every output of a model."""
    return [name for task in tasks for name in task.output_names(len(tasks) > 1)]


def split_logits(tasks: Sequence[Task], logits: Tensor) -> list[Tensor]:
    """The outputs `(B, sum of head sizes)` of one model, for each task its own."""
    return list(logits.split([task.head_size for task in tasks], dim=1))


def masked_loss(task: Task, logits: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the loss over the samples that count, and their number.

    A sample counts when it is not padding and has the label. Where none does, the sum is a zero that still has a
    gradient (of zero), so that every rank takes part in every step.

    Args:
        logits: `(B, head_size)`, any float type; the loss is taken in float32.
        target: float `(B,)`, NaN = missing. valid: bool `(B,)`, False = padding.

    Returns:
        float32 scalar, int64 scalar.
    """
    logits = logits.float()
    target = target.float().to(logits.device)
    counts = torch.isfinite(target) & valid.to(logits.device)
    # A missing label gets a number before the loss and no weight after it: 0 x NaN would still be NaN.
    losses = task.sample_loss(logits, torch.where(counts, target, task.filler))
    return torch.where(counts, losses, 0.0).sum() + 0.0 * logits.sum(), counts.sum()

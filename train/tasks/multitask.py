"""Tasks side by side in one model: made, read back, and their outputs and losses told apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from specshards.common.errors import UsageError
from specshards.shards.format.manifest import Manifest
from specshards.shards.loader.loader import Loader
from specshards.train.config import TrainConfig
from specshards.train.tasks.coded import Coded
from specshards.train.tasks.column import check_sets, check_told, find, recorded, task_of
from specshards.train.tasks.logarithm import logarithmic
from specshards.train.tasks.task import OF_DISTRIBUTIONS, TASKS, Task, TrainSplit


def check_tasks(config: TrainConfig) -> None:
    """Raise UsageError for a task that knows nothing of what is asked for; columns are known with the data."""
    _check({name: TASKS[name] for name in config.tasks if name in TASKS}, config)


def _check(kinds: Mapping[str, type[Task]], config: TrainConfig) -> None:
    for name, kind in kinds.items():
        metric = kind.choose(config.selected)
        if metric in OF_DISTRIBUTIONS and len(config.tasks) > 1:
            raise UsageError(f"select={metric}: TASK={name} is one of several, which are averaged by what a constant "
                             "answer can be compared by; choose r2, accuracy or auto")  # fmt: skip
    if (
        config.target == "z"
        and len(kinds) == len(config.tasks)
        and not any(kind.label == "z" for kind in kinds.values())
    ):
        raise UsageError(f"target=z: TASK={config.task} learns no redshift; choose auto or max")


def make_tasks(
    config: TrainConfig, manifests: Sequence[Manifest], sidecar: Callable[[Sequence[str]], pa.Table]
) -> tuple[Task, ...]:
    """The tasks of a run, scaled by the train split of its data sets.

    Args:
        sidecar: columns of the train split's table; read for labels that the manifests have no statistics of.

    Raises:
        UsageError: no such task, or no object of the train split has its label, or it was used to make the data set.
    """
    only = config.only_classes
    kinds = _kinds(config, manifests, sidecar)
    _check(kinds, config)
    train = TrainSplit(config.shards, manifests, _limited(sidecar, only) if only else sidecar, only)
    tasks = tuple(kind.fit(name, config, train) for name, kind in kinds.items())
    for task in tasks:  # a class of another package may take no notice
        if task.only != only or task.select != task.choose(config.selected):
            raise UsageError(f"TASK={task.name}: its class knows no --only and no --select; leave them out")
    check_told(tasks)
    return tasks


def _kinds(
    config: TrainConfig, manifests: Sequence[Manifest], sidecar: Callable[[Sequence[str]], pa.Table]
) -> dict[str, type[Task]]:
    """What each name stands for: a task, or else a column of the data sets."""
    kinds: dict[str, type[Task]] = {}
    for name in config.tasks:
        if name in TASKS:
            if name in config.category_columns:
                raise UsageError(f"categories={name}: TASK={name} is no column of numbers; leave it out")
            kinds[name] = TASKS[name]
        else:
            column = find(name, config.shards, manifests, sidecar)
            kinds[name] = task_of(replace(column, kind="text") if name in config.category_columns else column)
        if transform := config.transform_of(name):
            kinds[name] = logarithmic(kinds[name], name, transform)
    return kinds


def _limited(
    sidecar: Callable[[Sequence[str]], pa.Table], only: Sequence[str]
) -> Callable[[Sequence[str]], pa.Table]:
    """A sidecar that says nothing of objects of other classes."""

    def read(columns: Sequence[str]) -> pa.Table:
        table = sidecar(list(dict.fromkeys([*columns, "class"])))
        others = pa.array(~Coded.of(table["class"]).among(only))
        nothing = {name: pc.if_else(others, None, table[name]) for name in columns}
        return pa.table(nothing)

    return read


def task_from_dict(content: Mapping[str, Any]) -> Task:
    """The inverse of `Task.to_dict`.

    Raises:
        UsageError: no such task. TypeError, KeyError, ValueError: not such a record.
    """
    kind, rest = recorded(content) if "kind" in content else (TASKS.choose(content["name"]), dict(content))
    if (target := rest.pop("target", None)) is not None:
        kind = logarithmic(kind, content["name"], target)
    return kind.from_dict(rest)


def add_targets(tasks: Sequence[Task], loader: Loader) -> None:
    """Give a loader what the tasks learn and its shards do not hold."""
    check_sets(tasks, [str(folder) for folder in loader.folders], loader.manifests)
    for task in tasks:
        if not task.is_stored:
            loader.add_label(task.target, task.targets(loader.sidecar(task.columns)))


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

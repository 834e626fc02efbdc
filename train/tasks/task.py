"""What a model can learn: tasks by name, side by side in one model, with missing labels masked in the loss."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa
import torch
from torch import Tensor

from specshards.common.errors import UsageError
from specshards.shards.format.manifest import Manifest, combine_stats
from specshards.train.config import TrainConfig
from specshards.train.tasks.classification import FEWEST, Classification, types_present
from specshards.train.tasks.metrics import FloatArray
from specshards.train.tasks.regression import REGRESSIONS, Regression

Arrays = Mapping[str, FloatArray]
TASKS = ("classify", "subclass", *REGRESSIONS)


class Task(Protocol):
    """One thing to learn from a picture.

    Attributes:
        name: as in TASK=name.
        label: the label that it learns.
        unit: of the label; empty for none.
        head_size: number of outputs of the model.
        best: metric by which the best epoch is chosen on validation, and whether more is better.
        filler: a value of the label that stands in for missing ones while the loss is taken; it has no weight.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def label(self) -> str: ...  # noqa: D102

    @property
    def unit(self) -> str: ...  # noqa: D102

    @property
    def head_size(self) -> int: ...  # noqa: D102

    @property
    def best(self) -> tuple[str, bool]: ...  # noqa: D102

    @property
    def filler(self) -> float: ...  # noqa: D102

    def targets(self, sidecar: pa.Table) -> FloatArray:
        """The label of a sidecar's rows, float64 `(N,)`, NaN = missing."""
        ...

    def sample_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every sample, float32 `(B,)`; logits `(B, head_size)`, labels float32 `(B,)`, none missing."""
        ...

    def decode(self, logits: Tensor) -> dict[str, FloatArray]:
        """Named columns float64 `(B,)` in physical units; `point` is the best single answer."""
        ...

    def calibration(self, logits: Tensor, label: FloatArray) -> dict[str, FloatArray]:
        """Columns float64 `(B,)` that need the truth, NaN where it is missing."""
        ...

    def measure(self, columns: Arrays, labels: Arrays) -> dict[str, Any]:
        """Metrics over samples that all have the label. Raises nothing; undefined is NaN."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content, read back by `task_from_dict`."""
        ...


def split_logits(tasks: Sequence[Task], logits: Tensor) -> list[Tensor]:
    """The outputs `(B, sum of head sizes)` of one model, for each task its own."""
    return list(logits.split([task.head_size for task in tasks], dim=1))


def masked_loss(task: Task, logits: Tensor, label: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the loss over the samples that count, and their number.

    A sample counts when it is not padding and has the label. Where none does, the sum is a zero that still has a
    gradient (of zero), so that every rank takes part in every step.

    Args:
        logits: `(B, head_size)`, any float type; the loss is taken in float32.
        label: float `(B,)`, NaN = missing. valid: bool `(B,)`, False = padding.

    Returns:
        float32 scalar, int64 scalar.
    """
    logits = logits.float()
    label = label.float().to(logits.device)
    counts = torch.isfinite(label) & valid.to(logits.device)
    # A missing label gets a number before the loss and no weight after it: 0 x NaN would still be NaN.
    losses = task.sample_loss(logits, torch.where(counts, label, task.filler))
    return torch.where(counts, losses, 0.0).sum() + 0.0 * logits.sum(), counts.sum()


def check_tasks(config: TrainConfig) -> None:
    """Raise UsageError for a task that does not exist."""
    for name in config.tasks:
        if name not in TASKS:
            raise UsageError(f"unknown TASK={name}: choose {', '.join(TASKS)}")


def make_tasks(
    config: TrainConfig, manifests: Sequence[Manifest], sidecar: Callable[[Sequence[str]], pa.Table]
) -> tuple[Task, ...]:
    """The tasks of a run, scaled by the train split of its data sets.

    Args:
        sidecar: columns of the train split's table; only `subclass` asks for one.

    Raises:
        UsageError: no such task, or no object of the train split has its label, or it was used to make the data set.
    """
    check_tasks(config)
    return tuple(_make(name, config, manifests, sidecar) for name in config.tasks)


def _make(
    name: str, config: TrainConfig, manifests: Sequence[Manifest], sidecar: Callable[[Sequence[str]], pa.Table]
) -> Task:
    where = ", ".join(config.shards)
    if name in REGRESSIONS:
        label = REGRESSIONS[name][0]
        if label == "z" and any(manifest.config.image.frame == "rest" for manifest in manifests):
            raise UsageError(
                f"{where}: spectra in the rest frame were made with the redshift that TASK={name} would learn; make "
                "shards in the observed frame (without --frame)"
            )
        stats = combine_stats([manifest.label_stats[label] for manifest in manifests])
        if not stats.count:
            raise UsageError(f"{where}: no object of the train split has a {label}, so TASK={name} cannot be learnt")
        return Regression.fit(name, stats, config.head, config.bins)
    if name == "subclass":
        counts = types_present(sidecar(["subclass"])["subclass"].to_pylist())
        few = f"no spectral type has {FEWEST} objects in the train split"
    else:
        counts = {kind: sum(m.class_counts("train").get(kind, 0) for m in manifests) for kind in manifests[0].classes}
        few = "no object of the train split has a class"
    total = sum(counts.values())
    if not total:
        raise UsageError(f"{where}: {few}, so TASK={name} cannot be learnt")
    present = [kind for kind, n in counts.items() if n]
    if len(present) == 1:
        print(
            f"warning: {where}: every labelled object of the train split is a {present[0]}: there is nothing to tell "
            "apart",
            file=sys.stderr,
        )
    return Classification(tuple(counts), name, tuple(n / total for n in counts.values()), config.balance)


def task_from_dict(content: Mapping[str, Any]) -> Task:
    """The inverse of `Task.to_dict`.

    Raises:
        UsageError: no such task. TypeError, KeyError: not such a record.
    """
    name = content["name"]
    if name not in TASKS:
        raise UsageError(f"unknown TASK={name}: choose {', '.join(TASKS)}")
    if name in REGRESSIONS:
        return Regression(**content)
    return Classification(tuple(content["classes"]), name, tuple(content["shares"]), content["balance"])

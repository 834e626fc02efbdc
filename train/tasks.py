"""What a model can learn: tasks by name, their losses with missing labels masked, and their answers in real units."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ingest.errors import UsageError
from shards.format import LabelStats, Manifest, combine_stats
from train import metrics
from train.config import TrainConfig
from train.heads import QUANTILES, Head, make_head

FloatArray = npt.NDArray[np.float64]
Arrays = Mapping[str, FloatArray]


class Task(Protocol):
    """One thing to learn from a picture.

    Attributes:
        name: as in TASK=name.
        label: the label that it learns (a name in `shards.format.LABELS`).
        head_size: number of outputs of the model.
        best: metric by which the best epoch is chosen on validation, and whether more is better.
        filler: a value of the label that stands in for missing ones while the loss is taken; it has no weight.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def label(self) -> str: ...  # noqa: D102

    @property
    def head_size(self) -> int: ...  # noqa: D102

    @property
    def best(self) -> tuple[str, bool]: ...  # noqa: D102

    @property
    def filler(self) -> float: ...  # noqa: D102

    def sample_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every sample, float32 `(B,)`; logits `(B, head_size)`, labels float32 `(B,)`, none missing."""
        ...

    def decode(self, logits: Tensor) -> dict[str, FloatArray]:
        """Named columns float64 `(B,)` in physical units; `point` is the best single answer."""
        ...

    def measure(self, columns: Arrays, labels: Arrays) -> dict[str, Any]:
        """Metrics over samples that all have the label. Raises nothing; undefined is NaN."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content, read back by `task_from_dict`."""
        ...


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


@dataclass(frozen=True)
class Classification:
    """STAR, GALAXY or QSO, by cross-entropy."""

    classes: tuple[str, ...]
    name: str = "classify"
    label: str = "class"
    best: ClassVar[tuple[str, bool]] = ("macro_f1", True)
    filler: ClassVar[float] = 0.0

    @property
    def head_size(self) -> int:
        """One output per class."""
        return len(self.classes)

    def sample_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of every sample."""
        return F.cross_entropy(logits, target.long(), reduction="none")

    def decode(self, logits: Tensor) -> dict[str, FloatArray]:
        """`point`: position of the likeliest class; `p_<class>`: probabilities that add up to 1."""
        probabilities = logits.cpu().double().softmax(dim=1).numpy()
        columns = {f"p_{name}": probabilities[:, i] for i, name in enumerate(self.classes)}
        return {"point": probabilities.argmax(axis=1).astype(np.float64), **columns}

    def measure(self, columns: Arrays, labels: Arrays) -> dict[str, Any]:
        """Accuracy, macro F1, and recall, precision, F1 and count of each class; confusion[true][predicted]."""
        return metrics.classification(labels["class"].astype(int), columns["point"].astype(int), self.classes)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        return {"name": self.name, "classes": list(self.classes)}


@dataclass(frozen=True)
class Regression:
    """One number, learnt on an axis that the train split sets.

    The axis is `(t(label) - t(mean)) / (t'(mean) std)`: for `redshift` t is log(1+z), so that an error on the axis is
    the error (z' - z)/(1 + z) that astronomers count whatever the redshift; for the others t is the label itself.

    Attributes:
        low, high: range of the label in the train split; a histogram spans it, labels outside count as its ends.
        centre, scale: of the axis, in units of t.
    """

    name: str
    label: str
    transform: str
    low: float
    high: float
    centre: float
    scale: float
    head: str = "histogram"
    bins: int = 128

    @classmethod
    def fit(cls, name: str, stats: LabelStats, head: str, bins: int) -> Regression:
        """Scale by the statistics of the train split."""
        label, transform = _REGRESSIONS[name]
        if stats.max - stats.min <= 0:
            _warn(f"every {label} of the train split is {stats.min:g}: there is nothing to learn")
        std = stats.std if stats.std > 0 else 1.0
        slope = 1 / (1 + stats.mean) if transform == "log1p" else 1.0
        high = stats.max if stats.max > stats.min else stats.min + std
        centre = math.log1p(stats.mean) if transform == "log1p" else stats.mean
        return cls(name, label, transform, stats.min, high, centre, std * slope, head, bins)

    @cached_property
    def _head(self) -> Head:
        low, high = (float(self.scaled(torch.tensor(v, dtype=torch.float64))) for v in (self.low, self.high))
        return make_head(self.head, low, high, self.bins)

    @property
    def head_size(self) -> int:
        """As the head wants."""
        return self._head.size

    @property
    def filler(self) -> float:
        """The label at the origin of the axis."""
        return math.expm1(self.centre) if self.transform == "log1p" else self.centre

    @property
    def best(self) -> tuple[str, bool]:
        """Mean |dz| for redshift, mean absolute error for the rest.

        Not NMAD: over a sample of mostly stars, a constant has a better one than any model.
        """
        return ("mean_abs_dz" if self.name == "redshift" else "mae"), False

    def scaled(self, label: Tensor) -> Tensor:
        """Label to axis. An impossible redshift (-1 and below) counts as -0.99."""
        return (
            (torch.log1p(label.clamp_min(-0.99)) if self.transform == "log1p" else label) - self.centre
        ) / self.scale

    def physical(self, axis: Tensor) -> Tensor:
        """Axis to label: the inverse of `scaled`."""
        t = axis * self.scale + self.centre
        return torch.expm1(t) if self.transform == "log1p" else t

    def sample_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The head's loss on the axis."""
        return self._head.loss(logits, self.scaled(target))

    def decode(self, logits: Tensor) -> dict[str, FloatArray]:
        """`point`; `<label>_std`; `<label>_q16`, `_q50`, `_q84`; in the label's unit.

        A line mistaken for another gives a redshift several likely values: its point is that of the likeliest peak,
        where the mean would lie between them. The others' point is the mean.
        """
        logits = logits.cpu().double()
        point = self.physical(self._head.point(logits, mode=self.name == "redshift"))
        std = self._head.std(logits)
        slope = self.scale * (1 + point if self.transform == "log1p" else torch.ones_like(point))
        columns = {"point": point, f"{self.label}_std": std * slope}
        quantiles = self.physical(self._head.quantiles(logits))
        columns |= {f"{self.label}_q{round(100 * q)}": quantiles[:, i] for i, q in enumerate(QUANTILES)}
        return {name: column.numpy() for name, column in columns.items()}

    def measure(self, columns: Arrays, labels: Arrays) -> dict[str, Any]:
        """R2, MAE, bias; for redshift also mean |dz|, NMAD, outlier share and non-catastrophic share."""
        return metrics.regression(labels[self.label], columns["point"], redshift=self.name == "redshift",
                                  classes=labels["class"])  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        return asdict(self)


_REGRESSIONS = {
    "redshift": ("z", "log1p"),
    "teff": ("teff", "identity"),
    "logg": ("logg", "identity"),
    "feh": ("feh", "identity"),
}
TASKS = ("classify", *_REGRESSIONS)


def check_task(name: str) -> None:
    """Raise UsageError for a task that does not exist."""
    if name not in TASKS:
        raise UsageError(f"unknown TASK={name}: choose {', '.join(TASKS)}")


def make_task(config: TrainConfig, manifests: Sequence[Manifest]) -> Task:
    """The task of a run, scaled by the train split of its data sets.

    Raises:
        UsageError: no such task, or no object of the train split has its label.
    """
    check_task(config.task)
    where = ", ".join(config.shards)
    label = "class" if config.task == "classify" else _REGRESSIONS[config.task][0]
    stats = combine_stats([manifest.label_stats[label] for manifest in manifests])
    if not stats.count:
        raise UsageError(
            f"{where}: no object of the train split has a {label}, so TASK={config.task} cannot be learnt"
        )
    if config.task != "classify":
        return Regression.fit(config.task, stats, config.head, config.bins)
    present = {name for manifest in manifests for name, n in manifest.class_counts("train").items() if n}
    present -= {"unlabelled"}
    if len(present) == 1:
        _warn(
            f"{where}: every labelled object of the train split is a {present.pop()}: there is nothing to tell apart"
        )
    return Classification(manifests[0].classes)


def task_from_dict(content: Mapping[str, Any]) -> Task:
    """The inverse of `Task.to_dict`.

    Raises:
        UsageError: no such task. TypeError, KeyError: not such a record.
    """
    check_task(content["name"])
    if content["name"] == "classify":
        return Classification(tuple(content["classes"]))
    return Regression(**content)


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)

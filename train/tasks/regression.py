"""One number of an object: redshift, effective temperature, surface gravity or metallicity."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from specshards.shards.format.manifest import LabelStats
from specshards.train.tasks import metrics
from specshards.train.tasks.heads import QUANTILES, Head, make_head
from specshards.train.tasks.metrics import FloatArray

#: Task -> label, transform to the axis, unit.
REGRESSIONS = {
    "redshift": ("z", "log1p", ""),
    "teff": ("teff", "identity", "K"),
    "logg": ("logg", "identity", "dex"),
    "feh": ("feh", "identity", "dex"),
}


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
        label, transform, _ = REGRESSIONS[name]
        if stats.max - stats.min <= 0:
            print(
                f"warning: every {label} of the train split is {stats.min:g}: there is nothing to learn",
                file=sys.stderr,
            )
        std = stats.std if stats.std > 0 else 1.0
        slope = 1 / (1 + stats.mean) if transform == "log1p" else 1.0
        high = stats.max if stats.max > stats.min else stats.min + std
        centre = math.log1p(stats.mean) if transform == "log1p" else stats.mean
        if head == "auto":
            head = "histogram" if name == "redshift" else "gaussian"
        return cls(name, label, transform, stats.min, high, centre, std * slope, head, bins)

    @cached_property
    def _head(self) -> Head:
        low, high = (float(self.scaled(torch.tensor(v, dtype=torch.float64))) for v in (self.low, self.high))
        return make_head(self.head, low, high, self.bins)

    @property
    def unit(self) -> str:
        """Of the label; empty for none."""
        return REGRESSIONS[self.name][2]

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

    def targets(self, sidecar: pa.Table) -> FloatArray:
        """The label of a sidecar's rows, float64 `(N,)`, NaN = missing."""
        return np.array([np.nan if v is None else v for v in sidecar[self.label].to_pylist()], np.float64)

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

    def calibration(self, logits: Tensor, label: FloatArray) -> dict[str, FloatArray]:
        """How the predicted distributions fare with the truth, float64 `(N,)`, NaN where the label is missing.

        `pit`: the predicted probability below the truth; even between 0 and 1 where the widths are right.
        `crps`: continuous ranked probability score, in the label's unit; for redshift in units of ln(1 + z).
        """
        logits, axis = logits.cpu().double(), self.scaled(torch.from_numpy(label))
        return {
            "pit": self._head.cdf(logits, axis).numpy(),
            "crps": (self._head.crps(logits, axis) * self.scale).numpy(),
        }

    def measure(self, columns: Mapping[str, FloatArray], labels: Mapping[str, FloatArray]) -> dict[str, Any]:
        """R2, MAE, bias; for redshift also mean |dz|, NMAD, outlier share and non-catastrophic share.

        With a distribution also the mean CRPS, and `coverage68`: the share of truths between its 16th and 84th
        percentile.
        """
        result = metrics.regression(labels[self.label], columns["point"], redshift=self.name == "redshift",
                                    classes=labels["class"])  # fmt: skip
        if "crps" in columns:
            inside = (columns["pit"] >= QUANTILES[0]) & (columns["pit"] <= QUANTILES[-1])
            known = np.isfinite(columns["pit"])
            result["crps"] = float(columns["crps"].mean()) if len(known) else float("nan")
            result["coverage68"] = float(inside[known].mean()) if known.any() else float("nan")
        return result

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        return asdict(self)

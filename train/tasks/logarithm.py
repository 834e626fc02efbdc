"""A number learnt as its logarithm: `--target log10`, `--target "log10(mass)"`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from specshards.common.errors import UsageError
from specshards.shards.format.manifest import LabelStats
from specshards.train.config import LOGARITHMS, TrainConfig
from specshards.train.tasks import metrics, plots
from specshards.train.tasks.column import statistics
from specshards.train.tasks.metrics import FloatArray
from specshards.train.tasks.regression import Regression
from specshards.train.tasks.task import Arrays, Task, TrainSplit
from specshards.train.tasks.transforms import TRANSFORMS

_METRICS = {"r2_log": True, "mae_log": False, "rmse_log": False, "bias_log": False}


class Logarithmic(Regression):
    """A label on the axis of a logarithm; what has none is missing. Errors are counted there, and in the label."""

    best: ClassVar[tuple[str, bool]] = ("mae_log", False)
    criteria: ClassVar[Mapping[str, bool]] = {
        **Regression.criteria, **{name: more for name, more in _METRICS.items() if name != "bias_log"},
    }  # fmt: skip
    headline: ClassVar[tuple[str, ...]] = ("r2_log", "mae_log", "rmse_log", *Regression.headline)
    reported: ClassVar[tuple[str, ...]] = ("count", *_METRICS, *Regression.reported[1:])
    brief: ClassVar[tuple[str, ...]] = ("count", *_METRICS)

    @classmethod
    def read(cls, sidecar: pa.Table) -> FloatArray:
        """The labels that have a logarithm, float64 `(N,)`, NaN elsewhere."""
        values = super().read(sidecar)
        return np.where(values > cls.transform.least, values, np.nan)

    @classmethod
    def statistics(cls, train: TrainSplit) -> LabelStats:
        """Of the labels that have one."""
        return statistics(cls.read(train.sidecar([cls.label])))

    @classmethod
    def fit(cls, name: str, config: TrainConfig, train: TrainSplit) -> Self:
        """Scaled by mean and standard deviation of the logarithm."""
        task = super().fit(name, config, train)
        values = cls.read(train.sidecar([cls.label]))
        axis = cls.transform.forward(values[np.isfinite(values)])
        if axis.min() == axis.max():
            raise UsageError(
                f"{train}: every {cls.label} of the train split is {task.low:g}: there is nothing to learn"
            )
        return replace(task, centre=float(axis.mean()), scale=float(axis.std()))

    @property
    def is_stored(self) -> bool:
        """Read from the sidecar: not every label has a logarithm."""
        return False

    @property
    def target(self) -> str:
        """No name of a label that the shards hold."""
        return super().target if self.only else f"{self.transform.name} of {self.name}"

    def left_out(self, sidecar: pa.Table) -> dict[str, int]:
        """Also numbers without a logarithm."""
        before = self.known(super().read(sidecar), sidecar)
        none = int((before <= self.transform.least).sum())
        return {
            **super().left_out(sidecar),
            **({f"without {self.transform.formula(self.label)}": none} if none else {}),
        }

    def conflict(self, other: Task) -> str | None:
        """Another column or axis."""
        if isinstance(other, Regression) and (other.label, other.unit, other.transform.name) == (
            self.label, self.unit, self.transform.name,
        ):  # fmt: skip
            return None
        return f"learns {other.label}, not {self.transform.formula(self.label)}"

    def to_dict(self) -> dict[str, Any]:
        """With the axis that was asked for."""
        return {**super().to_dict(), "target": self.transform.name}

    def errors(self, true: FloatArray, point: FloatArray, labels: Arrays) -> dict[str, Any]:
        """On the axis as `*_log`, and in the label."""
        on_axis = metrics.regression(self.transform.forward(true), self.transform.forward(point), redshift=False)
        return {
            **super().errors(true, point, labels),
            **{name: on_axis[name.removesuffix("_log")] for name in _METRICS},
        }

    def residuals(self, true: FloatArray, point: FloatArray) -> FloatArray:
        """On the axis."""
        return self.transform.forward(point) - self.transform.forward(true)

    @property
    def residuals_name(self) -> str:
        """What they are."""
        return f"predicted - true {self.transform.formula(self.label)}"

    def heads(self, metrics: Sequence[str]) -> dict[str, Sequence[str]]:
        """On the axis, and in the label itself."""
        own = ("r2", "mae", "rmse", "bias")
        return {"": [name for name in metrics if name not in own], f"In {self.label} itself": ["count", *own]}

    def constant(self, targets: FloatArray) -> float:
        """The label at the mean of the axis."""
        return float(self.transform.inverse(float(self.transform.forward(targets).mean())))

    def draw(self, true: FloatArray, point: FloatArray, classes: FloatArray) -> Figure:
        """Predicted against true, on the axis."""
        forward = self.transform.forward
        return plots.against(forward(true), forward(point), classes, self.transform.formula(self.label), "")

    def sn_panels(self) -> dict[str, Sequence[str]]:
        """On the axis."""
        return {"share: R2 (log)": ("r2_log",), f"MAE of {self.transform.formula(self.label)}": ("mae_log",)}


def logarithmic(kind: type[Task], name: str, transform: str) -> type[Task]:
    """A task on the axis of a logarithm.

    Raises:
        UsageError: it learns no number, or has an axis of its own.
    """
    if transform not in LOGARITHMS:
        raise UsageError(f"{name}: unknown axis {transform!r}; choose {', '.join(LOGARITHMS)}")
    if not issubclass(kind, Regression) or kind.transform.name != "identity":
        why = "learns no number" if not issubclass(kind, Regression) else "learns ln(1 + z) already"
        raise UsageError(f"target={transform}: TASK={name} {why}; name the columns: --target '{transform}(column)'")
    return type(f"{kind.__name__}[{transform}]", (Logarithmic, kind), {
        "transform": TRANSFORMS[transform], "constant_name": f"mean {transform}", "__module__": __name__,
    })  # fmt: skip

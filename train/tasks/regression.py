"""One number of an object: redshift, effective temperature, surface gravity, metallicity, or another column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import torch
from matplotlib.figure import Figure
from torch import Tensor

from specshards.common.errors import UsageError
from specshards.common.json import fits
from specshards.common.messages import LOGGER
from specshards.shards.format.manifest import LabelStats
from specshards.train.config import TrainConfig
from specshards.train.tasks import metrics, plots
from specshards.train.tasks.heads import QUANTILES, Head, make_head
from specshards.train.tasks.metrics import FloatArray
from specshards.train.tasks.task import TASKS, Arrays, Drawing, Scores, Task, TrainSplit, numbers
from specshards.train.tasks.text import in_unit, quantity
from specshards.train.tasks.transforms import TRANSFORMS, Identity, Transform


@dataclass(frozen=True)
class Regression(Task):
    """One number, learnt on an axis that the train split sets.

    The axis is `(t(label) - t(mean)) / (t'(mean) std)`, where t is the transform.

    Attributes:
        low, high: range of the label in the train split; a histogram spans it, labels outside count as its ends.
        centre, scale: of the axis, in units of t.
        divisor: where there is one, the model learns the label divided by it in place of the axis.
        only, select: see `Task`.
        transform: see `train.tasks.transforms`. default_head: what HEAD=auto is.
        by_peak: the point is that of the likeliest peak, not the mean.
    """

    name: str
    low: float
    high: float
    centre: float
    scale: float
    head: str = "histogram"
    bins: int = 128
    divisor: float | None = None
    only: tuple[str, ...] = ()
    select: str = ""

    transform: ClassVar[Transform] = Identity()
    default_head: ClassVar[str] = "gaussian"
    by_peak: ClassVar[bool] = False
    best: ClassVar[tuple[str, bool]] = ("mae", False)
    criteria: ClassVar[Mapping[str, bool]] = {"r2": True, "mae": False, "rmse": False, "crps": False}
    headline: ClassVar[tuple[str, ...]] = ("r2", "mae", "rmse")
    reported: ClassVar[tuple[str, ...]] = ("count", "r2", "mae", "rmse", "bias")
    further: ClassVar[tuple[str, ...]] = ("crps", "coverage68")
    constant_name: ClassVar[str] = "mean label"
    estimator: ClassVar[Literal["classifier", "regressor"]] = "regressor"
    overview: ClassVar[tuple[str, str]] = (
        "against",
        "Each object's prediction against its true value, coloured by its class; where there are many, a stronger "
        "colour means more of them, logarithmically. Good: all on the diagonal line.",
    )
    hub_type: ClassVar[str] = "image-regression"

    @classmethod
    def fit(cls, name: str, config: TrainConfig, train: TrainSplit) -> Self:
        """Scaled by the label's statistics."""
        if cls.label == "z":
            train.refuse_rest_frame(name)
        stats = cls.statistics(train)
        if not stats.count:
            raise UsageError(
                f"{train}: no object of the train split has a {cls.label}, so TASK={name} cannot be learnt; "
                "make the shards with a catalogue (CATALOG=) that has it: docs/ingest.md, Labels"
            )
        task = cls.scaled_by(stats, name, config.head, config.bins, config.target)
        return replace(task, only=config.only_classes, select=cls.choose(config.selected))

    @classmethod
    def statistics(cls, train: TrainSplit) -> LabelStats:
        """Of the labels that are learnt."""
        return train.statistics(cls.label)

    @classmethod
    def scaled_by(
        cls, stats: LabelStats, name: str, head: str = "auto", bins: int = 128, target: str = "auto"
    ) -> Self:
        """With these statistics of the train split; `target` as in `train.config.TrainConfig`."""
        if stats.max - stats.min <= 0:
            LOGGER.warning(f"every {cls.label} of the train split is {stats.min:g}: there is nothing to learn")
        std = stats.std if stats.std > 0 else 1.0
        high = stats.max if stats.max > stats.min else stats.min + std
        centre, slope = cls.transform.forward(stats.mean), 1 / cls.transform.slope(stats.mean)
        divisor = high if target == "max" else 1.0 if target == "z" and cls.label == "z" else None
        if divisor is not None and not divisor > 0:
            raise UsageError(
                f"target=max: the largest {cls.label} of the train split is {high:g}, and nothing can be divided by "
                "it; leave it out"
            )
        default = cls.default_head if divisor is None else "mse"
        head = default if head == "auto" else head
        return cls(name, stats.min, high, centre, std * slope, head, bins, divisor)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; ValueError where the task learnt another label, or on another axis."""
        fields = {**content, "only": tuple(content.get("only", ()))}
        kind = fields.pop("label"), fields.pop("transform")
        if kind != (cls.label, cls.transform.name):
            raise ValueError(f"task {content['name']} learnt {' on the axis '.join(kind)}")
        fits(fields, cls, str(content["name"]))
        if not fields["low"] < fields["high"] or not fields["scale"] > 0 or not 1 <= fields["bins"] <= 2**20:
            raise ValueError(f"{content['name']}: not a scale that a label can have")
        task = cls(**fields)
        if task.divisor is not None and not (task.divisor > 0 and task.head == "mse"):
            raise ValueError(f"{task.name}: a divisor of {task.divisor:g} and a head {task.head} are not possible")
        task.check_record()
        return task

    def to_dict(self) -> dict[str, Any]:
        """The fields, label and transform; what is at its default only where records of old have it."""
        later = {"divisor": self.divisor} if self.divisor is not None else {}
        fields = {name: value for name, value in asdict(self).items() if name not in ("divisor", "only", "select")}
        return {**fields, **later, **self.record(), "label": self.label, "transform": self.transform.name}

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
        return self.transform.inverse(self.centre)

    def output_names(self, several: bool) -> list[str]:
        """The label and a number."""
        return [f"{self.label}_{i}" for i in range(self.head_size)]

    def targets(self, sidecar: pa.Table) -> FloatArray:
        """The label of a sidecar's rows, float64 `(N,)`, NaN = missing."""
        return self.known(self.read(sidecar), sidecar)

    @classmethod
    def read(cls, sidecar: pa.Table) -> FloatArray:
        """The same, of objects of every class."""
        return numbers(sidecar, cls.label)

    def scaled(self, label: Tensor) -> Tensor:
        """Label to what the model learns."""
        return self.on_axis(label) if self.divisor is None else label / self.divisor

    def physical(self, learnt: Tensor) -> Tensor:
        """The inverse of `scaled`."""
        return self.off_axis(learnt) if self.divisor is None else learnt * self.divisor

    def on_axis(self, label: Tensor) -> Tensor:
        """Label to axis."""
        return (self.transform.forward(label) - self.centre) / self.scale

    def off_axis(self, axis: Tensor) -> Tensor:
        """The inverse of `on_axis`."""
        return self.transform.inverse(axis * self.scale + self.centre)

    def sample_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The head's loss on the axis."""
        return self._head.loss(logits, self.scaled(target))

    def decode(self, logits: Tensor) -> dict[str, FloatArray]:
        """`point`; `<label>_std`; `<label>_q16`, `_q50`, `_q84`; in the label's unit."""
        logits = logits.cpu().double()
        point = self.physical(self._head.point(logits, mode=self.by_peak))
        std = self._head.std(logits) * (self.scale * self.transform.slope(point))  # none beside a divisor
        columns = {"point": point, f"{self.label}_std": std}
        quantiles = self.physical(self._head.quantiles(logits))
        columns |= {f"{self.label}_q{round(100 * q)}": quantiles[:, i] for i, q in enumerate(QUANTILES)}
        return {name: column.numpy() for name, column in columns.items()}

    def calibration(self, logits: Tensor, target: FloatArray) -> dict[str, FloatArray]:
        """How the predicted distributions fare with the truth, float64 `(N,)`, NaN where the label is missing.

        `pit`: the predicted probability below the truth; even between 0 and 1 where the widths are right.
        `crps`: continuous ranked probability score, in units of t: the label's, for redshift those of ln(1 + z).
        """
        logits, axis = logits.cpu().double(), self.scaled(torch.from_numpy(target))
        crps = self._head.crps(logits, axis) * self.scale
        if self.divisor is not None:  # a point, whose error counts as on any other axis
            point = self.physical(self._head.point(logits, mode=self.by_peak))
            crps = (self.transform.forward(point) - self.transform.forward(torch.from_numpy(target))).abs()
        return {"pit": self._head.cdf(logits, axis).numpy(), "crps": crps.numpy()}

    @property
    def column(self) -> str:
        """The label."""
        return self.label

    def values(self, point: FloatArray) -> pa.Array:
        """Numbers in the label's unit."""
        return pa.array(point)

    def describe(self, columns: Arrays, i: int) -> str:
        """The label, its standard deviation and its unit."""
        point, std = (float(columns[name][i]) for name in ("point", f"{self.label}_std"))
        return quantity(self.label, point, std, self.unit)

    def nonconformity(self, columns: Arrays, truth: FloatArray) -> tuple[str, FloatArray]:
        """The error on the axis where errors are alike, over the predicted width where there is one."""
        has_width = bool(np.isfinite(columns[f"{self.label}_std"]).all()) and self.head != "mse"
        kind = "error / std" if has_width else "error"
        centre, width = self._spread(columns, kind)
        return kind, np.abs(self.transform.forward(truth) - centre) / width

    def regions(
        self, columns: Arrays, threshold: float, kind: str, percent: str
    ) -> dict[str, FloatArray | list[str]]:
        """`<label>_lo68`, `<label>_hi68` and the like."""
        centre, width = self._spread(columns, kind)
        ends = {"lo": centre + -1 * threshold * width, "hi": centre + 1 * threshold * width}
        return {f"{self.label}_{name}{percent}": self.transform.inverse(end) for name, end in ends.items()}

    def _spread(self, columns: Arrays, kind: str) -> tuple[FloatArray, FloatArray]:
        """Centre and width of each prediction in units of t."""
        point = columns["point"]
        centre = self.transform.forward(point)
        if kind == "error":
            return centre, np.ones_like(point)
        std = columns[f"{self.label}_std"] / self.transform.slope(point)
        return centre, np.maximum(std, 1e-9 * self.scale)

    def measure(self, columns: Arrays, labels: Arrays) -> dict[str, Any]:
        """R2, MAE, RMSE, bias, and those of `errors`.

        With a distribution also the mean CRPS, and `coverage68`: the share of truths between its 16th and 84th
        percentile.
        """
        result = self.errors(labels[self.target], columns["point"], labels)
        if "crps" in columns:
            inside = (columns["pit"] >= QUANTILES[0]) & (columns["pit"] <= QUANTILES[-1])
            defined = np.isfinite(columns["pit"])
            result["crps"] = float(columns["crps"].mean()) if len(defined) else float("nan")
            result["coverage68"] = float(inside[defined].mean()) if defined.any() else float("nan")
        return result

    def errors(self, true: FloatArray, point: FloatArray, labels: Arrays) -> dict[str, Any]:
        """Metrics of the points."""
        return metrics.regression(true, point, redshift=False)

    def residuals(self, true: FloatArray, point: FloatArray) -> FloatArray:
        """The errors that are drawn."""
        return point - true

    @property
    def residuals_name(self) -> str:
        """What they are, with their unit."""
        return f"predicted - true {self.label}{in_unit(self.unit)}"

    def details(self, columns: Arrays, labels: Arrays, by_sn: Scores) -> dict[str, Any]:
        """`residuals` by true value and, where distributions are predicted, `pit`."""
        true = labels[self.target]
        result: dict[str, Any] = {"residuals": metrics.residual_boxes(true, self.residuals(true, columns["point"]))}
        pit = columns.get("pit", np.zeros(0))
        if np.isfinite(pit).any():
            result["pit"] = metrics.pit_histogram(pit)
        return result

    def constant(self, targets: FloatArray) -> float:
        """The mean."""
        return float(targets.mean())

    def to_estimator(self, targets: FloatArray) -> FloatArray:
        """On the axis."""
        return self.on_axis(torch.from_numpy(targets)).numpy()

    def from_estimator(self, predicted: FloatArray) -> FloatArray:
        """In the label's unit."""
        return self.off_axis(torch.from_numpy(predicted)).numpy()

    def draw(self, true: FloatArray, point: FloatArray, classes: FloatArray) -> Figure:
        """Predicted against true."""
        return plots.against(true, point, classes, self.label, in_unit(self.unit))

    def figures(self, scores: Scores) -> dict[str, Drawing]:
        """`residuals`; `pit`; `sn`: metrics by S/N."""
        boxes, pit = scores.get("residuals"), scores.get("pit")
        drawings = {}
        if boxes:
            true = f"true {self.label}{in_unit(self.unit)}"
            drawings["residuals"] = Drawing(
                "Errors by true value, about equally many objects a box: median, quartiles, and whiskers to the 5th "
                "and 95th percentile. Good: narrow boxes around zero without a trend.",
                lambda: plots.residuals(boxes, true, self.residuals_name),
            )
        if pit:
            drawings["pit"] = Drawing(
                "Where the truth falls in the predicted distribution; chance alone keeps a right one between the "
                "dashes. Good: even. A hump means too wide distributions, a bowl too narrow ones, a slope a bias.",
                lambda: plots.pit(pit),
            )
        return {**drawings, **super().figures(scores)}

    def sn_panels(self) -> dict[str, Sequence[str]]:
        """R2 and MAE."""
        return {"share: R2": ("r2",), f"MAE{in_unit(self.unit)}": ("mae",)}

    def meaning(self) -> str:
        """What the head predicts, and the axis."""
        what = {
            "histogram": f"logits of a histogram of {self.bins} bins", "gaussian": "mean and log variance",
            "mse": "a value",
        }[self.head]  # fmt: skip
        unit = f" {self.unit}" if self.unit else ""
        if self.divisor is not None:
            return f"{what} of {self.label} / {self.divisor:.6g}{unit}"
        of = self.transform.formula(self.label)
        return f"{what} of ({of} - {self.centre:.6g}) / {self.scale:.6g}{unit}"

    def limits(self) -> str:
        """The range of the train split."""
        unit = f" {self.unit}" if self.unit else ""
        beyond = "; what lies beyond is put at the ends" if self.head == "histogram" else ""
        return f"{self.name}: train objects{self.whose} from {self.low:.4g} to {self.high:.4g}{unit}{beyond}."


@TASKS.register("redshift")
class Redshift(Regression):
    """The redshift, on ln(1 + z): an error there is the (z' - z)/(1 + z) that astronomers count.

    A line mistaken for another gives a redshift several likely values: the point is that of the likeliest peak, where
    the mean would lie between them. The best epoch is not chosen by NMAD: over a sample of mostly stars, a constant
    has a better one than any model.
    """

    label = "z"
    transform = TRANSFORMS["log1p"]
    default_head = "histogram"
    by_peak = True
    best = ("mean_abs_dz", False)
    criteria: ClassVar[Mapping[str, bool]] = {
        **Regression.criteria, "mean_abs_dz": False, "nmad": False, "outliers": False, "non_catastrophic": True,
    }  # fmt: skip
    brief = ("count", "mean_abs_dz", "nmad", "outliers", "non_catastrophic")
    headline = ("r2", "mae", "rmse", *brief[1:])
    reported = (*brief, "r2", "mae", "rmse")
    brief_groups = ("by_survey", "by_class")

    @property
    def residuals_name(self) -> str:
        """dz in words."""
        return "dz = (predicted - true) / (1 + true)"

    def errors(self, true: FloatArray, point: FloatArray, labels: Arrays) -> dict[str, Any]:
        """Also mean |dz|, NMAD, outlier share and non-catastrophic share."""
        return metrics.regression(true, point, redshift=True, classes=labels["class"])

    def residuals(self, true: FloatArray, point: FloatArray) -> FloatArray:
        """dz."""
        return super().residuals(true, point) / (1 + true)

    def heads(self, metrics: Sequence[str]) -> dict[str, Sequence[str]]:
        """Those of dz or ln(1 + z), and those of z."""
        of_z = ("r2", "mae", "rmse")
        return {"": [metric for metric in metrics if metric not in of_z], "In z itself": ["count", *of_z]}

    def sn_panels(self) -> dict[str, Sequence[str]]:
        """Also mean |dz| and the non-catastrophic share."""
        return super().sn_panels() | {
            "mean |dz|": ("mean_abs_dz",), "share: non-catastrophic": ("non_catastrophic",),
        }  # fmt: skip


def regression(
    label: str, *, unit: str = "", transform: str = "identity", head: str = "gaussian"
) -> type[Regression]:
    """A task that learns a column of numbers, whether the shards hold it or their sidecars alone.

    TASKS.register("ebv")(regression("ebv", unit="mag"))

    Args:
        transform: a name in `TRANSFORMS`. head: what HEAD=auto is.
    """
    content = {"label": label, "unit": unit, "transform": TRANSFORMS[transform], "default_head": head}
    return type(f"Regression[{label}]", (Regression,), {**content, "__module__": __name__})


TASKS.register("teff")(regression("teff", unit="K"))
TASKS.register("logg")(regression("logg", unit="dex"))
TASKS.register("feh")(regression("feh", unit="dex"))

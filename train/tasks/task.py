"""What a model can learn: all that the rest of the program asks of a task, and the tasks by name.

    @TASKS.register("ebv")
    class Reddening(Regression):
        label, unit = "ebv", "mag"

Most tasks belong to one of two families, `train.tasks.classification` and `train.tasks.regression`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure
from torch import Tensor

from specshards.common.errors import JobError, UsageError
from specshards.common.json import fits
from specshards.common.label_columns import possible_numbers
from specshards.common.registry import Registry
from specshards.common.spectrum import CLASSES, LABELS
from specshards.common.text import count
from specshards.shards.format.manifest import LabelStats, Manifest, combine_stats
from specshards.train.config import TrainConfig
from specshards.train.tasks import plots
from specshards.train.tasks.coded import Coded
from specshards.train.tasks.metrics import FloatArray
from specshards.train.tasks.text import Rows, metric_name

Arrays = Mapping[str, FloatArray]
#: Of one task and split, as in `metrics.json`; see `train.evaluation.measure`.
Scores = Mapping[str, Any]

TASKS: Registry[type[Task]] = Registry(
    "TASK", "specshards.tasks", ["specshards.train.tasks.classification", "specshards.train.tasks.regression"]
)
#: Metrics of predicted distributions: a constant answer, or that of another program, has none of them.
OF_DISTRIBUTIONS = frozenset({"crps", "nll", "ece", "brier"})


class Drawing(NamedTuple):
    """A figure of a report, drawn when it is needed; the caption says what a good one looks like."""

    caption: str
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class TrainSplit:
    """The train split of the data sets of a run, to which its tasks are fitted.

    Attributes:
        folders, manifests: of the data sets.
        sidecar: columns of their tables, one row a sample; null in objects of other classes than `only`.
        only: classes whose labels count; none for all.
    """

    folders: tuple[str, ...]
    manifests: Sequence[Manifest]
    sidecar: Callable[[Sequence[str]], pa.Table]
    only: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The folders, and the classes that count."""
        return ", ".join(self.folders) + (f" (class {', '.join(self.only)} alone)" if self.only else "")

    def statistics(self, label: str) -> LabelStats:
        """Of a column that holds numbers: those of the manifests, or from the sidecar where these do not."""
        if label in LABELS and not self.only:
            return combine_stats([self._checked(label, manifest) for manifest in self.manifests])
        values = numbers(self.sidecar([label]), label)
        values = values[np.isfinite(values)]
        if not len(values):
            return combine_stats([])
        return LabelStats(len(values), *(float(f(values)) for f in (np.mean, np.std, np.min, np.max)))

    def refuse_rest_frame(self, task: str) -> None:
        """Raise UsageError where spectra are in the rest frame, by their files or by a redshift."""
        if any(manifest.config.image.frame == "rest" for manifest in self.manifests):
            raise UsageError(
                f"{self}: spectra in the rest frame were made with the redshift that TASK={task} would learn; make "
                "shards in the observed frame (without --frame)"
            )
        try:
            table = self.sidecar(["frame"])
        except UsageError:  # of a data set made before spectra said it: all are observed
            return
        frames = table["frame"] if "frame" in table.column_names else pa.chunked_array([], pa.string())
        if rest := pc.sum(pc.equal(frames.cast(pa.string()), "rest")).as_py():
            raise UsageError(
                f"{self}: {count(rest, 'spectrum is', 'spectra are')} in the rest frame, where no redshift "
                f"shows, so TASK={task} cannot be learnt; leave their survey out, or learn another column"
            )

    def _checked(self, label: str, manifest: Manifest) -> LabelStats:
        """The statistics of a manifest, which an earlier version made of all that it was given."""
        stats = manifest.label_stats[label]
        ends = np.array([stats.min, stats.max])
        if stats.count and not possible_numbers(label, ends).all():
            raise JobError(
                f"{self}: {label} goes from {stats.min:.6g} to {stats.max:.6g}, which no object has: made before "
                "labels were checked; run the command that made it again, with FORCE=1"
            )
        return stats


class Task(ABC):
    """One thing to learn from a spectrum or its picture, and what is to be said of it.

    An instance is fitted to a train split. N objects, B of a batch; columns are float64 `(N,)`.

    Attributes:
        name: as in TASK=name.
        label: the column of the spectra that it learns. unit: of the label; empty for none.
        best: metric by which the best epoch is chosen on validation, and whether more is better.
        criteria: metrics by which it can be chosen instead, and whether more is better.
        select: the one of them that was asked for; empty for `best`.
        only: classes of the objects whose labels count; none for all.
        headline: metrics that get an interval.
        reported, further: metrics in the tables, and those that follow where they are measured.
        brief: metrics that are printed on the terminal; none for those of `reported`.
        groups: of objects that get a table. brief_groups: those among them that are printed on the terminal.
        constant_name: the best constant prediction in words.
        estimator: what of scikit-learn learns it.
        overview: name and caption of what `draw` draws.
        hub_type: on the model hub.
    """

    name: str
    label: ClassVar[str]
    unit: ClassVar[str] = ""
    best: ClassVar[tuple[str, bool]]
    criteria: ClassVar[Mapping[str, bool]] = {}
    select: str = ""
    only: tuple[str, ...] = ()
    headline: ClassVar[tuple[str, ...]]
    reported: ClassVar[tuple[str, ...]]
    further: ClassVar[tuple[str, ...]] = ()
    brief: ClassVar[tuple[str, ...]] = ()
    groups: ClassVar[tuple[str, ...]] = ("by_survey", "by_class", "by_sn")
    brief_groups: ClassVar[tuple[str, ...]] = ("by_survey",)
    constant_name: ClassVar[str]
    estimator: ClassVar[Literal["classifier", "regressor"]]
    overview: ClassVar[tuple[str, str]]
    hub_type: ClassVar[str]

    # Learning

    @classmethod
    @abstractmethod
    def fit(cls, name: str, config: TrainConfig, train: TrainSplit) -> Self:
        """The task under this name, scaled by the train split. UsageError where nothing there can be learnt."""

    @classmethod
    def choose(cls, metrics: Sequence[str]) -> str:
        """The first of some metrics that can choose an epoch; empty where none is named.

        Raises:
            UsageError: it has none of them.
        """
        known = {cls.best[0]: cls.best[1], **cls.criteria}
        for metric in metrics:
            if metric in known:
                return metric
        if metrics:
            what = f"select={','.join(metrics)}: nothing that a task on {cls.label} is chosen by"
            raise UsageError(f"{what}; give one of {', '.join(known)}")
        return ""

    @property
    def criterion(self) -> tuple[str, bool]:
        """The metric by which the best epoch is chosen on validation, and whether more is better."""
        return (self.select, {**self.criteria, self.best[0]: self.best[1]}[self.select]) if self.select else self.best

    @property
    def whose(self) -> str:
        """Behind the name of a label: the classes of the objects whose labels count, where those are not all."""
        return f" of class {', '.join(self.only)}" if self.only else ""

    @property
    def is_stored(self) -> bool:
        """Whether the labels in the shards hold what is learnt; otherwise it is read from the sidecar."""
        return self.label in LABELS and not self.only

    @property
    def target(self) -> str:
        """The label of a batch that holds what is learnt."""
        if self.only:
            return f"{self.name} of {' '.join(self.only)}"
        return self.label if self.is_stored else self.name

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a sidecar that `targets` reads."""
        return (self.label, "class") if self.only else (self.label,)

    def record(self) -> dict[str, Any]:
        """`only` and `select` for `to_dict`, where they are not at their defaults."""
        only = {"only": list(self.only)} if self.only else {}
        return {**only, "select": self.select} if self.select else only

    def check_record(self) -> None:
        """Raise ValueError where `only` and `select` are nothing that a run can have."""
        fits(list(self.only), list[str], f"{self.name}.only")
        fits(self.select, str, f"{self.name}.select")
        if set(self.only) - set(CLASSES) or (self.select and self.select not in {self.best[0], *self.criteria}):
            raise ValueError(f"{self.name}: only {self.only} and select {self.select!r} are not possible")

    def known(self, targets: FloatArray, sidecar: pa.Table) -> FloatArray:
        """Targets of a sidecar's rows, NaN for objects of other classes than `only`."""
        if not self.only:
            return targets
        return np.where(Coded.of(sidecar["class"]).among(self.only), targets, np.nan)

    @property
    @abstractmethod
    def head_size(self) -> int:
        """Number of outputs of the model."""

    @property
    @abstractmethod
    def filler(self) -> float:
        """A value of the target that stands in for missing ones while the loss is taken; it has no weight."""

    @abstractmethod
    def targets(self, sidecar: pa.Table) -> FloatArray:
        """What is learnt of a sidecar's rows, float64 `(N,)`, NaN = missing; it reads `columns`."""

    @abstractmethod
    def sample_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every sample, float32 `(B,)`; logits `(B, head_size)`, targets float32 `(B,)`, none missing."""

    @abstractmethod
    def output_names(self, several: bool) -> list[str]:
        """A name for every output; `several`: of a model that has other tasks too."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """JSON-able content, with `name`."""

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. TypeError, KeyError or ValueError for another record."""
        return cls(**content)

    # Predictions

    @abstractmethod
    def decode(self, logits: Tensor) -> dict[str, FloatArray]:
        """Columns float64 `(B,)` in physical units; `point` is the best single prediction."""

    def calibration(self, logits: Tensor, target: FloatArray) -> dict[str, FloatArray]:
        """Columns float64 `(B,)` that need the truth, NaN where it is missing."""
        return {}

    def judged(self, logits: Tensor, target: FloatArray) -> dict[str, FloatArray]:
        """What is kept of each object of a split that is scored: columns float64 `(B,)`, `point` among them.

        All that `measure`, `details` and `nonconformity` are given, 8 bytes a column and object. By default that is
        all of `decode` and `calibration`.

        Args:
            logits: `(B, head_size)`. target: float64 `(B,)`, NaN = missing.
        """
        return {**self.decode(logits), **self.calibration(logits, target)}

    @property
    @abstractmethod
    def column(self) -> str:
        """The column of a table of predictions that `values` fills."""

    @abstractmethod
    def values(self, point: FloatArray) -> pa.Array:
        """`point` as it is told: text or numbers."""

    @abstractmethod
    def describe(self, columns: Arrays, i: int) -> str:
        """The prediction for object i in words."""

    @abstractmethod
    def nonconformity(self, columns: Arrays, truth: FloatArray) -> tuple[str, FloatArray]:
        """What the conformal score is, in words, and how far each truth is from its prediction by it."""

    @abstractmethod
    def regions(
        self, columns: Arrays, threshold: float, kind: str, percent: str
    ) -> dict[str, FloatArray | list[str]]:
        """Columns of what lies within `threshold` of the predictions by the score `kind`; `percent` of the truths."""

    # What it is worth

    @abstractmethod
    def measure(self, columns: Arrays, labels: Arrays) -> dict[str, Any]:
        """Metrics over samples that all have the label, with `count`. Raises nothing; undefined is NaN."""

    def details(self, columns: Arrays, labels: Arrays, by_sn: Scores) -> dict[str, Any]:
        """Further entries of `metrics.json` over the same samples; `by_sn`: metrics by bin of S/N."""
        return {}

    def skill(self, scores: Scores) -> float:
        """What several tasks are averaged by: 1 is perfect. `criterion`, or 1 - error / error of the constant."""
        metric, more = self.criterion
        value = scores["all"][metric]
        return float(value if more else 1 - value / scores["baselines"]["constant"][metric])

    @abstractmethod
    def constant(self, targets: FloatArray) -> float:
        """The best prediction that is the same for all, from targets that are not missing."""

    def counts(self, targets: FloatArray) -> dict[str, int]:
        """How many objects there are of what, for the record."""
        return {}

    def left_out(self, sidecar: pa.Table) -> dict[str, int]:
        """How many objects say something in the label's column that is not learnt, by why not."""
        return {}

    def to_estimator(self, targets: FloatArray) -> FloatArray:
        """What a model of scikit-learn is fitted to."""
        return targets

    def from_estimator(self, predicted: FloatArray) -> FloatArray:
        """The inverse of `to_estimator`."""
        return predicted

    def conflict(self, other: Task) -> str | None:
        """Why the predictions of `other`, a task of the same name, cannot stand beside those of this one."""
        return None if type(other) is type(self) else f"learns {other.label}, not {self.label}"

    # The report

    def heads(self, metrics: Sequence[str]) -> dict[str, Sequence[str]]:
        """The tables of model and baselines: title -> metrics, of those that are to be shown."""
        return {"": metrics}

    def tables(self, scores: Scores, groups: list[Rows]) -> list[Rows]:
        """What follows them: by default the tables of the groups. The first cell of a table is its title."""
        return groups

    def summary(self, scores: Scores) -> str:
        """More for the terminal; empty for nothing."""
        return ""

    @abstractmethod
    def draw(self, true: FloatArray, point: FloatArray, classes: FloatArray) -> Figure:
        """The predictions one by one; `classes`: positions in `CLASSES`, NaN = missing."""

    def figures(self, scores: Scores) -> dict[str, Drawing]:
        """Figures of a split by name. What has no data is absent."""
        by_sn = scores["by_sn"]
        if not by_sn:
            return {}
        counts = [values["count"] for values in by_sn.values()]

        def lines(metrics: Sequence[str]) -> list[plots.Line]:
            return [(metric_name(m), [values.get(m) for values in by_sn.values()], counts) for m in metrics]

        caption = (
            "Metrics by median S/N per pixel, with the number of objects in each bin; hollow points rest on fewer "
            "than 20. Good: little is lost towards low S/N."
        )
        drawn = {title: lines(metrics) for title, metrics in self.sn_panels().items()}
        return {"sn": Drawing(caption, lambda: plots.curves(list(by_sn), counts, drawn))}

    @abstractmethod
    def sn_panels(self) -> dict[str, Sequence[str]]:
        """Panels of the figure by S/N: title, which begins with `share: ` where the axis ends at 1, and metrics."""

    # The card of a model

    @abstractmethod
    def meaning(self) -> str:
        """What the outputs are."""

    @abstractmethod
    def limits(self) -> str:
        """Where the predictions end."""


def numbers(sidecar: pa.Table, label: str) -> FloatArray:
    """A column as float64 `(N,)`, NaN where it is null."""
    return np.asarray(sidecar[label].cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(), np.float64)

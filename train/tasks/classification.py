"""Telling kinds of objects apart: the three classes, the spectral types of the train split, or other texts."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from specshards.common.errors import UsageError
from specshards.common.json import different, fits
from specshards.common.messages import LOGGER
from specshards.train.config import TrainConfig
from specshards.train.tasks import metrics, plots
from specshards.train.tasks.coded import Coded
from specshards.train.tasks.metrics import FloatArray
from specshards.train.tasks.spectral_type import TYPES, spectral_type
from specshards.train.tasks.task import TASKS, Arrays, Drawing, Scores, Task, TrainSplit
from specshards.train.tasks.text import Rows, number

FEWEST = 10  # a class with fewer objects in the train split is not learnt, and counts as missing
_MOST_IN_TABLE = 6  # classes of a confusion matrix in numbers
_MOST_LINES = 6  # classes in one plot of S/N: the most numerous ones


@dataclass(frozen=True)
class Classification(Task):
    """One of several classes, by cross-entropy.

    Attributes:
        classes: names, in the order of the outputs.
        shares: of each class among the labelled objects of the train split.
        balance: `none`; `weights` lets each class count alike in the loss; `logits` adds the log of the shares to the
            logits while training, which aims at balanced accuracy (Menon et al. 2021).
        only, select: see `Task`.
        lacking: what is said where nothing can be learnt.
    """

    classes: tuple[str, ...]
    name: str
    shares: tuple[float, ...] = ()
    balance: str = "none"
    only: tuple[str, ...] = ()
    select: str = ""

    prefix: ClassVar[str] = "p_"  # and a class: the column of its probability
    between: ClassVar[str] = " "  # the classes of a set
    lacking: ClassVar[str] = f"no class has {FEWEST} objects in the train split"
    best: ClassVar[tuple[str, bool]] = ("macro_f1", True)
    criteria: ClassVar[Mapping[str, bool]] = {"accuracy": True, "nll": False, "ece": False, "brier": False}
    headline: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")
    reported: ClassVar[tuple[str, ...]] = ("count", "accuracy", "macro_f1")
    further: ClassVar[tuple[str, ...]] = ("nll", "ece", "brier")
    constant_name: ClassVar[str] = "majority class"
    estimator: ClassVar[Literal["classifier", "regressor"]] = "classifier"
    overview: ClassVar[tuple[str, str]] = (
        "confusion",
        "Rows are true classes, columns predicted ones; each cell gives the share of its row in percent. Good: all "
        "on the diagonal.",
    )
    hub_type: ClassVar[str] = "image-classification"

    @classmethod
    def read(cls, text: str) -> str | None:
        """The class that a text of the label's column stands for, None for none."""
        return text.strip() or None

    @classmethod
    def order(cls, kind: str) -> Any:
        """What classes are sorted by."""
        return kind

    @classmethod
    def count(cls, train: TrainSplit) -> dict[str, int]:
        """The classes to tell apart, and how many objects of the train split each has."""
        return cls.present(cls.coded(train.sidecar([cls.label])).counts())

    @classmethod
    def coded(cls, sidecar: pa.Table) -> Coded:
        """What the label's column says."""
        return Coded.of(sidecar[cls.label])

    @classmethod
    def present(cls, texts: Iterable[str | None] | Mapping[str, int]) -> dict[str, int]:
        """Classes with at least `FEWEST` objects and how many, in order; of texts, or of how many have each."""
        counts: Counter[str] = Counter()
        for text, n in Counter(texts).items():
            if text is not None and (kind := cls.read(text)):
                counts[kind] += n
        return {kind: counts[kind] for kind in sorted(counts, key=cls.order) if counts[kind] >= FEWEST}

    @classmethod
    def fit(cls, name: str, config: TrainConfig, train: TrainSplit) -> Self:
        """The classes of the train split, and their shares there."""
        counts = cls.count(train)
        total = sum(counts.values())
        if not total:
            raise UsageError(f"{train}: {cls.lacking}, so TASK={name} cannot be learnt")
        present = [kind for kind, n in counts.items() if n]
        if len(present) == 1:
            LOGGER.warning(
                f"{train}: every labelled object of the train split is a {present[0]}: there is nothing to tell apart"
            )
        shares = tuple(n / total for n in counts.values())
        return cls(tuple(counts), name, shares, config.balance, config.only_classes, cls.choose(config.selected))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; ValueError for anything else."""
        for field, kind in (("classes", list[str]), ("name", str), ("shares", list[float]), ("balance", str)):
            fits(content[field], kind, f"{cls.__name__}.{field}")
        if (
            not content["classes"]
            or len(content["shares"]) not in (0, len(content["classes"]))
            or different(content["classes"])
        ):
            raise ValueError(f"{content['name']}: not classes with their shares")
        task = cls(tuple(content["classes"]), content["name"], tuple(content["shares"]), content["balance"],
                   tuple(content.get("only", ())), content.get("select", ""))  # fmt: skip
        task.check_record()
        return task

    def to_dict(self) -> dict[str, Any]:
        """Name, classes, shares and balance."""
        return {"name": self.name, "classes": list(self.classes), "shares": list(self.shares),
                "balance": self.balance, **self.record()}  # fmt: skip

    @property
    def is_stored(self) -> bool:
        """The shards hold the position of another class, if of any."""
        return False

    @property
    def head_size(self) -> int:
        """One output per class."""
        return len(self.classes)

    @property
    def filler(self) -> float:
        """The first class."""
        return 0.0

    def output_names(self, several: bool) -> list[str]:
        """The classes, with the task before them where there are several."""
        return [f"{self.name}: {kind}" if several else kind for kind in self.classes]

    def targets(self, sidecar: pa.Table) -> FloatArray:
        """Positions in `classes`, float64 `(N,)`, of a sidecar's rows; NaN where it has none of them."""
        places = {kind: float(i) for i, kind in enumerate(self.classes)}
        coded = self.coded(sidecar)
        return self.known(coded.numbers(lambda text: places.get(self.read(text) or "", math.nan)), sidecar)

    def sample_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of every sample, balanced as asked for."""
        shares = torch.tensor(self.shares, device=logits.device, dtype=logits.dtype)
        if self.balance == "logits":
            logits = logits + shares.clamp_min(1e-6).log()
        loss = F.cross_entropy(logits, target.long(), reduction="none")
        if self.balance == "weights":
            weights = torch.where(shares > 0, 1 / (shares * (shares > 0).sum()).clamp_min(1e-6), 0.0)
            loss = loss * weights[target.long()]
        return loss

    def judged(self, logits: Tensor, target: FloatArray) -> dict[str, FloatArray]:
        """`point`, and of the probabilities what they are measured by, as four columns of however many classes."""
        probabilities = logits.cpu().double().softmax(dim=1).numpy()
        belief = metrics.Belief.of(target, probabilities)
        return {"point": probabilities.argmax(axis=1).astype(np.float64), **belief._asdict()}

    def decode(self, logits: Tensor) -> dict[str, FloatArray]:
        """`point`: position of the likeliest class; `p_<class>`: probabilities that add up to 1."""
        probabilities = logits.cpu().double().softmax(dim=1).numpy()
        columns = {f"{self.prefix}{kind}": probabilities[:, i] for i, kind in enumerate(self.classes)}
        return {"point": probabilities.argmax(axis=1).astype(np.float64), **columns}

    @property
    def column(self) -> str:
        """`predicted_class` and the like."""
        return f"predicted_{self.label}"

    def values(self, point: FloatArray) -> pa.Array:
        """Names of classes."""
        return pa.array([self.classes[int(i)] for i in point], pa.string())

    def describe(self, columns: Arrays, i: int) -> str:
        """The class and its probability."""
        kind = self.classes[int(columns["point"][i])]
        return f"{kind} (p = {columns[self.prefix + kind][i]:.2f})"

    def nonconformity(self, columns: Arrays, truth: FloatArray) -> tuple[str, FloatArray]:
        """What is missing in the probability of the true class to 1."""
        own = columns["own"] if "own" in columns else metrics.Belief.of(truth, self._probabilities(columns)).own
        return "1 - p(true class)", 1 - own

    def regions(
        self, columns: Arrays, threshold: float, kind: str, percent: str
    ) -> dict[str, FloatArray | list[str]]:
        """`<task>_set68` and the like: the classes that belong to it, the likeliest first, with spaces between."""
        probabilities = self._probabilities(columns)
        order = np.argsort(-probabilities, axis=1, kind="stable")
        inside = np.take_along_axis(1 - probabilities <= threshold, order, axis=1)
        # An empty set says nothing to a reader: the likeliest class is always in it, which only adds coverage.
        inside[:, 0] = True
        sets = [
            self.between.join(self.classes[k] for k, kept in zip(row, mask, strict=True) if kept)
            for row, mask in zip(order, inside, strict=True)
        ]
        return {f"{self.name}_set{percent}": sets}

    def measure(self, columns: Arrays, labels: Arrays) -> dict[str, Any]:
        """Accuracy, macro F1, and recall, precision, F1 and count of each class; confusion[true][predicted].

        With probabilities also the negative log likelihood and the expected calibration error.
        """
        true = labels[self.target]
        result = metrics.classification(true.astype(int), columns["point"].astype(int), self.classes)
        if (belief := self._belief(columns, true)) is not None:
            result |= belief.probabilistic()
        return result

    def details(self, columns: Arrays, labels: Arrays, by_sn: Scores) -> dict[str, Any]:
        """`class_by_sn`: class -> bin -> count and recall; `reliability`, where there are probabilities."""
        result: dict[str, Any] = {"class_by_sn": {}}
        for kind in self.classes:
            bins = {name: values["per_class"][kind] for name, values in by_sn.items()}
            bins = {name: {"count": v["count"], "recall": v["recall"]} for name, v in bins.items() if v["count"]}
            if bins:
                result["class_by_sn"][kind] = bins
        if (belief := self._belief(columns, labels[self.target])) is not None:
            result["reliability"] = belief.reliability()
        return result

    def constant(self, targets: FloatArray) -> float:
        """The position of the majority class."""
        return float(np.bincount(targets.astype(int)).argmax())

    def counts(self, targets: FloatArray) -> dict[str, int]:
        """Objects of each class."""
        return {f"class {kind}": int((targets == i).sum()) for i, kind in enumerate(self.classes)}

    def conflict(self, other: Task) -> str | None:
        """Other classes."""
        if isinstance(other, Classification) and other.classes != self.classes:
            return f"tells {', '.join(other.classes)} apart, not {', '.join(self.classes)}"
        return super().conflict(other)

    def tables(self, scores: Scores, groups: list[Rows]) -> list[Rows]:
        """Each class, the confusion of few of them, the groups, and recall by S/N."""
        confusion = [self._confusion(scores)] if len(self.classes) <= _MOST_IN_TABLE else []
        by_sn = [_class_by_sn(scores)] if scores.get("class_by_sn") else []
        return [_per_class(scores), *confusion, *groups, *by_sn]

    def summary(self, scores: Scores) -> str:
        """Recall of each class."""
        present = [(kind, v) for kind, v in scores["all"]["per_class"].items() if v["count"]]
        recall = ", ".join(f"{kind} {number(v['recall'])} ({v['count']:,})" for kind, v in present)
        return "\n".join(textwrap.wrap(f"recall: {recall or '-'}", 110, subsequent_indent="  "))

    def draw(self, true: FloatArray, point: FloatArray, classes: FloatArray) -> Figure:
        """The confusion matrix."""
        counts = metrics.classification(true.astype(int), point.astype(int), self.classes)["confusion"]
        return plots.confusion(counts, self.classes)

    def figures(self, scores: Scores) -> dict[str, Drawing]:
        """`reliability`; `sn`: metrics by S/N; `classes_sn`: recall by class and S/N."""
        bins = scores.get("reliability") or []
        reliability = Drawing(
            "How often the likeliest class is right, by how sure the model is of it (bars: one standard error); "
            "below, how many objects are how sure. Good: on the diagonal; below it the model is too sure of itself.",
            lambda: plots.reliability(bins),
        )
        by_class = Drawing(
            "Share of each true class that is recognised, by S/N, of the six most numerous classes; hollow points "
            "rest on fewer than 20 objects. Good: high everywhere, and no class far below the others.",
            lambda: _plot_classes_by_sn(scores),
        )
        first = {"reliability": reliability} if any(b["count"] for b in bins) else {}
        last = {"classes_sn": by_class} if scores.get("class_by_sn") else {}
        return {**first, **super().figures(scores), **last}

    def sn_panels(self) -> dict[str, Sequence[str]]:
        """One panel."""
        return {"share: accuracy, macro F1": ("accuracy", "macro_f1")}

    def meaning(self) -> str:
        """Logits, in the order of the classes."""
        return f"logits of {', '.join(self.classes)}"

    def limits(self) -> str:
        """No other classes."""
        learnt = f"learnt from objects{self.whose} alone; " if self.only else ""
        return f"{self.name}: {learnt}{', '.join(self.classes)} and nothing else; all that it sees becomes one."

    def _belief(self, columns: Arrays, true: FloatArray) -> metrics.Belief | None:
        """From the columns of `judged`, or of `decode`; None of points alone."""
        if "own" in columns:
            return metrics.Belief(*(columns[name] for name in metrics.Belief._fields))
        if self.prefix + self.classes[0] in columns:
            return metrics.Belief.of(true, self._probabilities(columns))
        return None

    def _probabilities(self, columns: Arrays) -> FloatArray:
        return np.column_stack([columns[self.prefix + kind] for kind in self.classes])

    def _confusion(self, scores: Scores) -> Rows:
        rows = zip(self.classes, scores["all"]["confusion"], strict=True)
        return [
            ["Confusion", *(f"as {kind}" for kind in self.classes)],
            *([f"true {kind}", *(f"{n:,}" for n in counts)] for kind, counts in rows),
        ]


@TASKS.register("classify")
class Classify(Classification):
    """Stars, galaxies and quasars."""

    label = "class"
    lacking = "no object of the train split has a class"
    groups = ("by_survey", "by_sn")  # each class has a table of its own

    @property
    def is_stored(self) -> bool:
        """The shards count as the task does."""
        return not self.only

    @classmethod
    def count(cls, train: TrainSplit) -> dict[str, int]:
        """All three, from the manifests; none of other classes than `only`."""
        parts = [manifest.class_counts("train") for manifest in train.manifests]
        counted = train.only or train.manifests[0].classes
        return {
            kind: sum(part.get(kind, 0) for part in parts) if kind in counted else 0
            for kind in train.manifests[0].classes
        }


@TASKS.register("subclass")
class Subclass(Classification):
    """The spectral types that the train split holds."""

    label = "subclass"
    lacking = f"no spectral type has {FEWEST} objects in the train split"

    @classmethod
    def read(cls, text: str) -> str | None:
        """See `spectral_type`."""
        return spectral_type(text)

    @classmethod
    def order(cls, kind: str) -> tuple[int, str]:
        """Hot stars first, what is no star's type after them."""
        return (TYPES.index(kind) if len(kind) == 1 and kind in TYPES else len(TYPES), kind)


def classification(label: str) -> type[Classification]:
    """A task that tells the texts of a column apart, those with at least `FEWEST` objects in the train split.

    TASKS.register("morphology")(classification("morphology"))
    """
    return type(f"Classification[{label}]", (Classification,), {"label": label, "__module__": __name__})


def _per_class(scores: Scores) -> Rows:
    names = ("count", "predicted", "recall", "precision", "f1")
    rows = [[kind, *(number(v[k]) for k in names)] for kind, v in scores["all"]["per_class"].items()]
    return [["Each class", "objects", "predicted", "recall", "precision", "F1"], *rows]


def _class_by_sn(scores: Scores) -> Rows:
    bins = list(scores["by_sn"])
    rows: Rows = [["Recall (objects) by S/N", *bins]]
    for kind, by_bin in scores["class_by_sn"].items():
        rows.append([kind, *(f"{number(by_bin[b]['recall'])} ({by_bin[b]['count']:,})" if b in by_bin else "-"
                             for b in bins)])  # fmt: skip
    return rows


def _plot_classes_by_sn(scores: Scores) -> Figure:
    bins, by_class = scores["by_sn"], scores["class_by_sn"]
    totals = {kind: sum(v["count"] for v in by_bin.values()) for kind, by_bin in by_class.items()}
    shown = sorted(totals, key=lambda kind: -totals[kind])[:_MOST_LINES]
    lines = [
        (kind, [by_class[kind].get(b, {}).get("recall") for b in bins],
         [by_class[kind].get(b, {}).get("count", 0) for b in bins])
        for kind in by_class if kind in shown
    ]  # fmt: skip
    counts = [values["count"] for values in bins.values()]
    return plots.curves(list(bins), counts, {"share: recall of each class": lines})

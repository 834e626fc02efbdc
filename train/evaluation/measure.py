"""What a model's answers on one split are worth: over all, by survey, class and S/N, beside the baselines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.common.sky import groups
from specshards.common.spectrum import CLASSES
from specshards.train.evaluation.score import Scored
from specshards.train.tasks import metrics
from specshards.train.tasks.classification import Classification
from specshards.train.tasks.constant import Baselines
from specshards.train.tasks.metrics import FloatArray, IntArray
from specshards.train.tasks.task import Task

Rows = npt.NDArray[Any]

#: Median S/N per pixel: the bins of `by_sn`, lower end included.
SN_BINS = {
    "below 2": (-np.inf, 2.0), "2 to 5": (2.0, 5.0), "5 to 10": (5.0, 10.0), "10 to 20": (10.0, 20.0),
    "20 and more": (20.0, np.inf),
}  # fmt: skip


def headline(task: Task) -> tuple[str, ...]:
    """The metrics of a task that get an interval."""
    if isinstance(task, Classification):
        return ("accuracy", "macro_f1")
    common = ("r2", "mae", "rmse")
    return (*common, "mean_abs_dz", "nmad", "outliers", "non_catastrophic") if task.name == "redshift" else common


def judge(
    task: Task, scored: Scored, baselines: Baselines, *, extra: Mapping[str, FloatArray] | None = None
) -> dict[str, Any]:
    """Everything that is measured of one task on one split; only objects with the label count.

    Args:
        extra: `point`, float `(N,)`, of further baselines on the same rows, by name; NaN where one has no answer.

    Returns:
        `objects`, `labelled`, `loss`; `all`: the task's metrics; `intervals`: 95% of the headline metrics, objects
        drawn anew and visits of one object together; the metrics again in `by_survey`, `by_class`, `by_sn` (groups
        without an object are absent) and `baselines`. A classification has `class_by_sn` (class -> bin -> count,
        recall) and `reliability`; a regression `residuals` (by true value; of dz for redshift) and, where it predicts
        distributions, `pit`. Undefined numbers are NaN.
    """
    known = np.isfinite(scored.labels[task.label])

    def measure(rows: Rows, columns: Mapping[str, FloatArray]) -> dict[str, Any]:
        return task.measure(
            {name: values[rows] for name, values in columns.items()},
            {name: values[rows] for name, values in scored.labels.items()},
        )

    def groups(members: Iterable[tuple[str, Rows]]) -> dict[str, Any]:
        counted = ((name, known & rows) for name, rows in members)
        return {name: measure(rows, scored.columns) for name, rows in counted if rows.any()}

    sn = scored.labels["sn_median"]
    others = {**baselines.predict(list(scored.surveys)), **(extra or {})}
    result: dict[str, Any] = {
        "objects": len(known),
        "labelled": int(known.sum()),
        "loss": scored.loss,
        "all": measure(known, scored.columns),
        "intervals": _intervals(task, scored, known),
        "by_survey": groups((s, scored.surveys == s) for s in sorted(set(scored.surveys))),
        "by_class": groups((name, scored.labels["class"] == i) for i, name in enumerate(CLASSES)),
        "by_sn": groups((name, (sn >= low) & (sn < high)) for name, (low, high) in SN_BINS.items()),
        "baselines": {name: measure(known & np.isfinite(v), {"point": v}) for name, v in others.items()},
    }
    details = _of_classes if isinstance(task, Classification) else _of_numbers
    return result | details(task, scored, known, result["by_sn"])


def _of_classes(task: Task, scored: Scored, known: Rows, by_sn: Mapping[str, Any]) -> dict[str, Any]:
    assert isinstance(task, Classification)
    found: dict[str, Any] = {"class_by_sn": {}}
    for kind in task.classes:
        bins = {name: values["per_class"][kind] for name, values in by_sn.items()}
        bins = {name: {"count": v["count"], "recall": v["recall"]} for name, v in bins.items() if v["count"]}
        if bins:
            found["class_by_sn"][kind] = bins
    if f"p_{task.classes[0]}" in scored.columns:
        probabilities = np.column_stack([scored.columns[f"p_{kind}"][known] for kind in task.classes])
        found["reliability"] = metrics.reliability(scored.labels[task.label][known].astype(int), probabilities)
    return found


def _of_numbers(task: Task, scored: Scored, known: Rows, by_sn: Mapping[str, Any]) -> dict[str, Any]:
    true = scored.labels[task.label][known]
    error = scored.columns["point"][known] - true
    if task.name == "redshift":
        error = error / (1 + true)
    found: dict[str, Any] = {"residuals": metrics.residual_boxes(true, error)}
    pit = scored.columns.get("pit", np.zeros(0))
    if np.isfinite(pit).any():
        found["pit"] = metrics.pit_histogram(pit[known])
    return found


def _intervals(task: Task, scored: Scored, known: Rows) -> dict[str, list[float]]:
    names, rows = headline(task), np.flatnonzero(known)
    needed = {task.label, "class"} & set(scored.labels)

    def measure(drawn: IntArray) -> dict[str, float]:
        chosen = rows[drawn]
        values = task.measure(
            {"point": scored.columns["point"][chosen]}, {name: scored.labels[name][chosen] for name in needed}
        )
        return {name: values[name] for name in names}

    return metrics.bootstrap(measure, len(rows), groups=_visits(scored, rows))


def _visits(scored: Scored, rows: IntArray) -> IntArray | None:
    """For every row the number of its object, int `(N,)`: rows close to each other, also in a chain.

    Rows without a position are objects of their own; None where no position is known at all.
    """
    if not {"ra", "dec"} <= set(scored.labels):
        return None
    position = np.stack([scored.labels[name][rows] for name in ("ra", "dec")], axis=1)
    known = np.isfinite(position).all(axis=1)
    if not known.any():
        return None
    # Places first: many rows at the very same one would have a pair for each two of them.
    places, place = np.unique(position[known], axis=0, return_inverse=True)
    visits = len(places) + np.arange(len(rows))
    visits[known] = groups(places[:, 0], places[:, 1])[place.reshape(-1)]
    return visits

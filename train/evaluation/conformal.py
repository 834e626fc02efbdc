"""Intervals and sets that hold the truth as often as they say, whatever the model: split conformal on validation.

They hold on average over objects like those of the validation split (Lei et al. 2018, for regression by the model's
own width; Angelopoulos & Bates 2023, section 1, for classes); nothing is promised of other surveys or another depth.
The best epoch was chosen on the same split, which makes them a little too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from specshards.train.evaluation.score import Scored
from specshards.train.tasks.classification import Classification
from specshards.train.tasks.metrics import FloatArray
from specshards.train.tasks.regression import Regression
from specshards.train.tasks.task import Task

#: Shares of the truths that the intervals are to hold; the first is quoted beside every prediction.
LEVELS = (0.68, 0.95)


def calibrate(tasks: Sequence[Task], scored: Mapping[str, Scored]) -> dict[str, dict[str, Any]]:
    """Thresholds of every task from its validation split, JSON-able.

    Returns:
        task -> `count` (objects it rests on), `kind`: what the score is, and `scores`: level -> threshold, None where
        there are too few objects for a level.
    """
    result = {}
    for task in tasks:
        mine = scored[task.name]
        known = np.isfinite(mine.labels[task.label])
        kind, scores = _scores(task, mine, known)
        levels = {str(level): _threshold(scores, level) for level in LEVELS}
        result[task.name] = {"count": int(known.sum()), "kind": kind, "scores": levels}
    return result


def intervals(
    task: Task, record: Mapping[str, Any] | None, columns: Mapping[str, FloatArray]
) -> dict[str, FloatArray | list[str]]:
    """Columns beside the predictions of a task, at each level that `record` has.

    Returns:
        Regressions: `<label>_lo68`, `_hi68`, and the like. Classifications: `<task>_set68`: the classes that
        belong to it, the likeliest first, with spaces between.
    """
    found: dict[str, FloatArray | list[str]] = {}
    for text, threshold in (record or {}).get("scores", {}).items():
        if threshold is None:
            continue
        percent = f"{100 * float(text):g}"
        if isinstance(task, Classification):
            found[f"{task.name}_set{percent}"] = _sets(task, columns, threshold)
        elif isinstance(task, Regression):
            centre, width = _axis(task, columns, (record or {})["kind"])
            for name, sign in (("lo", -1), ("hi", 1)):
                found[f"{task.label}_{name}{percent}"] = _physical(task, centre + sign * threshold * width)
    return found


def _scores(task: Task, scored: Scored, known: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[str, FloatArray]:
    columns = {name: values[known] for name, values in scored.columns.items()}
    truth = scored.labels[task.label][known]
    if isinstance(task, Classification):
        probabilities = np.column_stack([columns[f"p_{name}"] for name in task.classes])
        return "1 - p(true class)", 1 - probabilities[np.arange(len(truth)), truth.astype(int)]
    assert isinstance(task, Regression)
    has_width = bool(np.isfinite(columns[f"{task.label}_std"]).all()) and task.head != "mse"
    kind = "error / std" if has_width else "error"
    centre, width = _axis(task, columns, kind)
    return kind, np.abs(_to_axis(task, truth) - centre) / width


def _threshold(scores: FloatArray, level: float) -> float | None:
    """The ceil((n + 1) level)-th smallest score: with it, a new object is inside at least that often."""
    place = math.ceil((len(scores) + 1) * level)
    return float(np.sort(scores)[place - 1]) if 0 < place <= len(scores) else None


def _axis(task: Regression, columns: Mapping[str, FloatArray], kind: str) -> tuple[FloatArray, FloatArray]:
    """Centre and width where errors are alike: ln(1 + z) for redshift, the label itself for the others."""
    point = columns["point"]
    if kind == "error":
        return _to_axis(task, point), np.ones_like(point)
    std = columns[f"{task.label}_std"] / (1 + point if task.transform == "log1p" else 1)
    return _to_axis(task, point), np.maximum(std, 1e-9 * task.scale)


def _to_axis(task: Regression, values: FloatArray) -> FloatArray:
    return np.log1p(np.maximum(values, -0.99)) if task.transform == "log1p" else values


def _physical(task: Regression, values: FloatArray) -> FloatArray:
    return np.expm1(values) if task.transform == "log1p" else values


def _sets(task: Classification, columns: Mapping[str, FloatArray], threshold: float) -> list[str]:
    probabilities = np.column_stack([columns[f"p_{name}"] for name in task.classes])
    order = np.argsort(-probabilities, axis=1, kind="stable")
    inside = np.take_along_axis(1 - probabilities <= threshold, order, axis=1)
    # An empty set says nothing to a reader: the likeliest class is always in it, which only adds coverage.
    inside[:, 0] = True
    return [
        " ".join(task.classes[k] for k, kept in zip(row, mask, strict=True) if kept)
        for row, mask in zip(order, inside, strict=True)
    ]

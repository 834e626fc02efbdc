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

from specshards.train.evaluation.measure import Chosen
from specshards.train.evaluation.score import Scored
from specshards.train.evaluation.witnesses import drawn_of
from specshards.train.tasks.drawn import OBJECT
from specshards.train.tasks.metrics import FloatArray
from specshards.train.tasks.task import Task

#: Shares of the truths that the intervals are to hold; the first is quoted beside every prediction.
LEVELS = (0.68, 0.95)


def calibrate(tasks: Sequence[Task], scored: Mapping[str, Scored]) -> dict[str, dict[str, Any]]:
    """Thresholds of every task from its validation split, JSON-able.

    Returns:
        task -> `count` (objects it rests on), `kind`: what the score is, and `scores`: level -> threshold, None where
        there are too few objects for a level. Of a set that is split by groups also `by` and `groups`, what they are
        and how many of them: of objects of a group that was not seen, the levels hold as far as groups are many.
    """
    result = {}
    for task in tasks:
        split = scored[task.name]
        labelled = np.isfinite(split.labels[task.target])
        columns = Chosen(split.columns, labelled)
        kind, scores = task.nonconformity(columns, split.labels[task.target][labelled])
        levels = {str(level): _threshold(scores, level) for level in LEVELS}
        result[task.name] = {"count": int(labelled.sum()), "kind": kind, "scores": levels}
        if split.drawn_by != OBJECT:
            drawn = drawn_of(split.drawn_by, split.labels, labelled)
            result[task.name] |= {"by": drawn.by, "groups": drawn.count}
    return result


def intervals(
    task: Task, record: Mapping[str, Any] | None, columns: Mapping[str, FloatArray]
) -> dict[str, FloatArray | list[str]]:
    """Columns beside the predictions of a task, at each level that `record` has; see `Task.regions`."""
    result: dict[str, FloatArray | list[str]] = {}
    for level, threshold in (record or {}).get("scores", {}).items():
        if record is not None and threshold is not None:
            result |= task.regions(columns, threshold, record["kind"], f"{100 * float(level):g}")
    return result


def _threshold(scores: FloatArray, level: float) -> float | None:
    """The ceil((n + 1) level)-th smallest score: with it, a new object is inside at least that often."""
    place = math.ceil((len(scores) + 1) * level)
    return float(np.sort(scores)[place - 1]) if 0 < place <= len(scores) else None

"""What a model's predictions on one split are worth: over all, by survey, class and S/N, beside the baselines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.common.spectrum import CLASSES
from specshards.train.evaluation.score import Scored
from specshards.train.evaluation.witnesses import drawn_of, witnesses
from specshards.train.tasks.constant import Baselines
from specshards.train.tasks.drawn import FEWEST, Drawn
from specshards.train.tasks.metrics import FloatArray, IntArray, bootstrap
from specshards.train.tasks.task import Task

Rows = npt.NDArray[Any]

#: Median S/N per pixel: the bins of `by_sn`, lower end included.
SN_BINS = {
    "below 2": (-np.inf, 2.0), "2 to 5": (2.0, 5.0), "5 to 10": (5.0, 10.0), "10 to 20": (10.0, 20.0),
    "20 and more": (20.0, np.inf),
}  # fmt: skip


def measure(
    task: Task, scored: Scored, baselines: Baselines, *, extra: Mapping[str, FloatArray] | None = None,
    left_out: Mapping[str, int] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Everything that is measured of one task on one split; only objects with the label count.

    Args:
        left_out: of `Task.left_out`; in the result where there is any.
        extra: `point`, float `(N,)`, of further baselines on the same rows, by name; NaN where one has no prediction.

    Returns:
        `objects`, `labelled`, `loss`; `all`: the task's metrics; `intervals`: 95% of the headline metrics, objects
        drawn anew, visits of one object and what a group of the split holds together; `drawn`: by what, and how many
        (no interval with fewer than `FEWEST`); the metrics again in `by_survey`, `by_class`, `by_sn` (groups
        without an object are absent) and `baselines`; of a model of several pictures in `by_picture`, each answering
        alone, over the same objects; and the task's details. Undefined numbers are NaN.
    """
    labelled = np.isfinite(scored.labels[task.target])

    def metrics_of(rows: Rows, columns: Mapping[str, FloatArray]) -> dict[str, Any]:
        return task.measure(Chosen(columns, rows), Chosen(scored.labels, rows))

    def groups(members: Iterable[tuple[str, Rows]]) -> dict[str, Any]:
        counted = ((name, labelled & rows) for name, rows in members)
        return {name: metrics_of(rows, scored.columns) for name, rows in counted if rows.any()}

    sn = scored.labels["sn_median"]
    others = {**baselines.predict(list(scored.surveys)), **(extra or {})}
    by_sn = groups((name, (sn >= low) & (sn < high)) for name, (low, high) in SN_BINS.items())
    drawn = drawn_of(scored.drawn_by, scored.labels, labelled)
    alone = {name: metrics_of(labelled, columns) for name, columns in scored.pictures.items()}
    return {
        "objects": len(labelled),
        "labelled": int(labelled.sum()),
        **({"left_out": dict(left_out)} if left_out else {}),
        "loss": scored.loss,
        "all": metrics_of(labelled, scored.columns),
        "intervals": _intervals(task, scored, labelled, drawn),
        "drawn": drawn.to_dict(),
        "by_survey": groups((s, scored.surveys == s) for s in sorted(set(scored.surveys))),
        "by_class": groups((name, scored.labels["class"] == i) for i, name in enumerate(CLASSES)),
        "by_sn": by_sn,
        **({"by_picture": alone} if alone else {}),
        "baselines": {name: metrics_of(labelled & np.isfinite(v), {"point": v}) for name, v in others.items()},
        **task.details(Chosen(scored.columns, labelled), Chosen(scored.labels, labelled), by_sn),
    }


def over_pictures(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Scores with `all` as the mean, metric by metric, over pictures that answer alone; themselves for one picture.

    Of an accuracy, a mean error or R2 that is the number over all pairs of an object and a picture.
    """
    alone = list(scores.get("by_picture", {}).values())
    if not alone:
        return dict(scores)
    numbers = [name for name, value in alone[0].items() if isinstance(value, int | float)]
    return {**scores, "all": {name: float(np.mean([values[name] for values in alone])) for name in numbers}}


class Chosen(Mapping[str, FloatArray]):
    """Some rows of columns; of a million objects those alone are copied that are asked for."""

    def __init__(self, columns: Mapping[str, FloatArray], rows: Rows) -> None:
        """Rows by a mask or by places."""
        self._columns, self._which = columns, rows

    def __getitem__(self, name: str) -> FloatArray:
        """The rows of one column."""
        return self._columns[name][self._which]

    def __iter__(self) -> Iterator[str]:
        """Names."""
        return iter(self._columns)

    def __len__(self) -> int:
        """Columns."""
        return len(self._columns)


def _intervals(task: Task, scored: Scored, labelled: Rows, drawn: Drawn) -> dict[str, list[float]]:
    rows = np.flatnonzero(labelled)
    point = {"point": scored.columns["point"]}
    needed = {name: scored.labels[name] for name in (task.target, "class") if name in scored.labels}

    def headline(drawn: IntArray) -> dict[str, float]:
        values = task.measure(Chosen(point, rows[drawn]), Chosen(needed, rows[drawn]))
        return {name: values[name] for name in task.headline}

    if drawn.count < FEWEST:
        return {name: [float("nan")] * 2 for name in task.headline}
    found = witnesses(scored.labels)
    return bootstrap(headline, len(rows), groups=None if found is None else found[rows])

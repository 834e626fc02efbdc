"""One number of a table: over how many objects, how sure, and what can be had without looking at a spectrum."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from specshards.common.json import finite
from specshards.train.paper.answers import Block
from specshards.train.tasks.metrics import FloatArray, IntArray, bootstrap

#: Fewer objects are called few.
FEW = 100

#: Answers of N > 0 objects to a number.
Metric = Callable[[Block], float]


@dataclass(frozen=True)
class Cell:
    """A number with its witnesses.

    Attributes:
        value: None where nothing can be said; `notes` then say why.
        count: objects that it rests on, None for a number of somebody else's.
        interval: 95%, objects drawn anew, visits of one object together; None where it is undefined.
        constant: what the best constant prediction gets on the same objects; None where none is asked.
        of_survey: the same of the best constant of each survey alone, where the data set is of several: a model that
            is no better only tells surveys apart.
        better: whether the model is better than those constants by more than chance: the 95% intervals of the
            differences lie above 0.
        notes: what is not comparable, a line each.
    """

    value: float | None = None
    count: int | None = None
    interval: tuple[float, float] | None = None
    constant: float | None = None
    of_survey: float | None = None
    better: bool | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        content: dict[str, Any] = finite({**vars(self), "notes": list(self.notes)})
        return content

    def noted(self, *notes: str) -> Cell:
        """With further lines."""
        return replace(self, notes=(*self.notes, *notes))


def missing(why: str) -> Cell:
    """A cell that has no number."""
    return Cell(notes=(why,))


def measured(
    metric: Metric, block: Block, *, more: bool, constant: float | None = None, of_survey: FloatArray | None = None
) -> Cell:
    """A metric with its interval, beside that of constant answers.

    Args:
        more: whether more is better.
        constant: the answer, learnt on the train split; NaN or None for none.
        of_survey: the answer of each object's own survey, float64 `(N,)`; None for none.
    """
    n = len(block)
    notes = (f"fewer than {FEW} objects",) if n < FEW else ()
    if not n:
        return Cell(None, 0, notes=("no such object in the test split",))
    known = constant is not None and math.isfinite(constant)
    answers = {"constant": constant, "of_survey": of_survey} if known else {}
    flat = {name: block.with_answer(answer) for name, answer in answers.items() if answer is not None}
    sign = 1 if more else -1

    def all_of(rows: IntArray) -> dict[str, float]:
        drawn = block.rows(rows)
        value = metric(drawn)
        beside = {
            name: metric(replace(drawn, answer=each.answer[rows], crps=each.crps[rows]))
            for name, each in flat.items()
        }
        return {"value": value, **{name: sign * (value - other) for name, other in beside.items()}}

    value, found = metric(block), {name: metric(each) for name, each in flat.items()}
    intervals = bootstrap(all_of, n, groups=block.objects)
    low, high = intervals["value"]
    # Where every draw gives the same there is no interval, and the numbers themselves decide.
    wins = [
        gain > 0 if math.isfinite(gain := intervals[name][0]) else sign * (value - other) > 0
        for name, other in found.items()
        if math.isfinite(other)
    ]
    beside = {name: other for name, other in found.items() if math.isfinite(other)}
    return Cell(
        value if math.isfinite(value) else None, n, (low, high) if math.isfinite(low) else None,
        better=all(wins) if wins else None, notes=notes, **beside,
    )  # fmt: skip

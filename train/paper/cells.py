"""One number of a table: over how many objects, how sure, and what can be had without looking at a spectrum."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from specshards.common.json import finite
from specshards.train.paper.answers import Block
from specshards.train.tasks.metrics import IntArray, bootstrap

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
        better: whether the model is better than that constant by more than chance: the 95% interval of the
            difference lies above 0.
        notes: what is not comparable, a line each.
    """

    value: float | None = None
    count: int | None = None
    interval: tuple[float, float] | None = None
    constant: float | None = None
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


def measured(metric: Metric, block: Block, *, more: bool, constant: float | None = None) -> Cell:
    """A metric with its interval, beside that of a constant answer.

    Args:
        more: whether more is better.
        constant: the answer, learnt on the train split; NaN or None for none.
    """
    n = len(block)
    notes = (f"fewer than {FEW} objects",) if n < FEW else ()
    if not n:
        return Cell(None, 0, notes=("no such object in the test split",))
    flat = block.with_answer(constant) if constant is not None and math.isfinite(constant) else None
    sign = 1 if more else -1

    def both(rows: IntArray) -> dict[str, float]:
        drawn = block.rows(rows)
        value = metric(drawn)
        if flat is None:
            return {"value": value}
        beside = metric(replace(drawn, answer=flat.answer[rows], crps=flat.crps[rows]))
        return {"value": value, "gain": sign * (value - beside)}

    value, of_constant = metric(block), math.nan if flat is None else metric(flat)
    intervals = bootstrap(both, n, groups=block.objects)
    low, high = intervals["value"]
    better = None
    if math.isfinite(of_constant):
        # Where every draw gives the same there is no interval, and the numbers themselves decide.
        gain = intervals["gain"][0]
        better = gain > 0 if math.isfinite(gain) else sign * (value - of_constant) > 0
    return Cell(
        value if math.isfinite(value) else None, n, (low, high) if math.isfinite(low) else None,
        of_constant if math.isfinite(of_constant) else None, better, notes,
    )  # fmt: skip

"""What intervals draw anew, in numbers and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from specshards.common.text import count, printable

OBJECT = "object"
#: Of fewer, no interval is given: what is drawn anew is nearly always the same.
FEWEST = 5
#: Of fewer groups, the threshold of 95% would not hold for one more of them: ceil((n + 1) 0.95) > n.
FEWEST_TO_CALIBRATE = 19


@dataclass(frozen=True)
class Drawn:
    """What intervals draw anew: `by` is `object`, or the column that the split kept together; `count` of them."""

    by: str
    count: int

    def to_dict(self) -> dict[str, Any]:
        """As `metrics.json` has it."""
        return vars(self).copy()


def said(scores: Mapping[str, Any]) -> str:
    """What the intervals of a split drew, where that is no single object, or too few; empty else.

    Args:
        scores: of `train.evaluation.measure`; those of earlier versions do not say it.
    """
    drawn = scores.get("drawn") or {"by": OBJECT, "count": 0}
    by, n = printable(str(drawn["by"])), int(drawn["count"])
    if 0 < n < FEWEST:
        return f"no intervals: they would be drawn by {by}, and {n} of them {'is' if n == 1 else 'are'} too few"
    return "" if by == OBJECT or not n else f"95% intervals are drawn by {by}, {n:,} of them"


def few_to_calibrate(record: Mapping[str, Any]) -> str:
    """Where conformal intervals rest on few groups, that they do; empty else.

    Args:
        record: of a task in `Card.conformal`.
    """
    n = record.get("groups")
    if n is None or n >= FEWEST_TO_CALIBRATE:
        return ""
    by = printable(record["by"])
    return (
        f"its intervals are calibrated on {count(n, 'value', 'values')} of {by}, fewer than {FEWEST_TO_CALIBRATE}: "
        f"for another {by} they may hold the truth less often than they say"
    )

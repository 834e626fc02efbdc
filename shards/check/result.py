"""What a check of a data set says, and how what is wrong is mended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from specshards.shards.format.archive import RERUN as RERUN

REMAKE = "remove this file and run the same `make shards` again"
ANEW = "make the shards again in a new folder (another OUT)"


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        detail: one line; of a failed check, the file and the mend.
        note: nothing is wrong, but the detail is worth reading.
    """

    name: str
    passed: bool
    detail: str
    note: bool = False


def first(faults: Sequence[str], what: str, mend: str = "") -> str:
    """The first of some faults, how many more `what` (files, shards) have one, and the mend, in one line."""
    more = f" (and {len(faults) - 1:,} more {what})" if len(faults) > 1 else ""
    return faults[0] + more + (f"; {mend}" if mend else "")

"""Records of two computations that are one in exact arithmetic.

A matrix product rounds by its shape and by the processor: another batch size, padding or number of ranks changes the
last bits of what a network says, and no test may ask for them. Whole numbers, words and what is missing are exact.
"""

from __future__ import annotations

import math
from typing import Any


def assert_equal_but_for_rounding(ours: Any, theirs: Any, *, rel: float = 1e-4, abs: float = 1e-6) -> None:
    """Lists and dictionaries, to any depth: floats to a tolerance, all else exactly; a failure says where."""
    _compare(ours, theirs, rel, abs, "")


def _compare(ours: Any, theirs: Any, rel: float, atol: float, at: str) -> None:
    assert type(ours) is type(theirs), (at, ours, theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), (at, list(ours), list(theirs))
        for name in ours:
            _compare(ours[name], theirs[name], rel, atol, f"{at}.{name}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), (at, len(ours), len(theirs))
        for i, pair in enumerate(zip(ours, theirs, strict=True)):
            _compare(*pair, rel, atol, f"{at}[{i}]")
    elif isinstance(ours, float) and not math.isnan(theirs):
        assert math.isclose(ours, theirs, rel_tol=rel, abs_tol=atol), (at, ours, theirs)
    else:
        assert ours == theirs or (ours != ours and theirs != theirs), (at, ours, theirs)

"""JSON has no NaN and no infinity."""

from __future__ import annotations

import math
from typing import Any


def finite(content: Any) -> Any:
    """`content` with NaN and infinities as None, so that it is JSON."""
    if isinstance(content, dict):
        return {name: finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content

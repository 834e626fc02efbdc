"""The learning rate over a run."""

from __future__ import annotations

import math

from specshards.train.config import LoopConfig

_LAST = 0.01  # of the peak, at the end of a cosine


def share_of_peak(config: LoopConfig, steps: int, step: int) -> float:
    """What share of the peak learning rate step `step` of `steps`, from 0, has.

    A linear warm-up, then constant, linear to 0 (transformers' `get_linear_schedule_with_warmup`), or a cosine to 1%.
    """
    warmup = max(1, round(config.warmup * steps)) if config.warmup else 0
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "constant":
        return 1.0
    share = (step - warmup) / max(1, steps - warmup)
    if config.schedule == "linear":
        return 1.0 - share
    return _LAST + (1 - _LAST) * 0.5 * (1 + math.cos(math.pi * share))

"""Several pictures of one object, one answer: each is read alone, and what a network says of them is averaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def by_picture(answer: Callable[[Any], Tensor], given: Any) -> Tensor:
    """What a network says of each picture of B objects: `(B, pictures, ...)`.

    Args:
        answer: from what a model reads to a tensor `(B, ...)`.
        given: as `train.models.layers.model_input` gives it; only uint8 `(B, pictures, 3, S, S)` are several.
    """
    if isinstance(given, Tensor) and given.ndim == 5:
        return torch.stack([answer(given[:, i]) for i in range(given.shape[1])], dim=1)
    return answer(given)[:, None]


def over_pictures(answer: Callable[[Any], Tensor], given: Any) -> Tensor:
    """The mean of `by_picture` over the pictures: `(B, ...)`, in float32 where there are several."""
    if isinstance(given, Tensor) and given.ndim == 5:
        return by_picture(answer, given).float().mean(dim=1)
    return answer(given)

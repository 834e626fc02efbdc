"""From a label to the axis that it is learnt on, and back: of numbers, arrays and tensors alike."""

from __future__ import annotations

import math
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from specshards.train.tasks.metrics import FloatArray

T = TypeVar("T", float, FloatArray, Tensor)
#: An impossible value of `log1p` (-1 and below) counts as this one.
_LEAST = -0.99


class Transform(Protocol):
    """A monotonous function t of a label, by the name under which it stands in a task's record."""

    @property
    def name(self) -> str: ...  # noqa: D102

    def forward(self, label: T) -> T:
        """t(label)."""
        ...

    def inverse(self, value: T) -> T:
        """The label."""
        ...

    def slope(self, label: T) -> T | float:
        """What the label changes by where t changes by 1."""
        ...

    def formula(self, label: str) -> str:
        """t(label) in words."""
        ...


class Identity:
    """The label itself."""

    name = "identity"

    def forward(self, label: T) -> T:
        """The label."""
        return label

    def inverse(self, value: T) -> T:
        """The label."""
        return value

    def slope(self, label: T) -> T | float:
        """1."""
        return 1.0

    def formula(self, label: str) -> str:
        """Its name."""
        return label


class Log1p:
    """ln(1 + label): an error on it is one of (predicted - true)/(1 + true)."""

    name = "log1p"

    def forward(self, label: T) -> T:
        """ln(1 + label)."""
        if isinstance(label, Tensor):
            return torch.log1p(label.clamp_min(_LEAST))
        if isinstance(label, float):
            return math.log1p(max(label, _LEAST))
        return np.log1p(np.maximum(label, _LEAST))

    def inverse(self, value: T) -> T:
        """exp(value) - 1."""
        if isinstance(value, Tensor):
            return torch.expm1(value)
        return math.expm1(value) if isinstance(value, float) else np.expm1(value)

    def slope(self, label: T) -> T | float:
        """1 + label."""
        return 1 + label

    def formula(self, label: str) -> str:
        """As text."""
        return f"ln(1 + {label})"


TRANSFORMS: dict[str, Transform] = {transform.name: transform for transform in (Identity(), Log1p())}

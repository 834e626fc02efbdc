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
#: What has no logarithm counts as this one; float32 holds it.
_SMALLEST = 1e-37


class Transform(Protocol):
    """A monotonous function t of a label, by the name under which it stands in a task's record."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def least(self) -> float: ...  # noqa: D102  # t is of labels above it

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
    least = -math.inf

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
    least = -1.0

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


class Logarithm:
    """The logarithm of a label above 0: an error on it is a relative one."""

    least = 0.0

    def __init__(self, name: str, base: float) -> None:
        """Under its name, `ln` or `log10`."""
        self.name, self._unit = name, math.log(base)
        self._most = 700 / self._unit  # beyond it, a float64 overflows

    def forward(self, label: T) -> T:
        """log(label)."""
        if isinstance(label, Tensor):
            return label.clamp_min(_SMALLEST).log() / self._unit
        if isinstance(label, float):
            return math.log(max(label, _SMALLEST)) / self._unit
        return np.log(np.maximum(label, _SMALLEST)) / self._unit

    def inverse(self, value: T) -> T:
        """base^value."""
        if isinstance(value, Tensor):
            return (value.clamp(-self._most, self._most) * self._unit).exp()
        if isinstance(value, float):
            return math.exp(min(max(value, -self._most), self._most) * self._unit)
        return np.exp(np.clip(value, -self._most, self._most) * self._unit)

    def slope(self, label: T) -> T | float:
        """label ln(base)."""
        return label * self._unit

    def formula(self, label: str) -> str:
        """As text."""
        return f"{self.name}({label})"


TRANSFORMS: dict[str, Transform] = {
    transform.name: transform for transform in (Identity(), Log1p(), Logarithm("ln", math.e), Logarithm("log10", 10))
}

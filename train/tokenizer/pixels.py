"""From the pixels that a survey gives to numbers that a network can read, and to patches of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_MAD_TO_STD = 1.4826


class Pixels(NamedTuple):
    """B spectra of N pixels without a unit.

    Attributes:
        flux: over `scale`, float32 `(B, N)`; 0 where bad.
        error: one standard deviation, over `scale`, float32 `(B, N)`; 0 where bad or where the survey gives none.
        good: bool `(B, N)`.
        scale: of each spectrum, in its own unit of flux, float32 `(B, 1)`.
    """

    flux: Tensor
    error: Tensor
    good: Tensor
    scale: Tensor


def scaled(flux: Tensor, ivar: Tensor, scale: Tensor | None = None) -> Pixels:
    """Divide each spectrum by its median.

    Where noise or lines are larger than the median (faint galaxies and quasars), their width, as 1.4826 times the
    median absolute deviation, takes its place: a median near zero, or below it, is no scale. A spectrum whose good
    pixels all have ivar 1 is one whose survey gives no errors (`shards.batch.Stack`).

    Args:
        flux, ivar: float32 `(B, N)`; ivar 0 = bad.
        scale: float32 `(B, 1)`, to use instead.
    """
    good = ivar > 0
    if scale is None:
        scale = _scale(flux, good)
    says_nothing = (ivar == 1).eq(good).all(dim=1, keepdim=True)
    error = torch.where(good & ~says_nothing, torch.where(good, ivar, 1).rsqrt(), 0) / scale
    return Pixels(torch.where(good, flux, 0) / scale, error, good, scale)


def _scale(flux: Tensor, good: Tensor) -> Tensor:
    known = torch.where(good, flux, torch.nan)
    middle = known.nanmedian(dim=1, keepdim=True).values
    width = _MAD_TO_STD * (known - middle).abs().nanmedian(dim=1, keepdim=True).values
    scale = torch.maximum(middle, width).nan_to_num()
    return torch.where(scale > 0, scale, 1)


def patches(values: Tensor, size: int) -> Tensor:
    """`(B, N)` to `(B, T, size)`, filled up with zeros."""
    return F.pad(values, (0, -values.shape[1] % size)).unflatten(1, (-1, size))


def usable(good: Tensor) -> Tensor:
    """Which patches say enough: at least half of their pixels are good. bool `(B, T, P)` to `(B, T)`.

    What is missing behind the end of a spectrum counts as bad.
    """
    return 2 * good.sum(dim=2) >= good.shape[2]

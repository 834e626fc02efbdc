"""From the pixels that a survey gives to what a network can read, and from what it draws to how wrong that is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from specshards.train.models.layers import patches, spectra_of

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
    pixels all have ivar 1 is one whose survey gives no errors (`shards.loader.batch.Stack`).

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


def usable(good: Tensor) -> Tensor:
    """Which patches say enough: at least half of their pixels are good. bool `(B, T, P)` to `(B, T)`.

    What is missing behind the end of a spectrum counts as bad.
    """
    return 2 * good.sum(dim=2) >= good.shape[2]


def chi2(drawn: Tensor, pixels: Pixels, floor: float = 0.0, huber: float | None = None) -> Tensor:
    """Squared residual of every pixel in units of its variance, float32 `(B, N)`; 0 where bad.

    Where a survey gives no errors, the variance is 1, in units of the spectrum's scale.

    Args:
        drawn: flux over its scale `(B, N)`.
        floor, huber: see `train.config.PretrainConfig`.
    """
    variance = torch.where(pixels.error > 0, pixels.error.square() + floor**2, 1)
    residual = (drawn - pixels.flux) * variance.rsqrt()
    squared = residual.square()
    if huber is not None:
        squared = torch.where(residual.abs() <= huber, squared, 2 * huber * residual.abs() - huber**2)
    return torch.where(pixels.good, squared, 0)


def seen_as(batch: Mapping[str, Any], given: Mapping[str, Any]) -> Pixels:
    """All pixels of a batch, in the scale of what a model was `given` of it."""
    return scaled(batch["flux"], batch["ivar"], scaled(given["flux"], given["ivar"]).scale)


def per_object(values: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each row's counted pixels, float32 `(B,)`, and whether it has any, bool `(B,)`."""
    count = counted.sum(dim=1)
    return (values * counted).sum(dim=1) / count.clamp_min(1), count > 0


def regridded(pixels: Pixels, wavelength: Tensor, first: int, factor: int) -> tuple[Pixels, Tensor]:
    """The same spectra on other pixels: from pixel `first` on, each the mean of `factor` neighbours by their ivar.

    Args:
        pixels: of `(B, N)`. wavelength: float32 `(B, N)`, 0 = padding.

    Returns:
        Pixels of `(B, M)`, M = (N - first) // factor, good where all of their parts are; wavelengths `(B, M)`.
    """
    m = (wavelength.shape[1] - first) // factor

    def groups(values: Tensor) -> Tensor:
        return values[:, first : first + m * factor].unflatten(1, (m, factor))

    good, error, where = groups(pixels.good).all(dim=2), groups(pixels.error), groups(wavelength)
    weight = torch.where(error > 0, error.clamp_min(1e-20).reciprocal().square(), 1)
    flux = (groups(pixels.flux) * weight).sum(dim=2) / weight.sum(dim=2)
    known = good & (error > 0).all(dim=2)
    error = torch.where(known, weight.sum(dim=2).rsqrt(), 0)
    centre = torch.where((where > 0).all(dim=2), where.mean(dim=2), 0)
    return Pixels(torch.where(good, flux, 0), error, good, pixels.scale), centre


def hide(batch: Mapping[str, Any], patch: int, share: float, generator: torch.Generator | None = None) -> Tensor:
    """A random share of the patches that could be used, as pixels: bool `(B, N)`. Drawn on the CPU.

    A spectrum of which nothing would be left is not hidden at all.
    """
    good = batch["ivar"] > 0
    could = usable(patches(good, patch))
    hidden = could & (torch.rand(could.shape, generator=generator) < share).to(could.device)
    hidden &= (could & ~hidden).any(dim=1, keepdim=True)
    return hidden.repeat_interleave(patch, dim=1)[:, : good.shape[1]] & good


def without(batch: Mapping[str, Any], hidden: Tensor) -> dict[str, Any]:
    """What a model is given of a batch whose `hidden` pixels, bool `(B, N)`, it must not know: they are bad.

    So not even the scale of the spectrum knows them.
    """
    return {**spectra_of(batch), "ivar": torch.where(hidden, 0, batch["ivar"])}

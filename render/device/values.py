"""Batches of spectra as tensors: window, gaps, grids, derivatives and percentiles, as the kernels have them.

See `render.device.draw` for what it takes to give the same bits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from specshards.render.percentile import LARGEST


class Values(NamedTuple):
    """B rows of L pixels, or of L values on a grid.

    Attributes:
        flux: float32 `(B, L)`; anything where bad.
        ivar: float32 `(B, L)`; only where good.
        wavelength: float64 `(B, L)` or `(1, L)`, Angstrom.
        good: bool `(B, L)`; False outside `first` to `end`.
        first, end: int64 `(B, 1)`: the part of each row that counts; none of a row that is not drawn.
        share: float32 `(B, L)`, of each value's width that good pixels cover; None on the pixels' own grid.
    """

    flux: Tensor
    ivar: Tensor
    wavelength: Tensor
    good: Tensor
    first: Tensor
    end: Tensor
    share: Tensor | None = None


def like(tensor: Tensor, value: float) -> Tensor:
    """A number as a tensor of one element, of another's type and device."""
    return tensor.new_full((1,), value)


def square_root(tensor: Tensor) -> Tensor:
    """The float32 next to the root of a float32.

    On a CPU torch's own root is off by a bit now and then, in either precision. A bit of float64 does no harm: the
    root of a float32 never comes that near to the middle between two others.
    """
    return torch.sqrt(tensor.double()).float()


def select(
    flux: Tensor, ivar: Tensor, wavelength: Tensor, mask: Tensor, has_ivar: Tensor, low: float, high: float
) -> tuple[Values, Tensor]:
    """What lies from `low` to `high` Angstrom, and which rows can be drawn: `render.prepare.select`."""
    flux, ivar, wavelength = flux.float(), ivar.float(), wavelength.double()
    real = wavelength > 0
    rising = ~real[:, 1:] | (real[:, :-1] & (wavelength[:, 1:] > wavelength[:, :-1]))
    inside = real & (wavelength >= low) & (wavelength <= high)
    first = (real & (wavelength < low)).sum(1, keepdim=True)
    weights = torch.where(has_ivar[:, None], ivar, 1)
    good = inside & ~mask & flux.isfinite() & (weights > 0) & weights.isfinite()
    drawn = (rising.all(1) & wavelength.isfinite().all(1) & (good.sum(1) >= 2))[:, None]
    first, end = torch.where(drawn, first, 0), torch.where(drawn, first + inside.sum(1, keepdim=True), 0)
    return Values(flux, weights, wavelength, good & drawn, first, end), drawn[:, 0]


def percentiles(flux: Tensor, good: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Two percentiles of each row's good values, float64 `(B, 1)`: `render.percentile.percentiles`."""
    ordered = torch.where(good, flux, math.inf).sort(1).values
    last = good.sum(1, keepdim=True) - 1
    found = []
    for percent in (low, high):
        virtual = last.double() * (percent / 100)
        rank = torch.minimum(virtual.long(), last)
        share = virtual - rank
        before = ordered.gather(1, rank.clamp(min=0)).double()
        after = ordered.gather(1, torch.minimum(rank + 1, last).clamp(min=0)).double()
        step = after - before
        found.append(torch.where(share >= 0.5, after - step * (1 - share), before + step * share))
    return found[0], found[1]


def fill_gaps(flux: Tensor, good: Tensor) -> Tensor:
    """Flux with its bad pixels replaced: `render.prepare.fill_gaps`; rows without a good pixel hold anything."""
    count = flux.shape[1]
    at = torch.arange(count, device=flux.device)
    before = torch.where(good, at, -1).cummax(1).values
    after = torch.where(good, at, count).flip(1).cummin(1).values.flip(1)
    left, right = flux.gather(1, before.clamp(min=0)), flux.gather(1, after.clamp(max=count - 1))
    slope = (right.double() - left.double()) / (after - before)
    between = (slope * (at - before) + left).float()
    filled = torch.where(before < 0, right, torch.where(after == count, left, between))
    return torch.where(good, flux, filled)


def gradient(values: Values, flux: Tensor) -> Tensor:
    """Derivative of `flux` per Angstrom, float32 `(B, L)`: `render.features.gradient`."""
    step = values.wavelength.diff()
    left, right = step[:, :-1], step[:, 1:]
    before, here, after = flux[:, :-2], flux[:, 1:-1], flux[:, 2:]
    inner = -right / (left * (left + right)) * before + (right - left) / (left * right) * here
    inner = inner + left / (right * (left + right)) * after
    level = (before == here) & (here == after)
    inner = torch.where(level, 0, inner.clamp(-LARGEST, LARGEST).float())
    ends = (flux.double().diff() / step).clamp(-LARGEST, LARGEST).float()
    at = torch.arange(flux.shape[1], device=flux.device)
    found = torch.where(at == values.first, pad(ends, (0, 1)), pad(inner, (1, 1)))
    return torch.where(at == values.end - 1, pad(ends, (1, 0)), found)


def to_bins(pixels: Values, edges: Tensor, centres: Tensor) -> Values:
    """Mean flux of the good pixels in each bin: `render.resample.to_bins`, bin by bin and in pixel order."""
    flux, ivar, wavelength, good, first, end, _ = pixels
    count, bins = flux.shape[1], len(edges) - 1
    low, high = edges[:-1], edges[1:]
    # Border k is where pixel k begins and pixel k - 1 ends.
    at = torch.arange(count + 1, device=flux.device)
    border = pad(wavelength[:, :-1] * 0.5 + wavelength[:, 1:] * 0.5, (1, 1))
    for place, outer, inner in ((first, first, first + 1), (end, end - 1, end - 2)):
        here, beside = (wavelength.gather(1, k.clamp(0, count - 1)) for k in (outer, inner))
        border = torch.where(at == place, here * 1.5 - beside * 0.5, border)
    rights = torch.where(at <= first, -math.inf, torch.where(at > end, math.inf, border))
    last = (end - 1).clamp(min=0)
    # The pixels that each bin touches, `start` to `stop`.
    start = torch.searchsorted(rights, low.repeat(len(flux), 1), right=True) - 1
    stop = torch.searchsorted(rights, high.repeat(len(flux), 1)) - 1
    start, stop = torch.minimum(start, last).clamp(min=0), torch.minimum(stop, last).clamp(min=0)
    covered, total, variance = (torch.zeros_like(start, dtype=torch.float64) for _ in range(3))
    for k in range(int((stop - start).amax()) + 1):
        pixel = torch.minimum(start + k, stop)
        width = torch.minimum(border.gather(1, pixel + 1), high) - torch.maximum(border.gather(1, pixel), low)
        used = (start + k <= stop) & (width > 0) & good.gather(1, pixel)
        covered += torch.where(used, width, 0)
        total += torch.where(used, width * flux.gather(1, pixel), 0)
        variance += torch.where(used, width * width / ivar.gather(1, pixel), 0)
    share = covered / (high - low)
    found = (border.gather(1, start) < high) & (border.gather(1, start + 1) > low)
    return Values(
        torch.where(covered > 0, total / covered, 0).float(),
        torch.where(covered > 0, (covered * covered / variance).clamp(max=LARGEST), 0).float(),
        centres[None], share > 0.5, *_reach(found, bins), share.float(),
    )  # fmt: skip


def to_centres(pixels: Values, centres: Tensor) -> Values:
    """Flux at each bin's centre: `render.resample.to_centres`."""
    at = torch.searchsorted(_ordered(pixels), centres.repeat(len(pixels.flux), 1)) - 1
    at = torch.minimum(torch.maximum(at, pixels.first), pixels.end - 2).clamp(min=0)
    (before, after), (left, right), (start, stop), (good, next_good) = (
        (values.gather(1, at), values.gather(1, at + 1))
        for values in (pixels.flux.double(), pixels.ivar.double(), pixels.wavelength, pixels.good)
    )
    inside = (start <= centres) & (centres <= stop)
    known = inside & good & next_good
    t = (centres - start) / (stop - start)
    rest = 1 - t
    weight = (left * right / (rest * rest * right + t * t * left)).clamp(max=LARGEST)
    return Values(
        torch.where(known, before + t * (after - before), 0).float(), torch.where(known, weight, 0).float(),
        centres[None], known, *_reach(inside, len(centres)), known.float(),
    )  # fmt: skip


def stretch(pixels: Values, cells: int) -> Values:
    """Values at `cells` even steps from the first to the last pixel: the `STRETCH` of `render.grid.on_grid`."""
    flux, wavelength, known = fill_gaps(pixels.flux, pixels.good), pixels.wavelength, _ordered(pixels)
    first, last = pixels.first.clamp(max=flux.shape[1] - 1), (pixels.end - 1).clamp(min=0)
    begin, stop = wavelength.gather(1, first), wavelength.gather(1, last)
    where = torch.arange(cells, device=flux.device) * ((stop - begin) / like(begin, cells - 1)) + begin
    x = torch.cat([where[:, :-1], stop], 1)
    at = torch.minimum(torch.maximum(torch.searchsorted(known, x, right=True) - 1, first), last)
    following = torch.minimum(at + 1, last)
    before, after = flux.gather(1, at).double(), flux.gather(1, following).double()
    start = wavelength.gather(1, at)
    inner = (after - before) / (wavelength.gather(1, following) - start) * (x - start) + before
    at_last = at == last
    nearest = torch.minimum(torch.searchsorted(known, where), last)
    earlier = (nearest - 1).clamp(min=0)
    closer = (where - wavelength.gather(1, earlier) < wavelength.gather(1, nearest) - where) & (nearest > first)
    nearest = torch.where(closer, earlier, nearest)
    return Values(
        torch.where(at_last, before, inner).float(), pixels.ivar.gather(1, nearest), where,
        pixels.good.gather(1, nearest), torch.zeros_like(first), torch.full_like(first, cells),
    )  # fmt: skip


def _ordered(pixels: Values) -> Tensor:
    """Wavelengths to search in: those outside the window stand at the ends."""
    at = torch.arange(pixels.flux.shape[1], device=pixels.flux.device)
    known = torch.where(at < pixels.first, -math.inf, pixels.wavelength)
    return torch.where(at >= pixels.end, math.inf, known)


def _reach(found: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first and the past-the-last True of each row, int64 `(B, 1)`; end 0 where there is none."""
    at = torch.arange(count, device=found.device)
    first, end = torch.where(found, at, count).amin(1, keepdim=True), torch.where(found, at + 1, 0)
    return first, end.amax(1, keepdim=True)

"""From flux to a place between 0 and 1, to a code: limits, linear and asinh scales."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from specshards.render.config import LIMITS, ImageConfig
from specshards.render.percentile import percentiles

MINMAX, PERCENTILE, FIXED = range(3)
_STEPS = 1024
#: Furthest place of a point of a line, in ranges of the flux scale: from there on float32 loses the pixels.
FAR = 1e6


class Scale(NamedTuple):
    """What the kernels need to know of a configuration's scale.

    Attributes:
        limits: position in `LIMITS`.
        low, high: the percentiles, or the fixed limits.
        levels: float32, where each code but the first begins, from 0 to 1; empty for a linear scale.
        starts: int32 `(_STEPS + 1,)`, the code at each of so many equal steps, to begin the search from.
        curve: float64 `(_STEPS * 4 + 1,)`, the scale's value at equal steps, for lines; empty for a linear scale.
    """

    limits: int
    low: float
    high: float
    levels: npt.NDArray[np.float32]
    starts: npt.NDArray[np.int32]
    curve: npt.NDArray[np.float64]

    @classmethod
    def of(cls, config: ImageConfig, codes: int) -> Scale:
        """Of a configuration: 256 `codes` for a colour map, as matplotlib counts, 255 for a channel of RGB."""
        low, high = config.percentiles if config.limits == "percentile" else (config.flux_min, config.flux_max)
        levels, starts, curve = np.empty(0, np.float32), np.empty(0, np.int32), np.empty(0)
        if config.scale == "asinh":
            a = config.softening
            # Lupton et al. 1999, AJ 118, 1406; as `astropy.visualization.AsinhStretch` has it.
            levels = (a * np.sinh(np.arange(1, 256) / codes * math.asinh(1 / a))).astype(np.float32)
            edges = np.arange(_STEPS + 1, dtype=np.float32) / _STEPS
            starts = np.searchsorted(levels, edges, "right").astype(np.int32)
            curve = np.arcsinh(np.linspace(0, 1, 4 * _STEPS + 1) / a) / math.asinh(1 / a)
        return cls(LIMITS.index(config.limits), float(low), float(high), levels, starts, curve)


@njit(nogil=True, cache=True)
def extremes(flux, good):  # type: ignore[no-untyped-def]
    """Lowest and highest good flux, float32; there is at least one good pixel.

    Compared as whole numbers that order as the floats do: those the compiler turns into vectors, where a float could
    be NaN.
    """
    bits = flux.view(np.int32)
    low, high = np.int32(2**31 - 1), np.int32(-(2**31))
    for i in range(len(bits)):
        key = np.int32(bits[i] ^ ((bits[i] >> 31) & 0x7FFFFFFF))
        low = min(low, key if good[i] else np.int32(2**31 - 1))
        high = max(high, key if good[i] else np.int32(-(2**31)))
    ends = np.empty(2, np.int32)
    ends[0], ends[1] = low ^ ((low >> 31) & 0x7FFFFFFF), high ^ ((high >> 31) & 0x7FFFFFFF)
    values = ends.view(np.float32)
    return values[0], values[1]


@njit(nogil=True, cache=True)
def limits(flux, good, scale):  # type: ignore[no-untyped-def]
    """Where the scale of one spectrum begins and ends, float64, in flux units."""
    if scale.limits == FIXED:
        return scale.low, scale.high
    if scale.limits == PERCENTILE:
        low, high = percentiles(flux, good, scale.low, scale.high, np.empty(len(flux), np.uint32))
        if high > low:
            return low, high
        # More than the percentiles' share of the pixels has one value: the rest still tells them apart.
    first, last = extremes(flux, good)
    return np.float64(first), np.float64(last)


@njit(nogil=True, cache=True, error_model="numpy")
def colour_codes(flux, low, high, scale, out):  # type: ignore[no-untyped-def]
    """Flux float32 `(n,)` to codes 0 to 255 for a colour map of 256 colours; `out` uint8 `(>= n,)`.

    A linear scale equals matplotlib's `Normalize` and `Colormap` bit for bit: float64 limits and results rounded to
    float32 after each step. Any other rounding moves about one code in a million.
    """
    span = high - low
    if not span > 0:
        for i in range(len(flux)):
            out[i] = 0  # constant flux: matplotlib maps it to the lowest colour
    elif len(scale.levels):
        _search(flux, low, span, scale, out)
    else:
        for i in range(len(flux)):
            above = np.float64(np.float32(flux[i] - low))
            level = np.float32(above / span) * np.float32(256)
            out[i] = np.uint8(np.int32(min(max(level, np.float32(0)), np.float32(255))))


@njit(nogil=True, cache=True, error_model="numpy")
def channel_codes(flux, low, high, scale, out):  # type: ignore[no-untyped-def]
    """Flux float32 `(n,)` to 0 to 255 for a channel of RGB; linear: 255 (flux - low) / (high - low), cut to a whole
    number, as the paper's code has it."""
    span = high - low
    if not span > 0:
        for i in range(len(flux)):
            out[i] = 0
    elif len(scale.levels):
        _search(flux, low, span, scale, out)
    else:
        for i in range(len(flux)):
            level = 255.0 * (flux[i] - low) / span
            out[i] = np.uint8(np.int32(min(max(level, 0.0), 255.0)))


@njit(nogil=True, cache=True, error_model="numpy")
def _search(flux, low, span, scale, out):  # type: ignore[no-untyped-def]
    """Codes by where each value stands among the levels."""
    levels = scale.levels
    for i in range(len(flux)):
        share = min(max(np.float32((flux[i] - low) / span), np.float32(0)), np.float32(1))
        code = scale.starts[np.int32(share * np.float32(_STEPS))]
        while code < len(levels) and levels[code] <= share:
            code += 1
        out[i] = code


@njit(nogil=True, cache=True, error_model="numpy")
def heights(flux, low, high, scale, out):  # type: ignore[no-untyped-def]
    """Flux float32 `(n,)` to its place between the limits, 0 to 1 and beyond; float32 `(n,)`.

    Constant flux stands in the middle. What lies further out than `FAR`, or is not a number, is cut off there. An
    asinh scale ends at the limits; its curve is a table, off by under 1e-5.
    """
    span, steps = high - low, len(scale.curve) - 1
    for i in range(len(flux)):
        share = (flux[i] - low) / span if span > 0 else 0.5
        if steps > 0:
            at = min(max(0.0, share), 1.0) * steps
            k = np.int64(at)
            k -= k == steps
            share = scale.curve[k] + (scale.curve[k + 1] - scale.curve[k]) * (at - k)
        out[i] = np.float32(min(max(-FAR, share), FAR))

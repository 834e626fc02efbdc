"""simple: flux against wavelength as one anti-aliased black line on white, and the stroke that overlap shares.

The stroke of a line of width w is every point within w / 2 of it. Where the line is the graph of a function f, its
cut with the vertical x = c is the image of a half disc of offsets (u, v) under f(c + u) + v: connected, so one
interval. The whole union of strokes is thus known from one lower and one upper edge per abscissa, which is what
`coverage` computes, SUBCOLUMNS times per pixel column, with exact coverage in y.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from render.base import U8, Renderer
from render.config import ImageConfig
from render.prepare import prepare

SUBCOLUMNS = 16


class Simple(Renderer):
    """Black on white; `window` spans the width.

    The lowest good flux touches the bottom edge and the highest the top one with the full width of the line: its
    middle stays half a line width inside. Constant flux is a line at half height. The line connects good pixels only.
    """

    def __init__(self, config: ImageConfig) -> None:
        super().__init__(config)
        self.code_shape = (config.size, config.size)

    def _draw(
        self,
        flux: npt.ArrayLike,
        ivar: npt.ArrayLike | None,
        wavelength: npt.ArrayLike,
        mask: npt.ArrayLike | None,
        out: U8,
    ) -> None:
        s = prepare(flux, ivar, wavelength, mask, self.config.window)
        x, y = np.empty(len(s.flux), np.float32), np.empty(len(s.flux), np.float32)
        start, stop = self.config.window
        width = self.config.line_width
        n = to_pixels(s.wavelength, s.flux, s.good, start, stop, s.low, s.high, self.config.size, width, x, y)
        _gray(coverage(x[:n], y[:n], self.config.size, width), out)


@njit(nogil=True, cache=True)
def to_pixels(wavelength, flux, good, start, stop, low, high, size, width, x, y):  # type: ignore[no-untyped-def]
    """Good pixels from `start` to before or at `stop` as picture coordinates, y downwards; returns how many."""
    n = 0
    for i in range(len(flux)):
        if good[i] and start <= wavelength[i] <= stop:
            height = (np.float64(flux[i]) - low) / (high - low) if high > low else 0.5
            x[n] = (wavelength[i] - start) / (stop - start) * size
            y[n] = 0.5 * width + (1 - height) * (size - width)
            n += 1
    return n


@njit(nogil=True, cache=True)
def coverage(x, y, size, width):  # type: ignore[no-untyped-def]
    """Share of each pixel under the stroke of the polyline, float32 (size, size), from 0 to 1."""
    reach = int(0.5 * width * SUBCOLUMNS)
    top, bottom = _extremes(x, y, size, reach)
    result = np.zeros((size + 2, size), np.float32)
    heights = np.empty(2 * reach + 1, np.float32)
    for k in range(-reach, reach + 1):
        heights[k + reach] = np.sqrt((0.5 * width) ** 2 - (k / SUBCOLUMNS) ** 2)
    n = size * SUBCOLUMNS
    upper, lower = np.full(n, np.inf, np.float32), np.full(n, -np.inf, np.float32)
    for k in range(len(heights)):
        for i in range(n):
            upper[i] = min(upper[i], top[i + k] - heights[k])
            lower[i] = max(lower[i], bottom[i + k] + heights[k])
    for i in range(n):
        if upper[i] < lower[i]:
            _add_edge(result, i // SUBCOLUMNS, max(upper[i], np.float32(0)), np.float32(1 / SUBCOLUMNS))
            _add_edge(result, i // SUBCOLUMNS, min(lower[i], np.float32(size)), np.float32(-1 / SUBCOLUMNS))
    for row in range(1, size):
        for column in range(size):
            result[row, column] += result[row - 1, column]
    return result[:size]


@njit(nogil=True, cache=True)
def _extremes(x, y, size, reach):  # type: ignore[no-untyped-def]
    """Least and greatest y of the line within each sub-column, with `reach` empty ones on either side."""
    top = np.full(size * SUBCOLUMNS + 2 * reach, np.inf, np.float32)
    bottom = np.full(size * SUBCOLUMNS + 2 * reach, -np.inf, np.float32)
    last = size * SUBCOLUMNS - 1
    here = 0
    for i in range(len(x)):
        there = min(int(x[i] * SUBCOLUMNS), last)
        if i and there > here:
            slope = (y[i] - y[i - 1]) / (x[i] - x[i - 1])
            for edge in range(here + 1, there + 1):
                value = y[i - 1] + slope * (np.float32(edge / SUBCOLUMNS) - x[i - 1])
                for k in (edge - 1 + reach, edge + reach):
                    top[k], bottom[k] = min(top[k], value), max(bottom[k], value)
        k = there + reach
        top[k], bottom[k] = min(top[k], y[i]), max(bottom[k], y[i])
        here = there
    return top, bottom


@njit(nogil=True, cache=True, inline="always")
def _add_edge(steps, column, y, weight):  # type: ignore[no-untyped-def]
    """From height y downwards `weight` more; written as differences between rows."""
    row = int(y)
    below = y - np.float32(row)
    steps[row, column] += weight * (np.float32(1) - below)
    steps[row + 1, column] += weight * below


@njit(nogil=True, cache=True)
def _gray(share, out):  # type: ignore[no-untyped-def]
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            level = np.float32(255.5) - np.float32(255) * share[row, column]
            out[row, column] = np.uint8(min(max(level, np.float32(0)), np.float32(255)))

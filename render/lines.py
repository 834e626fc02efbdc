"""Anti-aliased polylines: the exact outline of a round pen, sampled in eighths of a pixel column.

A spectrum has many more pixels than a picture has columns, so a general path filler spends its time on segments
that hide each other. A graph of flux over wavelength allows more: within one thin column the line's ink is a single
interval from lowest to highest (it is one connected curve), the round pen widens that interval by the columns within
its radius, and its coverage of the pixels above each other is known exactly. Agg (matplotlib's rasteriser) computes
the same area from the outline of the stroke.
"""

from __future__ import annotations

import numpy as np
from numba import njit

#: Thin columns in one pixel column.
STRIPS = 8


@njit(nogil=True, cache=True)
def coverage(x, y, width, out):  # type: ignore[no-untyped-def]
    """Share of every pixel that the polyline covers.

    Args:
        x, y: float64 `(n,)`, pixels from the top left corner, x increasing, n >= 2.
        width: of the pen, pixels.
        out: float32 `(size, size)`, overwritten with 0 to 1, row by row from the top.
    """
    size = out.shape[0]
    strips = size * STRIPS
    low, high = np.empty(strips), np.empty(strips)
    low[:], high[:] = np.inf, -np.inf
    _centre_line(x, y, low, high)
    radius = 0.5 * width
    reach = int(radius * STRIPS)
    swell = np.empty(reach + 1)
    for k in range(reach + 1):
        swell[k] = np.sqrt(radius * radius - (k / STRIPS) ** 2)
    out[:] = 0.0
    ink = np.float32(1.0 / STRIPS)
    # `out` first collects changes down each column; the running sum at the end turns them into coverage.
    for strip in range(strips):
        top, bottom = np.inf, -np.inf
        for k in range(max(-reach, -strip), min(reach, strips - 1 - strip) + 1):
            other, grown = strip + k, swell[abs(k)]
            top, bottom = min(top, low[other] - grown), max(bottom, high[other] + grown)
        if bottom > top:
            _add_interval(out, strip // STRIPS, max(top, 0.0), min(bottom, float(size)), ink)
    for row in range(1, size):
        for column in range(size):
            out[row, column] += out[row - 1, column]


@njit(nogil=True, cache=True)
def _centre_line(x, y, low, high):  # type: ignore[no-untyped-def]
    """Lowest and highest y of the infinitely thin line in every strip."""
    strips = len(low)
    for i in range(len(x) - 1):
        x0, x1, y0, y1 = x[i] * STRIPS, x[i + 1] * STRIPS, y[i], y[i + 1]
        first, last = max(int(x0), 0), min(int(x1), strips - 1)
        if first == last:
            low[first], high[first] = min(low[first], y0, y1), max(high[first], y0, y1)
            continue
        slope = (y1 - y0) / (x1 - x0)
        for strip in range(first, last + 1):
            a = y0 if strip == first else y0 + slope * (strip - x0)
            b = y1 if strip == last else y0 + slope * (strip + 1 - x0)
            low[strip], high[strip] = min(low[strip], a, b), max(high[strip], a, b)


@njit(nogil=True, cache=True)
def _add_interval(out, column, top, bottom, ink):  # type: ignore[no-untyped-def]
    """Add one strip's ink from `top` to `bottom` as changes: pixel r gains what row r adds over row r - 1."""
    size = out.shape[0]
    if bottom <= top:
        return
    first, last = min(int(top), size - 1), min(int(bottom), size - 1)
    if first == last:
        part = np.float32(bottom - top) * ink
        out[first, column] += part
        if first + 1 < size:
            out[first + 1, column] -= part
        return
    head = np.float32(first + 1 - top) * ink
    tail = np.float32(bottom - last) * ink
    out[first, column] += head
    out[first + 1, column] += ink - head
    out[last, column] += tail - ink
    if last + 1 < size:
        out[last + 1, column] -= tail

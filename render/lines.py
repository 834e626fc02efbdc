"""Anti-aliased polylines as Agg (matplotlib's rasteriser) draws them, for spectra of thousands of points.

Agg turns a polyline into the outline of its stroke and sums signed areas pixel by pixel: where the line folds over
itself inside one pixel, the ink adds up until the pixel is full. A spectrum has some twenty points in every pixel
column, so that is how nearly all of its picture is made. The kernel here does the same sum directly: each segment is
a rectangle of the pen's width, cut by vertical lines at fixed fractions of a pixel, and each cut adds its exact
length to the pixels it crosses. Joins are left out: at the paper's width of 0.7 pixels they are a third of a pixel at
the tip of a peak. `benchmarks/compare_matplotlib.py` measures the likeness.
"""

from __future__ import annotations

import numpy as np
from numba import njit

#: Vertical cuts through one pixel column.
CUTS = 4


@njit(nogil=True, cache=True)
def coverage(x, y, width, out):  # type: ignore[no-untyped-def]
    """Ink of the polyline in every pixel: 1 = full, more where it folds over itself.

    Args:
        x, y: float64 `(n,)`, pixels from the top left corner, x increasing, n >= 2.
        width: of the pen, pixels.
        out: float32 `(size, size)`, overwritten, row by row from the top.
    """
    size = out.shape[0]
    # Rows first: the running sum adds whole rows, as vectors; down a column each addition would wait for the last.
    change = np.zeros((size + 2, size), np.float32)
    for i in range(len(x) - 1):
        _add_segment(change, x[i], y[i], x[i + 1], y[i + 1], 0.5 * width)
    out[0] = change[0]
    for row in range(1, size):
        for column in range(size):
            out[row, column] = out[row - 1, column] + change[row, column]


@njit(nogil=True, cache=True)
def _add_segment(change, x0, y0, x1, y1, radius):  # type: ignore[no-untyped-def]
    """Cut the rectangle around one segment: its sides lie `radius` away, its ends at the points."""
    dx, dy = x1 - x0, y1 - y0
    length = np.sqrt(dx * dx + dy * dy)
    c, s = dx / length, abs(dy) / length
    sign = 1.0 if dy >= 0 else -1.0
    strips = change.shape[1] * CUTS
    first = max(int(np.ceil((x0 - radius * s) * CUTS - 0.5)), 0)
    last = min(int(np.floor((x1 + radius * s) * CUTS - 0.5)), strips - 1)
    half = radius / c
    for strip in range(first, last + 1):
        # In the segment's own frame, mirrored so that it rises: u along x from its start, v along y.
        u = (strip + 0.5) / CUTS - x0
        low, high = u * s / c - half, u * s / c + half
        if s > 0:
            low, high = max(low, -u * c / s), min(high, (length - u * c) / s)
        if high > low:
            if sign > 0:
                _add_interval(change[:, strip // CUTS], y0 + low, y0 + high)
            else:
                _add_interval(change[:, strip // CUTS], y0 - high, y0 - low)


@njit(nogil=True, cache=True)
def _add_interval(change, top, bottom):  # type: ignore[no-untyped-def]
    """Add one cut from `top` to `bottom` as changes: element r is what row r gains over row r - 1."""
    size = len(change) - 2
    top, bottom = max(top, 0.0), min(bottom, float(size))
    if bottom <= top:
        return
    ink = np.float32(1.0 / CUTS)
    first, last = int(top), int(bottom)
    # The first row is covered from `top` down, the last one down to `bottom`; the rows between are full.
    head = np.float32(top - first) * ink
    tail = np.float32(bottom - last) * ink
    change[first] += ink - head
    change[first + 1] += head
    change[last] += tail - ink
    change[last + 1] -= tail

"""Anti-aliased polylines as Agg (matplotlib's rasteriser) draws them, for spectra of thousands of points.

Agg turns a polyline into the outline of its stroke and sums signed areas pixel by pixel: where the line folds over
itself inside one pixel, the ink adds up until the pixel is full. A spectrum has some seventeen points in every pixel
column, so that is how nearly all of its picture is made. The kernels here do the same sum: the stroke of a segment is
a rectangle, as long as the segment and as wide as the pen, turned; it is replaced by the upright box that just holds
it, with ink thinned so that the amount stays. Long segments are drawn in pieces of a quarter of a pixel at most, so
that the box stays near the stroke. `benchmarks/peers/matplotlib_comparison.py` measures the likeness.

Ink is counted in whole numbers. A sum of them is the same in any order, so that a GPU, which adds in any order, draws
the same picture (`render.device.expand`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from specshards.render.config import ImageConfig
from specshards.render.simd import add_pair, sub_pair

#: Units of ink that fill a pixel, and steps of a pixel's height.
FULL, STEPS = 4096, 256
#: Segments are cut to this length in x, pixels.
LONGEST = 0.25
#: Columns of a canvas before the picture's first: a cache line.
SPARE = 16

#: Red, green and blue of the three lines of `overlap`: matplotlib's, from the bluest segment to the reddest.
COLOURS = ((255, 0, 0), (0, 128, 0), (0, 0, 255))

_HALVES = np.int64(0x00FFFFFF_00FFFFFF)


class LineSettings(NamedTuple):
    """What the kernels of `simple` and `overlap` take of a configuration; see `ImageConfig`."""

    low: float
    high: float
    size: int
    width: float
    free: float  # share of the height above and below the limits; of the width beside a line, for `spectrum`
    alpha: float
    spectrum: bool  # each line spans the picture; else the window does

    @classmethod
    def of(cls, config: ImageConfig) -> LineSettings:
        """Of a configuration."""
        free = config.margin / (1 + 2 * config.margin)
        return cls(*config.window, config.size, config.line_width, free, config.alpha, config.axis == "spectrum")


@njit(nogil=True, cache=True)
def canvas(size):  # type: ignore[no-untyped-def]
    """An empty canvas for `draw`: int32 `(size + 3, size + SPARE)`, pixel (r, c) at [r, c + SPARE].

    What a stroke puts outside the picture falls into the spare columns, at the right into those of the next row. It
    begins with a cache line, which takes a quarter off the time of `develop`.
    """
    rows, columns = size + 3, size + SPARE
    raw = np.zeros(rows * columns + 16, np.int32)
    first = (-np.int64(raw.ctypes.data)) % 64 // 4
    return raw[first : first + rows * columns].reshape(rows, columns)


@njit(nogil=True, cache=True)
def pieces(x, y, count):  # type: ignore[no-untyped-def]
    """The polyline with points put in so that no segment is longer than `LONGEST` in x.

    Args:
        x, y: float32 `(>= count,)`, pixels from the top left corner, x not falling.

    Returns:
        x, y, count: the same arrays where nothing was to do.
    """
    more = 0
    for i in range(count - 1):
        gap = x[i + 1] - x[i]
        if gap > np.float32(LONGEST):  # rare: the branch costs less than the division
            more += int(gap / np.float32(LONGEST))
    if more == 0:
        return x, y, count
    out_x, out_y = np.empty(count + more, np.float32), np.empty(count + more, np.float32)
    k = 0
    for i in range(count - 1):
        out_x[k], out_y[k] = x[i], y[i]
        k += 1
        gap = x[i + 1] - x[i]
        if gap > np.float32(LONGEST):
            cuts = int(gap / np.float32(LONGEST)) + 1
            for cut in range(1, cuts):
                share = np.float32(cut) / np.float32(cuts)
                out_x[k], out_y[k] = x[i] + gap * share, y[i] + (y[i + 1] - y[i]) * share
                k += 1
    out_x[k], out_y[k] = x[count - 1], y[count - 1]
    return out_x, out_y, k + 1


@njit(nogil=True, cache=True)
def draw(x, y, count, width, ink):  # type: ignore[no-untyped-def]
    """Add the stroke of a polyline to a canvas.

    Args:
        x, y, count: as `pieces` returns them, `count` >= 2.
        width: of the pen, pixels.
        ink: as `canvas` makes it; an element is what its pixel has more than the one above it.
    """
    n = count - 1
    column, left, right = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int32)
    top, bottom = np.empty(n, np.int32), np.empty(n, np.int32)
    # A box wider than a pixel would reach into three columns: it is drawn in parts.
    parts = int(np.ceil(width + LONGEST))
    for part in range(parts):
        _boxes(x, y, n, np.float32(width), part, parts, len(ink) - 3, column, left, right, top, bottom)
        flat, pitch = ink.reshape(-1), np.int64(ink.shape[1])
        # Two places of the spectrum in turn: an addition to a cell need not wait for the one before it.
        half = n // 2
        for i in range(half):
            _put(flat, pitch, column[i], left[i], right[i], top[i], bottom[i])
            k = np.uint64(i) + np.uint64(half)
            _put(flat, pitch, column[k], left[k], right[k], top[k], bottom[k])
        for i in range(2 * half, n):
            _put(flat, pitch, column[i], left[i], right[i], top[i], bottom[i])


@njit(nogil=True, cache=True, error_model="numpy")
def _boxes(x, y, n, width, part, parts, size, column, left, right, top, bottom):  # type: ignore[no-untyped-def]
    """Each segment's box, or the `part`-th of equal parts of it side by side: no branches, so as vectors.

    Writes int32 `(n,)` each: the first column it touches, counted from the canvas's; ink for that and for the next
    one; upper and lower edge in steps.
    """
    least, half, one = np.float32(1e-6), np.float32(0.5), np.float32(1)
    for i in range(n):
        dx, dy = x[i + 1] - x[i], abs(y[i + 1] - y[i])
        length = max(np.sqrt(dx * dx + dy * dy), least)
        per_length = width / length
        across = max(dx + per_length * dy, least)
        down = max(dy + per_length * dx, least)
        # Ink for one pixel's width of the box; all of it is the stroke's area.
        thick = min(np.float32(FULL) * width * length / (across * down), np.float32(FULL))
        across_part = across / np.float32(parts)
        start = half * (x[i] + x[i + 1] - across) + np.float32(part) * across_part
        # What lies outside the picture goes to the canvas's spare columns.
        start = min(max(start, -one), np.float32(size) + half)
        first = np.floor(start)
        share = min(first + one - start, across_part)
        column[i] = np.int32(first) + np.int32(SPARE)
        left[i] = np.int32(thick * share + half)
        right[i] = np.int32(thick * (across_part - share) + half)
        middle, edge = half * (y[i] + y[i + 1]), np.float32(size * STEPS)
        top[i] = np.int32(min(max((middle - half * down) * np.float32(STEPS), np.float32(0)), edge))
        bottom[i] = np.int32(min(max((middle + half * down) * np.float32(STEPS), np.float32(0)), edge))


@njit(nogil=True, cache=True)
def _put(flat, pitch, column, left, right, top, bottom):  # type: ignore[no-untyped-def]
    """One box: the row of its upper edge gains what lies below the edge, the next row the rest; likewise its end."""
    # Both columns in one number, so that each sum is one operation.
    ink = np.int64(left) | np.int64(right) << 32
    above = (ink * np.int64(top & (STEPS - 1))) >> 8 & _HALVES
    below = (ink * np.int64(bottom & (STEPS - 1))) >> 8 & _HALVES
    first, last = np.int64(top >> 8) * pitch + column, np.int64(bottom >> 8) * pitch + column
    add_pair(flat, first, ink - above)
    add_pair(flat, first + pitch, above)
    sub_pair(flat, last, ink - below)
    sub_pair(flat, last + pitch, below)


@njit(nogil=True, cache=True)
def develop(ink, row, line):  # type: ignore[no-untyped-def]
    """Add row `row` of the canvas to the running sums `line`, int32 `(size,)`, and empty it for the next drawing."""
    here = ink[row]
    picture = here[SPARE : SPARE + len(line)]
    for column in range(len(line)):
        line[column] += picture[column]
    for column in range(len(here)):
        here[column] = 0


@njit(nogil=True, cache=True)
def clear(ink):  # type: ignore[no-untyped-def]
    """Empty the rows below the picture, which `develop` is not asked for."""
    ink[len(ink) - 3 :] = 0

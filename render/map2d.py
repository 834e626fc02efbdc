"""`map2d`: flux values row by row into square cells of a colour map (Spectromer, A&A 709, A122)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit, prange

from render.base import Codes, Renderer
from render.config import ImageConfig, RenderError
from render.prepare import PARALLEL, Floats, Flux, Good, fill_gaps, limits, target


@lru_cache
def colour_table(name: str) -> Codes:
    """The 256 colours of a matplotlib colour map: uint8 `(256, 3)`."""
    import matplotlib as mpl

    return np.ascontiguousarray(mpl.colormaps[name](np.arange(256), bytes=True)[:, :3])


class Map2d(Renderer):
    """Flux value i of the window stands in cell i, counted along rows of `size // block` cells from the top left.

    Codes and colours equal matplotlib's `Normalize` and colour map for float32 flux bit for bit. Bad pixels are
    filled by a straight line between good neighbours. Cells past the spectrum's end, and the strip that whole blocks
    leave free at the right and at the bottom, show flux 0 for fixed limits, as the paper's code does, and the lowest
    colour for limits of the spectrum's own.
    """

    def __init__(self, config: ImageConfig) -> None:
        super().__init__(config)
        self.cells = config.size // config.block
        self.code_shape = (self.cells, self.cells)
        self.block = config.block
        self.lut = colour_table(config.colormap)
        if config.limits == "fixed":
            zero = np.zeros(1, np.float32)
            code = np.empty(1, np.uint8)
            _quantise(zero, config.flux_min, config.flux_max, code, 0)
            self.empty = int(code[0])

    def _draw(self, flux: Flux, wavelength: Floats, good: Good, out: Codes) -> None:
        if len(flux) > self.cells**2:
            raise RenderError(
                f"{len(flux)} pixels do not fit {self.cells} x {self.cells} cells; take a smaller block"
            )
        if self.config.limits == "fixed":
            low, high = self.config.flux_min, self.config.flux_max
        else:
            low, high = limits(flux, good)
        filled = flux.copy()
        fill_gaps(filled, good)
        _quantise(filled, low, high, out.reshape(-1), self.empty)

    def expand(self, codes: Codes) -> Codes:
        """The picture of one code array: uint8 `(size, size, 3)`, RGB."""
        size = self.config.size
        out = np.empty((size, size, 3), np.uint8)
        _expand(np.ascontiguousarray(codes), self.lut, self.block, self.empty, out.reshape(size, -1))
        return out

    def expand_batch(self, codes: Codes, out: Codes | None = None) -> Codes:
        """Pictures of B code arrays: uint8 `(B, size, size, 3)`, RGB, into `out` where it is given."""
        size = self.config.size
        out = target(out, (len(codes), size, size, 3))
        with PARALLEL:
            _expand_batch(
                np.ascontiguousarray(codes), self.lut, self.block, self.empty, out.reshape(len(codes), size, 3 * size)
            )
        return out


@njit(nogil=True, cache=True)
def _quantise(flux, low, high, out, empty):  # type: ignore[no-untyped-def]
    """Codes of flux, then `empty`.

    float64 limits and results rounded to float32 after each step: so matplotlib normalises float32 data, and any
    other rounding moves about one code in a million.
    """
    span = high - low
    for i in range(len(flux)):
        if span <= 0:
            out[i] = 0  # constant flux: matplotlib maps it to the lowest colour
            continue
        above = np.float64(np.float32(flux[i] - low))
        level = np.float32(above / span) * np.float32(256)
        if level < 0:
            out[i] = 0
        elif level >= 256:
            out[i] = 255
        else:
            out[i] = np.uint8(level)
    for i in range(len(flux), len(out)):
        out[i] = empty


@njit(nogil=True, cache=True)
def _expand(codes, table, block, empty, picture):  # type: ignore[no-untyped-def]
    """One code array to one picture, uint8 `(size, size * 3)`: each line of cells once, then copied."""
    rows, columns = codes.shape
    size = len(picture)
    for r in range(rows):
        line = picture[r * block]
        for c in range(columns):
            code = codes[r, c]
            at = c * block * 3
            for _ in range(block):
                line[at], line[at + 1], line[at + 2] = table[code, 0], table[code, 1], table[code, 2]
                at += 3
        _paint(line, columns * block, table, empty)
        for k in range(1, block):
            picture[r * block + k] = line
    for y in range(rows * block, size):
        _paint(picture[y], 0, table, empty)


@njit(nogil=True, cache=True)
def _paint(line, start, table, code):  # type: ignore[no-untyped-def]
    """One colour from pixel `start` to the end of a line."""
    for x in range(start, len(line) // 3):
        line[3 * x], line[3 * x + 1], line[3 * x + 2] = table[code, 0], table[code, 1], table[code, 2]


@njit(nogil=True, cache=True, parallel=True)
def _expand_batch(codes, table, block, empty, pictures):  # type: ignore[no-untyped-def]
    for b in prange(len(codes)):
        _expand(codes[b], table, block, empty, pictures[b])

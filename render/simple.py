"""`simple`: flux against wavelength as one anti-aliased line, no axes (Spectromer, A&A 709, A122)."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from render.base import Codes, Renderer
from render.config import ImageConfig
from render.lines import coverage
from render.prepare import PARALLEL, Floats, Flux, Good, limits, target


class Simple(Renderer):
    """One black line on white. The window spans the picture's width; the flux range its height, less a margin.

    The line connects the good pixels; a constant flux is a level line in the middle.
    """

    def __init__(self, config: ImageConfig) -> None:
        super().__init__(config)
        self.code_shape = (config.size, config.size)

    def _draw(self, flux: Flux, wavelength: Floats, good: Good, out: Codes) -> None:
        x, y = line_of(flux, wavelength, good, self.config)
        cover = np.empty(self.code_shape, np.float32)
        coverage(x * self.config.size, y * self.config.size, self.config.line_width, cover)
        _ink(cover, out)

    def expand_batch(self, codes: Codes, out: Codes | None = None) -> Codes:
        """RGB of B gray pictures: uint8 `(B, size, size, 3)`, into `out` where it is given."""
        out = target(out, (*codes.shape, 3))
        with PARALLEL:
            _gray_to_rgb(np.ascontiguousarray(codes), out)
        return out


def line_of(flux: Flux, wavelength: Floats, good: Good, config: ImageConfig) -> tuple[Floats, Floats]:
    """The good pixels as points: x from 0 (left) to 1 over the window, y from 0 (top) to 1; float64 `(n,)` each.

    Args:
        flux, wavelength, good: as `render.prepare.prepare` returns them.
    """
    low, high = (float(value) for value in limits(flux, good))
    x = (wavelength[good] - config.window[0]) / (config.window[1] - config.window[0])
    if high <= low:
        return x, np.full(len(x), 0.5)
    free = config.margin / (1 + 2 * config.margin)
    height = (flux[good].astype(np.float64) - low) / (high - low)
    return x, 1 - free - (1 - 2 * free) * height


@njit(nogil=True, cache=True)
def _ink(cover, out):  # type: ignore[no-untyped-def]
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            share = min(max(cover[row, column], np.float32(0)), np.float32(1))
            out[row, column] = np.uint8(np.float32(255.5) - np.float32(255) * share)


@njit(nogil=True, cache=True, parallel=True)
def _gray_to_rgb(gray, out):  # type: ignore[no-untyped-def]
    for b in prange(len(gray)):
        for y in range(gray.shape[1]):
            for x in range(gray.shape[2]):
                out[b, y, x, 0] = out[b, y, x, 1] = out[b, y, x, 2] = gray[b, y, x]

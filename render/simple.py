"""`simple`: flux against wavelength as one anti-aliased line, no axes (Spectromer, A&A 709, A122)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, prange

from render.config import ImageConfig
from render.lines import coverage
from render.prepare import PARALLEL, Floats, limits, prepare, target

Codes = npt.NDArray[np.uint8]


class Simple:
    """One black line on white. The window spans the picture's width; the flux range its height, less a margin.

    The line connects the good pixels; a constant flux is a level line in the middle.
    """

    lut: Codes | None = None
    block, pad, empty = 1, 0, 0

    def __init__(self, config: ImageConfig) -> None:
        self.config = config
        self.code_shape: tuple[int, ...] = (config.size, config.size)

    def codes(
        self,
        flux: npt.NDArray[Any],
        ivar: npt.NDArray[Any] | None,
        wavelength: npt.NDArray[Any],
        mask: npt.NDArray[Any] | None,
        out: Codes | None = None,
    ) -> Codes:
        """The gray picture: uint8 `(size, size)`, into `out` where it is given.

        Raises:
            RenderError: nothing to draw.
        """
        x, y = line_of(flux, ivar, wavelength, mask, self.config)
        cover = np.empty(self.code_shape, np.float32)
        coverage(x * self.config.size, y * self.config.size, self.config.line_width, cover)
        out = target(out, self.code_shape)
        _ink(cover, out)
        return out

    def expand(self, codes: Codes) -> Codes:
        """RGB of one gray picture: uint8 `(size, size, 3)`."""
        return self.expand_batch(codes[None])[0]

    def expand_batch(self, codes: Codes, out: Codes | None = None) -> Codes:
        """RGB of B gray pictures: uint8 `(B, size, size, 3)`, into `out` where it is given."""
        out = target(out, (*codes.shape, 3))
        with PARALLEL:
            _gray_to_rgb(np.ascontiguousarray(codes), out)
        return out


def line_of(
    flux: npt.NDArray[Any],
    ivar: npt.NDArray[Any] | None,
    wavelength: npt.NDArray[Any],
    mask: npt.NDArray[Any] | None,
    config: ImageConfig,
) -> tuple[Floats, Floats]:
    """The good pixels as points: x from 0 (left) to 1 over the window, y from 0 (top) to 1; float64 `(n,)` each."""
    values, wave, good = prepare(flux, ivar, wavelength, mask, config.window)
    low, high = (float(value) for value in limits(values, good))
    x = (wave[good] - config.window[0]) / (config.window[1] - config.window[0])
    if high <= low:
        return x, np.full(len(x), 0.5)
    free = config.margin / (1 + 2 * config.margin)
    height = (values[good].astype(np.float64) - low) / (high - low)
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

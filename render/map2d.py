"""map2d: flux values row by row in coloured cells, one spectral pixel a cell."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from numba import njit

from render.base import U8, Renderer
from render.config import ImageConfig
from render.prepare import RenderError, fill_bad, prepare


class Map2d(Renderer):
    """The first pixel in the window is the top left cell, the next one is to its right.

    Codes are indices into the colour map, computed as matplotlib's Normalize and Colormap do for float32 flux: the
    pictures are the same bit for bit. Cells beyond the last pixel, and the border, have code 0; so has the whole of
    a spectrum of constant flux under `minmax`. Bad pixels are interpolated, so every value keeps its place.
    """

    def __init__(self, config: ImageConfig) -> None:
        super().__init__(config)
        cells = config.size // config.block
        self.block = config.block
        self.pad = (config.size - cells * config.block) // 2
        self.code_shape = (cells, cells)

    @property
    def lut(self) -> U8:
        """Colour table, uint8 (256, 3)."""
        return color_table(self.config.colormap)

    def _draw(
        self,
        flux: npt.ArrayLike,
        ivar: npt.ArrayLike | None,
        wavelength: npt.ArrayLike,
        mask: npt.ArrayLike | None,
        out: U8,
    ) -> None:
        spectrum = prepare(flux, ivar, wavelength, mask, self.config.window)
        if len(spectrum.flux) > out.size:
            side = self.code_shape[0]
            hint = "use a smaller block" if self.block > 1 else "use a larger size"
            raise RenderError(f"{len(spectrum.flux)} pixels do not fit {side} x {side} cells; {hint}")
        low, high = spectrum.low, spectrum.high
        if self.config.limits == "fixed":
            low, high = self.config.flux_min, self.config.flux_max
        fill_bad(spectrum.wavelength, spectrum.flux, spectrum.good)
        _normalize(spectrum.flux, low, high, out.reshape(-1))


@cache
def color_table(name: str) -> U8:
    """The 256 RGB entries of a matplotlib colour map; matplotlib is imported on first use, being slow to import."""
    from matplotlib import colormaps

    table: U8 = np.ascontiguousarray(colormaps[name](np.arange(256), bytes=True)[:, :3])
    return table


@njit(nogil=True, cache=True)
def _normalize(flux, low, high, codes):  # type: ignore[no-untyped-def]
    """The index matplotlib takes: each step in float64, rounded to float32, as NumPy does in place on float32."""
    span = high - low
    for i in range(len(flux)):
        if span == 0:
            codes[i] = 0
            continue
        t = np.float32(np.float64(flux[i]) - low)
        t = np.float32(np.float64(t) / span) * np.float32(256)
        codes[i] = np.uint8(min(max(t, np.float32(0)), np.float32(255)))
    codes[len(flux) :] = 0

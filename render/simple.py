"""`simple`: flux against wavelength as one anti-aliased line, no axes (Spectromer, A&A 709, A122)."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit, prange

from specshards.render.base import Codes, Renderer
from specshards.render.config import ImageConfig
from specshards.render.lines import FULL, LineSettings, canvas, clear, develop, draw, pieces
from specshards.render.prepare import DRAWN, Floats, Flux, Good, KernelArrays, Places, one_of, select
from specshards.render.registry import RENDERERS
from specshards.render.scale import Scale, heights, limits
from specshards.render.wavelengths import of_columns

if TYPE_CHECKING:
    from specshards.render.device.draw import DeviceRenderer


@RENDERERS.register("simple")
class Simple(Renderer):
    """One black line on white. The window spans the picture's width; the flux range its height, less a margin.

    The line connects the good pixels; a constant flux is a level line in the middle. With percentile limits it leaves
    the picture where flux lies far outside them.
    """

    presets = MappingProxyType({"default": {}, "paper": {}, "robust": {"limits": "percentile"}})
    gallery = ("default", "robust")

    def __init__(self, config: ImageConfig) -> None:
        super().__init__(config)
        self.code_shape = (config.size, config.size)
        self._settings, self._scale = LineSettings.of(config), Scale.of(config, 256)

    def _draw(self, spectrum: KernelArrays, out: Codes) -> tuple[int, int]:
        return draw_simple(
            *spectrum, self._settings, self._scale, self._scratch(lambda: canvas(self.config.size)), out
        )

    def _draw_batch(self, spectra: KernelArrays, places: Places, out: Codes, states: Any) -> None:
        draw_batch(*spectra, places, self._settings, self._scale, self._chunks(len(states)), out, states)

    def _wavelengths(self, flux: Flux, ivar: Flux, inside: Floats, good: Good) -> Floats:
        return of_columns(self.config, inside, 1)

    def device(self) -> DeviceRenderer:
        """Draws gray levels."""
        from specshards.render.device.lines import DeviceLines

        return DeviceLines(self, 1)


@njit(nogil=True, cache=True, error_model="numpy")
def polyline(flux, wavelength, good, settings, scale, stretch):  # type: ignore[no-untyped-def]
    """The good pixels as points: x, y float32 `(count,)`, pixels from the top left corner.

    Args:
        stretch: pixels that the window spans.
    """
    low, high = limits(flux, good, scale)
    x, y = np.empty(len(flux), np.float32), np.empty(len(flux), np.float32)
    heights(flux, low, high, scale, y)
    step, size = stretch / (settings.high - settings.low), np.float64(settings.size)
    bottom, height = np.float32(size * (1 - settings.free)), np.float32(size * (1 - 2 * settings.free))
    for i in range(len(flux)):
        x[i] = np.float32((wavelength[i] - settings.low) * step)
        y[i] = bottom - height * y[i]
    count = good.sum()
    if count < len(flux):
        count = 0
        for i in range(len(flux)):
            x[count], y[count] = x[i], y[i]
            count += good[i]
    return x, y, count


@njit(nogil=True, cache=True)
def draw_simple(flux, ivar, wavelength, mask, settings, scale, ink, out):  # type: ignore[no-untyped-def]
    """One spectrum to gray levels: status, and the number of pixels in the window.

    Args:
        flux, ivar, wavelength, mask: as `render.prepare.as_arrays` returns them.
        ink: an empty `render.lines.canvas`; empty again afterwards.
        out: uint8 `(size, size)`, overwritten when the status is DRAWN.
    """
    status, flux, _, wavelength, good = select(flux, ivar, wavelength, mask, settings.low, settings.high, False)
    if status != DRAWN:
        return status, len(flux)
    x, y, count = polyline(flux, wavelength, good, settings, scale, np.float64(settings.size))
    x, y, count = pieces(x, y, count)
    draw(x, y, count, settings.width, ink)
    line = np.zeros(settings.size, np.int32)
    for row in range(settings.size):
        develop(ink, row, line)
        _darken(line, out[row])
    clear(ink)
    return DRAWN, len(flux)


@njit(nogil=True, cache=True)
def _darken(line, out):  # type: ignore[no-untyped-def]
    # In float32: Numba widens products of int32 to int64, which halves the vectors.
    for column in range(len(line)):
        filled = np.float32(min(max(line[column], np.int32(0)), np.int32(FULL)))
        out[column] = np.uint8(np.int32(np.float32(255.5) - filled * np.float32(255 / FULL)))


@njit(nogil=True, cache=True, parallel=True)
def draw_batch(flux, ivar, wavelength, mask, places, settings, scale, chunks, out, states):  # type: ignore[no-untyped-def]
    """`draw_simple` of B spectra end to end in the arrays; see `Renderer.codes_batch`."""
    count = len(states)
    for chunk in prange(chunks):
        ink = canvas(settings.size)
        for i in range(chunk * count // chunks, (chunk + 1) * count // chunks):
            f, v, w, m = one_of(i, flux, ivar, wavelength, mask, places)
            states[i], _ = draw_simple(f, v, w, m, settings, scale, ink, out[i])

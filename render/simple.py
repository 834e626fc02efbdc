"""`simple`: flux against wavelength as one anti-aliased line, no axes (Spectromer, A&A 709, A122)."""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit, prange

from specshards.render.base import Codes, Renderer
from specshards.render.config import PUBLISHED, ImageConfig
from specshards.render.lines import FULL, LineSettings, canvas, clear, develop, draw, pieces
from specshards.render.prepare import DRAWN, Floats, Flux, Good, KernelArrays, Places, one_of, select
from specshards.render.registry import RENDERERS
from specshards.render.scale import Scale, heights, limits
from specshards.render.wavelengths import of_columns

if TYPE_CHECKING:
    from specshards.render.device.draw import DeviceRenderer


@lru_cache
def line_table(name: str) -> Codes:
    """RGB of each gray level of a line of matplotlib's colour `name` on white: uint8 `(256, 3)`."""
    from matplotlib.colors import to_rgb

    colour = 255 * np.array(to_rgb(name))
    level = np.arange(256)[:, None] / 255
    return np.rint(colour + (255 - colour) * level).astype(np.uint8)


@RENDERERS.register("simple")
class Simple(Renderer):
    """One line on white. The window or the spectrum spans the width, the flux range the height, less a margin.

    The line connects the good pixels; a constant flux is a level line in the middle. With percentile limits it leaves
    the picture where flux lies far outside them. Codes are gray levels, black where the ink is full; the colour is
    laid on when they expand.
    """

    presets = MappingProxyType(
        {
            "default": {},
            "aligned": {},
            "paper": {**PUBLISHED, "axis": "spectrum", "line_colour": "tab:blue"},
            "robust": {"limits": "percentile"},
        }
    )
    gallery = ("default", "paper", "robust")
    options = ("axis", "line_colour")

    def __init__(self, config: ImageConfig) -> None:
        super().__init__(config)
        self.code_shape = (config.size, config.size)
        if config.line_colour != ImageConfig.line_colour:
            self.lut = line_table(config.line_colour)
        self._settings, self._scale = LineSettings.of(config), Scale.of(config, 256)

    def _draw(self, spectrum: KernelArrays, out: Codes) -> tuple[int, int]:
        return draw_simple(
            *spectrum, self._settings, self._scale, self._scratch(lambda: canvas(self.config.size)), out
        )

    def _draw_batch(self, spectra: KernelArrays, places: Places, out: Codes, states: Any) -> None:
        draw_batch(*spectra, places, self._settings, self._scale, self._chunks(len(states)), out, states)

    def _wavelengths(self, flux: Flux, ivar: Flux, inside: Floats, good: Good) -> Floats:
        return of_columns(self.config, inside, good, 1)

    def device(self) -> DeviceRenderer:
        """Draws gray levels."""
        from specshards.render.device.lines import DeviceLines

        return DeviceLines(self, 1)


@njit(nogil=True, cache=True, error_model="numpy")
def polylines(flux, wavelength, good, settings, scale, parts):  # type: ignore[no-untyped-def]
    """The good pixels as points of `parts` lines, one after another.

    Returns:
        x, y float32 `(>= ends[-1],)`, pixels from the top left corner; ends int64 `(parts,)`: line k has the points
        from ends[k - 1] (0 for the first) to ends[k].
    """
    low, high = limits(flux, good, scale)
    n, size = len(flux), np.float64(settings.size)
    x, y, ends = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(parts, np.int64)
    heights(flux, low, high, scale, y)
    bottom, height = np.float32(size * (1 - settings.free)), np.float32(size * (1 - 2 * settings.free))
    for i in range(n):
        y[i] = bottom - height * y[i]
    if settings.spectrum:
        _spanning(flux, wavelength, settings, x, ends)
    else:
        step = parts * size / (settings.high - settings.low)
        for i in range(n):
            x[i] = np.float32((wavelength[i] - settings.low) * step)
        # The scale is one, and the borders are where x passes a multiple of the size.
        for part in range(parts):
            ends[part] = np.searchsorted(x, np.float32((part + 1) * size)) if part < parts - 1 else n
        for part in range(1, parts):
            for i in range(ends[part - 1], ends[part]):
                x[i] -= np.float32(part * size)
    if good.sum() < n:
        count = first = 0
        for part in range(parts):
            for i in range(first, ends[part]):
                x[count], y[count] = x[i], y[i]
                count += good[i]
            first, ends[part] = ends[part], count
    return x, y, ends


@njit(nogil=True, cache=True, error_model="numpy")
def _spanning(flux, wavelength, settings, x, ends):  # type: ignore[no-untyped-def]
    """x and ends of parts with the pixels that `numpy.array_split` gives; they span the width, less the margin.

    As published: a part's pixels stand between its first and its last, and the limits are those of the pixels of all
    parts whose flux is finite.
    """
    n, parts, size, first = len(wavelength), len(ends), np.float64(settings.size), 0
    left, width = size * settings.free, size * (1 - 2 * settings.free)
    low, high, largest = np.inf, -np.inf, np.float32(np.finfo(np.float32).max)
    for part in range(parts):
        start, ends[part] = first, first + n // parts + (part < n % parts)
        last = ends[part] - 1
        while start <= last and not abs(flux[start]) <= largest:
            start += 1
        while start <= last and not abs(flux[last]) <= largest:
            last -= 1
        if start <= last and ends[part] - first > 1:
            reach = wavelength[ends[part] - 1] - wavelength[first]
            low = min(low, (wavelength[start] - wavelength[first]) / reach)
            high = max(high, (wavelength[last] - wavelength[first]) / reach)
        first = ends[part]
    first = 0
    for part in range(parts):
        if ends[part] > first:
            reach = wavelength[ends[part] - 1] - wavelength[first]
            start_at = wavelength[first] + low * reach
            step = width / (reach * (high - low))  # of a single pixel not finite: it makes no line
            for i in range(first, ends[part]):
                x[i] = np.float32((wavelength[i] - start_at) * step + left)
        first = ends[part]


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
    x, y, ends = polylines(flux, wavelength, good, settings, scale, 1)
    x, y, count = pieces(x, y, ends[0])
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

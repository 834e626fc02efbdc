"""`overlap`: three equal pieces of a spectrum over each other in red, green and blue (Spectromer, A&A 709, A122)."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from numba import njit, prange

from specshards.render.base import Codes, Renderer
from specshards.render.config import PUBLISHED, ImageConfig
from specshards.render.lines import COLOURS, FULL, SPARE, LineSettings, canvas, clear, develop, draw, pieces
from specshards.render.prepare import DRAWN, Floats, Flux, Good, KernelArrays, Places, one_of, select
from specshards.render.registry import RENDERERS
from specshards.render.scale import Scale
from specshards.render.simple import polylines
from specshards.render.wavelengths import of_columns

if TYPE_CHECKING:
    from specshards.render.device.draw import DeviceRenderer


@RENDERERS.register("overlap")
class Overlap(Renderer):
    """Each third of the window, or of the spectrum's pixels, spans the picture's width; one flux scale serves all.

    Lines are drawn one after another over white, each with the same opacity.
    """

    presets = MappingProxyType(
        {
            "default": {},
            "aligned": {},
            "paper": {**PUBLISHED, "axis": "spectrum"},
            "robust": {"limits": "percentile"},
        }
    )
    gallery = ("default", "paper")
    options = ("axis",)

    def __init__(self, config: ImageConfig) -> None:
        super().__init__(config)
        self.code_shape = (config.size, config.size, 3)
        self._settings, self._scale = LineSettings.of(config), Scale.of(config, 256)

    def _canvas(self) -> npt.NDArray[np.int32]:
        return np.stack([canvas(self.config.size)] * 3)

    def _draw(self, spectrum: KernelArrays, out: Codes) -> tuple[int, int]:
        return draw_overlap(*spectrum, self._settings, self._scale, self._scratch(self._canvas), out)

    def _draw_batch(self, spectra: KernelArrays, places: Places, out: Codes, states: Any) -> None:
        draw_batch(*spectra, places, self._settings, self._scale, self._chunks(len(states)), out, states)

    def _wavelengths(self, flux: Flux, ivar: Flux, inside: Floats, good: Good) -> Floats:
        return of_columns(self.config, inside, good, 3)

    def device(self) -> DeviceRenderer:
        """Draws RGB."""
        from specshards.render.device.lines import DeviceLines

        return DeviceLines(self, 3)


@njit(nogil=True, cache=True)
def draw_overlap(flux, ivar, wavelength, mask, settings, scale, ink, out):  # type: ignore[no-untyped-def]
    """One spectrum to RGB: status, and the number of pixels in the window.

    Args:
        flux, ivar, wavelength, mask: as `render.prepare.as_arrays` returns them.
        ink: three empty `render.lines.canvas`; empty again afterwards.
        out: uint8 `(size, size, 3)`, overwritten when the status is DRAWN.
    """
    status, flux, _, wavelength, good = select(flux, ivar, wavelength, mask, settings.low, settings.high, False)
    if status != DRAWN:
        return status, len(flux)
    size = settings.size
    x, y, ends = polylines(flux, wavelength, good, settings, scale, 3)
    first = 0
    for third in range(3):
        end = ends[third]
        if end - first > 1:  # a survey that ends before this third has no line there
            part_x, part_y, points = pieces(x[first:end], y[first:end], end - first)
            draw(part_x, part_y, points, settings.width, ink[third])
        first = end
    lines, flat = np.zeros((3, size), np.int32), out.reshape(size, 3 * size)
    for row in range(size):
        for third in range(3):
            develop(ink[third], row, lines[third])
        _blend(lines[0], lines[1], lines[2], np.float32(settings.alpha), flat[row])
    for third in range(3):
        clear(ink[third])
    return DRAWN, len(flux)


@njit(nogil=True, cache=True)
def _blend(first, second, third, alpha, out):  # type: ignore[no-untyped-def]
    """Three lines of ink over white, one after another, to RGB uint8 `(size * 3,)`.

    Each line lays its colour over what is there: level + (colour - level) * share, multiplied out for `COLOURS`.
    """
    one, half = np.float32(1), np.float32(0.5)
    white, green = np.float32(255), np.float32(COLOURS[1][1])
    for column in range(len(first)):
        a, b, c = _share(first[column], alpha), _share(second[column], alpha), _share(third[column], alpha)
        red = white * ((one - b) * (one - c))
        rest = red * (one - a)
        out[3 * column] = np.uint8(np.int32(red + half))
        out[3 * column + 1] = np.uint8(np.int32(rest + green * (b * (one - c)) + half))
        out[3 * column + 2] = np.uint8(np.int32(rest + white * c + half))


@njit(nogil=True, cache=True)
def _share(ink, alpha):  # type: ignore[no-untyped-def]
    return np.float32(min(max(ink, np.int32(0)), np.int32(FULL))) * (alpha / np.float32(FULL))


@njit(nogil=True, cache=True, parallel=True)
def draw_batch(flux, ivar, wavelength, mask, places, settings, scale, chunks, out, states):  # type: ignore[no-untyped-def]
    """`draw_overlap` of B spectra end to end in the arrays; see `Renderer.codes_batch`."""
    count = len(states)
    for chunk in prange(chunks):
        ink = np.zeros((3, settings.size + 3, settings.size + SPARE), np.int32)
        for i in range(chunk * count // chunks, (chunk + 1) * count // chunks):
            f, v, w, m = one_of(i, flux, ivar, wavelength, mask, places)
            states[i], _ = draw_overlap(f, v, w, m, settings, scale, ink, out[i])

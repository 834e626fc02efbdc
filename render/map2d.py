"""`map2d`: flux values row by row into square cells of a colour map (Spectromer, A&A 709, A122)."""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit, prange

from specshards.render.base import Codes, Renderer
from specshards.render.channels import draw_channels, draw_channels_batch
from specshards.render.config import CHANNEL_SETS, LIMITS, PUBLISHED, ImageConfig
from specshards.render.grid import NATIVE, MapSettings, on_grid
from specshards.render.prepare import DRAWN, Floats, Flux, Good, KernelArrays, Places, one_of, select
from specshards.render.registry import RENDERERS
from specshards.render.scale import Scale, channel_codes, colour_codes, limits
from specshards.render.wavelengths import of_cells

if TYPE_CHECKING:
    from specshards.render.device.draw import DeviceRenderer

#: Channels that are made of running sums and medians.
ORDERED = ("roi", "residual", "significance")


@lru_cache
def colour_table(name: str) -> Codes:
    """The 256 colours of a matplotlib colour map: uint8 `(256, 3)`."""
    import matplotlib as mpl

    return np.ascontiguousarray(mpl.colormaps[name](np.arange(256), bytes=True)[:, :3])


@RENDERERS.register("map2d")
class Map2d(Renderer):
    """Flux value i of the window stands in cell i, counted along rows of `size // block` cells from the top left.

    Codes and colours equal matplotlib's `Normalize` and colour map for float32 flux bit for bit. Bad pixels are
    filled by a straight line between good neighbours. Cells past the spectrum's end, and the strip that whole blocks
    leave free at the right and at the bottom, show flux 0 for fixed limits, as the paper's code does, and the lowest
    colour for limits of the spectrum's own; they are black in RGB.
    """

    presets = MappingProxyType(
        {
            "default": {},
            "paper": {**PUBLISHED, "limits": "fixed"},
            "paper-red": {**PUBLISHED, "channels": CHANNEL_SETS["red"]},
            "paper-derivatives": {**PUBLISHED, "channels": CHANNEL_SETS["derivatives"], "derivative": "pixel"},
            "paper-roi": {**PUBLISHED, "channels": CHANNEL_SETS["roi"], "roi_threshold": 1.5, "roi_unit": "flux"},
            "robust": {"limits": "percentile", "scale": "asinh"},
            "survey-free": {"limits": "percentile", "grid": "log"},
            "quality": {"limits": "percentile", "grid": "log", "channels": CHANNEL_SETS["quality"]},
            "lines": {"limits": "percentile", "grid": "log", "channels": CHANNEL_SETS["lines"]},
            "patch": {"limits": "percentile", "grid": "log", "block": 2, "order": "patch"},
        }
    )
    gallery = tuple(presets)
    limits = LIMITS
    options = ("channels", "order", "grid", "derivative")
    noisy = True

    def __init__(self, config: ImageConfig) -> None:
        super().__init__(config)
        cells, coloured = config.cells, len(config.channels) == 1
        #: Flux alone, coloured or as red, green or blue: gray codes from a kernel of its own.
        self._plain = set(config.channels) <= {"flux", "none"} and config.channels.count("flux") == 1
        self.code_shape = (cells, cells) if coloured or self._plain else (cells, cells, 3)
        self.block = config.block
        if coloured:
            self.lut = colour_table(config.colormap)
        elif self._plain:
            ramp = np.arange(256, dtype=np.uint8)[:, None]
            self.lut = ramp * np.array([name == "flux" for name in config.channels], np.uint8)
        self._scale = Scale.of(config, 256 if coloured else 255)
        self._settings = MapSettings.of(config, self._scale)
        self.empty = self._settings.empty

    def _draw(self, spectrum: KernelArrays, out: Codes) -> tuple[int, int]:
        if self._plain:
            return draw_map(*spectrum, self._settings, self._scale, out)
        return draw_channels(
            *spectrum, self._settings, self._scale, out.reshape(*out.shape[:2], len(self.config.channels))
        )

    def _draw_batch(self, spectra: KernelArrays, places: Places, out: Codes, states: Any) -> None:
        if self._plain:
            draw_batch(*spectra, places, self._settings, self._scale, out, states)
            return
        out = out.reshape(*out.shape[:3], len(self.config.channels))
        draw_channels_batch(*spectra, places, self._settings, self._scale, out, states)

    def _wavelengths(self, flux: Flux, ivar: Flux, inside: Floats, good: Good) -> Floats:
        return of_cells(self.config, flux, ivar, inside, good)

    def device(self) -> DeviceRenderer | str:
        """Draws all but sums whose rounding depends on their order, which a GPU does not keep."""
        from specshards.render.device.map2d import DeviceMap

        left = [name for name in self.config.channels if name in ORDERED]
        return f"channels {', '.join(left)}: sums whose rounding depends on their order" if left else DeviceMap(self)


@njit(nogil=True, cache=True)
def draw_map(flux, ivar, wavelength, mask, settings, scale, out):  # type: ignore[no-untyped-def]
    """One spectrum to the codes of its flux: status, and the number of pixels in the window.

    Args:
        flux, ivar, wavelength, mask: as `render.prepare.as_arrays` returns them.
        out: uint8 `(cells, cells)`, overwritten when the status is DRAWN.
    """
    weigh = settings.grid != NATIVE
    status, flux, ivar, wavelength, good = select(flux, ivar, wavelength, mask, settings.low, settings.high, weigh)
    pixels = len(flux)
    if status != DRAWN:
        return status, pixels
    status, flux, ivar, wavelength, good, _, first, end = on_grid(flux, ivar, wavelength, good, settings, out.size)
    if status != DRAWN:
        return status, pixels
    low, high = limits(flux, good, scale)
    flat, codes = out.reshape(-1), out.reshape(-1)
    if len(settings.place):
        codes = np.empty(out.size, np.uint8)
    for i in range(first):
        codes[i] = settings.empty
    if len(settings.channels) == 1:
        colour_codes(flux[first:end], low, high, scale, codes[first:end])
    else:
        channel_codes(flux[first:end], low, high, scale, codes[first:end])
    for i in range(end, len(codes)):
        codes[i] = settings.empty
    for i in range(len(settings.place)):
        flat[settings.place[i]] = codes[i]
    return DRAWN, pixels


@njit(nogil=True, cache=True, parallel=True)
def draw_batch(flux, ivar, wavelength, mask, places, settings, scale, out, states):  # type: ignore[no-untyped-def]
    """`draw_map` of B spectra end to end in the arrays; see `Renderer.codes_batch`."""
    for i in prange(len(states)):
        f, v, w, m = one_of(i, flux, ivar, wavelength, mask, places)
        states[i], _ = draw_map(f, v, w, m, settings, scale, out[i])

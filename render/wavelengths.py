"""Which wavelength each pixel of a picture shows: what turns a place in a picture back into Angstrom."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.render.config import ImageConfig
from specshards.render.grid import MapSettings, cell_order, on_grid
from specshards.render.prepare import DRAWN, Floats, as_arrays, reason, select
from specshards.render.scale import Scale


def where(config: ImageConfig, wavelength: npt.NDArray[Any]) -> Floats:
    """Wavelengths that a spectrum's picture shows, Angstrom: float64 `(k, size, size)`, NaN where it shows none.

    k is 3 for `overlap`, whose columns show a wavelength of each third of the window at once, the bluest first; else
    it is 1. A cell of `map2d` shows the wavelength of its value: of the pixel on the native grid, of the point or bin
    centre on the others. A column of `simple` and `overlap` shows its middle, from the first column that the
    spectrum reaches to the last.

    Args:
        wavelength: `(N,)`, Angstrom, as for `Renderer.codes`. Bad pixels do not matter: they are drawn over.

    Raises:
        RenderError: the picture of a spectrum with these wavelengths cannot be drawn.
    """
    flux = np.ones(np.shape(wavelength), np.float32)
    spectrum = as_arrays(flux, None, wavelength, None)
    status, flux, ivar, inside, good = select(*spectrum, *config.window, True)
    if status != DRAWN:
        raise reason(status, config, len(flux))
    if config.image == "map2d":
        return _cells(config, flux, ivar, inside, good)
    return _columns(config, inside, 3 if config.image == "overlap" else 1)


def _cells(
    config: ImageConfig, flux: npt.NDArray[Any], ivar: npt.NDArray[Any], inside: Floats, good: npt.NDArray[np.bool_]
) -> Floats:
    settings = MapSettings.of(config, Scale.of(config, 256))
    count, size, block = config.cells**2, config.size, config.block
    status, _, _, values, _, _, first, end = on_grid(flux, ivar, inside, good, settings, count)
    if status != DRAWN:
        raise reason(status, config, len(inside))
    cells = np.full(count, np.nan)
    cells[cell_order(config)[first:end]] = values[first:end]
    picture = np.full((1, size, size), np.nan)
    drawn = config.cells * block
    square = cells.reshape(config.cells, config.cells)
    picture[0, :drawn, :drawn] = square.repeat(block, axis=0).repeat(block, axis=1)
    return picture


def _columns(config: ImageConfig, inside: Floats, parts: int) -> Floats:
    """Columns of a picture whose width each of `parts` equal pieces of the window spans."""
    low, high = config.window
    size = config.size
    x = ((inside - low) * (parts * size / (high - low))).astype(np.float32)  # as `render.simple.polyline` has it
    part = np.minimum(x // size, parts - 1).astype(int)
    middles = low + (np.arange(parts * size) + 0.5) * ((high - low) / (parts * size))
    columns = np.full((parts, size), np.nan)
    for i in range(parts):
        reached = x[part == i] - np.float32(i * size)
        if len(reached) > 1:  # a line has two ends
            first, last = int(reached[0]), min(int(reached[-1]), size - 1)
            columns[i, first : last + 1] = middles[i * size + first : i * size + last + 1]
    return np.repeat(columns[:, None, :], size, axis=1)

"""Which wavelength each pixel of a picture shows: what turns a place in a picture back into Angstrom."""

from __future__ import annotations

import numpy as np

from specshards.render.config import ImageConfig
from specshards.render.grid import MapSettings, cell_order, on_grid
from specshards.render.lines import LineSettings
from specshards.render.prepare import DRAWN, Floats, Flux, Good, reason
from specshards.render.scale import Scale


def of_cells(config: ImageConfig, flux: Flux, ivar: Flux, inside: Floats, good: Good) -> Floats:
    """Of a picture of cells: the wavelength of each one's value, float64 `(1, size, size)`.

    That is the pixel's on the native grid, of the point or bin centre on the others.

    Args:
        flux, ivar, inside, good: what `render.prepare.select` gives.

    Raises:
        RenderError: such a spectrum does not fit.
    """
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


def of_columns(config: ImageConfig, inside: Floats, finite: Good, parts: int) -> Floats:
    """Of a picture whose width each of `parts` equal pieces of the window, or of the spectrum's pixels, spans.

    A column shows its middle, from the first column that the spectrum, `inside` the window, reaches to the last.
    Pieces of the spectrum (`axis="spectrum"`) have wavelengths of their own, which others do not share.

    Args:
        inside: float64 `(N,)`, rising; finite: bool `(N,)`, whether the flux is. It decides for `axis="spectrum"`.

    Returns:
        float64 `(parts, size, size)`.
    """
    low, high = config.window
    size = config.size
    if config.axis == "spectrum":
        settings = LineSettings.of(config)
        left, width = size * settings.free, size * (1 - 2 * settings.free)
        columns = np.full((parts, size), np.nan)
        # As `render.simple._spanning` has it; a line has two ends.
        lines = [(i, part) for i, part in enumerate(np.array_split(np.arange(len(inside)), parts)) if len(part) > 1]
        shares = {i: (inside[part] - inside[part[0]])[finite[part]] / np.ptp(inside[part]) for i, part in lines}
        ends = [share[k] for share in shares.values() if len(share) for k in (0, -1)]
        for i, part in lines:
            if len(shares[i]) > 1:
                low, span = min(ends), max(ends) - min(ends)
                first, last = ((share - low) / span * width + left for share in shares[i][[0, -1]])
                reached = np.arange(int(first), min(int(last), size - 1) + 1)
                middles = low + (reached + 0.5 - left) * (span / width)
                columns[i, reached] = inside[part[0]] + middles * np.ptp(inside[part])
        return np.repeat(columns[:, None, :], size, axis=1)
    x = ((inside - low) * (parts * size / (high - low))).astype(np.float32)  # as `render.simple.polylines` has it
    part = np.minimum(x // size, parts - 1).astype(int)
    middles = low + (np.arange(parts * size) + 0.5) * ((high - low) / (parts * size))
    columns = np.full((parts, size), np.nan)
    for i in range(parts):
        reached = x[part == i] - np.float32(i * size)
        if len(reached) > 1:  # a line has two ends
            first, last = int(reached[0]), min(int(reached[-1]), size - 1)
            columns[i, first : last + 1] = middles[i * size + first : i * size + last + 1]
    return np.repeat(columns[:, None, :], size, axis=1)

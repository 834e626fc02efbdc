"""Which value stands in which cell of a `map2d`: the wavelength grid, and the order of the cells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from specshards.render.config import CHANNELS, GRIDS, PATCH, ImageConfig
from specshards.render.prepare import DRAWN, OUTSIDE, TOO_MANY, fill_gaps
from specshards.render.resample import log_edges, stretch, to_bins, to_centres
from specshards.render.scale import Scale, colour_codes

NATIVE, STRETCH, LOG = range(len(GRIDS))


class MapSettings(NamedTuple):
    """What the kernels of `map2d` take of a configuration; see `ImageConfig`.

    Attributes:
        low, high: the window, Angstrom.
        grid: position in `GRIDS`; conserve: resample by mean over the bin, not by value at its centre.
        edges, centres: of the log grid, float64 `(cells**2 + 1,)` and `(cells**2,)`, else empty.
        place: int32 `(cells**2,)`, the cell of every value in the order it stands in; empty for rows.
        empty: code of cells without a value.
        channels: positions in `CHANNELS`.
    """

    low: float
    high: float
    grid: int
    conserve: bool
    edges: npt.NDArray[np.float64]
    centres: npt.NDArray[np.float64]
    place: npt.NDArray[np.int32]
    empty: int
    channels: npt.NDArray[np.int64]
    threshold: float
    in_sigma: bool
    continuum_width: float
    line_width_kms: float
    per_pixel: bool  # derivatives

    @classmethod
    def of(cls, config: ImageConfig, scale: Scale) -> MapSettings:
        """Of a configuration and its scale."""
        edges = log_edges(config.window, config.cells**2) if config.grid == "log" else np.empty(0)
        place = cell_order(config) if config.order != "rows" else np.empty(0, np.int32)
        empty = np.zeros(1, np.uint8)
        if config.limits == "fixed" and len(config.channels) == 1:
            colour_codes(np.zeros(1, np.float32), config.flux_min, config.flux_max, scale, empty)
        channels = np.array([CHANNELS.index(name) for name in config.channels])
        return cls(
            *config.window, GRIDS.index(config.grid), config.resample == "flux", edges,
            np.sqrt(edges[1:] * edges[:-1]), place, int(empty[0]), channels,
            config.roi_threshold, config.roi_unit == "sigma", config.continuum_width, config.line_width_kms,
            config.derivative == "pixel",
        )  # fmt: skip


def cell_order(config: ImageConfig) -> npt.NDArray[np.int32]:
    """Where each value goes: cell numbers along rows from the top left, int32 `(cells**2,)`, in the values' order."""
    cells = config.cells
    order: npt.NDArray[np.int32] = np.arange(cells * cells, dtype=np.int32).reshape(cells, cells)
    if config.order == "boustrophedon":
        order[1::2] = order[1::2, ::-1]
    if config.order == "patch":
        side = PATCH // config.block
        order = order.reshape(cells // side, side, cells // side, side).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(order.reshape(-1))


@njit(nogil=True, cache=True)
def on_grid(flux, ivar, wavelength, good, settings, cells):  # type: ignore[no-untyped-def]
    """The values that fill the cells, without gaps.

    Returns:
        status, flux float32 `(m,)`, ivar float32, wavelength float64, good bool, share float32 (of each value's width
        that good pixels cover), and the first and past-the-last value that the spectrum reaches.
    """
    status, first, end = DRAWN, 0, len(flux)
    share = np.empty(0, np.float32)
    if settings.grid == STRETCH:
        fill_gaps(flux, good)
        stretched, where = np.empty(cells, np.float32), np.empty(cells, np.float64)
        stretch(flux, wavelength, stretched)
        step = (wavelength[-1] - wavelength[0]) / (cells - 1)
        nearest, weights = np.empty(cells, np.bool_), np.empty(cells, np.float32)
        for i in range(cells):
            where[i] = wavelength[0] + i * step
            k = min(np.searchsorted(wavelength, where[i]), len(flux) - 1)
            if k > 0 and where[i] - wavelength[k - 1] < wavelength[k] - where[i]:
                k -= 1
            nearest[i], weights[i] = good[k], ivar[k]
        flux, ivar, wavelength, good, end = stretched, weights, where, nearest, cells
    elif settings.grid == LOG:
        new_flux, new_ivar = np.empty(cells, np.float32), np.empty(cells, np.float32)
        new_good, share = np.empty(cells, np.bool_), np.empty(cells, np.float32)
        if settings.conserve:
            first, end = to_bins(flux, ivar, wavelength, good, settings.edges, new_flux, new_ivar, new_good, share)
        else:
            first, end = to_centres(flux, ivar, wavelength, good, settings.edges, new_flux, new_ivar, new_good, share)
        flux, ivar, wavelength, good = new_flux, new_ivar, settings.centres, new_good
    elif len(flux) > cells:
        status = TOO_MANY
    if status == DRAWN and good.sum() < 2:
        status = OUTSIDE  # none of the few cells that there are has something good to show
    if settings.grid != STRETCH:
        fill_gaps(flux[first:end], good[first:end])
    return status, flux, ivar, wavelength, good, share, first, end

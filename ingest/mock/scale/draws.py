"""What each row of the mock survey at scale shows: which object, where, how bright, on which grid.

The same distributions as `ingest.mock.objects` draws for the FITS mock, in Numba. A row follows from (seed, survey,
row number) alone, however many rows there are, so rows can be made in any order by any number of processes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from specshards.ingest.mock.objects import CLASS_SHARES, LAYOUT_SHARES, SURVEYS
from specshards.ingest.mock.scale.counter_random import Stream, integer, normal, stream_key, uniform
from specshards.ingest.mock.scale.templates import KINDS, Bank

_ARCSEC = 1.0 / 3600.0
_SOUTH, _NORTH = float(np.sin(np.deg2rad(-10.0))), float(np.sin(np.deg2rad(60.0)))
_OBJECT, _VISIT, _CHAIN = 1, 2, 3
NOISE, CLOUDS, BLEMISHES = 4, 5, 6
"""Purposes of random streams, beside the three above."""

ROW = np.dtype(
    [(name, np.int64) for name in ("row", "object", "kind", "template", "first", "size")]
    + [(name, np.float64) for name in ("ra", "dec", "z", "ebv", "sn", "scale", "tilt", "bend", "bump")],
    align=True,
)
"""One row's plan. `object` is the row that shows the same object for the first time; `kind` and `template` point into
the bank; the grid's pixel i lies at log10(wavelength) = 1e-4 (`first` + i), `size` pixels of it. `ra`, `dec` degrees;
`ebv` mag; `sn` median signal-to-noise aimed at; `scale` median flux in the survey's unit; `tilt`, `bend` and `bump`
make up the error of the flux calibration."""


class Shares(NamedTuple):
    """What the draws of a survey depend on: cumulative class shares, calibration errors, quantiles of redshift."""

    survey: int
    classes: npt.NDArray[np.float64]
    first_layout: float
    repeats: float
    smooth: float
    dichroic: float
    galaxy_z: npt.NDArray[np.float64]
    quasar_z: npt.NDArray[np.float64]


@lru_cache(maxsize=8)
def shares(survey: str, repeat_fraction: float) -> Shares:
    """The numbers behind `draw_rows`; `repeat_fraction` of the objects have a second visit."""
    wanted = np.array([CLASS_SHARES[survey][kind] for kind in KINDS])
    x = np.linspace(0.0, 1.0, 20001)
    lamost = survey == "lamost"
    return Shares(
        SURVEYS.index(survey), np.cumsum(wanted) / wanted.sum(), LAYOUT_SHARES["sdss"]["specobj"],
        repeat_fraction / (1.0 + repeat_fraction), 0.08 if lamost else 0.02, 0.05 if lamost else 0.005,
        0.01 + _quantiles(x, x**1.2 * np.exp(-x / 0.055)),  # Gamma(2.2) of scale 0.055
        0.2 + 3.8 * _quantiles(x, x**0.7 * (1.0 - x) ** 1.3),  # Beta(1.7, 2.3)
    )  # fmt: skip


def _quantiles(x: npt.NDArray[np.float64], density: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    mass = np.concatenate(([0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))))
    return np.interp(np.linspace(0.0, 1.0, 8193), mass / mass[-1], x)


@njit(nogil=True, cache=True)
def _start(stream: Stream, seed: int, survey: int, purpose: int, number: int) -> None:
    stream[0] = stream_key(seed, survey, purpose, number)
    stream[1] = np.uint64(0)


@njit(nogil=True, cache=True)
def _first_visit(stream: Stream, seed: int, shares: Shares, row: int) -> int:
    """The row that shows this row's object for the first time: itself, but for repeat visits."""
    while row > 0:
        _start(stream, seed, shares.survey, _CHAIN, row)
        if uniform(stream, 0.0, 1.0) >= shares.repeats:
            return row
        row = integer(stream, 0, row)  # any earlier row, so that a longer survey begins with a shorter one
    return row


@njit(nogil=True, cache=True)
def _quantile(stream: Stream, quantiles: npt.NDArray[np.float64]) -> float:
    place = uniform(stream, 0.0, len(quantiles) - 1.0)
    i = int(place)
    return quantiles[i] + (place - i) * (quantiles[i + 1] - quantiles[i])


@njit(nogil=True, cache=True)
def _redshift(stream: Stream, shares: Shares, kind: int) -> float:
    if kind == 0:
        return min(max(normal(stream, 0.0, 2e-4), -0.0015), 0.0015)
    if kind == 2:
        return _quantile(stream, shares.quasar_z)
    if shares.survey == 1 and uniform(stream, 0.0, 1.0) < 0.4:  # luminous red galaxies of BOSS
        return min(max(normal(stream, 0.45, 0.09), 0.01), 0.6)
    return min(_quantile(stream, shares.galaxy_z), 0.6)


@njit(nogil=True, cache=True)
def _draw_object(stream: Stream, shares: Shares, bank: Bank, out: Any) -> None:
    """The object: the same for each of its visits."""
    draw = uniform(stream, 0.0, 1.0)
    out.kind = 0 if draw < shares.classes[0] else 1 if draw < shares.classes[1] else 2
    out.template = integer(stream, 0, bank.number[out.kind])
    out.ra = uniform(stream, 0.0, 360.0)
    out.dec = np.rad2deg(np.arcsin(uniform(stream, _SOUTH, _NORTH)))
    out.sn = min(max(16.0 * np.exp(normal(stream, 0.0, 0.75)), 3.0), 80.0)
    out.ebv = min(-0.05 * np.log(1.0 - uniform(stream, 0.0, 1.0)), 0.5)
    out.z = _redshift(stream, shares, out.kind)


@njit(nogil=True, cache=True)
def _draw_visit(stream: Stream, shares: Shares, out: Any) -> None:
    """What changes from visit to visit: position within 0.5 arcsec, S/N, grid, calibration."""
    out.ra = (out.ra + uniform(stream, -0.15, 0.15) * _ARCSEC / np.cos(np.deg2rad(out.dec))) % 360.0
    out.dec += uniform(stream, -0.15, 0.15) * _ARCSEC
    out.sn = min(max(out.sn * np.exp(normal(stream, 0.0, 0.25)), 3.0), 80.0)
    if shares.survey == 0:
        out.scale = 25.0 * out.sn * 10.0 ** normal(stream, 0.0, 0.45)  # relative flux
        out.first = 35682
        out.size = 3909 if uniform(stream, 0.0, 1.0) < 0.75 else integer(stream, 3900, 3909)
    else:
        out.scale = 0.45 * out.sn * (1.0 + out.sn / 25.0) * 10.0 ** normal(stream, 0.0, 0.05)  # 1e-17 erg/s/cm2/A
        if uniform(stream, 0.0, 1.0) < shares.first_layout:  # the SDSS spectrographs, else the BOSS ones
            out.first, out.size = integer(stream, 35790, 35812), integer(stream, 3800, 3856)
        else:
            out.first, out.size = integer(stream, 35510, 35536), integer(stream, 4540, 4601)
    out.tilt, out.bend = normal(stream, 0.0, shares.smooth), normal(stream, 0.0, shares.smooth)
    out.bump = normal(stream, 0.0, shares.dichroic)


@njit(nogil=True, cache=True)
def draw_rows(seed: int, shares: Shares, bank: Bank, first_row: int, out: Any) -> None:
    """Fill `out`, an array of `ROW` `(n,)`, with the rows from `first_row` on."""
    stream = np.empty(2, np.uint64)
    for i in range(len(out)):
        row = first_row + i
        out[i].row = row
        out[i].object = _first_visit(stream, seed, shares, row)
        _start(stream, seed, shares.survey, _OBJECT, out[i].object)
        _draw_object(stream, shares, bank, out[i])
        _start(stream, seed, shares.survey, _VISIT, row)
        _draw_visit(stream, shares, out[i])

"""The plots of a data set's page: matplotlib figures in the look of `common.svg`, and outlines of spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from specshards.common.spectrum import Arrays
from specshards.common.svg import ACCENT, GRID, MUTED, SERIES, new_figure
from specshards.ingest.spectra.plots import flux_limits
from specshards.ingest.spectra.schema import HEALPIX_ORDER, healpix_29
from specshards.shards.report.samples import STEP, Coverage, usable
from specshards.shards.report.statistics import SKY_ORDER, Histogram

Floats = npt.NDArray[np.float64]
Lines = list[list[tuple[float, float]]]

#: Of a spectrum's plot: width and height of its frame, what is below for the axis, and columns of the line.
_WIDTH, _HEIGHT, _AXIS_HEIGHT, _COLUMNS = 340, 120, 14, 170
_SKY_PIXELS = 600, 300
#: Right ascension in the middle of the map, degrees; it grows to the left, as seen from inside.
_MIDDLE = 180.0


def histogram(data: Histogram, names: Sequence[str]) -> Figure:
    """Objects by value, a line a class; `names` are the classes and the word for those without."""
    figure = new_figure(3.4)
    axes = figure.add_subplot()
    colours = (*SERIES[: len(names) - 1], MUTED)
    for counts, name, colour, total in zip(data.counts, names, colours, data.objects, strict=True):
        if total:
            axes.stairs(counts, data.edges, color=colour, label=f"{name} {total:,}", lw=1.4)
    unit = f" ({data.axis.unit})" if data.axis.unit else ""
    axes.set(
        xlabel=f"{data.axis.title}{unit}", ylabel="objects", yscale="log", title=f"{data.objects.sum():,} objects"
    )
    axes.set(xlim=(data.edges[0], data.edges[-1]), ylim=(0.6, 2.0 * max(1, data.counts.max())))
    if data.axis.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y")
    axes.legend()
    return figure


def coverage(surveys: Mapping[str, Coverage], window: tuple[float, float]) -> Figure:
    """Share of the spectra with a usable pixel, by wavelength, a line a survey; the picture's window is shaded."""
    figure = new_figure(3.4)
    axes = figure.add_subplot()
    axes.axvspan(*window, color=GRID, alpha=0.6, lw=0, label="window of the picture")
    for (survey, data), colour in zip(surveys.items(), SERIES * len(surveys), strict=False):
        first, last = min(data.bins), max(data.bins)
        shares = [data.bins[i] / len(data.first) for i in range(first, last + 1)]
        edges = STEP * np.arange(first, last + 2)
        axes.stairs(shares, edges, color=colour, label=f"{survey} {len(data.first):,}", lw=1.4)
    axes.set(xlabel="wavelength (Å)", ylabel="share of spectra", ylim=(0, 1.08))
    axes.grid(axis="y")
    axes.legend(loc="lower center")
    return figure


def sky(counts: npt.NDArray[np.int64]) -> Figure:
    """Objects by cell, in Mollweide's projection; a stronger colour means more of them, logarithmically.

    Args:
        counts: by nested HEALPix cell of `SKY_ORDER`.
    """
    figure = new_figure(5.0, 2)
    axes = figure.add_subplot()
    cells = _cells()
    objects = np.where(cells >= 0, counts[cells], 0)
    strength = np.log1p(objects) / np.log1p(max(1, int(counts.max())))
    pixels = np.empty((*objects.shape, 4))
    pixels[:, :, :3], pixels[:, :, 3] = to_rgb(ACCENT), np.where(objects > 0, 0.25 + 0.65 * strength, 0)
    axes.imshow(pixels, origin="lower", extent=(-2, 2, -1, 1), interpolation="none", zorder=2)
    lon, lat = np.linspace(-180, 180, 121), np.linspace(-90, 90, 61)
    for parallel in range(-60, 61, 30):
        axes.plot(*mollweide(lon, np.full_like(lon, parallel)), color=GRID, lw=0.6, zorder=1)
        x, y = mollweide(np.array([-180.0]), np.array([float(parallel)]))
        axes.text(float(x[0]) - 0.03, float(y[0]), f"{parallel}°", ha="right", va="center", fontsize=8)
    for meridian in range(-180, 181, 60):
        edge = abs(meridian) == 180
        axes.plot(*mollweide(np.full_like(lat, meridian), lat), color=MUTED if edge else GRID, lw=0.6, zorder=1)
        if not edge:
            x, _ = mollweide(np.array([float(meridian)]), np.array([0.0]))
            label = f"{(_MIDDLE - meridian) % 360:.0f}°"
            axes.text(float(x[0]) + 0.015, 0.015, label, fontsize=9, zorder=3)
    axes.set(xlim=(-2.2, 2.02), ylim=(-1.02, 1.02), aspect="equal")
    axes.set_axis_off()
    return figure


def mollweide(lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
    """Mollweide's projection of longitudes -180 to 180 and latitudes, degrees, to an ellipse of half axes 2 and 1.

    Source: Snyder 1987, Map projections: a working manual, equations 31-1 to 31-3.
    """
    phi = np.radians(np.asarray(lat, np.float64))
    theta = phi.copy()
    inner = np.abs(phi) < np.pi / 2 - 1e-9
    for _ in range(50):  # Newton's; near the poles it gains only a factor of 2 a step
        slope = 2 + 2 * np.cos(2 * theta[inner])
        theta[inner] -= (2 * theta[inner] + np.sin(2 * theta[inner]) - np.pi * np.sin(phi[inner])) / slope
    return np.asarray(lon) / 90 * np.cos(theta), np.sin(theta)


def sky_position(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """The inverse of `mollweide`; NaN outside the ellipse."""
    with np.errstate(invalid="ignore", divide="ignore"):
        theta = np.arcsin(y)
        lat = np.degrees(np.arcsin((2 * theta + np.sin(2 * theta)) / np.pi))
        lon = 90 * x / np.cos(theta)
    outside = ~(np.abs(lon) <= 180)
    return np.where(outside, np.nan, lon), np.where(outside, np.nan, lat)


@dataclass(frozen=True)
class SpectrumPlot:
    """One spectrum as `templates/spectrum.html` draws it; what is on the axes is in whole pixels.

    Attributes:
        ends, middles: paths through the lowest and highest pixel of each column, and through the medians.
        zero: height of flux 0; None beyond the frame. ticks: of the wavelengths, with names where there is room.
        beyond: pixels beyond the flux range.
    """

    ends: str
    middles: str
    zero: str | None
    ticks: tuple[tuple[str, str], ...]
    flux_range: str
    beyond: int
    width: int = _WIDTH
    height: int = _HEIGHT
    axis_height: int = _AXIS_HEIGHT


def spectrum_plot(arrays: Arrays, window: tuple[float, float]) -> SpectrumPlot | None:
    """A spectrum without its bad pixels; None where none is good.

    Args:
        window: of the frame, wavelengths in Angstrom.
    """
    flux, _, wavelength, _ = arrays
    good = usable(arrays)
    if not good.any():
        return None
    low, high, beyond = flux_limits(arrays._replace(mask=~good))
    left, right = window
    x, y = _WIDTH / (right - left), _HEIGHT / (high - low)

    def path(lines: Lines) -> str:
        return "".join(
            "M" + "L".join(f"{(w - left) * x:.0f} {(high - f) * y:.0f}" for w, f in line) for line in lines
        )

    ends, middles = outline(wavelength, np.clip(flux, low, high), good, np.linspace(left, right, _COLUMNS + 1))
    thousands = range(int(np.ceil(left / 1000)) * 1000, int(right) + 1, 1000)
    places = [(tick, (tick - left) * x) for tick in thousands]
    return SpectrumPlot(
        path(ends), path(middles), f"{high * y:.0f}" if low < 0 < high else None,
        tuple((f"{place:.0f}", f"{tick}" if 14 < place < _WIDTH - 14 else "") for tick, place in places),
        f"{low:.3g} to {high:.3g}", beyond,
    )  # fmt: skip


def outline(
    wavelength: npt.NDArray[np.floating], flux: npt.NDArray[np.floating], good: npt.NDArray[np.bool_], edges: Floats
) -> tuple[Lines, Lines]:
    """A spectrum as few points.

    Returns:
        Lines through the lowest and the highest good pixel of every column between `edges`, in order, so that no
        narrow line is lost; and through the medians. They are apart where bad pixels fill a column.
    """
    order = np.argsort(wavelength, kind="stable")
    wavelength, flux, good = (np.asarray(values)[order] for values in (wavelength, flux, good))
    column = np.searchsorted(edges, wavelength, side="right") - 1
    column[wavelength == edges[-1]] -= 1
    inside = (column >= 0) & (column < len(edges) - 1)
    bad = np.unique(column[inside & ~good])
    kept = np.flatnonzero(inside & good)
    numbers, starts, counts = np.unique(column[kept], return_index=True, return_counts=True)
    by_flux = kept[np.lexsort((flux[kept], column[kept]))]  # column after column, as `kept` is
    outer = np.sort([by_flux[starts], by_flux[starts + counts - 1]], axis=0)
    halves = starts + (counts - 1) // 2, starts + counts // 2
    middle = [np.mean([values[places[half]] for half in halves], axis=0)
              for values, places in ((wavelength, kept), (flux, by_flux))]  # fmt: skip
    ends: Lines = []
    middles: Lines = []
    last = -1
    for number, lowest, highest, w, f in zip(numbers, *outer, *middle, strict=True):
        if not ends or np.any((bad > last) & (bad < number)):
            ends.append([])
            middles.append([])
        ends[-1] += [(float(wavelength[i]), float(flux[i])) for i in dict.fromkeys((lowest, highest))]
        middles[-1].append((float(w), float(f)))
        last = number
    return ends, middles


@lru_cache
def _cells() -> npt.NDArray[np.int64]:
    """The HEALPix cell of every pixel of the map, -1 outside of it; the first row is the lowest."""
    width, height = _SKY_PIXELS
    x, y = np.meshgrid(4 * (np.arange(width) + 0.5) / width - 2, 2 * (np.arange(height) + 0.5) / height - 1)
    lon, lat = sky_position(x, y)
    inside = np.isfinite(lon)
    cells = np.full(lon.shape, -1, np.int64)
    ra = (_MIDDLE - lon[inside]) % 360
    cells[inside] = healpix_29(ra, lat[inside]) >> 2 * (HEALPIX_ORDER - SKY_ORDER)
    return cells

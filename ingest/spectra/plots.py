"""Pictures of spectra for people: one with its lines and errors, or many on a sheet."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

from specshards.common.spectrum import Arrays, Spectrum
from specshards.ingest.surveys.flux import axis_of
from specshards.ingest.surveys.survey import survey_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Strong lines in vacuum, Angstrom: the SDSS line table (classic.sdss.org/dr6/algorithms/linestable.html). Its sodium
# is in air, so Na D is the mean of the two lines in the NIST Atomic Spectra Database, in vacuum 5891.58 and 5897.56.
_HYDROGEN = (("Hα", 6564.61), ("Hβ", 4862.68), ("Hγ", 4341.68), ("Hδ", 4102.89))
_METALS = (("Ca K", 3934.777), ("Mg b", 5176.7), ("Na D", 5894.57), ("Ca II", 8544.44))
_NEBULAR = (("[O II]", 3728.48), ("[O III]", 5008.240))
_BROAD = (("Lyα", 1215.24), ("C IV", 1549.48), ("C III]", 1908.734), ("Mg II", 2799.117))
_GALAXY = (*_HYDROGEN[:2], *_METALS[:3], *_NEBULAR)
_LINES = {"STAR": (*_HYDROGEN, *_METALS), "GALAXY": _GALAXY, "QSO": (*_HYDROGEN[:3], *_NEBULAR, *_BROAD)}


def strong_lines(kind: str | None) -> tuple[tuple[str, float], ...]:
    """Names and rest wavelengths (Angstrom, vacuum) of the lines worth marking in a class; else those of a galaxy."""
    return _LINES.get(kind or "", _GALAXY)


def flux_limits(spectrum: Arrays) -> tuple[float, float, int]:
    """Limits of the flux axis that a few wild pixels do not set, and how many good pixels lie beyond them."""
    import numpy as np

    good = spectrum.good()
    flux, ivar = spectrum.flux[good].astype(np.float64), spectrum.weight()[good]
    # A running median keeps lines, which are some pixels wide, and drops spikes, which are not.
    width = min(3, len(flux))
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(flux, width), axis=1)
    low, high = np.percentile(smooth, [0.5, 99.5])
    # Beyond these only what stands out of the noise: the ends of a spectrum are often nothing but noise.
    significant = np.abs(flux) * np.sqrt(ivar) > 5
    lines = smooth[significant[width // 2 :][: len(smooth)]]
    low, high = min(low, lines.min(initial=low)), max(high, lines.max(initial=high))
    # The median cuts the peaks of narrow lines: single pixels may stand out by half of the whole.
    reach = 0.5 * (high - low)
    peaks = flux[significant & (flux > low - reach) & (flux < high + reach)]
    low, high = min(low, peaks.min(initial=low)), max(high, peaks.max(initial=high))
    margin = 0.05 * (high - low) or 1.0
    low, high = float(low - margin), float(high + margin)
    return low, high, int(((flux < low) | (flux > high)).sum())


def _plot(axes: Axes, spectrum: Spectrum, width: float) -> int:
    """Flux, its error band and the pixels without use; returns how many good pixels lie beyond the axis."""
    import numpy as np

    good, wave = spectrum.good(), spectrum.wavelength.astype(np.float64)
    flux = np.where(good, spectrum.flux, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma = np.where(good, 1.0 / np.sqrt(spectrum.ivar), np.nan)
    borders = np.concatenate([wave[:1], (wave[1:] + wave[:-1]) / 2, wave[-1:]])
    edges = np.flatnonzero(np.diff(~good, prepend=False, append=False))
    spans = np.stack([borders[edges[::2]], borders[edges[1::2]] - borders[edges[::2]]], axis=1)
    share = f"masked or no information: {100 * (~good).mean():.1f}%"
    axes.broken_barh(spans.tolist(), (0, 1), transform=axes.get_xaxis_transform(), color="#ecd9b4", lw=0, label=share)
    axes.fill_between(wave, flux - sigma, flux + sigma, color="#58a9dc", lw=0, label="±1σ from ivar")
    axes.plot(wave, flux, color="#0d2740", lw=width, label="flux of good pixels")
    low, high, beyond = flux_limits(spectrum.arrays())
    axes.set(xlim=(wave[0], wave[-1]), ylim=(low, high))
    return beyond


def _mark_lines(axes: Axes, spectrum: Spectrum) -> None:
    z, kind = spectrum.labels.get("z"), spectrum.labels.get("class")
    left, right = axes.get_xlim()
    for name, rest in strong_lines(kind):
        at = inf if z is None else rest * (1.0 + z)
        if left < at < right:
            axes.axvline(at, color="#a33b20", lw=0.7, ls=":")
            axes.text(
                at, 1.01, name, transform=axes.get_xaxis_transform(), rotation=55, fontsize=7, color="#a33b20",
                ha="left", va="bottom",
            )  # fmt: skip


def _name(spectrum: Spectrum, between: str) -> str:
    labels = spectrum.labels
    kind = " ".join(labels[name] for name in ("class", "subclass") if labels.get(name)) or "no class"
    z = "no z" if labels.get("z") is None else f"z = {labels['z']:.5g}"
    mock = "MOCK data, " if spectrum.survey.startswith("mock-") else ""
    return between.join([f"{mock}{spectrum.survey.removeprefix('mock-')} {spectrum.object_id}", f"{kind}  ·  {z}"])


def one(spectrum: Spectrum, row: str) -> Figure:
    """One spectrum: flux, errors, pixels without use, strong lines at its redshift; `row` begins the title."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    axes = figure.add_subplot()
    beyond = _plot(axes, spectrum, 0.5)
    _mark_lines(axes, spectrum)
    figure.suptitle(_name(spectrum, f"{row}  ·  "), fontsize=11, parse_math=False)
    clipped = f"; flux axis by robust limits, {beyond:,} good pixels beyond it" if beyond else ""
    axes.set(xlabel=f"wavelength (Å, vacuum, {spectrum.frame} frame){clipped}")
    survey = survey_of(spectrum.survey)
    unit = spectrum.flux_unit or (None if survey is None or spectrum.flux_scale != 1 else survey.flux_unit)
    axes.set_ylabel(axis_of(unit, spectrum.flux_scale))
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def many(spectra: Sequence[Spectrum], title: str) -> Figure:
    """A sheet of small spectra, three to a line."""
    from matplotlib.figure import Figure

    columns = min(3, len(spectra))
    lines = -(-len(spectra) // columns)
    figure = Figure(figsize=(4.2 * columns, 0.7 + 2.0 * lines), layout="constrained")
    beyond = 0
    for place, spectrum in enumerate(spectra, 1):
        axes = figure.add_subplot(lines, columns, place)
        beyond += _plot(axes, spectrum, 0.4)
        axes.set_title(_name(spectrum, "\n"), fontsize=7, parse_math=False)
        axes.tick_params(labelsize=6)
    figure.suptitle(title, fontsize=10, parse_math=False)
    figure.supxlabel(f"wavelength (Å, observed frame); robust flux limits, {beyond:,} good pixels beyond", fontsize=8)
    figure.supylabel("flux (unit and scale of each spectrum)", fontsize=8)
    return figure

"""What there is to know about one spectrum, in words: for `specshards ingest inspect`."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specshards.common.spectrum import Spectrum

_UNITS = {"teff": " K", "logg": " dex", "feh": " dex"}
_FURTHER_SHOWN = 40


def facts(spectrum: Spectrum) -> dict[str, str]:
    """What there is to know about one spectrum: names and texts, in the order of reading."""
    wave, sn = spectrum.wavelength, spectrum.sn_median()
    place = f"RA {spectrum.ra:.6f}, Dec {spectrum.dec:+.6f} deg (ICRS)"
    named = {**spectrum.survey_sn, "sn_survey": spectrum.sn_survey()}
    own = [f"{name} {value:.2f}" for name, value in named.items() if value is not None]
    median = "no sn_median without ivar" if sn is None else f"sn_median {sn:.2f} a pixel"
    return {
        "from": f"{spectrum.survey}, {spectrum.layout}, {Path(spectrum.source_file).name}",
        "position": "none here; a catalogue with ra and dec can give one" if isnan(spectrum.ra) else place,
        "labels": "; ".join([_labels(spectrum), *spectrum.told()]),
        **({"further labels": more} if (more := _further(spectrum)) else {}),
        "pixels": f"{len(wave):,}, {wave[0]:.2f} to {wave[-1]:.2f} Angstrom (vacuum, {spectrum.frame} frame)",
        **spectrum.extra.get("understood", {}),
        "grid": describe_grid(spectrum),
        "good": f"{100 * spectrum.good().mean():.1f} per cent of the pixels",
        "S/N": f"{median}; the survey's own: {', '.join(own) or 'none'}",
    }


def _labels(spectrum: Spectrum) -> str:
    said = []
    for name in ("class", "subclass", "z", "teff", "logg", "feh", "zwarning"):
        value, error = spectrum.labels.get(name), spectrum.labels.get(f"{name}_err")
        if value is not None:
            number = f"{value:.6g}" if isinstance(value, float) else str(value)
            said.append(f"{name} {number}{'' if error is None else f' +- {error:.2g}'}{_UNITS.get(name, '')}")
    return f"{', '.join(said)} (label source: {spectrum.label_source or 'not said'})" if said else "none"


def _further(spectrum: Spectrum) -> str:
    """Further labels under the names of their columns, with their units; the first few in full."""
    from specshards.common.further import further_name, is_further, said

    found = []
    for name, given in sorted(spectrum.labels.items()):
        if is_further(name) and (value := said(given)) is not None:
            unit = spectrum.units.get(name)
            number = f"{value:.6g}" if isinstance(value, float) else str(value)[:40]
            found.append(f"{further_name(name)} {number}{f' {unit}' if unit else ''}")
    more = len(found) - _FURTHER_SHOWN
    return ", ".join(found[:_FURTHER_SHOWN]) + (f" and {more} more" if more > 0 else "")


def describe_grid(spectrum: Spectrum) -> str:
    """`log10`, `linear` or `irregular` with the grid's numbers, measured where the file does not give them."""
    import numpy as np

    if spectrum.wave_coeff0 is not None and spectrum.wave_coeff1 is not None:
        return f"log10, coeff0 {spectrum.wave_coeff0:.8g}, coeff1 {spectrum.wave_coeff1:.8g} (from the file)"
    wave = spectrum.wavelength.astype(np.float64)
    # float32 wavelengths are off by up to 6e-8 of themselves, well within a twentieth of any real step.
    for kind, values in (("linear", wave), ("log10", np.log10(wave))):
        start, step = values[0], (values[-1] - values[0]) / (len(values) - 1)
        if np.abs(values - (start + step * np.arange(len(values)))).max() <= 0.05 * step:
            numbers = f"step {step:.5g} Angstrom" if kind == "linear" else f"coeff0 {start:.6g}, coeff1 {step:.6g}"
            return f"{kind}, {numbers} (measured)"
    return f"irregular, steps of {np.diff(wave).min():.4g} to {np.diff(wave).max():.4g} Angstrom"

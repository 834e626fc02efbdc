"""Spectra to draw: real ones out of a folder of survey files, and a made-up galaxy where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError, UsageError
from specshards.common.spectrum import Arrays
from specshards.ingest.files import find_files
from specshards.ingest.surveys import read_file


def read_spectra(data: Path, count: int, seed: int = 0) -> list[Arrays]:
    """At most `count` spectra of a folder, a seeded random choice.

    Raises:
        UsageError: there is none.
    """
    root, files = find_files(str(data))
    spectra: list[Arrays] = []
    for index in np.random.default_rng(seed).permutation(len(files)):
        try:
            spectrum = read_file(root / files[index])
        except BadObjectError:
            continue
        if spectrum.survey not in ("lamost", "sdss", "desi"):  # others lie beyond the default window
            continue
        spectra.append(spectrum.arrays())
        if len(spectra) == count:
            break
    if not spectra:
        raise UsageError(f"{data}: no spectra there")
    return spectra


def made_up_galaxy(seed: int = 3) -> Arrays:
    """A star-forming galaxy at z = 0.08 with noise and a dead stretch: for the README, nobody's data."""
    rng = np.random.default_rng(seed)
    wavelength = (10.0 ** (3.5682 + 1e-4 * np.arange(3909))).astype(np.float32)
    rest = wavelength / 1.08
    flux = 60 * (rest / 5500) ** -0.6 * (0.775 + 0.225 * np.tanh((rest.astype(float) - 4000) / 50))
    for centre, height, sigma in (
        (3728.5, 70, 4.0), (3934.8, -22, 7.0), (3969.6, -20, 7.0), (4862.7, 38, 4.0), (4960.3, 35, 4.0),
        (5008.2, 100, 4.0), (5176.6, -12, 14.0), (5895.6, -14, 7.0), (6564.6, 150, 4.5), (6585.3, 48, 4.5),
        (6718.3, 26, 4.0), (6732.7, 22, 4.0),
    ):  # fmt: skip
        flux = flux + height * np.exp(-0.5 * ((rest - centre) / sigma) ** 2)
    noise = 2.2 + 6 * np.clip((wavelength - 8200) / 900, 0, None)
    observed: npt.NDArray[np.float32] = (flux + rng.normal(0, noise)).astype(np.float32)
    return Arrays(observed, (1 / noise**2).astype(np.float32), wavelength, np.zeros(len(observed), np.bool_))

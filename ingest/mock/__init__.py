"""A mock survey with known truth: FITS files in a real survey's own layouts, or spectra Parquet at scale.

    result = write(MockConfig("lamost", n_files=2000), Path("mock"))

writes the files, a `mock_catalogue.csv` of true labels, and `mock.json` last, which lists every file written
and marks the folder as complete. Stars, galaxies and quasars, second visits of some objects, a few damaged
files: what the real job must cope with. Headers say ORIGIN 'specshards mock'.

`ingest.mock.scale.job` writes the same kinds of object straight into the spectra Parquet, thousands a second, for
the rest of the pipeline; `specshards ingest mock` does either.

What physics is in it (`physics`, `lines`): stars are black bodies with the hydrogen lines, some hundred atomic
lines, molecular bands and line blanketing, whose strengths follow Teff, log g and [Fe/H] in the right direction
by simple laws; galaxies are an old and a young mix of such stars, broadened, with fourteen emission lines whose
ratios follow gas metallicity and excitation; quasars are a broken power law with broad and narrow lines, iron
bumps and a Lyman forest of the observed mean depth. Dust reddens them. `instrument`: each survey's grids,
resolution, throughput, sky lines, telluric bands, photon and read noise that `ivar` states exactly, calibration
errors, bad columns, cosmic rays.

What is not in it: model atmospheres and abundance patterns, rotation, binaries, variability, rare kinds (white
dwarfs, carbon stars, broad absorption lines, damped absorbers), stars in front of quasars, host galaxies,
selection effects and luminosity functions (z and S/N are drawn independently), noise that is correlated or
underestimated, sky residuals. A score on it says that a pipeline works, nothing about real spectra.

The modules, FITS files first:

    objects         which file holds which object, seen when, in which layout, and what truth
    files           FITS files in the surveys' own layouts, and the job that writes them
    scale           spectra Parquet, thousands of objects a second
    physics         noiseless spectra of stars, galaxies and quasars
    lines           rest wavelengths
    instrument      what the spectrographs do to light
    command         `specshards ingest mock`
"""

from __future__ import annotations

from specshards.ingest.mock.files.survey import (
    CATALOGUE,
    VERSION,
    MockResult,
    Truth,
    truth,
    write,
    write_with_progress,
)
from specshards.ingest.mock.objects import DAMAGES, SURVEYS, Entry, MockConfig, plan

__all__ = [
    "CATALOGUE", "DAMAGES", "SURVEYS", "VERSION", "Entry", "MockConfig", "MockResult", "Truth", "plan", "truth",
    "write", "write_with_progress",
]  # fmt: skip

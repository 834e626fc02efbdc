"""VANDELS: ultra-deep VIMOS spectra of galaxies, z 1 to 6.5, as text: wavelength, flux and its error.

Columns `wl flam flam_err`: Angstrom in the observed frame, erg/s/cm2/Angstrom (about 1e-19) and 1 sigma of it; 4,800
to 10,300 Angstrom in pixels of about 5 (DR4: Garilli et al. 2021, A&A 647, A150; McLure et al. 2018, MNRAS 479, 25).
The files do not say whether wavelengths are in air or vacuum: vacuum is a guess, told with every spectrum, and
85 km/s at most is at stake. The sky's lines in the median error of 550 files, in pixels of 5 Angstrom, are at 5576.8,
6299.5 and 6361.8: nearer to their places in air (5577.3, 6300.3, 6363.8) than in vacuum (5578.9, 6302.1, 6365.5).
Labels are in a catalogue (`z`, `redshift_flag`), by the name of the file.
The two fields are small; the files have no positions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.plain import PlainTable
from specshards.ingest.surveys.common import GridLimits, checked
from specshards.ingest.surveys.flux import inverse_variance
from specshards.ingest.surveys.survey import Reader, Survey, register

FLUX_UNIT = "erg / (Angstrom s cm2)"
LAYOUT = "vandels-ascii"
_COLUMNS = ("wl", "flam", "flam_err")
_GRID = GridLimits(4500.0, 10_600.0, 1e-4, 3e-3)
_GUESS = "do not say whether wavelengths are in air or vacuum: vacuum is a guess; --medium says it"


def recognise(file: PlainTable) -> str | None:
    """Whether the columns are those of the release, and the wavelengths those of VIMOS' medium-resolution grism."""
    if tuple(name.lower() for name in file.names) != _COLUMNS:
        return None
    wave = file.column(file.names[0])
    if wave.dtype.kind != "f" or not len(wave):
        return None
    return LAYOUT if _GRID.lowest <= wave[0] and wave[-1] <= _GRID.highest else None


def read(file: PlainTable, layout: str, source_file: str) -> Iterator[Spectrum]:
    """The one spectrum of a file."""
    wave, flux, sigma = (file.column(name) for name in file.names)
    if any(values.dtype.kind not in "if" for values in (flux, sigma)):
        raise BadObjectError("a cell that is no number")
    name = re.sub(r"\.(dat|txt|ascii)(\.gz)?\Z", "", file.path.name, flags=re.IGNORECASE)
    if not file.has_end:
        raise BadObjectError("cut short: the last line has no end")
    ivar = inverse_variance(sigma)
    medium = file.stated.medium
    yield checked(
        Spectrum(
            object_id=name, survey="vandels", release=None, ra=np.nan, dec=np.nan, flux=flux.astype(np.float64),
            ivar=ivar, wavelength=wave, mask=ivar == 0, layout=layout, source_file=source_file, flux_unit=FLUX_UNIT,
            medium=medium or "vacuum", remarks=() if medium else (_GUESS,),
        ),
        _GRID,
    )  # fmt: skip


register(
    Survey(
        "vandels", (Reader(recognise, read, takes="text"),), keys=("spectrum", "object_id", "file", "id"),
        flux_unit=FLUX_UNIT,
    )
)  # fmt: skip

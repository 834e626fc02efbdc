"""What else is made of SDSS spectra: images of one object cut out of a plate, and what is no observation.

Sources: the files themselves; `spEigen*` templates in the idlspec2d product (`EIGEN0`, ... in the header); the
output of PyQSOFit (Guo, Shen and Wang 2018, ASCL 1809.008), whose tables keep the fitted spectrum in the rest frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.limits import check_pixels
from specshards.ingest.surveys import sdss_legacy
from specshards.ingest.surveys.common import checked, floats, grid_coefficients, native, text
from specshards.ingest.surveys.flux import SDSS_UNIT
from specshards.ingest.surveys.headers import check_header

SURVEY = "sdss"
IMAGES = "sdss-images"  # PRIMARY (N,) flux, then ivar, log10 of wavelength, and 1 for a good pixel
EIGEN = "sdss-eigen"
FIT = "sdss-qsofit"

# Columns of PyQSOFit's tables: the spectrum that was fitted, and the fits of its lines.
_FITTED = ({"wave_prereduced", "flux_prereduced"}, {"1_complex_name", "1_line_status"})
_REASONS = {
    EIGEN: "templates of eigenvectors or stars, not observations",
    FIT: "a fit by PyQSOFit to a quasar's spectrum, not an observation: read the spectrum that it was made of",
}


def recognise(file: FitsFile) -> str | None:
    """The layout of such a file, or None."""
    header, shape = file[0].header, file[0].shape
    has_grid = header.get("COEFF0") is not None and header.get("COEFF1") is not None
    if len(shape) in (1, 2) and has_grid and _is_template(file):
        return EIGEN
    if len(shape) == 1 and has_grid and len(file) == 4 and all(file[i].shape == shape for i in (1, 2, 3)):
        return IMAGES if (text(header.get("TELESCOP")) or "").upper().startswith("SDSS") else None
    tables = [file[i].names for i in range(1, min(len(file), 6))] if shape == () else []
    return FIT if any(names >= one for names in tables for one in _FITTED) else None


def _is_template(file: FitsFile) -> bool:
    """By its eigenvalues or the names of its stars, and that nothing tells of a telescope."""
    header = file[0].header
    is_named = any(header.get(key) is not None for key in ("EIGEN0", "NAME0", "EIGEN1"))
    return is_named and header.get("TELESCOP") is None


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum]:
    """Read the one spectrum of such a file.

    Raises:
        BadObjectError: nothing usable in it, or no observation (`selected_out`).
    """
    if layout != IMAGES:
        raise BadObjectError(_REASONS[layout], selected_out=True)
    header = file[0].header
    check_header(header, SDSS_UNIT)
    check_pixels(file[0].shape[0])
    flux, ivar, loglam, good = (file[i].image() for i in range(4))
    if not np.isin(good, (0, 1)).all():
        raise BadObjectError("HDU 3 does not tell good pixels by 1 and bad ones by 0")
    with np.errstate(over="ignore"):  # of a damaged file, and refused by its grid
        wave = 10.0 ** native(loglam, np.float64)
    coeff0, coeff1 = grid_coefficients(header, wave)
    yield checked(
        Spectrum(
            object_id=PurePosixPath(source_file).name.partition(".fit")[0], survey=SURVEY,
            release=text(header.get("RUN2D")), ra=math.nan, dec=math.nan, flux=floats(flux), ivar=floats(ivar),
            wavelength=wave.astype(np.float32), mask=native(good, np.int64) == 0, layout=layout,
            source_file=source_file, wave_coeff0=coeff0, wave_coeff1=coeff1,
            remarks=("are named by their files, which name no object, and have no position",),
        ),
        sdss_legacy.GRID,
    )  # fmt: skip

"""MILES: flux of library stars, an image of one line without errors, 3540.5 to 7409.6 Angstrom in steps of 0.9.

Sources: Sanchez-Blazquez et al. 2006, MNRAS 371, 703, and Falcon-Barroso et al. 2011, A&A 532, A95 (resolution 2.50
Angstrom FWHM): wavelengths in air, in the rest frame; flux is normalised, without errors. Real files agree: lines of
hydrogen lie within 0.7 Angstrom of their place in air. Copies of MaNGA's DAP say TPLLIB = 'MILES'.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.surveys.axis import axis_of, model_said, stem
from specshards.ingest.surveys.common import GridLimits, checked, floats, number, text
from specshards.ingest.surveys.flux import RELATIVE
from specshards.ingest.surveys.survey import Reader, Survey, register

SURVEY = "miles"
LAYOUT = "miles-star"
GRID = GridLimits(3400.0, 7600.0, 1e-4, 3e-4)
_FIRST, _STEP = (3500.0, 3540.5), 0.9


def recognise(file: FitsFile) -> str | None:
    """`miles-star` for an image on the library's grid, else None."""
    shape, header = file[0].shape, file[0].header
    if len(file) != 1 or len(shape) not in (1, 2) or (len(shape) == 2 and shape[0] != 1):
        return None
    first, step = number(header.get("CRVAL1")), number(header.get("CDELT1"))
    if (text(header.get("TPLLIB")) or "MILES") != "MILES" or model_said(header) is not None:
        return None  # a stellar population made of the library's stars
    is_grid = first in _FIRST and step is not None and abs(step - _STEP) < 1e-6 and 4300 <= shape[-1] <= 4400
    return LAYOUT if is_grid or text(header.get("TPLLIB")) == "MILES" else None


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum]:
    """The one star of a file."""
    header, n = file[0].header, file[0].shape[-1]
    axis = axis_of(header, n, medium="air", is_rest=True)
    if axis.unit != "angstrom":
        raise BadObjectError("impossible grid: wavelengths are not in Angstrom")
    flux = floats(file[0].image())
    yield checked(
        Spectrum(
            object_id=stem(file, source_file), survey=SURVEY, release=None, ra=np.nan, dec=np.nan, flux=flux,
            ivar=np.ones(n), wavelength=axis.wavelength, mask=np.zeros(n, np.bool_), layout=layout,
            source_file=source_file, labels={"class": "STAR"}, label_source="survey", has_ivar=False,
            flux_unit=RELATIVE, medium="air", frame="rest",
        ),
        GRID,
    )  # fmt: skip


register(Survey(SURVEY, (Reader(recognise, read),), keys=("file", "filename", "object_id"), flux_unit=RELATIVE))

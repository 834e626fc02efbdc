"""2dF Galaxy Redshift Survey: a sky chart, then for each observation an image of rows spectrum, variance, sky.

Source: the 2dFGRS final data release (Colless et al. 2003) and Data Central's description of its FITS files: `IMAGE`
is SKYCHART or SPECTRUM; wavelengths by CRVAL1, CDELT1, CRPIX1. `2dfdr` calibrates by arcs in air and does not correct
for the motion of Earth; Z is observed, Z_HELIO heliocentric. QUALITY 3 to 5 are reliable. Counts, not calibrated.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.fits.hdu import Hdu
from specshards.ingest.limits import check_pixels
from specshards.ingest.surveys.axis import TOPOCENTRIC, axis_of, sky_of, stated_of, stem
from specshards.ingest.surveys.common import GridLimits, checked, floats, label, native, text
from specshards.ingest.surveys.flux import RELATIVE, inverse_variance
from specshards.ingest.surveys.survey import Reader, Survey, register

SURVEY = "twodf"
LAYOUT = "2dfgrs"
GRID = GridLimits(3300.0, 8800.0, 2e-4, 2e-3)


def recognise(file: FitsFile) -> str | None:
    """`2dfgrs` for a file of the survey, else None."""
    kinds = {text(file[i].header.get("IMAGE")) for i in range(min(len(file), 3))}
    return LAYOUT if kinds & {"SKYCHART", "SPECTRUM"} else None


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum | BadObjectError]:
    """One spectrum for each observation.

    Raises:
        BadObjectError: there is none.
    """
    spectra = [file[i] for i in range(len(file)) if text(file[i].header.get("IMAGE")) == "SPECTRUM"]
    if not spectra:
        raise BadObjectError("a sky chart without spectra", selected_out=True)
    for number, hdu in enumerate(spectra):
        try:
            yield _read(file, hdu, number, layout, source_file)
        except BadObjectError as error:
            error.row = number if len(spectra) > 1 else None
            yield error


def _read(file: FitsFile, hdu: Hdu, number: int, layout: str, source_file: str) -> Spectrum:
    if len(hdu.shape) != 2 or hdu.shape[0] < 2:
        raise BadObjectError(f"an image of shape {hdu.shape}, not of rows spectrum, variance, sky")
    check_pixels(hdu.shape[1])
    header, rows = hdu.header, hdu.image()
    axis = axis_of(header, hdu.shape[1], stated_of(file), medium="air")
    with np.errstate(invalid="ignore"):
        ivar = inverse_variance(np.sqrt(native(rows[1], np.float64)))
    source = header if header.get("OBSRA") is not None or header.get("RA2000") is not None else file[0].header
    ra, dec, remarks = sky_of(source, ("OBSRA", "OBSDEC"), ("RA2000", "DEC2000"))
    name = text(header.get("NAME")) or text(file[0].header.get("NAME")) or text(file[0].header.get("OBJECT"))
    name = name or stem(file, source_file)
    return checked(
        Spectrum(
            object_id=name if number == 0 else f"{name}-{number + 1}", survey=SURVEY, release=None, ra=ra, dec=dec,
            flux=floats(rows[0]), ivar=ivar, wavelength=axis.wavelength, mask=np.zeros(hdu.shape[1], np.bool_),
            layout=layout, source_file=source_file, label_source="header",
            labels={"z": label(header.get("Z_HELIO")), "quality": label(header.get("QUALITY"))},
            flux_unit=RELATIVE, wavelength_unit=axis.unit, medium="air", remarks=(TOPOCENTRIC, *remarks),
        ),
        GRID,
    )  # fmt: skip


register(Survey(SURVEY, (Reader(recognise, read),), keys=("name", "object_id"), flux_unit=RELATIVE))

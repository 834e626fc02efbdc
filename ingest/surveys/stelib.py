"""STELIB: flux of library stars, an IRAF image of one line without errors, 3200 to 9900 Angstrom, labels in its
header.

Source: Le Borgne et al. 2003, A&A 402, 433: wavelengths in air, corrected for the stars' radial velocities (RADVEL).
Real files agree: hydrogen lies within 0.8 Angstrom of its place in air also where RADVEL is -145 km/s. RA and DEC are
radians of B1950; a DEC below 0 is wrong in the files, which add the minutes to negative degrees (Feige 110 has -5 26
37 in the comment and -4.556 degrees as the value), so it is not taken. Zeros at the ends are no data. '-' is missing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.fits.hdu import HeaderLike
from specshards.ingest.surveys.axis import axis_of, stem
from specshards.ingest.surveys.common import GridLimits, checked, floats, label, number, text
from specshards.ingest.surveys.flux import unit_of
from specshards.ingest.surveys.survey import Reader, Survey, register

SURVEY = "stelib"
LAYOUT = "stelib-star"
GRID = GridLimits(3000.0, 10_100.0, 5e-5, 5e-4)
_KEYS = ("STARIDEN", "SPECTYPE", "RADVEL", "TEFF", "LOG_G", "FE_H")


def recognise(file: FitsFile) -> str | None:
    """`stelib-star` for a file with the library's keywords, else None."""
    header = file[0].header
    is_star = len(file[0].shape) == 1 and all(header.get(key) is not None for key in _KEYS)
    return LAYOUT if is_star else None


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum]:
    """The one star of a file."""
    header, n = file[0].header, file[0].shape[0]
    axis = axis_of(header, n, medium="air", is_rest=True)
    if axis.unit != "angstrom":
        raise BadObjectError("impossible grid: wavelengths are not in Angstrom")
    flux = floats(file[0].image())
    data = np.flatnonzero(flux)
    mask = np.ones(n, np.bool_)
    if len(data):
        mask[data[0] : data[-1] + 1] = False
    ra, dec, remarks = _position(header)
    unit = text(header.get("BUNIT"))
    yield checked(
        Spectrum(
            object_id=text(header.get("STARIDEN")) or stem(file, source_file), survey=SURVEY, release=None, ra=ra,
            dec=dec, flux=flux, ivar=np.ones(n), wavelength=axis.wavelength, mask=mask, layout=layout,
            source_file=source_file, label_source="header",
            labels={
                "class": "STAR", "subclass": text(header.get("SPECTYPE")), "teff": label(header.get("TEFF")),
                "logg": label(header.get("LOG_G")), "feh": label(header.get("FE_H")),
            },
            has_ivar=False, flux_unit=None if unit is None else unit_of(unit), medium="air", frame="rest",
            remarks=remarks,
        ),
        GRID,
    )  # fmt: skip


def _position(header: HeaderLike) -> tuple[float, float, tuple[str, ...]]:
    """ICRS degrees of RA and DEC in radians, B1950."""
    ra, dec = number(header.get("RA")), number(header.get("DEC"))
    equinox = text(header.get("EQUINOX")) or ""
    if ra is None or dec is None or "1950" not in equinox or not (0 <= ra <= 2 * np.pi and abs(dec) <= np.pi / 2):
        return np.nan, np.nan, ("have no position that is sure",)
    if dec < np.radians(1.0):  # -0 degrees, too
        return np.nan, np.nan, ("have a DEC below 0, which these files have wrongly: no position is taken",)
    from astropy import units
    from astropy.coordinates import FK4, SkyCoord

    place = SkyCoord(ra * units.rad, dec * units.rad, frame=FK4(equinox="B1950")).icrs
    return float(place.ra.deg), float(place.dec.deg), ()


register(Survey(SURVEY, (Reader(recognise, read),), keys=("object_id", "name", "file")))

"""ESO: the 1-D tables of phase 3 (UVES, X-Shooter, FORS, HARPS, ...), XQR-30, and images of the UVES pipeline.

Sources: the ESO Science Data Products standard, "1D spectrum": HDU 1 is a table of one row of vectors, WAVE, FLUX,
ERR, QUAL, with units in TUNITn; TUCDn of the wavelengths is `em.wl;obs.atmos` in air and `em.wl` in vacuum; SPECSYS
tells whether they are TOPOCENT or BARYCENT; QUAL 0 is good. XQ-100 (Lopez et al. 2016, A&A 594, A91) has ERR_FLUX for
ERR. Where TUCD says nothing, X-Shooter's and UVES' pipelines give air. XQR-30 (D'Odorico et al. 2023, MNRAS 523,
1399): WAVE in Angstrom, vacuum, FLUX, ERROR and the same without the correction of telluric lines; no labels, no
position. Real files agree: the telluric A band begins at 7595 to 7596 Angstrom (7593.7 in air). UVES' pipeline (its
manual): an image of one line in air, counts, not corrected for Earth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.fits.hdu import HeaderLike
from specshards.ingest.limits import check_pixels
from specshards.ingest.surveys.axis import TOPOCENTRIC, axis_of, sky_of, stated_of, stem
from specshards.ingest.surveys.common import checked, floats, native, text
from specshards.ingest.surveys.errors import errors_of, ivar_of, unused
from specshards.ingest.surveys.flux import unit_of
from specshards.ingest.surveys.survey import Reader, Survey, register
from specshards.ingest.surveys.wavelengths import settled

SURVEY = "eso"
PHASE3, XQR30, UVES = "eso-phase3", "eso-xqr30", "eso-uves-image"
_WAVE, _FLUX = ("wave", "wavelength"), ("flux", "flux_reduced")
_CGS = "erg / (Angstrom s cm2)"


def recognise(file: FitsFile) -> str | None:
    """The ESO layout of an open FITS file, or None."""
    header = file[0].header
    if len(file) > 1 and file[0].shape == () and file[1].shape == (1,) and {"wave", "flux"} <= file[1].names:
        if {"error", "flux_nocorr", "error_nocorr"} <= file[1].names:
            return XQR30
        is_product = (text(header.get("PRODCATG")) or "").startswith("SCIENCE.SPECTRUM")
        if is_product or text(header.get("ORIGIN")) in ("ESO", "ESO-PARANAL") or _is_voclass(file[1].header):
            return PHASE3
        return None
    is_uves = len(file[0].shape) == 1 and text(header.get("INSTRUME")) == "UVES"
    return UVES if is_uves and (text(header.get("CTYPE1")) or "").upper().startswith("WAVELENGTH") else None


def _is_voclass(header: HeaderLike) -> bool:
    return "SPECTRUM" in (text(header.get("VOCLASS")) or "").upper()


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum]:
    """The one spectrum of a file."""
    yield _image(file, source_file) if layout == UVES else _table(file, layout, source_file)


def _field(header: HeaderLike, column: str, key: str) -> str | None:
    """A keyword such as TUNITn of a column."""
    fields = header.get("TFIELDS")
    for i in range(1, fields + 1 if isinstance(fields, int) and fields < 1000 else 1):
        if (text(header.get(f"TTYPE{i}")) or "").lower() == column:
            return text(header.get(f"{key}{i}"))
    return None


def _table(file: FitsFile, layout: str, source_file: str) -> Spectrum:
    table, header, stated = file[1], file[0].header, stated_of(file)
    wave_name, flux_name = (next((name for name in known if name in table.names), None) for known in (_WAVE, _FLUX))
    if wave_name is None or flux_name is None:
        raise BadObjectError(f"no WAVE and FLUX among {', '.join(sorted(table.names))}")
    wave, flux = native(table.column(wave_name), np.float64), floats(table.column(flux_name))
    check_pixels(len(flux))
    if len(wave) != len(flux) or not np.isfinite(wave).all() or not len(wave):
        raise BadObjectError(f"impossible grid: {len(wave)} wavelengths for {len(flux)} fluxes, or not finite ones")
    names = sorted(table.names)
    ivar, no_errors = None, unused(name.upper() for name in names)
    if (errors := errors_of(flux_name, names)) is not None:
        ivar, no_errors = ivar_of(errors[0], native(table.column(errors[1]), np.float64)), ()
    mask = np.zeros(len(flux), np.bool_)
    if "qual" in table.names:
        mask |= native(table.column("QUAL"), np.int64) != 0
    declared = "angstrom" if layout == XQR30 else _field(table.header, wave_name, "TUNIT")
    unit = settled(float(wave.min()), float(wave.max()), declared, stated.wavelength_unit)
    said = _field(table.header, flux_name, "TUNIT")
    flux_unit = _CGS if layout == XQR30 else None if said is None else unit_of(said)
    medium, remarks = _medium(table.header, wave_name, layout, stated.medium)
    system = (text(header.get("SPECSYS")) or text(table.header.get("SPECSYS")) or "").upper()
    if system.startswith("TOPO"):
        remarks += (TOPOCENTRIC,)
    ra, dec, said_sky = sky_of(header, ("RA", "DEC")) if layout == PHASE3 else (np.nan, np.nan, ())
    if layout == PHASE3 and np.isnan(ra) and isinstance(header.get("RA"), float | int):  # degrees, by the standard
        ra, dec, said_sky = float(header.get("RA")), float(header.get("DEC") or np.nan), ()
    return checked(
        Spectrum(
            object_id=stem(file, source_file), survey=SURVEY, release=text(header.get("PROCSOFT")), ra=ra, dec=dec,
            flux=flux, ivar=np.ones(len(flux)) if ivar is None else ivar, wavelength=wave, mask=mask, layout=layout,
            source_file=source_file, has_ivar=ivar is not None, flux_unit=flux_unit, wavelength_unit=unit,
            medium=medium, remarks=(*remarks, *said_sky, *no_errors),
        )
    )  # fmt: skip


def _medium(header: HeaderLike, wave: str, layout: str, stated: str | None) -> tuple[str, tuple[str, ...]]:
    if layout == XQR30:
        return "vacuum", ()
    said = (_field(header, wave, "TUCD") or "").lower()
    if re.match(r"em\.wl\b", said):
        return ("air" if "obs.atmos" in said else "vacuum"), ()
    if stated is not None:
        return stated, ()
    return "air", ("do not say whether wavelengths are in air or vacuum: air, as ESO's pipelines give, is a guess",)


def _image(file: FitsFile, source_file: str) -> Spectrum:
    header, n = file[0].header, file[0].shape[0]
    axis = axis_of(header, n, stated_of(file), medium="air")
    flux = floats(file[0].image())
    data = np.flatnonzero(flux)
    mask = np.ones(n, np.bool_)
    if len(data):  # zeros at the ends are of pixels that no order has
        mask[data[0] : data[-1] + 1] = False
    ra, dec, remarks = sky_of(header)
    unit = text(header.get("BUNIT"))
    return checked(
        Spectrum(
            object_id=stem(file, source_file), survey=SURVEY, release=None, ra=ra, dec=dec, flux=flux,
            ivar=np.ones(n), wavelength=axis.wavelength, mask=mask, layout=UVES, source_file=source_file,
            has_ivar=False,
            flux_unit=None if unit is None else unit_of(unit), wavelength_unit=axis.unit, medium="air",
            remarks=(TOPOCENTRIC, *remarks),
        )
    )  # fmt: skip


register(Survey(SURVEY, (Reader(recognise, read),)))

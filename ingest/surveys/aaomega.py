"""2dF and AAOmega frames as `2dfdr` writes them and Marz reads them: a fibre a line, VARIANCE, and a table FIBRES.

Sources: the 2dfdr manual (the fibre table: NAME, RA and DEC in radians, TYPE P programme, S sky, F guide, N broken, U
unallocated); the README of Marz (Hinton et al. 2016): DO_HELIO and DO_CMB ask Marz to correct for the motion of Earth
or of the Sun, so the file's wavelengths are of neither. 2dfdr gives air: OH lines of the sky lie at 8399.4 and 8430.4
Angstrom in real frames (8399.2 and 8430.2 in air, 2.3 more in vacuum). Counts, not calibrated.
Files of Marz' tests hold their wavelengths in an HDU WAVELENGTH, in vacuum where VACUUM says so, or log10 of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.fits.hdu import Hdu, HeaderLike
from specshards.ingest.ids import id_text
from specshards.ingest.limits import check_pixels
from specshards.ingest.surveys.axis import TOPOCENTRIC, Axis, axis_of, medium_said, stated_of
from specshards.ingest.surveys.common import GridLimits, checked, floats, native, number, position, text
from specshards.ingest.surveys.flux import RELATIVE, inverse_variance
from specshards.ingest.surveys.survey import Reader, Survey, register

SURVEY = "aaomega"
LAYOUT = "aaomega-2dfdr"
GRID = GridLimits(3300.0, 10_500.0, 1e-5, 2e-3)
_COLUMNS = {"name", "ra", "dec", "type"}
_NO_OBJECT = {"S": "a sky fibre", "F": "a guide fibre", "N": "a broken fibre", "U": "an unallocated fibre"}
_HIGHEST_LOG = 10.0  # of log10 of a wavelength in Angstrom
_FIELD = 3.0  # degrees; 2dF has two across


def recognise(file: FitsFile) -> str | None:
    """`aaomega-2dfdr` for a frame with its table of fibres, else None."""
    fibres = _fibres(file)
    if fibres is None or not fibres.names >= _COLUMNS or len(file[0].shape) not in (1, 2):
        return None
    return LAYOUT if number(file[0].header.get("CRVAL1")) is not None else None


def _fibres(file: FitsFile) -> Hdu | None:
    return file.named("FIBRES") or file.named("FIBRES_IFU")


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum | BadObjectError]:
    """Every fibre that was on an object.

    Raises:
        BadObjectError: tables and images that do not fit, or positions that are of another field.
    """
    fibres, variance = _fibres(file), file.named("VARIANCE")
    assert fibres is not None  # `recognise` has seen it
    shape = file[0].shape if len(file[0].shape) == 2 else (1, *file[0].shape)
    check_pixels(shape[1])
    if variance is None:
        raise BadObjectError("no HDU VARIANCE: cut short?")
    if variance.shape != file[0].shape or fibres.shape[0] != shape[0]:
        raise BadObjectError(f"{shape[0]} spectra, VARIANCE of {variance.shape}, {fibres.shape[0]} rows of FIBRES")
    header = file[0].header
    axes = _axes(file, shape)
    flux, var = (np.atleast_2d(hdu.image()) for hdu in (file[0], variance))
    ra, dec = _degrees(fibres, header)
    names, kinds = fibres.column("NAME"), fibres.column("TYPE")
    for row in range(shape[0]):
        try:
            kind = (text(kinds[row]) or "").upper()[:1]
            if kind != "P":
                raise BadObjectError(_NO_OBJECT.get(kind, f"fibre type {kind or 'unknown'}"), selected_out=True)
            yield _spectrum(
                names[row], ra[row], dec[row], flux[row], var[row], axes[row % len(axes)], row, layout, source_file
            )
        except BadObjectError as error:
            error.row = row
            yield error


def _axes(file: FitsFile, shape: tuple[int, ...]) -> list[Axis]:
    """Of every fibre, or one for all. An HDU WAVELENGTH wins: beside it CRVAL1 may be of the air before VACUUM."""
    header, beside = file[0].header, file.named("WAVELENGTH")
    medium = medium_said(header) or "air"
    if beside is None:
        return [axis_of(header, shape[1], stated_of(file), medium=medium)]
    if beside.shape not in (file[0].shape, (shape[1],)):
        raise BadObjectError(f"WAVELENGTH has shape {beside.shape}, the flux {file[0].shape}")
    waves = np.atleast_2d(beside.image()).astype(np.float64)
    is_log = bool(np.nanmax(waves, initial=0) < _HIGHEST_LOG)
    return [Axis(wave, "log10" if is_log else "angstrom", medium) for wave in waves]


def _spectrum(
    name: object, ra: float, dec: float, flux: npt.NDArray[Any], variance: npt.NDArray[Any], axis: Axis, row: int,
    layout: str, source_file: str,
) -> Spectrum:  # fmt: skip
    object_id = id_text(name, "NAME")
    if object_id is None:
        raise BadObjectError("FIBRES gives it no NAME")
    with np.errstate(invalid="ignore"):
        ivar = inverse_variance(np.sqrt(native(variance, np.float64)))
    right, up = position(ra, dec)
    return checked(
        Spectrum(
            object_id=object_id, survey=SURVEY, release=None, ra=right, dec=up, flux=floats(flux), ivar=ivar,
            wavelength=axis.wavelength.copy(), mask=np.zeros(len(flux), np.bool_), layout=layout,
            source_file=source_file, row=row, flux_unit=RELATIVE, wavelength_unit=axis.unit, medium=axis.medium,
            remarks=(TOPOCENTRIC,),
        ),
        GRID,
    )  # fmt: skip


def _degrees(fibres: Hdu, header: HeaderLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Positions in degrees: radians in 2dfdr's files. The field's centre in the header decides where it is there.

    Raises:
        BadObjectError: they are of the field neither as radians nor as degrees.
    """
    ra, dec = native(fibres.column("RA"), np.float64), native(fibres.column("DEC"), np.float64)
    centre = number(header.get("MEANRA")), number(header.get("MEANDEC"))
    known = np.isfinite(ra) & np.isfinite(dec) & ((ra != 0) | (dec != 0))
    if centre[0] is None or centre[1] is None or not known.any():
        are_radians = not known.any() or bool(
            np.abs(ra[known]).max() <= 2 * math.pi and np.abs(dec[known]).max() <= 1.6
        )
        return (np.degrees(ra) % 360, np.degrees(dec)) if are_radians else (ra, dec)
    for right, up in ((np.degrees(ra) % 360, np.degrees(dec)), (ra, dec)):
        apart = (right - centre[0] + 180) % 360 - 180
        near = (np.abs(apart) * math.cos(math.radians(centre[1])) < _FIELD) & (np.abs(up - centre[1]) < _FIELD)
        if near[known].mean() > 0.5:
            return right, up
    raise BadObjectError(
        f"no usable position: FIBRES and the centre of the field, {centre[0]:g} {centre[1]:g}, differ"
    )


register(Survey(SURVEY, (Reader(recognise, read),), keys=("name", "object_id"), flux_unit=RELATIVE))

"""SDSS `spPlate` files: every fibre of a plate, labels from the `spZbest` file beside it.

Source: the SDSS data models of `spPlate-PLATE-MJD.fits` and `spZbest-PLATE-MJD.fits`. HDUs: flux, IVAR, ANDMASK,
ORMASK, WAVEDISP (images of one row a fibre), PLUGMAP (a table of one row a fibre); in older versions without names.
Vacuum, heliocentric, 10^(COEFF0 + COEFF1 i), flux in 1e-17 erg/s/cm2/A.

A file with the flux alone is read, too: without errors and positions, and what its rows are of nobody can tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum, log_grid
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.fits.hdu import Hdu, HeaderLike
from specshards.ingest.ids import id_text
from specshards.ingest.limits import MOST_ROWS, check_pixels
from specshards.ingest.listing import beside
from specshards.ingest.surveys import sdss_legacy, sdss_rows
from specshards.ingest.surveys.common import bits, checked, first_of, floats, number, position, text
from specshards.ingest.surveys.flux import SDSS_UNIT
from specshards.ingest.surveys.headers import check_header
from specshards.ingest.surveys.sdss_rows import Row

SURVEY = "sdss"
PLATE = "sdss-spplate"
ZBEST = "sdss-spzbest"  # labels only

#: Bytes of a file of a plate, which is mapped, not read: a thousand fibres have 120 MB, a field of SDSS-V more.
MOST_PLATE = 4 << 30

_ZBEST = {"class", "z", "zwarning", "tfile", "rchi2"}
_IMAGES = ("IVAR", "ANDMASK", "ORMASK", "WAVEDISP")


def recognise(file: FitsFile) -> str | None:
    """The layout of a file of a plate, or None."""
    header, shape = file[0].header, file[0].shape
    if len(shape) == 2 and shape[1] > 1:
        is_sdss = (text(header.get("TELESCOP")) or "").upper().startswith("SDSS") or _plugmap(file) is not None
        is_plate = first_of(header, "PLATEID", "FIELDID", "FIELD") is not None and header.get("COEFF0") is not None
        is_other = any(header.get(key) is not None for key in ("ARRAY3", "SPEC_CLN", "EIGEN0"))  # spSpec, templates
        return PLATE if is_sdss and is_plate and not is_other else None
    if shape == () and len(file) > 1 and file[1].names >= _ZBEST and "flux" not in file[1].names:
        return ZBEST
    return None


def companions(name: str) -> tuple[str, ...]:
    """Names that the labels of a plate may have, in the order of preference."""
    for prefix, other in (("spPlate-", "spZbest-"), ("spField-", "spZbest-")):
        if name.startswith(prefix):
            stem = name.removeprefix(prefix).removesuffix(".gz")
            return tuple(f"{other}{stem}{end}" for end in ("", ".gz"))
    return ()


class _Plate(NamedTuple):
    """What all rows share; images `(rows, n)`, None where the file has the flux alone."""

    name: tuple[int | str, int]  # plate or field, and MJD
    run2d: str | None
    grid: tuple[float, float]
    flux: Any
    ivar: Any
    and_mask: Any
    dispersion: Any
    plugmap: Hdu | None
    labels: dict[int, Row]


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum | BadObjectError]:
    """Every fibre of a plate, a row at a time.

    Raises:
        BadObjectError: images that do not fit together, no grid, or unreadable labels beside it.
    """
    if layout == ZBEST:
        raise BadObjectError("redshifts, no spectra: read with the spPlate beside them", selected_out=True)
    plate = _open(file)
    for row in range(len(plate.flux)):
        try:
            yield checked(_spectrum(plate, row, layout, source_file), sdss_legacy.GRID)
        except BadObjectError as error:
            error.row = row
            yield error


def _open(file: FitsFile) -> _Plate:
    header = file[0].header
    check_header(header, SDSS_UNIT)
    check_pixels(file[0].shape[1])
    if file[0].shape[0] > MOST_ROWS:
        raise BadObjectError(f"{file[0].shape[0]:,} spectra in one file; {MOST_ROWS:,} at most")
    coeff0, coeff1 = number(header.get("COEFF0")), number(header.get("COEFF1"))
    if coeff0 is None or coeff1 is None or coeff1 <= 0:
        raise BadObjectError("no COEFF0 and COEFF1: this layout has no other wavelengths")
    name, mjd = first_of(header, "PLATEID", "FIELDID", "FIELD"), number(header.get("MJD"))
    if mjd is None or (place := id_text(name, "PLATEID")) is None:
        raise BadObjectError("no PLATEID and MJD: nothing names these spectra")
    flux = file[0].image()
    images: list[Any] = [None] * len(_IMAGES)
    plugmap = _plugmap(file)
    if len(file) > 1:
        images = [_image(file, i, flux.shape) for i in range(len(_IMAGES))]
        if plugmap is None or plugmap.shape != flux.shape[:1]:
            raise BadObjectError("no PLUGMAP of a row for each spectrum; cut short?")
    return _Plate(
        (int(place) if place.isdecimal() else place, int(mjd)), text(header.get("RUN2D")), (coeff0, coeff1), flux,
        images[0], images[1], images[3], plugmap, _zbest(file.path, header),
    )  # fmt: skip


def _plugmap(file: FitsFile) -> Hdu | None:
    for i in range(1, min(len(file), 8)):
        if file[i].names >= {"objtype", "ra", "dec"} and file[i].names & {"fiberid", "catalogid"}:
            return file[i]
    return None


def _image(file: FitsFile, place: int, shape: tuple[int, ...]) -> Any:
    """HDU `place` + 1, whose name, type and shape must be those of the data model."""
    wanted, hdu = _IMAGES[place], file[place + 1] if place + 1 < len(file) else None
    name = None if hdu is None else text(hdu.header.get("EXTNAME"))
    if hdu is None or hdu.shape != shape or (name is not None and name.upper() not in (wanted, wanted[:-2])):
        raise BadObjectError(f"HDU {place + 1} is not {wanted} of {shape[0]} x {shape[1]} values; cut short?")
    values = hdu.image()
    if (values.dtype.kind == "f") != (wanted in ("IVAR", "WAVEDISP")):
        raise BadObjectError(f"HDU {place + 1} is not {wanted}: its numbers are {values.dtype.name}")
    return values


def _zbest(path: Path | None, header: HeaderLike) -> dict[int, Row]:
    """Rows of labels by FIBERID, or TARGET_INDEX in SDSS-V, from the file beside a plate; empty without one."""
    found = None if path is None else beside(path, companions(path.name))
    if found is None:
        return {}
    try:
        table = FitsFile.open(found)[1]
        key = next(name for name in ("fiberid", "target_index") if name in table.names)
        if not table.names >= _ZBEST or table.shape[0] > MOST_ROWS:
            raise BadObjectError(f"{table.shape[0]:,} rows of {', '.join(sorted(table.names)[:4])}")
        ids = table.column(key)
        if ids.dtype.kind not in "iu":
            raise BadObjectError(f"{key.upper()} is not a column of integers")
    except (BadObjectError, IndexError, StopIteration) as fault:
        raise BadObjectError(f"its labels in {found.name} are unreadable: {fault or 'no FIBERID'}") from fault
    return {int(fiber): Row(table, index) for index, fiber in enumerate(ids)}


def _spectrum(plate: _Plate, row: int, layout: str, source_file: str) -> Spectrum:
    (coeff0, coeff1), flux = plate.grid, floats(plate.flux[row])
    wave = log_grid(coeff0, coeff1, len(flux))
    spectrum = Spectrum(
        object_id="", survey=SURVEY, release=plate.run2d, ra=math.nan, dec=math.nan, flux=flux,
        ivar=np.ones(len(flux), np.float32), has_ivar=False, wavelength=wave.astype(np.float32),
        mask=np.zeros(len(flux), np.bool_), layout=layout, source_file=source_file, wave_coeff0=coeff0,
        wave_coeff1=coeff1, row=row,
    )  # fmt: skip
    if plate.plugmap is None:
        # A fibre number would be a guess, and labels of catalogues would join it.
        spectrum.object_id = f"{plate.name[0]}-{plate.name[1]}-row{row + 1}"
        spectrum.remarks = ("are rows of a plate without IVAR and PLUGMAP: no errors, no positions, sky among them",)
        return spectrum
    target = Row(plate.plugmap, row)
    fiber = number(target.first("fiberid", "target_index", default=row + 1))
    if fiber is None or fiber < 1:
        raise BadObjectError("unplugged fibre (FIBERID)", selected_out=True)
    labels = plate.labels.get(int(fiber))
    zwarning = None if labels is None else number(labels.get("zwarning"))
    sdss_rows.check_object(None if zwarning is None else int(zwarning), text(target.get("objtype")))
    spectrum.object_id = _object_id(plate, target, int(fiber))
    place = [target.first(*names, default=None) for names in (("racat", "ra"), ("deccat", "dec"))]
    spectrum.ra, spectrum.dec = position(*place)
    spectrum.ivar, spectrum.has_ivar = floats(plate.ivar[row]), True
    spectrum.mask = (bits(plate.and_mask[row]) & sdss_legacy.BAD_BITS) != 0
    spectrum.lsf_sigma = sdss_rows.lsf_sigma(plate.dispersion[row], wave, coeff1)
    spectrum.extra = sdss_rows.extra(target, plate.run2d)
    if labels is not None:
        spectrum.labels, spectrum.fit = sdss_rows.labels_of(labels)
        spectrum.label_source = "table"
        spectrum.survey_sn = {"sn_median_all": number(labels.get("sn_median_all"))}
    return spectrum


def _object_id(plate: _Plate, target: Row, fiber: int) -> str:
    """SPECOBJID, which the spectrum has in its `spec` file and in catalogues, too; else plate, MJD and fibre."""
    name, mjd = plate.name
    catalogid = id_text(target.get("catalogid"), "CATALOGID")
    if catalogid is not None and catalogid.isdecimal() and int(catalogid) > 0:
        return f"{name}-{mjd}-{catalogid}"
    found = sdss_rows.specobjid(name, mjd, fiber, plate.run2d) if isinstance(name, int) else None
    return found or f"{name}-{mjd}-{fiber}"

"""SDSS, BOSS and eBOSS `spec` and `spec-lite` files, in either case, with or without extension names.

Source: the SDSS data model of `spec-PLATE-MJD-FIBER.fits`. HDU 1 holds the co-added spectrum with one row a pixel,
HDU 2 one row of the redshift catalogue. Columns are matched by name without regard to case and HDUs by position,
because pipeline versions v5_10 and v5_13 wrote upper case without EXTNAME.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Fit, Spectrum
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.fits.hdu import Hdu
from specshards.ingest.ids import id_text
from specshards.ingest.limits import check_pixels
from specshards.ingest.surveys import elodie, sdss_legacy
from specshards.ingest.surveys.common import (
    MOCK_ORIGIN,
    bits,
    checked,
    class_label,
    error,
    floats,
    grid_coefficients,
    label,
    native,
    number,
    position,
    said_class,
    text,
    write_mock,
)
from specshards.ingest.surveys.flux import SDSS_UNIT
from specshards.ingest.surveys.headers import check_header
from specshards.ingest.surveys.sdss_addresses import ADDRESSES
from specshards.ingest.surveys.survey import Reader, Survey, register

SURVEY = "sdss"
LITE = "sdss-spec-lite"  # 4 HDUs
FULL = "sdss-spec"  # the individual exposures follow

_COLUMNS = {"flux", "loglam", "ivar", "and_mask"}

_ZWARNING_SKY, _ZWARNING_UNPLUGGED, _ZWARNING_NODATA = 1 << 0, 1 << 7, 1 << 9


def recognise(file: FitsFile) -> str | None:
    """The SDSS layout of an open FITS file, or None."""
    if len(file) < 3 or file[0].shape != ():
        return None
    if not file[1].names >= _COLUMNS or not file[2].names >= {"class", "z"}:
        return None
    return LITE if len(file) <= 4 else FULL


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum]:
    """Read the one SDSS spectrum of a file, and its labels from HDU 2.

    Raises:
        BadObjectError: nothing usable in it, or a sky fibre (`selected_out`).
    """
    header, pixels = file[0].header, file[1]
    if pixels.shape[0] == 0:
        raise BadObjectError("HDU 1 has no pixels")
    check_pixels(pixels.shape[0])
    check_header(header, SDSS_UNIT)
    check_header(pixels.header, SDSS_UNIT, "flux")
    row = _Row(file[2])
    zwarning = None if (flags := number(row.get("zwarning"))) is None else int(flags)
    # TARGETTYPE stands in the SPECOBJ tables, OBJTYPE in the SPALL ones ('SKY', in SDSS-V also 'sky_boss').
    targets = [text(row.get(name)) or "" for name in ("targettype", "objtype")]
    if any(target.upper().startswith("SKY") for target in targets) or (zwarning or 0) & _ZWARNING_SKY:
        raise BadObjectError("sky fibre: its class and z mean nothing", selected_out=True)
    if (zwarning or 0) & (_ZWARNING_UNPLUGGED | _ZWARNING_NODATA):
        raise BadObjectError("unplugged fibre or no data (ZWARNING)", selected_out=True)
    with np.errstate(over="ignore"):  # of a damaged file, and refused below
        wave = 10.0 ** native(pixels.column("loglam"), np.float64)
    wavelength = wave.astype(np.float32)
    and_mask = bits(pixels.column("and_mask"))
    grid = grid_coefficients(header, wave, sdss_legacy.TRIMMED)
    # RA and DEC of the primary header are the plate's centre, not the object's place.
    ra, dec = position(
        row.first("plug_ra", "racat", "fiber_ra", default=header.get("PLUG_RA")),
        row.first("plug_dec", "deccat", "fiber_dec", default=header.get("PLUG_DEC")),
    )
    run2d = text(row.get("run2d")) or text(header.get("RUN2D"))
    labels, fit = _labels(row)
    is_mock = str(header.get("ORIGIN", "")).startswith(MOCK_ORIGIN)
    yield checked(
        Spectrum(
            object_id=_object_id(row),
            survey=f"mock-{SURVEY}" if is_mock else SURVEY,
            release=run2d,
            ra=ra,
            dec=dec,
            flux=floats(pixels.column("flux")),
            ivar=floats(pixels.column("ivar")),
            wavelength=wavelength,
            mask=(and_mask & sdss_legacy.BAD_BITS) != 0,
            layout=layout,
            source_file=source_file,
            wave_coeff0=grid[0],
            wave_coeff1=grid[1],
            label_source="table",
            labels=labels,
            fit=fit,
            extra=_extra(row, run2d),
            survey_sn={"sn_median_all": number(row.get("sn_median_all", row.get("sn_median")))},
        ),
        sdss_legacy.GRID,
    )


class _Row:
    """The one row of HDU 2, by column name in any case."""

    def __init__(self, hdu: Hdu) -> None:
        if hdu.shape != (1,):
            raise BadObjectError("HDU 2 does not hold one row of labels")
        self._hdu, self._names = hdu, hdu.names

    def get(self, name: str, default: Any = None) -> Any:
        if name not in self._names:
            return default
        value = self._hdu.column(name)[0]
        # SN_MEDIAN is a vector over ugriz in some versions; the scalar columns are what is asked for here.
        return default if np.ndim(value) else value

    def first(self, *names: str, default: Any) -> Any:
        """The first of these columns that holds a number."""
        return next((value for name in names if (value := number(self.get(name))) is not None), default)


def _extra(row: _Row, run2d: str | None) -> dict[str, Any]:
    """`instrument`, `targettype` and `programname`, which not every version of the table has.

    RUN2D 26, 103 and 104 are of the SDSS spectrographs, v5 and v6 of the BOSS ones (SDSS data model); OBJTYPE names
    standards and sky where TARGETTYPE is not there.
    """
    instrument = text(row.get("instrument"))
    if instrument is None and run2d is not None:
        instrument = "BOSS" if run2d.startswith("v") else "SDSS"
    target, kind = text(row.get("targettype")), text(row.get("objtype"))
    if target is None and kind is not None:
        target = "STANDARD" if kind.upper().endswith("_STD") else "SCIENCE"
    return {"instrument": instrument, "targettype": target, "programname": text(row.get("programname"))}


def _object_id(row: _Row) -> str:
    # specObjID passes int64 and is kept as text or as a scaled unsigned column, never as a float.
    names = [name for name in ("specobjid", "specobj_id") if row.get(name) is not None]
    for identifier in [id_text(row.get(name), name.upper()) for name in names]:
        if identifier is not None and identifier.isdecimal() and int(identifier) > 0:
            return identifier
    for place in (("plate", "mjd", "fiberid"), ("field", "mjd", "catalogid")):
        parts = [id_text(row.get(name), name.upper()) for name in place]
        if None not in parts:
            return "-".join(map(str, parts))
    raise BadObjectError("no SPECOBJID, and neither PLATE, MJD, FIBERID nor FIELD, MJD, CATALOGID to stand in for it")


def _labels(row: _Row) -> tuple[dict[str, Any], Fit | None]:
    """The labels, and what is told of the fit behind some."""
    kind = class_label(row.get("class"))
    of_star, fit = elodie.labels(row.get, kind)
    return {
        **of_star,
        "class": said_class(row.get("class")),
        "subclass": text(row.get("subclass")) if kind else None,
        "z": label(row.get("z")),
        "z_err": error(row.get("z_err")),
        "zwarning": label(row.get("zwarning")),
    }, fit


def _table_evidence(names: Mapping[str, str]) -> int:
    has_magnitudes = any(name.startswith("spectroflux") for name in names)
    return 3 * int("zwarning" in names or has_magnitudes or {"z_err", "vdisp"} <= names.keys())


register(
    Survey(
        SURVEY,
        (Reader(recognise, read), Reader(sdss_legacy.recognise, sdss_legacy.read)),
        keys=("specobjid", "specobj_id", "object_id"),
        aliases=elodie.ALIASES,
        unsaid=elodie.UNSAID,
        flux_unit=SDSS_UNIT,
        # Spectromer (A&A 709, A122), section 2: zWarning = 0, instrument BOSS, targetType SCIENCE.
        cuts={"paper": "zwarning == 0 and instrument == 'BOSS' and targettype == 'SCIENCE'"},
        columns={"instrument": "text", "targettype": "text", "programname": "text"},
        programmes=("boss", "eboss", "segue1", "segue2"),
        table_evidence=_table_evidence,
        addresses=ADDRESSES,
        mock=write_mock(SURVEY),
    )
)

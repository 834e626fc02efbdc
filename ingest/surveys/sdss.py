"""SDSS, BOSS and eBOSS `spec` and `spec-lite` files, in either case, with or without extension names.

Source: the SDSS data model of `spec-PLATE-MJD-FIBER.fits`. HDU 1 holds the co-added spectrum with one row a pixel,
HDU 2 one row of the redshift catalogue. Columns are matched by name without regard to case and HDUs by position,
because pipeline versions v5_10 and v5_13 wrote upper case without EXTNAME.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.limits import check_pixels
from specshards.ingest.surveys import elodie, sdss_astra, sdss_legacy, sdss_others, sdss_plate, sdss_rows
from specshards.ingest.surveys.common import (
    MOCK_ORIGIN,
    bits,
    checked,
    floats,
    grid_coefficients,
    native,
    number,
    position,
    text,
    write_mock,
)
from specshards.ingest.surveys.flux import SDSS_UNIT
from specshards.ingest.surveys.headers import check_header
from specshards.ingest.surveys.sdss_addresses import ADDRESSES
from specshards.ingest.surveys.sdss_rows import Row
from specshards.ingest.surveys.survey import OPTICAL, Reader, Survey, register

SURVEY = "sdss"
LITE = "sdss-spec-lite"  # 4 HDUs
FULL = "sdss-spec"  # the individual exposures follow

_COLUMNS = {"flux", "loglam", "ivar", "and_mask"}

_STEP = 1e-4  # dex, of every log10 grid of SDSS


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
    if file[2].shape != (1,):
        raise BadObjectError("HDU 2 does not hold one row of labels")
    row = Row(file[2])
    zwarning = None if (flags := number(row.get("zwarning"))) is None else int(flags)
    sdss_rows.check_object(zwarning, text(row.get("targettype")), text(row.get("objtype")))
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
    labels, fit = sdss_rows.labels_of(row)
    has_lsf = "wdisp" in pixels.names
    is_mock = str(header.get("ORIGIN", "")).startswith(MOCK_ORIGIN)
    yield checked(
        Spectrum(
            object_id=sdss_rows.object_id(row),
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
            lsf_sigma=sdss_rows.lsf_sigma(pixels.column("wdisp"), wave, _STEP) if has_lsf else None,
            extra=sdss_rows.extra(row, run2d),
            survey_sn={"sn_median_all": number(row.get("sn_median_all", row.get("sn_median")))},
        ),
        sdss_legacy.GRID,
    )


def _table_evidence(names: Mapping[str, str]) -> int:
    has_magnitudes = any(name.startswith("spectroflux") for name in names)
    return 3 * int("zwarning" in names or has_magnitudes or {"z_err", "vdisp"} <= names.keys())


register(
    Survey(
        SURVEY,
        (
            Reader(recognise, read),
            Reader(sdss_legacy.recognise, sdss_legacy.read),
            Reader(sdss_plate.recognise, sdss_plate.read, most_bytes=sdss_plate.MOST_PLATE),
            Reader(sdss_others.recognise, sdss_others.read),
            Reader(sdss_astra.recognise, sdss_astra.read, survey_of=sdss_astra.survey_of),
        ),
        keys=("specobjid", "specobj_id", "object_id", "sdss_id"),
        aliases=elodie.ALIASES,
        unsaid=elodie.UNSAID,
        flux_unit=SDSS_UNIT,
        # Spectromer (A&A 709, A122), section 2: zWarning = 0, instrument BOSS, targetType SCIENCE.
        cuts={"paper": "zwarning == 0 and instrument == 'BOSS' and targettype == 'SCIENCE'"},
        columns={"instrument": "text", "targettype": "text", "programname": "text"},
        programmes=("boss", "eboss", "segue1", "segue2"),
        table_evidence=_table_evidence,
        companions=sdss_plate.companions,
        addresses=ADDRESSES,
        mock=write_mock(SURVEY),
        default_image={"window": OPTICAL},
    )
)

"""LAMOST spectra: of low resolution in two image layouts (DR1 to DR8) and the table layout (DR9 and later), of medium
resolution as `lamost_mrs` has them.

Sources: the LAMOST data-release descriptions of the FITS format, and the files themselves; what differs between
them is listed in `docs/layouts.md`. Wavelengths are vacuum and heliocentric in all of them; `CTYPE1 = 'LINEAR'`
is wrong, the grid is log10.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import BoolArray, FloatArray, Spectrum, log_grid
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.fits.hdu import HeaderLike
from specshards.ingest.ids import id_text
from specshards.ingest.limits import check_pixels
from specshards.ingest.surveys import lamost_mrs
from specshards.ingest.surveys.common import (
    MOCK_ORIGIN,
    GridLimits,
    bits,
    checked,
    class_label,
    error,
    first_of,
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
from specshards.ingest.surveys.flux import RELATIVE
from specshards.ingest.surveys.headers import check_header
from specshards.ingest.surveys.lamost_addresses import ADDRESSES
from specshards.ingest.surveys.survey import OPTICAL, Reader, Survey, register

SURVEY = "lamost"
IMAGE = "lamost-image"  # PRIMARY (5, N): flux, ivar, wavelength, and_mask, or_mask
IMAGE_DR1 = "lamost-image-dr1"  # the same shape, but row 2 is a continuum-divided flux, not wavelength
TABLE = "lamost-table"  # HDU 1 COADD, one row of vector columns

#: 3700 to 9100 Angstrom in all releases, in pixels of 1e-4 dex.
GRID = GridLimits(3600.0, 9200.0, 2.2e-4, 2.4e-4)

# Fibre types of the data model without a target; releases hold 'Obj' and 'F-Std' almost only.
_NO_OBJECT = {"sky", "unused", "dead"}
# Two spellings, by release.
_SN_KEYS = {f"snr{band}": (f"SNR{band.upper()}", f"SN_{band.upper()}") for band in "ugriz"}
_COLUMNS = {"flux", "ivar", "wavelength", "andmask"}


def recognise(file: FitsFile) -> str | None:
    """The LAMOST layout of an open FITS file, or None."""
    if (layout := lamost_mrs.recognise(file)) is not None:  # the first: its arms look like the table layout
        return layout
    shape = file[0].shape
    if len(shape) == 2 and shape[0] == 5 and shape[1] > 1:
        rows = re.findall(r"[a-z]+", str(file[0].header.get("EXTEN0", "")).lower())
        if rows[:2] == ["flux", "inverse"]:
            return IMAGE if rows[2:3] == ["wavelength"] else IMAGE_DR1
        return None
    # Every column is one vector in one row; SDSS has the same kind of names with one row a pixel.
    if len(file) > 1 and file[1].shape == (1,) and file[1].names >= _COLUMNS:
        return TABLE
    return None


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum]:
    """Read the one LAMOST spectrum of a file.

    Raises:
        BadObjectError: nothing usable in it, or no object (`selected_out`).
    """
    header = file[0].header
    fibre = text(first_of(header, "FIB_TYPE", "FIBERTYP")) or ""
    if fibre.lower() in _NO_OBJECT:
        raise BadObjectError(f"fibre of type {fibre}: no object in it", selected_out=True)
    check_header(header, RELATIVE)
    labels, remarks = _labels(header), tuple[str, ...]()
    if layout == lamost_mrs.LAYOUT:
        (flux, ivar, wave, mask, _), ratios, remarks = lamost_mrs.joined(file)
        labels |= ratios
        wavelength = wave.astype(np.float32)
    else:
        flux, ivar, wavelength, mask = _pixels(file, layout)
    grid = grid_coefficients(header, wavelength)
    ra, dec = position(header.get("RA"), header.get("DEC"))
    is_mock = str(header.get("ORIGIN", "")).startswith(MOCK_ORIGIN)
    yield checked(
        Spectrum(
            object_id=object_id(header),
            survey=f"mock-{SURVEY}" if is_mock else SURVEY,
            release=_release(header, layout),
            ra=ra,
            dec=dec,
            flux=flux,
            ivar=ivar,
            wavelength=wavelength,
            mask=mask,
            layout=layout,
            source_file=source_file,
            wave_coeff0=grid[0],
            wave_coeff1=grid[1],
            label_source="header",
            labels=labels,
            remarks=remarks,
            survey_sn={name: number(first_of(header, *keys)) for name, keys in _SN_KEYS.items()},
        ),
        lamost_mrs.GRID if layout == lamost_mrs.LAYOUT else GRID,
    )


def _pixels(file: FitsFile, layout: str) -> tuple[FloatArray, FloatArray, FloatArray, BoolArray]:
    """Flux, ivar, wavelength and mask of a low-resolution file, `(N,)` each."""
    header = file[0].header
    if layout == TABLE:
        columns = file[1]
        check_header(columns.header, RELATIVE, "flux")
        flux, ivar, wave, and_mask = (columns.column(name)[0] for name in ("FLUX", "IVAR", "WAVELENGTH", "ANDMASK"))
    else:
        flux, ivar, wave, and_mask = file[0].image()[:4]
    check_pixels(max(np.size(row) for row in (flux, ivar, wave, and_mask)))
    flux, ivar = floats(flux), floats(ivar)
    if layout == IMAGE_DR1:
        coeff0, coeff1 = number(header.get("COEFF0")), number(header.get("COEFF1"))
        if coeff0 is None or coeff1 is None or coeff1 <= 0:
            raise BadObjectError("no COEFF0 and COEFF1: this layout has no other wavelengths")
        wave = log_grid(coeff0, coeff1, len(flux))
        _check_rows(flux, native(file[0].image()[2], np.float32))
    wavelength = native(wave, np.float32)
    # Any of LAMOST's six mask bits (bad CCD, profile, sky, trace, no data) condemns a pixel.
    mask = bits(and_mask) != 0
    if not len(flux) == len(ivar) == len(wavelength) == len(mask):
        raise BadObjectError(
            f"inconsistent lengths: flux {len(flux)}, ivar {len(ivar)}, wavelength {len(wavelength)}, "
            f"mask {len(mask)}"
        )
    return flux, ivar, wavelength, mask


def _check_rows(flux: FloatArray, divided: FloatArray) -> None:
    """BadObjectError unless row 2 is the flux over its continuum, pixel by pixel: nothing else in this layout would
    tell that NAXIS1 is a little wrong and the rows out of step. A continuum that was not fitted leaves 0 or 1."""
    if ((divided == 0) & (flux != 0)).any() or ((flux == 0) & (divided != 0) & (divided != 1)).any():
        raise BadObjectError("row 2 is not the flux over its continuum: NAXIS1 or the layout is wrong")


def object_id(header: HeaderLike) -> str:
    """OBSID as text; where a file has none, or an overflowed negative one, the pointing that it stands for."""
    obsid = id_text(header.get("OBSID"), "OBSID")
    if obsid is not None and obsid.isdecimal() and int(obsid) > 0:
        return str(int(obsid))
    parts = [id_text(header.get(key), key) for key in ("LMJD", "PLANID", "SPID", "FIBERID")]
    if None in parts:
        raise BadObjectError("no OBSID, and no LMJD, PLANID, SPID and FIBERID to stand in for it")
    lmjd, planid, spid, fiberid = parts
    return f"{lmjd}-{planid}-{int(str(spid)):02d}-{int(str(fiberid)):03d}"


def _release(header: HeaderLike, layout: str) -> str | None:
    version = text(header.get("DATA_V"))
    if version is not None:
        return version.upper().replace("LAMOST", "").strip().lower() or None
    return "dr1" if layout == IMAGE_DR1 else None


def _labels(header: HeaderLike) -> dict[str, Any]:
    return {
        "class": said_class(header.get("CLASS")),
        "subclass": text(header.get("SUBCLASS")) if class_label(header.get("CLASS")) else None,
        "z": label(header.get("Z")),
        "z_err": error(header.get("Z_ERR")),
    }


def _table_evidence(names: Mapping[str, str]) -> int:
    return int("obsid" in names or {"teff", "logg", "feh"} <= names.keys())


register(
    Survey(
        SURVEY,
        (Reader(recognise, read),),
        keys=("obsid",),
        flux_unit=RELATIVE,
        # Spectromer (A&A 709, A122), section 2: rows without z, z_err or any of snru to snrz are dropped.
        cuts={"paper": " and ".join(f"{name} is not null" for name in ("z", "z_err", *_SN_KEYS))},
        table_evidence=_table_evidence,
        addresses=ADDRESSES,
        mock=write_mock(SURVEY),
        default_image={"window": OPTICAL},
    )
)

"""Legacy SDSS `spSpec` files (DR1 to DR7): one image of five rows, labels in its header.

Source: the DR7 data model of `spSpec-MJD-PLATE-FIBER.fit` (spectro1d). Rows: flux, continuum-subtracted flux, error
(sigma, 0 = bad), mask, sky; vacuum wavelengths 10^(COEFF0 + COEFF1 i), heliocentric.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum, log_grid
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.fits.hdu import HeaderLike
from specshards.ingest.ids import id_text
from specshards.ingest.limits import check_pixels
from specshards.ingest.surveys.common import (
    GridLimits,
    bits,
    checked,
    error,
    floats,
    label,
    native,
    number,
    position,
    text,
)
from specshards.ingest.surveys.flux import SDSS_UNIT, inverse_variance
from specshards.ingest.surveys.headers import check_header

SURVEY = "sdss"
SPSPEC = "sdss-spspec"

#: Of both spectrographs, in pixels of 1e-4 dex: SDSS 3800 to 9200 Angstrom, BOSS 3560 to 10,400.
GRID = GridLimits(3500.0, 10_500.0, 2.2e-4, 2.4e-4)
#: The header's grid may begin so many pixels before the spectrum, whose ends without data are cut off (41 seen).
TRIMMED = 500

# Bits of the SDSS SPPIXMASK that condemn a pixel in every exposure: FULLREJECT, NOSKY, BRIGHTSKY, NODATA,
# COMBINEREJ, BADFLUXFACTOR, BADSKYCHI, REDMONSTER. Bits 0 to 15 describe the whole fibre (MANYBADCOLUMNS, BADFLAT
# cover half or all of good spectra in real files), the rest are warnings; the pipeline already lowers ivar for them.
BAD_BITS = sum(1 << bit for bit in (18, 22, 23, 24, 25, 26, 27, 28))

# SPEC_CLN of spectro1d; 0 is unknown, 5 is sky.
_CLASSES = {1: "STAR", 2: "GALAXY", 3: "QSO", 4: "QSO", 6: "STAR", 7: "GALAXY"}
_SKY = 5


def recognise(file: FitsFile) -> str | None:
    """`sdss-spspec` for a legacy file, else None."""
    header, shape = file[0].header, file[0].shape
    if len(shape) != 2 or shape[0] not in (3, 4, 5) or shape[1] < 2:
        return None
    is_legacy = header.get("SPEC_CLN") is not None and text(header.get("ARRAY3")) == "ERROR"
    return SPSPEC if is_legacy else None


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum]:
    """Read the one spectrum of a legacy file.

    Raises:
        BadObjectError: nothing usable in it, or a sky fibre (`selected_out`).
    """
    header = file[0].header
    kind = number(header.get("SPEC_CLN"))
    if kind == _SKY or (text(header.get("OBJTYPE")) or "").upper() == "SKY":
        raise BadObjectError("sky fibre: its class and z mean nothing", selected_out=True)
    check_header(header, SDSS_UNIT)
    check_pixels(file[0].shape[1])
    rows = file[0].image()
    if len(rows) < 4:
        raise BadObjectError("no mask row (ARRAY4)")
    flux, sigma = floats(rows[0]), native(rows[2], np.float64)
    good = number(header.get("NGOOD"))
    if (sigma < 0).any() or (good is not None and good != np.count_nonzero(sigma > 0)):
        raise BadObjectError("row 2 does not hold NGOOD errors: NAXIS1 or the layout is wrong")
    ivar = inverse_variance(sigma)
    mask = (bits(rows[3]) & BAD_BITS) != 0
    coeff0, coeff1 = number(header.get("COEFF0")), number(header.get("COEFF1"))
    if coeff0 is None or coeff1 is None or coeff1 <= 0:
        raise BadObjectError("no COEFF0 and COEFF1: this layout has no other wavelengths")
    ra, dec = position(header.get("RAOBJ"), header.get("DECOBJ"))
    yield checked(
        Spectrum(
            object_id=_object_id(header), survey=SURVEY, release=text(header.get("VERS_1D")), ra=ra, dec=dec,
            flux=flux, ivar=ivar, wavelength=log_grid(coeff0, coeff1, len(flux)).astype(np.float32), mask=mask,
            layout=layout, source_file=source_file, wave_coeff0=coeff0, wave_coeff1=coeff1, label_source="header",
            labels={
                "class": _CLASSES.get(int(kind)) if kind is not None else None,
                "z": label(header.get("Z")),
                "z_err": error(header.get("Z_ERR")),
                "zwarning": label(header.get("Z_WARNIN")),
            },
            survey_sn={f"snr{band}": number(header.get(f"SN_{band.upper()}")) for band in "gri"},
        ),
        GRID,
    )  # fmt: skip


def _object_id(header: HeaderLike) -> str:
    parts = [id_text(header.get(key), key) for key in ("PLATEID", "MJD", "FIBERID")]
    if not all(part is not None and part.isdecimal() for part in parts):
        raise BadObjectError("no PLATEID, MJD and FIBERID: nothing names this spectrum")
    return "-".join(str(int(part)) for part in parts if part is not None)

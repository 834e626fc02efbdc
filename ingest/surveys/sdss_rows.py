"""A row of SDSS's catalogue of redshifts, as HDU 2 of `spec` files and `spZbest` have it, and what it says.

Source: the SDSS data models of `spec-PLATE-MJD-FIBER.fits`, SDSS-V's `spec-FIELD-MJD-CATALOGID.fits` and `spZbest`.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Fit
from specshards.ingest.fits.hdu import Hdu
from specshards.ingest.ids import id_text
from specshards.ingest.surveys import elodie
from specshards.ingest.surveys.common import class_label, error, label, native, number, said_class, text

_ZWARNING_SKY, _ZWARNING_UNPLUGGED, _ZWARNING_NODATA = 1 << 0, 1 << 7, 1 << 9
_VERSION = re.compile(r"v(\d+)_(\d+)_(\d+)\Z")


class Row:
    """A row of a table, by column name in any case."""

    def __init__(self, hdu: Hdu, index: int = 0) -> None:
        self._hdu, self._names, self._index = hdu, hdu.names, index

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a column of numbers or text; `default` without it, or where it is a vector."""
        if name not in self._names:
            return default
        value = self._hdu.column(name)[self._index]
        # SN_MEDIAN is a vector over ugriz in some versions; the scalar columns are what is asked for here.
        return default if np.ndim(value) else value

    def first(self, *names: str, default: Any) -> Any:
        """The first of these columns that holds a number."""
        return next((value for name in names if (value := number(self.get(name))) is not None), default)


def extra(row: Row, run2d: str | None) -> dict[str, Any]:
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


def object_id(row: Row) -> str:
    """The SPECOBJID of a row of labels, or what stands in for it.

    Raises:
        BadObjectError: nothing does.
    """
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


def labels_of(row: Row) -> tuple[dict[str, Any], Fit | None]:
    """The labels of a row, and what is told of the fit behind some."""
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


def check_object(zwarning: int | None, *targets: str | None) -> None:
    """BadObjectError (`selected_out`) for a fibre without an object.

    Args:
        targets: TARGETTYPE of the SPECOBJ tables, OBJTYPE of the SPALL ones ('SKY', in SDSS-V also 'sky_boss').
    """
    if any((target or "").upper().startswith("SKY") for target in targets) or (zwarning or 0) & _ZWARNING_SKY:
        raise BadObjectError("sky fibre: its class and z mean nothing", selected_out=True)
    if (zwarning or 0) & (_ZWARNING_UNPLUGGED | _ZWARNING_NODATA):
        raise BadObjectError("unplugged fibre or no data (ZWARNING)", selected_out=True)


def specobjid(plate: int, mjd: int, fiber: int, run2d: str | None) -> str | None:
    """SPECOBJID of a spectrum of a plate as decimal text; None where RUN2D is none of DR8 to DR17.

    From the top: 14 bits plate, 12 fibre, 14 MJD - 50000, 14 RUN2D (vN_M_P as (N - 5) x 10000 + 100 M + P):
    https://pydl.readthedocs.io/en/0.6.0/api/pydl.pydlutils.sdss.sdss_specobjid.html
    """
    version = _VERSION.match(run2d or "")
    if version is not None:
        major, minor, patch = map(int, version.groups())
        code = (major - 5) * 10_000 + minor * 100 + patch
    elif run2d in ("26", "103", "104"):
        code = int(run2d)
    else:
        return None
    parts = ((plate, 14), (fiber, 12), (mjd - 50_000, 14), (code, 14))
    if not all(0 <= value < 1 << bits for value, bits in parts):
        return None
    return str(plate << 50 | fiber << 38 | (mjd - 50_000) << 24 | code << 10)


def lsf_sigma(dispersion: npt.NDArray[Any], wavelength: npt.NDArray[Any], coeff1: float) -> npt.NDArray[np.float32]:
    """Sigma of the line-spread function, Angstrom, float32 `(N,)`; NaN where the file has none.

    Args:
        dispersion: `wdisp`, sigma in pixels of the log10 grid. wavelength: Angstrom. coeff1: the grid's step, dex.
    """
    sigma = native(dispersion, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # of a damaged file
        sigma = np.where(np.isfinite(sigma) & (sigma > 0), sigma, np.nan) * wavelength * (coeff1 * math.log(10.0))
        return np.asarray(sigma, np.float32)

"""What every reader needs: native arrays, missing values, grids and the last checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.errors import BadObjectError
from ingest.schema import CLASSES, Spectrum, WavelengthArray

#: ORIGIN of the files that `ingest.mock` writes.
MOCK_ORIGIN = "specshards mock"


def native(values: Any, dtype: type[np.generic]) -> npt.NDArray[Any]:
    """A contiguous 1-D copy in native byte order."""
    return np.ascontiguousarray(values, dtype=dtype).ravel()


def column_names(hdu: Any) -> list[str]:
    """Column names of a table HDU, from its header; empty for anything else.

    astropy's own `columns` builds an object for each of SDSS's 236 columns, which doubles the time to read a file.
    """
    if hdu.header.get("XTENSION") != "BINTABLE":
        return []
    names = (hdu.header.get(f"TTYPE{i + 1}") for i in range(int(hdu.header.get("TFIELDS", 0))))
    return [str(name) for name in names if name is not None]


def number(value: Any, missing: tuple[float, ...] = ()) -> float | None:
    """A finite float, or None for what surveys write instead of one.

    -9999 and its relatives (-999, -9999.9), NaN, blanks and anything in `missing` mean that there is no value.
    """
    try:
        result = float(value)
    except (TypeError, ValueError):
        return None
    if not math.isfinite(result) or result <= -999.0 or result in missing:
        return None
    return result


def text(value: Any, missing: tuple[str, ...] = ("", "Non", "NULL", "null", "N/A", "nan")) -> str | None:
    """Stripped text, or None where it says nothing."""
    if value is None:
        return None
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    result = str(value).strip()
    return None if result in missing else result


def class_label(value: Any) -> str | None:
    """`STAR`, `GALAXY`, `QSO`, or None for everything else ('Unknown', 'SKY', blank)."""
    result = (text(value) or "").upper()
    return result if result in CLASSES else None


def log_grid(header: Mapping[str, Any], wavelength: WavelengthArray) -> tuple[float, float] | tuple[None, None]:
    """COEFF0, COEFF1 of the header where they do describe `wavelength` to 1 part in 1e6, else None, None."""
    coeff0, coeff1 = number(header.get("COEFF0")), number(header.get("COEFF1"))
    if coeff0 is None or coeff1 is None or coeff1 <= 0:
        return None, None
    expected = grid_from(coeff0, coeff1, len(wavelength))
    if not np.allclose(expected, wavelength, rtol=1e-6, atol=0.0):
        return None, None
    return coeff0, coeff1


def grid_from(coeff0: float, coeff1: float, n: int) -> npt.NDArray[np.float64]:
    """Wavelengths 10^(coeff0 + coeff1 i) in Angstrom: float64 `(n,)`."""
    return np.asarray(10.0 ** (coeff0 + coeff1 * np.arange(n)))


def position(ra: Any, dec: Any) -> tuple[float, float]:
    """Degrees, checked; without a place on the sky an object cannot be split from its repeat visits."""
    right, declination = number(ra), number(dec)
    if right is None or declination is None or not (0 <= right <= 360 and -90 <= declination <= 90):
        raise BadObjectError(f"no usable position: RA {ra!r}, DEC {dec!r}")
    return right % 360.0, declination


def checked(spectrum: Spectrum) -> Spectrum:
    """`spectrum` when it can be drawn: consistent lengths, an increasing finite grid, some good flux.

    Raises:
        BadObjectError: with the first thing that is wrong.
    """
    n = len(spectrum.flux)
    lengths = {len(spectrum.ivar), len(spectrum.wavelength), len(spectrum.mask)}
    if lengths != {n}:
        raise BadObjectError(f"inconsistent lengths: flux {n}, others {sorted(lengths)}")
    if n < 2:
        raise BadObjectError(f"only {n} pixels")
    wave = spectrum.wavelength
    if not np.isfinite(wave).all() or wave[0] <= 0 or not (np.diff(wave) > 0).all():
        raise BadObjectError("impossible grid: wavelengths are not finite, positive and increasing")
    if not (wave[-1] > 500 and wave[0] < 100_000):
        raise BadObjectError(f"impossible grid: {wave[0]:.4g} to {wave[-1]:.4g} is not Angstrom")
    if not np.isfinite(spectrum.flux).any():
        raise BadObjectError("no finite flux")
    # The survey's NaN stays NaN in flux, with ivar 0 and mask True, so that nothing downstream can mistake it.
    bad = ~np.isfinite(spectrum.flux) | ~np.isfinite(spectrum.ivar) | (spectrum.ivar < 0)
    spectrum.ivar[bad] = 0.0
    spectrum.mask |= spectrum.ivar == 0
    if spectrum.mask.all():
        raise BadObjectError("all pixels masked or without information (ivar = 0)")
    if not spectrum.flux[~spectrum.mask].any():
        raise BadObjectError("flux is zero in every good pixel")
    return spectrum

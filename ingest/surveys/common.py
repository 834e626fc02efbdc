"""What every reader needs: native arrays, missing values, grids and the last checks."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import CLASSES, Spectrum, WavelengthArray, log_grid
from specshards.ingest.fits.hdu import HeaderLike

#: ORIGIN of the files that `ingest.mock` writes.
MOCK_ORIGIN = "specshards mock"


def write_mock(survey: str) -> Callable[[Path, int, int, int | None], None]:
    """What writes the mock survey of `ingest.mock`; see `Survey.mock`."""

    def write(folder: Path, files: int, seed: int, workers: int | None) -> None:
        from specshards.ingest.mock import MockConfig, write_with_progress

        write_with_progress(MockConfig(survey=survey, n_files=files, seed=seed), folder, workers)

    return write


def native(values: Any, dtype: type[np.generic]) -> npt.NDArray[Any]:
    """A contiguous 1-D copy in native byte order."""
    return np.asarray(values).astype(dtype).reshape(-1)


def bits(values: Any) -> npt.NDArray[np.int64]:
    """A mask row, which some layouts keep as floats: int64 `(N,)`.

    Raises:
        BadObjectError: not bit fields, so that another row must have slipped into this one's place.
    """
    values = np.asarray(values)
    with np.errstate(invalid="ignore"):  # NaN, which then does not equal its integer
        fields = values.astype(np.int64)
    if not np.array_equal(fields, values) or fields.min(initial=0) < 0 or fields.max(initial=0) >= 2**32:
        raise BadObjectError("the mask holds no bit fields: NAXIS1 or the layout is wrong")
    return fields


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


def first_of(header: HeaderLike, *keys: str) -> Any:
    """The value of the first of these keywords that a header has; None without any."""
    for key in keys:
        value = header.get(key)
        if value is not None:
            return value
    return None


def positive(value: float | None) -> float | None:
    """An error estimate, or None: pipelines say with a negative or zero one that the fit failed."""
    return value if value is not None and value > 0 else None


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


def grid_coefficients(header: HeaderLike, wavelength: WavelengthArray) -> tuple[float, float] | tuple[None, None]:
    """COEFF0, COEFF1 of the header where they do describe `wavelength` to 1 part in 1e6, else None, None."""
    coeff0, coeff1 = number(header.get("COEFF0")), number(header.get("COEFF1"))
    if coeff0 is None or coeff1 is None or coeff1 <= 0:
        return None, None
    low, high = _tolerance(coeff0, coeff1, len(wavelength))
    if len(wavelength) == 0 or not ((wavelength >= low) & (wavelength <= high)).all():
        return None, None
    return coeff0, coeff1


@lru_cache(maxsize=64)
def _tolerance(coeff0: float, coeff1: float, n: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    expected = log_grid(coeff0, coeff1, n)
    low, high = (expected * (1 - 1e-6)).astype(np.float32), (expected * (1 + 1e-6)).astype(np.float32)
    return low, high


def position(ra: Any, dec: Any) -> tuple[float, float]:
    """Degrees, checked; NaN, NaN where a file has none, for a catalogue to fill in.

    Raises:
        BadObjectError: half a position, or one outside the sky.
    """
    right, declination = number(ra), number(dec)
    if right is None and declination is None:
        return math.nan, math.nan
    if right is None or declination is None or not (0 <= right <= 360 and -90 <= declination <= 90):
        raise BadObjectError(f"no usable position: RA {ra!r}, DEC {dec!r}")
    return right % 360.0, declination


def placed(spectrum: Spectrum) -> Spectrum:
    """`spectrum` when it has a position: without one it cannot be split from its repeat visits.

    Raises:
        BadObjectError: it has none.
    """
    if math.isnan(spectrum.ra):
        raise BadObjectError("no position in the file; a catalogue with ra and dec can give it")
    return spectrum


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
    # A grid that its coefficients describe has been compared with them pixel by pixel.
    is_known = spectrum.wave_coeff0 is not None
    if not is_known and (not np.isfinite(wave).all() or wave[0] <= 0 or not (np.diff(wave) > 0).all()):
        raise BadObjectError("impossible grid: wavelengths are not finite, positive and increasing")
    if not (wave[-1] > 500 and wave[0] < 100_000):
        raise BadObjectError(f"impossible grid: {wave[0]:.4g} to {wave[-1]:.4g} is not Angstrom")
    finite = np.isfinite(spectrum.flux)
    if not finite.any():
        raise BadObjectError("no finite flux")
    # The survey's NaN stays NaN in flux, with ivar 0 and mask True, so that nothing downstream can mistake it.
    sound = finite & (spectrum.ivar >= 0) & (spectrum.ivar < np.inf)
    if not sound.all():
        spectrum.ivar[~sound] = 0.0
    spectrum.mask |= spectrum.ivar == 0
    if spectrum.mask.all():
        raise BadObjectError("all pixels masked or without information (ivar = 0)")
    if not np.logical_and(spectrum.flux, ~spectrum.mask).any():
        raise BadObjectError("flux is zero in every good pixel")
    return spectrum

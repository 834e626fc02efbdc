"""What every reader needs: native arrays, missing values, grids and the last checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import CLASSES, MISSING_UP_TO, Spectrum, WavelengthArray, good_pixels, log_grid
from specshards.ingest.fits.hdu import HeaderLike
from specshards.ingest.surveys.flux import fitted, unit_of
from specshards.ingest.surveys.survey import survey_of
from specshards.ingest.surveys.wavelengths import medium_of, to_angstrom, vacuum_of_air

#: ORIGIN of the files that `ingest.mock` writes.
MOCK_ORIGIN = "specshards mock"
_LN10 = math.log(10.0)


def write_mock(survey: str) -> Callable[[Path, int, int, int | None], None]:
    """What writes the mock survey of `ingest.mock`; see `Survey.mock`."""

    def write(folder: Path, files: int, seed: int, workers: int | None) -> None:
        from specshards.ingest.mock import MockConfig, write_with_progress

        write_with_progress(MockConfig(survey=survey, n_files=files, seed=seed), folder, workers)

    return write


def native(values: Any, dtype: type[np.generic]) -> npt.NDArray[Any]:
    """A contiguous 1-D copy in native byte order; what is masked is NaN where the type has it."""
    if isinstance(values, np.ma.MaskedArray) and issubclass(dtype, np.floating):
        values = np.ma.filled(values.astype(dtype), np.nan)
    return np.asarray(values).astype(dtype).reshape(-1)


def floats(values: Any) -> npt.NDArray[Any]:
    """A contiguous 1-D copy in native byte order: float64 where the file has that, which `checked` makes fit, else
    float32."""
    values = np.asarray(values)
    return native(values, np.float64 if values.dtype.kind == "f" and values.dtype.itemsize == 8 else np.float32)


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
    if value is np.ma.masked:
        return None
    try:
        result = _float(value)
    except (TypeError, ValueError):
        return None
    if not math.isfinite(result) or result <= MISSING_UP_TO or result in missing:
        return None
    return result


#: The numbers that surveys write for a missing one: -999, -9999, ..., and with nines behind the point (-9999.9), also
#: as float32 has them. In a column of which nothing is known these alone are missing: -1200 may be a velocity.
SENTINELS = frozenset(
    rounded
    for digits in range(3, 8)
    for said in ("9" * digits, *(f"{'9' * digits}.{'9' * n}" for n in range(1, 4)))
    for rounded in (-float(said), -float(np.float32(said)))
    if rounded % 10 != 0  # float32 of -9999999.9 is -1e7, which is a number
)


def _float(value: Any) -> float:
    """`float`, but not of the text 1_5, which Python alone takes for 15."""
    if (isinstance(value, str) and "_" in value) or (isinstance(value, bytes) and b"_" in value):
        raise ValueError
    return float(value)


def label(value: Any, *, is_known: bool = True) -> Any:
    """A label as a file gives it, None where it has none; `common.spectrum.sift` judges the rest.

    A number comes as float, infinity too; what is none comes as it is, so that it can be counted.

    Args:
        is_known: whether it is of a column with a range, so that whatever is so far below 0 is missing; of any other
            column, only `SENTINELS` are.
    """
    if value is None or value is np.ma.masked:
        return None
    if isinstance(value, (str, bytes)):
        value = text(value)
    if isinstance(value, bool | np.bool_):
        return value
    try:
        result = _float(value)
    except (TypeError, ValueError):
        return value
    is_missing = result <= MISSING_UP_TO if is_known else result in SENTINELS
    return None if math.isnan(result) or is_missing else result


def cell(value: Any) -> str | None:
    """A value of a column of which nothing is known, as text; None where it says nothing, as text or as a number."""
    said = text(value)
    return None if said is None or label(said, is_known=False) is None else said


def error(value: Any) -> Any:
    """The error of a label: `label`, None where it is not above 0. Pipelines say so that the fit failed."""
    result = label(value)
    return None if isinstance(result, float) and result <= 0 else result


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


#: Words for a missing value, in lower case.
NOTHING = frozenset(
    {"", "non", "null", "none", "n/a", "na", "nan", "<na>", "#n/a", "nil", "indef", "--", "-", "...", "\\n", "masked"}
)


def text(value: Any, missing: Collection[str] = NOTHING) -> str | None:
    """Stripped text, or None where it says nothing.

    Args:
        missing: words that say nothing, in lower case.
    """
    if value is None or value is np.ma.masked:
        return None
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    result = str(value).strip()
    return None if result.lower() in missing else result


def class_label(value: Any) -> str | None:
    """`STAR`, `GALAXY`, `QSO`, or None for everything else ('Unknown', 'SKY', blank)."""
    result = (text(value) or "").upper()
    return result if result in CLASSES else None


_NO_CLASS = NOTHING | {"unknown", "unclassified", "unidentified", "sky", "object", "?"}


def said_class(value: Any) -> str | None:
    """`class_label`, but any other class (AGN, WD) as it is said: no object here can have it, and `sift` counts it.

    Words for no class at all ('Unknown', 'SKY', blank) are None.
    """
    return class_label(value) or text(value, _NO_CLASS)


def grid_coefficients(
    header: HeaderLike, wavelength: WavelengthArray, trimmed: int = 0
) -> tuple[float, float] | tuple[None, None]:
    """COEFF0, COEFF1 of the header where they do describe `wavelength` to 1 part in 1e6, else None, None.

    Args:
        trimmed: so many pixels may be lost in front of the spectrum, and the header's grid begin there.

    Raises:
        BadObjectError: the header has coefficients and they are of other wavelengths (by a tenth of a pixel): one of
            the two is damaged or scaled, and nobody can tell which.
    """
    coeff0, coeff1 = number(header.get("COEFF0")), number(header.get("COEFF1"))
    if coeff0 is None or coeff1 is None or len(wavelength) == 0:
        return None, None
    if coeff1 > 0:
        low, high = _tolerance(coeff0, coeff1, len(wavelength))
        if ((wavelength >= low) & (wavelength <= high)).all():
            return coeff0, coeff1
    if not _is_piece(coeff0, coeff1, wavelength, trimmed):
        raise BadObjectError(
            f"impossible grid: the header's COEFF0 {coeff0:g} and COEFF1 {coeff1:g} are not of its wavelengths, "
            f"{wavelength[0]:.6g} to {wavelength[-1]:.6g} Angstrom"
        )
    return None, None


def _is_piece(coeff0: float, coeff1: float, wavelength: WavelengthArray, trimmed: int) -> bool:
    """Whether `wavelength` is the grid of the coefficients, from one of its first `trimmed` + 1 pixels on.

    To 2e-5 of itself, a tenth of a pixel of SDSS and LAMOST: in real files single precision leaves up to 4e-6.
    """
    if not (coeff1 > 0 and 0 < wavelength[0] < math.inf):
        return False
    first = (math.log10(wavelength[0]) - coeff0) / coeff1
    if not -0.5 <= first <= trimmed + 0.5:
        return False
    expected = log_grid(coeff0 + round(first) * coeff1, coeff1, len(wavelength))
    return bool(expected[-1] < math.inf and (np.abs(wavelength - expected) <= 2e-5 * expected).all())


@lru_cache(maxsize=64)
def _tolerance(coeff0: float, coeff1: float, n: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    expected = log_grid(coeff0, coeff1, n)
    with np.errstate(over="ignore"):
        low, high = (expected * (1 - 1e-6)).astype(np.float32), (expected * (1 + 1e-6)).astype(np.float32)
    return low, high


def position(ra: Any, dec: Any, *, is_exact: bool = False) -> tuple[float, float]:
    """Degrees, checked; NaN, NaN where a file has none, for a catalogue to fill in.

    Args:
        is_exact: RA 0, Dec 0 is a place. Else it is none: pipelines write 0 and 0 into the header of a spectrum of
            which they know no position. Tables and catalogues have empty cells for that, and keep a true 0, 0.

    Raises:
        BadObjectError: half a position, or one outside the sky.
    """
    right, declination = number(ra), number(dec)
    if right is None and declination is None:
        return math.nan, math.nan
    if right == declination == 0 and not is_exact:
        return math.nan, math.nan
    if right is None or declination is None or not (0 <= right <= 360 and -90 <= declination <= 90):
        raise BadObjectError(f"no usable position: RA {ra!r}, DEC {dec!r}")
    return right % 360.0, declination


class GridLimits(NamedTuple):
    """What the wavelengths of a layout can be.

    Attributes:
        lowest, highest: Angstrom.
        finest, coarsest: a pixel's width over its wavelength, the median of a spectrum.
    """

    lowest: float
    highest: float
    finest: float
    coarsest: float


#: What any spectrograph gives: from 100 Angstrom to 1 mm; pixels from those of a Fourier-transform spectrograph (the
#: most that float32 tells apart, too) to those of a low-resolution prism.
ANY_GRID = GridLimits(100.0, 1e7, 2e-7, 0.2)


def checked(spectrum: Spectrum, limits: GridLimits = ANY_GRID) -> Spectrum:
    """`spectrum` when it can be drawn: consistent lengths, a possible grid, some good flux.

    Args:
        limits: of the layout's wavelengths.

    Wavelengths become Angstrom in vacuum, flux and ivar float32 in a scale that keeps every good pixel; see
    `surveys.wavelengths` and `surveys.flux`.

    Raises:
        BadObjectError: with the first thing that is wrong.
    """
    n = len(spectrum.flux)
    lengths = {len(spectrum.ivar), len(spectrum.wavelength), len(spectrum.mask)}
    if spectrum.lsf_sigma is not None:
        lengths.add(len(spectrum.lsf_sigma))
    if lengths != {n}:
        raise BadObjectError(f"inconsistent lengths: flux {n}, others {sorted(lengths)}")
    if n < 2:
        raise BadObjectError(f"only {n} pixels")
    if spectrum.lsf_sigma is not None:
        spectrum.lsf_sigma = _sigma(spectrum.lsf_sigma)
    _to_vacuum(spectrum)
    _check_grid(spectrum, limits)
    _fit(spectrum)
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


def _sigma(values: npt.NDArray[Any]) -> npt.NDArray[np.float32] | None:
    """A line-spread function in float32, NaN where it is no width; None where it is nowhere one."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        sigma = np.asarray(values).astype(np.float32)
        sigma[~((sigma > 0) & (sigma < np.inf))] = np.nan
    return None if np.isnan(sigma).all() else sigma


def _check_grid(spectrum: Spectrum, limits: GridLimits) -> None:
    """BadObjectError unless the wavelengths are finite, positive and increasing, and within `limits`."""
    wave, coeff1 = spectrum.wavelength, spectrum.wave_coeff1
    # A grid that its coefficients describe has been compared with them pixel by pixel, to 1e-6 of itself.
    if coeff1 is not None and coeff1 * _LN10 > 4e-6:
        step = coeff1 * _LN10
    else:
        with np.errstate(invalid="ignore", over="ignore"):
            steps = np.diff(wave)
        if not np.isfinite(wave).all() or wave[0] <= 0 or not (steps > 0).all():
            raise BadObjectError("impossible grid: wavelengths are not finite, positive and increasing")
        step = float(np.median(steps / wave[1:]))
    if not (limits.lowest <= wave[0] and wave[-1] <= limits.highest):
        raise BadObjectError(
            f"impossible grid: {wave[0]:.6g} to {wave[-1]:.6g} Angstrom, {spectrum.layout} lies within "
            f"{limits.lowest:g} to {limits.highest:g}"
        )
    if not limits.finest <= step <= limits.coarsest:
        raise BadObjectError(
            f"impossible grid: pixels of {step:.3g} of their wavelength, {spectrum.layout} has {limits.finest:g} to "
            f"{limits.coarsest:g}"
        )


def _to_vacuum(spectrum: Spectrum) -> None:
    """Wavelengths in Angstrom, vacuum, float32; what is that already is left alone to the bit."""
    unit, medium, wave = spectrum.wavelength_unit, medium_of(spectrum.medium), spectrum.wavelength
    if unit != "angstrom" or medium != "vacuum":
        converted = to_angstrom(wave, unit)
        wave = vacuum_of_air(converted) if medium == "air" else converted
        changes = [name for name, usual in ((unit, "angstrom"), (medium, "vacuum")) if name != usual]
        spectrum.wave_source = ", ".join(changes)
        spectrum.wave_coeff0 = spectrum.wave_coeff1 = None
        spectrum.wavelength_unit, spectrum.medium = "angstrom", "vacuum"
    if wave.dtype != np.float32:
        with np.errstate(over="ignore"):
            wave = wave.astype(np.float32)
    spectrum.wavelength = wave


def _reaches(spectrum: Spectrum, level: float) -> bool:
    """Whether more than half of the good fluxes are larger; or any, where no more than half are anything but 0.

    What stands in a bad pixel says nothing, and one good pixel is not a spectrum.
    """
    ivar = spectrum.ivar if spectrum.has_ivar else None
    values = np.abs(spectrum.flux[good_pixels(spectrum.flux, ivar, spectrum.mask)])
    above, half = np.count_nonzero(values > level / spectrum.flux_scale), len(values) / 2  # a median takes far longer
    return bool(above > half or (above and np.count_nonzero(values) <= half))


def _fit(spectrum: Spectrum) -> None:
    """Flux and ivar in float32, and what they are in."""
    unit = spectrum.flux_unit
    if unit is None and (survey := survey_of(spectrum.survey)) is not None:
        # A table with a survey's spectra may have them in another unit, and not say so.
        unit = survey.flux_unit if _reaches(spectrum, 1e-9) else None
    effective = unit if unit is None or spectrum.flux_scale == 1 else unit_of(f"{spectrum.flux_scale:g} {unit}")
    ivar = spectrum.ivar if spectrum.has_ivar else None
    fit = fitted(spectrum.flux, ivar, spectrum.mask, effective)
    spectrum.flux, spectrum.flux_unit = fit.flux, unit
    spectrum.ivar = np.ones(len(fit.flux), np.float32) if fit.ivar is None else fit.ivar
    spectrum.flux_scale *= fit.scale

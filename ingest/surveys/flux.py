"""Flux and its inverse variance in float32, and in what unit they are.

The physical flux is `flux` x `flux_scale` in `flux_unit`. A flux in erg/s/cm2/A is about 1e-17, and 1 / sigma^2 of it
passes the largest float32, so that the best pixels would carry no information; a luminosity density of 1e40 has an
inverse variance of 0. What would leave float32 is divided by a power of ten, which is written down with the spectrum.
"""

from __future__ import annotations

import math
import re
import warnings
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import FloatArray, good_pixels

#: `flux_unit` of spectra that are not calibrated in flux.
RELATIVE = "relative"
#: `flux_unit` of SDSS and DESI.
SDSS_UNIT = "1e-17 erg / (Angstrom s cm2)"
#: The label of an axis of flux where its unit is not known.
UNKNOWN_FLUX = "flux (unit of the file)"

# Decades between the scales that are tried first: spectra of one survey, of whatever brightness, then share one.
_STEP = 17
# Half a step below 1; calibrated fluxes in erg/s/cm2/A are all fainter (Sirius has 1e-8), counts and normalised
# fluxes all larger.
_TINY = 10.0 ** (-_STEP / 2)
_HUGE = 1e12
# Within the normal numbers of float32, 1.2e-38 to 3.4e38, with room for rounding.
_LEAST, _MOST = 2e-38, 2e38
_DECADES = 25  # of a flux without errors that float32 must hold below its largest value
# A survey that gives a pixel an error of 1e18 times the median says that it knows nothing of it.
_NOTHING = 1e-36

# What no flux spans: bytes that are no numbers do, read as such. Real spectra span ten decades above their median.
_GARBAGE_DECADES = 1e25
_GARBAGE = 1e30

# Words for a flux without a unit, letters alone.
_UNCALIBRATED = {
    RELATIVE, "relativeflux", "normalized", "normalised", "normalizedflux", "normalisedflux", "continuumnormalized",
    "continuumnormalised", "dimensionless", "unitless", "arbitrary", "arbitraryunits", "uncalibrated",
}  # fmt: skip
# Common spellings that astropy does not know -> its own.
_SPELLINGS = (
    ("counts?", "count"), ("adus?", "adu"), ("dns?", "DN"), ("ergs", "erg"), ("secs?", "s"), ("photons", "photon"),
    ("electrons", "electron"), ("e-(?=$|[/ *])", "electron"), ("nanomaggies", "nanomaggy"),
    ("flam", "erg / (Angstrom s cm2)"), ("fnu", "erg / (Hz s cm2)"),
)  # fmt: skip


class FittedFlux(NamedTuple):
    """Flux and inverse variance that fit float32.

    Attributes:
        flux, ivar: float32 `(N,)`; ivar is None where there is none.
        scale: what the flux was divided by, and the root of what ivar was multiplied by.
    """

    flux: FloatArray
    ivar: FloatArray | None
    scale: float


def inverse_variance(sigma: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """1 / sigma^2, float64, the shape of `sigma`; 0 = no information where that is not a finite number above 0."""
    sigma = np.asarray(sigma, np.float64)
    known = np.isfinite(sigma) & (sigma > 0)
    with np.errstate(over="ignore", divide="ignore"):
        return np.divide(1.0, np.square(sigma), out=np.zeros_like(sigma), where=known)


def refuse_garbage(flux: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None = None) -> None:
    """BadObjectError where the finite fluxes, `(N,)`, are of a damaged file: none spans so many decades.

    Args:
        mask: True where a pixel says nothing.
    """
    with np.errstate(invalid="ignore"):  # signalling NaN
        sizes = np.abs((flux if mask is None else flux[~mask]).astype(np.float64))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if not len(sizes):
        return
    top, level, low = float(sizes.max()), float(np.median(sizes)), float(np.quantile(sizes, 0.1))
    # A luminosity may pass 1e30, but then so does all of it.
    if top > _GARBAGE_DECADES * level or (top > _GARBAGE and top > _GARBAGE_DECADES * low):
        raise BadObjectError(f"flux goes up to {top:.2g}, with a median of {level:.2g}: damaged")


def fitted(
    flux: npt.NDArray[Any], ivar: npt.NDArray[Any] | None, mask: npt.NDArray[np.bool_] | None, unit: str | None
) -> FittedFlux:
    """Flux and ivar as float32, in a scale in which no good pixel becomes a bad one.

    One rule, so that all spectra of a survey share a scale wherever that is possible: fluxes that are known to be in
    erg/s/cm2/A, or a unit like it, are counted in 1e-17 of that; so are those of no known unit that are as small.
    Any other flux stays as it is. Where this does not fit float32, it is the power of ten that does.

    Args:
        flux, ivar: `(N,)`, float32 or float64; None for ivar says that there is none. mask: bool, True = bad.
        unit: of the flux, as `unit_of` gives it; None where nobody knows.

    Raises:
        BadObjectError: errors of the good pixels that are further apart than float32 reaches (38 decades).
    """
    factor = None if unit is None else cgs_factor(unit)
    plain = unit is not None and (factor is None or factor < 1e-9)
    if plain and flux.dtype == np.float32 and (ivar is None or ivar.dtype == np.float32):
        return FittedFlux(flux, ivar, 1.0)
    good = good_pixels(flux, ivar, mask)
    if not good.any():
        return _divided(flux, ivar, 1.0)
    values = np.abs(flux[good], dtype=np.float64)
    weights = None if ivar is None else ivar[good].astype(np.float64)
    scale = 1.0
    if factor is not None and not plain:
        scale = 10.0 ** -(_STEP + round(math.log10(factor)))
    elif unit is None:
        scale = _usual(_level(values, weights))
    if _fits(values, weights, scale):
        return _divided(flux, ivar, scale)
    if weights is not None:
        middle = (len(weights) - 1) // 2  # the lower one, so that half of a spectrum never counts as nothing
        known = weights >= _NOTHING * np.partition(weights, middle)[middle]
        values, weights = values[known], weights[known]
        if not _fits(values, weights, scale):
            scale = _centred(values, weights)
        assert ivar is not None
        ivar = ivar.astype(np.float64)
        ivar[np.flatnonzero(good)[~known]] = 0.0
        return _divided(flux, ivar, scale)
    return _divided(flux, ivar, _centred(values, weights))


def _level(values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64] | None) -> float:
    """The order of magnitude of a spectrum: the median flux, or error where that is larger."""
    error = 0.0 if weights is None else 1.0 / math.sqrt(float(np.median(weights)))
    return max(float(np.median(values)), error) or float(values.max())


def _usual(level: float) -> float:
    if level == 0 or _TINY <= level <= _HUGE:
        return 1.0
    return float(10.0 ** (_STEP * round(math.log10(level) / _STEP)))


def _limits(values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64] | None) -> tuple[float, float]:
    """The least and the largest log10 of a scale that fits."""
    top = math.log10(float(values.max()) or 1.0)
    low = top - math.log10(_MOST)
    if weights is None:
        return low, low + math.log10(_MOST) + _DECADES
    least, most = (math.log10(float(weight)) for weight in (weights.min(), weights.max()))
    return max(low, 0.5 * (math.log10(_LEAST) - least)), 0.5 * (math.log10(_MOST) - most)


def _fits(values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64] | None, scale: float) -> bool:
    low, high = _limits(values, weights)
    return low <= math.log10(scale) <= high


def _centred(values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64] | None) -> float:
    """The power of ten nearest to the spectrum's level that fits; one of the usual ones where there is one."""
    low, high = _limits(values, weights)
    first, last = math.ceil(low), math.floor(high)
    if first > last:
        raise BadObjectError("flux and errors of the good pixels span more decades than float32 holds")
    wanted = math.log10(_level(values, weights) or 1.0)
    usual = _STEP * round(wanted / _STEP)
    return float(10.0 ** (usual if first <= usual <= last else min(max(round(wanted), first), last)))


def _divided(flux: npt.NDArray[Any], ivar: npt.NDArray[Any] | None, scale: float) -> FittedFlux:
    # Only bad pixels can leave float32 here.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if scale != 1.0:
            flux = np.divide(flux, scale, dtype=np.float64)
            ivar = None if ivar is None else np.multiply(ivar, scale, dtype=np.float64) * scale
        fluxes = np.asarray(flux, np.float32)
        return FittedFlux(fluxes, None if ivar is None else np.asarray(ivar, np.float32), scale)


def declared_unit(text: str | None) -> str | None:
    """A unit of flux that a table declares, as `unit_of` gives it; None where it declares none.

    Raises:
        BadObjectError: a unit that is not known here. Another one in its place would be a wrong number.
    """
    if not (text or "").strip():
        return None
    if (unit := unit_of(text)) is None:
        raise BadObjectError(
            f"flux is declared to be in {text!r}, no unit of flux that is known here: write it as astropy does, such "
            "as 1e-17 erg / (Angstrom s cm2), count or mJy, or relative where it is not calibrated"
        )
    return unit


@lru_cache(maxsize=256)
def unit_of(text: str | None) -> str | None:
    """A unit of flux as astropy writes it: `1e-17 erg / (Angstrom s cm2)`, `mJy`; None where `text` is none.

    In a unit of flux `A` and `a` are Angstrom, as surveys write it, where astropy would read ampere and year.
    """
    from astropy import units

    content = (text or "").strip()
    if re.sub(r"[^a-z]", "", content.lower()) in _UNCALIBRATED:
        return RELATIVE
    for pattern, usual in _SPELLINGS:
        content = re.sub(rf"(?<![A-Za-z])(?:{pattern})(?![A-Za-z])", usual, content, flags=re.IGNORECASE)
    content = re.sub(r"(?<![A-Za-z])(A|a|AA|Ang|ang|Å|Angstroms?|angstroms?)(?![A-Za-z])", "Angstrom", content)
    content = content.replace("²", "2").replace("^", "**").replace("{", "(").replace("}", ")")
    for kind in (None, "cds", "ogip", "fits"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", units.UnitsWarning)  # of styles, such as several slashes
                unit = units.Unit(content, format=kind)
        except (ValueError, TypeError):
            continue
        # A number alone says nothing, and a wavelength's unit has slipped in.
        if unit.is_equivalent(units.dimensionless_unscaled) or unit.is_equivalent(units.AA):
            return None
        return str(unit.to_string())
    return None


@lru_cache(maxsize=256)
def cgs_factor(unit: str) -> float | None:
    """How many erg/s/cm2/A one of `unit` is; None where that is not a flux per wavelength."""
    if unit == RELATIVE:
        return None
    from astropy import units

    try:
        return float(units.Unit(unit).to(units.erg / units.s / units.cm**2 / units.AA))
    except (ValueError, units.UnitsError):
        return None


def axis_of(unit: str | None, scale: float) -> str:
    """The label of an axis of flux."""
    if unit is None:
        return UNKNOWN_FLUX if scale == 1 else f"flux (unit of the file x {scale:g})"
    if unit == RELATIVE:
        return "relative flux"
    name = "1e-17 erg/s/cm²/Å" if unit == SDSS_UNIT else unit.replace("Angstrom", "Å").replace("cm2", "cm²")
    return f"flux ({name})" if scale == 1 else f"flux ({scale:g} x {name})"

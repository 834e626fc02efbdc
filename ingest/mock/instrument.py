"""What the two surveys' spectrographs do to light: throughput, sky, noise, bad pixels, masks.

Noise is photon noise of object and sky plus read noise, both divided by the throughput; every sigma that is
drawn from is the sigma that `ivar` states, so chi-square per pixel against the noiseless spectrum is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from specshards.ingest.mock import lines
from specshards.ingest.mock.lines import Array, air_to_vacuum

Flags = npt.NDArray[np.bool_]

LOG_STEP: Final = 1e-4
"""Both surveys sample log10 wavelength in steps of 1e-4."""

SITE_FIRST = 35400
SITE_LAST = 40300

LSF_KMS: Final = {"lamost": 71.0, "sdss": 62.0}
"""Gaussian width of the line-spread function, km/s: R = 1800 (LAMOST), 0.9 pixel (SDSS, its `wdisp`)."""

_THROUGHPUT: Final[dict[str, tuple[tuple[float, float], ...]]] = {
    "lamost": (
        (3600, 0.02), (3700, 0.04), (3850, 0.10), (4000, 0.22), (4300, 0.45), (4800, 0.65), (5400, 0.70),
        (5700, 0.50), (5850, 0.26), (5930, 0.24), (6050, 0.50), (6400, 0.80), (7200, 0.95), (8000, 1.00),
        (8700, 0.85), (9000, 0.65), (9080, 0.40), (9150, 0.20), (11000, 0.10),
    ),
    "sdss": (
        (3500, 0.03), (3600, 0.07), (3800, 0.22), (4000, 0.40), (4500, 0.70), (5500, 0.85), (5850, 0.70),
        (6000, 0.60), (6150, 0.68), (6500, 0.90), (7500, 1.00), (8500, 0.85), (9200, 0.60), (9800, 0.35),
        (10200, 0.18), (10500, 0.08),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Exposure:
    """One observed spectrum; every array (N,), float64 or bool.

    `flux` = `truth` + noise (+ cosmic rays), in the survey's flux unit; `ivar` in 1/flux^2, 0 where nothing
    was measured; `sky` in the same unit; `hit` cosmic rays, `bright` strong sky lines, `rejected` lost in
    some but not all sub-exposures.
    """

    coeff0: float
    wave: Array
    truth: Array
    flux: Array
    ivar: Array
    sky: Array
    hit: Flags
    bright: Flags
    rejected: Flags


@lru_cache(maxsize=2)
def site(survey: str) -> tuple[Array, Array, Array]:
    """Wavelength, throughput and sky brightness on the grid that holds every grid of a survey."""
    wave: Array = np.asarray(10.0 ** (LOG_STEP * np.arange(SITE_FIRST, SITE_LAST)))
    knots = np.array(_THROUGHPUT[survey], dtype=np.float64)
    throughput = np.interp(wave, knots[:, 0], knots[:, 1])
    for low, high, lost in lines.TELLURIC_BANDS:
        blue, red = float(air_to_vacuum(low)), float(air_to_vacuum(high))
        throughput *= 1.0 - np.where((wave > blue) & (wave < red), lost, 0.0)
    sky = 0.5 + 0.35 * np.clip((wave - 6000.0) / 3000.0, 0.0, 1.5)
    for air, strength in lines.SKY_LINES:
        centre = float(air_to_vacuum(air))
        width = centre * LSF_KMS[survey] / 299792.458
        sky += 5.0 * strength * np.exp(-0.5 * ((wave - centre) / width) ** 2)
    return wave, throughput, sky


def grid(coeff0: float, size: int) -> Array:
    """Wavelengths (size,) in Angstrom of a log grid whose first pixel is at 10^coeff0 (a multiple of
    1e-4)."""
    return np.asarray(10.0 ** (LOG_STEP * (round(coeff0 / LOG_STEP) + np.arange(size))))


def calibration(survey: str, wave: Array, rng: np.random.Generator) -> Array:
    """Smooth error (N,) of the flux calibration of one visit: a tilt, a bend, and a ripple at LAMOST's
    dichroic."""
    x = (wave - 6500.0) / 3000.0
    size = 0.08 if survey == "lamost" else 0.02
    tilt, bend = rng.normal(0.0, size, 2)
    bump = rng.normal(0.0, 0.05 if survey == "lamost" else 0.005)
    return np.asarray(np.exp(tilt * x + bend * x**2 + bump * np.exp(-0.5 * ((wave - 5930.0) / 60.0) ** 2)))


def expose(
    survey: str,
    coeff0: float,
    shape: Array,
    scale: float,
    sn: float,
    rng: np.random.Generator,
) -> Exposure:
    """Observe a noiseless spectrum.

    `shape` (N,) noiseless flux with median one (all zero for a sky fibre), starting at 10^`coeff0` Angstrom;
    `scale` the median flux in the survey's unit; `sn` the wanted median signal-to-noise ratio per pixel.
    """
    size = shape.size
    first = round(coeff0 / LOG_STEP) - SITE_FIRST
    wave, throughput, sky = (values[first : first + size] for values in site(survey))
    faint = float(np.clip(9.0 / sn, 0.06, 4.0))  # sky over object
    variance = (np.clip(shape, 0.0, None) + faint * sky) / throughput + 0.04 * faint / throughput**2
    reference = shape if shape.any() else np.full(size, 0.2)
    sigma = np.sqrt(variance) * float(np.median(reference / np.sqrt(variance))) / sn
    sigma *= np.exp(rng.normal(0.0, 0.04, size))  # the exposures differ from pixel to pixel
    flux = shape + sigma * rng.standard_normal(size)

    bad = np.zeros(size, dtype=np.bool_)
    zeroed = np.zeros(size, dtype=np.bool_)
    for _ in range(rng.poisson(3.0)):  # bad columns
        start, width = int(rng.integers(size)), int(rng.integers(1, 6))
        bad[start : start + width] = True
        zeroed[start : start + width] = rng.random() < 0.3
    if rng.random() < 0.03:  # a whole camera's edge lost
        start, width = int(rng.integers(size)), int(rng.integers(size // 12, size // 4))
        bad[start : start + width] = True
    if survey == "lamost" and rng.random() < 0.5:
        zeroed[size - int(rng.integers(3, 11)) :] = True
    bad |= zeroed

    hit = np.zeros(size, dtype=np.bool_)
    for _ in range(rng.poisson(2.0)):
        at, width = int(rng.integers(size)), int(rng.integers(1, 3))
        flux[at : at + width] += sigma[at : at + width] * rng.uniform(8.0, 60.0)
        hit[at : at + width] = True
        bad[at : at + width] |= rng.random() < 0.5
    flux[zeroed] = 0.0
    rejected = hit | bad | (rng.random(size) < 0.004)
    ivar = np.where(bad, 0.0, 1.0 / (sigma * scale) ** 2)
    bright = sky > 8.0
    sky = faint * sky * scale
    return Exposure(coeff0, wave, shape * scale, flux * scale, ivar, sky, hit, bright, rejected)


def median_sn(flux: Array, ivar: Array) -> float:
    """Median of flux * sqrt(ivar) over pixels with ivar > 0; 0 when there is none."""
    good = ivar > 0
    return float(np.median(flux[good] * np.sqrt(ivar[good]))) if good.any() else 0.0

"""A made-up star: parameters drawn at random, and a spectrum whose lines follow them, so that a model can learn them.

The lines stand at random wavelengths, the same for every star; a line is deeper in a star with more metals, and with
a temperature nearer to its own; Balmer-like broad ones follow temperature and gravity. Sensible, and not physics.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
C = 299_792.458  # km/s


class Made(NamedTuple):
    """What was written: the folder of the spectra, and the catalogue of their labels."""

    spectra: Path
    catalogue: Path


@dataclass(frozen=True)
class Star:
    """Its parameters: K, dex, dex, dex, km/s, degrees, degrees."""

    teff: float
    logg: float
    feh: float
    mg_fe: float
    velocity: float
    ra: float
    dec: float

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Star:
        """A random one: a dwarf or a giant."""
        is_giant = rng.random() < 0.5
        teff = rng.uniform(3900, 5200) if is_giant else rng.uniform(4500, 6900)
        logg = 1.0 + (teff - 3900) / 1300 * 2 + rng.normal(0, 0.1) if is_giant else 4.4 + rng.normal(0, 0.1)
        feh = float(np.clip(rng.normal(-0.4, 0.5), -2.4, 0.5))
        mg_fe = float(np.clip(-0.25 * feh + rng.normal(0, 0.05), -0.2, 0.5))
        ra, dec = rng.uniform(0, 360), np.degrees(np.arcsin(rng.uniform(-0.9, 0.9)))
        return cls(teff, logg, feh, mg_fe, rng.normal(0, 60), ra, float(dec))

    def normalised(self, wavelength: Floats) -> Floats:
        """Flux over its continuum at vacuum wavelengths at rest, Angstrom: float64 `(N,)`."""
        centres, strength, best, is_magnesium = _lines(round(wavelength[0], -2), round(wavelength[-1], -2))
        metals = self.feh + np.where(is_magnesium, self.mg_fe, 0.0)
        depth = strength * 10 ** (0.55 * metals) * np.exp(-0.5 * ((self.teff - best) / 900) ** 2)
        width = 1.2e-5 * centres * (1 + 0.15 * self.logg)
        flux = np.ones(len(wavelength))
        for at, deep, wide in zip(centres, np.minimum(depth, 0.85), width, strict=True):
            low, high = np.searchsorted(wavelength, (at - 8 * wide, at + 8 * wide))
            flux[low:high] *= 1 - deep * np.exp(-0.5 * ((wavelength[low:high] - at) / wide) ** 2)
        for at in _BROAD:
            wide = 2e-4 * at * (0.6 + 0.2 * self.logg)
            flux *= 1 - np.clip((self.teff - 3500) / 9000, 0, 0.7) / (1 + ((wavelength - at) / wide) ** 2)
        return flux

    def continuum(self, wavelength: Floats) -> Floats:
        """A black body's flux per wavelength, 1 on average: float64 `(N,)`."""
        flux = wavelength**-5.0 / np.expm1(1.438777e8 / (wavelength * self.teff))
        return np.asarray(flux / flux.mean())


# H beta, H alpha, Paschen and Brackett lines in vacuum.
_BROAD = (4862.7, 6564.6, 8665.0, 15196.0, 15704.0, 16113.0, 16811.0)


@lru_cache(maxsize=32)
def _lines(low: float, high: float) -> tuple[Floats, Floats, Floats, npt.NDArray[np.bool_]]:
    rng = np.random.default_rng(11)
    n = 150
    return rng.uniform(low, high, n), rng.uniform(0.1, 0.5, n), rng.uniform(3800, 6000, n), rng.random(n) < 0.2


def shifted(star: Star, wavelength: Floats) -> Floats:
    """Wavelengths at rest of those that are observed, vacuum."""
    return wavelength / (1 + star.velocity / C)


def main(write: object, what: str) -> None:
    """The command of a module here."""
    import sys

    if len(sys.argv) not in (3, 4):
        sys.exit(f"give FOLDER N [SEED]: made-up {what} of N stars")
    print(*write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0))  # type: ignore[operator]

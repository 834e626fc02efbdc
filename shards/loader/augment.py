"""Small changes of what was observed, drawn anew every epoch, so that a model does not learn one noise by heart."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from specshards.common.errors import UsageError
from specshards.common.spectrum import Arrays

Codes = npt.NDArray[np.uint8]


class Augmentation(Protocol):
    """The hook of `shards.loader.open`: called with each batch before it is drawn, or before it gets its colours.

    `rng` is seeded by seed, epoch and batch, so that a resumed run draws the same. Must not change its input.
    """

    def spectra(self, spectra: list[Arrays], rng: np.random.Generator) -> list[Arrays]:
        """B spectra (flux, ivar or None, wavelength, mask) to as many; shards with encoding `flux`."""

    def codes(self, codes: Codes, rng: np.random.Generator) -> Codes:
        """Codes uint8 `(B, *code_shape)` to the same shape; all other shards."""


@dataclass(frozen=True)
class Augment:
    """Noise, scale and missing pixels as an observation would have them.

    Attributes:
        noise: adds Gaussian noise of this many times each pixel's own error, 1/sqrt(ivar), and lowers ivar to match.
        scale: the flux is multiplied by exp(normal x scale), and ivar to match: an error of flux calibration.
        tilt: the same with a smooth curve over the spectrum instead of one number, a sum of the Chebyshev polynomials
            T1, T2 and T3 of log wavelength with coefficients normal x tilt / order: relative calibration, reddening.
        mask: the share of the pixels, up to which one stretch of neighbours is lost; drawn evenly from 0.
    """

    noise: float = 0.0
    scale: float = 0.0
    mask: float = 0.0
    tilt: float = 0.0

    def __post_init__(self) -> None:
        """Check the fields."""
        if not (0 <= self.noise <= 10 and 0 <= self.scale <= 1 and 0 <= self.mask <= 0.9 and 0 <= self.tilt <= 1):
            raise UsageError(f"{self}: give noise 0 to 10, scale 0 to 1, mask 0 to 0.9, tilt 0 to 1")

    def spectra(self, spectra: list[Arrays], rng: np.random.Generator) -> list[Arrays]:
        """Each spectrum changed by its own draw."""
        return [self._spectrum(spectrum, rng) for spectrum in spectra]

    def _spectrum(self, spectrum: Arrays, rng: np.random.Generator) -> Arrays:
        flux, ivar, wavelength, mask = spectrum
        n = len(flux)
        factor: Any = np.float32(np.exp(self.scale * rng.standard_normal()))
        if self.tilt:
            factor = factor * _curve(wavelength, self.tilt * rng.standard_normal(3))
        flux = flux * factor
        if ivar is not None:
            ivar = ivar / factor**2
            good = ivar > 0
            error = np.zeros(n, np.float32)
            error[good] = 1 / np.sqrt(ivar[good])
            flux = flux + np.float32(self.noise) * error * rng.standard_normal(n, np.float32)
            ivar = ivar / np.float32(1 + self.noise**2)
        start, stop = _stretch(n, self.mask, rng)
        mask = mask.copy()
        mask[start:stop] = True
        return Arrays(flux, ivar, wavelength, mask)

    def codes(self, codes: Codes, rng: np.random.Generator) -> Codes:
        """One stretch of each picture's codes, row by row, becomes 0; all else needs the spectrum.

        Raises:
            UsageError: noise, scale or tilt is asked for.
        """
        if self.noise or self.scale or self.tilt:
            raise UsageError("augment: noise, scale and tilt change the spectrum; make the shards with ENCODING=flux")
        changed = codes.copy()
        flat: Any = changed.reshape(len(codes), -1, *codes.shape[3:])
        for picture in flat:
            start, stop = _stretch(len(picture), self.mask, rng)
            picture[start:stop] = 0
        return changed


def without_lost(changed: list[Arrays], before: list[Arrays]) -> list[Arrays]:
    """Spectra whose pixels that an augmentation masked are not finite, for pictures that look at no mask."""
    spectra = []
    for after, old in zip(changed, before, strict=True):
        if len(after.mask) == len(old.mask):
            after = after._replace(flux=np.where(after.mask & ~old.mask, np.float32(np.nan), after.flux))
        spectra.append(after)
    return spectra


def parse_augment(text: str) -> Augment | None:
    """`noise=1,scale=0.05,mask=0.1`, any of them, to an `Augment`; None for an empty text.

    Raises:
        UsageError: another name, or not a number.
    """
    if not text.strip():
        return None
    values: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        try:
            values[name.strip()] = float(number)
        except ValueError:
            raise UsageError(f"augment {part!r}: write name=number, such as noise=1,mask=0.1") from None
    known = [field.name for field in fields(Augment)]
    for name in values:
        if name not in known:
            raise UsageError(f"augment: no {name}; choose {', '.join(known)}")
    return Augment(**values)


def _curve(wavelength: npt.NDArray[np.floating], heights: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """exp of the sum of T1, T2 and T3 with `heights` over their orders, between the ends of the spectrum."""
    where = np.log(np.where((wavelength > 0) & np.isfinite(wavelength), wavelength, np.nan).astype(np.float64))
    low, high = np.nanmin(where, initial=np.inf), np.nanmax(where, initial=-np.inf)
    x = np.nan_to_num((2 * where - low - high) / max(high - low, 1e-9))
    # The polynomials written out: numpy's own take a step in Python for each.
    a, b, c = heights / (1, 2, 3)
    return np.exp(x * (a - 3 * c + x * (2 * b + 4 * c * x)) - b).astype(np.float32)


def _stretch(n: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    length = int(rng.random() * share * n)
    start = int(rng.integers(0, n - length + 1))
    return start, start + length

"""IRAF's `multispec` format: an image of many apertures or orders, each with a dispersion of its own in `WAT2_nnn`.

Source: the help of IRAF's `onedspec.specwcs` (F. Valdes). A specification is `ap beam dtype w1 dw nw z aplow aphigh`,
and for dtype 2 functions: weight, zero point, type and its parameters. Wavelength = sum of weight x (zero + function)
/ (1 + z) at the physical pixel p, which is (l - LTV1) / LTM1_1 of the pixel l = 1, 2, ... of the image.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.ingest.fits.hdu import HeaderLike
from specshards.ingest.surveys.common import number

Doubles = npt.NDArray[np.float64]
_MOST_CARDS = 1000  # WAT2_001 to WAT2_999
_MOST_TERMS = 100
# A header whose function does not begin where its own w1 says has lost a digit; IRAF writes w1 from the function.
_MOST_SHIFT = 1.0  # pixels
_HIGHEST_LOG = 20.0  # log10 of no wavelength, in whatever unit


class Order(NamedTuple):
    """One aperture.

    Attributes:
        aperture, beam: its numbers; the beam of an echelle is the order.
        wavelength: float64 `(nw,)`, in the unit of the header, increasing or decreasing.
    """

    aperture: int
    beam: int
    wavelength: Doubles


def is_multispec(header: HeaderLike) -> bool:
    """Whether a header has dispersions of this format."""
    return "multispec" in str(header.get("WAT0_001") or "") and header.get("WAT2_001") is not None


def orders_of(header: HeaderLike, pixels: int) -> list[Order]:
    """The dispersions of a header, one for each line of the image, in its order.

    Args:
        pixels: of a line.

    Raises:
        BadObjectError: a dispersion that is incomplete or of an unknown kind, or one that contradicts itself.
    """
    cards = []
    for i in range(1, _MOST_CARDS):
        card = header.get(f"WAT2_{i:03d}")
        if card is None:
            break
        cards.append(str(card).ljust(68))  # a card's text ends without its blanks, which may separate two numbers
    said = {int(line): spec for line, spec in re.findall(r"spec(\d{1,4})\s*=\s*\"([^\"]*)\"", "".join(cards))}
    if sorted(said) != list(range(1, len(said) + 1)) or not said:
        raise BadObjectError(f"WAT2: dispersions of lines {sorted(said)[:5]}..., not of 1 to the last")
    zero, scale = number(header.get("LTV1")) or 0.0, number(header.get("LTM1_1")) or 1.0
    physical = np.asarray((np.arange(1, pixels + 1) - zero) / scale, np.float64)
    return [_order(line, said[line], physical) for line in sorted(said)]


def _order(line: int, spec: str, physical: Doubles) -> Order:
    try:
        values = [float(word.replace("D", "E").replace("d", "e")) for word in spec.split()]
        aperture, beam, kind, count = (int(values[i]) for i in (0, 1, 2, 5))
        first, step, z = values[3], values[4], values[6]
    except (ValueError, IndexError, OverflowError) as error:
        raise BadObjectError(f"WAT2: the dispersion of line {line} is not whole: {spec[:40]!r}") from error
    if not 2 <= count <= len(physical) or not -1 < z < 20:
        raise BadObjectError(f"WAT2: the dispersion of line {line} has {count} pixels and z = {z:g}")
    pixel = physical[:count]
    if kind == 1 and max(first, first + step * (count - 1)) > _HIGHEST_LOG:
        raise BadObjectError(
            f"WAT2: line {line} is declared logarithmic, with wavelengths that are not, {first:g} in steps of "
            f"{step:g}: damaged, and its data may be, too"
        )
    with np.errstate(all="ignore"):
        if kind == 0:
            wave = (first + step * (pixel - 1)) / (1 + z)
        elif kind == 1:
            if z != 0:
                raise BadObjectError(
                    f"WAT2: line {line} is log-linear with a Doppler factor, of which IRAF is not clear"
                )
            wave = np.power(10.0, first + step * (pixel - 1))
        elif kind == 2:
            wave = _functions(line, values[9:], pixel) / (1 + z)
            if z == 0 and not abs(wave[0] - first) <= _MOST_SHIFT * abs(step):
                raise BadObjectError(
                    f"WAT2: the function of line {line} begins at {wave[0]:.6g}, its w1 is {first:.6g}: damaged"
                )
        else:
            raise BadObjectError(f"WAT2: line {line} has no wavelengths (dtype {kind})")
    if not np.isfinite(wave).all():
        raise BadObjectError(f"WAT2: impossible wavelengths in line {line}")
    return Order(aperture, beam, np.asarray(wave, np.float64))


def _functions(line: int, values: list[float], pixel: Doubles) -> Doubles:
    """The sum of a dispersion's functions at physical pixels."""
    total, at = np.zeros(len(pixel)), 0
    while at < len(values):
        if len(values) < at + 4:
            raise BadObjectError(f"WAT2: the functions of line {line} are not whole")
        weight, zero, kind, size = values[at], values[at + 1], int(values[at + 2]), int(values[at + 3])
        if not 1 <= size <= (_MOST_TERMS if kind < 5 else 1 << 20):
            raise BadObjectError(f"WAT2: a function of line {line} has {size} coefficients")
        # Chebyshev and Legendre: as many coefficients as the order; splines: 3 or 1 more than pieces.
        span, terms = {1: (2, size), 2: (2, size), 3: (2, size + 3), 4: (2, size + 1), 5: (0, size)}.get(kind, (0, 0))
        if not terms:
            raise BadObjectError(f"WAT2: line {line} has a function of unknown type {kind}")
        end = at + 4 + span + terms
        if end > len(values):
            raise BadObjectError(f"WAT2: the functions of line {line} are not whole")
        coefficients = np.array(values[at + 4 + span : end])
        if kind == 5:
            total += weight * (zero + np.interp(pixel, np.arange(1, size + 1), coefficients))
        else:
            low, high = values[at + 4], values[at + 5]
            if not high > low:
                raise BadObjectError(f"WAT2: a function of line {line} is of pixels {low:g} to {high:g}")
            total += weight * (zero + _function(kind, size, coefficients, (pixel - low) / (high - low)))
        at = end
    if at == 0:
        raise BadObjectError(f"WAT2: line {line} has no function")
    return total


def _function(kind: int, size: int, coefficients: Doubles, place: Doubles) -> Doubles:
    """A polynomial or spline at `place`, 0 to 1 over its range."""
    if kind == 1:
        return np.asarray(np.polynomial.chebyshev.chebval(2 * place - 1, coefficients))
    if kind == 2:
        return np.asarray(np.polynomial.legendre.legval(2 * place - 1, coefficients))
    along = place * size
    piece = np.clip(np.floor(along).astype(np.int64), 0, size - 1)
    b = along - piece
    a = 1 - b
    if kind == 4:
        return coefficients[piece] * a + coefficients[piece + 1] * b
    parts = (a**3, 1 + 3 * a * (1 + a * b), 1 + 3 * b * (1 + a * b), b**3)
    return np.asarray(sum(coefficients[piece + k] * part for k, part in enumerate(parts)), np.float64)

"""The orders of an echelle, or segments of a detector, made one spectrum without resampling a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


class Piece(NamedTuple):
    """Pixels of one order, `(n,)` each: wavelength increasing; ivar and mask None where there is none."""

    wavelength: npt.NDArray[np.floating]
    flux: npt.NDArray[np.floating]
    ivar: Doubles | None
    mask: npt.NDArray[np.bool_] | None

    def between(self, low: float, high: float) -> Piece:
        """Its pixels from `low` to below `high`."""
        keep = (self.wavelength >= low) & (self.wavelength < high)
        return Piece(*(None if part is None else part[keep] for part in self))  # type: ignore[arg-type]


def increasing(piece: Piece) -> Piece:
    """`piece` by increasing wavelength."""
    if len(piece.wavelength) > 1 and piece.wavelength[0] > piece.wavelength[-1]:
        return Piece(*(None if part is None else part[::-1] for part in piece))  # type: ignore[arg-type]
    return piece


def are_orders(waves: Sequence[npt.NDArray[np.floating]]) -> bool:
    """Whether spectra of these wavelengths are neighbouring pieces of one: each begins well after the one before."""
    if len(waves) < 2:
        return False
    ends = sorted((float(wave.min()), float(wave.max())) for wave in waves)
    return all(
        second[0] - first[0] > 0.25 * (first[1] - first[0]) and second[1] > first[1]
        for first, second in pairwise(ends)
    )


def joined(pieces: Sequence[Piece]) -> Piece:
    """Orders as one spectrum: no pixel is resampled; each overlap is cut once, where the better order changes.

    With errors, the cut is where the sum of (S/N)^2 of the pixels that are kept is largest; without, in the middle of
    the overlap, where the blaze of neighbouring orders is equal.

    Args:
        pieces: of increasing wavelength each, `are_orders`.
    """
    pieces = sorted(pieces, key=lambda piece: float(piece.wavelength[0]))
    cuts = [-np.inf]
    for first, second in pairwise(pieces):
        low, high = float(second.wavelength[0]), float(first.wavelength[-1])
        cut = low if high < low else _best(first, second, low, high)
        cuts.append(max(cut, cuts[-1]))
    cuts.append(np.inf)
    parts = [piece.between(low, high) for piece, low, high in zip(pieces, cuts, cuts[1:], strict=False)]
    return Piece(
        np.concatenate([part.wavelength for part in parts]), np.concatenate([part.flux for part in parts]),
        None if parts[0].ivar is None else np.concatenate([np.asarray(part.ivar) for part in parts]),
        None if parts[0].mask is None else np.concatenate([np.asarray(part.mask) for part in parts]),
    )  # fmt: skip


def _best(first: Piece, second: Piece, low: float, high: float) -> float:
    if first.ivar is None or second.ivar is None:
        return (low + high) / 2
    edges = np.linspace(low, high, 65)
    left, right = (_information(piece, edges) for piece in (first, second))
    # Kept: the first order below the edge, the second from it on.
    gain = left + (right[-1] - right)
    return float(edges[int(np.argmax(gain))]) if gain.max() > 0 else (low + high) / 2


def _information(piece: Piece, edges: Doubles) -> Doubles:
    """The sum of (S/N)^2 of the good pixels below each edge, from the first on."""
    assert piece.ivar is not None
    with np.errstate(all="ignore"):
        worth = np.square(piece.flux.astype(np.float64)) * piece.ivar
    bad = ~np.isfinite(worth)
    if piece.mask is not None:
        bad |= piece.mask
    worth[bad] = 0.0
    total = np.concatenate([[0.0], np.cumsum(worth)])
    places = np.searchsorted(piece.wavelength, edges)
    return np.asarray(total[places] - total[places[0]])

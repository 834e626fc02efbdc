"""Which objects lie close together on the sky: repeated visits, and one star in two surveys."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Objects searched for at a time, and candidate pairs measured at a time: what bounds the memory beyond 16 bytes an
#: object.
_BAND = 1 << 20
#: Bits of a cell's number along each axis: three of them fit 63 bits. Cells are never smaller than 0.4 arcsec.
_BITS = 21
_SMALLEST = 2.0 / (2 ** (_BITS - 1) - 4)
#: Half of a cell's neighbours, as steps in z and y; with the three cells in a row along x they make each pair of
#: cells meet once.
_ROWS = ((0, 1), (1, -1), (1, 0), (1, 1))


def close_pairs(ra: Floats, dec: Floats, radius_arcsec: float) -> tuple[Indices, Indices]:
    """Every pair of objects at most `radius_arcsec` apart: places `i < j`, each pair once, sorted.

    The sky is a unit sphere in a cubic grid of cells as wide as the radius, so that the poles and right ascension 0
    are places like any other. It takes time as objects and pairs do: a thousand objects at one place are half a
    million pairs.

    Args:
        ra, dec: `(n,)`, degrees. Objects whose position is not finite are close to nothing.
        radius_arcsec: positive.
    """
    found = list(iter_close_pairs(ra, dec, radius_arcsec))
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    i, j = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((j, i))
    return i[order], j[order]


def iter_close_pairs(ra: Floats, dec: Floats, radius_arcsec: float) -> Iterator[tuple[Indices, Indices]]:
    """The pairs of `close_pairs` piece by piece and in no order, for one who only counts them."""
    chord = 2.0 * np.sin(np.radians(min(radius_arcsec / 3600.0, 180.0)) / 2.0)
    cell = max(chord * (1 + 1e-9), _SMALLEST)  # wider by more than rounding
    cells = np.concatenate([_cells(*part, cell) for part in _bands(ra, dec)] or [np.empty(0, np.int64)])
    order = np.argsort(cells, kind="stable")
    order = order[np.searchsorted(cells[order], 0) :]  # cell -1: no position
    cells = cells[order]
    for start in range(0, len(order), _BAND):
        here = np.arange(start, min(start + _BAND, len(order)))
        own = cells[here]
        # What follows in the object's own cell and in the next one along x ...
        yield from _measured(ra, dec, order, here, here + 1, np.searchsorted(cells, own + 1, "right"), chord)
        for z, y in _ROWS:  # ... and three cells in each row beside it.
            row = own + (z << 2 * _BITS) + (y << _BITS)
            first, last = np.searchsorted(cells, row - 1, "left"), np.searchsorted(cells, row + 1, "right")
            yield from _measured(ra, dec, order, here, first, last, chord)


def _measured(
    ra: Floats, dec: Floats, order: Indices, here: Indices, first: Indices, last: Indices, chord: float
) -> Iterator[tuple[Indices, Indices]]:
    """Of the candidates `first` to `last` (not included) of each place `here`, those within the chord."""
    some = np.flatnonzero(last > first)
    here, first = here[some], first[some]
    ends = np.cumsum(last[some] - first)
    done = 0
    while done < len(here):
        base = ends[done - 1] if done else 0
        stop = max(done + 1, int(np.searchsorted(ends, base + _BAND, "right")))
        counts = np.diff(ends[done:stop], prepend=base)
        left = np.repeat(np.arange(done, stop), counts)
        step = np.arange(len(left)) - np.repeat(np.cumsum(counts) - counts, counts)
        a, b = order[here[left]], order[first[left] + step]
        apart = _vectors(ra[a], dec[a]) - _vectors(ra[b], dec[b])
        near = np.einsum("ij,ij->j", apart, apart) <= chord * chord
        yield np.minimum(a, b)[near], np.maximum(a, b)[near]
        done = stop


def _cells(ra: Floats, dec: Floats, cell: float) -> Indices:
    """The number of each object's cell: z, y, x from the highest bits down; -1 without a position."""
    known = np.isfinite(ra) & np.isfinite(dec)
    # From 1 on, so that a step back never borrows from the next axis.
    x, y, z = (np.floor((_vectors(ra[known], dec[known]) + 1.0) / cell) + 1.0).astype(np.int64)
    number = np.full(len(ra), -1, np.int64)
    number[known] = (z << 2 * _BITS) | (y << _BITS) | x
    return number


def _vectors(ra: Floats, dec: Floats) -> Floats:
    """Unit vectors, `(3, n)`."""
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])


def _bands(ra: Floats, dec: Floats) -> Iterator[tuple[Floats, Floats]]:
    for start in range(0, len(ra), _BAND):
        yield ra[start : start + _BAND], dec[start : start + _BAND]

"""Keeping the visits of one object in one split, also where a cell's border runs between them.

A split belongs to a cell of the sky (`shards.write.plan.assign_splits`). About one pair of visits in ten thousand
lies on both sides of a border between cells. Here such pairs are found before anything is written, and given one
split.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from specshards.common.identity import Repeats
from specshards.common.sky import groups
from specshards.ingest.spectra.folder import SpectraFolder, read_positions
from specshards.ingest.spectra.schema import HEALPIX_ORDER, healpix_29
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.write.plan import assign_splits

_INTS = npt.NDArray[np.int64]
_FLOATS = npt.NDArray[np.float64]

#: How near to a border of its cell an object must lie to be looked at, in HEALPix pixels of order 29 (0.4 mas): 30
#: arcseconds where pixels are square, and never less than ten in the distorted ones near the poles.
_NEAR = 75_000

Rows = tuple[_INTS, _FLOATS, _FLOATS]


def near_border(healpix: _INTS, config: ShardConfig) -> npt.NDArray[np.bool_]:
    """Whether an object lies so near to a border of its cell that another of its visits could lie beyond it.

    Args:
        healpix: index at order 29; negative where there is no position.
    """
    bits = HEALPIX_ORDER - (int(config.split_nside).bit_length() - 1)
    inside = healpix & ((1 << 2 * bits) - 1)
    near = np.zeros(len(healpix), np.bool_)
    for axis in (inside, inside >> 1):
        place = _every_other_bit(axis)
        near |= (place < _NEAR) | (place >= (1 << bits) - _NEAR)
    return near & (healpix >= 0)


def near_rows(source: SpectraFolder, config: ShardConfig) -> Rows:
    """Number, right ascension and declination of the objects that lie near a border."""
    starts: dict[str, int] = {}
    for group in source.groups:
        starts.setdefault(group.file, group.first_row)
    found = []
    for file, first in starts.items():
        ra, dec, healpix = read_positions(source.folder, file)
        near = near_border(healpix, config)
        found.append((first + np.flatnonzero(near), ra[near], dec[near]))
    rows, ra, dec = (np.concatenate(part) for part in zip(*found, strict=True))
    return rows.astype(np.int64), ra, dec


def keep_together(
    rows: Rows, config: ShardConfig, fixed: dict[int, int], first_new: int, repeats: Repeats | None = None
) -> dict[int, int]:
    """The objects that must not take the split of their own cell: row -> position in `SPLITS`.

    All of a group of objects (`common.sky.groups`) take the split that its first one has. Rows below `first_new` are
    written already, with the splits of their cells or of `fixed`.

    Args:
        repeats: the visits that have one id; they may lie somewhat further from each other than a group does.
    """
    order = np.argsort(rows[0], kind="stable")
    number, ra, dec = rows[0][order], rows[1][order], rows[2][order]
    # The lowest row of a group: written before the others, or first of them.
    first = groups(ra, dec, links=_links(number, repeats))
    some = np.flatnonzero(np.bincount(first, minlength=len(first))[first] > 1)
    splits = assign_splits(healpix_29(ra[some], dec[some]), config)
    own: dict[int, int] = dict(zip(some.tolist(), splits.tolist(), strict=True))
    moved: dict[int, int] = {}
    for i, leader in zip(some.tolist(), first[some].tolist(), strict=True):
        row = int(number[i])
        split = fixed.get(int(number[leader]), own[leader])
        if row >= first_new and split != own[i]:
            moved[row] = split
    return moved


def _links(number: _INTS, repeats: Repeats | None) -> tuple[_INTS, _INTS]:
    """The places, in a sorted list of rows, of a visit and of its object's first one, where both are there."""
    none = np.empty(0, np.int64)
    if repeats is None or not len(number):
        return none, none
    places = [np.minimum(np.searchsorted(number, rows), len(number) - 1) for rows in (repeats.first, repeats.again)]
    both = (number[places[0]] == repeats.first) & (number[places[1]] == repeats.again)
    return places[0][both], places[1][both]


def _every_other_bit(values: _INTS) -> _INTS:
    """Bits 0, 2, 4, ... of each value, together: one coordinate of a nested HEALPix number within its base pixel."""
    x = values & 0x5555555555555555
    for shift, mask in (
        (1, 0x3333333333333333), (2, 0x0F0F0F0F0F0F0F0F), (4, 0x00FF00FF00FF00FF), (8, 0x0000FFFF0000FFFF),
        (16, 0x00000000FFFFFFFF),
    ):  # fmt: skip
        x = (x | (x >> shift)) & mask
    return x

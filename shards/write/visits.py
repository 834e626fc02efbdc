"""Keeping the visits of one object in one split, also where a cell's border runs between them.

A split belongs to a cell of the sky (`shards.write.split`). About one pair of visits in ten thousand lies on both
sides of a border between cells, and of the finest cells many more. Here such pairs are found before anything is
written, and given one split.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from specshards.common.identity import Repeats
from specshards.common.sky import groups
from specshards.ingest.spectra.schema import HEALPIX_ORDER
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.write.split import Splits, cell_nside, chosen, split_keys, splits_of

_INTS = npt.NDArray[np.int64]
_FLOATS = npt.NDArray[np.float64]

#: How near to a border of its cell an object must lie to be looked at, in HEALPix pixels of order 29 (0.4 mas): 30
#: arcseconds where pixels are square, and never less than ten in the distorted ones near the poles.
_NEAR = 75_000

#: The number of each row, where it is, and the split that is its own: `(n,)` each.
Rows = tuple[_INTS, _FLOATS, _FLOATS, Splits]
#: Numbers of rows and a table of them (`shards.write.split.read_rows`).
Tables = Iterable[tuple[_INTS, pa.Table]]


def moved_rows(
    tables: Tables, config: ShardConfig, fixed: Mapping[int, int], first_new: int, repeats: Repeats
) -> dict[int, int]:
    """The rows that must not take the split of `split.splits_of`: row -> position in `SPLITS`.

    Args:
        tables: all rows.
        fixed: those that are moved already. Rows below `first_new` are written, and stay.
        repeats: the visits that have one id; they may lie somewhat further from each other than a group does.
    """
    if config.split_by == "row":
        return tell_apart(tables, config, first_new)
    return keep_together(near_rows(tables, config), fixed, first_new, repeats)


def near_border(healpix: _INTS, config: ShardConfig) -> npt.NDArray[np.bool_]:
    """Whether an object lies so near to a border of its cell that another of its visits could lie beyond it.

    Args:
        healpix: index at order 29; negative where there is no position.
    """
    bits = HEALPIX_ORDER - (int(cell_nside(config)).bit_length() - 1)
    inside = healpix & ((1 << 2 * bits) - 1)
    near = np.zeros(len(healpix), np.bool_)
    for axis in (inside, inside >> 1):
        place = _every_other_bit(axis)
        near |= (place < _NEAR) | (place >= (1 << bits) - _NEAR)
    return near & (healpix >= 0)


def near_rows(tables: Tables, config: ShardConfig) -> Rows:
    """The objects that lie near a border; of a split by object all, also those without a position."""
    found = []
    for rows, table in tables:
        near = near_border(table["_healpix_29"].to_numpy(), config) | (config.split_by == "object")
        ra, dec = table["ra"].to_numpy()[near], table["dec"].to_numpy()[near]
        found.append((rows[near], ra, dec, splits_of(table, config)[near]))
    rows, ra, dec, splits = (np.concatenate(part) for part in zip(*found, strict=True))
    return rows.astype(np.int64), ra, dec, splits


def keep_together(
    rows: Rows, fixed: Mapping[int, int], first_new: int, repeats: Repeats | None = None
) -> dict[int, int]:
    """The objects that must not take their own split, because another visit has another; see `moved_rows`.

    All of a group of objects (`common.sky.groups`) take the split that its first one has, the lowest row: it was
    written before the others, or is the first of them.
    """
    order = np.argsort(rows[0], kind="stable")
    number, ra, dec, own = rows[0][order], rows[1][order], rows[2][order], rows[3][order]
    first = groups(ra, dec, links=_links(number, repeats))
    moved: dict[int, int] = {}
    for i in np.flatnonzero(first != np.arange(len(first))).tolist():
        row, leader = int(number[i]), int(first[i])
        split = fixed.get(int(number[leader]), int(own[leader]))
        if row >= first_new and split != own[i]:
            moved[row] = split
    return moved


def tell_apart(tables: Tables, config: ShardConfig, first_new: int) -> dict[int, int]:
    """Of a split by row: the spectra of one id from one file, of which all but the first need a hash of their own."""
    found = [(rows, split_keys(table, config)) for rows, table in tables]
    rows, keys = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((rows, keys))
    rows, keys = rows[order], keys[order]
    begins = np.flatnonzero(np.insert(keys[1:] != keys[:-1], 0, True))
    place = np.arange(len(keys)) - np.repeat(begins, np.diff([*begins, len(keys)]))
    splits = chosen(keys + place.astype(np.uint64), config)
    again = np.flatnonzero((place > 0) & (splits != chosen(keys, config)) & (rows >= first_new))
    return dict(zip(rows[again].tolist(), splits[again].tolist(), strict=True))


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

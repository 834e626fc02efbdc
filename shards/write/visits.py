"""Keeping the visits of one object in one split, also where a cell's border runs between them.

A split belongs to a cell of the sky (`shards.write.split`). About one pair of visits in ten thousand lies on both
sides of a border between cells, and of the finest cells many more. Of one id there may be spectra with a position and
without one, and of one plate objects that lie on another plate, too. Here what belongs together is found before
anything is written, and given one split.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from specshards.common.errors import UsageError
from specshards.common.identity import Repeats
from specshards.common.messages import LOGGER
from specshards.common.sky import groups
from specshards.common.text import count, printable
from specshards.ingest.spectra.schema import HEALPIX_ORDER
from specshards.shards.format.manifest import SPLITS, ShardConfig
from specshards.shards.write.cells import MEND, left_short
from specshards.shards.write.marked import Marked, among
from specshards.shards.write.split import Splits, cell_nside, cells_of, chosen, split_keys, splits_of

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
    tables: Tables, config: ShardConfig, fixed: Mapping[int, int], first_new: int, repeats: Repeats,
    allow_empty: bool = False,
) -> Marked:  # fmt: skip
    """The rows that must not take the split of `split.splits_of`: row -> position in `SPLITS`.

    Args:
        tables: all rows.
        fixed: those that are moved already. Rows below `first_new` are written, and stay.
        repeats: the visits that have one id; they may lie somewhat further from each other than a group does.
        allow_empty: of a split by a group, take the values as their hashes fall.

    Raises:
        UsageError: a group has too few values for the splits.
    """
    if config.group is not None:
        return keep_groups(tables, config, fixed, first_new, repeats, allow_empty)
    if config.split_by == "row":
        return tell_apart(tables, config, first_new)
    return keep_together(near_rows(tables, config, repeats), fixed, first_new, repeats)


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


def near_rows(tables: Tables, config: ShardConfig, repeats: Repeats) -> Rows:
    """The objects that lie near a border, of a split by object all.

    And all visits of an id of which one has no position.
    """
    visits = np.union1d(repeats.first, repeats.again)
    found, is_near, is_nowhere = [], [], []
    for rows, table in tables:
        cells = cells_of(table)
        near = near_border(cells, config) | (config.split_by == "object")
        wanted = near | among(rows, visits)  # `isin` would sort the visits again for each file
        ra, dec = (table[name].to_numpy()[wanted] for name in ("ra", "dec"))
        found.append((rows[wanted], ra, dec, splits_of(table, config)[wanted]))
        is_near.append(near[wanted])
        is_nowhere.append(cells[wanted] < 0)
    rows, ra, dec, splits = (np.concatenate(part) for part in zip(*found, strict=True))
    # Visits that all have a position are near each other, and need no look unless they are near a border.
    leader = rows.astype(np.int64)
    order = np.argsort(repeats.again)
    again, first = repeats.again[order], repeats.first[order]
    at = np.minimum(np.searchsorted(again, leader), max(0, len(again) - 1))
    if len(again):
        leader = np.where(again[at] == leader, first[at], leader)
    unlike = np.unique(leader[np.concatenate(is_nowhere)])
    kept = np.concatenate(is_near) | np.isin(leader, unlike)
    return rows[kept].astype(np.int64), ra[kept], dec[kept], splits[kept]


def keep_together(rows: Rows, fixed: Mapping[int, int], first_new: int, repeats: Repeats | None = None) -> Marked:
    """The objects that must not take their own split, because another visit has another; see `moved_rows`.

    All of a group of objects (`common.sky.groups`) take the split that its first one has, the lowest row: it was
    written before the others, or is the first of them.
    """
    order = np.argsort(rows[0], kind="stable")
    number, ra, dec, own = rows[0][order], rows[1][order], rows[2][order], rows[3][order]
    first = groups(ra, dec, links=_links(number, repeats))
    later = np.flatnonzero(first != np.arange(len(first)))
    row, leader = number[later], first[later]
    split = Marked.of(fixed).at(number[leader], own[leader])
    changed = (row >= first_new) & (split != own[later])
    return Marked(row[changed], split[changed])


def keep_groups(
    tables: Tables, config: ShardConfig, fixed: Mapping[int, int], first_new: int, repeats: Repeats, allow_empty: bool
) -> Marked:
    """Of a split by a group: the rows that must not take the split of their value; see `moved_rows`.

    Values that have visits of one object are one: neither a value nor an id is in two splits. A data set that grows
    keeps a value where it is. Where values are so few that their hashes leave a split short they are shared out, in
    the order of their hashes.
    """
    found = [(rows, split_keys(table, config)) for rows, table in tables]
    rows, keys = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(rows, kind="stable")
    rows, keys = rows[order], keys[order]
    _, first, value = np.unique(keys, return_index=True, return_inverse=True)
    chain = _chained(value, _links(rows, repeats), len(first))
    lead = np.full(chain.max(initial=-1) + 1, len(rows))
    np.minimum.at(lead, chain, first)
    own = chosen(keys, config)
    leader = np.where(rows[first] < first_new, first, lead[chain])
    split = Marked.of(fixed).at(rows[leader], own[leader])[value]
    if not first_new and not allow_empty:
        counts = np.bincount(split, minlength=len(SPLITS))
        if short := left_short(counts, config):
            order = np.argsort(keys[lead], kind="stable")
            sizes = np.bincount(chain[value], minlength=len(lead))
            shared = share_out(sizes[order], config)
            of_chain = np.empty(len(lead), np.int8)
            of_chain[order] = shared
            split = of_chain[chain][value]
            LOGGER.info(
                f"split by {printable(config.group or '')}: {count(len(lead), 'value', 'values')}, of which a hash "
                f"would give {short} {counts[SPLITS.index(short)]:,} of {len(rows):,} spectra, are shared out: "
                + ", ".join(f"{n} {k:,}" for n, k in zip(SPLITS, np.bincount(split, minlength=3), strict=True))
            )
    changed = np.flatnonzero((split != own) & (rows >= first_new))
    return Marked(rows[changed], split[changed])


def share_out(sizes: _INTS, config: ShardConfig) -> Splits:
    """The split of each of some sets of rows, so that each split has about its share, and at least one: int8 `(n,)`.

    Args:
        sizes: rows of each, in the order in which they are taken; test takes first, then val, and train the rest.

    Raises:
        UsageError: fewer sets than splits.
    """
    wanted = [place for place, share in enumerate(config.split) if share > 0]
    if len(sizes) < len(wanted):
        raise UsageError(
            f"--group {printable(config.group or '')}: {count(len(sizes), 'value', 'values')} that share no object, "
            f"and {len(wanted)} splits; {MEND}"
        )
    found = np.full(len(sizes), wanted[0], np.int8)
    taken = 0
    for left, place in reversed(list(enumerate(wanted))[1:]):
        aim, rows, begin = config.split[place] * int(sizes.sum()), 0, taken
        # At least one; another only where it brings the sum nearer to the aim, and enough are left for the others.
        while taken < len(sizes) - left and (taken == begin or 2 * (aim - rows) > sizes[taken]):
            rows += int(sizes[taken])
            found[taken] = place
            taken += 1
    return found


def _chained(value: _INTS, links: tuple[_INTS, _INTS], values: int) -> _INTS:
    """The number of the chain that each value is in: values that have visits of one object, `(values,)`."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    i, j = (value[places] for places in links)
    graph = coo_array((np.ones(len(i), np.bool_), (i, j)), shape=(values, values))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def tell_apart(tables: Tables, config: ShardConfig, first_new: int) -> Marked:
    """Of a split by row: the spectra of one id from one file, of which all but the first need a hash of their own."""
    found = [(rows, split_keys(table, config)) for rows, table in tables]
    rows, keys = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((rows, keys))
    rows, keys = rows[order], keys[order]
    begins = np.flatnonzero(np.insert(keys[1:] != keys[:-1], 0, True))
    place = np.arange(len(keys)) - np.repeat(begins, np.diff([*begins, len(keys)]))
    splits = chosen(keys + place.astype(np.uint64), config)
    again = np.flatnonzero((place > 0) & (splits != chosen(keys, config)) & (rows >= first_new))
    return Marked(rows[again], splits[again])


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

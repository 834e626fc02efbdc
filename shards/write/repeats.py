"""Objects that are there more than once: which rows are set aside, decided before anything is written.

An id at two places names two objects, and nobody can tell which of them the labels are of: all its rows go to
quarantine. Visits of one object all become samples, in one split; `best_of` keeps one of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from specshards.common.errors import BadObjectError, JobError, UsageError
from specshards.common.identity import Repeats, Rows
from specshards.common.sky import LINK_ARCSEC, iter_close_pairs
from specshards.common.text import count, printable
from specshards.ingest.spectra.folder import SpectraFolder
from specshards.ingest.spectra.repeats import Identities, find_repeats, read_identities
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.write.marked import inside

#: Why a row is set aside: its id names another object too, or another visit of its object is better.
APART, VISIT = "apart", "visit"
#: The rows by why, sorted: int64 `(n,)` each.
Aside = Mapping[str, Rows]


@dataclass(frozen=True)
class Decided:
    """What is set aside, and how the visits of one object hang together.

    Attributes:
        notes: what the job says of it, a line each.
    """

    aside: Aside
    repeats: Repeats
    notes: tuple[str, ...] = ()


def decide(source: SpectraFolder, config: ShardConfig, first_new: int) -> Decided:
    """Look at every id of `source`. Rows below `first_new` are written already, and stay.

    Raises:
        UsageError: `best_of` of spectra without S/N, or of a data set that grows.
        JobError: a damaged file.
    """
    if config.best_of is None:
        repeats = find_repeats(source)
        return decided(repeats, first_new)
    if first_new:
        raise UsageError(
            "--best-of object: a better visit may be among the files that were added, and the shards that are there "
            "stay as they are; make the data set anew in another OUT"
        )
    foreign = next((group.file for group in source.groups if group.survey is not None), None)
    if foreign is not None:
        raise UsageError(
            f"{source.folder / foreign}: has no sn_median, by which --best-of chooses; read it with "
            "`specshards ingest build` first"
        )
    who = read_identities(source)
    repeats = find_repeats(source, who)
    lesser, objects = lesser_visits(who, repeats)
    visits = count(len(lesser), "other visit", "other visits")
    note = f"--best-of object: {visits} of {count(objects, 'object', 'objects')} left out"
    found = decided(repeats, first_new)
    return Decided({**found.aside, VISIT: lesser}, repeats, (*found.notes, note))


def decided(repeats: Repeats, first_new: int = 0) -> Decided:
    """What follows from the repeats alone."""
    notes = list(repeats.lines())
    apart = repeats.apart[repeats.apart >= first_new]
    if len(apart):
        notes[-1] += "; all of them go to quarantine"
    if len(apart) < len(repeats.apart):
        notes[-1] += f"; {len(repeats.apart) - len(apart):,} are in shards that are there already, and stay"
    return Decided({APART: apart}, repeats, tuple(notes))


def refuse_too_many(found: Decided, objects: int, max_bad_fraction: float, where: object) -> None:
    """JobError, before anything is written, when more rows than that are set aside for their ids."""
    apart = found.aside.get(APART, np.empty(0, np.int64))
    if len(apart) > max_bad_fraction * objects:
        raise JobError(
            f"{where}: {found.repeats.shown()}: "
            f"more than --max-bad-fraction {max_bad_fraction:g} of {objects:,}; give each object an id of its own"
        )


def lesser_visits(who: Identities, repeats: Repeats) -> tuple[Rows, int]:
    """The rows that are not the best of their object, sorted, and the number of objects that have such rows.

    An object is what has one id at one place, and all that lies within `LINK_ARCSEC` of it, in a chain: also in
    another survey. The best is the visit of the highest `sn_median`; without one it comes last, and of equal ones the
    first row is taken.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ra = who.ra.copy()
    ra[repeats.apart] = np.nan  # nobody knows what these are
    links = np.column_stack([repeats.first, repeats.again])
    pairs = np.concatenate([links, *iter_close_pairs(ra, who.dec, LINK_ARCSEC)])
    rows = np.unique(pairs)
    i, j = np.searchsorted(rows, pairs).T
    graph = coo_array((np.ones(len(i), np.bool_), (i, j)), shape=(len(rows), len(rows)))
    _, group = connected_components(graph, directed=False)
    sn = np.nan_to_num(who.sn_median[rows], nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    order = np.lexsort((rows, -sn, group))
    is_best = np.insert(np.diff(group[order]) != 0, 0, True) if len(order) else np.empty(0, np.bool_)
    return np.sort(rows[order[~is_best]]), int(is_best.sum())


def within(aside: Aside, spans: Sequence[tuple[int, int]]) -> dict[str, Rows]:
    """Of the rows that are set aside those that lie in one of the spans (first, and one past the last)."""
    found = {why: rows[inside(rows, spans)] for why, rows in aside.items()}
    return {why: rows for why, rows in found.items() if len(rows)}


def reasons(aside: Aside) -> dict[int, str]:
    """Row -> why."""
    return {row: why for why, rows in aside.items() for row in rows.tolist()}


def ambiguous(object_id: object) -> BadObjectError:
    """Why a row of `APART` is quarantined."""
    return BadObjectError(f"object_id {printable(str(object_id))} names an object at another place, too")

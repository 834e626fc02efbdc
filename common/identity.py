"""Which rows have one id, and whether they are visits of one object or an id that names two.

An object is a survey's id at a place. Rows that repeat it within `SAME_ARCSEC` are visits. The same id at another
place names two objects, and nobody can tell which of them its labels are of. Ids are compared by 64-bit hashes, 8
bytes a row however many there are; only rows whose hash repeats are looked at again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from specshards.common.text import count, printable

Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Places of one id differ by less: a plugged fibre by two arcseconds, the fastest stars by as much in a few years.
#: Two objects that have one id by mistake are that close by chance in one case of a hundred million.
SAME_ARCSEC = 10.0
#: Rows that are hashed at a time.
_SLICE = 1 << 16
_EXAMPLES = 3

#: The surveys and ids of some rows, exactly: as many pairs as rows.
Names = Callable[[Rows], Sequence[tuple[str, str]]]


def id_hashes(surveys: pa.ChunkedArray, ids: pa.ChunkedArray, first_row: int = 0) -> Hashes:
    """A hash of each row's survey and id: uint64 `(n,)`, the same on every machine.

    Args:
        surveys, ids: text. A row without an id is like no other.
        first_row: number of the first row among all that are compared.
    """
    codes = surveys.cast(pa.string()).combine_chunks().dictionary_encode()
    codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
    seeds = [hashlib.blake2b(str(name).encode(), digest_size=8).digest() for name in codes.dictionary.to_pylist()]
    seed = np.frombuffer(b"".join(seeds) or bytes(8), "<u8")[codes.indices.fill_null(0).to_numpy(False)]
    hashes = np.empty(len(ids), np.uint64)
    for start in range(0, len(ids), _SLICE):
        part = ids.slice(start, _SLICE).cast(pa.large_binary()).combine_chunks()
        part = pa.concat_arrays(part.chunks) if isinstance(part, pa.ChunkedArray) else part
        hashes[start : start + len(part)] = _hashed(part.fill_null(b""), seed[start : start + len(part)])
        missing = np.flatnonzero(part.is_null().to_numpy(False))
        hashes[start + missing] = (first_row + start + missing).astype(np.uint64)
    return hashes


def _hashed(ids: pa.LargeBinaryArray, seed: Hashes) -> Hashes:
    """Eight bytes of each id at a time, for all ids of one length."""
    offsets = np.frombuffer(ids.buffers()[1], np.int64)[ids.offset : ids.offset + len(ids) + 1]
    data = np.frombuffer(ids.buffers()[2] or b"", np.uint8)
    lengths = np.diff(offsets)
    hashes = np.empty(len(ids), np.uint64)
    for length in np.unique(lengths).tolist():
        at = np.flatnonzero(lengths == length)
        words = np.zeros((len(at), -(-length // 8) * 8), np.uint8)
        words[:, :length] = data[offsets[at][:, None] + np.arange(length)]
        value = _mixed(seed[at] ^ np.uint64(length))
        for word in words.view("<u8").T:
            value = _mixed(value ^ word)
        hashes[at] = value
    return hashes


def _mixed(x: Hashes) -> Hashes:
    """The finalizer of splitmix64 (Steele, Lea & Flood 2014)."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(x ^ (x >> np.uint64(31)))


def repeated(parts: Sequence[Hashes]) -> Hashes:
    """The values that are there more than once in all parts together, sorted; it takes the memory of one copy."""
    ordered = np.concatenate([np.empty(0, np.uint64), *parts])
    ordered.sort()
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def among(hashes: Hashes, values: Hashes) -> npt.NDArray[np.bool_]:
    """Which hashes are one of the sorted `values`."""
    found = np.zeros(len(hashes), np.bool_)
    for start in range(0, len(hashes) if len(values) else 0, _SLICE):
        part = hashes[start : start + _SLICE]
        at = np.minimum(np.searchsorted(values, part), len(values) - 1)
        found[start : start + len(part)] = values[at] == part
    return found


@dataclass(frozen=True)
class Repeats:
    """What rows with one id came to.

    Attributes:
        objects, visits: ids that more than one row has, all of them at one place; and those rows.
        first, again: of each visit but an object's first one, the number of the first row and its own: `(n,)` each.
        ambiguous: ids that rows at different places have; apart: those rows, all of them, sorted.
        examples: of such ids, in words.
        copies: visits that are another's to the last bit; None where nobody has looked.
    """

    objects: int = 0
    visits: int = 0
    first: Rows = field(default_factory=lambda: np.empty(0, np.int64))
    again: Rows = field(default_factory=lambda: np.empty(0, np.int64))
    ambiguous: int = 0
    apart: Rows = field(default_factory=lambda: np.empty(0, np.int64))
    examples: tuple[str, ...] = ()
    copies: int | None = None

    def lines(self) -> list[str]:
        """What a summary says of them, a line each; nothing where no id repeats."""
        found = []
        if self.visits:
            copies = f"; {count(self.copies, 'exact copy', 'exact copies')} of another" if self.copies else ""
            found.append(f"repeated visits: {self.visited()}{copies}")
        if self.ambiguous:
            found.append(f"ambiguous ids: {self.shown()}")
        return found

    def visited(self, what: str = "spectra") -> str:
        """How many objects have how many spectra."""
        return f"{count(self.objects, 'object has', 'objects have')} {self.visits:,} {what}"

    def shown(self) -> str:
        """How many ids are ambiguous, how many spectra have them, and examples."""
        ids = count(self.ambiguous, "id names", "ids name")
        return f"{ids} objects at different places, {len(self.apart):,} spectra (such as {'; '.join(self.examples)})"

    def to_dict(self) -> dict[str, Any]:
        """The counts and examples, JSON-able."""
        return {
            "objects": self.objects, "visits": self.visits, "copies": self.copies, "ambiguous": self.ambiguous,
            "apart": len(self.apart), "examples": list(self.examples),
        }  # fmt: skip


def judge(hashes: Hashes, rows: Rows, ra: Floats, dec: Floats, names: Names) -> Repeats:
    """Tell visits from ambiguous ids among the rows whose hashes repeat.

    Args:
        hashes, rows, ra, dec: `(n,)` each; positions in degrees, NaN where there is none, which is no other place.
        names: asked for the rows whose places differ, which are few.
    """
    if not len(rows):
        return Repeats()
    order, group, apart = _grouped(hashes, rows, ra, dec)
    suspects = order[apart[group]]
    named = dict(zip(suspects.tolist(), map(tuple, names(rows[suspects]) if len(suspects) else ()), strict=True))
    if named:
        # Two ids may have one hash. These rows are told apart by their ids themselves.
        keys = np.empty(len(rows), np.uint64)
        keys[order] = group
        codes = {name: code for code, name in enumerate(dict.fromkeys(named.values()), len(apart))}
        keys[suspects] = [codes[named[i]] for i in suspects.tolist()]
        order, group, apart = _grouped(keys, rows, ra, dec)
    ordered, sizes = rows[order], np.bincount(group)
    lowest = np.full(len(sizes), np.iinfo(np.int64).max)
    np.minimum.at(lowest, group, ordered)
    is_visit = ((sizes > 1) & ~apart)[group]
    is_again = is_visit & (ordered != lowest[group])
    examples = []
    for number in np.flatnonzero(apart)[:_EXAMPLES].tolist():
        members = order[group == number]
        places = [f"{ra[i]:.4f} {dec[i]:+.4f}" for i in members if np.isfinite(ra[i])]
        survey, name = named[int(members[0])]
        examples.append(f"{printable(name)} of {printable(survey)} at {', '.join(dict.fromkeys(places[:_EXAMPLES]))}")
    return Repeats(
        int(((sizes > 1) & ~apart).sum()), int(is_visit.sum()), lowest[group][is_again], ordered[is_again],
        int(apart.sum()), np.sort(ordered[apart[group]]), tuple(examples),
    )  # fmt: skip


def _grouped(hashes: Hashes, rows: Rows, ra: Floats, dec: Floats) -> tuple[Rows, Rows, npt.NDArray[np.bool_]]:
    """Places in the order of hash and row, the number of the hash at each of them, and which hashes lie apart."""
    # Of each hash first what has a position, so that all others are compared with one.
    order = np.lexsort((rows, ~(np.isfinite(ra) & np.isfinite(dec)), hashes))
    begins = np.insert(np.diff(hashes[order]) != 0, 0, True)
    group = np.cumsum(begins) - 1
    first = order[np.flatnonzero(begins)][group]
    apart = np.zeros(group[-1] + 1, np.bool_)
    apart[group[separation(ra[order], dec[order], ra[first], dec[first]) > SAME_ARCSEC]] = True
    return order, group, apart


def separation(ra: npt.ArrayLike, dec: npt.ArrayLike, ra_2: npt.ArrayLike, dec_2: npt.ArrayLike) -> Floats:
    """Arcseconds between two places each, degrees, by the haversine formula; NaN where there is none."""
    x, y, x_2, y_2 = (np.radians(np.asarray(values, np.float64)) for values in (ra, dec, ra_2, dec_2))
    square = np.sin((y - y_2) / 2) ** 2 + np.cos(y) * np.cos(y_2) * np.sin((x - x_2) / 2) ** 2
    return np.asarray(np.degrees(2 * np.arcsin(np.sqrt(np.clip(square, 0, 1)))) * 3600.0)

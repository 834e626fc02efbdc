"""Which file goes to which part, decided once and kept: what is new is appended, what changed is done again.

`ingest/plan.parquet` lists every input file, its name `escaped`, with a stamp of its content and its part. A rerun
compares it with what is there now: an unchanged file stays in its part, a part with a changed or lost file is redone,
and new files make new parts at the end, in a seeded random order, so that row groups are mixed from the start.

Nothing here holds all names: the files come sorted, SQLite keeps and sorts their rows (`ingest.listing_names`), and a
part reads its own names from the plan when it is asked for. A new file takes four bytes, for the seeded order.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specshards.common.errors import is_environment
from specshards.common.files import replacing
from specshards.common.messages import LOGGER
from specshards.common.text import escaped, unescaped
from specshards.ingest import archives
from specshards.ingest.listing_names import open_scratch, room
from specshards.ingest.surveys import companions_of

_SCHEMA = pa.schema([("file", pa.string()), ("bytes", pa.int64()), ("stamp", pa.binary(8)), ("part", pa.int32())])
# Files of many spectra are large; a part of them is bounded by bytes, or one worker would have them all.
_PART_BYTES = 1 << 30
#: Rows of a row group of the plan, and places of the seeded order that are turned round at a time.
_ROWS, _BLOCK = 1 << 14, 1 << 20
#: Files that are looked at together; seconds that a look takes where they are far away, and how many look there.
_LOOKED_AT, _FAR, _LOOKERS = 1 << 11, 2e-4, 16
#: In the order of reading: a row's key is `part << _PLACE | place`.
_PLACE, _NEW = 32, int(np.iinfo(np.int32).max)

#: A file as it is planned: its name, `escaped`, in UTF-8; its bytes, and its stamp.
_Row = tuple[bytes, int, bytes]


@dataclass(frozen=True)
class Part:
    """Files of one task, in the order of reading; `stamp` changes with any of them."""

    number: int
    files: tuple[str, ...]
    bytes: int
    stamp: str


class Plan(Sequence[Part]):
    """The parts of a plan that hold any files; what they hold is read from its file when it is asked for.

    Attributes:
        numbers, counts: of each part its number, and how many files it has: int32 `(n,)`. files: of all.
    """

    def __init__(self, path: Path, parts: Sequence[tuple[int, int, int, int, int, bytes]]) -> None:
        """Of each part its number, row group, first row there, files, bytes, and the digest that is its stamp."""
        kinds = [
            ("number", "i4"),
            ("group", "i4"),
            ("start", "i4"),
            ("count", "i4"),
            ("bytes", "i8"),
            ("stamp", "V32"),
        ]
        self._path, self._parts = path, np.array(parts, kinds)
        self._group: tuple[int, pa.Array] = (-1, pa.array([], pa.string()))
        self.numbers, self.counts = self._parts["number"], self._parts["count"]
        self.files = int(self.counts.sum())

    def __len__(self) -> int:
        """How many parts."""
        return len(self._parts)

    @overload
    def __getitem__(self, index: int) -> Part: ...
    @overload
    def __getitem__(self, index: slice) -> list[Part]: ...
    def __getitem__(self, index: int | slice) -> Part | list[Part]:
        """A part with the names of its files; the next ones are mostly there with it."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number, group, start, count, size, stamp = self._parts[index].item()
        if self._group[0] != group:
            with pq.ParquetFile(self._path) as file:
                self._group = (group, file.read_row_group(group, columns=["file"])["file"].combine_chunks())
        names = self._group[1].slice(start, count).to_pylist()
        return Part(number, tuple(map(unescaped, names)), size, bytes(stamp).hex())


def make_plan(
    root: Path, files: Iterable[str], path: Path, *, files_per_part: int, seed: int, trust_names: bool = False
) -> Plan:
    """Bring the plan at `path` up to date with `files`, which are sorted, and return its parts that hold any.

    Args:
        trust_names: a file that the plan has is as it was; no look is taken at it.

    Raises:
        JobError: no room for temporary files.
    """
    with closing(open_scratch()) as store, room():
        store.execute("BEGIN")
        known, first_new = _load_earlier(path, store)
        store.execute("CREATE TABLE rows(key INTEGER, file BLOB, bytes INTEGER, stamp BLOB)")
        key = f"coalesce((SELECT key FROM old WHERE file = ?1), {_NEW << _PLACE})" if known else str(_NEW << _PLACE)
        trusted = partial(_known, store) if trust_names and known else None
        store.executemany(f"INSERT INTO rows VALUES ({key}, ?1, ?2, ?3)", _stamped(root, files, trusted))
        _place_new(store, known, first_new, seed)
        return _write(store, path, files_per_part, first_new)


def _load_earlier(path: Path, store: sqlite3.Connection) -> tuple[int, int]:
    """Enter the plan that is there; where there is none that this program can have written, it is made again.

    Returns:
        Its rows, and the number of the first part that it does not have.
    """
    store.execute("CREATE TABLE old(key INTEGER PRIMARY KEY, file BLOB, bytes INTEGER, stamp BLOB)")
    rows, last = 0, -1
    try:
        with pq.ParquetFile(path) as file:
            most = _NEW - 2 * file.metadata.num_rows
            if not file.schema_arrow.equals(_SCHEMA):
                raise pa.ArrowInvalid("other columns")
            for batch in file.iter_batches(_ROWS):
                if any(column.null_count for column in batch.columns):
                    raise pa.ArrowInvalid("nulls")
                parts = batch["part"].to_numpy().astype(np.int64)
                if len(parts) and (parts.min() < 0 or parts.max() >= most):
                    raise pa.ArrowInvalid("other parts")
                keys = (parts << _PLACE) + rows + np.arange(len(parts))
                names = batch["file"].cast(pa.binary())
                columns = [column.to_pylist() for column in (names, batch["bytes"], batch["stamp"])]
                store.executemany("INSERT INTO old VALUES (?, ?, ?, ?)", zip(keys.tolist(), *columns, strict=True))
                rows, last = rows + len(parts), max(last, parts.max(initial=-1))
        store.execute("CREATE UNIQUE INDEX old_file ON old(file)")
        return rows, int(last) + 1
    except FileNotFoundError:
        return 0, 0
    except sqlite3.IntegrityError:  # a file that is there twice
        pass
    except (pa.ArrowException, OSError) as error:
        if is_environment(error):
            raise
    LOGGER.info(f"{path}: not what this program writes, or damaged; made again")
    return 0, 0


def _place_new(store: sqlite3.Connection, known: int, first_new: int, seed: int) -> None:
    """Give the new rows, which stand in the order of their names, places behind the known ones: in a seeded order."""
    is_new = f"key = {_NEW << _PLACE}"
    (count,) = store.execute(f"SELECT count(*) FROM rows WHERE {is_new}").fetchone()
    places, at = _seeded(count, [seed, first_new]), 0
    while some := store.execute(
        f"SELECT rowid FROM rows WHERE rowid > ? AND {is_new} LIMIT {_ROWS}", (at,)
    ).fetchall():
        keys = ((_NEW << _PLACE) + known + place for place in islice(places, len(some)))
        store.executemany(
            "UPDATE rows SET key = ? WHERE rowid = ?", ((k, at) for k, (at,) in zip(keys, some, strict=True))
        )
        at = some[-1][0]


def _seeded(count: int, seed: list[int]) -> Iterator[int]:
    """The place of each of so many things in `default_rng(seed).permutation(count)`: four bytes each, not sixteen."""
    order = np.arange(count, dtype=np.int32)
    np.random.default_rng(seed).shuffle(order)
    for start in range(0, count, _BLOCK):
        places = np.empty(min(_BLOCK, count - start), np.int64)
        for first in range(0, count, _BLOCK):
            some = order[first : first + _BLOCK] - start
            at = np.flatnonzero((some >= 0) & (some < len(places)))
            places[some[at]] = first + at
        for first in range(0, len(places), _ROWS):
            yield from places[first : first + _ROWS].tolist()


def _write(store: sqlite3.Connection, path: Path, files_per_part: int, first_new: int) -> Plan:
    parts: list[tuple[int, int, int, int, int, bytes]] = []
    rows, numbers, group = list[_Row](), list[int](), 0
    found = store.execute("SELECT key, file, bytes, stamp FROM rows ORDER BY key")
    with replacing(path) as temporary, pq.ParquetWriter(temporary, _SCHEMA, compression="zstd") as writer:

        def flush() -> None:
            files, sizes, stamps = zip(*rows, strict=True) if rows else ((), (), ())
            names = pa.array(files, pa.binary()).cast(pa.string())
            writer.write_table(pa.table([names, sizes, pa.array(stamps, pa.binary(8)), numbers], schema=_SCHEMA))

        for number, part in _cut(found, files_per_part, first_new):
            stamp = hashlib.sha256(b"\0".join(file for file, _, _ in part) + b"".join(each for _, _, each in part))
            parts.append((number, group, len(rows), len(part), sum(size for _, size, _ in part), stamp.digest()))
            rows += part
            numbers += [number] * len(part)
            if len(rows) >= _ROWS:  # a part lies in one row group
                flush()
                rows, numbers, group = [], [], group + 1
        if rows or not group:
            flush()
    return Plan(path, parts)


def _cut(
    rows: Iterable[tuple[int, bytes, int, bytes]], files_per_part: int, first_new: int
) -> Iterator[tuple[int, list[_Row]]]:
    """Part by part: those that are known, and new ones, of at most `files_per_part` files and (but for one) 1 GiB."""
    number, total, part = -1, 0, list[_Row]()
    for key, file, size, stamp in rows:
        its = key >> _PLACE
        if its == _NEW:
            is_full = len(part) == files_per_part or total + size > _PART_BYTES
            its = max(first_new, number + (1 if is_full and part else 0))
        if its != number:
            if part:
                yield number, part
            number, total, part = its, 0, []
        part.append((file, size, stamp))
        total += size
    if part:
        yield number, part


def _known(store: sqlite3.Connection, name: str) -> _Row | None:
    """The row that a file has in the earlier plan."""
    file = escaped(name).encode()
    found = store.execute("SELECT bytes, stamp FROM old WHERE file = ?", (file,)).fetchone()
    return None if found is None else (file, *found)


def _stamped(root: Path, files: Iterable[str], trusted: Callable[[str], _Row | None] | None) -> Iterator[_Row]:
    """Each file as it is planned: many are looked at together where that takes its time, on a distant file system.

    Args:
        trusted: gives the rows that are taken as they are, where no look is wanted.
    """
    if trusted is not None:
        for name in files:
            yield trusted(name) or _row(companions_of(), f"{root}/", name)
        return
    names, row = iter(files), partial(_row, companions_of(), f"{root}/")
    with ThreadPoolExecutor(_LOOKERS) as lookers:
        is_far = False
        while some := list(islice(names, _LOOKED_AT)):
            started = time.perf_counter()
            rows = list(lookers.map(row, some) if is_far else map(row, some))
            is_far = is_far or time.perf_counter() - started > _FAR * len(some)
            yield from rows


def _row(companions: Callable[[str], list[str]], root: str, name: str) -> _Row:
    size, identity = _stamp(root + name)
    for other in companions(name):  # a coadd is read with its labels, and again when these change
        if archives.is_there(root + other):
            identity += f" {other} {_stamp(root + other)[1]}"
    return escaped(name).encode(), size, hashlib.blake2b(os.fsencode(identity), digest_size=8).digest()


def _stamp(path: str) -> tuple[int, str]:
    """Bytes of a file, and what changes with its content or with whether it can be read."""
    try:
        status = os.stat(path)  # noqa: PTH116 - of a plain string
    except OSError as error:  # whoever opens it says why that cannot be
        if isinstance(error, NotADirectoryError) and (member := archives.status(path)) is not None:
            return member
        return 0, f"error {error.errno}"
    if not stat.S_ISREG(status.st_mode):
        return 0, f"mode {status.st_mode}"
    return status.st_size, f"{status.st_size} {status.st_mtime_ns}"

"""A list of names of files, however long: in memory are some thousands of them at a time.

SQLite, of Python's own library, keeps and sorts what does not fit its cache in temporary files without a name, which
go with the process however that ends. They lie where SQLITE_TMPDIR or TMPDIR says, and take 150 bytes a file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import islice

import numpy as np
import numpy.typing as npt

from specshards.common.errors import JobError
from specshards.ingest.stems import DEEPEST, stem_of

#: Memory of one store, and of one that sorts.
_CACHE_KIB = 16_384


def open_scratch(*, shared: bool = False) -> sqlite3.Connection:
    """A store that is nobody else's: in memory while it is small, then in a temporary file without a name.

    Args:
        shared: threads take it in turns, which they see to themselves.
    """
    store = sqlite3.connect("", isolation_level=None, check_same_thread=not shared)
    for setting in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{_CACHE_KIB}", "temp_store=FILE"):
        store.execute(f"PRAGMA {setting}")
    return store


@contextmanager
def room() -> Iterator[None]:
    """JobError where a store has no room for its temporary files."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise JobError(
            f"no room to sort the list of files ({error}); set TMPDIR to a folder with 150 bytes a file"
        ) from error


class NameList:
    """Names of files below one folder, each once, in the order of `sorted`."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Take the names, in any order; bytes that are no UTF-8 are lone surrogates.

        Raises:
            JobError: no room for temporary files.
        """
        self._store = open_scratch()
        self._store.execute("CREATE TABLE names(name BLOB, stem INTEGER)")
        with room():
            self._store.execute("BEGIN")
            rows = ((_bytes(name), hash(stem_of(name))) for name in names)
            self._store.executemany("INSERT INTO names VALUES (?, ?)", rows)
            self._store.execute("COMMIT")
        self._count = int(self._store.execute("SELECT count(*) FROM names").fetchone()[0])

    def __len__(self) -> int:
        """How many."""
        return self._count

    def __iter__(self) -> Iterator[str]:
        """All of them, sorted."""
        with room():
            for (name,) in self._store.execute("SELECT name FROM names ORDER BY name"):
                yield _text(name)

    def unsorted(self) -> Iterator[str]:
        """All of them, as they came."""
        for (name,) in self._store.execute("SELECT name FROM names"):
            yield _text(name)

    def first(self, count: int) -> list[str]:
        """The first ones, sorted."""
        found = self._store.execute("SELECT name FROM names ORDER BY name LIMIT ?", (count,))
        return [_text(name) for (name,) in found]

    def take(self, places: npt.NDArray[np.int64]) -> NameList:
        """Those at some places of the sorted list; the places are sorted, each once."""
        names = iter(self)
        skips = np.diff(places, prepend=-1) - 1
        return NameList(next(islice(names, skip, None)) for skip in skips.tolist())

    @cached_property
    def repeats(self) -> RepeatedStems:
        """Which of them are named as files in other folders are."""
        return RepeatedStems(self._store)


class RepeatedStems:
    """The files whose name alone is that of a file in another folder, too; see `ingest.stems`.

    What `stems.repeated` and `stems.depth_of` say of a list, without holding it.

    Attributes:
        depth: the least depth at which no `stem_of` stands for files in two folders.
    """

    def __init__(self, store: sqlite3.Connection) -> None:
        """Look at all names of the store: at their hashes first, which are rarely alike."""
        self._store = store
        with room():
            for table in ("alike(stem INTEGER PRIMARY KEY)", "pairs(one BLOB, whole BLOB)",
                          "again(stem BLOB PRIMARY KEY) WITHOUT ROWID"):  # fmt: skip
                store.execute(f"CREATE TABLE {table}")
            store.execute("INSERT INTO alike SELECT stem FROM names GROUP BY stem HAVING count(*) > 1")
            found = store.execute("SELECT name FROM names WHERE stem IN (SELECT stem FROM alike)")
            names = (_text(name) for (name,) in found)
            pairs = ((_bytes(stem_of(name)), _bytes(stem_of(name, DEEPEST))) for name in names)
            store.execute("BEGIN")
            store.executemany("INSERT INTO pairs VALUES (?, ?)", pairs)
            store.execute("COMMIT")
            store.execute("INSERT INTO again SELECT one FROM pairs GROUP BY one HAVING min(whole) <> max(whole)")
            self._count = int(store.execute("SELECT count(*) FROM again").fetchone()[0])

    def __bool__(self) -> bool:
        """Whether there are any."""
        return self._count > 0

    def __contains__(self, file: object) -> bool:
        """Whether a file is one of them."""
        if not self._count or not isinstance(file, str):
            return False
        found = self._store.execute("SELECT 1 FROM again WHERE stem = ?", (_bytes(stem_of(file)),))
        return found.fetchone() is not None

    @cached_property
    def depth(self) -> int:
        """See `stems.depth_of`."""
        if not self._count:
            return 1
        whole = self._distinct(DEEPEST)
        return next((depth for depth in range(2, DEEPEST) if self._distinct(depth) == whole), DEEPEST)

    def _distinct(self, depth: int) -> int:
        with room():
            self._store.execute("CREATE TEMP TABLE stems(stem BLOB)")
            wholes = self._store.execute("SELECT whole FROM pairs")
            stems = ((_bytes(stem_of(_text(whole), depth)),) for (whole,) in wholes)
            self._store.executemany("INSERT INTO stems VALUES (?)", stems)
            (count,) = self._store.execute("SELECT count(*) FROM (SELECT stem FROM stems GROUP BY stem)").fetchone()
            self._store.execute("DROP TABLE stems")
        return int(count)


def _bytes(name: str | None) -> bytes:
    """In this form the order of bytes is that of `str`."""
    return (name or "").encode("utf-8", "surrogatepass")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")

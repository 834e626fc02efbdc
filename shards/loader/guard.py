"""What a loader reads is compared with its checksums behind its back, in a thread that others hardly notice.

A flipped bit in a label vector is a label like any other, and so is one in an index. Only the manifest's checksums
tell. A shard is looked at once, when it is opened first, so that its bytes come from the disk once; whoever is about
to publish what was learnt from it waits for the outcome (`Loader.verified`).
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from specshards.common.cache import Cache
from specshards.common.errors import JobError, one_line
from specshards.common.files import is_remote, sha256
from specshards.common.messages import LOGGER
from specshards.shards.format.archive import Archive, labels_of
from specshards.shards.format.manifest import MANIFEST, Manifest, ShardRecord
from specshards.shards.format.nearby import has_sidecars, nearby_sidecar, nearby_tar

#: A thread of this niceness takes a tenth of a busy core, and all of an idle one.
_NICE = 10
#: Samples whose label vectors are compared with the table, to see that both mean the same names.
_SOME = 512

#: What is wrong, in one line; empty where nothing is.
Look = Callable[[], str]


class Guard:
    """A thread that goes through what is to be looked at, one after another."""

    def __init__(self) -> None:
        self._looks: deque[Look] = deque()
        self._change = threading.Condition()
        self._pending = 0
        self._thread: threading.Thread | None = None
        self._closed = False
        self._fault = ""

    def add(self, look: Look) -> None:
        """Something more to look at."""
        with self._change:
            self._looks.append(look)
            self._pending += 1
            self._change.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="shards-guard", daemon=True)
                self._thread.start()

    def wait(self) -> None:
        """Until all has been looked at, with a hand of the one who waits; JobError where something is wrong."""
        while not self._fault and (look := self._next()) is not None:
            self._look(look)
        with self._change:
            self._change.wait_for(lambda: self._pending == 0 or self._fault or self._closed)
        if self._fault:
            raise JobError(self._fault)

    def close(self) -> None:
        """Look at nothing more."""
        with self._change:
            self._closed = True
            self._looks.clear()
            self._change.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        with suppress(AttributeError, OSError):  # Linux has priorities of threads
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while True:
            with self._change:
                self._change.wait_for(lambda: self._looks or self._closed)
                if self._closed:
                    return
            if (look := self._next()) is not None:
                self._look(look)

    def _next(self) -> Look | None:
        with self._change:
            return self._looks.popleft() if self._looks else None

    def _look(self, look: Look) -> None:
        try:
            fault = look()
        except JobError as error:
            fault = str(error)
        except OSError as error:
            fault = one_line(error)
        with self._change:
            self._pending -= 1
            self._fault = self._fault or fault
            self._change.notify_all()


class Unverified:
    """Looks at nothing."""

    def add_statistics(self, sets: Iterable[tuple[Path, Manifest]]) -> None:
        """Have the label statistics of data sets looked at."""

    def opened(self, number: int) -> None:
        """A shard is about to be read: have it looked at, unless it was."""

    def wait(self) -> None:
        """Until all has been looked at; JobError where something is wrong."""

    def close(self) -> None:
        """Look at nothing more."""


class Verification(Unverified):
    """Looks at the shards that a loader opens.

    Of the first one of each data set, also whether its label vectors count by the names in the manifest.
    """

    def __init__(
        self, shards: Sequence[tuple[Path, Manifest, ShardRecord]], extension: str, stop: bool, tables: bool,
        cache: Cache | None = None,
    ) -> None:  # fmt: skip
        """The shards by their number; `stop` at what is wrong, or warn; `tables` beside the tars are read, too.

        `cache` holds copies of what lies elsewhere.
        """
        self._cache = cache
        self._shards, self._extension, self._stop, self._tables = shards, extension, stop, tables
        self._seen: set[int] = set()
        self._folders: set[Path] = set()
        self._guard, self._warned = Guard(), False

    def add_statistics(self, sets: Iterable[tuple[Path, Manifest]]) -> None:
        """See `Unverified`."""
        for folder, manifest in sets:
            self._guard.add(partial(statistics, folder, manifest, self._cache))

    def opened(self, number: int) -> None:
        """See `Unverified`."""
        if number in self._seen:
            return
        self._seen.add(number)
        folder, manifest, record = self._shards[number]
        self._guard.add(partial(checksums, folder, record, self._tables))
        if folder not in self._folders:
            self._folders.add(folder)
            self._guard.add(partial(vectors, folder, manifest, record, self._extension, self._cache))

    def wait(self) -> None:
        """See `Unverified`."""
        try:
            self._guard.wait()
        except JobError as error:
            if self._stop:
                raise
            if not self._warned:
                LOGGER.warning(f"only what cannot be decoded is skipped, other damage may pass: {error}")
            self._warned = True

    def close(self) -> None:
        """See `Unverified`."""
        self._guard.close()


def checksums(folder: Path, record: ShardRecord, table: bool) -> str:
    """What is wrong with a tar, its index, and where it is asked for the table beside it.

    Nothing with those that lie elsewhere: a copy was compared when it was made.
    """
    if is_remote(folder):
        return ""
    files = [(record.path(folder), record.sha256), (record.index(folder), record.index_sha256)]
    files += [(record.sidecar(folder), record.sidecar_sha256)] if table else []
    return next((_changed(path, folder) for path, expected in files if sha256(path) != expected), "")


def _changed(path: Path, folder: Path) -> str:
    return (
        f"{path}: not the bytes that {folder / MANIFEST} speaks of (checksum); run the command that made the shards "
        "again, it mends them, then this one"
    )


def vectors(folder: Path, manifest: Manifest, record: ShardRecord, extension: str, cache: Cache | None = None) -> str:
    """What is wrong with the names by which label vectors count, by the table beside a tar, where there is one."""
    if not has_sidecars([record], folder):
        return ""
    archive = Archive([record.path(folder)], [record.samples], extension, manifest.labels,
                      opening=lambda _: nearby_tar(record, folder, cache))  # fmt: skip
    some = np.unique(np.linspace(0, record.samples - 1, _SOME).astype(np.int64))
    try:
        found, wrong = archive.vectors(archive.read(some))
    finally:
        archive.close()
    table = _table(folder, record, manifest.labels, cache).take(some)
    said = labels_of(table, manifest.labels, manifest.classes, manifest.surveys)
    known = [i for i in range(len(some)) if i not in wrong]
    for column, label in enumerate(manifest.labels):
        if label in table.column_names and not same(found[known, column], said[known, column]).all():
            return (
                f"{folder / MANIFEST}: {label} of {record.name} is not that of the table beside it: its labels, "
                "classes or surveys were changed; make the shards again"
            )
    return ""


def statistics(folder: Path, manifest: Manifest, cache: Cache | None = None) -> str:
    """What is wrong with the label statistics of the train split, by its tables, where they are there."""
    if not has_sidecars(manifest.split("train"), folder):
        return ""
    width = len(manifest.labels)
    count, total, squares = np.zeros(width), np.zeros(width), np.zeros(width)
    least, greatest = np.full(width, np.inf), np.full(width, -np.inf)
    for record in manifest.split("train"):
        values = labels_of(
            _table(folder, record, manifest.labels, cache), manifest.labels, manifest.classes, manifest.surveys
        )
        known = ~np.isnan(values)
        zero = np.where(known, values, 0)
        count, total, squares = count + known.sum(axis=0), total + zero.sum(axis=0), squares + (zero**2).sum(axis=0)
        least = np.minimum(least, np.where(known, values, np.inf).min(axis=0))
        greatest = np.maximum(greatest, np.where(known, values, -np.inf).max(axis=0))
    for column, (label, stats) in enumerate((name, manifest.label_stats.get(name)) for name in manifest.labels):
        n = count[column]
        if stats is None:
            continue
        mean = total[column] / n if n else np.nan
        spread = np.sqrt(max(0.0, squares[column] / n - mean**2)) if n else np.nan
        mine = np.array([mean, spread, least[column], greatest[column]]) if n else np.full(4, np.nan)
        theirs = np.array([stats.mean, stats.std, stats.min, stats.max])
        scale = max(abs(least[column]), abs(greatest[column])) if n else 1.0
        if stats.count != n or not np.allclose(mine, theirs, rtol=1e-5, atol=1e-5 * scale, equal_nan=True):
            return (
                f"{folder / MANIFEST}: label_stats of {label} are not those of the train split; make the shards again"
            )
    return ""


def same(left: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Where numbers are equal, missing ones too."""
    return (left == right) | (np.isnan(left) & np.isnan(right))


def _table(folder: Path, record: ShardRecord, labels: Sequence[str], cache: Cache | None) -> pa.Table:
    """The columns of labels that there are."""
    path = record.sidecar(folder)
    if not is_remote(folder) and sha256(path) != record.sidecar_sha256:
        raise JobError(_changed(path, folder))
    try:
        with nearby_sidecar(record, folder, cache) as near, pq.ParquetFile(near) as file:
            return file.read([name for name in labels if name in file.schema_arrow.names], use_threads=False)
    except (pa.ArrowException, ValueError) as error:
        raise JobError(_changed(path, folder)) from error

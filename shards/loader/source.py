"""Where a loader's shards come from: this machine's disk, or addresses by way of a cache, fetched in advance."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

from specshards.common.cache import SIZE, Cache, Remote, shared_cache
from specshards.common.errors import JobError, UsageError
from specshards.common.files import is_remote
from specshards.common.remote import GivenUpError
from specshards.shards.format.manifest import ShardRecord
from specshards.shards.format.nearby import remote_tar

#: Shards that are fetched at a time.
_THREADS = 4


class Source:
    """Shards by their number in a loader.

    `expect` says in which order an epoch will need those that lie elsewhere: window after window, as they are
    shuffled (`shards.loader.order`). Threads fetch those of the window that is read now and of the next, as far as
    the cache has room for both; what was read is removed when others need the room.
    """

    def __init__(self, shards: Sequence[tuple[Path, ShardRecord]], cache: Cache | None = None) -> None:
        """Folder and record of each; the cache of the process unless another is given."""
        self._shards = shards
        self._far = {number for number, (folder, _) in enumerate(shards) if is_remote(folder)}
        self._cache = (cache or shared_cache()) if self._far else None
        self._change, self._stop = threading.Condition(), threading.Event()
        self._threads: list[threading.Thread] = []
        # What is to be fetched, window and shard in order, with the bytes before each; the next one, and the first
        # one of the window that is read now.
        self._queue: list[tuple[int, int]] = []
        self._bytes = [0]
        self._next = self._begin = 0
        self._window: dict[int, int] = {}
        self._place: dict[str, int] = {}
        self._failed: dict[int, JobError] = {}

    def check_room(self, windows: Sequence[Sequence[int]]) -> None:
        """Refuse a cache that cannot hold the shards that are read at one time.

        Raises:
            UsageError: says how much they take.
        """
        if self._cache is None:
            return
        most = max(sum(self._shards[n][1].bytes for n in window if n in self._far) for window in windows)
        if most > self._cache.limit:
            raise UsageError(
                f"{self._cache.folder}: may take {self._cache.limit:,} bytes, and shards that are shuffled together "
                f"take {most:,}; give {SIZE}={2 * most / 1e9:.3g}GB, twice that, or more"
            )

    def expect(self, windows: Sequence[Sequence[int]]) -> None:
        """The shards that will be needed from now on, and no others: fetch them in this order."""
        if self._cache is None:
            return
        with self._change:
            self._queue = [(place, n) for place, window in enumerate(windows) for n in window if n in self._far]
            self._bytes = [0, *accumulate(self._shards[n][1].bytes for _, n in self._queue)]
            self._next = self._begin = 0
            self._window = {number: window for window, number in self._queue}
            self._place = {
                file.name: place for place, (_, number) in enumerate(self._queue) for file in self._files(number)
            }
            if not self._threads:
                self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(_THREADS)]
                for thread in self._threads:
                    thread.start()
            self._change.notify_all()

    @contextmanager
    def opening(self, number: int) -> Iterator[Path]:
        """The tar of a shard on this machine, its index beside it; a copy stays within the block, to be opened.

        Raises:
            JobError: a copy cannot be had; names the object. UsageError: it is larger than the cache may be.
        """
        if number not in self._far:
            folder, record = self._shards[number]
            yield record.path(folder)
            return
        with self._change:
            window = self._window.get(number, 0)
            while self._begin < len(self._queue) and self._queue[self._begin][0] < window:
                self._begin += 1
            self._change.notify_all()
        if (error := self._failed.pop(number, None)) is not None:
            raise error
        with self._copy(number) as path:
            yield path

    @contextmanager
    def _copy(self, number: int) -> Iterator[Path]:
        assert self._cache is not None
        tar, index = self._files(number)
        with (
            self._cache.holding(index, self._need, self._stop),
            self._cache.holding(tar, self._need, self._stop) as path,
        ):
            yield path

    def close(self) -> None:
        """Stop fetching, at once."""
        with self._change:
            self._stop.set()
            self._change.notify_all()
        for thread in self._threads:
            thread.join()

    def _files(self, number: int) -> tuple[Remote, Remote]:
        folder, record = self._shards[number]
        return remote_tar(record, folder)

    def _need(self, name: str) -> int | None:
        """When a copy is needed, of those that still are."""
        place = self._place.get(name)
        return None if place is None or place < self._begin else place

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._stop.is_set() or self._may_fetch())
                if self._stop.is_set():
                    return
                _, number = self._queue[self._next]
                self._next += 1
            try:
                with self._copy(number):
                    pass
            except JobError as error:  # all tries were made; whoever opens it is told now
                self._failed[number] = error
            except (UsageError, OSError, GivenUpError):
                pass  # whoever opens it tries again

    def _may_fetch(self) -> bool:
        """Whether the next shard is of this window or the one after it, and has room beside what is needed before."""
        if self._cache is None or self._next == len(self._queue):
            return False
        of_next, of_now = self._queue[self._next][0], self._queue[self._begin][0]
        return of_next <= of_now + 1 and self._bytes[self._next + 1] - self._bytes[self._begin] <= self._cache.limit

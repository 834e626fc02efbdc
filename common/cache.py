"""Copies of whole files from other addresses, in a folder of this machine whose size is bounded.

A copy has its checksum in its name, so that equal files of several addresses are one, and one that changed is
another. It appears whole, once that checksum is right. Several processes may share the folder: a file is fetched by
one of them while others wait, and none removes what another is just opening; what is open already can be removed.
There are no files of bookkeeping: whatever a process leaves when it dies, the next one uses or removes.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from shutil import disk_usage
from typing import IO

from specshards.common.errors import JobError, UsageError, make_folder, naming
from specshards.common.files import sha256
from specshards.common.remote import GivenUpError, patiently

#: Where copies lie, and how many bytes they may take: of the environment, and what is taken without them.
FOLDER, SIZE = "SPECSHARDS_CACHE", "SPECSHARDS_CACHE_SIZE"
_MOST, _SHARE = 64 << 30, 0.5
#: Copies, and what is being fetched: a hidden file that says how long it will be, locked while somebody works on it.
#: Nothing else in the folder is ours.
_OURS = re.compile(r"[0-9a-f]{16}-[\w.-]+|\.[0-9a-f]{16}-[\w.-]+\.(?P<bytes>\d+)\.part")
_LOOK = 0.02  # seconds between looks at a file that another process is fetching


@dataclass(frozen=True)
class Remote:
    """A file elsewhere.

    Attributes:
        label: the copy's name behind the checksum.
        bytes: None where it is not known before.
        beside: another file's checksum, after which this one is named: they lie side by side.
    """

    there: Path
    sha256: str
    label: str
    bytes: int | None = None
    beside: str = ""

    @property
    def name(self) -> str:
        """Of the copy."""
        return f"{(self.beside or self.sha256)[:16]}-{self.label}"


def _needs_none(name: str) -> int | None:
    return None


class Cache:
    """The folder. Its methods may be called from any thread.

    Attributes:
        limit: bytes that the copies may take together.
        fetched: files fetched by this process.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit, self.fetched = folder, limit, 0
        self._compared: set[tuple[str, str]] = set()
        self._room = threading.Lock()

    @contextmanager
    def holding(
        self, file: Remote, need: Callable[[str], int | None] = _needs_none, stop: threading.Event | None = None
    ) -> Iterator[Path]:
        """The copy of a file, fetched where it is not here; nobody removes it within the block.

        Args:
            need: of a copy's name, when it will be needed: the lower the sooner, None for not at all. What is needed
                latest goes first where there is no room.
            stop: gives up when it is set.

        Raises:
            JobError: it is not there, is not the file of that checksum, or cannot be read. UsageError: it is larger
                than the cache may be. GivenUpError: `stop` was set.
        """
        stop = stop or threading.Event()
        path = self.folder / file.name
        while True:
            try:
                handle = path.open("rb")
            except FileNotFoundError:
                self._fetch(file, need, stop)
                continue
            except IsADirectoryError as error:
                raise JobError(f"{path}: a folder in the place of a copy; remove it") from error
            with handle:
                _lock(handle, fcntl.LOCK_SH)
                if not _is_at(handle, path):
                    continue
                if not self._is_whole(file, path):
                    path.unlink(missing_ok=True)
                    continue
                with suppress(OSError):  # of another user
                    os.utime(path)
                yield path
                return

    def _is_whole(self, file: Remote, path: Path) -> bool:
        """Whether a copy is what it should be; its bytes are read once in a process."""
        if file.bytes is not None and path.stat().st_size != file.bytes:
            return False
        if (key := (file.name, file.sha256)) not in self._compared:
            if sha256(path) != file.sha256:
                return False
            self._compared.add(key)
        return True

    def _fetch(self, file: Remote, need: Callable[[str], int | None], stop: threading.Event) -> None:
        """Copy a file, unless another thread or process does."""
        if (file.bytes or 0) > self.limit:
            raise UsageError(
                f"{file.there}: {file.bytes:,} bytes, more than the cache may take; give a larger {SIZE}"
            )
        make_folder(self.folder)
        part, path = self.folder / f".{file.name}.{file.bytes or 0}.part", self.folder / file.name
        with naming(part), part.open("ab") as handle:
            while not _lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB):
                if stop.wait(_LOOK):
                    raise GivenUpError
            if not _is_at(handle, part):
                return
            try:
                if not path.exists():
                    self._make_room(need)
                    self._download(file, part, stop)
                    if file.bytes is None:  # only now it is known what room it needs
                        self._make_room(need)
                    with self._room:  # not while sizes are added up: it would be missed under both names
                        os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)

    def _download(self, file: Remote, part: Path, stop: threading.Event) -> None:
        """Copy a file to `part`, until it has the right checksum, or the same wrong one twice."""
        from fsspec.callbacks import Callback

        wrong: set[str] = set()

        class Interruptible(Callback):
            def relative_update(self, inc: int = 1) -> None:
                if stop.is_set():
                    raise GivenUpError

        def attempt() -> None:
            if stop.is_set():
                raise GivenUpError
            system = file.there.fs  # type: ignore[attr-defined]
            system.get_file(file.there.path, str(part), callback=Interruptible())  # type: ignore[attr-defined]
            if (found := sha256(part)) != file.sha256:
                if found in wrong:
                    came = f"{part.stat().st_size:,} bytes came"
                    why = f"is not what the manifest says ({came}); copy or make it again, or see to the server"
                    raise JobError(f"{file.there}: {why}")
                wrong.add(found)
                raise ValueError("not the bytes of its checksum")

        try:
            patiently(file.there, attempt, stop.wait)
        except FileNotFoundError:
            raise JobError(f"{file.there}: is missing; copy or make it again") from None
        self._compared.add((file.name, file.sha256))
        self.fetched += 1

    def _make_room(self, need: Callable[[str], int | None]) -> None:
        """Remove copies until all is within the limit, what is being fetched as long as it will be.

        What is not needed goes first, longest unused first of all.
        """
        with self._room:
            found = [(path, *_size_and_time(path)) for path in self.folder.iterdir() if _OURS.fullmatch(path.name)]
            total = sum(size for _, size, _ in found)

            def order(item: tuple[Path, int, float]) -> tuple[bool, int, float]:
                needed = need(item[0].name)
                return needed is not None, -(needed or 0), item[2]

            for path, size, _ in sorted(found, key=order):
                if total <= self.limit:
                    return
                total -= size if _remove(path) else 0


def _size_and_time(path: Path) -> tuple[int, float]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0.0
    part = _OURS.fullmatch(path.name)
    return max(status.st_size, int(part["bytes"] or 0) if part else 0), status.st_mtime


def _lock(handle: IO[bytes], how: int) -> bool:
    """Whether an open file is locked now; on a file system without locks everything is."""
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _is_at(handle: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle.fileno()))
    except FileNotFoundError:
        return False


def _remove(path: Path) -> bool:
    """Whether a file is gone; one that somebody is opening or fetching stays."""
    try:
        with path.open("rb") as handle:
            if not _lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB):
                return False
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        pass
    except OSError:  # a folder, or another user's
        return False
    return True


def shared_cache() -> Cache:
    """The cache of this process, as the environment says.

    Raises:
        UsageError: a size that is none.
    """
    return cache_in(os.environ.get(FOLDER) or None, os.environ.get(SIZE) or None)


@lru_cache
def cache_in(folder: str | None, size: str | int | None) -> Cache:
    """The cache in a folder, of so many bytes, or a text such as `200GB`.

    Args:
        folder: `~/.cache/specshards` where it is None.
        size: where it is None 64 GiB, or half of what is free on that disk, copies included, where that is less.

    Raises:
        UsageError: not a size.
    """
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    place = Path(folder or f"{base}/specshards").expanduser().absolute()
    return Cache(place, _bytes(size) if size is not None else min(_MOST, int(_SHARE * _free(place))))


def _bytes(size: str | int) -> int:
    from dask.utils import parse_bytes

    try:
        found = int(parse_bytes(size))
    except (ValueError, TypeError):
        found = 0
    if found < 1 << 20:
        raise UsageError(f"{SIZE}={size}: give a size such as 200GB, 1MB at least")
    return found


def _free(folder: Path) -> int:
    """Bytes free on the disk of a folder, which need not be there, and those of the copies in it."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    copies = sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) if there == folder else 0
    return disk_usage(there).free + copies

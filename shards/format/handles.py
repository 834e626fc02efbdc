"""Mapped files of archives: a bounded number in a process, however many loaders it has, and shards they read.

No descriptor stays open, of which a process may have as few as 256: Python's own `mmap` keeps one for each map. A map
that was let go is made again when it is needed, which costs some microseconds.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from specshards.common.files import is_remote

#: Maps that are kept at a time; Linux allows 65,530 in a process.
MOST = 4096
#: Bytes of address space that they may have together, unless one alone has more.
MOST_BYTES = 1 << 32
#: Whose file it is, and the number that it has there.
_Name = tuple[object, int]

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64,
)  # fmt: skip
_LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_LIBC.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_FAILED = ctypes.c_void_p(-1).value


class Identity(NamedTuple):
    """What tells a file from one that has taken its name since."""

    inode: int
    size: int
    changed: int


class _Map:
    """The bytes of an open file, for as long as an array of them lives."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._size, self._address = size, None
        address = _LIBC.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if address == _FAILED:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._address = address
        # numpy reads this, and keeps its owner.
        self.__array_interface__: dict[str, Any] = {
            "data": (address, True), "shape": (size,), "typestr": "|u1", "version": 3,
        }  # fmt: skip
        if hasattr(mmap, "MADV_WILLNEED"):
            _LIBC.madvise(address, size, mmap.MADV_WILLNEED)  # samples are taken in another order than they lie in

    def __del__(self) -> None:
        if self._address is not None:
            _LIBC.munmap(self._address, self._size)


class Handle(NamedTuple):
    """A whole file as uint8, not to be written to, for as long as somebody holds on to it; and which file it is.

    What lies in an object store is held in memory.
    """

    view: npt.NDArray[np.uint8]
    identity: Identity

    @classmethod
    def open(cls, path: Path) -> Handle:
        """OSError where it cannot be read."""
        if is_remote(path):
            content = np.frombuffer(path.read_bytes(), np.uint8)
            return cls(content, Identity(0, len(content), 0))
        descriptor = os.open(path, os.O_RDONLY)
        try:
            status = os.fstat(descriptor)
            size = status.st_size
            view = np.asarray(_Map(descriptor, size)) if size else np.empty(0, np.uint8)
        except OSError as error:
            error.filename = str(path)
            raise
        finally:
            os.close(descriptor)
        return cls(view, Identity(status.st_ino, size, status.st_mtime_ns))


class Handles:
    """Keeps the files that were used last."""

    def __init__(self, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._most_bytes, self._bytes = most, most_bytes, 0
        self._kept = OrderedDict[_Name, Handle]()
        self._lock = threading.Lock()

    def get(self, name: _Name) -> Handle | None:
        """The file that is kept under `name`, if it is."""
        with self._lock:
            if (found := self._kept.get(name)) is not None:
                self._kept.move_to_end(name)
            return found

    def open(self, name: _Name, path: Path) -> Handle:
        """`path`, opened, to be kept under `name`.

        Raises:
            OSError: it cannot be opened.
        """
        try:
            found = Handle.open(path)
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            self.clear()
            found = Handle.open(path)
        with self._lock:
            self._let_go(name)
            self._kept[name] = found
            self._bytes += len(found.view)
            while len(self._kept) > 1 and (len(self._kept) > self._most or self._bytes > self._most_bytes):
                self._let_go(next(iter(self._kept)))
        return found

    def drop(self, name: _Name) -> None:
        """Keep one no longer."""
        with self._lock:
            self._let_go(name)

    def drop_all(self, owner: object) -> None:
        """Keep none of `owner` any longer."""
        with self._lock:
            for name in [name for name in self._kept if name[0] is owner]:
                self._let_go(name)

    def clear(self) -> None:
        """Keep none."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)

    def _let_go(self, name: _Name) -> None:
        if (handle := self._kept.pop(name, None)) is not None:
            self._bytes -= len(handle.view)

    def _forked(self) -> None:
        self._lock = threading.Lock()  # another thread may have had it


#: Of this process.
HANDLES = Handles()
os.register_at_fork(after_in_child=HANDLES._forked)

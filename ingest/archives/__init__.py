"""Survey files in tar and zip archives, read where they lie: `plates.tar/inner/spec.fits` is the name of a member.

Nothing is unpacked to a disk. Each process notes once where the members of an archive lie, in a temporary file of
some 150 bytes a member (`listing_names.open_scratch`), and then reads any of them in place.

members         what lies in an archive, and what is wrong with it
"""

from __future__ import annotations

import io
import os
import re
import struct
import threading
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import BinaryIO

from specshards.common.errors import BadObjectError
from specshards.ingest.archives.members import DEFLATED, TAR, Member, damage, tar_members, zip_members
from specshards.ingest.limits import MOST_BYTES, shown
from specshards.ingest.listing_names import open_scratch, room

SUFFIXES = (".tar", ".zip")
#: These can be read from the beginning only.
PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

_INSIDE = re.compile(r"\.(?:tar|zip)/", re.IGNORECASE)
#: A larger member of a tar is read in pieces.
_KEPT = 16 << 20
_NESTED = "an archive within an archive: unpack the outer one"
_OUTSIDE = "its name leads out of its archive"
_SOME = 1 << 10


def is_archive(name: str) -> bool:
    """Whether a file is called as archives are."""
    return name.lower().endswith((*SUFFIXES, *PACKED))


def split(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """The archive and the name in it, where `path` is that of a member; None for any other, of a bucket too."""
    if not isinstance(path, str | os.PathLike):
        return None
    text = os.fspath(path)
    for found in _INSIDE.finditer(text):
        archive = text[: found.end() - 1]
        if os.path.isfile(archive):  # noqa: PTH113 - of a plain string
            return archive, text[found.end() :]
    return None


def names_in(archive: str | os.PathLike[str]) -> Iterator[str]:
    """The names of all members, each once, and an empty one where something is wrong with the archive itself."""
    yield from _index().names(os.fspath(archive))


def why_not(archive: str | os.PathLike[str]) -> BadObjectError:
    """What is wrong with an archive itself: why it, or a part of it, is not read."""
    name = os.fspath(archive)
    if name.lower().endswith(PACKED):
        return BadObjectError(
            "a compressed tar can be read from its beginning only: uncompress it (to .tar), its members are then "
            "read in place", selected_out=True, kind="a compressed tar: uncompress it (to .tar)",
        )  # fmt: skip
    found = _index().find(name, "")
    return BadObjectError(found.why if found is not None else "an archive: its members are read")


def status(path: str) -> tuple[int, str] | None:
    """Bytes of a member, and what changes with its archive; None where `path` is no member."""
    at = split(path)
    found = None if at is None else _index().find(*at)
    if at is None or found is None:
        return None
    its = os.stat(at[0])  # noqa: PTH116 - of a plain string
    return found.size, f"{found.size} {found.start} {its.st_size} {its.st_mtime_ns}"


def is_there(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file or a member of that name."""
    if os.path.isfile(path):  # noqa: PTH113 - which has no errors
        return True
    at = split(path)
    return at is not None and _index().find(*at) is not None


def open_member(archive: str, name: str) -> BinaryIO:
    """A member, open for reading, at any place.

    Raises:
        BadObjectError: it is not there, damaged, too large, or of a kind that is not read. OSError: the environment.
    """
    found = _index().find(archive, name)
    if found is None:
        raise BadObjectError("gone from its archive since the listing")
    if found.why:
        raise BadObjectError(found.why, selected_out=found.why == _NESTED)
    if found.how == TAR:
        whole: BinaryIO = io.BufferedReader(_Range(archive, found.start, found.size))
        return whole if found.size > _KEPT else io.BytesIO(_whole(whole, found.size))
    with open(archive, "rb") as file:  # noqa: PTH123 - of a plain string
        file.seek(found.start)
        header = file.read(30)
        if not header.startswith(b"PK\3\4") or len(header) < 30:
            raise BadObjectError("damaged archive: no member where its directory says")
        start = found.start + 30 + sum(struct.unpack_from("<HH", header, 26))
        if max(found.size, found.stored) > MOST_BYTES:
            if found.how == DEFLATED:
                raise BadObjectError(f"{shown(found.size)} compressed within a zip: unpack it")
            return io.BufferedReader(_Range(archive, start, found.size))
        file.seek(start)
        content = file.read(found.stored)
    if found.how == DEFLATED:
        try:
            unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
            content = unpacker.decompress(content, found.size + 1)
        except zlib.error as error:
            raise BadObjectError(f"damaged in its zip: {error}") from error
    if len(content) != found.size or zlib.crc32(content) != found.crc:
        raise BadObjectError("damaged in its zip: not the bytes of its checksum")
    return io.BytesIO(content)


def _whole(file: BinaryIO, size: int) -> bytes:
    with file:
        content = file.read()
    if len(content) < size:
        raise BadObjectError("cut short: its archive ends within it")
    return content


class _Range(io.RawIOBase):
    """A piece of a file."""

    def __init__(self, path: str, start: int, size: int) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: PTH123, SIM115 - of a plain string; closed below
        self._start, self._size, self._at = start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # its stub: any buffer
        count = max(0, min(len(buffer), self._size - self._at))
        self._file.seek(self._start + self._at)
        read = self._file.readinto(memoryview(buffer)[:count]) or 0
        self._at += read
        return read

    def readall(self) -> bytes:
        self._file.seek(self._start + self._at)
        content = self._file.read(max(0, self._size - self._at)) or b""
        self._at += len(content)
        return content

    def close(self) -> None:
        self._file.close()
        super().close()


class _Index:
    """Where the members of archives lie, in a store of this process."""

    def __init__(self) -> None:
        self._store, self._known = open_scratch(shared=True), dict[str, tuple[int, tuple[int, int]]]()
        self._lock = threading.RLock()
        self._store.execute(
            "CREATE TABLE members(archive INTEGER, name BLOB, start INTEGER, stored INTEGER, size INTEGER, "
            "how INTEGER, crc INTEGER, why TEXT, PRIMARY KEY(archive, name)) WITHOUT ROWID"
        )

    def find(self, archive: str, name: str) -> Member | None:
        with self._lock:
            key = self._noted(archive)
            found = self._store.execute(
                "SELECT start, stored, size, how, crc, why FROM members WHERE archive = ? AND name = ?",
                (key, _bytes(name)),
            ).fetchone()
        return None if found is None else Member(name, *found)

    def names(self, archive: str) -> Iterator[str]:
        if archive.lower().endswith(PACKED):
            yield ""
            return
        with self._lock:
            key, last = self._noted(archive), None
        while True:
            with self._lock:
                where = "" if last is None else "AND name > ?"
                wanted = (key,) if last is None else (key, last)
                found = self._store.execute(
                    f"SELECT name FROM members WHERE archive = ? {where} ORDER BY name LIMIT {_SOME}", wanted
                ).fetchall()
            if not found:
                return
            yield from (_text(name) for (name,) in found)
            last = found[-1][0]

    def _noted(self, archive: str) -> int:
        """The number of an archive, whose members are noted now if they are not yet, or if it has changed."""
        its = os.stat(archive)  # noqa: PTH116 - of a plain string
        stamp = (its.st_size, its.st_mtime_ns)
        key, known = self._known.get(archive, (len(self._known), None))
        if known != stamp:
            with room():
                self._store.execute("DELETE FROM members WHERE archive = ?", (key,))
                self._store.execute("BEGIN")
                try:
                    # Of two of one name the last counts, as when they are unpacked.
                    rows = ((key, _bytes(one.name), *one[1:]) for one in _members(archive))
                    enter = "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
                    self._store.executemany(enter, rows)
                finally:
                    self._store.execute("COMMIT")
            self._known[archive] = (key, stamp)
        return key


def _members(archive: str) -> Iterator[Member]:
    wrong = list[str]()
    try:
        with open(archive, "rb") as file:  # noqa: PTH123 - of a plain string
            for member in zip_members(file) if archive.lower().endswith(".zip") else tar_members(file):
                if not member.name:
                    wrong.append(member.why) if len(wrong) < _SOME else None
                else:
                    yield _safe(member)
    except PermissionError:
        wrong.append("no permission to read it")
    if wrong:
        yield damage(
            wrong[0]
            + (
                f" (and {len(wrong) - 1} more damaged places; members that are whole are read)"
                if len(wrong) > 1
                else ""
            )
        )


def _safe(member: Member) -> Member:
    """With a name below the archive, and a reason where that is not its own, or where it is an archive itself."""
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    name = "/".join("__" if part == ".." else part for part in parts).replace("\0", "_") or "_"
    if member.name.startswith("/") or ".." in parts or "\0" in member.name or not parts:
        return member._replace(name=name, why=_OUTSIDE)
    return member._replace(name=name, why=member.why or (_NESTED if is_archive(name) else ""))


@lru_cache(maxsize=1)
def _index_of(process: int) -> _Index:
    return _Index()


def _index() -> _Index:
    return _index_of(os.getpid())  # a store is not one's own after a fork


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")

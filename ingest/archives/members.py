"""What lies in a tar or zip archive, member after member, and what is wrong with it; nothing is held.

The directory of a zip is read as it is written, not with `zipfile`, which holds all of it: a survey has millions of
members. Headers of tar are parsed with `tarfile`, but followed here: `tarfile` ends in silence at a damaged one.
"""

from __future__ import annotations

import re
import stat
import struct
import tarfile
from collections.abc import Iterator
from typing import IO, NamedTuple

#: How a member is stored: as it is in a tar; as it is, or deflated, in a zip.
TAR, STORED, DEFLATED = -1, 0, 8

_BLOCK, _PIECE = 512, 1 << 20
_ZEROS = bytes(_BLOCK)
#: Of a header that gives a long name.
_MOST_NAME, _MOST_PAX = 1 << 16, 1 << 20
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_LINK = "a link within an archive, which is not followed"


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        name: as it is written there; empty for what is wrong with the archive itself.
        start: of its bytes in a tar, of its header in a zip. stored: bytes there. size: bytes unpacked.
        how: TAR, STORED or DEFLATED. crc: CRC-32 of its bytes, in a zip.
        why: why it cannot be read; empty where it can.
    """

    name: str
    start: int = 0
    stored: int = 0
    size: int = 0
    how: int = TAR
    crc: int = 0
    why: str = ""


def damage(why: str) -> Member:
    """What is wrong with an archive itself."""
    return Member("", why=why)


def tar_members(file: IO[bytes]) -> Iterator[Member]:
    """The members of a plain tar; behind a damaged header it goes on at the next whole one."""
    end, at, has_ended = file.seek(0, 2), 0, False
    name: str | None = None
    pax: dict[str, str] = {}
    while at < end:
        block = _read(file, at, _BLOCK)
        if block == _ZEROS:  # the end, unless archives were put one behind the other
            at, has_ended = _behind_zeros(file, at), True
            continue
        info = _header(block)
        if info is None:
            if at == 0:
                yield damage("not a tar archive, or its first header is damaged")
            start, at = at, _next_header(file, at + _BLOCK)
            if at < end or not has_ended:
                yield damage(f"damaged at byte {start:,}: what lay before byte {at:,} is lost")
            has_ended, name, pax = at >= end, None, {}
            continue
        has_ended, data = False, at + _BLOCK
        size = int(pax.get("size", info.size))
        at = data + size + -size % _BLOCK
        if info.type == tarfile.GNUTYPE_LONGNAME:
            name = _text(_read(file, data, min(size, _MOST_NAME)).split(b"\0")[0])
            continue
        if info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            pax = _pax(_read(file, data, min(size, _MOST_PAX)))
            continue
        if info.type in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
            continue
        full = pax.get("path", name or info.name)
        if info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse") for key in pax):
            is_continued = info.type == tarfile.GNUTYPE_SPARSE and block[482] == 1
            while is_continued:  # further maps of its holes lie before its bytes
                is_continued, data, at = _read(file, data, _BLOCK)[504:505] == b"\1", data + _BLOCK, at + _BLOCK
            yield Member(full, why="a file with holes within an archive: unpack it")
        elif info.type in _REGULAR and not full.endswith("/"):
            why = "cut short: its archive ends within it" if data + size > end else ""
            yield Member(full, data, size, size, TAR, 0, why)
        elif info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            at = data  # whatever size it gives
            yield Member(full, why=_LINK)
        elif info.type not in (*_REGULAR, tarfile.DIRTYPE):
            yield Member(full, why="neither a file nor a folder, within an archive")
        name, pax = None, {}
    if not has_ended:
        yield damage("it has no end mark: cut short? What lay behind its last member is lost")


def _read(file: IO[bytes], at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


def _header(block: bytes) -> tarfile.TarInfo | None:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return None
    return info if info.size >= 0 else None


def _behind_zeros(file: IO[bytes], at: int) -> int:
    """The first block from `at` on that is not zero, or the end."""
    while piece := _read(file, at, _PIECE):
        if rest := piece.lstrip(b"\0"):
            return at + (len(piece) - len(rest)) // _BLOCK * _BLOCK
        at += len(piece)
    return at


def _next_header(file: IO[bytes], at: int) -> int:
    """The first block from `at` on that is a whole header, or the end."""
    while piece := _read(file, at, _PIECE):
        for found in re.finditer(b"ustar", piece):
            start = found.start() - 257
            if start >= 0 and start % _BLOCK == 0 and _header(piece[start : start + _BLOCK]) is not None:
                return at + start
        at += len(piece)
    return at


def _pax(content: bytes) -> dict[str, str]:
    """The records `length key=value` of an extended header, those that count here."""
    found: dict[str, str] = {}
    while match := re.match(rb"(\d{1,7}) ([^=\n]+)=", content):
        length = int(match[1])
        if length <= match.end():
            break
        key, value = _text(match[2]), _text(content[match.end() : length - 1])
        if key == "path" or key.startswith("GNU.sparse") or (key == "size" and value.isdigit()):
            found[key] = value
        content = content[length:]
    if "GNU.sparse.name" in found:
        found["path"] = found["GNU.sparse.name"]
    return found


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


_END, _END64, _ENTRY = b"PK\5\6", b"PK\6\6", b"PK\1\2"


def zip_members(file: IO[bytes]) -> Iterator[Member]:
    """The members of a zip, by the directory at its end."""
    size = file.seek(0, 2)
    first = max(0, size - (1 << 16) - 22)
    tail = _read(file, first, size - first)
    place = tail.rfind(_END)
    if place < 0 or len(tail) < place + 22:
        yield damage("no directory at its end: not a zip, or cut short; zip -FF may mend it")
        return
    count, length, start = struct.unpack_from("<HII", tail, place + 10)
    end = first + place
    if tail[max(0, place - 20) : place].startswith(b"PK\6\7"):
        (whole,) = struct.unpack_from("<Q", tail, place - 12)
        record = _read(file, whole, 56)
        if not record.startswith(_END64) or len(record) < 56:
            yield damage("damaged: its directory is not where it says")
            return
        (count, length, start), end = struct.unpack_from("<QQQ", record, 32), whole
    shift = end - length - start  # of what stands before the first member
    at, seen = end - length, 0
    if at < 0 or shift < 0:
        yield damage("damaged: its directory is not where it says")
        return
    file.seek(at)
    while at < end:
        header = file.read(46)
        if not header.startswith(_ENTRY) or len(header) < 46:
            break
        lengths = struct.unpack_from("<HHH", header, 28)
        rest = file.read(sum(lengths))
        at, seen = at + 46 + sum(lengths), seen + 1
        member = _zip_member(header, rest, lengths, shift)
        if not member.name.endswith("/"):
            yield member
    if at != end or seen != count:
        yield damage(f"damaged directory: {seen:,} of {count:,} members are found")


def _zip_member(header: bytes, rest: bytes, lengths: tuple[int, ...], shift: int) -> Member:
    flags, how = struct.unpack_from("<HH", header, 8)
    crc, stored, size = struct.unpack_from("<III", header, 16)
    mode, start = struct.unpack_from("<II", header, 38)
    raw, extra = rest[: lengths[0]], rest[lengths[0] : lengths[0] + lengths[1]]
    values = iter(_wide(extra))
    size = next(values, size) if size == 0xFFFFFFFF else size
    stored = next(values, stored) if stored == 0xFFFFFFFF else stored
    start = next(values, start) if start == 0xFFFFFFFF else start
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        name = raw.decode("cp437")
    why = ""
    if stat.S_ISLNK(mode >> 16):
        why = _LINK
    elif flags & 1:
        why = "encrypted within a zip: unpack it"
    elif how not in (STORED, DEFLATED):
        why = f"compressed by method {how} of zip, which is not read here: unpack it"
    return Member(name, start + shift, stored, size, how, crc, why)


def _wide(extra: bytes) -> list[int]:
    """The numbers of 64 bits that stand in place of those that need them."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == 1:
            content = extra[4 : 4 + length]
            return [int(n) for n in struct.unpack_from(f"<{len(content) // 8}Q", content)]
        extra = extra[4 + length :]
    return []

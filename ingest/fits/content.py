"""The bytes of a FITS file, decompressed or mapped, within bounds."""

from __future__ import annotations

import mmap
import zlib
from io import FileIO
from pathlib import Path
from typing import BinaryIO

import deflate
from isal import igzip, igzip_lib
from isal.igzip_lib import IsalError

from specshards.common.errors import BadObjectError
from specshards.ingest.fits.hdu import Content
from specshards.ingest.limits import shown, too_large

GZIP = b"\x1f\x8b"
# Larger files are mapped, so that a DESI coadd's resolution matrices are never read.
_MAP_FROM = 16 << 20
_PIECE = 1 << 20


def read_content(file: BinaryIO, head: bytes, most_bytes: int) -> Content:
    """What an open file that starts with `head` holds; a large plain one is mapped into memory, whatever its
    size; but of an archive's member, which is read.


    Args:
        most_bytes: of what was compressed, or is read.

    Raises:
        BadObjectError: damaged gzip, or larger.
    """
    size = file.seek(0, 2)
    file.seek(0)
    if head.startswith(GZIP):
        if size > most_bytes:
            raise too_large("compressed, it has", most_bytes)
        return _inflated(file.read(), most_bytes)
    if size >= _MAP_FROM:
        if isinstance(file, FileIO):
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if size > most_bytes:
            raise too_large("within an archive, it has", most_bytes)
    return file.read()


def _inflated(content: bytes, most_bytes: int) -> bytes | bytearray:
    """The content of a gzip file.

    libdeflate takes 15% less time than ISA-L, but trusts the length in the last four bytes and stops after the first
    member, whatever follows; ISA-L has the last word on anything but one whole member.
    """
    length = int.from_bytes(content[-4:], "little")
    if length <= min(1032 * len(content), _PIECE * 64, most_bytes):  # 1032 is the most that deflate can do
        try:
            result: bytearray = deflate.gzip_decompress(content)
            if len(result) == length:
                return result
        except deflate.DeflateError:
            pass
    return _in_pieces(content, most_bytes)


def _in_pieces(content: bytes, most_bytes: int) -> bytearray:
    """Every member, and no more than `most_bytes`; what does not begin as FITS is given up at once."""
    result, rest = bytearray(), content
    try:
        while rest.strip(b"\0"):  # gzip allows zeros behind the last member
            member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            while not member.eof:
                piece = member.decompress(rest, _PIECE)
                rest = b""
                if not piece and member.needs_input and not member.eof:
                    raise EOFError("it ends before its end-of-stream marker was reached")
                result += piece
                if len(result) > most_bytes:
                    raise too_large("it uncompresses to", most_bytes)
                if not result.startswith(b"SIMPLE"[: len(result)]):
                    raise BadObjectError("not a FITS file")
            rest = member.unused_data
    except (EOFError, zlib.error, IsalError) as error:  # type: ignore[misc]  # its stub: an instance
        raise BadObjectError(f"damaged gzip: {error}") from error
    return result


def check_unpacked(path: Path, most_bytes: int) -> None:
    """Go through a gzip file without keeping it; nothing to do for any other file.

    Raises:
        BadObjectError: it uncompresses to more than `most_bytes`. OSError: damaged, or the environment.
    """
    with path.open("rb") as file:
        if file.read(2) != GZIP:
            return
        file.seek(0)
        size = 0
        with igzip.IGzipFile(fileobj=file) as unpacked:
            while piece := unpacked.read(_PIECE):
                size += len(piece)
                if size > most_bytes:
                    raise BadObjectError(f"it uncompresses to more than {shown(most_bytes)}; unpack it with gunzip")

"""A seal on Parquet: a checksum of every column chunk, and one of these and the footer.

Parquet's own page checksums leave out the pages' headers and the footer, where one bit makes other values of whole
pages. A sealed file is plain Parquet all the same: readers go by the offsets in the footer, and never look into the
gap before it, where the seal lies (little-endian):

    for each column chunk, row group by row group:  start uint64, length uint64, CRC-32 uint32
    number of column chunks   uint32
    CRC-32 of all above, the footer, and the eight bytes behind it   uint32
    SPECSEAL

Who reads some columns checks the bytes of those, and no others.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from isal import isal_zlib

from specshards.common.errors import BadObjectError, JobError
from specshards.common.files import is_remote
from specshards.ingest import archives
from specshards.ingest.limits import MOST_FOOTER, shown

MAGIC = b"SPECSEAL"
_CHUNK = np.dtype([("start", "<u8"), ("bytes", "<u8"), ("crc", "<u4")])
_END = 8 + len(MAGIC)  # number of chunks, checksum, magic
_TAIL = 8  # of a Parquet file: length of the footer, PAR1


@dataclass(frozen=True)
class Footer:
    """The end of a Parquet file.

    Attributes:
        content: seal and footer as they are stored: with a seal, equal only for files of equal content.
        chunks: of the seal, one entry a column chunk; None for a file without one.
    """

    content: bytes
    chunks: npt.NDArray[np.void] | None

    @classmethod
    def read(cls, file: IO[bytes]) -> Footer:
        """The footer of an open Parquet file: small however large the file; empty where there cannot be one.

        Raises:
            BadObjectError: it does not give the checksum of its seal.
        """
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        tail = file.read(_TAIL)
        length = int.from_bytes(tail[:4], "little")
        if not 0 < length <= size - _TAIL:
            return cls(b"", None)
        if length > MOST_FOOTER:
            raise BadObjectError(f"its footer has {shown(length)}; {shown(MOST_FOOTER)} at most")
        start = size - _TAIL - length
        file.seek(max(0, start - _END))
        end = file.read(start + length - max(0, start - _END))
        footer, before = end[-length:], end[:-length]
        alike = sum(one == other for one, other in zip(before[-len(MAGIC) :], MAGIC, strict=False))
        if len(before) < _END or alike < len(MAGIC) // 2:
            return cls(footer, None)
        if alike < len(MAGIC):  # without this, a flipped bit would break the seal and not be seen
            raise BadObjectError("damaged Parquet: its seal is broken")
        count = int.from_bytes(before[:4], "little")
        first = start - _END - count * _CHUNK.itemsize
        if first < 0:
            raise BadObjectError("damaged Parquet: its seal is longer than the file")
        file.seek(first)
        entries = file.read(count * _CHUNK.itemsize)
        if crc(entries, before[:4], footer, tail) != int.from_bytes(before[4:8], "little"):
            raise BadObjectError("damaged Parquet: footer and seal do not give their checksum")
        return cls(entries + before + footer, np.frombuffer(entries, _CHUNK))

    @property
    def digest(self) -> str:
        """sha256 of seal and footer, as hexadecimal text."""
        return hashlib.sha256(self.content).hexdigest()


def seal(path: Path) -> str:
    """Put a seal into a Parquet file that has just been written, and return the digest of its footer.

    Raises:
        ValueError: it has one already, or bytes that belong to no column chunk.
    """
    metadata = pq.read_metadata(path)
    chunks = np.array([(*place, 0) for place in chunk_places(metadata)], _CHUNK)
    with path.open("r+b") as file:
        found = Footer.read(file)
        if found.chunks is not None:
            raise ValueError(f"{path}: is sealed already")
        footer = found.content
        size = file.seek(0, os.SEEK_END)
        start = size - _TAIL - len(footer)
        ends = np.concatenate([[4], chunks["start"] + chunks["bytes"]])
        if (ends[:-1] != chunks["start"]).any() or ends[-1] != start:
            raise ValueError(f"{path}: holds more than the pages of its columns")
        file.seek(start + len(footer))
        tail = file.read(_TAIL)
        if len(chunks):
            with mmap.mmap(file.fileno(), start, access=mmap.ACCESS_READ) as content:
                for chunk in chunks:
                    chunk["crc"] = _crc_of(content, int(chunk["start"]), int(chunk["bytes"]))
        entries, count = chunks.tobytes(), len(chunks).to_bytes(4, "little")
        checksum = crc(entries, count, footer, tail).to_bytes(4, "little")
        gap = entries + count + checksum + MAGIC
        file.seek(start)
        file.write(gap + footer + tail)
    return hashlib.sha256(gap + footer).hexdigest()


def chunk_places(metadata: Any, group: int | None = None) -> list[tuple[int, int]]:
    """Start and length of every column chunk, of each row group or of one, from the footer as pyarrow gives it."""
    places = []
    for index in range(metadata.num_row_groups) if group is None else (group,):
        columns = metadata.row_group(index)
        for number in range(columns.num_columns):
            chunk = columns.column(number)
            first = chunk.data_page_offset
            if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
                first = min(first, chunk.dictionary_page_offset)
            places.append((first, chunk.total_compressed_size))
    return places


def check(path: Path, chunks: npt.NDArray[np.void], names: Iterable[str] = ()) -> None:
    """Compare column chunks of a file with their seals.

    Args:
        chunks: entries of its seal. names: of the columns, for the error, one a chunk.

    Raises:
        JobError: the file is damaged.
    """
    sums = checksums(path, [(int(chunk["start"]), int(chunk["bytes"])) for chunk in chunks])
    wrong = np.flatnonzero(sums != chunks["crc"])
    if len(wrong):
        named = list(names)
        what = f"column {named[wrong[0]]}" if named else f"{len(wrong)} column chunks"
        raise JobError(f"{path}: damaged Parquet ({what}: not the checksum that was written); ingest it again")


def checksums(path: Path, places: list[tuple[int, int]]) -> npt.NDArray[np.uint32]:
    """CRC-32 of pieces of a file, each given by start and length; of what lies behind its end, that of nothing."""
    at = archives.split(path)
    with path.open("rb") if at is None else archives.open_member(*at) as file:
        if is_remote(path) or at is not None:
            found = []
            for start, length in places:
                file.seek(start)
                found.append(crc(file.read(length)))
            return np.array(found, np.uint32)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return np.array([_crc_of(content, *place) for place in places], np.uint32)


def digest_of(path: Path) -> str:
    """The digest of a sealed file's footer; empty where there is no file."""
    try:
        with path.open("rb") as file:
            return Footer.read(file).digest
    except FileNotFoundError:
        return ""


def is_intact(path: Path, digest: str) -> bool:
    """Whether a sealed file is, to the last byte, the one whose footer had this digest."""
    try:
        with path.open("rb") as file:
            footer = Footer.read(file)
        if footer.chunks is None or footer.digest != digest:
            return False
        check(path, footer.chunks)
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except (FileNotFoundError, BadObjectError, JobError):
        return False


def _crc_of(content: mmap.mmap, start: int, length: int) -> int:
    with memoryview(content) as view, view[start : start + length] as piece:
        return int(isal_zlib.crc32(piece))


def crc(*parts: bytes) -> int:
    """CRC-32 of bytes, one after another."""
    value = 0
    for part in parts:
        value = isal_zlib.crc32(part, value)
    return value

"""LZ4 frames of one block each: made and read by pyarrow's LZ4, walked here before anything inflates them.

`lz4 -d` and every LZ4 library open a frame. The block in it is what NVIDIA DALI inflates on a GPU.

Sources: LZ4 frame format 1.6.1; LZ4 block format description (github.com/lz4/lz4, doc/).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

Bytes = npt.NDArray[np.uint8]

#: Magic; version 1, independent blocks, no sizes, no checksums of content; blocks up to 4 MiB; the header's checksum.
HEADER = b"\x04\x22\x4d\x18\x60\x70\x73"
#: Where the block begins: its length, 4 bytes, is between.
START = len(HEADER) + 4
#: A length of 0: no block follows.
_END = bytes(4)
_LARGEST = 1 << 22


def pack(content: bytes) -> bytes:
    """A frame of `content`, 4 MiB at most. The same bytes from the same version of LZ4."""
    if len(content) > _LARGEST:
        raise ValueError(f"{len(content)} bytes do not fit into one LZ4 block of 4 MiB")
    block = pa.Codec("lz4_raw").compress(content, asbytes=True)
    return b"".join((HEADER, len(block).to_bytes(4, "little"), block, _END))


def block(payload: Bytes, size: int) -> Bytes:
    """The block of a frame, a view; it has been walked through and gives `size` bytes, no more and no fewer.

    Raises:
        ValueError: it does not, or it is not such a frame; the message is the reason.
    """
    if bytes(payload[: len(HEADER)]) != HEADER:
        raise ValueError("not an LZ4 frame of one independent block")
    length = int.from_bytes(bytes(payload[len(HEADER) : START]), "little")
    if len(payload) != START + length + len(_END) or bytes(payload[-len(_END) :]) != _END:
        raise ValueError("an LZ4 frame that is cut short, or too long")
    found = payload[START : START + length]
    inflated = _inflated(found)
    if inflated != size:
        raise ValueError("a damaged LZ4 block" if inflated < 0 else f"{inflated} bytes instead of {size}")
    return found


def unpack(payload: Bytes, size: int) -> Bytes:
    """The content of a frame, `size` bytes.

    Raises:
        ValueError: see `block`.
    """
    try:
        # Arrow does not say how much came out: it is known from the walk.
        content = pa.Codec("lz4_raw").decompress(pa.py_buffer(block(payload, size)), decompressed_size=size)
    except OSError as error:  # what Arrow calls corrupt data
        raise ValueError("a damaged LZ4 block") from error
    return np.frombuffer(content, np.uint8)


@njit(nogil=True, cache=True)
def _inflated(data: Any) -> Any:
    """Bytes that a block gives; -1 where it leads outside of itself, or of what it gave before."""
    at: Any = 0
    given: Any = 0
    more: Any
    end = len(data)
    while at < end:
        token = data[at]
        at += 1
        literals = np.int64(token >> 4)
        if literals == 15:
            more = np.int64(255)
            while more == 255:
                if at >= end:
                    return -1
                more = np.int64(data[at])
                literals += more
                at += 1
        at += literals
        given += literals
        if at == end:
            return given  # the last sequence is literals alone
        if at + 2 > end:
            return -1
        back = np.int64(data[at]) | np.int64(data[at + 1]) << 8
        at += 2
        if back == 0 or back > given:
            return -1
        length = np.int64(token & 15)
        if length == 15:
            more = np.int64(255)
            while more == 255:
                if at >= end:
                    return -1
                more = np.int64(data[at])
                length += more
                at += 1
        given += length + 4
    return -1

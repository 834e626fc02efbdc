"""PNG of small uint8 arrays, lossless and fast: two ways to deflate, chosen by what the picture is made of.

Line drawings are long runs of white, where ISA-L's search for repetitions is at its best. A map of flux values is
noise around a slope: differences of neighbours (PNG's filter `Sub`) hardly ever repeat, and a Huffman code alone,
built here, takes half the time of a search that finds next to nothing. `benchmarks/suite/encode.py` measures both.

Sources: PNG specification (W3C, 3rd edition), sections 5, 9 and 11; RFC 1950; RFC 1951, section 3.2.7.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from numba import njit

Codes = npt.NDArray[np.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: ISA-L's level for gray and for RGB pictures. Level 0 has a code of its own for all data: a gray line drawing takes
#: 20% more bytes and two thirds of the time, still 20% less than OpenCV's. RGB gains nothing from it. Level 2 gives
#: 0.3% fewer bytes than 1 at best, level 3 costs more than twice the time and gives none.
_ISAL_LEVELS = (0, 1)
_END = 256  # deflate's end-of-block symbol
_MATCHES = 29  # symbols after it, for repetitions
_LONGEST = 15  # bits of a deflate code


def encode_png(image: Codes, *, noisy: bool = False) -> bytes:
    """A PNG of a uint8 gray `(H, W)` or RGB `(H, W, 3)` array, lossless.

    Args:
        noisy: neighbours are close but seldom equal, as in a map of flux values. Decides time and size only.
    """
    height, width = image.shape[:2]
    rows = np.ascontiguousarray(image).reshape(height, -1)
    # Every scan line starts with its filter type: 0, none; 1, the difference to the pixel at the left.
    lines = np.empty((height, 1 + rows.shape[1]), np.uint8)
    if noisy:
        body = _huffman(lines, _subtract(rows, rows.shape[1] // width, lines), 1 + rows.shape[1] // width)
    else:
        lines[:, 0], lines[:, 1:] = 0, rows
        body = isal_zlib.compress(lines, _ISAL_LEVELS[image.ndim - 2])
    return b"".join((_head(width, height, 0 if image.ndim == 2 else 2), *_chunk(b"IDAT", body), _TAIL))


def encode_compact(picture: Codes) -> bytes:
    """A PNG of an RGB picture `(H, W, 3)` for a page: slowly, to as few bytes as may be, with a palette if it can.

    At most 256 colours, as a map in one colour map has, take a byte a pixel.
    """
    height, width = picture.shape[:2]
    packed = picture.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, places = np.unique(packed, return_inverse=True)
    if len(colours) > 256:
        return _smallest(picture.reshape(height, -1), _head(width, height, 2), b"")
    palette = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(np.uint8)
    chunk = b"".join(_chunk(b"PLTE", palette.tobytes()))
    return _smallest(places.reshape(height, width).astype(np.uint8), _head(width, height, 3), chunk)


def _smallest(rows: Codes, head: bytes, palette: bytes) -> bytes:
    """The shorter of two: with PNG's filter None, and with Up, the difference to the row above."""
    above = np.zeros_like(rows)
    above[1:] = rows[:-1]
    bodies = []
    for kind, content in ((0, rows), (2, rows - above)):
        lines = np.concatenate([np.full((len(rows), 1), kind, np.uint8), content], axis=1)
        bodies.append(zlib.compress(lines.tobytes(), 9))
    return b"".join((head, palette, *_chunk(b"IDAT", min(bodies, key=len)), _TAIL))


def _chunk(kind: bytes, data: bytes) -> tuple[bytes, ...]:
    checksum = isal_zlib.crc32(data, isal_zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind, data, struct.pack(">I", checksum)


@lru_cache
def _head(width: int, height: int, colour: int) -> bytes:
    """Signature and header, the same for every picture of a size; colour 0 is gray, 2 RGB, 3 a palette."""
    about = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"".join((_SIGNATURE, *_chunk(b"IHDR", about)))


_TAIL = b"".join(_chunk(b"IEND", b""))


def _huffman(lines: Codes, level: npt.NDArray[np.bool_], head: int) -> bytes:
    """`lines` as a zlib stream of one block with a Huffman code of its own; no repetitions but in level lines.

    Args:
        lines: uint8 `(H, L)`.
        level: bool `(H,)`, the lines that are 0 from element `head` on.
    """
    # No code is longer than 15 bits, with its distance 16; the description of the codes takes 155 bytes.
    words = np.empty(lines.size // 2 + 64, np.uint32)
    end = _deflate(lines, level, head, words)
    return b"".join((b"\x78\x01", words.view(np.uint8)[:end].tobytes(), struct.pack(">I", isal_zlib.adler32(lines))))


@njit(nogil=True, cache=True)
def _subtract(rows, step, lines):  # type: ignore[no-untyped-def]
    """Filter type 1 before every row, and its differences to the byte `step` places to the left.

    Returns:
        bool `(H,)`, the rows that are of one colour: all differences are 0.
    """
    level = np.empty(len(rows), np.bool_)
    for y in range(len(rows)):
        line = lines[y]
        line[0] = 1
        for x in range(step):
            line[1 + x] = rows[y, x]
        # Arrays of their own, because an index that cannot be negative is what the compiler turns into vectors.
        here, left, difference = rows[y, step:], rows[y], line[1 + step :]
        any_bit = np.uint8(0)
        for x in range(len(here)):
            difference[x] = here[x] - left[x]
            any_bit |= difference[x]
        level[y] = any_bit == 0
    return level


@njit(nogil=True, cache=True)
def _deflate(lines, level, head, words):  # type: ignore[no-untyped-def]
    """One final deflate block into `words`, uint32; returns its length in bytes. See `_huffman`."""
    zeros = _zeros(lines.shape[1] - head)
    counts = _counts(lines, level, head, zeros)
    symbols = len(counts) if level.any() else _END + 1
    lengths = np.zeros(symbols, np.int64)
    _code_lengths(counts[:symbols], lengths)
    table = _code_table(lengths)
    # What goes before the data, as bits and their number, like the table's entries.
    start = np.empty(1 + 19 + symbols + 2, np.uint64)
    # Final block, dynamic codes, number of symbols, 2 distances, 19 lengths of code lengths.
    start[0] = (1 | 2 << 1 | (symbols - _END - 1) << 3 | 1 << 8 | 15 << 13) << 5 | 17
    start[1:4] = 0 << 5 | 3  # the three symbols that repeat a code length are not used
    start[4:20] = 4 << 5 | 3  # each of the lengths 0 to 15 has a code of 4 bits: itself, first bit last
    for symbol in range(symbols + 2):
        # Of the two distances, as zlib writes them, only the first is used: 1, with code 0.
        length = lengths[symbol] if symbol < symbols else 1
        start[20 + symbol] = ((length & 1) << 3 | (length & 2) << 1 | (length & 4) >> 1 | (length & 8) >> 3) << 5 | 4
    bits, filled, at = _put(np.arange(len(start)), start, np.uint64(0), np.uint64(0), 0, words)
    for y in range(len(lines)):
        if level[y]:
            bits, filled, at = _put(lines[y, :head], table, bits, filled, at, words)
            bits, filled, at = _put(zeros, table, bits, filled, at, words)
        else:
            bits, filled, at = _put(lines[y], table, bits, filled, at, words)
    bits, filled, at = _put(np.array([_END]), table, bits, filled, at, words)
    words[at] = np.uint32(bits)
    return 4 * at + (np.int64(filled) + 7) // 8


@njit(nogil=True, cache=True)
def _zeros(n):  # type: ignore[no-untyped-def]
    """The symbols for `n` zeros: one, and repetitions of it of the lengths that need no extra bits: 258, 3 to 10."""
    symbols = np.empty(n, np.int64)
    used = 0
    while n > 0:
        length = 1
        if used and n >= 258:
            length = 258
        elif used and n >= 3:
            length = min(n, 10)
        symbols[used] = 0 if length == 1 else _END + _MATCHES if length == 258 else _END - 2 + length
        used += 1
        n -= length
    return symbols[:used]


@njit(nogil=True, cache=True)
def _put(data, table, bits, filled, at, words):  # type: ignore[no-untyped-def]
    """Append the code of every element; whole words are written, lowest byte first."""
    index = np.uint64(at)
    for i in range(len(data)):
        entry = table[data[i]]
        bits |= (entry >> np.uint64(5)) << filled
        filled += entry & np.uint64(31)
        words[index] = np.uint32(bits)
        whole = filled >> np.uint64(5)
        index += whole
        bits >>= whole << np.uint64(5)
        filled &= np.uint64(31)
    return bits, filled, np.int64(index)


@njit(nogil=True, cache=True)
def _counts(lines, level, head, zeros):  # type: ignore[no-untyped-def]
    """How often each symbol occurs, and the end of the block once: int64 `(286,)`."""
    # Four tables: equal neighbours in one would wait for each other.
    many = np.zeros((4, _END), np.uint32)
    a, b, c, d = many[0], many[1], many[2], many[3]
    quarter = lines.shape[1] // 4
    flat = 0
    for y in range(len(lines)):
        line = lines[y]
        if level[y]:
            flat += 1
            for x in range(head):
                a[line[x]] += np.uint32(1)
            continue
        first, second, third, fourth = line, line[quarter:], line[2 * quarter :], line[3 * quarter :]
        for x in range(quarter):
            a[first[x]] += np.uint32(1)
            b[second[x]] += np.uint32(1)
            c[third[x]] += np.uint32(1)
            d[fourth[x]] += np.uint32(1)
        for x in range(quarter, len(fourth)):
            d[fourth[x]] += np.uint32(1)
    counts = np.zeros(_END + 1 + _MATCHES, np.int64)
    for i in range(_END):
        counts[i] = np.int64(a[i]) + b[i] + c[i] + d[i]
    for symbol in zeros:
        counts[symbol] += flat
    counts[_END] = 1
    return counts


@njit(nogil=True, cache=True)
def _code_lengths(counts, lengths):  # type: ignore[no-untyped-def]
    """Lengths of a Huffman code, at most 15 bits, for the symbols that occur: at least two of them.

    The shortest code in place (Moffat & Katajainen 1995); where it is too deep, the deepest leaves move up and others
    make room, until the code is complete again. That is not the very best code, but nearly.
    """
    rarest = _rarest_first(counts)
    tree = counts[rarest]
    n = len(tree)
    # From weights to parents: inner node `i` takes the two lightest of the leaves and inner nodes that are left.
    tree[0] += tree[1]
    root, leaf = 0, 2
    for i in range(1, n - 1):
        if leaf >= n or tree[root] < tree[leaf]:
            tree[i], tree[root] = tree[root], i
            root += 1
        else:
            tree[i] = tree[leaf]
            leaf += 1
        if leaf >= n or (root < i and tree[root] < tree[leaf]):
            tree[i] += tree[root]
            tree[root] = i
            root += 1
        else:
            tree[i] += tree[leaf]
            leaf += 1
    # From parents to depths of the inner nodes.
    tree[n - 2] = 0
    for i in range(n - 3, -1, -1):
        tree[i] = tree[tree[i]] + 1
    # From those to the number of leaves at each depth.
    leaves = np.zeros(64, np.int64)
    places, depth, root = 1, 0, n - 2
    while places > 0:
        inner = 0
        while root >= 0 and tree[root] == depth:
            inner += 1
            root -= 1
        leaves[min(depth, _LONGEST)] += places - inner
        places = 2 * inner
        depth += 1
    spent = 0
    for length in range(1, _LONGEST + 1):
        spent += leaves[length] << (_LONGEST - length)
    while spent > 1 << _LONGEST:  # too many short codes: a leaf of the deepest level above goes down to take one up
        leaves[_LONGEST] -= 1
        for length in range(_LONGEST - 1, 0, -1):
            if leaves[length]:
                leaves[length] -= 1
                leaves[length + 1] += 2
                break
        spent -= 1
    first = 0
    for length in range(_LONGEST, 0, -1):
        for k in range(first, first + leaves[length]):
            lengths[rarest[k]] = length
        first += leaves[length]


@njit(nogil=True, cache=True)
def _rarest_first(counts):  # type: ignore[no-untyped-def]
    """The symbols that occur, by count: int64. Sorted by digits, for comparisons would take turns nobody foresees."""
    order = np.flatnonzero(counts)
    place = np.empty_like(order)
    digits, most = 0, counts.max()
    while most >> digits:
        starts = np.zeros(129, np.int64)
        for symbol in order:
            starts[(counts[symbol] >> digits & 127) + 1] += 1
        for k in range(128):
            starts[k + 1] += starts[k]
        for symbol in order:
            digit = counts[symbol] >> digits & 127
            place[starts[digit]] = symbol
            starts[digit] += 1
        order, place = place, order
        digits += 7
    return order


@njit(nogil=True, cache=True)
def _code_table(lengths):  # type: ignore[no-untyped-def]
    """For every symbol its code, first bit lowest, above five bits of length: uint64.

    A repetition's code is followed by that of its distance, a zero.
    """
    number = np.zeros(_LONGEST + 2, np.int64)
    for length in lengths:
        if length:
            number[length + 1] += 1
    following = np.zeros(_LONGEST + 2, np.int64)
    for length in range(1, _LONGEST + 1):
        following[length] = (following[length - 1] + number[length]) << 1
    table = np.zeros(len(lengths), np.uint64)
    for symbol in range(len(lengths)):
        length = lengths[symbol]
        if length:
            code, mirrored = following[length], 0
            following[length] += 1
            for _ in range(length):
                mirrored = mirrored << 1 | (code & 1)
                code >>= 1
            table[symbol] = np.uint64(mirrored << 5 | (length + 1 if symbol > _END else length))
    return table

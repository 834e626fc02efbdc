"""Codes to RGB on the CPU: the second half of every renderer; `render.device.expand` has it for a GPU."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from specshards.render.simd import store_four


@njit(nogil=True, cache=True)
def blocks(codes, colours, block, empty, picture):  # type: ignore[no-untyped-def]
    """One map of codes to its picture: each line of cells is made once, then copied.

    Args:
        codes: uint8 `(cells, cells)`, or `(cells, cells, 3)` where they are RGB already.
        colours: uint32 `(256,)`, red in the lowest byte; unused for RGB codes.
        block: side of a cell, pixels; empty: colour (as in `colours`) of the strip that whole blocks leave free.
        picture: uint8 `(size, size * 3)`, overwritten.
    """
    rows, columns = codes.shape[:2]
    size = len(picture)
    # All lines before any is copied: reading what was just written in smaller pieces makes the processor wait. Four
    # bytes are stored for three, so that a line is one byte longer than the picture's.
    pitch = (3 * size + 64) & ~63
    lines = np.empty((rows + 1, pitch), np.uint8)
    flat = lines.reshape(-1)
    for r in range(rows + 1):
        at = r * pitch
        if r < rows:
            for c in range(columns):
                colour = _colour(codes, colours, r, c)
                if block == 3:  # the usual one: a loop of unknown length takes twice the time
                    store_four(flat, at, colour)
                    store_four(flat, at + 3, colour)
                    store_four(flat, at + 6, colour)
                    at += 9
                    continue
                for _ in range(block):
                    store_four(flat, at, colour)
                    at += 3
        for _ in range(columns * block if r < rows else 0, size):
            store_four(flat, at, empty)
            at += 3
    for y in range(size):
        _copy(lines[min(y // block, rows)], picture[y])


@njit(nogil=True, cache=True)
def _copy(line, row):  # type: ignore[no-untyped-def]
    # As a loop it becomes a memcpy; Numba's slice assignment is thirty times slower.
    for x in range(len(row)):
        row[x] = line[x]


@njit(nogil=True, cache=True)
def _colour(codes, colours, row, column):  # type: ignore[no-untyped-def]
    if codes.ndim == 2:
        return colours[codes[row, column]]
    red, green, blue = codes[row, column, 0], codes[row, column, 1], codes[row, column, 2]
    return np.uint32(red) | np.uint32(green) << np.uint32(8) | np.uint32(blue) << np.uint32(16)


@njit(nogil=True, cache=True, parallel=True)
def blocks_batch(codes, colours, block, empty, pictures):  # type: ignore[no-untyped-def]
    """`blocks` for B of them: pictures uint8 `(B, size, size * 3)`."""
    for b in prange(len(codes)):
        blocks(codes[b], colours, block, empty, pictures[b])


@njit(nogil=True, cache=True)
def gray(codes, picture):  # type: ignore[no-untyped-def]
    """Gray levels uint8 `(n,)` to RGB uint8 `(n * 3,)`."""
    for i in range(len(codes)):
        picture[3 * i] = codes[i]
        picture[3 * i + 1] = codes[i]
        picture[3 * i + 2] = codes[i]


@njit(nogil=True, cache=True, parallel=True)
def gray_batch(codes, pictures):  # type: ignore[no-untyped-def]
    """`gray` for B of them: codes uint8 `(B, n)`, pictures uint8 `(B, n * 3)`."""
    for b in prange(len(codes)):
        gray(codes[b], pictures[b])


@njit(nogil=True, cache=True)
def coloured(codes, colours, picture):  # type: ignore[no-untyped-def]
    """Codes uint8 `(n,)` of single pixels to RGB uint8 `(n * 3,)`; `colours` as for `blocks`."""
    eights = max(len(codes) - 1, 0) // 8
    words, white = codes[: 8 * eights].view(np.uint64), colours[255] == np.uint32(0xFFFFFF)
    for k in range(eights):
        if white and words[k] == np.uint64(0xFFFFFFFFFFFFFFFF):  # most of a picture of lines is paper
            for part in range(6):
                store_four(picture, 24 * k + 4 * part, np.uint32(0xFFFFFFFF))
        else:
            for i in range(8 * k, 8 * k + 8):  # four bytes are stored for three; the fourth is the next one's
                store_four(picture, 3 * i, colours[codes[i]])
    for i in range(8 * eights, len(codes)):
        for byte in range(3):
            picture[3 * i + byte] = np.uint8(colours[codes[i]] >> np.uint32(8 * byte))


@njit(nogil=True, cache=True, parallel=True)
def coloured_batch(codes, colours, pictures):  # type: ignore[no-untyped-def]
    """`coloured` for B of them: codes uint8 `(B, n)`, pictures uint8 `(B, n * 3)`."""
    for b in prange(len(codes)):
        coloured(codes[b], colours, pictures[b])

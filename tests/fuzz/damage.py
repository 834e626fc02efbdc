"""What happens to bytes: everything that a disk, a network or a faulty writer does to them, at random."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable

import numpy as np

BLOCK, CARD = 2880, 80
_EDITED = re.compile(
    rb"(?:NAXIS\d?|BITPIX|[PG]COUNT|THEAP|TFIELDS|TFORM\d+|TSCAL\d+|TZERO\d+|TNULL\d+|TDIM\d+|TTYPE\d+|BSCALE|BZERO|"
    rb"BLANK|COEFF[01]|EXTNAME|XTENSION|SIMPLE|Z|RA|DEC|OBSID|CLASS|NGOOD|DATASUM|Z[A-Z]+\d*|END) *\Z"
)
_INSERTED = (
    "BSCALE", "BZERO", "BLANK", "TSCAL1", "TSCAL2", "TSCAL3", "TZERO1", "TZERO2", "TNULL1", "TDIM1", "COEFF0",
    "COEFF1", "THEAP", "DATASUM", "NAXIS1", "Z", "ZIMAGE", "CONTINUE",
)  # fmt: skip
_NUMBERS = (
    "0", "1", "-1", "2", "3", "7", "8", "16", "-32", "-64", "64", "99", "2880", "1E3", "0.01", "1E-9", "1.0001",
    "1E300", "-1E300", "1D400", "2147483647", "2147483648", "1.5", "10", "9223372036854775807", "1000000000000", "T",
    "F", "NaN", "-9999",
)  # fmt: skip
_TEXTS = (
    "'E       '", "'3J      '", "'D       '", "'X       '", "'1PE(9)  '", "'0E      '", "'4000E   '", "'1QD(99) '",
    "'K       '", "'B       '", "'FLUX    '", "'IMAGE   '", "'BINTABLE'", "'(2,200) '", "''", "'open",
)  # fmt: skip
Damage = Callable[[bytes, np.random.Generator], bytes]


def span(size: int, rng: np.random.Generator, most: int = 5000) -> tuple[int, int]:
    """A random piece of a file: start and stop."""
    start = int(rng.integers(max(1, size)))
    return start, min(size, start + int(rng.integers(1, most)))


def cards(content: bytes) -> list[int]:
    """Where the cards of all headers start, as far as headers can be recognised."""
    found: list[int] = []
    for block in range(0, len(content), BLOCK):
        if content[block : block + 8] in (b"SIMPLE  ", b"XTENSION"):
            at = block
            while at < len(content) and content[at : at + 8].rstrip() != b"END" and at - block < 400 * CARD:
                found.append(at)
                at += CARD
            found.append(at)
    return found


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    """One to eight bits, half of the time in a header."""
    damaged = bytearray(content)
    heads = cards(content) if rng.random() < 0.5 else []
    for _ in range(int(rng.integers(1, 9)) if rng.random() < 0.3 else 1):
        at = int(rng.choice(heads)) + int(rng.integers(CARD)) if heads else int(rng.integers(len(content)))
        damaged[min(at, len(content) - 1)] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def flip_end(content: bytes, rng: np.random.Generator) -> bytes:
    """Bits near either end, where formats keep what they know of themselves."""
    damaged = bytearray(content)
    near = int(rng.integers(min(len(content), 6000)))
    damaged[near if rng.random() < 0.3 else len(content) - 1 - near] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def truncated(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut anywhere, or at a block, or a little before the end."""
    how = rng.random()
    if how < 0.4:
        return content[: int(rng.integers(len(content)))]
    if how < 0.7:
        return content[: BLOCK * int(rng.integers(1 + len(content) // BLOCK))]
    return content[: len(content) - int(rng.integers(1, 3000))]


def zeroed(content: bytes, rng: np.random.Generator) -> bytes:
    """A piece, or a whole block, of zeros."""
    start, stop = span(len(content), rng)
    if rng.random() < 0.5:
        start, stop = start - start % BLOCK, start - start % BLOCK + BLOCK
    return content[:start] + bytes(min(stop, len(content)) - start) + content[stop:]


def noise(content: bytes, rng: np.random.Generator) -> bytes:
    """A piece of random bytes."""
    start, stop = span(len(content), rng, 300)
    return content[:start] + rng.bytes(stop - start) + content[stop:]


def duplicated(content: bytes, rng: np.random.Generator) -> bytes:
    """A piece or a block twice."""
    start, stop = span(len(content), rng)
    if rng.random() < 0.5:
        start, stop = start - start % BLOCK, start - start % BLOCK + BLOCK
    return content[:stop] + content[start:stop] + content[stop:]


def swapped(content: bytes, rng: np.random.Generator) -> bytes:
    """Two blocks, or two cards, in each other's place."""
    unit = BLOCK
    places = list(range(0, len(content) - BLOCK, BLOCK))
    heads = cards(content)
    if len(heads) > 2 and rng.random() < 0.5:
        unit, places = CARD, heads
    if len(places) < 2:
        return flip(content, rng)
    one, two = sorted(int(place) for place in rng.choice(places, 2, replace=False))
    middle = content[one + unit : two]
    return content[:one] + content[two : two + unit] + middle + content[one : one + unit] + content[two + unit :]


def inserted(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes too many, or too few."""
    start, stop = span(len(content), rng, 200)
    if rng.random() < 0.5:
        return content[:start] + rng.bytes(stop - start) + content[start:]
    return content[:start] + content[stop:]


def edited(content: bytes, rng: np.random.Generator) -> bytes:
    """One to three header cards with other values, or cards that were not there."""
    damaged = bytearray(content)
    heads = cards(content)
    for _ in range(int(rng.integers(1, 4))):
        known = [at for at in heads if _EDITED.match(content[at : at + 8])]
        if not known:
            return flip(content, rng)
        if rng.random() < 0.3:  # in place of a card that says little
            at = int(rng.choice(heads))
            keyword = str(rng.choice(_INSERTED))
        else:
            at = int(rng.choice(known))
            keyword = content[at : at + 8].decode("ascii", "replace").strip()
        was = content[at + 10 : at + 30].strip()
        values = _TEXTS if b"'" in was or rng.random() < 0.1 else _NUMBERS
        value = str(rng.choice(values))
        if was.lstrip(b"-").isdigit() and rng.random() < 0.5:
            value = str(int(was) + int(rng.choice([-100, -2, -1, 1, 2, 100, int(was)])))
        damaged[at : at + CARD] = f"{keyword:<8}= {value:>20}".ljust(CARD)[:CARD].encode()
    return bytes(damaged)


def packed(content: bytes, rng: np.random.Generator) -> bytes:
    """As gzip, and that damaged."""
    whole = gzip.compress(content, int(rng.integers(1, 10)), mtime=0)
    how = rng.integers(5)
    if how == 0:
        return whole[: int(rng.integers(2, len(whole)))]
    if how == 1:
        return whole + gzip.compress(rng.bytes(200), mtime=0)
    if how == 2:
        return whole + rng.bytes(20)
    damaged = bytearray(whole)
    damaged[int(rng.integers(2, len(whole))) if how == 3 else -int(rng.integers(1, 9))] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


ANY: tuple[Damage, ...] = (flip, flip_end, truncated, zeroed, noise, duplicated, swapped, inserted)
# Headers are where FITS says what its bytes are: they are edited most.
OF_FITS: tuple[Damage, ...] = (
    flip, truncated, zeroed, noise, duplicated, swapped, inserted, edited, edited, edited, packed
)  # fmt: skip


def damaged(content: bytes, is_fits: bool, rng: np.random.Generator) -> tuple[str, bytes]:
    """A variant of a file, and the name of what happened to it."""
    kinds = OF_FITS if is_fits else ANY
    kind = kinds[int(rng.integers(len(kinds)))]
    result = kind(content, rng)
    if rng.random() < 0.1:
        result = ANY[int(rng.integers(len(ANY)))](result or b"\0", rng)
    return kind.__name__, result

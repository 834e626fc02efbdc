"""FITS written by hand: header cards, padding, one image or binary table, as bytes.

Astropy builds a LAMOST file in some 15 ms, this in well under one. The tests read everything back with
astropy.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK = 2880

Card = tuple[str, object, str]
"""Key, value (bool, int, str, or a `Number`), comment. Key COMMENT: only the comment counts; key '': a blank
card."""


class Number(str):
    """A float already written the way the survey writes it, for instance `Number("3.5682")`."""


def card(key: str, value: object, comment: str = "") -> bytes:
    """One header card, 80 bytes. Raises ValueError when it does not fit."""
    if key == "COMMENT":
        text = f"COMMENT {comment}"
    elif key == "":
        text = ""
    else:
        if isinstance(value, bool):
            field = f"{'T' if value else 'F':>20}"
        elif isinstance(value, Number | int):
            field = f"{value:>20}"
        else:
            field = "'" + str(value).replace("'", "''").ljust(8) + "'"
            field = f"{field:<20}"
        text = f"{key:<8}= {field} / {comment}"[:80] if len(field) <= 67 else f"{key:<8}= {field}"
    if len(key) > 8 or len(text) > 80:
        raise ValueError(f"FITS card {key!r} does not fit 80 bytes")
    return text.ljust(80).encode("ascii")


def header(cards: Iterable[Card]) -> bytes:
    """A whole header unit: the cards, END, blanks up to a multiple of 2880 bytes."""
    text = b"".join(card(*one) for one in cards) + b"END".ljust(80)
    return text + b" " * (-len(text) % BLOCK)


def padded(data: bytes) -> bytes:
    """Data bytes with zeros up to a multiple of 2880."""
    return data + b"\0" * (-len(data) % BLOCK)


_LETTERS = {"f4": "E", "f8": "D", "i2": "I", "i4": "J", "i8": "K", "u8": "K", "u1": "B"}


def table(rows: npt.NDArray[np.void], extname: str | None, comments: Iterable[str] = ()) -> bytes:
    """A binary-table HDU from a structured array (any byte order); u8 columns are stored through TZERO.

    Sub-array fields become vector columns. `extname` None leaves the name out, as some releases do.
    """
    fields = rows.dtype.fields
    assert fields is not None
    stored: list[tuple[Any, ...]] = []
    cards: list[Card] = []
    for i, name in enumerate(rows.dtype.names or (), start=1):
        dtype = fields[name][0]
        base, count = dtype.base, int(np.prod(dtype.shape, dtype=np.int64))
        cards.append((f"TTYPE{i}", name, ""))
        if base.kind == "S":
            cards.append((f"TFORM{i}", f"{base.itemsize}A", ""))
            stored.append((name, base, dtype.shape))
            continue
        letter = _LETTERS[base.str[1:]]
        cards.append((f"TFORM{i}", letter if count == 1 else f"{count}{letter}", ""))
        kind = "i8" if base.kind == "u" and base.itemsize == 8 else base.str[1:]
        if kind != base.str[1:]:
            cards.append((f"TZERO{i}", Number(str(2**63)), ""))
        stored.append((name, f">{kind}", dtype.shape))
    out = np.empty(rows.shape, dtype=stored)
    for name in rows.dtype.names or ():
        base = fields[name][0].base
        wrap = base.kind == "u" and base.itemsize == 8
        out[name] = (rows[name].astype("u8") ^ np.uint64(1 << 63)).view("i8") if wrap else rows[name]
    head: list[Card] = [
        ("XTENSION", "BINTABLE", "binary table extension"),
        ("BITPIX", 8, "array data type"),
        ("NAXIS", 2, "number of array dimensions"),
        ("NAXIS1", out.dtype.itemsize, "length of dimension 1"),
        ("NAXIS2", len(out), "length of dimension 2"),
        ("PCOUNT", 0, "number of group parameters"),
        ("GCOUNT", 1, "number of groups"),
        ("TFIELDS", len(stored), "number of table fields"),
    ]
    head += [("COMMENT", "", text) for text in comments]
    if extname is not None:
        head.append(("EXTNAME", extname, "extension name"))
    return header(head + cards) + padded(out.tobytes())

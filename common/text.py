"""Text for a terminal, a table or a page."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """The lines of a table: columns two spaces apart, those of `left` start at the left, the others end at the right.

    Args:
        rows: of one length.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def count(number: int, one: str, many: str) -> str:
    """A number and the words that fit it."""
    return f"{number:,} {one if number == 1 else many}"


def escaped(name: str) -> str:
    """A file's name as it can be shown and stored: what cannot be printed becomes a backslash escape, one to one.

    A name is bytes. Those that are no UTF-8 (which Python keeps as lone surrogates) become `\\xff`, control and
    invisible characters `\\n` or `\\u202e`, a backslash two.
    """
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(map(_escaped, name))


_ESCAPE = re.compile(r"\\(\\|[ntr]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")


def unescaped(text: str) -> str:
    """The name that `escaped` made a text of."""
    return _ESCAPE.sub(_unescaped, text) if "\\" in text else text


def _unescaped(match: re.Match[str]) -> str:
    said = match[1]
    if said in _SHORT:
        return _SHORT[said]
    code = int(said[1:], 16)
    return chr(0xDC00 + code if said[0] == "x" and code >= 0x80 else code)


_SHORT = {"\\": "\\", "n": "\n", "t": "\t", "r": "\r"}


def printable(text: str) -> str:
    """`escaped` without the doubled backslash: of words that may hold names, or values of a damaged header."""
    return text if text.isprintable() else "".join(c if c == "\\" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    if character.isprintable():
        return "\\\\" if character == "\\" else character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    # Beyond ASCII `\\xff` stands for a byte alone.
    return character.encode("unicode_escape").decode() if code < 0x80 or code > 0xFF else f"\\u{code:04x}"

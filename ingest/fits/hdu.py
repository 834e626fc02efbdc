"""What a reader sees of a FITS file, whichever parser read it.

Standard: FITS 4.0 (Pence et al. 2010, A&A 524, A42, and its 2016 update).
"""

from __future__ import annotations

import mmap
from typing import Any, Protocol

import numpy.typing as npt

#: A whole file in memory, or mapped into it.
Content = bytes | bytearray | mmap.mmap
BLOCK = 2880
CARD = 80
IMAGE_DTYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


def is_empty(content: Content, start: int) -> bool:
    """Whether nothing but fill follows: zeros, no more than a tape's block of them would be."""
    return len(content) - start <= 1 << 20 and not bytes(content[start:]).strip(b"\0")


class HeaderLike(Protocol):
    """What a reader may ask of a header."""

    def get(self, key: str, default: Any = None) -> Any:
        """The value of the first card of that keyword; `default` without one, None for a card without a value."""


class Hdu(Protocol):
    """One header and data unit, however it was parsed."""

    header: HeaderLike

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image, in numpy's order; `(rows,)` of a table; `()` without data."""

    @property
    def names(self) -> frozenset[str]:
        """Lower-case column names; empty unless it is a binary table."""

    def image(self) -> npt.NDArray[Any]:
        """The image, in the file's byte order (read-only), unsigned where BZERO says so."""

    def column(self, name: str) -> npt.NDArray[Any]:
        """A table column by its name in any case: `(rows,)` or `(rows, n)`, text as bytes or str.

        A masked array where it says of some that they have no value: TNULL of integers, 0 of truths.

        Raises:
            KeyError: no such column.
        """

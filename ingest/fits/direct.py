"""FITS files as headers and arrays: a direct parser for ordinary files, astropy for every surprise.

Reading one spectrum through astropy costs 3 to 35 ms, nearly all of it in making Python objects for header cards and
table columns that nobody asks for. Here a header is indexed, not parsed, and an array is a view of the file's bytes.
Whatever the direct parser is not certain to read as astropy does (scaled or variable-length columns, odd cards,
unusual structure) goes to astropy instead, HDU by HDU, and `FitsFile.parser` says which of the two a file needed.

Standard: FITS 4.0 (Pence et al. 2010, A&A 524, A42, and its 2016 update).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.ingest.fits.astropy import open_with_astropy
from specshards.ingest.fits.content import read_content
from specshards.ingest.fits.hdu import BLOCK, CARD, IMAGE_DTYPES, Content, Hdu, HeaderLike, is_empty
from specshards.ingest.limits import MOST_BYTES, MOST_HEADER, check_array
from specshards.ingest.listing import open_input
from specshards.ingest.tables import UNSTATED

_END = b"END" + b" " * 77
_UNSIGNED = {"I": 1 << 15, "J": 1 << 31, "K": 1 << 63}
_DTYPES = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8", "L": "S1"}
_WIDTHS = {"A": 1, "C": 8, "M": 16, "P": 8, "Q": 16, **{code: int(kind[-1]) for code, kind in _DTYPES.items()}}
_VALUE = re.compile(
    rb"= +(?:'((?:[ -&(-~]|'')*)'|([TF])|([+-]?\d+)|([+-]?(?:\d+\.?\d*|\.\d+)(?:[ED][+-]?\d+)?))? *(?:/[ -~]*)?\Z"
)
# The everyday number: fixed format, in columns 11 to 30, with nothing behind it but a comment.
_INTEGER = b"0123456789+- "
_DIGITS = _INTEGER + b".E"
_KEYWORD = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
_TFORM = re.compile(r"(\d*)([LXBIJKAEDCMPQ])\Z")


class _SurpriseError(Exception):
    """Something that the direct parser leaves to astropy."""


class Column(NamedTuple):
    """Where a table column lies in a row."""

    name: str
    code: str
    repeat: int
    offset: int
    plain: bool
    zero: int
    null: int | None


class Header:
    """A header unit: an index of its cards, values parsed when they are asked for, odd ones by `other`."""

    def __init__(self, content: bytes, other: Callable[[], HeaderLike] | None = None) -> None:
        self.content, self._other = content, other
        self._at: dict[bytes, int] | None = None

    def card(self, position: int, keyword: bytes) -> Any:
        """The value of card number `position`, which must be `keyword`: the mandatory ones have fixed places."""
        start = position * CARD
        if self.content[start : start + 8] != keyword:
            raise _SurpriseError
        return self._value(start)

    def get(self, key: str, default: Any = None) -> Any:
        """See `HeaderLike`."""
        try:
            if self._at is None:
                self._at = _card_index(self.content)
            if b"HIERARCH" in self._at and re.search(rb"HIERARCH +%b *=" % re.escape(key.encode()), self.content):
                raise _SurpriseError
            start = self._at.get(key.encode().ljust(8))
            return default if start is None else self._value(start)
        except _SurpriseError:
            if self._other is None:
                raise
            return self._other().get(key, default)

    def _value(self, start: int) -> Any:
        card = self.content[start : start + CARD]
        if self.content[start + CARD : start + CARD + 8] == b"CONTINUE":  # a long string goes on there
            raise _SurpriseError
        number, rest = card[10:30], card[30:].lstrip()
        is_plain = card[8:10] == b"= " and (not rest or rest[:1] == b"/") and not number.translate(None, _DIGITS)
        if is_plain and not number.isspace():
            try:
                return int(number) if not number.translate(None, _INTEGER) else float(number)
            except ValueError:
                raise _SurpriseError from None
        match = _VALUE.match(card, 8)
        if match is None:
            raise _SurpriseError
        text, logical, integer, real = match.groups()
        if text is not None:
            if text.endswith(b"&"):
                raise _SurpriseError
            return text.replace(b"''", b"'").decode().rstrip()
        if logical is not None:
            return logical == b"T"
        if integer is not None:
            return int(integer)
        return None if real is None else float(real.replace(b"D", b"E"))


def _card_index(content: bytes) -> dict[bytes, int]:
    """Keyword -> where its first card starts."""
    if not content.isascii():
        raise _SurpriseError
    cards = np.frombuffer(content, "V8").reshape(-1, CARD // 8)
    return _positions(cards[:, 0].tobytes())


@lru_cache(maxsize=256)
def _positions(keywords: bytes) -> dict[bytes, int]:
    """`_card_index` of the keywords of a header, which files of one layout share though their values differ."""
    count = len(keywords) // 8
    if any(keywords[8 * i : 8 * i + 8].rstrip().translate(None, _KEYWORD) for i in range(count)):
        raise _SurpriseError
    # Backwards, so that the first of repeated cards stands.
    return {keywords[8 * i : 8 * i + 8]: CARD * i for i in range(count - 1, -1, -1)}


class _DirectHdu:
    """An HDU as offsets into the file's bytes."""

    def __init__(self, file: FitsFile, index: int, content: bytes, shape: tuple[int, ...], start: int, size: int):
        self._file, self._index, self._content = file, index, content
        self.start, self.size = start, size
        self._image_shape = shape
        self.header: HeaderLike = Header(content, lambda: self._other().header)
        self._is_table = content.startswith(b"XTENSION= 'BINTABLE'")
        self._is_checked = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self._image_shape[:1] if self._is_table else self._image_shape

    @property
    def names(self) -> frozenset[str]:
        try:
            return _table_layout(self._content)[1] if self._is_table else frozenset()
        except _SurpriseError:
            return self._other().names

    def image(self) -> npt.NDArray[Any]:
        self._check()
        try:
            return self._image()
        except _SurpriseError:
            return self._other().image()

    def column(self, name: str) -> npt.NDArray[Any]:
        self._check()
        try:
            return self._column(_table_layout(self._content)[0][name.lower()])
        except _SurpriseError:
            return self._other().column(name)

    def _other(self) -> Hdu:
        return self._file.with_astropy()[self._index]

    def _check(self) -> None:
        if not self._is_checked:
            has_sum = b"DATASUM " in self._content  # spares most files an index of this header
            self._file.check_data(self._index, self.start, self.size, self.header.get("DATASUM") if has_sum else None)
            self._is_checked = True

    def _image(self) -> npt.NDArray[Any]:
        header = Header(self._content)
        bitpix, zero, scale = header.get("BITPIX"), header.get("BZERO", 0), header.get("BSCALE", 1)
        if self._is_table or scale != 1 or zero not in (0, 1 << 31, 1 << 15) or header.get("BLANK") is not None:
            raise _SurpriseError
        values = np.ndarray(self._image_shape, IMAGE_DTYPES[bitpix], self._file.content, self.start)
        if zero == 0:
            return values
        if zero != _UNSIGNED.get({16: "I", 32: "J"}.get(bitpix, ""), -1):
            raise _SurpriseError
        return _unsigned(values)

    def _column(self, column: Column) -> npt.NDArray[Any]:
        if not column.plain:
            raise _SurpriseError
        dtype = np.dtype(f"S{column.repeat}" if column.code == "A" else _DTYPES[column.code])
        rows, width = self._image_shape
        repeat = 1 if column.code == "A" else column.repeat
        shape, strides = (rows, repeat), (width, dtype.itemsize)
        values: npt.NDArray[Any] = np.ndarray(shape, dtype, self._file.content, self.start + column.offset, strides)
        if repeat == 1:
            values = values[:, 0]
        found = _unsigned(values) if column.zero else values
        if column.null is not None and (masked := values == column.null).any():
            return np.ma.MaskedArray(found, masked)
        return found


class FitsFile:
    """An open FITS file: a sequence of `Hdu`s.

    Attributes:
        path: where it came from (readers look for companions beside it), or None.
        content: the whole file, decompressed.
        parser: `direct`, or `astropy` once that was needed for anything.
        stated: what a user says of its spectra; whoever opens the file may set it.
    """

    def __init__(self, content: Content, path: Path | None = None) -> None:
        self.content, self.path = content, path
        self.parser = "direct"
        self.stated = UNSTATED
        self._astropy: Any = None
        self._hdus: Sequence[Hdu]
        if len(content) < BLOCK or content[:6] != b"SIMPLE":
            raise BadObjectError("empty file" if not len(content) else "not a FITS file")
        try:
            self._hdus = self._walk()
        except _SurpriseError:
            self._hdus = self.with_astropy()

    @classmethod
    def open(cls, path: Path, most_bytes: int = MOST_BYTES) -> FitsFile:
        """Read `path`, gzipped or not (told by its first bytes).

        Args:
            most_bytes: of what is compressed, uncompressed.

        Raises:
            BadObjectError: empty, no FITS, damaged gzip, cut short or too large. OSError: the environment.
        """
        with open_input(path) as file:
            return cls.read(file, file.read(2), path, most_bytes)

    @classmethod
    def read(cls, file: BinaryIO, head: bytes, path: Path, most_bytes: int = MOST_BYTES) -> FitsFile:
        """The same for an open file that starts with `head`; a large plain file is mapped into memory."""
        return cls(read_content(file, head, most_bytes), path)

    def __len__(self) -> int:
        """Number of HDUs."""
        return len(self._hdus)

    def __getitem__(self, index: int) -> Hdu:
        """HDU number `index`."""
        return self._hdus[index]

    def named(self, name: str) -> Hdu | None:
        """The first HDU with that EXTNAME, or None."""
        return next((hdu for hdu in self._hdus if str(hdu.header.get("EXTNAME", "")).strip() == name), None)

    def with_astropy(self) -> Sequence[Hdu]:
        """The HDUs as astropy sees them; opened once."""
        if self._astropy is None:
            self._astropy = open_with_astropy(self.content, self.check_data)
            self.parser = "astropy"
        opened: Sequence[Hdu] = self._astropy
        return opened

    def check_data(self, index: int, start: int, size: int, datasum: Any) -> None:
        """Refuse data that their own header contradicts: a wrong DATASUM, or bytes in the fill after them.

        A NAXIS that lost a few pixels still gives a readable array, of shifted rows; the fill, which the standard
        wants to be zero, is then not.
        """
        end = start + size
        fill = bytes(self.content[end : end + -end % BLOCK])
        if fill.strip(b"\0") and fill.strip(b" "):  # blanks behind an ASCII table (FITS 4.0, section 7.2.3)
            raise BadObjectError(f"HDU {index}: data behind the end that its header gives")
        if datasum is not None and str(datasum).strip().isdigit():
            whole = bytes(self.content[end - size % 4 : end]).ljust(4, b"\0") if size % 4 else b""
            words = np.frombuffer(self.content, ">u4", size // 4, start)
            total = int(words.sum(dtype=np.uint64)) + int.from_bytes(whole, "big")
            while total >> 32:
                total = (total & 0xFFFFFFFF) + (total >> 32)
            if total != int(str(datasum)) and not (total in (0, 0xFFFFFFFF) and int(str(datasum)) in (0, 0xFFFFFFFF)):
                raise BadObjectError(f"HDU {index}: data do not give their DATASUM; the file is damaged")

    def _walk(self) -> list[Hdu]:
        hdus: list[Hdu] = []
        at, length = 0, len(self.content)
        while at < length:
            if hdus and self.content[at : at + 8] != b"XTENSION":
                if not is_empty(self.content, at):
                    raise BadObjectError(f"no header after HDU {len(hdus) - 1}: one of its sizes is wrong")
                break
            header, data = self._header(at)
            shape, size = _shape(header, first=not hdus)
            end = data + size + -size % BLOCK
            # The fill behind the last data may be short: nothing is lost with it.
            if size and data + size > length:
                raise BadObjectError("file cut short: fewer bytes than its headers promise")
            hdus.append(_DirectHdu(self, len(hdus), header, shape, data, size))
            at = end
        return hdus

    def _header(self, at: int) -> tuple[bytes, int]:
        end = at
        while True:
            end = self.content.find(_END, end, at + MOST_HEADER)
            if end < 0:
                raise BadObjectError("file cut short: a header has no END")
            if (end - at) % CARD == 0:
                break
            end += 1
        data = end + CARD
        return bytes(self.content[at:end]), data + -(data - at) % BLOCK


def _shape(content: bytes, first: bool) -> tuple[tuple[int, ...], int]:
    """Shape in numpy's order, and data bytes, from the mandatory cards in their fixed places."""
    naxis = content[3 * CARD - 51 : 3 * CARD - 50]  # the last digit of a fixed-format integer
    if not naxis.isdigit():
        raise _SurpriseError
    keywords = np.frombuffer(content, "<u8")[:: CARD // 8]
    for i in range(int(naxis)):
        name = int.from_bytes(b"NAXIS%-3d" % (i + 1), "little")
        if np.count_nonzero(keywords == name) > 1:  # which of the two is meant, nobody knows
            raise _SurpriseError
    return _mandatory(content[: (3 + int(naxis) + (0 if first else 2)) * CARD], first)


@lru_cache(maxsize=256)
def _mandatory(content: bytes, first: bool) -> tuple[tuple[int, ...], int]:
    """`_shape` of the mandatory cards alone; thousands of files share them to the byte."""
    header = Header(content)
    kind = header.card(0, b"SIMPLE  " if first else b"XTENSION")
    if (kind is not True) if first else (kind not in ("IMAGE", "BINTABLE")):
        raise _SurpriseError
    bitpix, naxis = header.card(1, b"BITPIX  "), header.card(2, b"NAXIS   ")
    if (
        bitpix not in IMAGE_DTYPES
        or not isinstance(naxis, int)
        or len(content) // CARD != 3 + naxis + 2 * (not first)
    ):
        raise _SurpriseError
    axes = [header.card(3 + i, b"NAXIS%-3d" % (i + 1)) for i in range(naxis)]
    if not all(isinstance(n, int) and n >= 0 for n in axes):
        raise _SurpriseError
    if not first and (header.card(3 + naxis, b"PCOUNT  ") != 0 or header.card(4 + naxis, b"GCOUNT  ") != 1):
        raise _SurpriseError  # a heap of variable-length arrays, most of all
    if first and axes and axes[0] == 0:
        raise _SurpriseError  # random groups
    size = abs(bitpix) // 8 * int(np.prod(axes, dtype=object)) if axes else 0
    return tuple(reversed(axes)), size


@lru_cache(maxsize=256)
def _table_layout(content: bytes) -> tuple[dict[str, Column], frozenset[str]]:
    """Columns by lower-case name, and the names. Files of one pipeline version share table headers to the byte."""
    header = Header(content)
    width, fields = header.card(3, b"NAXIS1  "), header.card(7, b"TFIELDS ")
    if header.card(2, b"NAXIS   ") != 2 or header.card(1, b"BITPIX  ") != 8 or not isinstance(fields, int):
        raise _SurpriseError
    if header.get("ZIMAGE") is not None:  # an image in compressed tiles
        raise _SurpriseError
    columns: dict[str, Column] = {}
    offset = 0
    for i in range(1, fields + 1):
        name, form = header.get(f"TTYPE{i}"), header.get(f"TFORM{i}")
        parsed = _TFORM.match(form.strip()) if isinstance(form, str) else None
        if parsed is None or not isinstance(name, str) or name.lower() in columns:
            raise _SurpriseError
        repeat, code = int(parsed[1] or 1), parsed[2]
        zero = header.get(f"TZERO{i}", 0)
        plain = (
            code not in "XCMPQL" and repeat > 0 and header.get(f"TSCAL{i}", 1) == 1
            and zero in (0, _UNSIGNED.get(code, 0)) and header.get(f"TDIM{i}") is None
        )  # fmt: skip
        null = header.get(f"TNULL{i}") if code in "BIJK" else None
        null = null if isinstance(null, int) else None
        columns[name.lower()] = Column(name, code, repeat, offset, plain, int(zero) if plain else 0, null)
        offset += -(-repeat // 8) if code == "X" else repeat * _WIDTHS[code]
    if offset != width:
        raise _SurpriseError
    return columns, frozenset(columns)


def _unsigned(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Signed integers whose zero point is half their range, as the unsigned ones that they stand for."""
    check_array(values.nbytes)
    native = values.astype(values.dtype.newbyteorder("="))
    bits = native.dtype.itemsize * 8
    return np.asarray(native.view(f"u{bits // 8}") ^ np.array(1 << (bits - 1), f"u{bits // 8}"))

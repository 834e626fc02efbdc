"""Tables of text: what their first lines say of them, and their rows in blocks, so that memory stays flat.

A table is lines of as many cells, parted by commas, semicolons, tabs, bars or blanks. Lines that begin with #, % or !
are comments; the last of them, or the first line, may name the columns, and the next one give their units.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv

from specshards.common.errors import BadObjectError, shortened
from specshards.ingest.limits import too_large
from specshards.ingest.listing import open_input
from specshards.ingest.plain.cells import MISSING

GZIP = b"\x1f\x8b"
ECSV = "# %ECSV"
#: Of a file, this much tells what it is; a table of 20,000 columns has its names in it.
HEAD = 1 << 20
# Read block by block: pyarrow's stream of blocks keeps memory that grows with the file.
_BLOCK = 4 << 20
_LONGEST_ROW = 32 << 20
_LINES = 1 << 16
_COMMENT = ("#", "%", "!", "//")
_DELIMITERS = (",", ";", "\t", "|")
_LOOKED_AT = 50  # lines
# A header of numbers alone: the wavelengths of a wide table.
_WIDE = 16
_BRACKETS = re.compile(r"\A(.*?\S)\s*[\[(]([^\[\]()]*(?:\([^()]*\)[^\[\]()]*)*)[\])]\s*\Z")

NO_TABLE = "text, but no table of numbers"


@dataclass(frozen=True)
class TextLayout:
    """How a table of text is written.

    Attributes:
        kind: `csv`, `ascii` (blanks) or `ecsv`.
        delimiter: None for blanks.
        names: as written; `1`, `2`, ... where the file has none, and `is_named` is False.
        units: by name. meta: `comments`, and what ECSV keeps.
        skip: lines before the first row.
        encoding: of the text.
    """

    kind: str
    delimiter: str | None
    names: tuple[str, ...]
    is_named: bool
    units: Mapping[str, str]
    meta: Mapping[str, Any]
    skip: int
    encoding: str
    comments: tuple[str, ...] = field(default=_COMMENT)

    @classmethod
    def of(cls, head: bytes, is_whole: bool) -> TextLayout:
        """What the first bytes of a file say.

        Args:
            is_whole: whether there is nothing behind them.

        Raises:
            BadObjectError: no text; or, `selected_out`, text that is no table.
        """
        encoding, text = _decoded(head, is_whole)
        lines = text.splitlines()
        if not is_whole and len(lines) > 1:
            lines.pop()  # cut
        if text.startswith(ECSV):
            return _of_ecsv(lines, encoding)
        return _of_lines(lines, encoding)


def _decoded(head: bytes, is_whole: bool) -> tuple[str, str]:
    if not head.strip():
        raise BadObjectError("empty file")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16", head[: len(head) // 2 * 2].decode("utf-16", "replace")
    if b"\0" in head:
        raise BadObjectError("neither FITS, Parquet, HDF5, npz nor text")
    try:
        return "utf-8-sig", head.decode("utf-8-sig", "strict" if is_whole else "ignore")
    except UnicodeDecodeError:
        return "latin-1", head.decode("latin-1")


def _of_ecsv(lines: Sequence[str], encoding: str) -> TextLayout:
    from astropy.table.meta import get_header_from_yaml

    said = [line[1:].removeprefix(" ") for line in lines if line.startswith("#")]
    try:
        header = get_header_from_yaml(said[1:])
        columns = [dict(column) for column in header["datatype"]]
        names = tuple(str(column["name"]) for column in columns)
    except Exception as error:  # of a YAML parser that raises whatever its content makes it raise
        raise BadObjectError(f"damaged ECSV: {type(error).__name__}: {shortened(error)}") from error
    delimiter = str(header.get("delimiter", " "))
    first = next((i for i, line in enumerate(lines) if not line.startswith("#") and line.strip()), None)
    if first is None or tuple(_cells(lines[first], delimiter.strip() or None)) != names:
        raise BadObjectError("damaged ECSV: its line of names is not that of its header")
    units = {str(column["name"]): str(column["unit"]) for column in columns if column.get("unit") is not None}
    meta = header.get("meta") or {}
    meta = {**(meta if isinstance(meta, dict) else dict(meta)), "columns": columns}
    return TextLayout("ecsv", delimiter.strip() or None, names, True, units, meta, first + 1, encoding, ("#",))


def _of_lines(lines: Sequence[str], encoding: str) -> TextLayout:
    numbered = [(i, line) for i, line in enumerate(lines) if line.strip() and not line.lstrip().startswith(_COMMENT)]
    comments = [line.strip() for line in lines if line.strip() and line.lstrip().startswith(_COMMENT)]
    before = (
        [line.strip().lstrip("#%!/").strip() for line in lines[: numbered[0][0]] if line.strip()] if numbered else []
    )
    rows = [line for _, line in numbered[:_LOOKED_AT]]
    delimiter, width = _delimiter(rows)
    cells = [_cells(line, delimiter) for line in rows]
    meta = {"comments": comments}
    kind = "ascii" if delimiter is None else "csv"
    head, units = 0, {}
    named = _words(cells[0])
    if named is not None:
        head = 1
        if len(cells) > 2 and _words(cells[1]) is not None and _words(cells[2]) is None and _is_units(cells[1]):
            units, head = dict(zip(named, cells[1], strict=True)), 2
    elif len(before) and (found := _in_comments(before, delimiter, width)) is not None:
        named, units = found
    elif len(cells) > 1 and _is_wide(cells[0][not cells[0][0].strip() :]):
        named, head = cells[0], 1
    names = tuple(named) if named is not None else tuple(str(i + 1) for i in range(width))
    units = {**{name: match[2] for name in names if (match := _BRACKETS.match(name))}, **units}
    units = {name: unit.strip() for name, unit in units.items() if unit.strip()}
    skip = numbered[head][0] if head < len(numbered) else len(lines)
    return TextLayout(kind, delimiter, _unique(names), named is not None, units, meta, skip, encoding)


def _delimiter(rows: Sequence[str]) -> tuple[str | None, int]:
    """What parts the cells, and how many there are. BadObjectError, `selected_out`: no table."""
    for delimiter in (*_DELIMITERS, None):
        widths = [len(_cells(row, delimiter)) for row in rows]
        if not widths:
            break
        width = max(set(widths), key=widths.count)
        last = widths[-1:] if len(widths) > 1 else []
        if (
            width > 1
            and widths[0] == width
            and all(n == width for n in widths[: -1 or None])
            and (delimiter is not None or last in ([], [width]) or len(widths) > 3)
        ):
            return delimiter, width
    raise BadObjectError(NO_TABLE, selected_out=True)


def _cells(line: str, delimiter: str | None) -> list[str]:
    if delimiter is None:
        return line.split()
    if '"' not in line:
        return [cell.strip() for cell in line.rstrip("\r\n").split(delimiter)]
    import csv

    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]


def is_number(cell: str) -> bool:
    """Whether a cell is a number, or says that it is missing."""
    if cell.strip().lower() in MISSING:
        return True
    try:
        float(cell.replace(",", ".").replace("D", "e"))
    except ValueError:
        return False
    return True


def _words(cells: Sequence[str]) -> list[str] | None:
    """A row as names: None where all of it are numbers, or lists of them."""
    if all(is_number(cell) or cell.startswith(("[", "(", "{")) for cell in cells):
        return None
    # One text among numbers is an id of a row without a header.
    texts = [cell for cell in cells if not is_number(cell)]
    return list(cells) if len(texts) > 1 or len(cells) - len(texts) <= 1 or _is_wide(_numbers(cells)) else None


def _numbers(cells: Sequence[str]) -> list[str]:
    return [cell for cell in cells if cell.strip() and is_number(cell)]


def _is_wide(cells: Sequence[str]) -> bool:
    """Whether a row of numbers names the columns of a wide table: many, none below 0, and in order."""
    if len(cells) < _WIDE:
        return False
    try:
        values = np.array([float(cell.replace(",", ".")) for cell in cells])
    except ValueError:
        return False
    steps = np.diff(values)
    return bool((values >= 0).all() and ((steps > 0).all() or (steps < 0).all()))


def _is_units(cells: Sequence[str]) -> bool:
    return all(len(cell) < 40 for cell in cells) and 2 * len(_numbers(cells)) <= len(cells)


def _in_comments(before: Sequence[str], delimiter: str | None, width: int) -> tuple[list[str], dict[str, str]] | None:
    """Names, and units, in the last comments before the rows."""
    found = []
    for line in before[-2:]:
        for split in {delimiter: 0, None: 0}:
            cells = _cells(line, split)
            if len(cells) == width and _words(cells) is not None:
                found.append(cells)
                break
    if not found:
        return None
    if len(found) == 2:
        return found[0], dict(zip(found[0], found[1], strict=True))
    return found[0], {}


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for i, name in enumerate(names):
        found.append(name if name and name not in found else f"{name or 'column'}_{i + 1}")
    return tuple(found)


def bare(name: str) -> str:
    """A column's name without the unit in its brackets: `flux` of `flux [erg/s/cm2/AA]`."""
    match = _BRACKETS.match(name)
    return match[1].strip() if match else name.strip()


def opened(path: Path, most_bytes: int) -> IO[bytes]:
    """The bytes of a file, decompressed; `BadObjectError` on the way where a compressed one has more than that."""
    from isal import igzip

    found = open_input(path)
    raw: IO[bytes] = io.BufferedReader(found) if isinstance(found, io.FileIO) else found
    if raw.read(2) != GZIP:
        raw.seek(0)
        return raw
    raw.seek(0)
    return io.BufferedReader(_Bounded(igzip.IGzipFile(fileobj=raw), raw, most_bytes), _LINES)


class _Bounded(io.RawIOBase):
    """What is read of a compressed file, within bounds."""

    def __init__(self, unpacked: Any, raw: IO[bytes], most_bytes: int) -> None:
        self._unpacked, self._raw, self._left, self._most = unpacked, raw, most_bytes, most_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            piece = self._unpacked.read(len(buffer))
        except (EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise BadObjectError(f"damaged gzip: {shortened(error)}") from error
        self._left -= len(piece)
        if self._left < 0:
            raise too_large("it uncompresses to", self._most)
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def blocks(file: IO[bytes], layout: TextLayout, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of a table of text in order, as tables of strings.

    Args:
        file: at its start; it is closed.
        columns: those to give, by name; all by default.

    Raises:
        BadObjectError: a row with another number of cells, or bytes that are no text.
    """
    with file:
        try:
            if layout.delimiter is None:
                yield from _of_blanks(file, layout, columns)
            else:
                yield from _of_csv(file, layout, columns)
        except pa.ArrowInvalid as error:
            raise BadObjectError(f"damaged table: {shortened(error)}") from error


def _of_csv(file: IO[bytes], layout: TextLayout, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    text = io.TextIOWrapper(file, layout.encoding, errors="replace") if layout.encoding != "utf-8-sig" else None
    for _ in range(layout.skip):
        (file if text is None else text).readline()
    source: Any = file if text is None else io.BufferedReader(_Encoded(text), _LINES)
    wrong: list[str] = []

    def of_invalid(row: Any) -> str:
        if row.text.lstrip().startswith(layout.comments) or not row.text.strip():
            return "skip"
        wrong.append(f"a row of {row.actual_columns} cells where {row.expected_columns} belong")
        return "skip"

    names = list(layout.names)
    parsing = pcsv.ParseOptions(
        delimiter=layout.delimiter, newlines_in_values=True, invalid_row_handler=of_invalid, ignore_empty_lines=True
    )
    converting = pcsv.ConvertOptions(
        check_utf8=True, column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False,
        include_columns=None if columns is None else list(columns),
    )  # fmt: skip
    for block in _whole_rows(source):
        reading = pcsv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=names)
        table = pcsv.read_csv(pa.BufferReader(block), reading, parsing, converting)
        if wrong:
            raise BadObjectError(f"damaged table: {wrong[0]}")
        if table.num_rows:
            yield table


def _whole_rows(source: Any) -> Iterator[bytes]:
    """Text in blocks of whole rows: cut at the ends of lines that are not within quotes."""
    rest = b""
    while piece := source.read(_BLOCK):
        rest += piece
        end = b"\n" if b"\n" in rest else b"\r"
        at = last = rest.rfind(end, 0, len(rest) - (end == b"\r"))  # the other half of \r\n may come
        while at >= 0 and rest.count(b'"', 0, at) % 2:
            at = rest.rfind(end, 0, at)
        if at < 0 and len(rest) > _LONGEST_ROW:
            at = last  # a quote that is no bracket of a cell
        if at >= 0:
            yield rest[: at + 1]
            rest = rest[at + 1 :]
    if rest.strip():
        yield rest


class _Encoded(io.RawIOBase):
    """Text of another encoding as UTF-8."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text, self._rest = text, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = self._text.read(max(1, len(buffer) // 4)).encode("utf-8", "replace")
        piece, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


def _of_blanks(file: IO[bytes], layout: TextLayout, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    text = io.TextIOWrapper(file, layout.encoding, errors="replace")
    names, wanted = layout.names, set(layout.names if columns is None else columns)
    number = layout.skip
    for _ in islice(text, layout.skip):
        pass
    while lines := list(islice(text, _LINES)):
        rows = []
        for line in lines:
            number += 1
            words = line.split()
            if not words or words[0].startswith(layout.comments):
                continue
            if len(words) != len(names):
                raise BadObjectError(
                    f"damaged table: a row of {len(words)} cells where {len(names)} belong", kind="damaged table"
                )
            rows.append(words)
        if rows:
            cells = dict(zip(names, zip(*rows, strict=True), strict=True))
            yield pa.table({name: pa.array(cells[name], pa.string()) for name in names if name in wanted})

"""`PlainTable`: an open table of text, VOTable or npz, whichever; columns whole, or rows in slices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from specshards.common.errors import BadObjectError
from specshards.ingest.limits import MOST_BYTES
from specshards.ingest.listing import open_input
from specshards.ingest.plain.arrays import ZIP, Arrays, read_npz, read_votable
from specshards.ingest.plain.cells import Kind, is_padded, kind_of, texts, typed
from specshards.ingest.plain.text import GZIP, HEAD, TextLayout, blocks, opened
from specshards.ingest.tables import UNSTATED, Stated

#: A file of no more bytes is read once and kept; of a larger one, every pass reads it again.
_KEPT = 32 << 20
_KEPT_GZIP = 4 << 20


@dataclass(frozen=True)
class Rows:
    """Some rows of a table, as `PlainTable.slices` gives them.

    Attributes:
        first: number of the first of them in the file. rows: how many there are.
    """

    first: int
    rows: int
    table: PlainTable
    content: Any

    def column(self, name: str) -> npt.NDArray[Any]:
        """As `PlainTable.column`, of these rows."""
        if isinstance(self.content, pa.Table):
            return typed(self.content[name], self.table.kinds[name])
        return self.table.column(name)[self.first : self.first + self.rows]

    def text(self, name: str) -> npt.NDArray[np.object_]:
        """As `PlainTable.text`, of these rows."""
        if isinstance(self.content, pa.Table):
            return texts(self.content[name])
        return self.table.text(name)[self.first : self.first + self.rows]


class PlainTable:
    """An open table that is no Parquet, HDF5 or FITS.

    Attributes:
        path: the file.
        kind: `csv`, `ascii` (columns parted by blanks), `ecsv`, `votable` or `npz`.
        names: of the columns, as written (`flux [mJy]`); `1`, `2`, ... where there are none, and `is_named` is False.
        units: name -> unit, as written. In text: in brackets behind the name, or in a line of units.
        meta: what the file says besides: `comments` of text; keys of ECSV; parameters of a VOTable, and its `ucds`.
        stated: what a user says of the table; whoever opens the file may set it.
        has_end: False for text that does not end with a line's end, and may have been cut.
    """

    def __init__(self, path: Path, source: TextLayout | Arrays, kind: str, most_bytes: int = MOST_BYTES) -> None:
        self.path, self.kind, self._source, self._most_bytes = path, kind, source, most_bytes
        self.names = source.names if isinstance(source, TextLayout) else tuple(source.columns)
        self.is_named = not isinstance(source, TextLayout) or source.is_named
        self.units: Mapping[str, str] = source.units
        self.meta: Mapping[str, Any] = source.meta
        self.stated: Stated = UNSTATED
        self.survey: str | None = None
        self.has_end = True

    @property
    def parser(self) -> str:
        """Its `kind`: for the summary of a job."""
        return self.kind

    @classmethod
    def open(cls, path: Path, most_bytes: int = MOST_BYTES) -> PlainTable:
        """Look at the first bytes of `path`.

        Args:
            most_bytes: of a compressed file, uncompressed; of a VOTable and an npz.

        Raises:
            BadObjectError: no table of any kind known here; `selected_out` for plain text. OSError: the environment.
        """
        with open_input(path) as file:
            start, size = file.read(4), file.seek(0, 2)
        if start == ZIP:
            return cls(path, read_npz(path, most_bytes), "npz", most_bytes)
        with opened(path, most_bytes) as unpacked:
            head = unpacked.read(HEAD)
            is_whole = len(head) < HEAD
            if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<":
                if b"<VOTABLE" not in head and b":VOTABLE" not in head:
                    raise BadObjectError("XML or HTML, but no VOTable", selected_out=True)
                with opened(path, most_bytes) as again:
                    return cls(path, read_votable(again, most_bytes), "votable", most_bytes)
        layout = TextLayout.of(head, is_whole)
        table = cls(path, layout, layout.kind, most_bytes)
        if is_whole:
            table.has_end = head.endswith((b"\n", b"\r", b"\n\0"))
        elif start[:2] != GZIP:
            with open_input(path) as file:
                file.seek(max(0, size - 2))
                table.has_end = file.read().endswith((b"\n", b"\r", b"\n\0"))
        return table

    @cached_property
    def rows(self) -> int:
        """Number of rows; of npz, the commonest length of its arrays."""
        if isinstance(self._source, Arrays):
            lengths = [len(values) for values in self._source.columns.values() if values.ndim]
            return max(set(lengths), key=lengths.count) if lengths else 0
        return sum(len(block) for block in self._blocks())

    @cached_property
    def kinds(self) -> Mapping[str, Kind]:
        """What every cell of a column of text can be read as, by name; reads the whole file."""
        found: dict[str, Kind] = dict.fromkeys(self.names, "empty")
        for block in self._blocks():
            for name, kind in found.items():
                if kind != "text":
                    found[name] = kind_of(block[name], kind)
        return found

    def padded(self, names: tuple[str, ...]) -> frozenset[str]:
        """Those of these columns that hold a whole number with a zero in front, such as the name 01; of text."""
        found: set[str] = set()
        for block in self._blocks(names) if names else ():
            found |= {name for name in set(names) - found if is_padded(block[name])}
        return frozenset(found)

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column by its name as written.

        Returns:
            `(rows,)`: int64, float64 (NaN = missing), or objects (`str`; None = missing); of VOTable and npz
            whatever they have, in native byte order, also `(rows, n)` and objects that are arrays. A list in a cell
            of text is text: `cells.numbers_in` reads it.

        Raises:
            KeyError: no such column. BadObjectError: damaged.
        """
        if isinstance(self._source, Arrays):
            return self._source.columns[name]
        return typed(self._strings(name))

    def text(self, name: str) -> npt.NDArray[np.object_]:
        """A column as it is written, zeros in front of an id included: objects `(rows,)`, None = missing."""
        if isinstance(self._source, TextLayout):
            return texts(self._strings(name))
        values = self._source.columns[name]
        return np.array([*(None if v is None else str(v) for v in values.tolist()), None], object)[:-1]

    def slices(self, rows: int = 256) -> Iterator[Rows]:
        """All rows in order, at most so many at once; memory does not grow with a file of text."""
        if isinstance(self._source, Arrays):
            for first in range(0, self.rows, rows):
                yield Rows(first, min(rows, self.rows - first), self, None)
            return
        position = 0
        for block in self._blocks():
            for first in range(0, len(block), rows):
                part = block.slice(first, rows)
                yield Rows(position + first, len(part), self, part)
            position += len(block)

    def _strings(self, name: str) -> pa.ChunkedArray:
        if name not in self.names:
            raise KeyError(name)
        chunks = [chunk for block in self._blocks((name,)) for chunk in block[name].chunks]
        return pa.chunked_array(chunks, pa.string())

    def _blocks(self, columns: tuple[str, ...] | None = None) -> Iterator[pa.Table]:
        if self._is_small:
            yield from self._all
            return
        assert isinstance(self._source, TextLayout)
        yield from blocks(opened(self.path, self._most_bytes), self._source, columns)

    @cached_property
    def _is_small(self) -> bool:
        with open_input(self.path) as file:
            most = _KEPT_GZIP if file.read(2) == GZIP else _KEPT
            return file.seek(0, 2) <= most

    @cached_property
    def _all(self) -> list[pa.Table]:
        assert isinstance(self._source, TextLayout)
        return list(blocks(opened(self.path, self._most_bytes), self._source))

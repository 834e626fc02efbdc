"""Rows that are marked with a small number: two sorted arrays, nine bytes a row, where a dict takes a hundred."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Values = npt.NDArray[np.int8]


class Marked(Mapping[int, int]):
    """Row -> value, in order of rows. It reads as a mapping does; `at` looks at many rows at a time.

    Attributes:
        rows: int64 `(n,)`, sorted, each once. values: int8 `(n,)`.
    """

    __slots__ = ("rows", "values_")

    def __init__(self, rows: npt.ArrayLike = (), values: npt.ArrayLike = ()) -> None:
        """Take rows, each once and in any order, and their values."""
        found, said = np.asarray(rows, np.int64), np.asarray(values, np.int8)
        order = np.argsort(found, kind="stable")
        self.rows: Rows = found[order]
        self.values_: Values = said[order]

    @classmethod
    def of(cls, marks: Mapping[int, int]) -> Marked:
        """The same marks."""
        return marks if isinstance(marks, Marked) else cls(list(marks), list(marks.values()))

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __iter__(self) -> Iterator[int]:
        """Rows, sorted."""
        return iter(self.rows.tolist())

    def __getitem__(self, row: int) -> int:
        """The value of a row; KeyError where it has none."""
        at = int(np.searchsorted(self.rows, row))
        if at == len(self.rows) or self.rows[at] != row:
            raise KeyError(row)
        return int(self.values_[at])

    def __or__(self, other: Mapping[int, int]) -> Marked:
        """Both together; where both have a row, as `other` says."""
        more = Marked.of(other)
        kept = ~np.isin(self.rows, more.rows)
        values = np.concatenate([self.values_[kept], more.values_])
        return Marked(np.concatenate([self.rows[kept], more.rows]), values)

    def __repr__(self) -> str:
        """As a dict."""
        return repr(dict(self))

    def at(self, rows: Rows, otherwise: Values) -> Values:
        """The value of each of some rows, in any order; `otherwise` where one has none: int8 `(n,)` both."""
        if not len(self.rows):
            return otherwise
        at = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return np.where(self.rows[at] == rows, self.values_[at], otherwise)

    def within(self, spans: Iterable[tuple[int, int]]) -> Marked:
        """Those that lie in one of the spans (first, and one past the last), which do not overlap."""
        at = inside(self.rows, spans)
        return Marked(self.rows[at], self.values_[at])


def among(rows: Rows, some: Rows) -> npt.NDArray[np.bool_]:
    """Which of the rows, in any order, are among `some`, which are sorted: bool `(n,)`."""
    if not len(some):
        return np.zeros(len(rows), np.bool_)
    return np.asarray(some[np.minimum(np.searchsorted(some, rows), len(some) - 1)] == rows)


def inside(rows: Rows, spans: Iterable[tuple[int, int]]) -> Rows:
    """The places of the sorted `rows` that lie in one of the spans (first, and one past the last), span by span."""
    edges = np.searchsorted(rows, np.array(list(spans), np.int64).reshape(-1, 2))
    return np.concatenate([np.empty(0, np.int64), *(np.arange(a, b) for a, b in edges.tolist() if a < b)])


def plain(marks: Mapping[int, int]) -> dict[str, int]:
    """As JSON has them."""
    said = Marked.of(marks)
    return dict(zip(map(str, said.rows.tolist()), said.values_.tolist(), strict=True))


def joined(parts: Sequence[npt.ArrayLike]) -> Rows:
    """Sorted lists of rows as one, in this order."""
    return np.concatenate([np.empty(0, np.int64), *(np.asarray(part, np.int64) for part in parts)])

"""Columns of text of millions of rows: each text once, and of a row its number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from specshards.train.tasks.metrics import BoolArray, FloatArray


@dataclass(frozen=True)
class Coded:
    """Four bytes a row, where a list of Python texts takes sixty.

    Attributes:
        texts: those that occur.
        codes: the place of each row's text among them, int32 `(N,)`; -1 where there is none.
    """

    texts: list[str]
    codes: npt.NDArray[np.int32]

    @classmethod
    def of(cls, column: pa.ChunkedArray, word: Callable[[Any], str] = str) -> Coded:
        """Of a column of any type with values that are equal or not; `word` says one of them as text."""
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        chunks = column.unify_dictionaries().chunks
        known = chunks[0].dictionary.to_pylist() if chunks else []
        codes = [chunk.indices.cast(pa.int32()).fill_null(-1).to_numpy() for chunk in chunks]
        # A dictionary may hold a null itself.
        names = ["" if value is None else word(value) for value in known]
        found = np.concatenate([np.empty(0, np.int32), *codes])
        for i in [i for i, value in enumerate(known) if value is None]:
            found[found == i] = -1
        return cls(names, found)

    def numbers(self, number: Callable[[str], float]) -> FloatArray:
        """What a number is of each row's text, float64 `(N,)`, NaN where there is none."""
        return np.array([*map(number, self.texts), np.nan])[self.codes]

    def among(self, names: Collection[str]) -> BoolArray:
        """Which rows have one of these texts, bool `(N,)`."""
        return np.array([*(text in names for text in self.texts), False])[self.codes]

    def names(self) -> npt.NDArray[np.object_]:
        """The texts of the rows, object `(N,)`: eight bytes a row, because equal ones are one; None = missing."""
        return np.array([*self.texts, None], object)[self.codes]

    def counts(self, rows: BoolArray | None = None) -> Counter[str]:
        """How many rows, or how many of some, have each text; without those that have none."""
        codes = self.codes if rows is None else self.codes[rows]
        counted = np.bincount(codes[codes >= 0], minlength=len(self.texts))
        found: Counter[str] = Counter()
        for text, n in zip(self.texts, counted.tolist(), strict=True):
            if n:
                found[text] += n
        return found

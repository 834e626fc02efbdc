"""Columns of lists as arrays: one part of every spectrum of a slice of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from specshards.common.errors import BadObjectError


@dataclass(frozen=True)
class Lists:
    """One part of every spectrum of a slice: row `i` is `values[starts[i]:stops[i]]`."""

    values: npt.NDArray[Any]
    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]
    valid: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, table: pa.Table, nested: str | None, name: str, is_mask: bool = False) -> Lists:
        """Of the field `name` of the column of structs, or of lists of structs, `nested`; or of the column `name`."""
        chunks = table[nested or name]
        column = chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()  # which copies
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        if nested and pa.types.is_struct(column.type):
            column = column.field(name)
            valid = valid & column.is_valid().to_numpy(zero_copy_only=False)
        if pa.types.is_fixed_size_list(column.type):
            edges = (np.arange(len(column) + 1, dtype=np.int64) + column.offset) * column.type.list_size
        else:
            edges = column.offsets.to_numpy().astype(np.int64)
        values = column.values
        if nested and pa.types.is_struct(values.type):
            values = values.field(name)
        return cls(_flat(values, is_mask), edges[:-1], edges[1:], valid)

    def row(self, index: int) -> npt.NDArray[Any]:
        """The values of one row. BadObjectError: null."""
        if not self.valid[index]:
            raise BadObjectError("no spectrum: null")
        return self.values[self.starts[index] : self.stops[index]]


def _flat(values: pa.Array, is_mask: bool) -> npt.NDArray[Any]:
    """Elements as bool (mask: null and anything but 0 is bad) or float (null is NaN, which is never good).

    float32 only of what is that already: `checked` sees to it that nothing is lost on the way there.
    """
    plain = values.to_numpy(zero_copy_only=False) if not values.null_count else None
    if is_mask:
        if plain is None:
            plain = values.fill_null(True if pa.types.is_boolean(values.type) else 1).to_numpy(zero_copy_only=False)
        return plain if plain.dtype == np.bool_ else ~(plain == 0)
    if plain is None:
        plain = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return np.asarray(plain, np.float32 if pa.types.is_float32(values.type) else np.float64)

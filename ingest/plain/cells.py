"""Cells of text as numbers, and lists within a cell."""

from __future__ import annotations

import re
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from specshards.common.errors import BadObjectError

#: What a column of text is.
Kind = Literal["empty", "int", "float", "text"]
_KINDS: tuple[Kind, ...] = ("empty", "int", "float", "text")
#: Cells without a value, in lower case. 0 and -9999 are values here; readers know what they mean.
MISSING = ("", "nan", "null", "none", "n/a", "na", "<na>", "#n/a", "--", '""', "masked", "indef", "\\n")
_EXACT = 1 << 53
_LIST = re.compile(r"\s*[\[({].*[\])}]\s*\Z", re.DOTALL)
_MISSING = pa.array(MISSING)


def stripped(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Cells without blanks around them; null where there is no value."""
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values = pc.utf8_trim_whitespace(values)
    return pc.if_else(pc.is_in(pc.utf8_lower(values), value_set=_MISSING), pa.scalar(None, values.type), values)


def widest(first: Kind, second: Kind) -> Kind:
    """The kind that holds both."""
    return max(first, second, key=_KINDS.index)


def kind_of(column: pa.ChunkedArray | pa.Array, known: Kind = "empty") -> Kind:
    """What every cell of a column can be read as, and what is `known` of the cells before them."""
    return (
        known
        if known == "text"
        else widest(known, _kind_of(column, ("float",) if known == "float" else ("int", "float")))
    )


def _kind_of(column: pa.ChunkedArray | pa.Array, tried: tuple[Kind, ...]) -> Kind:
    for kind in tried:
        if len(column) and _plainly(column, kind) is not None:
            return kind
    values = stripped(column)
    if values.null_count == len(values):
        return "empty"
    if _numbers(values, pa.int64()) is not None:
        return "int"
    return "text" if _numbers(values, pa.float64()) is None else "float"


def typed(column: pa.ChunkedArray | pa.Array, kind: Kind | None = None) -> npt.NDArray[Any]:
    """A column as int64, float64 (NaN = missing) or objects (`str`, None = missing).

    Whole numbers of which some are missing are float64 where that holds them, else objects.

    Args:
        kind: of the whole column, where this is a part of it; by default that of these cells.
    """
    kind = kind or kind_of(column)
    if (plain := _plainly(column, kind)) is not None:
        return plain.to_numpy(zero_copy_only=False)
    values = stripped(column)
    if kind == "empty":
        return np.full(len(values), np.nan)
    if kind == "int":
        numbers = _numbers(values, pa.int64())
        assert numbers is not None
        if not numbers.null_count:
            return numbers.to_numpy(zero_copy_only=False)
        found = [value for value in numbers.to_pylist() if value is not None]
        if not found or max(map(abs, found)) < _EXACT:
            return numbers.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return np.array([*numbers.to_pylist(), None], object)[:-1]
    if kind == "float":
        numbers = _numbers(values, pa.float64())
        assert numbers is not None
        return numbers.to_numpy(zero_copy_only=False)
    return texts(column)


def _plainly(column: pa.ChunkedArray | pa.Array, kind: Kind) -> pa.Array | None:
    """Numbers that need no care, at a tenth of the time; None where any cell does."""
    if kind not in ("int", "float"):
        return None
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    try:
        return values.cast(pa.int64() if kind == "int" else pa.float64())
    except pa.ArrowInvalid:
        return None


def is_padded(column: pa.ChunkedArray | pa.Array) -> bool:
    """Whether any cell is a whole number with a zero in front: 01 names something, and is not 1."""
    return bool(pc.any(pc.match_substring_regex(column, r"^\s*0[0-9]+\s*$")).as_py())


def texts(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.object_]:
    """A column as it is written, without blanks around: objects, None = missing."""
    return np.array([*stripped(column).to_pylist(), None], object)[:-1]


def _numbers(values: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """Cells as numbers; None where one is none."""
    try:
        return values.cast(kind)
    except pa.ArrowInvalid:
        pass
    # Leading pluses, Fortran's exponents (1.5D+03), decimal commas: what Arrow does not read.
    plain = pc.replace_substring_regex(values, r"^\+", "")
    if not pa.types.is_integer(kind):
        plain = pc.replace_substring_regex(plain, r"^(-?[0-9]*\.?[0-9]*)[dD]([+-]?[0-9]+)$", r"\1e\2")
        plain = pc.replace_substring_regex(plain, r"^(-?[0-9]+),([0-9]+([eE][+-]?[0-9]+)?)$", r"\1.\2")
    try:
        return plain.cast(kind)
    except pa.ArrowInvalid:
        return None


def is_list(cell: Any) -> bool:
    """Whether a cell is a list of numbers as text: `(1, 2)`, `[1 2]`, or words of numbers that commas part."""
    return isinstance(cell, str) and _LIST.match(cell) is not None


def numbers_in(cell: Any) -> npt.NDArray[np.float64]:
    """The numbers of a list in a cell: float64 `(n,)`, NaN for what is missing in it.

    Args:
        cell: text such as `[1.0, nan, 3e-5]`, `(1 2 3)` or `1;2;3`, or an array or sequence of numbers.

    Raises:
        BadObjectError: no list of numbers.
    """
    if isinstance(cell, str):
        content = cell.strip()
        if content[:5].lower() == "array":  # numpy's way to write it
            content = content[5:].partition("dtype")[0].strip().strip("(), ")
        if "..." in content:
            raise BadObjectError("a list of numbers that was shortened to ... when it was written")
        words = content.strip("[](){}").replace(",", " ").replace(";", " ").split()
        try:
            return np.array([np.nan if word.lower() in MISSING else float(word) for word in words], np.float64)
        except ValueError:
            raise BadObjectError(f"no list of numbers: {content[:40]!r}") from None
    try:
        values = np.ma.filled(np.ma.asarray(cell, np.float64), np.nan)
    except (TypeError, ValueError):
        raise BadObjectError(f"no list of numbers: {str(cell)[:40]!r}") from None
    if values.ndim != 1:
        raise BadObjectError(f"no list of numbers: an array of {values.ndim} dimensions")
    return np.asarray(values, np.float64)

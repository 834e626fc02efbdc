"""What the values of a catalogue's column mean: numbers of labels, words, integers beyond what a float64 holds.

Every program that wrote one had its own idea of types; of ids, `ingest.ids` makes what was meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from specshards.common.errors import UsageError
from specshards.common.spectrum import MISSING_UP_TO
from specshards.ingest.columns import as_array
from specshards.ingest.surveys.common import SENTINELS, label

_SENTINELS = pa.array(sorted(SENTINELS), pa.float64())


def check_type(kind: pa.DataType, what: str) -> None:
    """Refuse a column without one value a row: lists, structs, maps; `what` names it for the message.

    Raises:
        UsageError: it is one.
    """
    if pa.types.is_nested(kind):
        raise UsageError(f"{what} holds {kind}, where one number or text a row belongs")


def large_integer(column: pa.ChunkedArray | pa.Array) -> str | None:
    """An integer of a column that a float64 may round, beyond 2^53, as text; None without any."""
    values = as_array(column)
    if pa.types.is_floating(values.type) or pa.types.is_boolean(values.type) or pa.types.is_null(values.type):
        return None
    if pa.types.is_integer(values.type):
        ends = pc.min_max(values).as_py().values()
        return next((str(end) for end in ends if end is not None and abs(end) > 2**53), None)
    words = (str(said) for said in _texts(values.unique()))
    return next((word for word in words if _LONG.fullmatch(word) and abs(int(word.split(".")[0])) > 2**53), None)


def refuse_large(column: pa.ChunkedArray | pa.Array, what: str) -> None:
    """Refuse a column of numbers of which a float64 may round one.

    Raises:
        UsageError: names one.
    """
    if (large := large_integer(column)) is not None:
        raise UsageError(
            f"{what} holds {large[:40]}, beyond 2^53, where numbers are not exact: compare it with text in quotes, "
            "or with a number below 2^53"
        )


_LONG = re.compile(r"\s*[+-]?\d{16,}(\.0*)?\s*")


def _texts(values: pa.Array) -> list[str]:
    found = (value for value in values.to_pylist() if value is not None)
    return [value.decode("ascii", "replace") if isinstance(value, bytes) else str(value) for value in found]


def label_numbers(column: pa.ChunkedArray, *, is_known: bool = True) -> tuple[pa.DoubleArray, list[str]]:
    """A column of labels as float64, null where a value is missing, infinite where it is: `sift` judges it.

    Args:
        is_known: whether the column has a range; see `surveys.common.label`.

    Returns:
        And every text that is neither a number nor a word for a missing one; it is null.
    """
    values = as_array(column)
    if pa.types.is_boolean(values.type):
        return values.cast(pa.float64()), []
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        meant = {said: label(said, is_known=is_known) for said in values.unique().to_pylist()}
        strange = {said: str(what) for said, what in meant.items() if not isinstance(what, float | None)}
        words = [strange[said] for said in values.to_pylist() if said in strange] if strange else []
        return mapped(column, lambda said: None if said in strange else meant[said], pa.float64()), words
    floats = values.cast(pa.float64(), safe=False)
    far = pc.less_equal(floats, MISSING_UP_TO)
    if not is_known:
        far = pc.and_(far, pc.is_in(floats, _SENTINELS))
    is_missing = pc.or_(pc.is_nan(floats), far)
    return pc.if_else(is_missing, pa.scalar(None, pa.float64()), floats), []


def mapped(column: pa.ChunkedArray, convert: Callable[[Any], Any], kind: pa.DataType) -> pa.Array:
    """`convert` of every value, None for a missing one; called once for each that occurs."""
    encoded = as_array(column).dictionary_encode("encode")
    meaning = pa.array([convert(value) for value in encoded.dictionary.to_pylist()], kind)
    return meaning.take(encoded.indices)

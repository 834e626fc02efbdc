"""The ids of objects, exact or refused: what comes out is the id as it was given, to the last digit.

An id names one object, and joins it with its labels. A float holds 53 bits (float32: 24) of an id of up to 64: two
objects become one, and a catalogue gives an object the labels of its neighbour, without a sign. So a float is taken
only where it cannot have been rounded, and everything else that may have lost digits is an error.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from specshards.common.errors import BadObjectError, UsageError
from specshards.ingest.columns import as_array

#: What stands where there is no id.
_NONE = ("", "nan", "NaN", "null", "NULL", "None", "N/A", "<NA>", "--")
#: How programs write a float: an id with a point and no fraction, or with an exponent. `1234e567` can be a hash, and
#: `3.045` a name; both are kept.
_FLOAT = re.compile(r"[+-]?([0-9]+\.0*|([0-9]+\.[0-9]*|\.[0-9]+)[eE][+-]?[0-9]{1,3}|[0-9]+[eE][+-][0-9]{1,3})")
#: The text of a bytes literal, which some tables of MultimodalUniverse hold.
_LITERAL = re.compile(r"b'(.*)'|b\"(.*)\"", re.DOTALL)
#: Bits that would have to be 0 by chance in numbers that nobody has rounded.
_SURE = 40
_MEND = "write ids as integers or text"


def id_text(value: Any, name: str) -> str | None:
    """One id, of a header or a reader, as text; None where there is none (blank, NaN, masked).

    A float is refused whatever it is: of a single value nobody can tell whether a program has rounded it.

    Args:
        value: an integer of any size and kind, text or bytes, padded or not.
        name: of the keyword or column, for the message.

    Raises:
        BadObjectError: a float, the text of one, or no id at all.
    """
    if value is None or value is np.ma.masked:
        return None
    if isinstance(value, bytes | str):
        return _of_text(value, name)
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return None
        raise BadObjectError(f"{name} = {value!r} is a float, which rounds ids; {_MEND}")
    raise BadObjectError(f"{name} = {str(value)[:40]!r} is {type(value).__name__}, no id; {_MEND}")


def id_texts(column: pa.ChunkedArray | pa.Array, name: str, table: Path | str) -> pa.StringArray:
    """A column of ids as text, exact to the last digit; null where there is none.

    Args:
        column: integers or decimals of any width, text or bytes, padded or not; or floats, each an integer and below
            the first one that its type rounds (2^53 of float64, 2^24 of float32).
        name, table: of the column and its file, for the message.

    Raises:
        UsageError: a float that may have been rounded, the text of one, or a type that holds no ids.
    """
    try:
        refuse_multiples(column, name)
        return exact_ids(column, name)
    except BadObjectError as error:
        raise UsageError(f"{table}: {error.reason}") from error


def exact_ids(column: pa.ChunkedArray | pa.Array, name: str) -> pa.StringArray:
    """As `id_texts`, of a table that is one input of many: `BadObjectError` says what is wrong with all of it."""
    values = as_array(column)
    kind = values.type
    if pa.types.is_integer(kind) or pa.types.is_null(kind):
        return values.cast(pa.string())
    if pa.types.is_floating(kind):
        return _of_floats(values, name)
    if pa.types.is_decimal(kind):
        return _of_decimals(values, name)
    if pa.types.is_string(kind):
        return _of_texts(values, name)
    if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.array([id_text(value, name) for value in values.to_pylist()], pa.string())
    raise BadObjectError(f"column {name} is of type {kind}, which holds no ids; {_MEND}")


def refuse_multiples(column: pa.ChunkedArray | pa.Array, name: str) -> None:
    """Refuse whole numbers that a float has rounded before they became integers, or text, again.

    Such a column shows it: every number in it is one that float32, or float64, can hold. By chance that happens to
    numbers with `_SURE` bits to spare, all together, in one case of 2^40. SDSS' specObjIDs do not use their last ten
    bits, and of most of them float64 holds all others.

    Columns with fewer bits to spare, such as 13 ids of DESI, and those of which a part was rounded, are not told from
    good ones: ids that somebody counted in steps of 8 would be refused with them. Positions tell them.

    Raises:
        BadObjectError: all of these ids have been rounded.
    """
    values = as_array(column)
    if pa.types.is_floating(values.type):
        values = values.cast(pa.float64())
        values = values.filter(pc.fill_null(pc.less(pc.abs(values), 2.0**53), False))
        values = values.filter(pc.equal(pc.floor(values), values)).cast(pa.int64())
    elif pa.types.is_string(values.type):
        plain = pc.utf8_trim_whitespace(values)
        values = plain.filter(pc.fill_null(pc.match_substring_regex(plain, "^[1-9][0-9]{7,18}$"), False)).cast(
            pa.uint64()
        )
    elif not pa.types.is_integer(values.type):
        return
    numbers = np.unique(values.drop_null().to_numpy(zero_copy_only=False))
    numbers = numbers[numbers > 2**24].astype(np.uint64)
    length = np.frexp(numbers.astype(np.float64))[1]
    for kind, bits in (("float32", 24), ("float64", 53)):
        large, spare = numbers[length > bits], (length[length > bits] - bits).astype(np.uint64)
        multiple = np.uint64(1) << spare
        unused = kind == "float64" and not (large % np.uint64(1024)).any()
        if int(spare.sum()) >= _SURE and not unused and not (large % multiple).any():
            raise BadObjectError(
                f"column {name}: every id from {2**bits} on is one that {kind} can hold, such as {large[0]}: they "
                f"have been rounded; {_MEND} before anything makes floats of them"
            )


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds text or bytes, of which each value can be judged alone."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (
        pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary,
        pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary,
    )  # fmt: skip
    return any(test(kind) for test in tests)


def _of_floats(values: pa.Array, name: str) -> pa.StringArray:
    """Integers below the first that the type rounds: what was rounded lies at it or above."""
    exact = 2 ** (np.finfo(values.type.to_pandas_dtype()).nmant + 1)
    floats = values.cast(pa.float64())
    known = pc.fill_null(pc.invert(pc.is_nan(floats)), False)
    inexact = pc.and_(known, pc.invert(pc.less(pc.abs(floats), float(exact))))
    if pc.any(inexact).as_py():
        bad = floats.filter(inexact)[0].as_py()
        raise BadObjectError(
            f"column {name} is {values.type}, which rounds whole numbers from {exact} on: {bad!r} may be another id; "
            f"{_MEND}"
        )
    broken = pc.and_(known, pc.not_equal(pc.floor(floats), floats))
    if pc.any(broken).as_py():
        raise BadObjectError(f"column {name} holds {floats.filter(broken)[0].as_py()!r}, no id; {_MEND}")
    return pc.if_else(known, floats, pa.scalar(None, pa.float64())).cast(pa.int64()).cast(pa.string())


def _of_decimals(values: pa.Array, name: str) -> pa.StringArray:
    texts = []
    for value in values.to_pylist():
        if value is not None and value != value.to_integral_value():
            raise BadObjectError(f"column {name} holds {value}, no id; {_MEND}")
        texts.append(None if value is None else str(int(value)))
    return pa.array(texts, pa.string())


def _of_texts(values: pa.StringArray, name: str) -> pa.StringArray:
    plain = pc.utf8_trim_whitespace(pc.utf8_rtrim(values, characters="\0"))
    strange = pc.fill_null(pc.match_substring_regex(plain, f"^({_FLOAT.pattern}|b['\"](.|\\n)*)$"), False)
    if pc.any(strange).as_py():
        few = [_of_text(value, name) for value in plain.filter(strange).to_pylist()]
        plain = pc.replace_with_mask(plain, strange, pa.array(few, pa.string()))
    return pc.if_else(pc.is_in(plain, pa.array(_NONE)), pa.scalar(None, pa.string()), plain)


def _of_text(value: bytes | str, name: str) -> str | None:
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            # Whatever stood for the bytes that are no text, two ids could become one.
            raise BadObjectError(f"{name} = {value[:40]!r} is no text in UTF-8; {_MEND}") from None
    plain = value.rstrip("\0").strip()
    if (literal := _LITERAL.fullmatch(plain)) is not None:
        plain = (literal[1] if literal[1] is not None else literal[2]).strip()
    if plain in _NONE:
        return None
    if _FLOAT.fullmatch(plain):
        raise BadObjectError(f"{name} holds {plain!r}, the text of a float, which rounds ids; {_MEND}")
    return plain

"""Further labels: whatever a file or a catalogue tells of an object beside the labels of `common.spectrum`.

A further label has a column of its own in spectra Parquet and in the tables of shards, a number (float64) or a text,
and a name that is safe everywhere: `[Mg/Fe]` is `mg_fe`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from specshards.common.errors import UsageError

NUMBER, TEXT = "number", "text"
#: Further columns of a folder. Each costs a place in every file; a catalogue of thousands is not a set of labels.
MOST_FURTHER = 256
#: Columns of the tables of shards that are nobody's labels.
_OF_SAMPLES = frozenset({"key", "source_row"})


class FurtherColumn(NamedTuple):
    """What is known of a further column.

    Attributes:
        kind: `number` or `text`. unit: of its numbers, as astropy reads it; None where nobody says.
    """

    kind: str
    unit: str | None = None

    def field(self, name: str) -> pa.Field:
        """Its column."""
        kind = pa.float64() if self.kind == NUMBER else pa.string()
        return pa.field(name, kind, metadata=None if self.unit is None else {"unit": self.unit})


Further = Mapping[str, FurtherColumn]


def further_name(said: str, taken: Collection[str] = _OF_SAMPLES) -> str:
    """The name of a further column: in lower case, of letters, digits and `_`.

    Args:
        said: as a file calls it. taken: names that mean something else; an underscore keeps apart from them.
    """
    name = re.sub(r"\W+", "_", said.strip().lower()).strip("_") or "column"
    return f"{name}_" if name in taken or name in _OF_SAMPLES else name


def further_of(schema: pa.Schema, ours: Collection[str]) -> dict[str, FurtherColumn]:
    """The further columns of a table: those of numbers and text that are not among `ours`."""
    found = {}
    for field in schema:
        if field.name in ours or field.name in _OF_SAMPLES:
            continue
        unit = (field.metadata or {}).get(b"unit")
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_floating(kind) or pa.types.is_integer(kind):
            found[field.name] = FurtherColumn(NUMBER, None if unit is None else unit.decode("utf-8", "replace"))
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            found[field.name] = FurtherColumn(TEXT)
    return found


def united(parts: Iterable[Further], where: str = "") -> dict[str, FurtherColumn]:
    """The columns of all parts, in order of name: what is text in one of them is text in all.

    Args:
        where: of what, for the error.

    Raises:
        UsageError: one column in two units, or more than `MOST_FURTHER`.
    """
    found: dict[str, FurtherColumn] = {}
    for part in parts:
        for name, column in part.items():
            other = found.get(name)
            if other is None:
                found[name] = column
                continue
            if TEXT in (column.kind, other.kind):
                found[name] = FurtherColumn(TEXT)
            elif column.unit != other.unit:
                if column.unit is not None and other.unit is not None:
                    raise UsageError(
                        f"{where}: {name} is in {other.unit} in one file and in {column.unit} in another; "
                        "bring both to one unit, or call one otherwise"
                    )
                found[name] = FurtherColumn(NUMBER, column.unit or other.unit)
    if len(found) > MOST_FURTHER:
        raise UsageError(
            f"{where}: {len(found)} further columns, more than {MOST_FURTHER}; name those to keep with --labels"
        )
    return dict(sorted(found.items()))


def number_text(value: float) -> str:
    """A number as a column of text has it: `5`, `0.25`."""
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


def as_column(column: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
    """A further column as a number (float64) or a text."""
    if kind == NUMBER:
        return column.cast(pa.float64())
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        values = [None if value is None else number_text(float(value)) for value in column.to_pylist()]
        return pa.chunked_array([pa.array(values, pa.string())])
    return column.cast(pa.string())


def with_further(table: pa.Table, further: Further) -> pa.Table:
    """A table with these further columns at its end, in order of name; null where it does not have one."""
    names = [name for name in table.column_names if name not in further]
    columns = [table[name] for name in names]
    fields = [table.schema.field(name) for name in names]
    for name, column in sorted(further.items()):
        field = column.field(name)
        is_there = name in table.column_names
        columns.append(as_column(table[name], column.kind) if is_there else pa.nulls(len(table), field.type))
        fields.append(field)
    return pa.table(columns, schema=pa.schema(fields, metadata=table.schema.metadata))


def is_null(column: pa.ChunkedArray) -> bool:
    """Whether a column says nothing."""
    return bool(pc.all(column.is_null()).as_py() in (True, None))


def said(value: Any) -> Any:
    """A further label as its column has it: float, str, or None where it says nothing.

    Truth values are text. A whole number that float64 cannot hold is text, too: it is somebody's id.
    """
    if value is None:
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value.strip() or None
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return float(value) if abs(value) <= 2**53 else str(value)
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None  # NaN is not below, either
    return None

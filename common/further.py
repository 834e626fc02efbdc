"""Further labels: whatever a file or a catalogue tells of an object beside the labels of `common.spectrum`.

A further label has a column of its own in spectra Parquet and in the tables of shards, a number (float64) or a text,
and a name that is safe everywhere: `[Mg/Fe]` is `mg_fe`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from specshards.common.errors import UsageError
from specshards.common.spectrum import NUMERIC_LABELS, SN_SURVEY, SURVEY_SN

NUMBER, TEXT = "number", "text"
#: Further columns of a folder. Each costs a place in every file; a catalogue of thousands is not a set of labels.
MOST_FURTHER = 256
#: Columns of spectra Parquet (`ingest.spectra.schema.SCHEMA`) and of the tables of shards: none of them is further.
STANDARD = frozenset({
    "object_id", "survey", "release", "ra", "dec", "_healpix_29", "spectrum", "lsf_sigma", "wave_coeff0",
    "wave_coeff1", "flux_unit", "flux_scale", "wave_source", "frame", "velocity", "class", "subclass",
    *NUMERIC_LABELS, "sn_median", *SURVEY_SN, SN_SURVEY, "layout", "label_source", "source_file", "key", "source_row",
})  # fmt: skip
_LABELS = frozenset({"class", "subclass", *NUMERIC_LABELS})


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


@lru_cache(maxsize=4096)
def further_name(said: str) -> str:
    """The name of a further column: in lower case, of letters, digits and `_`; one behind it where it is `STANDARD`.

    Args:
        said: as a file calls it.
    """
    name = re.sub(r"\W+", "_", said.strip().lower()).strip("_") or "column"
    return f"{name}_" if name in STANDARD else name


def is_further(name: str) -> bool:
    """Whether a name of `Spectrum.labels` is none of the labels of `common.spectrum`."""
    return name not in _LABELS


def further_of(schema: pa.Schema) -> dict[str, FurtherColumn]:
    """The further columns of spectra Parquet, or of a table of samples, of any version: of numbers and of text."""
    found = {}
    for field in schema:
        if field.name in STANDARD:
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
                if column.unit is not None and other.unit is not None and not _is_same(column.unit, other.unit):
                    raise UsageError(
                        f"{where}: {name} is in {other.unit} in one file and in {column.unit} in another; "
                        "bring both to one unit, or call one otherwise"
                    )
                found[name] = FurtherColumn(NUMBER, other.unit or column.unit)
    if len(found) > MOST_FURTHER:
        raise UsageError(
            f"{where}: {len(found)} further columns, more than {MOST_FURTHER}; name those to keep with --labels"
        )
    return dict(sorted(found.items()))


def _is_same(one: str, other: str) -> bool:
    """Whether two texts are one unit: `km/s` and `km s-1`."""
    from astropy.units import Unit

    try:
        return bool(Unit(one) == Unit(other))
    except (ValueError, TypeError):
        return False


def number_text(value: float) -> str:
    """A number as a column of text has it: `5`, `0.25`."""
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


def as_column(column: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
    """A further column as a number (float64) or a text."""
    if kind == NUMBER:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            return pa.chunked_array([pa.array(map(_exact, column.to_pylist()), pa.float64())])
        return column.cast(pa.float64())
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        values = [None if value is None else number_text(float(value)) for value in column.to_pylist()]
        return pa.chunked_array([pa.array(values, pa.string())])
    return column.cast(pa.string())


def _exact(text: str | None) -> float | None:
    """The number that a text is; None where it is none, or a whole number that float64 would round."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if abs(value) < 2**53 else None


def as_json(further: Further) -> dict[str, dict[str, str | None]]:
    """As a manifest has them."""
    return {name: {"kind": column.kind, "unit": column.unit} for name, column in sorted(further.items())}


def of_json(content: Mapping[str, Mapping[str, str | None]]) -> dict[str, FurtherColumn]:
    """The inverse of `as_json`; ValueError for another kind."""
    found = {name: FurtherColumn(str(said["kind"]), said["unit"]) for name, said in content.items()}
    if odd := [name for name, column in found.items() if column.kind not in (NUMBER, TEXT)]:
        raise ValueError(f"further.{odd[0]}: kind is neither {NUMBER} nor {TEXT}")
    return found


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

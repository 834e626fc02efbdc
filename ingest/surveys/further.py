"""Further labels in tables of spectra: which columns they are, and what a value says."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pyarrow as pa

from specshards.common.errors import BadObjectError
from specshards.common.further import NUMBER, STANDARD, TEXT, FurtherColumn, further_name
from specshards.ingest.ids import is_text
from specshards.ingest.surveys.common import cell

#: Of HATS: where a row lies.
_OF_HATS_ROWS = {"norder", "dir", "npix"}


def further_columns(schema: pa.Schema, taken: Collection[str]) -> tuple[dict[str, str], dict[str, FurtherColumn]]:
    """The columns of one number, truth value or text a row that tell more of an object than our labels.

    An integer whose name ends in `id` is text, to its last digit.

    Args:
        schema: of the table. taken: columns that are something else.

    Returns:
        Name -> column, and name -> what is known of it.

    Raises:
        BadObjectError: two columns of one name.
    """
    more: dict[str, str] = {}
    further: dict[str, FurtherColumn] = {}
    for each in schema:
        low = each.name.lower()
        if each.name in taken or low in STANDARD or low.startswith("_") or low in _OF_HATS_ROWS:
            continue
        kind = each.type.value_type if pa.types.is_dictionary(each.type) else each.type
        unit = (each.metadata or {}).get(b"unit", b"").decode("utf-8", "replace").strip()
        is_number = pa.types.is_floating(kind) or (pa.types.is_integer(kind) and not low.endswith("id"))
        is_word = is_text(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind)
        if not (is_number or is_word):
            continue
        if (name := further_name(each.name)) in more:
            raise BadObjectError(f"columns {more[name]} and {each.name} both become {name}; rename or drop one")
        more[name] = each.name
        further[name] = FurtherColumn(NUMBER, unit or None) if is_number else FurtherColumn(TEXT)
    return more, further


def said(value: Any, kind: str) -> Any:
    """A further label. An integer that float64 would round is missing where numbers are: it is no measurement."""
    if kind != TEXT:
        return None if isinstance(value, int) and abs(value) > 2**53 else value
    return cell(str(value).lower() if isinstance(value, bool) else value)

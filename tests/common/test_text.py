"""Text for people and JSON for machines: tables that line up, errors on one line, no NaN."""

from __future__ import annotations

import json
import math

from specshards.common.errors import shortened
from specshards.common.json import finite
from specshards.common.text import aligned


def test_columns_line_up_and_lines_end_with_their_text() -> None:
    rows = [["name", "count", "note"], ["a", "1,000", ""], ["longer", "7", "few"]]
    assert aligned(rows) == ["name    count  note", "a       1,000", "longer      7   few"]
    assert aligned(rows, (0, 2)) == ["name    count  note", "a       1,000", "longer      7  few"]
    assert aligned(rows, ())[1] == "     a  1,000" and aligned([]) == []


def test_an_error_of_many_lines_becomes_a_short_one() -> None:
    assert shortened(ValueError("first\n   second\tthird")) == "first second third"
    assert len(shortened(ValueError("x" * 500))) == 120 and shortened(ValueError("abc"), 2) == "ab"


def test_what_is_no_number_is_null_in_json() -> None:
    content = {"a": [1.5, math.nan, (math.inf, "b", None)], "c": 3}
    assert json.loads(json.dumps(finite(content), allow_nan=False)) == {"a": [1.5, None, [None, "b", None]], "c": 3}

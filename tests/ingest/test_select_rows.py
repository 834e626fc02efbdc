"""Rows of a catalogue: columns as numbers and as ids, in batches and in tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import specshards.ingest.catalogue.rows
from specshards.ingest.catalogue.rows import open_rows
from specshards.ingest.catalogue.values import label_numbers
from specshards.ingest.surveys.common import label
from tests.oracles.catalogues import lamost, write


@given(
    st.lists(
        st.one_of(
            st.floats(), st.floats(-10_000, 10_000), st.sampled_from([-9999.0, -999.0, -998.9, -99.0, 0.0]), st.none()
        ),
        max_size=20,
    )
)
@settings(deadline=None)
def test_numbers_of_a_column_are_those_of_its_values(values: list[float | None]) -> None:
    expected = pa.array([label(value) for value in values], pa.float64())
    assert label_numbers(pa.chunked_array([pa.array(values, pa.float64())]))[0].equals(expected)
    texts = pa.chunked_array([pa.array([None if v is None else f" {v!r} " for v in values], pa.string())])
    assert label_numbers(texts)[0].equals(expected)


def test_columns_of_any_type_can_be_asked_about() -> None:
    def of(values: list[Any], kind: pa.DataType) -> list[float | None]:
        return label_numbers(pa.chunked_array([pa.array(values, kind)]))[0].to_pylist()

    assert of(["1", "Non", "word", None, "", "NULL", "-9999"], pa.string()) == [1, None, None, None, None, None, None]
    assert of([b" 2 ", b"", None], pa.binary()) == [2, None, None]
    assert of([True, False, None], pa.bool_()) == [1, 0, None]
    assert of(["3", "3"], pa.dictionary(pa.int8(), pa.string())) == [3, 3]
    assert of(["4"], pa.large_string()) == [4]
    assert label_numbers(pa.chunked_array([], pa.string()))[0].to_pylist() == []
    assert label_numbers(pa.chunked_array([["1", "word", "--", "word"]]))[1] == ["word", "word"]


def test_batches_and_tables_have_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specshards.ingest.catalogue.rows, "BATCH", 4)
    for kind in ("csv", "fits", "parquet"):
        rows = open_rows(write(lamost({"STAR": 10}), tmp_path / f"c.{kind}"))
        lists = [batch["note"] for batch in rows.batches(["note"])]
        tables = [table["note"].to_pylist() for table in rows.tables(["note"])]
        assert lists == tables and [len(part) for part in lists] == [4, 4, 2]
        assert next(iter(rows.tables(None))).column_names == list(rows.columns)

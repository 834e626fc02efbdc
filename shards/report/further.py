"""The further columns of a data set: how many samples have each, and how many values a text has."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from specshards.common.errors import JobError, is_environment, shortened
from specshards.common.further import TEXT
from specshards.common.html import Rows
from specshards.shards.format.manifest import Manifest
from specshards.shards.format.nearby import nearby_sidecar

#: Different values of a text that are counted.
_MOST_VALUES = 1000
_ROWS = 65_536
HEAD = ["further column", "unit", "samples", "values"]


class FurtherCount(NamedTuple):
    """Of one further column.

    Attributes:
        samples: that have a value. values: how many different ones of a text, as words; empty for numbers.
    """

    name: str
    unit: str
    samples: int
    values: str


def count_further(folder: Path, manifest: Manifest) -> list[FurtherCount]:
    """Every further column, in order of name; reads these columns of all sidecars, and nothing without any.

    Raises:
        JobError: a sidecar is missing or damaged.
    """
    samples = dict.fromkeys(sorted(manifest.further), 0)
    values: dict[str, set[str]] = {name: set() for name in samples}
    for record in manifest.shards if samples else ():
        path = record.sidecar(folder)
        try:
            with nearby_sidecar(record, folder) as here, pq.ParquetFile(here) as file:
                present = [name for name in samples if name in file.schema_arrow.names]
                for batch in file.iter_batches(_ROWS, columns=present, use_threads=False):
                    for name in present:
                        column = batch.column(name)
                        samples[name] += len(column) - column.null_count
                        if manifest.further[name]["kind"] == TEXT and len(values[name]) <= _MOST_VALUES:
                            values[name].update(map(str, pc.unique(column.drop_null()).to_pylist()))
        except (pa.ArrowException, OSError) as error:
            if is_environment(error):
                raise
            raise JobError(f"{path}: {shortened(error, 160)}; `specshards shards verify` says more") from error
    return [
        FurtherCount(name, manifest.further[name]["unit"] or "", count, _words(manifest, name, len(values[name])))
        for name, count in samples.items()
    ]


def _words(manifest: Manifest, name: str, values: int) -> str:
    if manifest.further[name]["kind"] != TEXT:
        return ""
    return f"{values:,}" if values <= _MOST_VALUES else f"more than {_MOST_VALUES:,}"


def as_rows(counts: list[FurtherCount]) -> Rows:
    """With a head, as text."""
    return [HEAD, *([one.name, one.unit, f"{one.samples:,}", one.values or "numbers"] for one in counts)]

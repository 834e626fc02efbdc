"""Small catalogues in every format, for the tests of what is chosen from one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from astropy.table import Table

KINDS = ("STAR", "GALAXY", "QSO")


def lamost(counts: dict[str, int], first: int = 100) -> dict[str, list[Any]]:
    """Columns of a catalogue with so many rows of each class, mixed."""
    kinds = [kind for kind, n in counts.items() for _ in range(n)]
    kinds = [kinds[i] for i in np.random.default_rng(1).permutation(len(kinds))]
    rows = range(len(kinds))
    bands = {f"snr{band}": [10.0 + i % 7 for i in rows] for band in "ugriz"}
    return {
        "obsid": [first + i for i in rows], "class": kinds, "z": [i / 1000 for i in rows],
        "z_err": [1e-4] * len(kinds), **bands, "note": [f"row {i}" for i in rows],
    }  # fmt: skip


def write(columns: dict[str, list[Any]], path: Path) -> Path:
    """A catalogue in the format of `path`'s name."""
    if path.suffix == ".csv":
        table = pa.table({name: pa.array([None if v is None else str(v) for v in c]) for name, c in columns.items()})
        pa_csv.write_csv(table, path, pa_csv.WriteOptions(delimiter="|", quoting_style="none"))
    elif path.suffix == ".fits":
        Table({name: np.array(column) for name, column in columns.items()}).write(path)
    else:
        pq.write_table(pa.table(columns), path)
    return path


def ids(path: Path, column: str = "obsid") -> list[str]:
    """The ids of a table, as text, in order."""
    return [str(value).strip() for value in pq.read_table(path)[column].to_pylist()]

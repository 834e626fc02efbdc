"""What gave no sample, and why: one row an object, never a silent loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from specshards.common.errors import JobError, shortened
from specshards.common.files import readable, replacing

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("row", pa.int64()),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("exception", pa.string(), nullable=False),
        pa.field("selected_out", pa.bool_(), nullable=False),
    ]
)


def quarantine_row(file: str, row: int | None, stage: str, error: BaseException) -> dict[str, Any]:
    """One row of `QUARANTINE_SCHEMA` for an object that gave no sample.

    Args:
        row: of a file of many spectra, else None.
        stage: `read`, `select` or `render`.
    """
    cause = error.__cause__ or error
    return {
        "file": file,
        "row": row,
        "stage": stage,
        "reason": str(error),
        "exception": type(cause).__name__,
        "selected_out": bool(getattr(error, "selected_out", False)),
    }


def write_quarantine(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write quarantine rows, sorted by file and row, under a temporary name first."""
    rows = sorted(rows, key=lambda row: (row["file"], -1 if row["row"] is None else row["row"]))
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows), QUARANTINE_SCHEMA), temporary)


def read_quarantine(path: Path) -> pa.Table:
    """The rows of a quarantine file.

    Raises:
        JobError: missing, damaged, or with other columns.
    """
    try:
        return pq.read_table(readable(path)).select(QUARANTINE_SCHEMA.names).cast(QUARANTINE_SCHEMA)
    except FileNotFoundError:
        raise JobError(f"{path}: missing; run the command that made its folder again") from None
    except (pa.ArrowException, KeyError, ValueError) as error:
        why = f"not a quarantine of this program ({shortened(error)})"
        raise JobError(f"{path}: {why}; run the command that made its folder again") from error


def merge_quarantine(parts: Iterable[Path], path: Path) -> None:
    """Append the quarantine files of all parts to one, part by part: there can be millions of rows."""
    with replacing(path) as temporary, pq.ParquetWriter(temporary, QUARANTINE_SCHEMA) as writer:
        for part in parts:
            writer.write_table(pq.read_table(part, schema=QUARANTINE_SCHEMA))

"""The table beside a shard, as a job reads it that takes samples from finished shards."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from specshards.common.errors import JobError, shortened
from specshards.common.files import location, readable
from specshards.common.label_columns import with_sn_survey
from specshards.shards.format.archive import RERUN
from specshards.shards.format.manifest import ShardRecord


def sidecar(
    folder: str | Path, record: ShardRecord, columns: list[str] | None = None, group: str | None = None
) -> pa.Table:
    """Columns of it, all by default, with `sn_survey` where an older version left it out.

    Raises:
        JobError: it is no such table, or lacks a column that every set has.
    """
    path = record.sidecar(location(folder))
    try:
        table = pq.read_table(readable(path), columns=columns)
    except (pa.ArrowException, ValueError) as error:
        raise JobError(f"{path}: not a table of samples ({shortened(error)}); {RERUN}") from error
    wanted = {"key", "source_row", "source_file", "_healpix_29"} if columns is None else set(columns)
    if missing := wanted - {*table.column_names, group}:  # a further column is not in every set
        raise JobError(f"{path}: has no column {', '.join(sorted(missing))}; {RERUN}")
    return with_sn_survey(table) if columns is None else table

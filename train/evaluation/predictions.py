"""Answers of baselines that saw the spectra, on disk and beside a model that saw pictures of the same spectra.

<run>/baselines.parquet    key, survey, object_id, source_file, split, baseline, task, point; the record as metadata

Shards of pictures and shards of spectra number their samples alike only where both were made from the same files, so
that the answers are joined by what a spectrum is: its survey, its id there and the file it came from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from specshards.common.errors import JobError, UsageError, make_folder, shortened
from specshards.common.files import replacing
from specshards.common.identity import Hashes, id_hashes
from specshards.common.json import finite, fits, parse
from specshards.train.tasks.metrics import FloatArray

FILE = "baselines.parquet"
IDENTITY = ("survey", "object_id", "source_file")
_RECORD = b"specshards.baselines"
_SCHEMA = pa.schema(
    [*((name, pa.string()) for name in ("key", *IDENTITY, "split", "baseline", "task")), ("point", pa.float64())]
)

#: Rows of a row group, and rows that are hashed at a time.
_ROWS = 1 << 18
_SLICE = 1 << 16
_FACTOR = np.uint64(0x9E3779B97F4A7C15)

#: Baseline -> task -> answers float64 `(rows,)`.
Points = Mapping[str, Mapping[str, FloatArray]]


def write(run: Path, splits: Mapping[str, tuple[pa.Table, Points]], record: Mapping[str, Any]) -> Path:
    """Write `run/baselines.parquet`.

    Args:
        splits: the sidecar of each split, with `key` and `IDENTITY`, and the answers for its rows.
        record: JSON-able; what the baselines are.
    """
    make_folder(run)
    if not any(splits[split][1] for split in splits):
        raise UsageError(f"{run}: no split to write the baselines of; use more objects")
    schema = _SCHEMA.with_metadata({_RECORD: json.dumps(finite(dict(record)))})
    with replacing(run / FILE) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for split, (sidecar, points) in splits.items():
            identities = {name: sidecar[name].cast(pa.string()) for name in ("key", *IDENTITY)}
            for baseline, tasks in points.items():
                for task, point in tasks.items():
                    same = {"split": split, "baseline": baseline, "task": task}
                    told = {
                        name: pa.repeat(pa.scalar(value, pa.string()), len(point)) for name, value in same.items()
                    }
                    columns = {**identities, **told, "point": pa.array(point, pa.float64())}
                    writer.write_table(pa.table(columns, schema=schema), row_group_size=_ROWS)
    return run / FILE


@dataclass(frozen=True)
class Answers:
    """The content of a `baselines.parquet`; the rows stay in the file until they are asked for.

    Attributes:
        record: what the baselines are; `mock` says whether they learnt from mock data, `answered` of which splits
            they answered a sample: its `objects`, and how many of them are `answered`.
    """

    path: Path
    record: dict[str, Any]

    @classmethod
    def read(cls, run: Path) -> Answers:
        """Of a run folder.

        Raises:
            UsageError: none there. JobError: damaged.
        """
        path = run / FILE
        if not path.is_file():
            raise UsageError(f"{run}: no {FILE} there; fit the baselines first")
        try:
            schema = pq.read_schema(path)
            record = parse(schema.metadata[_RECORD].decode())
            fits(record, dict[str, Any], "record")
            fits(record["mock"], bool, "mock")
            fits(record.get("runs", {}), dict[str, dict[str, Any]], "runs")
            fits(record.get("answered", {}), dict[str, dict[str, int]], "answered")
            for field in _SCHEMA:
                if schema.field(field.name).type != field.type:
                    raise ValueError(f"{field.name}: {schema.field(field.name).type}, not {field.type}")
            return cls(path, record)
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise _damaged(path, error) from error

    @property
    def table(self) -> pa.Table:
        """All rows, as in the file."""
        return pq.read_table(self.path).select(_SCHEMA.names)

    def beside(self, split: str, sidecar: pa.Table) -> dict[str, dict[str, FloatArray]]:
        """Baseline -> task -> answers float64 `(rows,)` for the rows of another data set's sidecar of that split.

        Args:
            sidecar: with the columns of `IDENTITY`.

        Returns:
            NaN where only a sample of the split was answered and an object is not in it.

        Raises:
            UsageError: no answers for the split, an object that is there twice, or objects without an answer in it:
                the two data sets are split otherwise, or hold other spectra. JobError: damaged.
        """
        try:
            block, found = self._of(split)
        except (pa.ArrowException, OSError, KeyError) as error:
            raise _damaged(self.path, error) from error
        if not found:
            raise UsageError(f"{self.path}: no answers for the {split} split")
        said = self.record.get("answered", {}).get(split)
        is_sample = said == {"objects": sidecar.num_rows, "answered": len(block)}
        where = places(block, sidecar, split, self.path, sample=is_sample)
        result: dict[str, dict[str, FloatArray]] = {}
        for (baseline, task), parts in found.items():
            point = np.concatenate([*parts, [np.nan]])  # for -1
            result.setdefault(baseline, {})[task] = point[where]
        return result

    def _of(self, split: str) -> tuple[pa.Table, dict[tuple[str, str], list[FloatArray]]]:
        """Whose answers a split has, as `IDENTITY`, and the answers of each baseline and task in that order."""
        file = pq.ParquetFile(self.path, read_dictionary=["split", "baseline", "task"])
        blocks: list[pa.Table] = []
        found: dict[tuple[str, str], list[FloatArray]] = {}
        keys: pa.ChunkedArray | None = None
        for number in range(file.num_row_groups):
            rows = file.read_row_group(number, columns=_SCHEMA.names)
            rows = rows.filter(pc.equal(rows["split"], split))
            for pair in rows.group_by(["baseline", "task"], use_threads=False).aggregate([]).to_pylist():
                name = pair["baseline"], pair["task"]
                own = rows.filter(pc.and_(pc.equal(rows["baseline"], name[0]), pc.equal(rows["task"], name[1])))
                parts = found.setdefault(name, [])
                if next(iter(found)) == name:
                    blocks.append(own.select(("key", *IDENTITY)))
                    keys = None
                else:
                    if keys is None:
                        keys = pa.chunked_array([chunk for block in blocks for chunk in block["key"].chunks])
                    if not keys.slice(sum(map(len, parts)), len(own)).equals(own["key"]):
                        raise JobError(f"{self.path}: its baselines are not of the same objects; fit them again")
                parts.append(own["point"].to_numpy())
        if len({sum(map(len, parts)) for parts in found.values()}) > 1:
            raise JobError(f"{self.path}: its baselines are not of the same objects; fit them again")
        return pa.concat_tables(blocks) if blocks else _SCHEMA.empty_table(), found


def _damaged(path: Path, error: Exception) -> JobError:
    return JobError(f"{path}: not answers of this program ({shortened(error)}); fit the baselines again")


def places(
    block: pa.Table, sidecar: pa.Table, split: str, path: Path, *, sample: bool = False
) -> npt.NDArray[np.int64]:
    """Where each row of the sidecar stands in the block, which is of `path`; both have the columns of `IDENTITY`.

    Rows are found by a hash of 64 bits and then compared themselves: 16 bytes a row.

    Args:
        sample: the block holds some of the sidecar's objects alone; the others are at -1.

    Raises:
        UsageError: an object that is there twice, or one without a row in the block; of a sample, a row of the block
            that is not in the sidecar.
    """
    there, wanted = _hashes(block), _hashes(sidecar)
    order = np.argsort(there, kind="stable")
    ordered = there[order]
    for name, table, hashes in ((str(path), block, ordered), ("the shards", sidecar, np.sort(wanted))):
        if len(again := np.flatnonzero(hashes[1:] == hashes[:-1])):
            row = int(np.flatnonzero((there if table is block else wanted) == hashes[again[0]])[0])
            twice = " ".join(str(table[column][row]) for column in IDENTITY)
            raise UsageError(f"{name}: {twice} is there twice in the {split} split; spectra must be unique")
    at = np.minimum(np.searchsorted(ordered, wanted), max(0, len(ordered) - 1))
    found = order[at] if len(order) else np.zeros(len(wanted), np.int64)
    same = there[found] == wanted if len(order) else np.zeros(len(wanted), np.bool_)
    rows = np.flatnonzero(same)
    for name in IDENTITY:
        ours, theirs = (_text(table[name].take(at)) for table, at in ((block, found[rows]), (sidecar, rows)))
        same[rows] &= pc.equal(ours, theirs).to_numpy()
    missing = np.flatnonzero(~same)
    if len(missing) and not (sample and same.sum() == len(block)):
        first = " ".join(str(sidecar[column][int(missing[0])]) for column in IDENTITY)
        raise UsageError(
            f"{path}: {len(missing):,} of {len(wanted):,} objects of the {split} split have no answer there, "
            f"{first} first; make both shard sets from the same spectra, with one seed and split"
        )
    return np.where(same, found, -1)


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string()).fill_null("")


def _hashes(table: pa.Table) -> Hashes:
    """A hash of the three names of each row, uint64 `(n,)`."""
    hashes = np.empty(len(table), np.uint64)
    for start in range(0, len(table), _SLICE):
        part = table.slice(start, _SLICE)
        survey, name, file = (_text(part[column]) for column in IDENTITY)
        # An odd factor, so that a file that is named like its object leaves something of both.
        hashes[start : start + len(part)] = id_hashes(survey, name) * _FACTOR + id_hashes(survey, file)
    return hashes

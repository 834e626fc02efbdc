"""Answers of baselines that saw the spectra, on disk and beside a model that saw pictures of the same spectra.

<run>/baselines.parquet    key, survey, object_id, source_file, split, baseline, task, point; the record as metadata

Shards of pictures and shards of spectra number their samples alike only where both were made from the same files, so
that the answers are joined by what a spectrum is: its survey, its id there and the file it came from.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from specshards.common.errors import JobError, UsageError, make_folder, shortened
from specshards.common.files import replacing
from specshards.common.json import finite, fits, parse
from specshards.train.tasks.metrics import FloatArray

FILE = "baselines.parquet"
IDENTITY = ("survey", "object_id", "source_file")
_RECORD = b"specshards.baselines"
_SCHEMA = pa.schema(
    [*((name, pa.string()) for name in ("key", *IDENTITY, "split", "baseline", "task")), ("point", pa.float64())]
)

#: Baseline -> task -> answers float64 `(rows,)`.
Points = Mapping[str, Mapping[str, FloatArray]]


def write(run: Path, splits: Mapping[str, tuple[pa.Table, Points]], record: Mapping[str, Any]) -> Path:
    """Write `run/baselines.parquet`.

    Args:
        splits: the sidecar of each split, with `key` and `IDENTITY`, and the answers for its rows.
        record: JSON-able; what the baselines are.
    """
    make_folder(run)
    parts = []
    for split, (sidecar, points) in splits.items():
        for baseline, tasks in points.items():
            for task, point in tasks.items():
                columns = {name: sidecar[name].cast(pa.string()) for name in ("key", *IDENTITY)}
                same = {"split": split, "baseline": baseline, "task": task}
                columns |= {name: pa.array([value] * len(point), pa.string()) for name, value in same.items()}
                parts.append(pa.table({**columns, "point": pa.array(point, pa.float64())}))
    if not parts:
        raise UsageError(f"{run}: no split to write the baselines of; use more objects")
    table = pa.concat_tables(parts).replace_schema_metadata({_RECORD: json.dumps(finite(dict(record)))})
    with replacing(run / FILE) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return run / FILE


@dataclass(frozen=True)
class Answers:
    """The content of a `baselines.parquet`.

    Attributes:
        table: as in the file.
        record: what the baselines are; `mock` says whether they learnt from mock data.
    """

    path: Path
    table: pa.Table
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
            table = pq.read_table(path).select(_SCHEMA.names)
            record = parse(table.schema.metadata[_RECORD].decode())
            fits(record, dict[str, Any], "record")
            fits(record["mock"], bool, "mock")
            fits(record.get("runs", {}), dict[str, dict[str, Any]], "runs")
            return cls(path, table.cast(_SCHEMA.with_metadata(table.schema.metadata)), record)
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            what = shortened(error)
            raise JobError(f"{path}: not answers of this program ({what}); fit the baselines again") from error

    def beside(self, split: str, sidecar: pa.Table) -> dict[str, dict[str, FloatArray]]:
        """Baseline -> task -> answers float64 `(rows,)` for the rows of another data set's sidecar of that split.

        Args:
            sidecar: with the columns of `IDENTITY`.

        Raises:
            UsageError: no answers for the split, an object that is there twice, or objects without an answer in it:
                the two data sets are split otherwise, or hold other spectra.
        """
        here = self.table.filter(pc.equal(self.table["split"], split))
        if not here.num_rows:
            raise UsageError(f"{self.path}: no answers for the {split} split")
        pairs = here.group_by(["baseline", "task"], use_threads=False).aggregate([]).to_pylist()
        found: dict[str, dict[str, FloatArray]] = {}
        order = None
        for pair in pairs:
            rows = pc.and_(pc.equal(here["baseline"], pair["baseline"]), pc.equal(here["task"], pair["task"]))
            block = here.filter(rows)
            if order is None:
                keys, order = block["key"], places(block, sidecar, split, self.path)
            elif not block["key"].equals(keys):
                raise JobError(f"{self.path}: its baselines are not of the same objects; fit them again")
            found.setdefault(pair["baseline"], {})[pair["task"]] = block["point"].to_numpy()[order]
        return found


def places(block: pa.Table, sidecar: pa.Table, split: str, path: Path) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Where each row of the sidecar stands in the block, which is of `path`; both have the columns of `IDENTITY`.

    Raises:
        UsageError: an object that is there twice, or one without a row in the block.
    """
    there, wanted = _identities(block), _identities(sidecar)
    where = {identity: i for i, identity in enumerate(there)}
    for name, many in ((str(path), there), ("the shards", wanted)):
        if len(set(many)) < len(many):
            twice = Counter(many).most_common(1)[0][0]
            raise UsageError(f"{name}: {' '.join(twice)} is there twice in the {split} split; spectra must be unique")
    missing = [identity for identity in wanted if identity not in where]
    if missing:
        raise UsageError(
            f"{path}: {len(missing):,} of {len(wanted):,} objects of the {split} split have no answer there, "
            f"{' '.join(missing[0])} first; make both shard sets from the same spectra, with one seed and split"
        )
    return np.array([where[identity] for identity in wanted], np.int64)


def _identities(table: pa.Table) -> Sequence[tuple[str, ...]]:
    return list(zip(*(table[name].cast(pa.string()).to_pylist() for name in IDENTITY), strict=True))

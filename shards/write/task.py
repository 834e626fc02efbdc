"""One task of a job: read the samples of one shard number, write its tar for every split, then its ledger record."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from specshards.common.errors import make_folder, naming
from specshards.common.files import is_remote, location, replacing, sha256, write_text
from specshards.common.impossible import Impossible
from specshards.common.json import fits, parse, signed, unsigned
from specshards.common.quarantine import quarantine_row
from specshards.common.spectrum import CLASSES, LABELS
from specshards.render import renderer
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.format.flux import has_lsf
from specshards.shards.format.layout import check_record
from specshards.shards.format.manifest import (
    SPLITS,
    LabelStats,
    ShardConfig,
    ShardRecord,
    combine_stats,
    key,
    label_npy,
)
from specshards.shards.format.tar import TarWriter
from specshards.shards.write.marked import Marked
from specshards.shards.write.plan import row_order
from specshards.shards.write.repeats import VISIT, Aside, ambiguous
from specshards.shards.write.split import goes_by_id, splits_of

LEDGER = ".ledger"


@dataclass(frozen=True)
class Portion:
    """Some samples as a source gives them.

    Attributes:
        rows: int64 `(n,)`, global row numbers.
        payloads: n encoded pictures or spectra.
        labels: float64 `(n, len(LABELS))`.
        meta: n rows, every column of the sidecar but `key` and `source_row`.
    """

    rows: npt.NDArray[np.int64]
    payloads: list[bytes]
    labels: npt.NDArray[np.float64]
    meta: pa.Table


@dataclass(frozen=True)
class SetAside:
    """What a task's rows came to, beside its samples.

    Attributes:
        quarantine: rows of the quarantine table.
        left_out: rows that a filter did not choose, or of which another visit is better.
        impossible: labels that no object can have, and that are missing therefore.
        content: of others' Parquet, `file:row group` -> CRC-32 of what was read.
    """

    quarantine: list[dict[str, Any]]
    left_out: list[int]
    impossible: Impossible = field(default_factory=Impossible)
    content: dict[str, int] = field(default_factory=dict)

    def take(self, row: int, why: str, object_id: object, place: tuple[str, int | None]) -> None:
        """Enter a row that is set aside.

        Args:
            why: `APART` or `VISIT`. place: file and row for the quarantine table.
        """
        if why == VISIT:
            self.left_out.append(row)
        else:
            self.quarantine.append(quarantine_row(*place, "identity", ambiguous(object_id)))


@dataclass(frozen=True)
class ShardTask(ABC):
    """A pure function of its fields: the rows of one shard number.

    Attributes:
        shard: the number. out: the data set's folder or URL.
        fingerprint: of all that decides the bytes.
        moved: rows that do not take the split of `splits_of` (see `shards.write.visits`).
        aside: rows that give no sample, and why (see `shards.write.repeats`).
    """

    shard: int
    out: str
    config: ShardConfig
    fingerprint: str
    moved: Marked
    aside: Aside

    @property
    def number(self) -> int:
        """The shard number."""
        return self.shard

    @property
    def record(self) -> Path:
        """The task's ledger record."""
        return location(self.out) / LEDGER / f"{self.shard:06d}.json"

    def loads(self, text: str) -> TaskResult:
        """See `common.folder.Task`."""
        return TaskResult.loads(text)

    def is_whole(self, record: TaskResult) -> bool:
        """Whether all files of the task's shards are there with the right checksums."""
        return not any(shard.damaged(location(self.out)) for shard in record.shards)

    @property
    @abstractmethod
    def size(self) -> int:
        """How many rows it is given."""

    @property
    @abstractmethod
    def rows(self) -> npt.NDArray[np.int64]:
        """The global numbers of the task's rows, in reading order."""

    @abstractmethod
    def read(self, account: SetAside) -> Iterator[Portion]:
        """The samples, some at a time; what gives none goes to the account."""


@dataclass(frozen=True)
class TaskResult:
    """What one shard number came to; also its ledger record. The other fields are those of `SetAside`.

    Attributes:
        by_id: samples that have nothing but their id to be split by (`shards.write.split`).
    """

    shard: int
    fingerprint: str
    objects: int
    shards: tuple[ShardRecord, ...]
    train_stats: dict[str, LabelStats]
    quarantine: list[dict[str, Any]]
    left_out: int = 0
    impossible: Impossible = field(default_factory=Impossible)
    content: dict[str, int] = field(default_factory=dict)
    by_id: int = 0

    @property
    def number(self) -> int:
        """The shard number."""
        return self.shard

    def dumps(self) -> str:
        """JSON; NaN statistics are written as such and read back by `loads`."""
        return json.dumps(signed(asdict(self)), indent=1, sort_keys=True) + "\n"

    @classmethod
    def loads(cls, text: str) -> TaskResult:
        """The inverse of `dumps`; ValueError, KeyError or TypeError for anything else."""
        content = unsigned(parse(text, nan=True))
        fits(content, cls)
        for record in content["shards"]:
            check_record(ShardRecord(**record), CLASSES)
        content["shards"] = tuple(ShardRecord(**record) for record in content["shards"])
        content["impossible"] = Impossible.from_dict(content.get("impossible", {}))
        content["train_stats"] = {k: LabelStats(**v) for k, v in content["train_stats"].items()}
        return cls(**content)


@dataclass(frozen=True)
class _Sample:
    row: int
    payload: bytes
    labels: npt.NDArray[np.float64]
    place: int  # in the meta tables, one after another


def write_shard(task: ShardTask) -> TaskResult:
    """Read, sort into splits, write; the task's ledger record last."""
    account = SetAside([], [])
    samples: list[list[_Sample]] = [[] for _ in SPLITS]
    meta: list[pa.Table] = []
    place = by_id = 0
    for portion in task.read(account):
        splits = task.moved.at(portion.rows, splits_of(portion.meta, task.config)).tolist()
        by_id += int(goes_by_id(portion.meta, task.config).sum())
        for i, row in enumerate(portion.rows.tolist()):
            sample = _Sample(row, portion.payloads[i], portion.labels[i], place + i)
            samples[splits[i]].append(sample)
        place += len(portion.rows)
        meta.append(_plain(portion.meta))
    # Row `i` of the task, in reading order, goes to place `rank[i]`; rows that gave no sample leave no gap.
    rows = task.rows
    rank = dict(zip(rows.tolist(), row_order(task.config, task.shard, len(rows)).tolist(), strict=True))
    records = []
    for split, members in zip(SPLITS, samples, strict=True):
        members.sort(key=lambda sample: rank[sample.row])
        if members:
            with naming(task.out):
                records.append(_write_split(task, split, members, meta))
    train = np.array([sample.labels for sample in samples[0]]).reshape(-1, len(LABELS))
    result = TaskResult(
        task.shard, task.fingerprint, len(rows), tuple(records), _statistics(train), account.quarantine,
        len(account.left_out), account.impossible, account.content, by_id,
    )  # fmt: skip
    write_text(task.record, result.dumps())
    return result


def _write_split(task: ShardTask, split: str, samples: Sequence[_Sample], meta: Sequence[pa.Table]) -> ShardRecord:
    name = f"{split}/{split}-{task.shard:06d}.tar"
    path = location(task.out) / name
    if not is_remote(path):
        make_folder(path.parent)
    extension = ENCODINGS[task.config.encoding](renderer(task.config.image)).extension
    with TarWriter(path) as tar:
        for sample in samples:
            tar.add(key(sample.row), [(extension, sample.payload), ("npy", label_npy(sample.labels))])
    sidecar, at_rest = _write_sidecar(path.with_suffix(".parquet"), samples, meta)
    classes = Counter(
        "unlabelled" if np.isnan(code) else CLASSES[int(code)] for code in (s.labels[0] for s in samples)
    )
    return ShardRecord(
        split, name, len(samples), tar.size, tar.sha256, tar.index_sha256, sidecar, dict(sorted(classes.items())),
        at_rest, sum(has_lsf(sample.payload) for sample in samples) if task.config.lsf else 0,
    )  # fmt: skip


def _write_sidecar(path: Path, samples: Sequence[_Sample], meta: Sequence[pa.Table]) -> tuple[str, int]:
    """One row per sample, in the tar's order: key, global row, and the meta columns.

    Returns:
        sha256 of the file, and how many samples their files gave in the rest frame.
    """
    table = pa.concat_tables(meta, promote_options="default").take(pa.array([sample.place for sample in samples]))
    frames = table["frame"].to_pylist() if "frame" in table.column_names else []
    at_rest = frames.count("rest")
    rows = [sample.row for sample in samples]
    table = table.add_column(0, "key", pa.array([key(row) for row in rows], pa.string()))
    table = table.add_column(1, "source_row", pa.array(rows, pa.int64()))
    with replacing(path) as temporary:
        pq.write_table(table.replace_schema_metadata(None), temporary, compression="zstd")
        return sha256(temporary), at_rest


def _plain(table: pa.Table) -> pa.Table:
    # Dictionaries differ from block to block; a sidecar is small, and plain strings open anywhere.
    fields = []
    for f in table.schema:
        unit = {key: said for key, said in (f.metadata or {}).items() if key == b"unit"}
        kind = pa.string() if pa.types.is_dictionary(f.type) else f.type
        fields.append(pa.field(f.name, kind, metadata=unit or None))
    return table.cast(pa.schema(fields)).replace_schema_metadata(None)


def _statistics(labels: npt.NDArray[np.float64]) -> dict[str, LabelStats]:
    result = {}
    for column, name in enumerate(LABELS):
        values = labels[:, column]
        values = values[~np.isnan(values)]
        if len(values):
            stats = LabelStats(len(values), *map(float, (values.mean(), values.std(), values.min(), values.max())))
        else:
            stats = combine_stats([])
        result[name] = stats
    return result

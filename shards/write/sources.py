"""Whether the data sets that others are made of are whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from specshards.common.errors import JobError
from specshards.common.files import location
from specshards.common.jobs import Engine, run_tasks
from specshards.shards.format.manifest import Manifest, ShardRecord


def check_whole(folders: Sequence[str | Path], manifests: Sequence[Manifest], engine: Engine) -> None:
    """Compare every tar with its checksum first: a copy would give damage a checksum of its own.

    Raises:
        JobError: a tar, index or sidecar is missing or damaged.
    """
    shards = [(str(folder), record) for folder, m in zip(folders, manifests, strict=True) for record in m.shards]
    sizes = [record.samples for _, record in shards]
    for wrong in run_tasks(_damage, shards, engine, describe="check", unit="img", sizes=sizes):
        if wrong:
            raise JobError(wrong)


def _damage(shard: tuple[str, ShardRecord]) -> str:
    folder, record = shard
    if (path := record.damaged(location(folder))) is None:
        return ""
    what = "is not what the manifest says" if path.exists() else "is missing"
    return f"{path}: {what}; run the command that made {folder} again: it mends damaged shards"

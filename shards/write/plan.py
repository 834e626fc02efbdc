"""In which order what goes into which shard, decided before anything is written: a seeded permutation.

A task is one shard number. It reads its own row groups, each of them once, and writes that number for every split;
nothing about it depends on how many workers there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from specshards.common.json import digest
from specshards.common.spectrum import RANGES
from specshards.ingest.spectra.folder import LARGE_GROUP, RowGroup
from specshards.ingest.spectra.schema import PROGRAM_VERSION
from specshards.shards.format.manifest import FORMAT_VERSION, ShardConfig

T = TypeVar("T")

#: A small data set is cut into about this many tasks, so that a few workers have something to share.
_MIN_TASKS = 4


def cut_tasks(groups: Sequence[RowGroup], config: ShardConfig, first_task: int = 0) -> list[tuple[RowGroup, ...]]:
    """Permute row groups and cut them into tasks of about `samples_per_shard` rows.

    A row group stays whole, so that it is read once, unless it is so large that a task could not hold its pictures:
    a piece costs the decoding of what stands before it in its group.

    Args:
        first_task: how many tasks there are already, of inputs that were there before these.
    """
    target = task_size(sum(group.rows for group in groups), config)
    pieces = [piece for group in groups for piece in _pieces(group, target)]
    return pack(pieces, [piece.rows for piece in pieces], config, target, first_task)


def task_size(total: int, config: ShardConfig) -> int:
    """Rows aimed at in a task."""
    return min(config.samples_per_shard, max(1, -(-total // _MIN_TASKS)))


def pack(
    pieces: Sequence[T], rows: Sequence[int], config: ShardConfig, target: int, first_task: int = 0
) -> list[tuple[T, ...]]:
    """Pieces of input, `rows` long each, in a seeded permutation, cut into tasks of at most `target` rows."""
    seed = [config.seed, 0] if first_task == 0 else [config.seed, 0, first_task]
    tasks: list[list[T]] = [[]]
    filled = 0
    for index in np.random.default_rng(seed).permutation(len(pieces)):
        if tasks[-1] and filled + rows[index] > target:
            tasks.append([])
            filled = 0
        tasks[-1].append(pieces[index])
        filled += rows[index]
    return [tuple(task) for task in tasks]


def fingerprint(*identity: Any, schema_version: int = 1) -> str:
    """sha256 of what decides the bytes of some shards, and of this program's versions and ranges of labels.

    Args:
        schema_version: of the spectra that are read: shards of older ones stay as they are.
    """
    content = [*identity, FORMAT_VERSION, schema_version, PROGRAM_VERSION, RANGES]
    return digest(content)


def _pieces(group: RowGroup, target: int) -> Iterator[RowGroup]:
    """Quarters of a large row group, so that one region of the sky is spread over shards; less of a huge one."""
    size = max(LARGE_GROUP, min(target, -(-group.rows // 4)))
    return iter((group,)) if group.rows <= size else group.cut(size)


def row_order(config: ShardConfig, shard: int, rows: int) -> npt.NDArray[np.int64]:
    """The seeded order of the rows within one shard."""
    return np.random.default_rng([config.seed, 1, shard]).permutation(rows)

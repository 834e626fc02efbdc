"""Rows that are marked: as a dict has them, and each task its own, in the time that it takes to look once."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from specshards.ingest.spectra.folder import RowGroup, SpectraFolder
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.write.build import plan_tasks
from specshards.shards.write.job import Claim
from specshards.shards.write.marked import Marked, among, inside, plain
from specshards.shards.write.repeats import APART, VISIT, reasons

SEEDS = st.integers(0, 9)
MARKS = st.dictionaries(st.integers(0, 60), st.integers(0, 2))


@settings(max_examples=100, deadline=None)
@given(MARKS, MARKS, st.lists(st.integers(0, 70), unique=True), st.sets(st.integers(0, 70), max_size=8))
def test_it_is_a_dict(first: dict[int, int], second: dict[int, int], rows: list[int], edges: set[int]) -> None:
    marked = Marked.of(first)
    assert marked == first and dict(marked) == first and list(marked) == sorted(first) and len(marked) == len(first)
    assert marked | second == first | second and Marked.of(marked) is marked
    assert json.loads(json.dumps(plain(marked))) == {str(row): value for row, value in sorted(first.items())}
    asked = np.array(rows, np.int64)
    assert marked.at(asked, np.full(len(rows), 9, np.int8)).tolist() == [first.get(row, 9) for row in rows]
    assert among(asked, marked.rows).tolist() == [row in first for row in rows]
    assert all(marked.get(row, 9) == first.get(row, 9) for row in rows)
    ends = sorted(edges)
    spans = list(zip(ends[::2], ends[1::2], strict=False))[::-1]
    held = {row: value for row, value in first.items() if any(a <= row < b for a, b in spans)}
    assert marked.within(spans) == held
    assert sorted(marked.rows[inside(marked.rows, spans)].tolist()) == sorted(held)


def source(rows: int, group: int) -> SpectraFolder:
    groups = tuple(RowGroup(f"{i:05d}", 0, min(group, rows - i), i) for i in range(0, rows, group))
    files = [each.file for each in groups]
    return SpectraFolder(Path("data"), groups, ("s",), dict.fromkeys(files, ""), versions=dict.fromkeys(files, 2))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 9), MARKS, st.sets(st.integers(0, 59)), SEEDS)
def test_each_task_has_its_own_rows(
    rows: int, group: int, per_shard: int, marks: dict[int, int], apart: set[int], seed: int
) -> None:
    made, aside = source(rows, group), {APART: np.array(sorted(apart), np.int64), VISIT: np.array([3, 4, 11])}
    config = ShardConfig(samples_per_shard=per_shard, seed=seed)
    claim = Claim(config, (made.digests,), ("s",), marks, aside)
    told = dict.fromkeys(apart, APART) | dict.fromkeys((3, 4, 11), VISIT)
    tasks, seen = plan_tasks(made, claim, Path("out")), []
    for task in tasks:
        own = task.rows.tolist()
        assert task.moved == {row: marks[row] for row in own if row in marks}
        assert reasons(task.aside) == {row: told[row] for row in own if row in told}
        seen += own
    assert sorted(seen) == list(range(rows))


def test_a_task_costs_its_rows_and_no_more() -> None:
    """Every third of a million rows is moved: nine bytes each, where dicts of the tasks took a hundred."""
    made, moved = source(1_000_000, 1000), Marked(np.arange(0, 1_000_000, 3), np.ones(333_334))
    claim = Claim(ShardConfig(), (made.digests,), ("s",), moved)
    tracemalloc.start()
    tasks = plan_tasks(made, claim, Path("out"))
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert sum(len(task.moved) for task in tasks) == len(moved) and used < 12 * len(moved)

"""`specshards bench listing`: what planning a job takes for many names of files, and for many rows.

Names and rows are made, not files: each look at a file finds none. Of `ingest build` that is the list, the plan and
the task of each part, and the same again as a rerun does it; of `shards build` the rows that are moved and the tasks.
Each is done once, in a process of its own, whose peak memory is told beside that of one that has only begun.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer

from specshards.benchmarks.kit.process import measured
from specshards.benchmarks.kit.records import Record
from specshards.benchmarks.kit.report import LOCAL, Out, Quick, recording
from specshards.common.errors import UsageError
from specshards.common.identity import Repeats
from specshards.ingest.job.config import IngestConfig
from specshards.ingest.job.plan import make_plan
from specshards.ingest.job.tasks import Tasks
from specshards.ingest.listing_names import NameList
from specshards.ingest.spectra.folder import RowGroup, SpectraFolder
from specshards.ingest.spectra.schema import healpix_29
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.write.build import plan_tasks
from specshards.shards.write.job import Claim
from specshards.shards.write.visits import moved_rows

#: Files of a part, rows of a row group; rows that are made at a time.
_FILES, _GROUP, _SLICE = 512, 128, 1 << 16


def names(count: int) -> Iterator[str]:
    """Names of files, a thousand a folder, in no order."""
    for i in range(count):
        k = i * 7919 * 104729 % count
        yield f"{k // 1000:05d}/spec-{k // 1000:05d}-55555-{k:08d}.fits"


def plan_files(count: int) -> None:
    """What the parent of an ingest does before and between its parts, twice: a first run and a rerun."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        for what in ("files, first run", "files, rerun"):
            began = time.process_time()
            listed = NameList(names(count))
            plan = make_plan(out / "none", listed, out / "plan.parquet", files_per_part=_FILES, seed=0)
            tasks = Tasks(IngestConfig("sdss"), out / "none", plan, None, out, listed.repeats)
            assert sum(task.size for task in tasks) == count
            _say(what, began)


def rows(count: int) -> Iterator[tuple[np.ndarray, pa.Table]]:
    """Numbers and places of rows, a tenth of them visits of another's object within an arcsecond."""
    for start in range(0, count, _SLICE):
        number = np.arange(start, min(start + _SLICE, count))
        rng = np.random.default_rng(start)
        star = np.where(rng.random(len(number)) < 0.1, rng.integers(0, count, len(number)), number)
        ra = star * 0.6180339887498949 % 1 * 360
        dec = (
            np.degrees(np.arcsin(2 * (star * 0.7548776662466927 % 1) - 1)) + rng.uniform(-0.5, 0.5, len(star)) / 3600
        )
        dec = np.clip(dec, -90, 90)
        yield number, pa.table({"ra": ra, "dec": dec, "_healpix_29": healpix_29(ra, dec)})


def plan_rows(count: int) -> None:
    """What the parent of `shards build` does with rows once it knows which ids repeat."""
    began = time.process_time()
    moved = moved_rows(rows(count), ShardConfig(), {}, 0, Repeats())
    groups, per_file = [], _FILES
    for first in range(0, count, _GROUP):
        file, inside = divmod(first, per_file)
        groups.append(RowGroup(f"part-{file:05d}.parquet", inside // _GROUP, min(_GROUP, count - first), first))
    files = list(dict.fromkeys(group.file for group in groups))
    source = SpectraFolder(
        Path("none"), tuple(groups), ("sdss",), dict.fromkeys(files, "0" * 64), versions=dict.fromkeys(files, 3)
    )
    tasks = plan_tasks(source, Claim(ShardConfig(), (source.digests,), ("sdss",), moved), Path("none"))
    assert sum(task.size for task in tasks) == count
    _say("rows", began)


def _say(what: str, began: float) -> None:
    print(f"{what}: {time.process_time() - began:.3f} s", file=sys.stderr)


def measure(counts: list[int]) -> list[Record]:
    """Seconds and peak memory of both, by how many."""
    here = "from specshards.benchmarks.suite import listing; listing."
    _, empty = measured([sys.executable, "-c", f"{here}plan_files(0)"], quiet=True)
    records = []
    for what, of in (("plan_files", "files of ingest, listed and planned twice"), ("plan_rows", "rows of shards")):
        for count in counts:
            seconds, peak = measured([sys.executable, "-c", f"{here}{what}({count})"], quiet=True)
            note = f"{seconds:.1f} s in all; peak memory {peak:.0f} MB, {peak - empty:+.0f} MB over none"
            about = {"objects": float(count), "memory": peak}
            records.append(Record(of, f"{count:,}", (seconds / count,), note=note, about=about))
    return records


def main(
    out: Out = LOCAL / "listing.json",
    counts: Annotated[str, typer.Option(help="How many, with commas.")] = "100000,1000000",
    quick: Quick = False,
) -> None:
    """Plan jobs of many files and many rows, and say what the process that does it takes."""
    try:
        wanted = [int(float(count)) for count in counts.split(",")]
    except ValueError:
        wanted = []
    if not wanted or min(wanted) < 1:
        raise UsageError(f"--counts {counts}: give numbers with commas, as 100000,1000000")
    with recording("listing", out, quick) as draft:
        draft.records = measure([200, 400] if quick else wanted)

"""`specshards bench scale`: what the plan says of jobs ten times larger than those measured, and what they take.

The records of `make bench` are of jobs of some thousand objects. Each of them is run here with ten times as many, and
all cores; so is an epoch of the loader over the shards that came of it. Nothing is fitted again.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from specshards.benchmarks.kit.process import GROUP, Job, measured, worker_counts
from specshards.benchmarks.kit.records import Record, Run
from specshards.benchmarks.kit.report import LOCAL, Out, Quick, recording
from specshards.benchmarks.plan.cost import Costs, JobTime
from specshards.benchmarks.plan.plan import find
from specshards.benchmarks.suite import ingest, shards
from specshards.benchmarks.suite.load_data import BATCH
from specshards.common.errors import JobError
from specshards.shards import loader

TIMES = 10


def largest(run: Run, title: str) -> int:
    """Objects of the largest job that was measured."""
    return int(max(r.about["objects"] for r in run.records if r.group == GROUP and r.name.startswith(title)))


def checked(job: Job, fit: JobTime, out: Path) -> Record:
    """Run a job into `out`; seconds and the peak memory of its largest process, beside what the fit says.

    Raises:
        JobError: it failed, or accounts for other objects than it was given.
    """
    seconds, peak = measured(job.command(out), quiet=True)
    count = job.count(out)
    if count != job.objects:
        raise JobError(f"{job.name}: the job accounts for {count:,} objects")
    return compared(job.name, job.objects, seconds, fit.seconds(job.objects, job.workers), f", peak {peak:.0f} MB")


def compared(name: str, objects: int, seconds: float, planned: float, more: str = "") -> Record:
    """A record of what something took, with what was planned in its note."""
    note = f"took {seconds:.1f} s, planned {planned:.1f} s: {planned / seconds - 1:+.0%}{more}"
    return Record("ten times larger", name, (seconds / objects,), note=note, about={"objects": objects})


def epoch(folder: Path, costs: Costs) -> Record:
    """An epoch of the loader's default backend over the train split, beside the plan; the second one counts."""
    threads = worker_counts()[-1]
    with loader.open(folder, "train", BATCH, threads=threads) as batches:
        for _ in range(2):
            began = time.perf_counter()
            for _ in batches:
                pass
            seconds = time.perf_counter() - began
        count = batches.samples
    return compared(f"load map2d png, {count:,} samples", count, seconds, count * costs.load / threads)


def main(
    out: Out = LOCAL / "scale.json",
    source: Annotated[
        Path | None, typer.Option("--records", help="Folder of records. [what `make bench` left, else those kept]")
    ] = None,
    data: Annotated[Path, typer.Option(help="Folder of real files; without one, a mock survey.")] = ingest.REAL,
    files: Annotated[int, typer.Option(help="Files of each survey, linked as often as it takes.", min=2)] = (
        ingest.DISTINCT
    ),
    quick: Quick = False,
) -> None:
    """Run jobs ten times larger than those measured, and say how far off the plan is."""
    runs = find(source)
    measured_records = {name: run.records for name, run in runs.items()}
    with recording("scale", out, quick) as draft, tempfile.TemporaryDirectory() as name:
        scratch, times = Path(name), 1 if quick else TIMES
        paths, kinds = ingest.inputs(data, scratch, 4 if quick else files)
        draft.notes += [f"{survey}: {kinds[survey]} files" for survey in paths]
        for survey, links in paths.items():
            costs = Costs.of(measured_records, {survey: 1.0}, "png")
            size = times * largest(runs["ingest"], survey)
            job = ingest.jobs({survey: links}, [size], scratch)[-1]
            draft.records.append(checked(job, costs.ingest, scratch / "out" / survey))
        size = times * largest(runs["shards"], "map2d png")
        job = next(
            job for job in reversed(shards.jobs({size: shards.mock(size, scratch)})) if job.title == "map2d png"
        )
        draft.records += [checked(job, costs.shards, scratch / "shards"), epoch(scratch / "shards", costs)]

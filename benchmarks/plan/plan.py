"""`specshards bench plan`: hours and bytes of a survey on a machine, and what more of the machine would buy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from specshards.benchmarks.kit import records
from specshards.benchmarks.kit.process import GROUP
from specshards.benchmarks.kit.records import Run
from specshards.benchmarks.kit.report import LOCAL
from specshards.benchmarks.kit.tables import markdown
from specshards.benchmarks.plan.cost import RESOURCES, TRAIN, VAL, Costs, Hardware, JobTime, Stage, stages, whole
from specshards.common.errors import UsageError
from specshards.train.meter import PEAKS

#: Bytes a second that a drive of its kind reads and writes in sequence. Assumed, not measured.
DISKS = {"hdd": 150e6, "sata": 500e6, "nvme": 3e9}
#: Floating-point operations of one training sample: ViT-B/16, 224 x 224, forward and backward.
SAMPLE_FLOP = 105.9e9
#: Share of a GPU's peak that training reaches where nobody measured it: 14 million objects, 30 epochs and nine days
#: (the paper's) are 540 samples a second, which is that share of an RTX 4090.
SHARE = 0.35
KEPT = Path(__file__).parents[1] / "results" / "2-core-cpu"
#: Group of the records that the plan takes from each benchmark.
GROUPS = {"ingest": GROUP, "shards": GROUP, "load": "load map2d"}


def plan(
    objects: Annotated[float, typer.Option(help="Objects of the survey, such as 14e6.")] = 14e6,
    gpu: Annotated[str, typer.Option(help="rtx4090, a100, ..., or samples a second that you measured.")] = "rtx4090",
    cores: Annotated[int, typer.Option(help="CPU cores.")] = 16,
    disk: Annotated[str, typer.Option(help=f"{', '.join(DISKS)}, or MB/s that you measured.")] = "nvme",
    survey: Annotated[str, typer.Option(help="Whose files: lamost or sdss.")] = "lamost",
    encoding: Annotated[str, typer.Option(help="Of the samples: png, pnm, jpeg or flux.")] = "png",
    epochs: Annotated[int, typer.Option(help="Of the training.")] = 30,
    source: Annotated[
        Path | None, typer.Option("--records", help="Folder of records. [what `make bench` left, else those kept]")
    ] = None,
) -> None:
    """Say what a survey costs on a machine, stage by stage, from measured records, and what limits it."""
    rows, assumed = planned(objects, gpu, cores, disk, survey, encoding, epochs, source)
    print(f"{objects:,.0f} objects of {survey}, map2d {encoding}, on {cores} cores, {disk} disk, {gpu}\n")
    print(rows)
    print("\nAssumed:")
    print("\n".join(f"- {line}" for line in assumed))


def planned(
    objects: float, gpu: str, cores: int, disk: str, survey: str, encoding: str, epochs: int, source: Path | None
) -> tuple[str, list[str]]:  # fmt: skip
    """The table of a plan, as Markdown, and what it assumes, a line each; see `plan` for the arguments.

    Raises:
        UsageError: a number out of range, a machine that is not known, or records that are missing.
    """
    if objects < 1 or cores < 1 or epochs < 1:
        raise UsageError("give at least one object, one core and one epoch")
    runs = find(source)
    costs = Costs.of({name: run.records for name, run in runs.items()}, survey, encoding)
    images, gpu_line = speed(gpu)
    machine = Hardware(cores, rate(disk), images)
    parts = stages(costs, machine, round(objects), epochs)
    rows = table(parts, costs, machine, round(objects), epochs)
    return rows, [*assumptions(costs, machine, runs, disk), gpu_line]


def find(folder: Path | None) -> dict[str, Run]:
    """The newest run of each benchmark that the plan stands on.

    Raises:
        UsageError: one is missing, or the file is none of ours.
    """
    for place in [folder] if folder else [LOCAL, KEPT]:
        runs = [records.load(path) for path in sorted(place.glob("*.json"))]
        newest = {
            run.name: run
            for run in sorted(runs, key=lambda run: run.started)
            if any(r.group == GROUPS.get(run.name) for r in run.records)
        }
        if len(newest) == len(GROUPS):
            return newest
    raise UsageError(f"{folder or f'{LOCAL}, {KEPT}'}: no records of {', '.join(GROUPS)}; run `make bench` first")


def speed(gpu: str) -> tuple[float, str]:
    """Training samples a second, and where that is from."""
    peak = next((peak for name, peak in PEAKS.items() if _plain(name) in _plain(gpu)), None)
    if peak is not None:
        images = SHARE * peak / SAMPLE_FLOP
        return images, (
            f"GPU: {images:,.0f} samples/s of a ViT-B/16, {SHARE:.0%} of {peak / 1e12:.0f} TFLOP/s (bf16), the share "
            f"that the paper's nine days come to; measure yours with `make bench-train` and give that as --gpu"
        )
    try:
        images = float(gpu)
    except ValueError:
        images = 0.0
    if images <= 0:
        names = ", ".join(_plain(name) for name in PEAKS)
        raise UsageError(f"unknown --gpu {gpu}: give one of {names}, or its training samples a second")
    return images, f"GPU: {images:,.0f} samples/s, as given"


def rate(disk: str) -> float:
    """Bytes a second of a disk."""
    try:
        bytes_per_second = DISKS[disk] if disk in DISKS else 1e6 * float(disk)
    except ValueError:
        bytes_per_second = 0.0
    if bytes_per_second <= 0:
        raise UsageError(f"unknown --disk {disk}: give {', '.join(DISKS)}, or its MB/s")
    return bytes_per_second


def table(parts: Sequence[Stage], costs: Costs, machine: Hardware, objects: int, epochs: int) -> str:
    """Markdown: a row a stage, and in the last columns what it takes with twice as much of a resource."""
    more = {name: stages(costs, machine.doubled(name), objects, epochs) for name in RESOURCES}
    heads = ["", "time", "limited by", *(f"alone: {name}" for name in RESOURCES), "reads", "writes",
             *(f"2x {name}" for name in RESOURCES)]  # fmt: skip
    rows = []
    for i, stage in enumerate(parts):
        alone = [duration(stage.seconds[name]) if name in stage.seconds else "" for name in RESOURCES]
        then = [duration(more[name][i].total) for name in RESOURCES]
        cells = [stage.name, duration(stage.total), stage.limit, *alone, size(stage.reads), size(stage.writes), *then]
        rows.append(cells)
    last = ["files to model", duration(whole(parts)), *[""] * 6, *(duration(whole(more[name])) for name in RESOURCES)]
    return markdown(heads, [*rows, last])


def assumptions(costs: Costs, machine: Hardware, runs: Mapping[str, Run], disk: str) -> list[str]:
    """What the figures stand on, a line each."""
    measured = runs["shards"].machine
    lines = [
        f"each core is as fast as one of the {measured.cores} of {measured.cpu} that the records are from, and cores "
        f"add up: nothing beyond {measured.cores} was measured",
        "what a job's own process does beside its workers counts as shared by nobody, though on the few cores of the "
        "records a part of it is that they waited for a core",
        f"ingest: {formula(costs.ingest)}",
        f"shards: {formula(costs.shards)}",
        f"loader: {1e6 * costs.load:,.0f} us of one core a sample",
        f"bytes of an object: file {costs.file:,.0f}, Parquet {costs.parquet:,.0f}, shards {costs.sample:,.0f}",
        f"disk: {machine.disk / 1e6:,.0f} MB/s, {'typical of its kind' if disk in DISKS else 'as given'}; every "
        f"epoch reads from it again, though memory may hold the shards",
        f"an epoch is {TRAIN:.0%} of the objects for training and {VAL:.0%} for validation at a third of the cost",
        "reading, computing and training go on side by side, so that the slowest of them counts",
    ]
    return lines


def formula(job: JobTime) -> str:
    """A job in words."""
    return (
        f"{job.start:.1f} s, and for each object {1e6 * job.shared:,.0f} us that nobody shares and "
        f"{1e6 * job.own:,.0f} us that the cores share"
    )


def duration(seconds: float) -> str:
    """In the unit that reads best."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit * (2 if name == "d" else 1):
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.1f} s"


def size(count: float) -> str:
    """Bytes, in the unit that reads best."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} B" if count else ""


def _plain(name: str) -> str:
    return name.replace(" ", "").replace("-", "").lower()

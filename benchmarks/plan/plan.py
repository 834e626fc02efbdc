"""`specshards bench plan`: hours and bytes of a survey on a machine, and what more of the machine would buy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from specshards.benchmarks.kit import records
from specshards.benchmarks.kit.process import GROUP
from specshards.benchmarks.kit.records import Run
from specshards.benchmarks.kit.report import LOCAL
from specshards.benchmarks.kit.tables import markdown
from specshards.benchmarks.plan.cost import RESOURCES, SPLIT, Costs, Hardware, JobTime, Stage, passes, stages, whole
from specshards.common.errors import UsageError
from specshards.train.meter import PEAKS

#: Bytes a second that a drive of its kind reads and writes in sequence. Assumed, not measured.
DISKS = {"hdd": 150e6, "sata": 500e6, "nvme": 3e9}
#: Floating-point operations of one training sample: ViT-B/16, 224 x 224, forward and backward.
SAMPLE_FLOP = 105.9e9
#: The paper's run (A&A 709, A122): objects, epochs, seconds, and the split of its section 2, on an RTX 4090.
PAPER_OBJECTS, PAPER_EPOCHS, PAPER_SECONDS, PAPER_SPLIT = 14e6, 30, 9 * 86400.0, (0.6, 0.2, 0.2)
PAPER_IMAGES = PAPER_OBJECTS * PAPER_EPOCHS * passes(PAPER_SPLIT) / PAPER_SECONDS
#: Shares of a GPU's peak (MFU) that training reaches where nobody measured it: the paper's run, 360 samples a second,
#: and the best that is published for a vision transformer, 54.9% (ViT-22B on TPU v4, arXiv:2302.05442, section 4).
LEAST_SHARE, MOST_SHARE = PAPER_IMAGES * SAMPLE_FLOP / PEAKS["RTX 4090"], 0.549
KEPT = Path(__file__).parents[1] / "results" / "2-core-cpu"
#: Group of the records that the plan takes from each benchmark.
GROUPS = {"ingest": GROUP, "shards": GROUP, "load": "load map2d"}


def plan(
    objects: Annotated[float, typer.Option(help="Objects of the survey, such as 14e6.")] = 14e6,
    gpu: Annotated[str, typer.Option(help="rtx4090, a100, ..., or samples a second that you measured.")] = "rtx4090",
    cores: Annotated[int, typer.Option(help="CPU cores.")] = 16,
    disk: Annotated[str, typer.Option(help=f"{', '.join(DISKS)}, or MB/s that you measured.")] = "nvme",
    survey: Annotated[
        str, typer.Option(help="Whose files: lamost, sdss, or shares, such as lamost=0.7,sdss=0.3.")
    ] = ("lamost,sdss"),
    encoding: Annotated[str, typer.Option(help="Of the samples: png, pnm, jpeg or flux.")] = "png",
    epochs: Annotated[int, typer.Option(help="Of the training.")] = 30,
    split: Annotated[str, typer.Option(help="Shares of train, val and test; the paper has 0.6,0.2,0.2.")] = (
        ",".join(map(str, SPLIT))
    ),
    source: Annotated[
        Path | None, typer.Option("--records", help="Folder of records. [what `make bench` left, else those kept]")
    ] = None,
) -> None:
    """Say what a survey costs on a machine, stage by stage, from measured records, and what limits it."""
    rows, assumed = planned(objects, gpu, cores, disk, survey, encoding, epochs, source, split)
    print(f"{objects:,.0f} objects of {survey}, map2d {encoding}, on {cores} cores, {disk} disk, {gpu}\n")
    print(rows)
    print("\nAssumed:")
    print("\n".join(f"- {line}" for line in assumed))


def planned(
    objects: float, gpu: str, cores: int, disk: str, survey: str, encoding: str, epochs: int, source: Path | None,
    split: str = ",".join(map(str, SPLIT)),
) -> tuple[str, list[str]]:  # fmt: skip
    """The table of a plan, as Markdown, and what it assumes, a line each; see `plan` for the arguments.

    Raises:
        UsageError: a number out of range, a machine that is not known, or records that are missing.
    """
    if objects < 1 or cores < 1 or epochs < 1:
        raise UsageError("give at least one object, one core and one epoch")
    images, gpu_line = speed(gpu)
    shares = shares_of(split)
    slow, fast = (Hardware(cores, rate(disk), each) for each in images)
    runs = find(source)
    costs = Costs.of({name: run.records for name, run in runs.items()}, mixture(survey), encoding)

    def on(machine: Hardware) -> list[Stage]:
        return stages(costs, machine, round(objects), epochs, shares)

    return table(on, slow, fast), [*assumptions(costs, slow, runs, disk, shares), gpu_line]


def mixture(survey: str) -> dict[str, float]:
    """Surveys and their shares, of `lamost`, `lamost,sdss` (equal shares) or `lamost=0.7,sdss=0.3`.

    Raises:
        UsageError: shares that are no numbers above 0, or that come to something else than 1.
    """
    parts = [part.strip().partition("=") for part in survey.split(",") if part.strip()]
    try:
        found = {name.strip(): float(share) if share else 1 / len(parts) for name, _, share in parts}
    except ValueError:
        found = {}
    if not found or min(found.values()) <= 0 or abs(sum(found.values()) - 1) > 0.01:
        raise UsageError(
            f"--survey {survey}: give lamost, sdss, or both with shares that come to 1: lamost=0.7,sdss=0.3"
        )
    return found


def shares_of(split: str) -> tuple[float, ...]:
    """Train, val and test.

    Raises:
        UsageError: not three shares that come to 1.
    """
    try:
        found = tuple(float(share) for share in split.split(","))
    except ValueError:
        found = ()
    if len(found) != 3 or min(found) < 0 or found[0] == 0 or abs(sum(found) - 1) > 0.01:
        raise UsageError(f"--split {split}: give shares of train, val and test that come to 1, such as 0.8,0.1,0.1")
    return found


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


def speed(gpu: str) -> tuple[tuple[float, float], str]:
    """Training samples a second, at least and at most, and where that is from."""
    peak = next((peak for name, peak in PEAKS.items() if _plain(name) in _plain(gpu)), None)
    if peak is not None:
        least, most = (share * peak / SAMPLE_FLOP for share in (LEAST_SHARE, MOST_SHARE))
        return (least, most), (
            f"GPU: {least:,.0f} to {most:,.0f} samples/s of a ViT-B/16, {LEAST_SHARE:.0%} to {MOST_SHARE:.0%} of "
            f"{peak / 1e12:.0f} TFLOP/s (bf16): not measured here, so between the share that the paper's nine days "
            f"come to with its split (60% trained on, 20% looked at after each epoch) and the best that is published "
            f"for a vision transformer (54.9%, ViT-22B); measure yours with `make bench-train` and give that as --gpu"
        )
    try:
        images = float(gpu)
    except ValueError:
        images = 0.0
    if images <= 0:
        names = ", ".join(_plain(name) for name in PEAKS)
        raise UsageError(f"unknown --gpu {gpu}: give one of {names}, or its training samples a second")
    return (images, images), f"GPU: {images:,.0f} samples/s, as given"


def rate(disk: str) -> float:
    """Bytes a second of a disk."""
    try:
        bytes_per_second = DISKS[disk] if disk in DISKS else 1e6 * float(disk)
    except ValueError:
        bytes_per_second = 0.0
    if bytes_per_second <= 0:
        raise UsageError(f"unknown --disk {disk}: give {', '.join(DISKS)}, or its MB/s")
    return bytes_per_second


def table(on: Callable[[Hardware], list[Stage]], slow: Hardware, fast: Hardware) -> str:
    """Markdown: a row a stage, and in the last columns what it takes with twice as much of a resource.

    Args:
        on: the stages on a machine. slow, fast: the machine, with the least and the most that its GPU may do.
    """
    heads = ["", "time", "limited by", *(f"alone: {name}" for name in RESOURCES), "reads", "writes",
             *(f"2x {name}" for name in RESOURCES)]  # fmt: skip
    ends = [(on(machine), [on(machine.doubled(name)) for name in RESOURCES]) for machine in (fast, slow)]
    (least, least_more), (most, most_more) = ends
    rows = []
    for i, (quick, stage) in enumerate(zip(least, most, strict=True)):
        alone = [
            span(quick.seconds[name], stage.seconds[name]) if name in stage.seconds else "" for name in RESOURCES
        ]
        then = [span(a[i].total, b[i].total) for a, b in zip(least_more, most_more, strict=True)]
        limits = stage.limit if stage.limit == quick.limit else f"{stage.limit} or {quick.limit}"
        time = span(quick.total, stage.total)
        rows.append([stage.name, time, limits, *alone, size(stage.reads), size(stage.writes), *then])
    then = [span(whole(a), whole(b)) for a, b in zip(least_more, most_more, strict=True)]
    return markdown(heads, [*rows, ["files to model", span(whole(least), whole(most)), *[""] * 6, *then]])


def assumptions(
    costs: Costs, machine: Hardware, runs: Mapping[str, Run], disk: str, split: Sequence[float]
) -> list[str]:
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
        f"an epoch is {split[0]:.0%} of the objects for training and {split[1]:.0%} for validation at a third of the "
        f"cost: {passes(split):.2f} training samples for each object of the survey",
        "reading, computing and training go on side by side, so that the slowest of them counts",
    ]
    return lines


def formula(job: JobTime) -> str:
    """A job in words."""
    return (
        f"{job.start:.1f} s, and for each object {1e6 * job.shared:,.0f} us that nobody shares and "
        f"{1e6 * job.own:,.0f} us that the cores share"
    )


def span(least: float, most: float) -> str:
    """Two durations as a range, or the one that both are."""
    return duration(most) if duration(least) == duration(most) else f"{duration(least)} to {duration(most)}"


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

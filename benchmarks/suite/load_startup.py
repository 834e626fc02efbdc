"""Opening a million samples: seconds until `loader.open` returns and until the first batch, and memory.

    python -m specshards.benchmarks.suite.load_startup WARM FOLDER BACKEND BATCHES    one measurement, as a JSON line

One shard is linked under many numbers, so that its bytes lie in the page cache once.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from specshards.benchmarks.kit.records import Record

SHARD = 8192
SAMPLES = 1_000_000
BATCH = 64
#: Batches after which a loader has as many shards open as it ever has: two windows of its shuffle, and some more.
ON = 2500


def make_shard(folder: Path) -> Path:
    """A shard folder with shards of `SHARD` train samples of the mock survey at scale."""
    from specshards.ingest.mock.scale.config import ScaleConfig
    from specshards.ingest.mock.scale.job import write_parquet_survey
    from specshards.shards.format.manifest import ShardConfig
    from specshards.shards.write.build import build

    if not (folder / "one" / "manifest.json").exists():
        # Fewer would make smaller shards: a data set has four of them at least.
        write_parquet_survey(ScaleConfig("lamost", n=4 * SHARD), folder)
        build(ShardConfig(split=(1, 0, 0), samples_per_shard=SHARD), folder / "spectra", folder / "one")
    return folder / "one"


def link_many(one: Path, many: Path, samples: int) -> int:
    """A data set of at least `samples`: the first shard of `one`, linked under new numbers. Returns how many."""
    from specshards.shards.format.manifest import MANIFEST, Manifest

    manifest = Manifest.load(one)
    record = manifest.split("train")[0]
    copies = -(-samples // record.samples)
    shutil.rmtree(many, ignore_errors=True)
    (many / "train").mkdir(parents=True)
    records = []
    for number in range(copies):
        name = f"train/train-{number:06d}.tar"
        for path in (record.path(one), record.index(one), record.sidecar(one)):
            os.link(path, (many / name).with_suffix(path.suffix))
        records.append(replace(record, name=name))
    total = copies * record.samples
    # The manifest comes last, as always.
    whole = replace(manifest, shards=tuple(records), objects=total, quarantined=0, label_stats={})
    (many / MANIFEST).write_text(whole.dumps())
    return total


def probe(warm: Path, folder: Path, backend: str, batches: int) -> dict[str, float]:
    """Open `folder`, take a batch and then `batches` more, in a process where `warm` has brought in all libraries."""
    from specshards.shards import loader

    with loader.open(warm, "train", BATCH, backend=backend) as warming:
        next(iter(warming))
    before = _memory()
    start = time.perf_counter()
    opened = loader.open(folder, "train", BATCH, backend=backend)
    opened_at = time.perf_counter()
    next(iter(opened))
    numbers = {"open": opened_at - start, "first": time.perf_counter() - start, **_grown(before, "")}
    while batches > 0:
        for _ in opened:
            batches -= 1
            if batches <= 0:
                break
    numbers |= _grown(before, " later")
    opened.close()
    return numbers


def _grown(before: dict[str, float], suffix: str) -> dict[str, float]:
    return {name + suffix: value - before[name] for name, value in _memory().items()}


def _memory() -> dict[str, float]:
    """Bytes resident: all, and those that are not pages of files (mapped archives, which the system may drop)."""
    path = Path("/proc/self/status")
    status = path.read_text() if path.exists() else ""
    sizes = {name: re.search(rf"^{name}:\s+(\d+) kB", status, re.M) for name in ("VmRSS", "RssAnon")}
    return {name: 1024.0 * int(match[1]) if match else float("nan") for name, match in sizes.items()}


def startup_records(folder: Path, rounds: int, samples: int = SAMPLES, on: int = ON) -> list[Record]:
    """Seconds and the loader's own bytes per million samples; the last round alone goes `on`."""
    from specshards.shards.loader.dali import dali_is_here

    one, many = make_shard(folder), folder / "many"
    total = link_many(one, many, samples)
    small = link_many(one, folder / "few", 1)
    backends = ("dali", "plain") if dali_is_here() else ("plain",)
    measured: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(rounds):
        for backend in backends:
            for size in ("few", "many"):
                run = _fresh(one, folder / size, backend, on if number == rounds - 1 else 0)
                measured.setdefault((backend, size), []).append(run)
    records = []
    for what, title in (("open", "open"), ("first", "open and first batch")):
        for backend in backends:
            few_runs, many_runs = measured[backend, "few"], measured[backend, "many"]
            own, small_own, later, pages = (
                _median(runs, name) / 1e6
                for runs, name in ((many_runs, "RssAnon"), (few_runs, "RssAnon"), (many_runs[-1:], "RssAnon later"),
                                   (many_runs[-1:], "VmRSS later"))
            )  # fmt: skip
            note = (
                f"{title}: {_median(many_runs, what):.3f} s for {total:,} samples, {_median(few_runs, what):.3f} s "
                f"for one shard of {small:,}; memory of its own after the first batch {own:.0f} MB, "
                f"{small_own:.0f} MB; {on * BATCH:,} samples later {later:.0f} MB, and {pages - later:.0f} MB of "
                "pages of mapped archives"
            )
            seconds = tuple(run[what] / total * 1e6 for run in many_runs)
            group = f"start-up of a million samples, {title}"
            records.append(Record(group, backend, seconds, note=note, bytes=own * 1e6 / total * 1e6))
    return records


def _median(runs: list[dict[str, float]], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def _fresh(warm: Path, folder: Path, backend: str, batches: int) -> dict[str, float]:
    arguments = [str(warm), str(folder), backend, str(batches)]
    command = [sys.executable, "-m", "specshards.benchmarks.suite.load_startup", *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(probe(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))))

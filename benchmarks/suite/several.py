"""`specshards bench several`: what a picture costs a loader that draws one of each spectrum, and several.

From one data set of spectra, batches of 64 pictures of 224 x 224, on one thread: each picture alone, the three mixed
over an epoch as training has them, and the three of each object together as validation has them. CPU time of the
whole process, in turn; a batch that is read, decoded, drawn and coloured, but for checksums.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import numba
import typer

from specshards.benchmarks.kit.records import Record
from specshards.benchmarks.kit.report import LOCAL, Out, Quick, Rounds, recording
from specshards.benchmarks.suite.load_data import BATCH
from specshards.common.jobs import Engine
from specshards.ingest.mock.scale.config import ScaleConfig
from specshards.ingest.mock.scale.job import write_parquet_survey
from specshards.shards import loader
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.loader.dali import dali_is_here
from specshards.shards.write.build import build

IMAGES = ("simple:paper", "overlap:paper", "map2d:paper")
GROUP = "CPU time of a picture, drawn while loading"


def _contenders(shards: Path, stack: ExitStack) -> dict[str, loader.Loader]:
    asked: dict[str, dict[str, Any]] = {image: {"images": [image]} for image in IMAGES}
    asked |= {"three mixed": {"images": IMAGES}, "three together": {"images": IMAGES, "together": True}}
    found = {}
    for backend in ("dali", "plain") if dali_is_here() else ("plain",):
        for name, options in asked.items():
            opened = loader.open(shards, "train", BATCH, backend=backend, threads=1, verify=False, **options)
            batches = found[f"{backend}, {name}"] = stack.enter_context(opened)
            # The number is a thread's own. Two that wait for each other would spend CPU time on waiting.
            batches._painting.submit(numba.set_num_threads, 1).result()
    return found


def _epoch(batches: loader.Loader) -> float:
    """CPU seconds a picture of one epoch."""
    began, count = time.process_time(), 0
    for batch in batches:
        count += batch["pixel_values"][..., 0, 0, 0].numel()
    return (time.process_time() - began) / count


def main(
    out: Out = LOCAL / "several.json",
    count: Annotated[int, typer.Option(help="Mock spectra.", min=64)] = 2000,
    rounds: Rounds = 7,
    quick: Quick = False,
) -> None:
    """What drawing several pictures of each spectrum costs beside one."""
    with recording("several", out, quick) as draft, tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        if quick:
            count, rounds = 128, 1
        draft.data = "mock"
        folder = Path(name)
        write_parquet_survey(ScaleConfig("lamost", n=count), folder)
        build(ShardConfig(encoding="flux"), folder / "spectra", folder / "flux", engine=Engine(workers=0))
        loaders = _contenders(folder / "flux", stack)
        values: dict[str, list[float]] = {name: [] for name in loaders}
        for number in range(rounds + 1):
            for name, batches in loaders.items():
                seconds = _epoch(batches)
                if number:
                    values[name].append(seconds)
        about = {"threads": 1.0, "batch": float(BATCH), "objects": float(count)}
        draft.records = [Record(GROUP, name, tuple(found), about=about) for name, found in values.items()]

"""`specshards bench verify`: what it costs that a loader compares what it reads with its checksums.

The first epoch of a new loader, from opening it to its end, with the comparison and without, in turn: in later epochs
there is nothing left to compare. Batches that nobody does anything with are the worst case; then each is a training
step of the `tiny` model. All is read from the page cache.

What is counted is the CPU time of all threads, because the comparison runs in one of low priority beside the others:
on a machine with an idle core the clock would not show it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from specshards.benchmarks.kit.records import Record
from specshards.benchmarks.kit.report import LOCAL, Out, Quick, Rounds, recording
from specshards.benchmarks.suite.train import make_shards, make_step
from specshards.shards import loader

ENCODINGS = ("png", "pnm", "flux")
WITH, WITHOUT = "compared", "not compared"
_BATCH = 64


def epoch(folder: Path, verify: bool, step: Callable[[Any], None] = lambda batch: None) -> int:
    """The first epoch of a new loader; its samples."""
    with loader.open(folder, "train", _BATCH, verify=verify) as batches:
        for batch in batches:
            step(batch)
        return batches.samples


def measure(objects: int, training: int, rounds: int, scratch: Path) -> list[Record]:
    """Epochs of a loader alone, by encoding, and of training.

    Args:
        objects: in the shards that are only loaded. training: in those that are learnt from.
    """
    from specshards.train.accelerator import make_accelerator

    records = []
    folders = make_shards(scratch / "load", objects, ENCODINGS)
    for encoding, folder in folders.items():
        records += _pair(f"load, {encoding}", partial(epoch, folder), rounds)
    step, _ = make_step(make_accelerator("cpu"), compiled=False)
    folder = make_shards(scratch / "train", training, ("png",))["png"]
    return [*records, *_pair("train tiny, png", lambda verify: epoch(folder, verify, step), rounds)]


def _pair(group: str, work: Callable[[bool], int], rounds: int) -> list[Record]:
    values: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds + 1):
        for verify, found in values.items():
            start = time.process_time()
            count = work(verify)
            if number:  # the first round warms up
                found.append((time.process_time() - start) / count)
    names = {False: WITHOUT, True: WITH}
    return [Record(f"CPU time of a first epoch, {group}", names[v], tuple(found)) for v, found in values.items()]


def notes(records: list[Record]) -> list[str]:
    """What the comparison adds to each pair, in the first epoch and over ten."""
    found = []
    for one, other in zip(records[::2], records[1::2], strict=True):
        more = other.median / one.median - 1
        found.append(f"{one.group}: compared takes {more:+.1%}; {more / 10:+.2%} over ten epochs")
    return found


def main(
    out: Out = LOCAL / "verify.json",
    objects: Annotated[int, typer.Option(help="Mock objects in the shards that are loaded.", min=40)] = 4000,
    training: Annotated[int, typer.Option(help="In those that are learnt from.", min=40)] = 400,
    rounds: Rounds = 7,
    quick: Quick = False,
) -> None:
    """Time a loader's first epoch with and without the comparison with checksums, interleaved."""
    with recording("verify", out, quick) as draft, tempfile.TemporaryDirectory() as scratch:
        if quick:
            objects, training, rounds = 60, 60, 1
        draft.records = measure(objects, training, rounds, Path(scratch))
        draft.notes += notes(draft.records)

"""`specshards bench whole`: a whole survey from spectra Parquet to verified shards, in one run.

The spectra are mock ones, written beforehand and not counted. Then `shards build` and `shards verify --deep` run as a
user types them, with their start included; peak memory is that of the largest process of each.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

from specshards.benchmarks.kit.process import measured, room_command
from specshards.benchmarks.kit.records import Record
from specshards.benchmarks.kit.report import LOCAL, Out, recording
from specshards.benchmarks.suite.shards import mock


def main(
    out: Out = LOCAL / "whole.json",
    scratch: Annotated[Path, typer.Option(help="Folder for the survey and its shards: 30 GB a million.")] = (
        LOCAL / "whole"
    ),
    objects: Annotated[int, typer.Option(help="Mock objects.", min=1)] = 1_000_000,
    workers: Annotated[int, typer.Option(help="Worker processes.", min=1)] = 2,
) -> None:
    """Build and verify a large mock survey, once."""
    with recording("whole", out) as draft:
        draft.records = measure(objects, workers, scratch)


def measure(objects: int, workers: int, scratch: Path) -> list[Record]:
    """Build, verify, and the two together."""
    spectra, shards = mock(objects, scratch), scratch / "shards"
    shutil.rmtree(shards, ignore_errors=True)
    about = {"objects": float(objects), "workers": float(workers)}
    records = []
    build = room_command("shards", "build", spectra=spectra, out=shards, workers=workers)
    verify = room_command("shards", "verify", shards, "--deep", workers=workers)
    for name, command in (("build", build), ("verify --deep", verify)):
        seconds, peak = measured(command)
        note = f"{seconds:.0f} s in all, peak memory of the largest process {peak:.0f} MB"
        group = f"{objects:,} objects, {workers} workers"
        records.append(Record(group, name, (seconds / objects,), note=note, about=about))
    size = sum(path.stat().st_size for path in shards.rglob("*") if path.is_file())
    manifest = json.loads((shards / "manifest.json").read_text())
    tars = sum(shard["bytes"] for shard in manifest["shards"])
    note = f"{tars / objects:,.0f} bytes an object in tars, {size / objects:,.0f} with index, sidecars and ledger"
    both = sum(record.median for record in records)
    whole = Record(group, "Parquet to verified shards", (both,), note=note, bytes=size / objects, about=about)
    return [*records, whole]

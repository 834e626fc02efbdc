"""`specshards bench survey`: a survey of any size through every command of the road, in tiny pictures.

The rows are a few thousand short spectra with ids, places and labels of their own; the pictures are 8 x 8 values.
What grows with the number of objects, of files and of shards is all there. What grows with the length of a spectrum
or the side of a picture is not; the other benchmarks have it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from specshards.benchmarks.kit.machine import Machine
from specshards.benchmarks.kit.records import Record
from specshards.benchmarks.kit.report import LOCAL, Quick, recording
from specshards.benchmarks.survey import growth
from specshards.benchmarks.survey.road import STAGES, Road, Row
from specshards.common.errors import UsageError, make_folder
from specshards.common.jobs import cores

#: Bytes of a row on the disk, all in all: 2,048 in its tar, the least that two members of a tar take; index, sidecar,
#: Parquet, answers.
_BYTES = 2_600
_SPARE = 4e9
_QUICK = ("rows", "build")


def main(
    out: Annotated[Path | None, typer.Option(help="The JSON record; table and plot go beside it.")] = None,
    objects: Annotated[float, typer.Option(help="Rows, such as 1e5 or 14e6.", min=1)] = 1e5,
    stages: Annotated[str, typer.Option(help="Some of them, with commas; what is done is not done again.")] = (
        ",".join(STAGES)
    ),
    scratch: Annotated[Path | None, typer.Option(help="Folder for all of it: 2.6 kB a row.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes. By default all cores.", min=1)] = None,
    minutes: Annotated[float, typer.Option(help="That a stage may take before it is stopped.")] = 60.0,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the folder there at the end.")] = False,
    quick: Quick = False,
) -> None:
    """Take a made-up survey through every command; say time, memory and open files of each, and how they grow."""
    number = 400 if quick else round(objects)
    names = [name.strip() for name in (",".join(_QUICK) if quick else stages).split(",")]
    if unknown := sorted(set(names) - set(STAGES)):
        raise UsageError(f"--stages: no stage {', '.join(unknown)}; choose {', '.join(STAGES)}")
    out = out or LOCAL / f"survey-{number}.json"
    folder = scratch or LOCAL / f"survey-{number}"
    make_folder(folder)
    _check_room(folder, number)
    # Half of the memory: what needs more is stopped before others are.
    most = (Machine.here().memory or 1e12) / 2 / 2**20
    road = Road(number, folder.absolute(), 0 if quick else workers or cores(), minutes, most)
    with recording("survey", out, quick) as draft:
        for row in road.run(names):
            print(_line(row), file=sys.stderr, flush=True)
        draft.records = records(road.rows())
        draft.notes += notes(number)
    growth.write(out)
    if not keep:
        shutil.rmtree(folder)


def _check_room(folder: Path, objects: int) -> None:
    there = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    free, needed = shutil.disk_usage(folder).free + there, _BYTES * objects + _SPARE
    if free < needed:
        raise UsageError(
            f"{folder}: {objects:,} rows take {needed / 1e9:.0f} GB of disk, {free / 1e9:.0f} GB are free; "
            "give another --scratch, or fewer --objects"
        )


def records(rows: Sequence[Row]) -> list[Record]:
    """Time and memory of all stages; one that failed has its error in place of values."""
    found = []
    for row in rows:
        about = {"objects": float(row.objects), "handles": float(row.handles)}
        about |= {"largest": row.largest, "together": row.together, "own": row.own}
        values = () if row.seconds is None else (row.seconds / row.objects,)
        size = row.bytes / row.objects if row.bytes else None
        said = row.note if row.seconds is None else f"{row.seconds:,.2f} s" + (f"; {row.note}" if row.note else "")
        found.append(Record("time", row.name, values, note=f"failed: {row.error}" if row.error else said, bytes=size,
                            about=about | ({} if row.seconds is None else {"seconds": row.seconds})))  # fmt: skip
    found += [
        Record("peak memory of all processes", row.name, (row.together,), "MB",
               note=f"the largest {row.largest:,.0f} MB; of all without pages of files {row.own:,.0f} MB")
        for row in rows if row.largest
    ]  # fmt: skip
    return found


def notes(objects: int) -> list[str]:
    """What the numbers mean."""
    return [
        f"{objects:,} rows: short spectra of 64 pixels, pictures of 8 x 8 values, a model of one small layer",
        "every stage is a command in a process of its own, its start included; memory and open files were looked at "
        "five times a second",
    ]


def _line(row: Row) -> str:
    took = f"failed: {row.error}" if row.seconds is None else f"{row.seconds:,.2f} s"
    return f"{row.name}: {took}; {row.largest:,.0f} MB, {row.handles:,} files. {row.note}"

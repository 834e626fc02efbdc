"""`specshards shards verify`, `inspect` and `report`: is a data set sound, and what is in it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from specshards.common.arguments import Fields, configured
from specshards.common.errors import JobError
from specshards.common.files import location
from specshards.common.jobs import Engine

_Folder = Annotated[
    str,
    typer.Argument(metavar="FOLDER", help="A data set: the folder with manifest.json in it, or s3://bucket/folder."),
]


@configured
def verify(
    folder: _Folder,
    engine: Annotated[Engine, Fields("Processes")],
    deep: Annotated[bool, typer.Option("--deep", help="Read every byte: checksums, images, labels, sky.")] = False,
) -> None:
    """Check that a data set is whole and sound; one line a check, exit code 1 when one has failed."""
    from specshards.shards.check.verify import verify as checks_of

    started = time.perf_counter()
    checks = checks_of(location(folder), deep=deep, engine=engine)
    width = max(len(check.name) for check in checks)
    for check in checks:
        state = "FAIL" if not check.passed else "note" if check.note else "ok"
        print(f"{state:<4}  {check.name:<{width}}  {check.detail}")
    failed = [check.name for check in checks if not check.passed]
    if failed:
        raise JobError(f"{folder}: {len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")
    more = "" if deep else "; --deep reads every byte"
    print(f"{folder}: {len(checks)} checks passed in {time.perf_counter() - started:.1f} s{more}")


@configured
def inspect(
    folder: _Folder,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    shard: Annotated[int, typer.Option(help="Number of the shard, as in its file's name.")] = 0,
    count: Annotated[int, typer.Option(help="Samples shown, from the first on.")] = 16,
    out: Annotated[
        Path | None, typer.Option(help="Picture to write. Default: SPLIT-SHARD.png in this folder.")
    ] = None,
) -> None:
    """List the first samples of a shard and draw them on one sheet; list the further columns of the data set."""
    from specshards.common.text import aligned
    from specshards.shards.format.manifest import Manifest
    from specshards.shards.report.further import as_rows, count_further
    from specshards.shards.report.head import read_head

    where = location(folder)
    head = read_head(where, split=split, shard=shard, count=count, out=out)
    for line in head.lines():
        print(line)
    if counts := count_further(where, Manifest.load(where)):
        print("", *aligned(as_rows(counts), ()), sep="\n")
    print(f"\n{head.split}")
    print(f"{len(head.rows)} of {head.record.samples:,} samples of {head.record.name}, drawn in {head.sheet}")


@configured
def report(
    folder: _Folder,
    spectra: Annotated[
        Path | None,
        typer.Option(help="Where the spectra Parquet is that pictures were drawn from. Default: where it was."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The page. Default: FOLDER/report.html.")] = None,
) -> None:
    """Write FOLDER/report.html: counts, distributions, sky, samples, quarantine, on one page that opens from disk.

    `make shards`, build, reshard and merge end with it.
    """
    from specshards.shards.report.make import write_page

    print(write_page(location(folder), None if spectra is None else spectra.expanduser(), out))

"""`specshards ingest mock`: a mock survey with known truth, as spectra Parquet or as FITS files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from specshards.common import options
from specshards.common.arguments import Fields, configured
from specshards.common.errors import UsageError
from specshards.common.jobs import Engine
from specshards.ingest.mock import MockConfig, plan, write_with_progress
from specshards.ingest.mock.scale.config import ScaleConfig


@configured
def command(
    n: Annotated[int, typer.Argument(metavar="N", help="Number of spectra.")],
    scale: Annotated[ScaleConfig, Fields(leave_out=("n",))],
    files: Annotated[MockConfig, Fields(leave_out=("n_files",))],
    engine: Annotated[Engine, Fields("Processes")],
    out: Annotated[Path | None, typer.Option(help="Folder to write to (data/mock-SURVEY).")] = None,
    form: Annotated[
        str, typer.Option("--as", help="parquet: spectra for `shards build`. fits: files in the survey's layouts.")
    ] = "parquet",
    force: options.Force = False,
) -> None:
    """Simulate N spectra of known truth: thousands a second and core as Parquet, hundreds as FITS files.

    The same seed gives the same bytes on any number of workers, and a larger N begins with the spectra of a smaller
    one; a rerun goes on where the last one stopped. Mock data is for testing a pipeline, not for science.
    """
    out = out or Path(f"data/mock-{scale.survey}")
    if form == "parquet":
        _only("fits", files, ("damaged_fraction",))
        _parquet(replace(scale, n=n), out, engine, force)
    elif form == "fits":
        if engine.scheduler is not None:
            raise UsageError("--scheduler: FITS files are written by processes of this machine; drop it or --as fits")
        if engine.memory is not None:
            raise UsageError("--memory: only for --as parquet; drop it or --as fits")
        _only("parquet", scale, ("templates", "part_rows", "row_group_rows"))
        try:
            files = replace(files, n_files=n)
        except ValueError as error:
            raise UsageError(str(error)) from error
        _fits(files, out, engine.workers)
    else:
        raise UsageError(f"--as {form}: choose parquet or fits")


def _only(form: str, config: ScaleConfig | MockConfig, names: Sequence[str]) -> None:
    for name in names:
        if getattr(config, name) != getattr(type(config), name):
            raise UsageError(f"--{name.replace('_', '-')}: only for --as {form}; drop it, or choose that")


def _parquet(config: ScaleConfig, out: Path, engine: Engine, force: bool) -> None:
    from specshards.ingest.mock.scale.job import write_parquet_survey  # which compiles: not for every command's help

    began = perf_counter()
    summary = write_parquet_survey(config, out, engine=engine, force=force)
    print(summary.table())
    _report(out / "spectra", config.n, perf_counter() - began, summary.file_bytes)


def _fits(config: MockConfig, out: Path, workers: int) -> None:
    from specshards.ingest.mock.scale.job import class_table

    began = perf_counter()
    result = write_with_progress(config, out, workers)
    entries = plan(config)
    seen = Counter(entry.kind for entry in entries)
    distinct = Counter(entry.kind for entry in entries if entry.visit == 1)
    print(class_table({kind: (seen[kind], distinct[kind]) for kind in seen}))
    print(f"{result.n_damaged:,} of the files are damaged on purpose; true labels in {result.catalogue}")
    _report(out, config.n_files, perf_counter() - began, None)


def _report(where: Path, n: int, seconds: float, file_bytes: int | None) -> None:
    size = "" if file_bytes is None else f", {file_bytes / 1e9:.2f} GB"
    print(f"MOCK data: {where}: {n:,} spectra{size} in {seconds:.1f} s, {n / seconds:,.0f} objects/s")

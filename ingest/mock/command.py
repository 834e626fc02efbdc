"""`specshards ingest mock`: a mock survey with known truth, as spectra Parquet or as FITS files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from specshards.common import options
from specshards.common.errors import UsageError
from specshards.common.jobs import Engine, engine_of
from specshards.ingest.mock.objects import SURVEYS


def command(
    n: Annotated[int, typer.Argument(metavar="N", help="Number of spectra.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write to (data/mock-SURVEY).")] = None,
    survey: Annotated[str, typer.Option(help=f"Which survey to imitate: {' or '.join(SURVEYS)}.")] = "lamost",
    form: Annotated[
        str, typer.Option("--as", help="parquet: spectra for `shards build`. fits: files in the survey's layouts.")
    ] = "parquet",
    seed: options.Seed = 0,
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    memory: options.Memory = None,
    force: options.Force = False,
) -> None:
    """Simulate N spectra of known truth: thousands a second and core as Parquet, hundreds as FITS files.

    The same seed gives the same bytes on any number of workers, and a larger N begins with the spectra of a smaller
    one; a rerun goes on where the last one stopped. Mock data is for testing a pipeline, not for science.
    """
    out = out or Path(f"data/mock-{survey}")
    if form == "parquet":
        _parquet(survey, n, out, seed, engine_of(workers, scheduler, memory), force)
    elif form == "fits":
        if scheduler is not None:
            raise UsageError("--scheduler: FITS files are written by processes of this machine; drop it or --as fits")
        if memory is not None:
            raise UsageError("--memory: only for --as parquet; drop it or --as fits")
        _fits(survey, n, out, seed, workers)
    else:
        raise UsageError(f"--as {form}: choose parquet or fits")


def _parquet(survey: str, n: int, out: Path, seed: int, engine: Engine, force: bool) -> None:
    from time import perf_counter

    from specshards.ingest.mock.scale.job import ScaleConfig, write_parquet_survey

    began = perf_counter()
    config = ScaleConfig(survey, n, seed)
    summary = write_parquet_survey(config, out, engine=engine, force=force)
    print(summary.table())
    _report(out / "spectra", n, perf_counter() - began, summary.file_bytes)


def _fits(survey: str, n: int, out: Path, seed: int, workers: int | None) -> None:
    from time import perf_counter

    from specshards.ingest.mock import MockConfig, plan, write_with_progress
    from specshards.ingest.mock.scale.job import class_table

    try:
        config = MockConfig(survey, n_files=n, seed=seed)
    except ValueError as error:
        raise UsageError(str(error)) from error
    began = perf_counter()
    result = write_with_progress(config, out, workers)
    entries = plan(config)
    seen = Counter(entry.kind for entry in entries)
    distinct = Counter(entry.kind for entry in entries if entry.visit == 1)
    print(class_table({kind: (seen[kind], distinct[kind]) for kind in seen}))
    print(f"{result.n_damaged:,} of the files are damaged on purpose; true labels in {result.catalogue}")
    _report(out, n, perf_counter() - began, None)


def _report(where: Path, n: int, seconds: float, file_bytes: int | None) -> None:
    size = "" if file_bytes is None else f", {file_bytes / 1e9:.2f} GB"
    print(f"MOCK data: {where}: {n:,} spectra{size} in {seconds:.1f} s, {n / seconds:,.0f} objects/s")

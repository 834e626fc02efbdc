"""`specshards ingest`: survey files to spectra Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specshards.common import options
from specshards.common.cli import run_app
from specshards.common.jobs import engine_of
from specshards.ingest import inspect
from specshards.ingest.catalogue import select
from specshards.ingest.download import job
from specshards.ingest.mock import command as mock_command

app = typer.Typer(
    help="Survey FITS files in, one documented Parquet data set of spectra out; every file accounted for.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def build(
    out: Annotated[Path, typer.Option(help="Folder for spectra/*.parquet and ingest/ (quarantine, summary).")],
    data: options.Data = None,
    survey: options.AnySurvey = None,
    catalog: options.Catalog = None,
    cuts: options.Cuts = None,
    where: options.Where = None,
    listed_only: options.ListedOnly = False,
    n: options.Number = None,
    seed: options.Seed = 0,
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    memory: options.Memory = None,
    max_bad_fraction: options.MaxBadFraction = 0.05,
    force: options.Force = False,
) -> None:
    """Read survey files into OUT/spectra/*.parquet; a rerun goes on where the last one stopped."""
    from specshards.ingest.job.survey import ingest_survey

    ingest_survey(
        survey, out, data=data, catalogue=catalog, n=n, cuts=cuts, where=where, listed_only=listed_only, seed=seed,
        engine=engine_of(workers, scheduler, memory), max_bad_fraction=max_bad_fraction, force=force,
    )  # fmt: skip


app.command("download", no_args_is_help=True)(job.command)
app.command("inspect", no_args_is_help=True)(inspect.command)
app.command("select", no_args_is_help=True)(select.command)
app.command("mock", no_args_is_help=True)(mock_command.command)


if __name__ == "__main__":
    run_app(app)

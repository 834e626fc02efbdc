"""`python -m ingest`: survey files to spectra Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ingest.errors import run_app
from ingest.jobs import Engine
from ingest.surveys import reader

app = typer.Typer(
    help="Survey FITS files in, one documented Parquet data set of spectra out; every file accounted for.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _rooms() -> None:
    """Keep `build` a named command while it is the only one."""


@app.command()
def build(
    survey: Annotated[str, typer.Option(help="Whose files these are: lamost or sdss.")],
    out: Annotated[Path, typer.Option(help="Folder for spectra/*.parquet and ingest/ (quarantine, summary).")],
    data: Annotated[
        str | None, typer.Option(help="Folder, glob or file of spectra. Without it a mock survey is made.")
    ] = None,
    catalog: Annotated[
        Path | None, typer.Option(help="Label table (CSV, FITS, Parquet), joined on obsid or specobjid.")
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(help="Number of files: of the mock survey (2000), or a random choice of DATA."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the file order, the choice and the mock survey.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Local processes; 0 for none. Default: all cores.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Dask scheduler address or file, for a cluster.")] = None,
    max_bad_fraction: Annotated[float, typer.Option(help="Fail when more than this share of files is bad.")] = 0.05,
    force: Annotated[bool, typer.Option(help="Replace what another input or configuration left in OUT.")] = False,
) -> None:
    """Read survey files into OUT/spectra/*.parquet; a rerun goes on where the last one stopped."""
    from ingest.build import IngestConfig, build

    reader(survey)
    engine = Engine(scheduler=scheduler) if workers is None else Engine(workers, scheduler)
    if data is None:
        from ingest.mock import MockConfig, write_with_progress

        mock = write_with_progress(MockConfig(survey=survey, n_files=n or 2000, seed=seed), out / "mock")
        data, catalog, n = str(mock.folder), catalog or mock.catalogue, None
    build(
        IngestConfig(survey=survey, limit=n, seed=seed), data, out,
        catalogue=catalog, engine=engine, max_bad_fraction=max_bad_fraction, force=force,
    )  # fmt: skip


if __name__ == "__main__":
    run_app(app)

"""`specshards ingest`: survey files to spectra Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specshards.common import options
from specshards.common.arguments import Fields, configured
from specshards.common.cli import application, run_app
from specshards.common.jobs import Engine
from specshards.ingest import inspect, known
from specshards.ingest.catalogue import select
from specshards.ingest.catalogue.help import naming_surveys
from specshards.ingest.download import job
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.mock import command as mock


@naming_surveys
@configured
def build(
    out: Annotated[Path, typer.Option(help="Folder for spectra/*.parquet and ingest/ (quarantine, summary).")],
    config: IngestConfig,
    engine: Annotated[Engine, Fields("Processes")],
    data: options.Data = None,
    catalog: options.Catalog = None,
    max_bad_fraction: options.MaxBadFraction = 0.05,
    force: options.Force = False,
    trust_names: Annotated[
        bool,
        typer.Option(
            "--trust-names", help="A rerun takes files that it knows by name as unchanged, without a look at each."
        ),
    ] = False,
) -> None:
    """Read survey files into OUT/spectra/*.parquet; a rerun goes on where the last one stopped."""
    from specshards.ingest.job.survey import ingest_survey

    ingest_survey(config, out, data=data, catalogue=catalog, engine=engine, max_bad_fraction=max_bad_fraction,
                  force=force, trust_names=trust_names)  # fmt: skip


app = application(
    "Survey FITS files in, one documented Parquet data set of spectra out; every file accounted for.",
    {"build": build, "download": job.command, "inspect": inspect.command, "select": select.command,
     "surveys": known.command, "mock": mock.command},
)  # fmt: skip

if __name__ == "__main__":
    run_app(app)

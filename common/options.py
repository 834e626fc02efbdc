"""Command-line options that `ingest` and `shards` share, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Survey = Annotated[str, typer.Option(help="Whose files these are: lamost, sdss or desi; slomost: sdss and lamost.")]
AnySurvey = Annotated[str | None, typer.Option(help="Take only the files of this survey: lamost, sdss or desi.")]
Data = Annotated[str | None, typer.Option(help="Folder, glob or file of spectra. Without it a mock survey is made.")]
Catalog = Annotated[
    Path | None, typer.Option(help="Label table (CSV, FITS, Parquet), joined on obsid, specobjid or targetid.")
]
Cuts = Annotated[str | None, typer.Option(help="Selection cuts by name: paper (of the published training sets).")]
Where = Annotated[
    str | None, typer.Option(help="A filter, as: snrg > 10 and class in ('STAR', 'QSO') and teff is not null")
]
ListedOnly = Annotated[bool, typer.Option(help="Set aside what the catalogue does not list.")]
Number = Annotated[
    int | None, typer.Option("--n", help="Files: of the mock survey (2000), or a random choice of DATA.")
]
Workers = Annotated[int | None, typer.Option(help="Local processes; 0 for none. Default: all cores.")]
Scheduler = Annotated[str | None, typer.Option(help="Dask scheduler address or file, for a cluster.")]
Memory = Annotated[
    str | None, typer.Option(help="Limit of one local process, as 2GiB. Default: its share, 4GiB at most.")
]
MaxBadFraction = Annotated[float, typer.Option(help="Fail when more than this share of objects is bad.")]
Force = Annotated[bool, typer.Option(help="Replace what another input or configuration left in OUT.")]
Seed = Annotated[int, typer.Option(help="Of every random choice: mock, file order, split, sample order.")]

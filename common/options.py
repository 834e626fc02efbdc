"""Command-line options that `ingest` and `shards` share, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specshards.common.errors import UsageError

Survey = Annotated[str, typer.Option(help="Whose files these are: lamost, sdss or desi; slomost: sdss and lamost.")]
Data = Annotated[str | None, typer.Option(help="Folder, glob or file of spectra. Without it a mock survey is made.")]
Catalog = Annotated[
    Path | None, typer.Option(help="Label table (CSV, FITS, Parquet), joined on obsid, specobjid or targetid.")
]
Where = Annotated[
    str | None, typer.Option(help="A filter, as: snrg > 10 and class in ('STAR', 'QSO') and teff is not null")
]


def _share(value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise UsageError(f"--max-bad-fraction {value:g}: give a share from 0 to 1")
    return value


MaxBadFraction = Annotated[
    float, typer.Option(help="Fail when more than this share of objects is bad.", callback=_share)
]
Force = Annotated[bool, typer.Option(help="Replace what another input or configuration left in OUT.")]
AllowEmptySplit = Annotated[
    bool, typer.Option(help="Take the cells of the sky as they are, also where they leave a split without objects.")
]

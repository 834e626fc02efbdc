"""`specshards ingest select`: a filtered, class-balanced subset of a catalogue or of spectra Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specshards.common.arguments import configured
from specshards.ingest.catalogue.config import SelectConfig
from specshards.ingest.catalogue.help import naming_surveys


@naming_surveys
@configured
def command(
    source: Annotated[
        Path, typer.Option("--from", help="Catalogue (CSV, FITS, Parquet), or folder of spectra Parquet.")
    ],
    out: Annotated[Path, typer.Option(help="Parquet file for a catalogue; folder for spectra.")],
    config: SelectConfig,
    force: Annotated[bool, typer.Option(help="Replace OUT; of a folder, its part-*.parquet.")] = False,
) -> None:
    """Choose what to train on: the objects within a cut, at most so many of each class.

    From a catalogue, before anything is downloaded; or from spectra that are there already. The same seed chooses the
    same objects whatever the order of the rows, and a larger number keeps those of a smaller one.
    """
    from specshards.ingest.catalogue.subset import select

    counts = select(source, out, config, force=force)
    print(f"{out}: {counts.selected:,} rows")

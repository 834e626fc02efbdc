"""`specshards shards`: spectra to tar shards of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from specshards.common import options
from specshards.common.arguments import Fields, configured, option
from specshards.common.cli import application, run_app
from specshards.common.jobs import Engine
from specshards.ingest.catalogue.help import naming_surveys
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.surveys import SURVEYS
from specshards.render.config import ImageConfig, Wanted, presets
from specshards.shards.check.commands import inspect, report, verify
from specshards.shards.format.manifest import ShardConfig


def _picture(preset: str = "default", image: str = ImageConfig.image, **changes: Any) -> Wanted:
    return Wanted.of(preset, image, **changes)


_PRESETS = f"Named choices of what follows: {', '.join(presets())} (paper*: as published)."
_Picture = Annotated[Wanted, Fields("Picture", of=ImageConfig, make=_picture, preset=_PRESETS)]
_Shards = Annotated[ShardConfig, Fields("Shards")]
_Engine = Annotated[Engine, Fields("Processes")]
_Out = Annotated[
    str, typer.Option(help="Folder of the shards, or s3://bucket/folder; manifest.json appears in it last.")
]


@naming_surveys
@configured
def make_survey(
    survey: options.Survey,
    out: Annotated[Path, typer.Option(help="Folder for spectra/, ingest/ and shards/IMAGE/.")],
    picture: _Picture,
    config: _Shards,
    chosen: Annotated[IngestConfig, Fields("Spectra", leave_out=("survey", "wavelength_unit", "medium", "frame"))],
    engine: _Engine,
    data: options.Data = None,
    spectra_frame: Annotated[
        str | None,
        typer.Option(
            help="Of the wavelengths of files that do not say it: observed or rest. Where the files are of no survey "
            "that is read here, --frame says this, too, and this option is for pictures in another frame than theirs."
        ),
    ] = None,
    catalog: Annotated[
        Path | None,
        typer.Option(
            help="Label table (CSV, FITS, Parquet), joined on obsid, specobjid or targetid; of slomost one of each "
            "survey, with commas."
        ),
    ] = None,
    max_bad_fraction: options.MaxBadFraction = 0.05,
    allow_empty_split: options.AllowEmptySplit = False,
    force: options.Force = False,
) -> None:
    """From survey files (or a mock survey) to shards: `ingest build`, then `shards build`. This is `make shards`.

    Spectra that are Parquet already, ours or MultimodalUniverse's, are drawn as they are, unless labels of a
    catalogue are to be joined to them, or some of them chosen by --cuts, --where or N.
    """
    from specshards.shards.make import SurveyInput, make

    # Only files of nobody known leave it open; those of a survey are in the frame that they are in.
    known = SURVEYS.get(survey)
    if spectra_frame is None and "frame" in picture.said and (known is None or known.priority < 0):
        spectra_frame = picture.config.frame
    chosen = replace(chosen, frame=spectra_frame)
    make(survey, SurveyInput(data, catalog, chosen), out, replace(config, image=picture.config),
         said=picture.said, engine=engine, max_bad_fraction=max_bad_fraction, allow_empty_split=allow_empty_split,
         force=force)  # fmt: skip


@configured
def build(
    spectra: Annotated[
        str,
        typer.Option(help="Spectra Parquet, ours or MultimodalUniverse's: folder, glob, file, s3://bucket/folder."),
    ],
    out: _Out,
    picture: _Picture,
    config: _Shards,
    engine: _Engine,
    survey: Annotated[
        str | None, typer.Option(help="Whose spectra these are: refuse others, name those that do not say.")
    ] = None,
    max_bad_fraction: options.MaxBadFraction = 0.05,
    allow_empty_split: options.AllowEmptySplit = False,
    force: options.Force = False,
) -> None:
    """Draw every spectrum and write OUT/<split>/*.tar; a rerun goes on where the last one stopped."""
    from specshards.shards.report.make import make_page
    from specshards.shards.write.build import build

    build(replace(config, image=picture.config), spectra, out, survey=survey, said=picture.said, engine=engine,
          max_bad_fraction=max_bad_fraction, allow_empty_split=allow_empty_split, force=force)  # fmt: skip
    make_page(out)


_AS_IT_WAS = "Default: as it was."
_SamplesPerShard = Annotated[int | None, option(ShardConfig, "samples_per_shard", _AS_IT_WAS)]
_Split = Annotated[tuple[float, float, float] | None, option(ShardConfig, "split", _AS_IT_WAS)]
_SplitBy = Annotated[str | None, option(ShardConfig, "split_by", _AS_IT_WAS)]
_Group = Annotated[str | None, option(ShardConfig, "group", _AS_IT_WAS)]
_Seed = Annotated[int | None, option(ShardConfig, "seed", _AS_IT_WAS)]


@configured
def reshard(
    folder: Annotated[str, typer.Argument(help="The data set.")],
    out: _Out,
    engine: _Engine,
    encoding: Annotated[
        str | None, option(ShardConfig, "encoding", "From png, pnm and lz4: these and jpeg; from flux: all.")
    ] = None,
    samples_per_shard: _SamplesPerShard = None,
    split: _Split = None,
    split_by: _SplitBy = None,
    group: _Group = None,
    seed: _Seed = None,
    where: options.Where = None,
    allow_empty_split: options.AllowEmptySplit = False,
    force: options.Force = False,
) -> None:
    """Make another data set of one: other shard size, encoding or split, or a part. Nothing is drawn but spectra."""
    from specshards.shards.report.make import make_page
    from specshards.shards.write.reshard import remake

    remake([folder], out, encoding=encoding, samples_per_shard=samples_per_shard, split=split, split_by=split_by,
           group=group, seed=seed, where=where, engine=engine, allow_empty_split=allow_empty_split,
           force=force)  # fmt: skip
    make_page(out)


@configured
def merge(
    folders: Annotated[list[str], typer.Argument(help="The data sets: one picture, one encoding.")],
    out: _Out,
    engine: _Engine,
    samples_per_shard: _SamplesPerShard = None,
    split: _Split = None,
    split_by: _SplitBy = None,
    group: _Group = None,
    seed: _Seed = None,
    where: options.Where = None,
    allow_empty_split: options.AllowEmptySplit = False,
    force: options.Force = False,
) -> None:
    """Make one data set of several, mixed and split together: one object in two surveys falls in one split."""
    from specshards.shards.report.make import make_page
    from specshards.shards.write.reshard import remake

    remake(folders, out, samples_per_shard=samples_per_shard, split=split, split_by=split_by, group=group, seed=seed,
           where=where, engine=engine, allow_empty_split=allow_empty_split, force=force)  # fmt: skip
    make_page(out)


app = application(
    "Spectra Parquet in, verified tar shards of images out, with labels, index and manifest.",
    {"make": make_survey, "build": build, "reshard": reshard, "merge": merge, "verify": verify, "inspect": inspect,
     "report": report},
)  # fmt: skip

if __name__ == "__main__":
    run_app(app)

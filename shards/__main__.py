"""`specshards shards`: spectra to tar shards of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from specshards.common import options
from specshards.common.cli import run_app
from specshards.common.errors import UsageError
from specshards.common.jobs import engine_of
from specshards.render.config import CHANNEL_SETS, CHANNELS, FRAMES, GRIDS, LIMITS, ORDERS, SCALES, presets
from specshards.render.registry import RENDERERS
from specshards.shards.check import commands
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.format.manifest import ShardConfig

app = typer.Typer(
    help="Spectra Parquet in, verified tar shards of images out, with labels, index and manifest.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _picture(text: str) -> Any:
    return typer.Option(help=text, rich_help_panel="Picture")


def _one_of(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


_Image = Annotated[str, _picture(f"{_one_of(list(RENDERERS))}.")]
_Preset = Annotated[str, _picture(f"Named choices of what follows: {_one_of(presets())} (paper*: as published).")]
_Size = Annotated[int | None, _picture("Side of the picture in pixels (224).")]
_Block = Annotated[int | None, _picture("Side of one value's square in map2d, pixels (3).")]
_Limits = Annotated[str | None, _picture(f"Ends of the flux scale: {_one_of(LIMITS)}.")]
_Scale = Annotated[str | None, _picture(f"Flux scale between them: {_one_of(SCALES)}.")]
_Order = Annotated[str | None, _picture(f"Order of the values in map2d: {_one_of(ORDERS)}.")]
_Channels = Annotated[
    str | None,
    _picture(f"Of map2d: {', '.join(CHANNEL_SETS)}; or one or three, with commas, of {', '.join(CHANNELS)}."),
]
_Grid = Annotated[str | None, _picture(f"Which wavelength a cell of map2d is: {_one_of(GRIDS)}.")]
_Frame = Annotated[
    str | None, _picture(f"Of the wavelengths: {_one_of(FRAMES)}; rest needs redshifts, and is refused for them.")
]
_Window = Annotated[str | None, _picture("Wavelengths drawn, Angstrom in that frame (3536.7,10413.6).")]
_Encoding = Annotated[
    str,
    typer.Option(help="How a sample is stored: " + "; ".join(f"{n} ({kind.about})" for n, kind in ENCODINGS.items())),
]
_Out = Annotated[
    str, typer.Option(help="Folder of the shards, or s3://bucket/folder; manifest.json appears in it last.")
]
_SamplesPerShard = Annotated[int, typer.Option(help="Samples aimed at in one tar.")]


@app.command("make")
def make_survey(
    survey: options.Survey,
    out: Annotated[Path, typer.Option(help="Folder for spectra/, ingest/ and shards/IMAGE/.")],
    data: options.Data = None,
    catalog: options.Catalog = None,
    cuts: options.Cuts = None,
    where: options.Where = None,
    listed_only: options.ListedOnly = False,
    n: options.Number = None,
    image: _Image = "map2d",
    encoding: _Encoding = "png",
    preset: _Preset = "default",
    size: _Size = None,
    block: _Block = None,
    limits: _Limits = None,
    scale: _Scale = None,
    order: _Order = None,
    channels: _Channels = None,
    grid: _Grid = None,
    frame: _Frame = None,
    window: _Window = None,
    samples_per_shard: _SamplesPerShard = 8192,
    seed: options.Seed = 0,
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    memory: options.Memory = None,
    max_bad_fraction: options.MaxBadFraction = 0.05,
    force: options.Force = False,
) -> None:
    """From survey files (or a mock survey) to shards: `ingest build`, then `shards build`. This is `make shards`.

    Spectra that are Parquet already, ours or MultimodalUniverse's, are drawn as they are, unless labels of a
    catalogue are to be joined to them, or some of them chosen by --cuts, --where or N.
    """
    from specshards.shards.make import make

    config = _config(
        image, preset, encoding=encoding, samples_per_shard=samples_per_shard, seed=seed,
        size=size, block=block, limits=limits, scale=scale, order=order, channels=channels, grid=grid,
        frame=frame, window=window,
    )  # fmt: skip
    engine = engine_of(workers, scheduler, memory)
    choice: dict[str, Any] = {
        "data": data, "catalogue": catalog, "n": n, "cuts": cuts, "where": where, "listed_only": listed_only,
        "seed": seed, "engine": engine, "max_bad_fraction": max_bad_fraction, "force": force,
    }  # fmt: skip
    make(survey, out, config, choice)


@app.command()
def build(
    spectra: Annotated[
        str,
        typer.Option(help="Spectra Parquet, ours or MultimodalUniverse's: folder, glob, file, s3://bucket/folder."),
    ],
    out: _Out,
    survey: Annotated[
        str | None, typer.Option(help="Whose spectra these are: refuse others, name those that do not say.")
    ] = None,
    image: _Image = "map2d",
    encoding: _Encoding = "png",
    preset: _Preset = "default",
    size: _Size = None,
    block: _Block = None,
    limits: _Limits = None,
    scale: _Scale = None,
    order: _Order = None,
    channels: _Channels = None,
    grid: _Grid = None,
    frame: _Frame = None,
    window: _Window = None,
    samples_per_shard: _SamplesPerShard = 8192,
    seed: options.Seed = 0,
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    memory: options.Memory = None,
    max_bad_fraction: options.MaxBadFraction = 0.05,
    force: options.Force = False,
) -> None:
    """Draw every spectrum and write OUT/<split>/*.tar; a rerun goes on where the last one stopped."""
    from specshards.shards.report.make import make_page
    from specshards.shards.write.build import build

    config = _config(
        image, preset, encoding=encoding, samples_per_shard=samples_per_shard, seed=seed,
        size=size, block=block, limits=limits, scale=scale, order=order, channels=channels, grid=grid,
        frame=frame, window=window,
    )  # fmt: skip
    build(
        config, spectra, out, survey=survey, engine=engine_of(workers, scheduler, memory),
        max_bad_fraction=max_bad_fraction, force=force,
    )  # fmt: skip
    make_page(out)


_Changed = Annotated[
    str | None, typer.Option(help="How a sample is stored; png, pnm and jpeg from png and pnm, all from flux.")
]
_Split = Annotated[str | None, typer.Option(help="Shares of train, val and test, as 0.8,0.1,0.1.")]
_NewSeed = Annotated[int | None, typer.Option(help="Of the split and of the order.")]
_NewSize = Annotated[int | None, typer.Option(help="Samples aimed at in one tar.")]


@app.command()
def reshard(
    folder: Annotated[str, typer.Argument(help="The data set.")],
    out: _Out,
    encoding: _Changed = None,
    samples_per_shard: _NewSize = None,
    split: _Split = None,
    seed: _NewSeed = None,
    where: options.Where = None,
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    memory: options.Memory = None,
    force: options.Force = False,
) -> None:
    """Make another data set of one: other shard size, encoding or split, or a part. Nothing is drawn but spectra."""
    from specshards.shards.report.make import make_page
    from specshards.shards.write.reshard import remake

    remake(
        [folder], out, encoding=encoding, samples_per_shard=samples_per_shard, split=_shares(split), seed=seed,
        where=where, engine=engine_of(workers, scheduler, memory), force=force,
    )  # fmt: skip
    make_page(out)


@app.command()
def merge(
    folders: Annotated[list[str], typer.Argument(help="The data sets: one picture, one encoding.")],
    out: _Out,
    samples_per_shard: _NewSize = None,
    split: _Split = None,
    seed: _NewSeed = None,
    where: options.Where = None,
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    memory: options.Memory = None,
    force: options.Force = False,
) -> None:
    """Make one data set of several, mixed and split by sky together: one object in two surveys falls in one split."""
    from specshards.shards.report.make import make_page
    from specshards.shards.write.reshard import remake

    remake(
        folders, out, samples_per_shard=samples_per_shard, split=_shares(split), seed=seed, where=where,
        engine=engine_of(workers, scheduler, memory), force=force,
    )  # fmt: skip
    make_page(out)


def _shares(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    train, val, test = _numbers("split", text, 3, "0.8,0.1,0.1: the shares of train, val and test")
    return train, val, test


def _numbers(name: str, text: str, count: int, example: str) -> tuple[float, ...]:
    try:
        found = tuple(map(float, text.split(",")))
    except ValueError:
        found = ()
    if len(found) != count:
        raise UsageError(f"--{name} {text}: give {count} numbers, as {example}")
    return found


def _config(
    image: str,
    preset: str,
    *,
    encoding: str,
    samples_per_shard: int,
    seed: int,
    channels: str | None,
    window: str | None,
    **choices: Any,
) -> ShardConfig:
    """The options as one checked configuration, before anything is read; of `choices`, None leaves the preset's."""
    from specshards import render

    changes = {name: value for name, value in choices.items() if value is not None}
    if channels is not None:
        changes["channels"] = CHANNEL_SETS.get(channels) or tuple(name.strip() for name in channels.split(","))
    if window is not None:
        changes["window"] = _numbers("window", window, 2, "3536.7,10413.6")
    try:
        picture = replace(render.preset(preset, image), **changes)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return ShardConfig(image=picture, encoding=encoding, samples_per_shard=samples_per_shard, seed=seed)


commands.register(app)

if __name__ == "__main__":
    run_app(app)

"""`python -m shards`: spectra Parquet to tar shards of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ingest.errors import UsageError, run_app
from ingest.jobs import Engine

app = typer.Typer(
    help="Spectra Parquet in, verified tar shards of images out, with labels, index and manifest.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _rooms() -> None:
    """Keep `build` a named command while it is the only one."""


@app.command()
def build(
    spectra: Annotated[Path, typer.Option(help="Folder of spectra Parquet.")],
    out: Annotated[Path, typer.Option(help="Folder of the shards; manifest.json appears in it last.")],
    image: Annotated[str, typer.Option(help="simple, overlap or map2d.")] = "map2d",
    encoding: Annotated[str, typer.Option(help="png (lossless, compact) or jpeg (full size, 4:4:4).")] = "png",
    preset: Annotated[str, typer.Option(help="default, or paper for the published choices.")] = "default",
    size: Annotated[int | None, typer.Option(help="Side of the picture in pixels (224).")] = None,
    samples_per_shard: Annotated[int, typer.Option(help="Samples aimed at in one tar.")] = 8192,
    seed: Annotated[int, typer.Option(help="Of the split and of the order.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Local processes; 0 for none. Default: all cores.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Dask scheduler address or file, for a cluster.")] = None,
    max_bad_fraction: Annotated[float, typer.Option(help="Fail when more than this share cannot be drawn.")] = 0.05,
    force: Annotated[bool, typer.Option(help="Replace what another input or configuration left in OUT.")] = False,
) -> None:
    """Draw every spectrum and write OUT/<split>/*.tar; a rerun goes on where the last one stopped."""
    from dataclasses import replace

    from render import ImageConfig
    from shards.build import build
    from shards.format import ShardConfig

    try:
        if preset not in ("default", "paper"):
            raise UsageError(f"unknown preset {preset}: choose default or paper")
        picture = ImageConfig.paper(image) if preset == "paper" else ImageConfig(image=image)
        if size is not None:
            picture = replace(picture, size=size)
    except ValueError as error:
        raise UsageError(str(error)) from error
    config = ShardConfig(image=picture, encoding=encoding, samples_per_shard=samples_per_shard, seed=seed)
    engine = Engine(scheduler=scheduler) if workers is None else Engine(workers, scheduler)
    build(config, spectra, out, engine=engine, max_bad_fraction=max_bad_fraction, force=force)


if __name__ == "__main__":
    run_app(app)

"""`specshards tokenizer`: one self-supervised model of spectra on their own wavelength grids."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specshards.common.arguments import Fields, configured
from specshards.common.cli import application, run_app
from specshards.train.config import RunOptions
from specshards.train.launch import alone
from specshards.train.options import Device, Said, Workers, folders, given
from specshards.train.tokenizer.config import PretrainConfig

_Model = Annotated[Path, typer.Option(help="Folder of a pretrained tokenizer.")]


@configured
def pretrain(
    out: Annotated[Path, typer.Option(help="Folder of the run; opens with from_pretrained.")],
    config: Annotated[PretrainConfig, Fields("Training")],
    options: Annotated[RunOptions, Fields("Run")],
) -> None:
    """Learn to draw every spectrum again; the same command goes on after Ctrl-C or a crash.

    masked, huber, floor, regrid and augment are not in the paper, and off by default.
    """
    from specshards.train.tokenizer.pretrain import pretrain

    pretrain(config, out, options)


@configured
def reconstruct(
    input: Annotated[str, typer.Argument(help="FITS file, folder or glob of them, or spectra Parquet.")],
    model: _Model,
    stated: Said,
    grid: Annotated[
        str,
        typer.Option(
            help="Wavelengths to draw at: own, or first:last:step in Angstrom, such as 3800:9200:1 or, with "
            "a step in log10, 3800:9200:1e-4dex."
        ),
    ] = "own",
    out: Annotated[Path | None, typer.Option(help="Folder to write to. [MODEL/reconstructions]")] = None,
    limit: Annotated[int, typer.Option(help="Pictures at most; the table has every object.")] = 8,
    batch_size: Annotated[int, typer.Option(help="Spectra at once.")] = 64,
    device: Device = "auto",
) -> None:
    """Draw spectra from their tokens, fill in bad pixels, and say how odd each object is.

    Writes a picture of the first objects (spectrum, reconstruction, residual) and a table of all of them.
    """
    alone("tokenizer reconstruct")
    from specshards.train.tokenizer.reconstruct import reconstruct as run

    run(model, given(input), grid=grid, out=out, limit=limit, batch_size=batch_size, device=device,
        stated=stated)  # fmt: skip


@configured
def compare(
    model: _Model,
    shards: Annotated[
        str | None, typer.Option(help="Measure on these shards instead of those of the pretraining.")
    ] = None,
    split: Annotated[str, typer.Option(help="val, or test: once, at the end.")] = "val",
    limit: Annotated[int, typer.Option(help="Train spectra that the components learn from, at most.")] = 5000,
    floor: Annotated[
        float | None, typer.Option(help="No error below this share of a spectrum's scale. [as it was pretrained]")
    ] = None,
    device: Device = "auto",
    workers: Workers = None,
) -> None:
    """What a tokenizer's drawings are worth beside a constant, a running median and principal components."""
    alone("tokenizer compare")
    from specshards.train.tokenizer.comparison import compare as run

    run(model, shards=folders(shards or ""), split=split, limit=limit, floor=floor, device=device, threads=workers)


app = application(
    "Pretrain a tokenizer of spectra without labels, draw spectra with it, and say what that is worth.",
    {"pretrain": pretrain, "reconstruct": reconstruct, "compare": compare},
)

if __name__ == "__main__":
    run_app(app)

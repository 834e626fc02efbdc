"""`specshards tokenizer`: one self-supervised model of spectra on their own wavelength grids."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specshards.common.cli import run_app
from specshards.common.errors import UsageError
from specshards.train.options import DEVICE, WORKERS, folders

app = typer.Typer(
    help="Pretrain a tokenizer of spectra without labels, draw spectra with it, and say what that is worth.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_MODEL = typer.Option(help="Folder of a pretrained tokenizer.")


@app.command()
def pretrain(
    shards: Annotated[
        str, typer.Option(help="Shard folders made with ENCODING=flux, with commas: mixed in every batch.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run; opens with from_pretrained.")],
    size: Annotated[str, typer.Option(help="base (the paper's, 38 M parameters) or tiny (1 M).")] = "base",
    epochs: Annotated[int, typer.Option(help="Passes over the train split.")] = 10,
    batch_size: Annotated[int, typer.Option(help="Spectra a batch and process.")] = 64,
    accumulate: Annotated[int, typer.Option(help="Batches whose gradients make one step.")] = 1,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate. [1e-4; tiny 1e-3]")] = None,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.01,
    warmup: Annotated[float, typer.Option(help="Share of the steps over which the learning rate rises.")] = 0.05,
    schedule: Annotated[str, typer.Option(help="After the warm-up: cosine or constant.")] = "cosine",
    masked: Annotated[
        float, typer.Option(help="Share of the good patches hidden while training: learns to fill gaps.")
    ] = 0.0,
    huber: Annotated[
        float | None, typer.Option(help="Residuals of more standard deviations count linearly, such as 5.")
    ] = None,
    floor: Annotated[
        float, typer.Option(help="No pixel is better than this share of the spectrum's scale, such as 0.02.")
    ] = 0.0,
    regrid: Annotated[
        bool, typer.Option(help="Draw on shifted and wider pixels too while training: learns to draw on any grid.")
    ] = False,
    augment: Annotated[str, typer.Option(help="While training: noise=1,scale=0.05,mask=0.1, any of them.")] = "",
    ema: Annotated[float | None, typer.Option(help="Decay of an average of the weights, such as 0.999.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16, or auto: bf16 on a GPU.")] = "auto",
    max_steps: Annotated[int | None, typer.Option(help="Stop after so many steps.")] = None,
    overfit_batches: Annotated[
        int | None, typer.Option(help="Learn the first so many batches only: a check that the model can learn.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the new weights and the order.")] = 0,
    compile: Annotated[bool, typer.Option(help="Use torch.compile.")] = False,
    tracker: Annotated[
        str, typer.Option(help="Curves to tensorboard (OUT/tensorboard), wandb or none.")
    ] = "tensorboard",
    resume: Annotated[
        str, typer.Option(help="auto: go on with the unfinished run in OUT. never: replace what a run left there.")
    ] = "auto",
    checkpoint_minutes: Annotated[float, typer.Option(help="Between checkpoints inside an epoch.")] = 10,
    on_error: Annotated[
        str, typer.Option(help="A damaged sample: stop and name it, or skip it and say so at the end.")
    ] = "stop",
    device: Annotated[str, DEVICE] = "auto",
    workers: Annotated[int | None, WORKERS] = None,
) -> None:
    """Learn to draw every spectrum again; the same command goes on after Ctrl-C or a crash.

    masked, huber, floor, regrid and augment are not in the paper, and off by default.
    """
    from specshards.train.tokenizer.pretrain import PretrainConfig
    from specshards.train.tokenizer.pretrain import pretrain as run

    config = PretrainConfig(
        shards=folders(shards), size=size, epochs=epochs, batch_size=batch_size, accumulate=accumulate, lr=lr,
        weight_decay=weight_decay, warmup=warmup, schedule=schedule, masked=masked, huber=huber, floor=floor,
        regrid=regrid, augment=augment, ema=ema, precision=precision, max_steps=max_steps,
        overfit_batches=overfit_batches, seed=seed, compile=compile,
    )  # fmt: skip
    run(
        config, out, resume=resume, device=device, threads=workers, on_error=on_error, log=tracker,
        checkpoint_minutes=checkpoint_minutes,
    )  # fmt: skip


@app.command()
def reconstruct(
    input: Annotated[str, typer.Argument(help="FITS file, folder or glob of them, or spectra Parquet.")],
    model: Annotated[Path, _MODEL],
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
    device: Annotated[str, DEVICE] = "auto",
) -> None:
    """Draw spectra from their tokens, fill in bad pixels, and say how odd each object is.

    Writes a picture of the first objects (spectrum, reconstruction, residual) and a table of all of them.
    """
    from specshards.train.tokenizer.reconstruct import reconstruct as run

    if not input.strip():
        raise UsageError("no input given: name a FITS file, a folder or glob of them, or spectra Parquet")
    run(model, Path(input), grid=grid, out=out, limit=limit, batch_size=batch_size, device=device)


@app.command()
def compare(
    model: Annotated[Path, _MODEL],
    shards: Annotated[
        str | None, typer.Option(help="Measure on these shards instead of those of the pretraining.")
    ] = None,
    split: Annotated[str, typer.Option(help="val, or test: once, at the end.")] = "val",
    limit: Annotated[int, typer.Option(help="Train spectra that the components learn from, at most.")] = 5000,
    floor: Annotated[
        float | None, typer.Option(help="No error below this share of a spectrum's scale. [as it was pretrained]")
    ] = None,
    device: Annotated[str, DEVICE] = "auto",
    workers: Annotated[int | None, WORKERS] = None,
) -> None:
    """What a tokenizer's drawings are worth beside a constant, a running median and principal components."""
    from specshards.train.tokenizer.comparison import compare as run

    run(model, shards=folders(shards or ""), split=split, limit=limit, floor=floor, device=device, threads=workers)


if __name__ == "__main__":
    run_app(app)

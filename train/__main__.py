"""`python -m train`: shards to a fine-tuned model, its report, and predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ingest.errors import UsageError, run_app

app = typer.Typer(
    help="Fine-tune a vision transformer on shards of spectrum images, say what it is worth, and predict with it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_DEVICE = typer.Option(help="auto, cpu, cuda or mps.")
_WORKERS = typer.Option(help="Decoding threads of the loader. Default: all cores.")


@app.command()
def fit(
    task: Annotated[str, typer.Option(help="What to learn: classify, redshift, teff, logg or feh.")],
    shards: Annotated[str, typer.Option(help="Shard folder, or several with commas: trained on together.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: model, metrics.json, report.md.")],
    backbone: Annotated[
        str,
        typer.Option(help="A model's name on the hub, a folder of one, or tiny: small, from scratch, no download."),
    ] = "facebook/dino-vitb16",
    epochs: Annotated[int, typer.Option(help="Passes over the train split.")] = 10,
    batch_size: Annotated[int, typer.Option(help="Images a step and process.")] = 64,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate [1e-3 for tiny, 1e-4 otherwise].")] = None,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.05,
    layer_decay: Annotated[
        float, typer.Option(help="Learning rate of a layer relative to the one above; 1: off.")
    ] = 1.0,
    warmup: Annotated[float, typer.Option(help="Share of the steps over which the learning rate rises.")] = 0.05,
    head: Annotated[
        str, typer.Option(help="Regression predicts a histogram, a gaussian or a point (mse).")
    ] = "histogram",
    bins: Annotated[int, typer.Option(help="Of the histogram.")] = 128,
    max_steps: Annotated[int | None, typer.Option(help="Stop after so many steps.")] = None,
    seed: Annotated[int, typer.Option(help="Of the new weights and the order.")] = 0,
    compile: Annotated[
        bool, typer.Option(help="Use torch.compile: slower to start, faster to run on a GPU.")
    ] = False,
    resume: Annotated[
        str, typer.Option(help="auto: go on with the unfinished run in OUT. never: replace what a run left there.")
    ] = "auto",
    checkpoint_minutes: Annotated[float, typer.Option(help="Between checkpoints inside an epoch.")] = 10,
    on_error: Annotated[
        str, typer.Option(help="A damaged sample: stop and name it, or skip it and say so at the end.")
    ] = "stop",
    device: Annotated[str, _DEVICE] = "auto",
    workers: Annotated[int | None, _WORKERS] = None,
) -> None:
    """Train and validate; Ctrl-C or a crash loses minutes at most: run the same command again.

    The best epoch on validation is kept and opens with transformers' from_pretrained. The test split is not touched.
    """
    from train.config import TrainConfig
    from train.loop import fit as run

    if resume not in ("auto", "never"):
        raise UsageError(f"unknown --resume {resume}: choose auto or never")
    config = TrainConfig(
        task=task, shards=_folders(shards), backbone=backbone, epochs=epochs, batch_size=batch_size, lr=lr,
        weight_decay=weight_decay, layer_decay=layer_decay, warmup=warmup, head=head, bins=bins, seed=seed,
        max_steps=max_steps, compile=compile,
    )  # fmt: skip
    run(
        config, out, resume=resume, device=device, threads=workers, on_error=on_error,
        checkpoint_minutes=checkpoint_minutes,
    )  # fmt: skip


@app.command()
def evaluate(
    model: Annotated[Path, typer.Option(help="Folder of a trained run.")],
    shards: Annotated[
        str | None, typer.Option(help="Score on these shards instead of those of the training.")
    ] = None,
    splits: Annotated[str, typer.Option(help="Which splits, with commas.")] = "val,test",
    batch_size: Annotated[int | None, typer.Option(help="Default: as in training.")] = None,
    device: Annotated[str, _DEVICE] = "auto",
    workers: Annotated[int | None, _WORKERS] = None,
) -> None:
    """Score on validation and test beside the trivial baselines: metrics.json, report.md and figures.

    Choose between models on validation; look at the test split once, at the end.
    """
    from train.evaluate import evaluate as run

    run(model, splits=_folders(splits), shards=_folders(shards or ""), batch_size=batch_size, device=device,
        threads=workers)  # fmt: skip


@app.command()
def predict(
    model: Annotated[Path, typer.Option(help="Folder of a trained run.")],
    input: Annotated[str, typer.Option(help="FITS file, folder or glob of them, or spectra Parquet.")],
    out: Annotated[
        Path | None, typer.Option(help="Table to write: .parquet or .csv [MODEL/predictions.parquet].")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images at once.")] = 64,
    device: Annotated[str, _DEVICE] = "auto",
) -> None:
    """Predict class probabilities or a value with its uncertainty for every spectrum of the input."""
    from train.predict import predict as run

    if not input.strip():
        raise UsageError("no INPUT given: name a FITS file, a folder or glob of them, or spectra Parquet")
    run(model, Path(input), out=out, batch_size=batch_size, device=device)


def _folders(text: str) -> tuple[str, ...]:
    return tuple(part for part in (piece.strip() for piece in text.split(",")) if part)


if __name__ == "__main__":
    run_app(app)

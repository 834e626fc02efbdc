"""`specshards train`: shards to a fine-tuned model, its report, and predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specshards.common.cli import run_app
from specshards.common.errors import UsageError
from specshards.train.options import DEVICE, WORKERS, folders
from specshards.train.use.commands import embed, explain, export

app = typer.Typer(
    help="Fine-tune a vision transformer on shards of spectrum images, say what it is worth, and predict with it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def fit(
    task: Annotated[
        str,
        typer.Option(help="What to learn: classify, subclass, redshift, teff, logg, feh; several with commas."),
    ],
    shards: Annotated[str, typer.Option(help="Shard folder, or several with commas: trained on together.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: model, metrics.json, report.html.")],
    preset: Annotated[
        str | None,
        typer.Option(
            help="paper: lr 1e-5, weight decay 0.01, 30 epochs, MSE. modern: layer decay, longer warm-up, drop "
            "path. What is given beside it wins."
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="A model's name on the hub, a folder of one, or tiny: small, from scratch, no download; or, to read "
            "spectra, sequence or tokenizer:folder. [facebook/dino-vitb16]"
        ),
    ] = None,
    pool: Annotated[
        str | None, typer.Option(help="Of a tokenizer's tokens: their mean, or a learnt attention. [mean]")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the train split. [10]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a batch and process. [64]")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Batches whose gradients make one step. [1]")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate. [1e-3 for tiny, 1e-4 otherwise]")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of AdamW. [0.05]")] = None,
    layer_decay: Annotated[
        float | None, typer.Option(help="Learning rate of a layer relative to the one above; 1: off. [1]")
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="After the warm-up: cosine or constant. [cosine]")] = None,
    warmup: Annotated[
        float | None, typer.Option(help="Share of the steps over which the learning rate rises. [0.05]")
    ] = None,
    drop_path: Annotated[
        float | None, typer.Option(help="Largest share of residual branches left out, where the backbone has it. [0]")
    ] = None,
    freeze: Annotated[str | None, typer.Option(help="backbone: train the heads alone. [none]")] = None,
    head: Annotated[
        str | None,
        typer.Option(
            help="Regression predicts a histogram, a gaussian or a point (mse). [auto: histogram for "
            "redshift, gaussian for the rest]"
        ),
    ] = None,
    bins: Annotated[int | None, typer.Option(help="Of the histogram. [128]")] = None,
    balance: Annotated[
        str | None, typer.Option(help="Of classes: weights in the loss, or logits adjusted. [none]")
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(help="While training: noise=1,scale=0.05,tilt=0.1,mask=0.1, any of them (ENCODING=flux)."),
    ] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of an average of the weights, such as 0.999.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16, or auto: bf16 on a GPU. [auto]")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Stop after so many steps.")] = None,
    overfit_batches: Annotated[
        int | None, typer.Option(help="Learn the first so many batches only: a check that the model can learn.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the new weights and the order. [0]")] = None,
    compile: Annotated[
        bool, typer.Option(help="Use torch.compile: slower to start, faster to run on a GPU.")
    ] = False,
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
    """Train and validate; Ctrl-C or a crash loses minutes at most: run the same command again.

    The best epoch on validation is kept and opens with transformers' from_pretrained. The test split is not touched.
    """
    from specshards.train.config import TrainConfig
    from specshards.train.config import preset as preset_options
    from specshards.train.fit import fit as run

    given = {
        "backbone": backbone, "epochs": epochs, "batch_size": batch_size, "accumulate": accumulate, "lr": lr,
        "weight_decay": weight_decay, "layer_decay": layer_decay, "schedule": schedule, "warmup": warmup,
        "drop_path": drop_path, "freeze": freeze, "pool": pool, "head": head, "bins": bins, "balance": balance,
        "augment": augment, "ema": ema, "precision": precision, "max_steps": max_steps,
        "overfit_batches": overfit_batches, "seed": seed,
    }  # fmt: skip
    config = TrainConfig(task=task, shards=folders(shards), compile=compile, **preset_options(preset, given))
    run(
        config, out, resume=resume, device=device, threads=workers, on_error=on_error, log=tracker,
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
    device: Annotated[str, DEVICE] = "auto",
    workers: Annotated[int | None, WORKERS] = None,
) -> None:
    """Score on validation and test beside the baselines: metrics.json, report.md and the page report.html.

    Choose between models on validation; look at the test split once, at the end.
    """
    from specshards.train.evaluation.evaluate import evaluate as run

    run(model, splits=folders(splits), shards=folders(shards or ""), batch_size=batch_size, device=device,
        threads=workers)  # fmt: skip


@app.command()
def predict(
    model: Annotated[Path, typer.Option(help="Folder of a trained run.")],
    input: Annotated[str, typer.Option(help="FITS file, folder or glob of them, spectra Parquet, or shards.")],
    out: Annotated[
        Path | None, typer.Option(help="Table to write: .parquet or .csv [MODEL/predictions.parquet].")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Objects at once.")] = 64,
    device: Annotated[str, DEVICE] = "auto",
) -> None:
    """Predict class probabilities or a value with its calibrated interval for every spectrum of the input."""
    from specshards.train.use.predict import predict as run

    if not input.strip():
        raise UsageError("no INPUT given: name a FITS file, a folder or glob of them, or spectra Parquet")
    run(model, Path(input), out=out, batch_size=batch_size, device=device)


@app.command()
def baselines(
    model: Annotated[Path, typer.Option(help="Folder of the run to stand beside.")],
    shards: Annotated[
        str, typer.Option(help="Shards of the same spectra, made with ENCODING=flux; several with commas.")
    ] = "",
    runs: Annotated[
        str, typer.Option(help="Other trained runs on the same spectra, with commas, such as one of sequence.")
    ] = "",
    limit: Annotated[int, typer.Option(help="Train objects at most; for support vectors 10,000.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Of the objects drawn, and of the forests.")] = 0,
    device: Annotated[str, DEVICE] = "auto",
    workers: Annotated[int | None, WORKERS] = None,
) -> None:
    """Fit k-NN, a random forest and support vectors to a run's tasks; evaluate puts them beside the model.

    With --runs, the answers of other trained runs are put there too.
    """
    from specshards.train.evaluation.classical import fit_classical
    from specshards.train.evaluation.other_runs import add_runs
    from specshards.train.run import open_any

    if not shards.strip() and not runs.strip():
        raise UsageError("nothing to put beside the model: give --shards (made with ENCODING=flux), --runs, or both")
    card, _ = open_any(model)
    if shards.strip():
        fit_classical(card.tasks, folders(shards), seed=seed, limit=limit, threads=workers).write(model)
    if runs.strip():
        add_runs(model, [Path(run) for run in folders(runs)], device=device, threads=workers)
    print(f"{model / 'baselines.parquet'}: beside the model in the next `evaluate`")


for _command in (explain, embed, export):
    app.command()(_command)


if __name__ == "__main__":
    run_app(app)

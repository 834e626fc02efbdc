"""`specshards train`: shards to a fine-tuned model, its report, and predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specshards.common.arguments import Fields, configured
from specshards.common.cli import application, run_app
from specshards.common.errors import UsageError
from specshards.train.config import PRESETS, RunOptions, TrainConfig, configure
from specshards.train.launch import alone
from specshards.train.options import Device, MaxFileSize, Model, Said, Workers, folders, given, most_bytes
from specshards.train.paper.config import PaperConfig
from specshards.train.use.commands import embed, explain, export

_PRESET = (
    "paper: the published recipe: rate 1e-5 falling to 0, label over the largest, mean and std 0.5, epoch by R2 or "
    "accuracy, ... modern: layer decay, longer warm-up, drop path. What is given beside it wins."
)

_RECIPE = "paper (the default here, whose values stand below): the published recipe. modern: as of train fit."


@configured
def fit(
    out: Annotated[Path, typer.Option(help="Folder of the run: model, metrics.json, report.html.")],
    config: Annotated[TrainConfig, Fields("Training", make=configure, preset=_PRESET)],
    options: Annotated[RunOptions, Fields("Run")],
) -> None:
    """Train and validate; Ctrl-C or a crash loses minutes at most: run the same command again.

    The best epoch on validation is kept and opens with transformers' from_pretrained. The test split is not touched.
    """
    from specshards.train.fit import fit

    fit(config, out, options)


@configured
def evaluate(
    model: Model,
    shards: Annotated[
        str | None, typer.Option(help="Score on these shards instead of those of the training.")
    ] = None,
    splits: Annotated[str, typer.Option(help="Which splits, with commas.")] = "val,test",
    batch_size: Annotated[int | None, typer.Option(help="Default: as in training.")] = None,
    device: Device = "auto",
    workers: Workers = None,
) -> None:
    """Score on validation and test beside the baselines: metrics.json, report.md and the page report.html.

    Choose between models on validation; look at the test split once, at the end.
    """
    from specshards.train.evaluation.evaluate import evaluate as run

    run(model, splits=folders(splits), shards=folders(shards or ""), batch_size=batch_size, device=device,
        threads=workers)  # fmt: skip


@configured
def predict(
    model: Model,
    input: Annotated[str, typer.Option(help="FITS file, folder or glob of them, spectra Parquet, or shards.")],
    stated: Said,
    out: Annotated[
        Path | None, typer.Option(help="Table to write: .parquet or .csv [MODEL/predictions.parquet].")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Objects at once.")] = 64,
    device: Device = "auto",
    max_file_size: MaxFileSize = None,
) -> None:
    """Predict class probabilities or a value with its calibrated interval for every spectrum of the input."""
    from specshards.train.use.predict import predict as run

    alone("train predict")
    size, inputs = most_bytes(max_file_size), given(input, address=True)
    run(model, inputs, out=out, batch_size=batch_size, device=device, most_bytes=size, stated=stated)


@configured
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
    device: Device = "auto",
    workers: Workers = None,
) -> None:
    """Fit k-NN, a random forest and support vectors to a run's tasks; evaluate puts them beside the model.

    With --runs, the answers of other trained runs are put there too.
    """
    from specshards.train.evaluation.classical import fit_classical
    from specshards.train.evaluation.other_runs import add_runs
    from specshards.train.network import open_any

    alone("train baselines")
    if not shards.strip() and not runs.strip():
        raise UsageError("nothing to put beside the model: give --shards (made with ENCODING=flux), --runs, or both")
    card, _ = open_any(model)
    if shards.strip():
        fit_classical(card.tasks, folders(shards), seed=seed, limit=limit, threads=workers).write(model)
    if runs.strip():
        add_runs(model, [Path(run) for run in folders(runs)], device=device, threads=workers)
    print(f"{model / 'baselines.parquet'}: beside the model in the next `evaluate`")


@configured
def paper(
    out: Annotated[Path, typer.Option(help="Folder of the runs, the answers and the report.")],
    config: Annotated[
        PaperConfig,
        Fields("Paper and training", ("only", "images", "views"), PaperConfig.configure, _RECIPE, PRESETS["paper"]),
    ],
    options: Annotated[RunOptions, Fields("Run", ("resume",))],
) -> None:
    """The tables and figures of A&A 709, A122, under the definitions of its public code.

    Beside them stand the few published numbers that are known. Tables 1 and 5 to 9 are numbered as there; which of 2,
    3, 4 and 10 those of accuracy and R2 are is not known here.

    Trains what they ask for (preset paper), says what each model is worth on the test split, beside the best constant
    and what is published: OUT/paper.html, paper.md, paper.json. Run the same command again to go on.
    """
    from specshards.train.paper.run import paper as run

    for line in run(config, out, options):
        print(line)
    print(f"{out / 'paper.json'}, {out / 'paper.md'}, {out / 'paper.html'}")


@configured
def pareto(
    configurations: Annotated[
        Path,
        typer.Argument(
            metavar="LIST",
            help="A text file, a configuration a line: `half: --keep-tokens 0.5`; `*: ...` for all.",
        ),
    ],
    task: Annotated[str, typer.Option(help="As of train fit.")],
    shards: Annotated[str, typer.Option(help="As of train fit.")],
    out: Annotated[Path, typer.Option(help="Folder of the runs, NAME-SEED, and of pareto.md, .json and .svg.")],
    seeds: Annotated[str, typer.Option(help="Of every configuration, with commas.")] = "0",
    front_seeds: Annotated[str, typer.Option(help="More of those that none beats at both, with commas.")] = "",
    by: Annotated[
        str, typer.Option(help="Metrics, with commas; of each task the first that it has. Default: its own.")
    ] = "",
    device: Device = "auto",
) -> None:
    """Train a list of configurations: what each is worth on validation, what it costs, and which none beats at both.

    Cost is counted in operations, not in seconds. Run the same command again to go on; the test split is not touched.
    """
    from specshards.common.text import aligned
    from specshards.train.pareto import Grid, numbers, read_list, rows, write

    alone("train pareto")
    grid = Grid(task, shards, read_list(configurations), out, tuple(folders(by)), device)
    first, more = numbers(seeds, "seeds"), numbers(front_seeds, "front_seeds")
    grid.train(first)
    points = grid.points(first)
    if more:
        grid.train(more, [line for line in grid.lines if any(p.front and p.name == line.name for p in points)])
        points = grid.points([*first, *(seed for seed in more if seed not in first)])
    paths = write(grid, points)
    print(*aligned(rows(points, grid.metrics()), ()), sep="\n")
    print(", ".join(map(str, paths)))


app = application(
    "Fine-tune a vision transformer on shards of spectrum images, say what it is worth, and predict with it.",
    {"fit": fit, "evaluate": evaluate, "predict": predict, "baselines": baselines, "paper": paper, "explain": explain,
     "embed": embed, "export": export, "pareto": pareto},
)  # fmt: skip

if __name__ == "__main__":
    run_app(app)

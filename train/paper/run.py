"""`specshards train paper`: the data, the runs, the answers, the report; each step that is done already is kept.

<out>/mock/                    the mock surveys and their shards, where no shards were given
<out>/runs/<set>-<task>-<picture>/    run folders as `train fit` leaves them
<out>/answers/                 what each said of the test split
<out>/answers.parquet          the same together
<out>/paper.json, paper.md, paper.html, figures/
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from specshards.common.errors import make_folder
from specshards.common.files import location, replacing
from specshards.common.folder import locked
from specshards.common.json import digest
from specshards.common.messages import LOGGER
from specshards.ingest.job.build import IngestConfig
from specshards.render.config import preset as preset_of
from specshards.shards import loader as shard_loader
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.make import SurveyInput, make
from specshards.train.accelerator import make_accelerator
from specshards.train.config import RunOptions
from specshards.train.evaluation.classical import fit_classical
from specshards.train.evaluation.evaluate import what_it_reads
from specshards.train.evaluation.score import Scored, score
from specshards.train.fit import fit
from specshards.train.launch import alone
from specshards.train.network import open_any
from specshards.train.paper import answers, report
from specshards.train.paper.config import PaperConfig
from specshards.train.paper.names import METHODS, PICTURES
from specshards.train.paper.objects import Objects
from specshards.train.paper.plan import DataSet, PaperRun, Plan, data_sets, notes, plan
from specshards.train.paper.published import SPLIT
from specshards.train.paper.study import Study
from specshards.train.run import CARD, RUN, Card
from specshards.train.tasks.multitask import add_targets, make_tasks
from specshards.train.tasks.regression import Regression
from specshards.train.tasks.task import Task

_MADE_OF = b"specshards.paper"


def paper(config: PaperConfig, out: Path, options: RunOptions = RunOptions()) -> list[str]:
    """Train what is not trained yet, and write the report; its first lines.

    Raises:
        UsageError: the configuration, the shards or `out` do not fit. JobError: hub, disk or a checkpoint failed.
        KeyboardInterrupt: on Ctrl-C, after a checkpoint.
    """
    alone(
        "train paper", "what it would train may be trained by torchrun -m specshards train fit with the same options "
        "into OUT/runs/NAME, and is then kept",
    )  # fmt: skip
    options = replace(options, again="remove that folder")
    with locked(out / ".lock", out):
        folders = _mock(config, out) if config.is_mock else config.shards
        sets = data_sets(folders, config)
        objects = {each.name: Objects.read([location(f) for f in each.folders], each.manifests) for each in sets}
        todo = plan(config, sets, objects)
        several = "; --sets joint trains on all together alone" if len(sets) > 1 else ""
        LOGGER.info(f"{len(todo.runs)} runs on {', '.join(objects)}{several}")
        parts, records, best = [], [], {}
        for place, run in enumerate(todo.runs, 1):
            words = {**PICTURES, **METHODS}[run.picture]
            LOGGER.info(
                f"{place} of {len(todo.runs)}: {run.task}, {words} ({run.data_set}), {out / 'runs' / run.name}"
            )
            folder = fit(run.config, out / "runs" / run.name, options)
            card = Card.read(folder / CARD)
            parts.append(_answers(run, card, folder, out, options))
            records.append(_record(run, card, folder))
            best[run.data_set, run.task, run.picture] = card
        for each in sets:
            parts += _classical(config, each, todo, out, options)
        study = Study(
            answers.together(parts), objects,
            {key: lines for each in sets for key, lines in notes(config, each, objects[each.name]).items()},
            todo.absent, _chosen(best), records,
            {each.name: each.folders for each in sets} if len(sets) > 1 else {},
        )  # fmt: skip
        study.answers.write(out / answers.FILE)
        return report.write(study, out, config.wanted)


def _mock(config: PaperConfig, out: Path) -> tuple[str, ...]:
    """Shards of a mock SDSS and a mock LAMOST, made by the usual road; their folders."""
    image = preset_of("paper", "map2d")
    shards = ShardConfig(image=image, encoding="flux", split=SPLIT)
    source = SurveyInput(None, None, IngestConfig(limit=config.mock_files))
    make("slomost", source, out / "mock", shards)
    return tuple(str(out / "mock" / part / "shards" / image.image) for part in ("sdss", "lamost"))


def _answers(run: PaperRun, card: Card, folder: Path, out: Path, options: RunOptions) -> pa.Table:
    """What a run says of its test split; from the file, where the same model has said it on the same data."""
    made_of = {"model": card.model, "data": [each["fingerprint"] for each in card.data], "run": run.name}
    path = out / "answers" / f"{run.name}.parquet"
    if (table := _kept(path, made_of)) is not None:
        return table
    scored, sidecar = _scored(run, folder, options)
    (task,) = card.tasks
    found = scored[task.name]
    crps = found.columns.get("crps") if run.task == "redshift" else None
    if crps is not None and not _on_log_axis(task):
        # Of a point the CRPS is the error on the axis of the learning, and that is not ln(1 + z) here.
        has_width = isinstance(task, Regression) and task.head != "mse"
        crps = None if has_width else answers.log_error(found.labels[task.target], found.columns["point"])
    table = answers.rows(run.data_set, run.task, run.picture, sidecar, found.labels[task.target],
                         found.columns["point"], crps)  # fmt: skip
    return _keep(path, table, made_of)


def _on_log_axis(task: Task) -> bool:
    return isinstance(task, Regression) and task.transform.name == "log1p"


def _scored(run: PaperRun, folder: Path, options: RunOptions) -> tuple[dict[str, Scored], pa.Table]:
    """The model on the test split, and the table of its objects, in one order."""
    card, model = open_any(folder)
    accelerator = make_accelerator(options.device, card.config.precision)
    network = accelerator.prepare(model.to(accelerator.device))
    with shard_loader.open(
        run.config.shards, "test", card.config.batch_size, device=str(accelerator.device), shuffle=False,
        threads=options.threads, backend=options.backend, **what_it_reads(card),
    ) as loader:  # fmt: skip
        add_targets(card.tasks, loader)
        return score(network, card, loader, accelerator), loader.sidecar(answers.OF_OBJECT)


def _classical(config: PaperConfig, each: DataSet, todo: Plan, out: Path, options: RunOptions) -> list[pa.Table]:
    """What a random forest and support vectors say of the test split of a set."""
    names = todo.classical.get(each.name, ())
    if not names:
        return []
    made_of = {"data": [m.fingerprint() for m in each.manifests], "tasks": names, "limit": config.limit,
               "seed": config.seed}  # fmt: skip
    path = out / "answers" / f"{each.name}-classical.parquet"
    if (table := _kept(path, made_of)) is not None:
        return [table]
    LOGGER.info(f"random forest and support vectors: {', '.join(names)} ({each.name})")
    with shard_loader.open(each.folders, "train", 1, view="spectra", threads=1) as loader:
        learnt = config.training(task=",".join(names), shards=each.folders, target="auto", normalise="backbone")
        tasks = make_tasks(learnt, loader.manifests, loader.sidecar)
    fitted = fit_classical(tasks, each.folders, seed=config.seed, limit=config.limit, threads=options.threads)
    said = fitted.predict("test")
    with shard_loader.open(each.folders, "test", 1, view="spectra", threads=1, shuffle=False) as loader:
        sidecar = loader.sidecar([*answers.OF_OBJECT, *(task.label for task in tasks)])
    parts = [
        answers.rows(each.name, task.name, method, sidecar, task.targets(sidecar), said[method][task.name])
        for task in tasks
        for method in ("svm", "forest")
    ]
    return [_keep(path, pa.concat_tables(parts), made_of)]


def _kept(path: Path, made_of: Mapping[str, Any]) -> pa.Table | None:
    """The answers of a file that was made of the same; None where there is none."""
    try:
        table = pq.read_table(path)
        if (table.schema.metadata or {}).get(_MADE_OF) == digest(_plain(made_of)).encode():
            return table.select(answers.SCHEMA.names).cast(answers.SCHEMA)
    except (FileNotFoundError, pa.ArrowException, KeyError):
        pass  # a damaged one is made again
    return None


def _keep(path: Path, table: pa.Table, made_of: Mapping[str, Any]) -> pa.Table:
    make_folder(path.parent)
    with replacing(path) as temporary:
        marked = table.replace_schema_metadata({_MADE_OF: digest(_plain(made_of))})
        pq.write_table(marked, temporary, compression="zstd")
    return table


def _plain(content: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(content))


def _record(run: PaperRun, card: Card, folder: Path) -> dict[str, Any]:
    """What the page says of a run; its epochs are those that were trained, which `max_steps` may cut short."""
    best, trained = card.best or {}, json.loads((folder / RUN).read_text(encoding="utf-8"))["epochs"]
    counts = card.baselines[run.task].counts
    return {
        "run": run.name, "backbone": card.config.backbone, "epochs": trained,
        **({"epochs_asked_for": card.config.epochs} if trained != card.config.epochs else {}),
        "batch_size": card.config.batch_size, "train_objects": counts.get("all", 0), "best_epoch": best.get("epoch"),
        "by": best.get("metric"), "validation": best.get("value"),
    }  # fmt: skip


def _chosen(cards: Mapping[tuple[str, str, str], Card]) -> dict[tuple[str, str], str]:
    """Of each set and task the picture whose best epoch was the best on validation."""
    found: dict[tuple[str, str], tuple[float, str]] = {}
    for (name, task, picture), card in cards.items():
        value = (card.best or {}).get("value")
        if picture not in PICTURES or value is None:
            continue
        worth = float(value) if card.tasks[0].criterion[1] else -float(value)
        if (name, task) not in found or worth > found[name, task][0]:
            found[name, task] = worth, picture
    return {key: picture for key, (_, picture) in found.items()}

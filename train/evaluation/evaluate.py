"""What a model is worth: `metrics.json`, `report.md` and the page `report.html`, beside the baselines.

Training writes the validation part; the test split is touched by `evaluate` alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from specshards.common.errors import JobError, UsageError, shortened
from specshards.common.files import location, write_text
from specshards.common.json import finite, signed
from specshards.common.messages import LOGGER
from specshards.render import ImageConfig
from specshards.shards import loader as shard_loader
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.format.manifest import SPLITS, Manifest
from specshards.train.accelerator import make_accelerator
from specshards.train.evaluation import predictions
from specshards.train.evaluation.measure import measure
from specshards.train.evaluation.score import score
from specshards.train.evaluation.witnesses import add_witnesses
from specshards.train.network import open_any
from specshards.train.report import figures, tables
from specshards.train.report import page as html
from specshards.train.run import METRICS, PAGE, REPORT, Card, counted_together, data_record, read_metrics
from specshards.train.tasks.metrics import FloatArray
from specshards.train.tasks.multitask import add_targets


def evaluate(
    run: Path,
    *,
    splits: Sequence[str] = ("val", "test"),
    shards: Sequence[str] = (),
    batch_size: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    backend: str | None = None,
) -> dict[str, Any]:
    """Score the model of `run` and write `metrics.json`, `report.md` and one figure a split into it.

    Args:
        splits: which splits to score.
        shards: folders to score on; those of the training by default. Others are named in the report.

    Returns:
        The content of `metrics.json`.

    Raises:
        UsageError: no such model, split or shards. JobError: a damaged model.
    """
    for split in splits:
        if split not in SPLITS:
            raise UsageError(f"unknown split {split}: choose {', '.join(SPLITS)}")
    card, model = open_any(run)
    folders = list(shards) or [record["folder"] for record in card.data]
    accelerator = make_accelerator(device, card.config.precision)
    network = accelerator.prepare(model.to(accelerator.device))
    manifests = [Manifest.load(location(folder)) for folder in folders]
    check_pictures(card, manifests[0], folders)
    filled = [split for split in splits if any(manifest.samples(split) for manifest in manifests)]
    for split in splits:
        if split not in filled and accelerator.is_main_process:
            LOGGER.info(f"{', '.join(folders)}: the {split} split is empty and left out; use more objects")
    if not filled:
        raise UsageError(f"{', '.join(folders)}: nothing in {', '.join(splits)} to evaluate on")
    scores, data = {}, counted_together(data_record(folders, manifests), folders, manifests)
    mock = card.mock or any(manifest.mock for manifest in manifests)
    for split in filled:
        with shard_loader.open(
            folders, split, batch_size or card.config.batch_size, rank=accelerator.process_index,
            world_size=accelerator.num_processes, device=str(accelerator.device), shuffle=False, threads=threads,
            backend=backend, **what_it_reads(card),
        ) as loader:  # fmt: skip
            add_targets(card.tasks, loader)
            scored = score(network, card, loader, accelerator, drawn_by=add_witnesses(loader))
            lost = {task.name: task.left_out(loader.sidecar(task.columns)) for task in card.tasks}
            beside = _fitted_baselines(run, split, loader)
        if not accelerator.is_main_process:
            continue
        scores[split] = {
            task.name: measure(
                task,
                scored[task.name],
                card.baselines[task.name],
                left_out=lost[task.name],
                extra={name: points[task.name] for name, points in beside.items()},
            )
            for task in card.tasks
        }
        for task in card.tasks:
            figures.draw(run, task, scored[task.name], split, mock)
    if accelerator.is_main_process:
        LOGGER.info(write(run, replace(card, mock=mock), scores, data=data))
    accelerator.wait_for_everyone()
    return read_metrics(run / METRICS)


def write(
    run: Path,
    card: Card,
    scores: Mapping[str, Mapping[str, Mapping[str, Any]]],
    *,
    training: Mapping[str, Any] | None = None,
    data: Sequence[Mapping[str, Any]] | None = None,
    page: bool = True,
) -> str:
    """Add scores (by split and task) to `metrics.json`, write the reports from all of it, return the short table.

    What `metrics.json` holds of another model (other weights, other data) is dropped, never mixed.
    """
    path = run / METRICS
    scored_on = [dict(record) for record in (data or card.data)]
    head = {"tasks": [task.name for task in card.tasks], "mock": card.mock, "model": card.model, "data": scored_on}
    content: dict[str, Any] = {**head, "splits": {}}
    if path.is_file():
        before = read_metrics(path)
        if before["model"] == card.model:
            content["training"] = before.get("training")
            if _fingerprints(before["data"]) == _fingerprints(scored_on):
                content["splits"] = before["splits"]
    content["splits"] = {**content["splits"], **finite(dict(scores))}
    if training is not None:
        content["training"] = finite(dict(training))
    try:
        markdown = tables.markdown(content, card)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if not set(content["splits"]) - set(scores):
            raise  # all of it is our own
        raise JobError(
            f"{path}: not readable as metrics ({shortened(error)}); remove it and evaluate again"
        ) from error
    write_text(path, json.dumps(signed(content), indent=1) + "\n")
    write_text(run / REPORT, markdown)
    if page:
        html.write(run, content, card)
    return tables.short(content, card) + f"\n{path}, {run / PAGE}"


def _fitted_baselines(run: Path, split: str, loader: shard_loader.Loader) -> dict[str, dict[str, FloatArray]]:
    """What `train baselines` left in the run for this split, in the order of the loader."""
    if not (run / predictions.FILE).is_file():
        return {}
    return predictions.Answers.read(run).beside(split, loader.sidecar(list(predictions.IDENTITY)))


def _fingerprints(data: Sequence[Mapping[str, Any]]) -> list[str]:
    return [record["fingerprint"] for record in data]


def what_it_reads(card: Card) -> dict[str, Any]:
    """Arguments of `shards.loader.open` for what a model reads: spectra, or all its pictures of each object."""
    if card.config.view != "picture":
        return {"view": card.config.view}
    return {"images": card.pictures, "together": True}


def check_pictures(card: Card, manifest: Manifest, folders: Sequence[str]) -> None:
    """Raise UsageError where shards hold other pictures, or spectra in another frame, than a model learnt from."""
    image, learnt = manifest.config.image, ImageConfig.from_dict(card.image)
    drawn = card.config.view == "picture" and ENCODINGS[manifest.config.encoding].needs_picture
    if drawn and card.several:
        raise UsageError(
            f"SHARDS={','.join(folders)}: hold one picture of each object, drawn already; the model reads "
            f"{' and '.join(card.several)}: give shards made with ENCODING=flux"
        )
    names = [field.name for field in fields(image)] if drawn else ["frame"]
    different = [name for name in names if getattr(image, name) != getattr(learnt, name)]
    if different:
        raise UsageError(
            f"SHARDS={','.join(folders)}: pictures made otherwise than those the model learnt from "
            f"({', '.join(different)}); give shards of the same image configuration"
        )

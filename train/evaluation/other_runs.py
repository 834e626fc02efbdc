"""Other trained runs as baselines of one: the one-dimensional transformer, a tokenizer, another picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from specshards.common.errors import UsageError
from specshards.common.files import location
from specshards.shards import loader as shard_loader
from specshards.shards.format.manifest import Manifest
from specshards.train.accelerator import make_accelerator
from specshards.train.evaluation import predictions
from specshards.train.evaluation.evaluate import what_it_reads
from specshards.train.evaluation.score import score
from specshards.train.network import open_any
from specshards.train.run import Card
from specshards.train.tasks.metrics import FloatArray
from specshards.train.tasks.multitask import add_targets
from specshards.train.tasks.task import Task


def add_runs(
    run: Path, others: Sequence[Path], *, splits: Sequence[str] = ("val", "test"), device: str = "auto",
    threads: int | None = None,
) -> Path:  # fmt: skip
    """Put the answers of other runs into `run/baselines.parquet`, under the names of their folders.

    Each answers from its own shards, which must hold the same spectra in the same splits. What stands there already
    stays, but for runs of the same name.

    Raises:
        UsageError: no such run, no task in common, other classes, other objects in a split, or two of one name.
    """
    card, _ = open_any(run)
    names = [other.name for other in others]
    if len(set(names)) < len(names):
        raise UsageError(f"{', '.join(map(str, others))}: two of one name; rename a folder")
    known = predictions.Answers.read(run) if (run / predictions.FILE).is_file() else None
    record: dict[str, Any] = dict(known.record) if known else {"mock": card.mock}
    filled = [split for split in splits if any(_manifest(d).samples(split) for d in card.data)]
    tables = {split: _sidecar(card, split, threads) for split in filled}
    points = {split: known.beside(split, tables[split]) if known else {} for split in filled}
    for other in others:
        theirs, model = open_any(other)
        tasks = _common(card, theirs, other)
        accelerator = make_accelerator(device, theirs.config.precision)
        network = accelerator.prepare(model.to(accelerator.device))
        for split in filled:
            with _loader(theirs, split, threads, str(accelerator.device)) as loader:
                add_targets(theirs.tasks, loader)
                scored = score(network, theirs, loader, accelerator)
                order = predictions.places(
                    loader.sidecar(list(predictions.IDENTITY)), tables[split], split, Path(theirs.data[0]["folder"])
                )
            found: dict[str, FloatArray] = {task.name: scored[task.name].columns["point"][order] for task in tasks}
            nothing = np.full(len(order), np.nan)
            # Every baseline has every task, so that none is missing from a table without a word.
            points[split][other.name] = {task.name: found.get(task.name, nothing) for task in card.tasks}
        runs = {**record.get("runs", {}), other.name: {"model": theirs.model, "backbone": theirs.config.backbone}}
        record = {**record, "mock": record["mock"] or theirs.mock, "runs": runs}
    return predictions.write(run, {split: (tables[split], points[split]) for split in filled}, record)


def _common(card: Card, theirs: Card, other: Path) -> list[Task]:
    """The tasks of both."""
    there = {task.name: task for task in theirs.tasks}
    common = [task for task in card.tasks if task.name in there]
    if not common:
        raise UsageError(f"{other}: has learnt {theirs.title}, and nothing of {card.title}")
    for task in common:
        if conflict := task.conflict(there[task.name]):
            raise UsageError(f"{other}: {conflict}")
    return common


def _manifest(data: dict[str, Any]) -> Manifest:
    return Manifest.load(location(data["folder"]))


def _loader(card: Card, split: str, threads: int | None, device: str = "cpu") -> shard_loader.Loader:
    folders = [record["folder"] for record in card.data]
    return shard_loader.open(folders, split, card.config.batch_size, device=device, shuffle=False, threads=threads,
                             **what_it_reads(card))  # fmt: skip


def _sidecar(card: Card, split: str, threads: int | None) -> pa.Table:
    with _loader(card, split, threads) as loader:
        return loader.sidecar(list(predictions.IDENTITY))

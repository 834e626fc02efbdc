"""What a model is worth: `metrics.json`, a report and its figures, beside the trivial baselines.

Training writes the validation part; the test split is touched by `evaluate` alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ingest.errors import UsageError
from ingest.files import write_text
from shards import loader as shard_loader
from shards.format import SPLITS, Manifest
from train import figures, report
from train.run import METRICS, REPORT, Card, data_record, open_model
from train.scoring import finite, judge, make_accelerator, score


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
    card, model = open_model(run)
    folders = list(shards) or [record["folder"] for record in card.data]
    accelerator = make_accelerator(device)
    network = accelerator.prepare(model.to(accelerator.device))
    manifests = [Manifest.load(Path(folder)) for folder in folders]
    filled = [split for split in splits if any(manifest.samples(split) for manifest in manifests)]
    for split in splits:
        if split not in filled:
            accelerator.print(f"{', '.join(folders)}: the {split} split is empty and left out; use more objects")
    if not filled:
        raise UsageError(f"{', '.join(folders)}: nothing in {', '.join(splits)} to evaluate on")
    scores, data = {}, data_record(folders, manifests)
    mock = card.mock or any(manifest.mock for manifest in manifests)
    for split in filled:
        with shard_loader.open(
            folders, split, batch_size or card.config.batch_size, rank=accelerator.process_index,
            world_size=accelerator.num_processes, device=str(accelerator.device), shuffle=False, threads=threads,
            backend=backend,
        ) as loader:  # fmt: skip
            _check_pictures(card, loader.manifests[0].config.image.to_dict(), folders)
            scored = score(network, card.task, loader, accelerator)
        scores[split] = judge(card.task, scored, card.baselines)
        if accelerator.is_main_process:
            figures.draw(run, card.task, scored, split, mock)
    if accelerator.is_main_process:
        print(write(run, replace(card, mock=mock), scores, data=data))
    accelerator.wait_for_everyone()
    return json.loads((run / METRICS).read_text())


def write(
    run: Path,
    card: Card,
    scores: Mapping[str, Mapping[str, Any]],
    *,
    training: Mapping[str, Any] | None = None,
    data: Sequence[Mapping[str, Any]] | None = None,
) -> str:
    """Add the scores of some splits to `metrics.json`, write `report.md` from all of it, return the short table.

    What `metrics.json` holds of another model (other weights, other data) is dropped, never mixed.
    """
    path = run / METRICS
    scored_on = [dict(record) for record in (data or card.data)]
    head = {"task": card.task.name, "mock": card.mock, "model": card.model, "data": scored_on}
    content: dict[str, Any] = {**head, "splits": {}}
    if path.is_file():
        before = json.loads(path.read_text())
        if before.get("model") == card.model:
            content["training"] = before.get("training")
            if _fingerprints(before["data"]) == _fingerprints(scored_on):
                content["splits"] = before["splits"]
    content["splits"] = {**content["splits"], **finite(dict(scores))}
    if training is not None:
        content["training"] = finite(dict(training))
    write_text(path, json.dumps(content, indent=1) + "\n")
    write_text(run / REPORT, report.markdown(content, card))
    return report.short(content, card) + f"\n{path}, {run / REPORT}"


def _fingerprints(data: Sequence[Mapping[str, Any]]) -> list[str]:
    return [record["fingerprint"] for record in data]


def _check_pictures(card: Card, image: Mapping[str, Any], folders: Sequence[str]) -> None:
    different = [name for name in card.image if image.get(name) != card.image[name]]
    if different:
        raise UsageError(
            f"SHARDS={','.join(folders)}: pictures made otherwise than those the model learnt from "
            f"({', '.join(different)}); give shards of the same image configuration"
        )

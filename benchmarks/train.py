"""Training speed with the real loader against batches that lie ready: what waiting for data costs.

On a CPU with the `tiny` backbone; on a GPU with a ViT-B/16 of random weights, in bf16, eager and compiled. The cached
batches are the ceiling: a loader that reaches them costs nothing.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.records import Record, interleave, save, table

#: Floating-point operations of one training image of ViT-B/16 at 224 x 224, forward and backward.
VIT_B16_FLOP = 105.9e9


def main(out: Path, objects: int = 1500, batch_size: int = 64, rounds: int = 3) -> None:
    """Time optimiser steps; print a table and write the records to `out` as JSON.

    Args:
        objects: of the mock survey that the shards are made of.
        batch_size: images a step.
        rounds: counted rounds; one more warms up.
    """
    from shards import loader
    from train.scoring import make_accelerator

    accelerator = make_accelerator()
    device = accelerator.device
    with tempfile.TemporaryDirectory() as scratch:
        folder = _shards(Path(scratch), objects)
        with loader.open(folder, "train", batch_size, device=str(device)) as batches:
            cached = [_copy(batch) for batch in itertools.islice(iter(batches), 4)]
            steps = 10 if device.type == "cpu" else 100

            def endless() -> Iterable[Any]:
                while True:
                    yield from batches

            contenders: dict[str, Callable[[], int]] = {}
            for compiled in (False,) if device.type == "cpu" else (False, True):
                step = _stepper(accelerator, compiled)
                name = ("compiled, " if compiled else "") + ("tiny" if device.type == "cpu" else "ViT-B/16 bf16")
                contenders[f"{name}, cached batches"] = _runner(step, itertools.cycle(cached), steps, device)
                contenders[f"{name}, loader"] = _runner(step, endless(), steps, device)
            records = interleave(f"train on {device.type}, batch {batch_size}", contenders, rounds)
    records = [_with_flops(record) if device.type == "cuda" else record for record in records]
    save(records, out, "python -m benchmarks --only train")
    print(table(records))
    print(*(f"{r.name}: {r.note}" for r in records if r.note), out, sep="\n")


def _shards(scratch: Path, objects: int) -> Path:
    from ingest.build import IngestConfig
    from ingest.build import build as ingest
    from ingest.mock import MockConfig, write
    from shards.build import build
    from shards.format import ShardConfig

    mock = write(MockConfig(survey="lamost", n_files=objects), scratch / "mock")
    ingest(IngestConfig("lamost"), str(mock.folder), scratch)
    build(ShardConfig(), scratch / "spectra", scratch / "shards")
    return scratch / "shards"


def _stepper(accelerator: Any, compiled: bool) -> Callable[[Any], None]:
    """One optimiser step as the training loop does it, without its book-keeping."""
    from transformers import ViTConfig, ViTForImageClassification

    from train.classification import Classification
    from train.model import SpectrumModel, build, parameter_groups
    from train.tasks import masked_loss

    task = Classification(("STAR", "GALAXY", "QSO"))
    if accelerator.device.type == "cpu":
        model = build("tiny", task.head_size, 224)
    else:
        model = SpectrumModel(ViTForImageClassification(ViTConfig(num_labels=3)), (0.5,) * 3, (0.5,) * 3)
    model.to(accelerator.device).train()
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05, 1.0), lr=1e-4, fused=True)
    network, optimizer = accelerator.prepare(torch.compile(model) if compiled else model, optimizer)

    def step(batch: Any) -> None:
        with accelerator.autocast():
            logits = network(batch["pixel_values"])
        total, count = masked_loss(task, logits, batch["labels"]["class"], batch["valid"])
        accelerator.backward(total / count.clamp_min(1))
        accelerator.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _runner(
    step: Callable[[Any], None], batches: Iterable[Any], steps: int, device: torch.device
) -> Callable[[], int]:
    iterator = iter(batches)

    def run() -> int:
        seen = 0
        for batch in itertools.islice(iterator, steps):
            step(batch)
            seen += len(batch["valid"])
        if device.type == "cuda":
            torch.cuda.synchronize()
        return seen

    return run


def _copy(batch: Any) -> dict[str, Any]:
    # DALI reuses its buffers: a batch to keep must be a copy.
    labels = {name: values.clone() for name, values in batch["labels"].items()}
    return {**batch, "pixel_values": batch["pixel_values"].clone(), "labels": labels, "valid": batch["valid"].clone()}


def _with_flops(record: Record) -> Record:
    return replace(record, note=f"{VIT_B16_FLOP / record.median / 1e12:.0f} TFLOP/s, {torch.cuda.get_device_name()}")


if __name__ == "__main__":
    main(Path("benchmarks/results/local/train.json"))

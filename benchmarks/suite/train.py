"""`make bench-train`: training with the real loader against batches that lie ready: what waiting for data costs.

On a CPU with the `tiny` backbone. On a GPU with a ViT-B/16 of random weights in bf16, eager and compiled, and before
that the loader alone, every encoding. The cached batches are the ceiling: a loader that reaches them costs nothing.
The share of a step that waits for data is 1 - cached / loader. A training image costs three forward passes; MFU is
the share of the GPU's dense bf16 peak.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from specshards.benchmarks.kit.records import Record, interleave
from specshards.benchmarks.kit.report import LOCAL, Out, Quick, Rounds, recording
from specshards.shards import loader
from specshards.shards.format.encoding import ENCODINGS
from specshards.train.meter import forward_flops, peak_of

SIZE = 224
CACHED, LOADER = "cached batches", "loader"
#: Per device: what the model is called, and the ways to run it.
MODELS = {"cpu": ("tiny", ("",)), "cuda": ("ViT-B/16 bf16", ("", "compiled, "))}


def training_name(device: str, way: str, source: str) -> str:
    """Of a record of `train on DEVICE`."""
    return f"{way}{MODELS[device][0]}, {source}"


def left_out(device: str, batch_size: int) -> list[Record]:
    """What `measure` gives on such a device, without values: it was not run on this machine."""
    note = "not run: no GPU" if device == "cuda" else "not run: it is measured on the GPU here"
    about = {"batch": float(batch_size), "flop": 1.0}
    steps = [Record(group_name(device, batch_size), training_name(device, way, source), (1.0,), about=about)
             for way in MODELS[device][1] for source in (CACHED, LOADER)]  # fmt: skip
    records = [*steps, *derived(steps, "a GPU" if device == "cuda" else "")]
    if device == "cuda":
        group = f"load on cuda, batch {batch_size}"
        records = [*(Record(group, alone_name(encoding), ()) for encoding in ENCODINGS), *records]
    return [replace(r, values=(), note=note, about={"batch": float(batch_size)}) for r in records]


def group_name(device: str, batch_size: int) -> str:
    """Of optimiser steps."""
    return f"train on {device}, batch {batch_size}"


def alone_name(encoding: str) -> str:
    """Of a record of `load on DEVICE`."""
    return f"loader alone, {encoding}"


def alone_records(folders: dict[str, Path], batch_size: int, rounds: int, steps: int, device: str) -> list[Record]:
    """Batches of every encoding as they arrive on the device, and nothing done with them."""
    with ExitStack() as stack:
        contenders: dict[str, Callable[[], int]] = {}
        for encoding, folder in folders.items():
            batches = stack.enter_context(loader.open(folder, "train", batch_size, device=device))
            contenders[alone_name(encoding)] = _runner(lambda batch: None, _endless(batches), steps, device)
        records = interleave(f"load on {device}, batch {batch_size}", contenders, rounds)
    return [replace(r, about={"batch": float(batch_size)}) for r in records]


def training_records(folder: Path, batch_size: int, rounds: int, steps: int, accelerator: Any) -> list[Record]:
    """Optimiser steps, then what follows from them: waiting for data, TFLOP/s, MFU."""
    device = accelerator.device.type
    about = {"batch": float(batch_size)}
    with ExitStack() as stack:
        contenders: dict[str, Callable[[], int]] = {}
        for way in MODELS[device][1]:
            step, flop = make_step(accelerator, compiled=bool(way))
            if device == "cuda":
                about["flop"] = flop
            # A loader of its own: turns of two would share one epoch.
            batches = stack.enter_context(loader.open(folder, "train", batch_size, device=str(accelerator.device)))
            cached = [_copy(batch) for batch in itertools.islice(iter(batches), 4)]
            for source, its in ((CACHED, itertools.cycle(cached)), (LOADER, _endless(batches))):
                contenders[training_name(device, way, source)] = _runner(step, its, steps, device)
        records = interleave(group_name(device, batch_size), contenders, rounds)
    records = [replace(r, about=dict(about)) for r in records]
    gpu = torch.cuda.get_device_name(accelerator.device) if device == "cuda" else ""
    return [*records, *derived(records, gpu)]


def derived(records: Sequence[Record], gpu: str) -> list[Record]:
    """Round by round: the share of the time that waits for data; on a GPU also TFLOP/s, and MFU if its peak is known.

    Args:
        records: pairs, cached batches and then the loader, with `about["flop"]` on a GPU.
        gpu: its name; empty on a CPU.
    """
    results = []
    for ready, real in zip(records[::2], records[1::2], strict=True):
        # A loader can come out faster than memory by chance: then nothing waited.
        waited = tuple(max(0.0, 1 - c / m) for c, m in zip(ready.values, real.values, strict=True))
        name = real.name.removesuffix(f", {LOADER}")
        results.append(Record(f"data wait, {real.group}", name, waited, "share", about=real.about))
    peak = peak_of(gpu)
    note = f"of {peak / 1e12:.1f} TFLOP/s" if peak else f"not run: the bf16 peak of {gpu} is not known"
    for r in records if gpu else []:
        rates = tuple(r.about["flop"] / value for value in r.values)
        speeds, used = tuple(rate / 1e12 for rate in rates), tuple(rate / peak for rate in rates) if peak else ()
        results.append(Record(f"TFLOP/s, {r.group}", r.name, speeds, "TFLOP/s", about=r.about))
        results.append(Record(f"MFU, {r.group}", r.name, used, "share", note, about=r.about))
    return results


def make_step(accelerator: Any, *, compiled: bool) -> tuple[Callable[[Any], None], float]:
    """One optimiser step as the training loop does it, without its book-keeping; and FLOP of a training image."""
    from transformers import ViTConfig, ViTForImageClassification

    from specshards.train.models.parameters import parameter_groups
    from specshards.train.models.picture import SpectrumModel, build
    from specshards.train.tasks.classification import Classify
    from specshards.train.tasks.multitask import masked_loss

    task = Classify(("STAR", "GALAXY", "QSO"), "classify")
    if accelerator.device.type == "cpu":
        model = build("tiny", task.head_size, SIZE)
    else:
        model = SpectrumModel(ViTForImageClassification(ViTConfig(num_labels=3)), (0.5,) * 3, (0.5,) * 3)
    model.to(accelerator.device).train()
    flop = 3 * forward_flops(model, SIZE, accelerator.device)
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

    return step, flop


def _endless(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from batches


def _runner(step: Callable[[Any], None], batches: Iterable[Any], steps: int, device: str) -> Callable[[], int]:
    iterator = iter(batches)

    def run() -> int:
        seen = 0
        for batch in itertools.islice(iterator, steps):
            step(batch)
            seen += len(batch["valid"])
        if device == "cuda":
            torch.cuda.synchronize()
        return seen

    return run


def _copy(batch: Any) -> dict[str, Any]:
    # DALI reuses its buffers: a batch to keep must be a copy.
    labels = {name: values.clone() for name, values in batch["labels"].items()}
    return {**batch, "pixel_values": batch["pixel_values"].clone(), "labels": labels, "valid": batch["valid"].clone()}


def make_shards(scratch: Path, objects: int, encodings: Iterable[str]) -> dict[str, Path]:
    """Shards of mock LAMOST spectra in a new folder, by encoding."""
    from specshards.ingest.mock.scale.config import ScaleConfig
    from specshards.ingest.mock.scale.job import write_parquet_survey
    from specshards.shards.format.manifest import ShardConfig
    from specshards.shards.write.build import build

    write_parquet_survey(ScaleConfig("lamost", n=objects), scratch)
    for encoding in encodings:
        build(ShardConfig(encoding=encoding), scratch / "spectra", scratch / encoding)
    return {encoding: scratch / encoding for encoding in encodings}


def measure(objects: int | None, batch_size: int, rounds: int, steps: int | None, scratch: Path) -> list[Record]:
    """Everything that this machine can run, and the names of the rest.

    Args:
        objects: of the mock survey that the shards are made of; None takes 1,500 on a CPU and 20,000 on a GPU.
        batch_size: images a step.
        steps: in a turn; None takes 10 on a CPU and 100 on a GPU.
    """
    from specshards.train.accelerator import make_accelerator

    accelerator = make_accelerator()
    if accelerator.device.type == "cuda":
        folders = make_shards(scratch, objects or 20_000, ENCODINGS)
        alone = alone_records(folders, batch_size, rounds, steps or 100, "cuda")
        records = alone + training_records(folders["png"], batch_size, rounds, steps or 100, accelerator)
        return [*left_out("cpu", batch_size), *records]
    folders = make_shards(scratch, objects or 1500, ("png",))
    records = training_records(folders["png"], batch_size, rounds, steps or 10, accelerator)
    return [*records, *left_out("cuda", batch_size)]


def main(
    out: Out = LOCAL / "train.json",
    objects: Annotated[
        int | None, typer.Option(help="Mock objects in the shards. [1500 on a CPU, 20000 on a GPU]", min=40)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images a step.", min=1)] = 64,
    rounds: Rounds = 3,
    steps: Annotated[int | None, typer.Option(help="Of a turn. [10 on a CPU, 100 on a GPU]", min=1)] = None,
    quick: Quick = False,
) -> None:
    """Time optimiser steps with the loader and with cached batches, interleaved."""
    with recording("train", out, quick) as draft, tempfile.TemporaryDirectory() as scratch:
        if quick:
            objects, batch_size, rounds, steps = 60, 4, 1, 1
        draft.records = measure(objects, batch_size, rounds, steps, Path(scratch))

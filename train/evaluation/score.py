"""A model's answers on one split, with the labels that they are to be judged by."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized
from torch import nn

from specshards.common.errors import UsageError
from specshards.train.models.layers import model_input
from specshards.train.tasks.metrics import FloatArray
from specshards.train.tasks.multitask import masked_loss, split_logits
from specshards.train.tasks.task import Task

LOGS = ("tensorboard", "wandb", "none")
#: glibc's mallopt: what it is asked to keep, and the bytes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _KEPT = -1, -3, 1 << 30


@dataclass(frozen=True)
class Scored:
    """Answers on a split, padding removed.

    Attributes:
        columns: from `Task.decode`, float64 `(N,)`.
        labels: every label, float64 `(N,)`, NaN = missing.
        surveys: names, object `(N,)`.
        loss: mean over the labelled samples, NaN without any.
    """

    columns: dict[str, FloatArray]
    labels: dict[str, FloatArray]
    surveys: np.ndarray[Any, np.dtype[np.object_]]
    loss: float


def make_accelerator(
    device: str = "auto", precision: str = "auto", log: str = "none", out: Path | None = None
) -> Accelerator:
    """One process's share of the machine.

    Args:
        precision: `fp32`, `bf16`, or `auto`: bf16 on a GPU that has it, float32 elsewhere.
        log: `tensorboard`, into `out`, `wandb` or `none`.

    Raises:
        UsageError: a device or a way to log that this machine does not have.
    """
    if log not in LOGS:
        raise UsageError(f"unknown tracker {log}: choose {', '.join(LOGS)}")
    if log == "wandb" and find_spec("wandb") is None:
        raise UsageError("tracker wandb: Weights & Biases is not installed; `.venv/bin/pip install wandb`")
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device != "auto" and not here.get(device):
        raise UsageError(
            f"device {device}: not on this machine; choose auto or {' or '.join(k for k in here if here[k])}"
        )
    suits = device in ("auto", "cuda") and here["cuda"] and torch.cuda.is_bf16_supported()
    bf16 = precision == "bf16" or (precision == "auto" and suits)
    rounding = "bf16" if bf16 else "no"
    if is_initialized() and AcceleratorState().mixed_precision != rounding:
        # accelerate knows one precision a process; here models of two may answer, one after the other.
        AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision=rounding, cpu=device == "cpu", log_with=None if log == "none" else log, project_dir=out
    )


def keep_freed_memory() -> None:
    """For a process that trains on a CPU: let glibc keep what one step frees for the next one.

    It would give tensors of more than 32 MB back to the system, which hands them out again page by page, zeroed: a
    seventh of the CPU time of fine-tuning a ViT-S in batches of 32. With another allocator nothing is done.
    """
    with suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _KEPT)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT)


def score(
    model: nn.Module, tasks: Sequence[Task], loader: Any, accelerator: Accelerator,
    check: Callable[[], None] = lambda: None,
) -> dict[str, Scored]:  # fmt: skip
    """Run the model over one whole split, on all processes, each sample counted once.

    Args:
        loader: of `shards.loader`, unshuffled; with the labels that `add_targets` gives it.
        check: called after every batch; may raise to stop.

    Returns:
        By the name of the task; the labels are the same for all.
    """
    model.eval()
    logits, labels, valid = [], [], []
    names: list[str] = []
    sums = torch.zeros(len(tasks), 2, dtype=torch.float64)
    with torch.inference_mode():
        for batch in loader:
            with accelerator.autocast():
                answer = model(model_input(batch))
            for i, (task, part) in enumerate(zip(tasks, split_logits(tasks, answer), strict=True)):
                total, count = masked_loss(task, part, batch["labels"][task.target], batch["valid"])
                sums[i] += torch.stack([total.cpu().double(), count.cpu().double()])
            logits.append(answer.float().cpu())
            names = list(batch["labels"])
            labels.append(torch.stack([batch["labels"][name].double().cpu() for name in names], dim=1))
            valid.append(batch["valid"].cpu())
            check()
    everything = [torch.cat(part) for part in (logits, labels, valid)]
    if accelerator.num_processes > 1:
        device = accelerator.device
        everything = [accelerator.gather(part.to(device)).cpu() for part in everything]
        sums = accelerator.reduce(sums.to(device)).cpu()
    all_logits, all_labels, all_valid = everything
    kept = all_valid.bool()
    table = all_labels[kept].numpy()
    columns = {name: table[:, i] for i, name in enumerate(names)}
    surveys = np.array([*loader.surveys, "unknown"], dtype=object)
    whose = surveys[np.nan_to_num(columns["survey"], nan=len(surveys) - 1).astype(int)]
    scored = {}
    for task, part, (total, count) in zip(tasks, split_logits(tasks, all_logits[kept]), sums, strict=True):
        answers = {**task.decode(part), **task.calibration(part, columns[task.target])}
        scored[task.name] = Scored(answers, columns, whose, float(total / count) if count else float("nan"))
    return scored

"""A model's predictions on one split, with the labels that they are measured by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from specshards.shards.loader.loader import Loader
from specshards.train.models.layers import model_input
from specshards.train.tasks.metrics import FloatArray
from specshards.train.tasks.multitask import masked_loss, split_logits
from specshards.train.tasks.task import Task


@dataclass(frozen=True)
class Scored:
    """Predictions on a split, padding removed.

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


def score(
    model: nn.Module, tasks: Sequence[Task], loader: Loader, accelerator: Accelerator,
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
                outputs = model(model_input(batch))
            for i, (task, part) in enumerate(zip(tasks, split_logits(tasks, outputs), strict=True)):
                total, count = masked_loss(task, part, batch["labels"][task.target], batch["valid"])
                sums[i] += torch.stack([total.cpu().double(), count.cpu().double()])
            logits.append(outputs.float().cpu())
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
        decoded = {**task.decode(part), **task.calibration(part, columns[task.target])}
        scored[task.name] = Scored(decoded, columns, whose, float(total / count) if count else float("nan"))
    return scored

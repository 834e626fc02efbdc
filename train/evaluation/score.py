"""A model's predictions on one split, with the labels that they are measured by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from specshards.shards.loader.loader import Loader
from specshards.train.accelerator import in_order
from specshards.train.models.layers import model_input
from specshards.train.models.views import by_picture
from specshards.train.run import Card
from specshards.train.tasks.metrics import FloatArray
from specshards.train.tasks.multitask import masked_loss, split_logits


@dataclass(frozen=True)
class Scored:
    """Predictions on a split, padding removed.

    Attributes:
        columns: from `Task.decode`, float64 `(N,)`.
        labels: every label, float64 `(N,)`, NaN = missing.
        surveys: names, object `(N,)`.
        loss: mean over the labelled samples, NaN without any.
        pictures: columns of the answers to each picture alone, by its name, of a model of several pictures; then
            `columns` is decoded from the mean of the outputs over them.
        drawn_by: what intervals draw anew, see `witnesses.Drawn`.
    """

    columns: dict[str, FloatArray]
    labels: dict[str, FloatArray]
    surveys: np.ndarray[Any, np.dtype[np.object_]]
    loss: float
    pictures: dict[str, dict[str, FloatArray]] = field(default_factory=dict)
    drawn_by: str = "object"


def score(
    model: nn.Module, card: Card, loader: Loader, accelerator: Accelerator,
    check: Callable[[], None] = lambda: None, drawn_by: str = "object",
) -> dict[str, Scored]:  # fmt: skip
    """Run the model over one whole split, on all processes, each sample counted once.

    Args:
        card: the tasks of the model, and what the loss of several pictures is of (`TrainConfig.views`).
        loader: of `shards.loader`, unshuffled, several pictures together, with what `add_targets` gives it.
        check: called after every batch; may raise to stop.
        drawn_by: of `Scored`.

    Returns:
        By the name of the task; the labels are the same for all.
    """
    tasks = card.tasks
    model.eval()
    logits, labels, valid = [], [], []
    names: list[str] = []
    sums = torch.zeros(len(tasks), 2, dtype=torch.float64)
    with torch.inference_mode():
        for batch in loader:
            with accelerator.autocast():
                outputs = by_picture(model, model_input(batch))
            judged = outputs if card.config.views == "each" else _mean(outputs)[:, None]
            for one in judged.unbind(dim=1):
                for i, (task, part) in enumerate(zip(tasks, split_logits(tasks, one), strict=True)):
                    total, count = masked_loss(task, part, batch["labels"][task.target], batch["valid"])
                    sums[i] += torch.stack([total.cpu().double(), count.cpu().double()])
            logits.append(outputs.float().cpu())
            names = list(batch["labels"])
            labels.append(torch.stack([batch["labels"][name].double().cpu() for name in names], dim=1))
            valid.append(batch["valid"].cpu())
            check()
    if accelerator.num_processes > 1:
        sums = accelerator.reduce(sums.to(accelerator.device)).cpu()
    all_logits, all_labels, all_valid = (in_order(accelerator, part) for part in (logits, labels, valid))
    kept = all_valid.bool()
    table = all_labels[kept].numpy()
    columns = {name: table[:, i] for i, name in enumerate(names)}
    surveys = np.array([*loader.surveys, "unknown"], dtype=object)
    whose = surveys[np.nan_to_num(columns["survey"], nan=len(surveys) - 1).astype(int)]

    def decoded(logits: torch.Tensor) -> dict[str, dict[str, FloatArray]]:
        return {
            task.name: {**task.decode(part), **task.calibration(part, columns[task.target])}
            for task, part in zip(tasks, split_logits(tasks, logits), strict=True)
        }

    whole = decoded(_mean(all_logits[kept]))
    alone = dict(zip(card.several, map(decoded, all_logits[kept].unbind(dim=1)), strict=False))
    return {
        task.name: Scored(
            whole[task.name], columns, whose, float(total / count) if count else float("nan"),
            {name: found[task.name] for name, found in alone.items()}, drawn_by,
        )
        for task, (total, count) in zip(tasks, sums, strict=True)
    }  # fmt: skip


def _mean(outputs: torch.Tensor) -> torch.Tensor:
    """Outputs `(B, pictures, outputs)` to one answer an object; of one picture they are the answer."""
    return outputs[:, 0] if outputs.shape[1] == 1 else outputs.float().mean(dim=1)

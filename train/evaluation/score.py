"""A model's predictions on one split, with the labels that they are measured by.

What a network puts out is a histogram of a hundred numbers an object; it is decoded a few thousand objects at a time,
and of each object the few numbers stay that it is measured by. Each process does that to its own part of the split;
the main process alone is given them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import nn

from specshards.shards.loader.loader import Loader
from specshards.train.models.layers import model_input
from specshards.train.models.views import by_picture
from specshards.train.run import Card
from specshards.train.tasks.metrics import FloatArray
from specshards.train.tasks.multitask import masked_loss, split_logits
from specshards.train.tasks.task import Task

#: Objects whose outputs wait for each other, so that a batch of few is not decoded alone.
_DECODED = 4096
#: The label that tells each process's objects their places in the split.
_ROW = "row of the split"
_LABEL = "label"
#: Of a column: `_LABEL`, or a task and a picture, or the mean over them, which is ``; and its name there.
_Name = tuple[str | tuple[str, str], str]


@dataclass(frozen=True)
class Scored:
    """Predictions on a split, padding removed.

    Attributes:
        columns: from `Task.judged`, float64 `(N,)`.
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
        By the name of the task, in the order of the split; the labels are the same for all. Empty on all processes
        but the main one.
    """
    tasks = card.tasks
    model.eval()
    if accelerator.num_processes > 1 and _ROW not in loader.labels:
        loader.add_label(_ROW, np.arange(loader.samples, dtype=np.float64))
    found: _Columns | None = None
    waiting: list[tuple[torch.Tensor, torch.Tensor]] = []
    names: list[str] = []
    sums = torch.zeros(len(tasks), 2, dtype=torch.float64)

    def decode() -> None:
        """Of all that waits, padding removed."""
        if found is not None and waiting:
            outputs, labels = (torch.cat(parts) for parts in zip(*waiting, strict=True))
            waiting.clear()
            found.add(_judged(card, outputs, dict(zip(names, labels.numpy().T, strict=True))))

    with torch.inference_mode():
        for batch in loader:
            with accelerator.autocast():
                outputs = by_picture(model, model_input(batch))
            judged = outputs if card.config.views == "each" else _mean(outputs)[:, None]
            for one in judged.unbind(dim=1):
                for i, (task, part) in enumerate(zip(tasks, split_logits(tasks, one), strict=True)):
                    total, count = masked_loss(task, part, batch["labels"][task.target], batch["valid"])
                    sums[i] += torch.stack([total.cpu().double(), count.cpu().double()])
            names, kept = list(batch["labels"]), batch["valid"].cpu().bool()
            if found is None:
                found = _Columns(len(loader) * len(kept))
            labels = torch.stack([batch["labels"][name].double().cpu() for name in names], dim=1)
            waiting.append((outputs.float().cpu()[kept], labels[kept]))
            if sum(len(labels) for _, labels in waiting) >= _DECODED:
                decode()
            check()
        decode()
    if accelerator.num_processes > 1:
        sums = accelerator.reduce(sums.to(accelerator.device)).cpu()
    columns = {} if found is None else found.merged(accelerator)
    if not columns:
        return {}
    truths = {name: values for (kind, name), values in columns.items() if kind == _LABEL}
    surveys = np.array([*loader.surveys, "unknown"], dtype=object)
    whose = surveys[np.nan_to_num(truths["survey"], nan=len(surveys) - 1).astype(int)]

    def said(task: Task, picture: str = "") -> dict[str, FloatArray]:
        return {name: values for (kind, name), values in columns.items() if kind == (task.name, picture)}

    return {
        task.name: Scored(
            said(task), truths, whose, float(total / count) if count else float("nan"),
            {picture: said(task, picture) for picture in card.several}, drawn_by,
        )
        for task, (total, count) in zip(tasks, sums, strict=True)
    }  # fmt: skip


def _judged(card: Card, outputs: torch.Tensor, labels: Mapping[str, FloatArray]) -> dict[_Name, FloatArray]:
    """All columns of some objects: their labels, and what each task makes of outputs `(B, pictures, outputs)`."""
    columns: dict[_Name, FloatArray] = {(_LABEL, name): values for name, values in labels.items()}
    answers = {"": _mean(outputs), **dict(zip(card.several, outputs.unbind(dim=1), strict=False))}
    for picture, logits in answers.items():
        for task, part in zip(card.tasks, split_logits(card.tasks, logits), strict=True):
            judged = task.judged(part, labels[task.target])
            columns |= {((task.name, picture), name): values for name, values in judged.items()}
    return columns


class _Columns:
    """Columns float64 that grow from the front, up to a number of rows that is the same on all processes."""

    def __init__(self, most: int) -> None:
        self._most, self._rows = most, 0
        self._columns: dict[_Name, FloatArray] = {}

    def add(self, block: Mapping[_Name, FloatArray]) -> None:
        """More rows of every column."""
        end = self._rows + len(next(iter(block.values())))
        for name, values in block.items():
            # Memory that is not written to is not taken.
            self._columns.setdefault(name, np.empty(self._most))[self._rows : end] = values
        self._rows = end

    def merged(self, accelerator: Accelerator) -> dict[_Name, FloatArray]:
        """Those of all processes on the main one, in the order of the split; they are moved one column at a time."""
        if accelerator.num_processes == 1:
            return {name: values[: self._rows] for name, values in self._columns.items()}
        device = accelerator.device
        rows = accelerator.gather(torch.tensor([self._rows], device=device)).tolist()
        merged: dict[_Name, FloatArray] = {}
        order: npt.NDArray[np.intp] | None = None
        for name in sorted(self._columns, key=lambda name: name != (_LABEL, _ROW)):
            own = torch.from_numpy(self._columns.pop(name)[: max(rows)]).to(device)
            everyone = accelerator.gather(own).cpu().numpy().reshape(len(rows), -1)
            if accelerator.is_main_process:
                column = np.concatenate([part[:n] for part, n in zip(everyone, rows, strict=True)])
                if order is None:
                    order = np.argsort(column, kind="stable")
                else:
                    merged[name] = column[order]
        return merged


def _mean(outputs: torch.Tensor) -> torch.Tensor:
    """Outputs `(B, pictures, outputs)` to one answer an object; of one picture they are the answer."""
    return outputs[:, 0] if outputs.shape[1] == 1 else outputs.float().mean(dim=1)

"""A model's answers on one split, and what they are worth: over all, by survey, by class, beside the baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from ingest.errors import UsageError
from ingest.schema import CLASSES
from shards.format import LABELS
from train.baselines import Baselines
from train.metrics import FloatArray
from train.tasks import Task, masked_loss

_SN_BINS = {
    "below 2": (-np.inf, 2.0), "2 to 5": (2.0, 5.0), "5 to 10": (5.0, 10.0), "10 to 20": (10.0, 20.0),
    "20 and more": (20.0, np.inf),
}  # fmt: skip


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


def make_accelerator(device: str = "auto") -> Accelerator:
    """One process's share of the machine: bf16 on a GPU that has it, float32 elsewhere.

    Raises:
        UsageError: a device that this machine does not have.
    """
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device != "auto" and not here.get(device):
        raise UsageError(
            f"device {device}: not on this machine; choose auto or {' or '.join(k for k in here if here[k])}"
        )
    bf16 = device in ("auto", "cuda") and here["cuda"] and torch.cuda.is_bf16_supported()
    return Accelerator(mixed_precision="bf16" if bf16 else "no", cpu=device == "cpu")


def score(
    model: nn.Module, task: Task, loader: Any, accelerator: Accelerator, check: Callable[[], None] = lambda: None
) -> Scored:
    """Run the model over one whole split, on all processes, each sample counted once.

    Args:
        loader: of `shards.loader`, unshuffled.
        check: called after every batch; may raise to stop.
    """
    model.eval()
    logits, labels, valid = [], [], []
    total, count = torch.zeros((), dtype=torch.float64), 0
    with torch.inference_mode():
        for batch in loader:
            with accelerator.autocast():
                answer = model(batch["pixel_values"])
            loss_sum, n = masked_loss(task, answer, batch["labels"][task.label], batch["valid"])
            total, count = total + loss_sum.cpu().double(), count + int(n)
            logits.append(answer.float().cpu())
            labels.append(torch.stack([batch["labels"][name].double().cpu() for name in LABELS], dim=1))
            valid.append(batch["valid"].cpu())
            check()
    everything = [torch.cat(part) for part in (logits, labels, valid)]
    sums = torch.stack([total, torch.tensor(float(count), dtype=torch.float64)])
    if accelerator.num_processes > 1:
        device = accelerator.device
        everything = [accelerator.gather(part.to(device)).cpu() for part in everything]
        sums = accelerator.reduce(sums.to(device)).cpu()
    all_logits, all_labels, all_valid = everything
    kept = all_valid.bool()
    table = all_labels[kept].numpy()
    columns = {name: table[:, i] for i, name in enumerate(LABELS)}
    names = np.array([*loader.surveys, "unknown"], dtype=object)
    codes = np.nan_to_num(columns["survey"], nan=len(names) - 1).astype(int)
    loss = float(sums[0] / sums[1]) if sums[1] else float("nan")
    return Scored(task.decode(all_logits[kept]), columns, names[codes], loss)


def judge(task: Task, scored: Scored, baselines: Baselines) -> dict[str, Any]:
    """Metrics of a split: `objects`, `labelled`, `loss`, `all`, `by_survey`, `by_class`, `by_sn`, `baselines`."""
    known = np.isfinite(scored.labels[task.label])

    def measure(rows: np.ndarray[Any, np.dtype[np.bool_]], columns: dict[str, FloatArray]) -> dict[str, Any]:
        return task.measure(
            {name: values[rows] for name, values in columns.items()},
            {name: values[rows] for name, values in scored.labels.items()},
        )

    def groups(members: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        counted = ((name, known & rows) for name, rows in members)
        return {name: measure(rows, scored.columns) for name, rows in counted if rows.any()}

    sn = scored.labels["sn_median"]
    constant = baselines.predict(list(scored.surveys))
    return {
        "objects": len(known),
        "labelled": int(known.sum()),
        "loss": scored.loss,
        "all": measure(known, scored.columns),
        "by_survey": groups((s, scored.surveys == s) for s in sorted(set(scored.surveys))),
        "by_class": groups((name, scored.labels["class"] == i) for i, name in enumerate(CLASSES)),
        "by_sn": groups((name, (sn >= low) & (sn < high)) for name, (low, high) in _SN_BINS.items()),
        "baselines": {name: measure(known, {"point": values}) for name, values in constant.items()},
    }


def finite(content: Any) -> Any:
    """`content` with NaN and infinities as None, so that it is JSON."""
    if isinstance(content, dict):
        return {name: finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    if isinstance(content, float) and not np.isfinite(content):
        return None
    return content

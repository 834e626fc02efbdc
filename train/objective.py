"""What a training loop is given to learn: `train.fit` has it of labels, `train.tokenizer.pretrain` without them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from specshards.shards.loader.loader import Loader


@dataclass(frozen=True)
class Verdict:
    """What a validation found.

    Attributes:
        metric, value: by which the best epoch is chosen. more: whether more of it is better.
        entry: of the history and the tracker.
        found: for `Objective.keep`.
    """

    metric: str
    value: float
    more: bool
    entry: dict[str, Any]
    found: Any = None

    def beats(self, best: dict[str, Any] | None) -> bool:
        """Whether this is the best validation so far; a run without a defined metric keeps its last epoch."""
        if best is None or best["value"] is None:
            return True
        return math.isfinite(self.value) and (self.value > best["value"] if self.more else self.value < best["value"])


class Objective(Protocol):
    """What a model is to learn."""

    @property
    def title(self) -> str:
        """In the progress line."""
        ...

    def build(self, device: torch.device) -> nn.Module:
        """A fresh model."""
        ...

    def counts(self, batch: Any) -> list[int]:
        """How many samples of a batch count, for each term of the loss."""
        ...

    def totals(self, model: nn.Module, batch: Any, accelerator: Accelerator) -> Sequence[Tensor]:
        """Each term of the loss summed over the samples that count, float32 scalars."""
        ...

    def validate(
        self, model: nn.Module, loader: Loader, accelerator: Accelerator, check: Callable[[], None]
    ) -> Verdict:
        """Score the validation split on all processes; `check` is called after every batch and may raise."""
        ...

    def keep(self, model: nn.Module, verdict: Verdict, best: dict[str, Any]) -> None:
        """Write the best model so far to the run's folder; on the main process alone."""
        ...

    def restore(self) -> None:
        """Read again what `keep` wrote, after an interruption."""
        ...

    def describe(self) -> str:
        """One line on the data and the model, before the first step."""
        ...

    def finish(self, summary: dict[str, Any]) -> str:
        """Write the report of the whole run, and return what there is to say; on the main process alone."""
        ...


@dataclass(frozen=True)
class Start:
    """What an objective is made from: open loaders of the train and validation split, and records of their data."""

    train: Loader
    val: Loader
    data: tuple[dict[str, Any], ...]

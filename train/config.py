"""What decides a training run: one frozen record, checked when made and written beside every model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ingest.errors import UsageError

TINY = "tiny"
HEADS = ("histogram", "gaussian", "mse")


@dataclass(frozen=True)
class TrainConfig:
    """What decides the weights that a run ends with.

    Attributes:
        task: a name in `train.tasks.TASKS`.
        shards: folders with a `manifest.json`; more than one are trained on together.
        backbone: a name on the model hub, a folder, or `tiny`.
        batch_size: images a step and process.
        lr: peak learning rate; None takes 1e-3 for `tiny` (from scratch) and 1e-4 for a pretrained backbone.
        layer_decay: learning rate of each layer relative to the one above it; 1 is off.
        warmup: share of all steps over which the learning rate rises; after it, it falls as a cosine to 1%.
        clip: largest norm of the gradient.
        head: how a regression task predicts: a `histogram` over the train range, a `gaussian`, or a point by `mse`.
        bins: of the histogram.
        max_steps: an upper limit on optimiser steps over all epochs.
        compile: run the model through `torch.compile`.
    """

    task: str
    shards: tuple[str, ...]
    backbone: str = "facebook/dino-vitb16"
    epochs: int = 10
    batch_size: int = 64
    lr: float | None = None
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    warmup: float = 0.05
    clip: float = 1.0
    head: str = "histogram"
    bins: int = 128
    seed: int = 0
    max_steps: int | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        """Check the fields; UsageError names the field and what is allowed."""
        if not self.shards:
            raise UsageError("no SHARDS given: name a folder made by `make shards`")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name.upper()}={getattr(self, name)}: give a positive number")
        if self.max_steps is not None and self.max_steps < 1:
            raise UsageError(f"max_steps={self.max_steps}: give a positive number")
        if self.lr is not None and not self.lr > 0:
            raise UsageError(f"lr={self.lr}: give a positive number")
        if self.weight_decay < 0 or self.clip <= 0:
            raise UsageError("weight_decay must not be negative and clip must be positive")
        if not 0 < self.layer_decay <= 1:
            raise UsageError(f"layer_decay={self.layer_decay}: give a number above 0, at most 1 (off)")
        if not 0 <= self.warmup < 1:
            raise UsageError(f"warmup={self.warmup}: give a share of all steps, 0 to below 1")
        if self.head not in HEADS:
            raise UsageError(f"unknown head {self.head}: choose {', '.join(HEADS)}")
        if self.bins < 8:
            raise UsageError(f"bins={self.bins}: give at least 8")

    @property
    def peak_lr(self) -> float:
        """`lr`, or the default that suits the backbone."""
        return self.lr if self.lr is not None else (1e-3 if self.backbone == TINY else 1e-4)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content, with the learning rate resolved."""
        return {**asdict(self), "shards": list(self.shards), "lr": self.peak_lr}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`."""
        return cls(**{**content, "shards": tuple(content["shards"])})

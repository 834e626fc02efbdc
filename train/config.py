"""What decides a training run: one frozen record, checked when made and written beside every model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from specshards.common.errors import UsageError

TINY = "tiny"
#: What the backbone of a run on a tokenizer begins with; its folder follows.
TOKENIZER = "tokenizer:"
#: The one-dimensional transformer, which reads spectra, and its small version; see `train.models.sequence`.
SEQUENCE_SIZES = {"sequence": "paper", "sequence-tiny": "tiny"}
HEADS = ("auto", "histogram", "gaussian", "mse")
CHOICES = {
    "head": HEADS,
    "schedule": ("cosine", "constant"),
    "precision": ("auto", "fp32", "bf16"),
    "balance": ("none", "weights", "logits"),
    "freeze": ("none", "backbone"),
    "pool": ("mean", "attention"),
}
#: Values that a preset gives; what a user gives beside it wins. `paper` is A&A 709, A122.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "lr": 1e-5, "weight_decay": 0.01, "epochs": 30, "head": "mse", "schedule": "constant", "warmup": 0.0,
        "layer_decay": 1.0,
    },
    "modern": {"layer_decay": 0.75, "weight_decay": 0.05, "warmup": 0.1, "drop_path": 0.1},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """What decides how any model is trained: `train.loop`.

    Attributes:
        shards: folders with a `manifest.json`; more than one are trained on together.
        batch_size: samples a step and process. accumulate: batches whose gradients make one step.
        lr: peak learning rate; None takes what suits the model, see `peak_lr`.
        layer_decay: learning rate of each layer relative to the one above it; 1 is off.
        schedule: after the warm-up, a `cosine` down to 1%, or `constant`.
        warmup: share of all steps over which the learning rate rises.
        clip: largest norm of the gradient.
        augment: changes made to spectra or codes while training, such as `noise=1,mask=0.1` (see
        `shards.loader.augment`). ema: decay a step of an average of the weights, which is what is validated and kept;
        None is off. precision: `auto` is bf16 on a GPU that has it, else fp32. overfit_batches: train on the first so
        many batches only, again and again: a model that is right learns them. max_steps: an upper limit on optimiser
        steps over all epochs. compile: run the model through `torch.compile`.
    """

    shards: tuple[str, ...]
    epochs: int = 10
    batch_size: int = 64
    accumulate: int = 1
    lr: float | None = None
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    schedule: str = "cosine"
    warmup: float = 0.05
    clip: float = 1.0
    augment: str = ""
    ema: float | None = None
    precision: str = "auto"
    seed: int = 0
    overfit_batches: int | None = None
    max_steps: int | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        """Check the fields; UsageError names the field and what is allowed."""
        if not self.shards:
            raise UsageError("no SHARDS given: name a folder made by `make shards`")
        for name in ("epochs", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name.upper()}={getattr(self, name)}: give a positive number")
        for name in ("max_steps", "overfit_batches", "lr"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"{name}={value}: give a positive number")
        if self.weight_decay < 0 or self.clip <= 0:
            raise UsageError("weight_decay must not be negative and clip must be positive")
        if not 0 < self.layer_decay <= 1:
            raise UsageError(f"layer_decay={self.layer_decay}: give a number above 0, at most 1 (off)")
        if not 0 <= self.warmup < 1:
            raise UsageError(f"warmup={self.warmup}: give a share, 0 to below 1")
        if self.ema is not None and not 0 < self.ema < 1:
            raise UsageError(f"ema={self.ema}: give a number between 0 and 1, such as 0.999")
        for name, allowed in CHOICES.items():
            if getattr(self, name, allowed[0]) not in allowed:
                raise UsageError(f"unknown {name} {getattr(self, name)}: choose {', '.join(allowed)}")

    @property
    def peak_lr(self) -> float:
        """`lr`, or the default that suits the model."""
        return 1e-4 if self.lr is None else self.lr

    @property
    def view(self) -> str:
        """What the model reads: `picture` or `spectra`."""
        return "spectra"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content, with the learning rate resolved."""
        return {**asdict(self), "shards": list(self.shards), "lr": self.peak_lr}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; ValueError for fields that this program does not know."""
        unknown = set(content) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"unknown fields {', '.join(sorted(unknown))}")
        return cls(**{**content, "shards": tuple(content["shards"])})


@dataclass(frozen=True, kw_only=True)
class TrainConfig(LoopConfig):
    """What decides the weights that a run on labels ends with.

    Attributes:
        task: a name in `train.tasks.task.TASKS`, or several with commas: one backbone, a head for each.
        backbone: a name on the model hub, a folder, or `tiny`; `sequence` is the one-dimensional transformer that
            reads spectra (shards made with ENCODING=flux), `sequence-tiny` a small one; `tokenizer:folder` is what
            `make pretrain` made.
        pool: how the tokens of a tokenizer become one vector: their `mean`, or by a learnt `attention`.
        drop_path: largest share of residual branches left out while training, where the backbone has it.
        freeze: `backbone` trains the heads alone.
        head: how a regression task predicts: a `histogram` over the train range, a `gaussian`, or a point by `mse`;
            `auto` is a histogram for redshift and a Gaussian for the rest.
        bins: of the histogram.
        balance: of classes: `weights` in the loss, or `logits` adjusted by the log of the class shares.
    """

    task: str
    backbone: str = "facebook/dino-vitb16"
    pool: str = "mean"
    drop_path: float = 0.0
    freeze: str = "none"
    head: str = "auto"
    bins: int = 128
    balance: str = "none"

    def __post_init__(self) -> None:
        """Check the fields; UsageError names the field and what is allowed."""
        super().__post_init__()
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise UsageError(f"TASK={self.task}: name one task, or several different ones with commas")
        if not 0 <= self.drop_path < 1:
            raise UsageError(f"drop_path={self.drop_path}: give a share, 0 to below 1")
        if self.bins < 8:
            raise UsageError(f"bins={self.bins}: give at least 8")

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names in `task`."""
        return tuple(name for name in (part.strip() for part in self.task.split(",")) if name)

    @property
    def tokenizer(self) -> str | None:
        """The folder of the tokenizer that this run starts from, if it does."""
        return self.backbone.removeprefix(TOKENIZER) if self.backbone.startswith(TOKENIZER) else None

    @property
    def view(self) -> str:
        """What the model reads: `picture` or `spectra`."""
        return "spectra" if self.backbone in SEQUENCE_SIZES or self.tokenizer is not None else "picture"

    @property
    def peak_lr(self) -> float:
        """`lr`, or the default that suits the backbone."""
        if self.lr is not None:
            return self.lr
        return 1e-3 if self.backbone in (TINY, "sequence-tiny") else 1e-4


def preset(name: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a preset, with what was given (is not None) put over them.

    Raises:
        UsageError: no such preset.
    """
    if name is not None and name not in PRESETS:
        raise UsageError(f"unknown PRESET={name}: choose {' or '.join(PRESETS)}")
    return {**PRESETS.get(name or "", {}), **{key: value for key, value in given.items() if value is not None}}

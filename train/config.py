"""What decides a training run: one frozen record, checked when made and written beside every model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from specshards.common.errors import UsageError
from specshards.train.models.backbone import NORMALISE, Backbone, open_backbone

HEADS = ("auto", "histogram", "gaussian", "mse")
CHOICES = {
    "head": HEADS,
    "schedule": ("cosine", "linear", "constant"),
    "decay": ("matrices", "trainer"),
    "precision": ("auto", "fp32", "bf16"),
    "balance": ("none", "weights", "logits"),
    "freeze": ("none", "backbone"),
    "pool": ("mean", "attention"),
    "normalise": NORMALISE,
    "views": ("mean", "each"),
}
#: Axes of `target` that are logarithms: ln(label), log10(label), ln(1 + label).
LOGARITHMS = ("log10", "ln", "log1p")
TARGETS = ("auto", "z", "max", *LOGARITHMS)
#: Values that a preset gives; what a user gives beside it wins. `paper` is what the published code of A&A 709, A122
#: does, its seed included.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "lr": 1e-5, "weight_decay": 0.01, "decay": "trainer", "layer_decay": 1.0, "schedule": "linear", "warmup": 0.0,
        "clip": 1.0, "epochs": 30, "batch_size": 64, "accumulate": 1, "precision": "fp32", "seed": 42, "head": "mse",
        "target": "max", "normalise": "0.5", "select": "r2,accuracy",
    },
    "modern": {"layer_decay": 0.75, "weight_decay": 0.05, "warmup": 0.1, "drop_path": 0.1},
}  # fmt: skip
#: Fields that records of older runs do not have: written only where they are not at their defaults, so that such a
#: run goes on, and its card stays what it was.
LATER = (
    "decay", "normalise", "target", "select", "only", "images", "views", "categories", "lsf", "patch", "keep_tokens",
    "sizes",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """What decides how any model is trained: `train.loop`.

    Attributes:
        shards: folders of shards, with commas; more than one are trained on together.
        epochs: passes over the train split.
        batch_size: samples a batch and process.
        accumulate: batches whose gradients make one step.
        lr: peak learning rate. By default 1e-3 for the tiny models, 1e-4 otherwise.
        weight_decay: of AdamW.
        decay: what weight decay holds for: `matrices` alone, embeddings left out, or all but biases and norms, as in
            the `trainer` of transformers.
        layer_decay: learning rate of each layer relative to the one above it; 1 is off.
        schedule: after the warm-up, a `cosine` down to 1%, a `linear` descent to 0 over all steps, or `constant`.
        warmup: share of all steps over which the learning rate rises.
        clip: largest norm of the gradient.
        augment: changes made to spectra while training: noise=1,scale=0.05,tilt=0.1,mask=0.1, any of them
            (ENCODING=flux).
        ema: decay a step of an average of the weights, such as 0.999, which is what is validated and kept.
        precision: `fp32`, `bf16`, or `auto`: bf16 on a GPU that has it.
        seed: of the new weights and the order.
        overfit_batches: train on the first so many batches only, again and again: a model that is right learns them.
        max_steps: stop after so many steps, over all epochs.
        compile: run the model through `torch.compile`: slower to start, faster to run on a GPU.
    """

    shards: tuple[str, ...]
    epochs: int = 10
    batch_size: int = 64
    accumulate: int = 1
    lr: float | None = None
    weight_decay: float = 0.05
    decay: str = "matrices"
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
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"{name}={value}: give a number")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed={self.seed}: give a whole number from 0 to {2**32 - 1}")
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

    @property
    def drawn(self) -> tuple[str, ...]:
        """The pictures that are drawn while loading; none for what the shards were made for."""
        return ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content, with the learning rate resolved; of `LATER` what is not at its default."""
        defaults = {field.name: field.default for field in fields(self)}
        content = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items() if name not in LATER or value != defaults[name]
        }  # fmt: skip
        return {**content, "lr": self.peak_lr}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; ValueError for fields that this program does not know."""
        unknown = set(content) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"unknown fields {', '.join(sorted(unknown))}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(LoopConfig):
    """What decides the weights that a run on labels ends with.

    Attributes:
        task: what to learn: classify, subclass, redshift, teff, logg, feh, or any other column of the data set, such
            as mg_fe: numbers by regression, texts as classes. Several with commas: one backbone, a head for each.
        backbone: a name on the model hub, a folder, or `tiny`: small, from scratch, no download. `sequence` is the
            one-dimensional transformer that reads spectra (shards made with ENCODING=flux), `sequence-tiny` a small
            one; `tokenizer:folder` is what `make pretrain` made.
        pool: how the tokens of a tokenizer become one vector: their `mean`, or by a learnt `attention`.
        drop_path: largest share of residual branches left out while training, where the backbone has it.
        freeze: `backbone` trains the heads alone; `none`.
        head: how a regression task predicts: a `histogram` over the train range, a `gaussian`, or a point by `mse`;
            `auto` is a histogram for redshift and a Gaussian for the rest.
        bins: of the histogram.
        balance: of classes: `weights` in the loss, or `logits` adjusted by the log of the class shares.
        normalise: mean and standard deviation that pictures are brought to: the `backbone`'s own, `0.5` for both in
            each colour, or those of `imagenet`.
        patch: side of the patches of a vision transformer, pixels, which divides the pictures; its learnt ones are
            resampled (FlexiViT). Fewer, larger patches are cheaper. By default those that it has.
        keep_tokens: share of the patches that it reads while training, drawn anew each time: 0.5 costs about half. In
            evaluation it reads all.
        sizes: sides of the pictures while training, pixels, with commas, such as 112,168,224: each for an equal part
            of the epochs. Evaluation is at the side that the shards were made for.
        target: what a regression learns: `auto`, ln(1 + z) or another label, on the scale of the train split;
            `z`, a redshift as it is; `max`, any label over the largest one of the train split, both by squared
            errors; log10, ln or log1p, the logarithm of a number, for one column log10(mass), several with commas.
        categories: columns of numbers, with commas, that are names of kinds, such as plate: learnt as classes.
        select: metrics, with commas, by which the best epoch on validation is chosen; each task takes the first that
            it has, such as r2,accuracy. `auto` is the task's own.
        only: classes, with commas, such as STAR: labels of other objects count as missing, also in the evaluation.
        images: what is drawn of every spectrum, from shards made with ENCODING=flux: a picture, or a picture and its
            preset, such as simple:paper; several with commas: every epoch has each object once with each picture.
            By default what the shards were made for.
        views: how several pictures of one object count in the validation loss and the choice of the epoch: their
            outputs' `mean` as one answer, as predict gives it, or `each` by itself.
    """

    task: str
    backbone: str = "facebook/dino-vitb16"
    pool: str = "mean"
    drop_path: float = 0.0
    freeze: str = "none"
    head: str = "auto"
    bins: int = 128
    balance: str = "none"
    normalise: str = "backbone"
    patch: int | None = None
    keep_tokens: float = 1.0
    sizes: tuple[int, ...] = ()
    target: str = "auto"
    select: str = "auto"
    only: str = ""
    images: tuple[str, ...] = ()
    views: str = "mean"
    categories: str = ""

    def __post_init__(self) -> None:
        """Check the fields; UsageError names the field and what is allowed."""
        super().__post_init__()
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise UsageError(f"TASK={self.task}: name one task, or several different ones with commas")
        if not 0 <= self.drop_path < 1:
            raise UsageError(f"drop_path={self.drop_path}: give a share, 0 to below 1")
        if self.bins < 8:
            raise UsageError(f"bins={self.bins}: give at least 8")
        self._check_target()
        if self.target in ("z", "max") and self.head not in ("auto", "mse"):
            raise UsageError(f"target={self.target}: is learnt by squared errors; give head=mse, not {self.head}")
        if self.normalise != "backbone" and not self.architecture.normalises:
            raise UsageError(
                f"normalise={self.normalise}: BACKBONE={self.backbone} reads no pictures that are normalised for it; "
                "leave it out"
            )
        self._check_fewer()
        if self.only:
            self._check_only()
        if not _names(self.select):
            raise UsageError("select: name a metric, such as r2 or accuracy, or auto")
        if self.images:
            self._check_images()

    def _check_fewer(self) -> None:
        if not 0 < self.keep_tokens <= 1:
            raise UsageError(f"keep_tokens={self.keep_tokens}: give a share above 0, at most 1 (all)")
        for name, sides in (("patch", (self.patch,)), ("sizes", self.sizes)):
            if any(side is not None and side < 1 for side in sides):
                raise UsageError(f"{name}: give a number of pixels, 1 or more")
        changed = {"patch": self.patch, "keep_tokens": self.keep_tokens < 1, "sizes": self.sizes}
        for name in (name for name, value in changed.items() if value and not self.architecture.thins):
            raise UsageError(f"{name}: BACKBONE={self.backbone} is no vision transformer of pictures; leave it out")

    def _check_target(self) -> None:
        if self.target not in TARGETS and not self._transforms:
            raise UsageError(f"unknown target {self.target}: choose {', '.join(TARGETS)}, or such as 'log10(mass)'")
        for what, names in (("target", self._transforms), ("categories", self.category_columns)):
            if unknown := set(names) - set(self.tasks):
                raise UsageError(f"{what}={getattr(self, what)}: TASK={self.task} learns no {min(unknown)}")

    def _check_only(self) -> None:
        from specshards.common.spectrum import CLASSES  # numpy: not before it is needed

        if unknown := set(self.only_classes) - set(CLASSES):
            raise UsageError(f"only={self.only}: no class {min(unknown)}; choose of {', '.join(CLASSES)}")

    def _check_images(self) -> None:
        from specshards.render import ImageConfig  # numba and torch, likewise
        from specshards.shards.loader.pictures import asked

        if self.view != "picture":
            raise UsageError(f"IMAGES={','.join(self.images)}: BACKBONE={self.backbone} reads spectra; leave it out")
        asked(self.images, ImageConfig())

    @property
    def drawn(self) -> tuple[str, ...]:
        """The pictures that are drawn while loading; none for what the shards were made for."""
        return self.images

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names in `task`."""
        return _names(self.task)

    @property
    def category_columns(self) -> tuple[str, ...]:
        """The names in `categories`."""
        return _names(self.categories)

    def transform_of(self, task: str) -> str:
        """The logarithm that a task is learnt on; empty for none."""
        return self.target if self.target in LOGARITHMS else self._transforms.get(task, "")

    @property
    def _transforms(self) -> dict[str, str]:
        """By the column in brackets; nothing where `target` is no list of such."""
        found = [re.fullmatch(rf"({'|'.join(LOGARITHMS)})\(\s*(.+?)\s*\)", part) for part in _names(self.target)]
        return {match[2]: match[1] for match in found if match} if all(found) else {}

    @property
    def only_classes(self) -> tuple[str, ...]:
        """The names in `only`; none for all objects."""
        return _names(self.only)

    @property
    def selected(self) -> tuple[str, ...]:
        """The metrics in `select`; none for the task's own."""
        return () if self.select == "auto" else _names(self.select)

    @property
    def architecture(self) -> Backbone:
        """What `backbone` means."""
        return open_backbone(self.backbone)

    @property
    def view(self) -> str:
        """What the model reads: `picture` or `spectra`."""
        return self.architecture.view

    @property
    def peak_lr(self) -> float:
        """`lr`, or the default that suits the backbone."""
        return self.architecture.peak_lr if self.lr is None else self.lr


def configure(preset: str | None = None, **given: Any) -> TrainConfig:
    """A configuration with the values of a preset, or else of the backbone, where nothing else is given.

    Raises:
        UsageError: no such preset, or wrong values.
    """
    if preset is not None and preset not in PRESETS:
        raise UsageError(f"unknown PRESET={preset}: choose {' or '.join(PRESETS)}")
    backbone = open_backbone(given.get("backbone", TrainConfig.backbone))
    chosen = dict(PRESETS.get(preset or "", {}))
    if not backbone.normalises:
        chosen.pop("normalise", None)
    return TrainConfig(**{**backbone.options, **chosen, **given})


def _names(text: str) -> tuple[str, ...]:
    """What stands between commas."""
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


#: What trains a run anew, where the command has that option.
AGAIN = "--resume never"


@dataclass(frozen=True)
class RunOptions:
    """What does not change the weights that a run ends with (but for what damaged samples leave out).

    Attributes:
        tracker: curves to `tensorboard` (OUT/tensorboard), `wandb` or `none`.
        resume: `auto` goes on with the unfinished run in OUT, of the same configuration and data; `never` replaces
            what a run left there.
        checkpoint_minutes: between checkpoints inside an epoch; there is one after every epoch anyhow.
        on_error: a damaged sample: `stop` and name it, or `skip` it, counted nowhere, and say so at the end.
        device: `auto`, cpu, cuda or mps.
        threads: decoding threads of the loader. By default all cores.
        backend: of the loader: dali or plain. By default dali where it is installed.
        verify: compare every shard that is read with its checksums, in a thread beside; nothing that was learnt from
            one that differs is kept.
        again: what has a finished or other run trained anew, for messages.
    """

    tracker: str = "tensorboard"
    resume: str = "auto"
    checkpoint_minutes: float = 10
    on_error: str = "stop"
    device: str = "auto"
    threads: int | None = field(default=None, metadata={"option": "workers"})
    backend: str | None = None
    verify: bool = True
    again: str = field(default=AGAIN, metadata={"option": False})

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.resume not in ("auto", "never"):
            raise UsageError(f"unknown --resume {self.resume}: choose auto or never")
        if not 0 <= self.checkpoint_minutes < math.inf:
            raise UsageError(f"checkpoint_minutes={self.checkpoint_minutes}: give 0 or a positive number")

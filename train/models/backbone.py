"""What a network is built on: all that the rest of the program asks of a backbone, and the backbones by name.

    @BACKBONES.register("small-cnn")
    class SmallCnn(Backbone):
        peak_lr = 1e-3

        def build(self, plan):
            return nn.Sequential(Scaled(), nn.Conv2d(3, 16, 7, 4), ..., nn.Linear(64, len(plan.outputs)))

`BACKBONE=small-cnn` chooses it. A name that is not registered is one of the model hub, or a folder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from specshards.common.errors import JobError, UsageError, shortened
from specshards.common.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from specshards.render import ImageConfig
    from specshards.shards.format.manifest import Manifest

BACKBONES: Registry[type[Backbone]] = Registry(
    "BACKBONE",
    "specshards.backbones",
    ["specshards.train.models.picture", "specshards.train.models.sequence",
     "specshards.train.models.tokenizer.classifier"],
)  # fmt: skip
#: What a name that is not registered is taken for.
_OTHERS = "pretrained"
WEIGHTS = "model.safetensors"
#: What pictures can be brought to before a network; see `train.config.TrainConfig.normalise`.
NORMALISE = ("backbone", "0.5", "imagenet")


@dataclass(frozen=True)
class Plan:
    """What a network is to be built for.

    Attributes:
        outputs: names of its outputs, of all tasks.
        image: of the pictures, or of those that the shards were made for.
        pool, drop_path, normalise, patch, keep_tokens, sizes: see `train.config.TrainConfig`; the last two hold while
            training.
    """

    outputs: tuple[str, ...]
    image: ImageConfig
    pool: str = "mean"
    drop_path: float = 0.0
    normalise: str = "backbone"
    patch: int | None = None
    keep_tokens: float = 1.0
    sizes: tuple[int, ...] = ()


class Backbone(ABC):
    """A kind of network, which may have an argument: BACKBONE=name or BACKBONE=name:argument.

    The network is a torch module from what it reads to logits float `(B, outputs)`. It reads uint8 pictures
    `(B, 3, S, S)`, or a mapping with `flux`, `ivar` and `wavelength` as `shards.loader.batch.Stack` says, which it
    moves to its own device. What is not in its child named `base_model_prefix`, or without such a name its last child
    with parameters, is its head.

    Attributes:
        name: as in BACKBONE=name. argument: what follows a colon there.
        view: `picture` or `spectra`. has_argument: whether there is one.
        peak_lr: the learning rate where none is asked for. options: other fields of `train.config.TrainConfig` that
            it changes where neither a preset nor the user gives them.
        normalises: whether it normalises pictures as `Plan.normalise` says.
        thins: whether it reads less while training, as `Plan.keep_tokens`, `sizes` and `patch` say.
        shows_attention: whether `attend` may be called. exports: what of `onnx` and `hub` can be made of it.
    """

    view: ClassVar[str] = "picture"
    has_argument: ClassVar[bool] = False
    peak_lr: ClassVar[float] = 1e-4
    options: ClassVar[Mapping[str, Any]] = {}
    normalises: ClassVar[bool] = False
    thins: ClassVar[bool] = False
    shows_attention: ClassVar[bool] = False
    exports: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str, argument: str = "") -> None:
        self.name, self.argument = name, argument

    @abstractmethod
    def build(self, plan: Plan) -> nn.Module:
        """A fresh network.

        Raises:
            UsageError: it cannot be had, or not for this plan. JobError: a download failed.
        """

    def save(self, network: nn.Module, folder: Path) -> None:
        """Write the network to a folder; its weights to `model.safetensors`."""
        from safetensors.torch import save_file

        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        save_file(weights, folder / WEIGHTS)

    def load(self, folder: Path, plan: Plan) -> nn.Module:
        """What `save` wrote. JobError where the files are not whole."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        network = self.build(plan)
        try:
            network.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise JobError(
                f"{folder}: the model there cannot be read ({shortened(error)}); train it again"
            ) from error
        return network

    def remarks(self, folders: Sequence[str], manifests: Sequence[Manifest]) -> list[str]:
        """What to say, a line each, of the data sets that it is to learn from."""
        return []

    def represent(self, network: Any, given: Any) -> Tensor:
        """What the head of the network, in eval mode, reads of each spectrum: `(B, width)`.

        Raises:
            UsageError: this backbone does not say.
        """
        if not hasattr(network, "represent"):
            raise UsageError(f"BACKBONE={self.name}: says nothing before its answer; its network has no `represent`")
        vectors: Tensor = network.represent(given)
        return vectors

    def attend(self, network: Any, given: Any) -> tuple[Tensor, ...]:
        """Logits and attention of a network in eval mode: of patches, or of tokens and their ends.

        Returns:
            Of pictures: logits float32 `(B, outputs)`, weights float64 `(B, p, p)`; see
            `train.models.attention.attend`. Of spectra as `train.models.layers.SpectraModel.attend` says.

        Raises:
            UsageError: it has none that could be shown.
        """
        if not self.shows_attention:
            raise UsageError(f"BACKBONE={self.name}: has no attention that could be shown")
        result: tuple[Tensor, ...] = network.attend(given)
        return result


def open_backbone(text: str) -> Backbone:
    """The backbone that BACKBONE=text means."""
    name, colon, argument = text.partition(":")
    if name in BACKBONES and BACKBONES[name].has_argument == bool(colon):
        return BACKBONES[name](text, argument)
    return BACKBONES[_OTHERS](text, text)

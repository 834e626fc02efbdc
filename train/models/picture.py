"""The model: uint8 pictures in, logits out, through any image-classification backbone of transformers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specshards.common.errors import JobError, UsageError
from specshards.common.json import fits
from specshards.train.models.attention import attend
from specshards.train.models.backbone import BACKBONES, Backbone, Plan
from specshards.train.models.fewer import Fewer, check_sizes, repatch
from specshards.train.models.foreign import SAFE, check_config, check_folder, read_object
from specshards.train.models.parameters import head_parameters

TINY = "tiny"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)
_NORMALISATIONS = {"0.5": (_HALF, _HALF), "imagenet": (IMAGENET_MEAN, IMAGENET_STD)}
_WAYS_OUT = "give BACKBONE=folder (a copied model) or BACKBONE=tiny (small, from scratch)"
_HUB_SECONDS = 10
#: No pickle is opened, and no program code of a model is run.
NO_CODE: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False}


class SpectrumModel(nn.Module):
    """A transformers image classifier that takes pictures as the loader gives them.

    Attributes:
        network: the transformers model; what is saved.
        mean, std: of the normalisation, on the 0 to 1 scale.
        fewer: what it reads less of while it trains, if anything.
    """

    _scale: Tensor
    _shift: Tensor

    def __init__(
        self, network: nn.Module, mean: Sequence[float], std: Sequence[float], fewer: Fewer | None = None
    ) -> None:
        super().__init__()
        self.network, self.fewer = network, fewer
        self._resamples = "interpolate_pos_encoding" in signature(network.forward).parameters
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        scale = 1 / (255 * torch.tensor(self.std))
        self.register_buffer("_scale", scale.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_shift", (-torch.tensor(self.mean) * 255 * scale).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits `(B, head_size)` of pictures uint8 `(B, 3, S, S)`; normalised on the model's device."""
        more = {}
        if self.fewer is not None:
            side = pixels.shape[-1]
            pixels = self.fewer.pictures(pixels, self.training)
            if self._resamples and pixels.shape[-1] != side:
                more["interpolate_pos_encoding"] = True
        return self.network(pixel_values=pixels.float() * self._scale + self._shift, **more).logits

    def represent(self, pixels: Tensor) -> Tensor:
        """What the encoder says of the pictures: `(B, D)`; the CLS token, or what the backbone pools without one."""
        caught: list[Tensor] = []

        def keep(_: nn.Module, __: Any, output: Any) -> None:
            hidden = output.last_hidden_state
            pooled = getattr(output, "pooler_output", None)
            if hidden.ndim == 3 and hasattr(getattr(network.base_model, "embeddings", None), "cls_token"):
                caught.append(hidden[:, 0])
            elif pooled is not None:
                caught.append(pooled.flatten(1))
            else:
                caught.append(hidden.mean(dim=1) if hidden.ndim == 3 else hidden.flatten(2).mean(dim=2))

        network: Any = self.network
        hook = network.base_model.register_forward_hook(keep)
        try:
            self(pixels.to(self._scale.device))
        finally:
            hook.remove()
        return caught[0]

    def attend(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and attention on the patches; see `train.models.attention.attend`."""
        return attend(self, pixels.to(self._scale.device))

    def save(self, folder: Path) -> None:
        """Write `config.json`, `model.safetensors` and `preprocessor_config.json` that `from_pretrained` opens."""
        quiet()
        self.network.save_pretrained(folder)  # type: ignore[operator]
        size = _image_size(self.network)
        content = {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True, "size": {"height": size, "width": size}, "resample": 2,
            "do_rescale": True, "rescale_factor": 1 / 255,
            "do_normalize": True, "image_mean": list(self.mean), "image_std": list(self.std),
        }  # fmt: skip
        (folder / "preprocessor_config.json").write_text(json.dumps(content, indent=1) + "\n")


class _Transformers(Backbone):
    """An image classifier of transformers."""

    normalises = thins = True
    shows_attention = True  # `attend` says so where this one has none
    exports = ("onnx", "hub")

    def build(self, plan: Plan) -> SpectrumModel:
        """See `build`."""
        name, size = self.argument or self.name, plan.image.size
        model = build(name, len(plan.outputs), size, plan.outputs, plan.drop_path, plan.normalise, plan.patch)
        if plan.sizes or plan.keep_tokens < 1:
            model.fewer = Fewer(plan.keep_tokens, plan.sizes, plan.image)
            check_sizes(plan.sizes, model.network, plan.image, name)
            if plan.keep_tokens < 1:
                model.fewer.attach(model.network, name)
        return model

    def save(self, network: nn.Module, folder: Path) -> None:
        """As `from_pretrained` opens it."""
        assert isinstance(network, SpectrumModel)
        network.save(folder)

    def load(self, folder: Path, plan: Plan) -> SpectrumModel:
        """See `load`."""
        return load(folder)


@BACKBONES.register("tiny")
class Tiny(_Transformers):
    """A small vision transformer from scratch."""

    peak_lr = 1e-3


@BACKBONES.register("pretrained")
class Pretrained(_Transformers):
    """A model of the hub, or of a folder: what every name means that nobody registered."""

    has_argument = True


def build(
    backbone: str, head_size: int, image_size: int, names: Sequence[str] | None = None, drop_path: float = 0.0,
    normalise: str = "backbone", patch: int | None = None,
) -> SpectrumModel:  # fmt: skip
    """A backbone with a fresh head of `head_size` outputs, for pictures of `image_size` pixels a side.

    Args:
        backbone: `tiny`, a folder (a bare encoder or an image classifier), or a name on the model hub.
        names: of the outputs.
        drop_path: largest share of residual branches left out while training; only some backbones have it.
        normalise, patch: see `train.config.TrainConfig`.

    Raises:
        UsageError: no such folder or model, not an image model, or one that cannot take pictures of this size.
        JobError: the model hub cannot be reached and the model is not in its local cache.
    """
    quiet()
    if backbone == TINY:
        network, mean, std = _tiny(image_size, head_size)
        if patch is not None:
            repatch(network, patch, backbone)
            _fit_image_size(network, backbone, image_size)
    else:
        network, mean, std = _pretrained(backbone, head_size, drop_path)
        if patch is not None:
            repatch(network, patch, backbone)
        _fit_image_size(network, backbone, image_size)
    _fresh_head(network)
    names = names or [f"LABEL_{i}" for i in range(head_size)]
    network.config.id2label = dict(enumerate(names))
    network.config.label2id = {name: i for i, name in enumerate(names)}
    return SpectrumModel(network, *_NORMALISATIONS.get(normalise, (mean, std)))


def load(folder: Path) -> SpectrumModel:
    """The model that `SpectrumModel.save` wrote.

    Raises:
        JobError: the files are not whole.
    """
    from transformers import AutoModelForImageClassification

    quiet()
    try:
        check_folder(folder)
        network, info = AutoModelForImageClassification.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, **NO_CODE
        )
        mean, std = _mean_and_std(read_object(folder / "preprocessor_config.json"))
    except Exception as error:  # transformers and safetensors raise many kinds
        raise JobError(f"{folder}: the model there cannot be read ({_first_line(error)}); train it again") from error
    if info["missing_keys"] or info["mismatched_keys"] or info["unexpected_keys"]:
        raise JobError(f"{folder}: model.safetensors does not hold the whole model; train it again")
    return SpectrumModel(network, mean, std)


def _tiny(image_size: int, head_size: int) -> tuple[Any, Sequence[float], Sequence[float]]:
    """A vision transformer that learns on a CPU in minutes."""
    from transformers import ViTConfig, ViTForImageClassification

    patch = next((p for p in (32, 28, 16, 14, 10, 8) if image_size % p == 0), None)
    if patch is None:
        raise UsageError(
            f"BACKBONE=tiny: pictures of {image_size} pixels do not divide into patches; "
            "make shards with ARGS='--size 224'"
        )
    network = ViTForImageClassification(
        ViTConfig(
            hidden_size=96, num_hidden_layers=4, num_attention_heads=3, intermediate_size=192, hidden_act="gelu",
            image_size=image_size, patch_size=patch, num_labels=head_size,
        )
    )  # fmt: skip
    return network, _HALF, _HALF


def _pretrained(backbone: str, head_size: int, drop_path: float) -> tuple[Any, Sequence[float], Sequence[float]]:
    from transformers import AutoConfig, AutoModelForImageClassification

    local = Path(backbone).is_dir()
    if local and not (Path(backbone) / "config.json").is_file():
        raise UsageError(f"BACKBONE={backbone}: no config.json there; name the folder of a transformers model")
    if not local and not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", backbone):
        raise UsageError(f"BACKBONE={backbone}: no such folder; {_WAYS_OUT}")
    cached = local or _fetch(backbone)
    try:
        if local:
            check_folder(Path(backbone))
        config = AutoConfig.from_pretrained(backbone, local_files_only=cached, trust_remote_code=False)
        check_config(config.to_dict(), Path("config.json"))
        more = {"drop_path_rate": drop_path} if drop_path and hasattr(config, "drop_path_rate") else {}
        network, info = AutoModelForImageClassification.from_pretrained(
            backbone, num_labels=head_size, ignore_mismatched_sizes=True, output_loading_info=True,
            local_files_only=cached, dtype=torch.float32, **NO_CODE, **more,
        )  # fmt: skip
    except Exception as error:  # what transformers raises of a configuration that it cannot use is of many kinds
        raise UsageError(
            f"BACKBONE={backbone}: not a usable image model ({_first_line(error)}); {_WAYS_OUT}"
        ) from error
    head = {name for name, p in network.named_parameters() if any(p is q for q in head_parameters(network))}
    lost = sorted(
        {*info["missing_keys"], *(k[0] if isinstance(k, tuple) else k for k in info["mismatched_keys"])} - head
    )
    if lost:
        raise UsageError(
            f"BACKBONE={backbone}: {len(lost)} weights are missing from it, {lost[0]} first. "
            "Give a whole model, or BACKBONE=tiny to start from scratch"
        )
    return network, *_normalisation(backbone)


def _fetch(backbone: str) -> bool:
    """Whether the model lies in the local cache. If not, the hub must answer within seconds."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    weights = SAFE
    cached = [isinstance(try_to_load_from_cache(backbone, name), str) for name in ("config.json", *weights)]
    if cached[0] and any(cached[1:]):
        return True
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", str(_HUB_SECONDS))
    try:
        HfApi().model_info(backbone, timeout=_HUB_SECONDS)
    except RepositoryNotFoundError as error:
        raise UsageError(f"BACKBONE={backbone}: neither a folder nor a model on the hub; {_WAYS_OUT}") from error
    except OfflineModeIsEnabled as error:
        raise JobError(f"BACKBONE={backbone}: not in the cache, and HF_HUB_OFFLINE is set; {_WAYS_OUT}") from error
    except Exception as error:  # the hub client's errors depend on its HTTP library
        raise JobError(
            f"BACKBONE={backbone}: the model hub cannot be reached ({_first_line(error)}); {_WAYS_OUT}"
        ) from error
    return False


def _normalisation(backbone: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation that the backbone was trained with; ImageNet's where it does not say."""
    from transformers.utils.hub import cached_file

    try:
        path = cached_file(backbone, "preprocessor_config.json", local_files_only=Path(backbone).is_dir())
        return _mean_and_std(read_object(Path(path)))
    except (OSError, KeyError, TypeError, ValueError):
        return IMAGENET_MEAN, IMAGENET_STD


def _mean_and_std(content: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Of a preprocessor's configuration; KeyError or ValueError where it has none that could be."""
    mean, std = content["image_mean"], content["image_std"]
    for name, values in (("image_mean", mean), ("image_std", std)):
        fits(values, tuple[float, float, float], name)
        if not all(0 < value < 10 or (value == 0 and values is mean) for value in values):
            raise ValueError(f"{name}: {values} are not possible")
    return mean, std


def _image_size(network: Any) -> int:
    size = getattr(network.config, "image_size", None) or 224
    return int(size if isinstance(size, int) else size[0])


def _fit_image_size(network: Any, backbone: str, size: int) -> None:
    """Make the network take pictures of `size` pixels, resampling learnt position embeddings where it has them."""
    patch = getattr(network.config, "patch_size", None)
    if isinstance(patch, int) and size % patch:
        raise UsageError(
            f"BACKBONE={backbone}: its patches of {patch} pixels do not divide pictures of {size}; "
            f"make shards with ARGS='--size {size // patch * patch}' (or {(size // patch + 1) * patch})"
        )
    embeddings: Any = getattr(getattr(network, network.base_model_prefix, None), "embeddings", None)
    positions = getattr(embeddings, "position_embeddings", None)
    if isinstance(positions, nn.Parameter) and isinstance(patch, int):  # noqa: SIM102
        if size != _image_size(network) or _grid(positions) != size // patch:
            embeddings.position_embeddings = nn.Parameter(_resample(positions.detach(), size // patch))
            embeddings.patch_embeddings.image_size = embeddings.image_size = (size, size)
            embeddings.patch_embeddings.num_patches = (size // patch) ** 2
            network.config.image_size = size
    try:
        with torch.inference_mode():
            network(pixel_values=torch.zeros(1, 3, size, size))
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f"BACKBONE={backbone}: takes pictures of {_image_size(network)} pixels, the shards have {size} "
            f"({_first_line(error)}); make shards with ARGS='--size {_image_size(network)}'"
        ) from error


def _grid(positions: Tensor) -> int:
    return int((positions.shape[1] - 1) ** 0.5)


def _resample(positions: Tensor, side: int) -> Tensor:
    """Position embeddings `(1, k + n^2, D)` on a grid of `side`; the k extra tokens (CLS) stay."""
    grid = _grid(positions)
    extra = positions.shape[1] - grid**2
    square = positions[:, extra:].reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
    square = F.interpolate(square, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :extra], square.permute(0, 2, 3, 1).reshape(1, side * side, -1)], dim=1)


def _fresh_head(network: nn.Module) -> None:
    """A small random last layer, even where the folder has one of the same size for another task."""
    for parameter in head_parameters(network):
        if parameter.ndim > 1:
            nn.init.trunc_normal_(parameter, std=0.02)
        else:
            nn.init.zeros_(parameter)


def quiet() -> None:
    """No progress bars and load reports of transformers between our lines."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

"""The one-dimensional transformer that vision transformers are compared with: spectra in, logits out, no picture.

After the paper's baseline (A&A 709, A122): flux and wavelength are projected linearly, sinusoidal positions added,
six layers of eight heads and width 512, the mean over the tokens, and an MLP as head. How the paper cuts a spectrum
into tokens is not public. Here a token is 32 pixels: 123 tokens for LAMOST, 244 for DESI. Projected to a width of 512
no pixel is lost, and tokens of 16 pixels took 2.3 times as long and learnt real stars no better (tiny, three seeds).

It reads what a loader with `view="spectra"` gives: spectra of several surveys, each on its own pixels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from specshards.common.errors import JobError, UsageError, make_folder
from specshards.common.files import replacing, write_text
from specshards.common.json import fits
from specshards.shards.loader.batch import SpectraBatch
from specshards.train.models.attention import through
from specshards.train.models.backbone import BACKBONES, Backbone, Plan
from specshards.train.models.foreign import read_object
from specshards.train.models.layers import Layer, arrays, ends, patches

CONFIG, WEIGHTS = "sequence.json", "model.safetensors"
_ORIGIN, _STEP = math.log(3500.0), 1e-4 * math.log(10)  # Angstrom; the pixel of SDSS and LAMOST


@dataclass(frozen=True)
class SequenceConfig:
    """Size of the network.

    Attributes:
        width: of a token; a multiple of twice `heads`.
        patch: pixels a token.
        expansion: of the MLP between two attentions.
    """

    layers: int = 6
    width: int = 512
    heads: int = 8
    patch: int = 32
    expansion: int = 4

    def __post_init__(self) -> None:
        """Check the fields; UsageError names what is allowed."""
        if min(self.layers, self.width, self.heads, self.patch, self.expansion) < 1 or self.width % (2 * self.heads):
            raise UsageError(f"{self}: give positive numbers, and a width that is a multiple of twice the heads")


#: `paper` is the published size; `tiny` learns on a CPU in minutes.
SEQUENCES = {"paper": SequenceConfig(), "tiny": SequenceConfig(layers=2, width=64, heads=4)}


class SequenceModel(nn.Module):
    """A transformer over the pixels of a spectrum.

    Bad pixels (ivar 0) say nothing: their flux is put to the middle of the scale, and tokens without a good pixel are
    neither attended to nor counted in the mean. So padding and the other spectra of a batch change nothing.

    Attributes:
        encoder: tokens to the mean of their representations.
        head: the MLP; its last layer has `head_size` outputs.
    """

    base_model_prefix = "encoder"  # as transformers name it: what is not the head

    def __init__(self, config: SequenceConfig, head_size: int) -> None:
        super().__init__()
        self.config, self.head_size = config, head_size
        self.encoder = _Encoder(config)
        self.head = nn.Sequential(
            nn.Linear(config.width, config.width), nn.GELU(), nn.Linear(config.width, head_size)
        )  # fmt: skip

    def forward(self, batch: SpectraBatch) -> Tensor:
        """Logits `(B, head_size)` of a batch with `flux`, `ivar` and `wavelength`, moved to the model's device."""
        answer: Tensor = self.head(self.represent(batch))
        return answer

    def represent(self, batch: Mapping[str, Any]) -> Tensor:
        """Mean over each spectrum's tokens after the last norm, `(B, width)`; `train.models.layers.SpectraModel`."""
        mean: Tensor = self.encoder(*arrays(batch, self.encoder.embed_flux.weight.device))
        return mean

    @torch.inference_mode()
    def attend(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, weights of the tokens and their ends; see `train.models.layers.SpectraModel`."""
        flux, ivar, wavelength = arrays(batch, self.encoder.embed_flux.weight.device)
        tokens, valid = self.encoder.tokens(flux, ivar, wavelength)
        tokens, weights = through(self.encoder.layers, tokens, valid)
        return self.head(self.encoder.mean(tokens, valid)).float(), weights, ends(wavelength, self.config.patch)

    def save(self, folder: Path) -> None:
        """Write `sequence.json` and `model.safetensors`; the folder is made where it is missing."""
        make_folder(folder)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        with replacing(folder / WEIGHTS) as temporary:
            save_file(weights, temporary)
        write_text(folder / CONFIG, json.dumps({**asdict(self.config), "head_size": self.head_size}, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> SequenceModel:
        """The model that `save` wrote.

        Raises:
            JobError: the files are not whole.
        """
        try:
            content = read_object(folder / CONFIG)
            head_size = content.pop("head_size")
            fits(head_size, int, "head_size")
            fits(content, SequenceConfig)
            model = cls(SequenceConfig(**content), head_size)
            model.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError, UsageError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise JobError(f"{folder}: the model there cannot be read ({reason}); train it again") from error
        return model


@BACKBONES.register("sequence")
class PaperSequence(Backbone):
    """The published size."""

    view = "spectra"
    shows_attention = True
    size = "paper"

    def build(self, plan: Plan) -> SequenceModel:
        """From scratch."""
        return SequenceModel(SEQUENCES[self.size], len(plan.outputs))

    def save(self, network: nn.Module, folder: Path) -> None:
        """See `SequenceModel.save`."""
        assert isinstance(network, SequenceModel)
        network.save(folder)

    def load(self, folder: Path, plan: Plan) -> SequenceModel:
        """See `SequenceModel.load`."""
        return SequenceModel.load(folder)


@BACKBONES.register("sequence-tiny")
class TinySequence(PaperSequence):
    """Small: it learns on a CPU in minutes."""

    peak_lr = 1e-3
    size = "tiny"


def scaled(flux: Tensor, good: Tensor) -> Tensor:
    """Each row less its median, over its median absolute deviation as a standard deviation, through asinh.

    asinh leaves noise and absorption as they are and keeps the height of emission lines without being ruled by it.

    Args:
        flux: float32 `(B, N)`. good: bool `(B, N)`; pixels that are not become 0 and take no part.
    """
    with torch.no_grad():
        known = torch.where(good, flux, float("nan"))
        middle = known.nanmedian(dim=1, keepdim=True).values.nan_to_num()
        width = 1.4826 * (known - middle).abs().nanmedian(dim=1, keepdim=True).values.nan_to_num()
        # A spectrum of two values, one of them rare, has no such width; one of a single value has none at all.
        spread = torch.where(good, (flux - middle).abs(), 0).amax(dim=1, keepdim=True)
        width = torch.where(width > 0, width, torch.where(spread > 0, spread, 1))
    return torch.asinh((torch.where(good, flux, middle) - middle) / width)


class _Encoder(nn.Module):
    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.patch, self.width = config.patch, config.width
        self.embed_flux = nn.Linear(config.patch, config.width)
        self.embed_wavelength = nn.Linear(2, config.width)
        self.layers = nn.ModuleList(Layer(config.width, config.heads, config.expansion) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, flux: Tensor, ivar: Tensor, wavelength: Tensor) -> Tensor:
        """Mean over the tokens of each spectrum, `(B, width)`."""
        tokens, valid = self.tokens(flux, ivar, wavelength)
        for layer in self.layers:
            tokens = layer(tokens, valid)
        return self.mean(tokens, valid)

    def tokens(self, flux: Tensor, ivar: Tensor, wavelength: Tensor) -> tuple[Tensor, Tensor]:
        """What the first layer is given: tokens `(B, T, width)`, and bool `(B, T)`, those to attend to."""
        good = ivar > 0
        pixels = self.patches(scaled(flux, good))
        valid = self.patches(good).any(dim=2)
        # A spectrum without a good pixel has one token that says so; without any, attention is not defined.
        valid[:, 0] |= ~valid.any(dim=1)
        first, last = self.ends(self.patches(wavelength))
        tokens = self.embed_flux(pixels) + self.embed_wavelength(torch.stack([first, last], dim=2))
        return tokens + self.positions(first), valid

    def mean(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Of the valid tokens after the last norm: `(B, width)`."""
        kept = self.norm(tokens) * valid[:, :, None]
        return kept.sum(dim=1) / valid.sum(dim=1, keepdim=True)

    def patches(self, values: Tensor) -> Tensor:
        """`(B, N)` to `(B, tokens, patch)`, filled up with zeros."""
        return patches(values, self.patch)

    @staticmethod
    def ends(wavelength: Tensor) -> tuple[Tensor, Tensor]:
        """Log wavelength of each token's first and last pixel, float32 `(B, tokens)`, 0 at 3500 A and in padding."""
        first, last = (
            torch.where(x > 0, x.clamp_min(1).log() - _ORIGIN, 0)
            for x in (wavelength[:, :, 0], wavelength.amax(dim=2))
        )
        return first, last

    def positions(self, where: Tensor) -> Tensor:
        """Sinusoids (Vaswani et al. 2017) of the place in log wavelength, counted in tokens of SDSS and LAMOST.

        On their grid that is the token's number up to a shift; on another, equal wavelengths have equal positions.
        """
        half = self.width // 2
        rates = torch.exp(torch.arange(half, device=where.device) * (-math.log(10_000.0) / half))
        angles = (where / (_STEP * self.patch))[:, :, None] * rates
        return torch.cat([angles.sin(), angles.cos()], dim=2)

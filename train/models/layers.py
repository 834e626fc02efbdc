"""What the models that read spectra have in common: the transformer layer, and the ways to look inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specshards.shards.loader.batch import Batch, Stack


class SpectraModel(Protocol):
    """A model that reads spectra, in eval mode, as `embed` and `explain` see it.

    A batch has `flux`, `ivar` and `wavelength`, as `shards.loader.batch.Stack` says; the model moves them to its own
    device.
    """

    def represent(self, batch: Mapping[str, Any]) -> Tensor:
        """What the head reads of each spectrum: `(B, width)`."""
        ...

    def attend(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Answers, and the attention rolled out to the tokens; see `train.models.attention.through`.

        Returns:
            Logits float32 `(B, outputs)`, those of a forward pass; weights float64 `(B, T)`, which sum to 1 over the
            tokens that are attended to and are 0 on others; ends float32 `(B, T, 2)`, first and last wavelength of
            each token, Angstrom, 0 in padding.
        """
        ...


def model_input(batch: Batch | Stack) -> Any:
    """What a model reads of a batch: the pictures, or the spectra."""
    if "pixel_values" in batch:
        return cast(Batch, batch)["pixel_values"]
    return spectra_of(batch)


def spectra_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What a model reads of spectra: `flux`, `ivar` and `wavelength`, and `lsf_sigma` where the batch has it."""
    return {name: batch[name] for name in ("flux", "ivar", "wavelength", "lsf_sigma") if name in batch}


def arrays(batch: Mapping[str, Any], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Flux, ivar and wavelength of a batch on a device."""
    flux, ivar, wavelength = (batch[name].to(device, non_blocking=True) for name in ("flux", "ivar", "wavelength"))
    return flux, ivar, wavelength


def line_spread(batch: Mapping[str, Any], device: torch.device) -> Tensor | None:
    """`lsf_sigma` of a batch on a device, float32 `(B, N)`, Angstrom, 0 = unknown; None where the batch has none."""
    sigma = batch.get("lsf_sigma")
    return None if sigma is None else sigma.to(device, non_blocking=True)


def patches(values: Tensor, size: int) -> Tensor:
    """`(B, N)` to `(B, T, size)`, filled up with zeros."""
    return F.pad(values, (0, -values.shape[1] % size)).unflatten(1, (-1, size))


def ends(wavelength: Tensor, size: int) -> Tensor:
    """First and last wavelength of each patch, `(B, N)` to `(B, T, 2)`; 0 in padding."""
    pixels = patches(wavelength, size)
    return torch.stack([pixels[:, :, 0], pixels.amax(dim=2)], dim=2)


class Layer(nn.Module):
    """Attention and MLP, each behind a norm and beside a way around it (Xiong et al. 2020, "pre-norm")."""

    def __init__(self, width: int, heads: int, expansion: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width))

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """tokens `(B, T, width)` to as many; valid bool `(B, T)`: those that are attended to, one a row at least."""
        query, key, value = self._parts(tokens)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=valid[:, None, None, :])
        tokens = tokens + self.out(mixed.transpose(1, 2).flatten(2))
        result: Tensor = tokens + self.mlp(self.norm_mlp(tokens))
        return result

    def attention(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """The weights that `forward` mixes with: float32 `(B, heads, T, T)`, rows (queries) sum to 1."""
        query, key, _ = self._parts(tokens)
        scores = (query.float() @ key.float().transpose(2, 3)) * query.shape[-1] ** -0.5
        return scores.masked_fill(~valid[:, None, None, :], -torch.inf).softmax(dim=3)

    def _parts(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, `(B, heads, T, width / heads)` each."""
        parts = self.query_key_value(self.norm_attention(tokens)).unflatten(2, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        return query, key, value

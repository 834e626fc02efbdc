"""Attention rolled out to patches of a picture or tokens of a spectrum, and put back onto the wavelength axis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from specshards.common.errors import UsageError

FloatArray = npt.NDArray[np.float64]

#: A step from token to token is a gap where it is longer than this many of the median one. On a logarithmic grid they
#: grow by a factor of 3 from 3500 to 10,500 Angstrom.
_GAP = 5


def rollout(attentions: Sequence[Tensor], start: Tensor) -> Tensor:
    """What each token's input contributes to what is read behind the layers, by attention alone.

    Heads are averaged, an added identity stands for the residual connection, rows are normalised, and the layers are
    multiplied (Abnar & Zuidema 2020, section 3, "attention rollout"); `start` is multiplied by the product.

    Args:
        attentions: of every layer, the first one first: `(B, heads, T, T)`, rows (queries) sum to 1.
        start: weights of the last layer's tokens in what is read, `(B, T)`: 1 and zeros for a CLS token.

    Returns:
        float64 `(B, T)`; rows have the sums of `start`.
    """
    row = start.double()[:, None]
    for weights in reversed(attentions):
        mixed = weights.double().mean(dim=1)
        mixed = mixed + torch.eye(mixed.shape[-1], dtype=mixed.dtype, device=mixed.device)
        mixed = mixed / mixed.sum(dim=-1, keepdim=True)
        # One row through the layers from the top: the product of the matrices would cost T times as much.
        row = row @ mixed
    return row[:, 0]


def through(
    layers: Iterable[Any], tokens: Tensor, valid: Tensor, pool: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Tokens through the layers of a model that takes a mean over the valid ones, watched.

    Args:
        layers: `train.models.layers.Layer`, the first one first.
        tokens: `(B, T, width)`. valid: bool `(B, T)`, one a row at least.
        pool: from the tokens behind the last layer to their weights in the mean, `(B, T)`, rows sum to 1; an even
            mean over the valid ones by default.

    Returns:
        Tokens `(B, T, width)` behind the last layer; what each that went in contributes to their mean, see `rollout`:
        float64 `(B, T)`, rows sum to 1, 0 where a token is not valid.
    """
    attentions = []
    for layer in layers:
        attentions.append(layer.attention(tokens, valid))
        tokens = layer(tokens, valid)
    start = valid.double() / valid.sum(dim=1, keepdim=True) if pool is None else pool(tokens)
    return tokens, rollout(attentions, start)


@dataclass(frozen=True)
class AttentionSpread:
    """Attention along a spectrum.

    Attributes:
        wavelength: float64 `(m,)`, Angstrom, increasing: every wavelength that the picture shows, or the middle of
            every token and of every gap between tokens.
        edges: Angstrom `(m + 1,)`: what of the spectrum belongs to each, from midpoint to midpoint.
        density: attention per Angstrom `(m,)`.
        relative: attention `(m,)` on the patches that show it, or on the token, 1 = what even attention gives every
            patch, or every token that is attended to at all.
        blank: attention on pixels that show no wavelength; `(density * diff(edges)).sum() + blank` is all of it.
    """

    wavelength: FloatArray
    edges: FloatArray
    density: FloatArray
    relative: FloatArray
    blank: float


def per_angstrom(weights: FloatArray, there: FloatArray) -> AttentionSpread:
    """The attention on patches as attention on wavelengths.

    A patch's weight is shared out evenly among its pixels, and where a pixel shows several wavelengths at once,
    evenly among those. Nothing is known finer than a patch: in a map filled row by row, the pieces of several rows
    that a patch shows have one value.

    Args:
        weights: of the patches, float `(p, p)`.
        there: of `render.wavelengths.where`, `(k, S, S)`, with some wavelength in it.
    """
    side, size = len(weights), there.shape[-1]
    patch = np.arange(size) * side // size
    on_pixels = weights[patch[:, None], patch] / np.bincount(patch)[patch[:, None]] / np.bincount(patch)[patch]
    shown = np.isfinite(there)
    several = shown.sum(axis=0)
    wavelength, which, count = np.unique(there[shown], return_inverse=True, return_counts=True)
    shares = on_pixels / np.maximum(several, 1)
    total = np.bincount(which, np.broadcast_to(shares, there.shape)[shown])
    mean = np.bincount(which, np.broadcast_to(on_pixels, there.shape)[shown]) / count
    edges = _edges(wavelength)
    blank = float(on_pixels[several == 0].sum())
    return AttentionSpread(wavelength, edges, total / np.diff(edges), mean * size**2, blank)


def per_token(weights: FloatArray, ends: FloatArray) -> AttentionSpread:
    """The attention on tokens of a spectrum as attention on wavelengths.

    A token ends halfway to the next one. Between two that stand further apart lies a gap, which has no attention; a
    gap within a token cannot be told from the rest of it.

    Args:
        weights: of the tokens, `(T,)`. ends: first and last wavelength of each, increasing, `(T, 2)`, Angstrom; 0 in
            padding, but not everywhere.
    """
    there = ends[:, 1] > 0
    weights, (first, last) = weights[there], ends[there].astype(np.float64).T
    steps = first[1:] - last[:-1]
    usual = float(np.median(steps)) if len(steps) else 1.0
    gap = steps > _GAP * usual
    half = np.where(gap, usual, steps) / 2
    left = first - np.append(usual / 2, half)
    right = last + np.append(half, usual / 2)
    # Tokens and what is between them by turns; what is between is kept where it is a gap.
    edges = np.stack([left, right], axis=1).ravel()
    share, kept = np.zeros(len(edges) - 1), np.ones(len(edges) - 1, np.bool_)
    share[::2], kept[1::2] = weights, gap
    edges, share = edges[np.append(kept, True)], share[kept]
    middle = (edges[1:] + edges[:-1]) / 2
    return AttentionSpread(middle, edges, share / np.diff(edges), share * np.count_nonzero(weights), 0.0)


def _edges(wavelength: FloatArray) -> FloatArray:
    """Midpoints, and the ends as far out as in; half an Angstrom around a single wavelength."""
    if len(wavelength) < 2:
        return np.concatenate([wavelength - 0.5, wavelength + 0.5])
    middle = (wavelength[1:] + wavelength[:-1]) / 2
    ends = 2 * wavelength[[0, -1]] - middle[[0, -1]]
    return np.concatenate([ends[:1], middle, ends[1:]])


def attend(model: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of a `SpectrumModel`, and its rolled-out attention on the patches of uint8 pictures `(B, 3, S, S)`.

    Returns:
        Logits float32 `(B, outputs)`; weights float64 `(B, p, p)` that sum to 1 over the patches of a picture: what
        the CLS token (or a register) keeps for itself is left out.

    Raises:
        UsageError: the model has no attention from a CLS token to patches.
    """
    network: Any = model.network
    with torch.inference_mode(), _watched(network) as caught:
        logits = model(pixels).float()
    patch = getattr(network.config, "patch_size", None)
    side = pixels.shape[-1] // patch if isinstance(patch, int) else 0
    shapes = {tuple(weights.shape[-2:]) for weights in caught}
    tokens = min((shape[-1] for shape in shapes), default=0)
    if not side or shapes != {(tokens, tokens)} or tokens <= side**2:
        raise UsageError(
            f"{type(network).__name__}: has no attention from a CLS token to patches that could be shown; explain "
            "takes a ViT or one of its kin"
        )
    start = caught[0].new_zeros(len(pixels), tokens)
    start[:, 0] = 1
    weights = rollout(caught, start)[:, -(side**2) :]
    return logits, (weights / weights.sum(dim=1, keepdim=True)).reshape(-1, side, side)


@contextmanager
def _watched(network: Any) -> Iterator[list[Tensor]]:
    """The attention weights of all layers, after a forward pass; only the eager implementation gives them."""
    caught: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        caught.extend(weights for weights in getattr(output, "attentions", None) or () if weights is not None)

    before = network.config._attn_implementation
    network.set_attn_implementation("eager")
    hook = network.base_model.register_forward_hook(keep)
    try:
        network.config.output_attentions = True
        yield caught
    finally:
        hook.remove()
        network.config.output_attentions = False
        network.set_attn_implementation(before)

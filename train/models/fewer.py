"""Less to compute while training: patches left out at random, smaller pictures, larger patches.

In eval mode a model reads all of every picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specshards.common.errors import UsageError
from specshards.render import ImageConfig


class Fewer:
    """What a network of pictures reads less of while it trains.

    Attributes:
        keep: share of a picture's patches, drawn anew for every picture of a batch (PatchDropout, arXiv:2208.07220;
            FLIP, arXiv:2212.00794). The others are left out behind the position embeddings, before the first layer.
        sizes: sides of the pictures, pixels; each for an equal part of the epochs. None: their own.
        side: that of this epoch. always: in eval mode, too.
    """

    def __init__(self, keep: float, sizes: Sequence[int], image: ImageConfig) -> None:
        self.keep, self.sizes, self._image = keep, tuple(sizes), image
        self.side, self.always = self.sizes[0] if self.sizes else image.size, False

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Take the side of the pictures for epoch `epoch` of `epochs`, from 0."""
        if self.sizes:
            self.side = self.sizes[epoch * len(self.sizes) // max(1, epochs)]

    def pictures(self, pixels: Tensor, training: bool) -> Tensor:
        """Pictures `(B, 3, S, S)` at this epoch's side, uint8 or float32 from 0 to 255."""
        if self.side == pixels.shape[-1] or not (training or self.always):
            return pixels
        return resized(pixels, self._image, self.side)

    def attach(self, network: Any, backbone: str) -> None:
        """Leave patches out of what the layers of a transformer read.

        Raises:
            UsageError: this one has no patches that could be left out.
        """
        embeddings, patch = getattr(network.base_model, "embeddings", None), _patch(network)
        if embeddings is None or patch is None:
            raise _refused(backbone)
        caught: list[bool] = []

        def leave_out(module: nn.Module, args: Any, kwargs: Any, tokens: Any) -> Tensor | None:
            if not (module.training or self.always):
                return None
            pixels = args[0] if args else kwargs["pixel_values"]
            patches = (pixels.shape[-2] // patch) * (pixels.shape[-1] // patch)
            if not isinstance(tokens, Tensor) or tokens.ndim != 3 or tokens.shape[1] < patches:
                raise _refused(backbone)
            caught.append(True) if not caught else None
            return some(tokens, patches, self.keep)

        embeddings.register_forward_hook(leave_out, with_kwargs=True)
        size, self.always = self._image.size, True
        try:
            with torch.no_grad():
                network(pixel_values=torch.zeros(1, 3, size, size))
        except (RuntimeError, ValueError, IndexError) as error:  # positions that belong to the tokens left out
            raise _refused(backbone) from error
        finally:
            self.always = False
        if not caught:
            raise _refused(backbone)


def _refused(backbone: str) -> UsageError:
    return UsageError(f"keep_tokens: BACKBONE={backbone} has no patches that could be left out; leave it out")


def some(tokens: Tensor, patches: int, keep: float) -> Tensor:
    """Of tokens `(B, k + patches, D)` the first k, and a random share of the rest, other ones in every row."""
    extra, kept = tokens.shape[1] - patches, max(1, round(keep * patches))
    rows = torch.rand(len(tokens), patches, device=tokens.device).argsort(dim=1)[:, :kept] + extra
    first = torch.arange(extra, device=tokens.device).expand(len(tokens), extra)
    places = torch.cat([first, rows], dim=1)
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[-1]))


def resized(pixels: Tensor, image: ImageConfig, side: int) -> Tensor:
    """Pictures `(B, 3, S, S)` with `side` pixels: a map with smaller cells where its cells fit, as if drawn so.

    Other pictures are averaged (antialiased bilinear): float32.
    """
    cells, block = image.cells, side // image.cells
    whole, free = cells * image.block, side - cells * block
    if image.image == "map2d" and block and side // block == cells and (image.size > whole or not free):
        codes = pixels[..., : whole : image.block, : whole : image.block]
        drawn = codes.repeat_interleave(block, dim=-1).repeat_interleave(block, dim=-2)
        if free:  # the strip that whole cells leave free, in its colour
            strip = pixels[..., -1:, -1:]
            drawn = torch.cat([drawn, strip.expand(*drawn.shape[:-1], free)], dim=-1)
            drawn = torch.cat([drawn, strip.expand(*drawn.shape[:-2], free, side)], dim=-2)
        return drawn
    return F.interpolate(pixels.float(), size=(side, side), mode="bilinear", antialias=True, align_corners=False)


def _patch(network: Any) -> int | None:
    patch = getattr(network.config, "patch_size", None)
    return patch if isinstance(patch, int) else None


def check_sizes(sizes: Sequence[int], network: Any, image: ImageConfig, backbone: str) -> None:
    """Refuse sides that a network cannot take.

    Raises:
        UsageError: larger than the pictures, or not whole patches.
    """
    patch = _patch(network) or 1
    for side in sizes:
        if side > image.size or side % patch:
            raise UsageError(
                f"sizes={','.join(map(str, sizes))}: BACKBONE={backbone} takes multiples of {patch} up to the "
                f"pictures' {image.size} pixels; such as {side // patch * patch or patch}"
            )


def repatch(network: Any, side: int, backbone: str) -> None:
    """Give a vision transformer patches of `side` pixels, its learnt ones resampled.

    A patch that is resized to the new side gives the token that it gave before: exactly for larger patches, as nearly
    as can be for smaller ones (pseudo-inverse resize, FlexiViT, arXiv:2212.08013, section 3.4).

    Raises:
        UsageError: it has no such patches.
    """
    outer: Any = getattr(network.base_model, "embeddings", None)
    embeddings: Any = getattr(outer, "patch_embeddings", None)
    learnt = getattr(embeddings, "projection", None)
    patch = _patch(network)
    if not isinstance(learnt, nn.Conv2d) or patch is None or learnt.kernel_size != (patch, patch):
        raise UsageError(f"patch={side}: BACKBONE={backbone} has no patches that could be resampled; leave it out")
    if side == patch:
        return
    new = nn.Conv2d(learnt.in_channels, learnt.out_channels, side, side, bias=learnt.bias is not None)
    with torch.no_grad():
        back = torch.linalg.pinv(_resizing(patch, side).double().T)
        new.weight.copy_((back @ learnt.weight.double().flatten(2).mT).mT.reshape(new.weight.shape))
        if learnt.bias is not None and new.bias is not None:
            new.bias.copy_(learnt.bias)
    embeddings.projection = new.to(learnt.weight)
    embeddings.patch_size = (side, side)
    network.config.patch_size = side
    if hasattr(outer, "patch_size"):
        outer.patch_size = side


def _resizing(old: int, new: int) -> Tensor:
    """The bilinear resize of a patch as a matrix `(new^2, old^2)`."""
    basis = torch.eye(old * old).reshape(old * old, 1, old, old)
    resized = F.interpolate(basis, size=(new, new), mode="bilinear", antialias=True, align_corners=False)
    return resized.reshape(old * old, new * new).T

"""Spectra to codes where the model is: the kernels of this package again, as torch operations on whole batches.

The codes are those of `Renderer.codes`, bit for bit, on any device with float64. What that takes:

- the kernels' operations, one by one, in their order and at their precision; nothing here may be fused, since a
  compiler would contract a product and a sum to one rounding (so no `torch.compile`, `addcmul` or `lerp`);
- no division of a tensor by a Python number, which CUDA turns into a product with the reciprocal, and no division of
  a number by a tensor, which torch does so everywhere: `like` makes the other one a tensor;
- no root of torch's own, which on a CPU is off by a bit: `square_root`;
- ink in whole numbers, whose sum is the same in any order.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from specshards.render.base import Renderer
from specshards.render.device.values import Values, percentiles, select
from specshards.render.scale import Scale

#: Memory that one part of a batch may take, bytes.
BUDGET = 1 << 30


class DeviceRenderer(torch.nn.Module, ABC):
    """A renderer for padded batches on the device it was moved to: `renderer(config).device()` makes one.

    Its tables are float64 and float32 for a reason: move it, but do not convert it.

    Args:
        drawer: the renderer on the CPU. scale: from flux to a code.
    """

    def __init__(self, drawer: Renderer, scale: Scale) -> None:
        super().__init__()
        self.config, self.code_shape, self._scale = drawer.config, drawer.code_shape, scale

    def codes(
        self, flux: Tensor, ivar: Tensor, wavelength: Tensor, mask: Tensor, has_ivar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Draw B spectra.

        Args:
            flux, ivar: float32 `(B, N)`.
            wavelength: float64 `(B, N)`, Angstrom, increasing along each row; what is not positive is padding, and
                stands behind all pixels.
            mask: bool `(B, N)`, True = bad.
            has_ivar: bool `(B,)`; False where the ivar of a spectrum says nothing.

        Returns:
            Codes uint8 `(B, *code_shape)`, and bool `(B,)`, whether each was drawn. One that was not is 0, and
            `Renderer.codes` knows why; it also draws rows whose wavelengths fall.
        """
        count = max(1, BUDGET // self._bytes(flux.shape[1]))
        parts = [
            self._codes(*part)
            for part in zip(*(x.split(count) for x in (flux, ivar, wavelength, mask, has_ivar)), strict=True)
        ]
        return torch.cat([codes for codes, _ in parts]), torch.cat([drawn for _, drawn in parts])

    @abstractmethod
    def _bytes(self, pixels: int) -> int:
        """Memory that one spectrum takes, roughly: what is alive at once."""

    @abstractmethod
    def _draw(self, pixels: Values, has_ivar: Tensor) -> tuple[Tensor, Tensor | bool]:
        """Codes uint8 `(B, *code_shape)` of what lies in the window, and bool `(B,)`, whether each spectrum fits."""

    def _codes(
        self, flux: Tensor, ivar: Tensor, wavelength: Tensor, mask: Tensor, has_ivar: Tensor
    ) -> tuple[Tensor, Tensor]:
        if len(flux) == 0 or flux.shape[1] < 2:
            return flux.new_zeros((len(flux), *self.code_shape), dtype=torch.uint8), torch.zeros_like(has_ivar)
        if self.config.bad_pixels == "draw":
            mask, has_ivar = torch.zeros_like(mask), torch.zeros_like(has_ivar)
        pixels, drawn = select(flux, ivar, wavelength, mask, has_ivar, *self.config.window)
        codes, fits = self._draw(pixels, has_ivar)
        drawn = drawn & fits
        return torch.where(drawn.view(-1, *[1] * (codes.ndim - 1)), codes, 0), drawn

    def _limits(self, flux: Tensor, good: Tensor, fixed: bool) -> tuple[Tensor, Tensor]:
        """Where each spectrum's scale begins and ends, float64 `(B, 1)`: `render.scale.limits`."""
        if fixed:
            low = flux.new_full((len(flux), 1), self._scale.low, dtype=torch.float64)
            return low, torch.full_like(low, self._scale.high)
        low = torch.where(good, flux, math.inf).amin(1, keepdim=True).double()
        high = torch.where(good, flux, -math.inf).amax(1, keepdim=True).double()
        if self.config.limits != "percentile":
            return low, high
        inner_low, inner_high = percentiles(flux, good, self._scale.low, self._scale.high)
        wide = inner_high > inner_low
        return torch.where(wide, inner_low, low), torch.where(wide, inner_high, high)

"""Where a patch lies in the spectrum, as numbers that say it to a network on any grid."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from specshards.train.models.layers import patches

#: Sines and cosines in memory at once beside the result: 32 MB.
_AT_ONCE = 1 << 22


class WavelengthEncoding(nn.Module):
    """Sines and cosines of every pixel's wavelength, averaged over the pixels of a patch.

    The frequencies are evenly spaced in log from 2 pi / `longest` to 2 pi / `shortest` per Angstrom. The slow ones
    say where the patch lies, those whose period is like the patch's width say how wide it is, and the fast ones,
    which average to little, tell grids apart.
    """

    turns: Tensor

    def __init__(self, width: int, patch: int, shortest: float, longest: float) -> None:
        super().__init__()
        self.width, self.patch = width, patch
        self._range = (1 / longest, 1 / shortest)
        self.register_buffer("turns", self.frequencies(), persistent=False)

    def frequencies(self) -> Tensor:
        """Turns per Angstrom, float64 `(width / 2,)`."""
        low, high = map(math.log10, self._range)
        return torch.logspace(low, high, self.width // 2, dtype=torch.float64)

    @torch.no_grad()
    def forward(self, wavelength: Tensor) -> Tensor:
        """Wavelengths float32 `(B, N)`, Angstrom, 0 = padding, to `(B, T, width)`; 0 for a patch of padding alone."""
        # Most spectra of a survey share one grid, and only different ones need their sines taken.
        grids, which = torch.unique(wavelength, dim=0, return_inverse=True)
        step = max(1, _AT_ONCE // max(1, grids.shape[1] * self.width))
        return torch.cat([self._mean(part) for part in grids.split(step)])[which]

    def _mean(self, wavelength: Tensor) -> Tensor:
        pixels = patches(wavelength, self.patch)
        there = pixels > 0
        # A wavelength is up to 1e5 turns of the fastest frequency, of which float32 would keep two digits.
        turns = pixels.double()[..., None] * self.turns.double()
        angles = ((turns - turns.floor()) * (2 * math.pi)).float()
        waves = torch.cat([angles.sin(), angles.cos()], dim=3) * there[..., None]
        return waves.sum(dim=2) / there.sum(dim=2, keepdim=True).clamp_min(1)

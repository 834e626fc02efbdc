"""How sharp a patch is: the width of its line-spread function, as numbers that say it to a network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from specshards.shards.format.manifest import Manifest
from specshards.train.models.layers import patches

#: Periods of the sines and cosines, in e-folds of sigma / wavelength: the longest tells a prism from an echelle, the
#: shortest widths that differ by a tenth.
PERIODS = (32.0, 16.0, 8.0, 4.0, 2.0, 1.0)


class ResolutionEncoding(nn.Module):
    """ln(sigma / wavelength), averaged over the pixels of a patch where it is known, as a vector `(width,)`.

    The ratio and not sigma: it stays as it is when a spectrum is moved by a redshift or a velocity. A bad pixel
    counts as a good one, as it does where wavelengths are encoded: a width is the instrument's, and of a patch that
    is to be drawn from the others it is known, too.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(2 * len(PERIODS), width)
        #: Of a patch of which nobody knows it.
        self.unknown = nn.Parameter(torch.zeros(width))

    def forward(self, sigma: Tensor | None, wavelength: Tensor, patch: int) -> Tensor:
        """To `(B, T, width)`.

        Args:
            sigma: float32 `(B, N)`, Angstrom, 0 = unknown; None: all of it.
            wavelength: float32 `(B, N)`, Angstrom, 0 = padding.
            patch: pixels of a token.
        """
        # Unknown everywhere goes the same way, so that every parameter has a gradient, 0 if need be.
        sigma = torch.zeros_like(wavelength) if sigma is None else sigma
        known = (sigma > 0) & (wavelength > 0)
        ratio = torch.where(known, torch.where(known, sigma, 1) / torch.where(known, wavelength, 1), 1).log()
        number = patches(known, patch).sum(dim=2)
        mean = patches(ratio, patch).sum(dim=2) / number.clamp_min(1)
        turns = mean[..., None] * torch.tensor([2 * math.pi / period for period in PERIODS], device=mean.device)
        content: Tensor = self.embed(torch.cat([turns.sin(), turns.cos()], dim=2))
        return torch.where((number > 0)[..., None], content, self.unknown.to(content.dtype))


def told(folders: Sequence[object], manifests: Sequence[Manifest]) -> str | None:
    """What to say of shards that a tokenizer with --lsf reads; None where it is known of every spectrum."""
    known, total = (sum(values) for values in zip(*((m.with_lsf, m.samples()) for m in manifests), strict=True))
    if known == total:
        return None
    without = [str(folder) for folder, m in zip(folders, manifests, strict=True) if not m.config.lsf]
    mend = f"; {', '.join(without)} made without --lsf" if without else ""
    return f"lsf: the line-spread function of {known:,} of {total:,} spectra is known, else unknown{mend}"

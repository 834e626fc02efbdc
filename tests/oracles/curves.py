"""Spectra of three degrees of freedom and noise: what simple methods can learn of them is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from specshards.shards.loader.batch import Stack


def stack_of(flux: Any, error: Any, start: float = 3.6, step: float = 1e-4, bad: Any = False) -> Stack:
    """Spectra `(B, N)` of one grid, N a multiple of 32."""
    flux = torch.as_tensor(np.asarray(flux, np.float32))
    ivar = torch.as_tensor(np.where(bad, 0, np.broadcast_to(error, flux.shape) ** -2.0).astype(np.float32))
    grid = torch.as_tensor((10.0 ** (start + step * np.arange(flux.shape[1]))).astype(np.float32))
    return Stack(flux=flux, ivar=ivar, wavelength=grid.expand(flux.shape).contiguous(),
                 length=torch.full((len(flux),), flux.shape[1]))  # fmt: skip


def curves(rng: np.random.Generator, count: int, n: int, start: float = 3.6, step: float = 1e-4) -> np.ndarray:
    """Noiseless spectra of three degrees of freedom, near 1."""
    x = (start + step * np.arange(n) - 3.6) / 0.1
    shapes = np.stack([np.sin(7 * x), np.cos(3 * x), np.exp(-0.5 * ((x - 0.4) / 0.05) ** 2)])
    return 1 + rng.normal(0, 0.1, (count, 3)) @ shapes


def some_spectra(count: int = 6, n: int = 320, seed: int = 0) -> Stack:
    rng = np.random.default_rng(seed)
    error = rng.uniform(0.02, 0.2, (count, n)) * 50
    flux = 50 * curves(rng, count, n) + rng.normal(size=(count, n)) * error
    return stack_of(flux, error, bad=rng.random((count, n)) < 0.1)

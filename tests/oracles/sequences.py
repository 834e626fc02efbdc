"""Spectra with one line, stacks of them, and a small network that reads them."""

from __future__ import annotations

import numpy as np
import torch

from specshards.common.spectrum import Arrays
from specshards.shards.loader.batch import SpectraBatch
from specshards.shards.loader.stack import Stacker
from specshards.train.models.sequence import SEQUENCES, SequenceConfig, SequenceModel

TINY = SEQUENCES["tiny"]


def spectrum(seed: int, n: int = 700, kind: int = 0, good: float = 0.9) -> Arrays:
    """An absorption line at one of two places, on noise."""
    rng = np.random.default_rng(seed)
    wavelength = 10.0 ** (3.6 + 1e-4 * np.arange(n))
    line = (4300.0, 4500.0)[kind]
    flux = rng.uniform(50, 500) * (1 - 0.7 * np.exp(-0.5 * ((wavelength - line) / 8) ** 2) + rng.normal(0, 0.02, n))
    return Arrays(flux.astype(np.float32), np.full(n, 4.0, np.float32), wavelength, rng.random(n) > good)


def batch_of(*spectra: Arrays) -> SpectraBatch:
    stack = Stacker("cpu", None)(list(spectra), np.random.default_rng(0))
    return {**stack, "labels": {}, "key": [], "valid": torch.ones(len(spectra), dtype=torch.bool)}


def model(seed: int = 0, config: SequenceConfig = TINY, head_size: int = 3) -> SequenceModel:
    torch.manual_seed(seed)
    return SequenceModel(config, head_size).eval()

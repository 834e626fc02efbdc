"""From spectra to numbers that scikit-learn learns from: one grid, one scale, principal components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.decomposition import PCA

from specshards.shards.loader.batch import SpectraBatch
from specshards.shards.loader.stack import resample

Features = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

COMPONENTS = 50
CLIP = (-2.0, 10.0)


@dataclass(frozen=True)
class Projection:
    """From spectra to features; learnt on the train split.

    Attributes:
        edges: of the bins, float64, Angstrom.
        pca: of the bins. They are not standardised: that cost 0.02 in R2 in cross-validation on LAMOST stars.
    """

    edges: npt.NDArray[np.float64]
    pca: PCA

    @classmethod
    def learn(cls, flux: Features, edges: npt.NDArray[np.float64]) -> Projection:
        """From normalised train spectra float32 `(n, bins)`, n >= 2."""
        count = min(COMPONENTS, len(flux) - 1, flux.shape[1])
        return cls(edges, PCA(count, svd_solver="covariance_eigh").fit(flux.astype(np.float64)))

    def __call__(self, flux: Features) -> Features:
        """Normalised spectra `(n, bins)` to components float32 `(n, k)`."""
        return np.asarray(self.pca.transform(flux), np.float32)


def normalise(flux: Features, good: npt.NDArray[np.bool_]) -> Features:
    """Each row divided by the median of its good bins and clipped to `CLIP`: float32 `(n, bins)`.

    Where that median is not positive, the median of the absolute values stands in for it. A row without a good bin
    becomes flat.
    """
    some = good.any(axis=1, keepdims=True)
    known = np.where(some, np.where(good, flux, np.nan), 1)
    median = np.nanmedian(known, axis=1, keepdims=True)
    median = np.where(median > 0, median, np.nanmedian(np.abs(known), axis=1, keepdims=True))
    median = np.where(median > 0, median, 1)
    return np.clip(np.where(some, flux, 1) / median, *CLIP).astype(np.float32)


def normalised(batch: SpectraBatch, inside: Places, edges: npt.NDArray[np.float64]) -> tuple[Features, int]:
    """Some spectra of a batch as `normalise` gives them, and how many of them have no good bin."""
    some = {name: batch[name][torch.from_numpy(inside)] for name in ("flux", "ivar", "wavelength", "length")}
    values, good = resample(some, edges)  # type: ignore[arg-type]
    return normalise(values, good), int((~good.any(axis=1)).sum())

"""Simple ways to draw a spectrum again, to hold a tokenizer against: a constant, a running median, components.

Each is called with spectra on the CPU (`shards.loader.batch.Stack`) and gives the flux that it believes every pixel
to have, bad ones too: float32 `(B, N)`, in the spectrum's own unit. It looks at pixels with ivar above 0 alone; what
it says of a spectrum without one, and behind the end of a spectrum, has no meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from specshards.common.errors import UsageError
from specshards.shards.loader.batch import Stack
from specshards.shards.loader.stack import log_bins, resample
from specshards.train.models.tokenizer.pixels import Pixels, scaled

Drawer = Callable[[Stack], Tensor]
_Floats = npt.NDArray[np.float64]

#: Width of a bin in log10 wavelength: a pixel of SDSS and LAMOST. Wider where more than `MOST_BINS` would be needed.
STEP, MOST_BINS = 1e-4, 6000
#: Components that missing bins are filled from, and how often. Few: as many components as objects would give back
#: whatever a bin had been filled with.
FILLING, ROUNDS = 20, 20
#: What is added in quadrature to a train object's typical error, over its scale, before objects are weighed by it; an
#: object of a survey without errors counts as the middle one of the others. Unweighed, the noise of faint objects
#: rules the components: learnt from 1,420 spectra of SDSS and LAMOST, they left 6.6 of seen and 14.1 of hidden pixels
#: of 171 others, against 3.5 and 8.6.
SOFTENING = 0.05


def copy(batch: Stack) -> Tensor:
    """The flux as it is."""
    return batch["flux"]


@dataclass(frozen=True)
class Constant:
    """The mean, each pixel weighed by its variance with the `floor`: no constant has a smaller squared residual."""

    floor: float

    def __call__(self, batch: Stack) -> Tensor:
        """See the module."""
        pixels = scaled(batch["flux"], batch["ivar"])
        weight = weights(pixels, self.floor)
        mean = (weight * pixels.flux).sum(dim=1, keepdim=True) / weight.sum(dim=1, keepdim=True)
        return (mean * pixels.scale).float().expand_as(pixels.flux)


@dataclass(frozen=True)
class RunningMedian:
    """The median of `window` good pixels, an odd number; between them a straight line in wavelength."""

    window: int

    def __call__(self, batch: Stack) -> Tensor:
        """See the module."""
        drawn = np.zeros(batch["flux"].shape, np.float32)
        for i, (flux, ivar, wavelength) in enumerate(_rows(batch["flux"], batch["ivar"], batch["wavelength"])):
            seen = ivar > 0
            if seen.any():
                drawn[i] = np.interp(wavelength, wavelength[seen], running_median(flux[seen], self.window))
        return torch.from_numpy(drawn)


def running_median(values: npt.NDArray[Any], window: int) -> npt.NDArray[Any]:
    """Median of the `window` values around each, mirrored at the ends; of all, or all but one, where there are fewer.

    Args:
        values: `(n,)`, n >= 1. window: odd.
    """
    window = min(window, len(values) - 1 + len(values) % 2)
    around = np.pad(values, window // 2, mode="symmetric")
    median: npt.NDArray[Any] = np.median(np.lib.stride_tricks.sliding_window_view(around, window), axis=1)
    return median


@dataclass(frozen=True)
class Principal:
    """Principal components of train spectra over their scales, on one grid in log wavelength for all surveys.

    A bin that one survey lacks is filled from what the other bins say, as far as spectra that have both tell. Where
    no spectrum has both, it stays at the mean, and each survey has components of its own among the common ones: that
    is why there is one set for all.

    Attributes:
        edges: of the bins, float64 `(bins + 1,)`, Angstrom.
        mean: float64 `(bins,)`. components: float64 `(k, bins)`, orthonormal. variance: of each, float64 `(k,)`.
        floor: see `train.config.PretrainConfig`.
        objects: spectra learnt from. missing: share of their bins that had to be filled.
    """

    edges: _Floats
    mean: _Floats
    components: _Floats
    variance: _Floats
    floor: float
    objects: int
    missing: float

    @classmethod
    def learn(cls, read: Callable[[], Iterable[Stack]], count: int, floor: float) -> Principal:
        """At most `count` components, fewer where there are fewer objects (k < objects); in 2 GB for 5,000 objects.

        Args:
            read: gives the train spectra; called twice.

        Raises:
            UsageError: no spectrum has a good pixel.
        """
        low, high = np.inf, 0.0
        for batch in read():
            known = batch["wavelength"][batch["ivar"] > 0].double().numpy()
            low, high = known.min(initial=low), known.max(initial=high)
        if not high:
            raise UsageError("no train spectrum has a good pixel; use more objects")
        step = max(STEP, np.log10(high / low) / (MOST_BINS - 1))  # the ends lie in the middle of a bin each
        edges = log_bins(low * 10 ** (-step / 2), high * 10 ** (step / 2), step)
        parts = [_train_rows(batch, edges) for batch in read()]
        flux, good, error = (np.concatenate(part) for part in zip(*parts, strict=True))
        del parts
        missing = 1 - good.mean()
        known = np.isfinite(error)
        noise = np.where(known, error, np.median(error[known]) if known.any() else 0) ** 2 + SOFTENING**2
        fill(flux, good, noise)
        mean, components, variance = decompose(flux, shares(noise), count)
        return cls(edges, mean, components, variance, floor, len(flux), float(missing))

    def __call__(self, batch: Stack) -> Tensor:
        """See the module; the coefficients are the most probable ones for Gaussian noise and a Gaussian prior.

        The prior has mean 0 and the train split's variances: its ridge keeps what few pixels say little of small.
        """
        pixels = scaled(batch["flux"], batch["ivar"])
        drawn = np.zeros(pixels.flux.shape)
        given = _rows(pixels.flux, weights(pixels, self.floor), batch["wavelength"])
        for i, (flux, weight, wavelength) in enumerate(given):
            n = int(batch["length"][i])
            drawn[i, :n] = self.draw(flux[:n], weight[:n], wavelength[:n])
        return torch.from_numpy(drawn).float() * pixels.scale

    def draw(self, flux: _Floats, weight: _Floats, wavelength: _Floats) -> _Floats:
        """One spectrum over its scale, `(n,)`; a pixel counts by its weight, one beyond the grid not at all."""
        centre = np.log(self.edges[1:] * self.edges[:-1]) / 2
        place = np.interp(np.log(wavelength), centre, np.arange(len(centre)))
        below = np.minimum(place.astype(int), max(0, len(centre) - 2))
        above, part = np.minimum(below + 1, len(centre) - 1), place - below
        mean = self.mean[below] * (1 - part) + self.mean[above] * part
        basis = self.components[:, below] * (1 - part) + self.components[:, above] * part
        basis *= np.sqrt(self.variance)[:, None]
        seen = (weight > 0) & (wavelength >= self.edges[0]) & (wavelength <= self.edges[-1])
        weighed = basis[:, seen] * weight[seen]
        normal = weighed @ basis[:, seen].T + np.eye(len(basis))
        answer: _Floats = mean + np.linalg.solve(normal, weighed @ (flux - mean)[seen]) @ basis
        return answer


def weights(pixels: Pixels, floor: float) -> Tensor:
    """One over the variance that `train.tokenizer.pretrain.chi2` divides by, float64 `(B, N)`; 0 where bad."""
    error = pixels.error.double()
    return torch.where(pixels.good, 1 / torch.where(error > 0, error.square() + floor**2, 1), 0)


def fill(flux: _Floats, good: npt.NDArray[np.bool_], noise: _Floats) -> None:
    """Give the bins that are not good, in place, what `FILLING` components of all objects make of them.

    They begin at the mean. In every round each object's coefficients are the most probable ones for its good bins
    (for Gaussian noise and a Gaussian prior), its other bins take the value of that reconstruction, and the
    components come closer to the leading ones by one step of the power method. A bin that no object has lies on a
    straight line between the means around it.

    Args:
        flux: float64 `(n, bins)`. good: bool, the same. noise: variance of each object's good bins, float64 `(n,)`.
    """
    if good.all():
        return
    share = shares(noise)
    total = share @ good
    known = total > 0
    mean = share @ np.where(good, flux, 0) / np.where(known, total, 1)
    mean = np.interp(np.arange(len(mean)), np.flatnonzero(known), mean[known])
    np.copyto(flux, mean, where=~good)
    basis = np.random.default_rng(0).normal(size=(flux.shape[1], min(FILLING, *flux.shape)))
    for _ in range(ROUNDS):
        mean = share @ flux
        centred = flux - mean
        basis, _ = np.linalg.qr(centred.T @ (share[:, None] * (centred @ basis)))
        scores = centred @ basis
        prior = (share[:, None] * scores).T @ scores
        np.copyto(centred, 0, where=~good)
        products = good @ np.einsum("bi,bj->bij", basis, basis).reshape(len(basis), -1)
        normal = products.reshape(len(flux), *prior.shape) @ prior + noise[:, None, None] * np.eye(len(prior))
        coefficients = np.linalg.solve(normal, (centred @ basis)[:, :, None])[:, :, 0] @ prior
        np.matmul(coefficients, basis.T, out=centred)
        centred += mean
        np.copyto(flux, centred, where=~good)


def decompose(flux: _Floats, share: _Floats, count: int) -> tuple[_Floats, _Floats, _Floats]:
    """Mean `(bins,)`, components `(k, bins)` and their variances `(k,)`, largest first; k <= `count`, k < n.

    Args:
        flux: float64 `(n, bins)`, without a gap. share: weight of each object, float64 `(n,)`, sum 1; where all are
            alike, the variances are those of the sample (over n - 1).
    """
    n = len(flux)
    mean = share @ flux
    centred = flux - mean
    centred *= np.sqrt(share * (n / max(1, n - 1)))[:, None]
    wide = n < flux.shape[1]
    variance, vectors = np.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    variance, vectors = variance[::-1][: min(count, n - 1)], vectors[:, ::-1][:, : min(count, n - 1)]
    some = variance > 1e-10 * np.maximum(variance[:1], 1)  # below it is rounding alone: the flux is near 1
    variance, vectors = variance[some], vectors[:, some]
    components = (centred.T @ vectors / np.sqrt(variance)).T if wide else vectors.T
    return mean, components, variance


def shares(noise: _Floats) -> _Floats:
    """Weight of each object by its variance; sum 1."""
    share: _Floats = 1 / noise
    return share / share.sum()


def _train_rows(batch: Stack, edges: _Floats) -> tuple[_Floats, npt.NDArray[np.bool_], _Floats]:
    """Spectra over their scales `(n, bins)`, which bins are good, and typical errors `(n,)`; none without a bin."""
    pixels = scaled(batch["flux"], batch["ivar"])
    values, good = resample(batch, edges)
    error = torch.where(pixels.error > 0, pixels.error, torch.nan).nanmedian(dim=1).values.numpy()
    some = good.any(axis=1)
    return (values / pixels.scale.numpy())[some].astype(np.float64), good[some], error[some].astype(np.float64)


def _rows(*values: Tensor) -> Iterator[tuple[_Floats, ...]]:
    """The rows of some tensors, float64."""
    return zip(*(v.double().numpy() for v in values), strict=True)

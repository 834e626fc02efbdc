"""What a model's last layer says about one number: a histogram, a Gaussian or a point, on a scaled axis.

A head knows nothing of units: `train.tasks.task` maps a label to the axis and back.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from specshards.common.errors import UsageError

#: Standard deviations at which a predicted distribution is quoted: its 16th, 50th and 84th percentile.
QUANTILES = (0.16, 0.5, 0.84)
_SMOOTHING = 0.75  # width of the HL-Gauss target in bins (Farebrother et al. 2024)
_PEAK = 4  # bins to each side that belong to a peak: the target's smoothing is over within three
_MARGIN = 3  # empty bins at each end, four widths of the target: the edges of the range are not pulled inwards


class Head(Protocol):
    """A distribution over a scaled axis.

    `size` is the number of logits. Shapes: logits float32 `(B, size)`, targets float32 `(B,)`.
    """

    size: int

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every sample, float32 `(B,)`."""
        ...

    def point(self, logits: Tensor, *, mode: bool) -> Tensor:
        """The best single answer, float `(B,)`; `mode`: of the likeliest peak alone, not the mean over all peaks."""
        ...

    def std(self, logits: Tensor) -> Tensor:
        """Standard deviation of the whole distribution, float `(B,)`; NaN where a head has no width."""
        ...

    def quantiles(self, logits: Tensor) -> Tensor:
        """Values at `QUANTILES`, float32 `(B, 3)`; NaN where a head has no width."""
        ...

    def cdf(self, logits: Tensor, value: Tensor) -> Tensor:
        """Probability below `value` `(B,)`, float `(B,)`; NaN where a head has no width."""
        ...

    def crps(self, logits: Tensor, value: Tensor) -> Tensor:
        """Continuous ranked probability score, float `(B,)`: the integral of (cdf(t) - [t >= value])^2 over t.

        In units of the axis; of a point it is the absolute error (Gneiting & Raftery 2007, eq. 20).
        """
        ...


class HistogramHead:
    """A histogram over `[low, high]` of the axis; the target is a Gaussian of 0.75 bins around the label (HL-Gauss).

    Labels outside the range count as its ends.
    """

    def __init__(self, low: float, high: float, bins: int) -> None:
        self.size = bins
        self.low, self.high = low, high
        self.width = (high - low) / (bins - 2 * _MARGIN)
        self.edges = (torch.arange(bins + 1, dtype=torch.float64) - _MARGIN) * self.width + low
        self.centres = (self.edges[1:] + self.edges[:-1]) / 2

    def target(self, target: Tensor) -> Tensor:
        """Probability of every bin: float32 `(B, bins)`, rows sum to 1."""
        edges = self.edges.to(device=target.device, dtype=target.dtype)
        scale = 1 / (math.sqrt(2) * _SMOOTHING * self.width)
        cdf = torch.erf((edges - target.clamp(self.low, self.high)[:, None]) * scale)
        return (cdf[:, 1:] - cdf[:, :-1]) / (cdf[:, -1:] - cdf[:, :1])

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy between the two histograms."""
        return -(self.target(target) * F.log_softmax(logits, dim=1)).sum(dim=1)

    def point(self, logits: Tensor, *, mode: bool) -> Tensor:
        """Expectation over the histogram, or over the `_PEAK` bins to each side of the likeliest one."""
        centres = self.centres.to(device=logits.device, dtype=logits.dtype)
        p = logits.softmax(dim=1)
        if mode:
            distance = torch.arange(self.size, device=logits.device) - p.argmax(dim=1, keepdim=True)
            p = p * (distance.abs() <= _PEAK)
        return (p @ centres) / p.sum(dim=1)

    def std(self, logits: Tensor) -> Tensor:
        """Of the whole histogram, which holds the target's own 0.75 bins."""
        centres = self.centres.to(device=logits.device, dtype=logits.dtype)
        p = logits.softmax(dim=1)
        return (p * (centres - (p @ centres)[:, None]) ** 2).sum(dim=1).sqrt()

    def quantiles(self, logits: Tensor) -> Tensor:
        """By linear interpolation inside the bins."""
        edges = self.edges.to(device=logits.device, dtype=logits.dtype)
        cdf = F.pad(logits.softmax(dim=1).cumsum(dim=1), (1, 0))
        q = torch.tensor(QUANTILES, device=logits.device, dtype=logits.dtype).expand(len(logits), -1).contiguous()
        right = torch.searchsorted(cdf.contiguous(), q).clamp(1, self.size)
        below, above = cdf.gather(1, right - 1), cdf.gather(1, right)
        share = ((q - below) / (above - below).clamp_min(1e-12)).clamp(0, 1)
        return edges[right - 1] + share * self.width

    def cdf(self, logits: Tensor, value: Tensor) -> Tensor:
        """Linear inside the bins."""
        edges = self.edges.to(device=logits.device, dtype=logits.dtype)
        covered = ((value[:, None] - edges[:-1]) / self.width).clamp(0, 1)
        return (logits.softmax(dim=1) * covered).sum(dim=1)

    def crps(self, logits: Tensor, value: Tensor) -> Tensor:
        """Exact for a cdf that is linear inside the bins, plus the distance of a value outside them."""
        edges = self.edges.to(device=logits.device, dtype=logits.dtype)
        cdf = F.pad(logits.softmax(dim=1).cumsum(dim=1), (1, 0))
        low, high = cdf[:, :-1], cdf[:, 1:]
        covered = ((value[:, None] - edges[:-1]) / self.width).clamp(0, 1)
        at = low + (high - low) * covered
        below = covered * (low**2 + low * at + at**2)
        above = (1 - covered) * ((1 - at) ** 2 + (1 - at) * (1 - high) + (1 - high) ** 2)
        outside = (edges[0] - value).clamp_min(0) + (value - edges[-1]).clamp_min(0)
        return (below + above).sum(dim=1) * self.width / 3 + outside


class GaussianHead:
    """Mean and log variance on the axis; beta-NLL (Seitzer et al. 2022, eq. 5).

    The plain likelihood learns slowly where it is wrong, because a large variance excuses it; weighted by the
    variance to the power of beta = 0.5, it does not.
    """

    size = 2

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Negative log likelihood without its constant, weighted by the standard deviation."""
        log_variance = logits[:, 1].clamp(-14, 14)
        loss = 0.5 * (log_variance + (logits[:, 0] - target) ** 2 * (-log_variance).exp())
        return loss * (0.5 * log_variance.detach()).exp()

    def point(self, logits: Tensor, *, mode: bool) -> Tensor:
        """The mean."""
        return logits[:, 0]

    def std(self, logits: Tensor) -> Tensor:
        """As predicted."""
        return (0.5 * logits[:, 1].clamp(-14, 14)).exp()

    def quantiles(self, logits: Tensor) -> Tensor:
        """Of the Gaussian."""
        steps = torch.special.ndtri(torch.tensor(QUANTILES, dtype=torch.float64)).to(logits)
        return logits[:, :1] + self.std(logits)[:, None] * steps

    def cdf(self, logits: Tensor, value: Tensor) -> Tensor:
        """Of the Gaussian."""
        return torch.special.ndtr((value - logits[:, 0]) / self.std(logits))

    def crps(self, logits: Tensor, value: Tensor) -> Tensor:
        """Gneiting & Raftery 2007, eq. 21."""
        std = self.std(logits)
        z = (value - logits[:, 0]) / std
        density = (-0.5 * z**2).exp() / math.sqrt(2 * math.pi)
        return std * (z * (2 * torch.special.ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))


class PointHead:
    """One number by mean squared error: the paper's choice. It says nothing of its own uncertainty."""

    size = 1

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Squared error."""
        return (logits[:, 0] - target) ** 2

    def point(self, logits: Tensor, *, mode: bool) -> Tensor:
        """As predicted."""
        return logits[:, 0]

    def std(self, logits: Tensor) -> Tensor:
        """NaN."""
        return torch.full_like(logits[:, 0], float("nan"))

    def quantiles(self, logits: Tensor) -> Tensor:
        """NaN."""
        return logits.new_full((len(logits), len(QUANTILES)), float("nan"))

    def cdf(self, logits: Tensor, value: Tensor) -> Tensor:
        """NaN."""
        return torch.full_like(value, float("nan"))

    def crps(self, logits: Tensor, value: Tensor) -> Tensor:
        """The absolute error."""
        return (logits[:, 0] - value).abs()


def make_head(name: str, low: float, high: float, bins: int) -> Head:
    """A head by its name in `train.config.HEADS`, over `[low, high]` of the axis."""
    if name == "histogram":
        return HistogramHead(low, high, bins)
    if name == "gaussian":
        return GaussianHead()
    if name == "mse":
        return PointHead()
    raise UsageError(f"unknown head {name}: choose histogram, gaussian or mse")

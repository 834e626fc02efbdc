"""Numbers that say how good predictions are. Plain NumPy, so that their definitions can be read here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

LIGHT_SPEED = 299_792.458  # km/s
OUTLIER = 0.15  # |dz| above it is an outlier
#: |dz| c below it is not a catastrophe, km/s, by class.
NON_CATASTROPHIC = {"QSO": 3000.0, "GALAXY": 1000.0, "STAR": 1000.0}

#: Rows that `bootstrap` draws at most in all: what bounds its time for a million objects.
_DRAWN = 10_000_000
#: Of more classes, a table of each with each is larger than all else.
MOST_IN_CONFUSION = 100
_FEWEST_ROUNDS = 50  # below it the ends of a 95% interval are single rounds

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def classification(true: IntArray, predicted: IntArray, classes: Sequence[str]) -> dict[str, Any]:
    """Metrics of hard classes.

    Macro F1 is the mean over the classes that occur in truth or prediction, as torchmetrics counts it.

    Args:
        true, predicted: positions in `classes`, int `(N,)`.

    Returns:
        `count`, `accuracy`, `macro_f1`, `per_class` {name: count, predicted, recall, precision, f1} and, of up to
        `MOST_IN_CONFUSION` classes, `confusion`, rows true, columns predicted. Undefined numbers are NaN.
    """
    k = len(classes)
    confusion = np.bincount(true * k + predicted, minlength=k * k).reshape(k, k)
    hits, actual, claimed = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    recall, precision = _ratio(hits, actual), _ratio(hits, claimed)
    f1 = _ratio(2 * hits, actual + claimed)
    occurs = actual + claimed > 0
    return {
        "count": len(true),
        "accuracy": float(hits.sum() / len(true)) if len(true) else float("nan"),
        "macro_f1": float(f1[occurs].mean()) if occurs.any() else float("nan"),
        "per_class": {
            name: {"count": int(actual[i]), "predicted": int(claimed[i]), "recall": float(recall[i]),
                   "precision": float(precision[i]), "f1": float(f1[i])}
            for i, name in enumerate(classes)
        },
        **({"confusion": confusion.tolist()} if k <= MOST_IN_CONFUSION else {}),
    }  # fmt: skip


def probabilistic(true: IntArray, probabilities: FloatArray, bins: int = 15) -> dict[str, float]:
    """How far predicted probabilities can be believed.

    Args:
        true: columns of `probabilities`, int `(N,)`.
        probabilities: float `(N, K)`, rows sum to 1.
        bins: of the calibration error.

    Returns:
        `nll`: mean of -ln p(true class); `ece`: mean distance between the confidence in the likeliest class and its
        accuracy, over equal bins of confidence (Guo et al. 2017, eq. 3); `brier`: mean over objects of the squared
        distance to the truth, summed over classes, 0 to 2 (Brier 1950). NaN when N = 0.
    """
    return Belief.of(true, probabilities).probabilistic(bins)


class Belief(NamedTuple):
    """What is left of predicted probabilities once the truth is known: four numbers an object, however many classes.

    Attributes:
        own: the probability of the true class. top: of the likeliest one, whether that is the true one in `hit`.
        squares: squared distance to the truth, summed over classes. float64 `(N,)` each.
    """

    own: FloatArray
    top: FloatArray
    hit: FloatArray
    squares: FloatArray

    @classmethod
    def of(cls, true: npt.NDArray[Any], probabilities: FloatArray) -> Belief:
        """Of probabilities float `(N, K)`, rows sum to 1; NaN where the truth, a column `(N,)`, is NaN.

        `top` is known without the truth.
        """
        known = np.isfinite(true)
        column = np.where(known, true, 0).astype(int)
        own = np.where(known, probabilities[np.arange(len(true)), column], np.nan)
        hit = np.where(known, probabilities.argmax(axis=1) == column, np.nan)
        squares = (probabilities**2).sum(axis=1) - own**2 + (1 - own) ** 2
        return cls(own, probabilities.max(axis=1), hit, squares)

    def probabilistic(self, bins: int = 15) -> dict[str, float]:
        """See `probabilistic`."""
        n = len(self.own)
        if not n:
            return {"nll": float("nan"), "ece": float("nan"), "brier": float("nan")}
        _, confidence, hits = self._by_confidence(bins)
        return {
            "nll": float(-np.log(np.maximum(self.own, np.finfo(np.float64).tiny)).mean()),
            "ece": float(np.abs(confidence - hits).sum() / n),
            "brier": float(self.squares.mean()),
        }

    def reliability(self, bins: int = 10) -> list[dict[str, Any]]:
        """See `reliability`."""
        count, confidence, hits = self._by_confidence(bins)
        means, accuracy = _ratio(confidence, count), _ratio(hits, count)
        return [
            {"low": i / bins, "high": (i + 1) / bins, "count": int(count[i]), "confidence": float(means[i]),
             "accuracy": float(accuracy[i])}
            for i in range(bins)
        ]  # fmt: skip

    def _by_confidence(self, bins: int) -> tuple[IntArray, FloatArray, FloatArray]:
        """Of each bin ((i - 1)/bins, i/bins] of the top probability: objects, sum of it, number of hits."""
        place = np.clip(np.ceil(self.top * bins).astype(int) - 1, 0, bins - 1)
        count = np.bincount(place, minlength=bins).astype(np.int64)
        confidence, right = (np.bincount(place, w, minlength=bins).astype(np.float64) for w in (self.top, self.hit))
        return count, confidence, right


def reliability(true: IntArray, probabilities: FloatArray, bins: int = 10) -> list[dict[str, Any]]:
    """The likeliest class by equal bins of confidence: how often it is right where the model is so sure.

    Returns:
        For every bin `low`, `high`, `count`, mean `confidence` and `accuracy`, NaN where it is empty.
    """
    return Belief.of(true, probabilities).reliability(bins)


def pit_histogram(pit: FloatArray, bins: int = 20) -> list[int]:
    """Objects in equal bins from 0 to 1 of the predicted probability below the truth, float `(N,)`; NaN are left out.

    Even where the predicted distributions are right; a hump where they are too wide, a bowl where too narrow.
    """
    counts, _ = np.histogram(np.clip(pit[np.isfinite(pit)], 0, 1), bins=bins, range=(0, 1))
    return [int(n) for n in counts]


def residual_boxes(true: FloatArray, error: FloatArray, bins: int = 10) -> list[dict[str, Any]]:
    """Percentiles of the error, float `(N,)`, in bins of the true value that hold about equally many objects.

    Returns:
        For every bin `low`, `high` (of the true value), `count`, and the error's `p5`, `q1`, `median`, `q3`, `p95`.
        Fewer bins than asked for where they would hold fewer than ten objects; equal values are in one bin.
    """
    if not len(true):
        return []
    bins = min(bins, max(1, len(true) // 10))
    edges = np.unique(np.quantile(true, np.linspace(0, 1, bins + 1)))
    place = np.clip(np.searchsorted(edges, true, side="right") - 1, 0, max(0, len(edges) - 2))
    boxes = []
    for i in np.unique(place):
        inside = error[place == i]
        names = ("p5", "q1", "median", "q3", "p95")
        values = np.percentile(inside, [5, 25, 50, 75, 95])
        low, high = float(edges[i]), float(edges[min(i + 1, len(edges) - 1)])
        boxes.append(
            {"low": low, "high": high, "count": len(inside)} | dict(zip(names, values.tolist(), strict=True))
        )
    return boxes


def bootstrap(
    measure: Callable[[IntArray], Mapping[str, float]], n: int, rounds: int = 200, seed: int = 0, level: float = 0.95,
    groups: IntArray | None = None,
) -> dict[str, list[float]]:  # fmt: skip
    """Percentile intervals of metrics by drawing objects anew, with replacement (Efron & Tibshirani 1993, ch. 13).

    They hold for other objects drawn like these, the model being what it is; not for another training.

    Args:
        measure: rows, int `(M,)`, to metrics; called once a round.
        n: number of rows. Above 50,000 there are fewer rounds, down to 50 from 200,000 on, where intervals are narrow
            and their ends a little rough.
        groups: int `(n,)`: rows of one group are drawn together, such as visits of one object, which are no
            independent witnesses.

    Returns:
        Metric -> [low, high]; rounds without a defined value are left out. Both are NaN with fewer than two objects
        to draw from, and where every round gives the same: drawing anew from 40 right answers tells nothing of the
        wrong ones to come.
    """
    rounds = min(rounds, max(_FEWEST_ROUNDS, _DRAWN // max(1, n)))
    rng = np.random.default_rng(seed)
    order, starts, sizes = _grouped(n, groups)
    if len(starts) < 2:
        return {name: [float("nan")] * 2 for name in measure(np.arange(n))}
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        drawn = rng.integers(0, len(starts), len(starts))
        size = sizes[drawn]
        # Row numbers of all groups drawn: each group's start, and then one after the other.
        within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        for name, value in measure(order[np.repeat(starts[drawn], size) + within]).items():
            found.setdefault(name, []).append(value)
    return {name: _interval(np.array(values), level) for name, values in found.items()}


def regression(
    true: FloatArray, predicted: FloatArray, *, redshift: bool, classes: FloatArray | None = None,
    class_names: Sequence[str] = ("STAR", "GALAXY", "QSO"),
) -> dict[str, Any]:  # fmt: skip
    """Metrics of one number, in its own unit.

    Args:
        true, predicted: float `(N,)`, finite.
        redshift: also those of dz = (predicted - true)/(1 + true): `mean_abs_dz`, `nmad`, `outliers` (share of
            |dz| > 0.15) and `non_catastrophic` (share of |dz| c below the class's limit, over objects with a class).
        classes: positions in `class_names`, NaN = missing.

    Returns:
        `count`, `r2`, `mae`, `rmse`, `bias` (median of predicted - true) and, for redshift, the four above.
        Undefined numbers are NaN.
    """
    n = len(true)
    result: dict[str, Any] = {"count": n}
    error = predicted - true
    result["r2"] = r2(true, predicted)
    result["mae"] = _mean(np.abs(error))
    result["rmse"] = float(np.sqrt(_mean(error**2)))
    result["bias"] = float(np.median(error)) if n else float("nan")
    if redshift:
        dz = error / (1 + true)
        result["mean_abs_dz"] = _mean(np.abs(dz))
        result["nmad"] = nmad(dz)
        result["outliers"] = _mean(np.abs(dz) > OUTLIER)
        known, within = non_catastrophic(true, predicted, classes, class_names)
        result["non_catastrophic"] = _mean(within[known])
    return result


def non_catastrophic(
    true: FloatArray, predicted: FloatArray, classes: FloatArray | None,
    class_names: Sequence[str] = ("STAR", "GALAXY", "QSO"),
) -> tuple[BoolArray, BoolArray]:  # fmt: skip
    """Which redshifts have a class, and which of those have |dz| c below its limit: bool `(N,)` each.

    Args:
        true, predicted: float `(N,)`. classes: positions in `class_names`, NaN = missing; None where all are.
    """
    limits = _limits(len(true), classes, class_names)
    known = np.isfinite(limits)
    return known, known & (np.abs((predicted - true) / (1 + true)) * LIGHT_SPEED < limits)


def most_non_catastrophic(
    true: FloatArray, classes: FloatArray, class_names: Sequence[str] = ("STAR", "GALAXY", "QSO")
) -> float:
    """The one redshift that is no catastrophe for most of the objects, NaN where none has a class.

    Each object allows an open interval around its redshift; the answer is the middle of where most of them overlap.
    """
    limits = _limits(len(true), classes, class_names)
    known = np.isfinite(limits) & np.isfinite(true)
    if not known.any():
        return float("nan")
    reach = limits[known] / LIGHT_SPEED * (1 + true[known])
    ends = np.concatenate([true[known] - reach, true[known] + reach])
    opens = np.repeat([1, -1], known.sum())
    order = np.lexsort((opens, ends))  # at equal ends an interval closes before the next opens
    depth = np.cumsum(opens[order])
    best = int(depth.argmax())
    return float((ends[order][best] + ends[order][best + 1]) / 2)


def least_median_deviation(values: FloatArray) -> float:
    """The constant whose median absolute residual is the smallest, of at least one finite value.

    The least median of squares (Rousseeuw 1984, JASA 79, 871) in one dimension: the middle of the shortest half. Of
    an even number the median is the mean of the two residuals in the middle: halves of both sizes are looked at.
    """
    x = np.sort(values)
    n = len(x)
    middles = [(x[: n - k + 1] + x[k - 1 :]) / 2 for k in sorted({(n + 1) // 2, n // 2 + 1})]
    candidates = np.concatenate(middles)
    cost = np.zeros(len(candidates))
    for centres in middles:
        # The k nearest values of a candidate are the window whose middle is next to it, on one side or the other.
        k, right = n - len(centres) + 1, np.searchsorted(centres, candidates)
        reach = [
            np.maximum(candidates - x[at], x[at + k - 1] - candidates)
            for at in (np.clip(right - 1, 0, n - k), np.clip(right, 0, n - k))
        ]
        cost += np.minimum(*reach)
    return float(candidates[cost.argmin()])


def crps_gaussian(true: FloatArray, predicted: FloatArray, sigma: float | FloatArray) -> FloatArray:
    """CRPS of normal distributions around the predictions, float `(N,)`, in the unit of `true`.

    Gneiting & Raftery 2007 (JASA 102, 359), eq. 21. Where sigma is 0 it is the absolute error.
    """
    error, sigma = np.abs(true - predicted), np.broadcast_to(np.asarray(sigma, np.float64), np.shape(true))
    w = np.divide(error, sigma, out=np.zeros_like(error), where=sigma > 0)
    density = np.exp(-(w**2) / 2) / np.sqrt(2 * np.pi)
    score = sigma * (w * (2 * ndtr(w) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    return np.where(sigma > 0, score, error)


def crps_gaussian_z(true: FloatArray, predicted: FloatArray, sigma: float | None = None) -> FloatArray:
    """CRPS of points as the published code of A&A 709, A122 has it, float `(N,)`, in z.

    Every prediction becomes a normal distribution of one and the same width: the standard deviation of the residuals
    themselves, with N below, so that the width is learnt from the truths that it is scored by.

    Args:
        sigma: the width, where it is that of other objects too.
    """
    width = float(np.std(predicted - true)) if sigma is None and len(true) else sigma or 0.0
    return crps_gaussian(true, predicted, width)


def median_deviation(error: FloatArray) -> float:
    """MAD of residuals, the median of |residual| of float `(N,)`: around zero, not their median. NaN when empty."""
    return float(np.median(np.abs(error))) if len(error) else float("nan")


def r2(true: FloatArray, predicted: FloatArray) -> float:
    """1 - residual / total sum of squares of float `(N,)`; NaN where all truths are the same."""
    spread = float(((true - true.mean()) ** 2).sum()) if len(true) > 1 else 0.0
    return 1 - float(((predicted - true) ** 2).sum()) / spread if spread > 0 else float("nan")


def nmad(dz: FloatArray) -> float:
    """1.4826 times the median absolute deviation from the median of float `(N,)`; NaN when empty."""
    if not len(dz):
        return float("nan")
    return 1.4826 * float(np.median(np.abs(dz - np.median(dz))))


def _limits(n: int, classes: FloatArray | None, class_names: Sequence[str]) -> FloatArray:
    """The limit of each object, km/s, float `(n,)`; NaN without a class."""
    limits = np.full(n, np.nan)
    if classes is not None:
        for i, name in enumerate(class_names):
            limits[classes == i] = NON_CATASTROPHIC[name]
    return limits


def _grouped(n: int, groups: IntArray | None) -> tuple[IntArray, IntArray, IntArray]:
    """Rows sorted by group, and each group's first place and size among them."""
    if groups is None:
        return np.arange(n), np.arange(n), np.ones(n, np.int64)
    order = np.argsort(groups, kind="stable")
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    return order, starts, sizes


def _interval(values: FloatArray, level: float) -> list[float]:
    known = values[np.isfinite(values)]
    if not len(known) or known.min() == known.max():
        return [float("nan")] * 2
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def _mean(values: npt.NDArray[Any]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _ratio(above: npt.NDArray[Any], below: npt.NDArray[Any]) -> FloatArray:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)

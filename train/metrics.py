"""Numbers that say how good predictions are. Plain NumPy, so that their definitions can be read here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

LIGHT_SPEED = 299_792.458  # km/s
OUTLIER = 0.15  # |dz| above it is an outlier
#: |dz| c below it is not a catastrophe, km/s, by class.
NON_CATASTROPHIC = {"QSO": 3000.0, "GALAXY": 1000.0, "STAR": 1000.0}

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def classification(true: IntArray, predicted: IntArray, classes: Sequence[str]) -> dict[str, Any]:
    """Metrics of hard classes.

    Macro F1 is the mean over the classes that occur in truth or prediction, as torchmetrics counts it.

    Args:
        true, predicted: positions in `classes`, int `(N,)`.

    Returns:
        `count`, `accuracy`, `macro_f1`, `per_class` {name: count, predicted, recall, precision, f1} and `confusion`,
        rows true, columns predicted. Undefined numbers are NaN.
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
        "confusion": confusion.tolist(),
    }  # fmt: skip


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
    spread = float(((true - true.mean()) ** 2).sum()) if n > 1 else 0.0
    result["r2"] = 1 - float((error**2).sum()) / spread if spread > 0 else float("nan")
    result["mae"] = _mean(np.abs(error))
    result["rmse"] = float(np.sqrt(_mean(error**2)))
    result["bias"] = float(np.median(error)) if n else float("nan")
    if redshift:
        dz = error / (1 + true)
        result["mean_abs_dz"] = _mean(np.abs(dz))
        result["nmad"] = nmad(dz)
        result["outliers"] = _mean(np.abs(dz) > OUTLIER)
        limits = np.full(n, np.nan)
        if classes is not None:
            for i, name in enumerate(class_names):
                limits[classes == i] = NON_CATASTROPHIC[name]
        known = np.isfinite(limits)
        result["non_catastrophic"] = _mean(np.abs(dz[known]) * LIGHT_SPEED < limits[known])
    return result


def nmad(dz: FloatArray) -> float:
    """1.4826 times the median absolute deviation from the median of float `(N,)`; NaN when empty."""
    if not len(dz):
        return float("nan")
    return 1.4826 * float(np.median(np.abs(dz - np.median(dz))))


def _mean(values: npt.NDArray[Any]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _ratio(above: npt.NDArray[Any], below: npt.NDArray[Any]) -> FloatArray:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)

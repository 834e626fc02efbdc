"""Metrics and numbers in words, as tables, cards and pictures show them."""

from __future__ import annotations

import math
from hashlib import sha256

Rows = list[list[str]]

#: Metrics by their names in `metrics.json`, as the tables call them.
NAMES = {
    "count": "objects", "accuracy": "accuracy", "macro_f1": "macro F1", "nll": "NLL", "ece": "ECE", "brier": "Brier",
    "mean_abs_dz": "mean |dz|", "nmad": "NMAD", "outliers": "|dz|>0.15", "non_catastrophic": "non-catastrophic",
    "r2": "R2", "mae": "MAE", "rmse": "RMSE", "bias": "bias", "crps": "CRPS", "coverage68": "in the 68% interval",
    "r2_log": "R2 (log)", "mae_log": "MAE (log)", "rmse_log": "RMSE (log)", "bias_log": "bias (log)",
}  # fmt: skip


def metric_name(metric: str) -> str:
    """A metric as the tables call it."""
    return NAMES.get(metric, metric.replace("_", " "))


def number(value: float | None) -> str:
    """A count with commas, a metric with four decimals or fewer where it is large, `-` for an undefined one."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    if size >= 1e6 or 0 < size < 0.001:
        return f"{value:.3g}"
    return f"{value:,.1f}" if size >= 100 else f"{value:.2f}" if size >= 10 else f"{value:.4f}"


def quantity(label: str, value: float, std: float = float("nan"), unit: str = "") -> str:
    """A label's value, with its standard deviation where that is known: `teff = 5867 ± 21 K`."""
    end = f" {unit}" if unit else ""
    if not (math.isfinite(std) and std > 0):
        return f"{label} = {value:.4g}{end}"
    # Both to the second digit of the width, and never as a power of ten.
    digits = max(0, 1 - math.floor(math.log10(std)))
    return f"{label} = {value:.{digits}f} ± {std:.{digits}f}{end}"


def in_unit(unit: str) -> str:
    """A unit behind the name of an axis."""
    return f" ({unit})" if unit else ""


def file_name(task: str) -> str:
    """The name of a task as part of a file's: what is no letter, digit, dot, plus or minus is its code, %2f."""
    safe = "".join(c if c.isalnum() or c in "_.+-" else "".join(f"%{b:02x}" for b in c.encode()) for c in task)
    return safe if len(safe.encode()) <= 120 else f"{safe[:20]}-{sha256(task.encode()).hexdigest()[:16]}"

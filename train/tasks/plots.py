"""The drawings of an evaluation: one matplotlib figure each, from the numbers in `metrics.json` or from the answers.

Colours and look are those of `common.svg`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from specshards.common.spectrum import CLASSES
from specshards.common.svg import ACCENT, MUTED, SERIES, WARM, new_figure
from specshards.train.tasks.metrics import FloatArray

#: More points than these are counted on a grid: a page holds a million objects as it holds a thousand.
MOST_POINTS = 1500
_GRID_CELLS = 150
_FEW = 20  # objects: a value that rests on fewer is drawn hollow
_CLASS_COLOURS = {**dict(zip(CLASSES, SERIES, strict=False)), "no class": MUTED}


def _value(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Shares of every true class (rows) by predicted class, with counts where there is room for them."""
    table = np.asarray(counts)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    k = len(classes)
    many = k > 6
    figure = new_figure(min(9.5, 1.2 + 0.36 * k), 2) if many else new_figure(4.6)
    axes = figure.add_subplot()
    for i, j in np.ndindex(k, k):
        if table[i, j]:
            share = shares[i, j]
            axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=ACCENT, alpha=0.06 + 0.54 * share, lw=0))
            text = f"{100 * share:.0f}" if many else f"{100 * share:.1f}%\n{table[i, j]:,}"
            axes.text(j, i, text, ha="center", va="center", fontsize=8 if many else 9)
    axes.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5), xlabel="predicted", ylabel="true")
    axes.set_xticks(range(k), classes, rotation=90 if many else 0)
    axes.set_yticks(range(k), [f"{name} {n:,}" for name, n in zip(classes, table.sum(axis=1), strict=True)])
    axes.tick_params(length=0)
    return figure


def against(true: FloatArray, point: FloatArray, classes: FloatArray, label: str, unit: str) -> Figure:
    """Predicted against true, coloured by class; many objects as a density, which is logarithmic."""
    figure = new_figure(4.6)
    axes = figure.add_subplot()
    axes.set(xlabel=f"true {label}{unit}", ylabel=f"predicted {label}{unit}")
    if not len(true):
        return figure
    low, high = float(true.min()), float(true.max())
    margin = 0.03 * (high - low) or 0.5
    low, high = low - margin, high + margin
    members = [(name, classes == i) for i, name in enumerate(CLASSES)] + [("no class", np.isnan(classes))]
    groups = [(name, rows) for name, rows in members if rows.any()]
    if len(true) > MOST_POINTS:
        _density(axes, [(true[rows], point[rows], _CLASS_COLOURS[name]) for name, rows in groups], low, high)
    for name, rows in groups:
        shown = rows if len(true) <= MOST_POINTS else np.zeros_like(rows)
        axes.plot(true[shown], point[shown], "o", ms=2.5, alpha=0.6, mew=0, color=_CLASS_COLOURS[name],
                  label=f"{name} {rows.sum():,}")  # fmt: skip
    axes.plot([low, high], [low, high], color=MUTED, lw=0.8, zorder=0)
    axes.set(xlim=(low, high), ylim=(low, high))
    beyond = int(((point < low) | (point > high)).sum())
    title = f"{beyond:,} predictions beyond the frame" if beyond else None
    axes.legend(markerscale=2, title=title, title_fontsize=8, loc="upper left")
    return figure


def _density(axes: Axes, groups: Sequence[tuple[FloatArray, FloatArray, str]], low: float, high: float) -> None:
    """Counts on a grid: the colour is the mean of the classes there, its strength the logarithm of the number."""
    edges = np.linspace(low, high, _GRID_CELLS + 1)
    total = np.zeros((_GRID_CELLS, _GRID_CELLS))
    colour = np.zeros((_GRID_CELLS, _GRID_CELLS, 3))
    for x, y, name in groups:
        counts = np.histogram2d(y, x, bins=(edges, edges))[0]
        total += counts
        colour += counts[:, :, None] * np.array(to_rgb(name))
    strength = np.log1p(total) / np.log1p(max(1.0, total.max()))
    alpha = np.where(total > 0, 0.25 + 0.75 * strength, 0.0)
    pixels = np.dstack([colour / np.maximum(total, 1)[:, :, None], alpha])
    axes.imshow(pixels, origin="lower", extent=(low, high, low, high), interpolation="none", aspect="auto")


def residuals(boxes: Sequence[Mapping[str, Any]], true: str, error: str) -> Figure:
    """A box per bin of the true value: median and quartiles, whiskers to the 5th and 95th percentile.

    Args:
        true, error: what they are, with their units.
    """
    figure = new_figure(4.0)
    axes = figure.add_subplot()
    stats = [{"med": b["median"], "q1": b["q1"], "q3": b["q3"], "whislo": b["p5"], "whishi": b["p95"]} for b in boxes]
    lines = {"color": MUTED, "linewidth": 1.0}
    axes.axhline(0, color=MUTED, lw=0.8, zorder=0)
    axes.bxp(
        stats, positions=range(len(boxes)), widths=0.6, showfliers=False, patch_artist=True, whiskerprops=lines,
        capprops=lines, medianprops={"color": WARM, "linewidth": 1.6},
        boxprops={"facecolor": ACCENT, "alpha": 0.35, "linewidth": 0},
    )  # fmt: skip
    labels = [f"{_brief(b['low'])} to {_brief(b['high'])}\n{b['count']:,}" for b in boxes]
    axes.set_xticks(range(len(boxes)), labels, rotation=45, ha="right", rotation_mode="anchor", fontsize=7)
    axes.set(xlabel=f"{true}, objects", ylabel=error)
    axes.grid(axis="y")
    return figure


def _brief(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2g}"


Line = tuple[str, Sequence[float | None], Sequence[int]]


def curves(bins: Sequence[str], counts: Sequence[int], panels: Mapping[str, Sequence[Line]]) -> Figure:
    """Metrics by bin of S/N: one panel a name, in it lines of (name, values, objects that each value rests on).

    Args:
        bins: names, and `counts` objects in each.
        panels: a panel whose name begins with `share: ` has an axis that ends at 1.
    """
    columns = 2 if len(panels) > 2 else 1
    lines = -(-len(panels) // columns)
    figure = new_figure(0.4 + (3.2 if len(panels) == 1 else 2.2) * lines, columns)
    for place, (title, series) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(lines, columns, place)
        single = len(series) == 1
        for (name, values, basis), colour in zip(series, (ACCENT,) if single else SERIES * 9, strict=False):
            y, x = np.array([_value(v) for v in values]), np.arange(len(bins))
            axes.plot(x, y, color=colour, label=name, zorder=2)
            few = np.array(basis) < _FEW
            axes.plot(x[~few], y[~few], "o", color=colour, zorder=3)
            axes.plot(x[few], y[few], "o", color=colour, mfc="none", zorder=3)
        axes.set_xticks(
            range(len(bins)), [f"{name}\n{n:,}" for name, n in zip(bins, counts, strict=True)], fontsize=7
        )
        axes.set(title=title.removeprefix("share: "), xlim=(-0.3, len(bins) - 0.7))
        _limits(axes, np.array([_value(v) for _, values, _ in series for v in values]), title.startswith("share: "))
        axes.grid(axis="y")
        if not single:
            axes.legend(ncols=1 if len(series) < 5 else 2)
    figure.supxlabel("median S/N per pixel, objects", fontsize=8)
    return figure


def _limits(axes: Axes, values: FloatArray, share: bool) -> None:
    known = values[np.isfinite(values)]
    if share and len(known):
        low = np.floor(10 * known.min() - 0.3) / 10
        # R2 of a bin of few objects has no lower end.
        axes.set_ylim(max(low, 0.0 if known.min() >= 0 else -1.0), 1.01)
    elif len(known) and known.max() > 0:
        axes.set_ylim(0, 1.1 * known.max())


def pit(counts: Sequence[int]) -> Figure:
    """The PIT histogram as a density, with what a right prediction gives and its twofold chance error."""
    n, bins = sum(counts), len(counts)
    figure = new_figure(3.6)
    axes = figure.add_subplot()
    expected = n / bins
    error = 2 * np.sqrt(expected * (1 - 1 / bins)) / max(expected, 1e-9)
    for height, dashes in ((1 - error, "--"), (1.0, "-"), (1 + error, "--")):
        axes.axhline(height, color=WARM, lw=1.0, ls=dashes)
    edges = np.linspace(0, 1, bins + 1)
    heights = np.array(counts) / max(expected, 1e-9)
    axes.bar(edges[:-1], heights, width=1 / bins, align="edge", color=ACCENT, alpha=0.5, lw=0)
    axes.set(xlim=(0, 1), ylim=(0, 1.08 * max(1 + error, heights.max(initial=1))))
    axes.set(xlabel="predicted probability below the truth", ylabel="relative to even", title=f"{n:,} objects")
    return figure


def reliability(bins: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy against confidence, and below it how many objects are how sure."""
    figure = new_figure(4.4)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    filled = [b for b in bins if b["count"]]
    x = np.array([_value(b["confidence"]) for b in filled])
    y = np.array([_value(b["accuracy"]) for b in filled])
    n = np.array([b["count"] for b in filled])
    error = np.sqrt(y * (1 - y) / n)
    few = n < _FEW
    axes.plot([0, 1], [0, 1], color=WARM, lw=1.0, zorder=1)
    axes.errorbar(x, y, error, color=ACCENT, lw=1.2, elinewidth=1.0, zorder=2)
    axes.plot(x[~few], y[~few], "o", color=ACCENT, zorder=3)
    axes.plot(x[few], y[few], "o", color=ACCENT, mfc="none", zorder=3)
    axes.set(xlim=(0, 1.01), ylim=(0, 1.03), ylabel="accuracy", title=f"{sum(n):,} objects")
    axes.grid()
    shares = [b["count"] / max(1, sum(n)) for b in bins]
    below.bar([b["low"] for b in bins], shares, width=[b["high"] - b["low"] for b in bins], align="edge",
              color=ACCENT, alpha=0.5, lw=0)  # fmt: skip
    below.set(xlabel="confidence in the likeliest class", ylabel="share of objects")
    return figure


def history(epochs: Sequence[int], panels: Mapping[str, Sequence[float | None]], best: int | None) -> Figure:
    """Values by epoch, a panel each; a dotted line at the epoch that was kept."""
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = new_figure(0.3 + 2.4 * lines, 1 if columns == 1 else 2)
    for place, (title, values) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(lines, columns, place)
        axes.plot(epochs, [_value(v) for v in values], "-o", ms=3, color=ACCENT)
        if best is not None:
            axes.axvline(best, color=WARM, lw=1.0, ls=":")
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
    return figure

"""One picture of a model's answers on a split: the confusion matrix, or predicted against true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ingest.schema import CLASSES
from train.metrics import FloatArray, classification
from train.scoring import Scored
from train.tasks import Classification, Task

_COLOURS = {"STAR": "#c77700", "GALAXY": "#2a6f97", "QSO": "#8a2d6b"}


def draw(run: Path, task: Task, scored: Scored, split: str, mock: bool) -> None:
    """Write `run/figure_<split>.png` of the labelled samples of one split."""
    known = np.isfinite(scored.labels[task.label])
    true, point = scored.labels[task.label][known], scored.columns["point"][known]
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    if isinstance(task, Classification):
        _confusion(axes, classification(true.astype(int), point.astype(int), task.classes)["confusion"], task.classes)
    else:
        _against(axes, true, point, scored.labels["class"][known], task)
    axes.set_title(f"{'MOCK data, ' if mock else ''}{split}: {len(true):,} objects", fontsize=10)
    figure.savefig(run / f"figure_{split}.png", dpi=150, metadata={"Software": None})


def _confusion(axes: Axes, confusion: list[list[int]], classes: tuple[str, ...]) -> None:
    counts = np.asarray(confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (i, j), n in np.ndenumerate(counts):
        colour = "white" if shares[i, j] > 0.5 else "black"
        axes.text(j, i, f"{n:,}\n{100 * shares[i, j]:.1f}%", ha="center", va="center", color=colour)
    axes.set(xticks=range(len(classes)), yticks=range(len(classes)), xlabel="predicted", ylabel="true")
    axes.set_xticklabels(classes)
    axes.set_yticklabels(classes)


def _against(axes: Axes, true: FloatArray, point: FloatArray, classes: FloatArray, task: Task) -> None:
    groups = [(name, classes == i, _COLOURS[name]) for i, name in enumerate(CLASSES)]
    groups.append(("no class", np.isnan(classes), "#666666"))
    for name, rows, colour in groups:
        if rows.any():
            axes.plot(true[rows], point[rows], ".", ms=2.5, alpha=0.5, color=colour, label=f"{name} {rows.sum():,}")
    if len(true):
        ends = [float(true.min()), float(true.max())]
        axes.plot(ends, ends, color="black", lw=0.7)
        axes.legend(frameon=False, markerscale=4, fontsize=8)
    axes.set(xlabel=f"true {task.label}", ylabel=f"predicted {task.label}")

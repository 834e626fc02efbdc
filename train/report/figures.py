"""The figures of a run folder: a picture of each split and task, and the drawings that stand in its page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from specshards.common.errors import make_folder
from specshards.common.files import replacing, write_text
from specshards.common.svg import style, to_svg
from specshards.train.evaluation.score import Scored
from specshards.train.report import plots
from specshards.train.report.tables import metric_name
from specshards.train.tasks.classification import Classification
from specshards.train.tasks.metrics import classification
from specshards.train.tasks.task import Task

FOLDER = "figures"
_MOST_LINES = 6  # classes in one plot of S/N: the most numerous ones


def draw(run: Path, task: Task, scored: Scored, split: str, mock: bool) -> None:
    """Write `run/figure_<split>_<task>.png` of the labelled samples of one split, and its SVG for the page.

    It is the confusion matrix or predicted against true. The page draws all else from `metrics.json`; predictions one
    by one are nowhere else.
    """
    known = np.isfinite(scored.labels[task.label])
    true, point = scored.labels[task.label][known], scored.columns["point"][known]
    with style():
        if isinstance(task, Classification):
            counts = classification(true.astype(int), point.astype(int), task.classes)["confusion"]
            figure = plots.confusion(counts, task.classes)
        else:
            figure = plots.against(true, point, scored.labels["class"][known], task)
        figure.axes[0].set_title(f"{'MOCK data, ' if mock else ''}{split}, {task.name}: {len(true):,} objects")
        make_folder(run / FOLDER)
        write_text(_stored(run, split, task.name), to_svg(figure))
        with replacing(run / f"figure_{split}_{task.name}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=150, facecolor="white", metadata={"Software": None})


def stored(run: Path, split: str, task: str) -> str | None:
    """The SVG that `draw` wrote last for a split and task, or None."""
    path = _stored(run, split, task)
    return path.read_text(encoding="utf-8") if path.is_file() else None


def svgs(task: Task, scores: Mapping[str, Any]) -> dict[str, str]:
    """Drawings of one split and task from its part of `metrics.json`: name -> SVG.

    `reliability`; `residuals`; `pit`; `sn`: metrics by S/N; `classes_sn`: recall by class and S/N. What has no data
    is absent.
    """
    drawings: dict[str, Callable[[], Figure]] = {}
    if any(b["count"] for b in scores.get("reliability") or []):
        drawings["reliability"] = lambda: plots.reliability(scores["reliability"])
    if scores.get("residuals"):
        drawings["residuals"] = lambda: plots.residuals(scores["residuals"], task)
    if scores.get("pit"):
        drawings["pit"] = lambda: plots.pit(scores["pit"])
    if scores["by_sn"]:
        drawings["sn"] = lambda: _by_sn(task, scores["by_sn"])
    if scores.get("class_by_sn"):
        drawings["classes_sn"] = lambda: _classes_by_sn(scores)
    return _drawn(drawings)


def history(entries: Sequence[Mapping[str, Any]], best: int | None) -> str | None:
    """The training by epoch as SVG, from `training.history`: a panel for every number in it; None without any."""
    names = [name for name in dict.fromkeys(k for entry in entries for k in entry) if name not in ("epoch", "step")]
    # With one task the number that chooses the epoch is there twice: by its own name and with the task's before it.
    names = [name for name in names if not any(name.endswith(f"_{other}") for other in names if other != name)]
    panels = {name: [entry.get(name) for entry in entries] for name in names}
    panels = {name: values for name, values in panels.items() if any(v is not None for v in values)}
    if not panels:
        return None
    epochs = [entry["epoch"] for entry in entries]
    return _drawn({"": lambda: plots.history(epochs, {_title(k): v for k, v in panels.items()}, best)})[""]


def _title(name: str) -> str:
    if name.startswith("loss_"):
        return f"{name.removeprefix('loss_')}: loss"
    task, _, metric = name.partition("_")
    known = metric_name(metric)
    return f"{task}: {known}" if metric and known != metric.replace("_", " ") else metric_name(name)


def _drawn(drawings: Mapping[str, Callable[[], Figure]]) -> dict[str, str]:
    with style():
        return {name: to_svg(make()) for name, make in drawings.items()}


def _stored(run: Path, split: str, task: str) -> Path:
    return run / FOLDER / f"{split}_{task}.svg"


def _by_sn(task: Task, by_sn: Mapping[str, Any]) -> Figure:
    counts = [values["count"] for values in by_sn.values()]

    def line(metric: str) -> plots.Line:
        return metric_name(metric), [values.get(metric) for values in by_sn.values()], counts

    if isinstance(task, Classification):
        panels = {"share: accuracy, macro F1": [line("accuracy"), line("macro_f1")]}
    else:
        unit = f" ({task.unit})" if task.unit else ""
        panels = {"share: R2": [line("r2")], f"MAE{unit}": [line("mae")]}
        if task.name == "redshift":
            panels |= {"mean |dz|": [line("mean_abs_dz")], "share: non-catastrophic": [line("non_catastrophic")]}
    return plots.curves(list(by_sn), counts, panels)


def _classes_by_sn(scores: Mapping[str, Any]) -> Figure:
    bins = scores["by_sn"]
    by_class = scores["class_by_sn"]
    totals = {kind: sum(v["count"] for v in found.values()) for kind, found in by_class.items()}
    shown = sorted(totals, key=lambda kind: -totals[kind])[:_MOST_LINES]
    lines = [
        (kind, [by_class[kind].get(b, {}).get("recall") for b in bins],
         [by_class[kind].get(b, {}).get("count", 0) for b in bins])
        for kind in by_class if kind in shown
    ]  # fmt: skip
    counts = [values["count"] for values in bins.values()]
    return plots.curves(list(bins), counts, {"share: recall of each class": lines})

"""The figures of a run folder: a picture of each split and task, and the drawings that stand in its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specshards.common.errors import make_folder
from specshards.common.files import replacing, write_text
from specshards.common.svg import style, to_svg
from specshards.train.tasks import plots
from specshards.train.tasks.task import Task
from specshards.train.tasks.text import NAMES, file_name, metric_name

if TYPE_CHECKING:
    from specshards.train.evaluation.score import Scored

FOLDER = "figures"


def draw(run: Path, task: Task, scored: Scored, split: str, mock: bool) -> None:
    """Write `run/figure_<split>_<task>.png` of the labelled samples of one split, and its SVG for the page.

    It is the confusion matrix or predicted against true. The page draws all else from `metrics.json`; predictions one
    by one are nowhere else.
    """
    labelled = np.isfinite(scored.labels[task.target])
    true, point = scored.labels[task.target][labelled], scored.columns["point"][labelled]
    with style():
        figure = task.draw(true, point, scored.labels["class"][labelled])
        figure.axes[0].set_title(f"{'MOCK data, ' if mock else ''}{split}, {task.name}: {len(true):,} objects")
        make_folder(run / FOLDER)
        write_text(_stored(run, split, task.name), to_svg(figure))
        with replacing(run / figure_file(split, task.name)) as temporary:
            figure.savefig(temporary, format="png", dpi=150, facecolor="white", metadata={"Software": None})


def figure_file(split: str, task: str) -> str:
    """The name of the PNG that `draw` writes."""
    return f"figure_{split}_{file_name(task)}.png"


def stored(run: Path, split: str, task: str) -> str | None:
    """The SVG that `draw` wrote last for a split and task, or None."""
    path = _stored(run, split, task)
    return path.read_text(encoding="utf-8") if path.is_file() else None


def svgs(task: Task, scores: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Drawings of one split and task from its part of `metrics.json`: name -> SVG and caption."""
    with style():
        return {name: (to_svg(drawing.draw()), drawing.caption) for name, drawing in task.figures(scores).items()}


#: Of the training by epoch: where it stood, and what it cost.
_NOT_DRAWN = ("epoch", "step", "samples", "gflop")


def history(entries: Sequence[Mapping[str, Any]], best: int | None) -> str | None:
    """The training by epoch as SVG, from `training.history`: a panel for every number in it; None without any."""
    names = [name for name in dict.fromkeys(k for entry in entries for k in entry) if name not in _NOT_DRAWN]
    # With one task the number that chooses the epoch is there twice: by its own name and with the task's before it.
    names = [name for name in names if not any(name.endswith(f"_{other}") for other in names if other != name)]
    panels = {name: [entry.get(name) for entry in entries] for name in names}
    panels = {name: values for name, values in panels.items() if any(v is not None for v in values)}
    if not panels:
        return None
    epochs = [entry["epoch"] for entry in entries]
    with style():
        return to_svg(plots.history(epochs, {_title(name): values for name, values in panels.items()}, best))


def _title(name: str) -> str:
    if name.startswith("loss_"):
        return f"{name.removeprefix('loss_')}: loss"
    metric = max((m for m in NAMES if name.endswith(f"_{m}")), key=len, default="")
    return f"{name.removesuffix(f'_{metric}')}: {metric_name(metric)}" if metric else metric_name(name)


def _stored(run: Path, split: str, task: str) -> Path:
    return run / FOLDER / f"{split}_{file_name(task)}.svg"

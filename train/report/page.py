"""The report of a run as one HTML page: no scripts, nothing loaded from elsewhere, readable in light and dark.

Made from `metrics.json`, the card, and the drawings of predictions that `figures.draw` left in the run folder;
`templates/report.html` lays it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specshards.common.files import write_text
from specshards.common.html import Figure, Table, Templates
from specshards.train.report import figures, tables
from specshards.train.run import PAGE, Card, changed, leaks
from specshards.train.tasks.task import Task
from specshards.train.tasks.text import metric_name, number

_MOCK = "A simulator made these spectra; the numbers say nothing of real ones."
_HISTORY = (
    "Learning rate at the end of every epoch, and the validation after it; the dotted line is the epoch that was "
    "kept. Good: losses that fall and level off; a rising one has learnt its train split by heart."
)
_TEMPLATES = Templates("specshards.train.report")


@dataclass(frozen=True)
class ReportPart:
    """What the page has of a split and task; a figure is None where its drawing is damaged."""

    title: str
    counts: str
    scores: Table
    figures: list[Figure | None]
    tables: list[Table]


def write(run: Path, content: Mapping[str, Any], card: Card) -> None:
    """Write `run/report.html` from the content of `metrics.json` and the drawings in the run folder.

    Call it after `figures.draw`, so that the drawings are those of the numbers.
    """
    keys = [(split, task.name) for split, task, _ in tables.parts(content, card)]
    drawings = {key: svg for key in keys if (svg := figures.stored(run, *key)) is not None}
    write_text(run / PAGE, page(content, card, drawings))


def page(content: Mapping[str, Any], card: Card, drawings: Mapping[tuple[str, str], str]) -> str:
    """The page's HTML.

    Args:
        content: of `metrics.json`.
        drawings: SVG of `figures.draw` by split and task; one that is missing or damaged is left out.
    """
    mock: bool = content["mock"]
    parts = [
        _part(f"s{place}", split, task, scores, drawings.get((split, task.name)), mock)
        for place, (split, task, scores) in enumerate(tables.parts(content, card))
    ]
    training = content.get("training") or {}
    svg = figures.history(training.get("history") or [], (card.best or {}).get("epoch"))
    levels = tables.calibration(card)
    return _TEMPLATES.page(
        "report.html", f"{', '.join(task.name for task in card.tasks)}: {card.config.backbone}",
        mock=_MOCK if mock else "", card=card, parts=parts,
        overview=Table(tables.at_a_glance(content, card), "At a glance"),
        history=svg and Figure.inline("h", svg, "validation by epoch", _HISTORY, mock),
        training=list(_training(training, card.best or {})),
        labelled=[*tables.labelled(card), *tables.few_groups(card)],
        calibration=Table(levels, levels[0][0], levels[0][0]) if levels else None, scored_on=content["data"],
        leaks=[*leaks(content["data"]), *changed(card, content["data"])],
    )  # fmt: skip


def _part(
    prefix: str, split: str, task: Task, scores: Mapping[str, Any], predictions: str | None, mock: bool
) -> ReportPart:
    name, caption = task.overview
    drawings = ({} if predictions is None else {name: (predictions, caption)}) | figures.svgs(task, scores)
    head, *rest = tables.tables(scores, task)
    about = f"{split}, {task.name}"
    return ReportPart(
        title=f"{split}: {task.name}", counts=tables.counted(scores, task),
        scores=Table(head, f"{about}: model and baselines"),
        figures=[
            Figure.inline(f"{prefix}{i}", svg, f"{about}: {name.replace('_', ' by ')}", caption, mock)
            for i, (name, (svg, caption)) in enumerate(drawings.items())
        ],
        tables=[Table(rows, f"{about}: {rows[0][0]}", rows[0][0]) for rows in rest],
    )  # fmt: skip


def _training(training: Mapping[str, Any], best: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "best epoch", f"{best.get('epoch')}: {metric_name(str(best.get('metric')))} {number(best.get('value'))}"
    for name, value in training.items():
        if isinstance(value, str | int | float):
            yield name.replace("_", " "), value if isinstance(value, str) else number(value)

"""The report of a run as one HTML page: no scripts, nothing loaded from elsewhere, readable in light and dark.

Made from `metrics.json`, the card, and the drawings of predictions that `figures.draw` left in the run folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from specshards.common.files import write_text
from specshards.common.html import document, figure, pairs, table
from specshards.train.report import figures, tables
from specshards.train.run import PAGE, Card
from specshards.train.tasks.task import Task
from specshards.train.tasks.text import metric_name, number

_MOCK = "A simulator made these spectra; the numbers say nothing of real ones."
_HISTORY = (
    "Validation after every epoch; the dotted line is the epoch that was kept. Good: losses that fall and level off; "
    "a rising one has learnt its train split by heart."
)


def write(run: Path, content: Mapping[str, Any], card: Card) -> None:
    """Write `run/report.html` from the content of `metrics.json` and the drawings in the run folder.

    Call it after `figures.draw`, so that the drawings are those of the numbers.
    """
    found = [(split, task.name) for split, task, _ in tables.parts(content, card)]
    drawings = {key: svg for key in found if (svg := figures.stored(run, *key)) is not None}
    write_text(run / PAGE, page(content, card, drawings))


def page(content: Mapping[str, Any], card: Card, drawings: Mapping[tuple[str, str], str]) -> str:
    """The page's HTML.

    Args:
        content: of `metrics.json`.
        drawings: SVG of `figures.draw` by split and task; one that is missing or damaged is left out.
    """
    title = f"{', '.join(task.name for task in card.tasks)}: {card.config.backbone}"
    sections = [("At a glance", table(tables.at_a_glance(content, card), "At a glance"))]
    for place, (split, task, scores) in enumerate(tables.parts(content, card)):
        found = _drawings(task, scores, drawings.get((split, task.name)))
        sections.append((f"{split}: {task.name}", _section(f"s{place}", split, task, scores, found, content["mock"])))
    sections += [("Training", _training(content, card)), ("Configuration", _configuration(content, card))]
    lead = (
        f"<p>Model <code>{escape(card.model)}</code>. In brackets behind a number: its 95% interval, by drawing the "
        "objects of the split anew.</p>"
    )
    return document(title, lead, sections, mock=_MOCK if content["mock"] else "")


def _drawings(task: Task, scores: Mapping[str, Any], predictions: str | None) -> dict[str, tuple[str, str]]:
    name, caption = task.overview
    return ({} if predictions is None else {name: (predictions, caption)}) | figures.svgs(task, scores)


def _section(
    prefix: str,
    split: str,
    task: Task,
    scores: Mapping[str, Any],
    drawings: Mapping[str, tuple[str, str]],
    mock: bool,
) -> str:
    head, *rest = tables.tables(scores, task)
    about = f"{split}, {task.name}"
    parts = [f"<p>{escape(tables.counted(scores, task))}</p>", table(head, f"{about}: model and baselines")]
    parts.append('<div class="figures">')
    parts += [
        figure(f"{prefix}{i}", svg, f"{about}: {name.replace('_', ' by ')}", caption, mock)
        for i, (name, (svg, caption)) in enumerate(drawings.items())
    ]
    parts.append('</div><div class="tables">')
    parts += [table(rows, f"{about}: {rows[0][0]}", rows[0][0]) for rows in rest]
    return "".join(parts) + "</div>"


def _best(best: Mapping[str, Any]) -> str:
    return f"{best.get('epoch')}: {metric_name(str(best.get('metric')))} {number(best.get('value'))}"


def _training(content: Mapping[str, Any], card: Card) -> str:
    training = content.get("training") or {}
    best = card.best or {}
    rows = [("best epoch", escape(_best(best)))]
    rows += [
        (name.replace("_", " "), escape(value if isinstance(value, str) else number(value)))
        for name, value in training.items() if isinstance(value, str | int | float)
    ]  # fmt: skip
    lines = "".join(f"<li>{escape(line)}</li>" for line in tables.labelled(card))
    svg = figures.history(training.get("history") or [], best.get("epoch"))
    drawing = "" if svg is None else figure("h", svg, "validation by epoch", _HISTORY, content["mock"])
    levels = tables.calibration(card)
    coverage = table(levels, levels[0][0], levels[0][0]) if levels else ""
    return f"{drawing}{pairs(rows)}<h3>Learnt from</h3><ul>{lines}</ul>{coverage}"


def _configuration(content: Mapping[str, Any], card: Card) -> str:
    data = "".join(
        f"<li><code>{escape(d['folder'])}</code> ({escape(', '.join(d['surveys']))}), fingerprint "
        f"<code>{escape(d['fingerprint'])}</code></li>"
        for d in content["data"]
    )
    config, image = (
        pairs((name, f"<code>{escape(str(value))}</code>") for name, value in values.items())
        for values in (card.config.to_dict(), card.image)
    )
    return (
        f"<h3>Scored on</h3><ul>{data}</ul><details open><summary>Training</summary>{config}</details>"
        f"<details><summary>Pictures</summary>{image}</details>"
    )

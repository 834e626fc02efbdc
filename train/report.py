"""Metrics in words and tables, for the terminal and for `report.md`. Reads the content of `metrics.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train.run import Card
from train.tasks import Classification

_COLUMNS = {
    "classify": {"count": "objects", "accuracy": "accuracy", "macro_f1": "macro F1"},
    "redshift": {
        "count": "objects",
        "mean_abs_dz": "mean |dz|",
        "nmad": "NMAD",
        "outliers": "|dz|>0.15",
        "non_catastrophic": "non-catastrophic",
        "r2": "R2",
        "mae": "MAE",
    },
}
_REGRESSION = {"count": "objects", "r2": "R2", "mae": "MAE", "rmse": "RMSE", "bias": "bias"}
_GROUPS = {"by_survey": "By survey", "by_class": "By class", "by_sn": "By median S/N per pixel"}

Rows = list[list[str]]


def short(content: Mapping[str, Any], card: Card) -> str:
    """The table that training and evaluation print: model and baselines, then each survey and class, with counts."""
    columns = _columns(card)
    lines = ["MOCK data: these numbers say nothing of real spectra"] if content["mock"] else []
    for split, scores in content["splits"].items():
        rows = [[split, *columns.values()], *_versus(scores, card)]
        for group in ("by_survey",) if isinstance(card.task, Classification) else ("by_survey", "by_class"):
            rows += [[name, *_cells(values, columns)] for name, values in scores[group].items()]
        lines.append(_plain(rows))
        if isinstance(card.task, Classification):
            lines.append(_plain(_per_class(scores)))
        if not scores["labelled"]:
            lines.append(f"no object of the {split} split has a {card.task.label}: nothing could be measured")
    return "\n".join(lines)


def markdown(content: Mapping[str, Any], card: Card) -> str:
    """`report.md`."""
    parts = [f"# {card.task.name}: {card.config.backbone}"]
    if content["mock"]:
        parts.append("**MOCK data.** A simulator made these spectra; the numbers say nothing of real ones.")
    data = "\n".join(
        f"- `{d['folder']}` ({', '.join(d['surveys'])}), {d['fingerprint'][:12]}" for d in content["data"]
    )
    trained = ", ".join(f"{name} {n:,}" for name, n in card.baselines.counts.items())
    parts.append(f"Model `{card.model[:12]}`, best epoch {(card.best or {}).get('epoch')}. Scored on\n\n{data}")
    parts.append(f"Labelled train objects: {trained}.")
    for split, scores in content["splits"].items():
        parts += _split(split, scores, card)
    parts.append(
        "## Configuration\n\n" + _table([["", ""], *([k, f"`{v}`"] for k, v in card.config.to_dict().items())])
    )
    return "\n\n".join(parts) + "\n"


def _split(split: str, scores: Mapping[str, Any], card: Card) -> list[str]:
    columns = _columns(card)
    parts = [
        f"## {split}\n\n{scores['objects']:,} objects, {scores['labelled']:,} with a {card.task.label}.",
        _table([["", *columns.values()], *_versus(scores, card)]),
    ]
    if isinstance(card.task, Classification):
        overall = scores["all"]
        parts.append(_table(_per_class(scores)))
        confusion = [
            [f"true {name}", *(f"{n:,}" for n in row)]
            for name, row in zip(card.task.classes, overall["confusion"], strict=True)
        ]
        parts.append(_table([["confusion", *(f"as {name}" for name in card.task.classes)], *confusion]))
    for group, title in _GROUPS.items():
        if scores[group] and not (group == "by_class" and isinstance(card.task, Classification)):
            rows = [[name, *_cells(values, columns)] for name, values in scores[group].items()]
            parts.append(_table([[title, *columns.values()], *rows]))
    parts.append(f"![{split}](figure_{split}.png)")
    return parts


def _per_class(scores: Mapping[str, Any]) -> Rows:
    names = ("count", "predicted", "recall", "precision", "f1")
    rows = [[name, *(_number(v[k]) for k in names)] for name, v in scores["all"]["per_class"].items()]
    return [["class", "objects", "predicted", "recall", "precision", "F1"], *rows]


def _versus(scores: Mapping[str, Any], card: Card) -> Rows:
    columns = _columns(card)
    constant = "majority class" if isinstance(card.task, Classification) else "mean label"
    return [
        ["model", *_cells(scores["all"], columns)],
        [f"baseline: {constant}", *_cells(scores["baselines"]["constant"], columns)],
        [f"baseline: {constant} of the survey", *_cells(scores["baselines"]["survey_only"], columns)],
    ]


def _columns(card: Card) -> dict[str, str]:
    return _COLUMNS.get(card.task.name, _REGRESSION)


def _cells(values: Mapping[str, Any], columns: Mapping[str, str]) -> list[str]:
    return [_number(values[name]) for name in columns]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if 0.001 <= abs(value) < 100 or value == 0 else f"{value:.3g}"


def _plain(rows: Rows) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        f"{row[0]:<{widths[0]}}" + "".join(f"  {cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )


def _table(rows: Rows) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])

"""Metrics in words and tables, for the terminal and for `report.md`. Reads the content of `metrics.json`."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from specshards.common.text import aligned
from specshards.train.run import PAGE, Card
from specshards.train.tasks.classification import Classification
from specshards.train.tasks.task import Task

_CLASSIFICATION = {"count": "objects", "accuracy": "accuracy", "macro_f1": "macro F1"}
_DZ = {
    "count": "objects", "mean_abs_dz": "mean |dz|", "nmad": "NMAD", "outliers": "|dz|>0.15",
    "non_catastrophic": "non-catastrophic",
}  # fmt: skip
_REDSHIFT = {**_DZ, "r2": "R2", "mae": "MAE", "rmse": "RMSE"}
_REGRESSION = {"count": "objects", "r2": "R2", "mae": "MAE", "rmse": "RMSE", "bias": "bias"}
_PROBABILISTIC = {"nll": "NLL", "ece": "ECE", "brier": "Brier"}
_DISTRIBUTION = {"crps": "CRPS", "coverage68": "in the 68% interval"}
_GROUPS = {"by_survey": "By survey", "by_class": "By class", "by_sn": "By median S/N per pixel"}

Rows = list[list[str]]


def short(content: Mapping[str, Any], card: Card) -> str:
    """What training and evaluation print: of every split and task the model, the baselines and the surveys."""
    lines = ["MOCK data: these numbers say nothing of real spectra"] if content["mock"] else []
    for split, task, scores in parts(content, card):
        columns = _DZ if task.name == "redshift" else _columns(task)
        model, *others = _versus(scores, task, columns, beside=False)
        rows = [[f"{split} {task.name}", *columns.values()], model]
        rows += [["  95% interval", *(_interval(scores, name, " to ") for name in columns)], *others]
        rows += [[name, *_cells(values, columns)] for name, values in scores["by_survey"].items()]
        if task.name == "redshift":
            rows += [[name, *_cells(values, columns)] for name, values in scores["by_class"].items()]
        lines.append("\n".join(aligned(rows)))
        if isinstance(task, Classification):
            found = [(name, v) for name, v in scores["all"]["per_class"].items() if v["count"]]
            recall = ", ".join(f"{name} {number(v['recall'])} ({v['count']:,})" for name, v in found)
            lines += textwrap.wrap(f"recall: {recall or '-'}", 110, subsequent_indent="  ")
        if not scores["labelled"]:
            lines.append(f"no object of the {split} split has a {task.label}: nothing could be measured")
    return "\n".join(lines)


def markdown(content: Mapping[str, Any], card: Card) -> str:
    """`report.md`."""
    found = [f"# {', '.join(task.name for task in card.tasks)}: {_safe(card.config.backbone)}"]
    if content["mock"]:
        found.append("**MOCK data.** A simulator made these spectra; the numbers say nothing of real ones.")
    data = "\n".join(
        f"- `{_safe(d['folder'])}` ({_safe(', '.join(d['surveys']))}), {d['fingerprint'][:12]}"
        for d in content["data"]
    )
    found.append(f"Model `{card.model[:12]}`, best epoch {(card.best or {}).get('epoch')}. Scored on\n\n{data}")
    found.append("\n".join(f"- {_safe(line)}" for line in labelled(card)))
    found.append(f"Behind a number in brackets: its 95% interval. The same with all figures: [{PAGE}]({PAGE})")
    for split, task, scores in parts(content, card):
        found.append(f"## {split}: {task.name}\n\n{counted(scores, task)}")
        found += [_table(rows) for rows in tables(scores, task)]
        found.append(f"![{split} {task.name}](figure_{split}_{task.name}.png)")
    config = [["", ""], *([name, str(value)] for name, value in card.config.to_dict().items())]
    found.append(f"## Configuration\n\n{_table(config)}")
    return "\n\n".join(found) + "\n"


def parts(content: Mapping[str, Any], card: Card) -> Iterator[tuple[str, Task, dict[str, Any]]]:
    """Split, task and scores of all that `content` holds, in the order of its splits and the card's tasks."""
    for split, scores in content["splits"].items():
        for task in card.tasks:
            if task.name in scores:
                yield split, task, scores[task.name]


def labelled(card: Card) -> list[str]:
    """A line a task: how many train objects it was learnt from, by survey and class."""
    return [
        f"{name}: {baselines.counts.get('all', 0):,} labelled train objects ("
        + ", ".join(f"{key} {n:,}" for key, n in baselines.counts.items() if key != "all") + ")"
        for name, baselines in card.baselines.items()
    ]  # fmt: skip


def counted(scores: Mapping[str, Any], task: Task) -> str:
    """How many objects a split has, and how many of them count."""
    return f"{scores['objects']:,} objects, {scores['labelled']:,} with a {task.label}."


def calibration(card: Card) -> Rows:
    """The conformal thresholds of the card, by task; empty without any."""
    records = {name: record for name, record in card.conformal.items() if record}
    levels = list(dict.fromkeys(level for record in records.values() for level in record["scores"]))
    rows = [
        [name, f"{record['count']:,}", record["kind"], *(number(record["scores"].get(level)) for level in levels)]
        for name, record in records.items()
    ]
    names = (f"threshold of {100 * float(level):g}%" for level in levels)
    return [["Conformal calibration on validation", "objects", "score", *names], *rows] if rows else []


def at_a_glance(content: Mapping[str, Any], card: Card) -> Rows:
    """One row a split and task: the metric that chose the epoch, of the model and of every baseline."""
    found = list(parts(content, card))
    names = list(dict.fromkeys(name for _, _, scores in found for name in scores["baselines"]))
    rows = [["split", "task", "objects", "metric", "model", *(baseline(name) for name in names)]]
    for split, task, scores in found:
        metric = task.best[0]
        others = (scores["baselines"].get(name, {}).get(metric) for name in names)
        rows.append([split, task.name, number(scores["labelled"]), metric_name(metric),
                     _with_interval(scores, metric), *map(number, others)])  # fmt: skip
    return rows


def tables(scores: Mapping[str, Any], task: Task) -> list[Rows]:
    """All tables of a split and task; the first cell of each is its title, the rest of its first row the columns."""
    further = _PROBABILISTIC if isinstance(task, Classification) else _DISTRIBUTION
    columns = _columns(task) | {k: v for k, v in further.items() if scores["all"].get(k) is not None}
    heads = {"": columns}
    if task.name == "redshift":
        heads = {"": _DZ, "In z itself": {k: v for k, v in columns.items() if k == "count" or k not in _DZ}}
    found = [[[title, *head.values()], *_versus(scores, task, head, beside=True)] for title, head in heads.items()]
    if isinstance(task, Classification):
        found.append(_per_class(scores))
        if len(task.classes) <= 6:
            found.append(_confusion(scores, task))
    for group, title in _GROUPS.items():
        if scores[group] and not (group == "by_class" and task.name == "classify"):
            rows = [[name, *_cells(values, columns)] for name, values in scores[group].items()]
            found.append([[title, *columns.values()], *rows])
    if scores.get("class_by_sn"):
        found.append(_class_by_sn(scores))
    return found


def baseline(name: str) -> str:
    """A baseline in words: the constant ones are of the majority class or the mean label."""
    known = {"constant": "constant", "survey_only": "constant of the survey"}
    return known.get(name, name.replace("_", " "))


def metric_name(metric: str) -> str:
    """A metric as the tables call it."""
    names = _CLASSIFICATION | _REDSHIFT | _REGRESSION | _PROBABILISTIC | _DISTRIBUTION
    return names.get(metric, metric.replace("_", " "))


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


def _versus(scores: Mapping[str, Any], task: Task, columns: Mapping[str, str], *, beside: bool) -> Rows:
    """The model, with intervals `beside` its numbers, and the baselines."""
    constant = "majority class" if isinstance(task, Classification) else "mean label"
    names = {"constant": constant, "survey_only": f"{constant} of the survey"}
    return [
        ["model", *(_with_interval(scores, k) for k in columns)] if beside else
        ["model", *_cells(scores["all"], columns)],
        *([f"baseline: {names.get(name, baseline(name))}", *_cells(values, columns)]
          for name, values in scores["baselines"].items()),
    ]  # fmt: skip


def _with_interval(scores: Mapping[str, Any], metric: str) -> str:
    text, interval = number(scores["all"].get(metric)), _interval(scores, metric, ", ")
    return f"{text} [{interval}]" if interval else text


def _interval(scores: Mapping[str, Any], metric: str, between: str) -> str:
    low, high = scores["intervals"].get(metric) or (None, None)
    return "" if low is None or high is None else f"{number(low)}{between}{number(high)}"


def _per_class(scores: Mapping[str, Any]) -> Rows:
    names = ("count", "predicted", "recall", "precision", "f1")
    rows = [[name, *(number(v[k]) for k in names)] for name, v in scores["all"]["per_class"].items()]
    return [["Each class", "objects", "predicted", "recall", "precision", "F1"], *rows]


def _confusion(scores: Mapping[str, Any], task: Classification) -> Rows:
    rows = zip(task.classes, scores["all"]["confusion"], strict=True)
    return [
        ["Confusion", *(f"as {name}" for name in task.classes)],
        *([f"true {name}", *(f"{n:,}" for n in counts)] for name, counts in rows),
    ]


def _class_by_sn(scores: Mapping[str, Any]) -> Rows:
    bins = list(scores["by_sn"])
    rows: Rows = [["Recall (objects) by S/N", *bins]]
    for kind, found in scores["class_by_sn"].items():
        rows.append([kind, *(f"{number(found[b]['recall'])} ({found[b]['count']:,})" if b in found else "-"
                             for b in bins)])  # fmt: skip
    return rows


def _columns(task: Task) -> dict[str, str]:
    if isinstance(task, Classification):
        return dict(_CLASSIFICATION)
    return dict(_REDSHIFT if task.name == "redshift" else _REGRESSION)


def _cells(values: Mapping[str, Any], columns: Mapping[str, str]) -> list[str]:
    return [number(values.get(name)) for name in columns]


def _safe(text: str) -> str:
    """Text that Markdown shows as it is: no tags, no lines, no columns of its own."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _table(rows: Rows) -> str:
    lines = ["| " + " | ".join(map(_safe, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])

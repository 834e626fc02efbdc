"""Metrics in words and tables, for the terminal and for `report.md`. Reads the content of `metrics.json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from specshards.common.text import aligned
from specshards.train.report.figures import figure_file
from specshards.train.run import PAGE, Card, changed, leaks
from specshards.train.tasks.drawn import few_to_calibrate, said
from specshards.train.tasks.task import Task
from specshards.train.tasks.text import Rows, metric_name, number

_GROUPS = {
    "by_survey": "By survey", "by_class": "By class", "by_sn": "By median S/N per pixel",
    "by_picture": "By picture, each answering alone",
}  # fmt: skip


def short(content: Mapping[str, Any], card: Card) -> str:
    """What training and evaluation print: of every split and task the model, the baselines and the surveys."""
    lines = ["MOCK data: these numbers say nothing of real spectra"] if content["mock"] else []
    lines += [*leaks(content["data"]), *changed(card, content["data"])]
    for split, task, scores in parts(content, card):
        columns = _names(list(dict.fromkeys([*(task.brief or task.reported), task.criterion[0]])))
        model, *others = _versus(scores, task, columns, beside=False)
        rows = [[f"{split} {task.name}", *columns.values()], model]
        rows += [["  95% interval", *(_interval(scores, name, " to ") for name in columns)], *others]
        for group in task.brief_groups:
            rows += [[name, *_cells(values, columns)] for name, values in scores[group].items()]
        rows += [[f"{name} alone", *_cells(values, columns)] for name, values in scores.get("by_picture", {}).items()]
        lines.append("\n".join(aligned(rows)))
        if how := said(scores):
            lines.append(f"{split} {task.name}: {how}")
        if summary := task.summary(scores):
            lines.append(summary)
        if not scores["labelled"]:
            lines.append(f"no object of the {split} split has a {task.label}{task.whose}: nothing could be measured")
    return "\n".join([*lines, *few_groups(card)])


def markdown(content: Mapping[str, Any], card: Card) -> str:
    """`report.md`."""
    found = [f"# {_safe(', '.join(task.name for task in card.tasks))}: {_safe(card.config.backbone)}"]
    if content["mock"]:
        found.append("**MOCK data.** A simulator made these spectra; the numbers say nothing of real ones.")
    found += [f"**{_safe(line)}.**" for line in (*leaks(content["data"]), *changed(card, content["data"]))]
    data = "\n".join(
        f"- `{_safe(d['folder'])}` ({_safe(', '.join(d['surveys']))}), {d['fingerprint'][:12]}"
        for d in content["data"]
    )
    found.append(f"Model `{card.model[:12]}`, best epoch {(card.best or {}).get('epoch')}. Scored on\n\n{data}")
    found.append("\n".join(f"- {_safe(line)}" for line in (*labelled(card), *few_groups(card))))
    found.append(f"Behind a number in brackets: its 95% interval. The same with all figures: [{PAGE}]({PAGE})")
    for split, task, scores in parts(content, card):
        found.append(f"## {split}: {_safe(task.name)}\n\n{_safe(counted(scores, task))}")
        found += [_table(rows) for rows in tables(scores, task)]
        found.append(f"![{split} {_safe(task.name)}]({quote(figure_file(split, task.name))})")
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
    whose = {task.name: task.whose for task in card.tasks}
    return [
        f"{name}: {baselines.counts.get('all', 0):,} labelled train objects{whose.get(name, '')} ("
        + ", ".join(f"{key} {n:,}" for key, n in baselines.counts.items() if key != "all") + ")"
        for name, baselines in card.baselines.items()
    ]  # fmt: skip


def counted(scores: Mapping[str, Any], task: Task) -> str:
    """How many objects a split has, and how many of them count."""
    names = ", ".join(scores.get("by_picture", ()))
    means = f" An answer is the mean of the outputs over the pictures {names} of one object." if names else ""
    left_out = scores.get("left_out", {}).items()
    lost = f" ({', '.join(f'{n:,} {why}' for why, n in left_out)} left out)" if left_out else ""
    how = said(scores)
    own = f" {how[0].upper()}{how[1:]}." if how else ""
    return f"{scores['objects']:,} objects, {scores['labelled']:,} with a {task.label}{task.whose}{lost}.{own}{means}"


def few_groups(card: Card) -> list[str]:
    """A line a task whose conformal intervals rest on few groups."""
    return [f"{name}: {line}" for name, record in card.conformal.items() if (line := few_to_calibrate(record))]


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
    every = list(parts(content, card))
    names = list(dict.fromkeys(name for _, _, scores in every for name in scores["baselines"]))
    rows = [["split", "task", "objects", "metric", "model", *(baseline(name) for name in names)]]
    for split, task, scores in every:
        metric = task.criterion[0]
        others = (scores["baselines"].get(name, {}).get(metric) for name in names)
        rows.append([split, task.name, number(scores["labelled"]), metric_name(metric),
                     _with_interval(scores, metric), *map(number, others)])  # fmt: skip
    return rows


def tables(scores: Mapping[str, Any], task: Task) -> list[Rows]:
    """All tables of a split and task; the first cell of each is its title, the rest of its first row the columns."""
    columns = _names([*task.reported, *(k for k in task.further if scores["all"].get(k) is not None)])
    heads = [(title, _names(metrics)) for title, metrics in task.heads(list(columns)).items()]
    groups = [
        [[_GROUPS[group], *columns.values()], *([name, *_cells(v, columns)] for name, v in scores[group].items())]
        for group in (*task.groups, "by_picture") if scores.get(group)
    ]  # fmt: skip
    first = [[[title, *head.values()], *_versus(scores, task, head, beside=True)] for title, head in heads]
    return [*first, *task.tables(scores, groups)]


def baseline(name: str) -> str:
    """A baseline in words: the constant ones are of the majority class or the mean label."""
    words = {"constant": "constant", "survey_only": "constant of the survey"}
    return words.get(name, name.replace("_", " "))


def _versus(scores: Mapping[str, Any], task: Task, columns: Mapping[str, str], *, beside: bool) -> Rows:
    """The model, with intervals `beside` its numbers, and the baselines."""
    names = {"constant": task.constant_name, "survey_only": f"{task.constant_name} of the survey"}
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


def _names(metrics: Sequence[str]) -> dict[str, str]:
    return {metric: metric_name(metric) for metric in metrics}


def _cells(values: Mapping[str, Any], columns: Mapping[str, str]) -> list[str]:
    return [number(values.get(name)) for name in columns]


def _safe(text: str) -> str:
    """Text that Markdown shows as it is: no tags, no lines, no columns of its own."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _table(rows: Rows) -> str:
    lines = ["| " + " | ".join(map(_safe, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])

"""Runs beside each other: what each is worth on validation, what it costs, and which no other one beats at both.

Every run is an ordinary run folder, trained by the command that its line says; the test split is not touched.
"""

from __future__ import annotations

import json
import math
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from specshards.common.errors import JobError, UsageError, make_folder
from specshards.common.files import write_text
from specshards.common.json import finite, parse
from specshards.common.messages import LOGGER
from specshards.common.svg import ACCENT, MUTED, WIDTH, style, to_svg
from specshards.train.run import CARD, METRICS, RUN, Card
from specshards.train.tasks.text import metric_name, number

#: What a line of a list of runs may not say: it is the same for all, or the run's own.
_NOT_IN_LIST = ("--task", "--shards", "--out", "--seed")


@dataclass(frozen=True)
class Point:
    """A configuration and what came of it, over its seeds.

    Attributes:
        options: as typed to `train fit`, beside those of all.
        seeds: of the runs that are finished.
        petaflop: of the training of one run. gflop: of an answer for one object.
        values: metric of each task -> its validation values, a seed each. intervals: 95%, of objects, of the first.
        front: whether no other point is as good at every metric, as cheap to train, and better at one; of means.
    """

    name: str
    options: str
    seeds: tuple[int, ...]
    petaflop: float
    gflop: float
    values: dict[str, list[float]]
    intervals: dict[str, tuple[float, float] | None]
    front: bool = False


@dataclass(frozen=True)
class Line:
    """One configuration of a list: `name: options`, as typed to `train fit`."""

    name: str
    options: str


def read_list(path: Path) -> list[Line]:
    """The configurations of a file: a line each, `name: --option value ...`; `*: ...` holds for all below it.

    Raises:
        UsageError: names the line and what is wrong with it.
    """
    try:
        content = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as text ({error})") from error
    lines, common = list[Line](), ""
    for place, text in enumerate(content, 1):
        name, colon, options = (part.strip() for part in text.partition("#")[0].partition(":"))
        if not name:
            continue
        try:
            words = shlex.split(options)
        except ValueError as error:
            raise UsageError(f"{path}, line {place}: {error}") from error
        if not colon or (name != "*" and not name.replace("-", "").replace("_", "").replace(".", "").isalnum()):
            raise UsageError(f"{path}, line {place}: give `name: --option value`; a name is letters, digits, . - _")
        if wrong := [word for word in words if word.partition("=")[0] in _NOT_IN_LIST]:
            raise UsageError(f"{path}, line {place}: {wrong[0]} is said to `train pareto` itself; leave it out")
        if name == "*":
            common = options
        elif name in {line.name for line in lines}:
            raise UsageError(f"{path}, line {place}: a second {name}")
        else:
            lines.append(Line(name, f"{common} {options}".strip()))
    if not lines:
        raise UsageError(f"{path}: no configuration there; give lines such as `half: --keep-tokens 0.5`")
    return lines


def numbers(text: str, name: str) -> list[int]:
    """Whole numbers with commas. UsageError where one is none."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(f"{name}={text}: give whole numbers with commas, such as 0,1") from error


@dataclass(frozen=True)
class Grid:
    """Configurations to be trained on one data set, in one folder."""

    task: str
    shards: str
    lines: Sequence[Line]
    out: Path
    by: tuple[str, ...] = ()
    device: str = "auto"

    def folder(self, line: Line, seed: int) -> Path:
        """Of one run."""
        return self.out / f"{line.name}-{seed}"

    def command(self, line: Line, seed: int) -> list[str]:
        """What trains it, or goes on with it, or finds it complete."""
        return [
            sys.executable, "-m", "specshards", "train", "fit", "--task", self.task, "--shards", self.shards,
            "--out", str(self.folder(line, seed)), "--seed", str(seed), "--device", self.device,
            *shlex.split(line.options),
        ]  # fmt: skip

    def train(self, seeds: Sequence[int], lines: Sequence[Line] | None = None) -> None:
        """Train what is not finished, one run after another.

        Raises:
            JobError: a run failed; what is finished is kept, and the same command goes on.
        """
        todo = [(line, seed) for seed in seeds for line in (self.lines if lines is None else lines)]
        for done, (line, seed) in enumerate(todo):
            LOGGER.info(f"run {done + 1} of {len(todo)}: {line.name}, seed {seed}: {line.options}")
            if code := subprocess.run(self.command(line, seed)).returncode:
                if code in (-2, 130):
                    raise KeyboardInterrupt
                raise JobError(f"{self.folder(line, seed)}: this run failed ({code}); the same command goes on")

    def points(self, seeds: Sequence[int]) -> list[Point]:
        """Of every configuration that has a finished run, in the order of the list; those at the front are marked."""
        found = [point for line in self.lines if (point := self._point(line, seeds)) is not None]
        return marked(found, self._directions())

    def metrics(self) -> dict[str, str]:
        """Task -> the metric that it is compared by."""
        card = self.any_card()
        return {} if card is None else {task.name: _metric(task, self.by)[0] for task in card.tasks}

    def _directions(self) -> dict[str, bool]:
        """Task -> whether more of its metric is better."""
        card = self.any_card()
        return {} if card is None else {task.name: _metric(task, self.by)[1] for task in card.tasks}

    def any_card(self) -> Card | None:
        """Of the first run that has a model."""
        paths = (path for line in self.lines for path in sorted(self.out.glob(f"{line.name}-*/{CARD}")))
        return next((Card.read(path) for path in paths), None)

    def _point(self, line: Line, seeds: Sequence[int]) -> Point | None:
        there = [(seed, found) for seed in seeds if (found := _finished(self.folder(line, seed))) is not None]
        if not there:
            return None
        tasks = Card.read(self.folder(line, there[0][0]) / CARD).tasks
        values: dict[str, list[float]] = {}
        intervals: dict[str, tuple[float, float] | None] = {}
        for task in tasks:
            metric = _metric(task, self.by)[0]
            scores = [content["splits"]["val"][task.name] for _, (_, content) in there]
            values[task.name] = [_value(each["all"].get(metric)) for each in scores]
            low_high = scores[0].get("intervals", {}).get(metric)
            intervals[task.name] = None if low_high is None else (low_high[0], low_high[1])
        costs = [record for _, (record, _) in there]
        return Point(
            line.name, line.options, tuple(seed for seed, _ in there),
            float(np.mean([record["petaflop"] for record in costs])), float(costs[0]["gflop_per_object"]), values,
            intervals,
        )  # fmt: skip


def _value(value: Any) -> float:
    return math.nan if value is None else float(value)


def _metric(task: Any, by: Sequence[str]) -> tuple[str, bool]:
    """The metric that a task is compared by: the first of `by` that it has, else the one that chooses its epoch."""
    criteria = {**task.criteria, task.best[0]: task.best[1]}
    return next(((name, criteria[name]) for name in by if name in criteria), task.criterion)


def _finished(run: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The record and the metrics of a run; None of one that is not there or not complete."""
    try:
        record, content = parse((run / RUN).read_text()), parse((run / METRICS).read_text())
        if record.get("status") != "complete" or "petaflop" not in record:
            return None
        return record, content
    except (OSError, ValueError):
        return None


def marked(points: Sequence[Point], more: Mapping[str, bool]) -> list[Point]:
    """The points, those at the front marked: no other one is as good at every metric, as cheap, and better at one.

    Args:
        more: task -> whether more of its metric is better.
    """

    def losses(point: Point) -> np.ndarray[Any, Any]:
        means = [float(np.mean(point.values[task])) * (-1 if better else 1) for task, better in more.items()]
        return np.array([point.petaflop, *(math.inf if math.isnan(value) else value for value in means)])

    table = [losses(point) for point in points]
    return [
        Point(**{**vars(point), "front": not any((other <= mine).all() and (other < mine).any() for other in table)})
        for point, mine in zip(points, table, strict=True)
    ]


def rows(points: Sequence[Point], metrics: Mapping[str, str]) -> list[list[str]]:
    """A table with a head: the cheapest first. Of several seeds the mean, and from the lowest to the highest."""
    head = ["", "front", "seeds", "training, PFLOP", "an answer, GFLOP",
            *(f"{task}: {metric_name(metric)}" for task, metric in metrics.items()), "options"]  # fmt: skip
    cells = [
        [p.name, "*" if p.front else "", ",".join(map(str, p.seeds)), f"{p.petaflop:.3g}", f"{p.gflop:.3g}",
         *(_cell(p, task) for task in metrics), p.options]
        for p in sorted(points, key=lambda p: p.petaflop)
    ]  # fmt: skip
    return [head, *cells]


def _cell(point: Point, task: str) -> str:
    values, interval = point.values[task], point.intervals[task]
    mean = number(float(np.mean(values)))
    if len(values) > 1:
        return f"{mean} ({number(min(values))} to {number(max(values))})"
    return mean if interval is None else f"{mean} [{number(interval[0])} to {number(interval[1])}]"


def write(grid: Grid, points: Sequence[Point]) -> list[Path]:
    """`pareto.json`, `pareto.md` and `pareto.svg` in the folder of the runs."""
    card = grid.any_card()
    if card is None or not points:
        raise JobError(f"{grid.out}: no finished run there")
    metrics = grid.metrics()
    mock = "**MOCK data.** The numbers say nothing of real spectra.\n\n" if card.mock else ""
    content = {"task": grid.task, "shards": grid.shards, "mock": card.mock, "metrics": metrics,
               "points": [asdict(point) for point in points]}  # fmt: skip
    make_folder(grid.out)
    paths = [grid.out / f"pareto.{kind}" for kind in ("json", "md", "svg")]
    write_text(paths[0], json.dumps(finite(content), indent=1) + "\n")
    table, picture = _markdown(rows(points, metrics)), "![accuracy against cost](pareto.svg)"
    write_text(paths[1], f"# {grid.task}: accuracy and cost\n\n{mock}{_EXPLAINED}\n\n{table}\n\n{picture}\n")
    write_text(paths[2], _drawn(points, metrics))
    return paths


_EXPLAINED = (
    "Validation split, best epoch of each run. Brackets: 95% interval over objects; of several seeds, from the "
    "lowest to the highest. A training sample counts as three forward passes. `*`: no other configuration is as good "
    "at every metric for as little training."
)


def _markdown(table: Sequence[Sequence[str]]) -> str:
    head, *body = table
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _drawn(points: Sequence[Point], metrics: Mapping[str, str]) -> str:
    with style():
        figure = Figure(figsize=(WIDTH, 2.6 * len(metrics)), layout="constrained")
        panels = figure.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (task, metric) in zip(panels, metrics.items(), strict=True):
            for point in points:
                values, colour = point.values[task], ACCENT if point.front else MUTED
                mean = float(np.mean(values))
                low, high = point.intervals[task] or (mean, mean) if len(values) == 1 else (min(values), max(values))
                axes.plot([point.petaflop] * 2, [low, high], color=colour, linewidth=0.8)
                axes.plot(point.petaflop, mean, "o", color=colour)
                axes.annotate(point.name, (point.petaflop, mean), xytext=(4, 3), textcoords="offset points",
                              fontsize=7, color=colour)  # fmt: skip
            axes.set(xscale="log", ylabel=f"{task}: {metric_name(metric)}")
            axes.grid(visible=True)
        panels[-1].set_xlabel("training, PFLOP (log)")
        return to_svg(figure)

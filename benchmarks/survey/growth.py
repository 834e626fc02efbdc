"""Records of surveys of several sizes side by side: how time, memory and open files grow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from specshards.benchmarks.kit.plot import lines
from specshards.benchmarks.kit.records import Record, Run, load
from specshards.benchmarks.kit.tables import figure, markdown
from specshards.common.files import write_text

_GROUP = "time"


def write(out: Path) -> None:
    """Beside a record PREFIXsurvey-NAME.json, from all of that pattern: PREFIXsurvey-growth.md and .png."""
    prefix = out.stem.partition("survey")[0]
    runs = read(out.parent, prefix)
    if len(runs) < 2:
        return
    page = out.with_name(f"{prefix}survey-growth.md")
    draw(runs, page.with_suffix(".png"))
    text = f"# Growth\n\n{table(runs)}\n\n![time and memory by number of rows]({page.stem}.png)\n"
    write_text(page, text)


def read(folder: Path, prefix: str = "") -> dict[int, Run]:
    """Rows -> the run."""
    runs = [load(path) for path in folder.glob(f"{prefix}survey-*.json")]
    found = {rows(run): run for run in runs if run.name == "survey" and run.records}
    return dict(sorted(found.items()))


def rows(run: Run) -> int:
    """Of the survey: those that its first stage made."""
    return int(max(r.about["objects"] for r in run.records if r.group == _GROUP))


def _stages(run: Run) -> dict[str, Record]:
    return {r.name: r for r in run.records if r.group == _GROUP}


def table(runs: dict[int, Run]) -> str:
    """Markdown: a row a stage: seconds, MB of the largest process, open files; and the exponents from end to end.

    An exponent of 1 is growth in proportion, of 0 none.
    """
    sizes = list(runs)
    names = list(dict.fromkeys(name for run in runs.values() for name in _stages(run)))
    heads = ["", *(f"{size:,}: s" for size in sizes), "exponent", *(f"{size:,}: MB" for size in sizes), "exponent",
             *(f"{size:,}: files" for size in sizes)]  # fmt: skip
    cells = []
    for name in names:
        found = [_stages(run).get(name) for run in runs.values()]
        timed = [r.about.get("seconds") if r else None for r in found]
        memory = [r.about["largest"] if r and r.about["largest"] else None for r in found]
        handles = [r.about["handles"] if r and r.about["handles"] else None for r in found]
        failed = ["failed" if r and not r.values else "" for r in found]
        cells.append(
            [name, *(figure(s) if s is not None else why for s, why in zip(timed, failed, strict=True)),
             _exponent(sizes, timed), *(figure(m) if m else "" for m in memory), _exponent(sizes, memory),
             *(f"{h:,.0f}" if h else "" for h in handles)]
        )  # fmt: skip
    return markdown(heads, cells)


def short(runs: dict[int, Run]) -> str:
    """Markdown for a page: seconds, and MB of the largest process, of each stage at each size; and the exponents."""
    sizes = list(runs)
    cells = []
    for name in dict.fromkeys(name for run in runs.values() for name in _stages(run)):
        found = [_stages(run).get(name) for run in runs.values()]
        timed = [r.about.get("seconds") if r else None for r in found]
        memory = [r.about["largest"] or None if r else None for r in found]
        both = zip(timed, memory, strict=True)
        texts = [", ".join(figure(value) for value in pair if value is not None) for pair in both]
        cells.append([name, *texts, _exponent(sizes, timed), _exponent(sizes, memory)])
    return markdown(["stage: s, MB", *(f"{size:,} rows" for size in sizes), "growth of s", "of MB"], cells)


def _exponent(sizes: Sequence[int], values: Sequence[float | None]) -> str:
    """Of the growth between the last two sizes that have a value."""
    there = [(size, value) for size, value in zip(sizes, values, strict=True) if value]
    if len(there) < 2:
        return ""
    (small, low), (large, high) = there[-2:]
    return f"{math.log(high / low) / math.log(large / small):.2f}"


def draw(runs: dict[int, Run], path: Path) -> None:
    """Seconds, and MB of the largest process, by number of rows."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for title, key in (("seconds", "seconds"), ("peak memory of the largest process, MB", "largest")):
        curves: dict[str, list[tuple[float, float]]] = {}
        for size, run in runs.items():
            for name, record in _stages(run).items():
                value = record.about.get(key)
                if value and record.values:
                    curves.setdefault(name, []).append((size, value))
        panels[title] = curves
    machine = next(reversed(runs.values())).machine
    lines(panels, "rows", f"survey, MOCK data; {machine.line()}", path)

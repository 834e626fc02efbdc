"""Records as Markdown: a table for every group, and a page for a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from specshards.benchmarks.kit.records import Record, Run


def cell(text: str) -> str:
    """A text that stays in its cell and is nothing but text: it may come from a file."""
    for character, written in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|")):
        text = text.replace(character, written)
    return " ".join(text.split())


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; its cells are written as they are."""
    return "\n".join([_row(heads), "|---" * len(heads) + "|", *map(_row, rows)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def figure(value: float) -> str:
    """A number with three digits that matter, or all of those before the point."""
    if not math.isfinite(value):
        return "-"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def groups(records: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    """Records by group and unit, in the order in which they come."""
    by_unit: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        by_unit.setdefault((record.group, record.unit), []).append(record)
    return by_unit


def table(records: Sequence[Record]) -> str:
    """A Markdown table for every group; ratios are to the first record of it that was run."""
    return "\n\n".join(_group(name, members) for (name, _), members in groups(records).items())


def _group(name: str, records: Sequence[Record]) -> str:
    """A column is there where one of the records has something to say in it."""
    run = [r for r in records if r.values]
    sized = next((r.bytes for r in run if r.bytes), None)
    kind, timed = records[0].kind, records[0].unit == "s"
    heads = ["", f"median {cell(kind.label)}", "lowest to highest", "rounds"]
    heads += [*(["objects/s"] if timed else []), "ratio", *(["bytes", "ratio"] if sized else [])]
    rows = []
    for r in records:
        if not r.values:
            rows.append([cell(r.name), cell(r.note) or "not run", *[""] * (len(heads) - 2)])
            continue
        low, high = (figure(kind.scale * edge(r.values)) for edge in (min, max))
        cells = [cell(r.name), figure(kind.scale * r.median), f"{low} to {high}", str(len(r.values))]
        cells += [_ratio(1, r.median)] if timed else []
        cells.append(_ratio(r.median, run[0].median))
        if sized:
            cells += [figure(r.bytes), _ratio(r.bytes, sized)] if r.bytes is not None else ["", ""]
        rows.append(cells)
    return f"**{cell(name)}**\n\n{markdown(heads, rows)}"


def _ratio(value: float, base: float) -> str:
    return figure(value / base) if base > 0 else "-"


def page(run: Run, picture: str = "") -> str:
    """A run as Markdown: the machine, the command, the tables, and what there is to know beside them."""
    lines = [f"# {cell(run.name)}", "", cell(run.machine.line()) + ".", ""]
    when = f", started {cell(run.started)}" if run.started else ""
    took = f", {run.seconds:,.0f} s" if run.seconds is not None else ""
    data = {"mock": " The objects are MOCK data.", "real": " The objects are real data."}.get(run.data, "")
    lines += [f"`{cell(run.command)}`{when}{took}.{data}", "", table(run.records)]
    remarks = [f"{cell(r.group)}, {cell(r.name)}: {cell(r.note)}" for r in run.records if r.note and r.values]
    if remarks or run.notes:
        lines += ["", *(f"- {line}" for line in (*map(cell, run.notes), *remarks))]
    if picture:
        lines += ["", f"![medians, and from the lowest to the highest]({picture})"]
    return "\n".join(lines) + "\n"

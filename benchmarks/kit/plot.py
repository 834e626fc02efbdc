"""A run as one picture: a bar for every median, a line from the lowest to the highest value."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten, wrap

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from specshards.benchmarks.kit.records import Record, Run
from specshards.benchmarks.kit.tables import figure, groups
from specshards.common.files import replacing
from specshards.common.svg import ACCENT, INK, MUTED, style

#: A group whose values are further apart than this has a logarithmic axis.
FAR = 20.0
_WIDTH, _ROW, _ROOM = 9.0, 0.22, 0.95  # inches: of the picture; of a bar; of a group's title and axis
_HEAD, _LINE = 0.65, 0.16  # title and machine; a line of text
_TEXT = 8


def draw(run: Run, path: Path) -> None:
    """Write the PNG: one panel for a group, contenders from top to bottom in the order of the table."""
    with style(), replacing(path) as temporary:
        _figure(run).savefig(temporary, format="png", facecolor="white", metadata={"Software": None})


def _figure(run: Run) -> Figure:
    measured = ([r for r in members if r.values] for members in groups(run.records).values())
    panels = [members for members in measured if members]
    left_out = _left_out(run.records)
    heights = [_ROOM + _ROW * len(members) for members in panels]
    inches = sum(heights) + _HEAD + _LINE * len(left_out) + _LINE
    whole = Figure(figsize=(_WIDTH, inches), dpi=100)
    FigureCanvasAgg(whole)
    title = run.name + (", MOCK data" if run.data == "mock" else "")
    whole.text(0.02, 1 - 0.2 / inches, title, fontsize=12, weight="bold", va="center")
    machine = shorten(run.machine.line(), 130, placeholder=" ...")
    whole.text(0.02, 1 - 0.45 / inches, machine, fontsize=_TEXT, color=MUTED, va="center")
    top = inches - _HEAD
    for members, height in zip(panels, heights, strict=True):
        _panel(whole.add_axes((0.36, (top - height + 0.5) / inches, 0.54, (height - 0.85) / inches)), members)
        top -= height
    for i, text in enumerate(reversed(left_out)):
        whole.text(0.02, (_LINE * i + 0.1) / inches, text, fontsize=_TEXT, color=MUTED)
    return whole


def _panel(axes: Axes, records: Sequence[Record]) -> None:
    kind = records[0].kind
    low, high, middle = ([kind.scale * f(r.values) for r in records] for f in (min, max, statistics.median))
    rows = range(len(records))
    positive = [value for value in low if value > 0]
    far = len(positive) == len(low) and max(high) > FAR * min(low)
    if far:
        axes.set_xscale("log")
        axes.set_xlim(min(low) / 1.5, max(high) * 4)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, max(high) * 1.18 or 1)
    axes.barh(rows, middle, height=0.7, color=ACCENT, alpha=0.55)
    axes.hlines(rows, low, high, color=INK, linewidth=1.2)
    axes.plot([*low, *high], [*rows, *rows], "|", color=INK, markersize=5)
    for row, value, edge in zip(rows, middle, high, strict=True):
        axes.annotate(figure(value), (edge, row), (4, 0), textcoords="offset points", va="center", fontsize=_TEXT)
    names = [r.name if len(r.name) <= 46 else r.name[:45] + "…" for r in records]
    axes.set_yticks(list(rows), names, fontsize=_TEXT)
    axes.set_ylim(len(records) - 0.5, -0.5)
    axes.tick_params(axis="x", labelsize=_TEXT)
    axes.set_title(records[0].group, loc="left", fontsize=9)
    axes.set_xlabel(kind.label + (", logarithmic" if far else ""), fontsize=_TEXT, labelpad=1)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _left_out(records: Sequence[Record]) -> list[str]:
    """What has no bar, by why."""
    names: dict[str, list[str]] = {}
    for r in records:
        if not r.values:
            names.setdefault(r.note or "not run", []).append(r.name)
    return [line for why, titles in names.items() for line in wrap(f"{why}: {'; '.join(titles)}", 140)]


Curves = Mapping[str, Sequence[tuple[float, float]]]


def lines(panels: Mapping[str, Curves], below: str, title: str, path: Path) -> None:
    """Write a PNG of one logarithmic panel a quantity, a line a contender, named beside it.

    Args:
        panels: quantity -> name -> points. below: what both axes to the right say.
    """
    with style(), replacing(path) as temporary:
        whole = Figure(figsize=(2 * _WIDTH * 0.75, 6.5), dpi=100)
        FigureCanvasAgg(whole)
        whole.text(0.02, 0.97, shorten(title, 160, placeholder=" ..."), fontsize=_TEXT, color=MUTED, va="center")
        for number, (quantity, curves) in enumerate(panels.items()):
            axes = whole.add_axes((0.05 + 0.5 * number, 0.08, 0.27, 0.83))
            axes.set(xscale="log", yscale="log", xlabel=below)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
                axis.set_minor_formatter(NullFormatter())
            axes.set_title(quantity, loc="left", fontsize=9)
            for place, (name, points) in enumerate(curves.items()):
                x, y = zip(*points, strict=True)
                kind = (".-", "x--", "+:")[place // 10 % 3]  # ten colours, then other lines
                axes.plot(x, y, kind, color=f"C{place % 10}", linewidth=1.1, label=name, alpha=0.8)
            axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=_TEXT - 1, frameon=False)
        whole.savefig(temporary, format="png", facecolor="white", metadata={"Software": None})

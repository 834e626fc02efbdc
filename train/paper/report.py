"""What a study comes to: `paper.json`, `paper.md` and `paper.html`, from the same tables and figures."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specshards.common.errors import make_folder
from specshards.common.files import replacing, write_text
from specshards.common.html import Figure, Templates
from specshards.common.json import finite
from specshards.common.svg import style, to_svg
from specshards.train.paper.figures import PaperFigure, figures
from specshards.train.paper.published import Published
from specshards.train.paper.study import Study
from specshards.train.paper.tables import TABLES, Content, PaperTable, losing
from specshards.train.tasks.text import number

JSON, MARKDOWN, PAGE, FOLDER = "paper.json", "paper.md", "paper.html", "figures"
_TEMPLATES = Templates("specshards.train.paper")
_TITLE = "A&A 709, A122 again"
_MOCK = "A simulator made these spectra; the numbers say nothing of real ones, and nothing of the paper."
_NAMED = 5
_LOST = "Cells in which the model is no better"
_ENTITY = re.compile(r"&(?=#?\w+;)")  # another & is one in Markdown, too
#: What a reader has to know before the first table.
READING = (
    "A cell: the number, its 95% interval in brackets (objects drawn anew, visits of one object together), n objects "
    "of the test split, and what the best constant gets on the same objects. A constant never sees a spectrum; it is "
    "learnt on the train split for that metric.",
    "Of each survey: what the best constants of the surveys get, one for each, where a data set is of several. A "
    "model that is no better than those only tells surveys apart.",
    "No better: the 95% interval of the difference to one of the constants does not lie above 0. Where drawing "
    "objects anew always gives the same (0%, 100%) there is no interval, and the numbers alone decide.",
    "Compared in the first line: every cell of accuracy and R2, the rows `all` of Table 5, R2 of Tables 6 to 8, and "
    "of Table 9 the published score of all and of quasars; each model's number once.",
    "Letters lead to what is not comparable with the paper. Tables 1 and 5 to 9 have the paper's numbers; which of "
    "its Tables 2, 3, 4 and 10 the four others stand for is not known here, and their order is ours.",
)  # fmt: skip


def write(study: Study, out: Path, wanted: Sequence[str] = tuple(TABLES)) -> list[str]:
    """Write the three files and `figures/*.png` to a folder; what there is to say first, as lines."""
    tables = [TABLES[key](study) for key in wanted]
    drawn = list(figures(study))
    first = summary(study, tables)
    content = {
        "mock": study.mock, "summary": first, "no_better": losing(tables)[0],
        "tables": {table.key: table.to_dict() for table in tables},
        "figures": [
            {"key": f.key, "title": f.title, "caption": f.caption, "drawn": f.draw is not None} for f in drawn
        ],
        "runs": list(study.runs), "sets": {name: len(objects) for name, objects in study.objects.items()},
        "folders": {name: list(folders) for name, folders in study.folders.items()},
    }  # fmt: skip
    make_folder(out / FOLDER)
    svgs = _save(drawn, out / FOLDER, study.mock)
    write_text(out / JSON, json.dumps(finite(content), indent=1) + "\n")
    write_text(out / MARKDOWN, markdown(study, tables, drawn, first))
    write_text(out / PAGE, page(study, tables, drawn, svgs, first))
    return first


def summary(study: Study, tables: Sequence[PaperTable]) -> list[str]:
    """The first lines of a report."""
    lost, compared = losing(tables)
    lines = []
    if not compared:
        lines.append("No cell could be compared with a constant.")
    elif lost:
        named = "; ".join(lost[:_NAMED]) + (f"; and {len(lost) - _NAMED:,} more" if len(lost) > _NAMED else "")
        lines.append(
            f"In {len(lost):,} of {compared:,} cells the model is no better than the best constant: {named}."
        )
    else:
        lines.append(f"In all {compared:,} compared cells the model is better than the best constant.")
    lines += [f"Data set {name}: {' and '.join(folders)}." for name, folders in study.folders.items()]
    for name in study.sets:
        scopes = ("data", "picture", "training", "regression")
        if notes := [line for scope in scopes for line in study.notes.get((name, scope), ())]:
            lines.append(f"Not comparable with the paper ({name}): {'; '.join(notes)}.")
    return lines


@dataclass(frozen=True)
class _Shown:
    """A cell of the page and of the Markdown."""

    text: str
    small: tuple[str, ...] = ()
    letters: str = ""
    is_poor: bool = False


class _Notes:
    """The lines below a table, by letter."""

    def __init__(self) -> None:
        self.lines: dict[str, str] = {}

    def letter(self, line: str) -> str:
        if line not in self.lines:
            place = len(self.lines)
            self.lines[line] = ("" if place < 26 else chr(96 + place // 26)) + chr(97 + place % 26)
        return self.lines[line]


def _shown(cell: Content, form: str, notes: _Notes) -> _Shown:
    def value(number_: float | None) -> str:
        if number_ is None:
            return "-"
        return f"{100 * number_:.1f}%" if form == "percent" else number(number_)

    if cell is None:
        return _Shown("")
    if isinstance(cell, int):
        return _Shown(f"{cell:,}")
    if isinstance(cell, Published):
        return _Shown(value(cell.value), (), notes.letter(f"{cell.whose}: {cell.about}"))
    small = []
    if cell.interval is not None:
        small.append(f"[{value(cell.interval[0])}, {value(cell.interval[1])}]")
    if cell.count is not None:
        small.append(f"n {cell.count:,}")
    if cell.constant is not None:
        small.append(f"constant {value(cell.constant)}")
    if cell.of_survey is not None:
        small.append(f"of each survey {value(cell.of_survey)}")
    if cell.better is False:
        small.append("no better")
    letters = " ".join(notes.letter(line) for line in cell.notes)
    return _Shown(value(cell.value), tuple(small), letters, cell.better is False)


def _lines(table: PaperTable) -> tuple[list[tuple[str, list[_Shown]]], dict[str, str]]:
    notes = _Notes()
    rows = [(row.name, [_shown(cell, table.form, notes) for cell in row.cells]) for row in table.rows]
    return rows, {letter: line for line, letter in notes.lines.items()}


def markdown(study: Study, tables: Sequence[PaperTable], drawn: Sequence[PaperFigure], first: Sequence[str]) -> str:
    """`paper.md`."""
    parts = [f"# {_TITLE}"]
    if study.mock:
        parts.append(f"**MOCK data.** {_MOCK}")
    parts += [*map(_safe, first), *map(_safe, READING)]
    if len(lost := losing(tables)[0]) > _NAMED:
        parts += [f"## {_LOST}", "\n".join(f"- {_safe(line)}" for line in lost)]
    for table in tables:
        rows, notes = _lines(table)
        parts.append(f"## {_safe(table.name)}")
        head = [*table.columns]
        body = [[name, *(_text(cell) for cell in cells)] for name, cells in rows]
        lines = ["| " + " | ".join(map(_safe, line)) + " |" for line in [head, *body]]
        parts.append("\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]]))
        parts += ["\n".join(f"- ({letter}) {_safe(line)}" for letter, line in notes.items())] if notes else []
        parts.append("\n".join(f"- {_safe(line)}" for line in table.about))
    for figure in drawn:
        parts.append(f"## {_safe(figure.title)}")
        parts += [f"![{_safe(figure.title)}]({FOLDER}/{figure.key}.png)"] if figure.draw else []
        parts.append(_safe(figure.caption))
    if study.runs:
        parts += ["## Runs", "\n".join(f"- {_safe(_run(record))}" for record in study.runs)]
    return "\n\n".join(parts) + "\n"


def page(
    study: Study, tables: Sequence[PaperTable], drawn: Sequence[PaperFigure], svgs: dict[str, str],
    first: Sequence[str],
) -> str:  # fmt: skip
    """The HTML of `paper.html`; `svgs` by the key of a figure."""
    shown, lost = [(table, *_lines(table)) for table in tables], losing(tables)[0]
    inline = {
        key: Figure.inline(f"f{key}", svg, next(f.title for f in drawn if f.key == key), "", study.mock)
        for key, svg in svgs.items()
    }
    return _TEMPLATES.page(
        "paper.html", _TITLE, mock=_MOCK if study.mock else "", style="paper.css", first=first, reading=READING,
        lost=lost if len(lost) > _NAMED else [], lost_title=_LOST, tables=shown,
        figures=[(figure, inline.get(figure.key)) for figure in drawn],
        runs=[_run(record) for record in study.runs],
    )  # fmt: skip


def _save(drawn: Sequence[PaperFigure], folder: Path, mock: bool) -> dict[str, str]:
    """The figures as PNG files; their SVG by key."""
    found = {}
    with style():
        for figure in drawn:
            if figure.draw is None:
                continue
            made = figure.draw()
            found[figure.key] = to_svg(made)
            if mock:
                made.suptitle("MOCK data", fontsize=9)
            with replacing(folder / f"{figure.key}.png") as temporary:
                made.savefig(temporary, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    return found


def _run(record: Any) -> str:
    words = ((name.replace("_", " "), number(v) if isinstance(v, float) else str(v)) for name, v in record.items())
    return ", ".join(f"{name} {value}" for name, value in words)


def _text(cell: _Shown) -> str:
    interval = [part for part in cell.small if part.startswith("[")]
    rest = [part for part in cell.small if not part.startswith("[")]
    text = "; ".join([" ".join([cell.text, *interval]), *rest])
    return f"{text} ({cell.letters.replace(' ', ', ')})" if cell.letters else text


def _safe(text: str) -> str:
    """Text that Markdown shows as it is."""
    text = _ENTITY.sub("&amp;", text)
    return " ".join(text.split()).replace("<", "&lt;").replace("|", "\\|")

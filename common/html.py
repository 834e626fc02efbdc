"""HTML pages from jinja2 templates: nothing loaded from elsewhere, readable in light and dark, by keyboard.

A package has its pages in its folder `templates`. They extend `common/templates/page.html` and are made of the macros
in `parts.html`. Every text is escaped: only `Markup` is not.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from html import escape
from importlib.resources import files

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from specshards.common import svg

_COMMON = "specshards.common"
_COLOURS = {
    svg.INK: "var(--ink)", svg.MUTED: "var(--muted)", svg.GRID: "var(--grid)", svg.ACCENT: "var(--accent)",
    svg.WARM: "var(--warm)", **{colour: f"var(--s{i})" for i, colour in enumerate(svg.SERIES)},
}  # fmt: skip
_LIGHT = {"ink": svg.INK, "muted": svg.MUTED, "grid": svg.GRID, "accent": svg.ACCENT, "warm": svg.WARM,
          "paper": "#fdfdfb", "sheet": "#f3f4f1", "link": "#0b5a91",
          **{f"s{i}": colour for i, colour in enumerate(svg.SERIES)}}  # fmt: skip
_DARK = {"ink": "#e4e7ea", "muted": "#a3acb6", "grid": "#39414a", "accent": "#5aa5d6", "warm": "#e39459",
         "paper": "#14171b", "sheet": "#1d2126", "link": "#7dbcea", "s0": "#e0942a", "s1": "#58a9dc", "s2": "#d97bb9",
         "s3": "#6fbf76", "s4": "#a898e6", "s5": "#bf9a78"}  # fmt: skip

Rows = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Table:
    """A table of the macro `table`; its first row and column are heads.

    Attributes:
        label: what a screen reader says. caption: takes the place of the first cell.
        links: where a head leads.
    """

    rows: Rows
    label: str
    caption: str = ""
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def head(self) -> list[str]:
        """Names of the columns."""
        return ["" if self.caption else self.rows[0][0], *self.rows[0][1:]]

    @property
    def body(self) -> Rows:
        """The rows below the head."""
        return self.rows[1:]

    @property
    def words(self) -> list[bool]:
        """Which columns have words in them, not numbers alone."""
        return [any(row[i][:1].isalpha() for row in self.body) for i in range(len(self.rows[0]))]


@dataclass(frozen=True)
class Figure:
    """A drawing of the macro `figure`: an `<svg>` element, the words under it, whether it is as wide as the page."""

    svg: Markup
    caption: str
    wide: bool

    @classmethod
    def inline(cls, prefix: str, drawing: str, label: str, caption: str, mock: bool) -> Figure | None:
        """A drawing of `common.svg` to stand in a page; None where it is damaged.

        Args:
            prefix: of the ids, another one for every drawing of a page. label: what a screen reader says.
        """
        try:
            element = svg.inline(drawing, prefix, f"{'MOCK data, ' if mock else ''}{label}", _COLOURS)
        except ValueError:
            return None
        return cls(Markup(element), caption, svg.width_of(element) > 1.2 * 72 * svg.WIDTH)


class Templates:
    """The templates of a package, and those that all pages share."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._environment = Environment(
            loader=ChoiceLoader([PackageLoader(package), PackageLoader(_COMMON)]), autoescape=True,
            undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
        )  # fmt: skip
        self._environment.filters["thousands"] = "{:,}".format

    def page(
        self, template: str, title: str, *, mock: str = "", style: str = "", script: str = "", **values: object
    ) -> str:
        """A whole page from a template that extends `page.html`.

        Args:
            mock: what is said behind MOCK data on top; empty where the data are real.
            style: file with more CSS. script: file with the JavaScript that may run, and no other.
            values: what else the template names.
        """
        code = _read(self._package, script) if script else Markup()
        return self._environment.get_template(template).render(
            title=title, mock=mock, mock_mark=" (MOCK data)" if mock else "", contents=[], script=code,
            script_hash=Markup(f"sha256-{b64encode(sha256(code.encode()).digest()).decode()}"),
            style=_palette() + _read(_COMMON, "page.css") + (_read(self._package, style) if style else ""), **values,
        )  # fmt: skip


def _read(package: str, name: str) -> Markup:
    """A style or a script, which stands in the page to the letter."""
    return Markup(files(package).joinpath("templates", name).read_text(encoding="utf-8"))


def _palette() -> Markup:
    light, dark = ("".join(f"--{name}:{colour};" for name, colour in values.items()) for values in (_LIGHT, _DARK))
    return Markup(f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}")


def document(
    title: str, lead: str, sections: Sequence[tuple[str, str]], *, mock: str = "", head: str = "", style: str = "",
    script: str = "",
) -> str:  # fmt: skip
    """A whole page.

    Args:
        lead: HTML under the title. sections: a heading, text, and its HTML, each.
        mock: what is said behind MOCK data on top; empty where the data are real.
        head: HTML for the head. style: more CSS. script: JavaScript that may run, and no other.
    """
    links = "".join(f'<li><a href="#part{i}">{escape(name)}</a></li>' for i, (name, _) in enumerate(sections))
    told = " (MOCK data)" if mock else ""
    body = "".join(
        f'<section aria-labelledby="part{i}"><h2 id="part{i}">{escape(name)}{told}</h2>{html}</section>'
        for i, (name, html) in enumerate(sections)
    )
    banner = f'<p class="mock" role="note"><strong>MOCK data.</strong> {escape(mock)}</p>' if mock else ""
    # Nothing may be loaded, and nothing run that was not written here, whatever a name or a drawing holds.
    runs = f"script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'; " if script else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; {runs}'
        "style-src 'unsafe-inline'; img-src data:\">"
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta name="color-scheme" content="light dark">{head}'
        f"<title>{escape(title)}{told}</title><style>:root{{{_variables(_LIGHT)}}}"
        f"@media(prefers-color-scheme:dark){{:root{{{_variables(_DARK)}}}}}"
        f"{_read(_COMMON, 'page.css')}{style}</style></head><body>"
        f"<header><h1>{escape(title)}</h1>{banner}{lead}</header>"
        f'<nav aria-label="Contents"><ul>{links}</ul></nav><main>{body}</main>'
        + (f"<script>{script}</script>" if script else "")
        + "</body></html>\n"
    )


def _variables(values: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in values.items())


def figure(prefix: str, drawing: str, label: str, caption: str, mock: bool) -> str:
    """A drawing of `common.svg` with words under it; nothing where it is damaged.

    Args:
        prefix: of the ids, another one for every drawing of a page. label: what a screen reader says.
    """
    try:
        inlined = svg.inline(drawing, prefix, f"{'MOCK data, ' if mock else ''}{label}", _COLOURS)
    except ValueError:
        return ""
    words = f"{'<strong>MOCK data.</strong> ' if mock else ''}{escape(caption)}"
    wide = ' class="wide"' if svg.width_of(inlined) > 1.2 * 72 * svg.WIDTH else ""
    return f"<figure{wide}>{inlined}<figcaption>{words}</figcaption></figure>"


def table(rows: Rows, label: str, caption: str = "", links: Mapping[str, str] | None = None) -> str:
    """A table that scrolls by itself where it is wide, also with the keyboard; the first row and column are heads.

    Args:
        label: what a screen reader says. caption: takes the place of the first cell.
        links: where a head leads.
    """
    first, *others = rows
    words = ['class="word"' if any(row[i][:1].isalpha() for row in others) else "" for i in range(len(first))]
    head = "".join(
        f'<th scope="col" {words[i]}>{_head(cell if i or not caption else "", links)}</th>'
        for i, cell in enumerate(first)
    )
    body = "".join(
        f'<tr><th scope="row">{_head(name, links)}</th>'
        + "".join(f"<td {kind}>{_cell(cell)}</td>" for cell, kind in zip(cells, words[1:], strict=True)) + "</tr>"
        for name, *cells in others
    )  # fmt: skip
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}"><table>'
        + (f"<caption>{escape(caption)}</caption>" if caption else "")
        + f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _head(text: str, links: Mapping[str, str] | None) -> str:
    if not links or text not in links:
        return escape(text)
    return f'<a href="{escape(links[text])}">{escape(text)}</a>'


def _cell(text: str) -> str:
    """A number, whose interval may go to a line of its own."""
    number, bracket, interval = escape(text).partition(" [")
    return f"{number} <span>[{interval}</span>" if bracket else number


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """A table of names and values, whose HTML is given."""
    body = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{value}</td></tr>' for name, value in rows)
    return f'<table class="plain"><tbody>{body}</tbody></table>'

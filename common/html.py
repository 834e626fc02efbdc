"""HTML pages from jinja2 templates: nothing loaded from elsewhere, readable in light and dark, by keyboard.

A package has its pages in its folder `templates`. They extend `common/templates/page.html` and are made of the macros
in `parts.html`. Every text is escaped: only `Markup` is not.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
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

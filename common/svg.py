"""Drawings of the pages: their look, their SVG, and its form inside a page, without ids that clash or what runs.

Colours are those of a light page; `common.html` gives them other values where a reader likes it dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

INK, MUTED, GRID, ACCENT, WARM = "#1b2026", "#66707b", "#d4dae0", "#1f6fa8", "#b4541a"
SERIES = ("#c77700", "#3b8fc2", "#c2559d", "#4f9a55", "#8a78c9", "#9c7a5b")
WIDTH = 5.2  # inches
_STYLE: dict[str, Any] = {
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.spines.top": False, "axes.spines.right": False,
    "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none", "grid.color": GRID,
    "grid.linewidth": 0.6, "axes.axisbelow": True, "font.size": 9.0, "axes.titlesize": 9.0, "legend.frameon": False,
    "legend.fontsize": 8.0, "lines.markersize": 4.0, "lines.linewidth": 1.4,
    # Names are text, never formulas. A fixed salt makes the same SVG of the same numbers.
    "text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "specshards", "image.composite_image": False,
}  # fmt: skip
_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
#: What matplotlib draws with. Anything else in a stored file (a script, a style for the whole page) is left out.
_TAGS = {"svg", "g", "defs", "path", "rect", "use", "clipPath", "text", "tspan", "image"}
_ATTRIBUTES = {
    "viewBox", "style", "d", "transform", "clip-path", "clip-rule", "x", "y", "width", "height", "href", "id",
    "preserveAspectRatio", "text-anchor",
}  # fmt: skip
_HREF = re.compile(r"#[\w.-]+|data:image/png;base64,[A-Za-z0-9+/=\s]+")
_OWN_URL = re.compile(r"url\(#([\w.-]+)\)")


@contextmanager
def style() -> Iterator[None]:
    """The look of all drawings; figures are made and saved inside."""
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        yield


def new_figure(height: float, columns: int = 1) -> Figure:
    """As wide as one or two columns of the page, so that all text has one size."""
    return Figure(figsize=(WIDTH * columns, height), layout="constrained")


def to_svg(figure: Figure) -> str:
    """The figure as an SVG file: text as text, no date, the same for the same figure."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=_METADATA)
    return file.getvalue()


def inline(svg: str, prefix: str, label: str, colours: Mapping[str, str]) -> str:
    """An `<svg>` element to stand in a page.

    Args:
        svg: a file of `to_svg`. prefix: of its ids, another one for every drawing of a page.
        label: what a screen reader says. colours: `#rrggbb` -> what is written in its place.

    Raises:
        ValueError: not an SVG file.
    """
    try:
        root = ElementTree.fromstring(svg)
    except ElementTree.ParseError as error:
        raise ValueError(f"not an SVG file ({error})") from error
    if _bare(root.tag) != "svg":
        raise ValueError("not an SVG file")
    _clean(root, prefix, colours)
    targets = {target.group(1) for element in root.iter() for target in _targets(element)}
    for element in root.iter():
        if element.get("id") not in targets:
            element.attrib.pop("id", None)
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def width_of(svg: str) -> float:
    """Width of a drawing in points, from its view box; 0 without one."""
    box = re.search(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+) ', svg)
    return float(box[1]) if box else 0.0


def _clean(element: ElementTree.Element, prefix: str, colours: Mapping[str, str]) -> None:
    """Keep what a drawing is made of; prefix ids; replace colours. Names lose their namespaces, which HTML knows."""
    element.tag = _bare(element.tag)
    attributes = {_bare(name): value for name, value in element.attrib.items() if _bare(name) in _ATTRIBUTES}
    element.attrib.clear()
    for name, value in attributes.items():
        if name == "href" and not _HREF.fullmatch(value):
            continue
        if name == "id":
            value = f"{prefix}-{value}"
        elif name == "href" and value.startswith("#"):
            value = f"#{prefix}-{value[1:]}"
        elif name == "style":
            value = re.sub(r"font-family:[^;]*(;|$)", "", value)
            value = re.sub(r"#[0-9a-fA-F]{6}\b", lambda colour: colours.get(colour[0].lower(), colour[0]), value)
        if "url(" in value:
            if not _OWN_URL.fullmatch(value):
                continue
            value = f"url(#{prefix}-{value[5:-1]})"
        element.set(name, value)
    for child in list(element):
        if isinstance(child.tag, str) and _bare(child.tag) in _TAGS:
            _clean(child, prefix, colours)
        else:
            element.remove(child)


def _targets(element: ElementTree.Element) -> list[re.Match[str]]:
    values = (element.get("href", ""), element.get("clip-path", ""))
    return [target for value in values for target in re.finditer(r"(?:^|\()#([\w.-]+)", value)]


def _bare(name: str) -> str:
    return name.rpartition("}")[2]

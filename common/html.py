"""One HTML page: nothing loaded from elsewhere, readable in light and dark, by keyboard and on narrow screens.

What a page is made of; `shards.report.write` and `train.report.page` say what stands in theirs. Every text is
escaped.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from html import escape

from specshards.common import svg

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
_STYLE = """
*{box-sizing:border-box}
body{margin:0 auto;max-width:76rem;padding:1rem 1.2rem 4rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.6rem;margin:.6rem 0}h2{font-size:1.35rem;margin:2.4rem 0 .4rem;border-bottom:1px solid var(--grid)}
h3{font-size:1.1rem;margin:1.6rem 0 .3rem}
h1,h2,code{overflow-wrap:anywhere}
a{color:var(--link)}
:focus-visible{outline:3px solid var(--link);outline-offset:2px}
nav ul{columns:16rem;margin:.3rem 0;padding-left:1.2rem}
.mock{border:2px solid var(--warm);border-radius:.4rem;padding:.6rem .9rem;background:var(--sheet)}
.scroll{overflow-x:auto;margin:.8rem 0;max-width:100%}
table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:.2rem 0;white-space:nowrap}
th,td{padding:.22rem .55rem;text-align:right;border-bottom:1px solid var(--grid);white-space:nowrap}
th[scope=row],th:first-child,.word{text-align:left}
td,thead th{white-space:normal}td span{display:inline-block;white-space:nowrap;color:var(--muted)}
th{font-weight:600}tbody th{font-weight:400}
.plain td{text-align:left;white-space:normal;overflow-wrap:anywhere}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,25rem),1fr));gap:1.2rem;align-items:start}
figure{margin:0 0 .6rem;background:var(--sheet);border-radius:.4rem;padding:.6rem .8rem}
figure svg{display:block;width:100%;max-height:34rem;height:auto;stroke-linejoin:round}
figure svg text{font-family:system-ui,sans-serif}
.wide{grid-column:1/-1}.tables{display:flex;flex-wrap:wrap;gap:0 3rem;align-items:flex-start}
figcaption{font-size:.88rem;margin-top:.5rem}
details{margin:.6rem 0}summary{cursor:pointer;font-weight:600}
@media print{body{max-width:none}figure{break-inside:avoid}}
"""

Rows = Sequence[Sequence[str]]


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
        f"@media(prefers-color-scheme:dark){{:root{{{_variables(_DARK)}}}}}{_STYLE}{style}</style></head><body>"
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

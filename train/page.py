"""The report of a run as one HTML page: no scripts, nothing loaded from elsewhere, readable in light and dark.

Made from `metrics.json`, the card, and the drawings of predictions that `figures.draw` left in the run folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from ingest.files import write_text
from train import figures, plots, report
from train.classification import Classification
from train.run import PAGE, Card
from train.svg import inline, width_of
from train.tasks import Task

_COLOURS = {
    plots.INK: "var(--ink)", plots.MUTED: "var(--muted)", plots.GRID: "var(--grid)", plots.ACCENT: "var(--accent)",
    plots.WARM: "var(--warm)", **{colour: f"var(--s{i})" for i, colour in enumerate(plots.SERIES)},
}  # fmt: skip
_LIGHT = {"ink": plots.INK, "muted": plots.MUTED, "grid": plots.GRID, "accent": plots.ACCENT, "warm": plots.WARM,
          "paper": "#fdfdfb", "sheet": "#f3f4f1", "link": "#0b5a91",
          **{f"s{i}": colour for i, colour in enumerate(plots.SERIES)}}  # fmt: skip
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
_CAPTIONS = {
    "confusion": "Rows are true classes, columns predicted ones; each cell gives the share of its row in percent. "
                 "Good: all on the diagonal.",
    "against": "Each object's prediction against its true value, coloured by its class; where there are many, a "
               "stronger colour means more of them, logarithmically. Good: all on the diagonal line.",
    "sn": "Metrics by median S/N per pixel, with the number of objects in each bin; hollow points rest on fewer than "
          "20. Good: little is lost towards low S/N.",
    "classes_sn": "Share of each true class that is recognised, by S/N, of the six most numerous classes; hollow "
                  "points rest on fewer than 20 objects. Good: high everywhere, and no class far below the others.",
    "reliability": "How often the likeliest class is right, by how sure the model is of it (bars: one standard "
                   "error); below, how many objects are how sure. Good: on the diagonal; below it the model is too "
                   "sure of itself.",
    "residuals": "Errors by true value, about equally many objects a box: median, quartiles, and whiskers to the 5th "
                 "and 95th percentile. Good: narrow boxes around zero without a trend.",
    "pit": "Where the truth falls in the predicted distribution; chance alone keeps a right one between the dashes. "
           "Good: even. A hump means too wide distributions, a bowl too narrow ones, a slope a bias.",
    "history": "Validation after every epoch; the dotted line is the epoch that was kept. Good: losses that fall and "
               "level off; a rising one has learnt its train split by heart.",
}  # fmt: skip


def write(run: Path, content: Mapping[str, Any], card: Card) -> None:
    """Write `run/report.html` from the content of `metrics.json` and the drawings in the run folder.

    Call it after `figures.draw`, so that the drawings are those of the numbers.
    """
    found = [(split, task.name) for split, task, _ in report.parts(content, card)]
    drawings = {key: svg for key in found if (svg := figures.stored(run, *key)) is not None}
    write_text(run / PAGE, page(content, card, drawings))


def page(content: Mapping[str, Any], card: Card, drawings: Mapping[tuple[str, str], str]) -> str:
    """The page's HTML.

    Args:
        content: of `metrics.json`.
        drawings: SVG of `figures.draw` by split and task; one that is missing or damaged is left out.
    """
    title = f"{', '.join(task.name for task in card.tasks)}: {card.config.backbone}"
    sections = [("At a glance", _table(report.at_a_glance(content, card), "At a glance"))]
    for place, (split, task, scores) in enumerate(report.parts(content, card)):
        found = _drawings(task, scores, drawings.get((split, task.name)))
        sections.append((f"{split}: {task.name}", _section(f"s{place}", split, task, scores, found, content["mock"])))
    sections += [("Training", _training(content, card)), ("Configuration", _configuration(content, card))]
    links = "".join(f'<li><a href="#part{i}">{escape(name)}</a></li>' for i, (name, _) in enumerate(sections))
    mock = " (MOCK data)" if content["mock"] else ""
    body = "".join(
        f'<section aria-labelledby="part{i}"><h2 id="part{i}">{escape(name)}{mock}</h2>{html}</section>'
        for i, (name, html) in enumerate(sections)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        # Nothing may be loaded and nothing run, whatever a name or a drawing holds.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; img-src data:\">"
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}{mock}</title><style>:root{{{_variables(_LIGHT)}}}"
        f"@media(prefers-color-scheme:dark){{:root{{{_variables(_DARK)}}}}}{_STYLE}</style></head><body>"
        f"<header><h1>{escape(title)}</h1>{_mock_banner(content['mock'])}"
        f"<p>Model <code>{escape(card.model)}</code>. In brackets behind a number: its 95% interval, by drawing the "
        "objects of the split anew.</p></header>"
        f'<nav aria-label="Contents"><ul>{links}</ul></nav><main>{body}</main></body></html>\n'
    )


def _variables(values: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in values.items())


def _mock_banner(mock: bool) -> str:
    words = "<strong>MOCK data.</strong> A simulator made these spectra; the numbers say nothing of real ones."
    return f'<p class="mock" role="note">{words}</p>' if mock else ""


def _drawings(task: Task, scores: Mapping[str, Any], predictions: str | None) -> dict[str, str]:
    name = "confusion" if isinstance(task, Classification) else "against"
    return ({} if predictions is None else {name: predictions}) | figures.svgs(task, scores)


def _section(
    prefix: str, split: str, task: Task, scores: Mapping[str, Any], drawings: Mapping[str, str], mock: bool
) -> str:
    head, *rest = report.tables(scores, task)
    about = f"{split}, {task.name}"
    parts = [f"<p>{escape(report.counted(scores, task))}</p>", _table(head, f"{about}: model and baselines")]
    parts.append('<div class="figures">')
    parts += [
        _figure(f"{prefix}{i}", svg, f"{about}: {name.replace('_', ' by ')}", _CAPTIONS[name], mock)
        for i, (name, svg) in enumerate(drawings.items())
    ]
    parts.append('</div><div class="tables">')
    parts += [_table(rows, f"{about}: {rows[0][0]}", rows[0][0]) for rows in rest]
    return "".join(parts) + "</div>"


def _figure(prefix: str, svg: str, label: str, caption: str, mock: bool) -> str:
    try:
        drawing = inline(svg, prefix, f"{'MOCK data, ' if mock else ''}{label}", _COLOURS)
    except ValueError:
        return ""
    words = f"{'<strong>MOCK data.</strong> ' if mock else ''}{escape(caption)}"
    wide = ' class="wide"' if width_of(drawing) > 1.2 * 72 * plots.WIDTH else ""
    return f"<figure{wide}>{drawing}<figcaption>{words}</figcaption></figure>"


def _table(rows: report.Rows, label: str, caption: str = "") -> str:
    """A table that scrolls by itself where it is wide, also with the keyboard; the first row and column are heads."""
    first, *others = rows
    words = ['class="word"' if any(row[i][:1].isalpha() for row in others) else "" for i in range(len(first))]
    head = "".join(
        f'<th scope="col" {words[i]}>{escape(cell if i or not caption else "")}</th>' for i, cell in enumerate(first)
    )
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td {kind}>{_cell(cell)}</td>" for cell, kind in zip(cells, words[1:], strict=True)) + "</tr>"
        for name, *cells in others
    )  # fmt: skip
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}"><table>'
        + (f"<caption>{escape(caption)}</caption>" if caption else "")
        + f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(text: str) -> str:
    """A number, whose interval may go to a line of its own."""
    number, bracket, interval = escape(text).partition(" [")
    return f"{number} <span>[{interval}</span>" if bracket else number


def _pairs(rows: Iterable[tuple[str, str]]) -> str:
    """A table of names and values, whose HTML is given."""
    body = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{value}</td></tr>' for name, value in rows)
    return f'<table class="plain"><tbody>{body}</tbody></table>'


def _best(best: Mapping[str, Any]) -> str:
    return f"{best.get('epoch')}: {report.metric_name(str(best.get('metric')))} {report.number(best.get('value'))}"


def _training(content: Mapping[str, Any], card: Card) -> str:
    training = content.get("training") or {}
    best = card.best or {}
    rows = [("best epoch", escape(_best(best)))]
    rows += [
        (name.replace("_", " "), escape(value if isinstance(value, str) else report.number(value)))
        for name, value in training.items() if isinstance(value, str | int | float)
    ]  # fmt: skip
    lines = "".join(f"<li>{escape(line)}</li>" for line in report.labelled(card))
    svg = figures.history(training.get("history") or [], best.get("epoch"))
    drawing = "" if svg is None else _figure("h", svg, "validation by epoch", _CAPTIONS["history"], content["mock"])
    levels = report.calibration(card)
    table = _table(levels, levels[0][0], levels[0][0]) if levels else ""
    return f"{drawing}{_pairs(rows)}<h3>Learnt from</h3><ul>{lines}</ul>{table}"


def _configuration(content: Mapping[str, Any], card: Card) -> str:
    data = "".join(
        f"<li><code>{escape(d['folder'])}</code> ({escape(', '.join(d['surveys']))}), fingerprint "
        f"<code>{escape(d['fingerprint'])}</code></li>"
        for d in content["data"]
    )
    config, image = (
        _pairs((name, f"<code>{escape(str(value))}</code>") for name, value in values.items())
        for values in (card.config.to_dict(), card.image)
    )
    return (
        f"<h3>Scored on</h3><ul>{data}</ul><details open><summary>Training</summary>{config}</details>"
        f"<details><summary>Pictures</summary>{image}</details>"
    )

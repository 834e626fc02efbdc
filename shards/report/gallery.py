"""The gallery of a data set's page: samples with picture, spectrum and labels, and a filter that a link can name.

`report.html#class=QSO&split=train` shows those; `report.html#0000000123` leads to one sample. Without scripts all are
shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

import numpy as np

from specshards.shards.report.plots import spectrum
from specshards.shards.report.samples import Example, usable
from specshards.shards.report.statistics import UNLABELLED

#: Label -> how it is told, its error's column if it has one, unit.
_LABELS = {
    "z": ("z", ".5f", "z_err", ""), "zwarning": ("zwarning", "d", "", ""), "teff": ("Teff", ".0f", "teff_err", "K"),
    "logg": ("log g", ".2f", "logg_err", ""), "feh": ("[Fe/H]", ".2f", "feh_err", ""),
    "sn_median": ("S/N", ".1f", "", ""),
}  # fmt: skip
_FILTERS = ("survey", "class", "split")

STYLE = """
.figures td{white-space:nowrap}.figures td span{display:block}
[hidden]{display:none!important}
#filter{display:flex;flex-wrap:wrap;gap:.5rem 1rem;align-items:end;margin:.8rem 0;padding:.7rem .9rem;
background:var(--sheet);border-radius:.4rem}
#filter label{display:flex;flex-direction:column;font-size:.86rem}
#filter select,#filter input,#filter button{font:inherit;color:var(--ink);background:var(--paper);
border:1px solid var(--muted);border-radius:.3rem;padding:.25rem .5rem;max-width:100%}
#filter output{flex-basis:100%;font-size:.88rem}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,34rem),1fr));gap:1rem}
.gallery article{background:var(--sheet);border-radius:.4rem;padding:.6rem .8rem;display:grid;
grid-template-columns:minmax(0,224px) minmax(0,1fr);gap:.4rem 1rem;align-content:start;scroll-margin-top:1rem}
.gallery article:target{outline:3px solid var(--link)}
.gallery h3{grid-column:1/-1;margin:0;font-size:1rem}
.gallery img{width:224px;max-width:100%;height:auto;display:block;image-rendering:pixelated}
.gallery svg{width:100%;height:auto;display:block}
.gallery svg text{font:9.5px system-ui,sans-serif;fill:var(--muted)}
.gallery svg path{fill:none;stroke:var(--muted);stroke-width:.7}
.gallery svg .ends{stroke:var(--accent);opacity:.6}.gallery svg .middle{stroke:var(--ink);stroke-width:1}
.gallery svg .zero{stroke:var(--grid)}.gallery path{stroke-linejoin:round}
.gallery dl{display:flex;flex-wrap:wrap;gap:.1rem .9rem;margin:.3rem 0 0;font-size:.84rem}
.gallery dl div{display:flex;gap:.35rem}.gallery dt{color:var(--muted)}.gallery dd{margin:0;overflow-wrap:anywhere}
.gallery p{margin:0;font-size:.84rem;color:var(--muted)}
pre{overflow-x:auto;background:var(--sheet);border-radius:.4rem;padding:.6rem .9rem;font-size:.84rem}
@media(max-width:32rem){.gallery article{grid-template-columns:minmax(0,1fr)}}
"""

SCRIPT = """
"use strict";
(() => {
  const form = document.getElementById("filter"), fields = ["survey", "class", "split", "text"];
  const samples = [...document.querySelectorAll(".gallery article")];
  const show = () => {
    const wanted = fields.map((name) => [name, form.elements[name].value.trim().toLowerCase()]);
    let shown = 0;
    for (const sample of samples) {
      sample.hidden = !wanted.every(([name, value]) => name === "text"
        ? sample.dataset.text.includes(value) : !value || sample.dataset[name].toLowerCase() === value);
      shown += !sample.hidden;
    }
    form.elements.shown.value = `${shown} of ${samples.length} samples shown`;
  };
  const follow = () => {
    const fragment = location.hash.slice(1), place = document.getElementById(fragment);
    const filter = !place && fragment.includes("=");
    if (!filter && !(place && place.hidden)) return show();
    const values = new URLSearchParams(filter ? fragment : "");
    for (const name of fields) form.elements[name].value = values.get(name) ?? "";
    for (const name of fields) if (form.elements[name].selectedIndex < 0) form.elements[name].value = "";
    show();
    (place ?? form).scrollIntoView();
  };
  form.addEventListener("input", () => {
    const values = new URLSearchParams(fields.map((name) => [name, form.elements[name].value]).filter(([, v]) => v));
    history.replaceState(null, "", `#${values}`);
    show();
  });
  form.addEventListener("reset", () => setTimeout(() => { history.replaceState(null, "", "#"); show(); }));
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", follow);
  form.hidden = false;
  follow();
})();
"""


def links(names: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Where the name of a survey, class or split leads: to the gallery with only those."""
    return {name: f"#{field}={quote(name)}" for field, found in names.items() for name in found}


def gallery(examples: Sequence[Example], names: Mapping[str, Sequence[str]], image: str, mock: bool) -> str:
    """The form and the samples.

    Args:
        names: of `survey`, `class` and `split`, what there is to choose. image: what the pictures are.
    """
    frame = _frame(examples)
    articles = "".join(_article(example, names["class"], image, frame, mock) for example in examples)
    return f'{_form(names)}<div class="gallery">{articles}</div>'


def _form(names: Mapping[str, Sequence[str]]) -> str:
    fields = []
    for field in _FILTERS:
        options = "".join(f'<option value="{escape(name)}">{escape(name)}</option>' for name in names[field])
        fields.append(f'<label>{field}<select name="{field}"><option value="">all</option>{options}</select></label>')
    return (
        '<form id="filter" hidden aria-label="Filter of the samples">' + "".join(fields)
        + '<label>in key or id<input type="search" name="text" autocomplete="off" spellcheck="false"></label>'
        '<button type="reset">Show all</button><output name="shown" aria-live="polite"></output></form>'
    )  # fmt: skip


def _frame(examples: Sequence[Example]) -> tuple[float, float]:
    """One axis of wavelengths for all samples, so that lines can be compared."""
    ends = [
        (float(wavelength.min()), float(wavelength.max()))
        for example in examples if example.spectrum is not None
        for wavelength in [np.asarray(example.spectrum[2])[usable(example.spectrum)]] if len(wavelength)
    ]  # fmt: skip
    left, right = min((a for a, _ in ends), default=0.0), max((b for _, b in ends), default=1.0)
    return left, right if right > left else left + 1


def _article(example: Example, classes: Sequence[str], image: str, frame: tuple[float, float], mock: bool) -> str:
    row = example.row
    key, survey = str(row["key"]), str(row["survey"])
    kind = str(row["class"]) if row.get("class") in classes else UNLABELLED
    name = f"{'MOCK data, ' if mock else ''}{key}, {kind}"
    text = f"{key} {row['object_id']}".lower()
    picture = (
        f'<img src="{example.picture}" alt="{escape(f"{name}: {image}")}" loading="lazy">'
        if example.picture else f"<p>No picture: {escape(example.why)}</p>"
    )  # fmt: skip
    drawn = spectrum(example.spectrum, frame, f"{name}: flux by wavelength in Angstrom") if example.spectrum else ""
    subclass = f" {row['subclass']}" if row.get("subclass") else ""
    return (
        f'<article id="{escape(key)}" data-survey="{escape(survey)}" data-class="{escape(kind)}" '
        f'data-split="{example.split}" data-text="{escape(text)}">'
        f'<h3><a href="#{quote(key)}">{escape(key)}</a> {escape(kind + subclass)}</h3>'
        f"<div>{picture}</div><div>{drawn or '<p>No spectrum here.</p>'}<dl>{_facts(example)}</dl></div></article>"
    )


def _facts(example: Example) -> str:
    row = example.row
    facts = [("split", example.split), ("survey", row["survey"]), ("id", row["object_id"])]
    for column, (name, form, error, unit) in _LABELS.items():
        value, its = row.get(column), row.get(error)
        if _is_known(value):
            spread = f" ± {its:{'.1g' if column == 'z' else form}}" if _is_known(its) else ""
            facts.append((name, f"{value:{form}}{spread}{' ' + unit if unit else ''}"))
    facts += [("RA, Dec", f"{row['ra']:.5f}, {row['dec']:.5f}"), ("file", row["source_file"])]
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts)


def _is_known(value: Any) -> bool:
    return value is not None and value == value

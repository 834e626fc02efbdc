"""The gallery of a data set's page: samples with picture, spectrum and labels, and a filter that a link can name.

`report.html#class=QSO&split=train` shows those; `report.html#0000000123` leads to one sample. Without scripts all are
shown. `templates/gallery.html` lays it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np

from specshards.common.spectrum import NUMBERS, SIGNAL_TO_NOISE
from specshards.shards.report.plots import SpectrumPlot, spectrum_plot
from specshards.shards.report.samples import GallerySample, usable
from specshards.shards.report.statistics import UNLABELLED


@dataclass(frozen=True)
class Article:
    """A sample as the page has it.

    Attributes:
        kind: its class, or the word for none. text: what the filter searches. name: what a screen reader says.
        picture: a data URL, or None; why: not. plot: None without a spectrum.
        facts: names and values.
    """

    key: str
    survey: str
    kind: str
    split: str
    text: str
    heading: str
    name: str
    picture: str | None
    why: str
    plot: SpectrumPlot | None
    facts: Sequence[tuple[str, str]]


def links(filters: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Where the name of a survey, class or split leads: to the gallery with only those."""
    return {name: f"#{field}={quote(name)}" for field, names in filters.items() for name in names}


def articles(samples: Sequence[GallerySample], classes: Sequence[str], mock: bool) -> list[Article]:
    """What the page shows of some samples, in their order; spectra have one axis of wavelengths."""
    window = _wavelengths(samples)
    return [_article(sample, classes, window, mock) for sample in samples]


def _wavelengths(samples: Sequence[GallerySample]) -> tuple[float, float]:
    """One axis of wavelengths for all samples, so that lines can be compared."""
    ends = [
        (float(wavelength.min()), float(wavelength.max()))
        for sample in samples if sample.spectrum is not None
        for wavelength in [np.asarray(sample.spectrum[2])[usable(sample.spectrum)]] if len(wavelength)
    ]  # fmt: skip
    left, right = min((a for a, _ in ends), default=0.0), max((b for _, b in ends), default=1.0)
    return left, right if right > left else left + 1


def _article(sample: GallerySample, classes: Sequence[str], window: tuple[float, float], mock: bool) -> Article:
    row = sample.row
    key = str(row["key"])
    kind = str(row["class"]) if row.get("class") in classes else UNLABELLED
    return Article(
        key=key, survey=str(row["survey"]), kind=kind, split=sample.split, text=f"{key} {row['object_id']}".lower(),
        heading=f"{kind} {row['subclass']}" if row.get("subclass") else kind,
        name=f"{'MOCK data, ' if mock else ''}{key}, {kind}", picture=sample.picture, why=sample.why,
        plot=None if sample.spectrum is None else spectrum_plot(sample.spectrum, window), facts=_facts(sample),
    )  # fmt: skip


def _facts(sample: GallerySample) -> list[tuple[str, str]]:
    row = sample.row
    facts = [("split", sample.split), ("survey", str(row["survey"])), ("id", str(row["object_id"]))]
    for label in (*NUMBERS, SIGNAL_TO_NOISE):
        value, error = row.get(label.name), row.get(f"{label.name}_err")
        if _is_present(value):
            spread = f" ± {error:{'.1g' if label.name == 'z' else label.form}}" if _is_present(error) else ""
            facts.append((label.title, f"{value:{label.form}}{spread}{' ' + label.unit if label.unit else ''}"))
    if _is_present(row["ra"]):
        facts.append(("RA, Dec", f"{row['ra']:.5f}, {row['dec']:.5f}"))
    return [*facts, ("file", str(row["source_file"]))]


def _is_present(value: Any) -> bool:
    return value is not None and value == value

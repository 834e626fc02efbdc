"""Figures 2 to 4, 10 and 11. Which of 2 to 4 is which in the paper is not known here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from specshards.common.spectrum import CLASSES
from specshards.common.svg import MUTED, SERIES, WARM, new_figure
from specshards.train.paper.answers import Block
from specshards.train.paper.names import PICTURES
from specshards.train.paper.objects import Objects
from specshards.train.paper.study import Study
from specshards.train.tasks import metrics, plots
from specshards.train.tasks.metrics import BoolArray, FloatArray

_MOST_PANELS = 4
_MOST_BINS = 60
_LEAST_SN = 0.01
_UNKNOWN = "Which of Figures 2 to 4 of the paper it stands for is not known here."


@dataclass(frozen=True)
class PaperFigure:
    """A figure.

    Attributes:
        key: names its file. title: with the number. caption: what is drawn, of how many objects.
        draw: makes it; None where there is nothing to draw, which the caption then says.
    """

    key: str
    title: str
    caption: str
    draw: Callable[[], Figure] | None


def figures(study: Study) -> Iterator[PaperFigure]:
    """All that the study can draw, in the order of the paper."""
    name = study.widest
    objects = study.objects[name]
    z, sn = objects.numbers["z"], objects.numbers["sn_survey"]
    yield _distribution("2", "redshift by survey", name, objects, "z", z, by_class=False)
    yield _distribution("3", "redshift by survey and class", name, objects, "z", z, by_class=True)
    yield _distribution("4", "snMedian by survey and class", name, objects, "snMedian", sn, by_class=True)
    for place, name in enumerate(study.sets):
        yield _confusion(study, name, f"10_{place}")
    for place, name in enumerate(study.sets):
        yield _residuals(study, name, f"11_{place}")


def _distribution(
    number: str, title: str, name: str, objects: Objects, label: str, values: FloatArray, *, by_class: bool
) -> PaperFigure:
    known = np.isfinite(values) & ((values > 0) if label == "snMedian" else True)
    head = f"Figure {number}: {title}"
    if not known.any():
        return PaperFigure(number, head, f"No object of {name} has a {label}.", None)
    caption = f"{known.sum():,} of {len(values):,} spectra of {name}, all splits"
    if not known.all():
        caption += f"; the others have no {label}" + (" above 0" if label == "snMedian" else "")
    caption += ". The last bin holds all above the 99.9% quantile, too"
    if label == "snMedian" and (values[known] < _LEAST_SN).any():
        caption += f", the first all below {_LEAST_SN:g}"
    caption += ". "
    return PaperFigure(number, head, caption + _UNKNOWN, lambda: _histograms(objects, label, values, known, by_class))


def _histograms(objects: Objects, label: str, values: FloatArray, known: BoolArray, by_class: bool) -> Figure:
    surveys = sorted(set(objects.surveys))[:_MOST_PANELS]
    low, high = np.quantile(values[known], [0, 0.999])
    high = high if high > low else low + 1
    bins = int(np.clip(np.sqrt(known.sum()), 12, _MOST_BINS))
    edges = np.geomspace(max(low, _LEAST_SN), high, bins) if label == "snMedian" else np.linspace(low, high, bins)
    panels: list[tuple[str, list[tuple[str, BoolArray]]]]
    if by_class:
        panels = [
            (survey, [(kind, objects.is_class(kind) & (objects.surveys == survey) & known) for kind in CLASSES])
            for survey in surveys
        ]
    else:
        panels = [("", [(survey, (objects.surveys == survey) & known) for survey in surveys])]
    figure = new_figure(3.2 if len(panels) < 3 else 5.6, 2 if len(panels) > 1 else 1)
    lines = -(-len(panels) // 2)
    for place, (survey, groups) in enumerate(panels, 1):
        axes = figure.add_subplot(lines, min(2, len(panels)), place)
        for (kind, rows), colour in zip(groups, SERIES, strict=False):
            if rows.any():
                counts, _ = np.histogram(np.clip(values[rows], edges[0], edges[-1]), edges)
                axes.stairs(counts, edges, color=colour, lw=1.3, label=f"{kind} {rows.sum():,}", baseline=None)
        axes.set(xlabel=label, ylabel="spectra", title=survey, yscale="log")
        if label == "snMedian":
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")  # not the formulas of a logarithmic axis, which are no text
            axes.xaxis.set_minor_formatter("")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return figure


def _confusion(study: Study, name: str, key: str) -> PaperFigure:
    picture = study.picture(name, "classify")
    head = f"Figure 10: confusion matrix, {name}"
    block = None if picture is None else study.answers.block(name, "classify", picture)
    if block is None or not len(block):
        return PaperFigure(key, head, "No classes were learnt.", None)
    found = metrics.classification(block.true.astype(np.int64), block.answer.astype(np.int64), CLASSES)
    caption = (
        f"{len(block):,} test spectra, picture {PICTURES.get(str(picture), picture)}, which validation chose. That "
        "Figure 10 of the paper is its confusion matrix was not checked."
    )
    return PaperFigure(key, head, caption, lambda: plots.confusion(found["confusion"], CLASSES))


def _residuals(study: Study, name: str, key: str) -> PaperFigure:
    picture = study.picture(name)
    head = f"Figure 11: residuals in z over true z, {name}"
    block = None if picture is None else study.answers.block(name, "redshift", picture)
    if block is None or not len(block):
        return PaperFigure(key, head, "No redshifts were learnt.", None)
    caption = (
        f"{len(block):,} test spectra, picture {PICTURES.get(str(picture), picture)}, which validation chose: "
        "predicted - true redshift. Left all of them, right those between the 5th and the 95th percentile of the "
        "residuals, as the published code draws them."
    )
    return PaperFigure(key, head, caption, lambda: _over_truth(block))


def _over_truth(block: Block) -> Figure:
    figure = new_figure(3.6, 2)
    low, high = np.percentile(block.residuals, [5, 95])
    inner = (block.residuals >= low) & (block.residuals <= high)
    for place, (title, rows) in enumerate(
        {"all": np.ones(len(block), bool), "5th to 95th percentile": inner}.items(), 1
    ):
        _scatter(figure.add_subplot(1, 2, place), block.rows(rows), title)
    return figure


def _scatter(axes: Axes, block: Block, title: str) -> None:
    for i, (kind, colour) in enumerate([*zip(CLASSES, SERIES, strict=False), ("no class", MUTED)]):
        rows = block.classes == i if i < len(CLASSES) else np.isnan(block.classes)
        if rows.any():
            # Many points are a picture in the page, not a million circles.
            axes.plot(block.true[rows], block.residuals[rows], "o", ms=2.5, mew=0, alpha=0.3, color=colour,
                      label=f"{kind} {rows.sum():,}", rasterized=len(block) > plots.MOST_POINTS)  # fmt: skip
    axes.axhline(0, color=WARM, lw=1.0, ls="--")
    axes.set(xlabel="true z", ylabel="predicted - true z", title=f"{title}: {len(block):,}")
    axes.legend(markerscale=2)

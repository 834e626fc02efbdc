"""The tables: counts, accuracy, redshift, other methods, shares by S/N, stellar labels, CRPS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from specshards.common.spectrum import CLASSES
from specshards.train.paper import published
from specshards.train.paper.answers import Block
from specshards.train.paper.cells import Cell, Metric, missing
from specshards.train.paper.names import METHODS, PICTURES
from specshards.train.paper.published import Published
from specshards.train.paper.study import Study
from specshards.train.tasks import metrics

Content = Cell | Published | int | None
_LABELS = {"teff": (6, "Teff", "K"), "logg": (7, "log g", "dex"), "feh": (8, "[Fe/H]", "dex")}


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    name: str
    cells: tuple[Content, ...]


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        key: for --tables. number: in the paper, None where it is not known.
        columns: their heads; the first is that of the rows' names.
        form: `percent`, `number` or `count`.
        about: what is counted, and what the published code does otherwise; a line each.
        headline: the rows that are compared with a constant in the page's first line; all where it is empty.
    """

    key: str
    number: int | None
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    form: str
    about: tuple[str, ...] = ()
    headline: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As it is headed."""
        return f"Table {self.number}: {self.title}" if self.number else f"{self.title} (number not known)"

    def cells(self) -> Iterator[tuple[str, str, Cell]]:
        """Row, column and cell of all that were measured."""
        for row in self.rows:
            for column, cell in zip(self.columns[1:], row.cells, strict=True):
                if isinstance(cell, Cell):
                    yield row.name, column, cell

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        rows = [{"name": row.name, "cells": [_content(cell) for cell in row.cells]} for row in self.rows]
        plain = {"key": self.key, "number": self.number, "title": self.title, "form": self.form}
        return {**plain, "columns": list(self.columns), "rows": rows, "about": list(self.about)}


def _content(cell: Content) -> Any:
    if isinstance(cell, Published):
        return {"published": cell.value, "whose": cell.whose, "notes": [cell.about]}
    return cell.to_dict() if isinstance(cell, Cell) else cell


def accuracy(block: Block) -> float:
    """Share of right classes."""
    return float(np.mean(block.true == block.answer))


def r2(block: Block) -> float:
    """1 - residual / total sum of squares."""
    return metrics.r2(block.true, block.answer)


def non_catastrophic(block: Block) -> float:
    """Share of |dz| c below the limit of the class, over objects with a class."""
    known, within = metrics.non_catastrophic(block.true, block.answer, block.classes, CLASSES)
    return float(within[known].mean()) if known.any() else float("nan")


def mad(block: Block) -> float:
    """Median of |residual|."""
    return metrics.median_deviation(block.residuals)


def scatter(block: Block) -> float:
    """1.4826 times the MAD."""
    return 1.4826 * mad(block)


def deviation(block: Block) -> float:
    """Standard deviation of the residuals."""
    return float(np.std(block.residuals))


def crps_z(block: Block) -> float:
    """The published code's CRPS, with the width of these residuals."""
    return float(metrics.crps_gaussian_z(block.true, block.answer).mean())


def crps(block: Block) -> float:
    """CRPS of the predicted distributions, in ln(1 + z)."""
    return float(np.mean(block.crps))


def counts(study: Study) -> PaperTable:
    """Table 1."""
    rows = []
    for name, objects in study.objects.items():
        surveys = sorted(set(objects.surveys))
        for survey in [*surveys, *(["all"] if len(surveys) > 1 else [])]:
            here = np.asarray((objects.surveys == survey) | (len(surveys) > 1 and survey == "all"))
            by_class = [int((here & objects.is_class(kind)).sum()) for kind in CLASSES]
            by_split = [int((here & (objects.splits == split)).sum()) for split in ("train", "val", "test")]
            rows.append(
                Row(f"{name}: {survey}", (*by_class, int(here.sum()) - sum(by_class), int(here.sum()), *by_split))
            )
    columns = ("data set: survey", *CLASSES, "no class", "all", "train", "val", "test")
    about = "Every spectrum of the data set counts once, each visit of an object too."
    return PaperTable("counts", 1, "Spectra by class and survey", columns, tuple(rows), "count", (about,))


def by_picture(
    study: Study, key: str, title: str, task: str, metric: Metric, form: str, theirs: Published, about: str
) -> PaperTable:
    """Data sets and each survey of theirs in rows, pictures in columns, the published number in the last one."""
    rows = []
    for name in study.sets:
        objects = study.objects[name]
        alone = sorted(set(objects.surveys)) if objects.is_of_several_surveys else []
        for survey in ["", *alone]:
            cells = (study.cell(name, task, picture, metric, key, more=True, survey=survey) for picture in PICTURES)
            rows.append(Row(f"{name}: {survey} alone" if survey else name, (*cells, None if survey else theirs)))
    columns = ("trained and tested on", *PICTURES.values(), "published")
    return PaperTable(key, None, title, columns, tuple(rows), form, (about,))


def beside(
    study: Study, key: str, title: str, task: str, metric: Metric, kind: str, form: str, theirs: Sequence[Published]
) -> PaperTable:
    """Methods in rows, data sets in columns."""
    names = {picture: f"vision transformer, {text}" for picture, text in PICTURES.items()} | METHODS
    rows = [
        Row(text, (*(study.cell(name, task, method, metric, kind, more=True) for name in study.sets), None))
        for method, text in names.items()
    ]
    rows += [Row(each.whose, (*(None for _ in study.sets), each)) for each in theirs]
    about = "Other methods saw the spectra of the same objects, in the same splits; none saw a picture."
    return PaperTable(key, None, title, ("method", *study.sets, "published"), tuple(rows), form, (about,))


def by_sn(study: Study) -> PaperTable:
    """Table 5: of each set, the picture that validation chose."""
    rows, edges = [], published.SN_EDGES
    bins = [
        (f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} and more", low, high)
        for low, high in pairwise(edges)
    ]
    headline = []
    for name in study.sets:
        picture = study.picture(name)
        for text, low, high in [*bins, ("all", -np.inf, np.inf)]:
            cells = tuple(_share(study, name, picture, kinds, low, high) for kinds in published.SN_COLUMNS.values())
            rows.append(Row(f"{name}, {picture}: {text}", cells))
        headline.append(rows[-1].name)
    about = (
        "Of each data set the picture that did best on validation.",
        "By the survey's own snMedian (sn_survey), the lower end of a bin included. The constant is the one redshift "
        "that is no catastrophe for most train objects of the column's classes.",
        *published.CATASTROPHES,
    )
    columns = ("data set, picture: snMedian", *published.SN_COLUMNS)
    title = "Non-catastrophic share of redshifts by snMedian and class"
    return PaperTable("sn", 5, title, columns, tuple(rows), "percent", about, tuple(headline))


def _share(study: Study, name: str, picture: str | None, classes: Sequence[str], low: float, high: float) -> Cell:
    if picture is None:
        return missing("no redshifts were learnt")
    block = study.answers.block(name, "redshift", picture)
    if block is not None and np.isfinite(low) and not np.isfinite(block.sn).any():
        return missing("no object has an snMedian (sn_survey)")

    def choose(block: Block) -> Block:
        block = block.of_class(*classes)
        return block.rows((block.sn >= low) & (block.sn < high)) if np.isfinite(low) else block

    return study.cell(name, "redshift", picture, non_catastrophic, "non_catastrophic", more=True, choose=choose,
                      classes=classes)  # fmt: skip


def stars(study: Study, task: str) -> PaperTable:
    """Tables 6 to 8: class STAR alone."""
    number, title, unit = _LABELS[task]
    lines: dict[str, tuple[Metric, str, bool]] = {
        "R2": (r2, "r2", True), f"MAD, {unit}": (mad, "mad", False),
        f"1.4826 MAD, {unit}": (scatter, "mad", False), f"std of residuals, {unit}": (deviation, "std", False),
    }  # fmt: skip

    def star(block: Block) -> Block:
        return block.of_class("STAR")

    rows = [
        Row(f"{name}: {text}", tuple(
            study.cell(name, task, picture, metric, kind, more=more, choose=star, classes=("STAR",))
            for picture in PICTURES
        ))
        for name in study.sets for text, (metric, kind, more) in lines.items()
    ]  # fmt: skip
    about = (
        "Learnt and measured on objects of class STAR alone. MAD is the median of |residual|, about 0: "
        "a bias counts. 1.4826 MAD is the standard deviation of residuals that are Gaussian about 0. "
        "The constant of the last row is the mean label: what it "
        "leaves is the scatter of the labels themselves."
    )
    whose = (f"{name}: labelled stars are {study.objects[name].labelled(task)}." for name in study.sets)
    headline = tuple(f"{name}: R2" for name in study.sets)
    columns = ("data set: metric", *PICTURES.values())
    return PaperTable(task, number, f"{title} of stars", columns, tuple(rows), "number", (about, *whose), headline)


def scores(study: Study) -> PaperTable:
    """Table 9: both definitions of CRPS, of all and of quasars."""

    def quasars(block: Block) -> Block:
        return block.of_class("QSO")

    def everything(block: Block) -> Block:
        return block

    def predicted(block: Block) -> Block:
        return block.rows(np.isfinite(block.crps))

    rows, headline = [], []
    for name in study.sets:
        lines: list[tuple[str, str, Callable[[Block], Block], Sequence[str], Published | None]] = [
            ("crps_gaussian_z, all", "crps_gaussian_z", everything, CLASSES, None),
            ("crps_gaussian_z, quasars, sigma of all", "sigma of all", quasars, ("QSO",), published.SZNET_QSO),
            ("crps_gaussian_z, quasars, own sigma", "crps_gaussian_z", quasars, ("QSO",), published.SZNET_QSO),
            ("crps in ln(1 + z), all", "crps", predicted, CLASSES, None),
            ("crps in ln(1 + z), quasars", "crps", lambda block: predicted(quasars(block)), ("QSO",), None),
        ]
        for text, kind, choose, classes, theirs in lines:
            cells = (_crps(study, name, picture, kind, choose, classes) for picture in PICTURES)
            rows.append(Row(f"{name}: {text}", (*cells, theirs)))
        headline += [f"{name}: {lines[0][0]}", f"{name}: {lines[2][0]}"]
    columns = ("data set: definition", *PICTURES.values(), "published")
    return PaperTable("crps", 9, "CRPS of redshifts, all and quasars", columns, tuple(rows), "number",
                      published.CRPS, tuple(headline))  # fmt: skip


def _crps(
    study: Study, name: str, picture: str, kind: str, choose: Callable[[Block], Block], classes: Sequence[str]
) -> Cell:
    if kind == "sigma of all":
        whole = study.answers.block(name, "redshift", picture)
        sigma = 0.0 if whole is None or not len(whole) else float(np.std(whole.residuals))

        def metric(block: Block) -> float:
            return float(metrics.crps_gaussian(block.true, block.answer, sigma).mean())

        # The width of the model's residuals says nothing of a constant.
        return study.cell(name, "redshift", picture, metric, "", more=False, choose=choose)
    metric_of = {"crps_gaussian_z": crps_z, "crps": crps}
    return study.cell(name, "redshift", picture, metric_of[kind], kind, more=False, choose=choose, classes=classes)


_SPLITS = "On the test split, each model on the test objects of its own data set. The constant is "
TABLES: dict[str, Callable[[Study], PaperTable]] = {
    "counts": counts,
    "accuracy": lambda study: by_picture(
        study, "accuracy", "Classification accuracy by picture and data set", "classify", accuracy, "percent",
        published.ACCURACY, f"{_SPLITS}the commonest class of the train split.",
    ),
    "r2": lambda study: by_picture(
        study, "r2", "R2 of the redshift by picture and data set", "redshift", r2, "number",
        published.R2_REDSHIFT, f"{_SPLITS}the mean redshift of the train split.",
    ),
    "sn": by_sn,
    "teff": lambda study: stars(study, "teff"),
    "logg": lambda study: stars(study, "logg"),
    "feh": lambda study: stars(study, "feh"),
    "crps": scores,
    "classifiers": lambda study: beside(
        study, "classifiers", "Classification accuracy beside other methods", "classify", accuracy, "accuracy",
        "percent", (published.ACCURACY, published.WANG),
    ),
    "estimators": lambda study: beside(
        study, "estimators", "R2 of the redshift beside other methods", "redshift", r2, "r2", "number",
        (published.R2_REDSHIFT, published.ASTROCLIP),
    ),
}  # fmt: skip


#: Tables that hold the numbers of another one again, beside those of other methods.
_REPEATS = {"classifiers": "accuracy", "estimators": "r2"}


def losing(tables: Sequence[PaperTable]) -> tuple[list[str], int]:
    """The compared cells in whose metric a model is no better than the best constant, and how many are compared."""
    found, compared = [], 0
    shown = {table.key for table in tables}
    for table in tables:
        if _REPEATS.get(table.key) in shown:
            continue
        for row, column, cell in table.cells():
            if cell.better is None or (table.headline and row not in table.headline):
                continue
            compared += 1
            if not cell.better:
                found.append(f"{table.title}, {row}, {column}")
    return found, compared

"""What stands in the page of a data set, from the manifest, the sidecars, some samples, the ledger.

`templates/report.html` lays it out. Counts and histograms are of every object; pictures and spectra of some, chosen
by a hash of their rows. Equal shards give equal pages, but for what the ledger says of the runs and for spectra that
are there, or not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure as Plot

from specshards.common.html import Figure, Rows, Table, Templates
from specshards.common.svg import style, to_svg
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.format.manifest import SPLITS, Manifest
from specshards.shards.report import further, plots
from specshards.shards.report.gallery import articles, links
from specshards.shards.report.samples import Coverage, GallerySample, read_samples
from specshards.shards.report.snippets import FOLDER, snippets
from specshards.shards.report.sources import Source, find_sources
from specshards.shards.report.statistics import (
    AXES,
    UNLABELLED,
    Axis,
    Histogram,
    Statistics,
    quarantine_reasons,
    read_statistics,
)  # fmt: skip
from specshards.shards.write import job_log
from specshards.shards.write.card import left_out, split_by

#: Samples in the gallery, and spectra at random for the coverage where the shards hold them.
_GALLERY, _RANDOM = 60, 300
_MOST_REASONS = 40
_SKY = (
    "Objects by cell of 3.36 square degrees (HEALPix nside 32), in Mollweide's projection of right ascension, which "
    "grows to the left, and declination; a stronger colour means more of them, logarithmically."
)
_MOCK = "A simulator made these spectra; no telescope saw these objects."
_TEMPLATES = Templates("specshards.shards.report")


class Panel(NamedTuple):
    """A figure with its numbers; the figure is None where it cannot be drawn."""

    figure: Figure | None
    numbers: Table


def page(folder: Path, manifest: Manifest, spectra: Path | None = None) -> str:
    """The page's HTML; see `shards.report.make.write_page`."""
    holds_spectra = not ENCODINGS[manifest.config.encoding].needs_picture
    statistics = read_statistics(folder, manifest, _GALLERY, _RANDOM if holds_spectra else 0)
    sources, faults = find_sources(folder, manifest, spectra)
    samples = read_samples(folder, manifest, statistics.gallery, statistics.random, sources)
    runs = job_log.load(folder)
    filters = _filters(manifest, statistics)
    return _TEMPLATES.page(
        "report.html", f"{', '.join(manifest.surveys)}: {manifest.samples():,} spectra",
        mock=_MOCK if manifest.mock else "", style="report.css", script="gallery.js",
        manifest=manifest, facts=list(_facts(manifest, runs)), filters=filters,
        count_tables=_counts(statistics, filters), histograms=list(_histograms(manifest, statistics)),
        train_labels=_train_labels(manifest), further=_further(folder, manifest),
        coverage=_coverage(manifest, samples.coverage),
        sky=_sky(statistics, manifest),
        nowhere=_nowhere(statistics, manifest),
        missing="" if holds_spectra else _missing(sources, faults, samples.gallery),
        samples=articles(samples.gallery, filters["class"], manifest.mock),
        image=f"{manifest.config.image.image} picture", quarantine=_quarantine(folder),
        ingested=list(_ingested(sources)), runs=_runs(runs),
        configuration=json.dumps(manifest.config.to_dict(), indent=1, sort_keys=True),
        snippets=snippets(manifest), code_folder=FOLDER,
    )  # fmt: skip


def _missing(sources: Sequence[Source], faults: Sequence[str], samples: Sequence[GallerySample]) -> str:
    """What is said of spectra that are not in the shards and could not be had."""
    words = f"Spectra are not shown: {'; '.join(faults)}. " if faults else ""
    lacking = sum(sample.spectrum is None for sample in samples)
    if sources and lacking:
        words += f"Of {lacking} samples no spectrum is shown: it is not there, or would take long to find. "
    return words


def _figure(prefix: str, draw: Callable[[], Plot], label: str, caption: str, mock: bool) -> Figure | None:
    with style():
        return Figure.inline(prefix, to_svg(draw()), label, caption, mock)


def _sky(statistics: Statistics, manifest: Manifest) -> Figure | None:
    if not statistics.sky.any():
        return None
    return _figure("sky", partial(plots.sky, statistics.sky), "objects on the sky", _SKY, manifest.mock)


def _nowhere(statistics: Statistics, manifest: Manifest) -> str:
    """What is said of samples that are not on the map."""
    without = manifest.samples() - int(statistics.sky.sum())
    if without == manifest.samples():
        return "No positions: no sample says where on the sky it is."
    return f"{without:,} of {manifest.samples():,} samples have no position." if without else ""


def _account(manifest: Manifest) -> str:
    samples = f"{manifest.samples():,} samples + {manifest.quarantined:,} in quarantine"
    return f"{manifest.objects:,} spectra = {samples}{left_out(manifest)}"


def _facts(manifest: Manifest, runs: Sequence[job_log.JobRun]) -> Iterator[tuple[str, str]]:
    image, encoding = manifest.config.image, manifest.config.encoding
    total, last = sum(shard.bytes for shard in manifest.shards), job_log.last_timed(runs)
    yield "account", _account(manifest)
    yield "picture", f"{image.image}, {image.size} x {image.size} pixels"
    yield "stored as", f"{encoding}: {ENCODINGS[encoding].about}"
    mean = total / max(1, manifest.samples())
    yield "size", f"{total / 1e6:,.1f} MB in {len(manifest.shards):,} tars, {mean:,.0f} bytes a sample"
    yield "throughput", f"{last.rate:,.0f} objects/s" if last else "the ledger does not say"
    yield "split", split_by(manifest).removeprefix("split ")
    yield "fingerprint", manifest.fingerprint()
    yield "written by", f"specshards {manifest.program_version}, format version {manifest.format_version}"
    for made in manifest.made_from:
        condition = f", those where {made['where']}" if made.get("where") else ""
        spectra = f"{made['objects']:,} spectra of {', '.join(made['surveys'])}{condition}"
        yield "made from", f"{spectra}; fingerprint {made['fingerprint']}"


def _filters(manifest: Manifest, statistics: Statistics) -> dict[str, Sequence[str]]:
    """What there is of surveys, classes and splits; a word for objects without a class where there are such."""
    without = (UNLABELLED,) if statistics.counts[:, -1].any() else ()
    return {"survey": manifest.surveys, "class": (*manifest.classes, *without), "split": SPLITS}


def _counts(statistics: Statistics, filters: Mapping[str, Sequence[str]]) -> list[Table]:
    counts = statistics.counts[:, : len(filters["class"])]
    tables = (("survey", "class", counts.sum(axis=2)), ("split", "class", counts.sum(axis=0).T),
              ("survey", "split", counts.sum(axis=1)))  # fmt: skip
    return [
        Table(_cross(filters[row], filters[column], numbers), f"samples by {row} and {column}",
              f"By {row} and {column}", links(filters))
        for row, column, numbers in tables
    ]  # fmt: skip


def _cross(rows: Sequence[str], columns: Sequence[str], numbers: npt.NDArray[np.int64]) -> Rows:
    """A table of counts with their sums."""
    lines = [(name, line) for name, line in zip(rows, numbers, strict=True)]
    lines += [("all", numbers.sum(axis=0))] if len(rows) > 1 else []
    return [["", *columns, "all"], *([name, *map(_n, line), _n(line.sum())] for name, line in lines)]


def _n(number: Any) -> str:
    return f"{int(number):,}"


def _histograms(manifest: Manifest, statistics: Statistics) -> Iterator[tuple[Axis, Panel | None]]:
    names = (*manifest.classes, UNLABELLED)
    for axis in AXES:
        histogram = statistics.histograms.get(axis.name)
        if histogram is None:
            yield axis, None
            continue
        caption = (
            f"{histogram.objects.sum():,} of {manifest.samples():,} objects have one; beyond the frame: "
            f"{(histogram.below + histogram.above).sum():,}."
        )
        draw = partial(plots.histogram, histogram, names)
        drawing = _figure(axis.name, draw, f"objects by {axis.title}", caption, manifest.mock)
        yield axis, Panel(drawing, Table(_bins(histogram, names), f"objects by {axis.title}, numbers"))


def _bins(histogram: Histogram, names: Sequence[str]) -> Rows:
    kept = np.flatnonzero(histogram.objects).tolist()
    rows = [["from", "to", *(names[i] for i in kept)], ["", "lower", *(_n(histogram.below[i]) for i in kept)]]
    for place, (low, high) in enumerate(zip(histogram.edges, histogram.edges[1:], strict=False)):
        rows.append([f"{low:.10g}", f"{high:.10g}", *(_n(histogram.counts[i, place]) for i in kept)])
    return [*rows, ["higher", "", *(_n(histogram.above[i]) for i in kept)]]


def _train_labels(manifest: Manifest) -> Table:
    rows = [["label", "objects", "mean", "standard deviation", "least", "greatest"]]
    for name in manifest.labels:
        stats = manifest.label_stats.get(name)
        if stats is None or name in ("class", "survey"):  # those two are names
            continue
        values = (stats.mean, stats.std, stats.min, stats.max) if stats.count else ()
        rows.append([name, f"{stats.count:,}", *(f"{v:.5g}" for v in values), *[""] * (4 - len(values))])
    return Table(rows, "labels of the train split", "Of the train split")


def _further(folder: Path, manifest: Manifest) -> Table | None:
    counts = further.count_further(folder, manifest)
    return Table(further.as_rows(counts), "further columns of all samples") if counts else None


def _coverage(manifest: Manifest, surveys: Mapping[str, Coverage]) -> Panel | None:
    if not surveys:
        return None
    count = sum(len(coverage.first) for coverage in surveys.values())
    at_random = not ENCODINGS[manifest.config.encoding].needs_picture
    chosen = "drawn at random" if at_random else "read with the samples below"
    caption = (
        f"Share of {count:,} spectra, of {manifest.samples():,}, {chosen}, that have a usable pixel there: a finite "
        "flux, not masked, and an ivar above 0 where the survey gives one."
    )
    rows = [["survey", "spectra", "first (Å)", "last (Å)", "pixels", "usable"]]
    for survey, coverage in surveys.items():
        ends, pixels = [_spread(coverage.first), _spread(coverage.last)], f"{np.median(coverage.pixels):,.0f}"
        rows.append([survey, f"{len(coverage.first):,}", *ends, pixels, f"{np.mean(coverage.usable):.1%}"])
    draw = partial(plots.coverage, surveys, manifest.config.image.window)
    drawing = _figure("w", draw, "coverage by wavelength", caption, manifest.mock)
    return Panel(drawing, Table(rows, "wavelengths by survey"))


def _spread(values: Sequence[float]) -> str:
    low, middle, high = np.percentile(values, [5, 50, 95])
    return f"{middle:,.0f} [{low:,.0f} to {high:,.0f}]"


def _quarantine(folder: Path) -> Table | None:
    reasons = [
        (f"{reason.stage}: {reason.text}" if reason.stage else reason.text, reason.objects, reason.first)
        for reason in quarantine_reasons(folder)
    ]
    return _reasons(reasons, "quarantine") if reasons else None


def _ingested(sources: Sequence[Source]) -> Iterator[dict[str, Any]]:
    """What `ingest` says of the survey files of each source."""
    for source in sources:
        account = source.ingested()
        if account is not None:
            files, samples, reasons = account
            surveys = ", ".join(source.spectra.surveys)
            ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
            table = _reasons([(reason, n, "") for reason, n in ordered], f"survey files of {surveys}")
            yield {"surveys": surveys, "files": files, "samples": samples, "reasons": table if ordered else None}


def _reasons(reasons: Sequence[tuple[str, int, str]], label: str) -> Table:
    """Reasons, how often each, and the first object; the least frequent of very many in one row."""
    rest = reasons[_MOST_REASONS:]
    rows = list(reasons[:_MOST_REASONS])
    if rest:
        rows.append((f"{len(rest):,} more reasons", sum(n for _, n, _ in rest), ""))
    head = ["reason", "objects", *(["the first of them"] if any(first for _, _, first in rows) else [])]
    return Table([head, *([reason, f"{n:,}", first][: len(head)] for reason, n, first in rows)], f"reasons: {label}")


def _runs(runs: Sequence[job_log.JobRun]) -> Table | None:
    rows = [["read", "shard numbers made", "objects", "seconds", "objects/s", "worker processes"]]
    for run in runs:
        source = run.spectra or ", ".join(run.sources)
        workers = "of a scheduler" if run.workers is None else f"{run.workers or 1}"
        timed = [f"{run.objects:,}", f"{run.seconds:,.1f}", f"{run.rate:,.0f}"] if run.rate else ["0", "", ""]
        rows.append([source, f"{run.shards:,} of {run.of:,}", *timed, workers])
    return Table(rows, "runs") if runs else None

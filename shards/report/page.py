"""What stands in the page of a data set: sections of HTML, from the manifest, the sidecars, some samples, the ledger.

Counts and histograms are of every object; pictures and spectra of some, chosen by a hash of their rows. Equal shards
give equal pages, but for what the ledger says of the runs and for spectra that are there, or not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from specshards.common.html import document, figure, pairs, table
from specshards.common.svg import style, to_svg
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.format.manifest import SPLITS, Manifest
from specshards.shards.report import plots
from specshards.shards.report.gallery import SCRIPT, STYLE, gallery, links
from specshards.shards.report.samples import Coverage, Example, collect
from specshards.shards.report.snippets import FOLDER, snippets
from specshards.shards.report.sources import Origin, find
from specshards.shards.report.statistics import AXES, UNLABELLED, Histogram, Tally, quarantine, tally
from specshards.shards.write import job_log

#: Samples in the gallery, and spectra at random for the coverage where the shards hold them.
_SHOWN, _DRAWN = 60, 300
_MOST_REASONS = 40
_SKY = (
    "Objects by cell of 3.36 square degrees (HEALPix nside 32), in Mollweide's projection of right ascension, which "
    "grows to the left, and declination; a stronger colour means more of them, logarithmically."
)
_MOCK = "A simulator made these spectra; no telescope saw these objects."


def page(folder: Path, manifest: Manifest, spectra: Path | None = None) -> str:
    """The page's HTML; see `shards.report.write.write`."""
    holds_spectra = manifest.config.encoding == "flux"
    sums = tally(folder, manifest, _SHOWN, _DRAWN if holds_spectra else 0)
    origins, faults = find(folder, manifest, spectra)
    found = collect(folder, manifest, sums.shown, sums.drawn, origins)
    jobs = job_log.load(folder)
    missing = "" if holds_spectra else _missing(origins, faults, found.shown)
    sections = [
        ("At a glance", _glance(manifest, jobs)),
        ("Counts", _counts(manifest, sums)),
        ("Labels", _labels(manifest, sums)),
        ("Wavelengths", _wavelengths(manifest, found.coverage, missing)),
        ("Sky", _drawing("sky", partial(plots.sky, sums.sky), "objects on the sky", _SKY, manifest.mock)),
        ("Samples", _samples(manifest, sums, found.shown, missing)),
        ("Quarantine", _quarantine(folder, origins)),
        ("Runs", _runs(jobs)),
        ("Configuration", _configuration(manifest)),
        ("How to load it", _loading(manifest)),
    ]
    return document(
        f"{', '.join(manifest.surveys)}: {manifest.samples():,} spectra",
        "<p>Counts and histograms are of every object; pictures and spectra of some of them.</p>",
        sections, mock=_MOCK if manifest.mock else "", style=STYLE, script=SCRIPT,
        head=f'<meta name="data-set" content="{manifest.fingerprint()}">',
    )  # fmt: skip


def _missing(origins: Sequence[Origin], faults: Sequence[str], shown: Sequence[Example]) -> str:
    """What is said of spectra that are not in the shards and could not be had."""
    words = f"Spectra are not shown: {'; '.join(faults)}. " if faults else ""
    lacking = sum(example.spectrum is None for example in shown)
    if origins and lacking:
        words += f"Of {lacking} samples no spectrum is shown: it is not there, or would take long to find. "
    return words


def _drawing(prefix: str, draw: Callable[[], Figure], label: str, caption: str, mock: bool) -> str:
    with style():
        return figure(prefix, to_svg(draw()), label, caption, mock)


def _account(manifest: Manifest) -> str:
    left_out = f" + {manifest.left_out:,} left out by a filter" if manifest.left_out else ""
    samples = f"{manifest.samples():,} samples + {manifest.quarantined:,} in quarantine"
    return f"{manifest.objects:,} spectra = {samples}{left_out}"


def _glance(manifest: Manifest, jobs: Sequence[job_log.Run]) -> str:
    image, encoding = manifest.config.image, manifest.config.encoding
    total, last = sum(shard.bytes for shard in manifest.shards), job_log.last_timed(jobs)
    rows = [
        ("account", _account(manifest)),
        ("picture", f"{image.image}, {image.size} x {image.size} pixels"),
        ("stored as", f"{encoding}: {ENCODINGS[encoding].about}"),
        ("size", f"{total / 1e6:,.1f} MB in {len(manifest.shards):,} tars, "
                 f"{total / max(1, manifest.samples()):,.0f} bytes a sample"),
        ("throughput", f"{last.rate:,.0f} objects/s" if last else "the ledger does not say"),
        ("split", f"by cell of the sky, HEALPix nside {manifest.config.split_nside}: visits of one object, and one "
                  "star in two surveys, fall together"),
        ("fingerprint", manifest.fingerprint()),
        ("written by", f"specshards {manifest.program_version}, format version {manifest.format_version}"),
    ]  # fmt: skip
    for made in manifest.made_from:
        chosen = f", those where {made['where']}" if made.get("where") else ""
        what = f"{made['objects']:,} spectra of {', '.join(made['surveys'])}{chosen}"
        rows.append(("made from", f"{what}; fingerprint {made['fingerprint']}"))
    return pairs((name, escape(value)) for name, value in rows)


def _names(manifest: Manifest, sums: Tally) -> dict[str, Sequence[str]]:
    """What there is of surveys, classes and splits; a word for objects without a class where there are such."""
    without = (UNLABELLED,) if sums.counts[:, -1].any() else ()
    return {"survey": manifest.surveys, "class": (*manifest.classes, *without), "split": SPLITS}


def _counts(manifest: Manifest, sums: Tally) -> str:
    names = _names(manifest, sums)
    counts = sums.counts[:, : len(names["class"])]
    tables = (
        ("survey and class", names["survey"], names["class"], counts.sum(axis=2)),
        ("split and class", names["split"], names["class"], counts.sum(axis=0).T),
        ("survey and split", names["survey"], names["split"], counts.sum(axis=1)),
    )
    body = "".join(
        table(_cross(rows, columns, numbers), f"samples by {what}", f"By {what}", links(names))
        for what, rows, columns, numbers in tables
    )
    return f'<div class="tables">{body}</div><p>A name leads to samples of it.</p>'


def _cross(rows: Sequence[str], columns: Sequence[str], numbers: Any) -> list[list[str]]:
    """A table of counts with their sums."""
    lines = [(name, line) for name, line in zip(rows, numbers, strict=True)]
    lines += [("all", numbers.sum(axis=0))] if len(rows) > 1 else []
    return [["", *columns, "all"], *([name, *map(_n, line), _n(line.sum())] for name, line in lines)]


def _n(number: Any) -> str:
    return f"{int(number):,}"


def _labels(manifest: Manifest, sums: Tally) -> str:
    parts = []
    for axis in AXES:
        found = sums.histograms.get(axis.name)
        if found is None:
            parts.append(f"<p>{escape(axis.title)}: none of the objects has one.</p>")
        else:
            parts.append(_histogram(found, manifest))
    rows = [["label", "objects", "mean", "standard deviation", "least", "greatest"]]
    for name in manifest.labels:
        stats = manifest.label_stats.get(name)
        if stats is None or name in ("class", "survey"):  # those two are names
            continue
        values = (stats.mean, stats.std, stats.min, stats.max) if stats.count else ()
        rows.append([name, f"{stats.count:,}", *(f"{v:.5g}" for v in values), *[""] * (4 - len(values))])
    body = "".join(parts)
    train = table(rows, "labels of the train split", "Of the train split")
    return f'<div class="figures">{body}{train}</div>'


def _histogram(found: Histogram, manifest: Manifest) -> str:
    names, title = (*manifest.classes, UNLABELLED), found.axis.title
    caption = (
        f"{found.objects.sum():,} of {manifest.samples():,} objects have one; beyond the frame: "
        f"{(found.below + found.above).sum():,}."
    )
    draw = partial(plots.histogram, found, names)
    drawing = _drawing(found.axis.name, draw, f"objects by {title}", caption, manifest.mock)
    return f"<div>{drawing}{_numbers(found, names)}</div>"


def _numbers(found: Histogram, names: Sequence[str]) -> str:
    """The numbers of a histogram."""
    kept = np.flatnonzero(found.objects).tolist()
    rows = [["from", "to", *(names[i] for i in kept)], ["", "lower", *(_n(found.below[i]) for i in kept)]]
    for place, (low, high) in enumerate(zip(found.edges, found.edges[1:], strict=False)):
        rows.append([f"{low:.10g}", f"{high:.10g}", *(_n(found.counts[i, place]) for i in kept)])
    rows.append(["higher", "", *(_n(found.above[i]) for i in kept)])
    shown = table(rows, f"objects by {found.axis.title}, numbers")
    return f'<details id="{found.axis.name}"><summary>Numbers</summary>{shown}</details>'


def _wavelengths(manifest: Manifest, coverage: dict[str, Coverage], missing: str) -> str:
    if not coverage:
        return f"<p>{escape(missing or 'No spectrum could be read.')}</p>"
    count = sum(len(its.first) for its in coverage.values())
    chosen = "drawn at random" if manifest.config.encoding == "flux" else "read with the samples below"
    caption = (
        f"Share of {count:,} spectra, of {manifest.samples():,}, {chosen}, that have a usable pixel there: a finite "
        "flux, not masked, and an ivar above 0 where the survey gives one."
    )
    rows = [["survey", "spectra", "first (Å)", "last (Å)", "pixels", "usable"]]
    for survey, its in coverage.items():
        ends, pixels = [_spread(its.first), _spread(its.last)], f"{np.median(its.pixels):,.0f}"
        rows.append([survey, f"{len(its.first):,}", *ends, pixels, f"{np.mean(its.usable):.1%}"])
    window = manifest.config.image.window
    draw = partial(plots.coverage, coverage, window)
    drawing = _drawing("w", draw, "coverage by wavelength", caption, manifest.mock)
    note = "First and last usable wavelength and pixels: medians; in brackets from the 5th to the 95th percentile."
    return f'<div class="figures">{drawing}<div>{table(rows, "wavelengths by survey")}<p>{note}</p></div></div>'


def _spread(values: Sequence[float]) -> str:
    low, middle, high = np.percentile(values, [5, 50, 95])
    return f"{middle:,.0f} [{low:,.0f} to {high:,.0f}]"


def _samples(manifest: Manifest, sums: Tally, examples: Sequence[Example], missing: str) -> str:
    image = f"{manifest.config.image.image} picture"
    told = f"{len(examples)} of {manifest.samples():,} samples, of every survey, class and split in turn. {missing}"
    if any(example.spectrum for example in examples):
        told += (
            "Spectra are flux against wavelength in Angstrom: pale the lowest and highest pixel of each column, "
            "strong the median."
        )
    return f"<p>{escape(told)}</p>{gallery(examples, _names(manifest, sums), image, manifest.mock)}"


def _quarantine(folder: Path, origins: Sequence[Origin]) -> str:
    found = quarantine(folder)
    parts = ["<p>Every spectrum gave a sample.</p>"]
    if found:
        total = sum(n for _, _, n, _ in found)
        parts = [f"<p>{total:,} spectra gave no sample; all are in quarantine.parquet.</p>"]
        told = [(f"{stage}: {reason}" if stage else reason, n, first) for stage, reason, n, first in found]
        parts.append(_reasons(told, "quarantine"))
    for origin in origins:
        account = origin.ingested()
        if account is not None:
            files, samples, reasons = account
            what = f"survey files of {', '.join(origin.spectra.surveys)}"
            parts.append(f"<h3>Before that, in the {escape(what)}</h3>")
            parts.append(f"<p>{files:,} files gave {samples:,} spectra; ingest/quarantine.parquet has the rest.</p>")
            most = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
            parts.append(_reasons([(reason, n, "") for reason, n in most], what) if most else "")
    return "".join(parts)


def _reasons(found: Sequence[tuple[str, int, str]], label: str) -> str:
    """Reasons, how often each, and the first object; the least frequent of very many in one row."""
    rest = found[_MOST_REASONS:]
    shown = [
        *found[:_MOST_REASONS],
        *([(f"{len(rest):,} more reasons", sum(n for _, n, _ in rest), "")] if rest else []),
    ]
    examples = any(first for _, _, first in shown)
    head = ["reason", "objects", *(["the first of them"] if examples else [])]
    return table([head, *([reason, f"{n:,}", first][: len(head)] for reason, n, first in shown)], f"reasons: {label}")


def _runs(jobs: Sequence[job_log.Run]) -> str:
    if not jobs:
        return "<p>The ledger does not say how long the runs took.</p>"
    rows = [["read", "shard numbers made", "objects", "seconds", "objects/s", "worker processes"]]
    for job in jobs:
        source = job.spectra or ", ".join(job.sources)
        workers = "of a scheduler" if job.workers is None else f"{job.workers or 1}"
        timed = [f"{job.objects:,}", f"{job.seconds:,.1f}", f"{job.rate:,.0f}"] if job.rate else ["0", "", ""]
        rows.append([source, f"{job.shards:,} of {job.of:,}", *timed, workers])
    return table(rows, "runs") + "<p>The last run is last; what an interrupted one had made is not counted again.</p>"


def _configuration(manifest: Manifest) -> str:
    content = json.dumps(manifest.config.to_dict(), indent=1, sort_keys=True)
    return f'<pre tabindex="0" aria-label="configuration">{escape(content)}</pre>'


def _loading(manifest: Manifest) -> str:
    parts = [
        f'<h3>{escape(name)}</h3><pre tabindex="0" aria-label="{escape(name)}">{escape(code)}</pre>'
        for name, code in snippets(manifest).items()
    ]
    return f"<p><code>{FOLDER}</code> is the folder of this page.</p>" + "".join(parts)

"""Statistics of a data set from its sidecars, a batch of rows at a time: counts, histograms, sky, samples to show.

Memory does not grow with the data set: 65,536 rows of seven columns, and what is counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from specshards.common.errors import JobError, is_environment, shortened
from specshards.common.files import is_remote, sha256
from specshards.common.quarantine import QUARANTINE_SCHEMA
from specshards.common.remote import opened
from specshards.ingest.spectra.schema import HEALPIX_ORDER
from specshards.shards.format.manifest import SPLITS, Manifest, ShardRecord
from specshards.shards.format.nearby import nearby_sidecar
from specshards.shards.write.split import splitmix64

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

UNLABELLED = "unlabelled"
#: HEALPix order of the map of the sky: nside 32, 12,288 cells of 3.36 square degrees.
SKY_ORDER = 5
_BATCH = 65_536
_COLUMNS = ("source_row", "survey", "class", "_healpix_29")
#: The frame of a histogram leaves out a thousandth at either end, by the first rows of so many shards.
_PERCENTILES = (0.1, 99.9)
_FIRST_SHARDS, _FIRST_ROWS = 64, 16_384
_BINS = 50
#: Seed of the hash that chooses samples; no other seed's choice goes by it.
_CHOICE = 20_000
#: Different reasons that are kept apart, and up to how many of them the numbers in them are, too.
_MOST_REASONS, _MOST_EXACT = 1000, 25


@dataclass(frozen=True)
class Axis:
    """A label of which the page has a histogram."""

    name: str
    title: str
    unit: str = ""
    log: bool = False


AXES = (Axis("z", "redshift"), Axis("sn_median", "median S/N per pixel", log=True), Axis("teff", "Teff", "K"))


@dataclass
class Histogram:
    """Objects by value and class.

    Attributes:
        edges: float64 `(n + 1,)`; a bin has its left edge, the last one both.
        counts: int64 `(classes + 1, n)`, the unlabelled last.
        below, above: int64 `(classes + 1,)`, objects beyond the frame.
    """

    axis: Axis
    edges: Floats
    counts: Ints
    below: Ints
    above: Ints

    @classmethod
    def empty(cls, axis: Axis, edges: Floats, classes: int) -> Histogram:
        """Nothing counted yet, of objects of so many classes."""
        counts = np.zeros((classes + 1, len(edges) + 1), np.int64)
        return cls(axis, edges, counts[:, 1:-1], counts[:, 0], counts[:, -1])

    @property
    def objects(self) -> Ints:
        """Objects that have the label, by class: int64 `(classes + 1,)`."""
        return np.asarray(self.counts.sum(axis=1) + self.below + self.above)

    def add(self, values: Floats, classes: Ints) -> None:
        """Count values, NaN = missing, of objects of these classes."""
        present = ~np.isnan(values)
        values, classes = values[present], classes[present]
        for number in np.unique(classes).tolist():
            members = values[classes == number]
            self.counts[number] += np.histogram(members, self.edges)[0]
            self.below[number] += int((members < self.edges[0]).sum())
            self.above[number] += int((members > self.edges[-1]).sum())


@dataclass(frozen=True)
class ChosenSample:
    """Where a sample is: number of its shard and of its survey in the manifest, index in the shard, global row."""

    shard: int
    index: int
    row: int
    survey: int


@dataclass(frozen=True)
class Statistics:
    """Of all objects of a data set.

    Attributes:
        counts: int64 `(surveys, classes + 1, splits)`, the unlabelled last.
        histograms: by label; a label that no object has is absent.
        sky: int64 `(12,288,)`, objects by nested HEALPix cell of `SKY_ORDER`.
        gallery: samples to show, each group of survey, class and split in turn.
        random: samples at random.
    """

    counts: Ints
    histograms: dict[str, Histogram]
    sky: Ints
    gallery: tuple[ChosenSample, ...]
    random: tuple[ChosenSample, ...]


def read_statistics(folder: Path, manifest: Manifest, gallery: int, random: int) -> Statistics:
    """Read every sidecar once, and the first rows of some of them before.

    Args:
        gallery, random: how many samples to choose. The choice is by a hash of their rows: the same in every order.

    Raises:
        JobError: a sidecar is missing or damaged, or not what the manifest says.
    """
    histograms = {
        axis.name: Histogram.empty(axis, edges, len(manifest.classes))
        for axis, edges in _edges(folder, manifest).items()
    }
    counts = np.zeros((len(manifest.surveys), len(manifest.classes) + 1, len(SPLITS)), np.int64)
    sky = np.zeros(12 << 2 * SKY_ORDER, np.int64)
    by_group, overall = SampleChooser(gallery), SampleChooser(random)
    for number, record in enumerate(manifest.shards):
        split, index = SPLITS.index(record.split), 0
        shard_counts = np.zeros_like(counts[:, :, 0])
        with _sensible(record.sidecar(folder)):
            for batch in _batches(folder, record, (*_COLUMNS, *histograms)):
                surveys, classes = _codes(batch, "survey", manifest.surveys), _codes(batch, "class", manifest.classes)
                if (surveys == len(manifest.surveys)).any():
                    raise _unlike(folder, record, "a survey that the manifest does not name")
                np.add.at(shard_counts, (surveys, classes), 1)
                cells = _column(batch, "_healpix_29", pa.int64()) >> 2 * (HEALPIX_ORDER - SKY_ORDER)
                sky += np.bincount(cells[cells >= 0], minlength=len(sky))
                for name, histogram in histograms.items():
                    histogram.add(_floats(batch, name), classes)
                rows = _column(batch, "source_row", pa.int64())
                order = splitmix64(rows.astype(np.uint64), _CHOICE)
                samples = np.stack([np.full_like(rows, number), index + np.arange(len(rows)), rows, surveys], axis=1)
                overall.offer((), order, samples)
                for survey, kind in np.argwhere(shard_counts).tolist():
                    members = (surveys == survey) & (classes == kind)
                    by_group.offer((survey, kind, split), order[members], samples[members])
                index += len(rows)
        _compare(folder, record, shard_counts.sum(axis=0), manifest)
        if not is_remote(folder) and sha256(record.sidecar(folder)) != record.sidecar_sha256:  # of a copy it is known
            raise _unlike(folder, record, "not the bytes that the manifest speaks of (checksum)")
        counts[:, :, split] += shard_counts
    return Statistics(counts, histograms, sky, by_group.in_turn(), overall.in_turn())


class SampleChooser:
    """Of each group of samples the `keep` that come first by a hash, in whatever order they are offered."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._kept: dict[tuple[int, ...], tuple[Floats, Ints]] = {}

    def offer(self, group: tuple[int, ...], order: Floats, samples: Ints) -> None:
        """Take what comes early; samples are `(n, 4)`: the fields of `ChosenSample`."""
        if not self._keep:
            return
        if group in self._kept:
            before, chosen = self._kept[group]
            near = slice(None) if len(before) < self._keep else order < before[-1]
            order, samples = np.concatenate([before, order[near]]), np.concatenate([chosen, samples[near]])
        first = np.lexsort((samples[:, 2], order))[: self._keep]
        self._kept[group] = order[first], samples[first]

    def in_turn(self) -> tuple[ChosenSample, ...]:
        """At most `keep` in all: the first of every group, then the second of every group that has one, ..."""
        groups = [self._kept[group][1].tolist() for group in sorted(self._kept)]
        longest = max(map(len, groups), default=0)
        turns = [ChosenSample(*group[turn]) for turn in range(longest) for group in groups if turn < len(group)]
        return tuple(turns[: self._keep])


def by_shard(samples: Iterable[ChosenSample]) -> Iterator[tuple[int, list[ChosenSample]]]:
    """The number of each shard with its samples, in the order of the tar."""
    ordered = sorted(samples, key=lambda sample: (sample.shard, sample.index))
    for number, members in groupby(ordered, key=lambda sample: sample.shard):
        yield number, list(members)


def sidecar_rows(
    folder: Path, manifest: Manifest, samples: Iterable[ChosenSample]
) -> Iterator[tuple[ChosenSample, dict[str, object]]]:
    """The sidecar's row of each sample, shard by shard.

    Raises:
        JobError: a sidecar is missing or damaged.
    """
    for number, members in by_shard(samples):
        start = 0
        for batch in _batches(folder, manifest.shards[number], None):
            inside = [sample for sample in members if start <= sample.index < start + len(batch)]
            rows = batch.take(pa.array([sample.index - start for sample in inside], pa.int64()))
            yield from zip(inside, rows.to_pylist(), strict=True)
            start += len(batch)


class Reason(NamedTuple):
    """Why some objects gave no sample: how many, and the first of them. The rest of very many has no stage."""

    stage: str
    text: str
    objects: int
    first: str


def quarantine_reasons(folder: Path) -> list[Reason]:
    """Why objects gave no sample, the most frequent reason first.

    Where there are many reasons, numbers in them become `#`; where there are still very many, the last row has the
    rest. The counts add up to the rows of `quarantine.parquet`.

    Raises:
        JobError: it is missing or damaged.
    """
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], str] = {}
    exact = True

    def add(reason: Reason) -> None:
        name = (reason.stage, reason.text if exact else re.sub(r"\d[\d.e+-]*", "#", reason.text))
        if name not in counts and len(counts) >= _MOST_REASONS:
            name = ("", "other reasons")
        counts[name] += reason.objects
        first.setdefault(name, reason.first)

    def reasons() -> list[Reason]:
        return [Reason(*name, objects, first[name]) for name, objects in counts.items()]

    path, columns = folder / "quarantine.parquet", ("file", "row", "stage", "reason")
    for batch in _read(path, columns):
        with _sensible(path):
            rows = batch.select(columns).cast(pa.schema([QUARANTINE_SCHEMA.field(name) for name in columns]))
        for row in rows.to_pylist():
            place = row["file"] if row["row"] is None else f"{row['file']}, row {row['row']:,}"
            add(Reason(row["stage"], row["reason"], 1, place))
            if exact and len(counts) > _MOST_EXACT:
                exact, so_far = False, reasons()
                counts, first = Counter(), {}
                for reason in so_far:
                    add(reason)
    return sorted(reasons(), key=lambda reason: (not reason.stage, -reason.objects, reason.stage, reason.text))


def _edges(folder: Path, manifest: Manifest) -> dict[Axis, Floats]:
    """The edges of every histogram, from the first rows of some shards; of an axis that no object is on, none."""
    numbers = sorted({*np.linspace(0, len(manifest.shards) - 1, _FIRST_SHARDS).round().astype(int).tolist()})
    records = [manifest.shards[number] for number in numbers] if manifest.shards else []
    names = [axis.name for axis in AXES]
    heads = [batch for record in records for batch in islice(_batches(folder, record, names, _FIRST_ROWS), 1)]
    edges = {}
    for axis in AXES:
        values = _present([_floats(batch, axis.name) for batch in heads])
        if not len(values):  # a label that few objects have
            every = (_floats(b, axis.name) for r in manifest.shards for b in _batches(folder, r, [axis.name]))
            values = next((some for some in map(_present, ([one] for one in every)) if len(some)), values)
        if len(values):
            edges[axis] = bin_edges(values, axis.log)
    return edges


def _present(columns: Sequence[Floats]) -> Floats:
    values = np.concatenate([*columns, np.empty(0)])
    return values[~np.isnan(values)]


def bin_edges(values: Floats, log: bool) -> Floats:
    """Edges of about 50 bins, at round numbers, that hold nearly all of some finite values.

    Bins of a logarithmic axis are equal steps of the logarithm, and values up to 0 are not on it.
    """
    if log:
        positive = values[values > 0]
        values = np.log10(positive) if len(positive) else np.zeros(1)
    low = float(np.percentile(values, _PERCENTILES[0], method="lower"))
    high = float(np.percentile(values, _PERCENTILES[1], method="higher"))
    # Of values that are all but alike, steps that floats can tell apart.
    width = max((high - low) / _BINS or 0.02 * abs(low) or 0.02, 1e-9 * max(abs(low), abs(high)), 1e-15)
    power = int(np.floor(np.log10(width)))
    factor = next(f for f in (1, 2, 5, 10) if f * 10.0**power >= width)
    step = factor * 10.0**power
    # Whole numbers are scaled once, so that an edge is the float that its decimal digits mean.
    numbers = np.arange(np.floor(low / step), np.floor(high / step) + 2) * factor
    edges = numbers / 10.0**-power if power < 0 else numbers * 10.0**power
    return 10.0**edges if log else edges


def _compare(folder: Path, record: ShardRecord, classes: Ints, manifest: Manifest) -> None:
    recorded = [record.classes.get(name, 0) for name in (*manifest.classes, UNLABELLED)]
    if recorded != classes.tolist():
        raise _unlike(folder, record, f"{int(classes.sum()):,} samples of other classes than the manifest says")


def _unlike(folder: Path, record: ShardRecord, what: str) -> JobError:
    return JobError(f"{record.sidecar(folder)}: {what}; `specshards shards verify` says more")


def _batches(
    folder: Path, record: ShardRecord, columns: Sequence[str] | None, rows: int = _BATCH
) -> Iterator[pa.RecordBatch]:
    with nearby_sidecar(record, folder) as path:
        yield from _read(path, columns, rows)


def _read(path: Path, columns: Sequence[str] | None, rows: int = _BATCH) -> Iterator[pa.RecordBatch]:
    try:
        with opened(path) as content, pq.ParquetFile(content) as file:
            present = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
            yield from file.iter_batches(rows, columns=present, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        if is_environment(error):
            raise
        why = "missing" if isinstance(error, FileNotFoundError) else "damaged Parquet"
        raise JobError(f"{path}: {why}; `specshards shards verify` says more") from error


@contextmanager
def _sensible(path: Path) -> Iterator[None]:
    """Make what a table with other columns leads to the line that names it."""
    try:
        yield
    except (pa.ArrowException, KeyError, TypeError, ValueError, IndexError) as error:
        why = f"not what this program writes ({shortened(error)})"
        raise JobError(f"{path}: {why}; `specshards shards verify` says more") from error


def _column(batch: pa.RecordBatch, name: str, kind: pa.DataType) -> Ints:
    try:
        return np.asarray(batch.column(name).cast(kind).fill_null(-1).to_numpy(zero_copy_only=False))
    except KeyError as error:
        raise ValueError(f"no column {name}") from error


def _floats(batch: pa.RecordBatch, name: str) -> Floats:
    """A column as float64, NaN where it is null, infinite or absent."""
    if name not in batch.schema.names:
        return np.full(len(batch), np.nan)
    with _sensible(Path(f"column {name} of a table beside a tar")):
        values = batch.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(values), values, np.nan)


def _codes(batch: pa.RecordBatch, name: str, names: Sequence[str]) -> Ints:
    """The place of each value among `names`; their number where it is null or another."""
    if name not in batch.schema.names:
        return np.full(len(batch), len(names), np.int64)
    codes = pc.index_in(batch.column(name).cast(pa.string()), value_set=pa.array(list(names), pa.string()))
    return np.asarray(codes.cast(pa.int64()).fill_null(len(names)).to_numpy(zero_copy_only=False))

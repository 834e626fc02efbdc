"""What the sidecars of a data set add up to, a batch of rows at a time: counts, histograms, sky, samples to show.

Memory does not grow with the data set: 65,536 rows of seven columns, and what is counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from specshards.common.errors import JobError, is_environment
from specshards.ingest.spectra.schema import HEALPIX_ORDER
from specshards.shards.format.manifest import SPLITS, Manifest, ShardRecord
from specshards.shards.write.plan import splitmix64

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

UNLABELLED = "unlabelled"
#: HEALPix order of the map of the sky: nside 32, 12,288 cells of 3.36 square degrees.
SKY_ORDER = 5
_BATCH = 65_536
_COLUMNS = ("source_row", "survey", "class", "_healpix_29")
#: The frame of a histogram leaves out a thousandth at either end, by the first rows of so many shards.
_PERCENTILES = (0.1, 99.9)
_LOOKED_AT, _FIRST_ROWS = 64, 16_384
_BINS = 50
#: Seed of the hash that chooses samples; no other seed's choice goes by it.
_CHOICE = 20_000
#: Different reasons that are kept apart, up to which their numbers are, too.
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
        known = ~np.isnan(values)
        values, classes = values[known], classes[known]
        for number in np.unique(classes).tolist():
            mine = values[classes == number]
            self.counts[number] += np.histogram(mine, self.edges)[0]
            self.below[number] += int((mine < self.edges[0]).sum())
            self.above[number] += int((mine > self.edges[-1]).sum())


@dataclass(frozen=True)
class Pick:
    """A sample that was chosen: `record` of the manifest's, place in its tar, global row, survey."""

    record: int
    place: int
    row: int
    survey: int


@dataclass(frozen=True)
class Tally:
    """The sums.

    Attributes:
        counts: int64 `(surveys, classes + 1, splits)`, the unlabelled last.
        histograms: by label; a label that no object has is absent.
        sky: int64 `(12,288,)`, objects by nested HEALPix cell of `SKY_ORDER`.
        shown: samples to show, each group of survey, class and split in turn.
        drawn: samples at random.
    """

    counts: Ints
    histograms: dict[str, Histogram]
    sky: Ints
    shown: tuple[Pick, ...]
    drawn: tuple[Pick, ...]


def tally(folder: Path, manifest: Manifest, show: int, draw: int) -> Tally:
    """Read every sidecar once, and the heads of some of them before.

    Args:
        show, draw: how many samples to choose. The choice is by a hash of their rows: the same in every order.

    Raises:
        JobError: a sidecar is missing or damaged, or not what the manifest says.
    """
    histograms = {
        axis.name: Histogram.empty(axis, edges, len(manifest.classes))
        for axis, edges in _frames(folder, manifest).items()
    }
    counts = np.zeros((len(manifest.surveys), len(manifest.classes) + 1, len(SPLITS)), np.int64)
    sky = np.zeros(12 << 2 * SKY_ORDER, np.int64)
    groups, everywhere = Choice(show), Choice(draw)
    for number, record in enumerate(manifest.shards):
        split, place = SPLITS.index(record.split), 0
        here = np.zeros_like(counts[:, :, 0])
        for batch in _batches(folder, record, (*_COLUMNS, *histograms)):
            surveys, classes = _places(batch, "survey", manifest.surveys), _places(batch, "class", manifest.classes)
            if (surveys == len(manifest.surveys)).any():
                raise _unlike(folder, record, "a survey that the manifest does not name")
            np.add.at(here, (surveys, classes), 1)
            cells = _column(batch, "_healpix_29", pa.int64()) >> 2 * (HEALPIX_ORDER - SKY_ORDER)
            sky += np.bincount(cells[cells >= 0], minlength=len(sky))
            for name, histogram in histograms.items():
                histogram.add(_floats(batch, name), classes)
            rows = _column(batch, "source_row", pa.int64())
            order = splitmix64(rows.astype(np.uint64), _CHOICE)
            picks = np.stack([np.full_like(rows, number), place + np.arange(len(rows)), rows, surveys], axis=1)
            everywhere.offer((), order, picks)
            for survey, kind in np.argwhere(here).tolist():
                mine = (surveys == survey) & (classes == kind)
                groups.offer((survey, kind, split), order[mine], picks[mine])
            place += len(rows)
        _compare(folder, record, here.sum(axis=0), manifest)
        counts[:, :, split] += here
    return Tally(counts, histograms, sky, groups.in_turn(), everywhere.in_turn())


class Choice:
    """Of each group of rows the `keep` that come first by a hash, in whatever order they are offered."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._kept: dict[tuple[int, ...], tuple[Floats, Ints]] = {}

    def offer(self, group: tuple[int, ...], order: Floats, picks: Ints) -> None:
        """Take what comes early; picks are `(n, 4)`: the fields of `Pick`."""
        if not self._keep:
            return
        if group in self._kept:
            before, chosen = self._kept[group]
            near = slice(None) if len(before) < self._keep else order < before[-1]
            order, picks = np.concatenate([before, order[near]]), np.concatenate([chosen, picks[near]])
        first = np.lexsort((picks[:, 2], order))[: self._keep]
        self._kept[group] = order[first], picks[first]

    def in_turn(self) -> tuple[Pick, ...]:
        """At most `keep` in all: the first of every group, then the second of every group that has one, ..."""
        groups = [self._kept[group][1].tolist() for group in sorted(self._kept)]
        longest = max(map(len, groups), default=0)
        turns = [Pick(*group[turn]) for turn in range(longest) for group in groups if turn < len(group)]
        return tuple(turns[: self._keep])


def rows_of(folder: Path, manifest: Manifest, picks: Sequence[Pick]) -> Iterator[tuple[Pick, dict[str, object]]]:
    """The sidecar's row of each pick, shard by shard.

    Raises:
        JobError: a sidecar is missing or damaged.
    """
    for number in sorted({pick.record for pick in picks}):
        mine = sorted((pick for pick in picks if pick.record == number), key=lambda pick: pick.place)
        start = 0
        for batch in _batches(folder, manifest.shards[number], None):
            here = [pick for pick in mine if start <= pick.place < start + len(batch)]
            found = batch.take(pa.array([pick.place - start for pick in here], pa.int64()))
            yield from zip(here, found.to_pylist(), strict=True)
            start += len(batch)


def quarantine(folder: Path) -> list[tuple[str, str, int, str]]:
    """Why objects gave no sample: stage, reason, how many, and the first of them; the most frequent first.

    Where there are many reasons, numbers in them become `#`; where there are still very many, the last row has the
    rest. The counts add up to the rows of `quarantine.parquet`.

    Raises:
        JobError: it is missing or damaged.
    """
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], str] = {}
    exact = True

    def add(stage: str, reason: str, n: int, example: str) -> None:
        name = (stage, reason if exact else re.sub(r"\d[\d.e+-]*", "#", reason))
        if name not in counts and len(counts) >= _MOST_REASONS:
            name = ("", "other reasons")
        counts[name] += n
        first.setdefault(name, example)

    for batch in _read(folder / "quarantine.parquet", ("file", "row", "stage", "reason")):
        for row in batch.to_pylist():
            add(row["stage"], row["reason"], 1, row["file"] + ("" if row["row"] is None else f", row {row['row']:,}"))
            if exact and len(counts) > _MOST_EXACT:
                exact, so_far, examples = False, counts, first
                counts, first = Counter(), {}
                for (stage, reason), n in so_far.items():
                    add(stage, reason, n, examples[stage, reason])
    found = sorted(counts.items(), key=lambda item: (not item[0][0], -item[1], item[0]))
    return [(stage, reason, n, first[stage, reason]) for (stage, reason), n in found]


def _frames(folder: Path, manifest: Manifest) -> dict[Axis, Floats]:
    """The edges of every histogram, from the first rows of some shards; of an axis that no object is on, none."""
    looked = sorted({*np.linspace(0, len(manifest.shards) - 1, _LOOKED_AT).round().astype(int).tolist()})
    records = [manifest.shards[number] for number in looked] if manifest.shards else []
    names = [axis.name for axis in AXES]
    heads = [batch for record in records for batch in islice(_batches(folder, record, names, _FIRST_ROWS), 1)]
    found = {}
    for axis in AXES:
        values = _known([_floats(batch, axis.name) for batch in heads])
        if not len(values):  # a label that few objects have
            every = (_floats(b, axis.name) for r in manifest.shards for b in _batches(folder, r, [axis.name]))
            values = next((some for some in map(_known, ([one] for one in every)) if len(some)), values)
        if len(values):
            found[axis] = frame(values, axis.log)
    return found


def _known(columns: Sequence[Floats]) -> Floats:
    values = np.concatenate([*columns, np.empty(0)])
    return values[~np.isnan(values)]


def frame(values: Floats, log: bool) -> Floats:
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
    said = [record.classes.get(name, 0) for name in (*manifest.classes, UNLABELLED)]
    if said != classes.tolist():
        raise _unlike(folder, record, f"{int(classes.sum()):,} samples of other classes than the manifest says")


def _unlike(folder: Path, record: ShardRecord, what: str) -> JobError:
    return JobError(f"{record.sidecar(folder)}: {what}; `specshards shards verify` says more")


def _batches(
    folder: Path, record: ShardRecord, columns: Sequence[str] | None, rows: int = _BATCH
) -> Iterator[pa.RecordBatch]:
    return _read(record.sidecar(folder), columns, rows)


def _read(path: Path, columns: Sequence[str] | None, rows: int = _BATCH) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(path) as file:
            there = file.schema_arrow.names
            wanted = None if columns is None else [name for name in columns if name in there]
            yield from file.iter_batches(rows, columns=wanted, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        if is_environment(error):
            raise
        why = "missing" if isinstance(error, FileNotFoundError) else "damaged Parquet"
        raise JobError(f"{path}: {why}; `specshards shards verify` says more") from error


def _column(batch: pa.RecordBatch, name: str, kind: pa.DataType) -> Ints:
    try:
        return np.asarray(batch.column(name).cast(kind).fill_null(-1).to_numpy(zero_copy_only=False))
    except KeyError as error:
        raise JobError(f"a sidecar has no column {name}; `specshards shards verify` says more") from error


def _floats(batch: pa.RecordBatch, name: str) -> Floats:
    """A column as float64, NaN where it is null, infinite or absent."""
    if name not in batch.schema.names:
        return np.full(len(batch), np.nan)
    values = batch.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(values), values, np.nan)


def _places(batch: pa.RecordBatch, name: str, names: Sequence[str]) -> Ints:
    """The place of each value among `names`; their number where it is null or another."""
    if name not in batch.schema.names:
        return np.full(len(batch), len(names), np.int64)
    found = pc.index_in(batch.column(name).cast(pa.string()), value_set=pa.array(list(names), pa.string()))
    return np.asarray(found.cast(pa.int64()).fill_null(len(names)).to_numpy(zero_copy_only=False))

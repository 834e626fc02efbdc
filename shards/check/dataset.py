"""What the shards of a data set came to together: no object twice, none in two splits, an order that mixes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from specshards.common.files import readable
from specshards.common.identity import among, judge, repeated
from specshards.common.sky import iter_close_pairs
from specshards.shards.check.result import ANEW, REMAKE, RERUN, Check, first
from specshards.shards.check.shard import Findings, Spread
from specshards.shards.format.counts import SplitCounts
from specshards.shards.format.leaks import Leaks
from specshards.shards.format.manifest import MANIFEST, SPLITS, Manifest, ShardRecord, key
from specshards.shards.write.job import Claim
from specshards.shards.write.marked import Marked

#: Objects closer than this, in arcseconds, are taken for one: they must not lie in different splits.
RADIUS = 1.0
#: `Spread.share` above which, with so many train shards, the order counts as not mixed at all.
_UNMIXED, _ENOUGH_SHARDS = 0.95, 8

#: The checks of single shards, and what they say where every shard passes.
_PASSED = {
    "checksums": "sha256 of every tar, index and sidecar is the manifest's",
    "tar": "tarfile reads every tar; samples whole, names safe, members one after another",
    "index": "every name, offset and size is as tarfile finds it",
    "images": "every sample decoded",
    "labels": "every label equals the sidecar's, bit for bit",
}


class Overall:
    """Takes the findings of shards, in whatever order they come, and judges: 36 bytes a sample, 44 by a group."""

    def __init__(self, folder: Path, manifest: Manifest, records: Sequence[ShardRecord]) -> None:
        """For the `records` that are read; those of the manifest that are not among them are damaged."""
        self._folder, self._manifest, self._records = folder, manifest, records
        self._number = {record.name: number for number, record in enumerate(records)}
        self._starts = np.cumsum([0, *(record.samples for record in records)])
        samples = int(self._starts[-1])
        splits = np.array([SPLITS.index(record.split) for record in records], np.int8)
        self._split = np.repeat(splits, np.diff(self._starts))
        self._rows = np.full(samples, -1, np.int64)
        self._ra, self._dec = np.full(samples, np.nan), np.full(samples, np.nan)
        self._ids = np.arange(samples, dtype=np.uint64)  # like no hash, where none could be read
        self._own = np.full(samples, -1, np.int8)
        self._values = np.zeros(samples if manifest.config.group is not None else 0, np.uint64)
        self._by_id = np.zeros(samples, np.bool_)
        self._seen = np.zeros(manifest.objects, bool)
        self._twice: list[int] = []
        self._faults: dict[str, list[tuple[int, str, str]]] = {}
        self._moments: dict[int, npt.NDArray[np.float64]] = {}
        self._spread: dict[int, Spread] = {}

    def take(self, found: Findings) -> None:
        """Add one shard."""
        number = self._number[found.record.name]
        # Bytes that changed are made again by a rerun; bytes that were wrong from the start would be kept.
        mend = RERUN if "checksums" in found.faults else REMAKE
        for name, fault in found.faults.items():
            self._faults.setdefault(name, []).append((number, fault, mend))
        rows = np.sort(found.rows)
        twice = self._seen[rows]
        twice[1:] |= rows[1:] == rows[:-1]
        self._twice += rows[twice][:1].tolist()
        self._seen[rows] = True
        columns: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = [
            (self._rows, found.rows), (self._ra, found.ra), (self._dec, found.dec), (self._ids, found.ids),
            (self._own, found.own), (self._by_id, found.by_id),
            *([(self._values, found.keys)] if len(self._values) else []),
        ]  # fmt: skip
        for whole, part in columns:
            whole[self._starts[number] :][: len(part)] = part
        if found.record.split == "train":
            self._spread[number] = found.spread
            if found.moments is not None:
                self._moments[number] = found.moments

    def checks(self) -> list[Check]:
        """Every check, those of single shards first."""
        together = [self._keys(), self._identity(), self._places(), self._sky(), self._statistics(), self._mixing()]
        return [*map(self._each, _PASSED), *together]

    def _each(self, name: str) -> Check:
        faults = sorted(self._faults.get(name, []))
        if faults:
            return Check(name, False, first([fault for _, fault, _ in faults], "shards", faults[0][2]))
        missing = len(self._manifest.shards) - len(self._records)
        return Check(name, True, _PASSED[name] + (f"; damaged shards not read: {missing}" if missing else ""))

    def _keys(self) -> Check:
        """No object is there twice."""
        if not self._twice:
            return Check("keys", True, f"{int(self._seen.sum()):,} keys, no two alike")
        row = min(self._twice)
        places = dict.fromkeys(self._record(place).name for place in np.flatnonzero(self._rows == row).tolist())
        return Check("keys", False, f"{' and '.join(places)}: key {key(row)} is there twice; {ANEW}")

    def _identity(self) -> Check:
        """No id names objects at different places; visits of one object have one id, or not."""
        places = np.flatnonzero(among(self._ids, repeated([self._ids])))
        found = judge(self._ids[places], places, self._ra[places], self._dec[places], self._names)
        visits = f"{found.visited('samples')} under one id, each at one place"
        if found.visits and self._manifest.config.best_of is not None:
            where = " and ".join(
                f"{self._record(p).name} {key(self._rows[p])}" for p in (found.first[0], found.again[0])
            )
            return Check("identity", False, f"{where}: {visits}, where only the best should be; {ANEW}")
        if not found.ambiguous:
            return Check("identity", True, visits if found.visits else "no id is there twice")
        where = self._named(found.apart[:2].tolist())
        return Check("identity", False, f"{where}: {found.shown()}; {ANEW}: it sets them aside")

    def _named(self, places: Sequence[int]) -> str:
        """Tar and key of some samples."""
        return " and ".join(f"{self._record(place).name} {key(self._rows[place])}" for place in places)

    def _names(self, places: npt.NDArray[np.int64]) -> list[tuple[str, str]]:
        """Survey and object id of samples, from the sidecars."""
        found: list[tuple[str, str]] = []
        numbers = np.searchsorted(self._starts, places, "right") - 1
        for number in np.unique(numbers).tolist():
            table = pq.read_table(
                readable(self._records[number].sidecar(self._folder)), columns=["survey", "object_id"]
            )
            some = table.take(pa.array(places[numbers == number] - self._starts[number])).to_pydict()
            found += zip(some["survey"], some["object_id"], strict=True)
        order = np.argsort(numbers, kind="stable")
        return [found[i] for i in np.argsort(order, kind="stable").tolist()]

    def _record(self, place: int) -> ShardRecord:
        return self._records[int(np.searchsorted(self._starts, place, "right")) - 1]

    def _places(self) -> Check:
        """Every sample is in the split that the manifest's configuration gives it, or that of another visit."""
        by, counts = self._by, self._manifest.split_counts
        if (fault := self._miscounted()) is not None:
            return fault
        claim = Claim.load(self._folder)
        moved = Marked.of(claim.moved if claim is not None else {})
        expected = moved.at(self._rows, self._own)
        other = np.flatnonzero((self._own >= 0) & (expected != self._split)).tolist()
        if not other:
            by_id = f"; {counts.by_id:,} by id" if counts is not None and counts.by_id else ""
            with_visits = (
                f", or where another visit of it is ({len(moved):,})" if moved and by != "split_by row" else ""
            )
            return Check("split", True, f"every sample is where {by} puts it{with_visits}{by_id}")
        where = f"{self._named(other[:1])}: not where {by} puts it ({SPLITS[expected[other[0]]]})"
        where += f" (and {len(other) - 1:,} more samples)" if len(other) > 1 else ""
        if claim is None:
            return Check("split", True, f"{where}; .ledger/plan.json, which is missing, may say why", note=True)
        return Check("split", False, f"{where}; {ANEW}")

    @property
    def _by(self) -> str:
        config = self._manifest.config
        return f"split_by {config.split_by}" if config.group is None else f"group {config.rule}"

    def _miscounted(self) -> Check | None:
        """A fault of the counts of what goes by id or by a group, or a value of the group in two splits."""
        config, said = self._manifest.config, self._manifest.split_counts
        if len(self._records) < len(self._manifest.shards) or (self._own < 0).any():
            return None  # which the other checks say
        by_id = int(self._by_id.sum())
        if config.group is None:
            # Data sets of before, split by object, do not say it.
            fault = by_id != (0 if said is None else said.by_id) and (said is not None or config.split_by == "sky")
            return Check("split", False, f"{MANIFEST}: split_counts: {by_id:,} go by id; {RERUN}") if fault else None
        of_value = np.flatnonzero(~self._by_id)
        order = of_value[np.argsort(self._values[of_value], kind="stable")]
        same = self._values[order[1:]] == self._values[order[:-1]]
        found = SplitCounts(by_id, len(order), len(order) - int(same.sum()))
        if found != said:
            return Check("split", False, f"{MANIFEST}: split_counts: the samples do not have these; {RERUN}")
        apart = np.flatnonzero(same & (self._split[order[1:]] != self._split[order[:-1]]))
        if not len(apart):
            return None
        where = self._named(order[apart[0] : apart[0] + 2].tolist())
        return Check("split", False, f"{where}: one value of {config.rule} in two splits; {ANEW}")

    def _leaks(self) -> Check:
        """Of a split by row, or by a group, the objects in several splits are counted in the manifest."""
        said = self._manifest.leaks
        if said is None or len(self._records) < len(self._manifest.shards) or (self._own < 0).any():
            return Check("sky", True, "not checked: not every shard could be read", note=True)
        if Leaks.count(self._ra, self._dec, self._ids, self._split) != said:
            return Check("sky", False, f"{MANIFEST}: leaks: the samples do not have these; {RERUN}")
        return Check("sky", True, said.said(self._manifest.config.rule), note=True)

    def _sky(self) -> Check:
        """No object is in two splits; repeated visits, and one star in two surveys, count as one object."""
        if self._manifest.config.split_by == "row" or self._manifest.config.group is not None:
            return self._leaks()
        ids = np.argsort(self._ids, kind="stable")
        torn = (self._ids[ids[1:]] == self._ids[ids[:-1]]) & (self._split[ids[1:]] != self._split[ids[:-1]])
        if torn.any():
            place = int(np.argmax(torn))
            return Check(
                "sky", False, f"{self._named(ids[place : place + 2].tolist())}: one id in two splits; {ANEW}"
            )
        within = across = 0
        nearest = (len(self._ra), 0)
        for pairs in iter_close_pairs(self._ra, self._dec, RADIUS):
            i, j = pairs.T
            apart = self._split[i] != self._split[j]
            within, across = within + int((~apart).sum()), across + int(apart.sum())
            if apart.any():
                nearest = min(nearest, *zip(i[apart].tolist(), j[apart].tolist(), strict=True))
        text = f'{across:,} pairs within {RADIUS:g}" lie in different splits, {within:,} in one'
        if not across:
            return Check("sky", True, text)
        return Check("sky", False, f"{self._named(nearest)}: {text}; {ANEW}")

    def _statistics(self) -> Check:
        """The label statistics of the manifest are those of the train split's label vectors, and of no others."""
        train, name = self._manifest.split("train"), "statistics"
        if not train or len(self._moments) < len(train):
            why = "not every train shard could be read" if train else "no train split"
            return Check(name, True, f"not checked: {why}", note=True)
        moments = np.stack([self._moments[number] for number in sorted(self._moments)])
        count, total, squares = moments[:, :3].sum(axis=0)
        least, greatest = moments[:, 3].min(axis=0), moments[:, 4].max(axis=0)
        with np.errstate(all="ignore"):  # labels that no sample has, and damaged vectors
            mean = total / count
            std = np.sqrt(np.maximum(squares / count - mean**2, 0))
        for column, label in enumerate(self._manifest.labels):
            stats = self._manifest.label_stats.get(label)
            found = np.array([mean[column], std[column], least[column], greatest[column]])
            if stats is None or stats.count != count[column]:
                fault = f"{int(count[column]):,} samples have it"
            elif count[column] and not _alike(found, np.array([stats.mean, stats.std, stats.min, stats.max])):
                fault = "mean, std, min, max are {:.6g}, {:.6g}, {:.6g}, {:.6g}".format(*found)
            else:
                continue
            return Check(name, False, f"{MANIFEST}: label_stats of {label}: {fault} in train; {RERUN}")
        return Check(name, True, "label_stats are those of the train split")

    def _mixing(self) -> Check:
        """How well the train split's order mixes the input; see `Spread`."""
        spread = sum((self._spread[number] for number in sorted(self._spread)), Spread())
        text = (
            f"{spread.share:.3f} of the variance of the source row lies between stretches of a tar "
            f"(random order {spread.random:.3f}, the input's order 1)"
        )
        if spread.share > _UNMIXED and len(self._spread) >= _ENOUGH_SHARDS:
            why = "the train shards are not mixed; smaller row groups in the spectra or more samples per shard help"
            return Check("mixing", False, f"train: {text}: {why}")
        return Check("mixing", True, text, note=True)


def _alike(found: npt.NDArray[np.float64], said: npt.NDArray[np.float64]) -> bool:
    # Sums in another order differ in the last digits, and a mean near 0 more than that.
    return bool(np.allclose(found, said, rtol=1e-6, atol=1e-6 * float(np.abs(found).max())))

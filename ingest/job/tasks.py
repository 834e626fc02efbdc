"""The tasks of an ingest job, made when they are asked for, and what all of them came to, read from their records.

Neither the names of all files nor the records of all parts are in memory at any time.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np

from specshards.common.errors import JobError
from specshards.common.folder import finished
from specshards.common.impossible import Impossible
from specshards.common.jobs import Engine, run_tasks
from specshards.common.messages import LOGGER
from specshards.common.spectrum import RANGES
from specshards.ingest.catalogue import prepared as catalogues
from specshards.ingest.job.config import IngestConfig
from specshards.ingest.job.part import PartResult, PartTask, ingest_part, record_of
from specshards.ingest.job.plan import Part, Plan
from specshards.ingest.job.summary import LayoutCount, add_up
from specshards.ingest.spectra.schema import PROGRAM_VERSION, SCHEMA_VERSION

_EXAMPLES = 3


class Tasks(Sequence[PartTask]):
    """A task for each part of a plan.

    Attributes:
        plan: the parts. out: the job's folder.
    """

    def __init__(
        self, config: IngestConfig, root: Path, plan: Plan, prepared: Path | None, out: Path, again: Container[str]
    ) -> None:
        """Of a job; `again` are the files that share their names with files in other folders."""
        self.plan, self.out = plan, out
        self._again, cut = again, config.cut()
        self._base = [
            config.to_dict(), SCHEMA_VERSION, PROGRAM_VERSION, RANGES,
            None if prepared is None else catalogues.digest(prepared),
        ]  # fmt: skip
        self._same: dict[str, Any] = {
            "root": str(root.absolute()), "survey": config.survey, "out": str(out.absolute()),
            "catalogue": None if prepared is None else str(prepared.absolute()), "listed_only": config.listed_only,
            "where": None if cut is None else cut.text, "row_group_rows": config.row_group_rows,
            "config": config.to_dict(),
        }  # fmt: skip

    def __len__(self) -> int:
        """How many parts."""
        return len(self.plan)

    @overload
    def __getitem__(self, index: int) -> PartTask: ...
    @overload
    def __getitem__(self, index: slice) -> list[PartTask]: ...
    def __getitem__(self, index: int | slice) -> PartTask | list[PartTask]:
        """The task of a part, with the names of its files."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        part = self.plan[index]
        foldered = tuple(file for file in part.files if file in self._again) if self._again else ()
        return PartTask(
            number=part.number, files=part.files, bytes=part.bytes, fingerprint=self._fingerprint(part, foldered),
            foldered=foldered, **self._same,
        )  # fmt: skip

    def _fingerprint(self, part: Part, foldered: tuple[str, ...]) -> str:
        identity = json.dumps([*self._base, part.stamp, *([foldered] if foldered else [])], sort_keys=True)
        return hashlib.sha256(identity.encode()).hexdigest()

    def drop_stale(self) -> None:
        """Remove parts that the plan no longer has: they would add foreign rows to the data set."""
        numbers = set(self.plan.numbers.tolist())
        for folder, ends in (("spectra", (".parquet",)), ("ingest/parts", (".json", ".quarantine.parquet"))):
            for path in (self.out / folder).glob("part-*"):
                match = re.fullmatch(r"part-(\d{5}|[1-9]\d{5,9})(\..*)", path.name)
                if match is None or int(match[1]) not in numbers or match[2] not in ends:
                    path.unlink()

    def run(self, engine: Engine, describe: str) -> None:
        """Do what is not done yet."""
        todo = [at for at, task in enumerate(self) if finished(task) is None]
        if len(todo) < len(self):
            LOGGER.info(f"resuming: {len(self) - len(todo)} of {len(self)} parts are done already")
        left = _Some(self, todo)
        for _ in run_tasks(
            ingest_part, left, engine, describe=describe, unit="file", sizes=self.plan.counts[todo].tolist(),
            note=_progress(), name=lambda task: f"part {task.number}",
        ):  # fmt: skip
            pass

    def results(self) -> Iterator[PartResult]:
        """What each part came to, in order, from its record.

        Raises:
            JobError: a record is gone.
        """
        for number in self.plan.numbers.tolist():
            path = record_of(self.out, number)
            try:
                yield PartResult.loads(path.read_text(encoding="utf-8"))
            except (FileNotFoundError, ValueError, KeyError, TypeError):
                raise JobError(f"{path}: gone or damaged since it was written; run the same command again") from None


class _Some(Sequence[PartTask]):
    """Some of the tasks."""

    def __init__(self, tasks: Tasks, places: Sequence[int]) -> None:
        self._tasks, self._places = tasks, np.asarray(places, np.int32)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> PartTask: ...
    @overload
    def __getitem__(self, index: slice) -> list[PartTask]: ...
    def __getitem__(self, index: int | slice) -> PartTask | list[PartTask]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._tasks[int(self._places[index])]


class Account:
    """What all parts came to, added up one after another; see `job.summary.Summary`.

    Attributes:
        matched, unmatched: samples that the catalogue lists, and examples of others.
        quarantined: numbers of the parts with rows in quarantine. spectra: whether any has samples.
    """

    def __init__(self, results: Iterable[PartResult]) -> None:
        """Add them up."""
        self.layouts: dict[str, LayoutCount] = {}
        self.reasons, self.conflicts, self.converted = Counter[str](), Counter[str](), Counter[str]()
        self.impossible = Impossible()
        self.matched, self.unmatched = 0, list[str]()
        self.quarantined, self.has_spectra = list[int](), False
        for result in results:
            self.layouts = add_up((self.layouts, result.layouts))
            self.reasons.update(result.reasons)
            self.conflicts.update(result.conflicts)
            self.converted.update(result.converted)
            self.impossible.update(result.impossible)
            self.matched += result.matched
            self.unmatched += islice(result.unmatched, max(0, _EXAMPLES - len(self.unmatched)))
            self.has_spectra = self.has_spectra or bool(result.spectra_bytes)
            if result.quarantined:
                self.quarantined.append(result.number)


def _progress() -> Callable[[PartResult], str]:
    """Words for the progress line: objects and bytes a second so far, and what was set aside."""
    started = time.perf_counter()
    objects = read = lost = 0

    def words(result: PartResult) -> str:
        nonlocal objects, read, lost
        objects, read, lost = objects + result.objects, read + result.bytes, lost + result.quarantined
        seconds = time.perf_counter() - started
        return f"{objects / seconds:,.0f} objects/s, {read / seconds / 1e6:,.1f} MB/s, {lost:,} quarantined"

    return words

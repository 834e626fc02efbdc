"""What the jobs of a data set read, and how fast they were: one line of JSON a job in the ledger.

It is for people and for the page of `shards.report`. No rerun goes by it, and no two runs write the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from specshards.common.files import write_text
from specshards.common.json import fits, parse
from specshards.shards.write.task import LEDGER

RUNS = "runs.jsonl"
_KEPT = 20


@dataclass(frozen=True)
class JobRun:
    """A job that came to its end.

    Attributes:
        objects, seconds: of the shard numbers that it made itself; shards of them, `of` all.
        workers: local processes, 0 for the job's own; None where a scheduler had them.
        spectra: folder, file or glob of the Parquet that was drawn, or None; survey: whose it was said to be.
        sources: folders of the data sets that were copied.
    """

    objects: int
    seconds: float
    shards: int
    of: int
    workers: int | None = None
    spectra: str | None = None
    survey: str | None = None
    sources: tuple[str, ...] = ()

    @property
    def read(self) -> tuple[object, ...]:
        """What was read."""
        return self.spectra, self.survey, self.sources

    @property
    def rate(self) -> float:
        """Objects a second; 0 where nothing was left to do."""
        return self.objects / self.seconds if self.objects and self.seconds > 0 else 0.0


def note(out: Path, run: JobRun) -> None:
    """Add a job to the ledger's list, unless it made nothing and read where the last one did."""
    path = out / LEDGER / RUNS
    before = load(out)
    if not run.objects and before and run.read == before[-1].read:
        return
    lines = _lines(path)[-(_KEPT - 1) :]
    write_text(path, "".join(f"{line}\n" for line in [*lines, json.dumps(asdict(run))]))


def load(folder: Path) -> list[JobRun]:
    """The jobs that are known, the last one last; none where there is no list, or one that cannot be read."""
    found = []
    for line in _lines(folder / LEDGER / RUNS):
        try:
            content = parse(line)
            fits(content, JobRun)
            found.append(JobRun(**{**content, "sources": tuple(content["sources"])}))
        except (ValueError, TypeError, KeyError):
            continue
    return found


def last_timed(runs: Sequence[JobRun]) -> JobRun | None:
    """The last job that made something."""
    return next((run for run in reversed(runs) if run.rate), None)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []

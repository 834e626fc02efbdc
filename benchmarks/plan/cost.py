"""What a survey costs on a machine: hours and bytes of every stage, out of what was measured on a small one.

A job of n objects on w worker processes takes

    start + n (shared + own / w)

seconds: `start` once, `shared` for what one process does for all, `own` for what the workers share between them. The
three are fitted to jobs of two sizes and two numbers of workers. Every stage also reads and writes bytes, at most as
fast as the disk does, and training asks the GPU for each sample. All of these go on side by side, so that a stage
takes as long as the slowest of them, which limits it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.linear_model import LinearRegression

from specshards.benchmarks.kit.process import GROUP
from specshards.benchmarks.kit.records import Record
from specshards.common.errors import UsageError

#: Shares of objects that training sees, that each epoch ends with a look at, and that wait: as `make shards` has.
SPLIT = (0.8, 0.1, 0.1)
#: A validation sample costs the forward pass, a training sample that and a backward pass of twice its size.
FORWARD = 1 / 3
RESOURCES = ("cores", "disk", "gpu")


@dataclass(frozen=True)
class JobTime:
    """Seconds of a command: see the module."""

    start: float
    shared: float
    own: float

    def seconds(self, objects: float, workers: int) -> float:
        """Of a job."""
        return self.start + objects * (self.shared + self.own / workers)

    @classmethod
    def fit(cls, records: Sequence[Record]) -> JobTime:
        """Least squares of the relative error over jobs, none of the three below 0.

        Args:
            records: seconds per object, with `objects` and `workers` in `about`.

        Raises:
            UsageError: fewer than two sizes or numbers of workers, which three numbers cannot be told from.
        """
        objects, workers = (np.array([r.about[name] for r in records], float) for name in ("objects", "workers"))
        if len(set(objects)) < 2 or len(set(workers)) < 2:
            names = ", ".join(r.name for r in records) or "none"
            raise UsageError(f"jobs of two sizes and two numbers of workers are needed, there are: {names}")
        seconds = objects * [r.median for r in records]
        terms = np.stack([np.ones_like(objects), objects, objects / workers], axis=1)
        fitted = LinearRegression(positive=True, fit_intercept=False).fit(
            terms / seconds[:, None], np.ones(len(terms))
        )
        return cls(*(float(value) for value in fitted.coef_))

    @classmethod
    def mean(cls, jobs: Sequence[tuple[float, JobTime]]) -> JobTime:
        """One job over objects of several kinds, from the share of each kind and its job; they start at once."""
        return cls(
            max(job.start for _, job in jobs), sum(share * job.shared for share, job in jobs),
            sum(share * job.own for share, job in jobs),
        )  # fmt: skip

    def through(self, record: Record) -> JobTime:
        """The same job with other work for its workers, such that it takes what `record` says."""
        objects, workers = record.about["objects"], int(record.about["workers"])
        missing = record.median - self.seconds(objects, workers) / objects
        return replace(self, own=max(0.0, self.own + missing * workers))


@dataclass(frozen=True)
class Costs:
    """What every object asks for.

    Attributes:
        ingest, shards: the two jobs.
        load: core-seconds a sample.
        file, parquet, sample: bytes an object, as the survey gave it, in Parquet, in a shard with its index.
    """

    ingest: JobTime
    shards: JobTime
    load: float
    file: float
    parquet: float
    sample: float

    @classmethod
    def of(cls, runs: Mapping[str, Sequence[Record]], surveys: Mapping[str, float], encoding: str) -> Costs:
        """From the records of `ingest`, `shards` and `load`.

        Args:
            runs: name of a benchmark -> its records.
            surveys: the beginning of the name of its jobs, whatever the case, `LAMOST` or `SDSS` -> its share of the
                objects. Files, jobs and Parquet are means over the shares.
            encoding: of `map2d` pictures.

        Raises:
            UsageError: a record is missing.
        """
        ingest = {name: _jobs(runs["ingest"], name.lower()) for name in surveys}
        every = _jobs(runs["shards"], "map2d ")
        png, encoded = (_jobs(every, f"map2d {name},") for name in ("png", encoding))
        shards = JobTime.fit(png)
        if encoding != "png":
            if not encoded:
                raise UsageError(f"no job was measured that writes {encoding}; run `make bench-shards` again")
            shards = shards.through(encoded[-1])
        load = [r for r in runs["load"] if r.name.endswith(f", {encoding}") and "threads" in r.about and r.values]
        if not load or not all(ingest.values()):
            missing = "bench-load" if all(ingest.values()) else "bench-ingest"
            names = ", ".join(name for name, jobs in ingest.items() if not jobs) or ", ".join(surveys)
            raise UsageError(f"no record of {names}, {encoding}; run `make {missing}` again")
        loader = min(load, key=lambda r: r.name)  # dali before plain, as by default
        return cls(
            ingest=JobTime.mean([(share, JobTime.fit(ingest[name])) for name, share in surveys.items()]),
            shards=shards,
            load=loader.median * loader.about["threads"],
            file=sum(share * ingest[name][-1].about["input_bytes"] for name, share in surveys.items()),
            parquet=sum(share * (ingest[name][-1].bytes or 0.0) for name, share in surveys.items()),
            sample=encoded[-1].bytes or 0.0,
        )


@dataclass(frozen=True)
class Hardware:
    """What there is.

    Attributes:
        disk: bytes a second, read or written.
        images: training samples a second of the GPU, fed without delay.
    """

    cores: int
    disk: float
    images: float

    def doubled(self, resource: str) -> Hardware:
        """With twice as much of one of `RESOURCES`."""
        field = {"cores": "cores", "disk": "disk", "gpu": "images"}[resource]
        return replace(self, **{field: 2 * getattr(self, field)})


@dataclass(frozen=True)
class Stage:
    """One step of the way.

    Attributes:
        seconds: by resource, what it would take if that were all there is to wait for.
        reads, writes: bytes.
    """

    name: str
    seconds: Mapping[str, float]
    reads: float = 0.0
    writes: float = 0.0

    @property
    def limit(self) -> str:
        """The resource that it waits for."""
        return max(self.seconds, key=lambda name: self.seconds[name])

    @property
    def total(self) -> float:
        """Seconds."""
        return self.seconds[self.limit]


def passes(split: Sequence[float]) -> float:
    """What an epoch costs an object of the survey, in training samples."""
    return split[0] + FORWARD * split[1]


def stages(costs: Costs, machine: Hardware, objects: int, epochs: int, split: Sequence[float] = SPLIT) -> list[Stage]:
    """Ingest, shards, one epoch with its validation, and all epochs, each by itself."""
    seen = objects * (split[0] + split[1])
    epoch = Stage(
        "one epoch",
        {"cores": seen * costs.load / machine.cores, "disk": seen * costs.sample / machine.disk,
         "gpu": objects * passes(split) / machine.images},
        reads=seen * costs.sample,
    )  # fmt: skip
    single = [
        _job("ingest", costs.ingest, machine, objects, costs.file, costs.parquet),
        _job("shards", costs.shards, machine, objects, costs.parquet, costs.sample),
        epoch,
    ]
    many = {name: epochs * seconds for name, seconds in epoch.seconds.items()}
    return [*single, Stage(f"{epochs} epochs", many, reads=epochs * epoch.reads)]


def whole(parts: Iterable[Stage]) -> float:
    """Seconds from survey files to a trained model: all stages but the single epoch."""
    return sum(stage.total for stage in parts if stage.name != "one epoch")


def _job(name: str, job: JobTime, machine: Hardware, objects: int, reads: float, writes: float) -> Stage:
    return Stage(
        name,
        {"cores": job.seconds(objects, machine.cores), "disk": objects * (reads + writes) / machine.disk},
        reads=objects * reads, writes=objects * writes,
    )  # fmt: skip


def _jobs(records: Sequence[Record], start: str) -> list[Record]:
    return [r for r in records if r.group == GROUP and r.name.lower().startswith(start) and r.values]

"""Commands as a user types them: timed, weighed, and with the memory that their largest process took."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from specshards.benchmarks.kit.records import Record, interleave
from specshards.common.errors import JobError
from specshards.common.jobs import cores

# Only the children of a process that starts nothing else are those of the command.
_MEASURED = (
    "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=sys.stderr); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)"
)
#: What jobs of `job_records` are called, all of them.
GROUP = "job"


def room_command(room: str, verb: str, *arguments: object, **options: object) -> list[str]:
    """The command line of `specshards ROOM VERB`, as a user types it."""
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [sys.executable, "-m", "specshards", room, verb, *map(str, [*arguments, *words])]


def measured(command: Sequence[str], *, quiet: bool = False) -> tuple[float, float]:
    """Run a command; what it says goes to standard error, or nowhere when `quiet`.

    Returns:
        Seconds, and peak resident memory of its largest process in MB.

    Raises:
        JobError: it failed.
    """
    began = time.perf_counter()
    answer = _run([sys.executable, "-c", _MEASURED, *command], quiet=quiet)
    # The system counts in bytes on macOS, in kB elsewhere.
    return time.perf_counter() - began, int(answer) / (2**20 if sys.platform == "darwin" else 1024)


def memory_record(name: str, objects: int, command: Sequence[str]) -> Record:
    """Peak resident memory (MB) of the largest process of a job with two workers."""
    _, peak = measured(command, quiet=True)
    return Record("peak memory", name, (peak,), "MB", about={"objects": float(objects), "workers": 2.0})


def _run(command: Sequence[str], *, quiet: bool = True) -> str:
    """Standard output of a command; JobError with the last line that it said where it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE if quiet else None)
    if done.returncode:
        lines = (done.stderr or "").strip().splitlines() or [f"exit code {done.returncode}"]
        words = command[command.index("-m") :] if "-m" in command else command
        raise JobError(f"{' '.join(words)} failed: {lines[-1].removeprefix('error: ')}")
    return done.stdout


@dataclass(frozen=True)
class Job:
    """A command that turns objects into a folder.

    Attributes:
        title: what it makes, or of what: a name begins with it.
        noun: what the objects are called.
        command: the words, for a folder to write to.
        count: how many objects a finished folder accounts for.
        about: more numbers that its record holds for.
    """

    title: str
    noun: str
    objects: int
    workers: int
    command: Callable[[Path], Sequence[str]]
    count: Callable[[Path], int]
    about: tuple[tuple[str, float], ...] = ()

    @property
    def name(self) -> str:
        """Of its record."""
        return f"{self.title}, {self.objects:,} {self.noun}, {self.workers} worker{'s' * (self.workers != 1)}"


def worker_counts(most: int | None = None) -> list[int]:
    """One worker and as many as there are cores (or `most`); on one core that is the same."""
    return sorted({1, min(cores(), most or cores())})


def job_records(jobs: Sequence[Job], rounds: int, scratch: Path, *, warm: bool = True) -> list[Record]:
    """Time whole jobs in turn, start of the workers included.

    `bytes` is what a job leaves in its folder, all files, for each object. Weighing and removing it is not timed.

    Args:
        warm: the first job goes once before, for the page cache and for what Numba compiles.

    Raises:
        JobError: a job failed, or accounts for other objects than it was given.
    """
    named = {job.name: job for job in jobs}
    stored: dict[str, float] = {}
    out = scratch / "job"

    def work(job: Job) -> int:
        _run(job.command(out))
        return job.objects

    def after(name: str) -> None:
        job = named[name]
        count = job.count(out)
        if count != job.objects:
            raise JobError(f"{name}: the job accounts for {count:,} objects; its time would not be that of the name")
        stored[name] = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / job.objects
        shutil.rmtree(out)

    if warm:
        work(jobs[0])
        after(jobs[0].name)
    turns = {job.name: lambda job=job: work(job) for job in jobs}
    records = interleave(GROUP, turns, rounds, warm=False, after=after)
    return [
        replace(r, bytes=stored[r.name], about={"objects": job.objects, "workers": job.workers, **dict(job.about)})
        for r, job in zip(records, jobs, strict=True)
    ]

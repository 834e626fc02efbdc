"""Running many pure tasks on one machine or many: one Dask client for `ingest` and `shards` alike.

Whatever dies while a job runs (a worker, the scheduler, the job itself), the job goes on or ends with one line. It
never waits in silence and leaves no process behind. docs/cluster.md says how to use several machines.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from queue import Empty, SimpleQueue
from typing import Any, TypeVar
from uuid import uuid4

from tqdm import tqdm

from specshards.common.dask_cluster import KEPT, Watch, connected
from specshards.common.errors import JobError, UsageError, is_environment, one_line

Task = TypeVar("Task")
Result = TypeVar("Result")

#: A worker's own imports take 200 MiB.
_LEAST_MEMORY = 256 << 20
_MOST_MEMORY = 4 << 30
#: Tasks in flight for each thread of the workers: enough that none is idle between two.
_AHEAD = 4
#: Seconds to wait for a result before looking after the workers.
_TICK = 1.0


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parse_memory(text: str) -> int:
    """Bytes from text such as `2GiB` or `1500MB`; UsageError where it is none, or too little for a worker."""
    from dask.utils import parse_bytes

    try:
        size = int(parse_bytes(text))
    except ValueError:
        size = -1
    if size < _LEAST_MEMORY:
        raise UsageError(f"--memory {text!r}: give the memory of one worker, 256MiB or more, as 2GiB or 1500MB")
    return size


def _patience() -> float:
    text = os.environ.get("SPECSHARDS_WAIT", "3600")
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"SPECSHARDS_WAIT={text}: give the seconds to wait for workers of a scheduler") from None


@dataclass(frozen=True)
class Engine:
    """Where tasks run.

    Attributes:
        workers: local processes; 0 runs everything in this process (debugging, tiny jobs). By default all cores.
        scheduler: address of a Dask scheduler (`tcp://...`) or a scheduler file; by default a local cluster.
        memory: bytes that one local process may use before it is stopped, such as 2GiB. By default 4 GiB, or its
            share of 80% of this machine's memory where that is less.
        patience: seconds to wait for workers of `scheduler` while there are none (environment: SPECSHARDS_WAIT).
    """

    workers: int = field(default_factory=cores)
    scheduler: str | None = None
    memory: int | None = field(default=None, metadata={"parse": parse_memory})
    patience: float = field(default_factory=_patience, metadata={"option": False})

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.workers < 0:
            raise UsageError(f"WORKERS={self.workers}: give 0 (this process) or a number of processes")
        if self.memory is not None and self.scheduler is not None:
            raise UsageError("--memory: workers of a scheduler have their own limit; start them with --memory-limit")
        if self.memory is not None and self.workers == 0:
            raise UsageError("--memory: WORKERS=0 starts no process that it could limit; drop one of the two")

    def memory_for(self, processes: int) -> int:
        """Bytes for each of so many local processes."""
        from distributed.system import MEMORY_LIMIT  # the control group's where that is less than the machine's

        return self.memory or int(min(_MOST_MEMORY, 0.8 * MEMORY_LIMIT / processes))


def run_tasks(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    engine: Engine,
    *,
    describe: str,
    unit: str,
    sizes: Sequence[int],
    note: Callable[[Result], str] | None = None,
    name: Callable[[Task], str] | None = None,
    quiet: bool | None = False,
) -> Iterator[Result]:
    """Yield `function(task)` for every task, as they finish, with one progress line.

    A task must be a pure function of its argument: where a worker dies it is run again on another. An exception in a
    task stops the job: objects' own faults are the task's to catch.

    Args:
        sizes: number of objects in each task, for the progress line's rate and time left.
        note: a few words about a result for the progress line.
        name: what a user calls a task, for errors; by default its place in `tasks`.
        quiet: without the progress line; None: with it on a terminal alone.

    Raises:
        JobError: workers died of one task, the workers or the scheduler are gone, or the environment failed (disk
            full, no permission).
    """
    bar = tqdm(
        total=sum(sizes), desc=describe, unit=unit, smoothing=0.1, disable=quiet if tasks else True,
        file=sys.stderr,
        mininterval=0.2 if sys.stderr.isatty() else 10.0,
    )  # fmt: skip

    def what(indices: Iterable[int]) -> str:
        names = [name(tasks[index]) if name else f"task {index + 1} of {len(tasks)}" for index in sorted(indices)]
        return f"{describe}, {' or '.join(names)}"

    with bar:
        results = _local(function, tasks) if engine.workers == 0 else _dask(function, tasks, engine, what)
        for index, result in results:
            bar.update(sizes[index])
            if note is not None:
                bar.set_postfix_str(note(result), refresh=False)
            yield result


def _local(function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
    for index, task in enumerate(tasks):
        yield index, function(task)


def _dask(
    function: Callable[[Task], Result], tasks: Sequence[Task], engine: Engine, what: Callable[[Iterable[int]], str]
) -> Iterator[tuple[int, Result]]:
    if not tasks:
        return
    processes = min(engine.workers, len(tasks))
    with connected(engine.scheduler, processes, engine.memory_for(processes)) as client:
        watch = Watch(client, engine.scheduler, engine.patience)
        job, waiting = f"specshards-{uuid4().hex}", iter(range(len(tasks)))
        in_flight: dict[Any, int] = {}
        finished: SimpleQueue[Any] = SimpleQueue()
        while True:
            # A bounded number in flight keeps the scheduler's memory flat for millions of objects. It follows the
            # workers: those of a cluster come and go while a job runs.
            room = _AHEAD * max(1, watch.threads()) - len(in_flight)
            if batch := list(islice(waiting, max(0, room))):
                # Under one key, the scheduler sees that they are alike, and keeps them until a worker is free.
                keys = [(job, index) for index in batch]
                futures = client.map(function, [tasks[index] for index in batch], key=keys, retries=1)
                in_flight.update(zip(futures, batch, strict=True))
                for future in futures:
                    future.add_done_callback(finished.put)
            if not in_flight:
                return
            try:
                future = finished.get(timeout=_TICK)
            except Empty:
                continue
            index = in_flight[future]
            result = _result(future, in_flight, watch, what)
            del in_flight[future]
            watch.progress()
            yield index, result


def _result(future: Any, in_flight: dict[Any, int], watch: Watch, what: Callable[[Iterable[int]], str]) -> Any:
    from distributed import CancelledError
    from distributed.scheduler import KilledWorker, NoValidWorkerError, NoWorkerError

    for doubled in count():  # a large result on a slow network must not be given up again and again
        try:
            return future.result(timeout=_TICK * 2**doubled)
        except KilledWorker as error:
            # What else was waiting on the same workers each time is as suspect.
            suspects = [index for other, index in in_flight.items() if other.status == "error"]
            raise watch.killed(error, what(suspects)) from error
        except CancelledError as error:  # the client lost its connection
            raise watch.gone() from error
        except (NoValidWorkerError, NoWorkerError) as error:  # a time limit of the scheduler's own
            raise watch.deserted() from error
        except MemoryError as error:
            raise JobError(
                f"{what([in_flight[future]])}: out of memory; {KEPT}; run again with {watch.more_memory}"
            ) from error
        except RuntimeError as error:
            if "deserialization of the task" in str(error):
                raise watch.foreign() from error
            raise
        except OSError as error:
            if future.status == "error":
                if is_environment(error):
                    raise JobError(one_line(error)) from error
                raise
            # The task is done, but its result did not come. Where a worker died with it, another does it again.
            watch.look()

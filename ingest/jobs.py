"""Running many pure tasks on one machine or many: one Dask client for `ingest` and `shards` alike."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tqdm import tqdm

from ingest.errors import JobError, UsageError, is_environment, one_line

Task = TypeVar("Task")
Result = TypeVar("Result")


_KEPT_MEMORY = 64 << 20


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Engine:
    """Where tasks run.

    Attributes:
        workers: local processes; 0 runs everything in this process (debugging, tiny jobs).
        scheduler: address of a Dask scheduler (`tcp://...`) or a scheduler file; None starts a local cluster.
    """

    workers: int = field(default_factory=cores)
    scheduler: str | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.workers < 0:
            raise UsageError(f"WORKERS={self.workers}: give 0 (this process) or a number of processes")


def engine_of(workers: int | None, scheduler: str | None) -> Engine:
    """The engine that a command's options ask for; all cores unless told."""
    return Engine(scheduler=scheduler) if workers is None else Engine(workers, scheduler)


def run_tasks(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    engine: Engine,
    *,
    describe: str,
    unit: str,
    sizes: Sequence[int],
    note: Callable[[Result], str] | None = None,
) -> Iterator[Result]:
    """Yield `function(task)` for every task, as they finish, with one progress line.

    A task must be a pure function of its argument. An exception in a task stops the job: objects' own faults are
    the task's to catch.

    Args:
        sizes: number of objects in each task, for the progress line's rate and time left.
        note: a few words about a result for the progress line.

    Raises:
        JobError: a worker died, the scheduler is gone, or the environment failed (disk full, no permission).
    """
    bar = tqdm(
        total=sum(sizes), desc=describe, unit=unit, smoothing=0.1, disable=not tasks, file=sys.stderr,
        mininterval=0.2 if sys.stderr.isatty() else 10.0,
    )  # fmt: skip
    with bar:
        results = _local(function, tasks) if engine.workers == 0 else _dask(function, tasks, engine)
        for index, result in results:
            bar.update(sizes[index])
            if note is not None:
                bar.set_postfix_str(note(result), refresh=False)
            yield result


def _local(function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
    for index, task in enumerate(tasks):
        yield index, function(task)


def _dask(function: Callable[[Task], Result], tasks: Sequence[Task], engine: Engine) -> Iterator[tuple[int, Result]]:
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    if not tasks:
        return
    with _client(engine, len(tasks)) as client:
        # A bounded number of tasks in flight keeps the scheduler's memory flat for millions of objects.
        waiting = iter(enumerate(tasks))
        in_flight: dict[Any, int] = {}
        finished = as_completed()

        def submit() -> None:
            for index, task in waiting:
                future = client.submit(function, task, pure=False, retries=1)
                in_flight[future] = index
                finished.add(future)
                return

        for _ in range(4 * sum(client.nthreads().values()) or 4):
            submit()
        for future in finished:
            index = in_flight.pop(future)
            try:
                result = future.result()
            except KilledWorker as error:
                raise JobError(
                    "a worker process died twice on one task (out of memory?); run again with fewer WORKERS"
                ) from error
            except OSError as error:
                if is_environment(error):
                    raise JobError(one_line(error)) from error
                raise
            submit()
            yield index, result
            future.release()


@contextmanager
def _client(engine: Engine, n_tasks: int) -> Iterator[Any]:
    import dask
    from distributed import Client, LocalCluster

    # dask would have workers give memory back above 64 KiB, which is less than one spectrum: a fifth of system time.
    kept = {"MALLOC_TRIM_THRESHOLD_": _KEPT_MEMORY, "MALLOC_MMAP_THRESHOLD_": _KEPT_MEMORY}
    dask.config.set({f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in kept.items()})
    # The scheduler's own warnings are about its internals; failures reach the user through `JobError`.
    for name in ("distributed", "distributed.worker", "distributed.nanny", "distributed.scheduler"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if engine.scheduler is not None:
        try:
            if os.path.exists(engine.scheduler):  # noqa: PTH110 - may also be an address
                client = Client(scheduler_file=engine.scheduler, timeout=20)
            else:
                client = Client(engine.scheduler, timeout=20)
        except (OSError, ValueError) as error:
            raise JobError(
                f"{engine.scheduler}: no Dask scheduler answers there; start one or drop --scheduler"
            ) from error
        with client:
            yield client
        return
    # Ctrl-C reaches every process of the terminal. Workers inherit that they ignore it: this process stops them, and
    # says so in one line, where they would each print a traceback.
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        cluster = LocalCluster(
            n_workers=min(engine.workers, n_tasks),
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            host="127.0.0.1",
            silence_logs=logging.CRITICAL,
        )
    finally:
        signal.signal(signal.SIGINT, interrupt)
    with cluster, Client(cluster) as client:
        yield client

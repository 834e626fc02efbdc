"""The Dask client behind `common.jobs`: a cluster of this machine's processes, or a scheduler that runs elsewhere."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import resource_tracker, spawn
from pathlib import Path
from typing import Any

from tqdm import tqdm

from specshards.common.errors import JobError
from specshards.common.messages import LOGGER

KEPT = "what is finished is kept"

_KEPT_MEMORY = 64 << 20
#: A task is tried this often on local workers before it is blamed for their deaths.
_ATTEMPTS = 3
#: Seconds: between two looks at the workers; without any before that is said; for a scheduler to answer; for local
#: workers to come back.
_LOOK, _QUIET, _ANSWER, _RESTART = 2.0, 10.0, 20.0, 60.0


class Watch:
    """Looks after scheduler and workers while results are awaited, so that no failure is a silent wait.

    Attributes:
        more_memory: how a user gives the workers more.
    """

    def __init__(self, client: Any, scheduler: str | None, patience: float) -> None:
        self._client = client
        self._scheduler = scheduler
        self._patience = _RESTART if scheduler is None else patience
        self._threads = 0
        self._looked = -float("inf")
        self._result = self._served = time.monotonic()
        self._told = False
        here = scheduler is None
        self.more_memory = "more --memory or fewer WORKERS" if here else "workers of a larger --memory-limit"

    def progress(self) -> None:
        """A result has come."""
        self._result = time.monotonic()

    def threads(self) -> int:
        """Threads of all workers, as they were some seconds ago at most."""
        if time.monotonic() - self._looked > _LOOK:
            self.look()
        return self._threads

    def look(self) -> None:
        """Ask the scheduler for its workers; JobError where it is gone, or they have been for too long."""
        if self._client.status != "running":
            raise self.gone()
        now = time.monotonic()
        # The list of a thousand workers is long: only where nothing has come back for a while.
        listed = now - self._result > _QUIET
        try:
            ask = self._client.scheduler.identity
            answer = self._client.sync(ask, n_workers=-1 if listed else 0, callback_timeout=_ANSWER)
        except OSError as error:
            raise self.gone() from error
        self._looked, self._threads = now, answer["total_threads"]
        workers = answer["workers"].values()
        # A worker that is short of memory is paused: it takes no task before it has given some back.
        if any(worker["status"] == "running" for worker in workers) if listed else self._threads:
            self._served, self._told = now, False
        else:
            self._wait(now - max(self._served, self._result), len(workers))

    def _wait(self, seconds: float, paused: int) -> None:
        if seconds > self._patience:
            raise self.deserted()
        if seconds > _QUIET and not self._told:
            self._told = True
            where = "this machine" if self._scheduler is None else self._scheduler
            none = "none is connected; if they end at once, see their logs"
            why = f"all {paused} are paused, short of memory" if paused else none
            tqdm.write(f"waiting for workers of {where}: {why}", file=sys.stderr)

    def gone(self) -> JobError:
        """The error for a lost scheduler."""
        place = "of this process" if self._scheduler is None else self._scheduler
        return JobError(f"the Dask scheduler {place} went away; {KEPT}; start it and run the same command again")

    def foreign(self) -> JobError:
        """The error for a scheduler that cannot import a task."""
        return JobError(
            f"the Dask scheduler {self._scheduler} does not have this program; start it and its workers with this "
            "checkout's .venv (docs/cluster.md)"
        )

    def deserted(self) -> JobError:
        """The error for lost workers."""
        if self._scheduler is None:
            return JobError(f"all worker processes died and none came back; {KEPT}; run again with fewer WORKERS")
        return JobError(
            f"no worker of the Dask scheduler {self._scheduler} for {self._patience:,.0f} s; {KEPT}; "
            "start workers (docs/cluster.md) and run the same command again"
        )

    def killed(self, error: Any, what: str) -> JobError:
        """The error for workers that died of one task."""
        from dask.utils import format_bytes

        worker, times = error.last_worker, error.allowed_failures + 1
        if self._over_memory(worker.address):
            limit = format_bytes(worker.memory_limit)
            return JobError(
                f"{what}: its worker went past the memory limit of {limit}, {times} times; {KEPT}; "
                f"run again with {self.more_memory}"
            )
        mend = "run again with fewer WORKERS" if self._scheduler is None else f"see the log of {worker.address}"
        return JobError(f"{what}: its worker died {times} times (killed, or no memory left there?); {KEPT}; {mend}")

    def _over_memory(self, address: str) -> bool:
        # A worker's nanny tells the scheduler why it stops it; that may come after the news of its death.
        deadline = time.monotonic() + 1
        with suppress(OSError):
            while time.monotonic() < deadline:
                events = self._client.get_events("worker-restart-memory")
                if any(event["worker"] == address for _, event in events):
                    return True
                time.sleep(0.1)
        return False


@contextmanager
def connected(scheduler: str | None, processes: int, memory: int) -> Iterator[Any]:
    """A Dask client of `scheduler`, or of so many local processes of so much memory that end with the context.

    Raises:
        JobError: no scheduler answers, or the processes do not start.
    """
    import dask

    if not os.environ.get("SPECSHARDS_DEBUG"):
        _hush()
    address = None if scheduler is None else _address(scheduler)
    resource_tracker.ensure_running()  # it would unblock
    with ExitStack() as stack:
        try:
            with _later():
                stack.enter_context(dask.config.set(_settings(scheduler)))
                stack.enter_context(_unguarded_main_left_out())
                client = stack.enter_context(_client(scheduler, address, processes, memory))
            yield client
        finally:
            with _later():
                stack.close()


@contextmanager
def _later() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait while workers start and stop: amid these Dask leaves processes behind.

    Ctrl-C reaches every process of a terminal. New threads and processes inherit what is blocked here, so no worker
    sees it, also none that is started again later. Other threads of this process may still take a signal, and Python
    then calls its handler in the main thread: that is replaced, too.
    """
    came: list[int] = []
    here = threading.current_thread() is threading.main_thread()  # elsewhere Python sets no handlers
    signals = (signal.SIGINT, signal.SIGTERM) if here else ()
    before = {number: signal.signal(number, lambda sign, _: came.append(sign)) for number in signals}
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if came:
            signal.raise_signal(came[0])


def _hush() -> None:
    """Silence dask's log: it is about its internals, and failures reach the user through `JobError`."""
    import distributed  # noqa: F401 - gives its loggers their levels

    for name in ("distributed", "tornado", "asyncio", *logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _settings(scheduler: str | None) -> Mapping[str, object]:
    # The first tasks go out together, with the names of all their files.
    ours = {"distributed.admin.large-graph-warning-threshold": "10GB"}
    if scheduler is not None:
        return {**ours, "distributed.comm.timeouts.connect": "10s"}
    # dask would have workers give memory back above 64 KiB, which is less than one spectrum: a fifth of system time.
    environment = {"MALLOC_TRIM_THRESHOLD_": _KEPT_MEMORY, "MALLOC_MMAP_THRESHOLD_": _KEPT_MEMORY}
    return {
        **ours,
        **{f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in environment.items()},
        "distributed.scheduler.allowed-failures": _ATTEMPTS - 1,
        "distributed.scheduler.worker-saturation": 1.0,  # so that a death is held against one task only
        # Workers hold no results worth spilling, and a paused one might never take a task again.
        **{f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")},
    }


@contextmanager
def _client(scheduler: str | None, address: str | None, processes: int, memory: int) -> Iterator[Any]:
    from distributed import Client, LocalCluster

    if address is not None:
        try:
            with warnings.catch_warnings(record=True) as caught:
                client = Client(address, timeout=_ANSWER)
        except (OSError, ValueError) as error:
            raise _no_answer(str(scheduler)) from error
        _tell_versions(caught)
        with client:
            yield client
        return
    try:
        cluster = LocalCluster(
            n_workers=processes, threads_per_worker=1, memory_limit=memory, host="127.0.0.1",
            dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL, worker_class=_hasty_nanny(),
        )  # fmt: skip
    except (OSError, RuntimeError) as error:
        raise JobError(f"the worker processes did not start ({error}); run again with fewer WORKERS") from error
    with cluster, Client(cluster) as client:
        yield client


@contextmanager
def _unguarded_main_left_out() -> Iterator[None]:
    """Processes started within run the user's script again only where it has a main guard.

    Without one they would come to this place again. With one, they need what the script registers.
    """
    script = getattr(sys.modules["__main__"], "__file__", None)
    if script is None or "__name__" in Path(script).read_text(encoding="utf-8", errors="replace"):
        yield
        return
    prepare = spawn.get_preparation_data

    def without_main(name: str) -> dict[str, Any]:
        return {key: value for key, value in prepare(name).items() if not key.startswith("init_main")}

    spawn.get_preparation_data = without_main
    try:
        yield
    finally:
        spawn.get_preparation_data = prepare


def _hasty_nanny() -> type[Any]:
    from distributed import Nanny

    class HastyNanny(Nanny):
        """Does not wait for a task of minutes when the job ends: it leaves no half file, and nobody needs it."""

        async def close(self, timeout: float = 1, reason: str = "nanny-close") -> str:
            return await super().close(timeout=min(timeout, 1), reason=reason)

    return HastyNanny


def _address(scheduler: str) -> str:
    """The address that an address or a scheduler file names, if something listens there."""
    from distributed.comm import get_address_host_port

    address = scheduler
    if Path(scheduler).is_file():
        try:
            address = str(json.loads(Path(scheduler).read_text())["address"])
        except (ValueError, KeyError, TypeError) as error:
            raise JobError(f"{scheduler}: not a file of dask scheduler --scheduler-file; start one anew") from error
    elif ":" not in scheduler:
        raise JobError(f"{scheduler}: no such scheduler file; start a scheduler that writes it, or drop --scheduler")
    try:
        # Dask would go on trying for a while.
        socket.create_connection(get_address_host_port(address), timeout=10).close()
    except (OSError, ValueError) as error:
        raise _no_answer(scheduler if address == scheduler else f"{scheduler} ({address})") from error
    return address


def _no_answer(scheduler: str) -> JobError:
    return JobError(f"{scheduler}: no Dask scheduler answers there; start one or drop --scheduler")


def _tell_versions(caught: Sequence[warnings.WarningMessage]) -> None:
    """One line in place of dask's table of versions that differ."""
    from distributed.versions import VersionMismatchWarning

    tables = [str(warning.message) for warning in caught if issubclass(warning.category, VersionMismatchWarning)]
    packages = {name for table in tables for name in re.findall(r"^\| (\S+)", table, re.MULTILINE)} - {"Package"}
    if packages:
        LOGGER.warning(
            f"versions of {', '.join(sorted(packages))} differ between this process, the scheduler and its "
            "workers; start all of them from the same .venv"
        )

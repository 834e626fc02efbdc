"""Tasks for tests of the engine: workers import them by name. As a program it runs one of them on many tasks."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from pathlib import Path

from specshards.common.jobs import Engine, run_tasks

Task = tuple[int, str]
"""Its number, and a folder for the traces it leaves."""


def trace(task: Task) -> Path:
    """A file that says that a task was begun, with one line an attempt."""
    path = Path(task[1]) / f"{task[0]:03d}"
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")
    return path


def square(task: Task) -> int:
    trace(task)
    return task[0] ** 2


def slow(task: Task) -> int:
    trace(task)
    time.sleep(0.3)
    return task[0] ** 2


def endless(task: Task) -> int:
    trace(task)
    time.sleep(600)
    return 0


def killed_once(task: Task) -> int:
    if len(trace(task).read_text().splitlines()) == 1 and task[0] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return task[0] ** 2


def killed_always(task: Task) -> int:
    trace(task)
    if task[0] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return task[0] ** 2


def greedy(task: Task) -> int:
    trace(task)
    hoard = []
    while task[0] == 2:
        hoard.append(bytearray(os.urandom(1 << 20)) * 16)
        time.sleep(0.02)
    return task[0] ** 2


def disk_full(task: Task) -> int:
    trace(task)
    if task[0] == 0:
        raise OSError(errno.ENOSPC, "No space left on device", f"{task[1]}/big.tar")
    time.sleep(1)
    return task[0] ** 2


def no_memory(task: Task) -> int:
    raise MemoryError


def run(name: str, folder: Path | str, n: int, engine: Engine) -> list[int]:
    """Run a function of this module, by name."""
    tasks = [(number, str(folder)) for number in range(n)]
    results = run_tasks(
        globals()[name], tasks, engine, describe=name, unit="task", sizes=[1] * n,
        name=lambda task: f"no. {task[0]}",
    )  # fmt: skip
    return list(results)


def main() -> None:
    """`name folder n workers scheduler`: what a command does, its errors included."""
    from specshards.common.cli import run_app

    name, folder, n, workers, scheduler = sys.argv[1:]
    run_app(lambda *_, **__: print(sorted(run(name, folder, int(n), Engine(int(workers), scheduler or None)))))  # type: ignore[arg-type]

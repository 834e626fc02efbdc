"""A command and all its processes, watched while it runs: memory, open files, time."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

import psutil

#: Seconds between two looks.
_LOOK = 0.2


@dataclass(frozen=True)
class Watched:
    """What a command came to.

    Attributes:
        code: exit code, below 0 where a signal ended it.
        largest, together: peak resident memory of its largest process, and of all of them at one time, MB. Pages of
            files that are mapped count, in each process that has them.
        own: the same of all without pages of files, which the system may drop.
        handles: most files that one process had open.
        stopped: why it was ended from here; empty where it ended by itself.
        said: its standard output. error: the last line of its standard error.
    """

    seconds: float
    code: int
    largest: float
    together: float
    own: float
    handles: int
    stopped: str
    said: str
    error: str


def watch(
    command: Sequence[str],
    *,
    most_seconds: float = float("inf"),
    most_megabytes: float = float("inf"),
    until: Callable[[], bool] = lambda: False,
) -> Watched:
    """Run a command and look at its processes five times a second.

    Args:
        most_seconds, most_megabytes: it is killed where it takes more, of memory without pages of files.
        until: it is killed, with all its processes and without a word, when this says so.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=errors, start_new_session=True)
        peak, stopped = _Peak(), ""
        try:
            while process.poll() is None:
                peak.look(process.pid)
                seconds = time.perf_counter() - began
                if seconds > most_seconds:
                    stopped = f"stopped after {seconds:,.0f} s"
                elif peak.own > most_megabytes:
                    stopped = f"stopped at {peak.own:,.0f} MB, after {seconds:,.0f} s"
                elif until():
                    stopped = "killed"
                if stopped:
                    _kill(process.pid)
                    process.wait()
                    break
                time.sleep(_LOOK)
        except BaseException:
            _kill(process.pid)
            process.wait()
            raise
        seconds = time.perf_counter() - began
        return Watched(
            seconds, process.returncode, peak.largest, peak.together, peak.own, peak.handles, stopped, _text(out),
            next(iter(_text(errors).strip().splitlines()[-1:]), ""),
        )  # fmt: skip


class _Peak:
    """The most that was seen of each."""

    largest = together = own = 0.0
    handles = 0

    def look(self, pid: int) -> None:
        """At a process and all below it; those that end meanwhile are left out."""
        sizes, own = [], 0.0
        for process in _family(pid):
            try:
                memory = process.memory_info()
                self.handles = max(self.handles, process.num_fds())
            except psutil.Error:
                continue
            sizes.append(memory.rss / 2**20)
            own += (memory.rss - getattr(memory, "shared", 0)) / 2**20
        self.largest = max([self.largest, *sizes])
        self.together = max(self.together, sum(sizes))
        self.own = max(self.own, own)


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return []


def _kill(pid: int) -> None:
    """A process and all below it, whatever sessions they are in."""
    for process in reversed(_family(pid)):
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.Error:
            continue


def _text(file: IO[str]) -> str:
    file.seek(0)
    return file.read().replace("\r", "\n")

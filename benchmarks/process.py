"""A command as a user types it, timed, with the memory that its largest process took."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

# Only the children of a process that starts nothing else are those of the command.
_MEASURED = (
    "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=sys.stderr); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)"
)


def build_command(room: str, **options: object) -> list[str]:
    """The command line of `python -m ROOM build`, as a user types it; `room` is `ingest` or `shards`."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", room, "build", *words]


def measured(command: Sequence[str], *, quiet: bool = False) -> tuple[float, float]:
    """Run a command; what it says goes to standard error, or nowhere when `quiet`.

    Returns:
        Seconds, and peak resident memory of its largest process in MB.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *command], check=True, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.PIPE if quiet else None,
    )  # fmt: skip
    return time.perf_counter() - began, int(done.stdout) / 1024

"""The program as a user starts it: in a folder whose files have the names of the program's own folders."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

NAMES = ("common.py", "ingest.py", "render/__init__.py", "shards.py", "train.py", "benchmarks.py")


def write_user_files(folder: Path) -> Path:
    """Python stands the folder of a command first in its path: whatever imports one of these ends."""
    for name in NAMES:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(f"raise SystemExit('{name} is the user\\'s own, and was imported')\n")
    return folder


@cache
def user_folder() -> Path:
    """A folder of `write_user_files`, one for each process of tests; nothing is to be written there."""
    folder = Path(tempfile.mkdtemp(prefix="user-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return write_user_files(folder)


def program(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "specshards", *map(str, arguments)]


def script(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def run(command: Sequence[str], *, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    """The finished command, with all that it printed."""
    return subprocess.run(command, cwd=user_folder(), capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, **environment})  # fmt: skip


def start(command: Sequence[str], *, output: int = subprocess.DEVNULL, errors: int = subprocess.DEVNULL,
          **options: Any) -> subprocess.Popen[str]:  # fmt: skip
    """The command, running; its output goes nowhere by default."""
    return subprocess.Popen(command, cwd=user_folder(), stdout=output, stderr=errors, text=True, **options)

"""Where numbers hold: the machine, its versions, and how busy it was."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from specshards.common.jobs import cores

_PACKAGES = ("numpy", "numba", "torch", "nvidia-dali-cuda120", "opencv-python-headless", "simplejpeg", "isal",
             "pyarrow", "webdataset", "transformers", "matplotlib")  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """Where the numbers hold.

    Attributes:
        cores: that a process of this user may use.
        packages: name -> version, or `absent`.
        memory: bytes that are installed, None where the system does not say.
        gpu, driver: of the first GPU, and how many there are; empty where there is none.
        load: the system's load average over a minute, when the run began.
    """

    cpu: str
    cores: int
    system: str
    python: str
    packages: dict[str, str] = field(default_factory=dict)
    memory: int | None = None
    gpu: str = ""
    driver: str = ""
    load: float | None = None

    @classmethod
    def here(cls) -> Machine:
        """This machine and these versions, now."""
        gpu, driver = _gpu()
        return cls(
            _cpu(), cores(), platform.platform(), platform.python_version(), {p: _version(p) for p in _PACKAGES},
            _memory(), gpu, driver, round(os.getloadavg()[0], 2),
        )  # fmt: skip

    def line(self) -> str:
        """The hardware and the system in one line."""
        parts = [self.cpu or "a CPU without a name", f"{self.cores} core{'s' * (self.cores != 1)}"]
        if self.memory is not None:
            parts.append(f"{self.memory / 1e9:.0f} GB")
        parts.append(f"{self.gpu} (driver {self.driver})" if self.gpu else "no GPU")
        parts += [self.system, f"Python {self.python}"]
        if self.load is not None:
            parts.append(f"load average {self.load:g} at the start")
        return ", ".join(parts)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _gpu() -> tuple[str, str]:
    """Name and driver of NVIDIA's GPUs as their own tool has them: asking torch would take memory on the GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "", ""
    asked = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "", ""
    lines = done.stdout.strip().splitlines() if done.returncode == 0 else []
    if not lines:
        return "", ""
    name, _, driver = lines[0].rpartition(",")
    return (f"{len(lines)} x " if len(lines) > 1 else "") + name.strip(), driver.strip()

"""What a measurement leaves: typed records, the machine they hold for, JSON and a table."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("numpy", "numba", "torch", "nvidia-dali-cuda120", "opencv-python-headless", "simplejpeg", "isal",
             "pyarrow", "webdataset", "transformers", "matplotlib")  # fmt: skip


@dataclass(frozen=True)
class Record:
    """What was measured of one contender.

    Attributes:
        group: contenders of one group did the same work in turn.
        values: one of every round, the first, warming one not among them; none where it was not run.
        unit: of the values: `s` for seconds per object, or `MB` of resident memory.
        note: why it was not run, or what else there is to know.
        bytes: what it makes of one object, on average, where it makes bytes.
        about: numbers that it holds for, such as `objects` and `workers`.
    """

    group: str
    name: str
    values: tuple[float, ...]
    unit: str = "s"
    note: str = ""
    bytes: float | None = None
    about: dict[str, float] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Median of the values."""
        return statistics.median(self.values)


@dataclass(frozen=True)
class Machine:
    """Where the numbers hold."""

    cpu: str
    cores: int
    system: str
    python: str
    packages: dict[str, str] = field(default_factory=dict)

    @classmethod
    def here(cls) -> Machine:
        """This machine and these versions."""
        cpu = platform.processor()
        try:
            lines = Path("/proc/cpuinfo").read_text().splitlines()
            cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
        except OSError:
            pass
        packages = {}
        for name in _PACKAGES:
            try:
                packages[name] = version(name)
            except ModuleNotFoundError:
                packages[name] = "absent"
        return cls(cpu, len(os.sched_getaffinity(0)), platform.platform(), platform.python_version(), packages)


def interleave(group: str, contenders: dict[str, Callable[[], int]], rounds: int = 5) -> list[Record]:
    """Time contenders in turn, A B C A B C, so that a drift of the machine's speed hits all alike.

    Args:
        contenders: name -> a call that works through some objects and returns how many.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, work in contenders.items():
            start = time.perf_counter()
            count = work()
            if number:
                seconds[name].append((time.perf_counter() - start) / count)
    return [Record(group, name, tuple(values)) for name, values in seconds.items()]


def table(records: Sequence[Record]) -> str:
    """A Markdown table; ratios are to the first record of each group. Bytes where a record has them."""
    sized = any(r.bytes is not None for r in records)
    lines = [f"| | median us/object | lowest to highest | objects/s | ratio |{' bytes | ratio |' if sized else ''}"]
    lines.append("|---" * (lines[0].count("|") - 1) + "|")
    first: dict[str, Record] = {}
    for r in records:
        base = first.setdefault(r.group, r)
        spread = f"{1e6 * min(r.values):,.0f} to {1e6 * max(r.values):,.0f}"
        line = f"| {r.group}: {r.name} | {1e6 * r.median:,.1f} | {spread} | {1 / r.median:,.0f} |"
        line += f" {r.median / base.median:.2f} |"
        if r.bytes is not None and base.bytes:
            line += f" {r.bytes:,.0f} | {r.bytes / base.bytes:.2f} |"
        elif sized:
            line += " | |"
        lines.append(line)
    return "\n".join(lines)


def save(records: Sequence[Record], out: Path, command: str) -> None:
    """Write the records with the machine's description as JSON."""
    out.parent.mkdir(parents=True, exist_ok=True)
    content = {"command": command, "machine": asdict(Machine.here()), "records": [asdict(r) for r in records]}
    out.write_text(json.dumps(content, indent=1) + "\n")

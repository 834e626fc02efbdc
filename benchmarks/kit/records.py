"""What a measurement leaves: typed records of a run, and the JSON file that holds them.

{"format": 1, "name": "render", "command": "python -m ...", "machine": {...}, "started": "2026-...",
 "seconds": 21.5, "data": "mock", "notes": [...], "records": [{"group": ..., "name": ..., "values": [...]}]}
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from specshards.benchmarks.kit.machine import Machine
from specshards.common.errors import UsageError, make_folder
from specshards.common.files import write_text

#: Of the JSON files. Raised when a reader of the present one would misunderstand a file.
FORMAT = 1


@dataclass(frozen=True)
class Unit:
    """How values of a unit are shown, and which way is better.

    Attributes:
        scale: what a value is multiplied with before it is shown as `label`.
        lower, higher: the words for a value that is lower, and higher, than another.
        more_is_better: whether `higher` is what one wants.
        signed: whether a value can be below 0.
    """

    scale: float
    label: str
    lower: str
    higher: str
    more_is_better: bool = False
    signed: bool = False


UNITS = {
    "s": Unit(1e6, "us/object", "faster", "slower"),
    "MB": Unit(1, "MB", "smaller", "larger"),
    "share": Unit(100, "%", "lower", "higher"),
    "TFLOP/s": Unit(1, "TFLOP/s", "slower", "faster", more_is_better=True),
    "correlation": Unit(1, "correlation", "less alike", "more alike", more_is_better=True, signed=True),
}


@dataclass(frozen=True)
class Record:
    """What was measured of one contender.

    Attributes:
        group: contenders of one group did the same work in turn.
        values: one of every round, the first, warming one not among them; none where it was not run.
        unit: of the values: `s` for seconds per object, `MB` of resident memory, or another of `UNITS`.
        note: why it was not run, or what else there is to know.
        bytes: what it makes or reads of one object, on average, where that was counted.
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

    @property
    def kind(self) -> Unit:
        """How its values are shown."""
        return UNITS.get(self.unit, Unit(1, self.unit, "lower", "higher"))


@dataclass(frozen=True)
class Run:
    """One run of a benchmark.

    Attributes:
        name: of the benchmark, such as `render`.
        command: what was typed.
        started: when, ISO 8601 with the time zone; empty where that was not written down.
        seconds: that it took, all in all; None where that was not written down.
        data: `mock` or `real`: what the objects are; empty where that was not written down.
        notes: lines for a reader: ratios that matter, what was left out.
    """

    name: str
    command: str
    machine: Machine
    records: tuple[Record, ...]
    started: str = ""
    seconds: float | None = None
    data: str = ""
    notes: tuple[str, ...] = ()


def write(run: Run, path: Path) -> None:
    """Write a run as JSON, whole or not at all."""
    make_folder(path.parent)
    content = {"format": FORMAT, **asdict(run)}
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def load(path: Path) -> Run:
    """Read what `write` wrote.

    Raises:
        UsageError: there is no such file, it is damaged, or it is of something else or of a later version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file; `make bench` writes records") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: damaged, not JSON; measure again") from error
    if not isinstance(content, dict) or "format" not in content or "records" not in content:
        raise UsageError(f"{path}: not a record of a benchmark; give what `make bench` writes")
    if content.pop("format") != FORMAT:
        raise UsageError(f"{path}: a record of another format than {FORMAT}; use the program that wrote it")
    try:
        records = tuple(_made(Record, {**r, "values": tuple(r["values"])}) for r in content["records"])
        machine = _made(Machine, content["machine"])
        run = _made(Run, {**content, "records": records, "machine": machine, "notes": tuple(content["notes"])})
        _check(run)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path}: a damaged record ({error}); measure again") from error
    return run


def _made(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """An instance of a dataclass; keys that it does not know are another program's, and an error."""
    unknown = sorted(set(values) - {f.name for f in fields(kind)})
    if unknown:
        raise ValueError(f"{kind.__name__} has no {', '.join(unknown)}")
    return kind(**values)


def _check(run: Run) -> None:
    """Raise ValueError for what the types of the fields do not allow."""
    texts = [run.name, run.command, run.started, run.data, *run.notes, run.machine.cpu, run.machine.system]
    texts += [text for r in run.records for text in (r.group, r.name, r.unit, r.note)]
    texts += [run.machine.python, run.machine.gpu, run.machine.driver, *run.machine.packages.values()]
    numbers = [run.seconds, run.machine.cores, run.machine.memory, run.machine.load]
    numbers += [number for r in run.records for number in (*r.values, r.bytes, *r.about.values())]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a text is none")
    for number in numbers:
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
            raise ValueError(f"{number!r} is no number")
        if number is not None and not math.isfinite(number):
            raise ValueError("a number is not finite")
    if any(value is None or (value < 0 and not r.kind.signed) for r in run.records for value in r.values):
        raise ValueError("a value is missing or negative")


def interleave(
    group: str, contenders: Mapping[str, Callable[[], int]], rounds: int = 5, *, warm: bool = True,
    after: Callable[[str], None] | None = None,
) -> list[Record]:  # fmt: skip
    """Time contenders in turn, A B C A B C, so that a drift of the machine's speed hits all alike.

    What runs now is shown on standard error.

    Args:
        contenders: name -> a call that works through some objects and returns how many.
        warm: one more round goes before them and does not count.
        after: called with the name after every turn; not timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    first = 0 if warm else 1
    with tqdm(
        total=(rounds + 1 - first) * len(contenders), desc=group, unit="turn", file=sys.stderr,
        mininterval=0.3 if sys.stderr.isatty() else 30.0, leave=False,
    ) as line:  # fmt: skip
        for number in range(first, rounds + 1):
            for name, work in contenders.items():
                line.set_postfix_str(name, refresh=sys.stderr.isatty())
                start = time.perf_counter()
                count = work()
                took = time.perf_counter() - start
                if number:
                    seconds[name].append(took / count)
                if after is not None:
                    after(name)
                line.update()
    return [Record(group, name, tuple(values)) for name, values in seconds.items()]

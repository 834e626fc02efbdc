"""The three files of a run, and the page of a folder of them."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from specshards.benchmarks.kit.machine import Machine
from specshards.benchmarks.kit.plot import draw
from specshards.benchmarks.kit.records import Record, Run, load, write
from specshards.benchmarks.kit.tables import page
from specshards.common.errors import UsageError, make_folder
from specshards.common.files import write_text

#: Where records of this machine go; git ignores it.
LOCAL = Path("benchmarks/results/local")
#: Options of every benchmark.
Out = Annotated[Path, typer.Option(help="The JSON record; table and plot go beside it.")]
Rounds = Annotated[int, typer.Option(help="Counted rounds; one more warms up.", min=1)]
Quick = Annotated[bool, typer.Option("--quick", help="Seconds, not minutes: does it run? Its numbers mean nothing.")]
#: What stands in a record that was made with it.
QUICK_NOTE = "made with --quick: it shows that all runs; the numbers mean nothing"


@dataclass
class Draft:
    """What a benchmark has found so far; see `Run`."""

    records: list[Record] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    data: str = "mock"


@contextmanager
def recording(name: str, out: Path, quick: bool = False) -> Iterator[Draft]:
    """Measure inside; what the draft holds at the end is printed and saved, with the machine as it was before.

    Args:
        name: of the benchmark.
        out: the JSON file; the table and the plot go beside it.
        quick: the record says that its numbers mean nothing.

    Raises:
        UsageError: `out` has another ending.
    """
    if out.suffix != ".json":
        raise UsageError(f"--out {out}: give a name that ends in .json; the table and the plot go beside it")
    make_folder(out.parent)
    machine, draft = Machine.here(), Draft(notes=[QUICK_NOTE] if quick else [])
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    yield draft
    seconds = round(time.perf_counter() - clock, 1)
    command = shlex.join(["specshards", *sys.argv[1:]])
    run = Run(name, command, machine, tuple(draft.records), started, seconds, draft.data, tuple(draft.notes))
    save(run, out)
    print(page(run))
    print(out)


def save(run: Run, out: Path) -> None:
    """Write `out` (JSON), and beside it the tables (`.md`) and the plot (`.png`)."""
    write(run, out)
    draw(run, out.with_suffix(".png"))
    write_text(out.with_suffix(".md"), page(run, out.with_suffix(".png").name))


def gather(folder: Path, names: Sequence[str]) -> Path:
    """Write `README.md` of a folder: the pages of those runs that it holds, in this order."""
    parts = [
        page(load(path), f"{name}.png").replace("# ", "## ", 1)
        for name in names
        if (path := folder / f"{name}.json").exists()
    ]
    readme = folder / "README.md"
    write_text(readme, "\n".join(["# Benchmarks", "", *parts]))
    return readme

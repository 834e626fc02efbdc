"""`specshards bench`: all benchmarks in a row, two of their records side by side, and a plan made of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from specshards.benchmarks.kit import comparison, report
from specshards.common.cli import application, run_app
from specshards.common.errors import JobError, UsageError, make_folder

#: In the order in which they run: what each measures, and about how many minutes it takes on two cores.
GROUPS = {
    "render": ("drawing", 0.5), "encode": ("encodings", 0.3), "ingest": ("survey files to Parquet", 2.5),
    "shards": ("Parquet to shards", 5.5), "load": ("loaders", 3.5), "train": ("training steps", 0.5),
}  # fmt: skip


def run(
    only: Annotated[str, typer.Option(help="Some of them, with commas.")] = ",".join(GROUPS),
    out: Annotated[Path, typer.Option(help="Folder for NAME.json, NAME.md, NAME.png and README.md.")] = report.LOCAL,
    peers: Annotated[bool, typer.Option("--peers", help="Also litdata and MosaicML streaming, installed apart.")] = (
        False
    ),
    quick: report.Quick = False,
) -> None:
    """Run the benchmarks, each in a process of its own; what is finished is kept whatever happens later."""
    names = list(dict.fromkeys(name.strip() for name in only.split(",")))
    unknown = sorted(set(names) - set(GROUPS))
    if unknown:
        raise UsageError(f"--only: no benchmark {', '.join(unknown)}; choose {', '.join(GROUPS)}")
    make_folder(out)
    for number, name in enumerate(names, 1):
        left = sum(GROUPS[later][1] for later in names[number - 1 :])
        about = "" if quick else f", about {GROUPS[name][1]:g} min on two cores, {left:g} with all that follow"
        print(f"[{number}/{len(names)}] {name}: {GROUPS[name][0]}{about}", flush=True)
        words = ["--out", str(out / f"{name}.json"), *(["--quick"] if quick else [])]
        words += ["--peers"] if peers and name == "load" else []
        try:
            code = _process([sys.executable, "-m", "specshards", "bench", name, *words])
        except KeyboardInterrupt:
            print(f"\nthe rest: --only {','.join(names[number - 1 :])}", file=sys.stderr)
            raise
        if code:
            rest = ",".join(names[number - 1 :])
            raise JobError(f"{name} ended with exit code {code}; see above. The rest: --only {rest}")
        readme = report.gather(out, list(GROUPS))
    print(readme)


def _process(command: list[str]) -> int:
    """Exit code of a command. It has a Ctrl-C too, and the time to remove what it has in temporary folders."""
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise


def compare(
    a: Annotated[Path, typer.Argument(help="A record (JSON), or a folder of them.")],
    b: Annotated[Path, typer.Argument(help="Another one.")],
    fail_above: Annotated[
        float | None, typer.Option(help="Exit code 1 where B is more than so many times worse, beyond the spread.")
    ] = None,
) -> None:
    """Two records side by side, as Markdown: what differs between the machines, then row by row."""
    both = comparison.compare(comparison.read(a), comparison.read(b))
    print(comparison.page(both, str(a), str(b)), end="")
    worse = both.worse_than(fail_above) if fail_above is not None else []
    if worse:
        raise JobError(f"{len(worse)} of {len(both.pairs)} more than {fail_above:g} times worse: " + "; ".join(
            f"{pair.a.group}: {pair.a.name} {pair.loss:.2f}" for pair in worse))  # fmt: skip


_HERE = "specshards.benchmarks"
app = application(
    "Measure each step of the road from spectrum to model, compare records, plan with them.",
    {"run": run, "compare": compare, "plan": f"{_HERE}.plan.plan:plan", "figures": f"{_HERE}.plan.figures:figures",
     "compare-matplotlib": f"{_HERE}.peers.matplotlib_comparison:main",
     "compare-published": f"{_HERE}.peers.published:main",
     **{name: f"{_HERE}.suite.{name}:main" for name in GROUPS},
     **{name: f"{_HERE}.suite.{name}:main" for name in ("gpu", "several", "verify", "listing", "remote")},
     **{name: f"{_HERE}.plan.{name}:main" for name in ("scale", "whole")},
     "survey": f"{_HERE}.survey.survey:main"},
)  # fmt: skip

if __name__ == "__main__":
    run_app(app)

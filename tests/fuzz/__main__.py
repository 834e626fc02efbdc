"""`python -m tests.fuzz`: see the package."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from specshards.common.text import aligned
from tests.fuzz.run import FAULTS, Plan, replay, run, table


def main(arguments: list[str] | None = None) -> int:
    """Run, print the table and the failures; 1 where there are any."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Damaged files by the thousand.")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds [60]")
    parser.add_argument("--variants", type=int, help="at most so many, all layouts together")
    parser.add_argument("--seed", type=int, default=0, help="of the damage [0]")
    parser.add_argument(
        "--workers", type=int, default=max(1, min(8, os.cpu_count() or 1)), help="processes [all cores]"
    )
    parser.add_argument("--layouts", default="", help="only these, with commas")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="folder for variants that fail")
    parser.add_argument("--replay", type=Path, help="judge one variant that was kept, of the layout in --layouts")
    given = parser.parse_args(arguments)
    if given.replay is not None:
        verdict = replay(given.replay, given.layouts)
        print(f"{verdict.outcome}: {verdict.why} ({verdict.memory / 1e6:.0f} MB)")
        return int(verdict.outcome in FAULTS)
    named = os.environ.get("SPECSHARDS_REAL_DATA")
    real = Path(named) if named and (Path(named) / "lamost").is_dir() else None
    layouts = tuple(filter(None, given.layouts.split(",")))
    accounts, failures = run(Plan(given.budget, given.variants, given.seed, given.workers, layouts, given.keep, real))
    print("\n".join(aligned(table(accounts))))
    for line in failures:
        print(line)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())

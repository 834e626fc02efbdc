"""A fuzz run: variants to workers, a watch on each, and the account."""

from __future__ import annotations

import json
import os
import selectors
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tests.fuzz.damage import damaged
from tests.fuzz.judge import Verdict
from tests.fuzz.layouts import Seed, is_known, seeds

ROOT = Path(__file__).parents[2]
#: Seconds that a variant may take.
PATIENCE = 20.0
FAULTS = ("wrong", "crash", "hang", "memory")


@dataclass
class Account:
    """What became of the variants of one layout."""

    outcomes: Counter[str] = field(default_factory=Counter)
    memory: int = 0
    slowest: float = 0.0


class Watched:
    """A worker process, begun again whenever it dies or takes too long."""

    def __init__(self, number: int, scratch: Path) -> None:
        self.number, self._scratch = number, scratch
        self._process: subprocess.Popen[bytes] | None = None

    def judge(self, seed: Seed, name: str, content: bytes) -> tuple[Verdict, float, Path]:
        """The verdict on one variant, the seconds that it took, and where it lies until the next."""
        folder = self._scratch / f"worker-{self.number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        path = folder / seed.path.name
        path.write_bytes(content)
        opened = path
        if seed.beside is not None:
            opened = folder / seed.beside.name
            shutil.copyfile(seed.beside, opened)
        asked = {"path": str(opened), "layout": seed.layout, "original": str(seed.beside or seed.path)}
        started = time.perf_counter()
        verdict = self._ask(asked)
        return verdict, time.perf_counter() - started, path

    def _ask(self, asked: dict[str, str]) -> Verdict:
        if self._process is None:
            self._start()
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        answer = b""
        try:
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.flush()
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                if not selector.select(PATIENCE):
                    self.stop()
                    return Verdict("hang", f"no answer for {PATIENCE:g} s", 0)
            answer = process.stdout.readline()
        except BrokenPipeError:
            pass
        if not answer:
            code = process.wait(10)
            self.stop()
            return Verdict("crash", f"the process ended with {code}", 0)
        return Verdict(*json.loads(answer))

    def _start(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, cwd=ROOT, env=environment,
        )  # fmt: skip

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes:
        budget: seconds; variants: at most, all layouts together, None for as many as the budget allows.
        layouts: only these; empty for all.
        keep: folder for variants that fail.
        real: folder of real survey files, or None.
    """

    budget: float = 60.0
    variants: int | None = None
    seed: int = 0
    workers: int = 2
    layouts: tuple[str, ...] = ()
    keep: Path = Path("fuzz-failures")
    real: Path | None = None


def variant(seed: Seed, number: int, plan_seed: int) -> tuple[str, bytes]:
    """Variant `number` of a whole file: the same bytes for the same numbers."""
    name = f"{seed.layout}/{seed.path.parent.name}/{seed.path.name}"
    rng = np.random.default_rng([plan_seed, number, *name.encode()])
    return damaged(seed.path.read_bytes(), seed.is_fits, rng)


def run(plan: Plan) -> tuple[dict[str, Account], list[str]]:
    """Judge variants until the budget is spent; the account by layout, and a line for each failure."""
    from concurrent.futures import ThreadPoolExecutor

    accounts: dict[str, Account] = {}
    failures: list[str] = []
    with TemporaryDirectory(prefix="specshards-fuzz-") as folder:
        scratch = Path(folder)
        known = [one for one in seeds(scratch / "whole", plan.real) if not plan.layouts or one.layout in plan.layouts]
        for seed in known:
            assert is_known(seed), f"{seed.path}: refused as it is"
        deadline = time.monotonic() + plan.budget
        total = plan.variants if plan.variants is not None else sys.maxsize

        def work(number: int) -> None:
            watched = Watched(number, scratch)
            try:
                for index in range(number, total, plan.workers):
                    if time.monotonic() > deadline:
                        return
                    seed = known[index % len(known)]
                    kind, content = variant(seed, index // len(known), plan.seed)
                    verdict, seconds, path = watched.judge(seed, kind, content)
                    account = accounts.setdefault(seed.layout, Account())
                    account.outcomes[verdict.outcome] += 1
                    account.memory = max(account.memory, verdict.memory)
                    account.slowest = max(account.slowest, seconds)
                    if verdict.outcome in FAULTS:
                        failures.append(_kept(plan, seed, f"{index // len(known)}-{kind}", path, verdict))
            finally:
                watched.stop()

        with ThreadPoolExecutor(plan.workers) as pool:
            for done in [pool.submit(work, number) for number in range(plan.workers)]:
                done.result()
    return accounts, failures


def _kept(plan: Plan, seed: Seed, name: str, path: Path, verdict: Verdict) -> str:
    """Keep a variant that failed, its whole file beside it; the line that tells of it, with how to repeat it."""
    folder = plan.keep / f"{seed.layout}-{seed.path.parent.name}-{plan.seed}-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    for one in path.parent.iterdir():
        shutil.copyfile(one, folder / one.name)
    shutil.copyfile(seed.beside or seed.path, folder / f"original-{(seed.beside or seed.path).name}")
    command = f"python -m tests.fuzz --replay {shlex.quote(str(folder / path.name))} --layouts {seed.layout}"
    return f"{verdict.outcome:<7} {seed.layout}: {verdict.why}\n        {command}"


def replay(path: Path, layout: str) -> Verdict:
    """Judge a variant that was kept."""
    (original,) = path.parent.glob("original-*")
    opened = path.with_name(original.name.removeprefix("original-"))
    watched = Watched(0, path.parent)
    try:
        return watched._ask({"path": str(opened.absolute()), "layout": layout, "original": str(original.absolute())})
    finally:
        watched.stop()


def table(accounts: dict[str, Account]) -> list[list[str]]:
    """Rows for `common.text.aligned`."""
    outcomes = ("sample", "refused", *FAULTS)
    rows = [["layout", "variants", *outcomes, "peak MB", "slowest s"]]
    for layout, account in sorted(accounts.items()):
        rows.append(_row(layout, account.outcomes, outcomes, account.memory, account.slowest))
    total: Counter[str] = sum((account.outcomes for account in accounts.values()), Counter())
    memory = max((account.memory for account in accounts.values()), default=0)
    rows.append(_row("total", total, outcomes, memory, max((a.slowest for a in accounts.values()), default=0.0)))
    return rows


def _row(name: str, counts: Counter[str], outcomes: Sequence[str], memory: int, slowest: float) -> list[str]:
    numbers = [f"{counts[outcome]:,}" for outcome in outcomes]
    return [name, f"{sum(counts.values()):,}", *numbers, f"{memory / 1e6:.0f}", f"{slowest:.1f}"]

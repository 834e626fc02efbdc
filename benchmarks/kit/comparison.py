"""Two runs, or two folders of runs, side by side: what differs between the machines, and then row by row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from specshards.benchmarks.kit.machine import Machine
from specshards.benchmarks.kit.records import Record, Run, load
from specshards.benchmarks.kit.tables import cell, figure, markdown
from specshards.common.errors import UsageError

Key = tuple[str, str]
WITHIN = "within spread"


@dataclass(frozen=True)
class Pair:
    """One contender in both runs, each with values, in the same unit."""

    a: Record
    b: Record

    @property
    def ratio(self) -> float | None:
        """Median of B over median of A; None where A's is 0."""
        return self.b.median / self.a.median if self.a.median > 0 else None

    @property
    def verdict(self) -> str:
        """Which way B is off, in a word of the unit; `within spread` where the ranges lowest to highest overlap."""
        if max(self.b.values) < min(self.a.values):
            return self.a.kind.lower
        if min(self.b.values) > max(self.a.values):
            return self.a.kind.higher
        return WITHIN

    @property
    def loss(self) -> float:
        """How many times worse B is, beyond the spread: at most 1 where it is not."""
        worse = self.a.kind.lower if self.a.kind.more_is_better else self.a.kind.higher
        if self.verdict != worse:
            return 1.0
        better, poorer = sorted((self.a.median, self.b.median))
        return poorer / better if better > 0 else float("inf")


@dataclass(frozen=True)
class Comparison:
    """What two sides have in common, and what only one of them has.

    Attributes:
        only_a, only_b: contenders with values on that side alone, each with why it has none on the other.
        differences: lines about the machines.
    """

    pairs: tuple[Pair, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    differences: tuple[str, ...]

    def worse_than(self, limit: float) -> list[Pair]:
        """Pairs in which B is more than `limit` times worse, beyond the spread."""
        return [pair for pair in self.pairs if pair.loss > limit]


def read(path: Path) -> list[Run]:
    """The run of a file, or all runs of a folder.

    Raises:
        UsageError: there is none, a file is damaged or foreign, or two runs have records of the same name.
    """
    if not path.is_dir():
        return [load(path)]
    runs = {file: load(file) for file in sorted(path.glob("*.json"))}
    if not runs:
        raise UsageError(f"{path}: no records there; `make bench` writes them")
    seen: dict[Key, Path] = {}
    for file, run in runs.items():
        for r in run.records:
            other = seen.setdefault((r.group, r.name), file)
            if other != file:
                raise UsageError(f"{path}: {other.name} and {file.name} both have {r.group}: {r.name}; name one file")
    return list(runs.values())


def compare(a: Sequence[Run], b: Sequence[Run]) -> Comparison:
    """Match the records of two sides by group and name."""
    left, right = ({(r.group, r.name): r for run in runs for r in run.records} for runs in (a, b))
    pairs, only_a = [], []
    for key, record in left.items():
        other = right.get(key)
        if record.values and other is not None and other.values and other.unit == record.unit:
            pairs.append(Pair(record, other))
        elif record.values:
            only_a.append(_alone(record, other))
    paired = {(pair.a.group, pair.a.name) for pair in pairs}
    only_b = [_alone(r, left.get(key)) for key, r in right.items() if r.values and key not in paired]
    return Comparison(tuple(pairs), tuple(only_a), tuple(only_b), tuple(_differences(a, b)))


def _alone(record: Record, other: Record | None) -> str:
    why = ""
    if other is not None:
        why = f" (there: in {other.unit})" if other.values else f" (there: {other.note or 'not run'})"
    return f"{record.group}: {record.name}{why}"


def _differences(a: Sequence[Run], b: Sequence[Run]) -> list[str]:
    left, right = [run.machine for run in a], [run.machine for run in b]
    both = {name: (_all(_shown(m, name) for m in left), _all(_shown(m, name) for m in right))
            for name in ("cpu", "cores", "memory", "gpu", "driver", "system", "python")}  # fmt: skip
    for package in dict.fromkeys(name for machine in (*left, *right) for name in machine.packages):
        one, two = (_all(machine.packages.get(package, "absent") for machine in side) for side in (left, right))
        both[package] = one, two
    both["data"] = _all(run.data or "unknown" for run in a), _all(run.data or "unknown" for run in b)
    lines = [f"{name}: {one} (A), {two} (B)" for name, (one, two) in both.items() if one != two]
    for title, side in (("A", left), ("B", right)):
        # The least of a folder's: each run of `make bench` finds the load of the one before it.
        busy = min(machine.load or 0 for machine in side)
        if busy > 0.5 * min(machine.cores for machine in side):
            lines.append(f"{title} was busy when it began: load average {busy:g}")
    return lines


def _shown(machine: Machine, name: str) -> str:
    value = getattr(machine, name)
    if name == "memory":
        return "unknown" if value is None else f"{value / 1e9:.0f} GB"
    return str(value) or "none"


def _all(values: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(values))


def page(comparison: Comparison, a: str, b: str) -> str:
    """A comparison as Markdown: the machines first."""
    lines = [f"# {cell(a)} (A) and {cell(b)} (B)", ""]
    if comparison.differences:
        lines += ["What differs between the machines and the data:", ""]
        lines += [*(f"- {cell(line)}" for line in comparison.differences), ""]
    else:
        lines += ["The same machine, versions and kind of data.", ""]
    rows = []
    for pair in comparison.pairs:
        scale, ratio = pair.a.kind.scale, "-" if pair.ratio is None else figure(pair.ratio)
        medians = [figure(scale * record.median) for record in (pair.a, pair.b)]
        rounds = f"{len(pair.a.values)}, {len(pair.b.values)}"
        name = cell(f"{pair.a.group}: {pair.a.name}")
        rows.append([name, cell(pair.a.kind.label), *medians, ratio, rounds, pair.verdict])
    if rows:
        lines.append(markdown(["", "unit", "median A", "median B", "B/A", "rounds", "B is"], rows))
    for title, names in (("A", comparison.only_a), ("B", comparison.only_b)):
        if names:
            lines += ["", f"Only in {title}:", "", *(f"- {cell(name)}" for name in names)]
    return "\n".join(lines) + "\n"

"""Which rows of a table become a subset: roles of its columns, priorities, and what becomes of every row.

An object's priority is a hash of the seed and its id, and of each class of each survey the smallest are chosen. So
the choice depends neither on the order of the rows nor on how they are read, a larger subset contains a smaller one,
and objects that are added later displace only those that they must.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from specshards.common.errors import UsageError
from specshards.common.spectrum import CLASSES
from specshards.ingest.catalogue.cuts import Cut
from specshards.ingest.catalogue.labels import ALIASES, KEYS
from specshards.ingest.catalogue.rows import key_texts, mapped, numbers
from specshards.ingest.catalogue.select import Account, SelectConfig
from specshards.ingest.surveys.common import class_label, text

RowNumbers = npt.NDArray[np.int64]
_Priorities = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Roles:
    """Which column is what.

    Attributes:
        names: role -> the table's own spelling: `id`, `class`, `survey`, and `cut.NAME` for what the cut asks for.
        survey: of every row; None where a column says it.
        only: rows of this survey; None for any.
        cut: what passes; None for everything.
    """

    names: Mapping[str, str]
    survey: str | None
    only: str | None
    cut: Cut | None


def find_roles(source: Path, columns: Sequence[str], config: SelectConfig, *, is_catalogue: bool) -> Roles:
    """The columns of `source` that a choice reads.

    Raises:
        UsageError: it does not have one that is needed.
    """
    exact: dict[str, str] = {}
    meant: dict[str, str] = {}
    for spelling in columns:
        name = spelling.strip().lower()
        exact.setdefault(name, spelling)
        meant.setdefault(ALIASES.get(name, name), spelling)

    def find(*wanted: str) -> str | None:
        spellings = (exact.get(name) or meant.get(ALIASES.get(name, name)) for name in wanted)
        return next(filter(None, spellings), None)

    def need(role: str, what: str, *wanted: str) -> None:
        if (found := find(*wanted)) is None:
            raise UsageError(f"{source}: no column {what}; there are {', '.join(columns[:60])}")
        names[role] = found

    names: dict[str, str] = {}
    keys = tuple(chain.from_iterable(KEYS.values())) if config.survey is None else KEYS[config.survey]
    keys = tuple(dict.fromkeys(keys)) if is_catalogue else ("object_id",)
    need("id", f"{' or '.join(keys)}, the object's id", *keys)
    if config.survey is None or not is_catalogue:
        need("survey", "survey; name it with --survey", "survey")
    if config.per_class is not None or find("class") is not None:
        need("class", "class, which --per-class needs", "class")
    cut = config.cut()
    for name in () if cut is None else cut.columns:
        need(f"cut.{name}", f"{name}, which the cut asks for", name)
    survey, only = (config.survey, None) if is_catalogue else (None, config.survey)
    return Roles(names, survey, only, cut)


def priorities(seed: int, ids: Sequence[str]) -> _Priorities:
    """A hash of the seed and each id: uint64 `(n,)`, the same on every machine."""
    digests = (hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest() for key in ids)
    return np.frombuffer(b"".join(digests), "<u8")


class Smallest:
    """The rows with the `limit` smallest priorities, and one more so that an id that repeats at the edge shows."""

    def __init__(self, limit: int | None) -> None:
        self.seen = 0
        self._limit = limit
        self._most = sys.maxsize if limit is None else 2 * limit + 65_536
        self._kept: list[tuple[_Priorities, RowNumbers]] = []
        self._size = 0
        self._edge = np.uint64(2**64 - 1)

    def add(self, priority: _Priorities, rows: RowNumbers) -> None:
        """Consider further rows."""
        self.seen += len(rows)
        is_near = priority <= self._edge
        self._kept.append((priority[is_near], rows[is_near]))
        self._size += len(self._kept[-1][0])
        if self._size > self._most:
            self._edge = self.near()[0][-1]

    def near(self) -> tuple[_Priorities, RowNumbers]:
        """The smallest so far, in order, and the next one."""
        priority, rows = (np.concatenate(parts) for parts in zip(*self._kept, strict=True))
        order = np.lexsort((rows, priority))[: None if self._limit is None else self._limit + 1]
        self._kept, self._size = [(priority[order], rows[order])], len(order)
        return self._kept[0]

    def rows(self) -> RowNumbers:
        """The chosen rows, the smallest priority first."""
        return self.near()[1][: self._limit]


_OTHER, _NO_ID, _CUT, _NO_CLASS, _BEYOND = range(1, 6)
_KINDS = (*CLASSES, None)


class Choice:
    """The first pass: what is counted and what is chosen, a batch of rows at a time."""

    def __init__(self, roles: Roles, config: SelectConfig) -> None:
        self._roles, self._config = roles, config
        self._surveys: dict[str, int] = {}
        self._listed, self._passed, self._why = Counter[int](), Counter[int](), Counter[int]()
        # By number of the survey and of the class.
        self._groups: defaultdict[int, Smallest] = defaultdict(lambda: Smallest(config.per_class))

    def examine(self, table: pa.Table, first: int) -> None:
        """Consider the rows of `table`, whose first has the number `first`."""
        roles, why = self._roles, np.zeros(len(table), np.int64)
        kinds, (surveys, is_other) = self._kinds(table), self._surveys_of(table)
        ids = key_texts(table[roles.names["id"]])
        why[is_other] = _OTHER
        why[(why == 0) & ids.is_null().to_numpy(False)] = _NO_ID
        if roles.cut is not None:
            why[(why == 0) & ~self._is_within(table, roles.cut)] = _CUT
        groups = surveys * len(_KINDS) + kinds
        _count(self._listed, groups)
        _count(self._passed, groups[why == 0])
        if self._config.per_class is not None:
            why[(why == 0) & (kinds == len(CLASSES))] = _NO_CLASS
        _count(self._why, why)
        at = np.flatnonzero(why == 0)
        priority = priorities(self._config.seed, ids.take(pa.array(at)).to_pylist())
        for group in np.unique(groups[at]).tolist():
            is_mine = groups[at] == group
            self._groups[group].add(priority[is_mine], first + at[is_mine])

    def _kinds(self, table: pa.Table) -> npt.NDArray[np.int64]:
        if "class" not in self._roles.names:
            return np.full(len(table), len(CLASSES))
        codes = {name: code for code, name in enumerate(_KINDS)}
        column = table[self._roles.names["class"]]
        return mapped(column, lambda value: codes[class_label(value)], pa.int64()).to_numpy(False)

    def _surveys_of(self, table: pa.Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """The number of each row's survey, and whether it is another than is wanted."""

        def number(name: Any) -> int:
            return self._surveys.setdefault(text(name) or "unknown", len(self._surveys))

        if self._roles.survey is not None:
            codes = np.full(len(table), number(self._roles.survey))
        else:
            codes = mapped(table[self._roles.names["survey"]], number, pa.int64()).to_numpy(False)
        only = self._roles.only
        wanted = [only in (None, name, name.removeprefix("mock-")) for name in self._surveys]
        return codes, ~np.array(wanted, np.bool_)[codes]

    def _is_within(self, table: pa.Table, cut: Cut) -> npt.NDArray[np.bool_]:
        columns = {}
        for name, kind in cut.kinds.items():
            column = table[self._roles.names[f"cut.{name}"]]
            columns[name] = mapped(column, text, pa.string()) if kind == "text" else numbers(column)
        numbered = pa.table({**columns, "row number": np.arange(len(table))})
        is_within = np.zeros(len(table), np.bool_)
        is_within[numbered.filter(cut.expression)["row number"].to_numpy()] = True
        return is_within

    def chosen(self) -> RowNumbers:
        """The chosen rows, in order."""
        return np.sort(np.concatenate([group.rows() for group in self._groups.values()]))

    def repeats(self) -> RowNumbers:
        """Rows of one survey whose ids have the same priority, next to each other: most likely an id that repeats."""
        found = [np.empty(0, np.int64)]
        for survey in self._surveys.values():
            near = [group.near() for code, group in self._groups.items() if code // len(_KINDS) == survey]
            if near:
                priority, rows = (np.concatenate(parts) for parts in zip(*near, strict=True))
                order = np.lexsort((rows, priority))
                is_same = np.diff(priority[order]) == 0
                found.append(rows[order][np.append(is_same, False) | np.insert(is_same, 0, False)])
        return np.concatenate(found)

    def account(self) -> Account:
        """What became of the rows so far."""
        names = list(self._surveys)
        selected = {code: len(group.rows()) for code, group in self._groups.items()}
        groups = {
            (names[code // len(_KINDS)], _KINDS[code % len(_KINDS)]): (
                self._listed[code], self._passed[code], selected.get(code, 0),
            )
            for code in sorted(self._listed, key=lambda code: (names[code // len(_KINDS)], code % len(_KINDS)))
        }  # fmt: skip
        self._why[_BEYOND] = sum(group.seen - selected[code] for code, group in self._groups.items())
        cut = self._roles.cut
        words = {
            _OTHER: f"not of {self._roles.only}",
            _NO_ID: f"no {self._roles.names['id']}",
            _CUT: f"outside the cut {'' if cut is None else cut.text}",
            _NO_CLASS: f"no class: none of {', '.join(CLASSES)}",
            _BEYOND: f"beyond {self._config.per_class or 0:,} of their class and survey",
        }
        return Account(groups, {words[w]: self._why[w] for w in words if self._why[w]}, self._config.per_class)


def _count(counter: Counter[int], values: npt.NDArray[np.int64]) -> None:
    found, counts = np.unique(values, return_counts=True)
    for value, count in zip(found.tolist(), counts.tolist(), strict=True):
        counter[value] += count

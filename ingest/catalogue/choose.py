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
import pyarrow.compute as pc

from specshards.common.errors import UsageError
from specshards.common.label_columns import sifted, with_sn_survey
from specshards.common.messages import LOGGER
from specshards.common.spectrum import CLASSES, SN_SURVEY, SURVEY_SN, tells_sn_survey
from specshards.common.text import aligned
from specshards.ingest.catalogue.columns import unsaid_columns
from specshards.ingest.catalogue.config import SelectConfig
from specshards.ingest.catalogue.cuts import Cut, near
from specshards.ingest.catalogue.prepared import where_unsaid
from specshards.ingest.catalogue.rows import by_meaning, check_once, the_one
from specshards.ingest.catalogue.values import label_numbers, mapped
from specshards.ingest.ids import id_texts
from specshards.ingest.surveys.common import class_label, text
from specshards.ingest.surveys.spellings import ALIASES
from specshards.ingest.surveys.survey import SURVEYS, Unsaid, with_files

RowNumbers = npt.NDArray[np.int64]
_Priorities = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Roles:
    """Which column is what.

    Attributes:
        source: the table, for messages.
        names: role -> the table's own spelling: `id`, `class`, `survey`, `cut.NAME` for what the cut asks for, and
            `sn.NAME` for that of which it asks `sn_survey`, `by.NAME` for that which says where a label says nothing.
        survey: of every row; None where a column says it.
        only: rows of this survey; None for any.
        cut: what passes; None for everything.
        unsaid: of the surveys whose catalogue it may be.
    """

    source: Path
    names: Mapping[str, str]
    survey: str | None
    only: str | None
    cut: Cut | None
    unsaid: tuple[Unsaid, ...] = ()


def find_roles(source: Path, columns: Sequence[str], config: SelectConfig, *, is_catalogue: bool) -> Roles:
    """The columns of `source` that a choice reads.

    Raises:
        UsageError: it does not have one that is needed.
    """
    surveys = with_files() if config.survey is None else [SURVEYS[config.survey]]
    aliases = {**ALIASES, **{column: label for survey in surveys for column, label in survey.aliases.items()}}
    exact, meant = by_meaning(columns, {}), by_meaning(columns, aliases)

    def find(*candidates: str) -> str | None:
        for name in candidates:
            meaning = aliases.get(name, name)
            if name in exact and name != meaning:  # that column and no other is asked for
                return exact[name][0]
            if meaning in meant:
                return the_one(source, meaning, meant[meaning])
        return None

    def need(role: str, what: str, *candidates: str) -> None:
        if (column := find(*candidates)) is None:
            like = near(candidates, [*exact])
            raise UsageError(f"{source}: no column {what}{like}; there are {', '.join(columns[:60])}")
        names[role] = column

    names: dict[str, str] = {}
    keys = tuple(dict.fromkeys(key for survey in surveys for key in survey.keys)) if is_catalogue else ("object_id",)
    need("id", f"{' or '.join(keys)}, the object's id", *keys)
    if config.survey is None or not is_catalogue:
        need("survey", "survey; name it with --survey", "survey")
    if config.per_class is not None or "class" in meant:
        need("class", "class, which --per-class needs", "class")
    cut = config.cut()
    for name in () if cut is None else cut.columns:
        own = {column: exact[column][0] for column in SURVEY_SN if column in exact}
        if name == SN_SURVEY and find(name) is None and tells_sn_survey(own):
            names |= {f"sn.{column}": spelling for column, spelling in own.items()}
            continue
        need(f"cut.{name}", f"{name}, which the cut asks for", name)
    check_once(source, columns, names.values())
    survey, only = (config.survey, None) if is_catalogue else (None, config.survey)
    unsaid = []
    for each in surveys if is_catalogue else ():
        if each.unsaid is not None and (others := unsaid_columns(columns, names, each.name)):
            unsaid.append(each.unsaid)
            names |= {f"by.{low}": column for low, column in others.items()}
            if (doubt := each.unsaid.doubt(others)) is not None:
                LOGGER.info(f"{source}: of all rows {doubt}")
    return Roles(source, names, survey, only, cut, tuple(unsaid))


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


@dataclass(frozen=True)
class SelectionCounts:
    """What became of every row: `listed == selected + not_selected`.

    Attributes:
        groups: by survey and class (None: it has none), the rows listed, within the cut, and selected.
        reasons: rows that were not selected, by why.
        per_class: how many of a class were asked for.
    """

    groups: Mapping[tuple[str, str | None], tuple[int, int, int]]
    reasons: Mapping[str, int]
    per_class: int | None

    @property
    def listed(self) -> int:
        """Rows of the input."""
        return sum(counts[0] for counts in self.groups.values())

    @property
    def selected(self) -> int:
        """Rows of the output."""
        return sum(counts[2] for counts in self.groups.values())

    @property
    def not_selected(self) -> int:
        """Rows for which there is a reason not to be in the output."""
        return sum(self.reasons.values())

    def table(self) -> str:
        """Plain text: a row a survey and class, then the reasons, then the sum."""
        rows = [["survey", "class", "listed", "passed the cut", "selected", ""]]
        for (survey, kind), counts in self.groups.items():
            is_short = self.per_class is not None and kind is not None and counts[1] < self.per_class
            note = f"all of them, fewer than {self.per_class:,}" if is_short else ""
            rows.append([survey, kind or "none", *(f"{n:,}" for n in counts), note])
        totals = map(sum, zip(*self.groups.values(), strict=True)) if self.groups else (0, 0, 0)
        rows.append(["total", "", *(f"{n:,}" for n in totals), ""])
        lines = aligned(rows, (0, 1, 5))
        lines += [f"not selected {n:>10,}  {reason}" for reason, n in self.reasons.items()]
        lines.append(f"{self.listed:,} rows = {self.selected:,} selected + {self.not_selected:,} not selected")
        return "\n".join(lines)


_OTHER, _NO_ID, _CUT, _NO_CLASS, _BEYOND = range(1, 6)
_KINDS = (*CLASSES, None)


class Selection:
    """The rows that are chosen and the counts of all, a batch of rows at a time."""

    def __init__(self, roles: Roles, config: SelectConfig) -> None:
        self._roles, self._config = roles, config
        self._surveys: dict[str, int] = {}
        self._listed, self._passed, self._why = Counter[int](), Counter[int](), Counter[int]()
        # By number of the survey and of the class.
        self._groups: defaultdict[int, Smallest] = defaultdict(lambda: Smallest(config.per_class))

    def add(self, table: pa.Table, first: int) -> None:
        """Consider the rows of `table`, whose first has the number `first`."""
        roles, why = self._roles, np.zeros(len(table), np.int64)
        kinds, (surveys, is_other) = self._kinds(table), self._surveys_of(table)
        ids = id_texts(table[roles.names["id"]], roles.names["id"], roles.source)
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
            is_member = groups[at] == group
            self._groups[group].add(priority[is_member], first + at[is_member])

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
        is_taken = [only in (None, name, name.removeprefix("mock-")) for name in self._surveys]
        return codes, ~np.array(is_taken, np.bool_)[codes]

    def _is_within(self, table: pa.Table, cut: Cut) -> npt.NDArray[np.bool_]:
        names = self._roles.names
        columns = {name: table[names[f"cut.{name}"]] for name in cut.columns if f"cut.{name}" in names}
        if len(columns) < len(cut.columns):
            own = {name: label_numbers(table[names[f"sn.{name}"]])[0] for name in SURVEY_SN if f"sn.{name}" in names}
            columns[SN_SURVEY] = with_sn_survey(sifted(pa.table(own))[0])[SN_SURVEY]
        others = {name.removeprefix("by."): column for name, column in names.items() if name.startswith("by.")}
        unsaid = (where_unsaid(table, others, each).items() for each in self._roles.unsaid)
        for column, lost in chain.from_iterable(unsaid):
            for name in [name for name in columns if names.get(f"cut.{name}") == column]:
                columns[name] = pc.if_else(pa.array(lost), pa.scalar(None, columns[name].type), columns[name])
        return cut.keeps(columns, len(table))

    def rows(self) -> RowNumbers:
        """The chosen rows, in order."""
        return np.sort(np.concatenate([group.rows() for group in self._groups.values()]))

    def repeats(self) -> RowNumbers:
        """Rows of one survey whose ids have the same priority, next to each other: most likely an id that repeats."""
        repeats = [np.empty(0, np.int64)]
        for survey in self._surveys.values():
            near = [group.near() for code, group in self._groups.items() if code // len(_KINDS) == survey]
            if near:
                priority, rows = (np.concatenate(parts) for parts in zip(*near, strict=True))
                order = np.lexsort((rows, priority))
                is_same = np.diff(priority[order]) == 0
                repeats.append(rows[order][np.append(is_same, False) | np.insert(is_same, 0, False)])
        return np.concatenate(repeats)

    def counts(self) -> SelectionCounts:
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
        return SelectionCounts(
            groups, {words[w]: self._why[w] for w in words if self._why[w]}, self._config.per_class
        )


def _count(counter: Counter[int], values: npt.NDArray[np.int64]) -> None:
    for value, count in zip(*(part.tolist() for part in np.unique(values, return_counts=True)), strict=True):
        counter[value] += count

"""Further columns of a catalogue: which are kept, of which kind they are, in which unit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from specshards.common.errors import UsageError
from specshards.common.further import MOST_FURTHER, NUMBER, TEXT, further_name
from specshards.ingest.catalogue.cuts import near
from specshards.ingest.catalogue.rows import Rows
from specshards.ingest.catalogue.values import label_numbers, large_integer
from specshards.ingest.plain.cells import is_padded

ALL = "all"


@dataclass(frozen=True)
class Wish:
    """The further columns that are asked for.

    Attributes:
        said: by the user, as written; None for nothing, `all` for whatever there is.
        usual: of the survey (`Survey.labels`), and their units: kept where there are any.
        elsewhere: names that the files of spectra have.
    """

    said: str | None = None
    usual: Mapping[str, str] | None = None
    elsewhere: Collection[str] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of `said`."""
        return named(self.said)

    def chosen(self, path: Path, columns: Sequence[str], taken: Collection[str]) -> dict[str, str]:
        """Name -> column, of those that are not `taken` for something else.

        Raises:
            UsageError: no such column, two of one name, or too many.
        """
        there: dict[str, list[str]] = {}
        for column in columns:
            there.setdefault(further_name(column), []).append(column)
        missing = [name for name in self.names if name not in there and name not in self.elsewhere]
        if missing:
            raise UsageError(
                f"--labels {missing[0]}: no such column in {path}{near(missing, there)}; there are "
                f"{', '.join(sorted(there)[:80])}"
            )
        wanted = set(there) if self.said == ALL else {*self.names, *(self.usual or {})}
        found = {}
        for name in sorted(wanted & there.keys()):
            many = there[name]
            if len(many) > 1:
                raise UsageError(f"{path}: columns {' and '.join(many)} both become {name}; rename all but one")
            if many[0] not in taken:
                found[name] = many[0]
        return found


def named(said: str | None) -> tuple[str, ...]:
    """The names of further labels that a user lists with commas; none of `all`."""
    if said is None or said.strip() == ALL:
        return ()
    return tuple(dict.fromkeys(further_name(name) for name in said.split(",") if name.strip()))


def kinds_of(path: Path, rows: Rows, columns: Mapping[str, str], is_all: bool) -> dict[str, str]:
    """Name -> `number` or `text`, by what is in the columns: those of text are read through once.

    Truth values are text; so are whole numbers that float64 would round. Columns of lists are left out where nobody
    named them.

    Raises:
        UsageError: a column without one value a row, or more than `MOST_FURTHER`.
    """
    kinds: dict[str, str] = {}
    open_ = dict(columns)
    for table in rows.tables(list(columns.values())) if columns else ():
        for name, column in list(open_.items()):
            values = table[column]
            if pa.types.is_nested(values.type):
                if not is_all:
                    raise UsageError(f"{path}: {column} holds {values.type}, where one number or text a row belongs")
                kinds.pop(name, None)
                del open_[name]
            elif _is_text(values):
                kinds[name] = TEXT
                del open_[name]
            else:
                kinds[name] = NUMBER
        if not open_:
            break
    if len(kinds) > MOST_FURTHER:
        raise UsageError(
            f"{path}: {len(kinds)} further columns, more than {MOST_FURTHER}; name those to keep with --labels"
        )
    return dict(sorted(kinds.items()))


def _is_text(values: pa.ChunkedArray) -> bool:
    if pa.types.is_boolean(values.type):
        return True
    if pa.types.is_floating(values.type):
        return False
    is_named = pa.types.is_string(values.type) and is_padded(values)
    return is_named or large_integer(values) is not None or bool(label_numbers(values, is_known=False)[1])


def keeps(said: str | None, usual: Iterable[str]) -> frozenset[str] | None:
    """The further labels of files that are kept; None for all of them."""
    names = named(said)
    return frozenset({*names, *usual}) if names else None

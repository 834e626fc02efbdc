"""Selection cuts: those that a survey has under a name (`Survey.cuts`), and any other as one line of text.

    snrg > 10 and class in ('STAR', 'QSO') and teff is not null

is a filter over the columns of the spectra (`docs/spectra-parquet.md`), those of the catalogue, and those that a
survey keeps for cuts (`Survey.columns`). `expression` reads it; nothing in it is ever run as code. As in SQL, what is
missing is neither true nor false: a comparison with it does not pass, nor does its `not`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from specshards.common.errors import UsageError
from specshards.common.spectrum import CLASSES, LIMITS, SN_SURVEY
from specshards.ingest.catalogue import expression as ex
from specshards.ingest.catalogue.values import check_type, label_numbers, mapped, refuse_large
from specshards.ingest.spectra.schema import SCHEMA
from specshards.ingest.surveys.common import cell, class_label
from specshards.ingest.surveys.common import text as word
from specshards.ingest.surveys.survey import with_files

#: What a filter may do with a column: compare it as text or as numbers; `any` is only asked whether it is missing.
TEXT, NUMBER, ANY = "text", "number", "any"
_EXAMPLE = "write for example: snrg > 10 and class in ('STAR', 'QSO') and teff is not null"
#: Other names of columns, in lower case, for those who think in a survey's own.
SPELLINGS = {"snmedian": SN_SURVEY}
_NEAR = 3


@dataclass(frozen=True)
class Cut:
    """A parsed filter.

    Attributes:
        text: as the user wrote it.
        kinds: lower-case column name -> `text`, `number` or `any`, by what it is, or is compared with.
    """

    text: str
    condition: ex.Node = field(compare=False)
    kinds: Mapping[str, str] = field(compare=False)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it asks for, sorted."""
        return tuple(sorted(self.kinds))

    @property
    def exact(self) -> frozenset[str]:
        """Columns in which rounding an integer beyond 2^53 could change what is chosen."""
        return frozenset(_exact(self.condition))

    def keeps(self, columns: Mapping[str, Sequence[Any] | pa.ChunkedArray], rows: int) -> npt.NDArray[np.bool_]:
        """Which of `rows` objects pass; a comparison with a missing value does not pass.

        Labels that no object can have are missing (`common.spectrum.LIMITS`).

        Args:
            columns: by lower-case name, values of any kind, as a file gives them.

        Returns:
            bool `(rows,)`.

        Raises:
            UsageError: a column that is compared with numbers holds a word.
        """
        values = {name: self._column(name, kind, columns[name]) for name, kind in self.kinds.items()}
        passed = _evaluate(self.condition, values)
        return np.asarray(pc.fill_null(passed, False).to_numpy(zero_copy_only=False), np.bool_)

    def check_columns(self, known: Collection[str], where: str) -> None:
        """Refuse a filter that asks for columns that are not there.

        Args:
            known: lower-case names. where: words for the place.

        Raises:
            UsageError: names those that are near.
        """
        unknown = [name for name in self.columns if name not in known]
        if unknown:
            raise UsageError(
                f"--where {self.text!r}: no column {', '.join(unknown)}{where}{near(unknown, known)}; "
                f"there are {', '.join(sorted(known)[:80])}; text stands in quotes"
            )

    def _column(self, name: str, kind: str, values: Sequence[Any] | pa.ChunkedArray) -> pa.Array:
        column = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else _array(values)
        check_type(column.type, f"--where {self.text!r}: {name}")
        if name == "class":  # as spectra Parquet keeps it
            return mapped(column, class_label, pa.string())
        if kind != NUMBER:
            return mapped(column, word if name in _OURS else cell, pa.string())
        if name in self.exact:
            refuse_large(column, f"--where {self.text!r}: {name}")
        limits = LIMITS.get(name)
        numbers, words = label_numbers(column, is_known=limits is not None)
        if words and limits is None:
            raise UsageError(
                f"--where {self.text!r}: {name} is compared with numbers and holds {words[0][:40]!r}; "
                "compare it with text in quotes"
            )
        if limits is not None:
            possible = limits.holds(numbers.to_numpy(zero_copy_only=False))
            numbers = pc.if_else(pa.array(possible), numbers, pa.scalar(None, pa.float64()))
        # As spectra Parquet keeps it, so that a filter chooses the same wherever it is asked.
        return numbers.cast(pa.float32(), safe=False).cast(pa.float64()) if name in _SINGLE else numbers


def _array(values: Sequence[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # of several kinds
        return pa.array([None if value is None else str(value) for value in values], pa.string())


def near(unknown: Iterable[str], known: Collection[str]) -> str:
    """`; near: ...` where there are names like the unknown ones, else nothing."""
    found = [name for one in unknown for name in difflib.get_close_matches(one.lower(), sorted(known), _NEAR, 0.7)]
    return f"; near: {', '.join(dict.fromkeys(found))}" if found else ""


@lru_cache(maxsize=64)
def parse(text: str) -> Cut:
    """Parse a filter: comparisons, `in`, `is null`, arithmetic, `and`, `or`, `not`; see `expression`.

    Raises:
        UsageError: it is something else; the message shows where.
    """
    try:
        condition = ex.renamed(ex.parse(text), SPELLINGS)
        kinds = ex.kinds(condition, _known())
        condition = _as_kept(condition)
    except ex.ExpressionError as error:
        shown = text if len(text) <= 200 else f"{text[:200]}..."
        raise UsageError(f"--where {' '.join(shown.split())!r}: {error}; {_EXAMPLE}") from None
    return Cut(text, condition, kinds)


def cut_for(cuts: str | None, where: str | None, survey: str | None) -> Cut | None:
    """The preset and the filter of a command, both of which must pass; None without either.

    Raises:
        UsageError: an unknown preset, one that this survey does not have, or a filter that is none.
    """
    parts = []
    if cuts is not None:
        presets = {entry.name: entry.cuts[cuts] for entry in with_files() if cuts in entry.cuts}
        if not presets:
            raise UsageError(f"unknown cuts {cuts}: choose {', '.join(cut_names())}, or write them as --where")
        if survey not in presets:
            raise UsageError(f"--cuts {cuts}: is of {' and '.join(presets)}; name one of them with --survey")
        parts.append(presets[survey])
    if where is not None:
        parts.append(parse(where).text)
    return parse(" and ".join(f"({part})" for part in parts)) if parts else None


def cut_names() -> list[str]:
    """Names of the cuts of all surveys."""
    return list(dict.fromkeys(name for survey in with_files() for name in survey.cuts))


def extra_columns() -> dict[str, str]:
    """Columns that surveys keep for cuts and the schema does not have -> `text` or `number`."""
    return {name: kind for survey in with_files() for name, kind in survey.columns.items()}


def _known() -> dict[str, str]:
    """Columns whose kind is known wherever they are."""
    schema = {
        each.name: TEXT if pa.types.is_string(each.type) or pa.types.is_dictionary(each.type) else NUMBER
        for each in SCHEMA
        if each.name != "spectrum"
    }
    return {**extra_columns(), **schema}


_OURS = frozenset(SCHEMA.names)
_SINGLE = frozenset(each.name for each in SCHEMA if pa.types.is_float32(each.type))


def _exact(node: ex.Node) -> Iterator[str]:
    """Columns that are compared or reckoned with more than numbers below 2^53; with those, rounding does no harm."""
    if isinstance(node, ex.Column):
        yield node.name
    elif isinstance(node, ex.Compare) and (_is_small(node.left) or _is_small(node.right)):
        for side in (node.left, node.right):
            yield from () if isinstance(side, ex.Column) else _exact(side)
    elif isinstance(node, ex.Among) and isinstance(node.term, ex.Column):
        yield from () if all(_is_small(ex.Value(value)) for value in node.values) else _exact(node.term)
    elif not (isinstance(node, ex.IsNull) and isinstance(node.term, ex.Column)):
        for child in ex.children(node):
            yield from _exact(child)


def _is_small(node: ex.Node) -> bool:
    return isinstance(node, ex.Value) and (isinstance(node.value, str) or abs(node.value) < 2**53)


def _as_kept(node: ex.Node) -> ex.Node:
    """Values as the column holds them that they are compared with: numbers as float32 has them, where it is one of
    float32 (0.1 is then what the column holds), text without blanks around it, a class in capitals.

    Raises:
        ExpressionError: text that no value can equal.
    """
    if isinstance(node, ex.Group):
        return ex.Group(node.operators, tuple(map(_as_kept, node.terms)))
    if isinstance(node, ex.Not):
        return ex.Not(_as_kept(node.term))
    if isinstance(node, ex.Compare):
        names = [side.name for side in (node.left, node.right) if isinstance(side, ex.Column)]
        sides = (
            _value(side, names, node.operator == "==") if isinstance(side, ex.Value) else side
            for side in (node.left, node.right)
        )
        return ex.Compare(node.operator, *sides)
    if isinstance(node, ex.Among) and isinstance(node.term, ex.Column):
        kept = (_value(ex.Value(value), [node.term.name], not node.negated).value for value in node.values)
        return ex.Among(node.term, tuple(kept), node.negated)
    return node


def _value(node: ex.Value, names: Sequence[str], is_equal: bool) -> ex.Value:
    if not isinstance(node.value, str):
        with np.errstate(over="ignore"):
            return ex.Value(float(np.float32(node.value))) if _SINGLE.intersection(names) else node
    said = node.value.strip()
    if "class" in names:
        said = said.upper()
        if is_equal and said not in CLASSES and word(said) is not None:
            raise ex.ExpressionError(f"{node.value!r} is no class: {', '.join(CLASSES)}, or is null")
    if is_equal and word(said) is None:
        raise ex.ExpressionError(f"{node.value!r} says that a value is missing: write is null")
    return ex.Value(said)


_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": pc.equal, "!=": pc.not_equal, "<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal,
}  # fmt: skip
_COMBINE: dict[str, Callable[[Any, Any], Any]] = {
    "and": pc.and_kleene, "or": pc.or_kleene, "+": pc.add, "-": pc.subtract, "*": pc.multiply, "/": pc.divide,
}  # fmt: skip


def _evaluate(node: ex.Node, columns: Mapping[str, pa.Array]) -> Any:
    """A node of every row: an Arrow array of bool, float64 or text, or one number or text."""
    if isinstance(node, ex.Column):
        return columns[node.name]
    if isinstance(node, ex.Value):
        return pa.scalar(node.value, pa.string() if isinstance(node.value, str) else pa.float64())
    if isinstance(node, ex.Not):
        return pc.invert(_evaluate(node.term, columns))
    if isinstance(node, ex.IsNull):
        value = _evaluate(node.term, columns)
        return value.is_valid() if node.negated else value.is_null()
    if isinstance(node, ex.Among):
        value = _evaluate(node.term, columns)
        found = pc.is_in(value, pa.array(node.values, value.type))
        found = pc.if_else(value.is_valid(), found, pa.scalar(None, pa.bool_()))
        return pc.invert(found) if node.negated else found
    if isinstance(node, ex.Compare):
        return _COMPARE[node.operator](_evaluate(node.left, columns), _evaluate(node.right, columns))
    assert isinstance(node, ex.Group)
    result = _evaluate(node.terms[0], columns)
    for operator, term in zip(node.operators, node.terms[1:], strict=True):
        result = _COMBINE[operator](result, _evaluate(term, columns))
        if not node.is_condition:  # a division by zero has no value
            result = pc.if_else(pc.is_finite(result), result, pa.scalar(None, pa.float64()))
    return result

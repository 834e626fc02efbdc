"""Selection cuts: those that a survey has under a name (`Survey.cuts`), and any other as one line of text.

    snrg > 10 and class in ('STAR', 'QSO') and teff is not null

is parsed, never evaluated as code, into a pyarrow expression over the columns of the spectra (`docs/
spectra-parquet.md`), those of the catalogue, and those that a survey keeps for cuts (`Survey.columns`).
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from specshards.common.errors import UsageError
from specshards.ingest.surveys.survey import with_files

_COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip
_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip


_TYPES = {"text": pa.string(), "number": pa.float64()}
_TEXT = {"class", "subclass", "object_id", "survey", "release", "layout", "label_source", "source_file"}


@dataclass(frozen=True)
class Cut:
    """A parsed filter.

    Attributes:
        text: as the user wrote it.
        kinds: lower-case column name -> `text` or `number`, by what it is, or is compared with.
    """

    text: str
    expression: pc.Expression
    kinds: Mapping[str, str] = field(compare=False)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it asks for, sorted."""
        return tuple(sorted(self.kinds))

    def keeps(self, columns: Mapping[str, Sequence[Any]], rows: int) -> list[bool]:
        """Which of `rows` objects pass; a comparison with a missing value does not pass."""
        table = {
            name: pa.array(map(_text if kind == "text" else _number, columns[name]), _TYPES[kind])
            for name, kind in self.kinds.items()
        }
        numbered = pa.table({**table, "row number": pa.array(range(rows), pa.int64())})
        kept = set(numbered.filter(self.expression)["row number"].to_pylist())
        return [row in kept for row in range(rows)]


def _name(node: ast.Name) -> str:
    name = node.id.lower()
    return "class" if name == "class_" else name


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> float | None:
    # A catalogue's text column that is only asked whether it is null counts as 1.
    try:
        return None if value is None else float(value)
    except ValueError:
        return 1.0


def parse(text: str) -> Cut:
    """Parse a filter: comparisons, `in`, `is null`, arithmetic, `and`, `or`, `not`.

    Raises:
        UsageError: it is something else; the message shows where.
    """
    # `is null` as SQL and people say it, and a column that is a word of Python's grammar.
    source = re.sub(r"\bclass\b", "class_", re.sub(r"\bnull\b", "None", text, flags=re.I), flags=re.I)
    try:
        tree = ast.parse(source.strip(), mode="eval")
    except SyntaxError as error:
        raise UsageError(f"--where {text!r}: not an expression ({error.msg}); {_EXAMPLE}") from None
    parser = _Parser(text)
    expression = parser.condition(tree.body)
    return Cut(text, expression, parser.kinds)


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


_EXAMPLE = "write for example: snrg > 10 and class in ('STAR', 'QSO') and teff is not null"


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self.kinds: dict[str, str] = {}
        self._known = {**extra_columns(), **dict.fromkeys(_TEXT, "text")}

    def node(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            name = _name(node)
            self.kinds.setdefault(name, self._known.get(name, "number"))
            return pc.field(name)
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float, str)):
            return node.value
        if isinstance(node, ast.UnaryOp):
            if isinstance(node.op, ast.Not):
                return ~self.condition(node.operand)
            if isinstance(node.op, ast.USub):
                value = self.node(node.operand)
                return 0 - value if isinstance(value, pc.Expression) else -value
        if isinstance(node, ast.BoolOp):
            combine = operator.and_ if isinstance(node.op, ast.And) else operator.or_
            result = self.condition(node.values[0])
            for value in node.values[1:]:
                result = combine(result, self.condition(value))
            return result
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            return _ARITHMETIC[type(node.op)](self.node(node.left), self.node(node.right))
        if isinstance(node, ast.Compare):
            return self._compare(node)
        raise self._error(node)

    def condition(self, node: ast.expr) -> pc.Expression:
        """A node that is true or false of an object, and asks for a column of it."""
        is_not = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
        result = self.node(node) if is_not or isinstance(node, (ast.Compare, ast.BoolOp)) else None
        if not isinstance(result, pc.Expression):
            raise self._error(node)
        return result

    def _compare(self, node: ast.Compare) -> pc.Expression:
        terms = [node.left, *node.comparators]
        result = None
        for left, op, right in zip(terms, node.ops, terms[1:], strict=False):
            one = self._one(left, op, right, node)
            result = one if result is None else result & one
        return result

    def _one(self, left: ast.expr, op: ast.cmpop, right: ast.expr, whole: ast.expr) -> pc.Expression:
        if isinstance(op, (ast.Is, ast.IsNot)):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise self._error(whole)
            null = self.node(left).is_null()
            return null if isinstance(op, ast.Is) else ~null
        if isinstance(op, (ast.In, ast.NotIn)):
            if not isinstance(right, (ast.Tuple, ast.List, ast.Set)):
                raise self._error(whole)
            column, values = self.node(left), [self.node(item) for item in right.elts]
            self._note(left, values[0] if values else None)
            among = column.isin([float(v) if isinstance(v, int) else v for v in values])
            return among if isinstance(op, ast.In) else ~among & ~column.is_null()
        if type(op) not in _COMPARE:
            raise self._error(whole)
        a, b = self.node(left), self.node(right)
        self._note(left, b)
        self._note(right, a)
        if not isinstance(a, pc.Expression) and not isinstance(b, pc.Expression):
            raise self._error(whole)
        return _COMPARE[type(op)](a, b)

    def _note(self, node: ast.expr, other: Any) -> None:
        """Learn from what a column is compared with whether it holds text or numbers."""
        if not isinstance(node, ast.Name) or isinstance(other, pc.Expression):
            return
        name, is_text = _name(node), isinstance(other, str)
        if is_text:
            self.kinds[name] = "text"
        elif other is not None and self.kinds[name] == "text":
            raise UsageError(f"--where {self._text!r}: {name} is text and {other!r} is not; {_EXAMPLE}")

    def _error(self, node: ast.AST) -> UsageError:
        return UsageError(f"--where {self._text!r}: cannot use {ast.unparse(node)!r}; {_EXAMPLE}")

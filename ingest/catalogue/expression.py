"""The grammar of filters, as a tree. It knows words, quotes, numbers and operators, and nothing of tables.

    condition   comparisons joined by `and`, `or`, `not`, in this order of strength from the weakest: or, and, not
    comparison  a < b, a <= b < c, = == != <> < <= > >=;  a is null, a is not null;  a in (1, 2), a not in ('x', 'y')
    a, b        columns, numbers, text in single or double quotes (a quote within is doubled), + - * / and parentheses

Words of the grammar and names of columns are known in any case. A column whose name is no word stands in backticks:
`u-g`. A Python expression of these parts reads the same, but for quotes within text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

_DEEPEST, _LONGEST = 50, 2000
_EXACT_DIGITS = 15
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))|(?P<word>[^\W\d]\w*)"
    r"|(?P<text>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")|(?P<column>`[^`]+`)|(?P<sign>==|!=|<>|<=|>=|[-+*/<>=(),\[\]{}]))"
)
_WORDS = {"and", "or", "not", "in", "is", "null", "none", "true", "false"}
_COMPARE = {"==": "==", "=": "==", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_CLOSE = {"(": ")", "[": "]", "{": "}"}


class ExpressionError(Exception):
    """What is no filter, and why, in a few words."""


@dataclass(frozen=True)
class Column:
    """A column, in lower case."""

    name: str


@dataclass(frozen=True)
class Value:
    """A number or a text."""

    value: float | str


@dataclass(frozen=True)
class Group:
    """Terms and the operators between them, from left to right: all `and`, all `or`, `+` and `-`, or `*` and `/`."""

    operators: tuple[str, ...]
    terms: tuple[Node, ...]

    @property
    def is_condition(self) -> bool:
        """Whether it is true or false, and no number."""
        return self.operators[0] in ("and", "or")


@dataclass(frozen=True)
class Not:
    """The opposite of a condition."""

    term: Node


@dataclass(frozen=True)
class Compare:
    """Two terms and one of == != < <= > >=."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Among:
    """Whether a term is one of some values."""

    term: Node
    values: tuple[float | str, ...]
    negated: bool


@dataclass(frozen=True)
class IsNull:
    """Whether a term is missing."""

    term: Node
    negated: bool


Node = Column | Value | Group | Not | Compare | Among | IsNull
_CONDITIONS = (Not, Compare, Among, IsNull)


def parse(text: str) -> Node:
    """The tree of a condition.

    Raises:
        ExpressionError: it is none.
    """
    parser = _Parser(_tokens(text))
    node = parser.condition()
    if parser.kind != "end":
        raise ExpressionError(f"cannot use {parser.said!r} there")
    return _truth(node)


def kinds(node: Node, known: Mapping[str, str]) -> dict[str, str]:
    """Column -> `text` or `number`, by what it is or is compared with; `any` where only its absence matters.

    Args:
        known: columns whose kind is given.

    Raises:
        ExpressionError: text is compared or reckoned with numbers.
    """
    parts = list(_parts(node))
    found = {part.name: known[part.name] for part in parts if isinstance(part, Column) and part.name in known}
    told = -1
    while told < len(found):  # what is compared with a column that is known now may be known next
        told = len(found)
        for part in parts:
            _agree(part, found)
    used = {child for part in parts if not isinstance(part, IsNull) for child in children(part)}
    for part in parts:
        if isinstance(part, Column):
            found.setdefault(part.name, "number" if part in used else "any")
    return found


def renamed(node: Node, names: Mapping[str, str]) -> Node:
    """The same condition of columns that have these names instead."""
    if isinstance(node, Column):
        return Column(names.get(node.name, node.name))
    if isinstance(node, Group):
        return Group(node.operators, tuple(renamed(term, names) for term in node.terms))
    if isinstance(node, Compare):
        return Compare(node.operator, renamed(node.left, names), renamed(node.right, names))
    return replace(node, term=renamed(node.term, names)) if isinstance(node, (Not, Among, IsNull)) else node


def _agree(part: Node, found: dict[str, str]) -> None:
    """Learn the kinds of the terms of a part, which must be alike."""
    kind, said = None, ""
    if isinstance(part, Compare):
        terms: tuple[Node, ...] = (part.left, part.right)
    elif isinstance(part, Among):
        terms = (part.term, *map(Value, part.values))
    elif isinstance(part, Group) and not part.is_condition:
        terms, kind, said = part.terms, "number", "what is reckoned with"
    else:
        return
    for term in terms:
        one = _kind(term, found)
        if one is not None and kind not in (None, one):
            raise ExpressionError(f"{_words(term)} is {_KINDS[one]}, {said} is {_KINDS[str(kind)]}")
        if kind is None and one is not None:
            kind, said = one, _words(term)
    for term in terms:
        if isinstance(term, Column) and kind is not None:
            found[term.name] = kind


_KINDS = {"text": "text", "number": "a number"}


def _kind(node: Node, found: Mapping[str, str]) -> str | None:
    if isinstance(node, Column):
        return found.get(node.name)
    return "text" if isinstance(node, Value) and isinstance(node.value, str) else "number"


def _words(node: Node) -> str:
    if isinstance(node, Column):
        return node.name
    return repr(node.value) if isinstance(node, Value) else "what is reckoned"


def children(node: Node) -> tuple[Node, ...]:
    """The terms of a node."""
    if isinstance(node, Group):
        return node.terms
    if isinstance(node, Compare):
        return node.left, node.right
    return (node.term,) if isinstance(node, (Not, Among, IsNull)) else ()


def _parts(node: Node) -> Iterator[Node]:
    yield node
    for child in children(node):
        yield from _parts(child)


def _truth(node: Node) -> Node:
    if isinstance(node, _CONDITIONS) or (isinstance(node, Group) and node.is_condition):
        return node
    raise ExpressionError(f"{_words(node)} is no condition")


def _joined(operator: str, terms: list[Node]) -> Node:
    return Group((operator,) * (len(terms) - 1), tuple(map(_truth, terms)))


def _term(node: Node) -> Node:
    if isinstance(node, _CONDITIONS) or (isinstance(node, Group) and node.is_condition):
        raise ExpressionError("a condition cannot be compared or reckoned with")
    return node


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    at, text = 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ExpressionError(f"cannot use {text[at:].strip()[:20]!r} there")
        kind, said = str(match.lastgroup), match[str(match.lastgroup)]
        if kind == "word" and said.lower() in _WORDS:
            kind, said = "operator", said.lower()
        tokens.append((kind, said))
        at = match.end()
    return [*tokens, ("end", "the end")]


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens, self._at, self._depth, self._operators = tokens, 0, 0, 0

    @property
    def kind(self) -> str:
        """Of the token that is next."""
        return self._tokens[self._at][0]

    @property
    def said(self) -> str:
        """What it is."""
        return self._tokens[self._at][1]

    def _take(self, *said: str) -> str | None:
        """The next token where it is one of these signs or words of the grammar, None where it is another."""
        if self.kind not in ("sign", "operator") or self.said not in said:
            return None
        self._operators += 1
        if self._operators > _LONGEST:
            raise ExpressionError(f"longer than {_LONGEST:,} operators")
        self._at += 1
        return self._tokens[self._at - 1][1]

    def _need(self, said: str) -> None:
        if self._take(said) is None:
            raise ExpressionError(f"expected {said!r}, found {self.said!r}")

    def condition(self) -> Node:
        """Up to a closing bracket or the end; a term that is no condition, too."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ExpressionError(f"nested more than {_DEEPEST} times")
        terms = [self._both()]
        while self._take("or"):
            terms.append(self._both())
        self._depth -= 1
        return terms[0] if len(terms) == 1 else _joined("or", terms)

    def _both(self) -> Node:
        terms = [self._not()]
        while self._take("and"):
            terms.append(self._not())
        return terms[0] if len(terms) == 1 else _joined("and", terms)

    def _not(self) -> Node:
        count = 0
        while self._take("not"):
            count += 1
        if count > _DEEPEST:
            raise ExpressionError(f"nested more than {_DEEPEST} times")
        node = self._comparison()
        for _ in range(count):
            node = Not(_truth(node))
        return node

    def _comparison(self) -> Node:
        left = self._sum()
        if self._take("is"):
            negated = self._take("not") is not None
            if self._take("null", "none") is None:
                raise ExpressionError(f"expected null, found {self.said!r}")
            return IsNull(_a_column(_term(left), "is null"), negated)
        negated = self.said == "not" and self.kind == "operator" and self._tokens[self._at + 1] == ("operator", "in")
        if negated:
            self._take("not")
        if self._take("in"):
            return Among(_a_column(_term(left), "in"), self._list(), negated)
        chain: list[Node] = []
        while (sign := self._take(*_COMPARE)) is not None:
            right = self._sum()
            pair = _term(left), _term(right)
            if all(not any(isinstance(part, Column) for part in _parts(side)) for side in pair):
                raise ExpressionError(f"{_words(left)} and {_words(right)}: no column is compared")
            chain.append(Compare(_COMPARE[sign], *pair))
            left = right
        if not chain:
            return left
        return chain[0] if len(chain) == 1 else _joined("and", chain)

    def _list(self) -> tuple[float | str, ...]:
        opened = self._take(*_CLOSE)
        if opened is None:
            raise ExpressionError(f"expected a list in parentheses after in, found {self.said!r}")
        values: list[float | str] = []
        while not self._take(_CLOSE[opened]):
            if values:
                self._operators -= 1  # lists may be long
                self._need(",")
                if self._take(_CLOSE[opened]):
                    break
            value = self._unary()
            if not isinstance(value, Value):
                raise ExpressionError("a list holds numbers or text")
            values.append(value.value)
        if not values:
            raise ExpressionError("an empty list")
        return tuple(values)

    def _sum(self) -> Node:
        return self._chain(self._product, "+", "-")

    def _product(self) -> Node:
        return self._chain(self._unary, "*", "/")

    def _chain(self, part: Callable[[], Node], *signs: str) -> Node:
        terms, operators = [part()], []
        while (sign := self._take(*signs)) is not None:
            operators.append(sign)
            terms.append(part())
        return Group(tuple(operators), tuple(map(_term, terms))) if operators else terms[0]

    def _unary(self) -> Node:
        count = 0
        while (sign := self._take("-", "+")) is not None:
            count += sign == "-"
        node = self._atom()
        if not count:
            return node
        if isinstance(node, Value) and not isinstance(node.value, str):
            return Value(-node.value if count % 2 else node.value)
        return Group(("-",), (Value(0.0), _term(node))) if count % 2 else _term(node)

    def _atom(self) -> Node:
        kind, said = self.kind, self.said
        if self._take("("):
            node = self.condition()
            self._need(")")
            return node
        self._at += kind != "end"
        if kind == "number":
            return Value(_number(said))
        if kind == "text":
            return Value(said[1:-1].replace(said[0] * 2, said[0]))
        if kind == "column":
            return Column(said[1:-1].strip().lower())
        if kind == "word":
            if self.kind == "sign" and self.said == "(":
                raise ExpressionError(f"no functions: {said}(")
            return Column(said.lower())
        if said in ("true", "false"):
            raise ExpressionError(f"{said} is no value: write 1 or 0")
        if said in ("null", "none"):
            raise ExpressionError("write is null or is not null")
        raise ExpressionError(f"cannot use {said!r} there")


def _a_column(node: Node, what: str) -> Node:
    if not any(isinstance(part, Column) for part in _parts(node)):
        raise ExpressionError(f"{_words(node)} {what}: no column is asked for")
    return node


def _number(said: str) -> float:
    value = float(said)
    digits = re.sub(r"[eE].*|\.", "", said).strip("0")
    if not math.isfinite(value) or (value >= 2**53 and (said.isdigit() or len(digits) > _EXACT_DIGITS)):
        raise ExpressionError(f"{said[:40]} is larger than numbers are exact: compare it as text, in quotes")
    return value

"""JSON as this program writes and reads it: no NaN, no key twice, and every field of the type that its class says.

content = parse(path.read_text(encoding="utf-8"))
fits(content, Manifest)                 # ValueError: shards[3].samples: -1.5 is not a whole number
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

#: Levels within levels that a file of this program may have.
_DEEPEST = 32
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}


def finite(content: Any) -> Any:
    """`content` with NaN and infinities as None, so that it is JSON."""
    if isinstance(content, dict):
        return {name: finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def signed(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` and, as `checksum`, the sha256 of it: of one flipped bit, a number is another one and still JSON."""
    return {**content, "checksum": digest(content)}


def unsigned(content: dict[str, Any]) -> dict[str, Any]:
    """What `signed` was given; without a checksum, as older versions wrote it, `content` itself.

    Raises:
        ValueError: it is not what was signed.
    """
    content = dict(content)
    if content.pop("checksum", None) not in (None, digest(content)):
        raise ValueError("it is not what was written: its checksum is of something else")
    return content


def digest(content: Any) -> str:
    """sha256 of JSON content, whatever the order of its keys, as hexadecimal text."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def parse(text: str, *, nan: bool = False) -> Any:
    """The content of a JSON text.

    Args:
        nan: NaN and infinities are allowed, which Python writes and JSON does not have.

    Raises:
        ValueError: not JSON, a key that is there twice, or more levels than any file of this program has.
    """
    try:
        content = json.loads(
            text, object_pairs_hook=_once, parse_constant=float if nan else _refuse, parse_float=_float
        )
    except RecursionError:
        raise ValueError("too many levels") from None
    _check_levels(content, _DEEPEST)
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{shown(next(name for name in names if names.count(name) > 1))} is there twice")
    return content


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:20]} is too large")
    return value


def _check_levels(content: Any, left: int) -> None:
    if not isinstance(content, dict | list):
        return
    if left == 0:
        raise ValueError("too many levels")
    for part in content.values() if isinstance(content, dict) else content:
        _check_levels(part, left - 1)


def shown(value: Any) -> str:
    """A value of somebody else's for a message: on one line, short, and without what a terminal would obey."""
    text = ascii(value) if not isinstance(value, int) or abs(value) < 10**40 else "a number of many digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def fits(content: Any, kind: Any, name: str = "") -> None:
    """Check that JSON content is what a type says.

    Args:
        kind: bool, int (of 64 bits), float, str, None, `Any`, a union of them, a tuple or list, a mapping from str,
            or a dataclass, whose fields without a default must be there, and no others.
        name: of the content, for the message.

    Raises:
        ValueError: names the field, what it is, and what it should be.
    """
    if kind is Any:
        return
    if kind is None:
        kind = NoneType
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        _any_of(content, arguments, name)
    elif is_dataclass(kind):
        assert isinstance(kind, type)
        _object(content, kind, name)
    elif origin in (tuple, list):
        _list(content, arguments, name)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        _need(isinstance(content, dict), content, "an object", name)
        for key, value in content.items():
            _text(key, name)
            word = key if key.isprintable() and len(key) <= 60 else shown(key)
            fits(value, arguments[1], f"{name}.{word}" if name else word)
    elif kind is float:
        _need(isinstance(content, int | float) and not isinstance(content, bool), content, _WORDS[float], name)
        _need(not abs(content) >= 2**1000, content, "a number of 64 bits", name)  # NaN is for `parse` to refuse
    elif kind is int:
        _need(type(content) is int, content, _WORDS[int], name)
        _need(abs(content) < 2**63, content, "a whole number of 64 bits", name)
    else:
        _need(type(content) is kind, content, _WORDS.get(kind, str(kind)), name)
        if kind is str:
            _text(content, name)


def _any_of(content: Any, kinds: tuple[Any, ...], name: str) -> None:
    if content is None and NoneType in kinds:
        return
    kinds = tuple(kind for kind in kinds if kind is not NoneType)
    errors = []
    for kind in kinds:
        try:
            fits(content, kind, name)
            return
        except ValueError as error:
            errors.append(error)
    raise errors[0]


def _list(content: Any, kinds: tuple[Any, ...], name: str) -> None:
    _need(isinstance(content, list | tuple), content, "a list", name)
    if len(kinds) == 1 or kinds[1:] == (...,):
        kinds = kinds[:1] * len(content)
    _need(len(content) == len(kinds), content, f"a list of {len(kinds)}", name)
    for place, (value, kind) in enumerate(zip(content, kinds, strict=True)):
        fits(value, kind, f"{name}[{place}]")


def _object(content: Any, kind: type, name: str) -> None:
    _need(isinstance(content, dict), content, "an object", name)
    known = _fields(kind)
    before = f"{name}." if name else ""
    for key in content:
        if key not in known:
            raise ValueError(f"{before}{shown(key)}: is not known")
    for key, (each, needed) in known.items():
        if key in content:
            fits(content[key], each, f"{before}{key}")
        elif needed:
            raise ValueError(f"{before}{key}: is missing")


@lru_cache
def _fields(kind: type) -> dict[str, tuple[Any, bool]]:
    """Of a dataclass: name -> type, and whether it must be given."""
    hints = get_type_hints(kind)
    return {
        item.name: (hints[item.name], item.default is MISSING and item.default_factory is MISSING)
        for item in fields(kind)
        if item.init
    }


def _need(condition: bool, content: Any, what: str, name: str) -> None:
    if not condition:
        raise ValueError(f"{name + ': ' if name else ''}{shown(content)} is not {what}")


def _text(content: str, name: str) -> None:
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in content):
        raise ValueError(f"{name + ': ' if name else ''}{shown(content)} is not text")


def different(names: Iterable[str]) -> str | None:
    """The first of some names that is there twice; None where all differ."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None

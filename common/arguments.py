"""The options of commands, made from the fields of configurations: each is said once, where it is decided.

A command takes a frozen dataclass as a parameter. `configured` puts an option for each of its fields in its place,
and gives the command a checked instance:

    @app.command()
    @configured
    def build(out: Path, picture: Annotated[ImageConfig, Fields("Picture")]) -> None: ...

Type and default are the field's; its help is what the `Attributes:` section of the class says of it. The metadata of
a field may hold `option` (its name on the command line, False for none), `parse` (text to value) and `values` (a
function that gives names, with what each stands for in a tuple, words about it or None).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from functools import wraps
from inspect import Parameter
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from specshards.common.errors import UsageError

_ENTRY = re.compile(r"^    (\w+(?:, \w+)*): ((?:.+\n?)(?:^ {5,}.+\n?)*)", re.M)
#: What `Path` makes of an address such as s3://bucket/folder.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_WORDS = {int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Fields:
    """How a dataclass becomes options.

    Attributes:
        panel: heading of the options in --help; None puts them among the command's own.
        leave_out: fields that are no options of this command.
        make: what makes the configuration of the given values; the dataclass itself where it is None.
        preset: help of `--preset`, whose value `make` is given too; None for no such option.
        defaults: by field, shown in place of the dataclass's own: what `make` takes where nothing is given.
        of: the dataclass whose fields they are, where `make` gives something else than one of it.
    """

    panel: str | None = None
    leave_out: tuple[str, ...] = ()
    make: Callable[..., Any] | None = None
    preset: str | None = None
    defaults: Mapping[str, Any] | None = None
    of: type | None = None


@dataclass(frozen=True)
class Option:
    """One field as an option.

    Attributes:
        name: on the command line, without dashes.
        values, parser: of the field's metadata.
        more: help that follows the field's.
        example: of a value, for messages.
    """

    field: str
    name: str
    kind: Any
    help: str
    default: Any = MISSING
    panel: str | None = None
    values: Mapping[str, Any] | None = None
    parser: Callable[[str], Any] | None = None
    more: str = ""
    example: str = ""

    @property
    def flag(self) -> str:
        """As it is typed."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def shown(self) -> str:
        """The default as it would be typed; empty where there is none to speak of."""
        if any(self.default is nothing for nothing in (MISSING, None, False)):
            return ""
        values = self.default if isinstance(self.default, tuple) else (self.default,)
        return ",".join(f"{value:g}" if isinstance(value, float) and value < 1000 else str(value) for value in values)

    @property
    def metavar(self) -> str:
        """The kind of value, for people."""
        kinds = get_args(self.kind) if get_origin(self.kind) is tuple else (str if self.parser else self.kind,)
        return f"<{','.join('...' if kind is ... else kind.__name__ for kind in kinds)}>"

    def parse(self, text: Any) -> Any:
        """The value that a text stands for; what is none is left alone.

        Raises:
            UsageError: it stands for none.
        """
        if not isinstance(text, str):
            return text
        if self.parser is not None:
            return self.parser(text)
        if get_origin(self.kind) is not tuple:
            return self._one(self.kind, text, text)
        if self.values is not None and text in self.values:
            return self.values[text]
        parts = [part for part in map(str.strip, text.split(",")) if part]
        first, *others = get_args(self.kind)
        if ... in others:
            return tuple(self._one(first, part, text) for part in parts)
        try:
            numbers = tuple(map(first, parts))
        except ValueError:
            numbers = ()
        if len(numbers) != 1 + len(others):
            about = self.help[0].lower() + self.help[1:].removesuffix(".")
            raise UsageError(f"{self.flag} {text}: give {1 + len(others)} numbers, as {self.example}: {about}")
        return numbers

    def _one(self, kind: Any, part: str, text: str) -> Any:
        try:
            return kind(part)
        except ValueError:
            example = f", as {self.example}" if self.example else ""
            raise UsageError(f"{self.flag} {text}: give {_WORDS[kind]}{example}") from None

    def parameter(self) -> Parameter:
        """Of a command's signature. None stands for what was not given."""
        about = f"{self.help} {self.more}" if self.more else self.help
        about += f" \\[{self.shown}]" if self.shown else ""
        shared: dict[str, Any] = {"help": about, "rich_help_panel": self.panel, "show_default": False}
        kind: Any
        if self.kind is bool:
            kind, info = bool | None, typer.Option(f"{self.flag}/--no-{self.flag[2:]}", **shared)
        else:
            info = typer.Option(self.flag, parser=self.parse, metavar=self.metavar, **shared)
            kind = str | None
        default = Parameter.empty if self.default is MISSING else None
        if default is Parameter.empty:
            kind = get_args(kind)[0]
        return Parameter(self.name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])


def documented(kind: type) -> dict[str, str]:
    """What the `Attributes:` sections of a class and its bases say of each field."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        section = inspect.cleandoc(vars(base).get("__doc__") or "").partition("Attributes:\n")[2].partition("\n\n")[0]
        for names, text in _ENTRY.findall(section):
            found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found


def options(kind: type, how: Fields = Fields()) -> Iterator[Option]:
    """The options of a dataclass, in the order of its fields; a field that is a dataclass itself has none.

    Raises:
        TypeError: a field without documentation, or of a type that no option has.
    """
    kind = how.of or kind
    said, hints = documented(kind), get_type_hints(kind)
    if how.preset is not None:
        yield Option("preset", "preset", str, how.preset, None, how.panel)
    for field in fields(kind):
        name = field.metadata.get("option", field.name)
        plain = [part for part in get_args(hints[field.name]) if part is not NoneType]
        declared = plain[0] if NoneType in get_args(hints[field.name]) else hints[field.name]
        if name is False or field.name in how.leave_out or is_dataclass(declared):
            continue
        if field.name not in said:
            raise TypeError(f"{kind.__name__}.{field.name}: its class does not say under Attributes what it is")
        values = field.metadata["values"]() if "values" in field.metadata else None
        one = Option(
            field.name, name, declared, _help(said[field.name], values),
            (how.defaults or {}).get(field.name, _default(field)), how.panel, values,
            field.metadata.get("parse"),
        )  # fmt: skip
        yield replace(one, example=one.shown)


def _default(field: Field[Any]) -> Any:
    return None if field.default_factory is not MISSING else field.default


def _help(text: str, values: Mapping[str, Any] | None) -> str:
    if values is not None:
        names = [f"{name} ({about})" if isinstance(about, str) else name for name, about in values.items()]
        text = f"{text.removesuffix('.')}: {'; '.join(names)}."
    return text[0].upper() + text[1:].replace("`", "") if text[0] != "`" else text.replace("`", "")


def option(kind: type, name: str, more: str = "") -> Option:
    """A field of a dataclass for one parameter of a command: `Annotated[int | None, option(ShardConfig, "seed")]`.

    Args:
        more: help that follows the field's. Its default is that of the parameter.
    """
    (one,) = (each for each in options(kind) if each.field == name)
    return replace(one, more=more)


def configured(command: Callable[..., None]) -> Callable[..., None]:
    """A command with options in place of every parameter that is a dataclass, or has an `option`; see the module.

    Fields of one name in several dataclasses are one option, whose value goes to all of them.
    """
    signature = inspect.signature(command, eval_str=True)
    plain: dict[str, Parameter] = {}
    single: dict[str, Option] = {}
    asked: dict[str, tuple[type, Fields, tuple[Option, ...]]] = {}
    shared: dict[str, Option] = {}
    for name, parameter in signature.parameters.items():
        kind, *notes = get_args(parameter.annotation) if _is_annotated(parameter) else (parameter.annotation,)
        if (one := next((note for note in notes if isinstance(note, Option)), None)) is not None:
            default = MISSING if parameter.default is Parameter.empty else parameter.default
            single[name] = shared[one.name] = replace(one, default=default)
        elif isinstance(kind, type) and is_dataclass(kind):
            how = next((note for note in notes if isinstance(note, Fields)), Fields())
            asked[name] = kind, how, tuple(options(kind, how))
            for each in asked[name][2]:
                first = shared.setdefault(each.name, each)
                if each.help not in first.help:
                    shared[each.name] = replace(first, help=f"{first.help} {each.help}")
        else:
            plain[name] = parameter.replace(kind=Parameter.KEYWORD_ONLY) if shared else parameter
    parameters = {**plain, **{name: one.parameter() for name, one in shared.items()}}
    own = signature.replace(parameters=list(parameters.values()))

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        given = own.bind(*args, **kwargs).arguments
        for name, value in given.items():
            if isinstance(value, Path) and _ADDRESS.match(str(value)):
                raise UsageError(
                    f"--{name.replace('_', '-')} {value}: an address, where a path of this machine belongs"
                )
        values = {name: given[name] for name in plain if name in given}
        values |= {
            name: one.parse(given[one.name]) for name, one in single.items() if given.get(one.name) is not None
        }
        values |= {name: _made(*each, given) for name, each in asked.items()}
        command(**values)

    vars(run)["__signature__"] = own
    run.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    return run


def _is_annotated(parameter: Parameter) -> bool:
    return get_origin(parameter.annotation) is Annotated


def _made(kind: type, how: Fields, asked: tuple[Option, ...], given: Mapping[str, Any]) -> Any:
    values = {each.field: each.parse(given[each.name]) for each in asked if given.get(each.name) is not None}
    try:
        return (how.make or kind)(**values)
    except ValueError as error:
        raise UsageError(str(error)) from error

"""Running a command line by the rules for errors: one line, an exit code, no traceback."""

from __future__ import annotations

import ast
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_args, get_origin

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from specshards.common import messages
from specshards.common.errors import JobError, UsageError, one_line

_INTERRUPTED, _TERMINATED = 130, 143
#: Parameters that are paths, or addresses of an object store.
_PATHS = ("out", "spectra", "folder", "folders", "data")
_GO_ON = "interrupted: what is finished is kept; run the same command again to go on"


def run_app(app: typer.Typer, arguments: Sequence[str] | None = None, name: str | None = None) -> NoReturn:
    """Run a command-line application with the project's error rules.

    Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted, 143 terminated (SIGTERM, as schedulers of clusters send
    it, ends a job as Ctrl-C does). `SPECSHARDS_DEBUG=1` shows tracebacks.

    Args:
        arguments: default: those of the process. name: the program's, for its help.
    """
    messages.show()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a file's name need not be text of this terminal
            stream.reconfigure(errors="backslashreplace")
    if os.environ.get("SPECSHARDS_DEBUG"):
        app(arguments, prog_name=name)
        sys.exit(0)
    terminated = _as_interrupt(signal.SIGTERM)
    try:
        app(arguments, prog_name=name)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if code == _INTERRUPTED:  # typer has caught the Ctrl-C before us
            _say(_GO_ON, code)
    except UsageError as error:
        code = _say(error, 2)
    except JobError as error:
        code = _say(error, 1)
    except OSError as error:
        code = _say(one_line(error), 1)
    except KeyboardInterrupt:
        code = _say(_GO_ON, _INTERRUPTED)
    sys.exit(_TERMINATED if code == _INTERRUPTED and terminated else code)


def _as_interrupt(number: int) -> list[int]:
    """Let a signal end the command as Ctrl-C does; the list that it will be noted in."""
    seen: list[int] = []

    def interrupt(number: int, _: object) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(number, interrupt)
    return seen


def _say(message: object, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def application(about: str, commands: Mapping[str, Callable[..., None] | str]) -> typer.Typer:
    """The commands of a room, in this order; one that needs something shows its help where it is given nothing.

    Args:
        commands: name -> function, or `module:function`, whose module is imported when the command is asked for. A
            function may have an attribute `command_class`, a `TyperCommand` that writes its help.
    """

    class Group(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self.commands = {
                name: _Later(name, place) if isinstance(place, str) else self.commands[name]
                for name, place in commands.items()
            }

    app = typer.Typer(
        cls=Group, help=about, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
    )
    for name, command in commands.items():
        if not isinstance(command, str):
            _add(app, name, command)
    app.callback()(lambda: None)  # one command alone keeps its name
    return app


def _add(app: typer.Typer, name: str, command: Callable[..., None]) -> None:
    needs = any(each.default is inspect.Parameter.empty for each in inspect.signature(command).parameters.values())
    own = vars(command).get("command_class", TyperCommand)
    app.command(name, cls=type("Command", (_Named, own), {"paths": _paths(command)}), no_args_is_help=needs)(command)


class _Named(TyperCommand):
    """A command whose paths have a name: a blank one would be this folder, or a folder of blanks."""

    paths: frozenset[str]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse a blank path before it becomes one."""
        given, *_ = self.make_parser(ctx).parse_args(list(args)) if args else ({},)
        for each in self.params:
            value = given.get(str(each.name))
            values = value if isinstance(value, list | tuple) else (value,)
            if each.name in self.paths and any(isinstance(one, str) and not one.strip() for one in values):
                what = each.opts[0] if each.param_type_name == "option" else str(each.name).upper()
                raise UsageError(f"{what} is blank: name a path" + ("" if each.required else ", or leave it out"))
        return super().parse_args(ctx, args)


def _paths(command: Callable[..., None]) -> frozenset[str]:
    """The names of the parameters that are paths."""
    kinds = {name: each.annotation for name, each in inspect.signature(command, eval_str=True).parameters.items()}
    plain = {name: get_args(kind)[0] if get_origin(kind) is Annotated else kind for name, kind in kinds.items()}
    return frozenset(name for name, kind in plain.items() if name in _PATHS or Path in (kind, *get_args(kind)))


class _Later(TyperCommand):
    """A command of `module:function`. The list of a room's commands shows its docstring without importing it."""

    def __init__(self, name: str, place: str) -> None:
        self._module, _, self._function = place.partition(":")
        super().__init__(name, callback=None, help=self._docstring())

    def _docstring(self) -> str | None:
        spec = find_spec(self._module)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(self._module)
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == self._function]
        return ast.get_docstring(functions[0])

    @cached_property
    def _command(self) -> Any:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        _add(app, str(self.name), getattr(import_module(self._module), self._function))
        return typer.main.get_command(app)

    @property
    def params(self) -> Any:
        """Of the command itself."""
        return self._command.params

    @params.setter
    def params(self, value: Any) -> None:
        pass

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """That of the command itself, which takes over from here."""
        return self._command.make_context(*args, **kwargs)

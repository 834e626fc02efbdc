"""Running a command line by the rules for errors: one line, an exit code, no traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from specshards.common import messages
from specshards.common.errors import JobError, UsageError, one_line

_INTERRUPTED = 130
_GO_ON = "interrupted: what is finished is kept; run the same command again to go on"


def run_app(app: typer.Typer, arguments: Sequence[str] | None = None, name: str | None = None) -> NoReturn:
    """Run a command-line application with the project's error rules.

    Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted. `SPECSHARDS_DEBUG=1` shows tracebacks.

    Args:
        arguments: default: those of the process. name: the program's, for its help.
    """
    messages.show()
    if os.environ.get("SPECSHARDS_DEBUG"):
        app(arguments, prog_name=name)
        sys.exit(0)
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
    sys.exit(code)


def _say(message: object, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code

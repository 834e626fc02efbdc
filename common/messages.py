"""What a job tells people while it works: records of the logger `specshards`, which a library's user can silence.

    logging.getLogger("specshards").setLevel(logging.ERROR)

A command shows them as lines: what happened on standard output, warnings on standard error.
"""

from __future__ import annotations

import logging
import sys

LOGGER = logging.getLogger("specshards")


class _Console(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm  # which takes a progress bar out of the way first

        if record.levelno >= logging.WARNING:
            tqdm.write(f"{record.levelname.lower()}: {record.getMessage()}", sys.stderr)
        else:
            tqdm.write(record.getMessage(), sys.stdout)


def show() -> None:
    """Show messages as lines from now on: what every command does first."""
    if not any(isinstance(handler, _Console) for handler in LOGGER.handlers):
        LOGGER.addHandler(_Console())
        LOGGER.setLevel(logging.INFO)
        LOGGER.propagate = False

"""The three ways things go wrong, each with the one line that a user sees.

A bad object becomes a quarantine row (`BadObjectError`); a user's mistake ends with exit code 2 (`UsageError`); a
bad environment or a failed job ends with exit code 1 (`JobError`). None of them shows a traceback.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from specshards.common.text import printable


class UsageError(Exception):
    """The command or its arguments are wrong: one line that names the thing and the mend. Exit code 2."""


class JobError(Exception):
    """The job cannot go on or has failed: one line that names the thing and the mend. Exit code 1."""


class BadObjectError(Exception):
    """One object cannot be used; the job goes on and the object goes to quarantine with this reason.

    Attributes:
        reason: one line, without the file's name.
        layout: the layout recognised before the failure, if any.
        selected_out: True for what is whole but not an object to learn from (a sky fibre); not counted as bad.
        row: which row of a file of many spectra it is, None for a file of one.
        kind: what it is counted under, where the reason is of this object alone; by default the reason.
    """

    def __init__(
        self,
        reason: str,
        *,
        layout: str | None = None,
        selected_out: bool = False,
        row: int | None = None,
        kind: str | None = None,
    ) -> None:
        # Some values print themselves on several lines, or hold what cannot be printed.
        self.reason = printable(" ".join(reason.split()))
        super().__init__(self.reason)
        self.layout = layout
        self.selected_out = selected_out
        self.row = row
        self.kind = self.reason if kind is None else kind

    def __reduce__(self) -> tuple[Callable[..., BadObjectError], tuple[str, str | None, bool, int | None, str]]:
        """Keep the attributes on the way back from a worker process."""
        return _bad_object, (self.reason, self.layout, self.selected_out, self.row, self.kind)


def _bad_object(reason: str, layout: str | None, selected_out: bool, row: int | None, kind: str) -> BadObjectError:
    return BadObjectError(reason, layout=layout, selected_out=selected_out, row=row, kind=kind)


_ENVIRONMENT = {
    errno.ENOSPC: "the disk is full; free some space or choose another OUT, then run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another OUT, then run again",
    errno.EROFS: "the file system is read-only; choose another OUT",
    errno.EACCES: "no permission; choose another OUT or mend the permissions",
    errno.EPERM: "no permission; choose another OUT or mend the permissions",
    errno.EMFILE: "too many files are open in this process; raise its limit (`ulimit -n 4096`), then run again",
    errno.ENFILE: "too many files are open on this machine; close some programs, then run again",
}


def is_environment(error: BaseException) -> bool:
    """Whether `error` is the machine's fault (disk full, no permission) rather than one object's."""
    return isinstance(error, OSError) and error.errno in _ENVIRONMENT


def make_folder(path: Path) -> None:
    """Make a folder for output and its parents; JobError names the folder and the mend where that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        mend = _ENVIRONMENT.get(error.errno or 0, f"cannot be made a folder ({error.strerror}); choose another OUT")
        raise JobError(f"{path}: {mend}") from error


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Give an OSError that does not say which file it is about the name `path`: a full disk, most of all."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def one_line(error: OSError) -> str:
    """A one-line message for an operating-system error: what, where, and the mend where we know one."""
    mend = _ENVIRONMENT.get(error.errno or 0)
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{mend or error.strerror or error}"


def shortened(error: BaseException, width: int = 120) -> str:
    """What an error of somebody else's says, on one line and cut to `width` characters."""
    return " ".join(str(error).split())[:width]

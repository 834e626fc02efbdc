"""Reading from an address (s3://, https://, what fsspec knows): patience with a network, one line for the rest."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar, cast

from specshards.common.errors import JobError, UsageError, is_environment, shortened
from specshards.common.files import is_remote, is_web

Result = TypeVar("Result")

#: Seconds between one try and the next; each is drawn between half of it and the whole.
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
#: Bytes that are asked for at least where some stretches of a file are read.
_PIECE = 1 << 18
#: Errors of other libraries that no second try mends, by the names of their classes.
_FINAL = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ParamValidationError", "ImportError"}


class GivenUpError(Exception):
    """Whoever asked for something does not want it any more."""


def patiently(
    where: Path | str, action: Callable[[], Result], pause: Callable[[float], object] = time.sleep
) -> Result:
    """What `action` gives, tried again after errors that pass.

    Args:
        where: the object, for messages.
        pause: waits so many seconds.

    Raises:
        JobError: the network, the server or the credentials; names the object. FileNotFoundError: no such object.
        UsageError: a library for such addresses is missing.
    """
    for seconds in (*PAUSES, None):
        try:
            return action()
        except (FileNotFoundError, JobError, UsageError, GivenUpError):
            raise
        except ImportError as error:
            raise UsageError(f"{where}: {shortened(error)}") from error
        except PermissionError as error:
            raise JobError(f"{where}: no permission ({shortened(error)}); see to the credentials") from error
        except Exception as error:  # every library of fsspec has errors of its own
            if is_environment(error):
                raise
            why = shortened(error, 200) or type(error).__name__
            if type(error).__name__ in _FINAL:
                raise JobError(f"{where}: cannot be read ({why}); see to the credentials") from error
            if seconds is None:
                raise JobError(
                    f"{where}: cannot be read ({why}), tried {len(PAUSES) + 1} times; see to the network, then run "
                    "the same command again"
                ) from error
            pause(seconds * random.uniform(0.5, 1))
    raise AssertionError("the last try returns or raises")


def opened(path: Path) -> IO[bytes]:
    """A file from which some stretches are read, on this machine or elsewhere."""
    if not is_remote(path):
        return path.open("rb")
    file = cast(IO[bytes], path.open("rb", block_size=_PIECE))  # type: ignore[call-overload]
    if not is_web(path):
        return file
    try:
        file.seek(-1, io.SEEK_END)
        file.read(1)
    except ValueError:  # a web server that gives whole files only
        return io.BytesIO(read_bytes(path))
    file.seek(0)
    return file


def read_bytes(path: Path) -> bytes:
    """A small file, on this machine or elsewhere.

    Raises:
        JobError: the network; names the object. FileNotFoundError, OSError.
    """
    if not is_remote(path):
        return path.read_bytes()
    # Not `open`, which takes a web server that does not answer for a file that is not there.
    return patiently(path, lambda: path.fs.cat_file(path.path))  # type: ignore[attr-defined]

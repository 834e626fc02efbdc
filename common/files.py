"""Files that appear whole or not at all, on a local disk or in an object store such as S3.

Local files are written under a temporary name, made durable, then renamed. An object appears when its upload ends.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast
from uuid import uuid4

from specshards.common.errors import UsageError, shortened

#: Seconds that a web server may say nothing.
_SILENCE = 30


def location(where: str | Path) -> Path:
    """A local path; or for a URL (`s3://bucket/folder`) universal_pathlib's object, which has a path's methods.

    Raises:
        UsageError: an address of a kind that is unknown, or for which a library is missing.
    """
    if "://" not in str(where):
        return Path(where).expanduser()
    from upath import UPath

    try:
        path = UPath(str(where), **_patience(str(where)))
        path.fs  # noqa: B018 - makes the connection's object, without connecting
    except (ImportError, ValueError) as error:
        raise UsageError(f"{where}: {shortened(error)}") from error
    return cast(Path, path)


def _patience(where: str) -> dict[str, Any]:
    """Of web servers: any time for a file that goes on arriving, and half a minute for one that does not."""
    if not where.startswith(("http://", "https://")):
        return {}
    from aiohttp import ClientTimeout

    return {"client_kwargs": {"timeout": ClientTimeout(total=None, sock_connect=_SILENCE, sock_read=_SILENCE)}}


def is_remote(path: Path) -> bool:
    """Whether `path` is in an object store: no renaming, no locks, no memory maps."""
    return not isinstance(path, Path)


def is_web(path: Path) -> bool:
    """Whether `path` is on a web server: nothing is written there, and folders may have no lists."""
    return str(getattr(path, "protocol", "")).startswith("http")


def absolute(path: Path) -> Path:
    """The path from the root: what another process, in another folder, must be told. URLs are that already."""
    return path if is_remote(path) else path.absolute()


def readable(path: Path) -> Path | IO[bytes]:
    """What pyarrow opens: the path; for an object store, or a name that is no UTF-8, an open file."""
    return path.open("rb") if is_remote(path) or not _is_utf8(path) else path


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def sha256(path: Path) -> str:
    """Of a file's content, as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary local file to write to; on success it becomes `path`, on an exception it is removed."""
    if is_remote(path):
        with tempfile.TemporaryDirectory(prefix="specshards-") as folder:
            temporary = Path(folder) / path.name
            yield temporary
            publish(temporary, path)
        return
    # A name of its own for every writer: one that was given up for dead may still be writing.
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        publish(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def publish(temporary: Path, final: Path) -> None:
    """Give a finished file its final name: fsync and rename (atomic on one file system), or upload it."""
    if is_remote(final):
        final.fs.put_file(str(temporary), final.path)  # type: ignore[attr-defined]
        return
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, final)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it, where there is one."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.exists():
        folder.fs.rm(folder.path, recursive=True)  # type: ignore[attr-defined]


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8) whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

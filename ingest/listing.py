"""What lies in a folder: every name once, and what cannot be followed under its own name, so that it is not lost."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO, NamedTuple

from specshards.common.errors import BadObjectError
from specshards.ingest import archives


class Entry(NamedTuple):
    """Something in a folder.

    Attributes:
        name: below the folder, with `/`; bytes that are no UTF-8 as lone surrogates.
        is_folder: whether what is in it follows.
        is_lost: whether nobody can tell what it is: a link that leads nowhere or in a circle, a folder that cannot be
            listed.
    """

    name: str
    is_folder: bool = False
    is_lost: bool = False


class _Place(NamedTuple):
    """A folder to list: where it is, its name below the first, and those that it lies in, by device and inode."""

    path: str
    name: str
    above: frozenset[tuple[int, int]]


def walk(folder: Path) -> Iterator[Entry]:
    """Everything in and below a folder, in no order; links are followed, but not to a folder that they lie in.

    Raises:
        OSError: the folder itself cannot be listed.
    """
    # Plain strings: a path object is ten times as large, and a survey has millions of files.
    parents = frozenset(_identity(parent.stat()) for parent in folder.resolve().parents)
    places = [_Place(str(folder), "", parents)]
    while places:
        place = places.pop()
        try:
            above = place.above | {_identity(_status(place.path))}
            with os.scandir(place.path) as entries:
                for entry in entries:
                    name = f"{place.name}/{entry.name}" if place.name else entry.name
                    if not _leads_to_folder(entry):
                        yield Entry(name, is_lost=entry.is_symlink() and not _exists(entry.path))
                    elif _identity(_status(entry.path)) in above:
                        yield Entry(name, is_lost=True)
                    else:
                        yield Entry(name, is_folder=True)
                        places.append(_Place(entry.path, name, above))
        except OSError:
            if not place.name:
                raise
            yield Entry(place.name, is_lost=True)


def matching(pattern: Path) -> list[Path]:
    """What a glob matches, also what cannot be followed; `**` goes into no link that leads back."""
    if "**" not in pattern.parts:
        return [Path(name) for name in glob.glob(str(pattern))]  # noqa: PTH207
    fixed = next(i for i, part in enumerate(pattern.parts) if glob.has_magic(part))
    root, patterns = Path(*pattern.parts[:fixed]), pattern.parts[fixed:]
    if not root.is_dir():
        return []
    return [root / entry.name for entry in walk(root) if _matches(entry.name.split("/"), patterns)]


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns or not parts:
        return not parts and all(pattern == "**" for pattern in patterns)
    pattern, is_hidden = patterns[0], parts[0].startswith(".")
    if pattern == "**":
        return _matches(parts, patterns[1:]) or (not is_hidden and _matches(parts[1:], patterns))
    is_seen = not is_hidden or pattern.startswith(".")
    return is_seen and fnmatchcase(parts[0], pattern) and _matches(parts[1:], patterns[1:])


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _status(path: str) -> os.stat_result:
    return os.stat(path)  # noqa: PTH116 - of a plain string


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or through a folder that is closed
        return False


def _exists(path: str) -> bool:
    try:
        _status(path)
    except OSError:
        return False
    return True


def beside(path: Path, names: Iterable[str]) -> Path | None:
    """The first file of these names in the folder of `path`; None without any."""
    return next((other for other in map(path.with_name, names) if archives.is_there(other)), None)


def open_input(path: Path) -> BinaryIO:
    """An input file, or a member of an archive (`ingest.archives`), open for reading.

    Raises:
        BadObjectError: it is no file (a pipe, a folder, a link that leads nowhere), or may not be read. OSError: the
            environment.
    """
    try:
        # Looked at before it is opened: opening a pipe waits for who writes to it.
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            if archives.is_archive(path.name):
                raise archives.why_not(path)
            return path.open("rb", buffering=0)
    except PermissionError as error:
        raise BadObjectError("no permission to read it") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        if (member := archives.split(path)) is not None:
            return archives.open_member(*member)
        why = "a link that leads nowhere" if path.is_symlink() else "gone since the listing"
        raise BadObjectError(why) from error
    except OSError as error:
        if path.is_symlink():
            raise BadObjectError(f"a link that cannot be followed: {error.strerror}") from error
        raise
    if stat.S_ISDIR(mode):
        raise BadObjectError(_why_no_folder(path))
    raise BadObjectError(f"{_KINDS.get(stat.S_IFMT(mode), 'something else')}, not a file")


_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def size_of(path: Path) -> int:
    """Bytes of an input file; errors as of `open_input`."""
    with open_input(path) as file:
        return file.seek(0, 2)


def _why_no_folder(path: Path) -> str:
    try:
        os.scandir(path).close()
    except OSError as error:
        return f"a folder that cannot be listed: {error.strerror}"
    return "a link back to a folder that it lies in" if path.is_symlink() else "a folder, not a file"

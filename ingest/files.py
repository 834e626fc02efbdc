"""The survey files that a folder, a name or a glob stands for."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from specshards.common.errors import UsageError
from specshards.ingest import archives
from specshards.ingest.listing import Entry, matching, walk
from specshards.ingest.surveys import SUFFIXES, TEXT_SUFFIXES
from specshards.ingest.surveys.survey import MOCK_CATALOGUE
from specshards.ingest.tables import HATS_CARD, data_files


def find_files(data: str, name: str = "DATA", *, text: bool = False) -> tuple[Path, list[str]]:
    """The survey files below a folder, or the one file, or those of a glob, which may match folders too.

    What has the name of a survey file and is none (a pipe, a folder without any), and what nobody can look into (a
    link in a circle, a folder that may not be listed) is among them: whoever opens it is told why it cannot be read.

    Returns:
        Their root, and sorted paths below it; bytes that are no UTF-8 as lone surrogates.

    Args:
        name: how the user calls this argument, for the message.
        text: of folders, files of text, VOTables and npz as well.

    Raises:
        UsageError: nothing there, or nothing with the name of a FITS file.
    """
    root, found = list_files(data, name, text=text)
    names = sorted(found)
    if not names:
        raise UsageError(nothing_in(data, name, text=text))
    return root, names


def list_files(data: str, name: str = "DATA", *, text: bool = False) -> tuple[Path, Iterator[str]]:
    """What `find_files` finds, each once, in no order and one at a time: there can be more than memory holds.

    Of a folder, that is: what a glob matches is listed at once, and so is the Parquet of a folder.

    Raises:
        UsageError: nothing there; also while it is listed.
    """
    path, ends = Path(data).expanduser(), _ends(text)
    with _permitted(data, name):
        if path.is_dir():
            return path, _listed(path, ends, data, name)
        if path.is_file():
            if archives.is_archive(path.name):
                return path.parent, _files_of(path.parent, ends, iter((Entry(path.name),)))
            return path.parent, iter((path.name,))
        if glob.has_magic(data):
            root, found = _matching(path, ends)
            return root, iter(found)
        if os.path.lexists(path):
            raise UsageError(f"{name}={data}: neither a file nor a folder, or a link that leads nowhere")
        raise UsageError(f"{name}={data}: no such file or folder")


def nothing_in(data: str, name: str = "DATA", *, text: bool = False) -> str:
    """That there is no spectrum."""
    ends = ", *".join((*_ends(text), *archives.SUFFIXES))
    return f"{name}={data}: no spectra there; expected files named *{ends}"


def _ends(text: bool) -> tuple[str, ...]:
    return *SUFFIXES, *(TEXT_SUFFIXES if text else ())


def _listed(path: Path, ends: tuple[str, ...], data: str, name: str) -> Iterator[str]:
    with _permitted(data, name):
        yield from _survey_files(path, ends)


@contextmanager
def _permitted(data: str, name: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise UsageError(f"{name}={data}: no permission to read {error.filename}") from error


def _matching(pattern: Path, ends: tuple[str, ...]) -> tuple[Path, list[str]]:
    paths: set[Path] = set()
    for match in matching(pattern):
        try:
            below = _below(match, ends)
        except OSError:  # a folder that may not be listed
            below = {match}
        paths |= below or ({match} if match.name.lower().endswith(ends) else set())
    places = {Path(at[0]) if (at := archives.split(path)) is not None else path for path in paths}
    root = Path(os.path.commonpath([place.parent for place in places])) if places else pattern
    return root, sorted(path.relative_to(root).as_posix() for path in paths)


def _below(match: Path, ends: tuple[str, ...]) -> set[Path]:
    if match.is_dir():
        return {match / name for name in _survey_files(match, ends)}
    if archives.is_archive(match.name):
        return {match.parent / name for name in _files_of(match.parent, ends, iter((Entry(match.name),)))}
    return {match}


def _survey_files(root: Path, ends: tuple[str, ...]) -> Iterator[str]:
    return _files_of(root, ends, walk(root))


def _with_members(root: Path, entries: Iterator[Entry]) -> Iterator[Entry]:
    """Members in place of their archives; an archive itself where whoever opens it is told why it is not read."""
    for entry in entries:
        if entry.is_folder or entry.is_lost or not archives.is_archive(entry.name):
            yield entry
        else:
            for name in archives.names_in(root / entry.name):
                yield Entry(f"{entry.name}/{name}" if name else entry.name)


def _files_of(root: Path, ends: tuple[str, ...], entries: Iterator[Entry]) -> Iterator[str]:
    """Of Parquet files only those that hold data: a HATS catalogue keeps copies of its rows beside them."""
    parquet, cards = list[str](), list[str]()
    empty: set[str] = set()  # folders with the name of a survey file, and none in them so far
    for entry in _with_members(root, entries):
        has_name = entry.name.lower().endswith(ends) or (not entry.is_folder and archives.is_archive(entry.name))
        if entry.is_folder:
            empty |= {entry.name} if has_name else set()
        elif entry.name.endswith(".parquet") and not entry.is_lost:
            parquet.append(entry.name)
        elif entry.name.rpartition("/")[2] == MOCK_CATALOGUE:
            continue  # of a mock survey, which this program wrote
        elif has_name or (entry.is_lost and "." not in entry.name.rpartition("/")[2]):
            _enter(entry.name, empty)
            yield entry.name
        elif entry.name.rpartition("/")[2] == HATS_CARD:
            cards.append(entry.name)
    for name in data_files(root, parquet, cards):
        _enter(name, empty)
        yield name
    yield from empty


def _enter(name: str, empty: set[str]) -> None:
    """There is a file of this name: none of the folders that it lies in is empty, and it is entered once."""
    empty.discard(name)
    while empty and (name := name.rpartition("/")[0]):
        empty.discard(name)

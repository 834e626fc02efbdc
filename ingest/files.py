"""The survey files that a folder, a name or a glob stands for."""

from __future__ import annotations

import glob
import os
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path

from specshards.common.errors import UsageError
from specshards.ingest.listing import matching, walk
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
    path, ends = Path(data).expanduser(), (*SUFFIXES, *(TEXT_SUFFIXES if text else ()))
    try:
        if path.is_dir():
            root, found = path, sorted(_survey_files(path, ends))
        elif path.is_file():
            root, found = path.parent, [path.name]
        elif glob.has_magic(data):
            root, found = _matching(path, ends)
        elif os.path.lexists(path):
            raise UsageError(f"{name}={data}: neither a file nor a folder, or a link that leads nowhere")
        else:
            raise UsageError(f"{name}={data}: no such file or folder")
    except PermissionError as error:
        raise UsageError(f"{name}={data}: no permission to read {error.filename}") from error
    if not found:
        raise UsageError(f"{name}={data}: no spectra there; expected files named *{', *'.join(ends)}")
    return root, found


def _matching(pattern: Path, ends: tuple[str, ...]) -> tuple[Path, list[str]]:
    paths: set[Path] = set()
    for match in matching(pattern):
        try:
            below = {match / name for name in _survey_files(match, ends)} if match.is_dir() else {match}
        except OSError:  # a folder that may not be listed
            below = {match}
        paths |= below or ({match} if match.name.lower().endswith(ends) else set())
    root = Path(os.path.commonpath([path.parent for path in paths])) if paths else pattern
    return root, sorted(path.relative_to(root).as_posix() for path in paths)


def _survey_files(root: Path, ends: tuple[str, ...]) -> set[str]:
    """Of Parquet files only those that hold data: a HATS catalogue keeps copies of its rows beside them."""
    files, parquet, cards, folders = [], [], [], []
    for entry in walk(root):
        has_name = entry.name.lower().endswith(ends)
        if entry.is_folder:
            folders += [entry.name] if has_name else []
        elif entry.name.endswith(".parquet") and not entry.is_lost:
            parquet.append(entry.name)
        elif entry.name.rpartition("/")[2] == MOCK_CATALOGUE:
            continue  # of a mock survey, which this program wrote
        elif has_name or (entry.is_lost and "." not in entry.name.rpartition("/")[2]):
            files.append(entry.name)
        elif entry.name.rpartition("/")[2] == HATS_CARD:
            cards.append(entry.name)
    found = {*files, *data_files(root, parquet, cards)}
    return found | _empty(folders, found)


def _empty(folders: Iterable[str], found: Iterable[str]) -> set[str]:
    """Folders with the name of a survey file and no survey file in them."""
    names = sorted(found)
    return {name for name in folders if not _starts(names[bisect_left(names, f"{name}/") :], f"{name}/")}


def _starts(names: list[str], prefix: str) -> bool:
    return bool(names) and names[0].startswith(prefix)

"""The survey files that a folder, a name or a glob stands for."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from specshards.common.errors import UsageError
from specshards.ingest.surveys import SUFFIXES
from specshards.ingest.tables import parquet_files


def find_files(data: str, name: str = "DATA") -> tuple[Path, list[str]]:
    """The survey files below a folder, or the one file, or those of a glob, which may match folders too.

    Returns:
        Their root, and sorted paths below it.

    Args:
        name: how the user calls this argument, for the message.

    Raises:
        UsageError: nothing there, or nothing with the name of a FITS file.
    """
    path = Path(data).expanduser()
    if path.is_dir():
        root, found = path, sorted(_without_copies(path, _walk(str(path), "")))
    elif path.is_file():
        root, found = path.parent, [path.name]
    elif glob.has_magic(data):
        matches = [Path(p) for p in glob.glob(str(path), recursive=True)]  # noqa: PTH207
        paths = {p for p in matches if p.is_file()}
        for folder in filter(Path.is_dir, matches):
            paths |= {folder / below for below in _without_copies(folder, _walk(str(folder), ""))}
        root = Path(os.path.commonpath([p.parent for p in paths])) if paths else path
        found = sorted(p.relative_to(root).as_posix() for p in paths)
    else:
        raise UsageError(f"{name}={data}: no such file or folder")
    if not found:
        raise UsageError(f"{name}={data}: no spectra there; expected files named *{', *'.join(SUFFIXES)}")
    return root, found


def _walk(folder: str, below: str) -> Iterator[str]:
    # Plain strings: a path object is ten times as large, and a survey has millions of files.
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _walk(entry.path, f"{below}{entry.name}/")
            elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():
                yield below + entry.name


def _without_copies(root: Path, names: Iterator[str]) -> Iterator[str]:
    """Of Parquet files only those that hold data: a HATS catalogue keeps copies of its rows beside them."""
    parquet: set[str] | None = None
    for name in names:
        if name.endswith(".parquet"):
            if parquet is None:
                parquet = {path.relative_to(root).as_posix() for path in parquet_files(root)[1]}
            if name not in parquet:
                continue
        yield name

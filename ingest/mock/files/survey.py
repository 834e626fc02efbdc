"""The FITS mock survey: what is true of each file, and the job that writes them all, with their catalogue."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from specshards.common.errors import UsageError
from specshards.common.folder import locked
from specshards.common.jobs import Engine, cores, run_tasks
from specshards.common.json import parse
from specshards.ingest.mock.files import lamost, sdss
from specshards.ingest.mock.files.fitsbytes import BLOCK
from specshards.ingest.mock.lines import Array
from specshards.ingest.mock.objects import Entry, MockConfig, observe, plan

VERSION = 1
"""Raised whenever the same config would give other files."""

CATALOGUE = "mock_catalogue.csv"
"""Name of the catalogue within the folder; its first line is the header."""

_MARKER = "mock.json"
_UNFINISHED = "mock.partial.json"  # the marker's content while files are still being written
_LOCK = ".mock.lock"
_WHAT = "specshards mock survey, not observations"
_CHUNK = 25

Row = dict[str, object]


@dataclass(frozen=True)
class MockResult:
    """The folder, its catalogue, how many files it holds in all, and how many of those are damaged on
    purpose."""

    folder: Path
    catalogue: Path
    n_files: int
    n_damaged: int


@dataclass(frozen=True)
class Truth:
    """What is known about one file: its plan, true labels, and its spectrum before any noise.

    `class_` STAR, GALAXY, QSO or SKY; `teff` K, `logg` and `feh` dex, NaN unless a star; `ra`, `dec` degrees
    of this visit; `wave` (N,) vacuum Angstrom; `flux` (N,) noiseless, in the unit and scale of the file's
    flux.
    """

    entry: Entry
    class_: str
    subclass: str
    z: float
    teff: float
    logg: float
    feh: float
    ra: float
    dec: float
    wave: Array
    flux: Array


def truth(config: MockConfig, index: int) -> Truth:
    """The truth behind file `index` (0 ... n_files - 1) of a mock survey; a damaged file's as if it were
    whole.

    Raises IndexError for an index outside.
    """
    if not 0 <= index < config.n_files:
        raise IndexError(f"the mock survey has files 0 to {config.n_files - 1}, not {index}")
    entry = plan(config)[index]
    visit = observe(config, entry)
    s = visit.source
    return Truth(
        entry, s.kind, s.subclass, s.z, s.teff, s.logg, s.feh, visit.ra, visit.dec,
        visit.exposure.wave, visit.exposure.truth,
    )  # fmt: skip


def write(
    config: MockConfig,
    folder: Path,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
    *,
    quiet: bool | None = True,
) -> MockResult:
    """Write the mock survey into `folder`, or leave it as it is when it already holds this very survey.

    The bytes depend on `config` alone. A mock survey of another config in the folder is removed first, file
    by file from its own list; an interrupted one of the same config is written over. `workers` processes (all
    cores when None; 0 and 1 mean this process); `progress` is called with the number of files done so far; `quiet`
    as in `common.jobs.run_tasks`.

    Raises FileExistsError when a file of someone else is in the way, ValueError when the folder's `mock.json`
    cannot be read, OSError when the disk is full or closed to us, JobError while another process writes there.
    """
    folder = Path(folder)
    with locked(folder / _LOCK, folder):
        return _write(config, folder, cores() if workers is None else workers, progress, quiet)


def write_with_progress(config: MockConfig, folder: Path, workers: int | None = None) -> MockResult:
    """`write` with a progress line on a terminal, and errors a user can mend as UsageError."""
    try:
        return write(config, folder, workers, quiet=None)
    except (ValueError, FileExistsError) as error:
        raise UsageError(str(error)) from error


def _write(
    config: MockConfig, folder: Path, workers: int, progress: Callable[[int], None] | None, quiet: bool | None
) -> MockResult:
    entries = plan(config)
    n_damaged = sum(entry.damage is not None for entry in entries)
    result = MockResult(folder, folder / CATALOGUE, len(entries), n_damaged)
    names = [*sorted(entry.name for entry in entries), CATALOGUE]
    claim: Row = {"what": _WHAT, "version": VERSION, "config": config.as_dict()}
    marker, unfinished = folder / _MARKER, folder / _UNFINISHED

    complete = _recorded(marker)
    if complete is not None and _matches(complete, claim) and all((folder / name).is_file() for name in names):
        if progress is not None:
            progress(len(entries))
        return result
    own: set[str] = set()
    for path, record in ((marker, complete), (unfinished, _recorded(unfinished))):
        if record is None:
            continue
        if _matches(record, claim):
            own.update(names)
        else:
            _clear(folder, record)
            path.unlink()
    foreign = next((name for name in names if name not in own and (folder / name).exists()), None)
    if foreign is not None:
        raise FileExistsError(f"{folder / foreign} is in the way of the mock survey; choose another folder")

    _replace(unfinished, json.dumps(claim | {"files": names}, indent=1).encode() + b"\n")
    marker.unlink(missing_ok=True)
    rows = _write_all(config, folder, workers, progress, quiet)
    _replace(result.catalogue, _catalogue(config, rows))
    unfinished.replace(marker)
    return result


@dataclass(frozen=True)
class _Chunk:
    """Some files of a mock survey."""

    config: MockConfig
    folder: str
    files: range


def _write_all(
    config: MockConfig, folder: Path, workers: int, progress: Callable[[int], None] | None, quiet: bool | None
) -> list[Row | None]:
    """The catalogue's row of every file, None for those that it does not list."""
    for parent in sorted({(folder / entry.name).parent for entry in plan(config)}):
        parent.mkdir(parents=True, exist_ok=True)
    starts = range(0, config.n_files, _CHUNK)
    chunks = [_Chunk(config, str(folder), range(i, min(i + _CHUNK, config.n_files))) for i in starts]
    engine = Engine(workers if min(workers, len(chunks)) > 1 else 0)
    rows: dict[int, Row | None] = {}
    for written in run_tasks(
        _write_chunk, chunks, engine, describe=f"mock {config.survey}", unit="file",
        sizes=[len(chunk.files) for chunk in chunks], quiet=quiet,
    ):  # fmt: skip
        rows |= written
        if progress is not None:
            progress(len(rows))
    return [rows[index] for index in range(config.n_files)]


def _write_chunk(chunk: _Chunk) -> dict[int, Row | None]:
    build = lamost.build if chunk.config.survey == "lamost" else sdss.build
    rows = {}
    for index in chunk.files:
        entry = plan(chunk.config)[index]
        content, row = build(observe(chunk.config, entry))
        _replace(Path(chunk.folder) / entry.name, _damaged(content, entry.damage))
        rows[index] = row
    return rows


def _damaged(content: bytes, damage: str | None) -> bytes:
    """The harm done to a finished file; the other kinds of damage are done where the spectrum is laid out."""
    if damage == "truncated":
        return content[: int(0.4 * len(content)) // BLOCK * BLOCK + BLOCK // 3]
    if damage == "empty":
        return b""
    if damage == "text":
        return b"This is a specshards mock file: text under a name that promises FITS.\n"
    return content


def _catalogue(config: MockConfig, rows: Iterable[Row | None]) -> bytes:
    columns = lamost.CATALOGUE if config.survey == "lamost" else sdss.CATALOGUE
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    for row in rows:
        if row is not None:
            table.writerow([_plain(row[column]) for column in columns])
    return text.getvalue().encode()


def _plain(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else format(value, ".9g")
    return value


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def _recorded(path: Path) -> Row | None:
    """What a marker file says; None when there is none."""
    try:
        record = parse(path.read_text(encoding="utf-8"), nan=True)
    except FileNotFoundError:
        return None
    except ValueError:
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("files"), list):
        raise ValueError(f"{path} is no list of a mock survey; move it away or choose another folder")
    return record


def _matches(record: Row, claim: Row) -> bool:
    return all(record.get(key) == value for key, value in claim.items())


def _clear(folder: Path, record: Row) -> None:
    """Remove the files that a record lists, and folders that this leaves empty; nothing else."""
    files = record["files"]
    assert isinstance(files, list)
    parents = set()
    for name in files:
        relative = PurePosixPath(str(name))
        if relative.is_absolute() or ".." in relative.parts or not relative.name:
            raise ValueError(f"the mock survey in {folder} lists a file outside it: {name!r}")
        path = folder / relative
        path.unlink(missing_ok=True)
        path.with_name(f".{path.name}.part").unlink(missing_ok=True)
        parents.add(path.parent)
    for parent in parents - {folder}:
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()

"""A mock survey with known truth: FITS files in a real survey's own layouts, or spectra Parquet at scale.

    result = write(MockConfig("lamost", n_files=2000), Path("mock"))

writes the files, a `mock_catalogue.csv` of true labels, and `mock.json` last, which lists every file written
and marks the folder as complete. Stars, galaxies and quasars, second visits of some objects, a few damaged
files: what the real job must cope with. Headers say ORIGIN 'specshards mock'.

`ingest.mock.scale.job` writes the same kinds of object straight into the spectra Parquet, thousands a second, for
the rest of the pipeline; `specshards ingest mock` does either.

What physics is in it (`physics`, `lines`): stars are black bodies with the hydrogen lines, some hundred atomic
lines, molecular bands and line blanketing, whose strengths follow Teff, log g and [Fe/H] in the right direction
by simple laws; galaxies are an old and a young mix of such stars, broadened, with fourteen emission lines whose
ratios follow gas metallicity and excitation; quasars are a broken power law with broad and narrow lines, iron
bumps and a Lyman forest of the observed mean depth. Dust reddens them. `instrument`: each survey's grids,
resolution, throughput, sky lines, telluric bands, photon and read noise that `ivar` states exactly, calibration
errors, bad columns, cosmic rays.

What is not in it: model atmospheres and abundance patterns, rotation, binaries, variability, rare kinds (white
dwarfs, carbon stars, broad absorption lines, damped absorbers), stars in front of quasars, host galaxies,
selection effects and luminosity functions (z and S/N are drawn independently), noise that is correlated or
underestimated, sky residuals. A score on it says that a pipeline works, nothing about real spectra.

The modules, FITS files first:

    objects         which file holds which object, seen when, in which layout, and what truth
    files           FITS files in the surveys' own layouts
    scale           spectra Parquet, thousands of objects a second
    physics         noiseless spectra of stars, galaxies and quasars
    lines           rest wavelengths
    instrument      what the spectrographs do to light
    command         `specshards ingest mock`
"""

from __future__ import annotations

import csv
import io
import json
import math
import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from tqdm import tqdm

from specshards.common.errors import UsageError
from specshards.common.jobs import cores
from specshards.ingest.mock.files import lamost, sdss
from specshards.ingest.mock.files.fitsbytes import BLOCK
from specshards.ingest.mock.lines import Array
from specshards.ingest.mock.objects import DAMAGES, SURVEYS, Entry, MockConfig, observe, plan

__all__ = [
    "CATALOGUE", "DAMAGES", "SURVEYS", "VERSION", "Entry", "MockConfig", "MockResult", "Truth", "plan", "truth",
    "write", "write_with_progress",
]  # fmt: skip

VERSION = 1
"""Raised whenever the same config would give other files."""

CATALOGUE = "mock_catalogue.csv"
"""Name of the catalogue within the folder; its first line is the header."""

_MARKER = "mock.json"
_UNFINISHED = "mock.partial.json"  # the marker's content while files are still being written
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
) -> MockResult:
    """Write the mock survey into `folder`, or leave it as it is when it already holds this very survey.

    The bytes depend on `config` alone. A mock survey of another config in the folder is removed first, file
    by file from its own list; an interrupted one of the same config is written over. `workers` processes (all
    cores when None; 1 means this process); `progress` is called with the number of files done so far.

    Raises FileExistsError when a file of someone else is in the way, ValueError when the folder's `mock.json`
    cannot be read, OSError when the disk is full or closed to us.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    entries = plan(config)
    n_damaged = sum(entry.damage is not None for entry in entries)
    result = MockResult(folder, folder / CATALOGUE, len(entries), n_damaged)
    names = [*sorted(entry.name for entry in entries), CATALOGUE]
    wanted: Row = {"what": _WHAT, "version": VERSION, "config": config.as_dict()}
    marker, unfinished = folder / _MARKER, folder / _UNFINISHED

    kept = _recorded(marker)
    if kept is not None and _matches(kept, wanted) and all((folder / name).is_file() for name in names):
        if progress is not None:
            progress(len(entries))
        return result
    begun = _recorded(unfinished)
    ours: set[str] = set()
    for path, record in ((marker, kept), (unfinished, begun)):
        if record is None:
            continue
        if _matches(record, wanted):
            ours.update(names)
        else:
            _clear(folder, record)
            path.unlink()
    foreign = next((name for name in names if name not in ours and (folder / name).exists()), None)
    if foreign is not None:
        raise FileExistsError(f"{folder / foreign} is in the way of the mock survey; choose another folder")

    _replace(unfinished, json.dumps(wanted | {"files": names}, indent=1).encode() + b"\n")
    marker.unlink(missing_ok=True)
    rows = _write_all(config, folder, workers, progress)
    _replace(result.catalogue, _catalogue(config, rows))
    unfinished.replace(marker)
    return result


def write_with_progress(config: MockConfig, folder: Path, workers: int | None = None) -> MockResult:
    """`write` with a progress line on a terminal, and errors a user can mend as UsageError."""
    with tqdm(total=config.n_files, desc=f"mock {config.survey}", unit="file", disable=None) as line:
        try:
            return write(config, folder, workers, lambda done: _advance(line, done))
        except (ValueError, FileExistsError) as error:
            raise UsageError(str(error)) from error


def _advance(line: tqdm[NoReturn], done: int) -> None:
    line.update(done - line.n)


def _write_all(
    config: MockConfig, folder: Path, workers: int | None, progress: Callable[[int], None] | None
) -> list[Row | None]:
    n = config.n_files
    for parent in sorted({(folder / entry.name).parent for entry in plan(config)}):
        parent.mkdir(parents=True, exist_ok=True)
    chunks = [range(start, min(start + _CHUNK, n)) for start in range(0, n, _CHUNK)]
    workers = min(workers or cores(), len(chunks))
    rows: list[Row | None] = [None] * n
    done = 0

    def take(chunk: range, new: Iterable[Row | None]) -> None:
        nonlocal done
        for index, row in zip(chunk, new, strict=True):
            rows[index] = row
        done += len(chunk)
        if progress is not None:
            progress(done)

    if workers <= 1:
        for chunk in chunks:
            take(chunk, _write_chunk(config, folder, chunk))
        return rows
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: dict[Future[list[Row | None]], range] = {
            pool.submit(_write_chunk, config, folder, chunk): chunk for chunk in chunks
        }
        try:
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    take(waiting.pop(future), future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return rows


def _write_chunk(config: MockConfig, folder: Path, indices: range) -> list[Row | None]:
    build = lamost.build if config.survey == "lamost" else sdss.build
    rows = []
    for index in indices:
        entry = plan(config)[index]
        content, row = build(observe(config, entry))
        _replace(folder / entry.name, _damaged(content, entry.damage))
        rows.append(row)
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
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("files"), list):
        raise ValueError(f"{path} is no list of a mock survey; move it away or choose another folder")
    return record


def _matches(record: Row, wanted: Row) -> bool:
    return all(record.get(key) == value for key, value in wanted.items())


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

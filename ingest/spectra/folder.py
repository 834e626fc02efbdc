"""A folder of spectra Parquet: its files, their row groups, and where the objects are; `blocks` reads the spectra.

The files are our own or MultimodalUniverse's as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from specshards.common.errors import BadObjectError, JobError, UsageError, shortened
from specshards.common.files import is_remote
from specshards.common.further import Further, FurtherColumn, further_of, united
from specshards.ingest.ids import is_text
from specshards.ingest.listing import walk
from specshards.ingest.spectra.schema import SCHEMA_VERSION, healpix_29
from specshards.ingest.surveys import SUFFIXES
from specshards.ingest.surveys import multimodal_universe as mmu
from specshards.ingest.surveys.declared import Declared
from specshards.ingest.surveys.wavelengths import medium_of
from specshards.ingest.tables import UNSTATED, Stated, TableFile, parquet_files

#: What others' Parquet without further columns counts as: shards that were made from it stay as they are.
_VERSION_OF_OTHERS = 2
#: Row groups from this size on are read in slices, and larger ones may be shared out among tasks (see `plan`).
LARGE_GROUP = 2048

_SURVEY_FILES = tuple(suffix for suffix in SUFFIXES if suffix != ".parquet")
Positions = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class RowGroup:
    """Where one Parquet row group, or a piece of one, lies: the unit that is read, and mixed.

    Attributes:
        file, group: path below the folder, and number of the row group in it.
        rows: how many; first_row: the number of the first among all rows of the folder.
        skip: rows of the row group before this piece.
        file_row: the number of the first among the rows of its file.
        survey: whose rows these are where they do not say; None for our own Parquet, which does.
        stated: what the user says of their wavelengths, where they are not our own.
        is_sealed: whether the file changes its footer with its content; files of version 1 count as if they did, so
            that what was made from them stays as it is.
    """

    file: str
    group: int
    rows: int
    first_row: int
    skip: int = 0
    file_row: int = 0
    survey: str | None = None
    stated: Stated = UNSTATED
    is_sealed: bool = True

    def cut(self, rows: int) -> Iterator[RowGroup]:
        """The same rows in pieces of at most `rows`."""
        for start in range(0, self.rows, rows):
            yield replace(
                self, rows=min(rows, self.rows - start), first_row=self.first_row + start, skip=self.skip + start,
                file_row=self.file_row + start,
            )  # fmt: skip


@dataclass(frozen=True)
class SpectraFolder:
    """The Parquet files of a spectra folder, with global row numbers.

    Attributes:
        groups: every row group of every file.
        surveys: names found, in the order in which they are numbered.
        digests: file -> sha256 of its size, Parquet footer and seal, in the order of the rows: it changes when the
            content does; for sure where there is a seal.
        notes: what a user should know of the input, a line each.
        unplaced: files without positions; they can be drawn, but not split by sky.
        versions: file -> the schema version that its rows are read as.
        further: further columns of any file.
        stated: what a user said of the spectra when they were ingested, or says of those that are not our own: each
            different set of statements once.
    """

    folder: Path
    groups: tuple[RowGroup, ...]
    surveys: tuple[str, ...]
    digests: dict[str, str]
    notes: tuple[str, ...] = ()
    unplaced: tuple[str, ...] = ()
    versions: dict[str, int] = field(default_factory=dict)
    further: Further = field(default_factory=dict)
    stated: tuple[Stated, ...] = ()

    @property
    def rows(self) -> int:
        """Number of spectra."""
        return sum(group.rows for group in self.groups)

    @property
    def fingerprint(self) -> str:
        """sha256 over names, sizes, Parquet footers and seals of all files."""
        return hashlib.sha256(json.dumps(self.digests).encode()).hexdigest()

    @classmethod
    def scan(cls, where: Path, survey: str | None = None, stated: Stated = UNSTATED) -> SpectraFolder:
        """Read the footers of every Parquet file in or below `where`, of those that match a glob, or of one file.

        Args:
            survey: refuse the spectra of others; it names those that do not say whose they are.
            stated: what the user says of the wavelengths of those that are not our own.

        Raises:
            UsageError: no such folder, no Parquet in it, another survey's, ids that may have been rounded, or
                wavelengths of which nobody can tell the unit.
            JobError: a file that is not spectra Parquet.
        """
        folder, paths = parquet_files(where)
        if not paths:
            raise UsageError(
                f"{where}: no spectra Parquet there; run `make shards` or `specshards ingest build` first"
            )
        files = {path.relative_to(folder).as_posix(): path for path in paths}
        groups: list[RowGroup] = []
        names: set[str] = set()
        notes: dict[str, int] = {}
        unplaced: list[str] = []
        digests: dict[str, str] = {}
        versions: dict[str, int] = {}
        further: dict[str, FurtherColumn] = {}
        units: list[tuple[mmu.Columns, str]] = []
        statements: list[Stated] = []
        first = 0
        for name, path in sorted(files.items()):
            file = open_table(path)
            file.survey, file.stated = survey, stated
            digest = hashlib.sha256(f"{path.stat().st_size}\0".encode() + file.footer.content)
            columns = None if mmu.is_own(file) else columns_of(file)
            try:
                # Ours are checked when they are made.
                if columns is not None or not is_text(file.schema.field("object_id").type):
                    mmu.refuse_rounded_ids(file, "object_id" if columns is None else columns.labels["object_id"])
            except BadObjectError as error:
                raise UsageError(f"{path}: {error}") from error
            found, whose = _surveys(file, columns), None
            _agree(path, found, survey)
            if columns is not None:
                whose = columns.survey if columns.survey != mmu.UNKNOWN else survey or mmu.UNKNOWN
                digest.update(f"{columns}\0{whose}".encode())
                if (columns.declared, stated) != (Declared(), UNSTATED):
                    digest.update(f"\0{columns.declared}\0{stated}".encode())
                known = next((words for others, words in units if others == columns), None)
                if known is None:  # one file of a kind is enough, and the others are judged row by row
                    known = _unit_of(file, columns)
                    units.append((columns, known))
                layout = columns.layout + known
                notes[layout] = notes.get(layout, 0) + file.rows
                if not {"ra", "dec"} <= columns.labels.keys():
                    unplaced.append(name)
            digests[name] = digest.hexdigest()
            statements.append(stated if columns is not None else _stated_at_ingest(file))
            more = further_of(file.schema) if columns is None else columns.further
            further = united([further, more], str(where))
            versions[name] = version_of(file)
            if columns is not None and not more:
                versions[name] = _VERSION_OF_OTHERS
            sealed = file.footer.chunks is not None or versions[name] == 1
            names.update(found)
            start = first
            for index, rows in enumerate(file.groups):
                groups.append(
                    RowGroup(
                        name,
                        index,
                        rows,
                        first,
                        file_row=first - start,
                        survey=whose,
                        stated=stated,
                        is_sealed=sealed,
                    )
                )
                first += rows
        lines = tuple(_note(layout, rows) for layout, rows in sorted(notes.items()))
        said = tuple(each for each in dict.fromkeys(statements) if each != UNSTATED)
        return cls(
            folder, tuple(groups), tuple(sorted(names)), digests, lines, tuple(unplaced), versions, further, said
        )  # fmt: skip

    @cached_property
    def of_file(self) -> dict[str, list[RowGroup]]:
        """The row groups of each file."""
        found: dict[str, list[RowGroup]] = {}
        for group in self.groups:
            found.setdefault(group.file, []).append(group)
        return found

    def after(self, files: Sequence[str], surveys: Sequence[str]) -> SpectraFolder:
        """The same, where some rows and surveys were numbered before: those of `files`, in that order, come first."""
        place = {name: number for number, name in enumerate(dict.fromkeys([*files, *self.digests]))}
        groups, first = [], 0
        for group in sorted(self.groups, key=lambda group: place[group.file]):
            groups.append(replace(group, first_row=first))
            first += group.rows
        digests = {name: self.digests[name] for name in sorted(self.digests, key=lambda name: place[name])}
        names = (*surveys, *(name for name in self.surveys if name not in surveys))
        return replace(self, groups=tuple(groups), surveys=names, digests=digests)


def read_positions(folder: Path, file: str) -> Positions:
    """Where the objects of a file are; nothing else is read.

    Returns:
        Right ascension and declination, degrees, float64 `(rows,)`, and the HEALPix index at order 29, int64, which
        is -1 where there is no position.

    Raises:
        JobError: the file is damaged.
    """
    path = folder / file
    try:
        table = open_table(path)
        own = mmu.is_own(table)
        labels = {"ra": "ra", "dec": "dec"} if own else columns_of(table).labels
        if not {"ra", "dec"} <= labels.keys():
            nowhere = np.full(table.rows, np.nan)
            return nowhere, nowhere, np.full(table.rows, -1, np.int64)
        wanted = [labels["ra"], labels["dec"], *(["_healpix_29"] if own else [])]
        found = table.read(wanted)
    except (pa.ArrowException, OSError) as error:
        raise JobError(f"{path}: damaged Parquet ({shortened(error)})") from error
    ra, dec = (found[name].cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) for name in wanted[:2])
    if own:
        return ra, dec, found["_healpix_29"].fill_null(-1).to_numpy()
    with np.errstate(invalid="ignore"):
        known = np.isfinite(ra) & (np.abs(dec) <= 90)
    cells = np.full(len(ra), -1, np.int64)
    cells[known] = healpix_29(ra[known], dec[known])
    return ra, dec, cells


def holds_spectra(where: Path) -> bool:
    """Whether `where` can be drawn as it is: a Parquet file, or a folder or glob of them without survey files."""
    if not is_remote(where) and where.is_dir():
        for entry in walk(where):
            name = entry.name.lower().rpartition("/")[2]
            # A map of the sky beside a HATS catalogue is FITS, but no spectrum.
            if name.endswith(_SURVEY_FILES) and not name.startswith(("skymap", "point_map")):
                return False
    files = parquet_files(where)[1]
    try:
        return bool(files) and TableFile.is_parquet(files[0])
    except BadObjectError:
        return False


def open_table(path: Path) -> TableFile:
    """A Parquet file of spectra; JobError where it is damaged, of another kind, or newer than this program."""
    try:
        file = TableFile.open(path)
    except BadObjectError as error:
        raise JobError(f"{path}: {error}; fetch or ingest it again") from error
    if file.parser != "parquet":
        raise JobError(f"{path}: HDF5, which is ingested first; use `make shards`, or `specshards ingest build`")
    version = version_of(file)
    if version > SCHEMA_VERSION:
        raise JobError(f"{path}: spectra schema {version}, this program reads up to {SCHEMA_VERSION}; update it")
    return file


def version_of(file: TableFile) -> int:
    """The schema version of our own Parquet; of any other the one that its rows are brought to."""
    text = file.metadata.get(b"specshards.schema_version", str(SCHEMA_VERSION).encode())
    try:
        return int(text)
    except ValueError:
        raise JobError(f"{file.path}: schema version {text!r}: damaged Parquet; ingest it again") from None


def _stated_at_ingest(file: TableFile) -> Stated:
    """What was stated of the spectra in our own Parquet, whose metadata have the configuration of its job."""
    try:
        config = json.loads(file.metadata.get(b"specshards.config", b"{}"))
        stated = Stated.of(config if isinstance(config, dict) else {})
    except ValueError:
        return UNSTATED
    return stated if all(isinstance(value, str) for value in stated.to_dict().values()) else UNSTATED


def columns_of(file: TableFile) -> mmu.Columns:
    """Where MultimodalUniverse's Parquet keeps what; JobError where it holds no spectra."""
    try:
        columns = mmu.Columns.of(file)
    except BadObjectError as error:
        raise JobError(f"{file.path}: {error}") from error
    if columns is None:
        missing = {"object_id", "spectrum", "_healpix_29", "survey"} - file.names
        raise JobError(
            f"{file.path}: not spectra Parquet: no column {', '.join(sorted(missing))}"
            if missing
            else f"{file.path}: not spectra Parquet: no flux and lambda in {file.schema.field('spectrum').type}"
        )
    return columns


def _surveys(file: TableFile, columns: mmu.Columns | None) -> tuple[str, ...]:
    if columns is not None:
        return mmu.surveys(file, columns)
    return tuple(sorted({name for table in file.slices(["survey"]) for name in table["survey"].unique().to_pylist()}))


def _unit_of(file: TableFile, columns: mmu.Columns) -> str:
    """What is converted, in words; UsageError where nobody can tell."""
    try:
        unit = mmu.check_unit(file, columns)
    except mmu.UnknownUnitError as error:
        raise UsageError(f"{file.path}: {error}") from error
    except BadObjectError:
        return ""  # its rows say so
    medium = medium_of(columns.declared.medium, file.stated.medium)
    words = [*([unit] if unit != "angstrom" else []), *(["air"] if medium == "air" else [])]
    return f"; wavelengths converted from {', '.join(words)}" if words else ""


def _agree(path: Path, found: tuple[str, ...], survey: str | None) -> None:
    others = sorted({name for name in found if survey not in (None, name, name.removeprefix("mock-"))})
    if others:
        raise UsageError(f"{path}: holds spectra of {', '.join(others)}, not of {survey}")


def _note(layout: str, rows: int) -> str:
    note = f"{rows:,} spectra in layout {layout}"
    if mmu.NO_IVAR in layout:
        note += "; ivar is absent: every pixel with a finite flux that is not masked is drawn, sn_median is missing"
    if mmu.NO_MASK in layout:
        note += "; the mask is absent"
    return note

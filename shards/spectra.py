"""Reading spectra Parquet in pieces, without a Python object per pixel: ours, and MultimodalUniverse's as it is.

Our own files are read row group by row group, straight into arrays. Any other Parquet of spectra goes through
`ingest.surveys.multimodal_universe`, a slice of rows at a time, and is the same from there on: no copy is written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.errors import BadObjectError, JobError, UsageError
from ingest.files import is_remote, readable
from ingest.schema import CLASSES, SCHEMA_VERSION, BoolArray, Spectrum, healpix_29, to_table
from ingest.surveys import SUFFIXES
from ingest.surveys import multimodal_universe as mmu
from ingest.surveys.common import placed
from ingest.tables import TableFile, parquet_files
from shards.flux import Arrays, Grid, log_grid
from shards.format import LABELS

#: Row groups from this size on are read in slices, and larger ones may be shared out among tasks (see `plan`).
LARGE_GROUP = 2048

_SURVEY_FILES = tuple(suffix for suffix in SUFFIXES if suffix != ".parquet")
Positions = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]]

_ARRAYS = ("flux", "ivar", "lambda", "mask")


@dataclass(frozen=True)
class RowGroup:
    """Where one Parquet row group, or a piece of one, lies: the unit that is read, and mixed.

    Attributes:
        file, group: path below the folder, and number of the row group in it.
        rows: how many; first_row: the number of the first among all rows of the folder.
        skip: rows of the row group before this piece.
        file_row: the number of the first among the rows of its file.
        survey: whose rows these are where they do not say; None for our own Parquet, which does.
    """

    file: str
    group: int
    rows: int
    first_row: int
    skip: int = 0
    file_row: int = 0
    survey: str | None = None

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
        digests: file -> sha256 of its size and Parquet footer, in the order of the rows: it changes when the content
            does.
        notes: what a user should know of the input, a line each.
        unplaced: files without positions; they can be drawn, but not split by sky.
    """

    folder: Path
    groups: tuple[RowGroup, ...]
    surveys: tuple[str, ...]
    digests: dict[str, str]
    notes: tuple[str, ...] = ()
    unplaced: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Number of spectra."""
        return sum(group.rows for group in self.groups)

    @property
    def fingerprint(self) -> str:
        """sha256 over names, sizes and Parquet footers of all files."""
        return hashlib.sha256(json.dumps(self.digests).encode()).hexdigest()

    @classmethod
    def scan(
        cls, where: Path, survey: str | None = None, known: Sequence[str] = (), surveys: Sequence[str] = ()
    ) -> SpectraFolder:
        """Read the footers of every Parquet file in or below `where`, of those that match a glob, or of one file.

        Args:
            survey: refuse the spectra of others; it names those that do not say whose they are.
            known: files whose rows are numbered already, in that order; others follow them in the order of names.
            surveys: names that are numbered already; others follow.

        Raises:
            UsageError: no such folder, no Parquet in it, or another survey's.
            JobError: a file that is not spectra Parquet.
        """
        folder, paths = parquet_files(where)
        if not paths:
            raise UsageError(
                f"{where}: no spectra Parquet there; run `make shards` or `python -m ingest build` first"
            )
        order = {name: place for place, name in enumerate(known)}
        files = {path.relative_to(folder).as_posix(): path for path in paths}
        groups: list[RowGroup] = []
        names: set[str] = set()
        notes: dict[str, int] = {}
        unplaced: list[str] = []
        digests: dict[str, str] = {}
        first = 0
        for name in sorted(files, key=lambda name: (order.get(name, len(order)), name)):
            path = files[name]
            file = _open(path)
            file.survey = survey
            digest = hashlib.sha256(f"{path.stat().st_size}\0".encode() + _footer(path))
            columns = None if mmu.is_own(file) else _columns(file)
            found, whose = _surveys(file, columns), None
            _agree(path, found, survey)
            if columns is not None:
                whose = columns.survey if columns.survey != mmu.UNKNOWN else survey or mmu.UNKNOWN
                digest.update(f"{columns}\0{whose}".encode())
                notes[columns.layout] = notes.get(columns.layout, 0) + file.rows
                if not {"ra", "dec"} <= columns.labels.keys():
                    unplaced.append(name)
            digests[name] = digest.hexdigest()
            names.update(found)
            start = first
            for index, rows in enumerate(file.groups):
                groups.append(RowGroup(name, index, rows, first, file_row=first - start, survey=whose))
                first += rows
        lines = tuple(_note(layout, rows) for layout, rows in sorted(notes.items()))
        numbered = (*surveys, *sorted(names - set(surveys)))
        return cls(folder, tuple(groups), numbered, digests, lines, tuple(unplaced))


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
        table = _open(path)
        own = mmu.is_own(table)
        labels = {"ra": "ra", "dec": "dec"} if own else _columns(table).labels
        wanted = [labels["ra"], labels["dec"], *(["_healpix_29"] if own else [])]
        found = pq.read_table(readable(path), columns=wanted, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise JobError(f"{path}: damaged Parquet ({' '.join(str(error).split())[:120]})") from error
    ra, dec = (found[name].cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) for name in wanted[:2])
    if own:
        return ra, dec, found["_healpix_29"].to_numpy()
    with np.errstate(invalid="ignore"):
        known = np.isfinite(ra) & (np.abs(dec) <= 90)
    cells = np.full(len(ra), -1, np.int64)
    cells[known] = healpix_29(ra[known], dec[known])
    return ra, dec, cells


@dataclass(frozen=True)
class SpectraBlock:
    """Some spectra in memory: a row group of ours, or the usable rows of a slice.

    Attributes:
        meta: every column but the spectrum, one row a spectrum.
        labels: float64 `(n, len(LABELS))`, NaN = missing.
        rows: int64 `(n,)`, their numbers among all rows of the folder.
        bad: the rows that cannot be used: file, row in it, and why.
    """

    meta: pa.Table
    labels: npt.NDArray[np.float64]
    rows: npt.NDArray[np.int64]
    bad: tuple[tuple[str, int, BadObjectError], ...]
    _arrays: dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.generic]]]
    _grid: npt.NDArray[np.float64] | None
    _has_ivar: BoolArray | None  # None: every row has
    _shift: int  # from a row's number to the one that its quarantine row gives

    def __len__(self) -> int:
        """Number of spectra."""
        return self.meta.num_rows

    def arrays(self, i: int) -> Arrays:
        """`(flux, ivar, wavelength, mask)` of row `i`: `(N,)` each, not to be written to; wavelength in Angstrom.

        ivar is None where the survey gives none: every pixel with a finite flux outside the mask counts as good.
        """
        flux, mask, grid = self._view("flux", i), self._view("mask", i), self.grid(i)
        known = self._has_ivar is None or bool(self._has_ivar[i])
        wavelength = self._view("lambda", i) if grid is None else log_grid(*grid, len(flux))
        return flux, self._view("ivar", i) if known else None, wavelength, mask

    def grid(self, i: int) -> Grid | None:
        """The coefficients that the wavelengths of row `i` are made of; None where they were read."""
        return None if self._grid is None else (float(self._grid[i, 0]), float(self._grid[i, 1]))

    def place(self, i: int) -> tuple[str, int]:
        """Where row `i` came from, for a quarantine row: file and row number."""
        return self.meta["source_file"][i].as_py(), int(self.rows[i]) + self._shift

    def _view(self, name: str, i: int) -> npt.NDArray[Any]:
        offsets, values = self._arrays[name]
        return values[offsets[i] : offsets[i + 1]]


def read_block(folder: Path, group: RowGroup, surveys: tuple[str, ...]) -> SpectraBlock:
    """Read a whole row group of our own Parquet; `lambda` only when the grid's coefficients do not give it.

    Raises:
        JobError: the file is damaged.
    """
    path = folder / group.file
    try:
        parquet = pq.ParquetFile(readable(path), pre_buffer=False)
        # Wavelengths are seldom needed: nearly every grid has coefficients.
        names = [name for name in parquet.schema_arrow.names if name != "spectrum"]
        columns = [*names, *(f"spectrum.{name}" for name in _ARRAYS if name != "lambda")]
        table = parquet.read_row_group(group.group, columns=columns, use_threads=False)
        meta, spectrum = table.drop_columns(["spectrum"]), _whole(table["spectrum"])
        wanted = _wanted(meta)
        if "lambda" in wanted:
            columns = [f"spectrum.{name}" for name in _ARRAYS]
            spectrum = _whole(parquet.read_row_group(group.group, columns=columns, use_threads=False)["spectrum"])
    except (pa.ArrowException, OSError) as error:
        raise JobError(f"{path}: damaged Parquet ({' '.join(str(error).split())[:120]}); ingest it again") from error
    return _block(meta, spectrum, wanted, surveys, group.first_row + np.arange(len(meta)))


def read_blocks(
    folder: Path, group: RowGroup, surveys: tuple[str, ...], *, must_be_placed: bool = True
) -> Iterator[SpectraBlock]:
    """The spectra of a row group or of a piece of one, in order, in blocks that stay small however large it is.

    Args:
        must_be_placed: rows without a position are bad, because they cannot be split by sky.

    Raises:
        JobError: the file is damaged.
    """
    if group.survey is None and group.skip == 0 and group.rows < LARGE_GROUP:
        yield read_block(folder, group, surveys)
        return
    path = folder / group.file
    try:
        file = _open(path)
        if group.survey is None:
            first = group.first_row
            for table in file.slices(file.names, _ARRAYS, group.group, group.skip, group.rows):
                meta, spectrum = table.drop_columns(["spectrum"]), _whole(table["spectrum"])
                yield _block(meta, spectrum, _wanted(meta), surveys, first + np.arange(len(meta)))
                first += len(table)
        else:
            columns = _columns(file)
            done = 0
            for table in file.slices(columns.read, columns.inside, group.group, group.skip, group.rows):
                piece = replace(group, first_row=group.first_row + done, file_row=group.file_row + done)
                yield _foreign_block(table, columns, piece, surveys, must_be_placed)
                done += len(table)
    except (pa.ArrowException, OSError) as error:
        raise JobError(f"{path}: damaged Parquet ({' '.join(str(error).split())[:120]})") from error


def iter_blocks(folder: SpectraFolder, *, must_be_placed: bool = True) -> Iterator[tuple[RowGroup, SpectraBlock]]:
    """Every row group in order, one block in memory at a time."""
    for group in folder.groups:
        for block in read_blocks(folder.folder, group, folder.surveys, must_be_placed=must_be_placed):
            yield group, block


def holds_spectra(where: Path) -> bool:
    """Whether `where` can be drawn as it is: a Parquet file, or a folder or glob of them without survey files."""
    if not is_remote(where) and where.is_dir():
        for _, _, names in os.walk(where):
            for name in map(str.lower, names):
                # A map of the sky beside a HATS catalogue is FITS, but no spectrum.
                if name.endswith(_SURVEY_FILES) and not name.startswith(("skymap", "point_map")):
                    return False
    files = parquet_files(where)[1]
    return bool(files) and all(TableFile.is_parquet(path) for path in files[:1])


def _open(path: Path) -> TableFile:
    try:
        file = TableFile.open(path)
    except BadObjectError as error:
        raise JobError(f"{path}: {error}; fetch or ingest it again") from error
    if file.parser != "parquet":
        raise JobError(f"{path}: HDF5, which is ingested first; use `make shards`, or `python -m ingest build`")
    version = file.metadata.get(b"specshards.schema_version", str(SCHEMA_VERSION).encode())
    if int(version) > SCHEMA_VERSION:
        raise JobError(f"{path}: spectra schema {int(version)}, this program reads up to {SCHEMA_VERSION}; update it")
    return file


def _columns(file: TableFile) -> mmu.Columns:
    columns = mmu.Columns.of(file)
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
    return tuple(sorted(pq.ParquetFile(readable(file.path)).read(columns=["survey"])["survey"].unique().to_pylist()))


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


def _footer(path: Path) -> bytes:
    """The Parquet footer: it holds offsets, statistics and metadata, and is small however large the file."""
    with path.open("rb") as file:
        file.seek(-8, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, os.SEEK_END)
        return file.read(length)


def _foreign_block(
    table: pa.Table, columns: mmu.Columns, piece: RowGroup, surveys: tuple[str, ...], must_be_placed: bool
) -> SpectraBlock:
    """The usable rows of a slice, as if they had been ingested."""
    good: list[Spectrum] = []
    bad = []
    for item in mmu.spectra(table, columns, piece.file, piece.file_row, piece.survey):
        try:
            if isinstance(item, BadObjectError):
                raise item
            good.append(placed(item) if must_be_placed else item)
        except BadObjectError as error:
            row = item.row if item.row is not None else piece.file_row
            bad.append((piece.file, row, error))
    with np.errstate(invalid="ignore"):  # a position that is NaN has no HEALPix cell
        packed = to_table(good)
    rows = np.array([spectrum.row for spectrum in good], np.int64)
    shift = piece.file_row - piece.first_row
    meta = packed.drop_columns(["spectrum"])
    return _block(meta, _whole(packed["spectrum"]), _ARRAYS, surveys, rows - shift, tuple(bad), shift)


def _wanted(meta: pa.Table) -> tuple[str, ...]:
    """The parts of the spectra that are needed: where every row's grid has coefficients, no wavelengths."""
    return tuple(name for name in _ARRAYS if name != "lambda") if _grid(meta) is not None else _ARRAYS


def _grid(meta: pa.Table) -> npt.NDArray[np.float64] | None:
    grid = np.column_stack([_float64(meta, name) for name in ("wave_coeff0", "wave_coeff1")])
    return None if np.isnan(grid).any() else grid


def _block(
    meta: pa.Table, spectrum: pa.StructArray, parts: tuple[str, ...], surveys: tuple[str, ...],
    rows: npt.NDArray[np.int64], bad: tuple[tuple[str, int, BadObjectError], ...] = (), shift: int = 0,
) -> SpectraBlock:  # fmt: skip
    arrays = {name: _ragged(spectrum.field(name)) for name in parts}
    grid = None if "lambda" in parts else _grid(meta)
    return SpectraBlock(meta, _label_matrix(meta, surveys), rows, bad, arrays, grid, _has_ivar(meta), shift)


def _has_ivar(meta: pa.Table) -> BoolArray | None:
    if "layout" not in meta.column_names:
        return None
    if not any(mmu.NO_IVAR in (layout or "") for layout in meta["layout"].unique().to_pylist()):
        return None
    return np.array([mmu.NO_IVAR not in (layout or "") for layout in meta["layout"].to_pylist()], np.bool_)


def _whole(column: pa.ChunkedArray) -> pa.StructArray:
    # Putting one chunk together would copy it, which takes as long as decoding a third of it.
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _ragged(column: pa.ListArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.generic]]:
    values = column.values
    array = values.to_numpy(zero_copy_only=False) if pa.types.is_boolean(values.type) else values.to_numpy()
    return column.offsets.to_numpy().astype(np.int64), array


def _float64(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    return table[name].cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)


def _label_matrix(meta: pa.Table, surveys: tuple[str, ...]) -> npt.NDArray[np.float64]:
    places = {"class": CLASSES, "survey": surveys}
    columns = [_places(meta[name], places[name]) if name in places else _float64(meta, name) for name in LABELS]
    return np.column_stack(columns)


def _places(column: pa.ChunkedArray, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """The place of each value among `names`; NaN where it is null or another."""
    found = pc.index_in(column.cast(pa.string()), value_set=pa.array(names, pa.string()))
    return np.asarray(found.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)

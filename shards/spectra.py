"""Reading spectra Parquet row group by row group, without a Python object per pixel."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.errors import JobError, UsageError
from ingest.schema import SCHEMA_VERSION, BoolArray, FloatArray, WavelengthArray
from shards.format import LABELS, class_code

_ARRAYS = ("flux", "ivar", "lambda", "mask")
Arrays = tuple[FloatArray, FloatArray, WavelengthArray, BoolArray]


@dataclass(frozen=True)
class RowGroup:
    """Where one Parquet row group lies: the unit that is read, and mixed."""

    file: str
    group: int
    rows: int
    first_row: int


@dataclass(frozen=True)
class SpectraFolder:
    """The Parquet files of a spectra folder, in name order, with global row numbers.

    Attributes:
        groups: every row group of every file.
        surveys: names found, sorted.
        fingerprint: sha256 over names, sizes and Parquet footers: it changes when the content does.
    """

    folder: Path
    groups: tuple[RowGroup, ...]
    surveys: tuple[str, ...]
    fingerprint: str

    @property
    def rows(self) -> int:
        """Number of spectra."""
        return sum(group.rows for group in self.groups)

    @classmethod
    def scan(cls, where: Path) -> SpectraFolder:
        """Read the footers of `where/*.parquet`, or of the one file `where`.

        Raises:
            UsageError: no such folder or no Parquet in it. JobError: a file that is not spectra Parquet.
        """
        folder = where.parent if where.is_file() else where
        files = [where] if where.is_file() else sorted(folder.glob("*.parquet"))
        if not files:
            raise UsageError(
                f"{where}: no spectra Parquet there; run `make shards` or `python -m ingest build` first"
            )
        groups: list[RowGroup] = []
        surveys: set[str] = set()
        digest = hashlib.sha256()
        first = 0
        for path in files:
            parquet = _open(path)
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode() + _footer(path))
            surveys.update(parquet.read(columns=["survey"])["survey"].unique().to_pylist())
            for index in range(parquet.num_row_groups):
                rows = parquet.metadata.row_group(index).num_rows
                groups.append(RowGroup(path.name, index, rows, first))
                first += rows
        return cls(folder, tuple(groups), tuple(sorted(surveys)), digest.hexdigest())


@dataclass(frozen=True)
class SpectraBlock:
    """One row group in memory.

    Attributes:
        meta: every column but the spectrum, one row a spectrum.
        labels: float64 `(rows, len(LABELS))`, NaN = missing.
    """

    meta: pa.Table
    labels: npt.NDArray[np.float64]
    _arrays: dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.generic]]]
    _grid: npt.NDArray[np.float64] | None

    def __len__(self) -> int:
        """Number of spectra."""
        return self.meta.num_rows

    def arrays(self, i: int) -> Arrays:
        """`(flux, ivar, wavelength, mask)` of row `i`: views of `(N,)` each; wavelength in Angstrom."""
        flux, ivar, mask = (self._view(name, i) for name in ("flux", "ivar", "mask"))
        if self._grid is None:
            return flux, ivar, self._view("lambda", i), mask  # type: ignore[return-value]
        coeff0, coeff1 = self._grid[i]
        return flux, ivar, 10.0 ** (coeff0 + coeff1 * np.arange(len(flux))), mask  # type: ignore[return-value]

    def _view(self, name: str, i: int) -> npt.NDArray[np.generic]:
        offsets, values = self._arrays[name]
        return values[offsets[i] : offsets[i + 1]]


def read_block(folder: Path, group: RowGroup, surveys: tuple[str, ...]) -> SpectraBlock:
    """Read one row group; `lambda` only when the grid's coefficients do not give it.

    Raises:
        JobError: the file is damaged.
    """
    path = folder / group.file
    parquet = _open(path)
    names = [name for name in parquet.schema_arrow.names if name != "spectrum"]
    try:
        meta = parquet.read_row_group(group.group, columns=names)
        grid = np.column_stack([_float64(meta, name) for name in ("wave_coeff0", "wave_coeff1")])
        on_grid = not np.isnan(grid).any()
        wanted = [name for name in _ARRAYS if not (on_grid and name == "lambda")]
        columns = [f"spectrum.{name}" for name in wanted]
        spectrum = parquet.read_row_group(group.group, columns=columns)["spectrum"].combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise JobError(f"{path}: damaged Parquet ({' '.join(str(error).split())[:120]}); ingest it again") from error
    arrays = {name: _ragged(spectrum.field(name)) for name in wanted}
    return SpectraBlock(meta, _label_matrix(meta, surveys), arrays, grid if on_grid else None)


def iter_blocks(folder: SpectraFolder) -> Iterator[tuple[RowGroup, SpectraBlock]]:
    """Every row group in order, one in memory at a time."""
    for group in folder.groups:
        yield group, read_block(folder.folder, group, folder.surveys)


def _open(path: Path) -> pq.ParquetFile:
    try:
        parquet = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise JobError(
            f"{path}: not a Parquet file ({' '.join(str(error).split())[:120]}); ingest it again"
        ) from error
    version = (parquet.schema_arrow.metadata or {}).get(b"specshards.schema_version", str(SCHEMA_VERSION).encode())
    if int(version) > SCHEMA_VERSION:
        raise JobError(f"{path}: spectra schema {int(version)}, this program reads up to {SCHEMA_VERSION}; update it")
    missing = {"object_id", "spectrum", "_healpix_29", "survey"} - set(parquet.schema_arrow.names)
    if missing:
        raise JobError(f"{path}: not spectra Parquet: no column {', '.join(sorted(missing))}")
    return parquet


def _footer(path: Path) -> bytes:
    """The Parquet footer: it holds offsets, statistics and metadata, and is small however large the file."""
    with path.open("rb") as file:
        file.seek(-8, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, os.SEEK_END)
        return file.read(length)


def _ragged(column: pa.ListArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.generic]]:
    values = column.values
    array = values.to_numpy(zero_copy_only=False) if pa.types.is_boolean(values.type) else values.to_numpy()
    return column.offsets.to_numpy().astype(np.int64), array


def _float64(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    return table[name].cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)


def _label_matrix(meta: pa.Table, surveys: tuple[str, ...]) -> npt.NDArray[np.float64]:
    columns = []
    for name in LABELS:
        if name == "class":
            columns.append(np.array([class_code(value) for value in meta["class"].to_pylist()], np.float64))
        elif name == "survey":
            columns.append(np.array([surveys.index(value) for value in meta["survey"].to_pylist()], np.float64))
        else:
            columns.append(_float64(meta, name))
    return np.column_stack(columns)

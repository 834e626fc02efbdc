"""Spectra in memory, a block at a time: a row group of our own Parquet, or a slice of another's.

Our own files are read row group by row group, straight into arrays, without a Python object per pixel. Any other
Parquet of spectra goes through `ingest.surveys.multimodal_universe`, a slice of rows at a time, and is the same from
there on: no copy is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from specshards.common.errors import BadObjectError, JobError, shortened
from specshards.common.impossible import Impossible
from specshards.common.label_columns import sifted, with_sn_survey
from specshards.common.spectrum import CLASSES, LABELS, Arrays, BoolArray, Grid, Spectrum, log_grid
from specshards.common.text import escaped
from specshards.ingest.spectra.folder import LARGE_GROUP, RowGroup, SpectraFolder, columns_of, open_table
from specshards.ingest.spectra.schema import LSF, to_table
from specshards.ingest.surveys import multimodal_universe as mmu

_ARRAYS = ("flux", "ivar", "lambda", "mask")
_Z = LABELS.index("z")


@dataclass(frozen=True)
class SpectraBlock:
    """Some spectra in memory: a row group of ours, or the usable rows of a slice.

    Attributes:
        meta: every column but the spectrum, one row a spectrum.
        labels: float64 `(n, len(LABELS))`, NaN = missing.
        rows: int64 `(n,)`, their numbers among all rows of the folder.
        bad: the rows that cannot be used: file, row in it, and why.
        impossible: labels that no object can have; they are missing from `meta` and `labels`.
    """

    meta: pa.Table
    labels: npt.NDArray[np.float64]
    rows: npt.NDArray[np.int64]
    bad: tuple[tuple[str, int, BadObjectError], ...]
    impossible: Impossible
    _arrays: dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.generic]]]
    _grid: npt.NDArray[np.float64] | None
    _has_ivar: BoolArray | None  # None: every row has
    _is_rest: BoolArray | None  # None: no row is
    _shift: int  # from a row's number to the one that its quarantine row gives
    _lsf: tuple[npt.NDArray[np.int64], npt.NDArray[np.generic]] | None = None  # None: not asked for

    def __len__(self) -> int:
        """Number of spectra."""
        return self.meta.num_rows

    def arrays(self, i: int) -> Arrays:
        """The pixels of row `i`, not to be written to.

        ivar is None where the survey gives none: every pixel with a finite flux outside the mask counts as good. They
        carry a line-spread function where the block was read with it and the row has one.
        """
        flux, mask, grid = self._view("flux", i), self._view("mask", i), self.grid(i)
        known = self._has_ivar is None or bool(self._has_ivar[i])
        wavelength = self._view("lambda", i) if grid is None else log_grid(*grid, len(flux))
        return Arrays(flux, self._view("ivar", i) if known else None, wavelength, mask).with_lsf(self._sigma(i))

    def _sigma(self, i: int) -> npt.NDArray[np.float32] | None:
        if self._lsf is None:
            return None
        (start, stop), (_, values) = self._lsf[0][i : i + 2], self._lsf
        return np.asarray(values[start:stop], np.float32) if stop > start else None

    def grid(self, i: int) -> Grid | None:
        """The coefficients that the wavelengths of row `i` are made of; None where they were read."""
        return None if self._grid is None else (float(self._grid[i, 0]), float(self._grid[i, 1]))

    def redshift(self, i: int) -> float:
        """z of row `i`; NaN where it is not known."""
        return float(self.labels[i, _Z])

    def frame(self, i: int) -> str:
        """The frame of the wavelengths of row `i`: `observed` or `rest`."""
        return "rest" if self._is_rest is not None and self._is_rest[i] else "observed"

    def velocity(self, i: int) -> float | None:
        """By which the wavelengths of row `i` were divided, km/s; None where that is not known, or observed."""
        if self.frame(i) == "observed" or "velocity" not in self.meta.column_names:
            return None
        said: float | None = self.meta["velocity"][i].as_py()
        return said

    def place(self, i: int) -> tuple[str, int]:
        """Where row `i` came from, for a quarantine row: file and row number."""
        return self.meta["source_file"][i].as_py(), int(self.rows[i]) + self._shift

    def _view(self, name: str, i: int) -> npt.NDArray[Any]:
        offsets, values = self._arrays[name]
        return values[offsets[i] : offsets[i + 1]]


def read_block(folder: Path, group: RowGroup, surveys: tuple[str, ...], *, lsf: bool = False) -> SpectraBlock:
    """Read a whole row group of our own Parquet; `lambda` only when the grid's coefficients do not give it.

    Args:
        lsf: with the line-spread functions.

    Raises:
        JobError: the file is damaged.
    """
    path = folder / group.file
    try:
        file = open_table(path)
        # Wavelengths are seldom needed: nearly every grid has coefficients.
        names = [name for name in file.schema.names if name not in ("spectrum", LSF)]
        columns = [*names, *(f"spectrum.{name}" for name in _ARRAYS if name != "lambda")]
        kept = [LSF] if lsf and LSF in file.names else []
        meta, spectrum, sigma = _parted(file.read([*columns, *kept], group.group))
        wanted = _wanted(meta)
        if "lambda" in wanted:
            columns = [f"spectrum.{name}" for name in _ARRAYS]
            spectrum = _whole(file.read(columns, group.group)["spectrum"])
    except (pa.ArrowException, OSError) as error:
        raise JobError(f"{path}: damaged Parquet ({shortened(error)}); ingest it again") from error
    return _block(meta, spectrum, wanted, surveys, group.first_row + np.arange(len(meta)), lsf=sigma)


def read_blocks(
    folder: Path, group: RowGroup, surveys: tuple[str, ...], *, lsf: bool = False
) -> Iterator[SpectraBlock]:
    """The spectra of a row group or of a piece of one, in order, in blocks that stay small however large it is.

    Args:
        lsf: with the line-spread functions.

    Raises:
        JobError: the file is damaged.
    """
    if group.survey is None and group.skip == 0 and group.rows < LARGE_GROUP:
        yield read_block(folder, group, surveys, lsf=lsf)
        return
    path = folder / group.file
    try:
        file = open_table(path)
        if group.survey is None:
            first = group.first_row
            names = file.names if lsf else file.names - {LSF}
            for table in file.slices(names, _ARRAYS, group.group, group.skip, group.rows):
                meta, spectrum, sigma = _parted(table)
                yield _block(meta, spectrum, _wanted(meta), surveys, first + np.arange(len(meta)), lsf=sigma)
                first += len(table)
        else:
            columns = columns_of(file)
            done = 0
            for table in file.slices(columns.all, columns.all_inside, group.group, group.skip, group.rows):
                piece = replace(group, first_row=group.first_row + done, file_row=group.file_row + done)
                yield _foreign_block(table, columns, piece, surveys, lsf)
                done += len(table)
    except (pa.ArrowException, OSError) as error:
        raise JobError(f"{path}: damaged Parquet ({shortened(error)})") from error


def content_of(folder: Path, group: RowGroup, *, lsf: bool = False) -> int | None:
    """CRC-32 of what `read_blocks` reads of a row group that has no seal; None where there is one.

    Args:
        lsf: with the line-spread functions.

    Raises:
        JobError: the file is damaged.
    """
    if group.is_sealed:
        return None
    file = open_table(folder / group.file)
    if group.survey is None:
        return file.checksum(file.names, _ARRAYS, group.group)
    columns = columns_of(file)
    names = (columns.all, columns.all_inside) if lsf else (columns.read, columns.inside)
    return file.checksum(*names, group.group)


def iter_blocks(folder: SpectraFolder, *, lsf: bool = False) -> Iterator[tuple[RowGroup, SpectraBlock]]:
    """Every row group in order, one block in memory at a time."""
    for group in folder.groups:
        for block in read_blocks(folder.folder, group, folder.surveys, lsf=lsf):
            yield group, block


def _foreign_block(
    table: pa.Table, columns: mmu.Columns, piece: RowGroup, surveys: tuple[str, ...], lsf: bool
) -> SpectraBlock:
    """The usable rows of a slice, as if they had been ingested."""
    good: list[Spectrum] = []
    bad = []
    for item in mmu.spectra(table, columns, escaped(piece.file), piece.file_row, piece.survey, piece.stated):
        try:
            if isinstance(item, BadObjectError):
                raise item
            good.append(item)
            item.sift()
        except BadObjectError as error:
            row = item.row if item.row is not None else piece.file_row
            bad.append((escaped(piece.file), row, error))
    packed = to_table(good)
    rows = np.array([spectrum.row for spectrum in good], np.int64)
    shift = piece.file_row - piece.first_row
    meta, spectra, sigma = _parted(packed)
    block = _block(meta, spectra, _ARRAYS, surveys, rows - shift, tuple(bad), shift, lsf=sigma if lsf else None)
    for spectrum in good:
        for name, value in spectrum.impossible.items():
            block.impossible.add(name, value, spectrum.object_id)
    return block


def _wanted(meta: pa.Table) -> tuple[str, ...]:
    """The parts of the spectra that are needed: where every row's grid has coefficients, no wavelengths."""
    return tuple(name for name in _ARRAYS if name != "lambda") if _grid(meta) is not None else _ARRAYS


def _grid(meta: pa.Table) -> npt.NDArray[np.float64] | None:
    grid = np.column_stack([_float64(meta, name) for name in ("wave_coeff0", "wave_coeff1")])
    return None if np.isnan(grid).any() else grid


def _block(
    meta: pa.Table, spectrum: pa.StructArray, parts: tuple[str, ...], surveys: tuple[str, ...],
    rows: npt.NDArray[np.int64], bad: tuple[tuple[str, int, BadObjectError], ...] = (), shift: int = 0,
    lsf: pa.ListArray | None = None,
) -> SpectraBlock:  # fmt: skip
    arrays = {name: _ragged(spectrum.field(name)) for name in parts}
    grid = None if "lambda" in parts else _grid(meta)
    meta, impossible = sifted(meta)
    meta = with_sn_survey(meta)
    labels = _label_matrix(meta, surveys)
    return SpectraBlock(
        meta, labels, rows, bad, impossible, arrays, grid, _has_ivar(meta), _is_rest(meta), shift,
        None if lsf is None else _ragged(lsf),
    )  # fmt: skip


def _has_ivar(meta: pa.Table) -> BoolArray | None:
    if "layout" not in meta.column_names:
        return None
    if not any(mmu.NO_IVAR in (layout or "") for layout in meta["layout"].unique().to_pylist()):
        return None
    return np.array([mmu.NO_IVAR not in (layout or "") for layout in meta["layout"].to_pylist()], np.bool_)


def _is_rest(meta: pa.Table) -> BoolArray | None:
    if "frame" not in meta.column_names or "rest" not in meta["frame"].unique().to_pylist():
        return None
    return np.array([frame == "rest" for frame in meta["frame"].to_pylist()], np.bool_)


def _parted(table: pa.Table) -> tuple[pa.Table, pa.StructArray, pa.ListArray | None]:
    """What is no pixels, the spectra, and the line-spread functions where the table has that column."""
    pixels = [name for name in ("spectrum", LSF) if name in table.column_names]
    sigma = _whole(table[LSF]) if LSF in pixels else None
    return table.drop_columns(pixels), _whole(table["spectrum"]), sigma


def _whole(column: pa.ChunkedArray) -> Any:
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

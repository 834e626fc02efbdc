"""Tables of many spectra: Parquet and HDF5 files, read in slices of rows so that memory does not grow with the file.

Told apart by their first bytes. A Parquet row group may hold a whole partition of the sky and an HDF5 file any number
of rows; neither is ever loaded as a whole.
"""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specshards.common.errors import BadObjectError, shortened
from specshards.common.files import is_remote, readable
from specshards.ingest import archives
from specshards.ingest.limits import MOST_CHUNK, MOST_PIXELS, MOST_RATIO, shown
from specshards.ingest.listing import matching, open_input, walk
from specshards.ingest.probe import can_be_asked
from specshards.ingest.said import UNSTATED as UNSTATED
from specshards.ingest.said import Stated as Stated
from specshards.ingest.seal import Footer, check, checksums, chunk_places, crc

PARQUET_MAGIC = b"PAR1"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

#: A slice holds at most this many rows, and fewer where they are long.
SLICE_ROWS = 256
SLICE_BYTES = 32 << 20
# Compressed pages come through a buffer of this size; without one, pyarrow loads the whole column of a row group.
# A page of spectra, of which there are a few wide columns, is about as long: more than for rows
# (`ingest.catalogue.rows`).
_READ_BUFFER = 1 << 20
# What a HATS catalogue keeps beside its data: copies of rows, and statistics.
_SIDE_FILES = {"data_thumbnail.parquet", "per_partition_statistics.parquet"}
_COPIES = ("margin", "index", "association", "map")
HATS_CARD = "hats.properties"


class TableFile:
    """An open table of spectra.

    Attributes:
        path: the file.
        parser: `parquet` or `hdf5`.
        schema: Arrow types of its columns. HDF5 arrays of shape (rows,) are values, of shape (rows, n) lists of fixed
            length; anything else in an HDF5 file is no column.
        rows: number of rows.
        groups: rows of each Parquet row group; an HDF5 file is one.
        footer: of a Parquet file, with its seal where it has one (`ingest.seal`). It holds offsets, statistics,
            metadata, and of a sealed file checksums, so that it changes whenever the content does.
        survey: whose rows these are where they do not say so themselves; whoever opens the file may set it.
        stated: what a user says of its wavelengths, likewise.
    """

    def __init__(self, path: Path, parser: str, schema: pa.Schema, groups: tuple[int, ...], source: Any) -> None:
        self.path, self.parser, self.schema, self.groups = path, parser, schema, groups
        self.rows = sum(groups)
        self.survey: str | None = None
        self.stated = UNSTATED
        self.footer = Footer(b"", None)
        self._source = source

    @staticmethod
    def starts_as_table(head: bytes) -> bool:
        """Whether the first eight bytes of a file are those of Parquet or HDF5."""
        return head.startswith((PARQUET_MAGIC, HDF5_MAGIC))

    @staticmethod
    def is_parquet(path: Path) -> bool:
        """Whether the file starts as Parquet does. BadObjectError: it is no file, or may not be read."""
        with _opened(path) as file:
            return file.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC

    @classmethod
    def open(cls, path: Path) -> TableFile:
        """Read the footer or the directory of `path`.

        Raises:
            BadObjectError: neither Parquet nor HDF5, or damaged. OSError: the environment.
        """
        with _opened(path) as file:
            magic = file.read(8)
            footer = Footer.read(file) if magic.startswith(PARQUET_MAGIC) else Footer(b"", None)
        if magic.startswith(PARQUET_MAGIC):
            table = cls._open_parquet(path, footer.chunks is not None)
            table.footer = footer
            return table
        if magic == HDF5_MAGIC:
            return cls._open_hdf5(path)
        raise BadObjectError("neither Parquet nor HDF5")

    @classmethod
    def _open_parquet(cls, path: Path, is_sealed: bool) -> TableFile:
        try:
            parquet = pq.ParquetFile(
                open_input(path) if archives.split(path) else readable(path),
                buffer_size=_READ_BUFFER,
                pre_buffer=False,
                page_checksum_verification=not is_sealed,
            )
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # not of what is in the file
                raise
            raise BadObjectError(f"not a Parquet file ({shortened(error)})") from error
        metadata = parquet.metadata
        groups = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        return cls(path, "parquet", parquet.schema_arrow, groups, parquet)

    @classmethod
    def _open_hdf5(cls, path: Path) -> TableFile:
        import h5py

        try:
            file = h5py.File(open_input(path) if archives.split(path) else path, "r")
        except OSError as error:
            raise BadObjectError(f"not an HDF5 file ({shortened(error)})") from error
        arrays = _own_arrays(file)
        lengths = [array.shape[0] for array in arrays.values() if array.ndim == 2]
        rows = max(set(lengths), key=lengths.count) if lengths else 0
        fields = {
            name: kind
            for name, array in arrays.items()
            if array.ndim in (1, 2) and array.shape[0] == rows and (kind := _arrow_type(array)) is not None
        }
        schema = pa.schema([pa.field(name, kind, metadata=_texts(arrays[name])) for name, kind in fields.items()])
        return cls(path, "hdf5", schema.with_metadata(_texts(file)), (rows,), file)

    @property
    def names(self) -> frozenset[str]:
        """Column names."""
        return frozenset(self.schema.names)

    @property
    def metadata(self) -> Mapping[bytes, bytes]:
        """Key-value metadata of a Parquet file."""
        return self.schema.metadata or {}

    @property
    def in_hats(self) -> bool:
        """Whether the file lies in a HATS catalogue: in `Norder=.../...`, or below a `hats.properties`."""
        folders = self.path.absolute().parents
        return any(folder.name.startswith("Norder=") for folder in folders) or any(
            (folder / name).is_file() for folder in folders[:5] for name in ("hats.properties", "properties")
        )

    def slices(
        self,
        columns: Collection[str],
        inside: Collection[str] = (),
        group: int | None = None,
        start: int = 0,
        rows: int | None = None,
    ) -> Iterator[pa.Table]:
        """The rows in order, as tables of at most `SLICE_ROWS` rows and about `SLICE_BYTES`.

        Args:
            columns: to read; those that the file lacks are left out.
            inside: of a column of structs, the fields to read.
            group: of this row group only, else of all.
            start, rows: skip so many rows of the group (they are decoded all the same: Parquet has no way to enter a
                row group in the middle that pyarrow offers), then give so many; None gives the rest.
        """
        stop = None if rows is None else start + rows
        position = 0
        for table in self._parquet(columns, inside, group) if self.parser == "parquet" else self._hdf5(columns):
            first, end = max(0, start - position), min(len(table), (stop or position + len(table)) - position)
            position += len(table)
            if first < end:
                yield table.slice(first, end - first)
            if stop is not None and position >= stop:
                return

    def read(self, columns: Sequence[str], group: int | None = None) -> pa.Table:
        """Columns, or fields of structs (`spectrum.flux`), of a row group of a Parquet file, or of all; unknown names
        are left out.

        Raises:
            JobError: the file is damaged, by its seal. pyarrow's errors, and OSError: by what is in it.
        """
        paths = self._paths
        wanted = [i for i, path in enumerate(paths) if any(path == c or path.startswith(f"{c}.") for c in columns)]
        groups = range(len(self.groups)) if group is None else [group]
        for number in groups:
            self._check(number, wanted)
        return self._source.read_row_groups(list(groups), [paths[i] for i in wanted], use_threads=False)

    def checksum(self, columns: Collection[str], inside: Collection[str], group: int) -> int:
        """CRC-32 of the stored bytes of columns of a row group, as `slices` reads them."""
        wanted = self._wanted(columns, inside)
        places = chunk_places(self._chunks(), group)
        return crc(checksums(self.path, [places[i] for i in wanted]).tobytes())

    def _check(self, group: int, wanted: Sequence[int]) -> None:
        """JobError unless the bytes of these columns of a row group are those that were sealed."""
        if self.footer.chunks is not None:
            paths = self._paths
            chunks = self.footer.chunks[group * len(paths) : (group + 1) * len(paths)][list(wanted)]
            check(self.path, chunks, [paths[i] for i in wanted])

    def _chunks(self) -> Any:
        """The metadata of a Parquet file, of whose column chunks pyarrow may be asked. BadObjectError: it may not."""
        if not self._is_sound:
            raise BadObjectError("damaged Parquet: its footer contradicts itself")
        return self._source.metadata

    @cached_property
    def _is_sound(self) -> bool:
        return self.footer.chunks is not None or can_be_asked(self.footer.content)

    @cached_property
    def _paths(self) -> list[str]:
        return [self._source.schema.column(i).path for i in range(len(self._source.schema))]

    def _wanted(self, columns: Collection[str], inside: Collection[str]) -> list[int]:
        return [i for i, path in enumerate(self._paths) if self._is_wanted(path.split("."), columns, inside)]

    def _parquet(self, columns: Collection[str], inside: Collection[str], group: int | None) -> Iterator[pa.Table]:
        wanted, paths = self._wanted(columns, inside), self._paths
        names = [paths[i] for i in wanted]
        for number in range(len(self.groups)) if group is None else (group,):
            chunks = self._chunks().row_group(number)
            for i in wanted:
                if (values := chunks.column(i).num_values) > MOST_PIXELS * max(1, chunks.num_rows):
                    raise BadObjectError(f"{paths[i]}: {values:,} values in {chunks.num_rows:,} rows; a damaged file")
            size = sum(_decoded_bytes(chunks.column(i)) for i in wanted)
            step = _slice_rows(size / max(1, chunks.num_rows))
            self._check(number, wanted)
            for batch in self._source.iter_batches(step, row_groups=[number], columns=names):
                yield pa.Table.from_batches([batch])

    def _is_wanted(self, path: list[str], columns: Collection[str], inside: Collection[str]) -> bool:
        """Whether to read a leaf of the schema, such as spectrum.flux.list.element or spectrum.list.item.flux."""
        if path[0] not in columns:
            return False
        kind = self.schema.field(path[0]).type
        if not pa.types.is_struct(kind) and not pa.types.is_struct(getattr(kind, "value_type", kind)):
            return True
        return any(name in inside for name in path[1:])

    def _hdf5(self, columns: Collection[str]) -> Iterator[pa.Table]:
        names = [name for name in self.schema.names if name in columns]
        width = sum(self._source[name].dtype.itemsize * np.prod(self._source[name].shape[1:]) for name in names)
        step = _slice_rows(float(width))
        for first in range(0, self.rows, step):
            yield pa.table({name: _arrow(self._source[name][first : first + step]) for name in names})


def _opened(path: Path) -> IO[bytes]:
    return path.open("rb") if is_remote(path) else open_input(path)


def is_table(name: str) -> bool:
    """Whether a file is called as tables are; what it is, only its first bytes say."""
    return name.lower().endswith((".parquet", ".hdf5", ".h5"))


def _own_arrays(file: Any) -> dict[str, Any]:
    """The arrays of an HDF5 file; what it only points to in another file is not opened.

    Raises:
        BadObjectError: one promises more than such a file can hold, or than can be read at once, or is listed and
            not there.
    """
    import h5py

    arrays: dict[str, Any] = {}
    for name in file:
        link = file.get(name, getlink=True)
        if link is None:
            raise BadObjectError(f"{name} is listed, and cannot be opened; a damaged file")
        item = file[name] if isinstance(link, h5py.HardLink) else None
        if not isinstance(item, h5py.Dataset) or item.is_virtual or item.external:
            continue
        arrays[name] = item
        if item.ndim not in (1, 2):
            continue
        width = item.dtype.itemsize
        if item.nbytes > MOST_RATIO * item.id.get_storage_size() + (1 << 20):
            raise BadObjectError(f"{name} promises {shown(item.nbytes)}, and holds next to nothing")
        if math.prod(item.shape[1:]) > MOST_PIXELS:
            raise BadObjectError(
                f"{name} has rows of {item.shape[1]:,} values; a spectrum has {MOST_PIXELS:,} at most"
            )
        if width * math.prod(item.chunks or (1,)) > MOST_CHUNK:
            raise BadObjectError(f"{name} is read in chunks of {shown(width * math.prod(item.chunks))}")
    return arrays


def parquet_files(where: Path) -> tuple[Path, list[Path]]:
    """The data files of `where` (a file, a folder, a glob) and the folder that their names are relative to.

    Left out: names that start with `_` or `.`, and what a HATS catalogue keeps beside its data: margin and index
    catalogues, which repeat its rows, thumbnails, statistics.
    """
    if is_remote(where):
        files = [where] if where.suffix == ".parquet" else list(where.rglob("*.parquet"))
        root = where.parent if where.suffix == ".parquet" else where
        names = [path.relative_to(root).as_posix() for path in files if path.is_file()]
        cards = [card.relative_to(root).as_posix() for card in root.rglob(HATS_CARD)]
    elif where.is_file():
        return where.parent, [where]
    elif where.is_dir():
        root, names, cards = where, *_listed(where)
    elif glob.has_magic(str(where)):
        found = matching(where)
        root = Path(os.path.commonpath([path.parent for path in found])) if found else where
        names = [path.relative_to(root).as_posix() for path in found if not path.is_dir()]
        cards = _listed(root)[1] if found else []
    else:
        return where, []
    return root, [root / name for name in sorted(data_files(root, names, cards))]


def _listed(folder: Path) -> tuple[list[str], list[str]]:
    """Names of Parquet files and of HATS cards in or below a folder."""
    names = [entry.name for entry in walk(folder) if not entry.is_folder]
    return (
        [name for name in names if name.endswith(".parquet")],
        [name for name in names if name.rpartition("/")[2] == HATS_CARD],
    )


def data_files(root: Path, names: Iterable[str], cards: Iterable[str]) -> list[str]:
    """Of the names below `root` of Parquet files those that hold data, given those of the HATS cards there."""
    copies = tuple(f"{name.rpartition('/')[0]}/".lstrip("/") for name in cards if _is_copy(root / name))
    return [
        name
        for name in names
        if not name.startswith(copies)
        and name.rpartition("/")[2] not in _SIDE_FILES
        and not any(part.startswith(("_", ".")) for part in name.split("/"))
    ]


def _is_copy(card: Path) -> bool:
    try:
        with open_input(card) as file:
            text = file.read(1 << 20).decode("utf-8", "replace")
    except (OSError, BadObjectError):
        return False
    lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    kinds = {name.strip(): value.strip() for name, value in lines.items()}
    return kinds.get("dataproduct_type", kinds.get("catalog_type", "object")) in _COPIES


def _decoded_bytes(chunk: pq.ColumnChunkMetaData) -> int:
    # Encoded, a wavelength grid that repeats has next to no bytes; the number of values tells what it takes here.
    width = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4}.get(chunk.physical_type, 8)
    return max(int(chunk.total_uncompressed_size), int(chunk.num_values) * width)


def _slice_rows(row_bytes: float) -> int:
    return int(min(SLICE_ROWS, max(1, SLICE_BYTES // max(1.0, row_bytes))))


def _texts(holder: Any) -> dict[str, str]:
    """The attributes of an HDF5 file or array that are one text, number or truth value."""
    found = {str(name).lower(): value for name, value in holder.attrs.items()}
    found = {name: value.item() if isinstance(value, np.ndarray | np.generic) and value.size == 1 else value
             for name, value in found.items()}  # fmt: skip
    texts = {
        name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value for name, value in found.items()
    }
    return {name: str(value) for name, value in texts.items() if isinstance(value, str | int | float)}


def _arrow_type(array: Any) -> pa.DataType | None:
    """The Arrow type of an HDF5 array; None for what is no column (compound types)."""
    kind = array.dtype.kind
    try:
        value = pa.binary() if kind in "SO" else pa.from_numpy_dtype(array.dtype.newbyteorder("="))
    except (pa.ArrowException, TypeError):
        return None
    return value if array.ndim == 1 else pa.list_(value, int(array.shape[1]))


def _arrow(values: np.ndarray[Any, Any]) -> pa.Array:
    if values.dtype.kind in "SO":
        return pa.array(values.ravel().tolist(), pa.binary())
    native = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))
    flat = pa.array(native.ravel())
    return flat if native.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, native.shape[1])

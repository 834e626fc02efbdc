"""The rows of a catalogue in batches, without holding them as Python objects.

What the values of a column mean, `catalogue.values` says, and of ids, `ingest.ids`.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from specshards.common.errors import UsageError, is_environment, shortened
from specshards.common.messages import LOGGER

BATCH = 8192
#: Bytes of a FITS catalogue that is packed with gzip, which astropy unpacks in memory; plain ones are mapped.
MOST_CATALOGUE = 4 << 30
MOST_VOTABLE = 1 << 30
# Compressed pages come through a buffer of this size; without one, pyarrow loads the whole column of a row group.
# Each column has its own, and catalogues have hundreds of narrow ones: less than for spectra (`ingest.tables`).
_READ_BUFFER = 1 << 17

_Batch = dict[str, list[Any]]


@dataclass(frozen=True)
class Rows:
    """A table that is read in batches.

    Attributes:
        columns: as the file spells them.
        total: number of rows, where the file says it without being read through.
        batches: yields the values of the columns named, as lists of up to `BATCH` values.
        tables: yields the columns named, None for all, as tables of up to `BATCH` rows of the file's own types: text
            for every column of a CSV (blank is null), text without the padding for one of FITS.
        units: of columns, where the file says them.
    """

    columns: tuple[str, ...]
    total: int | None
    batches: Callable[[Sequence[str]], Iterator[_Batch]]
    tables: Callable[[Sequence[str] | None], Iterator[pa.Table]]
    units: Mapping[str, str] = field(default_factory=dict)


def open_rows(path: Path) -> Rows:
    """The rows of a CSV (also with vertical bars, as LAMOST publishes), ECSV, FITS, VOTable or Parquet table.

    Raises:
        UsageError: no such file, or not a readable table; also from the batches.
    """
    name = path.name.lower()
    if not path.is_file():
        raise UsageError(f"{path}: no such catalogue; give CATALOG a CSV, ECSV, FITS, VOTable or Parquet file")
    with _readable(path):
        readers = {
            (".csv", ".csv.gz", ".txt", ".tsv", ".ecsv"): _csv, (".fits", ".fit", ".fits.gz"): _fits,
            (".parquet",): _parquet, (".vot", ".xml", ".votable", ".vot.gz", ".xml.gz"): _votable,
        }  # fmt: skip
        for ends, read in readers.items():
            if name.endswith(ends):
                rows = read(path)
                again = [name for name, count in Counter(rows.columns).items() if count > 1]
                if again:
                    raise UsageError(f"{path}: several columns named {', '.join(again[:5])}; rename all but one")
                return rows
    raise UsageError(f"{path}: unknown kind of catalogue; give a .csv, .ecsv, .fits, .vot or .parquet file")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        if is_environment(error):
            raise
        # Whatever a table reader raises for a file that is no table, the file is what the user must mend.
        raise UsageError(f"{path}: not a readable table: {shortened(error, 200)}") from error


def _csv(path: Path) -> Rows:
    head, skipped, delimiter = _csv_head(path)
    # Names are given, because what programs make of a header (a blank after the comma, a # before it) stays in ours.
    columns = _csv_names(path, head, delimiter)
    parse = pa_csv.ParseOptions(delimiter=delimiter)
    reading = pa_csv.ReadOptions(skip_rows=skipped, column_names=list(columns))

    def read(wanted: Sequence[str], **nulls: Any) -> Iterator[pa.RecordBatch]:
        # As text: inference would make a float of an id that passes int64, and a date of an obsdate.
        convert = pa_csv.ConvertOptions(
            include_columns=list(wanted), column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=True,
            **nulls,
        )  # fmt: skip
        with (
            _readable(path),
            pa.input_stream(str(path), compression="detect") as stream,
            pa_csv.open_csv(stream, read_options=reading, parse_options=parse, convert_options=convert) as reader,
        ):
            for batch in reader:
                for start in range(0, batch.num_rows, BATCH):
                    yield batch.slice(start, BATCH)

    def batches(wanted: Sequence[str]) -> Iterator[_Batch]:
        yield from map(_values, read(wanted))

    def tables(wanted: Sequence[str] | None = None) -> Iterator[pa.Table]:
        # Only what is blank is null: a copy of the table keeps its NaN and its NULL as they are spelled.
        for batch in read(columns if wanted is None else wanted, null_values=[""]):
            yield pa.Table.from_batches([batch])

    total = None if path.name.lower().endswith(".gz") else _lines(path, skipped)
    return Rows(columns, total, batches, tables, _ecsv_units(path))


def _ecsv_units(path: Path) -> dict[str, str]:
    """Of the columns of an ECSV table, by its header; none of any other."""
    from astropy.io.misc import yaml

    with pa.input_stream(str(path), compression="detect") as stream:
        start = stream.read(1 << 20).decode("utf-8-sig", "replace").splitlines()
    if not start or "%ECSV" not in start[0]:
        return {}
    header = "\n".join(line[1:].removeprefix(" ") for line in start[1:] if line.startswith("#"))
    columns = yaml.load(header)["datatype"]
    return {each["name"]: str(each["unit"]) for each in columns if each.get("unit")}


def _votable(path: Path) -> Rows:
    """The first table of a VOTable; it is read whole."""
    from astropy.io import votable

    from specshards.ingest.fits.astropy import quiet_astropy

    if path.stat().st_size > MOST_VOTABLE:
        raise UsageError(f"{path}: a VOTable is read whole, and is larger than 1 GiB; write it as FITS or Parquet")
    with quiet_astropy():
        table = votable.parse_single_table(str(path)).to_table(use_names_over_ids=True)
    found = {}
    for name in table.colnames:
        values = table[name]
        mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
        if values.dtype.kind == "O":
            found[name] = pa.array([str(value) for value in values], pa.string(), mask=mask)
        else:
            found[name] = _arrow(values, mask)
    whole = pa.table(found)

    def tables(wanted: Sequence[str] | None = None) -> Iterator[pa.Table]:
        chosen = whole if wanted is None else whole.select(list(wanted))
        for start in range(0, len(chosen), BATCH):
            yield chosen.slice(start, BATCH)

    def batches(wanted: Sequence[str]) -> Iterator[_Batch]:
        yield from map(_values, tables(wanted))

    units = {name: str(table[name].unit) for name in table.colnames if table[name].unit is not None}
    return Rows(tuple(found), len(whole), batches, tables, units)


def _csv_head(path: Path) -> tuple[str, int, str]:
    """The header, the lines up to its end, and the delimiter.

    Lines that begin with # stand before the header (ECSV), but for one of as many fields as the line after it: that
    is the header.

    Raises:
        UsageError: another encoding than UTF-8.
    """
    with pa.input_stream(str(path), compression="detect") as stream:
        start = stream.read(1 << 20)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start[:4096]:
        raise UsageError(f"{path}: not text in UTF-8; save it as CSV (UTF-8)")
    lines = start.decode("utf-8-sig", "replace").splitlines()
    notes = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    said = next((m[1] for line in lines[:notes] if (m := _ECSV_DELIMITER.match(line))), None)
    is_ecsv = any("%ECSV" in line for line in lines[:1])

    def delimiter(line: str) -> str:
        return said or (" " if is_ecsv else max((",", "|", "\t", ";"), key=line.count))

    if notes and not is_ecsv and notes < len(lines):
        mark, line = delimiter(lines[notes]), lines[notes - 1]
        if lines[notes].count(mark) == line.count(mark) > 0:
            return line.lstrip("#").strip(), notes, mark
    head = lines[notes] if notes < len(lines) else ""
    return head, notes + 1, delimiter(head)


_ECSV_DELIMITER = re.compile(r"#\s*delimiter:\s*['\"]?([^'\"])['\"]?\s*$")


def _csv_names(path: Path, head: str, delimiter: str) -> tuple[str, ...]:
    """The names of a header, without blanks and quotes around them; those of no name get one, so that fields count.

    Raises:
        UsageError: no header, or quotes behind a blank, which are read as part of the values.
    """
    if not head.strip():
        raise UsageError(f"{path}: not a readable table: no header")
    if re.search(rf"{re.escape(delimiter)} +\"", head):
        raise UsageError(f"{path}: blanks between delimiter and quote; write the quote right behind the delimiter")
    fields = next(csv.reader([head], delimiter=delimiter), [])
    names = [name.strip().strip("'\"").strip() for name in fields]
    return tuple(name or f"column {i + 1}" for i, name in enumerate(names))


def _lines(path: Path, skipped: int) -> int:
    """Lines after the header; an upper limit of the rows, for the progress line."""
    lines, last = 0, b"\n"
    with path.open("rb") as source:
        while block := source.read(1 << 22):
            lines, last = lines + block.count(b"\n"), block[-1:]
    return max(0, lines - skipped + (last != b"\n"))


def _parquet(path: Path) -> Rows:
    with pq.ParquetFile(path) as file:
        columns, total = tuple(file.schema_arrow.names), file.metadata.num_rows
        said = {each.name: (each.metadata or {}).get(b"unit", b"").decode() for each in file.schema_arrow}

    def tables(wanted: Sequence[str] | None = None) -> Iterator[pa.Table]:
        with _readable(path), pq.ParquetFile(path, buffer_size=_READ_BUFFER, pre_buffer=False) as file:
            for batch in file.iter_batches(BATCH, columns=None if wanted is None else list(wanted)):
                yield pa.Table.from_batches([batch])

    def batches(wanted: Sequence[str]) -> Iterator[_Batch]:
        yield from map(_values, tables(wanted))

    return Rows(columns, total, batches, tables, {name: unit for name, unit in said.items() if unit})


def _fits(path: Path) -> Rows:
    from astropy.io import fits

    from specshards.ingest.fits.astropy import masked, quiet_astropy
    from specshards.ingest.fits.content import check_unpacked

    check_unpacked(path, MOST_CATALOGUE)
    with fits.open(path, memmap=True) as hdus:
        tables_of = (i for i, hdu in enumerate(hdus) if isinstance(hdu, fits.BinTableHDU | fits.TableHDU))
        if (at := next(tables_of, None)) is None:
            raise UsageError(f"{path}: no table in it; give a FITS file with the catalogue in an extension")
        columns, total = tuple(hdus[at].columns.names), int(hdus[at].header["NAXIS2"])
        units = {each.name: str(each.unit) for each in hdus[at].columns if each.unit}

    def tables(wanted: Sequence[str] | None = None) -> Iterator[pa.Table]:
        with _readable(path), fits.open(path, memmap=True) as hdus:
            data, stored = hdus[at].data, hdus[at].columns
            for start in range(0, total, BATCH):
                part = data[start : start + BATCH]
                names = columns if wanted is None else wanted
                if odd := [name for name in names if part.dtype[name].base.kind == "c"]:
                    raise UsageError(f"{path}: column {odd[0]} holds complex numbers, which Parquet has not; drop it")
                with quiet_astropy():
                    found = {name: _arrow(part[name], masked(part, stored[name])) for name in names}
                yield pa.table(found)

    def batches(wanted: Sequence[str]) -> Iterator[_Batch]:
        yield from map(_values, tables(wanted))

    return Rows(columns, total, batches, tables, units)


def _values(batch: pa.RecordBatch | pa.Table) -> _Batch:
    return {name: batch.column(name).to_pylist() for name in batch.schema.names}


def _arrow(column: Any, masked: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """A FITS column as Arrow: text without the blanks that fill it up, arrays as lists, null where it is masked."""
    values = np.asarray(column)
    if values.dtype.kind == "O":  # arrays whose length varies from row to row
        kind = pa.from_numpy_dtype(values[0].dtype.newbyteorder("="))
        return pa.array([np.asarray(row).tolist() for row in values], pa.list_(kind))
    if values.dtype.kind in "SU":
        flat = pa.array(np.char.rstrip(values).astype("U").ravel().tolist(), pa.string())
    else:
        native = np.ascontiguousarray(values, values.dtype.newbyteorder("=")).ravel()
        flat = pa.array(native, mask=None if masked is None else masked.ravel())
    for length in values.shape[:0:-1]:
        flat = pa.FixedSizeListArray.from_arrays(flat, length)
    return flat


def check_once(path: Path, columns: Sequence[str], used: Iterable[str]) -> None:
    """Refuse to choose between columns whose names differ by case alone.

    Raises:
        UsageError: one of `used` is such a column.
    """
    for name in used:
        like = [other for other in columns if other.strip().lower() == name.strip().lower()]
        if len(like) > 1:
            raise UsageError(f"{path}: columns {' and '.join(like)} differ by case alone; rename all but one")


def by_meaning(columns: Iterable[str], aliases: Mapping[str, str]) -> dict[str, list[str]]:
    """Meaning -> the columns that have it, by their names in lower case or by what these are aliases of."""
    found: dict[str, list[str]] = {}
    for column in columns:
        name = column.strip().lower()
        found.setdefault(aliases.get(name, name), []).append(column)
    return found


def the_one(path: Path, meaning: str, found: Sequence[str]) -> str:
    """Of columns that mean the same that of the very name, which is said; `check_once` refuses two of it.

    Raises:
        UsageError: several, and none of the very name.
    """
    exact = [column for column in found if column.strip().lower() == meaning]
    others = [column for column in found if column not in exact]
    if not exact and len(others) > 1:
        raise UsageError(f"{path}: columns {' and '.join(others)} both mean {meaning}; rename or drop all but one")
    if exact and others:
        LOGGER.info(f"{path}: column {exact[0]} is taken for {meaning}, and not {' or '.join(others)}")
    return (exact or others)[0]

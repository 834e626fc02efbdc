"""What the user's lists say, read without holding them as Python objects: catalogue rows in batches, checksums."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ingest.errors import UsageError, is_environment

BATCH = 8192

#: Names of a column of digests, in any case, and the algorithm by the number of hexadecimal digits.
DIGEST_COLUMNS = ("sha256sum", "sha256", "sha1sum", "sha1", "md5sum", "md5")
ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256"}
_DIGEST = re.compile(r"[0-9a-fA-F]+")
_SUM_LINE = re.compile(r"\\?([0-9a-fA-F]+)[ \t]+\*?(.+)")

_Batch = dict[str, list[Any]]


@dataclass(frozen=True)
class Rows:
    """A table that is read in batches.

    Attributes:
        columns: as the file spells them.
        total: number of rows, where the file says it without being read through.
        batches: yields the values of the columns named, as lists of up to `BATCH` values.
    """

    columns: tuple[str, ...]
    total: int | None
    batches: Callable[[Sequence[str]], Iterator[_Batch]]


def open_rows(path: Path) -> Rows:
    """The rows of a CSV (also with vertical bars, as LAMOST publishes), FITS or Parquet table.

    Raises:
        UsageError: no such file, or not a readable table; also from the batches.
    """
    name = path.name.lower()
    if not path.is_file():
        raise UsageError(f"{path}: no such catalogue; give CATALOG a CSV, FITS or Parquet file")
    with _readable(path):
        if name.endswith((".csv", ".csv.gz", ".txt", ".tsv")):
            return _csv(path)
        if name.endswith((".fits", ".fit", ".fits.gz")):
            return _fits(path)
        if name.endswith(".parquet"):
            return _parquet(path)
    raise UsageError(f"{path}: unknown kind of catalogue; give a .csv, .fits or .parquet file")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if is_environment(error):
            raise
        # Whatever a table reader raises for a file that is no table, the file is what the user must mend.
        raise UsageError(f"{path}: not a readable table: {' '.join(str(error).split())[:200]}") from error


def _csv(path: Path) -> Rows:
    with pa.input_stream(str(path), compression="detect") as stream:
        head = stream.read(65536).split(b"\n", 1)[0].decode("utf-8", "replace").strip()
    parse = pa_csv.ParseOptions(delimiter=max((",", "|", "\t", ";"), key=head.count))
    with pa.input_stream(str(path), compression="detect") as stream, pa_csv.open_csv(
        stream, parse_options=parse
    ) as reader:  # fmt: skip
        columns = tuple(reader.schema.names)

    def batches(wanted: Sequence[str]) -> Iterator[_Batch]:
        # As text: inference would make a float of an id that passes int64, and a date of an obsdate.
        convert = pa_csv.ConvertOptions(
            include_columns=list(wanted), column_types=dict.fromkeys(wanted, pa.string()), strings_can_be_null=True
        )
        with (
            _readable(path),
            pa.input_stream(str(path), compression="detect") as stream,
            pa_csv.open_csv(stream, parse_options=parse, convert_options=convert) as reader,
        ):
            for batch in reader:
                for start in range(0, batch.num_rows, BATCH):
                    yield _values(batch.slice(start, BATCH))

    return Rows(columns, None if path.name.lower().endswith(".gz") else _lines(path), batches)


def _lines(path: Path) -> int:
    """Lines after the first; an upper limit of the rows, for the progress line."""
    lines, last = 0, b"\n"
    with path.open("rb") as source:
        while block := source.read(1 << 22):
            lines, last = lines + block.count(b"\n"), block[-1:]
    return max(0, lines - 1 + (last != b"\n"))


def _parquet(path: Path) -> Rows:
    with pq.ParquetFile(path) as file:
        columns, total = tuple(file.schema_arrow.names), file.metadata.num_rows

    def batches(wanted: Sequence[str]) -> Iterator[_Batch]:
        with _readable(path), pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH, columns=list(wanted)):
                yield _values(batch)

    return Rows(columns, total, batches)


def _fits(path: Path) -> Rows:
    from astropy.io import fits

    with fits.open(path, memmap=True) as hdus:
        columns, total = tuple(hdus[1].columns.names), int(hdus[1].header["NAXIS2"])

    def batches(wanted: Sequence[str]) -> Iterator[_Batch]:
        with _readable(path), fits.open(path, memmap=True) as hdus:
            data = hdus[1].data
            for start in range(0, total, BATCH):
                part = data[start : start + BATCH]
                yield {name: np.asarray(part[name]).tolist() for name in wanted}

    return Rows(columns, total, batches)


def _values(batch: pa.RecordBatch) -> _Batch:
    return {name: batch.column(name).to_pylist() for name in batch.schema.names}


def digest(text: object) -> str | None:
    """A checksum in lower case, None for a missing one.

    Raises:
        ValueError: it is not the hexadecimal text of an md5, sha1 or sha256.
    """
    value = "" if text is None else str(text).strip().lower()
    if not value or value == "nan":
        return None
    if len(value) not in ALGORITHMS or not _DIGEST.fullmatch(value):
        raise ValueError(f"{value[:70]!r} is no md5, sha1 or sha256")
    return value


class Checksums:
    """Checksums by file, from lists in the format of `sha1sum` and `md5sum`.

    A list may lie anywhere in the tree, so its paths may be shorter or longer than ours: names are compared from
    their end. Kept sorted in Arrow arrays, a few tens of bytes a file.

    Raises:
        UsageError: no such list, or a line that is not `CHECKSUM  PATH`.
    """

    def __init__(self, lists: Sequence[Path] = ()) -> None:
        parts = [_read_sums(path) for path in lists]
        table = pa.concat_tables(parts).sort_by("name").combine_chunks() if parts else None
        self._size = 0 if table is None else table.num_rows
        if table is not None and self._size:
            self._names, self._paths, self._sums = (table[i].chunk(0) for i in range(3))

    def of(self, path: str) -> str | None:
        """The checksum of a relative path, None where no list has it."""
        name = path.rsplit("/", 1)[-1]
        at = bisect_left(range(self._size), name, key=lambda i: self._names[i].as_py())
        best: tuple[int, str | None] = (0, None)
        while at < self._size and self._names[at].as_py() == name:
            listed = self._paths[at].as_py()
            if f"/{path}".endswith(f"/{listed}") or f"/{listed}".endswith(f"/{path}"):
                best = max(best, (len(listed), self._sums[at].as_py()), key=lambda pair: pair[0])
            at += 1
        return best[1]


def _read_sums(path: Path) -> pa.Table:
    if not path.is_file():
        raise UsageError(f"{path}: no such list of checksums")
    schema = pa.schema([("name", pa.string()), ("path", pa.string()), ("sum", pa.string())])
    tables, rows = [], []
    with path.open(encoding="utf-8", errors="replace") as source:
        for number, line in enumerate(source, 1):
            if not (text := line.strip()) or text.startswith("#"):
                continue
            match = _SUM_LINE.fullmatch(text)
            if match is None or len(match[1]) not in ALGORITHMS:
                raise UsageError(f"{path}, line {number}: expected CHECKSUM  PATH, as sha1sum and md5sum write")
            listed = match[2].removeprefix("./").lstrip("/")
            rows.append({"name": listed.rsplit("/", 1)[-1], "path": listed, "sum": match[1].lower()})
            if len(rows) >= 100_000:
                tables.append(pa.Table.from_pylist(rows, schema))
                rows = []
    return pa.concat_tables([*tables, pa.Table.from_pylist(rows, schema)])

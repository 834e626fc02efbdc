"""Label tables: read once, sorted by key, memory-mapped by every worker and joined on the survey's key.

Where a catalogue has a value it wins over the file's header (they differ in places: subclass, |dz| up to 2e-3), and
`label_source` records the choice.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ingest.errors import JobError, UsageError, is_environment
from ingest.files import replacing
from ingest.schema import NUMERIC_LABELS, Spectrum
from ingest.surveys.common import class_label, number, text

#: Names of the key column, in any case, by survey.
KEYS = {"lamost": ("obsid",), "sdss": ("specobjid", "specobj_id", "object_id")}

_ALIASES = {"zerr": "z_err", "fe_h": "feh", "zwarn": "zwarning"}


def prepare(path: Path, survey: str, folder: Path) -> Path:
    """Write the label columns of catalogue `path`, sorted by key, as `folder/catalogue.arrow`.

    The result is an uncompressed Arrow file: workers map it into memory and share its pages, so that a catalogue of
    ten million rows costs each of them nothing.

    Raises:
        UsageError: no such file, an unknown format, no key column, no label column, or a key that repeats.
    """
    raw = _read(path, KEYS[survey])
    names = {_ALIASES.get(name.lower(), name.lower()): name for name in raw.column_names}
    key = next((names[k] for k in KEYS[survey] if k in names), None)
    if key is None:
        raise UsageError(
            f"{path}: no key column for {survey}: expected {' or '.join(KEYS[survey])}, "
            f"found {', '.join(raw.column_names[:12])}"
        )
    wanted = [label for label in ("class", "subclass", *NUMERIC_LABELS) if label in names]
    if not wanted:
        raise UsageError(f"{path}: no label column; expected any of class, subclass, {', '.join(NUMERIC_LABELS)}")
    keys = _key_text(raw[key])
    table = pa.table({"key": keys, **{label: raw[names[label]].combine_chunks() for label in wanted}})
    table = table.filter(pc.is_valid(table["key"])).sort_by("key").combine_chunks()
    _refuse_repeats(path, key, table["key"].combine_chunks())
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / "catalogue.arrow"
    with (
        replacing(final) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    return final


def _read(path: Path, keys: tuple[str, ...]) -> pa.Table:
    name = path.name.lower()
    if not path.is_file():
        raise UsageError(f"{path}: no such catalogue; give CATALOG a CSV, FITS or Parquet file")
    try:
        if name.endswith((".csv", ".csv.gz", ".txt", ".tsv")):
            return _read_csv(path, keys)
        if name.endswith((".fits", ".fit", ".fits.gz")):
            return _read_fits(path)
        if name.endswith(".parquet"):
            return pq.read_table(path)
    except Exception as error:
        if is_environment(error):
            raise
        # Whatever a table reader raises for a file that is no table, the file is what the user must mend.
        raise UsageError(f"{path}: not a readable table: {' '.join(str(error).split())[:200]}") from error
    raise UsageError(f"{path}: unknown kind of catalogue; give a .csv, .fits or .parquet file")


def _read_csv(path: Path, keys: tuple[str, ...]) -> pa.Table:
    with pa.input_stream(str(path), compression="detect") as stream:
        head = stream.read(65536).split(b"\n", 1)[0].decode("utf-8", "replace").strip()
    # LAMOST publishes its catalogues as "CSV" with vertical bars.
    delimiter = max((",", "|", "\t", ";"), key=head.count)
    return pa_csv.read_csv(
        path,
        parse_options=pa_csv.ParseOptions(delimiter=delimiter),
        convert_options=pa_csv.ConvertOptions(
            strings_can_be_null=True,
            # A specObjID can pass int64; inference would take it for a float and round it.
            column_types={name: pa.string() for name in head.split(delimiter) if name.strip().lower() in keys},
        ),
    )


def _read_fits(path: Path) -> pa.Table:
    from astropy.table import Table

    # Only the columns of one value a row: vectors are no labels.
    table = Table.read(path, hdu=1, memmap=False)
    columns = {}
    for name in table.colnames:
        if table[name].ndim == 1:
            values = np.ma.filled(table[name], np.nan) if table[name].dtype.kind == "f" else table[name]
            values = np.asarray(values)
            if values.dtype.kind in "SU":
                columns[name] = pa.array(values.astype(str))
            else:
                columns[name] = pa.array(values.astype(values.dtype.newbyteorder("=")))
    return pa.table(columns)


def _key_text(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    if pa.types.is_floating(array.type):
        array = pc.cast(array, pa.int64())
    return pc.utf8_trim_whitespace(pc.cast(array, pa.string()))


def _refuse_repeats(path: Path, key: str, keys: pa.Array) -> None:
    again = keys.slice(1).filter(pc.equal(keys.slice(1), keys.slice(0, max(0, len(keys) - 1))))
    if len(again):
        examples = ", ".join(again.slice(0, 3).to_pylist())
        raise UsageError(
            f"{path}: {key} repeats in {len(again)} rows (such as {examples}); keep one row per spectrum"
        )


class Catalogue:
    """A prepared catalogue, opened by memory map."""

    def __init__(self, path: Path) -> None:
        self._source = pa.memory_map(str(path))
        table = pa.ipc.open_file(self._source).read_all().combine_chunks()
        self._table = table
        # Stays in the mapped file: as Python strings the keys would cost each worker a hundred bytes a row.
        self._keys: pa.Array = table["key"].combine_chunks()

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._keys)

    def lookup(self, key: str) -> dict[str, Any] | None:
        """The labels of one object, missing values as None; None where the object is not listed."""
        at = bisect_left(range(len(self._keys)), key, key=lambda i: self._keys[i].as_py())
        if at == len(self._keys) or self._keys[at].as_py() != key:
            return None
        row = {name: self._table[name][at].as_py() for name in self._table.column_names if name != "key"}
        labels: dict[str, Any] = {}
        for name, value in row.items():
            if name == "class":
                labels[name] = class_label(value)
            elif name == "subclass":
                labels[name] = text(value)
            else:
                labels[name] = number(value)
        if labels.get("zwarning") is not None:
            labels["zwarning"] = int(labels["zwarning"])
        return labels

    def apply(self, spectrum: Spectrum) -> bool:
        """Overwrite the labels of `spectrum` where the catalogue has a value; False where it lists no such object."""
        labels = self.lookup(spectrum.object_id)
        if labels is None:
            return False
        spectrum.labels.update({name: value for name, value in labels.items() if value is not None})
        spectrum.label_source = "catalogue"
        return True


@lru_cache(maxsize=1)
def open_catalogue(path: Path) -> Catalogue:
    """The prepared catalogue at `path`, opened once a process."""
    return Catalogue(path)


def check_matches(matched: int, objects: int, catalogue: Path, examples: list[str]) -> None:
    """Refuse a join that matched under half of the objects: the key is probably another one.

    Raises:
        JobError: with examples of keys that were not found.
    """
    if objects and matched < objects / 2:
        raise JobError(
            f"{catalogue}: lists only {matched} of {objects} objects (missing, for example, "
            f"{', '.join(examples[:3])}); give the catalogue of this release, or none"
        )

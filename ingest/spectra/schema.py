"""The spectra Parquet contract, schema version 3: one row is one spectrum.

Column names are those of MultimodalUniverse (HATS v1.5), so that its Parquet reads here without conversion and
ours opens in anything made for it. `docs/spectra-parquet.md` describes every column for readers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from specshards.common.files import replacing
from specshards.common.further import (
    NUMBER,
    TEXT,
    Further,
    FurtherColumn,
    further_name,
    further_of,
    is_further,
    number_text,
    said,
    united,
    with_further,
)
from specshards.common.label_columns import with_sn_survey
from specshards.common.spectrum import MEASURED_LABELS, NO_IVAR, SN_SURVEY, SURVEY_SN, Spectrum
from specshards.ingest.seal import seal
from specshards.ingest.surveys.common import SENTINELS
from specshards.ingest.surveys.survey import survey_of

SCHEMA_VERSION = 3
PROGRAM_VERSION = "0.1.0"
HEALPIX_ORDER = 29


def _required_list(value_type: pa.DataType) -> pa.DataType:
    # Required (non-null) elements decode in two thirds of the time of nullable ones.
    return pa.list_(pa.field("element", value_type, nullable=False))


LSF = "lsf_sigma"
_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
SPECTRUM_TYPE = pa.struct(
    [
        pa.field("flux", _required_list(pa.float32()), nullable=False),
        pa.field("ivar", _required_list(pa.float32()), nullable=False),
        pa.field("lambda", _required_list(pa.float32()), nullable=False),
        pa.field("mask", _required_list(pa.bool_()), nullable=False),
    ]
)
#: What every file has; further labels have columns of their own behind these (`common.further`).
SCHEMA = pa.schema(
    [
        pa.field("object_id", pa.string(), nullable=False),
        pa.field("survey", _DICTIONARY, nullable=False),
        pa.field("release", _DICTIONARY),
        pa.field("ra", pa.float64()),
        pa.field("dec", pa.float64()),
        pa.field("_healpix_29", pa.int64()),
        pa.field("spectrum", SPECTRUM_TYPE, nullable=False),
        pa.field(LSF, _required_list(pa.float32())),
        pa.field("wave_coeff0", pa.float64()),
        pa.field("wave_coeff1", pa.float64()),
        pa.field("flux_unit", _DICTIONARY),
        pa.field("flux_scale", pa.float64(), nullable=False),
        pa.field("wave_source", _DICTIONARY),
        pa.field("frame", _DICTIONARY, nullable=False),
        pa.field("velocity", pa.float32()),
        pa.field("class", _DICTIONARY),
        pa.field("subclass", _DICTIONARY),
        pa.field("zwarning", pa.int32()),
        *(pa.field(name, pa.float32()) for name in MEASURED_LABELS),
        pa.field("sn_median", pa.float32()),
        *(pa.field(name, pa.float32()) for name in SURVEY_SN),
        pa.field(SN_SURVEY, pa.float32()),
        pa.field("layout", _DICTIONARY),
        pa.field("label_source", _DICTIONARY),
        pa.field("source_file", pa.string(), nullable=False),
    ]
)


def healpix_29(ra: npt.ArrayLike, dec: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Nested HEALPix index at order 29 of positions in degrees (ICRS): int64, the shape of the input."""
    from astropy import units as u
    from astropy_healpix import HEALPix

    grid = HEALPix(nside=2**HEALPIX_ORDER, order="nested")
    lon, lat = np.asarray(ra, dtype=np.float64) * u.deg, np.asarray(dec, dtype=np.float64) * u.deg
    return np.asarray(grid.lonlat_to_healpix(lon, lat), dtype=np.int64)


def schema_of(further: Further) -> pa.Schema:
    """`SCHEMA` and the further columns behind it, in order of name."""
    return pa.schema([*SCHEMA, *(column.field(name) for name, column in sorted(further.items()))])


def to_table(spectra: Sequence[Spectrum]) -> pa.Table:
    """An Arrow table of `SCHEMA`, and of the spectra's further labels, with one row a spectrum, in order."""
    places = [s.ra for s in spectra], [s.dec for s in spectra]
    nowhere = np.isnan(np.array(places, np.float64)).any(axis=0)
    cells = np.zeros(len(spectra), np.int64)
    cells[~nowhere] = healpix_29(*(np.array(values, np.float64)[~nowhere] for values in places))
    columns: dict[str, pa.Array] = {
        "object_id": pa.array([s.object_id for s in spectra], pa.string()),
        "ra": pa.array(places[0], pa.float64(), mask=nowhere),
        "dec": pa.array(places[1], pa.float64(), mask=nowhere),
        "_healpix_29": pa.array(cells, pa.int64(), mask=nowhere),
        "spectrum": _spectrum_column(spectra),
        LSF: _lsf_column(spectra),
        "velocity": pa.array([s.velocity for s in spectra], pa.float32()),
        "sn_median": pa.array([s.sn_median() for s in spectra], pa.float32()),
        "source_file": pa.array([s.source_file for s in spectra], pa.string()),
    }
    said = [s.layout if s.has_ivar or NO_IVAR in s.layout else f"{s.layout}{NO_IVAR}" for s in spectra]
    columns["layout"] = pa.array(said, pa.string()).cast(_DICTIONARY)
    for name in ("survey", "release", "label_source", "flux_unit", "wave_source", "frame"):
        columns[name] = pa.array([getattr(s, name) for s in spectra], pa.string()).cast(_DICTIONARY)
    for name in ("wave_coeff0", "wave_coeff1", "flux_scale"):
        columns[name] = pa.array([getattr(s, name) for s in spectra], pa.float64())
    for name in ("class", "subclass"):
        columns[name] = pa.array([s.labels.get(name) for s in spectra], pa.string()).cast(_DICTIONARY)
    columns["zwarning"] = pa.array([s.labels.get("zwarning") for s in spectra], pa.int32())
    for name in MEASURED_LABELS:
        columns[name] = pa.array([s.labels.get(name) for s in spectra], pa.float32())
    for name in SURVEY_SN:
        columns[name] = pa.array([s.survey_sn.get(name) for s in spectra], pa.float32())
    columns[SN_SURVEY] = pa.array([s.sn_survey() for s in spectra], pa.float32())
    table = pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)
    for field, values in _further(spectra):
        table = table.append_column(field, values)
    return table


def _further(spectra: Sequence[Spectrum]) -> Iterator[tuple[pa.Field, pa.Array]]:
    """The columns of the further labels of which any is known, in order of name."""
    names = {name for s in spectra for name in s.labels if is_further(name)}
    values: dict[str, list[Any]] = {}
    units: dict[str, str] = {}
    for name in sorted(names):
        ours = further_name(name)
        column = values.setdefault(ours, [None] * len(spectra))
        for row, spectrum in enumerate(spectra):
            if (value := said(spectrum.labels.get(name))) is not None and value not in SENTINELS:
                column[row] = value
                if unit := spectrum.units.get(name):
                    units.setdefault(ours, unit)
    for name, column in sorted(values.items()):
        kinds = {type(value) for value in column} - {type(None)}
        if kinds == {float}:
            field = FurtherColumn(NUMBER, units.get(name)).field(name)
        elif kinds:
            column = [number_text(value) if isinstance(value, float) else value for value in column]
            field = FurtherColumn(TEXT).field(name)
        else:
            continue
        yield field, pa.array(column, field.type)


def upgraded(table: pa.Table) -> pa.Table:
    """Rows of an earlier schema version with the columns that it lacks: fluxes in their survey's unit, unscaled;
    and `sn_survey`, made of the survey's own columns."""
    table = with_sn_survey(table)
    n, names = table.num_rows, table.column_names
    if "flux_scale" in names:
        return table if LSF in names else _reordered(_with_nulls(table, (LSF, "velocity")))
    whose = table["survey"].to_pylist() if "survey" in names else [None] * n
    known = {name: None if (survey := survey_of(name)) is None else survey.flux_unit for name in set(whose)}
    values: dict[str, list[Any]] = {
        "flux_unit": [known[name] for name in whose], "flux_scale": [1.0] * n, "wave_source": [None] * n,
        "frame": ["observed"] * n,
    }  # fmt: skip
    for name, column in values.items():
        field = SCHEMA.field(name)
        is_text = pa.types.is_dictionary(field.type)
        array = pa.array(column, pa.string() if is_text else field.type)
        table = table.append_column(field, array.cast(field.type) if is_text else array)
    return _reordered(_with_nulls(table, (LSF, "velocity")))


def _with_nulls(table: pa.Table, names: Sequence[str]) -> pa.Table:
    for name in names:
        if name in table.column_names:
            continue
        table = table.append_column(SCHEMA.field(name), pa.nulls(len(table), SCHEMA.field(name).type))
    return table


def _reordered(table: pa.Table) -> pa.Table:
    """The columns of `SCHEMA` in its order, and the further ones behind them."""
    place = {name: number for number, name in enumerate(SCHEMA.names)}
    return table.select(sorted(table.column_names, key=lambda name: (place.get(name, len(place)), name)))


def _spectrum_column(spectra: Sequence[Spectrum]) -> pa.StructArray:
    lengths = [len(s.flux) for s in spectra]
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    children = []
    for struct_field, attribute in zip(SPECTRUM_TYPE, ("flux", "ivar", "wavelength", "mask"), strict=True):
        parts = [_ivar(s) if attribute == "ivar" else getattr(s, attribute) for s in spectra]
        values = pa.array(np.concatenate(parts) if parts else [], struct_field.type.value_type)
        children.append(pa.ListArray.from_arrays(offsets, values, type=struct_field.type))
    return pa.StructArray.from_arrays(children, fields=list(SPECTRUM_TYPE))


def _ivar(spectrum: Spectrum) -> npt.NDArray[Any]:
    """NaN where the survey gives no errors: anything else would pass for a measurement."""
    return spectrum.ivar if spectrum.has_ivar else np.full(len(spectrum.flux), np.nan, np.float32)


def _lsf_column(spectra: Sequence[Spectrum]) -> pa.Array:
    known = [s.lsf_sigma for s in spectra]
    if all(sigma is None for sigma in known):
        return pa.nulls(len(spectra), SCHEMA.field(LSF).type)
    offsets = np.cumsum([0, *(0 if sigma is None else len(sigma) for sigma in known)]).astype(np.int32)
    values = pa.array(np.concatenate([sigma for sigma in known if sigma is not None]), pa.float32())
    missing = pa.array([sigma is None for sigma in known])
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=SCHEMA.field(LSF).type, mask=missing)


#: Options of every spectra Parquet file. Measured on real spectra (`make bench-ingest`): BYTE_STREAM_SPLIT + zstd
#: level 1 takes half of the bytes of pyarrow's defaults and a third of their time; level 6 saves 1.5% for half as
#: much time again.
PARQUET_OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": [f.name for f in SCHEMA if pa.types.is_dictionary(f.type)],
    "column_encoding": {
        **{f"spectrum.{name}.list.element": "BYTE_STREAM_SPLIT" for name in ("flux", "ivar", "lambda")},
        f"{LSF}.list.element": "BYTE_STREAM_SPLIT",
    },
    "write_statistics": ["ra", "dec", "_healpix_29"],
    "write_page_checksum": True,  # for other readers; ours check the seal, which leaves nothing out
}


class SpectraWriter:
    """Writes tables of `SCHEMA` with any further columns; what is new in a later one, the earlier ones have as null.

    Row groups are written as they come. Where further columns came late, what was written is copied once, at the end,
    a row group at a time, so that memory does not grow with the file.
    """

    def __init__(self, path: Path, metadata: Mapping[str, str], name: str = "") -> None:
        self._path, self._metadata, self._name = path, dict(metadata), name or path.name
        self._further: dict[str, FurtherColumn] = {}
        self._pieces: list[Path] = []
        self._writer: pq.ParquetWriter | None = None

    def write_table(self, table: pa.Table, row_group_size: int = 256) -> None:
        """Append rows, in row groups of their own."""
        further = united([self._further, further_of(table.schema)], self._name)
        if self._writer is None or further != self._further:
            self._close()
            self._further = further
            path = self._path.with_suffix(f".{len(self._pieces)}.tmp") if self._pieces else self._path
            self._pieces.append(path)
            self._writer = self._open(path)
        self._writer.write_table(_fitted(table, self._further), row_group_size=row_group_size)

    def finish(self) -> None:
        """One file of all that was written."""
        if self._writer is None:
            self._pieces, self._writer = [self._path], self._open(self._path)
        self._close()
        if len(self._pieces) == 1:
            return
        whole = self._path.with_suffix(".whole.tmp")
        self._pieces.append(whole)
        with self._open(whole) as writer:
            for path in self._pieces[:-1]:
                with pq.ParquetFile(path) as piece:
                    for group in range(piece.num_row_groups):
                        table = piece.read_row_group(group, use_threads=False)
                        writer.write_table(_fitted(table, self._further), row_group_size=max(1, len(table)))
        os.replace(whole, self._path)

    def close(self) -> None:
        """End, whatever has happened; only the one file is left."""
        self._close()
        for path in self._pieces:
            if path != self._path:
                path.unlink(missing_ok=True)

    def _open(self, path: Path) -> pq.ParquetWriter:
        schema = schema_of(self._further).with_metadata(self._metadata)
        texts = [name for name, column in self._further.items() if column.kind == TEXT]
        options = {**PARQUET_OPTIONS, "use_dictionary": [*PARQUET_OPTIONS["use_dictionary"], *texts]}
        return pq.ParquetWriter(path, schema, **options)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _fitted(table: pa.Table, further: Further) -> pa.Table:
    return with_further(table, further).cast(schema_of(further))


@contextmanager
def spectra_writer(path: Path, config: Mapping[str, Any]) -> Iterator[SpectraWriter]:
    """A writer of spectra Parquet under a temporary name; on success fsynced and renamed to `path`.

    Each `write_table(table, row_group_size)` makes row groups of its own. The file metadata carries the schema
    version, the program version and `config` as JSON. The file is sealed (`ingest.seal`).
    """
    metadata = {
        "specshards.schema_version": str(SCHEMA_VERSION),
        "specshards.program_version": PROGRAM_VERSION,
        "specshards.config": json.dumps(config, sort_keys=True),
    }
    with replacing(path) as temporary:
        writer = SpectraWriter(temporary, metadata, path.name)
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()
        seal(temporary)


def write_parquet(table: pa.Table, path: Path, config: Mapping[str, Any], row_group_rows: int = 256) -> None:
    """Write a whole table of `SCHEMA`, and of further columns, with `spectra_writer`."""
    with spectra_writer(path, config) as writer:
        writer.write_table(table, row_group_size=row_group_rows)

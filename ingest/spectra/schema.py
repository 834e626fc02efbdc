"""The spectra Parquet contract, schema version 2: one row is one spectrum.

Column names are those of MultimodalUniverse (HATS v1.5), so that its Parquet reads here without conversion and
ours opens in anything made for it. `docs/spectra-parquet.md` describes every column for readers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from specshards.common.files import replacing
from specshards.common.label_columns import with_sn_survey
from specshards.common.spectrum import MEASURED_LABELS, SN_SURVEY, SURVEY_SN, Spectrum
from specshards.ingest.seal import seal
from specshards.ingest.surveys.survey import survey_of

SCHEMA_VERSION = 2
PROGRAM_VERSION = "0.1.0"
HEALPIX_ORDER = 29


def _required_list(value_type: pa.DataType) -> pa.DataType:
    # Required (non-null) elements decode in two thirds of the time of nullable ones.
    return pa.list_(pa.field("element", value_type, nullable=False))


_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
SPECTRUM_TYPE = pa.struct(
    [
        pa.field("flux", _required_list(pa.float32()), nullable=False),
        pa.field("ivar", _required_list(pa.float32()), nullable=False),
        pa.field("lambda", _required_list(pa.float32()), nullable=False),
        pa.field("mask", _required_list(pa.bool_()), nullable=False),
    ]
)
SCHEMA = pa.schema(
    [
        pa.field("object_id", pa.string(), nullable=False),
        pa.field("survey", _DICTIONARY, nullable=False),
        pa.field("release", _DICTIONARY),
        pa.field("ra", pa.float64(), nullable=False),
        pa.field("dec", pa.float64(), nullable=False),
        pa.field("_healpix_29", pa.int64(), nullable=False),
        pa.field("spectrum", SPECTRUM_TYPE, nullable=False),
        pa.field("wave_coeff0", pa.float64()),
        pa.field("wave_coeff1", pa.float64()),
        pa.field("flux_unit", _DICTIONARY),
        pa.field("flux_scale", pa.float64(), nullable=False),
        pa.field("wave_source", _DICTIONARY),
        pa.field("frame", _DICTIONARY, nullable=False),
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


def to_table(spectra: Sequence[Spectrum]) -> pa.Table:
    """An Arrow table of `SCHEMA` with one row a spectrum, in order."""
    columns: dict[str, pa.Array] = {
        "object_id": pa.array([s.object_id for s in spectra], pa.string()),
        "ra": pa.array([s.ra for s in spectra], pa.float64()),
        "dec": pa.array([s.dec for s in spectra], pa.float64()),
        "_healpix_29": pa.array(healpix_29([s.ra for s in spectra], [s.dec for s in spectra]), pa.int64()),
        "spectrum": _spectrum_column(spectra),
        "sn_median": pa.array([s.sn_median() for s in spectra], pa.float32()),
        "source_file": pa.array([s.source_file for s in spectra], pa.string()),
    }
    for name in ("survey", "release", "layout", "label_source", "flux_unit", "wave_source", "frame"):
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
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def upgraded(table: pa.Table) -> pa.Table:
    """Rows of an earlier schema version with the columns that it lacks: fluxes in their survey's unit, unscaled;
    and `sn_survey`, made of the survey's own columns."""
    table = with_sn_survey(table)
    n, names = table.num_rows, table.column_names
    if "flux_scale" in names:
        return table
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
    return table.select(sorted(table.column_names, key=SCHEMA.get_field_index))


def _spectrum_column(spectra: Sequence[Spectrum]) -> pa.StructArray:
    lengths = [len(s.flux) for s in spectra]
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    children = []
    for struct_field, attribute in zip(SPECTRUM_TYPE, ("flux", "ivar", "wavelength", "mask"), strict=True):
        parts = [getattr(s, attribute) for s in spectra]
        values = pa.array(np.concatenate(parts) if parts else [], struct_field.type.value_type)
        children.append(pa.ListArray.from_arrays(offsets, values, type=struct_field.type))
    return pa.StructArray.from_arrays(children, fields=list(SPECTRUM_TYPE))


#: Options of every spectra Parquet file. Measured on real spectra (`make bench-ingest`): BYTE_STREAM_SPLIT + zstd
#: level 1 takes half of the bytes of pyarrow's defaults and a third of their time; level 6 saves 1.5% for half as
#: much time again.
PARQUET_OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": [f.name for f in SCHEMA if pa.types.is_dictionary(f.type)],
    "column_encoding": {f"spectrum.{name}.list.element": "BYTE_STREAM_SPLIT" for name in ("flux", "ivar", "lambda")},
    "write_statistics": ["ra", "dec", "_healpix_29"],
    "write_page_checksum": True,  # for other readers; ours check the seal, which leaves nothing out
}


@contextmanager
def spectra_writer(path: Path, config: Mapping[str, Any]) -> Iterator[pq.ParquetWriter]:
    """A writer of spectra Parquet under a temporary name; on success fsynced and renamed to `path`.

    Each `write_table(table, row_group_size)` makes row groups of its own. The file metadata carries the schema
    version, the program version and `config` as JSON. The file is sealed (`ingest.seal`).
    """
    metadata = {
        "specshards.schema_version": str(SCHEMA_VERSION),
        "specshards.program_version": PROGRAM_VERSION,
        "specshards.config": json.dumps(config, sort_keys=True),
    }
    schema = SCHEMA.with_metadata(metadata)
    with replacing(path) as temporary:
        with pq.ParquetWriter(temporary, schema, **PARQUET_OPTIONS) as writer:
            yield writer
        seal(temporary)


def write_parquet(table: pa.Table, path: Path, config: Mapping[str, Any], row_group_rows: int = 256) -> None:
    """Write a whole `table` of `SCHEMA` with `spectra_writer`."""
    with spectra_writer(path, config) as writer:
        writer.write_table(table, row_group_size=row_group_rows)

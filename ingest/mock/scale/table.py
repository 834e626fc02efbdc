"""Arrow tables of the spectra schema straight from the kernels' buffers, without a Python object a spectrum."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from specshards.ingest.mock.instrument import LOG_STEP
from specshards.ingest.mock.scale.kernels import Buffers
from specshards.ingest.mock.scale.templates import KINDS, Models
from specshards.ingest.spectra.schema import SCHEMA, SPECTRUM_TYPE, healpix_29
from specshards.ingest.surveys.survey import SURVEYS

LAYOUT = "mock-parquet"
"""Layout and, in effect, origin of every row: no file of a survey stands behind it."""


def to_table(survey: str, rows: npt.NDArray[np.void], spectra: Buffers, models: Models) -> pa.Table:
    """A table of `ingest.spectra.schema.SCHEMA` with one row for each of `rows` (`draws.ROW`, `(n,)`), in order.

    It shares the memory of `spectra`. What a mock survey of known truth lacks (label errors, the survey's own S/N)
    is null; `zwarning` is 0 for SDSS and null for LAMOST, which has none.
    """
    n, kind, star = len(rows), rows["kind"], rows["kind"] == 0
    columns: dict[str, pa.Array] = {
        "object_id": pa.array([f"mock-{survey}-{row:09d}" for row in rows["row"].tolist()], pa.string()),
        "survey": _constant(f"mock-{survey}", n),
        "release": _constant("mock", n),
        "layout": _constant(LAYOUT, n),
        "label_source": _constant("truth", n),
        "source_file": pa.array(["mock"] * n, pa.string()),
        "ra": pa.array(np.ascontiguousarray(rows["ra"])),
        "dec": pa.array(np.ascontiguousarray(rows["dec"])),
        "_healpix_29": pa.array(healpix_29(rows["ra"], rows["dec"])),
        "spectrum": _spectra(rows["size"], spectra),
        "wave_coeff0": pa.array(rows["first"] / round(1.0 / LOG_STEP)),
        "wave_coeff1": pa.array(np.full(n, LOG_STEP)),
        "class": pa.DictionaryArray.from_arrays(kind.astype(np.int32), list(KINDS)),
        "flux_unit": _constant(SURVEYS[survey].flux_unit or "", n),
        "flux_scale": pa.array(np.ones(n)),
        "frame": _constant("observed", n),
        "subclass": _subclass(kind, rows["template"], models),
        "z": pa.array(rows["z"].astype(np.float32)),
        "sn_median": pa.array(spectra.sn_median),
    }
    labels = models.labels[np.where(star, rows["template"], 0)]
    for i, name in enumerate(("teff", "logg", "feh")):
        columns[name] = pa.array(np.ascontiguousarray(labels[:, i]), mask=~star)
    if survey == "sdss":
        columns["zwarning"] = pa.array(np.zeros(n, np.int32))
    arrays = [columns[f.name] if f.name in columns else pa.nulls(n, f.type) for f in SCHEMA]
    return pa.table(arrays, schema=SCHEMA)


def _constant(value: str, n: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(np.zeros(n, np.int32), [value])


def _subclass(kind: npt.NDArray[np.int64], template: npt.NDArray[np.int64], models: Models) -> pa.DictionaryArray:
    """The template's subclass; null for "". One dictionary whatever the rows, so that row groups agree on it."""
    names, codes = models.subclass_codes
    code = np.choose(kind, [one[np.minimum(template, len(one) - 1)] for one in codes])
    return pa.DictionaryArray.from_arrays(pa.array(code, mask=code < 0), names)


def _spectra(sizes: npt.NDArray[np.int64], spectra: Buffers) -> pa.StructArray:
    offsets = pa.array(np.concatenate(([0], np.cumsum(sizes))).astype(np.int32))
    children = []
    for field, values in zip(SPECTRUM_TYPE, (spectra.flux, spectra.ivar, spectra.wave, spectra.mask), strict=True):
        children.append(pa.ListArray.from_arrays(offsets, pa.array(values), type=field.type))
    return pa.StructArray.from_arrays(children, fields=list(SPECTRUM_TYPE))

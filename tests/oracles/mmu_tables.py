"""Spectra in the shapes of MultimodalUniverse tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from specshards.common.spectrum import Spectrum
from tests.conftest import make_spectrum


def padded(values: Sequence[np.ndarray[Any, Any]], fill: float | bool, length: int) -> np.ndarray[Any, Any]:
    return np.stack([np.concatenate([v, np.full(length - len(v), fill, v.dtype)]) for v in values])


def arrays_of(spectra: Sequence[Spectrum]) -> dict[str, np.ndarray[Any, Any]]:
    """The four parts, padded to one length as MultimodalUniverse does; the flux repeats its last value."""
    n = max(len(s.flux) for s in spectra) + 7
    flux = np.stack([np.pad(s.flux, (0, n - len(s.flux)), mode="edge") for s in spectra])
    return {
        "flux": flux, "ivar": padded([s.ivar for s in spectra], 0.0, n),
        "lambda": padded([s.wavelength for s in spectra], -1.0, n),
        "mask": padded([s.mask for s in spectra], True, n),
    }  # fmt: skip


def spectrum_columns(spectra: Sequence[Spectrum], shape: str) -> dict[str, pa.Array]:
    parts = arrays_of(spectra)
    parts["lsf_sigma"] = np.ones_like(parts["flux"])
    if shape == "list of structs":
        rows = [[dict(zip(parts, pixel, strict=True)) for pixel in zip(*row, strict=True)]
                for row in zip(*(p.tolist() for p in parts.values()), strict=True)]  # fmt: skip
        kinds = [(name, pa.bool_() if name == "mask" else pa.float32()) for name in parts]
        return {"spectrum": pa.array(rows, pa.list_(pa.struct(kinds)))}
    if shape == "fixed":
        lists = {k: pa.FixedSizeListArray.from_arrays(pa.array(v.ravel()), v.shape[1]) for k, v in parts.items()}
    else:
        float_type = pa.float64() if shape == "flat" else pa.float32()
        list_type = pa.large_list if shape == "flat" else pa.list_
        kind = {k: list_type(pa.bool_() if k == "mask" else float_type) for k in parts}
        lists = {k: pa.array(list(v), kind[k]) for k, v in parts.items()}
    if shape == "struct":
        return {"spectrum": pa.StructArray.from_arrays(list(lists.values()), names=list(lists))}
    return {f"spectrum_{name}": values for name, values in lists.items()}


def sdss_table(spectra: Sequence[Spectrum], shape: str = "struct", **more: Any) -> pa.Table:
    """As the HATS catalogue of SDSS, with CLASS and integer ZWARNING as in its HDF5 files."""
    columns: dict[str, Any] = {
        **spectrum_columns(spectra, shape),
        "Z": pa.array([s.labels["z"] for s in spectra], pa.float32()),
        "Z_ERR": pa.array([-1.0 if s.labels.get("z_err") is None else s.labels["z_err"] for s in spectra]),
        "ZWARNING": pa.array([s.labels.get("zwarning") for s in spectra]),
        "CLASS": [s.labels.get("class") for s in spectra], "SUBCLASS": [s.labels.get("subclass") for s in spectra],
        "ra": [s.ra for s in spectra], "dec": [s.dec for s in spectra],
        "object_id": [f"b'{s.object_id:>22}'" for s in spectra], **more,
    }  # fmt: skip
    return pa.table({name: values for name, values in columns.items() if values is not None})


def mock(n: int, pixels: int = 300, **changes: Any) -> list[Spectrum]:
    rng = np.random.default_rng(5)
    grid = (10.0 ** (3.5682 + 1.3e-3 * np.arange(pixels))).astype(np.float32)
    made = [make_spectrum(i, rng, n=pixels, wavelength=grid, wave_coeff1=1.3e-3, **changes) for i in range(n)]
    return made

"""Tables of spectra on one grid of wavelengths, and what is read of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.surveys import open_file
from specshards.ingest.tables import Stated

WAVE = np.linspace(3800, 9500, 400)


def table(wave: np.ndarray[Any, Any], metadata: dict[str, str] | None = None, rows: int = 6, **more: Any) -> pa.Table:
    """Spectra with one grid; the field `lambda` has the metadata."""
    floats, n = pa.list_(pa.float64()), len(wave)
    fields = [pa.field("flux", floats), pa.field("ivar", floats), pa.field("lambda", floats, metadata=metadata)]
    flux = np.random.default_rng(0).normal(100, 2, (rows, n))
    parts = [list(flux), [np.full(n, 0.25)] * rows, [wave] * rows]
    spectra = pa.StructArray.from_arrays([pa.array(part, floats) for part in parts], fields=fields)
    return pa.table({"object_id": [f"o{i}" for i in range(rows)], "survey": ["x"] * rows,
                     "ra": [7.0 * i for i in range(rows)], "dec": [-5.0] * rows, "spectrum": spectra,
                     **more})  # fmt: skip


def waves(path: Path, **stated: str) -> list[Spectrum]:
    items = list(open_file(path, stated=Stated(**stated)).objects())
    for item in items:
        if isinstance(item, BadObjectError):
            raise item
    return [item for item in items if isinstance(item, Spectrum)]

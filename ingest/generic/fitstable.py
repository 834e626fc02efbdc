"""A table in a FITS file, with what a `PlainTable` has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.fits.hdu import Hdu
from specshards.ingest.surveys.common import text
from specshards.ingest.tables import Stated

_KEYS = (
    "OBJECT", "OBJID", "RA", "DEC", "Z", "REDSHIFT", "TEFF", "LOGG", "FEH", "CLASS", "VACUUM", "AIRORVAC", "MEDIUM",
    "FRAME", "BUNIT", "WAVEUNIT",
)  # fmt: skip


@dataclass(frozen=True)
class FitsRows:
    """Some rows; see `ingest.plain.Rows`."""

    first: int
    rows: int
    table: FitsTable

    def column(self, name: str) -> npt.NDArray[Any]:
        """Of these rows."""
        return self.table.column(name)[self.first : self.first + self.rows]

    def text(self, name: str) -> npt.NDArray[np.object_]:
        """Of these rows, as text."""
        return _texts(self.column(name))


class FitsTable:
    """A binary table of a FITS file; attributes as of `PlainTable`."""

    kind = "fits"
    is_named = True
    has_end = True

    def __init__(self, file: FitsFile, hdu: Hdu) -> None:
        self._hdu = hdu
        self.path = file.path or Path("spectrum.fits")
        self.stated: Stated = file.stated
        fields = hdu.header.get("TFIELDS")
        count = fields if isinstance(fields, int) else 0
        called = [(i, text(hdu.header.get(f"TTYPE{i}"))) for i in range(1, count + 1)]
        self.names = tuple(name for _, name in called if name and name.lower() in hdu.names)
        said = {name: text(hdu.header.get(f"TUNIT{i}")) for i, name in called if name}
        self.units: Mapping[str, str] = {name: unit for name, unit in said.items() if unit}
        headers = (hdu.header, file[0].header)
        found = {key.lower(): value for key in _KEYS for header in reversed(headers)
                 if (value := header.get(key)) is not None}  # fmt: skip
        self.meta: Mapping[str, Any] = found
        self.rows = hdu.shape[0] if hdu.shape else 0

    @classmethod
    def all_of(cls, file: FitsFile) -> Iterator[FitsTable]:
        """Every table of a file that has rows."""
        for index in range(len(file)):
            if file[index].names and (table := cls(file, file[index])).rows:
                yield table

    def column(self, name: str) -> npt.NDArray[Any]:
        """In native byte order, text as objects, masked floats NaN."""
        values = self._hdu.column(name)
        if isinstance(values, np.ma.MaskedArray) and values.dtype.kind in "iubf":
            values = np.ma.filled(values.astype(np.float64), np.nan)
        if values.dtype.kind in "SU":
            return _texts(values)
        return values if values.dtype.kind == "O" else np.asarray(values, values.dtype.newbyteorder("="))

    def text(self, name: str) -> npt.NDArray[np.object_]:
        """As text: objects, None = missing."""
        return _texts(self._hdu.column(name))

    def slices(self, rows: int = 256) -> Iterator[FitsRows]:
        """All rows in order."""
        for first in range(0, self.rows, rows):
            yield FitsRows(first, min(rows, self.rows - first), self)


def _texts(values: npt.NDArray[Any]) -> npt.NDArray[np.object_]:
    found = [text(value) for value in values.tolist()]
    return np.array([*found, None], object)[:-1]

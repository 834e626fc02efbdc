"""Wide tables: one sample a row, one column a wavelength, as laboratories and soil libraries write them.

sample,site,organic_carbon,350,351,352,...
sample,wl_350,...      X350.5 (R's way)      350nm      spc.1200.5      4000 cm-1
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.ingest.surveys.wavelengths import unit_of

#: So many columns that are named by wavelength make a table wide.
LEAST = 16
_NAME = re.compile(
    r"\s*([A-Za-z_]*?(?:[A-Za-z][._ -]*)?)([0-9]+(?:[.,][0-9]+)?)[ _]*([A-Za-zµμÅ^/*-][A-Za-z0-9µμÅ^/*() -]*)?\s*\Z"
)
# What such a prefix may be; others count features, principal components, filters.
_PREFIXES = {
    "", "x", "wl", "w", "wave", "wavelength", "lambda", "nm", "um", "spc", "spec", "spectrum", "flux", "f", "r",
    "refl", "reflectance", "ref", "abs", "absorbance", "a", "t", "trans", "transmittance", "i", "intensity", "wn",
    "wavenumber", "vis", "nir", "mir", "visnir", "vnir", "scan_visnir", "scan_mir",
}  # fmt: skip
_OF_PREFIX = {"wn": "cm-1", "wavenumber": "cm-1", "nm": "nm", "um": "um"}


@dataclass(frozen=True)
class Wide:
    """Columns named by wavelength.

    Attributes:
        columns: in order of increasing number. wavelength: float64, as many. unit: as the names declare it.
        prefix: in front of the numbers, for people.
    """

    columns: tuple[str, ...]
    wavelength: npt.NDArray[np.float64]
    unit: str | None
    prefix: str

    @classmethod
    def of(cls, names: Sequence[str]) -> Wide | None:
        """Those of a table; None where it is not wide."""
        groups: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
        for name in names:
            if (match := _NAME.match(name)) is not None:
                prefix = match[1].strip(" ._-").lower()
                groups[prefix, (match[3] or "").strip().lower()].append((float(match[2].replace(",", ".")), name))
        if not groups:
            return None
        (prefix, suffix), found = max(groups.items(), key=lambda item: len(item[1]))
        numbers = [number for number, _ in found]
        if len(found) < LEAST or prefix not in _PREFIXES or len(set(numbers)) < len(numbers):
            return None
        found.sort()
        values = np.array([number for number, _ in found])
        is_index = values[0] <= 1 and bool((np.diff(values) == 1).all())  # numbered, not named
        if is_index or (suffix and _unit(suffix) is None):
            return None
        return cls(tuple(name for _, name in found), values, _unit(suffix) or _OF_PREFIX.get(prefix), prefix)


def _unit(suffix: str) -> str | None:
    try:
        return unit_of(suffix.strip("() "))
    except BadObjectError:
        return None

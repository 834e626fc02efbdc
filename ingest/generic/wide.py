"""Wide tables: one sample a row, one column a wavelength, as laboratories and soil libraries write them.

sample,site,organic_carbon,350,351,352,...
sample,wl_350,...      X350.5 (R's way)      350nm      spc.1200.5      4000 cm-1

Names that count (0, 1, 2, ...) name no wavelength; --wavelengths gives those of such channels.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.ingest.generic.roles import IDS, SEE, simple
from specshards.ingest.surveys.stated import wavelengths_of
from specshards.ingest.surveys.wavelengths import unit_of

#: So many columns that are named by wavelength make a table wide.
LEAST = 16
# Columns that count begin with one of the first numbers.
_FIRST_CHANNELS = 9
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
_WAVE_WORD = re.compile(r"wave\s*-?_?\s*(?:len|num|no\b)|lambda|\bwl\b|wavenumber", re.IGNORECASE)
_WAVENUMBER = re.compile(r"wave\s*-?_?\s*(?:num|no\b)", re.IGNORECASE)
_IN_BRACKETS = re.compile(r"[(\[]([^()\[\]]{1,12})[)\]]")
_BEHIND = re.compile(r"(?:[/_]|\bin )\s*([A-Za-zµμÅ]{1,12}(?:\^?-1)?|1/cm)\s*\Z")


@dataclass(frozen=True)
class Wide:
    """Columns named by wavelength.

    Attributes:
        columns: in order of increasing number. wavelength: float64, as many. unit: as the names declare it.
        prefix: in front of the numbers, for people.
        how: whether the wavelengths are `named` or `stated`.
    """

    columns: tuple[str, ...]
    wavelength: npt.NDArray[np.float64]
    unit: str | None
    prefix: str
    how: str = "named"

    @classmethod
    def of(cls, names: Sequence[str], wavelengths: str | None = None) -> Wide | None:
        """Those of a table; None where it is not wide.

        Args:
            wavelengths: of columns that are only numbered, as the user states them.

        Raises:
            BadObjectError: columns that are only numbered, and nothing is stated, or not as many.
        """
        groups: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
        for name in names:
            if (match := _NAME.match(name)) is not None:
                prefix = match[1].strip(" ._-").lower()
                groups[prefix, (match[3] or "").strip().lower()].append((float(match[2].replace(",", ".")), name))
        if not groups:
            return None
        (prefix, suffix), found = max(groups.items(), key=lambda item: len(item[1]))
        numbers = [number for number, _ in found]
        if len(found) < LEAST or len(set(numbers)) < len(numbers):
            return None
        found.sort()
        values = np.array([number for number, _ in found])
        columns = tuple(name for _, name in found)
        counts = bool(values[0] <= _FIRST_CHANNELS and (np.diff(values) == 1).all() and not suffix)
        if counts and wavelengths is not None:
            stated = wavelengths_of(wavelengths)
            if len(stated) != len(columns):
                raise BadObjectError(
                    f"--wavelengths {wavelengths} are {len(stated):,}, the columns {columns[0]} to {columns[-1]} are "
                    f"{len(columns):,}",
                    kind="--wavelengths are not as many as the columns",
                )
            return cls(columns, stated, None, prefix, "stated")
        if prefix not in _PREFIXES or (suffix and _unit(suffix) is None):
            return None
        if counts:
            raise BadObjectError(
                f"its {len(columns):,} columns {columns[0]} to {columns[-1]} are numbered channels, not wavelengths: "
                f"say those with --wavelengths first:last:step and --wavelength-unit; {SEE}",
                kind=f"columns are numbered channels, not wavelengths: --wavelengths says those; {SEE}",
                selected_out=True,
            )
        return cls(columns, values, _unit(suffix) or _OF_PREFIX.get(prefix), prefix)


def unit_said(texts: Sequence[str], first: str | None = None) -> str | None:
    """The unit of wavelength that headings and comments say: in brackets, behind a slash, or by the word wavenumber.

    Args:
        texts: those that speak of wavelengths count. first: the name of the first column, which may be no more than
            a unit, or an id with one.

    Raises:
        BadObjectError: they say several.
    """
    said = {_said(text) for text in texts if _WAVE_WORD.search(text)} - {None}
    if not said and first is not None:
        bare = simple(re.sub(_BEHIND, "", _IN_BRACKETS.sub("", first)))
        if not bare or bare in IDS:
            said = {_said(first)} - {None}
    if len(said) > 1:
        raise BadObjectError(
            f"wavelengths are said to be in {' and '.join(sorted(map(str, said)))}: leave one; {SEE}"
        )
    return next(iter(said), None)


def names_wavelength(text: str) -> bool:
    """Whether a text speaks of wavelengths or wavenumbers."""
    return _WAVE_WORD.search(text) is not None


def _said(text: str) -> str | None:
    for found in (*_IN_BRACKETS.findall(text), *_BEHIND.findall(text)):
        if (unit := _unit(found)) is not None:
            return unit
    return "cm-1" if _WAVENUMBER.search(text) else None


def _unit(suffix: str) -> str | None:
    try:
        return unit_of(suffix.strip("() "))
    except BadObjectError:
        return None

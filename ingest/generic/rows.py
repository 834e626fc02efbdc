"""Tables of one spectrum a row: lists in cells of text, vectors of FITS and VOTable, arrays of npz; wide tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.common.further import is_further
from specshards.common.spectrum import Spectrum
from specshards.ingest.generic.meaning import Meaning, labels_of, value_of
from specshards.ingest.generic.pixels import Pixels
from specshards.ingest.generic.roles import SEE, Roles, label_name, unread
from specshards.ingest.generic.wide import Wide
from specshards.ingest.plain.cells import is_list, numbers_in
from specshards.ingest.surveys.stated import wavelengths_of

#: Roles that are pixels.
PARTS = ("wavelength", "flux", "error", "ivar", "variance", "mask")
_ROWS = 64
_WIDE_ROWS = 512


def is_vector(cell: Any) -> bool:
    """Whether a cell holds many numbers."""
    if isinstance(cell, np.ndarray | list | tuple):
        return len(cell) > 1
    return is_list(cell)


def of_lists(table: Any, roles: Roles, meaning: Meaning, stem: str) -> Iterator[Spectrum | BadObjectError]:
    """Every row that has a vector of fluxes.

    Args:
        table: a `PlainTable` or `FitsTable`; its column of wavelengths may be one vector for all rows.
    """
    parts = {part: roles.columns[part] for part in PARTS if part in roles.columns}
    if "wavelength" in parts:
        shared = _shared(table, parts["wavelength"], parts["flux"])
    else:
        shared = wavelengths_of(table.stated.wavelengths)
    if shared is not None:
        parts.pop("wavelength", None)
    without: tuple[str, ...] | None = None
    cells_of = _Cells(table, roles.others)
    for rows in table.slices(_ROWS):
        cells = {part: rows.text(name) if _is_text(table) else rows.column(name) for part, name in parts.items()}
        further = cells_of.further(rows)
        names = rows.text(roles.columns["id"]) if "id" in roles.columns else None
        if without is None:
            has_errors = bool({"error", "ivar", "variance"} & parts.keys())
            vectors = [name for name in roles.others if _holds_vector(table, rows, name)]
            without = unread(vectors, has_errors=has_errors, has_mask="mask" in parts)
        for i in range(rows.rows):
            number = rows.first + i
            try:
                pixels = {part: numbers_in(values[i]) for part, values in cells.items()}
                if shared is not None:
                    pixels["wavelength"] = shared
                    if "wavelength" not in roles.columns and len(pixels["flux"]) != len(shared):
                        raise BadObjectError(
                            f"--wavelengths {table.stated.wavelengths} are {len(shared):,}, the pixels "
                            f"{len(pixels['flux']):,}", kind="--wavelengths are not as many as the pixels",
                        )  # fmt: skip
                spectrum = _spectrum(Pixels(**pixels), meaning, stem, number, names, i, further, table)
                spectrum.remarks += without
                yield spectrum
            except BadObjectError as fault:
                fault.row, fault.layout = number, meaning.layout
                yield fault


def of_wide(table: Any, wide: Wide, roles: Roles, meaning: Meaning, stem: str) -> Iterator[Spectrum | BadObjectError]:
    """Every row of a wide table."""
    samples = set(wide.columns)
    others = tuple(name for name in table.names if name not in samples and name != roles.columns.get("id"))
    cells_of = _Cells(table, others)
    for rows in table.slices(_WIDE_ROWS):
        columns = [rows.column(name) for name in wide.columns]
        further = cells_of.further(rows)
        names = rows.text(roles.columns["id"]) if "id" in roles.columns else None
        wrong = [name for name, values in zip(wide.columns, columns, strict=True) if values.dtype.kind not in "iuf"]
        flux = None if wrong else np.stack(columns, axis=1).astype(np.float64)
        for i in range(rows.rows):
            number = rows.first + i
            try:
                if flux is None:
                    values = [_number(column[i]) for column in columns]
                    if (at := next((k for k, v in enumerate(values) if v is None), None)) is not None:
                        raise BadObjectError(f"column {wide.columns[at]} is {columns[at][i]!r}, no number",
                                             kind="a cell of the spectrum that is no number")  # fmt: skip
                    one = np.array(values, np.float64)
                else:
                    one = flux[i]
                if _are_wavelengths(wide.wavelength, one):
                    raise BadObjectError("a second heading: its values are the wavelengths in another unit",
                                         selected_out=True)  # fmt: skip
                yield _spectrum(Pixels(wide.wavelength, one), meaning, stem, number, names, i, further, table)
            except BadObjectError as fault:
                fault.row, fault.layout = number, meaning.layout
                yield fault


def _are_wavelengths(wave: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> bool:
    """Whether a row repeats the wavelengths, as they are, in another unit, or as wavenumbers."""
    with np.errstate(all="ignore"):
        for same in (values / wave, values * wave):
            middle = np.median(same)
            # Units differ by powers of ten, the rest is rounding.
            power = np.log10(middle) if middle > 0 else 0.5
            if (
                abs(power - np.round(power)) < 0.005
                and (np.abs(same / middle - 1) < 0.01).all()
                and np.ptp(wave) > 0.1 * wave.max()
            ):
                return bool((np.diff(values) >= 0).all() or (np.diff(values) <= 0).all())
    return False


def _number(value: Any) -> float | None:
    if value is None:
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _spectrum(
    pixels: Pixels, meaning: Meaning, stem: str, number: int, names: Any, i: int, further: dict[str, Any], table: Any
) -> Spectrum:
    name = None if names is None else names[i]
    labels = {our: value_of(our, values[i]) for our, values in further.items()}
    return meaning.spectrum(pixels, str(name) if name else f"{stem}-{number}", labels, further_units(table), number)


def further_units(table: Any) -> dict[str, str]:
    """Units of further labels, by our names."""
    return {label_name(name): unit for name, unit in table.units.items()}


class _Cells:
    """The columns of a table that hold one value a row, as labels."""

    def __init__(self, table: Any, others: tuple[str, ...]) -> None:
        self._table, self._columns = table, labels_of(others)
        more = tuple(column for column, our in self._columns.items() if is_further(our))
        self._padded = table.padded(more) if _is_text(table) else frozenset()
        places = [column for column, our in self._columns.items() if our in ("ra", "dec")]
        if len(places) == 2 and all(_is_zero(table.column(column)) for column in places):
            # 0, 0 in one row is a place; in every one, what a program writes that knows none.
            self._columns = {column: our for column, our in self._columns.items() if column not in places}

    def further(self, rows: Any) -> dict[str, npt.NDArray[Any]]:
        """Our name -> values of a slice. Whole numbers with a zero in front (01) are names, and text as written."""
        found = {}
        for column, our in self._columns.items():
            if self._table.kind == "npz" and self._table.column(column).shape[:1] != (self._table.rows,):
                continue
            values = rows.text(column) if column in self._padded else rows.column(column)
            if values.ndim == 1 and not any(is_vector(value) for value in values[:1]):
                found[our] = values
        return found


def _is_zero(values: npt.NDArray[Any]) -> bool:
    return values.dtype.kind in "iuf" and len(values) > 0 and not np.nan_to_num(values).any()


def _holds_vector(table: Any, rows: Any, name: str) -> bool:
    values = rows.text(name) if _is_text(table) else rows.column(name)
    return bool(values.ndim == 2 or (len(values) and is_vector(values[0])))


def _is_text(table: Any) -> bool:
    return table.kind in ("csv", "ascii", "ecsv")


def _shared(table: Any, wavelength: str, flux: str) -> npt.NDArray[Any] | None:
    """The wavelengths of all rows, of an npz that has them once."""
    if table.kind != "npz":
        return None
    values, fluxes = table.column(wavelength), table.column(flux)
    if values.ndim == 1 and values.dtype.kind in "iuf":
        if fluxes.ndim == 2 and fluxes.shape[1] != len(values):
            raise BadObjectError(f"{len(values):,} wavelengths for spectra of {fluxes.shape[1]:,} pixels; {SEE}")
        return values
    return None

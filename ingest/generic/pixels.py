"""The pixels of one spectrum of nobody known, and its errors in the unit of its flux."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.ingest.generic.roles import SEE, Roles
from specshards.ingest.surveys.common import text
from specshards.ingest.surveys.flux import RELATIVE, inverse_variance, unit_of

_POWERS = {"error": 1, "variance": 2, "ivar": -2}
_PER_CENT = {"%", "percent", "per cent", "pct"}
_SHARES = {"relative", "fraction", "fractional"}


class Pixels(NamedTuple):
    """One spectrum as its file has it: float64 `(N,)` each, None for what there is not."""

    wavelength: npt.NDArray[Any]
    flux: npt.NDArray[Any]
    error: npt.NDArray[Any] | None = None
    ivar: npt.NDArray[Any] | None = None
    variance: npt.NDArray[Any] | None = None
    mask: npt.NDArray[Any] | None = None


@dataclass(frozen=True)
class ErrorUnit:
    """What errors are in.

    Attributes:
        factor: errors of the file x factor are in the unit of the flux, or its square, or one over that.
        is_relative: they are errors over fluxes.
        how: for people; empty where nothing is declared.
    """

    factor: float = 1.0
    is_relative: bool = False
    how: str = ""

    def ivar(self, pixels: Pixels, inside: slice) -> npt.NDArray[np.float64] | None:
        """Inverse variances in the flux's unit, 0 where a pixel has none; None where the file gives no errors."""
        kind = next((kind for kind in ("ivar", "error", "variance") if getattr(pixels, kind) is not None), None)
        if kind is None:
            return None
        values = np.asarray(getattr(pixels, kind)[inside], np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            if self.factor != 1.0:
                values = values * self.factor
            if self.is_relative:
                values = values * np.abs(np.asarray(pixels.flux[inside], np.float64))
            if kind == "ivar":
                return np.where(np.isfinite(values) & (values > 0), values, 0.0)
            return inverse_variance(np.sqrt(values) if kind == "variance" else values)


#: Errors in the unit of the flux.
AS_FLUX = ErrorUnit()


def error_unit(
    roles: Roles, units: Mapping[str, str], declared: str | None, flux_unit: str | None
) -> tuple[ErrorUnit, list[str]]:  # fmt: skip
    """What the errors of a table are in, and remarks on it.

    Args:
        units: of its columns, as written. declared: the flux's, as written. flux_unit: the flux's, as known here.

    Raises:
        BadObjectError: a unit that the errors of this flux cannot have.
    """
    kind = next((kind for kind in ("ivar", "error", "variance") if kind in roles.columns), None)
    if kind is None:
        return AS_FLUX, []
    column = roles.columns[kind]
    own = text(units.get(column)) or ""
    if (word := roles.said.get("error")) is not None and kind == "error":
        factor = 0.01 if word == "percent" or own.lower() in _PER_CENT else 1.0
        return ErrorUnit(factor, True, f"{'per cent' if factor != 1 else 'share'} of the flux, named"), []
    if not own or own.strip() == (declared or "").strip():
        if own and kind != "error" and flux_unit not in (None, RELATIVE):
            raise _wrong(column, own, kind, str(flux_unit))
        return AS_FLUX, []
    if kind == "error" and own.lower() in _PER_CENT | _SHARES and flux_unit != RELATIVE:
        is_cent = own.lower() in _PER_CENT
        return ErrorUnit(0.01 if is_cent else 1.0, True, f"{own} of the flux, declared"), []
    known = unit_of(own)
    if known is None or known == RELATIVE:
        if known is None and any(letter.isalpha() for letter in own) and flux_unit is not None:
            said = f"declare their errors in {own!r}, no unit known here: that of the flux is a guess"
            return ErrorUnit(how=f"that of the flux, guessed (declared {own})"), [said]
        return AS_FLUX, []
    if flux_unit is None:
        said = f"declare a unit of their errors ({own}) and none of flux, which is guessed to be in the same"
        return ErrorUnit(how="that of the flux, guessed"), [said]
    if flux_unit == RELATIVE:
        raise _wrong(column, own, kind, flux_unit)
    from astropy import units as u

    try:
        factor = float(u.Unit(known).to(u.Unit(flux_unit) ** _POWERS[kind]))
    except u.UnitsError:
        raise _wrong(column, own, kind, flux_unit) from None
    # Units that are written in two ways differ by rounding.
    return ErrorUnit(1.0 if abs(factor - 1) < 1e-12 else factor, False, f"{known}, declared"), []


def _wrong(column: str, own: str, kind: str, flux_unit: str) -> BadObjectError:
    return BadObjectError(
        f"{column} is declared to be in {own}, which is no {kind} of a flux in {flux_unit}: mend the unit, or leave "
        f"the column out with --columns; {SEE}",
        kind=f"a unit of errors that is not of the flux; {SEE}",
    )

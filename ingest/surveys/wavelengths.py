"""Wavelengths in Angstrom and in vacuum: units by what is declared or by their range, and air to vacuum.

Refractive index of standard air: Ciddor 1996, Applied Optics 35, 1566, equation 1 (15 C, 101325 Pa, 450 ppm CO2).
Below 2000 Angstrom the literature gives vacuum wavelengths, so nothing is converted there.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError, UsageError

#: What --wavelength-unit takes, and how it is said.
UNITS = {
    "angstrom": "Angstrom", "nm": "nanometre", "um": "micron", "log10": "log10 of Angstrom",
    "ln": "natural logarithm of Angstrom", "cm-1": "wavenumber, 1/cm",
}  # fmt: skip
#: What --medium takes.
MEDIA = {"vacuum": "as they are", "air": "converted to vacuum"}
#: What --frame takes.
FRAMES = {"observed": "as the telescope sees them", "rest": "divided by 1 + z, or by that of a velocity"}
#: Air below this is vacuum, by convention; Angstrom.
AIR_FROM = 2000.0

#: Of a wavenumber: 1 / cm in Angstrom. In vacuum, by convention.
_WAVENUMBER = "cm-1"
_FACTORS = {"angstrom": 1.0, "nm": 10.0, "um": 1e4, "mm": 1e7, "cm": 1e8, "m": 1e10}
_BASES = {"log10": 10.0, "ln": math.e}
_NAMES = {
    "a": "angstrom", "aa": "angstrom", "å": "angstrom", "ang": "angstrom", "angstroms": "angstrom",
    "0.1nm": "angstrom",
    "nanometer": "nm", "nanometers": "nm", "nanometre": "nm", "nanometres": "nm", "micron": "um", "microns": "um",
    "1/cm": "cm-1", "/cm": "cm-1", "cm^-1": "cm-1", "cm**-1": "cm-1", "cm⁻¹": "cm-1", "cm^{-1}": "cm-1",
    "wavenumber": "cm-1", "wavenumbers": "cm-1", "kayser": "cm-1", "micrometer": "um",
    "micrometers": "um", "µm": "um", "μm": "um",
}  # fmt: skip
_MEDIA = {"air": "air", "awav": "air", "airwave": "air", "vacuum": "vacuum", "vac": "vacuum", "vacuo": "vacuum"}
_NO_MEDIUM = {"in", "of", "at", "standard", "std", "dry", "stp", "iau", "wavelength", "wavelengths", "wave"}
# Spectra are of 900 A (the Lyman limit, in the observed frame) to 30 micron; to 1 mm where a file declares Angstrom.
_SHORTEST, _LONGEST, _LONGEST_DECLARED = 900.0, 300_000.0, 1e7


class UnknownUnitError(BadObjectError):
    """Nobody can tell the unit of the wavelengths, but a user can."""


def check_stated(wavelength_unit: str | None, medium: str | None) -> None:
    """UsageError for what --wavelength-unit and --medium do not take; None says nothing."""
    for name, value, known in (("wavelength_unit", wavelength_unit, UNITS), ("medium", medium, MEDIA)):
        if value is not None and value not in known:
            raise UsageError(f"{name}={value}: choose {', '.join(known)}")


def refractive_index(vacuum: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Of standard air, at vacuum wavelengths in Angstrom: float64, the shape of the input."""
    squared = np.square(1e4 / np.asarray(vacuum, np.float64))
    return np.asarray(1 + 0.05792105 / (238.0185 - squared) + 0.00167917 / (57.362 - squared), np.float64)


def vacuum_of_air(air: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Wavelengths in vacuum of those in standard air, Angstrom: float64, the shape of the input.

    Solved for the vacuum wavelength, of which the index is a function, to 1e-9 Angstrom.
    """
    air = np.asarray(air, np.float64)
    vacuum = np.maximum(air, AIR_FROM)
    for _ in range(4):  # each gains five digits
        vacuum = np.maximum(air, AIR_FROM) * refractive_index(vacuum)
    return np.asarray(np.where(air < AIR_FROM, air, vacuum), np.float64)


@lru_cache(maxsize=256)
def unit_of(text: str | None) -> str | None:
    """The name here of a unit of wavelength that a file declares; None where it declares none.

    Raises:
        BadObjectError: a unit that is of no wavelength.
    """
    name = "".join((text or "").lower().split()).replace("dex(", "log10(")
    if not name:
        return None
    for base, known in (("log10", "log10"), ("log", "log10"), ("ln", "ln")):
        rest = name.removeprefix(base).strip("(){}[]")
        if name.startswith(base) and _NAMES.get(rest, rest) in ("", "angstrom", "lambda", "wavelength"):
            return known
    name = _NAMES.get(name, name)
    if name in _FACTORS or name == _WAVENUMBER:
        return name
    raise UnknownUnitError(
        f"wavelengths are declared to be in {text!r}, no unit of wavelength that is known here: say what they are "
        "with --wavelength-unit"
    )


@lru_cache(maxsize=256)
def medium_of(declared: str | None, stated: str | None = None) -> str:
    """`air` or `vacuum`: what is declared, else what the user states, else vacuum.

    Raises:
        UnknownUnitError: neither, and the user has not said which.
    """
    if declared is None:
        return stated or "vacuum"
    words = set(re.findall(r"[a-z0-9]+", declared.lower()))
    found = {_MEDIA.get(word, word) for word in words - _NO_MEDIUM}
    if len(found) == 1 and found <= {"air", "vacuum"}:
        return found.pop()
    if stated is not None:
        return stated
    raise UnknownUnitError(
        f"wavelengths are declared to be in {declared!r}, neither air nor vacuum: say which with --medium"
    )


def settled(low: float, high: float, declared: str | None, stated: str | None, *, is_rest: bool = False) -> str:
    """The unit of wavelengths from `low` to `high`: `judged` by what is declared, or else by what the user states.

    Args:
        declared: as a file says it. stated: by the user; it counts where the file says nothing, or what nobody knows
            or its range contradicts, and must be possible itself.
        is_rest: as for `judged`.

    Raises:
        BadObjectError: nobody can tell.
    """
    shortest = _SHORTEST / 8 if is_rest else _SHORTEST
    try:
        unit = unit_of(declared)
        if unit is not None and unit == stated and _holds(low, high, unit, shortest):
            return unit  # said twice, it is no slip
        if unit is not None or stated is None:
            return judged(low, high, unit, is_rest=is_rest)
    except UnknownUnitError:
        if stated is None:
            raise
    try:
        return judged(low, high, stated, is_rest=is_rest)
    except BadObjectError as error:
        what = "are hardly" if _holds(low, high, stated, shortest) else "cannot be"
        raise UnknownUnitError(
            f"wavelengths from {low:.6g} to {high:.6g} {what} {stated}, which --wavelength-unit says: give the "
            "option for the tables that it is true of, or let each table declare its unit"
        ) from error


def to_angstrom(values: npt.NDArray[Any], unit: str) -> npt.NDArray[np.float64]:
    """Wavelengths in Angstrom: float64. `unit` is a name that `unit_of` gives."""
    values = values.astype(np.float64)
    if unit in _BASES:
        with np.errstate(over="ignore"):  # of what cannot be that; refused by its range
            return np.asarray(np.power(_BASES[unit], values), np.float64)
    if unit == _WAVENUMBER:
        with np.errstate(divide="ignore"):
            return np.asarray(1e8 / values, np.float64)
    return values * _FACTORS[unit]


def judged(low: float, high: float, declared: str | None, *, is_rest: bool = False) -> str:
    """The unit of wavelengths from `low` to `high`: what is declared, or Angstrom where the range leaves no doubt.

    Without doubt Angstrom: from 2500 on; or from 900 on, and up to 5500 at least. From 1000 to 2500 is ultraviolet in
    Angstrom, or infrared in nanometre: that must be said.

    Args:
        is_rest: wavelengths in the rest frame may be shorter.

    Raises:
        BadObjectError: the range does not say what they are, or is not of the unit that is declared.
    """
    shortest = _SHORTEST / 8 if is_rest else _SHORTEST
    likely = likely_units(low, high, is_rest=is_rest)
    if declared == _WAVENUMBER and _holds(low, high, declared, shortest):
        return declared
    if declared == "angstrom" and high > _LONGEST and shortest <= low and high <= _LONGEST_DECLARED:
        return declared  # every other unit would be longer
    plain = high <= _LONGEST and (low >= 2500 or (low >= shortest and high >= 5500))
    where = f"wavelengths from {low:.6g} to {high:.6g}"
    option = "say what they are when they are ingested or drawn, with --wavelength-unit"
    if declared is not None:
        # 2500 to 12000 nm is possible, but a slip is likelier.
        if declared not in likely or (declared != "angstrom" and plain and high <= 12_000):
            alike = f" but look like {_either(likely, plain)}" if likely else ""
            raise UnknownUnitError(f"{where} are declared to be {declared}{alike}: {option}")
        return declared
    if plain:
        return "angstrom"
    if not likely:
        raise BadObjectError(f"impossible grid: {low:.4g} to {high:.4g} is not Angstrom, nor any unit of wavelength")
    raise UnknownUnitError(f"{where} look like {_either(likely, plain)}: {option} {' or '.join(likely)}")


def likely_units(low: float, high: float, *, is_rest: bool = False) -> list[str]:
    """The units in which wavelengths from `low` to `high` are possible; wavenumbers are never guessed."""
    shortest = _SHORTEST / 8 if is_rest else _SHORTEST
    return [name for name in (*_FACTORS, *_BASES) if _holds(low, high, name, shortest)]


def _holds(low: float, high: float, unit: str, shortest: float) -> bool:
    if unit in _BASES and high > 20:
        return False
    first, last = np.sort(to_angstrom(np.array([low, high]), unit))
    return bool(shortest <= first and 1.1 * shortest < last <= _LONGEST)


def _either(likely: list[str], plain: bool) -> str:
    return "angstrom" if plain else " or ".join(likely)

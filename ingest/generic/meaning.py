"""What the numbers of a table of nobody known mean, and a spectrum made of them.

Units, medium and frame are what the file declares, else what the user states, else a guess, which is told as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.common.further import further_name
from specshards.common.spectrum import CLASSES, LIMITS, Spectrum
from specshards.ingest.generic.pixels import AS_FLUX, ErrorUnit, Pixels, error_unit
from specshards.ingest.generic.roles import SEE, Roles, label_name
from specshards.ingest.surveys import spellings
from specshards.ingest.surveys.common import ANY_GRID, checked, error, label, position, said_class, text
from specshards.ingest.surveys.declared import FALSE, TRUE, frame_of
from specshards.ingest.surveys.flux import RELATIVE, unit_of
from specshards.ingest.surveys.sentinels import NO_VALUE, missing
from specshards.ingest.surveys.wavelengths import (
    UNITS,
    UnknownUnitError,
    likely_units,
    medium_of,
    settled,
    to_angstrom,
)  # fmt: skip
from specshards.ingest.surveys.wavelengths import unit_of as wavelength_unit_of
from specshards.ingest.tables import Stated

#: The survey of spectra that do not say whose they are, unless `--name` does.
NAME = "table"
_UNIT_KEYS = ("wavelength_unit", "wavelength_units", "wave_unit", "wunit", "spectral_unit", "cunit1")
_FLUX_KEYS = ("flux_unit", "flux_units", "fluxunit", "bunit")
_MEDIUM_KEYS = ("medium", "wavelength_medium", "airorvac", "air_or_vac", "air_or_vacuum", "vacuum", "airvac")
_FRAME_KEYS = ("frame", "wavelength_frame", "restframe", "rest_frame")
#: The largest difference between air and vacuum, of a wavelength, and the share of a pixel that matters.
_AIR, _MATTERS = 2.8e-4, 0.25
#: What fluxes are in, or that per second, per steradian, per area and time and wavelength.
_FLUXES = ("erg / (Angstrom s cm2)", "Jy", "erg / (Angstrom s)", "erg / (s Hz)", "count", "adu", "electron", "photon",
           "DN", "K")  # fmt: skip
_POSITIONS = {
    "ra": "ra", "target_ra": "ra", "raj2000": "ra", "ra_deg": "ra", "ra_icrs": "ra",
    "dec": "dec", "target_dec": "dec", "dej2000": "dec", "decj2000": "dec", "dec_deg": "dec", "de_icrs": "dec",
}  # fmt: skip
_LABELS = {"redshift": "z", "zerr": "z_err", "redshift_err": "z_err", "spectype": "class"}


@dataclass(frozen=True)
class Meaning:
    """What a file says of all its spectra, and what is stated of them.

    Attributes:
        unit: of the wavelengths, as declared. medium, frame, flux_unit: likewise.
        remarks: of guesses, for every spectrum.
        errors: what they are in.
        is_astronomical: whether Angstrom may be guessed.
        how: what is known by whom, for people: `flux unit` -> `1e-17 erg / (Angstrom s cm2), declared`.
    """

    unit: str | None
    medium: str | None
    frame: str
    flux_unit: str | None
    stated: Stated
    layout: str
    source_file: str
    remarks: tuple[str, ...] = ()
    how: Mapping[str, str] = field(default_factory=dict)
    errors: ErrorUnit = AS_FLUX
    is_astronomical: bool = True

    @classmethod
    def of(
        cls, roles: Roles, units: Mapping[str, str], said: Mapping[str, Any], stated: Stated, layout: str,
        source_file: str, unit: str | None = None, *, is_astronomical: bool = True,
    ) -> Meaning:  # fmt: skip
        """What a table's units, its names and its own words say.

        Args:
            said: keys of the file, in lower case. unit: of the wavelengths, where a wide table's names have it.
            is_astronomical: whether something in the file says so; else Angstrom is never guessed.
        """
        unit = (
            unit or units.get(roles.columns.get("wavelength", "")) or roles.said.get("unit") or _of(said, _UNIT_KEYS)
        )
        medium = roles.said.get("medium") or _medium(said)
        frame = roles.said.get("frame") or frame_of(_of(said, _FRAME_KEYS))
        remarks = ["guess the columns by their places: wavelength, flux, error; --columns says them"]
        remarks = remarks if "guessed" in roles.how.values() else []
        declared = units.get(roles.columns.get("flux", "")) or _of(said, _FLUX_KEYS)
        flux_unit = None if declared is None or declared.lower() == "none" else _flux_unit(declared)
        how = {"columns": ", ".join(f"{role} {name} ({roles.how[role]})" for role, name in roles.columns.items())}
        if flux_unit is not None:
            how["flux unit"] = f"{flux_unit}, declared"
        elif stated.unit is not None:
            flux_unit = unit_of(stated.unit)
            how["flux unit"] = f"{flux_unit}, stated"
        else:
            how["flux unit"] = "not declared"
            if declared and declared.lower() not in ("none", "-", "--"):
                remarks.append(f"declare flux in {declared!r}, no unit known here, which is left out; --unit says it")
        errors, more = error_unit(roles, units, declared, flux_unit)
        remarks += [*more, *_passed(roles)]
        if errors.how:
            how["error unit"] = errors.how
        how["frame"] = f"{frame or stated.frame or 'observed'}, {_by_whom(frame, stated.frame)}"
        return cls(
            unit,
            medium,
            frame or stated.frame or "observed",
            flux_unit,
            stated,
            layout,
            source_file,
            tuple(remarks),
            how,
            errors=errors,
            is_astronomical=is_astronomical or (flux_unit is not None and flux_unit != RELATIVE),
        )

    def unit_of(self, low: float, high: float, *, is_falling: bool = False) -> tuple[str, str]:
        """The unit of wavelengths from `low` to `high`, and whether it is `declared`, `stated` or `guessed`.

        Args:
            is_falling: as spectrometers write wavenumbers.

        Raises:
            BadObjectError: nobody can tell.
        """
        is_rest, is_said = self.frame == "rest", bool(self.unit or self.stated.wavelength_unit)
        if not is_said and is_falling:
            refuse_wavenumbers(low, high, is_rest=is_rest)
        try:
            unit = settled(low, high, self.unit, self.stated.wavelength_unit, is_rest=is_rest)
        except UnknownUnitError as fault:
            likely = likely_units(low, high, is_rest=is_rest)
            # From 400 to 4000 a spectrometer of wavenumbers is as likely.
            if is_said or likely != ["nm"] or (low <= 1000 and high >= 3000):
                also = " or cm-1" if not is_said and may_be_wavenumbers(low, high) else ""
                raise BadObjectError(
                    f"{fault.reason}{also}; {SEE}", kind=f"the unit of wavelength is not said; {SEE}"
                ) from None
            self._settle("nm", low, high)
            return "nm", "guessed"
        if not self.unit and not self.stated.wavelength_unit:
            self._settle(unit, low, high)
        declared = self.unit is not None and _known(self.unit) == unit
        return unit, "declared" if declared else "stated" if self.stated.wavelength_unit else "guessed"

    def _settle(self, unit: str, low: float, high: float) -> None:
        """BadObjectError: in a table that need not be an astronomer's, another unit is as likely."""
        # Of a laboratory: 350 to 2500 can be nothing but nm; 600 to 1800, or 4000 to 10000, wavenumbers as well.
        if self.is_astronomical or (unit == "nm" and high <= 3000 and (low < 400 or high > 2000)):
            return
        fits = [name for name in ("nm", "angstrom", "cm-1") if _fits(low, high, name)]
        raise BadObjectError(
            f"wavelengths from {low:.6g} to {high:.6g} may be {' or '.join(fits)}: --wavelength-unit says which; "
            f"{SEE}",
            kind=f"the unit of wavelength is not said; {SEE}",
        )

    def spectrum(
        self, pixels: Pixels, object_id: str, labels: Mapping[str, Any], units: Mapping[str, str],
        row: int | None = None,
    ) -> Spectrum:  # fmt: skip
        """One spectrum, checked.

        Args:
            labels: what the file says of the object, by the names of `meaning_of`. units: of them.

        Raises:
            BadObjectError: it cannot be used.
        """
        wave = np.asarray(pixels.wavelength, np.float64)
        lengths = {name: len(v) for name, v in pixels._asdict().items() if v is not None}
        if len(set(lengths.values())) != 1:
            raise BadObjectError("inconsistent lengths: " + ", ".join(f"{name} {n}" for name, n in lengths.items()))
        real = np.flatnonzero(np.isfinite(wave) & (wave > 0))
        if len(real) < 2:
            raise BadObjectError("no wavelengths: none above 0")
        inside = slice(real[0], real[-1] + 1)
        wave = wave[inside]
        if np.isnan(wave).any():
            raise BadObjectError("impossible grid: wavelengths are missing between others")
        unit, how_unit = self.unit_of(
            float(wave.min()), float(wave.max()), is_falling=bool((np.diff(wave) < 0).all())
        )
        medium, how_medium, guess = self._medium_of(wave, unit)
        is_turned = wave[0] > wave[-1] if unit != "cm-1" else wave[0] < wave[-1]
        at = slice(None, None, -1) if is_turned else slice(None)
        flux = np.array(pixels.flux[inside][at], np.float64)
        ivar = self.errors.ivar(pixels, inside)
        remarks = list(self.remarks) + guess
        if how_unit == "guessed":
            remarks.append(
                f"do not say the unit of wavelength: {UNITS[unit]} is a guess by its range; --wavelength-unit says it"
            )
        if ivar is not None and not (ivar > 0).any():
            ivar = None
            remarks.append("give errors that are all 0, which say nothing")
        if ivar is None:
            remarks.append("have no errors (ivar)")
            if pixels.mask is None and _zeros(flux):
                remarks.append("hold runs of pixels that are exactly 0, which are kept as they are: no data?")
        mask = ~np.isfinite(flux)
        if pixels.mask is not None:
            bad = np.asarray(pixels.mask[inside][at])
            bad = bad if bad.dtype == bool else ~(bad == 0)
            mask |= bad
            if bad.sum() > len(bad) / 2:
                remarks.append("have more than half of their pixels masked: anything but 0 is taken for bad")
        if (none := missing(flux)).any():
            mask |= none
            remarks.append(NO_VALUE)
        if ivar is not None:
            ivar = ivar[at].copy()
        known = {name: value for name, value in labels.items() if name not in ("ra", "dec")}
        # A class of soils is not one of the sky: it would be taken away as impossible.
        if known.get("class") not in (*CLASSES, None):
            known[further_name("class")] = known.pop("class")
            remarks.append("have a class that is none of the sky's, kept as class_")
        ra, dec = position(labels.get("ra"), labels.get("dec"), is_exact=row is not None)
        spectrum = checked(
            Spectrum(
                object_id=object_id, survey=self.stated.name or NAME, release=None, ra=ra, dec=dec, flux=flux,
                ivar=np.ones_like(flux) if ivar is None else ivar, wavelength=wave[at].copy(), mask=mask,
                layout=self.layout, source_file=self.source_file, label_source="table" if known else None,
                labels=known, row=row, has_ivar=ivar is not None, flux_unit=self.flux_unit, wavelength_unit=unit,
                medium=medium, frame=self.frame, remarks=tuple(remarks), units=units,
            ),
            ANY_GRID,
        )  # fmt: skip
        if ivar is None:
            spectrum.ivar = np.full_like(spectrum.flux, np.nan)  # ones would pass for a measurement
        spectrum.extra["understood"] = {
            **self.how, "wave unit": f"{UNITS.get(unit, unit)}, {how_unit}",
            "medium": f"{medium}, {how_medium}",
        }  # fmt: skip
        return spectrum

    def _medium_of(self, wave: npt.NDArray[Any], unit: str) -> tuple[str, str, list[str]]:
        if self.medium is not None:
            return medium_of(self.medium, self.stated.medium), "declared", []
        if unit == "cm-1":
            return "vacuum", "by convention", []
        if self.stated.medium is not None:
            return self.stated.medium, "stated", []
        angstrom = np.sort(to_angstrom(wave, unit))
        step = float(np.median(np.diff(angstrom) / angstrom[1:]))
        if step * _MATTERS < _AIR and angstrom[-1] > 2000:
            said = "do not say whether wavelengths are in air or vacuum: vacuum is a guess; --medium says it"
            return "vacuum", "guessed", [said]
        return "vacuum", "guessed", []


def _flux_unit(declared: str) -> str | None:
    """A unit that a flux can have; a slip in its spelling often gives another unit that astropy knows."""
    from astropy import units

    if (unit := unit_of(declared)) is None or unit == RELATIVE:
        return unit
    found = units.Unit(unit)
    bases = [units.Unit(base) for base in _FLUXES]
    per = [units.dimensionless_unscaled, units.s**-1, units.sr**-1, units.cm**-2 * units.s**-1 * units.AA**-1]
    return unit if any(found.is_equivalent(base * one) for base in bases for one in per) else None


def _by_whom(declared: str | None, stated: str | None) -> str:
    return "declared" if declared else "stated" if stated else "guessed"


def _fits(low: float, high: float, unit: str) -> bool:
    first, last = sorted(to_angstrom(np.array([low, high]), unit))
    return first >= 900 and last <= 300_000


def _known(unit: str) -> str | None:
    try:
        return wavelength_unit_of(unit)
    except BadObjectError:
        return None


def may_be_wavenumbers(low: float, high: float) -> bool:
    """Whether numbers without a unit can be 1/cm, of a spectrometer from 0.7 to 70 micron."""
    return low >= 140 and high <= 15_000


def refuse_wavenumbers(low: float, high: float, *, is_rest: bool = False) -> None:
    """BadObjectError for numbers that fall, as spectrometers write wavenumbers, where they can be that."""
    if not may_be_wavenumbers(low, high):
        return
    units = [unit for unit in likely_units(low, high, is_rest=is_rest) if unit in UNITS]
    raise BadObjectError(
        f"wavelengths that fall from {high:.6g} to {low:.6g} without a unit may be wavenumbers: say what they are, "
        f"with --wavelength-unit {' or '.join(['cm-1', *units])}; {SEE}",
        kind=f"wavelengths that fall, without a unit, and may be wavenumbers; {SEE}",
    )


def _passed(roles: Roles) -> list[str]:
    """Remarks on the columns that could have been the one that is taken."""
    return [
        f"have {', '.join(names[:3])}{', ...' if len(names) > 3 else ''} besides {roles.columns[role]}, which is "
        f"taken for the {role}; --columns says another"
        for role, names in roles.passed.items()
    ]  # fmt: skip


def labels_of(names: tuple[str, ...]) -> dict[str, str]:
    """Column -> our name: of labels, of positions, and of further labels; of two that mean one thing, the first."""
    plain = {label_name(name): name for name in reversed(names)}
    found = {plain[their]: our for our, their in spellings.of_stars(plain).items()}
    for name, column in plain.items():
        our = _POSITIONS.get(name) or _LABELS.get(name) or name
        if column not in found and our not in found.values():
            found[column] = our
    return found


def value_of(name: str, value: Any) -> Any:
    """A label as the schema takes it: float, int, bool or str; None where it is missing."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if name == "class":
        return said_class(value)
    if name in LIMITS:
        return error(value) if name.endswith("_err") else label(value)
    if isinstance(value, str):
        return text(value)
    if isinstance(value, bool) or value is None:
        return value
    return None if label(value, is_known=False) is None else value


def _of(said: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    return next((found for key in keys if (found := text(said.get(key))) is not None), None)


def _medium(said: Mapping[str, Any]) -> str | None:
    for key in _MEDIUM_KEYS:
        if (value := text(said.get(key))) is not None:
            word = value.removesuffix(".0").lower()
            if key == "vacuum" and word in (*TRUE, *FALSE):
                return "vacuum" if word in TRUE else "air"
            return value
    return None


def _zeros(flux: npt.NDArray[np.float64]) -> bool:
    """Whether three or more pixels in a row are 0, in a spectrum that mostly is not."""
    zero = flux == 0
    return bool((zero[:-2] & zero[1:-1] & zero[2:]).any() and zero.mean() < 0.5)

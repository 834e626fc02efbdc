"""Wavelengths along an axis of a FITS image, and where such a file says that it was pointed.

Sources: FITS 4.0, sections 8.2 (CRPIX, CRVAL, CDELT, CD) and 8.4 (spectral coordinates: WAVE is vacuum, AWAV air, and
WAVE-LOG a logarithmic axis); the convention of IRAF (`onedspec.specwcs`): DC-FLAG = 1 for log10 of Angstrom,
`WAT1_001` for the unit.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import log_grid
from specshards.ingest.fits.hdu import HeaderLike
from specshards.ingest.limits import check_pixels
from specshards.ingest.surveys.common import number, position, text
from specshards.ingest.surveys.declared import FALSE, TRUE
from specshards.ingest.surveys.wavelengths import AIR_FROM, medium_of, settled, to_angstrom
from specshards.ingest.tables import UNSTATED, Stated

#: How a refusal of a file that nobody knows ends.
SEE = "see docs/any-spectrum.md"
#: Remarks on what no file says.
GUESSED_AIR = (
    "do not say whether wavelengths are in air or vacuum: air is a guess (of IRAF's line lists); --medium says it"
)
GUESSED_VACUUM = "do not say whether wavelengths are in air or vacuum: vacuum is a guess; --medium says it"
GUESSED_UNIT = "do not say the unit of wavelength: Angstrom is a guess by its range; --wavelength-unit says it"
TOPOCENTRIC = "have wavelengths that are not corrected for the motion of Earth (up to 30 km/s)"

_SKY = ("RA", "DEC-", "GLON", "GLAT", "ELON", "ELAT")
_OTHER_AXES = {"FREQ": "frequencies", "ENER": "energies", "VELO": "velocities", "VRAD": "velocities",
               "VOPT": "velocities", "ZOPT": "redshifts", "PIXEL": "pixels"}  # fmt: skip
_NO_UNIT = ("", "pixel", "pixels", "pix", "none", "unknown")
_LOG_TYPES = ("LOGLIN", "LOG-LINEAR", "LOGLINEAR", "WAVE-LOG", "AWAV-LOG", "LOGLAM", "LOG-LAM", "LOG10")


class Axis(NamedTuple):
    """Wavelengths as a header gives them.

    Attributes:
        wavelength: float64 `(N,)`, in `unit`, a name of `ingest.surveys.wavelengths`. medium: `vacuum` or `air`.
        coefficients: of a grid in log10 of Angstrom in vacuum, as `Spectrum.wave_coeff0` and `wave_coeff1`.
        remarks: what of this is a guess.
    """

    wavelength: npt.NDArray[np.float64]
    unit: str
    medium: str
    coefficients: tuple[float, float] | tuple[None, None] = (None, None)
    remarks: tuple[str, ...] = ()


def stated_of(file: object) -> Stated:
    """What the user says of an open file."""
    said = getattr(file, "stated", UNSTATED)
    return said if isinstance(said, Stated) else UNSTATED


def steps(header: HeaderLike) -> tuple[float, float, float] | None:
    """The coordinate at the reference pixel, the step and the reference pixel (from 1); None without such an axis.

    Raises:
        BadObjectError: CD1_1 and CDELT1 contradict each other.
    """
    value, cd, delta = (number(header.get(key)) for key in ("CRVAL1", "CD1_1", "CDELT1"))
    step = cd if cd else delta
    if value is None or not step:
        return None
    if cd and delta and abs(cd - delta) > 1e-3 * abs(cd) and delta != 1:
        raise BadObjectError(f"CD1_1 = {cd:g} and CDELT1 = {delta:g} contradict each other")
    pixel = number(header.get("CRPIX1"))
    return value, step, 1.0 if pixel is None else pixel


def is_spectral(header: HeaderLike) -> bool:
    """Whether the first axis of an image can be one of wavelengths: it has steps, and is none of the sky."""
    kind = (text(header.get("CTYPE1")) or "").upper()
    if kind.startswith(_SKY) or number(header.get("CRVAL1")) is None:
        return False
    return any(number(header.get(key)) for key in ("CD1_1", "CDELT1"))


def axis_of(
    header: HeaderLike, n: int, stated: Stated = UNSTATED, *, medium: str | None = None, is_rest: bool = False
) -> Axis:
    """The wavelengths of `n` pixels.

    Args:
        stated: by the user; counts where the header says nothing.
        medium: of a survey of which it is known; else the header's, the user's, or a guess.
        is_rest: wavelengths in the rest frame may be shorter.

    Raises:
        BadObjectError: no such axis, one of something else, or one of which nobody can tell the unit.
    """
    kind = (text(header.get("CTYPE1")) or "").upper()
    if (other := _OTHER_AXES.get(kind[:4]) or _OTHER_AXES.get(kind)) is not None:
        raise BadObjectError(f"CTYPE1 = {kind}: an axis of {other}, not of wavelengths; {SEE}")
    check_pixels(n)
    found = steps(header)
    if found is None:
        raise BadObjectError(f"no CRVAL1 and CDELT1 or CD1_1: no wavelengths; {SEE}")
    value, step, pixel = found
    declared = _declared(header)
    is_log = kind in _LOG_TYPES or number(header.get("DC-FLAG")) == 1
    index = np.arange(1, n + 1) - pixel
    if is_log and value > 20:  # FITS: the reference value is a wavelength, and the axis its natural logarithm
        with np.errstate(over="ignore"):
            wave = value * np.exp(index * step / value)
    else:
        wave = value + index * step
        declared = "log10" if is_log and not (declared or "").lower().startswith("ln") else declared
    low, high = float(wave.min()), float(wave.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise BadObjectError("impossible grid: wavelengths are not finite")
    unit = settled(low, high, declared, stated.wavelength_unit, is_rest=is_rest)
    remarks = [] if declared or stated.wavelength_unit else [GUESSED_UNIT]
    medium, guess = (medium, None) if medium else _medium(header, kind, stated, unit, low, high)
    remarks += [guess] if guess else []
    first = value + (1 - pixel) * step
    is_grid = unit == "log10" and medium == "vacuum" and step > 0
    return Axis(
        log_grid(first, step, n) if is_grid else wave, "angstrom" if is_grid else unit, medium,
        (first, step) if is_grid else (None, None), tuple(remarks),
    )  # fmt: skip


def _declared(header: HeaderLike) -> str | None:
    unit = text(header.get("CUNIT1"))
    if unit is not None and unit.lower() not in _NO_UNIT:
        return unit
    said = re.search(r"units?\s*=\s*\"?([A-Za-z]+)", str(header.get("WAT1_001") or ""))
    if said is None:  # CTYPE1 = 'WAVELENGTH [Ang]'
        said = re.search(r"\[\s*([A-Za-z]+)\s*\]", str(header.get("CTYPE1") or ""))
    return None if said is None else _spelled(said[1])


def _spelled(unit: str) -> str | None:
    """A unit of WAT1; IRAF users write Angstrom in many ways."""
    low = unit.lower()
    return None if low in _NO_UNIT else "angstrom" if low.startswith("ang") else unit


def is_iraf(header: HeaderLike) -> bool:
    """Whether IRAF wrote the dispersion."""
    return header.get("WAT0_001") is not None or header.get("DC-FLAG") is not None


def medium_said(header: HeaderLike) -> str | None:
    """`air` or `vacuum` where a header says it by VACUUM, AIRORVAC or the type of its axis (FITS 4.0, table 25)."""
    said = (text(header.get("VACUUM")) or "").removesuffix(".0").lower()
    if said in (*TRUE, *FALSE):
        return "vacuum" if said in TRUE else "air"
    if header.get("UP_WLSRT") is not None:  # UVES_popler writes vacuum, heliocentric
        return "vacuum"
    if (words := text(header.get("AIRORVAC"))) is not None:
        return medium_of(words)
    kind = (text(header.get("CTYPE1")) or "").upper()
    return {"AWAV": "air", "WAVE": "vacuum"}.get(kind[:4]) if kind[4:] in ("", "-LOG", "-TAB") else None


def _medium(
    header: HeaderLike, kind: str, stated: Stated, unit: str, low: float, high: float
) -> tuple[str, str | None]:
    """The medium, and the remark where it is a guess."""
    said = medium_said(header) or stated.medium
    if said is not None:
        return said, None
    if to_angstrom(np.array([high]), unit)[0] <= AIR_FROM:
        return "vacuum", None
    # The line lists that IRAF identifies arcs by are of air (`linelists$README`), and so are the spectra; telluric
    # O2 in echelle spectra of three observatories lies where it has in air.
    return ("air", GUESSED_AIR) if is_iraf(header) else ("vacuum", GUESSED_VACUUM)


def model_said(header: HeaderLike) -> str | None:
    """The remark on a model of a stellar population: its header has an initial mass function or an age with it."""
    has_age = number(header.get("AGE")) is not None
    library, imf = text(header.get("TPLLIB")), text(header.get("IMF"))
    is_mixture = has_age and (imf is not None or any(header.get(key) is not None for key in ("Z", "[Z/H]", "FEOH")))
    if not (is_mixture or (library is not None and imf is not None)):
        return None
    return "are models of stellar populations by their headers (AGE, IMF or Z), not observations, in the rest frame"


def sky_of(header: HeaderLike, *keys: tuple[str, str]) -> tuple[float, float, tuple[str, ...]]:
    """Position in degrees, NaN where none is said without doubt, and remarks.

    Args:
        keys: pairs of keywords that are looked at in this order; RA and DEC by default. Text is hours and degrees in
            sexagesimal; a number degrees, unless it could be hours too.

    Raises:
        BadObjectError: half a position, or one outside the sky.
    """
    for right, up in keys or (("RA", "DEC"),):
        ra, dec = header.get(right), header.get(up)
        if text(ra) is None and text(dec) is None:
            continue
        if number(ra) == number(dec) == 0:  # none: see `position`
            continue
        equinox = number(header.get("EQUINOX"))
        equinox = number(header.get("EPOCH")) if equinox is None else equinox
        if equinox is not None and abs(equinox - 2000) > 1:
            return (
                math.nan,
                math.nan,
                (f"have a position of another equinox than 2000 ({right}), which is not taken",),
            )
        if isinstance(ra, str) and isinstance(dec, str) and ":" in ra + dec:
            return *position(sexagesimal(ra, 15.0), sexagesimal(dec, 1.0)), ()
        value = number(ra)
        if right in ("RA", "OBJRA") and value is not None and 0 <= value < 24:
            return math.nan, math.nan, (f"have an {right} that may be hours or degrees: no position is taken",)
        return *position(ra, dec), ()
    return math.nan, math.nan, ()


def sexagesimal(said: str, factor: float) -> float:
    """`12:34:56.7` in degrees; `factor` 15 of hours.

    Raises:
        BadObjectError: it is none.
    """
    match = re.fullmatch(r"\s*([+-]?)\s*(\d{1,3})[: ]+(\d{1,2})[: ]+(\d{1,2}(?:\.\d*)?)\s*", said)
    if match is None or float(match[3]) >= 60 or float(match[4]) >= 60:
        raise BadObjectError(f"no usable position: {said!r}")
    value = float(match[2]) + float(match[3]) / 60 + float(match[4]) / 3600
    return (-value if match[1] == "-" else value) * factor


def stem(file: object, source_file: str) -> str:
    """The name of a file without its ends, for spectra that have no id of their own."""
    name = source_file.replace("\\", "/").rpartition("/")[2]
    return re.sub(r"(?i)(\.(fits?|fts|gz|ecsv|txt|dat|csv|ascii))+$", "", name) or name

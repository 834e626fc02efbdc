"""What a user states of spectra whose files do not say it: checked, and the columns by their roles."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from specshards.common.errors import UsageError
from specshards.ingest.limits import MOST_PIXELS
from specshards.ingest.surveys.flux import unit_of
from specshards.ingest.surveys.survey import SURVEYS
from specshards.ingest.surveys.wavelengths import FRAMES
from specshards.ingest.tables import Stated

#: What a column may be, and the words for it in `--columns`.
ROLES: Mapping[str, tuple[str, ...]] = {
    "wavelength": ("wavelength", "wave", "wl", "lambda"),
    "flux": ("flux", "intensity", "reflectance", "absorbance"),
    "error": ("error", "err", "sigma", "flux_error"),
    "ivar": ("ivar",),
    "mask": ("mask", "bad"),
    "id": ("id", "object_id"),
}
_ORDER = ("wavelength", "flux", "error")
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}\Z")


def columns_of(text: str | None) -> Mapping[str, str]:
    """Role -> column, of a text such as `wl,flam,err` or `wavelength=wl,flux=flam,ivar=iv`; empty without one.

    Raises:
        UsageError: it names no flux, a role twice, or one that there is not.
    """
    if text is None:
        return {}
    found: dict[str, str] = {}
    words = [word.strip() for word in text.split(",")]
    known = ", ".join(ROLES)
    for place, word in enumerate(words):
        said, has_role, column = word.partition("=")
        if not has_role:
            if place >= len(_ORDER):
                raise UsageError(f"columns={text}: after wavelength, flux and error say which: one of {known}, and =")
            said, column = _ORDER[place], word
        role = next((role for role, names in ROLES.items() if said.strip().lower() in names), None)
        if role is None:
            raise UsageError(f"columns={text}: {said.strip()} is no role of a column: choose {known}")
        if not column.strip() or role in found:
            raise UsageError(f"columns={text}: give each of {known} one column, by name or number")
        found[role] = column.strip()
    if {"error", "ivar"} <= found.keys():
        raise UsageError(f"columns={text}: give the error or the ivar, not both")
    return found


def wavelengths_of(text: str) -> npt.NDArray[np.float64]:
    """The wavelengths of a text such as `1100:2298:2` (first, last, step): float64 `(n,)`, in the stated unit.

    Raises:
        UsageError: no such text, or a step that does not lead from the first to the last.
    """
    how = f"wavelengths={text}: give first:last:step, such as 1100:2298:2"
    try:
        first, last, step = (float(word) for word in text.split(":"))
    except ValueError:
        raise UsageError(how) from None
    steps = (last - first) / step if step and math.isfinite(first + last + step) else math.nan
    if not 1 <= steps < MOST_PIXELS:
        raise UsageError(how)
    if abs(steps - round(steps)) > 1e-3:
        raise UsageError(f"wavelengths={text}: steps of {step:g} from {first:g} do not end at {last:g}")
    return np.linspace(first, last, round(steps) + 1)


def check_spectra_stated(stated: Stated, survey: str | None = None) -> None:
    """UsageError for what these options do not take, or the files of `survey` say themselves."""
    if survey is not None and survey in SURVEYS and SURVEYS[survey].priority >= 0:
        for name in ("columns", "unit", "frame", "name", "wavelengths"):
            if getattr(stated, name) is not None:
                raise UsageError(
                    f"{name}={getattr(stated, name)}: is for files of no survey that is read here, and those of "
                    f"{survey} say it themselves: leave it out, or read them with SURVEY=table"
                )
    columns_of(stated.columns)
    if stated.wavelengths is not None:
        wavelengths_of(stated.wavelengths)
    if stated.unit is not None and unit_of(stated.unit) is None:
        raise UsageError(
            f"unit={stated.unit}: no unit of flux that is known here: write it as astropy does, such as "
            "erg/s/cm2/AA, mJy or count, or relative where it is not calibrated"
        )
    if stated.frame is not None and stated.frame not in FRAMES:
        raise UsageError(f"frame={stated.frame}: choose {', '.join(FRAMES)}")
    if stated.name is None:
        return
    if not _NAME.match(stated.name):
        raise UsageError(f"name={stated.name}: give a short name of small letters, digits, _ and -")
    if stated.name in SURVEYS and SURVEYS[stated.name].priority >= 0:
        raise UsageError(
            f"name={stated.name}: is a survey that is known here: read its files with SURVEY={stated.name}"
        )

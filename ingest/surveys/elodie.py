"""Teff, log g and [Fe/H] of SDSS stars: those of the spectrum in the ELODIE library that is most like them.

Source: `spreduce1d.pro` and `elodie_best.pro` of idlspec2d, the pipeline behind HDU 2 and the table SpecObj. What it
has classified as STAR is compared with each spectrum of the library; of the one with the smallest reduced chi^2 it
copies TEFF, LOGG and [Fe/H], and 0 for what is not there. All else has 0 in every column. A comparison that failed
has a reduced chi^2 of 0, with 0 degrees of freedom, and therefore is the smallest: what is copied then (an O9.5 star
for one of type G8, in real files) says nothing of the object. In solar metallicity 0 is a value.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.common.spectrum import Fit
from specshards.ingest.surveys.common import label, number
from specshards.ingest.surveys.survey import Unsaid

NAMES = ("teff", "logg", "feh")
# Of the FITS tables (ELODIE_TEFF) and of CasJobs (elodieTEff), in lower case.
_SEPARATORS = ("_", "")
ALIASES = {f"elodie{mark}{name}": name for mark in _SEPARATORS for name in NAMES}
_FAILED, _GOOD = (
    Fit(failed, NAMES, frozenset(ALIASES)) for failed in ("the fit with ELODIE failed (0 degrees of freedom)", None)
)


def labels(get: Callable[[str], Any], kind: str | None) -> tuple[dict[str, Any], Fit | None]:
    """The labels of one object, and whether their fit is good; None where there is none, or nothing tells.

    Args:
        get: the value of a column of HDU 2, by its name in lower case; None where there is none.
        kind: the class.
    """
    if kind != "STAR":
        return {}, None
    values = {name: label(get(f"elodie_{name}")) for name in NAMES}
    if not values["teff"]:
        return {}, None
    freedom = number(get("elodie_dof"))
    if freedom == 0:
        return {}, _FAILED
    return {**values, "logg": values["logg"] or None}, None if freedom is None else _GOOD


def _where(columns: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, npt.NDArray[np.bool_]]:
    def spelled(name: str) -> list[str]:
        return [column for mark in _SEPARATORS if (column := f"elodie{mark}{name}") in columns]

    # Of the whole row, however each column is spelled.
    no_fit = [~(columns[column] > 0) for column in spelled("teff")]
    no_fit += [columns[column] == 0 for column in spelled("dof")]
    found = {}
    for name in NAMES:
        for column in spelled(name):
            is_zero_nothing = name != "feh" or not spelled("teff")
            own = [columns[column] == 0] if is_zero_nothing else []
            found[column] = np.any([np.zeros(len(columns[column]), np.bool_), *own, *no_fit], axis=0)
    return found


def _doubt(names: Collection[str]) -> str | None:
    if not {"elodie_dof", "elodiedof"} & set(names):
        return (
            "ELODIE's degrees of freedom (elodieDOF) are not known: whether the fit behind its labels failed "
            "nobody can tell"
        )
    return None


#: What SDSS catalogues have in place of a label.
UNSAID = Unsaid(tuple(f"elodie{mark}{name}" for mark in _SEPARATORS for name in (*NAMES, "dof")), _where, _doubt)

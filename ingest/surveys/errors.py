"""Which column holds the errors of a flux, by its name.

A name of errors is that of the flux with a word for them before or behind it (FLUX_ERR, ERR_FLUX, ivar_flux), or such
a word alone (STATERROR). Of several the one of the very flux wins: of FLUX it is ERR_FLUX, not ERR_FLUX_TELL_CORR.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from specshards.ingest.surveys.flux import inverse_variance

Kind = Literal["error", "ivar", "variance"]

#: Words of each kind.
_WORDS: dict[str, Kind] = {
    **dict.fromkeys(("ivar", "invvar", "inv_var", "inverse_variance", "inversevariance"), "ivar"),
    **dict.fromkeys(("var", "variance"), "variance"),
    **dict.fromkeys(
        ("error", "errors", "err", "errs", "sigma", "sig", "stddev", "std_dev", "std", "uncertainty", "uncertainties",
         "uncert", "unc", "noise", "staterror", "stat_error", "staterr", "stat_err"),
        "error",
    ),
}  # fmt: skip
_LONGEST_FIRST = sorted(_WORDS, key=len, reverse=True)
#: Words without a _ between them and the flux, and letters.
_BESIDE: dict[str, Kind] = {"errors": "error", "error": "error", "err": "error", "sigma": "error", "unc": "error",
                            "ivar": "ivar", "var": "variance", "e": "error", "d": "error"}  # fmt: skip
_FLUXES = ("flux", "flam", "fnu", "f_lambda", "f_nu", "spec")


class Errors(NamedTuple):
    """What a name says: errors of which kind, of what (in lower case; "" where it does not say)."""

    kind: Kind
    of: str


def errors_in(name: str) -> Errors | None:
    """What a name of errors says; None for any other.

    >>> errors_in("ERR_FLUX_TELL_CORR")
    Errors(kind='error', of='flux_tell_corr')
    """
    plain = _plain(name)
    if plain in _WORDS:
        return Errors(_WORDS[plain], "")
    if "to_noise" in plain:
        return None
    for word in _LONGEST_FIRST:
        for of in (plain.removeprefix(f"{word}_"), plain.removesuffix(f"_{word}")):
            if of != plain:
                return Errors(_WORDS[word], of)
    for word, kind in _BESIDE.items():  # e_flux, eflux, fluxerr
        for of in (plain.removeprefix(word).strip("_"), plain.removesuffix(word).strip("_")):
            if of != plain and of.startswith(_FLUXES):
                return Errors(kind, of)
    return None


def errors_of(flux: str, names: Iterable[str], alike: Collection[str] = ()) -> tuple[Kind, str] | None:
    """The kind and the column of the errors of a column of flux; None without one.

    Args:
        flux: its name. names: of all columns, as written. alike: other names of a flux, in lower case, whose errors
            may be meant where no column has that name.
    """
    said = [(found, name) for name in names if name != flux and (found := errors_in(name)) is not None]
    own, others = _plain(flux), {_plain(name) for name in names}
    for wanted in ({own}, {""}, {own.removeprefix("flux_")}, set(alike) - others):
        for kind in ("ivar", "error", "variance"):
            for found, name in said:
                if found.kind == kind and found.of in wanted:
                    return found.kind, name
    return None


def ivar_of(kind: Kind, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Inverse variances of errors of a kind: float64 `(N,)`, 0 where they are no finite number above 0."""
    if kind == "ivar":
        return np.where(np.isfinite(values) & (values > 0), values, 0.0)
    with np.errstate(invalid="ignore"):
        return inverse_variance(np.sqrt(values) if kind == "variance" else values)


def unused(names: Iterable[str]) -> tuple[str, ...]:
    """The remark on columns that look like errors, in a table of which none is read; empty without any."""
    found = [name for name in names if errors_in(name) is not None]
    if not found:
        return ()
    shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
    return (f"are read without errors, though {shown} may hold some",)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")

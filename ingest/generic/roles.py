"""Which column of a table is which, by its name or by what the user states.

Names count in any case, without the unit in their brackets, and with the words of a unit behind them
(`wavelength_nm`), which declare it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from specshards.common.errors import BadObjectError
from specshards.ingest.plain.text import bare
from specshards.ingest.surveys.errors import errors_of
from specshards.ingest.surveys.stated import columns_of

#: How a refusal of a table that cannot be understood ends.
SEE = "see docs/any-spectrum.md"

_WAVELENGTH = {
    "wavelength", "wavelengths", "wave", "waves", "wl", "wls", "wlen", "wvl", "wav", "lambda", "lam", "lambdas", "w",
    "wave_length", "wavelen", "spectral_axis", "spectralaxis", "angstrom", "angstroms", "nm", "um", "micron",
    "microns", "loglam", "log_lambda", "loglambda", "log_lam", "log_wave", "logwave", "log_wavelength", "ln_lambda",
    "lnlam", "ln_wave", "wavenumber", "wavenumbers", "wave_number", "wn", "obs_wave", "wave_obs",
    "observed_wavelength",
    "wavelength_obs", "rest_wave", "rest_wavelength", "wave_rest", "wavelength_rest", "restwave", "lambda_rest",
    "lambda_obs", "wavelength_air", "wave_air", "lambda_air", "wavelength_vac", "wave_vac", "wavelength_vacuum",
    "lambda_vac", "vacuum_wavelength", "air_wavelength",
}  # fmt: skip
_FLUX = {
    "flux", "fluxes", "flam", "f_lambda", "flambda", "f_lam", "flux_density", "fluxdensity", "flux_lambda", "fnu",
    "f_nu", "flux_nu",
    "intensity", "intensities", "counts", "count", "spec", "spectrum", "spectra", "signal", "reflectance",
    "reflectivity", "absorbance", "absorption", "transmittance", "transmission", "radiance", "irradiance", "emission",
    "normalized_flux", "normalised_flux", "norm_flux", "flux_norm", "relative_flux", "rel_flux", "surf_bright",
}  # fmt: skip
#: Names of an object's id, in the order of preference.
IDS = (
    "object_id", "objectid", "id", "sample_id", "sampleid", "sample", "source_id", "specobjid", "targetid", "obsid",
    "spectrum_id", "spec_id", "object", "name", "sample_name", "spectrum", "file", "filename",
)  # fmt: skip
_UNIT_ENDS = {
    "_nm": "nm", "_um": "um", "_micron": "um", "_microns": "um", "_angstrom": "angstrom", "_angstroms": "angstrom",
    "_aa": "angstrom", "_ang": "angstrom", "_a": "angstrom", "_cm1": "cm-1", "_cm_1": "cm-1",
}  # fmt: skip
_UNIT_NAMES = {
    "angstrom": "angstrom", "angstroms": "angstrom", "nm": "nm", "um": "um", "micron": "um", "microns": "um",
    "wavenumber": "cm-1", "wavenumbers": "cm-1", "wave_number": "cm-1", "wn": "cm-1",
}  # fmt: skip


@dataclass(frozen=True)
class Roles:
    """Which column is which.

    Attributes:
        columns: role (`wavelength`, `flux`, `error`, `ivar`, `variance`, `mask`, `id`) -> column, as written.
        how: role -> `stated`, `named` or `guessed` (by its place).
        said: what the name of the wavelengths declares: `unit`, `medium`, `frame`.
        others: columns without a role.
    """

    columns: Mapping[str, str]
    how: Mapping[str, str]
    said: Mapping[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    def has(self, *roles: str) -> bool:
        """Whether each of these has a column."""
        return all(role in self.columns for role in roles)


def simple(name: str) -> str:
    """A name in lower case, without its unit in brackets, its words joined by _."""
    return re.sub(r"[^a-z0-9]+", "_", bare(name).lower()).strip("_")


def label_name(name: str) -> str:
    """What a column is called as a further label."""
    return simple(name) or "column"


def roles_of(names: Sequence[str], stated: str | None = None) -> Roles:
    """The roles of columns.

    Args:
        names: as written. stated: by the user, see `surveys.stated.columns_of`.

    Raises:
        BadObjectError: a column that the user names is not there.
    """
    plain = {name: simple(name) for name in names}
    found: dict[str, str] = {}
    how: dict[str, str] = {}
    for role, said in columns_of(stated).items():
        found[role], how[role] = _stated(said, names), "stated"
    taken = set(found.values())
    for role, known in (("wavelength", _WAVELENGTH), ("flux", _FLUX)):
        if role in found:
            continue
        names_of = [name for name in names if name not in taken and _is(plain[name], known, role)]
        if names_of:
            best = min(names_of, key=lambda name: (plain[name] not in known, list(names).index(name)))
            found[role], how[role] = best, "named"
            taken.add(best)
    if "flux" in found and stated is None:
        by_plain = {plain[name]: name for name in reversed(names) if name not in taken}
        if (errors := errors_of(plain[found["flux"]], by_plain, _FLUX)) is not None:
            found[errors[0]], how[errors[0]] = by_plain[errors[1]], "named"
            taken.add(by_plain[errors[1]])
    if "id" not in found:
        ids = {plain[name]: name for name in reversed(names) if name not in taken}
        if (first := next((ids[name] for name in IDS if name in ids), None)) is not None:
            found["id"], how["id"] = first, "named"
    its_name = _said(plain[found["wavelength"]]) if "wavelength" in found else {}
    return Roles(found, how, its_name, tuple(name for name in names if name not in found.values()))


def by_place(names: Sequence[str], stated: str | None) -> Roles:
    """Wavelength, flux, error: of columns that have no names."""
    if stated is not None:
        return roles_of(names, stated)
    columns = dict(zip(("wavelength", "flux", "error"), names, strict=False))
    return Roles(columns, dict.fromkeys(columns, "guessed"), {}, tuple(names[3:]))


def _stated(said: str, names: Sequence[str]) -> str:
    for same in (
        lambda name: name == said,
        lambda name: name.lower() == said.lower(),
        lambda name: bare(name) == said,
    ):
        if (found := next((name for name in names if same(name)), None)) is not None:
            return found
    if said.isdigit() and 1 <= int(said) <= len(names):
        return names[int(said) - 1]
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    raise BadObjectError(f"no column {said}, which --columns names: it has {shown}", kind=f"no column {said}")


def _is(name: str, known: set[str], role: str) -> bool:
    if name in known:
        return True
    end = next((end for end in _UNIT_ENDS if name.endswith(end)), None)
    return role == "wavelength" and end is not None and name.removesuffix(end) in known


def _said(name: str) -> dict[str, str]:
    said: dict[str, str] = {}
    if name in _UNIT_NAMES:
        said["unit"] = _UNIT_NAMES[name]
    elif name.startswith("ln"):
        said["unit"] = "ln"
    elif name.startswith("log"):
        said["unit"] = "log10"
    elif (end := next((end for end in _UNIT_ENDS if name.endswith(end)), None)) is not None:
        said["unit"] = _UNIT_ENDS[end]
    words = name.split("_")
    if "air" in words:
        said["medium"] = "air"
    if {"vac", "vacuum"} & set(words):
        said["medium"] = "vacuum"
    if "rest" in words or name == "restwave":
        said["frame"] = "rest"
    if {"obs", "observed"} & set(words):
        said["frame"] = "observed"
    return said

"""Which column of a table is which, by its name or by what the user states.

Names count in any case, without the unit in their brackets, and with the words of a unit behind them
(`wavelength_nm`), which declare it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from specshards.common.errors import BadObjectError
from specshards.ingest.plain.text import bare
from specshards.ingest.surveys.errors import errors_in, errors_of
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
#: Of several names the first of these groups counts; the name of the thing itself stands alone in its own.
_BEST: Mapping[str, tuple[frozenset[str], ...]] = {
    "wavelength": (
        frozenset({"wavelength", "wave", "lambda"}), frozenset({"loglam", "log_lambda", "loglambda", "log_wave"}),
    ),
    "flux": (frozenset({"flux"}),),
}  # fmt: skip
#: What counts last: such a name may mean something else.
_WEAK = frozenset({
    "w", "angstrom", "angstroms", "nm", "um", "micron", "microns", "wavenumber", "wavenumbers", "wave_number", "wn",
    "count", "spec", "spectrum", "spectra", "signal", "absorption", "emission",
})  # fmt: skip
#: Of two wavelengths of one spectrum, those are taken that need no conversion.
_PREFERRED = (("vac", "vacuum"), ("obs", "observed"))
_RELATIVE = {
    f"{word}{gap}{error}" for word in ("relative", "rel", "fractional", "frac", "percent", "percentage", "pct")
    for gap in ("_", "") for error in ("error", "errors", "err", "uncertainty", "unc", "sigma", "std")
}  # fmt: skip
#: Names of errors where nothing is called so: in the order of what they can mean.
_ALONE = ("sd", "rms", "e")
_CLEAR = ("error", "errors", "err", "errs")
#: Errors twice in one name: the second word says what the values are.
_TWICE = {
    "ivar": re.compile("(error|err|sigma|noise)_?(ivar|invvar|inv_var|inverse_variance)"),
    "variance": re.compile("(error|err|sigma|noise)_?(var|variance)"),
}  # fmt: skip
#: Relative errors of a flux, or errors of a relative flux.
_UNSURE = re.compile("(relative|rel|fractional|frac|percent|pct)_(flux|spec)")
#: Not errors themselves, and said by those who give none.
_INSTEAD = {"weight", "weights", "wt", "wgt", "snr", "sn", "s_n"}
_MAGNITUDE = re.compile(r"(?:\A|_)(?:ab_?)?(?:mag|magnitude)s?(?:_|\Z)")
_FLAGS = re.compile(r"(?:\A|_)(?:mask|bad|badpix|good|dq|quality|qual|flags?)(?:_|\Z)")
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
            `error`: `relative` or `percent`, of the flux.
        others: columns without a role.
        passed: role -> those of `others` that could have had it.
    """

    columns: Mapping[str, str]
    how: Mapping[str, str]
    said: Mapping[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    passed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def has(self, *roles: str) -> bool:
        """Whether each of these has a column."""
        return all(role in self.columns for role in roles)


def simple(name: str) -> str:
    """A name in lower case, without its unit in brackets, its words joined by _."""
    return re.sub(r"[^a-z0-9]+", "_", bare(name).lower()).strip("_")


def label_name(name: str) -> str:
    """What a column is called as a further label."""
    return simple(name) or "column"


class AmbiguousColumnsError(BadObjectError):
    """Nobody can tell which of several columns is the one, but a user can."""


def roles_of(names: Sequence[str], stated: str | None = None) -> Roles:
    """The roles of columns.

    Args:
        names: as written. stated: by the user, see `surveys.stated.columns_of`.

    Raises:
        AmbiguousColumnsError: wavelengths and several fluxes, or several wavelengths and a flux.
        BadObjectError: a column that the user names is not there.
    """
    plain = {name: _written(name, i, names) for i, name in enumerate(names)}
    found: dict[str, str] = {}
    how: dict[str, str] = {}
    passed: dict[str, tuple[str, ...]] = {}
    for role, said in columns_of(stated).items():
        found[role], how[role] = _stated(said, names), "stated"
    if "flux" in found and _MAGNITUDE.search(simple(found["flux"])):
        raise BadObjectError(
            f"--columns {stated}: {found['flux']} is a magnitude; write the flux, 10**(-0.4 m), instead"
        )
    taken = set(found.values())
    named = {
        role: [name for name in names if name not in taken and _is(plain[name], known, role)]
        for role, known in (("wavelength", _WAVELENGTH), ("flux", _FLUX)) if role not in found
    }  # fmt: skip
    is_spectrum = all(role in found or named[role] for role in ("wavelength", "flux"))
    for role, candidates in named.items():
        if not candidates:
            continue
        best = _best(role, candidates, plain)
        if len(best) > 1 and is_spectrum:
            raise _ambiguous(role, best, names, plain)
        found[role], how[role] = best[0], "named"
        taken.add(best[0])
        if more := tuple(name for name in candidates if name != best[0]):
            passed[role] = more
    its_name = _said(plain[found["wavelength"]]) if "wavelength" in found else {}
    if "flux" in found and stated is None:
        by_plain = {plain[name]: name for name in reversed(names) if name not in taken}
        if (errors := _errors(plain[found["flux"]], by_plain)) is not None:
            kind, name, relative = errors
            found[kind], how[kind] = by_plain[name], "named"
            taken.add(by_plain[name])
            its_name |= {"error": relative} if relative else {}
    if "id" not in found:
        ids = {plain[name]: name for name in reversed(names) if name not in taken}
        if (first := next((ids[name] for name in IDS if name in ids), None)) is not None:
            found["id"], how["id"] = first, "named"
    return Roles(found, how, its_name, tuple(name for name in names if name not in found.values()), passed)


def unread(names: Iterable[str], *, has_errors: bool, has_mask: bool) -> tuple[str, ...]:
    """Remarks on columns of a spectrum's pixels without a role, that may hold its errors or mark bad pixels."""
    names = tuple(names)
    errors = [name for name in names if may_be_errors(name) or simple(name) in _INSTEAD]
    masks = [name for name in names if _FLAGS.search(simple(name))]
    said = []
    if errors:
        if has_errors:
            said.append(f"have more columns that may be errors, which are not looked at: {_shown(errors)}")
        else:
            said.append(f"are read without errors, though {_shown(errors)} may hold some")
    if masks and not has_mask:
        said.append(f"have {_shown(masks)}, which may mark bad pixels and is not looked at; --columns mask= says it")
    return tuple(said)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def may_be_errors(name: str) -> bool:
    """Whether a column that is not read may hold errors."""
    plain = simple(name)
    return errors_in(plain) is not None or plain in _ALONE or plain in _RELATIVE or plain in _INSTEAD


def is_plain_error(name: str) -> bool:
    """Whether a column is called error, sigma, ..., or that of a flux; not one of a label, such as `teff_err`."""
    plain = simple(name)
    found = errors_in(plain)
    return plain in _ALONE or (found is not None and (found.of == "" or found.of in _FLUX))


def _written(name: str, place: int, names: Sequence[str]) -> str:
    """`simple`, of a second column of a name without the number that it got for that."""
    before = name.removesuffix(f"_{place + 1}")
    return simple(before if before in names[:place] else name)


def _best(role: str, candidates: Sequence[str], plain: Mapping[str, str]) -> list[str]:
    def rank(name: str) -> int:
        groups = _BEST[role]
        place = next((i for i, group in enumerate(groups) if plain[name] in group), None)
        if place is not None:
            return place
        return len(groups) + (plain[name] in _WEAK)

    first = min(map(rank, candidates))
    best = [name for name in candidates if rank(name) == first]
    for words in _PREFERRED:
        if len(best) > 1 and (better := [name for name in best if set(words) & set(plain[name].split("_"))]):
            best = better
    return best


def _ambiguous(
    role: str, best: Sequence[str], names: Sequence[str], plain: Mapping[str, str]
) -> AmbiguousColumnsError:  # fmt: skip
    if len({plain[name] for name in best}) == 1:
        places = " and ".join(str(place) for place, name in enumerate(names, 1) if name in best)
        said = f"columns {places} have one name, {plain[best[0]]}: --columns says which is which, by number"
    else:
        said = f"{' and '.join(best[:4])} may each be the {role}: --columns says which is which"
    return AmbiguousColumnsError(f"{said}; {SEE}", kind=f"several columns that may be the {role}; {SEE}")


def _errors(flux: str, names: Collection[str]) -> tuple[str, str, str] | None:
    """Kind and plain name of the errors of a flux, and `relative` or `percent` where they are that."""
    relative = [name for name in names if name in _RELATIVE or name.removeprefix(f"{flux}_") in _RELATIVE]
    combined = {name: kind for name in names for kind, words in _TWICE.items() if words.fullmatch(name)}
    left = {*relative, *combined, *(name for name in names if _UNSURE.match(name) and not flux.startswith("rel"))}
    plain = [name for name in names if name not in left]
    if (errors := errors_of(flux, [*plain, flux], _FLUX)) is not None:
        found = errors_in(errors[1])
        alone = [name for name in plain if (one := errors_in(name)) and one.of == "" and one.kind == errors[0]]
        if found is None or found.of != "" or len(alone) < 2:
            return errors[0], errors[1], ""
        clear = [name for name in alone if name in _CLEAR]
        return (errors[0], clear[0], "") if len(clear) == 1 else None
    if len(combined) == 1:
        return next((kind, name, "") for name, kind in combined.items())
    if len(relative) == 1:
        return "error", relative[0], "percent" if re.search("percent|pct", relative[0]) else "relative"
    alone = [name for name in plain if name in _ALONE]
    return ("error", alone[0], "") if len(alone) == 1 and not (combined or relative) else None


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

"""What tables call our labels.

The spellings are those that surveys publish: LAMOST (LASP, CNN, DD-Payne), SEGUE's SSPP, APOGEE, GALAH, Gaia, DESI;
ELODIE's are SDSS's own (`elodie`).
"""

from __future__ import annotations

from collections.abc import Collection

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import SN_SURVEY

_VALUES = {
    "teff": ("teff", "t_eff"), "logg": ("logg", "log_g", "log(g)"),
    "feh": ("feh", "fe_h", "[fe/h]", "fe/h", "_fe_h_", "__fe_h_"),  # the last two as VizieR writes [Fe/H]
}  # fmt: skip
#: Our labels of stars.
OF_STARS = frozenset(name + end for name in _VALUES for end in ("", "_err"))
#: Who measured, behind the name: `teff_lasp`, `feh_cnn`.
_PIPELINES = (
    "lasp", "cnn", "payne", "ddpayne", "dd_payne", "slam", "adop", "sspp", "gspphot", "gspspec", "aspcap", "spec",
    "astronn", "apogee", "galah", "lamost", "segue", "desi", "rvs", "atmo",
)  # fmt: skip
_ERRORS = (
    "{}_err", "{}err", "{}_error", "{}_unc", "{}unc", "{}_uncertainty", "{}_sigma", "e_{}", "err_{}", "sigma_{}",
)  # fmt: skip


def _stems(name: str) -> list[str]:
    values = _VALUES[name]
    return [*values, *(f"{value}_{by}" for value in values for by in _PIPELINES), f"{name}adop"]


#: A column of errors -> that of their values, in lower case.
STEM_OF = {form.format(stem): stem for name in _VALUES for stem in _stems(name) for form in _ERRORS}
#: Usual column names of catalogues, in lower case, and ours; those of one survey are its `aliases`.
ALIASES = {
    **{form.format(stem): f"{name}_err" for name in _VALUES for stem in _stems(name) for form in _ERRORS},
    **{stem: name for name in _VALUES for stem in _stems(name)},
    "redshift": "z", "zerr": "z_err", "z_error": "z_err", "redshift_err": "z_err", "zwarn": "zwarning",
    "spectype": "class", "subtype": "subclass",
    "snmedian": SN_SURVEY, "target_ra": "ra", "target_dec": "dec", "plug_ra": "ra", "plug_dec": "dec",
}  # fmt: skip
#: What is [M/H], of all metals, and not [Fe/H].
ALL_METALS = {
    name + end
    for name in ("m_h", "mh", "[m/h]", "m/h", "_m_h_", "__m_h_")
    for end in ("", "_gspphot", "_gspspec", "_atm", "_spec")
}


def of_stars(names: Collection[str]) -> dict[str, str]:
    """Our labels of stars and their errors -> the columns, in lower case, of a table that calls them otherwise.

    Raises:
        BadObjectError: two columns of one meaning, none of them of our own name.
    """
    found: dict[str, str] = {}
    for our in _VALUES:
        values = [our] if our in names else [name for name in names if ALIASES.get(name) == our]
        if not values:
            continue
        error = f"{our}_err"
        errors = [error] if error in names else [name for name in names if STEM_OF.get(name) == values[0]]
        for meaning, columns in ((our, values), (error, errors)):
            if len(columns) > 1:
                raise BadObjectError(
                    f"columns {' and '.join(sorted(columns))} both mean {meaning}; rename or drop all but one"
                )
            if columns and columns != [meaning]:
                found[meaning] = columns[0]
    return found

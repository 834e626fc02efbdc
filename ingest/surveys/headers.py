"""What the header of a survey file says against its layout: another medium, or another unit of flux.

A layout is what a survey publishes; a file that says otherwise was changed, and its numbers would be wrong. What a
header does not say, or says in words that nobody knows, counts for nothing.
"""

from __future__ import annotations

from functools import lru_cache

from specshards.common.errors import BadObjectError
from specshards.ingest.fits.hdu import HeaderLike
from specshards.ingest.surveys.common import text
from specshards.ingest.surveys.declared import FALSE
from specshards.ingest.surveys.flux import RELATIVE, cgs_factor, unit_of
from specshards.ingest.surveys.wavelengths import UnknownUnitError, medium_of


def check_header(header: HeaderLike, unit: str, column: str | None = None) -> None:
    """`check_medium`, and BadObjectError where a header says that flux is in another unit than `unit`.

    Args:
        header: of the file, or of the image or table with the spectrum.
        unit: of the layout's flux, as astropy reads it; `RELATIVE` where flux is not calibrated.
        column: of a table, the one with the flux, whose `TUNIT` counts.
    """
    check_medium(header)
    units = {"BUNIT": text(header.get("BUNIT"))}
    if column is not None:
        fields = header.get("TFIELDS")
        for i in range(1, fields + 1 if isinstance(fields, int) else 1):
            if (said := text(header.get(f"TUNIT{i}"))) and (text(header.get(f"TTYPE{i}")) or "").lower() == column:
                units[f"TUNIT{i}"] = said
    for key, said in units.items():
        if said is not None and _is_other(said, unit):
            raise BadObjectError(f"header says {key} = {said!r}: flux in another unit than this layout has, {unit}")


def check_medium(header: HeaderLike) -> None:
    """BadObjectError where a header says that wavelengths are in air."""
    for key in ("VACUUM", "AIRORVAC", "CTYPE1"):
        if _is_air(key, said := text(header.get(key))):
            raise BadObjectError(f"header says {key} = {said}: wavelengths in air, where this layout has vacuum")


def _is_air(key: str, said: str | None) -> bool:
    if said is None:
        return False
    if key == "VACUUM":
        return said.removesuffix(".0").lower() in FALSE
    if key == "CTYPE1":  # FITS 4.0, table 25
        return said.upper().startswith("AWAV")
    try:
        return medium_of(said) == "air"
    except UnknownUnitError:
        return False


@lru_cache(maxsize=256)
def _is_other(said: str, usual: str) -> bool:
    """Whether a known unit is another one; spSpec files of SDSS write erg/cm/s/Ang for erg/cm^2/s/Ang."""
    from astropy import units

    if (unit := unit_of(said)) is None or unit == usual:
        return False
    factor = cgs_factor(unit)
    if usual == RELATIVE:
        return factor is not None or units.Unit(unit).is_equivalent(units.Jy)
    if unit != RELATIVE and factor is None:
        its, slip = units.Unit(unit), units.erg / units.s / units.cm / units.AA
        factor = float(its.to(slip)) if its.is_equivalent(slip) else None
    expected = cgs_factor(usual)
    return factor is None or expected is None or abs(factor / expected - 1) > 1e-6

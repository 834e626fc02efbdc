"""The last resort: whatever the loaders of `specutils` open, also those that a user has registered with it.

It is imported only for a FITS file that no other reader knows, and is an extra: `pip install
"specshards[specutils]"`. A loader says the units of wavelength and flux, the kind of uncertainty and the mask; what
it returns goes through the same checks as everything else. Its loaders for any table and any image, and for surveys
that have a reader here, are not asked: the readers here do that, and say what they guess.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.archives import split
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.limits import MOST_ROWS, check_pixels
from specshards.ingest.surveys.axis import GUESSED_VACUUM, stated_of, stem
from specshards.ingest.surveys.common import checked, floats
from specshards.ingest.surveys.flux import RELATIVE, inverse_variance, unit_of
from specshards.ingest.surveys.survey import Reader, Survey, register

SURVEY = "specutils"
# Of surveys that have readers here: what these do not take is damaged, and another reader would hide it.
_READ_HERE = ("sdss", "apogee", "desi", "jwst", "hst", "6dfgs", "2dfgrs", "galah", "manga", "data central")
_GENERIC = {"ASCII", "ECSV", "IPAC", "tabular-fits", "wcs1d-fits", "iraf", "Cubetest1"}


def is_there() -> bool:
    """Whether specutils is installed; it is not imported."""
    return find_spec("specutils") is not None


def recognise(file: FitsFile) -> str | None:
    """`specutils-` and the name of the loader that takes a file; None without one, or without specutils."""
    if file.path is None or not is_there() or split(file.path) is not None:  # whose loaders open files
        return None
    found = _formats(str(file.path))
    return f"specutils-{found[0].lower().replace(' ', '-')}" if found else None


def _formats(path: str) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from astropy.io import registry
        from specutils import SpectrumList

        try:
            names = registry.identify_format("read", SpectrumList, path, None, [], {})
        except Exception:  # of an identifier that did not expect such a file
            return []
    return sorted(one for one in names if one not in _GENERIC and not one.lower().startswith(_READ_HERE))


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum | BadObjectError]:
    """Every spectrum that the loader returns.

    Raises:
        BadObjectError: the loader fails, or returns nothing.
    """
    from specutils import SpectrumList

    name = next(name for name in _formats(str(file.path)) if layout.endswith(name.lower().replace(" ", "-")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            spectra = SpectrumList.read(str(file.path), format=name)
        except Exception as error:  # whatever somebody's loader makes of a damaged file
            said = " ".join(str(error).split())[:120]
            raise BadObjectError(f"specutils' loader {name} fails: {type(error).__name__}: {said}") from error
    if not 0 < len(spectra) <= MOST_ROWS:
        raise BadObjectError(f"specutils' loader {name} returns {len(spectra)} spectra")
    base, count = stem(file, source_file), 0
    for found in spectra:
        fluxes = np.atleast_2d(np.asarray(found.flux.value))
        for line in range(len(fluxes)):
            row = None if len(spectra) == 1 and len(fluxes) == 1 else count
            count += 1
            try:
                if fluxes.ndim != 2:
                    raise BadObjectError(f"an array of shape {found.flux.shape}, not spectra")
                yield _spectrum(
                    file, found, line, base if row is None else f"{base}-{count}", row, layout, source_file
                )
            except BadObjectError as error:
                error.row = row
                yield error


def _spectrum(
    file: FitsFile, found: Any, line: int, name: str, row: int | None, layout: str, source_file: str
) -> Spectrum:
    from astropy import units

    flux = floats(np.atleast_2d(np.asarray(found.flux.value))[line])
    check_pixels(len(flux))
    try:
        wave = np.asarray(found.spectral_axis.to_value(units.AA, units.spectral()), np.float64)
    except units.UnitsError as error:
        raise BadObjectError(f"its axis is in {found.spectral_axis.unit}, which is no wavelength") from error
    ivar = _ivar(found.uncertainty, line, flux.shape)
    mask = np.zeros(len(flux), np.bool_) if found.mask is None else np.atleast_2d(np.asarray(found.mask, bool))[line]
    order = slice(None, None, -1) if len(wave) > 1 and wave[0] > wave[-1] else slice(None)
    said, stated = str(found.flux.unit), stated_of(file)
    return checked(
        Spectrum(
            object_id=name, survey=SURVEY, release=None, ra=np.nan, dec=np.nan, flux=flux[order],
            ivar=(np.ones(len(flux)) if ivar is None else ivar)[order], wavelength=wave[order],
            mask=mask[order].copy(), layout=layout, source_file=source_file, row=row, has_ivar=ivar is not None,
            flux_unit=unit_of(said) if said else RELATIVE, medium=stated.medium or "vacuum",
            remarks=() if stated.medium else (GUESSED_VACUUM,),
        )
    )  # fmt: skip


def _ivar(uncertainty: Any, line: int, shape: tuple[int, ...]) -> npt.NDArray[np.float64] | None:
    """Inverse variances of a line; None without uncertainties.

    Raises:
        BadObjectError: of a kind that says no variance, or of another shape.
    """
    if uncertainty is None:
        return None
    values = np.atleast_2d(np.asarray(uncertainty.array, np.float64))[line]
    if values.shape != shape:
        raise BadObjectError(f"uncertainties of shape {values.shape} for flux of {shape}")
    kind = uncertainty.uncertainty_type
    with np.errstate(invalid="ignore"):
        if kind == "std":
            return inverse_variance(values)
        if kind == "var":
            return inverse_variance(np.sqrt(values))
    if kind == "ivar":
        return values
    raise BadObjectError(f"uncertainties of an unknown kind, {kind}")


register(Survey(SURVEY, (Reader(recognise, read),), priority=-2))

"""Stars of SDSS-V's Milky Way Mapper (`mwmStar`, `mwmVisit`): BOSS and APOGEE spectra of one star, at rest.

Source: the SDSS data models of `mwmStar` and `mwmVisit` (DR19, DR20) and the product that writes them
(github.com/sdss/astra). Four tables, of which those without an observation are empty: BOSS and APOGEE, at Apache
Point and at Las Campanas; a row is a spectrum in vacuum, shifted to rest by its velocity, on one log10 grid per
instrument (CRVAL + CDELT i), flux in 1e-17 erg/s/cm2/A. In `mwmStar` a row is the stack of a star's visits, in
`mwmVisit` a visit. Rows of BOSS are of the survey `sdss`, rows of APOGEE of `apogee`.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import numpy as np

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum, log_grid
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.fits.hdu import Hdu
from specshards.ingest.ids import id_text
from specshards.ingest.limits import MOST_ROWS, check_pixels
from specshards.ingest.surveys import sdss_legacy
from specshards.ingest.surveys.common import (
    GridLimits,
    bits,
    checked,
    floats,
    grid_coefficients,
    label,
    native,
    number,
    position,
    text,
)
from specshards.ingest.surveys.flux import SDSS_UNIT
from specshards.ingest.surveys.headers import check_header
from specshards.ingest.surveys.sdss_rows import Row

STAR, VISIT = "sdss-mwmstar", "sdss-mwmvisit"
MODEL = "sdss-astra-model"

_SURVEYS = {"BOSS": "sdss", "APOGEE": "apogee"}
_GRIDS = {"BOSS": sdss_legacy.GRID, "APOGEE": GridLimits(15_000.0, 17_200.0, 1.2e-5, 1.6e-5)}
# Bits of APOGEE_PIXMASK of level "bad". BOSS's flags here are those of any exposure; its ivar says what is lost.
_BAD_PIXEL = {"BOSS": 0, "APOGEE": 0x40FF}

#: Further labels that tables have, and their units: fits of templates for the velocity, rough ones.
LABELS = MappingProxyType({
    "snr": "", "v_rad": "km/s", "e_v_rad": "km/s", "xcsao_v_rad": "km/s", "xcsao_e_v_rad": "km/s", "xcsao_teff": "K",
    "xcsao_logg": "", "xcsao_fe_h": "", "doppler_teff": "K", "doppler_logg": "", "doppler_fe_h": "", "n_visits": "",
})  # fmt: skip
_UNITS = {name: unit for name, unit in LABELS.items() if unit}


def recognise(file: FitsFile) -> str | None:
    """The layout of a file of Astra, or None."""
    header = file[0].header
    if file[0].shape != () or header.get("V_ASTRA") is None or header.get("SDSS_ID") is None:
        return None
    tables = _tables(file)
    names = frozenset().union(*(hdu.names for _, _, hdu in tables))
    if "model_flux" in names:
        return MODEL
    if not names >= {"flux", "ivar"} and _is_of_astra(file):
        return STAR  # all empty
    return (VISIT if "in_stack" in names else STAR) if names >= {"flux", "ivar"} else None


def _is_of_astra(file: FitsFile) -> bool:
    return len(file) > 1 and (text(file[1].header.get("EXTNAME")) or "").partition("/")[0] in _SURVEYS


def _tables(file: FitsFile) -> list[tuple[str, str, Hdu]]:
    """Instrument, observatory and table of those that have rows."""
    found = []
    for i in range(1, len(file)):
        instrument, _, place = (text(file[i].header.get("EXTNAME")) or "").upper().partition("/")
        if instrument in _SURVEYS and file[i].shape[:1] != (0,):
            found.append((instrument, place, file[i]))
    return found


def survey_of(file: FitsFile) -> str:
    """`sdss`, `apogee`, or both, by the tables that have rows."""
    return " and ".join(sorted({_SURVEYS[instrument] for instrument, _, _ in _tables(file)})) or "sdss"


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum | BadObjectError]:
    """Every row of every table.

    Raises:
        BadObjectError: no rows, or models of spectra (`selected_out`).
    """
    if layout == MODEL:
        raise BadObjectError("models that an Astra pipeline fitted, not observations", selected_out=True)
    tables, names = _tables(file), set[str]()
    if not tables:
        raise BadObjectError("none of its tables has a spectrum", selected_out=True)
    total = 0
    for instrument, place, table in tables:
        if total + table.shape[0] > MOST_ROWS:
            raise BadObjectError(f"more than {MOST_ROWS:,} spectra in one file")
        for index in range(table.shape[0]):
            try:
                spectrum = _spectrum(file, table, index, instrument, layout, source_file)
                spectrum.row = total
                if layout == STAR and f"{instrument}{spectrum.object_id}" in names:  # the other observatory
                    spectrum.object_id += f"-{place.lower() or index}"
                names.add(f"{instrument}{spectrum.object_id}")
                yield checked(spectrum, _GRIDS[instrument])
            except BadObjectError as error:
                error.row = total
                yield error
            total += 1


def _spectrum(
    file: FitsFile, table: Hdu, index: int, instrument: str, layout: str, source_file: str
) -> Spectrum:  # fmt: skip
    header, row = file[0].header, Row(table, index)
    if layout == VISIT and row.get("in_stack") is not None and not bool(row.get("in_stack")):
        raise BadObjectError("a visit that the stack of its star leaves out (in_stack)", selected_out=True)
    check_header(table.header, SDSS_UNIT, "flux")
    flux, ivar = (floats(table.column(name)[index]) for name in ("flux", "ivar"))
    check_pixels(max(len(flux), len(ivar)))
    wave, grid = _wavelengths(table, index, len(flux))
    mask = np.zeros(len(flux), np.bool_)
    if _BAD_PIXEL[instrument] and "pixel_flags" in table.names:
        mask = (bits(np.ravel(table.column("pixel_flags")[index])) & _BAD_PIXEL[instrument]) != 0
    ra, dec = position(header.get("RA"), header.get("DEC"))
    return Spectrum(
        object_id=_object_id(header.get("SDSS_ID"), row, layout), survey=_SURVEYS[instrument],
        release=text(row.get("release")), ra=ra, dec=dec, flux=flux, ivar=ivar, wavelength=wave, mask=mask,
        layout=layout, source_file=source_file, wave_coeff0=grid[0], wave_coeff1=grid[1], label_source="table",
        labels={name: label(row.get(name), is_known=False) for name in LABELS if name in table.names},
        units=_UNITS, flux_unit=SDSS_UNIT, frame="rest",
        velocity=number(row.get("v_rad", row.get("xcsao_v_rad"))),
    )  # fmt: skip


def _wavelengths(table: Hdu, index: int, n: int) -> tuple[Any, tuple[float, float] | tuple[None, None]]:
    """Rest wavelengths, Angstrom, float32 `(n,)`, by the column or the header, and the coefficients of their grid."""
    coeff0, coeff1 = number(table.header.get("CRVAL")), number(table.header.get("CDELT"))
    if "wavelength" in table.names:
        wave = native(table.column("wavelength")[index], np.float32)
        return wave, grid_coefficients({"COEFF0": coeff0, "COEFF1": coeff1}, wave)
    if coeff0 is None or coeff1 is None or coeff1 <= 0 or table.header.get("NPIXELS") != n:
        raise BadObjectError("no CRVAL, CDELT and NPIXELS of its wavelengths")
    return log_grid(coeff0, coeff1, n).astype(np.float32), (coeff0, coeff1)


def _object_id(sdss_id: Any, row: Row, layout: str) -> str:
    star = id_text(sdss_id, "SDSS_ID")
    if star is None or not star.isdecimal():
        raise BadObjectError("no SDSS_ID: nothing names this star")
    if layout == STAR:
        return star
    visit = id_text(row.get("spectrum_pk", row.get("spectrum_pk_id")), "SPECTRUM_PK")
    if visit is None:
        raise BadObjectError("no SPECTRUM_PK: nothing names this visit")
    return f"{star}-{visit}"

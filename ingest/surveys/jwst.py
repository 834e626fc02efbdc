"""JWST x1d tables: a row a pixel, a source an extension; copies of HLSP without its name, too.

Source: the JWST pipeline's documentation of `x1d`: EXTRACT1D has WAVELENGTH in micron (vacuum, barycentric where
SPECSYS says so), FLUX and FLUX_ERROR in Jy for a point source, SURF_BRIGHT and SB_ERROR in MJy/sr else (then FLUX is
0 or NaN in all pixels), DQ, whose bit 0 is DO_NOT_USE. A DQ of floats with all values at -2^31 is one of unsigned
integers whose offset was lost. SOURCEID and SOURCE_RA, SOURCE_DEC name and place the source, TARG_RA and TARG_DEC the
pointing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.fits.hdu import Hdu
from specshards.ingest.ids import id_text
from specshards.ingest.limits import check_pixels
from specshards.ingest.surveys.axis import sky_of, stated_of, stem
from specshards.ingest.surveys.common import checked, floats, native, number, text
from specshards.ingest.surveys.flux import inverse_variance, unit_of
from specshards.ingest.surveys.survey import Reader, Survey, register
from specshards.ingest.surveys.wavelengths import settled

SURVEY = "jwst"
LAYOUT = "jwst-x1d"
_COLUMNS = {"wavelength", "flux", "surf_bright", "dq"}
_ERRORS = {"flux": ("flux_error", "error"), "surf_bright": ("sb_error",)}
_LOST_OFFSET = -(1 << 31)


def recognise(file: FitsFile) -> str | None:
    """`jwst-x1d` for an extracted spectrum, else None."""
    return LAYOUT if file[0].shape == () and any(file[i].names >= _COLUMNS for i in range(1, len(file))) else None


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum | BadObjectError]:
    """One spectrum for each source."""
    tables = [file[i] for i in range(1, len(file)) if file[i].names >= _COLUMNS]
    name = stem(file, source_file)
    for row, table in enumerate(tables):
        try:
            source = id_text(table.header.get("SOURCEID"), "SOURCEID") or str(row + 1)
            one = _source(file, table, name if len(tables) == 1 else f"{name}-{source}", layout, source_file)
            one.row = row if len(tables) > 1 else None
            yield one
        except BadObjectError as error:
            error.row = row if len(tables) > 1 else None
            yield error


def _source(file: FitsFile, table: Hdu, name: str, layout: str, source_file: str) -> Spectrum:
    wave = native(table.column("WAVELENGTH"), np.float64)
    check_pixels(len(wave))
    known = np.isfinite(wave) & (wave > 0)  # pixels that no order has
    if not known.any():
        raise BadObjectError("impossible grid: no wavelengths")
    kind, flux = "flux", floats(table.column("FLUX"))
    if not np.nan_to_num(flux).any():  # an extended source
        kind, flux = "surf_bright", floats(table.column("SURF_BRIGHT"))
    error = next((column for column in _ERRORS[kind] if column in table.names), None)
    ivar = None if error is None else inverse_variance(native(table.column(error), np.float64))
    unit, flux_unit = _unit(table, "wavelength"), _unit(table, kind)
    settled_unit = settled(float(wave[known].min()), float(wave[known].max()), unit, stated_of(file).wavelength_unit)
    ra, dec, remarks = sky_of(table.header, ("SOURCE_RA", "SOURCE_DE"), ("SRCRA", "SRCDEC"))
    if np.isnan(ra):
        ra, dec, remarks = sky_of(file[0].header, ("TARG_RA", "TARG_DEC"))
    return checked(
        Spectrum(
            object_id=name, survey=SURVEY, release=text(file[0].header.get("CAL_VER")), ra=ra, dec=dec,
            flux=flux[known], ivar=np.ones(int(known.sum())) if ivar is None else ivar[known], wavelength=wave[known],
            mask=_bad(table)[known], layout=layout, source_file=source_file, has_ivar=ivar is not None,
            flux_unit=None if flux_unit is None else unit_of(flux_unit), wavelength_unit=settled_unit,
            remarks=remarks,
        )
    )  # fmt: skip


def _unit(table: Hdu, column: str) -> str | None:
    count = number(table.header.get("TFIELDS")) or 0
    for i in range(1, min(int(count), 999) + 1):
        if (text(table.header.get(f"TTYPE{i}")) or "").lower() == column:
            return text(table.header.get(f"TUNIT{i}"))
    return None


def _bad(table: Hdu) -> npt.NDArray[np.bool_]:
    dq = native(table.column("DQ"), np.float64)
    values = np.where(np.isfinite(dq), dq, 1).astype(np.int64)
    if values.min(initial=0) < 0:
        values = np.where(np.isfinite(dq), values - _LOST_OFFSET, 1)
        if values.min(initial=0) < 0:
            raise BadObjectError("DQ holds no bit fields")
    return np.asarray((values & 1) != 0)


register(Survey(SURVEY, (Reader(recognise, read),)))

"""HST x1d tables of STIS and COS: an order or a segment a row, joined into one spectrum.

Sources: the STIS and COS data handbooks: WAVELENGTH in Angstrom, in vacuum ("wavelengths in STIS data products are
always measured in vacuum conditions"), heliocentric where HELCORR is COMPLETE; FLUX and ERROR in erg/s/cm2/A; DQ of a
pixel, of which the bits of the header's SDQFLAGS are serious; NELEM pixels of a row count. COS has ERROR, SEGMENT and
DQ_WGT, which is 0 for a bad pixel. Orders overlap: each overlap is cut once, where S/N changes over.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.fits.hdu import Hdu
from specshards.ingest.limits import check_pixels
from specshards.ingest.surveys.axis import TOPOCENTRIC, sky_of, stem
from specshards.ingest.surveys.common import checked, floats, native, number, text
from specshards.ingest.surveys.flux import inverse_variance
from specshards.ingest.surveys.orders import Piece, are_orders, increasing, joined
from specshards.ingest.surveys.survey import Reader, Survey, register

SURVEY = "hst"
LAYOUT = "hst-x1d"
_COLUMNS = {"nelem", "wavelength", "flux", "error", "dq", "gross"}
_SERIOUS = 31743  # SDQFLAGS of STIS: all but 1024, small blemishes
_MOST_ORDERS = 400


def recognise(file: FitsFile) -> str | None:
    """`hst-x1d` for an extracted spectrum of STIS or COS, else None."""
    return LAYOUT if len(file) > 1 and file[0].shape == () and file[1].names >= _COLUMNS else None


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum | BadObjectError]:
    """One spectrum for each extension (an exposure), its orders joined."""
    exposures = [file[i] for i in range(1, len(file)) if file[i].names >= _COLUMNS]
    for number_, hdu in enumerate(exposures):
        try:
            name = stem(file, source_file) if number_ == 0 else f"{stem(file, source_file)}-{number_ + 1}"
            yield _exposure(file, hdu, name, layout, source_file)
        except BadObjectError as error:
            error.row = number_ if len(exposures) > 1 else None
            yield error


def _exposure(file: FitsFile, table: Hdu, name: str, layout: str, source_file: str) -> Spectrum:
    count = table.shape[0]
    if not 1 <= count <= _MOST_ORDERS:
        raise BadObjectError(f"{count} orders or segments")
    wave, flux, error, dq, nelem = (table.column(column) for column in ("WAVELENGTH", "FLUX", "ERROR", "DQ", "NELEM"))
    serious = number(table.header.get("SDQFLAGS"))
    bits = _SERIOUS if serious is None else int(serious)
    pieces = []
    for row in range(count):
        n = int(nelem[row])
        if not 0 < n <= np.size(flux[row]):
            raise BadObjectError(f"NELEM = {n} of {np.size(flux[row])} pixels")
        mask = (native(dq[row], np.int64)[:n] & bits) != 0
        ivar = inverse_variance(native(error[row], np.float64)[:n])
        piece = Piece(native(wave[row], np.float64)[:n], floats(flux[row])[:n], ivar, mask)
        if not np.isfinite(piece.wavelength).all():
            raise BadObjectError("impossible grid: wavelengths are not finite")
        if (piece.wavelength != 0).any():  # a segment that was off has zeros
            pieces.append(increasing(piece))
    if not pieces:
        raise BadObjectError("no wavelengths in any order", selected_out=True)
    check_pixels(sum(len(piece.flux) for piece in pieces))
    if len(pieces) > 1 and not are_orders([piece.wavelength for piece in pieces]):
        raise BadObjectError(f"{len(pieces)} rows that are not neighbouring orders or segments of one spectrum")
    whole = joined(pieces)
    header = file[0].header
    ra, dec, remarks = sky_of(header, ("RA_TARG", "DEC_TARG"))
    corrected = text(header.get("HELCORR"))
    if corrected is not None and corrected != "COMPLETE":
        remarks += (TOPOCENTRIC,)
    if len(pieces) > 1:
        remarks += (f"are {len(pieces)} orders or segments joined, each overlap cut where S/N changes over",)
    assert whole.ivar is not None and whole.mask is not None
    return checked(
        Spectrum(
            object_id=name, survey=SURVEY, release=text(header.get("CAL_VER")), ra=ra, dec=dec, flux=whole.flux,
            ivar=whole.ivar, wavelength=whole.wavelength, mask=whole.mask, layout=layout, source_file=source_file,
            flux_unit="erg / (Angstrom s cm2)", remarks=remarks,
        )
    )  # fmt: skip


register(
    Survey(SURVEY, (Reader(recognise, read),), keys=("rootname", "object_id"), flux_unit="erg / (Angstrom s cm2)")
)

"""DEEP2 and DEEP3 `spec1d` files: a table of one row for each half (B, R) and each kind of extraction.

Source: the DR4 spectra primer (deep.ps.uci.edu) and Newman et al. 2013, ApJS 208, 5: `Bxspf` is a boxcar along the
slit, `Horne` the optimal extraction, which is taken here where both halves have it, as it has the higher S/N. LAMBDA
is in air and not corrected for the motion of Earth: OH lines of the sky in real files lie at 8344.6, 8399.2 and
8430.2 Angstrom, where they are in air. Flux is in counts an hour. ORMASK says what some of the frames had and
condemns nothing; BITMASK that all had it. Between the halves is a gap of some Angstrom.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.fits.hdu import Hdu
from specshards.ingest.ids import id_text
from specshards.ingest.limits import check_pixels
from specshards.ingest.surveys.axis import TOPOCENTRIC, sky_of
from specshards.ingest.surveys.common import GridLimits, checked, floats, native, text
from specshards.ingest.surveys.flux import RELATIVE
from specshards.ingest.surveys.survey import Reader, Survey, register

SURVEY = "deep2"
LAYOUT = "deep2-spec1d"
GRID = GridLimits(4000.0, 11_000.0, 2e-5, 2e-4)
_COLUMNS = {"spec", "lambda", "ivar", "objpos", "skyspec"}
_KINDS = ("Horne", "Bxspf")  # in the order of preference


def recognise(file: FitsFile) -> str | None:
    """`deep2-spec1d` for a file of the survey, else None."""
    return LAYOUT if len(file) > 1 and file[0].shape == () and file[1].names >= _COLUMNS else None


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum]:
    """The one object of a file, its two halves in one.

    Raises:
        BadObjectError: no extraction, one that is damaged, or halves that overlap.
    """
    found = {_extension(file[i]): file[i] for i in range(1, len(file)) if file[i].names >= _COLUMNS}
    kind = next((kind for kind in _KINDS if {f"{kind}-B", f"{kind}-R"} <= found.keys()), None)
    if kind is None and len(file) < 5:
        kind = next((kind for kind in _KINDS if found.keys() & {f"{kind}-B", f"{kind}-R"}), None)
    if kind is None:
        raise BadObjectError(f"no extraction Horne or Bxspf among {', '.join(sorted(found)) or 'its tables'}")
    halves = [found[f"{kind}-{half}"] for half in "BR" if f"{kind}-{half}" in found]
    parts = [_half(hdu) for hdu in halves]
    flux, wave, ivar, mask = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    header = halves[0].header
    object_id = id_text(header.get("OBJNO"), "OBJNO")
    if object_id is None:
        raise BadObjectError("no OBJNO: nothing names this spectrum")
    ra, dec, remarks = sky_of(header, ("RA_OBJ", "DEC_OBJ"))
    if len(halves) < 2:
        remarks += (f"have the {_extension(halves[0])[-1]} half alone",)
    yield checked(
        Spectrum(
            object_id=object_id, survey=SURVEY, release=text(header.get("SP2DVERS")), ra=ra, dec=dec, flux=flux,
            ivar=ivar, wavelength=wave, mask=mask, layout=layout, source_file=source_file, flux_unit=RELATIVE,
            medium="air", remarks=(TOPOCENTRIC, *remarks),
        ),
        GRID,
    )  # fmt: skip


def _extension(hdu: Hdu) -> str:
    return text(hdu.header.get("EXTNAME")) or ""


def _half(hdu: Hdu) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    if hdu.shape[0] != 1:
        raise BadObjectError(f"{_extension(hdu)} has {hdu.shape[0]} rows, not one")
    flux, ivar = floats(hdu.column("SPEC")), floats(hdu.column("IVAR"))
    check_pixels(len(flux))
    mask = native(hdu.column("BITMASK"), np.int64) != 0 if "bitmask" in hdu.names else np.zeros(len(flux), np.bool_)
    return flux, native(hdu.column("LAMBDA"), np.float32), ivar, mask


register(Survey(SURVEY, (Reader(recognise, read),), keys=("objno", "object_id"), flux_unit=RELATIVE))

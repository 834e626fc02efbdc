"""LAMOST medium-resolution spectra (`med-*`): two arms far apart, each co-added; single exposures follow.

Source: the LAMOST data-release descriptions of medium-resolution FITS files (DR6 and later), and the files
themselves. HDUs `COADD_B` (4950 to 5350 Angstrom) and `COADD_R` (6300 to 6800 Angstrom) have `FLUX IVAR LOGLAM
ANDMASK ORMASK`, one row a pixel, or (DR8 and later) one row of vectors with `WAVELENGTH` for `LOGLAM`. Vacuum,
heliocentric, pixels of 1e-5 dex. The arms become one spectrum with a gap.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.fits.hdu import Hdu
from specshards.ingest.limits import check_pixels
from specshards.ingest.surveys.common import GridLimits, bits, floats, native, number, text
from specshards.ingest.surveys.flux import RELATIVE
from specshards.ingest.surveys.headers import check_header

LAYOUT = "lamost-mrs"

#: Both arms with their margins, in pixels of 1e-5 dex.
GRID = GridLimits(4700.0, 7100.0, 2.1e-5, 2.5e-5)

_ARMS = ("B", "R")
_COLUMNS = {"flux", "ivar", "andmask"}


def recognise(file: FitsFile) -> str | None:
    """`lamost-mrs` for a medium-resolution file, co-added or not, else None."""
    if len(file) < 2 or file[0].shape != ():
        return None
    name = (text(file[1].header.get("EXTNAME")) or "").upper()
    if name in ("COADD_B", "COADD_R"):
        return LAYOUT if file[1].names >= _COLUMNS else None
    is_exposure = name[:2] in ("B-", "R-") and name[2:].isdigit()
    return LAYOUT if is_exposure and file[1].names >= {"flux", "ivar", "pixmask"} else None


class Arm(NamedTuple):
    """The co-added pixels of one arm, `(n,)` each, and its signal-to-noise ratio as the file gives it."""

    flux: npt.NDArray[Any]
    ivar: npt.NDArray[Any]
    wavelength: npt.NDArray[np.float64]
    mask: npt.NDArray[np.bool_]
    snr: float | None


def arms(file: FitsFile) -> dict[str, Arm]:
    """The co-added arms that a file has, by name.

    Raises:
        BadObjectError: none (`selected_out`: single exposures only), or one that the header promises is not there.
    """
    header, found = file[0].header, {}
    for name in _ARMS:
        hdu = file.named(f"COADD_{name}")
        if hdu is not None:
            found[name] = _arm(hdu)
        elif header.get(f"COMBIN_{name}") is True:
            raise BadObjectError(f"header says COMBIN_{name} = T, and there is no COADD_{name}; cut short?")
    if not found:
        raise BadObjectError("single exposures only, no co-added arm", selected_out=True)
    return found


def _arm(hdu: Hdu) -> Arm:
    check_header(hdu.header, RELATIVE, "flux")
    name, names = text(hdu.header.get("EXTNAME")), hdu.names
    wave = "loglam" if "loglam" in names else "wavelength"
    if not names >= {*_COLUMNS, wave}:
        raise BadObjectError(f"{name} has no {', '.join(sorted({*_COLUMNS, wave} - names)).upper()}")
    flux, ivar, given, and_mask = (hdu.column(column) for column in ("flux", "ivar", wave, "andmask"))
    if np.ndim(flux) == 2 and len(flux) != 1:
        raise BadObjectError(f"{name} has {len(flux)} rows of vectors, not one")
    check_pixels(max(np.size(values) for values in (flux, ivar, given, and_mask)))
    values = native(given, np.float64)
    with np.errstate(over="ignore"):  # of a damaged file, and refused by its grid
        wavelength = 10.0**values if wave == "loglam" else values
    # Any of LAMOST's six mask bits (bad CCD, profile, sky, trace, no data) condemns a pixel.
    arm = Arm(floats(flux), floats(ivar), wavelength, bits(np.ravel(and_mask)) != 0, number(hdu.header.get("SNR")))
    lengths = [len(part) for part in arm[:4]]
    if len(set(lengths)) > 1:
        raise BadObjectError(f"{name}: inconsistent lengths: {', '.join(map(str, lengths))}")
    return arm


def joined(file: FitsFile) -> tuple[Arm, dict[str, float | None], tuple[str, ...]]:
    """The arms of a file as one, in the order of wavelength; `snr_b` and `snr_r`; what is to be remarked.

    Raises:
        BadObjectError: no arm, or a damaged one.
    """
    found = arms(file)
    flux, ivar, wavelength, mask = (np.concatenate(parts) for parts in list(zip(*found.values(), strict=True))[:4])
    remarks = tuple(f"have no co-added {name} arm" for name in _ARMS if name not in found)
    if file[0].header.get("HELIO") is False:
        remarks += ("have wavelengths that are not heliocentric (HELIO = F)",)
    labels = {f"snr_{name.lower()}": arm.snr for name, arm in found.items()}
    return Arm(flux, ivar, wavelength, mask, None), labels, remarks

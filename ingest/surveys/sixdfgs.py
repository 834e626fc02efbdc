"""6dF Galaxy Survey: images of rows spectrum, variance, sky; V and R arms, and VR, the two spliced.

Sources: "Description of the FITS files" of the 6dFGS database (WFAU, DR3): three HDUs an observation, V, R and VR;
VR has the wavelengths as a fourth row, and repeated observations follow. Jones et al. 2009, MNRAS 399, 683. The VR
frame is taken; V or R where an observation has no VR. `2dfdr` calibrates by arcs in air: [O I] of the sky lies at
5577.1 to 5577.9 Angstrom in the arms (5577.34 in air, 5578.89 in vacuum). Z is raw, Z_HELIO heliocentric; wavelengths
are not corrected for the motion of Earth. QUALITY 4 is the best, 6 a star of the Galaxy. Counts, not calibrated.

Copies have one such image in the primary HDU (Data Central, GAMA), or a table WAVE, FLUX without errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.fits.hdu import Hdu, HeaderLike
from specshards.ingest.limits import check_pixels
from specshards.ingest.surveys.axis import TOPOCENTRIC, axis_of, stated_of, stem
from specshards.ingest.surveys.common import GridLimits, checked, floats, label, native, position, text
from specshards.ingest.surveys.flux import RELATIVE, inverse_variance
from specshards.ingest.surveys.sentinels import NO_VALUE, missing
from specshards.ingest.surveys.survey import Reader, Survey, register

SURVEY = "sixdfgs"
IMAGES, TABLE = "6dfgs-images", "6dfgs-table"
GRID = GridLimits(3600.0, 8200.0, 1e-4, 8e-4)
_KEYS = ("OBSRA", "OBSDEC", "Z", "Z_HELIO", "QUALITY")
_ARMS = ("VR", "V", "R")  # in the order of preference


def recognise(file: FitsFile) -> str | None:
    """The 6dFGS layout of an open FITS file, or None."""
    if any(_is_arm(file[i]) for i in range(len(file))):
        return IMAGES
    is_table = len(file) == 2 and _has_keys(file[0].header) and {"wave", "flux"} <= file[1].names
    return TABLE if is_table else None


def _has_keys(header: HeaderLike) -> bool:
    return all(header.get(key) is not None for key in _KEYS) and (
        header.get("NAME_V") is not None or header.get("NAME_R") is not None
    )


def _is_arm(hdu: Hdu) -> bool:
    return len(hdu.shape) == 2 and hdu.shape[0] in (3, 4) and _has_keys(hdu.header)


def _arm(hdu: Hdu) -> str:
    """`V`, `R` or `VR`, by the name of the HDU, or else by its rows."""
    name = (text(hdu.header.get("EXTNAME")) or "").upper().rpartition(" ")[2]
    return name if name in _ARMS else "VR" if hdu.shape[0] == 4 else "V"


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum | BadObjectError]:
    """One spectrum for each observation of the object: VR where there is one."""
    if layout == TABLE:
        yield _of_table(file, source_file)
        return
    visits: list[dict[str, Hdu]] = []
    for i in range(len(file)):
        if not _is_arm(file[i]):
            continue
        arm = _arm(file[i])
        if not visits or arm in visits[-1]:  # V, R, VR follow each other, visit after visit
            visits.append({})
        visits[-1][arm] = file[i]
    for number, visit in enumerate(visits):
        arm = next(arm for arm in _ARMS if arm in visit)
        try:
            yield _of_image(visit[arm], arm, number, layout, source_file, file)
        except BadObjectError as error:
            error.row = number if len(visits) > 1 else None
            yield error


def _of_image(hdu: Hdu, arm: str, visit: int, layout: str, source_file: str, file: FitsFile) -> Spectrum:
    check_pixels(hdu.shape[1])
    rows = hdu.image()
    axis = axis_of(hdu.header, hdu.shape[1], stated_of(file), medium="air")
    wave = axis.wavelength
    if len(rows) == 4:  # the wavelengths, once more; both are of one grid to a thousandth of a pixel
        own = native(rows[3], np.float64)
        if not np.allclose(own, wave, rtol=0, atol=0.1 * abs(float(wave[1] - wave[0]))):
            raise BadObjectError("impossible grid: the row of wavelengths contradicts CRVAL1 and CDELT1")
    with np.errstate(invalid="ignore"):
        sigma = np.sqrt(native(rows[1], np.float64))
    remarks = (TOPOCENTRIC,) if arm == "VR" else (TOPOCENTRIC, f"have the {arm} arm alone")
    return _checked(hdu.header, floats(rows[0]), inverse_variance(sigma), wave, axis.unit, visit, layout, source_file,
                    file, remarks)  # fmt: skip


def _of_table(file: FitsFile, source_file: str) -> Spectrum:
    wave, flux = native(file[1].column("WAVE"), np.float64), floats(file[1].column("FLUX"))
    check_pixels(len(wave))
    return _checked(file[0].header, flux, None, wave, "angstrom", 0, TABLE, source_file, file, (TOPOCENTRIC,))


def _checked(
    header: HeaderLike, flux: Any, ivar: Any, wave: Any, unit: str, visit: int, layout: str, source_file: str,
    file: FitsFile, remarks: tuple[str, ...],
) -> Spectrum:  # fmt: skip
    name = text(header.get("TARGET")) or text(header.get("NAME_V")) or text(header.get("NAME_R"))
    name = name or stem(file, source_file)
    ra, dec = position(header.get("OBSRA"), header.get("OBSDEC"))
    quality = label(header.get("QUALITY"))
    none = missing(flux)
    return checked(
        Spectrum(
            object_id=name if visit == 0 else f"{name}-{visit + 1}", survey=SURVEY, release=None, ra=ra, dec=dec,
            flux=flux, ivar=np.ones(len(flux)) if ivar is None else ivar, wavelength=wave,
            mask=none, layout=layout, source_file=source_file, label_source="header",
            labels={
                "z": label(header.get("Z_HELIO")), "class": "STAR" if quality == 6 else None, "quality": quality,
            },
            has_ivar=ivar is not None, flux_unit=RELATIVE, wavelength_unit=unit, medium="air",
            remarks=(*remarks, NO_VALUE) if none.any() else remarks,
        ),
        GRID,
    )  # fmt: skip


register(Survey(SURVEY, (Reader(recognise, read),), keys=("targetname", "target", "object_id"), flux_unit=RELATIVE))

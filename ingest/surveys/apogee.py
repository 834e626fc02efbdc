"""APOGEE: combined spectra of stars (apStar, asStar), normalised ones (aspcapStar), single visits (apVisit).

Sources: the SDSS data model of apStar, aspcapStar and apVisit, and the pipelines that write them
(github.com/sdss/apogee: `apstar_output.pro`, `aspcap_writefits.pro`, `apstar.py`, `bitmask.py`).

- apStar: HDU 1 flux, 2 error, 3 bitmask, a row each of 8,575 pixels on one log10 grid, in vacuum and shifted to rest
  by the star's radial velocity. Row 0 is the combination by pixel, row 1 another one, the visits follow: row 0 is the
  object here, and the visits are no objects of their own. Of one visit there is row 0 alone, or no rows at all.
- The bitmask of the combination was, up to DR16, that of any visit (OR), though a pixel that is good in one visit is
  good; the bits that all visits have, as DR17 stores them in row 0, are what counts here.
- aspcapStar: the same grid, flux over its pseudo-continuum; HDU 4 is a table with the star's parameters.
- apVisit: 3 chips of 4,096 (2,048) pixels, red to blue, with wavelengths in HDU 4 that descend: as at the telescope,
  neither at rest nor corrected to the barycentre.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum, log_grid
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.fits.hdu import Hdu
from specshards.ingest.ids import id_text
from specshards.ingest.limits import check_pixels
from specshards.ingest.surveys.common import (
    GridLimits,
    bits,
    checked,
    error,
    first_of,
    floats,
    label,
    number,
    position,
    text,
)
from specshards.ingest.surveys.flux import RELATIVE, SDSS_UNIT, inverse_variance
from specshards.ingest.surveys.headers import check_header
from specshards.ingest.surveys.survey import Reader, Survey, Unsaid, register

SURVEY = "apogee"
STAR, NORMALISED, VISIT = "apogee-apstar", "apogee-aspcapstar", "apogee-apvisit"
CATALOGUE = "apogee-allstar"  # labels only

#: 15,100 to 17,000 Angstrom, at rest or not, in pixels of 6e-6 dex (0.1 to 0.4 Angstrom on the detectors).
GRID = GridLimits(15_000.0, 17_200.0, 3e-6, 5e-5)

# Bits of APOGEE_PIXMASK of level "bad": BADPIX, CRPIX, SATPIX, UNFIXABLE, BADDARK, BADFLAT, BADERR, NOSKY and
# NOT_ENOUGH_PSF; the others (ghosts, persistence, sky and telluric lines) warn.
_BAD_PIXEL = 0x40FF
# The pipeline writes an error of 1e10 where it knows nothing.
_NO_ERROR = 1e10
_NO_VELOCITY = 99_999.0  # 999999 in headers

# Bits of level "bad" of APOGEE_STARFLAG: BAD_PIXELS, VERY_BRIGHT_NEIGHBOR, BAD_RV_COMBINATION, RV_FAIL.
_BAD_STAR = 1 << 0 | 1 << 3 | 1 << 18 | 1 << 22
# Of APOGEE_ASPCAPFLAG: STAR_BAD, NO_ASPCAP_RESULT, MISSING_APSTAR, NO_GRID, BAD_FRAC_LOWSNR, BAD_FRAC_BADPIX,
# FERRE_FAIL, PROBLEM_TARGET.
_BAD_FIT = 1 << 23 | 1 << 31 | 31 << 32 | 1 << 40
_BAD_VALUE = {"teff": 1 << 16, "logg": 1 << 17, "m_h": 1 << 19, "fe_h": 1 << 19, "alpha_m": 1 << 20}
# Of a parameter's or an element's own flag: GRIDEDGE_BAD, CALRANGE_BAD, OTHER_BAD, FERRE_FAIL, PARAM_MISMATCH_BAD,
# TEFF_CUT.
_BAD_ELEMENT = 0b1011111

_ELEMENTS = tuple(
    f"{name}_fe"
    for name in (
        "c", "ci", "n", "o", "na", "mg", "al", "si", "p", "s", "k", "ca", "ti", "tiii", "v", "cr", "mn", "co", "ni",
        "cu", "ce", "yb",
    )
)  # fmt: skip
_DEX = ("m_h", "alpha_m", *_ELEMENTS)
_FLAGGED = ("teff", "logg", "fe_h", *_DEX)
_VELOCITIES = ("vhelio_avg", "vscatter", "vmicro", "vsini")
#: Further labels of the catalogue, and of files.
LABELS = {
    **{name + end: "dex" for name in _DEX for end in ("", "_err")},
    **dict.fromkeys((*_VELOCITIES, "radial_velocity"), "km / s"),
    "rv_teff": "K", "rv_logg": "dex", "rv_feh": "dex",
}  # fmt: skip


def recognise(file: FitsFile) -> str | None:
    """The APOGEE layout of an open FITS file, or None."""
    if len(file) == 1:
        return None
    if file[1].names >= {"apogee_id", "aspcapflag", "teff", "logg"}:
        return CATALOGUE
    shapes = {file[i].shape for i in range(1, min(len(file), 4))}
    if len(file) < 4 or len(shapes) != 1 or any(file[i].names for i in (1, 2, 3)):
        return None
    shape, header = shapes.pop(), file[0].header
    if len(shape) == 2 and shape[0] == 3 and len(file) > 4 and file[4].shape == shape:
        is_visit = header.get("FIBERID") is not None and header.get("OBJID") is not None
        return VISIT if is_visit and _is_of_wavelengths(file[4]) else None
    if len(shape) not in (1, 2) or shape[-1] < 1000 or not _is_grid(file):
        return None
    if len(file) > 4 and file[4].names >= {"apogee_id"}:
        return NORMALISED
    return STAR if header.get("OBJID") is not None and header.get("NVISITS") is not None else None


def _is_of_wavelengths(hdu: Hdu) -> bool:
    unit = text(hdu.header.get("BUNIT"))
    return unit is None or "wave" in unit.lower() or "ang" in unit.lower()


def _is_grid(file: FitsFile) -> bool:
    """Whether HDU 1, or the primary header, has the log10 grid that all combined spectra share, or one like it."""
    start, step = (number(first_of(file[1].header, key) or file[0].header.get(key)) for key in ("CRVAL1", "CDELT1"))
    return start is not None and step is not None and 4.17 < start < 4.24 and 1e-6 < step < 2e-5


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum]:
    """Read the one spectrum of a file: the combination of all visits, or the visit.

    Raises:
        BadObjectError: nothing usable in it, or no object (`selected_out`).
    """
    if layout == CATALOGUE:
        raise BadObjectError("a catalogue of stars, no spectra: give it with --catalog", selected_out=True)
    header = file[0].header
    kind = text(header.get("OBJTYPE"))
    if kind is not None and kind.upper() == "SKY":
        raise BadObjectError("a sky fibre: no object in it", selected_out=True)
    check_header(header, RELATIVE if layout == NORMALISED else SDSS_UNIT)
    check_header(file[1].header, RELATIVE if layout == NORMALISED else SDSS_UNIT)
    flux, sigma, mask, wave = _visit(file) if layout == VISIT else _combined(file, layout == NORMALISED)
    ivar = inverse_variance(sigma)
    ivar[~(np.abs(sigma) < _NO_ERROR)] = 0.0
    get = _star(file) if layout == NORMALISED else lambda name: None
    ra, dec = (header.get(key.upper()) if header.get(key.upper()) is not None else get(key) for key in ("ra", "dec"))
    ra, dec = position(ra, dec)
    velocity = _velocity(header.get("VHELIO"), get("vhelio_avg"), None if layout == VISIT else header.get("VRAD"))
    remarks = ("wavelengths are as at the telescope, not corrected to the barycentre",) if layout == VISIT else ()
    yield checked(
        Spectrum(
            object_id=_object_id(header.get("OBJID") or header.get("OBJ") or get("apogee_id")),
            survey=SURVEY,
            release=_release(header),
            ra=ra,
            dec=dec,
            flux=flux,
            ivar=ivar,
            wavelength=wave,
            mask=mask,
            layout=layout,
            source_file=source_file,
            wave_coeff0=None if layout == VISIT else _grid(file)[0],
            wave_coeff1=None if layout == VISIT else _grid(file)[1],
            label_source="header",
            labels=_labels(header.get, get, kind, velocity),
            survey_sn={"sn_survey": _signal(header.get("SNR"), get("snr"))},
            frame="observed" if layout == VISIT else "rest",
            velocity=None if layout == VISIT else velocity,
            units=LABELS,
            flux_unit=RELATIVE if layout == NORMALISED else SDSS_UNIT,
            remarks=remarks,
        ),
        GRID,
    )


_Pixels = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.bool_], npt.NDArray[Any]]


def _combined(file: FitsFile, is_normalised: bool) -> _Pixels:
    """Flux, error, mask and wavelengths of the combination: `(N,)`."""
    flux, sigma = (floats(np.atleast_2d(file[i].image())[0]) for i in (1, 2))
    check_pixels(len(flux))
    # aspcapStar has no bitmask; where the spectrum has no pixels, flux and error are 0.
    mask = np.zeros(len(flux), np.bool_) if is_normalised else _mask(file[3])
    return flux, sigma, mask, log_grid(*_grid(file), len(flux))


def _mask(hdu: Hdu) -> npt.NDArray[np.bool_]:
    """Which pixels are bad in every visit: bool `(N,)`."""
    rows = np.atleast_2d(hdu.image())
    of_visits = rows[2:] if len(rows) > 2 else rows[:1]
    bad = [bits(row) & _BAD_PIXEL != 0 for row in of_visits]
    return np.asarray(np.logical_and.reduce(bad), np.bool_)


def _grid(file: FitsFile) -> tuple[float, float]:
    """log10 of the first wavelength, and the step: Angstrom, vacuum."""
    start, step, first = (
        number(first_of(file[1].header, key) or file[0].header.get(key)) for key in ("CRVAL1", "CDELT1", "CRPIX1")
    )
    if start is None or step is None or step <= 0:
        raise BadObjectError("no CRVAL1 and CDELT1: this layout has no other wavelengths")
    return start + (1 - (1 if first is None else first)) * step, step


def _visit(file: FitsFile) -> _Pixels:
    """The same of a visit: the three chips from blue to red."""
    flux, sigma, mask, wave = (np.asarray(file[i].image()) for i in (1, 2, 3, 4))
    check_pixels(flux.size)
    if len({flux.shape, sigma.shape, mask.shape, wave.shape}) != 1:
        raise BadObjectError("inconsistent shapes of flux, error, mask and wavelengths")
    order = slice(None, None, -1)
    bad = bits(mask.reshape(-1)[order]) & _BAD_PIXEL != 0
    return floats(flux.reshape(-1)[order]), floats(sigma.reshape(-1)[order]), bad, floats(wave.reshape(-1)[order])


def _object_id(said: Any) -> str:
    name = id_text(text(said), "OBJID")
    if name is None:
        raise BadObjectError("no OBJID: a file without a name of its star")
    return name


def _release(header: Any) -> str | None:
    version = text(first_of(header, "V_APRED", "APRED", "VERSION"))
    return None if version is None or len(version) > 20 else f"apred {version}"


def _signal(*said: Any) -> float | None:
    """The first number."""
    return next((value for one in said if (value := number(one)) is not None), None)


def _velocity(*said: Any) -> float | None:
    """The first that is a velocity: km/s."""
    found = (number(value) for value in said)
    return next((value for value in found if value is not None and abs(value) < _NO_VELOCITY), None)


def _star(file: FitsFile) -> Callable[[str], Any]:
    """The value of a column of an aspcapStar's table, by its name in lower case; None where there is none."""
    table = file[4]

    def get(name: str) -> Any:
        if name not in table.names:
            return None
        values = np.ma.asarray(table.column(name))
        return values[0] if values.ndim == 1 and len(values) else None

    return get


def _labels(
    header: Callable[[str], Any], table: Callable[[str], Any], kind: str | None, velocity: float | None
) -> dict[str, Any]:
    """Labels of a file: an aspcapStar's parameters where its flags allow them; the template of the velocity fit, a
    point of a grid, under names of its own."""
    values: dict[str, Any] = {"class": "STAR" if kind in (None, "STAR") else None, "radial_velocity": velocity}
    for ours, theirs in (("rv_teff", "RVTEFF"), ("rv_logg", "RVLOGG"), ("rv_feh", "RVFEH")):
        said = header(theirs)
        values[ours] = label(header(ours.upper()) if said is None else said)
    rows = {name: np.array([_float(table(name))]) for name in UNSAID.columns if table(name) is not None}
    gone = UNSAID.where(rows)
    for name in (*_FLAGGED, *_VELOCITIES):
        ours = {"fe_h": "feh"}.get(name, name)
        if table(name) is None or (name in gone and gone[name][0]):
            continue
        values[ours] = label(table(name))
        if table(f"{name}_err") is not None:
            values[f"{ours}_err"] = error(table(f"{name}_err"))
    return values


def _float(value: Any) -> float:
    found = number(value)
    return np.nan if found is None else found


def _where(columns: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, npt.NDArray[np.bool_]]:
    flags = {name: values for name, values in columns.items() if name.endswith("flag") or name.endswith("_flag")}
    size = len(next(iter(columns.values()))) if columns else 0
    nothing = np.zeros(size, np.bool_)
    for name, wrong in (("aspcapflag", _BAD_FIT), ("starflag", _BAD_STAR)):
        if name in flags:
            nothing |= _has(flags[name], wrong)
    found = {}
    for name in _FLAGGED:
        if name not in columns:
            continue
        bad = nothing
        if "aspcapflag" in flags and name in _BAD_VALUE:
            bad = bad | _has(flags["aspcapflag"], _BAD_VALUE[name])
        if f"{name}_flag" in flags:
            bad = bad | _has(flags[f"{name}_flag"], _BAD_ELEMENT)
        found[name] = bad
    return found


def _again(columns: Mapping[str, npt.NDArray[np.float64]]) -> npt.NDArray[np.bool_] | None:
    """Bit 4 of EXTRATARG: a star that has several rows, and this is not the one with the best signal."""
    return _has(columns["extratarg"], 1 << 4) if "extratarg" in columns else None


def _has(flags: npt.NDArray[np.float64], wrong: int) -> npt.NDArray[np.bool_]:
    """Whether a flag has one of these bits; one that is not known, or whose highest bit made it negative, has."""
    known = np.isfinite(flags) & (flags >= 0) & (flags < 2.0**62)
    return ~known | (np.where(known, flags, 0).astype(np.int64) & wrong != 0)


#: Where ASPCAP's own flags say that a value is bad; and which rows are duplicates.
UNSAID = Unsaid(
    ("aspcapflag", "starflag", "extratarg", *_FLAGGED, *(f"{name}_flag" for name in ("fe_h", *_DEX))), _where,
    again=_again,
)  # fmt: skip


def _table_evidence(names: Mapping[str, str]) -> int:
    return 3 * int("apogee_id" in names or {"m_h", "alpha_m", "teff"} <= names.keys())


register(
    Survey(
        SURVEY,
        (Reader(recognise, read),),
        labels=LABELS,
        keys=("apogee_id", "object_id"),
        unsaid=UNSAID,
        flux_unit=SDSS_UNIT,
        table_evidence=_table_evidence,
        # 8,575 pixels of apStar, 12,288 of apVisit: 12,544 cells.
        default_image={"window": (15_100.0, 17_000.0), "block": 2},
    )
)

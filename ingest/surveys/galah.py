"""GALAH: stars with HERMES, one file for each of four cameras; the arms of one `sobject_id` are one spectrum.

Sources: the description of the spectra of GALAH DR3 and DR4 (github.com/the-galah-survey, `the_spectra.md`), the
documentation of the reduction 6.0 behind DR4 (github.com/sheliak/galah_workshop, `folder_and_file_structure.txt`),
and its files. Images of one row:

- DR2, DR3: PRIMARY flux, `input_sigma` its **relative** error, `no_sky...` twice, `normalised...`.
- DR4: PRIMARY flux, `normalized`, `relative_error`, `sky`, `teluric`, `scattered`, `cross_talk` and
  `resolution_profile`, the width at half maximum (Angstrom) of a line exp(-ln 2 |2 x / fwhm|^B).

Flux is in counts, not calibrated, and another number of them in each arm; the normalised one is on another scale and
not mixed with it. Wavelengths are in air, linear, corrected to the barycentre and not for the star's velocity;
CRVAL1 is the middle of the first pixel.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.archives import is_there
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.fits.hdu import Hdu
from specshards.ingest.limits import check_pixels
from specshards.ingest.surveys.common import GridLimits, checked, first_of, floats, label, number, position
from specshards.ingest.surveys.flux import RELATIVE, inverse_variance
from specshards.ingest.surveys.headers import check_header
from specshards.ingest.surveys.survey import Reader, Survey, Unsaid, register

SURVEY = "galah"
DR3, DR4 = "galah-dr3", "galah-dr4"  # five and eight images

#: 4,710 to 7,890 Angstrom, in pixels of 0.046 to 0.074.
GRID = GridLimits(4_600.0, 8_050.0, 5e-6, 3e-5)
_ARMS = ("blue", "green", "red", "infrared")
# Where the arms begin, Angstrom; they begin within 10 of 4713, 5649, 6478 and 7585.
_STARTS = ((4_600.0, 4_850.0), (5_500.0, 5_800.0), (6_350.0, 6_650.0), (7_400.0, 7_800.0))
_ERRORS = {"relative_error": DR4, "input_sigma": DR3, "sigma": DR3}
_NAME = re.compile(r"(?<!\d)(\d{15})([1-4])(?!\d)")

_ELEMENTS = (
    "li", "c", "n", "o", "na", "mg", "al", "si", "k", "ca", "sc", "sc2", "ti", "ti2", "v", "cr", "cr2", "mn", "co",
    "ni", "cu", "zn", "rb", "sr", "y", "zr", "mo", "ru", "ba", "la", "ce", "nd", "sm", "eu",
)  # fmt: skip
_ABUNDANCES = ("alpha_fe", *(f"{name}_fe" for name in _ELEMENTS))
#: Further labels of the catalogues, and of files.
LABELS = {
    **{start + name: "dex" for name in _ABUNDANCES for start in ("", "e_")},
    **{start + name: "km / s" for name in ("vmic", "vbroad", "rv_galah", "rv_comp_1", "rv") for start in ("", "e_")},
    "radial_velocity": "km / s", "teff_r": "K", "logg_r": "dex", "fe_h_r": "dex", "mass": "solMass", "age": "Gyr",
}  # fmt: skip


def recognise(file: FitsFile) -> str | None:
    """The layout of an open FITS file with one arm of a GALAH spectrum, or None."""
    header, shape = file[0].header, file[0].shape
    if len(shape) != 1 or shape[0] < 1000 or len(file) < 2:
        return None
    if not str(header.get("INSTRUME") or "HERMES").upper().startswith("HERMES") or _arm_of(header) is None:
        return None
    return _layout(file)


def _layout(file: FitsFile) -> str | None:
    found = [layout for name, layout in _ERRORS.items() if _named(file, name) is not None]
    return found[0] if found else None


def _named(file: FitsFile, name: str) -> Hdu | None:
    names = (str(file[i].header.get("EXTNAME", "")).strip().lower() for i in range(len(file)))
    return next((file[i] for i, found in enumerate(names) if found == name), None)


def _arm_of(header: Any) -> int | None:
    """Which arm a header is of, by its first wavelength: 1 to 4."""
    start = number(header.get("CRVAL1"))
    return next((i + 1 for i, (low, high) in enumerate(_STARTS) if start and low < start < high), None)


def companions(name: str) -> tuple[str, ...]:
    """Names of the files of the other arms."""
    match = _NAME.search(name)
    if match is None:
        return ()
    place = match.start(2)
    return tuple(f"{name[:place]}{arm}{name[place + 1 :]}" for arm in range(1, 5) if str(arm) != match[2])


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum]:
    """The spectrum of an object, all of its arms joined, from the file of its first arm.

    Raises:
        BadObjectError: nothing usable in it; or the file of another arm than the first (`selected_out`).
    """
    arm = _arm_of(file[0].header)
    assert arm is not None  # `recognise` has seen it
    name = "" if file.path is None else file.path.name
    match = _NAME.search(name)
    if match is None:
        raise BadObjectError(
            "no sobject_id: GALAH has it in the file's name alone, 15 digits and the number of the arm, such as "
            "1704180037012051.fits"
        )
    if int(match[2]) != arm:
        raise BadObjectError(f"named as arm {match[2]}, with the wavelengths of arm {arm}")
    others = _beside(file.path, match)
    if any(other < arm for other in others):
        raise BadObjectError("an arm that is read with the first one beside it", selected_out=True)
    parts, remarks = {arm: _Arm.of(file, layout)}, []
    for other, path in others.items():
        parts[other] = _opened(path, other, file)
    for number_of in range(1, 5):
        if number_of not in parts:
            remarks.append(f"no file of the {_ARMS[number_of - 1]} arm ({number_of})")
        elif not parts[number_of].is_usable:
            remarks.append(
                f"the {_ARMS[number_of - 1]} arm ({number_of}) left out: its wavelengths failed (WAV_OK = 0)"
            )
    arms = [parts[key] for key in sorted(parts) if parts[key].is_usable]
    if not arms:
        raise BadObjectError("the wavelengths of every arm failed (WAV_OK = 0)")
    header = file[0].header
    ra, dec = position(header.get("RA_ICRS"), header.get("DEC_ICRS"))
    if math.isnan(ra):  # which files have as 0, 0 where their star is in no catalogue
        ra, dec = position(header.get("RA_OBS"), header.get("DEC_OBS"))
    sigma = [one.lsf_sigma for one in arms]
    yield checked(
        Spectrum(
            object_id=match[1],
            survey=SURVEY,
            release=None,
            ra=ra,
            dec=dec,
            flux=np.concatenate([one.flux for one in arms]),
            ivar=np.concatenate([one.ivar for one in arms]),
            wavelength=np.concatenate([one.wavelength for one in arms]),
            mask=np.concatenate([one.ivar == 0 for one in arms]),
            layout=layout,
            source_file=source_file,
            label_source="header",
            labels=_labels(header),
            flux_unit=RELATIVE,
            medium="air",
            lsf_sigma=None if all(np.isnan(one).all() for one in sigma) else np.concatenate(sigma),
            units=LABELS,
            remarks=tuple(remarks),
        ),
        GRID,
    )


def _beside(path: Path | None, match: re.Match[str]) -> dict[int, Path]:
    """The other arms' files that there are."""
    if path is None:
        return {}
    paths = (path.with_name(name) for name in companions(path.name))
    arms = (arm for arm in range(1, 5) if str(arm) != match[2])
    return {arm: other for arm, other in zip(arms, paths, strict=True) if is_there(other)}


def _opened(path: Path, arm: int, first: FitsFile) -> _Arm:
    """An arm of the same object from its own file.

    Raises:
        BadObjectError: damaged, or another object's or arm's; names the file.
    """
    try:
        file = FitsFile.open(path)
        layout = recognise(file)
        if layout is None or _arm_of(file[0].header) != arm:
            raise BadObjectError(f"it is not of arm {arm}")
        for key in ("RA_OBS", "DEC_OBS"):
            mine, its = number(first[0].header.get(key)), number(file[0].header.get(key))
            if mine is not None and its is not None and abs(mine - its) > 0.01:
                raise BadObjectError(f"it is of another object: {key} {its:.4f}, not {mine:.4f}")
        return _Arm.of(file, layout)
    except BadObjectError as fault:
        raise BadObjectError(f"its {_ARMS[arm - 1]} arm, {path.name}, is unreadable: {fault}") from fault


class _Arm(NamedTuple):
    """One arm: `(N,)` each.

    Attributes:
        flux: counts. wavelength: float64, Angstrom, air. lsf_sigma: Angstrom, NaN where it is not known.
        is_usable: whether its wavelengths are right, as the pipeline says.
    """

    flux: npt.NDArray[Any]
    ivar: npt.NDArray[np.float64]
    wavelength: npt.NDArray[Any]
    lsf_sigma: npt.NDArray[np.float64]
    is_usable: bool

    @classmethod
    def of(cls, file: FitsFile, layout: str) -> _Arm:
        """Read it. BadObjectError: its images are not of one length, or it has no grid."""
        header = file[0].header
        check_header(header, RELATIVE)
        errors = next(hdu for name in _ERRORS if (hdu := _named(file, name)) is not None)
        flux, relative = file[0].image(), errors.image()
        check_pixels(max(flux.size, relative.size))
        if flux.shape != relative.shape:
            raise BadObjectError(f"inconsistent lengths: flux {flux.shape}, relative error {relative.shape}")
        flux = floats(flux)
        with np.errstate(invalid="ignore", over="ignore"):
            sigma = np.abs(flux.astype(np.float64)) * np.where(relative > 0, relative, 0)
        start, first = number(header.get("CRVAL1")), number(header.get("CRPIX1"))
        step = number(first_of(header, "CDELT1", "CD1_1"))
        if start is None or step is None or not step > 0:
            raise BadObjectError("no CRVAL1 and CDELT1: this layout has no other wavelengths")
        wave = start + step * (np.arange(len(flux)) + 1 - max(first or 1.0, 1.0))
        is_usable = number(header.get("WAV_OK")) != 0
        return cls(flux, inverse_variance(sigma), wave, _lsf(file, len(flux)), is_usable)


def _lsf(file: FitsFile, n: int) -> npt.NDArray[np.float64]:
    """Standard deviation of the line-spread function: float64 `(n,)`, NaN where the file gives none.

    Of exp(-ln 2 |2 x / fwhm|^B) it is fwhm / 2 x (ln 2)^(-1/B) x sqrt(Gamma(3/B) / Gamma(1/B)); of a Gaussian, B = 2,
    fwhm / 2.3548.
    """
    profile, boxiness = _named(file, "resolution_profile"), number(file[0].header.get("B"))
    if profile is None or profile.shape != (n,) or boxiness is None or not 1 <= boxiness <= 20:
        return np.full(n, np.nan)
    width = profile.image().astype(np.float64)
    ratio = math.sqrt(math.gamma(3 / boxiness) / math.gamma(1 / boxiness)) / math.log(2) ** (1 / boxiness)
    return np.where(width > 0, width, np.nan) / 2 * ratio


def _labels(header: Any) -> dict[str, Any]:
    """What the reduction says of the star; its parameters, a neural network's, under names of their own."""
    has_velocity = number(header.get("RVCOM_OK")) != 0
    names = {"radial_velocity": "RVCOM"} if has_velocity else {}
    if number(header.get("PAR_OK")) != 0:
        names |= {"teff_r": "TEFF_R", "logg_r": "LOGG_R", "fe_h_r": "FE_H_R"}
    return {"class": "STAR", **{ours: label(number(header.get(theirs))) for ours, theirs in names.items()}}


def _where(columns: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, npt.NDArray[np.bool_]]:
    size = len(next(iter(columns.values()))) if columns else 0
    # Any bit of the flag of the fit: "to use the parameters, flag_sp = 0". What is no number says nothing, either.
    fit = next(
        (~(columns[name] == 0) for name in ("flag_sp", "flag_cannon") if name in columns), np.zeros(size, bool)
    )
    found = {}
    for name in _FLAGGED:
        if name not in columns:
            continue
        own = next(
            (flag for flag in (f"flag_{name}", f"flag_{name.removesuffix('_cannon')}") if flag in columns), None
        )
        found[name] = fit | ~(columns[own] == 0) if own is not None else fit
    return found


_FLAGGED = ("teff", "logg", "fe_h", *_ABUNDANCES)
#: Where GALAH's own flags say not to use a value; of DR2 (`flag_cannon`), DR3 and DR4 (`flag_sp`).
UNSAID = Unsaid(("flag_sp", "flag_cannon", *_FLAGGED, *(f"flag_{name}" for name in ("fe_h", *_ABUNDANCES))), _where)


def _table_evidence(names: Mapping[str, str]) -> int:
    return 3 * int("sobject_id" in names or {"e_fe_h", "alpha_fe", "vbroad"} <= names.keys())


register(
    Survey(
        SURVEY,
        (Reader(recognise, read),),
        labels=LABELS,
        keys=("sobject_id", "object_id"),
        # DR3 and DR4 give the position of Gaia under these names.
        aliases={"ra_dr2": "ra", "dec_dr2": "dec", "raj2000": "ra", "dej2000": "dec"},
        unsaid=UNSAID,
        flux_unit=RELATIVE,
        table_evidence=_table_evidence,
        companions=companions,
        # Four arms of 4,096 pixels with gaps between them, on grids that differ from star to star.
        default_image={"window": (4_700.0, 7_900.0), "grid": "log", "block": 1},
    )
)

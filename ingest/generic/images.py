"""FITS images with an axis of wavelengths, of nobody known: one spectrum an image, or IRAF's stacks of apertures.

Sources: FITS 4.0, section 8; the help of IRAF's `onedspec.package` (an image is pixels x apertures x bands, and
`BANDIDn` says what a band holds) and `apextract`; `ARRAYn` of UVES_popler. Companions of an image are the HDUs of its
shape whose EXTNAME says that they are its errors, inverse variances, masks or wavelengths.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.fits.hdu import Hdu, HeaderLike
from specshards.ingest.generic import pairs
from specshards.ingest.generic.multispec import is_multispec, orders_of
from specshards.ingest.limits import MOST_ROWS, check_pixels
from specshards.ingest.surveys.axis import (
    GUESSED_AIR,
    GUESSED_UNIT,
    GUESSED_VACUUM,
    SEE,
    Axis,
    axis_of,
    is_iraf,
    is_spectral,
    medium_said,
    model_said,
    sky_of,
    stated_of,
    stem,
)
from specshards.ingest.surveys.common import checked, floats, native, text
from specshards.ingest.surveys.declared import frame_of
from specshards.ingest.surveys.errors import errors_in, errors_of
from specshards.ingest.surveys.flux import RELATIVE, inverse_variance, refuse_garbage, unit_of
from specshards.ingest.surveys.orders import Piece, are_orders, increasing, joined
from specshards.ingest.surveys.sentinels import NO_VALUE, missing
from specshards.ingest.surveys.survey import Reader, Survey, register
from specshards.ingest.surveys.wavelengths import AIR_FROM, settled, to_angstrom
from specshards.ingest.tables import Stated

SURVEY = "spectrum1d"
IMAGE = "fits-image"
STACK = "fits-image-rows"  # rows of one object, named by ARRAYn
ONEDSPEC = "iraf-onedspec"  # apertures, bands
MULTISPEC = "iraf-multispec"

_MOST_BANDS = 99
_MOST_APERTURES = 4096
_IVAR = {"IVAR1D", "WEIGHT"}
_FLUXES = ("flux", "flam", "fnu", "spectrum", "sci", "primary", "data")
_MASK = {"MASK", "DQ", "QUALITY", "QUAL", "FLAGS", "BADPIX"}
_WAVE = {"WAVE", "WAVELENGTH", "LAMBDA", "LOGLAM", "LOGLAMBDA", "WAVELENGTHS"}
_COMPANIONS = _IVAR | _MASK | _WAVE | {"SKY", "CONTINUUM", "MODEL"}


def recognise(file: FitsFile) -> str | None:
    """The layout of an image with wavelengths that no survey's reader knows, or None."""
    hdu = _flux_hdu(file)
    if hdu is None:
        return None
    header = hdu.header
    if is_multispec(header):
        return MULTISPEC
    if len(hdu.shape) == 1:
        return IMAGE
    if header.get("COEFF0") is not None or header.get("EXTEN0") is not None:
        return None  # rows of SDSS or LAMOST, whose readers do not know it: a mask would pass for a spectrum
    if len(_rows_said(header)) > 1:
        return STACK
    return ONEDSPEC if is_iraf(header) or header.get("BANDID1") is not None else None


def _flux_hdu(file: FitsFile) -> Hdu | None:
    """The first image that can be spectra: wavelengths along its first axis, in its header or beside it."""
    has_wave = any(_name(file[i]) in _WAVE and len(file[i].shape) == 1 for i in range(len(file)))
    for i in range(len(file)):
        hdu = file[i]
        if hdu.names or not 1 <= len(hdu.shape) <= 3 or hdu.shape[-1] < 2 or _is_companion(_name(hdu)):
            continue
        if is_multispec(hdu.header) or is_spectral(hdu.header) or (has_wave and len(hdu.shape) == 1):
            return hdu
    return None


def _is_companion(name: str) -> bool:
    return name in _COMPANIONS or errors_in(name) is not None


def _name(hdu: Hdu) -> str:
    return (text(hdu.header.get("EXTNAME")) or "").upper()


def _rows_said(header: HeaderLike) -> list[str]:
    """What the rows of an image are, by ARRAY1, ARRAY2, ..., in lower case."""
    said: list[str] = []
    while len(said) < _MOST_BANDS and (row := text(header.get(f"ARRAY{len(said) + 1}"))) is not None:
        said.append(row.lower())
    return said


@dataclass(frozen=True)
class _Lines:
    """The lines of an image as spectra: flux `(lines, n)`, sigma or ivar alike, mask True = bad."""

    flux: npt.NDArray[Any]
    sigma: npt.NDArray[Any] | None = None
    ivar: npt.NDArray[Any] | None = None
    mask: npt.NDArray[np.bool_] | None = None

    def piece(self, line: int, wave: npt.NDArray[np.float64]) -> Piece:
        """One line with its wavelengths, which may be fewer."""
        flux = floats(self.flux[line])[: len(wave)]
        ivar = None if self.ivar is None else native(self.ivar[line], np.float64)[: len(wave)]
        if self.sigma is not None:
            ivar = inverse_variance(self.sigma[line])[: len(wave)]
        mask = None if self.mask is None else np.asarray(self.mask[line], np.bool_)[: len(wave)].copy()
        return increasing(Piece(wave, flux, ivar, mask))


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum | BadObjectError]:
    """Every spectrum of a file.

    Raises:
        BadObjectError: nothing usable in it, with what was found.
    """
    hdu = _flux_hdu(file)
    assert hdu is not None  # `recognise` has seen it
    check_pixels(hdu.shape[-1])
    beside = pairs.refused_or_errors(file, hdu) if layout == IMAGE else None
    lines = _lines(file, hdu, layout)
    if beside is not None and lines.sigma is None and lines.ivar is None:
        lines = replace(lines, sigma=np.atleast_2d(beside))
    name, stated = stem(file, source_file), stated_of(file)
    make = _Maker(file, hdu, layout, source_file, stated)
    if layout == MULTISPEC:
        yield from _multispec(make, lines, name)
        return
    axis = make.axis()
    if lines.sigma is None and lines.ivar is None:
        make.remarks += _unsaid(file, hdu)
    count = len(lines.flux)
    for line in range(count):
        try:
            own, row = (name, None) if count == 1 else (f"{name}-{line + 1}", line)
            yield make.spectrum(own, lines.piece(line, axis.wavelength), axis, row=row)
        except BadObjectError as error:
            error.row = line
            yield error


def _multispec(make: _Maker, lines: _Lines, name: str) -> Iterator[Spectrum | BadObjectError]:
    header, pixels = make.hdu.header, make.hdu.shape[-1]
    orders = orders_of(header, pixels)
    if len(orders) != len(lines.flux):
        raise BadObjectError(f"{len(orders)} dispersions for {len(lines.flux)} lines of the image")
    waves = [order.wavelength for order in orders]
    axis = make.axis_of_all(waves)
    pieces = [lines.piece(i, wave) for i, wave in enumerate(waves)]
    if are_orders(waves):
        whole = joined(pieces)
        check_pixels(len(whole.flux))
        how = "where S/N changes over" if whole.ivar is not None else "in its middle (no errors are given)"
        said = f"are {len(orders)} orders of an echelle joined, each overlap cut {how}; blaze as in the file"
        yield make.spectrum(name, whole, axis, said)
        return
    for i, (order, piece) in enumerate(zip(orders, pieces, strict=True)):
        try:
            own, row = (name, None) if len(orders) == 1 else (f"{name}-{order.aperture}", i)
            yield make.spectrum(own, piece, axis, row=row)
        except BadObjectError as error:
            error.row = i
            yield error


class _Maker:
    """What all spectra of a file share."""

    def __init__(self, file: FitsFile, hdu: Hdu, layout: str, source_file: str, stated: Stated) -> None:
        self.file, self.hdu, self.layout, self.source_file, self.stated = file, hdu, layout, source_file, stated
        header = hdu.header if text(hdu.header.get("RA")) else file[0].header
        self.ra, self.dec, self.remarks = sky_of(header, ("RA", "DEC"), ("RA_TARG", "DEC_TARG"), ("OBJRA", "OBJDEC"))
        self.beside = _linetools(file)
        said = text(hdu.header.get("BUNIT")) or self.beside.get("flux") or getattr(stated, "unit", None)
        self.unit = RELATIVE if said == "dimensionless_unit" else unit_of(said) if said else None
        if said and self.unit is None:
            self.remarks += (f"have a unit of flux that is not understood ({said[:40]})",)
        if layout == STACK and "norm" in _rows_said(hdu.header)[0]:
            self.unit = RELATIVE
        model = model_said(header if header.get("AGE") is not None else file[0].header)
        self.frame = frame_of(getattr(stated, "frame", None)) or ("observed" if model is None else "rest")
        self.remarks += () if model is None else (model,)

    def axis(self) -> Axis:
        """Wavelengths of the header, or of the HDU that has them."""
        n = self.hdu.shape[-1]
        for i in range(len(self.file)):
            wave = self.file[i]
            if _name(wave) in _WAVE and wave.shape == (n,):
                values = native(wave.image(), np.float64)
                declared = text(wave.header.get("BUNIT")) or ("log10" if "LOG" in _name(wave) else None)
                declared = declared or self.beside.get("wave")
                return self._settled([values], declared, wave.header)._replace(wavelength=values)
        return axis_of(self.hdu.header, n, self.stated, is_rest=self.frame == "rest")

    def axis_of_all(self, waves: Sequence[npt.NDArray[np.float64]]) -> Axis:
        """Unit and medium of multispec wavelengths; `wavelength` is that of the first."""
        said = str(self.hdu.header.get("WAT1_001") or "").lower()
        declared = "angstrom" if "units=ang" in said.replace(" ", "") else None
        if declared is None and "units=" in said:
            declared = said.partition("units=")[2].split()[0].strip("\"'")
        return self._settled(waves, declared, self.hdu.header)

    def _settled(self, waves: Sequence[npt.NDArray[np.float64]], declared: str | None, header: HeaderLike) -> Axis:
        low, high = min(float(wave.min()) for wave in waves), max(float(wave.max()) for wave in waves)
        unit = settled(low, high, declared, self.stated.wavelength_unit, is_rest=self.frame == "rest")
        medium = medium_said(header) or self.beside.get("airvac") or self.stated.medium
        if medium is None and is_iraf(header):
            return Axis(waves[0], unit, "air", remarks=(GUESSED_AIR,))
        # Of an HDU of wavelengths the rule is that of tables: vacuum unless something is said.
        remarks: tuple[str, ...] = () if declared or self.stated.wavelength_unit else (GUESSED_UNIT,)
        if medium is None and to_angstrom(np.array([high]), unit)[0] > AIR_FROM:
            remarks += (GUESSED_VACUUM,)
        return Axis(waves[0], unit, medium or "vacuum", remarks=remarks)

    def spectrum(self, name: str, piece: Piece, axis: Axis, *remarks: str, row: int | None = None) -> Spectrum:
        """`checked`, of one line."""
        n = len(piece.flux)
        if (none := missing(piece.flux)).any():
            piece = piece._replace(mask=none if piece.mask is None else piece.mask | none)
            remarks += (NO_VALUE,)
        refuse_garbage(piece.flux, piece.mask)
        if piece.ivar is None and len(data := np.flatnonzero(piece.flux)) and data[-1] - data[0] + 1 < n - 1:
            # Without errors, zeros at the ends are all that says that there are no data.
            ends = np.ones(n, np.bool_)
            ends[data[0] : data[-1] + 1] = False
            piece = piece._replace(mask=ends if piece.mask is None else piece.mask | ends)
            remarks += ("have no errors, and zeros at their ends, which are taken for no data",)
        return checked(
            Spectrum(
                object_id=name, survey=getattr(self.stated, "name", None) or SURVEY, release=None, ra=self.ra,
                dec=self.dec, flux=piece.flux, ivar=np.ones(n) if piece.ivar is None else piece.ivar,
                wavelength=piece.wavelength, mask=np.zeros(n, np.bool_) if piece.mask is None else piece.mask,
                layout=self.layout, source_file=self.source_file, wave_coeff0=axis.coefficients[0],
                wave_coeff1=axis.coefficients[1], row=row, has_ivar=piece.ivar is not None, flux_unit=self.unit,
                wavelength_unit=axis.unit, medium=axis.medium, frame=self.frame,
                remarks=(*self.remarks, *axis.remarks, *remarks),
            )
        )  # fmt: skip


def _linetools(file: FitsFile) -> Mapping[str, str]:
    """What linetools' XSpectrum1D writes of a spectrum, as JSON: units `wave` and `flux`, and `airvac`."""
    found: dict[str, str] = {}
    for key in ("UNITS", "METADATA"):
        try:
            said = json.loads(text(file[0].header.get(key)) or "{}")
        except ValueError:
            continue
        if isinstance(said, dict):
            found |= {name: str(said[name]) for name in ("wave", "flux", "airvac") if said.get(name)}
    if (medium := found.pop("airvac", None)) in ("air", "vac"):
        found["airvac"] = "air" if medium == "air" else "vacuum"
    return found


def _lines(file: FitsFile, hdu: Hdu, layout: str) -> _Lines:
    """The fluxes of an image, and what is known of their errors.

    Raises:
        BadObjectError: too many lines, or companions that do not fit.
    """
    image = hdu.image()
    if layout == STACK:
        return _rows(image, _rows_said(hdu.header))
    if image.ndim == 3:
        bands = _bands(hdu.header, len(image))
        flux, sigma = image[bands[0]], None if bands[1] is None else image[bands[1]]
    else:
        flux, sigma = np.atleast_2d(image), None
        bands = _bands(hdu.header, len(flux))
        if bands[1] is not None and len(flux) > 1 and hdu.header.get("APNUM2") is None:
            flux, sigma = flux[bands[0]][None], flux[bands[1]][None]
    if len(flux) > min(_MOST_APERTURES, MOST_ROWS):
        raise BadObjectError(
            f"{len(flux):,} lines, {_MOST_APERTURES:,} at most: an image of the sky or a detector; {SEE}"
        )
    return _Lines(flux, sigma) if sigma is not None else _beside(file, hdu, flux)


def _bands(header: HeaderLike, count: int) -> tuple[int, int | None]:
    """Which band is the spectrum, and which its sigma, by BANDIDn."""
    said = [(text(header.get(f"BANDID{i + 1}")) or "").lower() for i in range(min(count, _MOST_BANDS))]
    flux = next((i for i, band in enumerate(said) if band.startswith("spectrum")), 0)
    return flux, next((i for i, band in enumerate(said) if band.startswith("sigma")), None)


def _rows(image: npt.NDArray[Any], said: list[str]) -> _Lines:
    """One spectrum of rows that ARRAYn name."""
    if image.ndim != 2 or len(image) < len(said):
        raise BadObjectError(f"ARRAYn name {len(said)} rows, the image has shape {image.shape}")

    def row(*words: str) -> npt.NDArray[Any] | None:
        found = next((i for i, name in enumerate(said) if any(word in name for word in words)), None)
        return None if found is None else image[found][None]

    flux, status = row("flux", "spectrum"), row("status")
    if flux is None:
        raise BadObjectError(f"no row of flux among {', '.join(said)[:80]}; {SEE}")
    # UVES_popler: 1 is valid, everything else is clipped or without data.
    return _Lines(flux, row("error", "sigma"), mask=None if status is None else np.asarray(status) != 1)


def _beside(file: FitsFile, hdu: Hdu, flux: npt.NDArray[Any]) -> _Lines:
    """Errors and masks in HDUs beside the image."""
    found: dict[str, npt.NDArray[Any]] = {}
    for i in range(len(file)):
        other = file[i]
        kind = _kind(_name(other), _name(hdu))
        if kind is None or other is hdu or kind in found or other.names:
            continue
        if other.shape != hdu.shape:
            raise BadObjectError(f"{_name(other)} has shape {other.shape}, the flux {hdu.shape}")
        found[kind] = np.atleast_2d(other.image())
    mask = None if "mask" not in found else np.asarray(found["mask"]) != 0
    if "ivar" in found:
        return _Lines(flux, ivar=found["ivar"], mask=mask)
    if "variance" in found:
        with np.errstate(invalid="ignore"):
            return _Lines(flux, sigma=np.sqrt(found["variance"].astype(np.float64)), mask=mask)
    return _Lines(flux, sigma=found.get("sigma"), mask=mask)


def _kind(name: str, flux: str) -> str | None:
    """What an HDU beside the flux holds of it: `ivar`, `variance`, `sigma` or `mask`, by their EXTNAMEs."""
    if name in _IVAR or name in _MASK:
        return "ivar" if name in _IVAR else "mask"
    errors = errors_of(flux, [name], _FLUXES)
    return None if errors is None else {"error": "sigma"}.get(errors[0], errors[0])


def _unsaid(file: FitsFile, hdu: Hdu) -> tuple[str, ...]:
    """The remark on images of the same shape that are not read, of which one may hold the errors."""
    others = [i for i in range(len(file)) if file[i] is not hdu and file[i].shape == hdu.shape and not file[i].names]
    names = [_name(file[i]) or f"HDU {i}" for i in others if not _name(file[i]) or errors_in(_name(file[i]))]
    return (f"are read without errors, though {', '.join(names[:3])} may hold some",) if names else ()


register(Survey(SURVEY, (Reader(recognise, read),), companions=pairs.companions, priority=-1))

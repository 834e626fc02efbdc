"""DESI spectra: many a file, three overlapping arms each, combined here; labels from the redrock file beside.

Source: the DESI data model of `coadd-*.fits` and `spectra-*.fits` (FIBERMAP and, per arm, `B_WAVELENGTH`, `B_FLUX`,
`B_IVAR`, `B_MASK`); `spectra-*` has a row for each exposure, and those of a target are combined here as well.
Vacuum, heliocentric, steps of 0.8 Angstrom: B 3600 to 5800, R 5760 to 7620, Z 7520 to 9824, together 7,781 pixels.
Flux in 1e-17 erg/s/cm2/A.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum, good_pixels
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.fits.hdu import Hdu
from specshards.ingest.limits import MOST_ROWS, check_pixels
from specshards.ingest.surveys import desi_columns, desi_labels
from specshards.ingest.surveys.common import GridLimits, checked, number, position, text
from specshards.ingest.surveys.flux import SDSS_UNIT
from specshards.ingest.surveys.headers import check_header, check_medium
from specshards.ingest.surveys.survey import OPTICAL, Reader, Survey, register

SURVEY = "desi"
COADD = "desi-coadd"
SPECTRA = "desi-spectra"  # one row an exposure, not yet co-added
REDROCK = "desi-redrock"  # labels only
CATALOGUE = "desi-catalogue"  # labels only
COLUMNS = "desi-columns"  # one row a pixel, one column a target

_NO_SPECTRA = {
    REDROCK: "redshifts, no spectra: read with the coadd beside them",
    CATALOGUE: "a catalogue, no spectra: give it with --catalog",
}

#: 3600 to 9824 Angstrom in linear pixels of 0.8 Angstrom; of 1 Angstrom in early reductions.
GRID = GridLimits(3500.0, 9900.0, 4e-5, 4e-4)

#: Bytes of a file of many spectra, which is mapped, not read: those of thousands of objects have a few GB.
MOST_COADD = 16 << 30

_ARMS = ("B", "R", "Z")
_PARTS = ("WAVELENGTH", "FLUX", "IVAR")


def recognise(file: FitsFile) -> str | None:
    """The DESI layout of an open FITS file, or None."""
    if len(file) < 2 or file[0].shape != ():
        return None
    if file[1].names >= desi_labels.COLUMNS:
        return REDROCK
    if desi_columns.is_one(file):
        return COLUMNS
    fibermap = file.named("FIBERMAP")
    if fibermap is None or "targetid" not in fibermap.names:
        is_alone = len(file) == 2 and "targetid" in file[1].names
        return CATALOGUE if is_alone and not file[1].names & {"wavelength", "wave", "flux"} else None
    return SPECTRA if "expid" in fibermap.names and "coadd_fiberstatus" not in fibermap.names else COADD


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum | BadObjectError]:
    """Every spectrum of a file, its arms and exposures combined.

    Raises:
        BadObjectError: no arms, arms that do not fit together, or unreadable labels beside it.
    """
    if layout in _NO_SPECTRA:
        raise BadObjectError(_NO_SPECTRA[layout], selected_out=True)
    labels = desi_labels.redshifts(file.path)
    release = _specprod(file[0])
    if layout == COLUMNS:
        yield from desi_columns.read(file[1], layout, source_file, release, labels)
        return
    fibermap = file.named("FIBERMAP")
    assert fibermap is not None  # `recognise` has seen it
    arms = _Arms.of(file)
    ids = fibermap.column("TARGETID")
    if ids.dtype.kind not in "iu":
        raise BadObjectError("TARGETID is not a column of integers")
    if len(ids) > MOST_ROWS:
        raise BadObjectError(f"{len(ids):,} spectra in one file; {MOST_ROWS:,} at most")
    if arms.rows != len(ids):
        raise BadObjectError(f"{arms.rows} rows of flux for {len(ids)} of FIBERMAP")
    exposures: dict[int, list[int]] = {}  # good rows of a target
    faults: dict[int, BadObjectError] = {}
    keys = ids if layout == SPECTRA else range(len(ids))
    for row, (key, targetid) in enumerate(zip(map(int, keys), map(int, ids), strict=True)):
        try:
            _refuse(fibermap, row, targetid)
            exposures.setdefault(key, []).append(row)
        except BadObjectError as error:
            error.row = row
            faults[row] = error
    for row, (key, targetid) in enumerate(zip(map(int, keys), map(int, ids), strict=True)):
        if row in faults:
            yield faults[row]
        rows = exposures.get(key, [])
        if rows[:1] != [row]:  # one that is with another, or a fault
            continue
        try:
            flux, ivar = arms.combined(rows)
            ra, dec = position(*(_value(fibermap, name, row) for name in ("target_ra", "target_dec")))
            known = labels.get(targetid)
            if known is not None and math.isnan(ra):
                ra, dec = known.ra, known.dec
            yield checked(
                Spectrum(
                    object_id=str(targetid), survey=SURVEY, release=release, ra=ra, dec=dec, flux=flux, ivar=ivar,
                    wavelength=arms.wavelength.copy(), mask=ivar == 0, layout=layout, source_file=source_file,
                    label_source=None if known is None else "redrock", labels=dict(known.labels if known else {}),
                    row=row, remarks=_combined(len(rows)),
                ),
                GRID,
            )  # fmt: skip
        except BadObjectError as error:
            error.row = row
            yield error


def _combined(exposures: int) -> tuple[str, ...]:
    return ("are the mean of several exposures, weighted by ivar",) if exposures > 1 else ()


def _refuse(fibermap: Hdu, row: int, targetid: int) -> None:
    """BadObjectError for what was not pointed at an object, or not with success."""
    if targetid < 0:
        raise BadObjectError("negative TARGETID: sky or no target", selected_out=True)
    if (text(_value(fibermap, "objtype", row)) or "TGT").upper() != "TGT":
        raise BadObjectError(f"OBJTYPE {text(_value(fibermap, 'objtype', row))}: no object", selected_out=True)
    for name in ("coadd_fiberstatus", "fiberstatus"):
        status = number(_value(fibermap, name, row))
        if status:
            raise BadObjectError(f"{name.upper()} {int(status)}: bad fibre", selected_out=True)


def _value(table: Hdu, name: str, row: int) -> Any:
    return table.column(name)[row] if name in table.names else None


@dataclass(frozen=True)
class _Arms:
    """The arms of a file on one grid.

    Attributes:
        wavelength: float32 `(N,)`, the union of the arms' grids.
        places: where each arm's pixels stand in it, int64.
        images: flux, ivar and mask (or None) of each arm, `(rows, n)`.
    """

    wavelength: npt.NDArray[np.float32]
    places: tuple[npt.NDArray[np.int64], ...]
    images: tuple[tuple[Any, Any, Any], ...]
    rows: int

    @classmethod
    def of(cls, file: FitsFile) -> _Arms:
        """Collect the arms that a file has.

        Raises:
            BadObjectError: none, half of one, or grids that are not pieces of one linear grid.
        """
        waves, images = [], []
        for arm in _ARMS:
            hdus = [file.named(f"{arm}_{part}") for part in _PARTS]
            if not any(hdus):
                continue
            if None in hdus:
                lost = ", ".join(f"{arm}_{part}" for part, hdu in zip(_PARTS, hdus, strict=True) if hdu is None)
                raise BadObjectError(f"half of the {arm} arm: no {lost}")
            for name, hdu in zip(_PARTS, hdus, strict=True):
                if hdu is not None and name == "FLUX":
                    check_header(hdu.header, SDSS_UNIT)
                elif hdu is not None and name == "WAVELENGTH":
                    check_medium(hdu.header)
            check_pixels(sum(math.prod(hdu.shape) for hdu in hdus[:1] if hdu is not None))
            wave, flux, ivar = (hdu.image() for hdu in hdus if hdu is not None)
            mask_hdu = file.named(f"{arm}_MASK")
            mask = None if mask_hdu is None else mask_hdu.image()
            shapes = {flux.shape, ivar.shape, *(() if mask is None else (mask.shape,))}
            if shapes != {(len(flux), len(wave))}:
                raise BadObjectError(f"{arm} arm: wavelength {wave.shape}, flux and others {sorted(shapes)}")
            waves.append(wave.astype(np.float64))
            images.append((flux, ivar, mask))
        if not waves:
            raise BadObjectError("no arm of a spectrograph in it")
        # A file cut short between two HDUs is still FITS; without these it would pass for one with fewer arms.
        if len({mask is None for _, _, mask in images}) > 1:
            raise BadObjectError("a mask for some of its arms only; cut short?")
        if file.named("Z_FLUX") is None and not _has_end(file):
            raise BadObjectError("ends before the Z arm and the SCORES; cut short?")
        rows = {len(flux) for flux, _, _ in images}
        if len(rows) != 1:
            raise BadObjectError(f"arms of {sorted(rows)} spectra")
        grid, places = _common_grid(waves)
        return cls(grid, places, tuple(images), rows.pop())

    def combined(self, rows: list[int]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Flux and ivar of one target, float32 `(N,)`: mean of arms and `rows` by ivar; 0, 0 where none is good.

        Raises:
            BadObjectError: flux and ivar are zero everywhere.
        """
        total, weight = np.zeros((2, len(self.wavelength)))
        empty = True
        for row in rows:
            for place, (flux_image, ivar_image, mask) in zip(self.places, self.images, strict=True):
                flux, ivar = flux_image[row].astype(np.float64), ivar_image[row].astype(np.float64)
                empty = empty and not flux.any() and not ivar.any()
                good = good_pixels(flux, ivar, None if mask is None else mask[row] != 0)
                flux[~good] = ivar[~good] = 0.0
                total[place] += flux * ivar
                weight[place] += ivar
        if empty:
            raise BadObjectError("flux and ivar are zero everywhere: no data", selected_out=True)
        flux = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
        with np.errstate(over="ignore"):  # of a damaged file: the arms are float32
            return flux.astype(np.float32), weight.astype(np.float32)


def _has_end(file: FitsFile) -> bool:
    """Whether SCORES follow the arms, as in coadds, so that nothing was cut off; `spectra-*` have them before."""
    names = [text(file[i].header.get("EXTNAME")) or "" for i in range(len(file))]
    arms = [i for i, name in enumerate(names) if name.endswith("_FLUX")]
    return "SCORES" in names[max(arms, default=0) :]


def _common_grid(waves: list[npt.NDArray[np.float64]]) -> tuple[npt.NDArray[np.float32], Any]:
    step = float(np.median(np.diff(waves[0]))) if len(waves[0]) > 1 else 0.0
    start = min(float(wave[0]) for wave in waves if len(wave))
    if not step > 0:
        raise BadObjectError("impossible grid: wavelengths do not increase")
    places = [np.rint((wave - start) / step).astype(np.int64) for wave in waves]
    for place, wave in zip(places, waves, strict=True):
        if not np.allclose(start + step * place, wave, rtol=0.0, atol=0.02 * step) or (np.diff(place) != 1).any():
            raise BadObjectError("impossible grid: the arms are not pieces of one linear grid")
    every, inverse = np.unique(np.concatenate(places), return_inverse=True)
    grid = np.zeros(len(every))
    grid[inverse] = np.concatenate(waves)
    edges = np.cumsum([len(place) for place in places])[:-1]
    return grid.astype(np.float32), tuple(np.split(inverse, edges))


def _specprod(primary: Hdu) -> str | None:
    """The spectroscopic production (`fuji`, `iron`, ...), which the header lists among its dependencies."""
    for i in range(100):
        name = primary.header.get(f"DEPNAM{i:02d}")
        if name is None:
            return None
        if text(name) == "SPECPROD":
            return text(primary.header.get(f"DEPVER{i:02d}"))
    return None


def _table_evidence(names: Mapping[str, str]) -> int:
    return 2 * int("zwarn" in names or "targetid" in names or {"zerr", "ebv"} <= names.keys())


register(
    Survey(
        SURVEY,
        (Reader(recognise, read, most_bytes=MOST_COADD),),
        keys=("targetid", "target_id", "object_id"),
        flux_unit=SDSS_UNIT,
        programmes=("sv1", "sv2", "sv3", "main", "special", "cmx"),
        table_evidence=_table_evidence,
        companions=desi_labels.companions,
        default_image={"window": OPTICAL},
    )
)

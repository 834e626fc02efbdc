"""Coadds of DESI's early releases as one table: one row a pixel, a column of flux for each target.

Source: the files themselves. Columns `WAVELENGTH` and `TARGET<TARGETID>`; vacuum, heliocentric, the arms' grids of
0.8 Angstrom in one list, so that the wavelengths where two arms overlap stand there twice; flux in 1e-17 erg/s/cm2/A.
No ivar, no mask.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.fits.hdu import Hdu
from specshards.ingest.limits import MOST_ROWS, check_pixels
from specshards.ingest.surveys.common import GridLimits, checked, native
from specshards.ingest.surveys.desi_labels import Redshift
from specshards.ingest.surveys.headers import check_medium

#: 3600 to 9824 Angstrom in linear pixels of 0.8 Angstrom.
GRID = GridLimits(3500.0, 9900.0, 4e-5, 4e-4)

_TARGET = re.compile(r"target(\d+)\Z")


def is_one(file: FitsFile) -> bool:
    """Whether a file has this layout."""
    names = file[1].names - {"wavelength"}
    return bool(names) and "wavelength" in file[1].names and all(map(_TARGET.match, names))


def read(
    table: Hdu, layout: str, source_file: str, release: str | None, labels: Mapping[int, Redshift]
) -> Iterator[Spectrum | BadObjectError]:
    """Every target of a table, in the order of its id.

    Raises:
        BadObjectError: wavelengths that are not pieces of one linear grid.
    """
    check_medium(table.header)
    check_pixels(table.shape[0])
    if len(table.names) > MOST_ROWS:
        raise BadObjectError(f"{len(table.names):,} columns in one file; {MOST_ROWS:,} at most")
    wavelength, places = _grid(native(table.column("wavelength"), np.float64))
    counts = np.bincount(places)
    for row, targetid in enumerate(sorted(int(name[6:]) for name in table.names - {"wavelength"})):
        try:
            # Without ivar, the plain mean where two arms overlap.
            values = native(table.column(f"target{targetid}"), np.float64)
            flux = np.bincount(places, values) / counts
            known = labels.get(targetid, Redshift({}))
            yield checked(
                Spectrum(
                    object_id=str(targetid), survey="desi", release=release, ra=known.ra, dec=known.dec, flux=flux,
                    ivar=np.ones(len(flux), np.float32), has_ivar=False, wavelength=wavelength.copy(),
                    mask=np.zeros(len(flux), np.bool_), layout=layout, source_file=source_file, row=row,
                    label_source="redrock" if targetid in labels else None, labels=dict(known.labels),
                    remarks=("have no errors: where two arms overlap they are the plain mean",),
                ),
                GRID,
            )  # fmt: skip
        except BadObjectError as error:
            error.row = row
            yield error


def _grid(waves: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The wavelengths, each once, float32 `(N,)`; for each row of the table its place among them."""
    steps = np.diff(waves)
    step = float(np.median(steps)) if len(steps) else 0.0
    if not (step > 0 and np.isfinite(waves).all() and (steps > -0.02 * step).all()):
        raise BadObjectError("impossible grid: wavelengths do not increase")
    if (waves[-1] - waves[0]) / step > 2 * len(waves):
        raise BadObjectError("impossible grid: the arms are not pieces of one linear grid")
    places = np.rint((waves - waves[0]) / step).astype(np.int64)
    jumps = np.diff(places)
    if np.abs(waves[0] + step * places - waves).max() > 0.02 * step or not ((jumps == 0) | (jumps == 1)).all():
        raise BadObjectError("impossible grid: the arms are not pieces of one linear grid")
    first = np.concatenate([[True], jumps == 1])
    return waves[first].astype(np.float32), places

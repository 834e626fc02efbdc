"""MaStar, the stellar library of MaNGA: a table of one row a visit, or images of averaged spectra (MaStarHC).

Sources: the DR17 data model of `mastar-goodspec` and `mastar-combspec` (WAVE in vacuum on a grid of log10, FLUX in
1e-17 erg/s/cm2/A, IVAR, MASK, HELIOV; Yan et al. 2019, ApJ 883, 175): good visits are in the observed frame.
MaStarHC, the templates of MaNGA's DAP (Westfall et al. 2019; Law et al. 2021): an image of one line, CTYPE1 WAVE-LOG
with CRVAL1 = log10 of Angstrom, HDUs IVAR and SRES; averages of stars, in the rest frame and in vacuum, Na D lies
within 0.3 Angstrom of its place. Bits 0 (no data) and 10 (not to be used) of MASK condemn a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.fits.hdu import Hdu
from specshards.ingest.ids import id_text
from specshards.ingest.limits import MOST_ROWS, check_pixels
from specshards.ingest.surveys.axis import axis_of, stem
from specshards.ingest.surveys.common import GridLimits, checked, floats, native, position, text
from specshards.ingest.surveys.flux import RELATIVE, SDSS_UNIT
from specshards.ingest.surveys.survey import Reader, Survey, register

SURVEY = "mastar"
VISITS, AVERAGES = "mastar-visits", "mastar-hc"
GRID = GridLimits(3550.0, 10_500.0, 2.2e-4, 2.4e-4)
_COLUMNS = {"mangaid", "wave", "flux", "ivar", "mask"}
_BAD_BITS = 1 << 0 | 1 << 10
_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))  # of a Gaussian, in sigma


def recognise(file: FitsFile) -> str | None:
    """The MaStar layout of an open FITS file, or None."""
    if len(file) > 1 and file[1].names >= _COLUMNS:
        return VISITS
    sres = file.named("SRES")
    is_average = sres is not None and file.named("IVAR") is not None and len(file[0].shape) == 1
    is_average = is_average and sres is not None and sres.shape == file[0].shape
    return AVERAGES if is_average and text(file[0].header.get("CTYPE1")) == "WAVE-LOG" else None


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum | BadObjectError]:
    """Every visit of a table, or the one spectrum of an image."""
    if layout == AVERAGES:
        yield _average(file, source_file)
        return
    table = file[1]
    if table.shape[0] > MOST_ROWS:
        raise BadObjectError(f"{table.shape[0]:,} spectra in one file; {MOST_ROWS:,} at most")
    columns = {name: table.column(name) for name in sorted(_COLUMNS)}
    shapes = {columns[name].shape for name in ("wave", "flux", "ivar", "mask")}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise BadObjectError(f"WAVE, FLUX, IVAR and MASK have shapes {sorted(shapes)}")
    check_pixels(columns["flux"].shape[1])
    known = (("objra", "objdec"), ("ra", "dec"), ("ifura", "ifudec"))
    sky = next((pair for pair in known if set(pair) <= table.names), None)
    places = None if sky is None else [table.column(name) for name in sky]
    visit = table.column("mjd") if "mjd" in table.names else None
    for row in range(table.shape[0]):
        try:
            name = id_text(columns["mangaid"][row], "MANGAID")
            if name is None:
                raise BadObjectError("no MANGAID: nothing names this spectrum")
            ra, dec = (np.nan, np.nan) if places is None else position(places[0][row], places[1][row])
            yield checked(
                Spectrum(
                    object_id=name if visit is None else f"{name}-{int(visit[row])}", survey=SURVEY,
                    release=text(table.column("mprocver")[row]) if "mprocver" in table.names else None,
                    ra=ra, dec=dec,
                    flux=floats(columns["flux"][row]), ivar=floats(columns["ivar"][row]),
                    wavelength=native(columns["wave"][row], np.float64),
                    mask=(native(columns["mask"][row], np.int64) & _BAD_BITS) != 0, layout=layout,
                    source_file=source_file, row=row, labels={"class": "STAR"}, label_source="survey",
                    flux_unit=SDSS_UNIT,
                ),
                GRID,
            )  # fmt: skip
        except BadObjectError as error:
            error.row = row
            yield error


def _average(file: FitsFile, source_file: str) -> Spectrum:
    n = file[0].shape[0]
    ivar: Hdu | None = file.named("IVAR")
    assert ivar is not None  # `recognise` has seen it
    sres = file.named("SRES")
    assert sres is not None
    axis = axis_of(file[0].header, n, medium="vacuum", is_rest=True)
    with np.errstate(all="ignore"):  # SRES is lambda over FWHM
        sigma = axis.wavelength / native(sres.image(), np.float64) / _FWHM
    sigma[~np.isfinite(sigma) | (sigma <= 0)] = np.nan
    return checked(
        Spectrum(
            object_id=stem(file, source_file), survey=SURVEY, release=None, ra=np.nan, dec=np.nan,
            flux=floats(file[0].image()), ivar=floats(ivar.image()), wavelength=axis.wavelength,
            mask=np.zeros(n, np.bool_), layout=AVERAGES, source_file=source_file, wave_coeff0=axis.coefficients[0],
            wave_coeff1=axis.coefficients[1], labels={"class": "STAR"}, label_source="survey", flux_unit=RELATIVE,
            wavelength_unit=axis.unit, frame="rest",
            lsf_sigma=sigma.astype(np.float32), remarks=("are averages of many stars (MaStarHC), not stars",),
        ),
        GRID,
    )  # fmt: skip


register(Survey(SURVEY, (Reader(recognise, read),), keys=("mangaid", "object_id")))

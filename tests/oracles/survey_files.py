"""Small files in the surveys' layouts, with what is odd about some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

N = 400
WAVE = 10.0 ** (3.5682 + 1e-4 * np.arange(N))
FLUX = np.linspace(10, 20, N)
IVAR = np.full(N, 4.0)
HEADER = {
    "OBSID": 701002, "DATA_V": "LAMOST DR5", "RA": 12.5, "DEC": 41.0, "LMJD": 55862, "PLANID": "B6202", "SPID": 1,
    "FIBERID": 2, "COEFF0": 3.5682, "COEFF1": 1e-4, "CLASS": "STAR", "SUBCLASS": "G7", "Z": -5e-4, "Z_ERR": 3e-5,
    "SNRU": -9999.0, "SNRG": 5.2,
}  # fmt: skip


def lamost_image(path: Path, rows: str, third: np.ndarray, dtype: str = ">f4", **header: Any) -> Path:
    data = np.stack([FLUX, IVAR, third, np.zeros(N), np.zeros(N)]).astype(dtype)
    hdu = fits.PrimaryHDU(data)
    hdu.header.update({"EXTEN0": rows, **{k: v for k, v in {**HEADER, **header}.items() if v is not None}})
    hdu.writeto(path)
    return path


def lamost_table(path: Path, changes: dict[str, np.ndarray] | None = None, **header: Any) -> Path:
    columns = {"FLUX": FLUX, "IVAR": IVAR, "WAVELENGTH": WAVE, "ANDMASK": np.zeros(N), "ORMASK": np.zeros(N),
               "NORMALIZATION": FLUX, **(changes or {})}  # fmt: skip
    table = fits.BinTableHDU.from_columns(
        [fits.Column(k, f"{len(v)}E", array=[v.astype("f4")]) for k, v in columns.items()], name="COADD"
    )
    primary = fits.PrimaryHDU()
    primary.header.update({k: v for k, v in {**HEADER, **header}.items() if v is not None})
    fits.HDUList([primary, table]).writeto(path)
    return path


def sdss_spec(
    path: Path, *, upper: bool = False, named: bool = True, drop: tuple[str, ...] = (), **labels: Any
) -> Path:
    case = str.upper if upper else str.lower
    pixels = {"flux": FLUX, "loglam": np.log10(WAVE), "ivar": IVAR, "and_mask": np.zeros(N), "or_mask": np.zeros(N)}
    kinds = {"and_mask": "J", "or_mask": "J"}
    coadd = fits.BinTableHDU.from_columns(
        [fits.Column(case(k), kinds.get(k, "E"), array=v) for k, v in pixels.items()], name="COADD" if named else None
    )
    row = {"SPECOBJID": "    299492975510054912", "PLUG_RA": 146.93, "PLUG_DEC": -0.7, "CLASS": "GALAXY  ",
           "SUBCLASS": "", "Z": 0.12, "Z_ERR": 3e-5, "ZWARNING": 0, "SN_MEDIAN_ALL": 16.2, "PLATE": 266, "MJD": 51602,
           "FIBERID": 13, "RUN2D": "26", "ELODIE_TEFF": 0.0, **labels}  # fmt: skip
    formats = {str: "32A", float: "D", int: "K"}
    columns = [fits.Column(k, formats[type(v)], array=[v]) for k, v in row.items() if k not in drop and v is not None]
    primary = fits.PrimaryHDU()
    # The header's RA is the plate's centre; only its PLUG_RA is the object's.
    primary.header.update({"RA": 1.0, "DEC": 2.0, "COEFF0": 3.5682, "COEFF1": 1e-4, "PLUG_RA": 5.0, "PLUG_DEC": 6.0})
    lines = fits.BinTableHDU.from_columns([fits.Column("LINEZ", "E", array=[0.12])])
    spall = fits.BinTableHDU.from_columns(columns, name="SPALL" if named else None)
    fits.HDUList([primary, coadd, spall, lines]).writeto(path)
    return path


def desi_coadd(path: Path, rows: int = 3, compression: str | None = None) -> Path:
    """A DESI coadd of `rows` objects without labels beside it, one pixel of each masked in every arm.

    Args:
        compression: of the masks, as DESI writes them in `spectra-*.fits`; None for plain images.
    """
    rng = np.random.default_rng(5)
    fibermap = fits.BinTableHDU.from_columns(
        [
            fits.Column("TARGETID", "K", array=39_600_000_000_000_000 + np.arange(rows)),
            fits.Column("COADD_FIBERSTATUS", "J", array=np.zeros(rows)),
            fits.Column("TARGET_RA", "D", array=10.0 + np.arange(rows)),
            fits.Column("TARGET_DEC", "D", array=np.full(rows, -5.0)),
            fits.Column("OBJTYPE", "3A", array=["TGT"] * rows),
        ],
        name="FIBERMAP",
    )
    hdus = [fits.PrimaryHDU(), fibermap]
    for arm, start, n in (("B", 3600.0, 2751), ("R", 5760.0, 2326), ("Z", 7520.0, 2881)):
        wave = np.round(start + 0.8 * np.arange(n), 6)
        mask = np.zeros((rows, n), np.uint32)
        mask[:, 1000] = 1 << 4
        flux = rng.normal(5, 1, (rows, n)).astype(">f4")
        hdus.append(fits.ImageHDU(wave, name=f"{arm}_WAVELENGTH"))
        hdus.append(fits.ImageHDU(flux, name=f"{arm}_FLUX"))
        hdus.append(fits.ImageHDU(np.full((rows, n), 0.5, ">f4"), name=f"{arm}_IVAR"))
        if compression is None:
            hdus.append(fits.ImageHDU(mask, name=f"{arm}_MASK"))
        else:
            hdus.append(fits.CompImageHDU(mask, name=f"{arm}_MASK", compression_type=compression))
    fits.HDUList(hdus).writeto(path)
    return path

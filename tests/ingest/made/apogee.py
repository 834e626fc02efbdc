"""Made-up APOGEE files, in the layouts of the SDSS data model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from tests.ingest.made.star import C, Floats, Made, Star, main

N = 8575
START, STEP = 4.179, 6e-6
GRID = 10 ** (START + STEP * np.arange(N))
#: Pixels of the three chips on the combined grid.
CHIPS = (slice(246, 3274), slice(3585, 6080), slice(6344, 8335))
IN_CHIP = np.zeros(N, bool)
for _chip in CHIPS:
    IN_CHIP[_chip] = True
_LOG = {"CRVAL1": START, "CDELT1": STEP, "CRPIX1": 1, "CTYPE1": "LOG-LINEAR", "DC-FLAG": 1}
UNIT = "(10^-17 erg/s/cm^2/Ang)"


def name_of(star: Star) -> str:
    """As 2MASS names it."""
    hours, degrees = star.ra / 15, abs(star.dec)
    h, m, s = int(hours), int(hours * 60 % 60), hours * 3600 % 60
    d, dm, ds = int(degrees), int(degrees * 60 % 60), degrees * 3600 % 60
    return f"2M{h:02d}{m:02d}{int(s * 100):04d}{'-' if star.dec < 0 else '+'}{d:02d}{dm:02d}{int(ds * 10):03d}"


def _header(star: Star, **more: Any) -> dict[str, Any]:
    return {
        "OBJID": name_of(star), "RA": star.ra, "DEC": star.dec, "TELESCOP": "apo25m", "FIELD": "made", "LOCID": 4217,
        "SNR": 80.0, "STARFLAG": 0, "VHELIO": star.velocity, "VSCATTER": 0.1, "V_APRED": "made", **more,
    }  # fmt: skip


def _images(*images: npt.NDArray[Any], names: tuple[str, ...] = ("Flux", "Error")) -> list[fits.ImageHDU]:
    hdus = [fits.ImageHDU(image) for image in images]
    for hdu, name in zip(hdus, names, strict=False):
        hdu.header["BUNIT"] = f"{name} {UNIT}"
    return hdus


def ap_star(path: Path, star: Star, rng: np.random.Generator, visits: int = 2) -> Path:
    """A combined spectrum: of one visit a row alone, as older ones have it."""
    flux = np.where(IN_CHIP, 200 * star.continuum(GRID) * star.normalised(GRID), 0)
    sigma = np.where(IN_CHIP, 2.5, 1e10)
    rows = 1 if visits == 1 else visits + 2
    noise = np.where(IN_CHIP, rng.normal(0, 2.5, (rows, N)), 0)
    fluxes, sigmas = flux + noise, np.repeat(sigma[None], rows, 0)
    masks = np.where(IN_CHIP, 0, 1 | 1 << 7)[None].repeat(rows, 0)
    masks[:, 1000:1010] |= 1 << 12  # near a sky line, which condemns nothing
    sigmas[:, 1100], fluxes[:, 1100], masks[:, 1100] = 1e10, 0, 1 << 2
    if visits > 1:
        masks[2, 2000:2020] |= 1  # bad in the first visit alone
        masks[0] = np.bitwise_or.reduce(masks[2:])
        masks[1] = np.bitwise_and.reduce(masks[2:])
    images = _images(fluxes.astype(">f4"), sigmas.astype(">f4"), masks.astype(">i2"))
    if visits == 1:
        images = _images(fluxes[0].astype(">f4"), sigmas[0].astype(">f4"), masks[0].astype(">i2"))
    primary = fits.PrimaryHDU()
    more = {"NVISITS": visits, "VRAD": 0.0, "RVTEFF": 5000.0, "RVLOGG": 3.0, "RVFEH": -0.5, "SFILE1": "apVisit"}
    primary.header.update({**_header(star, **more), **_LOG})
    for hdu in images:
        hdu.header.update(_LOG)
    fits.HDUList([primary, *images]).writeto(path, overwrite=True)
    return path


def aspcap_star(path: Path, star: Star, rng: np.random.Generator, **flags: int) -> Path:
    """A normalised spectrum with its parameters."""
    flux = np.where(IN_CHIP, star.normalised(GRID) + rng.normal(0, 0.01, N), 0)
    images = [fits.ImageHDU(values.astype(">f4")) for values in (flux, np.where(IN_CHIP, 0.01, 0), flux)]
    for hdu in images:
        hdu.header.update(_LOG)
    row = _row(star, rng) | flags
    columns = [fits.Column(name, _FORMS[type(value)], array=[value]) for name, value in row.items()]
    hdus = [fits.PrimaryHDU(), *images, fits.BinTableHDU.from_columns(columns)]
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


def ap_visit(path: Path, star: Star, rng: np.random.Generator, **header: Any) -> Path:
    """A visit: three chips from red to blue, wavelengths descending, as at the telescope."""
    barycentric = 11.0
    ends = ((16954.8, 16473.1), (16435.4, 15857.6), (15810.3, 15143.0))
    wave = np.stack([np.linspace(*end, 4096) for end in ends])
    rest: Floats = wave / (1 + (star.velocity - barycentric) / C)
    flux = np.stack([200 * star.normalised(chip[::-1])[::-1] for chip in rest]) + rng.normal(0, 2.5, wave.shape)
    mask = np.zeros(wave.shape, ">i2")
    mask[:, :30] = mask[:, -30:] = 129
    mask[1, 500:600] = 1 << 9  # persistence: a warning
    sigma = np.full(wave.shape, 2.5)
    images = _images(flux.astype(">f4"), sigma.astype(">f4"), mask, wave)
    images[2].header["BUNIT"], images[3].header["BUNIT"] = "Flag mask", "Wavelength (Ang)"
    primary = fits.PrimaryHDU()
    more = {"OBJTYPE": "STAR", "FIBERID": 128, "PLATE": "5095", "MJD5": 55844, "SURVEY": "apogee", "BC": barycentric}
    primary.header.update(_header(star, **more | {"VRAD": star.velocity - barycentric} | header))
    fits.HDUList([primary, *images]).writeto(path, overwrite=True)
    return path


_FORMS = {str: "20A", float: "E", int: "K"}


def _row(star: Star, rng: np.random.Generator) -> dict[str, Any]:
    """Of allStar."""
    return {
        "APOGEE_ID": name_of(star), "TELESCOPE": "apo25m", "FIELD": "made", "RA": float(star.ra), "DEC": star.dec,
        "SNR": 80.0, "VHELIO_AVG": star.velocity, "VSCATTER": 0.1, "TEFF": star.teff + rng.normal(0, 20),
        "TEFF_ERR": 20.0, "LOGG": star.logg + rng.normal(0, 0.03), "LOGG_ERR": 0.03, "M_H": star.feh, "M_H_ERR": 0.01,
        "ALPHA_M": star.mg_fe, "ALPHA_M_ERR": 0.01, "FE_H": star.feh + rng.normal(0, 0.02), "FE_H_ERR": 0.02,
        "MG_FE": star.mg_fe + rng.normal(0, 0.02), "MG_FE_ERR": 0.02, "ASPCAPFLAG": 0, "STARFLAG": 0, "FE_H_FLAG": 0,
        "EXTRATARG": 0,
    }  # fmt: skip


def catalogue(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Like allStar, with a column of vectors."""
    forms = {**_FORMS, float: "D"}
    columns = [fits.Column(name, forms[type(rows[0][name])], array=[row[name] for row in rows]) for name in rows[0]]
    columns.append(fits.Column("PARAM", "9E", array=np.zeros((len(rows), 9))))
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(path, overwrite=True)
    return path


def write(folder: Path, n: int, seed: int = 0) -> Made:
    """`n` apStar files, of one to three visits, and their allStar."""
    spectra = folder / "spectra"
    spectra.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        star = Star.drawn(rng)
        ap_star(spectra / f"apStar-made-{name_of(star)}.fits", star, rng, 1 + i % 3)
        rows.append(_row(star, rng))
    return Made(spectra, catalogue(folder / "allStar-made.fits", rows))


if __name__ == "__main__":
    main(write, "apStar files")

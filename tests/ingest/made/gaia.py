"""Made-up Gaia files, as DataLink serves XP_SAMPLED and RVS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Column, MaskedColumn, Table

from tests.ingest.made.star import Floats, Made, Star, main

XP = np.arange(336.0, 1021.0, 2.0)
RVS = 846 + 0.01 * np.arange(2401)
UNIT = "W.m**-2.nm**-1"


def source_id(number: int) -> int:
    """An id that a float64 does not hold."""
    return 5_853_498_713_190_525_697 + 2 * number


def samples(star: Star, rng: np.random.Generator, kind: str = "xp") -> tuple[Floats, Floats]:
    """Flux and its error: float32 numbers."""
    if kind == "rvs":
        flux, error = star.normalised(RVS * 10), np.full(len(RVS), 0.02)
    else:
        # The resolving power of XP is some 50: lines are smeared into the shape of the continuum.
        fine = np.arange(3300.0, 10260.0, 4.0)
        width = np.exp(-0.5 * (np.arange(-60, 61) / 20) ** 2)
        smooth = np.convolve(star.continuum(fine) * star.normalised(fine), width / width.sum(), "same")
        flux, error = 3e-15 * np.interp(XP * 10, fine, smooth), np.full(len(XP), 3e-17)
    return (flux + rng.normal(0, 1, len(flux)) * error).astype("f4"), error.astype("f4")


def table(n: int, seed: int = 0, kind: str = "xp") -> tuple[Table, list[Star]]:
    """A RAW table: a row a source."""
    rng = np.random.default_rng(seed)
    stars = [Star.drawn(rng) for _ in range(n)]
    flux, error = (np.stack(part) for part in zip(*(samples(star, rng, kind) for star in stars), strict=True))
    unit = UNIT if kind == "xp" else None
    columns = [
        Column([source_id(i) for i in range(n)], "source_id"),
        Column(np.full(n, 4545469030156206080), "solution_id"),
        Column([star.ra for star in stars], "ra", unit="deg"),
        Column([star.dec for star in stars], "dec", unit="deg"),
        Column(flux, "flux", unit=unit), Column(error, "flux_error", unit=unit),
    ]  # fmt: skip
    return Table(columns), stars


def write_table(path: Path, content: Table) -> Path:
    """As the name of the file says: CSV, ECSV, FITS or VOTable (.xml)."""
    if path.suffix in (".csv", ".ecsv"):
        as_text = content.copy()
        for name in ("flux", "flux_error"):
            cells = [f"({', '.join('NaN' if np.isnan(v) else repr(float(v)) for v in row)})" for row in content[name]]
            as_text[name] = MaskedColumn(cells, name)
        kinds = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv"}
        as_text.write(path, format=kinds[path.suffix], overwrite=True, **_delimiter(path))
    elif path.suffix == ".xml":
        content.write(path, format="votable", overwrite=True)
    else:
        content.meta.clear()
        hdu = fits.BinTableHDU(content)
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)
    return path


def _delimiter(path: Path) -> dict[str, Any]:
    return {"delimiter": ","} if path.suffix == ".ecsv" else {}


def catalogue(path: Path, stars: list[Star], rng: np.random.Generator) -> Path:
    """Like `gaia_source`."""
    names = "source_id,ra,dec,teff_gspphot,logg_gspphot,mh_gspphot,radial_velocity,parallax"
    rows = [
        f"{source_id(i)},{star.ra},{star.dec},{star.teff + rng.normal(0, 80)},{star.logg + rng.normal(0, 0.1)},"
        f"{star.feh + rng.normal(0, 0.1)},{star.velocity},{rng.uniform(0.1, 5)}"
        for i, star in enumerate(stars)
    ]
    path.write_text("\n".join([names, *rows]) + "\n")
    return path


def write(folder: Path, n: int, seed: int = 0, end: str = "csv", kind: str = "xp") -> Made:
    """`n` sources in one RAW table, and their catalogue."""
    spectra = folder / "spectra"
    spectra.mkdir(parents=True, exist_ok=True)
    content, stars = table(n, seed, kind)
    write_table(spectra / f"{'XP_SAMPLED' if kind == 'xp' else 'RVS'}_RAW.{end}", content)
    return Made(spectra, catalogue(folder / "gaia_source.csv", stars, np.random.default_rng(seed + 1)))


if __name__ == "__main__":
    main(write, "sampled XP spectra of Gaia")

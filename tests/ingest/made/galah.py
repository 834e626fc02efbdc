"""Made-up GALAH files: four arms a star, in the layout of DR4 or that of DR2 and DR3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from specshards.ingest.surveys.wavelengths import vacuum_of_air
from tests.ingest.made.star import Made, Star, main, shifted

N = 4096
#: First wavelength and step of the arms, Angstrom, air.
ARMS = ((4713.6, 0.0460), (5648.8, 0.0547), (6478.2, 0.0631), (7585.3, 0.0736))
_DR4 = ("normalized", "relative_error", "sky", "teluric", "scattered", "cross_talk", "resolution_profile")
_DR3 = ("input_sigma", "no_sky_spectrum", "no_sky_sigma", "normalised_spectrum")


def sobject_id(number: int) -> str:
    """An id of 15 digits."""
    return f"21011500{number // 400:04d}{number % 400 + 1:03d}"


def write_star(
    folder: Path, name: str, star: Star, rng: np.random.Generator, arms: tuple[int, ...] = (1, 2, 3, 4),
    layout: str = "dr4", **header: Any,
) -> list[Path]:  # fmt: skip
    """The arms' files of a star; those are its paths."""
    paths = []
    for arm in arms:
        start, step = ARMS[arm - 1]
        air = start + step * np.arange(N)
        vacuum = vacuum_of_air(air)
        line = star.normalised(shifted(star, vacuum))
        counts = 800.0 * arm * star.continuum(vacuum) * line
        relative = 1 / np.sqrt(np.maximum(counts, 1) * 2)
        counts = counts * (1 + relative * rng.normal(0, 1, N))
        relative[17] = 0  # no information
        images = {
            "normalized": line, "normalised_spectrum": line, "relative_error": relative, "input_sigma": relative,
            "resolution_profile": np.full(N, start / 28_000 * 1.3),
        }  # fmt: skip
        hdus = [fits.PrimaryHDU(counts.astype(">f4"))]
        for extension in _DR4 if layout == "dr4" else _DR3:
            hdus.append(fits.ImageHDU(images.get(extension, np.zeros(N)).astype(">f4"), name=extension))
            hdus[-1].header["EXTNAME"] = extension
        for hdu in hdus:
            hdu.header.update({"CRVAL1": start, "CDELT1": step, "CRPIX1": 1.0, "CTYPE1": "LINEAR"})
        hdus[0].header.update({
            "INSTRUME": "HERMES-2dF", "RA_OBS": star.ra, "DEC_OBS": star.dec, "RA_ICRS": star.ra,
            "DEC_ICRS": star.dec, "RVCOM": star.velocity, "RVCOM_OK": 1, "WAV_OK": 1, "BUNIT": "counts", "B": 2.5,
        })  # fmt: skip
        hdus[0].header.update(header)
        paths.append(folder / f"{name}{arm}.fits")
        fits.HDUList(hdus).writeto(paths[-1], overwrite=True)
    return paths


def _row(name: str, star: Star, rng: np.random.Generator) -> dict[str, Any]:
    """Of the catalogue of DR3."""
    return {
        "sobject_id": name, "star_id": f"made{name}", "flag_sp": 0, "teff": star.teff + rng.normal(0, 40),
        "e_teff": 40.0, "logg": star.logg + rng.normal(0, 0.05), "e_logg": 0.05,
        "fe_h": star.feh + rng.normal(0, 0.03), "e_fe_h": 0.03, "flag_fe_h": 0,
        "Mg_fe": star.mg_fe + rng.normal(0, 0.03), "e_Mg_fe": 0.03, "flag_Mg_fe": 0,
        "alpha_fe": star.mg_fe, "e_alpha_fe": 0.02, "flag_alpha_fe": 0,
        "rv_galah": star.velocity, "e_rv_galah": 0.1, "ra_dr2": star.ra,
        "dec_dr2": star.dec,
    }  # fmt: skip


def catalogue(path: Path, rows: list[dict[str, Any]]) -> Path:
    """As CSV."""
    lines = [",".join(rows[0]), *(",".join(str(value) for value in row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write(folder: Path, n: int, seed: int = 0, layout: str = "dr4") -> Made:
    """The four files of each of `n` stars, and their catalogue."""
    spectra = folder / "spectra"
    spectra.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        star, name = Star.drawn(rng), sobject_id(i)
        write_star(spectra, name, star, rng, layout=layout)
        rows.append(_row(name, star, rng))
    return Made(spectra, catalogue(folder / "galah-made.csv", rows))


if __name__ == "__main__":
    main(write, "GALAH files, four a star")

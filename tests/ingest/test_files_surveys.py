"""Files of smaller surveys: as astropy alone reads them, and damaged ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.surveys import open_file
from specshards.ingest.surveys.wavelengths import vacuum_of_air
from tests.conftest import REAL

LAYOUTS = REAL / "layouts"
real = pytest.mark.skipif(not LAYOUTS.is_dir(), reason="no real files of layouts")
FILES = {
    "6dfgs-images": "sixdfgs/g1639001-012857.fits", "6dfgs-table": "onedspec_image/0000108_1d.fits",
    "aaomega-2dfdr": "aaomega_marz/emlLinearSkyAirHelioCMB.fits", "mastar-hc": "mastar_hc/MaStarHC_02.fits.gz",
    "deep2-spec1d": "deep2_spec1d/spec1d.1245.066.12004136.fits", "eso-xqr30": "eso_xshooter/J0408-5632_NIR.fits",
    "miles-star": "miles_star/MILES_res2.50_star_m0002V.fits", "stelib-star": "stelib_star/STELIB_v3.2_HD002857.fits",
    "eso-uves-image": "eso_uves_iraf/UVES.fits", "hst-x1d": "hst_x1d/odbue5030_x1d.fits",
    "jwst-x1d": "jwst_x1d/hlsp_ceers_jwst_nirspec_nirspec10-001027_comb-mgrat_v0.7_x1d-masked.fits",
}  # fmt: skip


def one(path: Path) -> Spectrum:
    (found,) = open_file(path).objects()
    assert isinstance(found, Spectrum), found
    return found


def linear(header: Any, n: int) -> np.ndarray:
    return header["CRVAL1"] + (np.arange(1, n + 1) - header.get("CRPIX1", 1)) * header["CDELT1"]


def by_hand(layout: str, hdus: fits.HDUList) -> tuple[Any, Any, Any]:
    """Flux, ivar (None: not looked at) and wavelengths in vacuum, by astropy and the surveys' documents."""
    first = hdus[0]
    if layout == "6dfgs-images":
        header, rows = hdus[7].header, hdus[7].data
        wave = header["CRVAL1"] + np.arange(len(rows[0])) * header["CD1_1"]
        return rows[0], 1 / rows[1].astype(float), vacuum_of_air(wave)
    if layout == "6dfgs-table":
        return hdus[1].data["FLUX"], None, vacuum_of_air(hdus[1].data["WAVE"])
    if layout == "aaomega-2dfdr":
        return first.data, None, vacuum_of_air(linear(first.header, first.data.size))
    if layout == "deep2-spec1d":
        parts = [hdus[name].data[0] for name in ("Horne-B", "Horne-R")]
        flux, ivar, wave = (np.concatenate([part[name] for part in parts]) for name in ("SPEC", "IVAR", "LAMBDA"))
        return flux, ivar, vacuum_of_air(wave)
    if layout == "mastar-hc":
        return first.data, hdus["IVAR"].data, 10 ** (3.5601 + 1e-4 * np.arange(first.data.size))
    if layout == "eso-xqr30":
        row = hdus[1].data[0]
        return row["FLUX"] * 1e17, None, row["WAVE"]
    if layout == "jwst-x1d":
        return hdus[1].data["FLUX"], None, hdus[1].data["WAVELENGTH"] * 1e4
    scale = 1e17 if layout == "stelib-star" else 1.0
    return first.data * scale, None, vacuum_of_air(linear(first.header, first.data.size))


@real
@pytest.mark.parametrize("layout", [name for name in FILES if name != "hst-x1d"])
def test_real_files_are_as_astropy_reads_them(layout: str) -> None:
    path = LAYOUTS / FILES[layout]
    found = one(path)
    assert found.layout == layout
    with fits.open(path) as hdus:
        flux, ivar, wave = by_hand(layout, hdus)
    tolerance = 0 if found.flux_scale == 1 else 1e-6  # a division by 1e-17 or a product with 1e17
    np.testing.assert_allclose(found.flux, np.asarray(flux, np.float32), rtol=tolerance)
    np.testing.assert_allclose(found.wavelength, np.asarray(wave, np.float32), rtol=2e-7)
    if ivar is not None:
        good = found.good()
        np.testing.assert_allclose(found.ivar[good], np.asarray(ivar, np.float32)[good], rtol=2e-7)
    assert found.frame == ("rest" if layout in ("mastar-hc", "miles-star", "stelib-star") else "observed")


@real
def test_labels_positions_and_joined_orders() -> None:
    galaxy, star = one(LAYOUTS / FILES["6dfgs-images"]), one(LAYOUTS / FILES["stelib-star"])
    assert (galaxy.labels["z"], galaxy.labels["quality"]) == (0.091121, 4) and galaxy.ra == 249.75020833
    assert (star.labels["teff"], star.labels["logg"], star.labels["feh"]) == (7611.0, 2.67, -1.51)
    assert np.isnan(star.dec) and "wrongly" in " ".join(star.remarks)  # -4.18 in the file, -5.26 in the sky
    fibre = one(LAYOUTS / FILES["aaomega-2dfdr"])
    assert abs(fibre.ra - np.degrees(0.61809563)) < 1e-5 and fibre.object_id == "D0221394-2854323"
    found = one(LAYOUTS / FILES["hst-x1d"])
    assert (np.diff(found.wavelength) > 0).all() and "40 orders" in " ".join(found.remarks)
    with fits.open(LAYOUTS / FILES["hst-x1d"]) as hdus:
        pixels: dict[float, list[tuple[float, bool]]] = {}  # two orders may share a wavelength
        for row in hdus[1].data:
            bad = ((row["DQ"] & 31743) != 0) | (row["ERROR"] == 0)
            for wave, flux, is_bad in zip(row["WAVELENGTH"].astype(np.float32), row["FLUX"], bad, strict=True):
                pixels.setdefault(float(wave), []).append((float(flux) * 1e17, bool(is_bad)))
    for wave, value, is_bad in zip(found.wavelength.tolist(), found.flux.tolist(), found.mask.tolist(), strict=True):
        assert any(abs(value - flux) <= 1e-6 * abs(value) and is_bad == other for flux, other in pixels[wave])


@real
@pytest.mark.parametrize("layout", list(FILES))
def test_a_damaged_file_is_refused_in_a_line_or_read(layout: str, tmp_path: Path) -> None:
    import gzip

    raw = (LAYOUTS / FILES[layout]).read_bytes()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    rng = np.random.default_rng(3)
    path = tmp_path / FILES[layout].rpartition("/")[2].removesuffix(".gz")
    whole = len(raw)
    variants = [raw[: int(whole * part)] for part in (0, 0.01, 0.3, 0.7, 0.99)]
    for _ in range(12):
        at = int(rng.integers(0, min(whole, 60_000)))
        variants.append(raw[:at] + bytes([raw[at] ^ (1 << int(rng.integers(8)))]) + raw[at + 1 :])
        start = int(rng.integers(0, whole // 2880)) * 2880
        variants.append(raw[:start] + bytes(2880) + raw[start + 2880 :])
    for content in variants:
        path.write_bytes(content)
        try:
            items = list(open_file(path).objects())
        except BadObjectError as error:
            items = [error]
        assert items
        for item in items:
            assert isinstance(item, Spectrum) or "\n" not in item.reason


@pytest.mark.parametrize("is_log", [False, True])
def test_aaomega_s_hdu_of_wavelengths_wins(is_log: bool, tmp_path: Path) -> None:
    n = 800
    air = 5000 + np.arange(n)
    fibres = fits.BinTableHDU.from_columns(
        [
            fits.Column("NAME", "8A", array=["a", "b"]), fits.Column("TYPE", "1A", array=["P", "P"]),
            fits.Column("RA", "D", array=[0.6, 0.6]), fits.Column("DEC", "D", array=[-0.5, -0.5]),
        ],
        name="FIBRES",
    )  # fmt: skip
    data = np.full((2, n), 3.0)

    def write(name: str, *wave: np.ndarray, **cards: object) -> list[Any]:
        primary = fits.PrimaryHDU(data)
        primary.header.update({"CRVAL1": 5000.0, "CDELT1": 1.0, "CRPIX1": 1.0, "CUNIT1": "Angstroms", **cards})
        hdus = [primary, fits.ImageHDU(data, name="VARIANCE"), *(fits.ImageHDU(w, name="WAVELENGTH") for w in wave)]
        fits.HDUList([*hdus, fibres]).writeto(tmp_path / name)
        return list(open_file(tmp_path / name).objects())

    vacuum = vacuum_of_air(air)
    said = np.log10(vacuum) if is_log else vacuum
    plain = write("air.fits")
    for own in (said, np.stack([said, said])):
        for one, other in zip(plain, write(f"vacuum{own.ndim}.fits", own, VACUUM=True), strict=True):
            np.testing.assert_allclose(one.wavelength, other.wavelength, atol=0.01)
    apart = write("apart.fits", np.stack([said, said + (1e-4 if is_log else 1)]), VACUUM=True)
    assert apart[1].wavelength[0] - apart[0].wavelength[0] > 0.9
    with pytest.raises(BadObjectError, match="WAVELENGTH has shape"):
        write("short.fits", said[:-1], VACUUM=True)
    said[5] = np.nan
    assert all(isinstance(one, BadObjectError) for one in write("nan.fits", said, VACUUM=True))

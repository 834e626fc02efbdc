"""DESI `spectra-*`, several exposures a target, and the one-row-a-pixel coadds of the early release."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.surveys import open_file
from tests.oracles import damage
from tests.oracles.oracle import differences, readings

REAL = "layouts/desi_spectra_compressed_mask/spectra-5-169-thru20210419.fits"
COLUMNS = "layouts/desi_coadd_sv0/coadd-bgs-66003-20200315.fits"
A, B = 39_600_000_000_000_001, 39_600_000_000_000_002
GRID = 3600.0 + 0.8 * np.arange(7781)


def exposures(path: Path) -> Path:
    """Five rows: A, B, A again, A on a bad fibre, sky; masks in compressed tiles."""
    rng = np.random.default_rng(5)
    ids, n = np.array([A, B, A, A, -17]), 5
    fibermap = fits.BinTableHDU.from_columns(
        [
            fits.Column("TARGETID", "K", array=ids), fits.Column("EXPID", "J", array=85_500 + np.arange(n)),
            fits.Column("FIBERSTATUS", "J", array=[0, 0, 0, 2, 0]),
            fits.Column("TARGET_RA", "D", array=np.arange(10.0, 15.0)),
            fits.Column("TARGET_DEC", "D", array=[-5.0] * n),
            fits.Column("OBJTYPE", "3A", array=["TGT"] * n),
        ],
        name="FIBERMAP",
    )  # fmt: skip
    hdus = [
        fits.PrimaryHDU(),
        fibermap,
        fits.BinTableHDU.from_columns([fits.Column("X", "E", array=[1])], name="SCORES"),
    ]
    for arm, start, size in (("B", 3600.0, 2751), ("R", 5760.0, 2326), ("Z", 7520.0, 2881)):
        mask = np.zeros((n, size), np.int32)
        mask[0, 1000], mask[2, 1001] = 1 << 4, 1
        hdus.append(fits.ImageHDU(np.round(start + 0.8 * np.arange(size), 6), name=f"{arm}_WAVELENGTH"))
        hdus.append(fits.ImageHDU(rng.normal(5, 1, (n, size)).astype(">f4"), name=f"{arm}_FLUX"))
        hdus.append(fits.ImageHDU(rng.uniform(0.2, 1, (n, size)).astype(">f4"), name=f"{arm}_IVAR"))
        hdus.append(fits.CompImageHDU(mask, name=f"{arm}_MASK", compression_type="GZIP_1"))
    fits.HDUList(hdus).writeto(path)
    return path


def test_exposures_of_a_target_are_one_spectrum(tmp_path: Path) -> None:
    path = exposures(tmp_path / "spectra-a.fits")
    opened = open_file(path)
    items = list(opened.objects())
    assert opened.layout == "desi-spectra" and [getattr(item, "object_id", None) for item in items] == [
        str(A), str(B), None, None,
    ]  # fmt: skip
    assert [str(item) for item in items[2:]] == ["FIBERSTATUS 2: bad fibre", "negative TARGETID: sky or no target"]
    first = items[0]
    assert isinstance(first, Spectrum) and "mean of several exposures" in first.remarks[0] and first.ra == 10.0
    with fits.open(path) as hdus:
        total, weight = np.zeros((2, 7781))
        for row in (0, 2):
            for arm, start in (("B", 3600.0), ("R", 5760.0), ("Z", 7520.0)):
                at = slice(round((start - 3600) / 0.8), round((start - 3600) / 0.8) + hdus[f"{arm}_FLUX"].shape[1])
                ivar = np.where(hdus[f"{arm}_MASK"].data[row] == 0, hdus[f"{arm}_IVAR"].data[row], 0).astype("f8")
                total[at] += hdus[f"{arm}_FLUX"].data[row].astype("f8") * ivar
                weight[at] += ivar
    np.testing.assert_array_equal(first.ivar, weight.astype("f4"))
    np.testing.assert_allclose(first.flux, total / weight, rtol=2e-7)
    assert not first.mask.any()  # what one exposure lost, the other has
    assert damage.wrong(path, tmp_path, flips=6) == []


def test_real_spectra_with_compressed_masks(real_data: Path) -> None:
    path = real_data / REAL
    good = [item for item in open_file(path).objects() if isinstance(item, Spectrum)]
    truth = {reading["object_id"]: reading for reading in readings(path, path)}
    assert [item.object_id for item in good] == ["39633300968442591"]
    assert differences(good[0], truth[good[0].object_id]) == []


def columns(path: Path, targets: int = 3) -> Path:
    """One row a pixel, three arms in one list of wavelengths; `zbest` with positions beside it."""
    rng = np.random.default_rng(6)
    arms = [GRID[:2751], GRID[2700:5026], GRID[4900:]]
    wave = np.sort(np.concatenate(arms))
    ids = [A + i for i in range(targets)]
    table = [fits.Column("WAVELENGTH", "D", array=wave)]
    table += [fits.Column(f"TARGET{name}", "D", array=rng.normal(4, 1, len(wave))) for name in ids]
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(table)]).writeto(path)
    zbest = fits.BinTableHDU.from_columns(
        [
            fits.Column("TARGETID", "K", array=ids[1:]), fits.Column("Z", "D", array=[0.1, 2.0]),
            fits.Column("ZERR", "D", array=[1e-5] * 2), fits.Column("ZWARN", "K", array=[0, 4]),
            fits.Column("SPECTYPE", "6A", array=["GALAXY", "QSO"]), fits.Column("SUBTYPE", "20A", array=[""] * 2),
            fits.Column("TARGET_RA", "D", array=[20.0, 400.0]), fits.Column("TARGET_DEC", "D", array=[1.0, 2.0]),
        ],
        name="ZBEST",
    )  # fmt: skip
    fits.HDUList([fits.PrimaryHDU(), zbest]).writeto(path.with_name(path.name.replace("coadd", "zbest")))
    return path


def test_one_row_a_pixel(tmp_path: Path) -> None:
    path = columns(tmp_path / "coadd-bgs-1.fits")
    spectra = list(open_file(path).objects())
    assert [item.object_id for item in spectra] == [str(A + i) for i in range(3)]
    assert all(item.layout == "desi-columns" and not item.has_ivar for item in spectra)
    assert [item.labels.get("class") for item in spectra] == [None, "GALAXY", "QSO"]
    assert (spectra[1].ra, spectra[1].dec) == (20.0, 1.0) and np.isnan(spectra[2].ra)  # 400 degrees is nowhere
    with fits.open(path) as hdus:
        wave, flux = hdus[1].data["WAVELENGTH"], hdus[1].data[f"TARGET{A + 1}"]
    expected = [flux[np.abs(wave - at) < 1e-3].mean() for at in GRID]
    np.testing.assert_array_equal(spectra[1].flux, np.asarray(expected).astype("f4"))
    np.testing.assert_array_equal(spectra[1].wavelength, GRID.astype("f4"))
    assert damage.wrong(path, tmp_path, flips=30) == []


def test_one_row_a_pixel_off_the_grid_is_refused(tmp_path: Path) -> None:
    path = columns(tmp_path / "coadd-bgs-1.fits")
    for change in (np.flip, lambda w: np.where(w > 9000, w + 0.3, w), lambda w: w * 1e12, lambda w: w * np.nan):
        with fits.open(path) as hdus:
            kept = {name: np.array(hdus[1].data[name]) for name in hdus[1].columns.names}
        kept["WAVELENGTH"] = change(kept["WAVELENGTH"])
        table = fits.BinTableHDU.from_columns([fits.Column(name, "D", array=values) for name, values in kept.items()])
        fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "other.fits", overwrite=True)
        with pytest.raises(BadObjectError, match="impossible grid"):
            list(map(raised, open_file(tmp_path / "other.fits").objects()))


def raised(item: Spectrum | BadObjectError) -> Spectrum:
    if isinstance(item, BadObjectError):
        raise item
    return item


def test_real_one_row_a_pixel(real_data: Path) -> None:
    spectra = list(open_file(real_data / COLUMNS).objects())
    with fits.open(real_data / COLUMNS) as hdus:
        table = hdus[1].data
        wave, inverse = np.unique(np.round(table["WAVELENGTH"], 3), return_inverse=True)
        flux = [np.bincount(inverse, table[name]) / np.bincount(inverse) for name in sorted(table.names[1:])]
    with fits.open(real_data / COLUMNS.replace("coadd-", "zbest-")) as hdus:
        labels = {str(row["TARGETID"]): row for row in hdus[1].data}
    assert len(spectra) == len(flux) == 5 and {item.object_id for item in spectra} == set(labels)
    for spectrum, values in zip(spectra, flux, strict=True):
        row = labels[spectrum.object_id]
        assert np.array_equal(spectrum.flux, values.astype("f4"))
        np.testing.assert_allclose(spectrum.wavelength, wave, rtol=1e-7)
        assert (spectrum.labels["z"], spectrum.ra, spectrum.dec) == (row["Z"], row["TARGET_RA"], row["TARGET_DEC"])

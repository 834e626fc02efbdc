"""SDSS `spPlate` with its `spZbest`, and what else is made of SDSS spectra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.surveys import companions_of, open_file, read_file
from specshards.ingest.surveys.sdss_addresses import split_specobjid
from specshards.ingest.surveys.sdss_rows import specobjid
from tests.oracles import damage
from tests.oracles.survey_files import sdss_spec

N, FIBRES = 500, 4
HEADER = {
    "TELESCOP": "SDSS 2.5-M", "PLATEID": 4055, "MJD": 55359, "RUN2D": "v5_7_0", "COEFF0": 3.6, "COEFF1": 1e-4,
    "RA": 1.0, "DEC": 2.0, "BUNIT": "1E-17 erg/cm^2/s/Ang",
}  # fmt: skip


def plate(folder: Path, named: bool = True, zbest: bool = True, **header: Any) -> Path:
    """Four fibres (12 to 9, the second on sky); `spZbest` in another order, of all but one."""
    rng = np.random.default_rng(8)
    flux = rng.normal(3, 0.5, (FIBRES, N)).astype("f4")
    mask = np.zeros((FIBRES, N), np.int32)
    mask[:, 5], mask[:, 6] = 1 << 24, 1 << 3  # NODATA condemns, a bit of the fibre does not
    images = [np.full((FIBRES, N), 4.0, "f4"), mask, mask, np.full((FIBRES, N), 1.1, "f4")]
    names = ("IVAR", "ANDMASK", "ORMASK", "WAVEDISP")
    hdus = [fits.PrimaryHDU(flux)] + [
        fits.ImageHDU(image, name=name if named else None) for image, name in zip(images, names, strict=True)
    ]
    hdus[0].header.update(HEADER | header)
    hdus.append(
        fits.BinTableHDU.from_columns(
            [
                fits.Column("FIBERID", "J", array=[12, 11, 10, 9]), fits.Column("RA", "D", array=[10.0, 11, 12, 13]),
                fits.Column("DEC", "D", array=[-1.0] * 4), fits.Column("MAG", "5E", array=np.ones((4, 5))),
                fits.Column("OBJTYPE", "16A", array=["GALAXY", "SKY", "QSO", "SPECTROPHOTO_STD"]),
            ],
            name="PLUGMAP" if named else None,
        )
    )  # fmt: skip
    path = folder / "spPlate-4055-55359.fits"
    fits.HDUList(hdus).writeto(path)
    if zbest:
        labels = fits.BinTableHDU.from_columns(
            [
                fits.Column("FIBERID", "J", array=[9, 11, 12]),
                fits.Column("CLASS", "6A", array=["STAR", "QSO", "GALAXY"]),
                fits.Column("SUBCLASS", "8A", array=["F5", "", ""]), fits.Column("Z", "E", array=[1e-4, 3, 0.125]),
                fits.Column("Z_ERR", "E", array=[1e-5, -1, 1e-5]), fits.Column("ZWARNING", "J", array=[0, 1, 4]),
                fits.Column("TFILE", "8A", array=["a"] * 3), fits.Column("RCHI2", "E", array=[1.0] * 3),
                fits.Column("SN_MEDIAN_ALL", "E", array=[6.0] * 3),
                fits.Column("ELODIE_TEFF", "E", array=[6500.0] * 3),
                fits.Column("ELODIE_LOGG", "E", array=[4.0] * 3), fits.Column("ELODIE_FEH", "E", array=[-0.5] * 3),
            ]
        )  # fmt: skip
        fits.HDUList([fits.PrimaryHDU(), labels]).writeto(folder / "spZbest-4055-55359.fits")
    return path


@pytest.mark.parametrize("named", [True, False])
def test_every_fibre_with_its_labels(tmp_path: Path, named: bool) -> None:
    path = plate(tmp_path, named)
    items = list(open_file(path).objects())
    assert "spZbest-4055-55359.fits" in companions_of()(path.name)
    assert [isinstance(item, Spectrum) for item in items] == [True, False, True, True]
    assert items[1].selected_out and "sky fibre" in str(items[1]) and items[1].row == 1
    galaxy, quasar, star = (item for item in items if isinstance(item, Spectrum))
    assert split_specobjid(galaxy.object_id) == {"plate": 4055, "fiberid": 12, "mjd": 55359, "run2d": "v5_7_0"}
    assert (galaxy.ra, galaxy.dec) == (10.0, -1.0)
    assert (galaxy.labels["class"], galaxy.labels["z"], galaxy.labels["zwarning"]) == ("GALAXY", 0.125, 4)
    assert "class" not in quasar.labels and quasar.label_source is None
    assert star.labels["teff"] == 6500 and star.survey_sn["sn_median_all"] == 6
    assert [item.extra["targettype"] for item in (galaxy, star)] == ["SCIENCE", "STANDARD"]
    with fits.open(path) as hdus:
        flux, wave = hdus[0].data[3], 10 ** (3.6 + 1e-4 * np.arange(N))
    assert np.array_equal(star.flux, flux) and np.array_equal(star.wavelength, wave.astype("f4"))
    assert np.flatnonzero(star.mask).tolist() == [5] and (star.ivar == 4).all()
    # WAVEDISP is sigma in pixels of the log10 grid
    np.testing.assert_allclose(star.lsf_sigma, 1.1 * np.gradient(wave), rtol=2e-4)
    with pytest.raises(BadObjectError, match="redshifts, no spectra") as caught:
        open_file(tmp_path / "spZbest-4055-55359.fits").objects().__next__()
    assert caught.value.selected_out


def test_without_labels_and_with_damage(tmp_path: Path) -> None:
    path = plate(tmp_path, zbest=False)
    spectra = [item for item in open_file(path).objects() if isinstance(item, Spectrum)]
    assert len(spectra) == 3 and not any(item.labels for item in spectra)
    # A file that ends behind its flux cannot be told from one that was published so; what it lacks is said.
    assert [fault for fault in damage.wrong(path, tmp_path) if not fault.startswith("cut at 11520:")] == []
    with fits.open(path) as hdus:
        for lost in ("IVAR", "ANDMASK", "WAVEDISP", "PLUGMAP"):
            rest = fits.HDUList([hdu.copy() for hdu in hdus if hdu.name != lost])
            rest.writeto(tmp_path / "lost.fits", overwrite=True)
            with pytest.raises(BadObjectError, match=r"cut short|is not"):
                list(open_file(tmp_path / "lost.fits").objects())
    (tmp_path / "spZbest-4055-55359.fits").write_bytes(b"SIMPLE  =" + b" " * 3000)
    with pytest.raises(BadObjectError, match=r"its labels in spZbest-4055-55359.fits are unreadable"):
        list(open_file(path).objects())


def test_real_flux_alone(real_data: Path) -> None:
    path = real_data / "layouts/sdss_spPlate/spPlate-4055-55359-0020.fits"
    spectra = list(open_file(path).objects())
    with fits.open(path) as hdus:
        flux, header = hdus[0].data, hdus[0].header
    wave = (10 ** (header["COEFF0"] + header["COEFF1"] * np.arange(flux.shape[1]))).astype("f4")
    assert len(spectra) == len(flux) == 20
    for row, spectrum in enumerate(spectra):
        assert np.array_equal(spectrum.flux, flux[row]) and np.array_equal(spectrum.wavelength, wave)
        assert not spectrum.has_ivar and np.isnan(spectrum.ra) and "sky among them" in spectrum.remarks[0]
        assert spectrum.object_id == f"4055-55359-row{row + 1}"  # not a fibre, which nobody knows


def test_specobjid_of_real_spectra(real_data: Path) -> None:
    count = 0
    for path in sorted(real_data.glob("sdss/boss_*/*"))[::20] + sorted(real_data.glob("layouts/sdss_dr1*_spec/*")):
        with fits.open(path) as hdus:
            row = {name.lower(): hdus[2].data[name][0] for name in ("PLATE", "MJD", "FIBERID", "RUN2D", "SPECOBJID")}
        found = specobjid(int(row["plate"]), int(row["mjd"]), int(row["fiberid"]), str(row["run2d"]).strip())
        assert found == str(row["specobjid"]).strip()
        count += 1
    assert count > 5
    assert specobjid(1, 60_000, 3, "v6_1_3") is not None and specobjid(1, 60_000, 3, "master") is None


def test_the_line_spread_of_a_real_spectrum(real_data: Path) -> None:
    path = next(iter(sorted(real_data.glob("layouts/sdss_dr17_spec/*"))))
    spectrum = read_file(path)
    with fits.open(path) as hdus:
        pixels = hdus[1].data
        wave = 10.0 ** pixels["loglam"].astype("f8")
        sigma = pixels["wdisp"] * wave * 1e-4 * np.log(10)
    known = pixels["wdisp"] > 0
    np.testing.assert_allclose(spectrum.lsf_sigma[known], sigma[known], rtol=1e-6)
    assert np.isnan(spectrum.lsf_sigma[~known]).all() and len(spectrum.lsf_sigma) == len(spectrum.flux)


def test_images_of_one_object(real_data: Path) -> None:
    path = real_data / "layouts/sdss_spec_misc/SDSSJ220248.31+123656.3.fits"
    spectrum = read_file(path)
    with fits.open(path) as hdus:
        flux, ivar, loglam, good = (hdu.data for hdu in hdus)
    assert np.array_equal(spectrum.flux, flux) and np.array_equal(spectrum.ivar, ivar)
    assert np.array_equal(spectrum.wavelength, (10.0**loglam).astype("f4"))
    assert np.array_equal(spectrum.mask, (good == 0) | (ivar == 0)) and spectrum.object_id == path.stem


def test_what_is_no_observation_is_set_aside(tmp_path: Path, real_data: Path) -> None:
    for name, reason in (
        ("layouts/sdss_eigen/spEigenQSO-55732.fits", "templates of eigenvectors"),
        ("layouts/sdss_spec_misc/op-5808-56325-0560.fits", "a fit by PyQSOFit"),
        ("damaged/spec-2751-54243-0269-pole-onresult.fits", "a fit by PyQSOFit"),
        ("desi/picca/QSO_cat_fuji_dark_tile.fits.gz", "a catalogue, no spectra: give it with --catalog"),
    ):
        with pytest.raises(BadObjectError, match=reason) as caught:
            read_file(real_data / name)
        assert caught.value.selected_out


def test_sdss_v_with_empty_tables_and_units(tmp_path: Path) -> None:
    """A v6 `spec`: TUNIT, DATASUM, ZALL of many rows, an empty ZLINE."""
    identifier = "18014398509481984000000000001"
    path = sdss_spec(
        tmp_path / "a.fits", upper=True, drop=("SPECOBJID", "PLATE", "PLUG_RA", "PLUG_DEC"), SPECOBJID=None,
        FIELD=15_000, CATALOGID=27_021_597_985_353_039, FIBER_RA=1.0, FIBER_DEC=2.0, RACAT=10.5, DECCAT=-3.25,
        RUN2D="v6_2_1",
    )  # fmt: skip
    with fits.open(path) as hdus:
        units = {"FLUX": "10^-17 ergs/s/cm^2/Angs", "LOGLAM": "log10(Angs)"}
        for i, name in enumerate(hdus[1].columns.names, 1):
            if name in units:
                hdus[1].header[f"TUNIT{i}"] = units[name]
        many = fits.Column("CLASS", "6A", array=["STAR"] * 134), fits.Column("Z", "E", array=np.zeros(134))
        zall = fits.BinTableHDU.from_columns(many, name="ZALL")
        zline = fits.BinTableHDU.from_columns([fits.Column("LINEZ", "E", array=np.zeros(0))], name="ZLINE")
        fits.HDUList([*hdus[:3], zall, zline]).writeto(tmp_path / "v.fits", checksum=True)
    spectrum = read_file(tmp_path / "v.fits")
    assert spectrum.object_id == "15000-51602-27021597985353039" and spectrum.release == "v6_2_1"
    assert (spectrum.ra, spectrum.dec) == (10.5, -3.25) and spectrum.extra["instrument"] == "BOSS"
    assert spectrum.labels["class"] == "GALAXY" and spectrum.lsf_sigma is None
    longer = read_file(sdss_spec(tmp_path / "l.fits", SPECOBJID=identifier))
    assert longer.object_id == identifier

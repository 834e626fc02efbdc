"""Layouts of which no real file is at hand: made by their documents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.surveys import open_file
from specshards.ingest.surveys.wavelengths import vacuum_of_air

N = 500
FLUX = (50 + np.random.default_rng(1).normal(0, 2, N)).astype(np.float32)


def phase3(path: Path, ucd: str, unit: str = "nm") -> Path:
    wave = np.linspace(400, 500, N) * (1 if unit == "nm" else 10)
    quality = np.zeros(N, np.int32)
    quality[5] = 1
    table = fits.BinTableHDU.from_columns([
        fits.Column("WAVE", f"{N}D", unit=unit, array=[wave]),
        fits.Column("FLUX", f"{N}D", unit="erg.cm**(-2).s**(-1).angstrom**(-1)", array=[FLUX * 1e-17]),
        fits.Column("ERR", f"{N}D", array=[np.full(N, 2e-17)]), fits.Column("QUAL", f"{N}J", array=[quality]),
    ])  # fmt: skip
    table.header.update({"TUCD1": ucd, "VOCLASS": "SPECTRUM V1.0"})
    primary = fits.PrimaryHDU()
    primary.header.update({"PRODCATG": "SCIENCE.SPECTRUM", "ORIGIN": "ESO", "RA": 10.5, "DEC": -30.0,
                           "SPECSYS": "TOPOCENT", "INSTRUME": "XSHOOTER"})  # fmt: skip
    fits.HDUList([primary, table]).writeto(path)
    return path


def test_eso_phase_3_says_its_medium(tmp_path: Path) -> None:
    for name, ucd, unit in (("air", "em.wl;obs.atmos", "nm"), ("vacuum", "em.wl", "angstrom")):
        (one,) = open_file(phase3(tmp_path / f"{name}.fits", ucd, unit)).objects()
        assert isinstance(one, Spectrum)
        wave = np.linspace(4000, 5000, N)
        np.testing.assert_allclose(one.wavelength, vacuum_of_air(wave) if name == "air" else wave, rtol=2e-7)
        np.testing.assert_allclose(one.flux, FLUX, rtol=1e-6)
        assert (one.layout, one.ra, one.dec, one.flux_scale) == ("eso-phase3", 10.5, -30.0, 1e-17)
        assert np.flatnonzero(~one.good()).tolist() == [5] and abs(one.ivar[0] - 0.25) < 1e-6
        assert "motion of Earth" in " ".join(one.remarks)


def test_2dfgrs_and_fibres_that_were_on_no_object(tmp_path: Path) -> None:
    rows = np.stack([FLUX, np.full(N, 4.0), FLUX * 0]).astype("f4")
    spectrum = fits.ImageHDU(rows)
    spectrum.header.update({"IMAGE": "SPECTRUM", "CRVAL1": 3600.0, "CDELT1": 4.3, "CRPIX1": 1.0, "Z_HELIO": 0.1,
                            "QUALITY": 4, "NAME": "TGS001Z001", "RA2000": "10:00:00.0",
                            "DEC2000": "-30:00:00.0"})  # fmt: skip
    chart = fits.PrimaryHDU(np.zeros((9, 9), "f4"))
    chart.header["IMAGE"] = "SKYCHART"
    fits.HDUList([chart, spectrum]).writeto(tmp_path / "twodf.fits")
    (one,) = open_file(tmp_path / "twodf.fits").objects()
    assert isinstance(one, Spectrum) and (one.survey, one.object_id, one.ra) == ("twodf", "TGS001Z001", 150.0)
    assert one.labels["z"] == 0.1 and one.wave_source == "air" and set(one.ivar) == {0.25}

    primary = fits.PrimaryHDU(np.stack([FLUX] * 4))
    primary.header.update({"CRVAL1": 5000.0, "CDELT1": 1.0, "CRPIX1": 1.0, "CUNIT1": "Angstroms",
                           "CTYPE1": "Wavelength", "MEANRA": 35.5, "MEANDEC": -28.7})  # fmt: skip
    fibres = fits.BinTableHDU.from_columns([
        fits.Column("NAME", "20A", array=["a", "b", "sky", "c"]), fits.Column("TYPE", "1A", array=list("PPSF")),
        fits.Column("RA", "D", array=np.radians([35.4, 35.6, 35.5, 35.0])),
        fits.Column("DEC", "D", array=np.radians([-28.9] * 4)),
    ], name="FIBRES")  # fmt: skip
    variance = fits.ImageHDU(np.full((4, N), 4, "f4"), name="VARIANCE")
    fits.HDUList([primary, variance, fibres]).writeto(tmp_path / "frame.fits")
    found = list(open_file(tmp_path / "frame.fits").objects())
    assert [one.object_id for one in found if isinstance(one, Spectrum)] == ["a", "b"]
    assert [(one.reason, one.selected_out, one.row) for one in found if isinstance(one, BadObjectError)] == [
        ("a sky fibre", True, 2), ("a guide fibre", True, 3),
    ]  # fmt: skip
    fits.HDUList([primary, fibres]).writeto(tmp_path / "short.fits")
    with pytest.raises(BadObjectError, match="no HDU VARIANCE"):
        list(open_file(tmp_path / "short.fits").objects())


def test_mastar_visits_are_objects_of_their_own(tmp_path: Path) -> None:
    wave = 10 ** (3.5589 + 1e-4 * np.arange(N))
    mask = np.zeros((2, N), np.int32)
    mask[0, 3], mask[0, 4] = 1 << 10, 1 << 1
    table = fits.BinTableHDU.from_columns([
        fits.Column("MANGAID", "10A", array=["7-1", "7-1"]), fits.Column("MJD", "J", array=[57000, 57001]),
        fits.Column("OBJRA", "D", array=[1.0, 1.0]), fits.Column("OBJDEC", "D", array=[2.0, 2.0]),
        fits.Column("WAVE", f"{N}D", array=[wave] * 2), fits.Column("FLUX", f"{N}E", array=[FLUX] * 2),
        fits.Column("IVAR", f"{N}E", array=[np.ones(N)] * 2), fits.Column("MASK", f"{N}J", array=mask),
    ])  # fmt: skip
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "visits.fits")
    found = list(open_file(tmp_path / "visits.fits").objects())
    assert [one.object_id for one in found if isinstance(one, Spectrum)] == ["7-1-57000", "7-1-57001"]
    assert isinstance(found[0], Spectrum) and np.flatnonzero(~found[0].good()).tolist() == [3]
    assert (found[0].survey, found[0].ra, found[0].dec) == ("mastar", 1.0, 2.0)

"""Which column is the flux, which its errors and in what unit; wavenumbers; pixels without a value; long tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from specshards.common.errors import BadObjectError
from specshards.ingest.generic.roles import roles_of
from specshards.ingest.surveys.sentinels import missing
from tests.oracles.opened import spectra

N = 120
WAVE = np.linspace(4000.0, 7000.0, N)
FLUX = np.round(10 + np.sin(WAVE / 90), 4)
ERROR = np.full(N, 0.5)


def table(path: Path, head: str, *columns: Any) -> Path:
    rows = "\n".join(",".join(str(v) for v in row) for row in zip(*columns, strict=True))
    path.write_text(f"{head}\n{rows}\n")
    return path


@pytest.mark.parametrize(
    ("names", "wavelength", "flux", "error"),
    [
        ("wave,transmission,flux,error", "wave", "flux", "error"),
        ("wave,norm_flux,flux,error", "wave", "flux", "error"),
        ("wave,counts,flux,flux_err", "wave", "flux", "flux_err"),
        ("wave,count,flux,error", "wave", "flux", "error"),
        ("NORMALIZED_FLUX,WAVE,FLUX,FLUX_ERR", "WAVE", "FLUX", "FLUX_ERR"),
        ("w,wavelength,flux,e", "wavelength", "flux", "e"),
        ("rest_wavelength,wavelength,flux", "wavelength", "flux", None),
        ("wave_air,wave_vac,flux", "wave_vac", "flux", None),
        ("wave,counts,flux,counts_err", "wave", "flux", None),
        ("wave,counts,counts_err", "wave", "counts", "counts_err"),
        ("wave,flux,sigma,err", "wave", "flux", "err"), ("wave,flux,std,noise", "wave", "flux", None),
        ("wave,flux,sd", "wave", "flux", "sd"), ("wave,flux,rms,e", "wave", "flux", None),
        ("loglam,wave,flux,std", "wave", "flux", "std"),
    ],
)  # fmt: skip
def test_the_exact_name_wins_and_errors_are_of_their_flux(
    names: str, wavelength: str, flux: str, error: str | None
) -> None:
    roles = roles_of(names.split(","))
    assert [roles.columns.get(role) for role in ("wavelength", "flux", "error")] == [wavelength, flux, error]


def test_what_is_passed_over_is_told_and_what_nobody_can_tell_is_refused(tmp_path: Path) -> None:
    path = table(
        tmp_path / "a.csv", "wave,counts,flux,error,std,quality", WAVE, FLUX * 9, FLUX, ERROR, ERROR * 2, FLUX
    )
    (one,) = spectra(path)
    np.testing.assert_array_equal(one.flux, FLUX.astype(np.float32))
    told = " ".join(one.told())
    assert "have counts besides flux, which is taken for the flux; --columns says another" in told
    assert "may be errors, which are not looked at: std" in told and "have quality, which may mark bad pixels" in told
    (one,) = spectra(table(tmp_path / "w.csv", "wave,flux,weight,snr", WAVE, FLUX, FLUX, FLUX))
    assert "are read without errors, though weight, snr may hold some" in one.told()
    holes = np.where(np.arange(len(FLUX)) % 40 < 3, 0, FLUX)
    (one,) = spectra(table(tmp_path / "z.csv", "wave,flux", WAVE, holes))
    assert any("exactly 0" in said for said in one.told()) and not one.mask.any()
    for head in ("frequency (THz),flux (Jy)", "a,b,c,d,e,f,flux,g,h,frequency"):
        values = [FLUX] * (head.count(",") + 1)
        with pytest.raises(BadObjectError, match=r"frequencies are not read: write wavelengths") as aside:
            spectra(table(tmp_path / "f.csv", head, *values))
        assert aside.value.selected_out  # as a table without wavelengths is: it may be a catalogue
    path = table(tmp_path / "m.csv", "wave,mag,mag_err", WAVE, FLUX, ERROR)
    with pytest.raises(BadObjectError, match=r"mag is a magnitude; write the flux"):
        spectra(path, columns="wave,mag,mag_err")
    for head, why in (("wave,absorbance,reflectance", "absorbance and reflectance may each be the flux: --columns"),
                      ("wave,flux,flux", "columns 2 and 3 have one name, flux: --columns"),
                      ("wave,flux (mJy),flux (counts)", "columns 2 and 3 have one name"),
                      ("wavelength,wave,flux", "wavelength and wave may each be the wavelength")):  # fmt: skip
        with pytest.raises(BadObjectError, match=why) as caught:
            spectra(table(tmp_path / "b.csv", head, WAVE, FLUX, FLUX * 2))
        assert not caught.value.selected_out and "\n" not in caught.value.reason
    (one,) = spectra(table(tmp_path / "b.csv", "wave,flux,flux", WAVE, FLUX, FLUX * 2), columns="1,3")
    np.testing.assert_array_equal(one.flux, (FLUX * 2).astype(np.float32))
    Table({"WAVE": WAVE, "FLAM": FLUX, "COUNTS": FLUX}).write(tmp_path / "c.fits")
    with pytest.raises(BadObjectError, match="FLAM and COUNTS may each be the flux"):
        spectra(tmp_path / "c.fits")


@pytest.mark.parametrize(
    ("flux", "error", "values"),
    [
        ("flux (mJy)", "err (uJy)", ERROR * 1e3), ("flux (mJy)", "ivar (uJy-2)", 1e-6 / ERROR**2),
        ("flux (mJy)", "variance (uJy2)", ERROR**2 * 1e6), ("flux (mJy)", "err (%)", 100 * ERROR / FLUX),
        ("flux", "err (%)", 100 * ERROR / FLUX), ("flux", "relative_error", ERROR / FLUX),
        ("flux (mJy)", "percent_error", 100 * ERROR / FLUX), ("flux", "error_ivar", 1 / ERROR**2),
        ("reflectance (%)", "err (%)", ERROR), ("flux (mJy)", "err (mJy)", ERROR), ("flux (mJy)", "err", ERROR),
        ("flux (10**(-17) erg/s/cm2/Angstrom)", "err (10**(-16) erg/s/cm2/Angstrom)", ERROR / 10),
    ],
)  # fmt: skip
def test_errors_are_in_the_unit_of_the_flux(flux: str, error: str, values: Any, tmp_path: Path) -> None:
    (one,) = spectra(table(tmp_path / "a.csv", f"wave (A),{flux},{error}", WAVE, FLUX, values))
    np.testing.assert_allclose(one.ivar * one.flux_scale**-2, 4.0, rtol=1e-5)
    assert one.has_ivar and not one.mask.any()


def test_errors_that_cannot_be_of_the_flux_are_refused_and_vectors_are_converted_too(tmp_path: Path) -> None:
    for flux, error in (
        ("flux (mJy)", "err (count)"),
        ("flux (mJy)", "ivar (mJy)"),
        ("flux (erg/s/cm2/AA)", "err (mJy)"),
    ):
        with pytest.raises(BadObjectError, match=r"of a flux in .*: mend the unit, or leave"):
            spectra(table(tmp_path / "a.csv", f"wave (A),{flux},{error}", WAVE, FLUX, ERROR))
    columns = [fits.Column("WAVE", f"{N}D", unit="nm", array=[WAVE / 10] * 2),
               fits.Column("FLUX", f"{N}D", unit="mJy", array=[FLUX] * 2),
               fits.Column("FLUX_ERR", f"{N}D", unit="uJy", array=[ERROR * 1e3] * 2),
               fits.Column("MASK", f"{N}J", array=[np.arange(N) < 9] * 2)]  # fmt: skip
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "rows.fits")
    for one in spectra(tmp_path / "rows.fits"):
        np.testing.assert_allclose(one.ivar, 4.0, rtol=1e-6)
        assert "have MASK, which may mark bad pixels" in " ".join(one.told())


@pytest.mark.parametrize(
    ("high", "low"), [(10000, 4000), (12489, 4001), (9000, 4000), (1800, 400), (2400, 420), (4000, 400)]
)
def test_numbers_that_fall_may_be_wavenumbers(high: int, low: int, tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "wave,absorbance", np.linspace(high, low, N), FLUX)
    with pytest.raises(BadObjectError, match=r"may be wavenumbers: .*--wavelength-unit cm-1 or (angstrom|nm)"):
        spectra(path)
    (one,) = spectra(path, wavelength_unit="cm-1")
    np.testing.assert_allclose(one.wavelength[[0, -1]], [1e8 / high, 1e8 / low], rtol=1e-6)
    path = table(tmp_path / "b.csv", "wave,absorbance", np.linspace(400, 4000, N), FLUX)
    with pytest.raises(BadObjectError, match="--wavelength-unit nm or cm-1"):
        spectra(path)


def test_pixels_without_a_value(tmp_path: Path) -> None:
    flux = FLUX.copy()
    flux[3:8], flux[50] = -9999, -999
    (one,) = spectra(table(tmp_path / "a.csv", "wave,flux,err", WAVE, flux, ERROR))
    np.testing.assert_array_equal(one.mask, flux < 0)
    assert "have pixels of -999, -9999 or the like for no value" in " ".join(one.told())
    data = np.random.default_rng(1).normal(-900, 200, 4000).round()
    assert (data == -999).any() and not missing(data).any()
    assert not missing(np.array([np.nan, 1.0, -998.0])).any()
    header = fits.Header({"CRVAL1": 4000.0, "CDELT1": 25.0, "CTYPE1": "WAVE", "CUNIT1": "Angstrom"})
    fits.PrimaryHDU(flux.astype(np.float32), header).writeto(tmp_path / "b.fits")
    (one,) = spectra(tmp_path / "b.fits")
    np.testing.assert_array_equal(one.mask, flux < 0)


def test_pixels_without_a_value_in_6dfgs(real_data: Path) -> None:
    path = real_data / "layouts" / "onedspec_image" / "0000108_1d.fits"
    (one,) = spectra(path)
    np.testing.assert_array_equal(one.mask[one.flux < -900], True)
    assert np.count_nonzero(one.mask) >= 7 and "for no value" in " ".join(one.told())


def test_without_errors_and_with_a_mask_that_marks_most(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "wave,flux,mask", WAVE, FLUX, (np.arange(N) < 100).astype(int))
    assert "have no errors (ivar)" in spectra(path)[0].told()
    told = " ".join(spectra(path, columns="wave,flux,mask=mask")[0].told())
    assert "more than half of their pixels masked: anything but 0 is taken for bad" in told


def test_a_long_table_holds_one_spectrum_for_each_id(tmp_path: Path) -> None:
    names = ["01"] * N + ["02"] * N + ["1"] * N
    path = table(tmp_path / "a.csv", "sample,wavelength (A),reflectance,z", names, np.tile(WAVE, 3),
                 np.concatenate([FLUX, FLUX + 1, FLUX + 2]), [0.1] * N + [0.2] * N + [0.3] * N)  # fmt: skip
    found = spectra(path)
    assert [(one.object_id, one.labels["z"]) for one in found] == [("01", 0.1), ("02", 0.2), ("1", 0.3)]
    for i, one in enumerate(found):
        np.testing.assert_array_equal(one.flux, (FLUX + i).astype(np.float32))
    path = table(tmp_path / "b.csv", "object,wave,flux", ["A"] * 60 + ["B"] * 60, WAVE, FLUX)
    assert [(one.object_id, len(one.flux)) for one in spectra(path)] == [("A", 60), ("B", 60)]
    path = table(tmp_path / "c.csv", "id,wave,flux", range(N), WAVE, FLUX)
    assert [len(one.flux) for one in spectra(path)] == [N]

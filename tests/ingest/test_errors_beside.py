"""Errors of a flux, under whatever name and beside it in whatever file; positions and models that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.surveys import companions_of, open_file
from specshards.ingest.surveys.common import position
from specshards.ingest.surveys.errors import errors_in, errors_of
from tests.conftest import REAL
from tests.ingest.test_files_images import N, image, spectra


def pair(folder: Path, flux: str, errors: str, values: np.ndarray, said: str | None = None) -> list[object]:
    """What is read of a flux and of what may be its errors."""
    folder.mkdir()
    axis = {"CRVAL1": 3.6, "CDELT1": 1e-5, "CRPIX1": 1.0, "DC-FLAG": 1, "CTYPE1": "LINEAR", "OBJECT": "q0100"}
    noise = np.random.default_rng(3).normal(0, 2, N)
    image(folder / flux, (100 + noise).astype("f4"), **axis)
    if errors:
        image(folder / errors, values.astype("f4"), **{**axis, "OBJECT": said or "q0100"})
    return [item for path in sorted(folder.iterdir()) for item in outcome(path)]


def outcome(path: Path) -> list[object]:
    try:
        return list(open_file(path).objects())
    except BadObjectError as fault:
        return [fault]


def test_errors_in_a_file_beside_are_of_the_spectrum(tmp_path: Path) -> None:
    sigma = np.full(N, 2.0)
    sigma[7] = 0
    divided = "q0100 (Error) [div]"
    names = (("x_f.fits", "x_e.fits", divided), ("x_nF.fits", "x_nE.fits", None), ("XF.fits", "XE.fits", None))
    for i, (flux, errors, said) in enumerate(names):
        aside, one = pair(tmp_path / str(i), flux, errors, sigma, said)
        assert isinstance(aside, BadObjectError) and aside.selected_out
        assert str(aside) == f"errors of the spectrum {flux}, read with it"
        assert isinstance(one, Spectrum) and one.has_ivar
        assert set(one.ivar) == {0.0, 0.25} and np.flatnonzero(~one.good()).tolist() == [7]
    assert companions_of()("night/x_f.fits.gz")[-1] == "night/x_e.fits.gz"

    # Two spectra of one star, on one axis: its second has no errors' size.
    two = pair(tmp_path / "two", "HDF.fits", "HDE.fits", 90 + np.random.default_rng(4).normal(0, 2, N))
    assert [isinstance(one, Spectrum) and not one.has_ivar for one in two] == [True, True]
    # Alone, or of another shape, it is errors where it says so.
    assert isinstance(pair(tmp_path / "mute", "x_f.fits", "y_e.fits", sigma)[1], Spectrum)
    for name, values in (("y_e.fits", sigma), ("x_e.fits", sigma[:100])):
        found = pair(tmp_path / f"said-{len(values)}", "x_f.fits", name, values, "q0100 (Error)")
        (aside,) = (one for one in found if isinstance(one, BadObjectError))
        assert aside.selected_out and str(aside) == "an image of errors, not of flux (OBJECT = q0100 (Error))"
    (star,) = pair(tmp_path / "star", "x.fits", "", sigma)
    image(tmp_path / "sigma.fits", np.arange(1, N + 1, dtype="f4"), CRVAL1=5000.0, CDELT1=1.0, OBJECT="sigma Ori")
    assert isinstance(star, Spectrum) and len(spectra(tmp_path / "sigma.fits")) == 1
    damaged = tmp_path / "0" / "x_e.fits"
    damaged.write_bytes(damaged.read_bytes()[:3000])
    with pytest.raises(BadObjectError, match=r"its errors in x_e\.fits are unreadable"):
        spectra(tmp_path / "0" / "x_f.fits")


def test_what_may_be_errors_and_is_not_read_is_said(tmp_path: Path) -> None:
    flux, axis = np.arange(1, N + 1, dtype="f4"), {"CRVAL1": 5000.0, "CDELT1": 1.0, "CRPIX1": 1.0}
    for name in ("ERR_FLUX", "FLUX_ERROR", "SIGMA", "UNCERT"):
        beside = fits.ImageHDU(np.full(N, 2, "f4"), name=name)
        (one,) = spectra(image(tmp_path / f"{name}.fits", flux, beside, **axis))
        assert one.has_ivar and set(one.ivar) == {0.25}
    for name, said in ((None, "HDU 1"), ("SKY_ERR", "SKY_ERR")):
        beside = fits.ImageHDU(np.full(N, 2, "f4"), name=name)
        (one,) = spectra(image(tmp_path / f"unsaid-{said}.fits", flux, beside, **axis))
        assert not one.has_ivar and f"are read without errors, though {said} may hold some" in one.remarks
    # Wavelengths in an HDU: what is not said of them is a guess, too.
    waves = fits.ImageHDU(np.linspace(4000, 5000, N), name="WAVELENGTH")
    (one,) = spectra(image(tmp_path / "waves.fits", flux, waves))
    assert "unit of wavelength" in " ".join(one.remarks) and "vacuum is a guess" in " ".join(one.remarks)


def test_a_stellar_population_is_no_star_of_the_library(tmp_path: Path) -> None:
    flux = np.arange(1, 4301, dtype="f4")
    grid = {"CRVAL1": 3500.0, "CDELT1": 0.9, "CRPIX1": 1.0}
    (model,) = spectra(image(tmp_path / "m.fits", flux, TPLLIB="M11-MILES", AGE=1.0, IMF="SALPETER", Z=0.02, **grid))
    assert (model.survey, model.frame) == ("spectrum1d", "rest") and "models of stellar" in " ".join(model.remarks)
    (star,) = spectra(image(tmp_path / "s.fits", flux, TPLLIB="MILES", **grid))
    assert star.survey == "miles"


def test_0_0_in_a_header_is_no_position(tmp_path: Path) -> None:
    flux, axis = np.arange(1, N + 1, dtype="f4"), {"CRVAL1": 5000.0, "CDELT1": 1.0, "CRPIX1": 1.0}
    (one,) = spectra(image(tmp_path / "none.fits", flux, RA=0.0, DEC=0.0, RA_TARG=40.0, DEC_TARG=-3.0, **axis))
    assert (one.ra, one.dec) == (40.0, -3.0)
    (one,) = spectra(image(tmp_path / "text.fits", flux, RA="00:00:00.0", DEC="+00:00:00", **axis))
    assert np.isnan(one.ra) and np.isnan(one.dec)
    assert np.isnan(position(0.0, 0)).all() and position(0.0, 1e-9) == (0.0, 1e-9) and position(1e-9, 0) == (1e-9, 0)
    assert position(0.0, 0.0, is_exact=True) == (0.0, 0.0)


def table(path: Path, columns: dict[str, np.ndarray], is_rows: bool = False, **primary_cards: object) -> Path:
    """A FITS table of one row a pixel, or of one row of vectors."""
    n = len(next(iter(columns.values())))
    form = f"{n}D" if is_rows else "D"
    made = [fits.Column(name, form, array=[values] if is_rows else values) for name, values in columns.items()]
    made[0].unit, made[1].unit = "nm", "erg.cm**(-2).s**(-1).nm**(-1)"
    primary = fits.PrimaryHDU()
    primary.header.update(primary_cards)
    hdu = fits.BinTableHDU.from_columns(made)
    if is_rows:
        hdu.header.update({"TUCD1": "em.wl", "VOCLASS": "SPECTRUM V2.0"})
    fits.HDUList([primary, hdu]).writeto(path)
    return path


WAVE, FLUX, TWO = np.linspace(1000, 1800, N), np.linspace(1, 2, N) * 1e-16, np.full(N, 2e-17)
SPELLINGS = {
    "error": ("ERR_FLUX", "ERROR_FLUX", "FLUX_ERR", "FLUX_ERROR", "E_FLUX", "SIGMA_FLUX", "NOISE", "STD", "UNCERT",
              "STATERROR", "err", "fluxerr", "flux_unc", "dflux"),
    "ivar": ("IVAR_FLUX", "FLUX_IVAR", "ivar", "invvar"), "variance": ("VAR_FLUX", "FLUX_VAR", "variance"),
}  # fmt: skip


def test_errors_are_found_under_every_usual_name(tmp_path: Path) -> None:
    values = {"error": TWO, "ivar": 1 / TWO**2, "variance": TWO**2}
    for kind, names in SPELLINGS.items():
        for name in names:
            assert errors_of("FLUX", ["WAVE", "FLUX", name, "ERR_FLUX_TELL_CORR"]) == (kind, name)
            columns = {
                "WAVE": WAVE,
                "FLUX": FLUX,
                "CONTINUUM": FLUX,
                "ERR_FLUX_TELL_CORR": 9 * TWO,
                name: values[kind],
            }
            plain = table(tmp_path / f"{name}.fits", columns)
            eso = table(tmp_path / f"eso-{name}.fits", columns, True, ORIGIN="ESO", PRODCATG="SCIENCE.SPECTRUM")
            for path, survey in ((plain, "table"), (eso, "eso")):
                (one,) = spectra(path)
                assert (one.survey, one.has_ivar) == (survey, True), name
                np.testing.assert_allclose(one.ivar / one.flux_scale**2, 1 / TWO**2, rtol=1e-6)
    for name in ("SNR", "sn", "signal_to_noise", "DEC", "ORDER", "date", "special", "flux", "QUAL", "degree"):
        assert errors_in(name) is None, name


def test_a_column_that_may_be_errors_and_is_not_read_is_said(tmp_path: Path) -> None:
    columns = {"WAVE": WAVE, "FLUX": FLUX, "ERR_SKY": TWO * np.arange(1, N + 1)}
    said = "are read without errors, though ERR_SKY may hold some"
    (one,) = spectra(table(tmp_path / "t.fits", columns))
    assert not one.has_ivar and said in one.remarks
    (one,) = spectra(table(tmp_path / "r.fits", columns, True))
    assert (one.survey, one.has_ivar) == ("eso", False) and said in one.remarks
    rows = [
        "id,wavelength,flux,err_sky,z_err",
        *(f'{i},"{[4000, 4001, 4002]}","[1, 2, 3]","[1, 1, 2]",0.1' for i in "ab"),
    ]
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n")
    for one in spectra(tmp_path / "rows.csv"):
        assert not one.has_ivar and said.replace("ERR_SKY", "err_sky") in one.remarks


def test_a_list_of_lines_is_no_spectrum(tmp_path: Path) -> None:
    names = [f"Ne {wave:.2f}" for wave in WAVE]
    lines = [
        "name,wave,intensity",
        *(f"{name},{wave},{i + 1}" for i, (name, wave) in enumerate(zip(names, WAVE, strict=True))),
    ]
    (tmp_path / "lines.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(BadObjectError, match="a list, of lines perhaps, not a spectrum") as caught:
        spectra(tmp_path / "lines.csv")
    assert caught.value.selected_out
    numbers = ["id,wave (A),intensity", *(f"{i},{wave * 5},{i + 1}" for i, wave in enumerate(WAVE))]
    (tmp_path / "pixels.csv").write_text("\n".join(numbers) + "\n")
    assert len(spectra(tmp_path / "pixels.csv")) == 1


def test_angstrom_that_are_declared_reach_a_millimetre(tmp_path: Path) -> None:
    wave = np.geomspace(1150, 318_900, N)
    path = table(tmp_path / "calspec.fits", {"WAVELENGTH": wave, "FLUX": FLUX, "STATERROR": TWO, "SYSERROR": TWO})
    with fits.open(path, mode="update") as hdus:
        hdus[1].header["TUNIT1"], hdus[1].header["TUNIT2"] = "ANGSTROMS", "FLAM"
    (one,) = spectra(path)
    assert one.has_ivar and abs(one.wavelength[-1] - 318_900) < 1
    (tmp_path / "none.csv").write_text("wave,flux\n" + "\n".join(f"{w},1" for w in wave) + "\n")
    with pytest.raises(BadObjectError):  # nothing says what they are in
        spectra(tmp_path / "none.csv")


def test_errors_of_any_kind_in_a_table_of_lists(tmp_path: Path) -> None:
    flux, two = np.linspace(10, 20, 64), np.full(64, 2.0)
    values = {"flux_err": two, "ERROR": two, "sigma": two, "flux_var": two**2, "ivar": two**-2, "invvar": two**-2}
    for name, errors in values.items():
        pixels = {"flux": flux, "lambda": np.linspace(4000, 5000, 64), name: errors}
        if name != "ivar":
            pixels["sky_err"] = 9 * two
        cell = {part: pa.array([numbers.tolist()]) for part, numbers in pixels.items()}
        structs = pa.StructArray.from_arrays(list(cell.values()), list(cell))
        struct = pa.table({"object_id": ["a"], "ra": [0.0], "dec": [0.0], "spectrum": structs})
        flat = pa.table({"object_id": ["a"], **{f"spectrum_{part}": array for part, array in cell.items()}})
        for form, made in (("struct", struct), ("flat", flat)):
            pq.write_table(made, path := tmp_path / f"{form}-{name}.parquet")
            (one,) = spectra(path)
            assert one.has_ivar and set(one.ivar) == {0.25}, (form, name)
            assert form == "flat" or (one.ra, one.dec) == (0.0, 0.0), "a table's 0, 0 is a place"


@pytest.mark.skipif(not (REAL / "layouts").is_dir(), reason="no real files of layouts")
def test_real_xqr30_keeps_its_errors() -> None:
    path = REAL / "layouts/eso_xshooter/J0408-5632_NIR.fits"
    with fits.open(path) as hdus:
        names = {name.lower(): name for name in hdus[1].columns.names}
        sigma = np.asarray(hdus[1].data[names["error"]], np.float64).reshape(-1)
    (one,) = spectra(path)
    good = one.good()
    np.testing.assert_allclose(one.ivar[good] / one.flux_scale**2, 1 / sigma[good] ** 2, rtol=1e-6)

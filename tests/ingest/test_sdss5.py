"""Stars of SDSS-V's Milky Way Mapper, in files made after the data model of `mwmStar` and `mwmVisit`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.surveys import open_file
from tests.oracles import damage

GRIDS = {"BOSS": (3.5523, 1e-4, 4648), "APOGEE": (4.179, 6e-6, 8575)}
TABLES = ("BOSS/APO", "BOSS/LCO", "APOGEE/APO", "APOGEE/LCO")


def mwm(path: Path, rows: dict[str, int], visits: bool = False, model: bool = False, scale: int = 8) -> Path:
    """A file of one star: so many rows in each of its four tables; grids shortened `scale` times."""
    rng = np.random.default_rng(3)
    primary = fits.PrimaryHDU()
    primary.header.update({"V_ASTRA": "0.8.1", "SDSS_ID": 99_560_000, "RA": 113.17667, "DEC": -31.4041})
    hdus = [primary]
    for name in TABLES:
        instrument, count = name.partition("/")[0], rows.get(name, 0)
        coeff0, coeff1, whole = GRIDS[instrument]
        n = whole // scale
        wave = np.tile(10 ** (coeff0 + coeff1 * np.arange(n)), (count, 1))
        vectors = {
            "flux": rng.normal(50, 2, (count, n)), "ivar": np.full((count, n), 4.0),
            "pixel_flags": np.zeros((count, n)), "wavelength": wave,
        }  # fmt: skip
        vectors["pixel_flags"][:, 4], vectors["ivar"][:, 9] = 1 << 2, 0
        if visits:
            del vectors["wavelength"]
        prefix = "xcsao" if instrument == "BOSS" else "doppler"
        columns = [
            fits.Column("spectrum_pk", "K", array=700 + np.arange(count)),
            fits.Column("release", "5A", array=["dr19"] * count),
            fits.Column("xcsao_v_rad" if visits and instrument == "BOSS" else "v_rad", "E", array=[25.5] * count),
            fits.Column(f"{prefix}_teff", "E", array=[5100.0] * count),
            fits.Column("snr", "E", array=[np.nan] * count),
        ]  # fmt: skip
        if visits:
            columns.append(fits.Column("in_stack", "L", array=np.arange(count) != 1))
        width = n if count else 0
        columns += [fits.Column(k, f"{width}E", dim=f"({width})", array=v[:, :width]) for k, v in vectors.items()]
        if model:
            columns.append(fits.Column("model_flux", f"{width}E", array=np.ones((count, width))))
        table = fits.BinTableHDU.from_columns(columns, name=name)
        table.header.update({"CRVAL": coeff0, "CDELT": coeff1, "NPIXELS": n, "CTYPE": "LOG-LINEAR"})
        hdus.append(table)
    fits.HDUList(hdus).writeto(path, checksum=True)
    return path


def test_a_star_of_both_instruments(tmp_path: Path) -> None:
    path = mwm(tmp_path / "mwmStar.fits", {"BOSS/APO": 1, "BOSS/LCO": 1, "APOGEE/LCO": 1})
    opened = open_file(path)
    spectra = list(opened.objects())
    assert (opened.survey, opened.layout) == ("apogee and sdss", "sdss-mwmstar")
    assert [(item.object_id, item.survey) for item in spectra] == [
        ("99560000", "sdss"), ("99560000-lco", "sdss"), ("99560000", "apogee"),
    ]  # fmt: skip
    with fits.open(path) as hdus:
        for spectrum, hdu in zip(spectra, (hdus[1], hdus[2], hdus[4]), strict=True):
            row = hdu.data[0]
            assert np.array_equal(spectrum.flux, row["flux"]) and np.array_equal(spectrum.ivar, row["ivar"])
            assert np.array_equal(spectrum.wavelength, row["wavelength"])
            assert (spectrum.frame, spectrum.velocity, spectrum.release) == ("rest", 25.5, "dr19")
            assert (spectrum.ra, spectrum.dec) == (113.17667, -31.4041)
    # A flag of any of BOSS's exposures condemns nothing, one of APOGEE's does; no information is always bad.
    assert [np.flatnonzero(item.mask).tolist() for item in spectra] == [[9], [9], [4, 9]]
    assert spectra[0].labels["xcsao_teff"] == 5100 and spectra[0].labels["snr"] is None
    assert spectra[2].units["doppler_teff"] == "K"


def test_a_run_of_one_survey_takes_its_own(tmp_path: Path) -> None:
    path = mwm(tmp_path / "mwmStar.fits", {"BOSS/APO": 1, "APOGEE/APO": 1})
    for survey, other in (("sdss", "apogee"), ("apogee", "sdss")):
        items = list(open_file(path, survey).objects())
        assert [item.survey for item in items if isinstance(item, Spectrum)] == [survey]
        assert [str(item) for item in items if isinstance(item, BadObjectError)] == [f"of {other}, not of {survey}"]
    with pytest.raises(BadObjectError, match=r"file .* in a desi run"):
        open_file(path, "desi")
    assert open_file(mwm(tmp_path / "a.fits", {"APOGEE/APO": 1})).survey == "apogee"


def test_visits_at_rest_on_the_headers_grid(tmp_path: Path) -> None:
    path = mwm(tmp_path / "mwmVisit.fits", {"BOSS/APO": 3}, visits=True)
    items = list(open_file(path).objects())
    assert [getattr(item, "object_id", None) for item in items] == ["99560000-700", None, "99560000-702"]
    assert items[1].selected_out and "stack of its star leaves out" in str(items[1])
    first = items[0]
    assert isinstance(first, Spectrum) and (first.layout, first.velocity) == ("sdss-mwmvisit", 25.5)
    assert np.array_equal(first.wavelength, (10 ** (3.5523 + 1e-4 * np.arange(581))).astype("f4"))
    assert first.wave_coeff0 == 3.5523


def test_models_and_empty_files_are_set_aside(tmp_path: Path) -> None:
    for name, options, reason in (
        ("m.fits", {"rows": {"BOSS/APO": 1}, "model": True}, "models that an Astra pipeline fitted"),
        ("e.fits", {"rows": {}}, "none of its tables has a spectrum"),
    ):
        opened = open_file(mwm(tmp_path / name, **options))
        with pytest.raises(BadObjectError, match=reason) as caught:
            list(opened.objects())
        assert caught.value.selected_out


def test_damage_ends_as_one_line_or_as_the_whole(tmp_path: Path) -> None:
    path = mwm(tmp_path / "mwmStar.fits", {"BOSS/LCO": 1}, scale=20)
    assert [fault for fault in damage.wrong(path, tmp_path, flips=30)] == []

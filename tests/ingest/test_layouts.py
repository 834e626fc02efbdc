"""Every layout and oddity that the readers must honour, in files made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specshards.common.errors import BadObjectError
from specshards.ingest.spectra.schema import SCHEMA, to_table, write_parquet
from specshards.ingest.surveys import read_file
from specshards.ingest.surveys.common import class_label, number
from tests.conftest import make_spectrum
from tests.oracles.survey_files import FLUX, WAVE, N, lamost_image, lamost_table, sdss_spec


@pytest.mark.parametrize(
    "rows", ["Flux, Inverse, Wavelength, Andmask, Ormask", "Flux Inverse Wavelength Andmask Ormask"]
)
@pytest.mark.parametrize("dtype", [">f4", ">f8"])
def test_lamost_image_with_wavelengths(tmp_path: Path, rows: str, dtype: str) -> None:
    spectrum = read_file(lamost_image(tmp_path / "a.fits", rows, WAVE, dtype))
    assert (spectrum.layout, spectrum.object_id, spectrum.release) == ("lamost-image", "701002", "dr5")
    np.testing.assert_array_equal(spectrum.wavelength, WAVE.astype("f4"))
    assert spectrum.survey_sn["snru"] is None and spectrum.survey_sn["snrg"] == 5.2
    assert spectrum.labels == {"class": "STAR", "subclass": "G7", "z": -5e-4, "z_err": 3e-5}


def test_lamost_dr1_takes_wavelengths_from_the_header_and_no_obsid(tmp_path: Path) -> None:
    near_one = np.full(N, 1.0)
    near_one[7] = 3500.0  # a spike of the continuum-divided flux can look like a wavelength
    path = lamost_image(
        tmp_path / "b.fits", "Flux Inverse Subcontinuum Andmask Ormask", near_one, OBSID=None, DATA_V=None, SN_G=7.5,
        SNRG=None,
    )  # fmt: skip
    spectrum = read_file(path)
    assert (spectrum.layout, spectrum.release) == ("lamost-image-dr1", "dr1")
    np.testing.assert_allclose(spectrum.wavelength, WAVE, rtol=1e-7)
    assert spectrum.object_id == "55862-B6202-01-002" and spectrum.survey_sn["snrg"] == 7.5


def test_lamost_table_with_a_shorter_normalization(tmp_path: Path) -> None:
    spectrum = read_file(lamost_table(tmp_path / "c.fits", {"NORMALIZATION": FLUX[:-20]}))
    assert spectrum.layout == "lamost-table" and len(spectrum.flux) == N
    assert (spectrum.wave_coeff0, spectrum.wave_coeff1) == (3.5682, 1e-4)


def test_a_grid_without_coefficients_keeps_its_wavelengths(tmp_path: Path) -> None:
    spectrum = read_file(lamost_table(tmp_path / "c.fits", COEFF0=None))
    assert spectrum.wave_coeff0 is None and spectrum.wave_coeff1 is None
    np.testing.assert_array_equal(spectrum.wavelength, WAVE.astype("f4"))


def test_lamost_missing_values_are_missing(tmp_path: Path) -> None:
    spectrum = read_file(lamost_table(tmp_path / "c.fits", CLASS="Unknown", SUBCLASS="Non", Z=-9999.0, OBSID=-5))
    assert spectrum.labels == {"class": None, "subclass": None, "z": None, "z_err": None}
    assert spectrum.object_id == "55862-B6202-01-002"
    row = to_table([spectrum]).to_pylist()[0]
    assert row["z"] is None and row["class"] is None and row["teff"] is None and row["snru"] is None


def test_nan_flux_and_masked_pixels_are_known(tmp_path: Path) -> None:
    flux, mask = FLUX.copy(), np.zeros(N)
    flux[3], mask[5] = np.nan, 8.0
    spectrum = read_file(lamost_table(tmp_path / "c.fits", {"FLUX": flux, "ANDMASK": mask}))
    assert np.flatnonzero(spectrum.mask).tolist() == [3, 5]
    assert spectrum.ivar[3] == 0 and np.isnan(spectrum.flux[3]) and spectrum.ivar[5] == 4


@pytest.mark.parametrize(
    ("changes", "header", "reason"),
    [
        ({"IVAR": np.zeros(N)}, {}, "all pixels masked"),
        ({"FLUX": np.full(N, np.nan)}, {}, "no finite flux"),
        ({"FLUX": np.zeros(N)}, {}, "flux is zero"),
        ({"WAVELENGTH": WAVE[:-1]}, {}, "inconsistent lengths: flux 400, ivar 400, wavelength 399"),
        ({"WAVELENGTH": np.zeros(N)}, {}, "impossible grid"),
        ({"WAVELENGTH": WAVE / 1e4}, {"COEFF0": None}, "impossible grid: 0.369999 to"),
        ({}, {"RA": None}, "no usable position"),
        ({}, {"OBSID": None, "PLANID": None}, "no OBSID"),
    ],
)
def test_useless_spectra_say_why(tmp_path: Path, changes: dict, header: dict, reason: str) -> None:
    with pytest.raises(BadObjectError, match=reason):
        read_file(lamost_table(tmp_path / "c.fits", changes, **header))


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_sdss_in_either_case_with_or_without_names(tmp_path: Path, upper: bool, named: bool) -> None:
    spectrum = read_file(sdss_spec(tmp_path / "s.fits", upper=upper, named=named))
    assert (spectrum.layout, spectrum.object_id) == ("sdss-spec-lite", "299492975510054912")
    assert (spectrum.ra, spectrum.dec) == (146.93, -0.7)
    assert spectrum.labels["class"] == "GALAXY" and spectrum.labels["subclass"] is None
    assert "teff" not in spectrum.labels and spectrum.survey_sn["sn_median_all"] == 16.2


def test_sdss_ids_and_places_that_stand_in(tmp_path: Path) -> None:
    five = ("SPECOBJID", "PLATE", "FIBERID", "PLUG_RA", "PLUG_DEC")
    sdss_v = read_file(
        sdss_spec(tmp_path / "v.fits", drop=five, FIELD=15000, CATALOGID=27021597, RACAT=10.5, DECCAT=-3.25)
    )
    assert sdss_v.object_id == "15000-51602-27021597" and (sdss_v.ra, sdss_v.dec) == (10.5, -3.25)
    plain = read_file(sdss_spec(tmp_path / "p.fits", drop=("SPECOBJID", "PLUG_RA", "PLUG_DEC", "ZWARNING")))
    assert plain.object_id == "266-51602-13" and (plain.ra, plain.dec) == (5.0, 6.0)
    assert plain.labels["zwarning"] is None
    with pytest.raises(BadObjectError, match="no SPECOBJID"):
        read_file(sdss_spec(tmp_path / "n.fits", drop=("SPECOBJID", "PLATE")))


@pytest.mark.parametrize(
    "labels", [{"ZWARNING": 1}, {"ZWARNING": 5}, {"TARGETTYPE": "SKY"}, {"OBJTYPE": "sky_boss"}, {"ZWARNING": 128}]
)
def test_what_was_not_pointed_at_an_object_is_set_aside(tmp_path: Path, labels: dict) -> None:
    with pytest.raises(BadObjectError, match="fibre") as caught:
        read_file(sdss_spec(tmp_path / "s.fits", **labels))
    assert caught.value.selected_out


def test_a_lamost_sky_fibre_is_set_aside(tmp_path: Path) -> None:
    with pytest.raises(BadObjectError, match="fibre of type Sky") as caught:
        read_file(lamost_table(tmp_path / "c.fits", FIB_TYPE="Sky"))
    assert caught.value.selected_out
    assert read_file(lamost_table(tmp_path / "s.fits", FIB_TYPE="F-Std")).object_id == "701002"


def test_a_file_of_another_survey_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadObjectError, match=r"a sdss file .sdss-spec-lite. in a lamost run; SURVEY=sdss reads it$"):
        read_file(sdss_spec(tmp_path / "s.fits"), "lamost")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=6000), st.booleans())
def test_no_bytes_make_the_reader_raise_anything_else(tmp_path_factory, content: bytes, fits_like: bool) -> None:
    path = tmp_path_factory.mktemp("noise") / "x.fits"
    path.write_bytes(b"SIMPLE  =                    T" + content if fits_like else content)
    with pytest.raises(BadObjectError):
        read_file(path)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damaged_headers_never_raise_anything_else(tmp_path_factory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("damage")
    content = bytearray(lamost_table(folder / "whole.fits").read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, 8639))] = data.draw(st.integers(0, 255))
    (folder / "x.fits").write_bytes(content)
    try:
        spectrum = read_file(folder / "x.fits")
    except BadObjectError as error:
        assert "\n" not in error.reason
    else:
        assert len(spectrum.flux) == len(spectrum.mask)


def test_parquet_keeps_arrays_and_types(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    spectra = [make_spectrum(i, rng, n=100 + i) for i in range(5)]
    write_parquet(to_table(spectra), tmp_path / "a.parquet", {"x": 1}, row_group_rows=2)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.schema.remove_metadata().equals(SCHEMA.remove_metadata())
    assert table.schema.metadata[b"specshards.schema_version"] == b"3"
    for row, spectrum in zip(table.to_pylist(), spectra, strict=True):
        for column, values in (("flux", spectrum.flux), ("lambda", spectrum.wavelength), ("mask", spectrum.mask)):
            np.testing.assert_array_equal(np.array(row["spectrum"][column], values.dtype), values)
    good = spectra[0].flux * np.sqrt(spectra[0].ivar)
    assert table["sn_median"][0].as_py() == pytest.approx(np.median(good))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e3, 1e3, width=32), st.sampled_from([0.0, 0.25, 3.0])), max_size=12))
def test_sn_median_is_numpys(pixels: list[tuple[float, float]]) -> None:
    flux, ivar = (np.array([pixel[i] for pixel in pixels], np.float32) for i in (0, 1))
    spectrum = make_spectrum(
        0, np.random.default_rng(0), n=len(pixels), flux=flux, ivar=ivar, mask=np.arange(len(pixels)) % 4 == 0
    )
    good = (np.arange(len(pixels)) % 4 != 0) & (ivar > 0)
    expected = float(np.median(flux[good] * np.sqrt(ivar[good]))) if good.any() else None
    assert spectrum.sn_median() == expected


@pytest.mark.parametrize("value", [-9999, -9999.0, "-9999.0", float("nan"), "", None, "x", float("inf"), -999.0])
def test_what_surveys_write_for_missing(value: object) -> None:
    assert number(value) is None


def test_classes() -> None:
    assert [class_label(c) for c in ("STAR  ", "qso", b"GALAXY", "Unknown", "", None)] == [
        "STAR", "QSO", "GALAXY", None, None, None,
    ]  # fmt: skip

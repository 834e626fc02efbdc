"""Flux and ivar in float32: what is finite and positive stays so, and the unit and the scale are written down."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from specshards.common.errors import BadObjectError
from specshards.common.jobs import Engine
from specshards.common.spectrum import Spectrum, good_pixels
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.job.build import build as ingest
from specshards.ingest.spectra.blocks import iter_blocks
from specshards.ingest.spectra.folder import SpectraFolder
from specshards.ingest.spectra.schema import to_table, upgraded
from specshards.ingest.surveys import open_file, read_file
from specshards.ingest.surveys.common import checked
from specshards.ingest.surveys.flux import RELATIVE, SDSS_UNIT, cgs_factor, fitted, inverse_variance, unit_of
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.write.build import build as draw
from tests.conftest import make_spectrum
from tests.oracles.survey_files import lamost_image

HERE = Engine(workers=0)
CGS = "erg / (Angstrom s cm2)"
SMALLEST = float(np.finfo(np.float32).tiny)


def table(
    flux: npt.NDArray[np.float64], sigma: npt.NDArray[np.float64], survey: str = "x", unit: str | None = None
) -> pa.Table:
    """Spectra `(rows, n)` as somebody's Parquet in float64."""
    rows, n = flux.shape
    floats, metadata = pa.list_(pa.float64()), None if unit is None else {"unit": unit}
    fields = [pa.field("flux", floats, metadata=metadata), pa.field("ivar", floats), pa.field("lambda", floats),
              pa.field("mask", pa.list_(pa.bool_()))]  # fmt: skip
    wave = 3800.0 + np.arange(n)
    parts = [list(flux), list(sigma**-2.0), [wave] * rows, [np.zeros(n, bool)] * rows]
    spectra = pa.StructArray.from_arrays(
        [pa.array(part, field.type) for part, field in zip(parts, fields, strict=True)], fields=fields
    )
    return pa.table({"object_id": [f"c{i}" for i in range(rows)], "survey": [survey] * rows,
                     "ra": [7.0 * i for i in range(rows)], "dec": [-5.0] * rows, "spectrum": spectra})  # fmt: skip


def physical(spectrum: Spectrum) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    flux = spectrum.flux.astype(np.float64) * spectrum.flux_scale
    return flux, spectrum.flux_scale / np.sqrt(spectrum.ivar.astype(np.float64))


@st.composite
def spectra(draw: st.DrawFn) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Finite flux and sigma > 0 within 1e-60 to 1e60, sigmas of a spectrum within twelve decades."""
    n, middle = draw(st.integers(2, 30)), draw(st.floats(-48, 48))
    exponents = draw(arrays(np.float64, n, elements=st.floats(-6, 6)))
    sigma = 10.0 ** (middle + exponents)
    ratio = draw(arrays(np.float64, n, elements=st.floats(-1e6, 1e6)))
    return ratio * sigma, sigma


@given(spectra(), st.sampled_from([None, CGS, SDSS_UNIT, RELATIVE, "mJy"]))
def test_good_pixels_stay_good_and_keep_their_signal_to_noise(
    given: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]], unit: str | None
) -> None:
    flux, sigma = given
    ivar = inverse_variance(sigma)
    fit = fitted(flux, ivar, None, unit)
    assert fit.ivar is not None and fit.flux.dtype == fit.ivar.dtype == np.float32
    assert good_pixels(fit.flux, fit.ivar, None).all() and (fit.ivar >= SMALLEST).all()
    ratio = fit.flux.astype(np.float64) * np.sqrt(fit.ivar.astype(np.float64))
    np.testing.assert_allclose(ratio, flux / sigma, rtol=3e-7, atol=1e-18)
    np.testing.assert_allclose(fit.scale / np.sqrt(fit.ivar.astype(np.float64)), sigma, rtol=3e-7)


@given(
    arrays(np.float64, 12, elements=st.floats(-60, 60)), arrays(np.float64, 12, elements=st.floats(-60, 60)),
    st.sampled_from([None, CGS, SDSS_UNIT]),
)  # fmt: skip
def test_what_no_float32_holds_is_refused_or_was_said_to_be_nothing(
    fluxes: npt.NDArray[np.float64], errors: npt.NDArray[np.float64], unit: str | None
) -> None:
    flux, sigma = 10.0**fluxes, 10.0**errors
    try:
        fit = fitted(flux, inverse_variance(sigma), None, unit)
    except BadObjectError as error:
        assert "more decades than float32 holds" in error.reason
        return
    assert fit.ivar is not None
    kept = good_pixels(fit.flux, fit.ivar, None)
    assert (sigma[~kept] > 0.9e18 * np.sort(sigma)[6]).all()
    ratio = fit.flux[kept].astype(np.float64) * np.sqrt(fit.ivar[kept].astype(np.float64))
    np.testing.assert_allclose(ratio, (flux / sigma)[kept], rtol=3e-7, atol=1e-18)


@given(arrays(np.float64, 20, elements=st.floats(-8, 8)), st.floats(-52, 52))
def test_a_flux_without_errors_keeps_its_shape(exponents: npt.NDArray[np.float64], middle: float) -> None:
    flux = 10.0 ** (exponents + middle)
    fit = fitted(flux, None, None, None)
    assert fit.ivar is None and np.isfinite(fit.flux).all() and (np.abs(fit.flux) >= SMALLEST).all()
    np.testing.assert_allclose(fit.flux.astype(np.float64) * fit.scale, flux, rtol=3e-7)


@pytest.mark.parametrize(
    ("level", "unit", "scale"),
    [
        (1e-16, None, 1e-17), (1e-20, None, 1e-17), (1e-12, None, 1e-17), (1e-20, CGS, 1e-17), (1e-12, CGS, 1e-17),
        (1.0, CGS, 1e-17), (1e-16, "W / (um m2)", 1e-16), (1e-29, None, 1e-34), (1e-46, None, 1e-51),
        (1.0, None, 1.0), (1e-6, None, 1.0), (1e7, None, 1.0), (1e7, SDSS_UNIT, 1.0), (1e20, None, 1e17),
        (1e40, None, 1e34),
    ],
)  # fmt: skip
def test_one_scale_for_a_survey(level: float, unit: str | None, scale: float) -> None:
    flux = level * np.linspace(0.3, 3, 50)
    for brightness in (1.0, 20.0):
        fit = fitted(flux * brightness, inverse_variance(0.1 * flux), None, unit)
        assert fit.scale == pytest.approx(scale, rel=1e-12)


def test_float32_of_a_known_unit_is_not_touched() -> None:
    flux = np.array([1, -2, np.nan, 1e30], np.float32)
    ivar = np.array([1e-30, 0, 1, 1e30], np.float32)
    fit = fitted(flux, ivar, None, SDSS_UNIT)
    assert fit.flux is flux and fit.ivar is ivar and fit.scale == 1


@pytest.mark.parametrize(
    ("text", "name", "factor"),
    [
        ("1E-17 erg/cm^2/s/Ang", SDSS_UNIT, 1e-17), ("erg/s/cm2/A", CGS, 1.0), ("erg/s/cm²/Å", CGS, 1.0),
        ("10**-20 erg s-1 cm-2 Angstrom-1", "1e-20 erg / (Angstrom s cm2)", 1e-20), ("mJy", "mJy", None),
        ("W/m2/um", "W / (um m2)", 0.1), ("relative", RELATIVE, None), ("counts of mine", None, None),
        ("", None, None), (None, None, None),
    ],
)  # fmt: skip
def test_units_as_surveys_write_them(text: str | None, name: str | None, factor: float | None) -> None:
    assert unit_of(text) == name
    if name is not None:
        assert cgs_factor(name) == (None if factor is None else pytest.approx(factor))


def test_no_error_is_no_information() -> None:
    sigma = [0.0, -1.0, np.nan, np.inf, 2.0]
    assert inverse_variance(np.array(sigma, np.float32)).tolist() == [0, 0, 0, 0, 0.25]


@pytest.mark.parametrize("unit", [None, "erg/s/cm2/A"])
def test_a_table_in_cgs_keeps_every_pixel_by_both_ways(
    unit: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    sigma = 10.0 ** rng.uniform(-21, -19, (8, 300))
    flux = rng.normal(1e-18, 1e-19, (8, 300))
    path = tmp_path / "cgs.parquet"
    pq.write_table(table(flux, sigma, unit=unit), path)
    ingest(IngestConfig(), str(path), tmp_path / "out", engine=HERE)
    said = capsys.readouterr().out
    assert said.count("flux is stored divided by 1e-17 (flux_scale); unit: ") == 1 and "of 8 samples" in said
    for where in (tmp_path / "out" / "spectra", path):
        ((_, block),) = iter_blocks(SpectraFolder.scan(where))
        assert set(block.meta["flux_scale"].to_pylist()) == {1e-17}
        assert set(block.meta["flux_unit"].to_pylist()) == {unit_of(unit)}
        for i in range(8):
            pixels = block.arrays(i)
            assert pixels.good().all() and pixels.ivar is not None
            np.testing.assert_allclose(pixels.flux * 1e-17, flux[int(block.meta["object_id"][i].as_py()[1:])], 3e-7)
        expected = np.median(flux / sigma, axis=1)
        np.testing.assert_allclose(sorted(block.meta["sn_median"].to_pylist()), sorted(expected), rtol=1e-5)
    draw(ShardConfig(), path, tmp_path / "shards", engine=HERE)
    sidecar = next((tmp_path / "shards" / "train").glob("*.parquet"))
    assert set(pq.read_table(sidecar)["flux_scale"].to_pylist()) == {1e-17}


def test_a_survey_name_does_not_make_cgs_its_unit(tmp_path: Path) -> None:
    flux = np.full((1, 50), 3e-17)
    for survey, level, unit in (("sdss", 1.0, None), ("sdss", 1e17, SDSS_UNIT), ("lamost", 1e17, RELATIVE)):
        pq.write_table(table(flux * level, 0.1 * flux * level, survey), tmp_path / "x.parquet")
        spectrum = read_file(tmp_path / "x.parquet")
        assert spectrum.flux_unit == unit and spectrum.good().all()
        np.testing.assert_allclose(physical(spectrum)[0], flux[0] * level, rtol=3e-7)


def test_files_in_float64_and_errors_too_small_for_float32(tmp_path: Path) -> None:
    path = lamost_image(tmp_path / "a.fits", "Flux Inverse Wavelength Andmask Ormask",
                        10.0 ** (3.5682 + 1e-4 * np.arange(400)), ">f8")  # fmt: skip
    with fits.open(path, mode="update") as file:
        file[0].data[0] *= 1e-25
        file[0].data[1] *= 1e50
    spectrum = read_file(path)
    assert spectrum.good().all() and spectrum.flux.dtype == np.float32
    np.testing.assert_allclose(physical(spectrum)[0], np.linspace(10, 20, 400) * 1e-25, rtol=3e-7)
    np.testing.assert_allclose(physical(spectrum)[1], 0.5e-25, rtol=3e-7)


def test_our_own_parquet_is_not_scaled_twice(tmp_path: Path) -> None:
    from specshards.ingest.inspect import open_any
    from specshards.ingest.spectra.schema import write_parquet

    flux = 1e-18 * np.linspace(1, 2, 3909)
    made = checked(make_spectrum(1, np.random.default_rng(0), survey="x", flux=flux, ivar=inverse_variance(flux / 9)))
    assert made.flux_scale == 1e-17 and made.flux_unit is None
    write_parquet(to_table([made]), tmp_path / "own.parquet", {})
    (again,) = open_any(tmp_path / "own.parquet").objects()
    assert isinstance(again, Spectrum)
    np.testing.assert_array_equal(again.flux, made.flux)
    np.testing.assert_array_equal(again.ivar, made.ivar)
    assert (again.flux_scale, again.frame) == (1e-17, "observed")


def test_rows_of_version_1_get_the_unit_of_their_survey() -> None:
    names = ["flux_unit", "flux_scale", "wave_source", "frame"]
    made = to_table([make_spectrum(i, np.random.default_rng(0), survey=s) for i, s in enumerate(("sdss", "x"))])
    again = upgraded(made.drop_columns(names))
    assert again.schema.equals(made.select(again.column_names).schema)
    assert again.select(names).to_pylist() == [
        {"flux_unit": unit, "flux_scale": 1.0, "wave_source": None, "frame": "observed"} for unit in (SDSS_UNIT, None)
    ]


def test_the_faulty_file_and_real_faint_galaxies_lose_nothing(real_data: Path, tmp_path: Path) -> None:
    items = list(open_file(real_data / "faults" / "cgsdeep.parquet").objects())
    assert len(items) == 20
    for item in items:
        assert isinstance(item, Spectrum) and item.good().all() and item.flux_scale == 1e-17
    files = sorted((real_data / "labelled" / "vandels").rglob("*"))
    names = [
        path for path in files if path.suffix in (".dat", ".txt", ".ascii", ".csv") and path.name != "labels.csv"
    ]
    whole = 0
    for path in names[:40]:
        wave, flux, sigma = np.loadtxt(path, unpack=True, usecols=(0, 1, 2))
        expected = np.isfinite(flux) & (sigma > 0)
        fit = fitted(flux, inverse_variance(sigma), None, None)
        np.testing.assert_array_equal(good_pixels(fit.flux, fit.ivar, None), expected)
        whole += fit.scale == 1e-17 and len(wave) > 100
    assert whole == len(names[:40])

"""Spectra on another grid, each kernel against a plain numpy version of what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specshards.render.resample import log_edges, stretch, to_bins, to_centres
from tests.oracles.kernel_spectra import PROPERTY, awkward, finite, read_real, spectra


@pytest.fixture(scope="module")
def real(real_data: Path):
    return read_real(real_data)


def resample(kernel, spectrum, edges: np.ndarray):
    """A dictionary of the outputs, from arrays full of rubbish."""
    count = len(edges) - 1
    out = {
        "flux": np.full(count, np.nan, np.float32),
        "ivar": np.full(count, np.nan, np.float32),
        "good": np.ones(count, np.bool_),
        "share": np.full(count, np.nan, np.float32),
    }
    flux, ivar, wavelength, good = spectrum
    first, end = kernel(flux, ivar, wavelength, good, edges, *out.values())
    return out | {"first": first, "end": end}


def borders(wavelength: np.ndarray) -> np.ndarray:
    middle = 0.5 * wavelength[:-1] + 0.5 * wavelength[1:]
    ends = 1.5 * wavelength[[0, -1]] - 0.5 * wavelength[[1, -2]]
    return np.concatenate([ends[:1], middle, ends[1:]])


def bins_by_matrix(spectrum, edges: np.ndarray):
    flux, ivar, wavelength, good = spectrum
    pixel = borders(wavelength)
    overlap = np.minimum(pixel[1:], edges[1:, None]) - np.maximum(pixel[:-1], edges[:-1, None])
    touched = np.flatnonzero((overlap > 0).any(axis=1))
    overlap = np.clip(overlap, 0, None) * good
    covered = overlap.sum(axis=1)
    some = covered > 0
    per_width = np.divide(overlap, covered[:, None], where=some[:, None], out=np.zeros_like(overlap))
    safe = np.where(good, flux, 0).astype(np.float64)
    variance = (per_width**2 / np.where(good, ivar, 1)).sum(axis=1)
    return {
        "flux": per_width @ safe,
        "ivar": np.divide(1, variance, where=some, out=np.zeros_like(variance)),
        "share": covered / np.diff(edges),
        "first": touched[0] if len(touched) else 0,
        "end": touched[-1] + 1 if len(touched) else 0,
    }


@st.composite
def edge_grids(draw):
    return log_edges((draw(st.floats(3000, 5000)), draw(st.floats(5001, 7000))), draw(st.integers(1, 120)))


@PROPERTY
@given(spectra(st.floats(-1e6, 1e6, width=32)), edge_grids())
def test_bins_equal_the_matrix_of_overlaps(spectrum, edges) -> None:
    found, expected = resample(to_bins, spectrum, edges), bins_by_matrix(spectrum, edges)
    scale = np.abs(spectrum[0]).max()
    np.testing.assert_allclose(found["flux"], expected["flux"], rtol=1e-6, atol=1e-7 * scale)
    np.testing.assert_allclose(found["ivar"], expected["ivar"], rtol=1e-6)
    np.testing.assert_allclose(found["share"], expected["share"], rtol=1e-6, atol=1e-9)
    clear = np.abs(expected["share"] - 0.5) > 1e-9
    np.testing.assert_array_equal(found["good"][clear], expected["share"][clear] > 0.5)
    assert (found["first"], found["end"]) == (expected["first"], expected["end"])


def test_bins_of_real_spectra_equal_the_matrix_of_overlaps(real) -> None:
    for spectrum in real[:4]:
        piece = tuple(x[1000:2000] for x in spectrum)  # the matrix of whole ones would take 200 MB
        for some, count in ((spectrum, 300), (piece, 5476)):
            edges = log_edges((3536.7, 10413.6), count)
            found, expected = resample(to_bins, some, edges), bins_by_matrix(some, edges)
            for name in ("flux", "ivar", "share"):
                np.testing.assert_allclose(found[name], expected[name], rtol=2e-6, atol=1e-6, err_msg=name)
            assert (found["first"], found["end"]) == (expected["first"], expected["end"])


@PROPERTY
@given(spectra(st.floats(-1e3, 1e3, width=32)), edge_grids())
def test_bins_conserve_flux(spectrum, edges) -> None:
    flux, ivar, wavelength, _ = spectrum
    found = resample(to_bins, (flux, ivar, wavelength, np.ones(len(flux), bool)), edges)
    pixel = borders(wavelength)
    full = np.flatnonzero((edges[:-1] >= pixel[0]) & (edges[1:] <= pixel[-1]))
    if len(full) == 0:
        return
    running = np.concatenate([[0], np.cumsum(flux * np.diff(pixel))])
    expected = np.diff(np.interp(edges[[full[0], full[-1] + 1]], pixel, running))[0]
    total = (found["flux"].astype(np.float64) * np.diff(edges))[full].sum()
    assert total == pytest.approx(expected, abs=1e-6 * np.abs(flux).max() * (pixel[-1] - pixel[0]))
    np.testing.assert_allclose(found["share"][full], 1, rtol=1e-6)


@PROPERTY
@given(spectra(), edge_grids(), finite)
def test_a_constant_stays_constant(spectrum, edges, value: float) -> None:
    _, ivar, wavelength, good = spectrum
    flux = np.where(good, np.float32(value), np.float32(np.nan))
    for kernel in (to_bins, to_centres):
        found = resample(kernel, (flux, ivar, wavelength, good), edges)
        np.testing.assert_array_equal(found["flux"], np.where(found["share"] > 0, np.float32(value), 0))


@PROPERTY
@given(spectra())
def test_bins_that_are_the_pixels_change_nothing(spectrum) -> None:
    flux, ivar, wavelength, good = spectrum
    found = resample(to_bins, spectrum, borders(wavelength))
    np.testing.assert_array_equal(found["flux"], np.where(good, flux, 0))
    np.testing.assert_allclose(found["ivar"], np.where(good, ivar, 0), rtol=1e-7)
    np.testing.assert_array_equal(found["good"], good)
    np.testing.assert_array_equal(found["share"], good)
    assert (found["first"], found["end"]) == (0, len(flux))


@PROPERTY
@given(spectra(), edge_grids(), st.sampled_from([np.nan, np.inf, -1.0, 0.0, 3e38]))
def test_bad_pixels_cannot_change_the_bins(spectrum, edges, value: float) -> None:
    flux, ivar, wavelength, good = spectrum
    changed = (*(np.where(good, x, np.float32(value)) for x in (flux, ivar)), wavelength, good)
    for kernel in (to_bins, to_centres):
        before, after = resample(kernel, spectrum, edges), resample(kernel, changed, edges)
        for name in before:
            np.testing.assert_array_equal(before[name], after[name], err_msg=name)


@PROPERTY
@given(spectra(finite | awkward), edge_grids(), st.sampled_from([0.0, 1e-45, 3.4e38]))
def test_bins_are_finite_and_empty_outside_the_spectrum(spectrum, edges, extreme: float) -> None:
    flux, ivar, wavelength, good = spectrum
    ivar[::3] = extreme
    for kernel in (to_bins, to_centres):
        found = resample(kernel, (flux, ivar, wavelength, good), edges)
        for name in ("flux", "ivar", "share"):
            assert np.isfinite(found[name]).all()
            assert not found[name][: found["first"]].any() and not found[name][found["end"] :].any()
        assert not found["good"][: found["first"]].any() and not found["good"][found["end"] :].any()
        assert (found["ivar"] >= 0).all() and (found["share"] <= 1).all()


@pytest.mark.parametrize("kernel", [to_bins, to_centres])
def test_a_spectrum_outside_the_bins_fills_none(kernel) -> None:
    for start in (3000.0, 9000.0):
        wavelength = start + np.arange(20.0)
        ones = np.ones(20, np.float32)
        found = resample(kernel, (ones, ones, wavelength, np.ones(20, bool)), log_edges((4000, 5000), 30))
        assert (found["first"], found["end"]) == (0, 0)
        assert not any(found[name].any() for name in ("flux", "ivar", "good", "share"))


@PROPERTY
@given(spectra(st.floats(-1e6, 1e6, width=32)), edge_grids())
def test_centres_lie_on_the_line_between_two_good_pixels(spectrum, edges) -> None:
    flux, ivar, wavelength, good = spectrum
    found = resample(to_centres, spectrum, edges)
    centres = np.sqrt(edges[:-1] * edges[1:])
    inside = (centres >= wavelength[0]) & (centres <= wavelength[-1])
    before = np.clip(np.searchsorted(wavelength, centres, "left") - 1, 0, len(flux) - 2)
    known = inside & good[before] & good[before + 1]
    t = (centres - wavelength[before]) / (wavelength[before + 1] - wavelength[before])
    variance = (1 - t) ** 2 / ivar[before].astype(np.float64) + t**2 / ivar[before + 1]
    np.testing.assert_array_equal(found["good"], known)
    np.testing.assert_array_equal(found["share"], known)
    expected = np.where(known, np.interp(centres, wavelength, flux), 0)
    np.testing.assert_allclose(found["flux"], expected, rtol=1e-6, atol=1e-7 * np.abs(flux).max())
    np.testing.assert_allclose(found["ivar"], np.where(known, 1 / variance, 0), rtol=1e-6)
    covered = np.flatnonzero(inside)
    assert (found["first"], found["end"]) == ((covered[0], covered[-1] + 1) if len(covered) else (0, 0))


@PROPERTY
@given(spectra(), st.integers(1, 300))
def test_stretch_is_the_interpolation_of_numpy(spectrum, count: int) -> None:
    flux, _, wavelength, _ = spectrum
    out = np.full(count, np.nan, np.float32)
    stretch(flux, wavelength, out)
    at = np.linspace(wavelength[0], wavelength[-1], count)
    np.testing.assert_array_equal(out, np.interp(at, wavelength, flux).astype(np.float32))


def test_stretch_of_real_spectra_is_the_interpolation_of_numpy(real) -> None:
    for flux, _, wavelength, _ in real:
        for count in (5476, 1000):
            out = np.empty(count, np.float32)
            stretch(flux, wavelength, out)
            at = np.linspace(wavelength[0], wavelength[-1], count)
            np.testing.assert_array_equal(out, np.interp(at, wavelength, flux).astype(np.float32))


def test_log_edges_are_even_in_log_wavelength_and_reach_both_ends() -> None:
    edges = log_edges((3536.7, 10413.6), 5476)
    assert len(edges) == 5477 and (edges[0], edges[-1]) == (3536.7, 10413.6)
    np.testing.assert_allclose(np.diff(np.log(edges)), np.log(10413.6 / 3536.7) / 5476, rtol=1e-9)

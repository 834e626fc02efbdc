"""Derivatives, lines, S/N and regions of a spectrum, each against a plain numpy version of what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from specshards.render.features import (
    SAVGOL,
    gradient,
    regions,
    residual,
    rolling_median,
    signal_to_noise,
    significance,
    smooth,
)
from tests.oracles.kernel_spectra import PROPERTY, awkward, finite, noisy, read_real, scratch, spectra


@pytest.fixture(scope="module")
def real(real_data: Path):
    return read_real(real_data)


def derivative(values: np.ndarray, wavelength: np.ndarray) -> np.ndarray:
    out = np.full(len(values), np.nan, np.float32)
    gradient(values, wavelength, out)
    return out


def check_gradient(values: np.ndarray, wavelength: np.ndarray) -> None:
    found = derivative(values, wavelength)
    expected = np.gradient(values.astype(np.float64), wavelength).astype(np.float32)
    level = np.zeros(len(values), bool)
    level[1:-1] = (values[:-2] == values[1:-1]) & (values[1:-1] == values[2:])
    np.testing.assert_array_equal(found[~level], expected[~level])
    assert not found[level].any()


@PROPERTY
@given(spectra(st.floats(-1e6, 1e6, width=32) | st.sampled_from([0.0, 7.1])))
def test_gradient_equals_that_of_numpy(spectrum) -> None:
    flux, _, wavelength, _ = spectrum
    # On an exactly even grid numpy takes a shorter formula, which rounds otherwise.
    steps = np.diff(wavelength)
    if len(flux) > 2 and (steps == steps[0]).all():
        wavelength[-1] += 1
    check_gradient(flux, wavelength)


def test_first_and_second_derivatives_of_real_spectra_equal_those_of_numpy(real) -> None:
    for flux, _, wavelength, _ in real:
        if not np.ptp(np.diff(wavelength)):
            continue
        check_gradient(flux, wavelength)
        check_gradient(derivative(flux, wavelength), wavelength)


def test_gradient_of_an_even_grid_and_of_a_constant() -> None:
    wavelength = 4000 + np.arange(100.0)
    np.testing.assert_allclose(derivative(wavelength.astype(np.float32) * 3, wavelength), 3, rtol=1e-6)
    uneven = wavelength + 0.3 * np.sin(wavelength)
    assert not derivative(np.full(100, 0.7, np.float32), uneven).any()


@PROPERTY
@given(spectra(finite | awkward))
def test_derivatives_are_finite(spectrum) -> None:
    flux, _, wavelength, _ = spectrum
    first = derivative(flux, wavelength)
    assert np.isfinite(first).all() and np.isfinite(derivative(first, wavelength)).all()


@PROPERTY
@given(spectra(finite | awkward))
def test_signal_to_noise_codes(spectrum) -> None:
    flux, ivar, _, good = spectrum
    out = np.full(len(flux), 77, np.uint8)
    signal_to_noise(flux, ivar, good, out)
    with np.errstate(over="ignore"):
        ratio = np.clip(flux * np.sqrt(ivar), np.float32(0), np.float32(100))
    expected = np.trunc(np.float32(25.5) * np.sqrt(ratio)).astype(np.uint8)
    np.testing.assert_array_equal(out, np.where(good, expected, 0))


def test_signal_to_noise_of_round_numbers() -> None:
    out = np.empty(6, np.uint8)
    flux = np.array([1, 10, 100, 1e9, -5, np.nan], np.float32)
    signal_to_noise(flux, np.ones(6, np.float32), np.array([True] * 5 + [False]), out)
    assert out.tolist() == [25, 80, 255, 255, 0, 0]


def line_residual(flux: np.ndarray, wavelength: np.ndarray, good: np.ndarray, width: float) -> np.ndarray:
    out = np.full(len(flux), np.nan, np.float32)
    residual(flux, good, wavelength, width, out, *scratch(len(flux)))
    return out


def means(flux, wavelength, used, width: float, least: np.ndarray | float):
    """Continuum, and how many pixels each window had."""
    near = (wavelength >= wavelength[:, None] - width / 2) & (wavelength <= wavelength[:, None] + width / 2) & used
    count, at = near.sum(axis=1), np.arange(len(flux))
    some = count >= np.maximum(least, 1)
    mean = [flux[row].astype(np.float64).mean() for row in near[some]]
    return np.interp(at, at[some], mean), count


def residual_by_loops(flux, wavelength, good, width: float) -> np.ndarray:
    continuum, count = means(flux, wavelength, good, width, 1)
    first = (flux - continuum).astype(np.float32)
    sigma = 1.4826 * np.median(np.abs(first[good]).astype(np.float64))
    close = np.abs(first) <= 3 * sigma
    return flux - means(flux, wavelength, good & close, width, 0.25 * count)[0]


def test_residual_equals_two_rounds_of_means(real) -> None:
    spectra = [noisy(seed=seed) for seed in range(5)] + [tuple(x[:700].copy() for x in s) for s in real[:8]]
    for flux, _, wavelength, good in spectra:
        if good.sum() < 10:
            continue
        for width in (5.0, 200.0, 1e5):
            found = line_residual(flux, wavelength, good, width)
            scale = np.abs(flux).max()
            expected = residual_by_loops(flux, wavelength, good, width)
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * scale)


@pytest.mark.parametrize("height", [10, -40, 400])
def test_a_line_does_not_drag_its_continuum(height: float) -> None:
    wavelength = 10 ** (3.6 + 1e-4 * np.arange(1500))
    line = height * np.exp(-0.5 * ((np.arange(1500) - 700) / 8) ** 2)
    noise = np.random.default_rng(1).normal(0, 1, 1500)
    good = np.ones(1500, bool)
    found = line_residual((50 + line + noise).astype(np.float32), wavelength, good, 200.0)
    shift = (found - line - noise).reshape(-1, 20).mean(axis=1)  # one mean, not clipped: -37 beside the highest line
    assert np.abs(shift).max() < 2.5
    exact = line_residual((50 + line).astype(np.float32), wavelength, good, 200.0)
    np.testing.assert_allclose(exact, line, atol=1e-3)


@PROPERTY
@given(spectra(st.floats(2.0**-20, 2.0**20, width=32)), st.integers(-30, 30), st.floats(1, 500))
def test_residual_scales_with_flux(spectrum, power: int, width: float) -> None:
    flux, _, wavelength, good = spectrum
    found = line_residual(flux, wavelength, good, width)
    np.testing.assert_array_equal(
        line_residual(flux * np.float32(2.0**power), wavelength, good, width), found * 2.0**power
    )


@PROPERTY
@given(spectra(), finite, st.floats(1, 500))
def test_residual_of_a_constant_is_zero(spectrum, value: float, width: float) -> None:
    flux, _, wavelength, good = spectrum
    assert not line_residual(np.full(len(flux), value, np.float32), wavelength, good, width).any()


@PROPERTY
@given(spectra(finite | awkward), st.floats(1, 500), st.floats(100, 50000), st.booleans(), finite)
def test_bad_pixels_do_not_reach_lines_and_all_is_finite(spectrum, width, kms, has_ivar: bool, value: float) -> None:
    flux, ivar, wavelength, good = spectrum
    results = []
    for filled in (flux, np.where(good, flux, np.float32(value))):
        lines = line_residual(filled, wavelength, good, width)
        assert np.isfinite(lines).all()
        codes = np.zeros(len(flux), np.uint8)
        noise = np.where(good, ivar, np.float32(np.nan))
        significance(lines, noise, good, wavelength, kms, has_ivar, codes, *scratch(len(flux)))
        assert codes.min() >= 1
        results.append((lines[good], codes))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


def significance_by_loops(lines, ivar, good, wavelength, kms: float, has_ivar: bool) -> np.ndarray:
    """Codes before they are rounded."""
    values = lines.astype(np.float64)
    if not has_ivar:
        middle = np.median(values[good])
        ivar = np.full(len(lines), 1 / (1.4826 * np.median(np.abs(values[good] - middle))) ** 2)
    codes = np.full(len(lines), 128.0)
    for i, centre in enumerate(wavelength):
        reach = centre * kms / 2 / 299792.458
        near = good & (wavelength >= centre - reach) & (wavelength <= centre + reach)
        if near.any():
            weights = ivar[near].astype(np.float64)
            sigmas = (values[near] * weights).sum() / np.sqrt(weights.sum())
            codes[i] += np.clip(127 * np.arcsinh(sigmas / 2) / np.arcsinh(25), -127, 127)
    return codes


@pytest.mark.parametrize("has_ivar", [True, False])
def test_significance_equals_plain_sums(real, has_ivar: bool) -> None:
    spectra = [noisy(seed=seed) for seed in range(5)] + [tuple(x[500:1200].copy() for x in s) for s in real[:8]]
    for flux, ivar, wavelength, good in spectra:
        if good.sum() < 50:
            continue
        lines = line_residual(flux, wavelength, good, 200.0)
        out = np.zeros(len(flux), np.uint8)
        for kms in (10.0, 500.0, 5000.0):
            significance(lines, ivar, good, wavelength, kms, has_ivar, out, *scratch(len(flux)))
            expected = significance_by_loops(lines, ivar, good, wavelength, kms, has_ivar)
            assert np.abs(out - expected).max() < 0.501


def test_significance_of_round_numbers() -> None:
    wavelength = 5000 + 5.0 * np.arange(200)
    lines = np.zeros(200, np.float32)
    lines[[20, 40, 60, 80, 100]] = [2, -2, 50, -50, 1e30]
    good = np.ones(200, bool)
    good[150:160] = False
    lines[155] = 1e9
    out = np.zeros(200, np.uint8)
    arguments = (np.ones(200, np.float32), good, wavelength, 100.0)
    significance(lines, *arguments, True, out, *scratch(200))
    one = round(127 * np.arcsinh(1) / np.arcsinh(25))
    assert out[[20, 40, 60, 80, 100]].tolist() == [128 + one, 128 - one, 255, 1, 255]
    assert (out[101:] == 128).all()
    significance(np.zeros(200, np.float32), *arguments, False, out, *scratch(200))
    assert (out == 128).all()


# Regions of interest


def smooth_by_fits(flux: np.ndarray) -> np.ndarray:
    at, n = np.arange(25) - 12.0, len(flux)
    out = np.empty(n)
    for i in range(n):
        start = min(max(i - 12, 0), n - 25)
        cubic = np.polynomial.Polynomial.fit(at, flux[start : start + 25].astype(np.float64), 3)
        out[i] = cubic(at[i - start])
    return out


def median_by_loops(values: np.ndarray) -> np.ndarray:
    out = np.full(len(values), np.nan)
    for i in range(25, len(values) - 24):
        out[i] = np.median(values[i - 25 : i + 25])
    return out


def regions_by_loops(flux, wavelength, threshold: float, in_sigma: bool) -> np.ndarray:
    flags = np.zeros(len(flux), bool)
    if len(flux) < 50:
        return flags
    smoothed = smooth_by_fits(flux)
    median = median_by_loops(smoothed)
    deviation = smoothed - median
    if in_sigma:
        known = deviation[np.isfinite(deviation)]
        threshold *= 1.4826 * np.median(np.abs(known - np.median(known)))
    significant = np.concatenate([[False], np.abs(deviation) > threshold, [False]])
    change = np.flatnonzero(np.diff(significant.astype(int)))
    runs = []
    for start, end in change.reshape(-1, 2):
        height = deviation[start:end] / median[start:end]
        width = 0.5 * ((height[1:] + height[:-1]) * np.diff(wavelength[start:end])).sum()
        runs.append((abs(width), start, end))
    for _, start, end in sorted(runs, key=lambda run: -run[0])[:50]:
        flags[start:end] = True
    return flags


def found_regions(flux, wavelength, threshold: float, in_sigma: bool) -> np.ndarray:
    out = np.ones(len(flux), bool)
    regions(flux, wavelength, threshold, in_sigma, out, *scratch(len(flux)))
    return out


def test_smoothing_equals_a_cubic_fitted_to_each_window(real) -> None:
    for flux in (noisy()[0], noisy(25)[0], real[0][0][:500]):
        out = np.full(len(flux), np.nan)
        smooth(flux, out)
        np.testing.assert_allclose(out, smooth_by_fits(flux), rtol=1e-9, atol=1e-9 * np.abs(flux).max())


def test_the_weights_of_the_filter_are_the_published_whole_numbers() -> None:
    """Savitzky & Golay (1964), table I, 25 points, cubic: the same bits on every machine, whatever its BLAS."""
    half = [467, 462, 447, 422, 387, 342, 287, 222, 147, 62, -33, -138, -253]
    assert SAVGOL[12].tolist() == [value / 5175 for value in (*half[:0:-1], *half)]
    assert np.allclose(SAVGOL @ SAVGOL, SAVGOL, atol=1e-15)  # a projection
    assert np.allclose(SAVGOL @ np.arange(25.0) ** 3, np.arange(25.0) ** 3)


@PROPERTY
@given(hnp.arrays(np.float64, st.integers(50, 130), elements=finite | st.sampled_from([0.0, 1.0, 2.0])))
def test_rolling_median_equals_that_of_each_window(values) -> None:
    out = np.full(len(values), np.nan)
    rolling_median(values, np.empty(50), out)
    np.testing.assert_allclose(out, median_by_loops(values), rtol=1e-12)


@pytest.mark.parametrize(("threshold", "in_sigma"), [(1.5, False), (0.01, False), (3.0, True), (0.5, True)])
def test_regions_equal_the_published_steps(real, threshold: float, in_sigma: bool) -> None:
    spectra = [noisy(), noisy(50), noisy(51), noisy(49), noisy(10), noisy(2500, seed=2), *real[:3]]
    for flux, _, wavelength, _ in spectra:
        expected = regions_by_loops(flux, wavelength, threshold, in_sigma)
        np.testing.assert_array_equal(found_regions(flux, wavelength, threshold, in_sigma), expected)


def test_at_most_fifty_regions_and_the_widest_stay() -> None:
    flux, _, wavelength, _ = noisy(2500, seed=2)
    flags = found_regions(flux, wavelength, 0.05, False)
    starts = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int)])) == 1)
    assert len(starts) == 50
    assert flags[750] and flags[1750]


def test_a_constant_has_no_regions_and_a_continuum_of_zero_does_no_harm() -> None:
    wavelength = 4000 + np.arange(3000.0)
    for value in (0.0, 0.7):
        for in_sigma in (False, True):
            assert not found_regions(np.full(3000, value, np.float32), wavelength, 1e-6, in_sigma).any()
    spikes = np.zeros(3000, np.float32)
    spikes[100::40] = 5
    assert found_regions(spikes, wavelength, 0.1, False).any()
    assert found_regions(np.where(spikes > 0, np.float32(3e38), np.float32(0)), wavelength, 0.1, True).any()

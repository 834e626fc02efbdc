"""The simple methods that a tokenizer is compared with, against plain versions of what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import median_filter

from specshards.common.errors import UsageError
from specshards.shards.loader.batch import Stack
from specshards.train.models.tokenizer.pixels import scaled
from specshards.train.tokenizer.baselines import Constant, Principal, RunningMedian, decompose, fill, running_median
from tests.oracles.curves import curves, some_spectra, stack_of

pytestmark = pytest.mark.usefixtures("one_thread")


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 90), st.sampled_from([1, 3, 5, 15, 51]), st.integers(0, 1000))
def test_the_running_median_is_that_of_scipy(n: int, window: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=n)
    size = window if window <= n else n - (n % 2 == 0)
    np.testing.assert_array_equal(running_median(values, window), median_filter(values, size=size, mode="reflect"))


def test_the_median_goes_straight_through_what_it_does_not_see() -> None:
    batch = some_spectra()
    line = 3 * batch["wavelength"] - 11_000
    unseen = (batch["ivar"] == 0) | (torch.arange(320) // 32 % 3 == 1)
    rough = torch.where(unseen, torch.tensor(1e9), line)
    batch = Stack(
        flux=rough, ivar=torch.where(unseen, 0, 1.0), wavelength=batch["wavelength"], length=batch["length"]
    )
    drawn = RunningMedian(5)(batch)
    inside = slice(10, 310)  # the ends are mirrored
    np.testing.assert_allclose(drawn[:, inside], line[:, inside], rtol=2e-4)
    assert drawn.abs().max() < 1e5


def test_the_constant_is_the_weighted_mean() -> None:
    batch = some_spectra()
    flux, ivar = batch["flux"].double().numpy(), batch["ivar"].double().numpy()
    expected = (flux * ivar).sum(axis=1) / ivar.sum(axis=1)
    np.testing.assert_allclose(Constant(0.0)(batch), np.repeat(expected[:, None], 320, axis=1), rtol=1e-5)
    scale = scaled(batch["flux"], batch["ivar"]).scale.double().numpy()
    weight = np.where(ivar > 0, 1 / (1 / np.where(ivar > 0, ivar, 1) + (0.3 * scale) ** 2), 0)
    np.testing.assert_allclose(
        Constant(0.3)(batch)[:, 0], (flux * weight).sum(axis=1) / weight.sum(axis=1), rtol=1e-5
    )


@pytest.mark.parametrize("shape", [(20, 70), (70, 20)])
def test_components_of_complete_data_are_those_of_the_singular_values(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    flux = rng.normal(size=shape) * np.linspace(3, 1, shape[1]) + 5
    share = np.full(len(flux), 1 / len(flux))
    before = flux.copy()
    fill(flux, np.ones(shape, bool), np.ones(len(flux)))
    assert (flux == before).all()
    mean, components, variance = decompose(flux, share, 8)
    _, singular, rows = np.linalg.svd(flux - flux.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(mean, flux.mean(axis=0))
    np.testing.assert_allclose(variance, singular[:8] ** 2 / (len(flux) - 1))
    np.testing.assert_allclose(np.abs((components * rows[:8]).sum(axis=1)), 1)
    assert len(decompose(flux, share, 1000)[2]) == min(shape[0] - 1, shape[1])
    uneven = rng.dirichlet(np.ones(len(flux)))
    values = np.linalg.eigvalsh(np.cov(flux.T, aweights=uneven, ddof=0))[::-1] * len(flux) / (len(flux) - 1)
    np.testing.assert_allclose(decompose(flux, uneven, 8)[2], values[:8])


def test_same_spectra_have_no_component_and_are_drawn_as_their_mean() -> None:
    batch = stack_of(np.tile(np.linspace(1, 2, 64), (5, 1)), 0.1)
    same = Principal.learn(lambda: [batch], 8, 0.0)
    assert len(same.variance) == 0
    np.testing.assert_allclose(same(batch), batch["flux"], rtol=1e-5)
    with pytest.raises(UsageError, match="no train spectrum has a good pixel"):
        Principal.learn(lambda: [stack_of(np.ones((2, 64)), 1.0, bad=True)], 8, 0.0)


def test_missing_bins_are_filled_from_what_the_others_say() -> None:
    rng = np.random.default_rng(4)
    truth = curves(rng, 120, 300)
    good = rng.random(truth.shape) < 0.8
    good[:40, 200:], good[40:60, :80] = False, False
    good[:, 150] = False
    flux = np.where(good, truth, 1e6)
    fill(flux, good, np.full(120, 1e-4))
    known = good.any(axis=0)
    wrong, by_mean = flux - truth, np.where(good, 0, truth.mean(axis=0) - truth)
    assert (flux[good] == truth[good]).all()
    assert np.abs(wrong[:, known]).mean() < 0.05 * np.abs(by_mean[:, known]).mean()
    assert np.abs(wrong[:, 150]).max() < 0.5


def test_coefficients_are_those_of_regularised_least_squares_on_the_seen_pixels() -> None:
    """Off the grid of the bins, with other errors at every pixel; against least squares of an augmented system."""
    rng = np.random.default_rng(5)
    train = stack_of(curves(rng, 60, 480) + rng.normal(0, 0.02, (60, 480)), 0.02)
    found = Principal.learn(lambda: [train], 9, 0.0)
    assert len(found.variance) == 9 and len(found.mean) == 480 and found.missing == 0
    n = 300
    wavelength = 10 ** (3.6031 + 1.37e-4 * np.arange(n))
    weight = np.where(rng.random(n) < 0.3, 0, rng.uniform(1, 1e4, n))
    flux = curves(rng, 1, n, 3.6031, 1.37e-4)[0] + rng.normal(0, 0.05, n)
    centre = np.log(np.sqrt(found.edges[1:] * found.edges[:-1]))
    rows = [np.interp(np.log(wavelength), centre, row) for row in (found.mean, *found.components)]
    mean, basis = rows[0], np.stack(rows[1:])
    left = np.concatenate([(basis * np.sqrt(weight)).T, np.diag(found.variance**-0.5)])
    right = np.concatenate([np.sqrt(weight) * (flux - mean), np.zeros(9)])
    expected = mean + np.linalg.lstsq(left, right)[0] @ basis
    np.testing.assert_allclose(found.draw(flux, weight, wavelength), expected, rtol=1e-6)
    beyond = np.concatenate([wavelength, [2e5]])
    more = found.draw(np.append(flux, 1e9), np.append(weight, 1.0), beyond)
    np.testing.assert_allclose(more[:-1], expected, rtol=1e-6)


def test_one_grid_for_surveys_that_see_other_wavelengths() -> None:
    rng = np.random.default_rng(6)
    blue = stack_of(curves(rng, 80, 320), 0.01)
    red = stack_of(curves(rng, 80, 320, 3.62), 0.01, start=3.62)
    faint = stack_of(curves(rng, 80, 320) + rng.normal(0, 3, (80, 320)), 3.0)
    wide = stack_of(curves(rng, 80, 512), 0.01)
    both = Principal.learn(lambda: iter([blue, red, faint, wide]), 6, 0.0)
    assert len(both.mean) == 520 and both.objects == 320
    assert both.missing == pytest.approx((3 * 200 + 8) / (4 * 520), abs=1e-3)
    np.testing.assert_allclose(np.log10(both.edges[[0, -1]]), [3.59995, 3.65195], atol=1e-6)
    whole = stack_of(curves(rng, 50, 512), 0.01)
    half = Stack(flux=whole["flux"], ivar=whole["ivar"] * (torch.arange(512) < 320), wavelength=whole["wavelength"],
                 length=whole["length"])  # fmt: skip
    scale = scaled(half["flux"], half["ivar"]).scale
    error = ((both(half) - whole["flux"])[:, 320:] / scale).abs()
    by_mean = (torch.from_numpy(both.mean[320:512]) * scale - whole["flux"][:, 320:]).abs() / scale
    assert error.mean() < 0.5 * by_mean.mean()

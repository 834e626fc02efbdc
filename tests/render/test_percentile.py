"""Percentiles and scatter of the good pixels, against those of numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specshards.render.percentile import percentiles, scatter
from tests.oracles.kernel_spectra import PROPERTY, awkward, finite, read_real, spectra


@pytest.fixture(scope="module")
def real(real_data: Path):
    return read_real(real_data)


@PROPERTY
@given(spectra(finite | awkward, smallest=1), st.floats(0, 100), st.floats(0, 100))
def test_percentiles_equal_those_of_numpy(spectrum, low: float, high: float) -> None:
    flux, _, _, good = spectrum
    keys = np.full(len(flux) + 3, 99, np.uint32)
    for pair in ((low, high), (0.5, 99.5), (0, 100), (50, 50)):
        assert percentiles(flux, good, *pair, keys) == tuple(np.percentile(flux[good].astype(np.float64), pair))


def test_percentiles_of_real_spectra_equal_those_of_numpy(real) -> None:
    for flux, _, _, good in real:
        keys = np.empty(len(flux), np.uint32)
        for pair in ((0.5, 99.5), (2.0, 98.0), (50.0, 16.0)):
            assert percentiles(flux, good, *pair, keys) == tuple(np.percentile(flux[good].astype(np.float64), pair))


def test_bad_pixels_have_no_rank_and_zero_has_no_sign() -> None:
    flux = np.array([np.nan, -0.0, np.inf, 0.0, -0.0, -np.inf], np.float32)
    good = np.array([False, True, False, True, True, False])
    for value in percentiles(flux, good, 0, 100, np.empty(6, np.uint32)):
        assert value == 0 and not np.signbit(value)


@PROPERTY
@given(spectra(st.floats(-1e6, 1e6, width=32)))
def test_scatter_is_the_scaled_median_absolute_deviation(spectrum) -> None:
    flux, _, _, good = spectrum
    values = flux[good].astype(np.float64)
    expected = 1.4826 * np.median(np.abs(values - np.median(values)))
    found = scatter(flux, good, np.empty((2, len(flux)), np.uint32))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6 * np.abs(values).max())

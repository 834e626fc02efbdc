"""Close pairs and groups on the sky against every pair measured, everywhere on the sphere."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from specshards.common import sky
from specshards.common.sky import close_pairs, groups

Floats = npt.NDArray[np.float64]


def haversine(ra: Floats, dec: Floats) -> Floats:
    """All separations in arcseconds, `(n, n)`, by the formula that keeps small angles exact."""
    ra, dec = np.radians(ra), np.radians(dec)
    half = np.sin((dec[:, None] - dec) / 2) ** 2
    half += np.cos(dec[:, None]) * np.cos(dec) * np.sin((ra[:, None] - ra) / 2) ** 2
    return np.degrees(2 * np.arcsin(np.sqrt(np.clip(half, 0, 1)))) * 3600


@st.composite
def fields(draw: st.DrawFn) -> tuple[Floats, Floats, float]:
    """Objects of a few radii's spread round one place, poles and right ascension 0 among them, and a radius."""
    radius = draw(st.sampled_from([0.05, 1.0, 3.0, 60.0, 3600.0]))
    ra0 = draw(st.sampled_from([0.0, 359.9999, 180.0]) | st.floats(0, 360))
    dec0 = draw(st.sampled_from([90.0, -90.0, 89.9999, 0.0]) | st.floats(-90, 90))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    n, spread = draw(st.integers(0, 40)), draw(st.floats(0.1, 5)) * radius / 3600
    dec = np.clip(dec0 + rng.uniform(-spread, spread, n), -90, 90)
    ra = (ra0 + rng.uniform(-spread, spread, n) / np.maximum(np.cos(np.radians(dec)), 1e-3)) % 360
    return ra, dec, radius


@settings(deadline=None)  # the first example imports scipy
@given(fields())
@example((np.array([0.0, 120.0, 240.0]), np.array([89.9999, 89.9999, 89.9999]), 1.0))
@example((np.array([359.9999, 0.0001]), np.array([0.0, 0.0]), 1.0))
def test_close_pairs_are_those_of_every_pair_measured(field: tuple[Floats, Floats, float]) -> None:
    ra, dec, radius = field
    apart = haversine(ra, dec)
    i, j = close_pairs(ra, dec, radius)
    assert i.dtype == j.dtype == np.int64 and np.all(i < j)
    found = set(zip(i.tolist(), j.tolist(), strict=True))
    assert len(found) == len(i) and sorted(found) == list(zip(i.tolist(), j.tolist(), strict=True))
    # A pair exactly at the radius may fall either way by rounding.
    upper = np.triu(np.ones_like(apart, bool), 1)
    surely, perhaps = (
        set(zip(*np.nonzero(upper & (apart <= radius * f)), strict=True)) for f in (1 - 1e-6, 1 + 1e-6)
    )
    assert surely <= found <= perhaps


def test_whole_sky_and_an_object_without_a_position() -> None:
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(0, 360, 50), np.degrees(np.arcsin(rng.uniform(-1, 1, 50)))
    ra[7] = np.nan
    i, j = close_pairs(ra, dec, 648_000)
    assert len(i) == 49 * 48 // 2 and 7 not in i and 7 not in j


@pytest.mark.parametrize("band", [1, 3, 64])
def test_pieces_of_any_size_give_the_same_pairs(monkeypatch: pytest.MonkeyPatch, band: int) -> None:
    rng = np.random.default_rng(4)
    ra, dec = rng.uniform(10, 10.01, 300), rng.uniform(-0.005, 0.005, 300)
    expected = close_pairs(ra, dec, 3.0)
    monkeypatch.setattr(sky, "_BAND", band)
    again = close_pairs(ra, dec, 3.0)
    assert len(expected[0]) > 50
    np.testing.assert_array_equal(np.stack(again), np.stack(expected))


@settings(deadline=None)  # the first example imports scipy
@given(fields())
@example((np.array([10.0, 10.0, np.nan, 10.0, 50.0]), np.array([0.0, 1e-4, 0.0, 2e-4, 0.0]), 0.5))
def test_a_group_is_a_chain_of_pairs_and_bears_its_lowest_place(field: tuple[Floats, Floats, float]) -> None:
    ra, dec, radius = field
    lowest = list(range(len(ra)))
    pairs = list(zip(*(part.tolist() for part in close_pairs(ra, dec, radius)), strict=True))
    for _ in ra:  # a label goes at least one step along a chain each time
        for i, j in pairs:
            lowest[i] = lowest[j] = min(lowest[i], lowest[j])
    assert groups(ra, dec, radius).tolist() == lowest

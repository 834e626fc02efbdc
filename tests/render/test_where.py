"""A bright pixel of a spectrum lights the places of its picture that show its wavelength, and no others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from specshards.render import ImageConfig, RenderError, renderer
from specshards.render.config import CHANNEL_SETS

WINDOWS = [(3536.7, 10413.6), (4000.0, 5000.0), (5000.0, 9000.0)]
HAVE_FLUX = [CHANNEL_SETS[name] for name in ("flux", "red", "derivatives", "roi", "quality")]

maps = st.builds(
    lambda shape, order, **rest: ImageConfig(
        size=shape[0], block=shape[1], order=order if shape[0] % 16 == 0 and 16 % shape[1] == 0 else "rows",
        colormap="gray", **rest,
    ),
    st.sampled_from([(64, 1), (64, 2), (80, 4), (100, 3), (224, 3), (224, 2)]),
    st.sampled_from(["rows", "boustrophedon", "patch"]),
    window=st.sampled_from(WINDOWS), grid=st.sampled_from(["native", "stretch", "log"]),
    resample=st.sampled_from(["flux", "linear"]), channels=st.sampled_from(HAVE_FLUX),
)  # fmt: skip
line_pictures = st.builds(
    ImageConfig, image=st.sampled_from(["simple", "overlap"]), size=st.sampled_from([48, 100, 224]),
    window=st.sampled_from(WINDOWS), line_width=st.sampled_from([0.7, 2.0]),
)  # fmt: skip

published_lines = st.builds(
    ImageConfig, image=st.sampled_from(["simple", "overlap"]), size=st.sampled_from([48, 100, 224]),
    window=st.sampled_from(WINDOWS), line_width=st.sampled_from([0.7, 2.0]), axis=st.just("spectrum"),
    bad_pixels=st.sampled_from(["skip", "draw"]),
)  # fmt: skip


@st.composite
def impulses(draw: st.DrawFn, pictures: st.SearchStrategy[ImageConfig]):
    """A configuration, wavelengths as a survey has them, which pixel is bright, and those in the window, in order."""
    config = draw(pictures)
    low, high = config.window
    n = draw(st.integers(12, 250))
    start = low + (high - low) * draw(st.floats(-0.3, 0.6))
    wavelength = start + (high - low) * draw(st.floats(0.05, 1.5)) * np.arange(n) / n
    if draw(st.booleans()):
        wavelength = start * (wavelength[-1] / start) ** (np.arange(n) / (n - 1))
    inside = wavelength[(wavelength >= low) & (wavelength <= high)]
    assume(len(inside) >= 8)
    bright = inside[draw(st.integers(3, len(inside) - 4))]
    if draw(st.booleans()):
        wavelength = wavelength[::-1].copy()
    if draw(st.booleans()):
        wavelength = np.append(wavelength, [-1.0, -1.0])
    return config, wavelength, float(bright), inside


def drawn(config: ImageConfig, wavelength: np.ndarray, bright: float) -> np.ndarray:
    flux = np.where(wavelength == bright, np.float32(100), np.float32(0)).astype(np.float32)
    drawer = renderer(config)
    return drawer.expand(drawer.codes(flux, None, wavelength, None))


#: Of the bin at 6995 Angstrom only a third is covered: by the pixels from 6999.
HALF_EMPTY = (
    ImageConfig(size=80, block=4, grid="log", resample="flux", window=(5000.0, 9000.0), colormap="gray"),
    7000 + 2.0 * np.arange(200), 7006.0, 7000 + 2.0 * np.arange(200),
)  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(impulses(maps))
@example(HALF_EMPTY)
def test_a_cell_of_a_map_shows_its_wavelength(case) -> None:
    config, wavelength, bright, inside = case
    there = renderer(config).wavelengths(wavelength)
    assert there.shape == (1, config.size, config.size) and there.dtype == np.float64
    lit = drawn(config, wavelength, bright)[..., 0] > 0
    found = there[0][lit]
    before, after = (inside[np.searchsorted(inside, bright) + step] for step in (-1, 1))
    if config.grid == "native":
        assert (found == bright).all() and len(found) == config.block**2
        return
    half_bin = 1.0
    if config.grid == "log" and config.resample == "flux":
        half_bin = (config.window[1] / config.window[0]) ** (0.5 / config.cells**2)
        found = without_end_gaps(found, inside, half_bin)
        before, after = (before + bright) / 2, (after + bright) / 2  # the pixel itself
    slack = 1e-9 * bright
    assert ((found * half_bin >= before - slack) & (found / half_bin <= after + slack)).all()
    shown = np.unique(there[np.isfinite(there)])
    if np.abs(shown - bright).min() < 0.25 * min(after - bright, bright - before):
        assert len(found) >= config.block**2


def without_end_gaps(found: np.ndarray, inside: np.ndarray, half_bin: float) -> np.ndarray:
    """The lit bins, but for those at the ends of the spectrum that it covers by half or less.

    Such a bin counts as a gap, like one of bad pixels, and shows what the next bin does (docs/images.md).
    """
    first, last = 1.5 * inside[0] - 0.5 * inside[1], 1.5 * inside[-1] - 0.5 * inside[-2]
    low, high = found / half_bin, found * half_bin
    covered = (np.minimum(high, last) - np.maximum(low, first)) / (high - low)
    is_gap = covered <= 0.5 + 1e-9
    step = np.where(low < first, half_bin**2, half_bin**-2)[is_gap]
    beside = np.abs(found[is_gap] * step - found[~is_gap][:, None]).min(axis=0, initial=np.inf)
    assert (beside < 1e-9 * found[is_gap]).all()
    return found[~is_gap]


@settings(max_examples=100, deadline=None)
@given(impulses(line_pictures))
def test_a_column_of_a_line_picture_shows_its_wavelength(case) -> None:
    config, wavelength, bright, inside = case
    parts = 3 if config.image == "overlap" else 1
    step = (config.window[1] - config.window[0]) / (parts * config.size)
    assume(inside[0] + 4 * step < bright < inside[-1] - 4 * step)
    there = renderer(config).wavelengths(wavelength)
    assert there.shape == (parts, config.size, config.size)
    upper = 255 - drawn(config, wavelength, bright)[: config.size // 2].astype(int)
    lit = upper.sum(axis=2) > 0
    before, after = (inside[np.searchsorted(inside, bright) + move] for move in (-1, 1))
    if not (np.abs(there - bright) <= step).any():
        assert not lit.any(), "its third has one pixel only, and no line"
        return
    part = 0
    if parts == 3:  # red ink takes no red from the paper, blue ink no blue
        red, green, blue = upper.sum(axis=(0, 1))
        part = 0 if red == 0 else 2 if blue == 0 else 1
        assert part != 1 or green < red
    # A pen reaches into columns beside those of the line.
    pen = 1.5 + config.line_width
    columns = np.flatnonzero(lit.any(axis=0))
    reached = np.flatnonzero(np.isfinite(there[part, 0]))
    assert np.abs(columns[:, None] - reached).min(axis=1).max() <= pen
    found = config.window[0] + (part * config.size + columns + 0.5) * step
    assert (found >= before - pen * step).all() and (found <= after + pen * step).all()
    np.testing.assert_allclose(
        there[part, 0, reached], config.window[0] + (part * config.size + reached + 0.5) * step
    )
    assert np.abs(found - bright).min() <= 1.5 * step


@settings(max_examples=100, deadline=None)
@given(impulses(published_lines))
def test_a_column_of_a_published_line_shows_its_wavelength(case) -> None:
    config, wavelength, bright, inside = case
    there = renderer(config).wavelengths(wavelength)
    lines = np.array_split(inside, 3 if config.image == "overlap" else 1)
    assert there.shape == (len(lines), config.size, config.size)
    np.testing.assert_array_equal(there[:, 0], there[:, -1])
    upper = 255 - drawn(config, wavelength, bright)[: config.size // 2].astype(int)
    columns, pen = np.flatnonzero(upper.any(axis=(0, 2))), 1.5 + config.line_width
    (k,) = (k for k, line in enumerate(lines) if bright in line)
    if len(lines[k]) < 2:
        assert not len(columns) and np.isnan(there[k]).all()
        return
    # As matplotlib places a pixel: 5% of the range free at both sides.
    x = config.size * (0.05 + (lines[k] - lines[k][0]) / np.ptp(lines[k])) / 1.1
    at = np.searchsorted(lines[k], bright)
    before, after = x[max(at - 1, 0)], x[min(at + 1, len(x) - 1)]
    assert columns.min() >= before - pen and columns.max() <= after + pen
    assert np.abs(columns + 0.5 - x[at]).min() <= 1.5
    for line, row in zip(lines, there[:, 0], strict=True):
        shown = np.flatnonzero(np.isfinite(row))
        if len(line) < 2:
            assert not len(shown)
            continue
        expected = line[0] + (1.1 * (shown + 0.5) / config.size - 0.05) * np.ptp(line)
        np.testing.assert_allclose(row[shown], expected)
        assert (shown[0], shown[-1]) == (int(config.size * 0.05 / 1.1), int(config.size * 1.05 / 1.1))


@pytest.mark.parametrize("image", ["simple", "overlap"])
def test_the_wavelengths_of_a_spectrum_whose_ends_are_not_finite(image: str) -> None:
    config, wavelength = ImageConfig(image=image, axis="spectrum"), np.linspace(4000, 9000, 3000)
    flux = np.zeros(3000, np.float32)
    flux[:300] = flux[1000:1100] = flux[2000:2050] = flux[-200:] = np.nan
    for pixel in (400, 1700, 2500):
        bright = np.where(np.arange(3000) == pixel, np.float32(100), flux)
        drawer = renderer(config)
        picture = drawer.expand(drawer.codes(bright, None, wavelength, None))
        columns = np.flatnonzero((picture[:112] < 255).any(axis=(0, 2)))
        there = drawer.wavelengths(wavelength, bright)[:, 0]
        part = pixel // 1000 if image == "overlap" else 0
        step = np.nanmedian(np.diff(there[part]))
        assert len(columns) and np.abs(there[part, columns] - wavelength[pixel]).max() < 3 * step
    low, high = np.nanmin(there, axis=1), np.nanmax(there, axis=1)
    firsts, lasts = ([300], [2799]) if image == "simple" else ([300, 1100, 2050], [999, 1999, 2799])
    np.testing.assert_allclose(low, wavelength[firsts], atol=step)
    np.testing.assert_allclose(high, wavelength[lasts], atol=step)
    # Of a picture whose columns are wavelengths, flux changes nothing.
    aligned = renderer(ImageConfig(image=image))
    np.testing.assert_array_equal(aligned.wavelengths(wavelength, flux), aligned.wavelengths(wavelength))


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(maps, line_pictures, published_lines),
    st.lists(st.floats(-10, 12000, width=32), min_size=0, max_size=30),
    st.booleans(),
)
def test_what_cannot_be_drawn_has_no_places_for_the_same_reason(config, values, sort) -> None:
    wavelength = np.array(sorted(set(values)) if sort else values, np.float64)
    flux = np.ones(len(wavelength), np.float32)
    try:
        renderer(config).codes(flux, None, wavelength, None)
    except RenderError as error:
        with pytest.raises(RenderError) as caught:
            renderer(config).wavelengths(wavelength)
        assert str(caught.value) == str(error)
    else:
        there = renderer(config).wavelengths(wavelength)
        assert np.isfinite(there).any() or config.image == "overlap"


def test_too_many_pixels_for_the_cells_are_refused() -> None:
    with pytest.raises(RenderError, match="do not fit 21 x 21 cells"):
        renderer(ImageConfig(size=64)).wavelengths(np.linspace(4000, 9000, 500))


def test_the_default_map_holds_the_pixels_row_by_row() -> None:
    wavelength = 10 ** (3.5682 + 1e-4 * np.arange(3909))
    inside = wavelength[wavelength >= 3536.7]
    there = renderer(ImageConfig()).wavelengths(wavelength)[0]
    cells = there[1:222:3, 1:222:3].ravel()
    np.testing.assert_array_equal(cells[: len(inside)], inside)
    assert np.isnan(cells[len(inside) :]).all() and np.isnan(there[222:]).all() and np.isnan(there[:, 222:]).all()


def test_a_patch_holds_one_piece_of_the_spectrum() -> None:
    config = ImageConfig(order="patch", block=2, grid="log")
    there = renderer(config).wavelengths(np.linspace(3500, 10500, 4000))[0]
    patches = there.reshape(14, 16, 14, 16).transpose(0, 2, 1, 3).reshape(196, 256)
    assert (patches.max(axis=1)[:-1] < patches.min(axis=1)[1:]).all()


def test_overlap_shows_a_wavelength_of_each_third() -> None:
    config = replace(ImageConfig(image="overlap"), size=100)
    there = renderer(config).wavelengths(np.linspace(5000, 9000, 2000))
    low, high = config.window
    for third in range(3):
        shown = there[third][np.isfinite(there[third])]
        assert low + third * (high - low) / 3 <= shown.min() and shown.max() <= low + (third + 1) * (high - low) / 3
    np.testing.assert_array_equal(there[:, 0], there[:, 57])
    assert there[np.isfinite(there)].min() == pytest.approx(5000, abs=35)
    assert there[np.isfinite(there)].max() == pytest.approx(9000, abs=35)

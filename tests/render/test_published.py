"""The preset `paper` against matplotlib's own figure of the same pixels, drawn as the published code draws them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specshards.benchmarks.kit.samples import made_up_galaxy, read_spectra
from specshards.benchmarks.peers.matplotlib_reference import draw
from specshards.common.spectrum import Arrays
from specshards.render import ImageConfig, RenderError, preset, renderer
from specshards.render.simple import line_table

LINES = ("simple", "overlap")
PAPER = {image: preset("paper", image) for image in (*LINES, "map2d")}
RNG = np.random.default_rng(4)


def figure(wavelength: np.ndarray, flux: np.ndarray, image: str) -> np.ndarray:
    """matplotlib's figure with nothing but its defaults: 2.24 inches, 0.5 points, no axes; (224, 224, 3)."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    inside = (wavelength > 3536.714) & (wavelength < 10413.58)
    wavelength, flux = wavelength[inside].astype(float), flux[inside].astype(float)
    plt.figure(figsize=(2.24, 2.24))
    if image == "simple":
        plt.plot(wavelength, flux, linewidth=0.5)
    else:
        parts = zip(np.array_split(wavelength, 3), np.array_split(flux, 3), ("red", "green", "blue"), strict=True)
        for x, y, colour in parts:
            if len(x) > 1:
                plt.plot((x - x.min()) / np.ptp(x), y, color=colour, linewidth=0.5, alpha=0.5)
    plt.axis("off")
    plt.tight_layout(pad=0)
    file = io.BytesIO()
    plt.savefig(file, format="png", dpi=100)
    plt.close()
    return np.asarray(Image.open(file).convert("RGB"))


def likeness(spectrum: Arrays, image: str, shown: Arrays | None = None) -> float:
    """Correlation of our picture and matplotlib's of the same spectrum, or of `shown` in its place."""
    drawer, there = renderer(PAPER[image]), shown or spectrum
    ours = drawer.expand(drawer.codes(*spectrum)).astype(float)
    return float(np.corrcoef(ours.ravel(), figure(there.wavelength, there.flux, image).astype(float).ravel())[0, 1])


def made(flux: np.ndarray, wavelength: np.ndarray) -> Arrays:
    n = len(flux)
    return Arrays(flux.astype(np.float32), np.ones(n, np.float32), wavelength.astype(float), np.zeros(n, bool))


@pytest.mark.parametrize("image", LINES)
def test_a_spectrum_spans_the_picture_as_in_matplotlib(image: str) -> None:
    galaxy = made_up_galaxy()
    assert likeness(galaxy, image) > 0.99
    # Half a spectrum fills the width all the same.
    half = Arrays(*(values[:1800] for values in galaxy))
    assert likeness(half, image) > 0.99
    beyond = made(np.tile(galaxy.flux, 2), np.linspace(2000, 15000, 2 * len(galaxy.flux)))
    assert likeness(beyond, image) > 0.99


def without(flux: np.ndarray, *places: slice) -> np.ndarray:
    """A copy that is not finite there."""
    flux = flux.copy()
    for place, value in zip(places, (np.nan, np.inf, -np.inf), strict=False):
        flux[place] = value
    return flux


#: Of 3909 pixels: ends of the spectrum, of all thirds, and a whole third.
NOT_FINITE = [
    (slice(0, 300),), (slice(-500, None),), (slice(0, 300), slice(-500, None)), (slice(0, 1303),),
    (slice(0, 300), slice(1303, 1500), slice(2606, 2900)), (slice(1200, 1303), slice(2400, 2606), slice(-300, None)),
]  # fmt: skip


@pytest.mark.parametrize("image", LINES)
@pytest.mark.parametrize("places", NOT_FINITE)
def test_ends_that_are_not_finite_set_no_limit(image: str, places: tuple[slice, ...]) -> None:
    galaxy = made_up_galaxy()
    assert len(galaxy.flux) == 3909
    spectrum = made(without(galaxy.flux, *places), galaxy.wavelength)
    assert likeness(spectrum, image) > 0.99
    # Our own figure of the peers, in another size and of what mask and ivar leave.
    config = ImageConfig(image=image, axis="spectrum", size=100)
    ours = renderer(config).expand(renderer(config).codes(*spectrum)).astype(float)
    assert np.corrcoef(ours.ravel(), draw(spectrum, config).astype(float).ravel())[0, 1] > 0.98


@pytest.mark.parametrize("image", LINES)
def test_real_spectra_of_both_surveys_look_like_matplotlibs(image: str, real_data: Path) -> None:
    for folder in ("sdss", "lamost"):
        found = [likeness(spectrum, image) for spectrum in read_spectra(real_data / folder, 15)]
        assert np.median(found) > 0.98 and min(found) > 0.95


@pytest.mark.parametrize("image", LINES)
def test_what_mask_and_ivar_say_does_not_matter(image: str) -> None:
    flux, ivar, wavelength, mask = made_up_galaxy()
    drawer = renderer(PAPER[image])
    plain = drawer.codes(flux, None, wavelength, None)
    for bad in (mask, ~mask, RNG.random(len(mask)) < 0.5):
        np.testing.assert_array_equal(drawer.codes(flux, np.where(bad, 0, ivar), wavelength, bad), plain)
    many, errors = drawer.codes_batch(
        np.tile(flux, 2), np.zeros(2 * len(flux)), np.tile(wavelength, 2), np.ones(2 * len(flux), bool),
        np.array([0, len(flux), 2 * len(flux)]),
    )  # fmt: skip
    assert not errors
    np.testing.assert_array_equal(many, [plain, plain])
    with pytest.raises(RenderError, match="no finite flux"):
        drawer.codes(np.full_like(flux, np.nan), ivar, wavelength, mask)


@pytest.mark.parametrize("image", LINES)
def test_constant_flux_spikes_gaps_and_falling_wavelengths(image: str) -> None:
    galaxy = made_up_galaxy()
    flux, _, wavelength, _ = galaxy
    level = made(np.full(3909, 7), wavelength)
    rows = np.flatnonzero((renderer(PAPER[image]).expand(renderer(PAPER[image]).codes(*level)) < 255).any((1, 2)))
    theirs = np.flatnonzero((figure(wavelength, level.flux, image) < 255).any((1, 2)))
    assert set(rows) <= {111, 112} and set(theirs) <= {110, 111, 112}
    spiked = flux.copy()
    spiked[2900] *= 300
    assert likeness(made(spiked, wavelength), image) > 0.95
    gaps = flux.copy()
    gaps[::50], gaps[1::70], gaps[2::90] = np.nan, np.inf, -np.inf
    assert likeness(made(gaps, wavelength), image) > 0.95  # matplotlib breaks its line there, ours goes on
    falling = made(flux[::-1], wavelength[::-1])
    assert likeness(falling, image, galaxy) > 0.99


# Of 4 or 5 pixels matplotlib's limits leave out those that make no line; ours are those of all.
@pytest.mark.parametrize("n", [2, 3, 6, 7, 8, 40, 20_000])
@pytest.mark.parametrize("image", LINES)
def test_few_and_many_pixels(image: str, n: int) -> None:
    wavelength = np.linspace(4000, 9000, n)
    flux = 50 + 20 * np.sin(np.arange(n) * 2.0) if n < 100 else RNG.normal(50, 3, n)
    spectrum = made(flux, wavelength)
    expected = figure(spectrum.wavelength, spectrum.flux, image)
    if expected.std() == 0:  # no part has two pixels: no line
        assert (renderer(PAPER[image]).codes(*spectrum) == 255).all()
    else:
        assert likeness(spectrum, image) > 0.95


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(LINES), st.integers(6, 300), st.floats(3000, 6000), st.floats(300, 6000), st.integers(0, 2**32),
    st.sampled_from([0.0, 0.02, 0.1]),
)  # fmt: skip
def test_bad_pixels_are_passed_over_and_shift_nothing(
    image: str, n: int, start: float, reach: float, seed: int, margin: float
) -> None:
    # `axis` alone, with bad pixels skipped: what is good stands where it stood.
    rng = np.random.default_rng(seed)
    wavelength = start + reach * np.arange(n) / n
    mask = rng.random(n) < 0.3
    mask[rng.integers(0, n, 2)] = False
    config = ImageConfig(image=image, axis="spectrum", margin=margin, size=100)
    spectrum = Arrays(rng.normal(0, 1, n).astype(np.float32), None, wavelength, mask)
    try:
        ours = renderer(config).expand(renderer(config).codes(*spectrum)).astype(float)
    except RenderError:
        return
    theirs = draw(spectrum, config).astype(float)
    if theirs.std() == 0:
        assert ours.std() == 0
    elif (theirs < 250).sum() > 500:
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.9


def test_the_map_is_that_of_the_published_limits_without_mask_or_ivar() -> None:
    flux, ivar, wavelength, mask = made_up_galaxy()
    bad = RNG.random(len(mask)) < 0.3
    drawer = renderer(PAPER["map2d"])
    spectrum = Arrays(flux, np.where(bad, np.float32(0), ivar), wavelength.astype(float), bad)
    expected = draw(Arrays(flux, None, wavelength, np.zeros_like(mask)), preset("paper", "map2d"))
    np.testing.assert_array_equal(drawer.expand(drawer.codes(*spectrum)), expected)


def test_the_line_is_blue_and_its_codes_are_the_gray_ones() -> None:
    galaxy = made_up_galaxy()
    blue = renderer(PAPER["simple"])
    black = renderer(preset("aligned", "simple"))
    assert black.lut is None and blue.code_shape == black.code_shape
    gray = replace(PAPER["simple"], line_colour="black")
    np.testing.assert_array_equal(blue.codes(*galaxy), renderer(gray).codes(*galaxy))
    picture = blue.expand(blue.codes(*galaxy))
    np.testing.assert_array_equal(blue.expand_batch(blue.codes(*galaxy)[None])[0], picture)
    darkest = picture.reshape(-1, 3)[picture.sum(axis=2).argmin()]
    np.testing.assert_allclose(darkest, (31, 119, 180), atol=3)
    np.testing.assert_array_equal(line_table("black"), np.arange(256)[:, None].repeat(3, 1))
    for wrong in ("sky", "none", "C0", "#ff000080", ""):
        with pytest.raises(ValueError, match=f"line_colour={wrong}: matplotlib has no such opaque colour"):
            ImageConfig(image="simple", line_colour=wrong)


def test_todays_picture_has_a_name_and_old_data_sets_keep_their_configuration() -> None:
    for image in LINES:
        assert preset("aligned", image) == preset("default", image) == ImageConfig(image=image)
    written = ImageConfig(image="simple").to_dict()
    assert not written.keys() & {"axis", "bad_pixels", "line_colour"}
    paper = PAPER["simple"].to_dict()
    assert (paper["axis"], paper["bad_pixels"], paper["line_colour"]) == ("spectrum", "draw", "tab:blue")
    assert ImageConfig.from_dict(paper) == PAPER["simple"]
    for wrong, message in (
        ({"axis": "spectrum"}, "axis=spectrum is for simple, overlap; leave it out for map2d"),
        ({"image": "overlap", "line_colour": "red"}, "line_colour=red is for simple; leave it out for overlap"),
        ({"bad_pixels": "hide"}, "bad_pixels=hide: choose skip or draw"),
        ({"image": "simple", "axis": "pixel"}, "axis=pixel: choose window or spectrum"),
    ):
        with pytest.raises(ValueError, match=message):
            ImageConfig(**wrong)

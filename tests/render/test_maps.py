"""The options of `map2d` against the paper's formulas, numpy and astropy, and what must hold for each of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.visualization import AsinhStretch
from hypothesis import assume, given, settings
from matplotlib.colors import Normalize

from specshards.benchmarks.kit.samples import made_up_galaxy, read_spectra
from specshards.benchmarks.peers.matplotlib_reference import draw
from specshards.render import RENDERERS, ImageConfig, RenderError, preset, renderer
from specshards.render.config import CHANNEL_SETS, CHANNELS
from specshards.render.grid import cell_order
from tests.oracles.kernel_spectra import wild_spectra

ALL = [preset(name, "map2d") for name in RENDERERS["map2d"].presets] + [
    ImageConfig(image=image, limits="percentile", scale=scale)
    for image in ("simple", "overlap")
    for scale in ("linear", "asinh")
]

SKIPPING = [config for config in ALL if config.bad_pixels == "skip"]


def galaxy():
    """A spectrum with bad pixels in the middle and at both ends."""
    flux, ivar, wavelength, mask = made_up_galaxy()
    mask[100:150] = mask[2000] = mask[:3] = mask[-4:] = True
    return flux, ivar, wavelength, mask


def filled(spectrum, config: ImageConfig):
    """Flux in the window with its gaps filled, wavelength and good, by numpy."""
    flux, ivar, wavelength, mask = spectrum
    inside = (wavelength >= config.window[0]) & (wavelength <= config.window[1])
    good = (((config.bad_pixels == "draw") | (~mask & (ivar > 0))) & np.isfinite(flux))[inside]
    pixels, flux = np.arange(inside.sum()), flux[inside]
    flux = np.where(good, flux, np.interp(pixels, pixels[good], flux[good].astype(np.float64)).astype(np.float32))
    return flux, wavelength[inside].astype(np.float64), good


def of_paper(values: np.ndarray, good: np.ndarray) -> np.ndarray:
    """int(255 (value - min) / (max - min)), as the paper's code scales a channel; what is bad is cut off."""
    low, high = values[good].min().astype(np.float64), values[good].max().astype(np.float64)
    return np.clip(255 * (values.astype(np.float64) - low) / (high - low), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def real_spectra(real_data: Path):
    return read_spectra(real_data, 60)


def test_the_red_channel_is_the_papers_bit_for_bit(real_spectra) -> None:
    config = preset("paper-red", "map2d")
    drawer = renderer(config)
    for spectrum in [galaxy(), *real_spectra]:
        flux, _, good = filled(spectrum, config)
        picture = drawer.expand(drawer.codes(*spectrum))
        cells = np.zeros(74 * 74, np.uint8)
        cells[: len(flux)] = of_paper(flux, good)
        expected = np.kron(cells.reshape(74, 74), np.ones((3, 3), np.uint8))
        np.testing.assert_array_equal(picture[:222, :222, 0], expected)
        assert not picture[..., 1:].any() and not picture[222:].any() and not picture[:, 222:].any()


@pytest.mark.parametrize("step", ["angstrom", "pixel"])
def test_derivatives_are_those_of_numpy(real_spectra, step: str) -> None:
    config = replace(preset("paper-derivatives", "map2d"), derivative=step)
    drawer = renderer(config)
    for spectrum in [galaxy(), *real_spectra]:
        flux, wavelength, good = filled(spectrum, config)
        where = (wavelength,) if step == "angstrom" else ()
        first = np.gradient(flux.astype(np.float64), *where).astype(np.float32)
        second = np.gradient(first.astype(np.float64), *where).astype(np.float32)
        codes = drawer.codes(*spectrum).reshape(-1, 3)
        assert not codes[len(flux) :].any()
        np.testing.assert_array_equal(codes[: len(flux), 0], of_paper(flux, good))
        for channel, values in ((1, first), (2, second)):
            off = np.abs(codes[: len(flux), channel].astype(int) - of_paper(values, good))
            assert off.max() <= 1 and (off > 0).mean() < 1e-3


def test_regions_of_interest_are_marked_over_the_red_channel() -> None:
    config = preset("paper-roi", "map2d")
    flux, ivar, wavelength, mask = galaxy()
    codes = renderer(config).codes(flux, ivar, wavelength, mask).reshape(-1, 3)
    red = renderer(preset("paper-red", "map2d")).codes(flux, ivar, wavelength, mask).ravel()
    np.testing.assert_array_equal(codes[:, 0], red)
    assert set(np.unique(codes[:, 1])) == {0, 50} and not codes[:, 2].any()
    halpha = np.abs(wavelength - 6564.6 * 1.08) < 5
    assert (codes[: len(flux)][halpha, 1] == 50).all()


def test_stretch_fills_every_cell_by_linear_interpolation(real_spectra) -> None:
    config = ImageConfig(grid="stretch")
    for spectrum in [galaxy(), *real_spectra[:20]]:
        flux, wavelength, good = filled(spectrum, config)
        points = np.linspace(wavelength[0], wavelength[-1], 74 * 74)
        values = np.interp(points, wavelength, flux.astype(np.float64)).astype(np.float32)
        nearest = np.abs(points[:, None] - wavelength[None, :]).argmin(axis=1)
        norm = Normalize(values[good[nearest]].min(), values[good[nearest]].max(), clip=True)
        expected = np.minimum(norm(values).data * 256, 255).astype(np.uint8)
        codes = renderer(config).codes(*spectrum).ravel()
        assert np.abs(codes.astype(int) - expected).max() <= 1 and (codes != expected).mean() < 2e-3


@pytest.mark.parametrize("image", ["map2d", "simple", "overlap"])
def test_percentile_limits_are_numpys(real_spectra, image: str) -> None:
    config = ImageConfig(image=image, limits="percentile", percentiles=(1.0, 99.0))
    drawer = renderer(config)
    for spectrum in [galaxy(), *real_spectra[:20]]:
        ours = drawer.expand(drawer.codes(*spectrum))
        if image == "map2d":
            flux, _, good = filled(spectrum, config)
            norm = Normalize(*np.percentile(flux[good].astype(np.float64), (1.0, 99.0)))
            expected = np.clip(norm(flux).data * 256, 0, 255).astype(np.uint8)
            np.testing.assert_array_equal(drawer.codes(*spectrum).ravel()[: len(flux)], expected)
        else:
            theirs = draw(spectrum, config)
            assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.95


def test_one_spike_does_not_set_a_robust_scale() -> None:
    flux, ivar, wavelength, mask = made_up_galaxy()
    spiked = flux.copy()
    spiked[1234] *= 20

    def steps(config: ImageConfig, values: np.ndarray) -> int:
        return len(np.unique(renderer(config).codes(values, ivar, wavelength, mask)))

    robust = preset("robust", "map2d")
    assert steps(ImageConfig(), spiked) < 40 < 0.9 * steps(robust, flux) < steps(robust, spiked)


@pytest.mark.parametrize("softening", [0.01, 0.1, 1.0])
def test_asinh_is_astropys(real_spectra, softening: float) -> None:
    for codes_of, channels in ((256, ("flux",)), (255, ("flux", "none", "none"))):
        config = ImageConfig(scale="asinh", softening=softening, channels=channels)
        for spectrum in [galaxy(), *real_spectra[:20]]:
            flux, _, good = filled(spectrum, config)
            low, high = flux[good].min().astype(np.float64), flux[good].max().astype(np.float64)
            share = AsinhStretch(softening)((flux.astype(np.float64) - low) / (high - low), clip=True)
            expected = np.minimum(codes_of * share, 255).astype(np.uint8)
            codes = renderer(config).codes(*spectrum).ravel()[: len(flux)]
            off = np.abs(codes.astype(int) - expected)
            assert off.max() <= 1 and (off > 0).mean() < 2e-3


def test_an_asinh_line_looks_like_that_of_agg(real_spectra) -> None:
    config = ImageConfig(image="simple", scale="asinh")
    drawer = renderer(config)
    for spectrum in [galaxy(), *real_spectra[:20]]:
        ours = drawer.expand(drawer.codes(*spectrum)).astype(float)
        assert np.corrcoef(ours.ravel(), draw(spectrum, config).astype(float).ravel())[0, 1] > 0.97


@pytest.mark.parametrize("block", [1, 2, 4, 8])
def test_each_patch_holds_one_piece_of_the_spectrum(block: int) -> None:
    config = ImageConfig(block=block, order="patch", size=64)
    place = cell_order(config)
    cells, side = config.cells, 16 // block
    expected = []
    for patch in range(16):
        top, left = patch // 4 * side, patch % 4 * side
        expected += [(top + r) * cells + left + c for r in range(side) for c in range(side)]
    assert place.tolist() == expected


def test_every_other_row_of_a_boustrophedon_runs_backwards() -> None:
    spectrum = galaxy()
    rows = renderer(ImageConfig()).codes(*spectrum)
    turned = renderer(ImageConfig(order="boustrophedon")).codes(*spectrum)
    np.testing.assert_array_equal(turned[::2], rows[::2])
    np.testing.assert_array_equal(turned[1::2], rows[1::2, ::-1])


def test_on_the_log_grid_a_cell_is_a_wavelength_whatever_the_survey() -> None:
    config = replace(preset("survey-free", "map2d"), order="rows")
    edges = np.geomspace(*config.window, config.cells**2 + 1)
    for wavelength in (
        10.0 ** (3.5682 + 1e-4 * np.arange(3909)),
        np.arange(3600, 9824, 0.8),
        np.arange(3800.0, 9200),
    ):
        flux = 10 + 100 * np.exp(-0.5 * ((wavelength - 6564.6) / 4) ** 2)
        codes = renderer(config).codes(flux, None, wavelength, None).ravel()
        brightest = edges[codes.argmax()], edges[codes.size - codes[::-1].argmax()]
        assert brightest[0] < 6564.6 < brightest[1] and brightest[1] - brightest[0] < 60
        outside = (edges[1:] < wavelength[0] - 2) | (edges[:-1] > wavelength[-1] + 2)
        assert not codes[outside].any()


def test_masked_pixels_and_snr_have_channels() -> None:
    spectrum = flux, ivar, _, mask = galaxy()
    codes = renderer(ImageConfig(channels=CHANNEL_SETS["quality"])).codes(*spectrum).reshape(-1, 3)
    np.testing.assert_array_equal(codes[: len(flux), 1], np.where(mask, 255, 0))
    assert (codes[len(flux) :, 1] == 255).all()
    ratio = np.clip(flux.astype(float) * np.sqrt(ivar), 0, 100)
    expected = np.where(mask, 0, 25.5 * np.sqrt(ratio))
    assert np.abs(codes[: len(flux), 2] - expected).max() <= 1
    without = renderer(ImageConfig(channels=CHANNEL_SETS["quality"])).codes(flux, None, spectrum[2], mask)
    assert not without.reshape(-1, 3)[:, 2].any()


@pytest.mark.parametrize("channel", [name for name in CHANNELS if name != "none"])
def test_one_channel_alone_takes_the_colour_map(channel: str) -> None:
    drawer = renderer(ImageConfig(channels=(channel,)))
    codes = drawer.codes(*galaxy())
    assert codes.shape == (74, 74) and drawer.lut is not None and len(np.unique(codes)) > 1
    assert drawer.expand(codes).shape == (224, 224, 3)


@settings(max_examples=200, deadline=None)
@given(wild_spectra)
def test_any_spectrum_gives_a_picture_or_a_reason_with_every_option(spectrum) -> None:
    for config in ALL:
        drawer = renderer(config)
        try:
            codes = drawer.codes(*spectrum)
        except RenderError as error:
            assert "\n" not in str(error) and len(str(error)) > 10
            continue
        assert codes.shape == drawer.code_shape and drawer.expand(codes).shape == (224, 224, 3)


@settings(max_examples=60, deadline=None)
@given(wild_spectra)
def test_bad_pixels_cannot_change_any_picture(spectrum) -> None:
    flux, ivar, wavelength, mask = spectrum
    bad = mask | (ivar <= 0) | ~np.isfinite(flux)
    assume((~bad).sum() >= 2)
    for config in SKIPPING:
        drawer = renderer(config)
        try:
            before = drawer.codes(flux, ivar, wavelength, mask)
        except RenderError:
            continue
        changed, weights = np.where(bad, np.float32(-77), flux), np.where(bad, np.float32(9), ivar)
        np.testing.assert_array_equal(drawer.codes(changed, weights, wavelength, bad), before)


@pytest.mark.parametrize("config", ALL, ids=lambda c: f"{c.image}-{c.grid}-{c.limits}-{'+'.join(c.channels)}")
def test_the_unit_of_flux_matters_to_no_scale_of_a_spectrums_own(config: ImageConfig) -> None:
    if config.limits == "fixed" or config.roi_unit == "flux":
        config = replace(config, limits="minmax", roi_unit="sigma")
    flux, ivar, wavelength, mask = galaxy()
    drawer = renderer(config)
    expected = drawer.codes(flux, ivar, wavelength, mask)
    for factor in (np.float32(1024), np.float32(2.0**-40)):
        weights = ivar / factor**2
        np.testing.assert_array_equal(drawer.codes(flux * factor, weights, wavelength, mask), expected)
    backwards = drawer.codes(flux[::-1], ivar[::-1], wavelength[::-1], mask[::-1])
    np.testing.assert_array_equal(backwards, expected)


@pytest.mark.parametrize("config", ALL, ids=lambda c: f"{c.image}-{c.grid}-{c.limits}-{'+'.join(c.channels)}")
def test_a_batch_draws_what_single_calls_draw(config: ImageConfig) -> None:
    rng = np.random.default_rng(5)
    made = [made_up_galaxy(seed) for seed in range(6)]
    for spectrum in made:
        spectrum[3][rng.integers(0, 3909, 300)] = True
    made[2][3][:] = True
    made[2][0][:] = np.nan if config.bad_pixels == "draw" else made[2][0]
    has_ivar = np.array([True, False, True, True, True, True])
    columns = [np.concatenate([spectrum[k] for spectrum in made]) for k in range(4)]
    drawer = renderer(config)
    codes, errors = drawer.codes_batch(*columns, np.arange(7) * 3909, has_ivar)
    assert list(errors) == [2] and ("no finite flux" if config.bad_pixels == "draw" else "all pixels masked") in str(
        errors[2]
    )
    for i, (flux, ivar, wavelength, mask) in enumerate(made):
        if i != 2:
            one = drawer.codes(flux, ivar if has_ivar[i] else None, wavelength, mask)
            np.testing.assert_array_equal(codes[i], one)
    shared, _ = drawer.codes_batch(*columns[:2], made[0][2], columns[3], np.arange(7) * 3909, has_ivar, np.zeros(6))
    np.testing.assert_array_equal(np.delete(shared, 2, 0), np.delete(codes, 2, 0))
    with pytest.raises(ValueError, match="offsets"):
        drawer.codes_batch(*columns[:2], made[0][2], columns[3], np.arange(7) * 3909, has_ivar, np.full(6, 7))
    with pytest.raises(ValueError, match="offsets"):
        drawer.codes_batch(*columns, np.array([0, 3909, 99999]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": ("flux", "colour", "none")}, "unknown channel colour: choose among flux"),
        ({"channels": ("flux", "snr")}, "give one .coloured. or three .RGB."),
        ({"channels": ("none",)}, "at least one with content"),
        ({"order": "patch"}, "take block=2"),
        ({"order": "spiral"}, "order=spiral: choose rows, boustrophedon or patch"),
        ({"grid": "linear"}, "grid=linear: choose native, stretch or log"),
        ({"scale": "log"}, "scale=log: choose linear or asinh"),
        ({"percentiles": (99.0, 1.0)}, "two increasing numbers"),
        ({"softening": 0.0}, "softening=0"),
        ({"image": "simple", "grid": "log"}, "grid=log is for map2d"),
        ({"image": "overlap", "limits": "fixed"}, "limits=fixed is for map2d"),
        ({"roi_threshold": -1.0}, "roi_threshold"),
    ],
)
def test_options_that_do_not_go_together_are_named(changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageConfig(**changes)


def test_presets_are_named() -> None:
    with pytest.raises(ValueError, match="unknown PRESET=best: for map2d choose default, paper"):
        preset("best", "map2d")
    with pytest.raises(ValueError, match="lines is for map2d; for simple choose default, aligned, paper, robust"):
        preset("lines", "simple")
    for name in RENDERERS["map2d"].presets:
        config = preset(name, "map2d")
        assert ImageConfig.from_dict(config.to_dict()) == config

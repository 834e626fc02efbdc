"""The kernels against matplotlib and numpy, and what must hold for any spectrum whatever."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from specshards.benchmarks.kit.samples import made_up_galaxy, read_spectra
from specshards.benchmarks.peers.matplotlib_comparison import likeness
from specshards.benchmarks.peers.matplotlib_reference import draw
from specshards.render import RENDERERS, ImageConfig, RenderError, preset, renderer
from specshards.render.lines import FULL, SPARE, STEPS, canvas, pieces
from specshards.render.lines import draw as draw_line
from tests.conftest import ROOT
from tests.oracles import commands
from tests.oracles.kernel_spectra import wild_spectra


@pytest.fixture(scope="module")
def real_spectra(real_data: Path):
    return read_spectra(real_data, 200)


@pytest.mark.parametrize("config", [ImageConfig(), preset("paper", "map2d"), ImageConfig(block=2, size=160)])
def test_map2d_equals_matplotlib_bit_for_bit(real_spectra, config: ImageConfig) -> None:
    drawer = renderer(config)
    for spectrum in real_spectra:
        np.testing.assert_array_equal(drawer.expand(drawer.codes(*spectrum)), draw(spectrum, config))


def test_map2d_of_a_made_up_spectrum_equals_matplotlib_bit_for_bit() -> None:
    spectrum = made_up_galaxy()
    mask = spectrum.mask
    mask[100:150] = mask[2000] = mask[:3] = mask[-4:] = True
    for config in (ImageConfig(), preset("paper", "map2d")):
        drawer = renderer(config)
        np.testing.assert_array_equal(drawer.expand(drawer.codes(*spectrum)), draw(spectrum, config))


def test_a_level_on_the_border_of_two_codes_rounds_as_float32() -> None:
    # Found in a real spectrum: 208.99999 in float64 arithmetic, 209 where matplotlib rounds to float32.
    flux = np.array([0.0, 9770.401, 11967.573], np.float32)
    codes = renderer(ImageConfig()).codes(flux, None, np.array([5000.0, 5001.0, 5002.0]), None)
    assert codes.ravel()[:3].tolist() == [0, 209, 255]


@pytest.mark.parametrize("image", ["simple", "overlap"])
def test_line_pictures_look_like_those_of_agg(real_spectra, image: str) -> None:
    result = likeness(real_spectra[::8], image)  # docs/images.md has all 200
    assert result["median_correlation"] > 0.99 and result["lowest_correlation"] > 0.95


def test_line_of_a_made_up_spectrum_looks_like_that_of_agg() -> None:
    for image in ("simple", "overlap"):
        assert likeness([made_up_galaxy()], image)["lowest_correlation"] > 0.98


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.05, 3), st.floats(5, 59)), min_size=2, max_size=12),
    st.floats(0.3, 3),
)
def test_ink_equals_length_times_width(steps: list[tuple[float, float]], width: float) -> None:
    x = 5 + np.cumsum([dx for dx, _ in steps])
    y = np.array([value for _, value in steps])
    ink = canvas(64)
    draw_line(*pieces(x.astype(np.float32), y.astype(np.float32), len(x)), width, ink)
    area = width * np.hypot(np.diff(x), np.diff(y)).sum()
    rounded = max(0.02, (x[-1] - x[0]) / STEPS)  # both edges of a line lie on steps of a row
    assert np.cumsum(ink, axis=0)[:64, SPARE:].sum() / FULL == pytest.approx(area, rel=2e-3, abs=rounded)
    assert np.cumsum(ink, axis=0).min() >= 0


@settings(max_examples=150, deadline=None)
@given(wild_spectra, st.sampled_from(list(RENDERERS)))
def test_any_spectrum_gives_a_picture_or_a_reason(spectrum, image: str) -> None:
    drawer = renderer(ImageConfig(image=image))
    try:
        codes = drawer.codes(*spectrum)
    except RenderError as error:
        assert "\n" not in str(error) and len(str(error)) > 10
        return
    assert codes.shape == drawer.code_shape and codes.dtype == np.uint8
    assert drawer.expand(codes).shape == (224, 224, 3)


@settings(max_examples=60, deadline=None)
@given(wild_spectra, st.sampled_from(list(RENDERERS)), st.floats(-1e3, 1e3))
def test_bad_pixels_cannot_change_the_picture(spectrum, image: str, value: float) -> None:
    flux, ivar, wavelength, mask = spectrum
    drawer = renderer(ImageConfig(image=image))
    try:
        before = drawer.codes(flux, ivar, wavelength, mask)
    except RenderError:
        assume(False)
    bad = mask | (ivar <= 0) | ~np.isfinite(flux)
    changed = np.where(bad, np.float32(value), flux)
    np.testing.assert_array_equal(drawer.codes(changed, ivar, wavelength, bad), before)


@pytest.mark.parametrize("image", list(RENDERERS))
def test_the_unit_of_flux_does_not_matter(image: str) -> None:
    flux, ivar, wavelength, mask = made_up_galaxy()
    drawer = renderer(ImageConfig(image=image))
    expected = drawer.codes(flux, ivar, wavelength, mask)
    np.testing.assert_array_equal(drawer.codes(flux * 1024, ivar, wavelength, mask), expected)
    backwards = drawer.codes(flux[::-1], ivar[::-1], wavelength[::-1], mask[::-1])
    np.testing.assert_array_equal(backwards, expected)


@pytest.mark.parametrize("image", list(RENDERERS))
def test_padding_and_a_constant_flux(image: str) -> None:
    flux, ivar, wavelength, mask = made_up_galaxy()
    drawer = renderer(ImageConfig(image=image))
    padded = drawer.codes(
        np.append(flux, [0, 0]),
        np.append(ivar, [0, 0]),
        np.append(wavelength, [-1, -1]),
        np.append(mask, [True, True]),
    )
    np.testing.assert_array_equal(padded, drawer.codes(flux, ivar, wavelength, mask))
    level = drawer.codes(np.full(3909, 7, np.float32), ivar, wavelength, mask)
    if image == "map2d":
        assert not level.any()
    else:
        rows = np.flatnonzero((level.reshape(224, -1) < 255).any(axis=1))
        assert rows.min() >= 111 and rows.max() <= 112


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": np.ones(3909, bool)}, "all pixels masked"),
        ({"wavelength": np.arange(3000, dtype=float)}, "lengths differ: flux 3909, wavelength 3000"),
        ({"flux": np.ones((3909, 1), np.float32)}, "flux has 2 dimensions instead of one"),
        ({"wavelength": np.full(3909, np.nan)}, "wavelengths are not finite"),
        ({"wavelength": np.full(3909, 5000.0)}, "neither increasing nor decreasing"),
        ({"wavelength": np.linspace(11000, 12000, 3909)}, "fewer than two good pixels between 3536.7 and 10413.6 A"),
    ],
)
def test_what_cannot_be_drawn_says_why(changes, message: str) -> None:
    values = dict(zip(("flux", "ivar", "wavelength", "mask"), made_up_galaxy(), strict=True))
    for image in RENDERERS:
        with pytest.raises(RenderError, match=message):
            renderer(ImageConfig(image=image)).codes(**{**values, **changes})


def test_no_pixel_is_dropped_silently() -> None:
    n = 20_000
    spectrum = (np.arange(n, dtype=np.float32), None, np.linspace(3600, 10000, n), None)
    with pytest.raises(RenderError, match="20000 pixels do not fit 74 x 74 cells"):
        renderer(ImageConfig()).codes(*spectrum)
    assert renderer(ImageConfig(block=1)).codes(*spectrum).max() == 255


@pytest.mark.parametrize("image", ["simple", "overlap"])
@pytest.mark.parametrize("n", [2, 3, 20_000])
def test_few_and_many_pixels_look_like_those_of_agg(image: str, n: int) -> None:
    wavelength = np.linspace(3600, 10400, n)
    flux = (50 + 20 * np.sin(wavelength / 90) + np.random.default_rng(n).normal(0, 3, n)).astype(np.float32)
    spectrum = (flux, np.ones(n, np.float32), wavelength, np.zeros(n, bool))
    config = ImageConfig(image=image)
    ours = renderer(config).expand(renderer(config).codes(*spectrum)).astype(float)
    theirs = draw(spectrum, config).astype(float)
    if theirs.std() > 0:  # thirds of a spectrum of two pixels hold one point each: no line
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.95
    else:
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("image", list(RENDERERS))
def test_batches_equal_single_pictures_and_renderers_travel(image: str) -> None:
    drawer = pickle.loads(pickle.dumps(renderer(ImageConfig(image=image))))
    codes = np.random.default_rng(0).integers(0, 256, (7, *drawer.code_shape), dtype=np.uint8)
    batch = drawer.expand_batch(codes)
    np.testing.assert_array_equal(batch, np.stack([drawer.expand(c) for c in codes]))
    assert drawer.expand_batch(codes[:0]).shape == (0, 224, 224, 3)
    out = np.empty_like(batch)
    assert drawer.expand_batch(codes, out=out) is out
    np.testing.assert_array_equal(out, batch)


@pytest.mark.parametrize("image", list(RENDERERS))
def test_an_out_that_does_not_fit_is_refused_and_not_overrun(image: str) -> None:
    drawer = renderer(ImageConfig(image=image))
    spectrum = made_up_galaxy()
    shape = drawer.code_shape
    for wrong in (np.empty((3, 3), np.uint8), np.empty(shape, np.float32), np.empty(shape, np.uint8, order="F")):
        with pytest.raises(ValueError, match="out must be"):
            drawer.codes(*spectrum, out=wrong)
    batch = np.stack([drawer.codes(*spectrum)] * 2)
    with pytest.raises(ValueError, match="out must be"):
        drawer.expand_batch(batch, out=np.empty((1, 224, 224, 3), np.uint8))


def test_threads_may_expand_at_the_same_time() -> None:
    # Under Numba's simplest threading layer two threads in one parallel kernel would abort the whole process.
    code = (
        "import numpy as np, threading; from specshards.render import *; r = renderer(ImageConfig());"
        "c = np.random.default_rng(0).integers(0, 256, (16, 74, 74), dtype=np.uint8);"
        "e = r.expand_batch(c); bad = [];"
        "go = lambda: [bad.append(1) for _ in range(50) if not np.array_equal(r.expand_batch(c), e)];"
        "t = [threading.Thread(target=go) for _ in range(4)]; [x.start() for x in t]; [x.join() for x in t];"
        "assert not bad"
    )
    done = commands.run(commands.script(code), NUMBA_THREADING_LAYER="workqueue")
    assert done.returncode == 0, done.stderr


def test_no_two_kernels_share_a_cache_entry() -> None:
    # Two kernels made from one function once did: the first one compiled, without threads, then served both.
    from numba.core.dispatcher import Dispatcher

    names = [path.stem for path in (ROOT / "render").glob("*.py") if path.stem != "__main__"]
    modules = [importlib.import_module(f"specshards.render.{name}") for name in names]
    found = {value for m in modules for value in vars(m).values() if isinstance(value, Dispatcher)}
    places = [(k.py_func.__code__.co_filename, k.py_func.__code__.co_firstlineno) for k in found]
    assert len(places) == len(set(places)) > 30


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": (4000.0, float("inf"))}, "two increasing wavelengths"),
        ({"image": "map3d"}, "unknown IMAGE=map3d: choose simple, overlap, map2d"),
        ({"limits": "auto"}, "limits=auto"),
        ({"size": 2}, "size=2"),
        ({"size": 224.5}, "size=224.5: give a whole number"),
        ({"block": "3"}, "block='3': give a whole number"),
        ({"block": 300}, "block=300"),
        ({"window": (9000.0, 4000.0)}, "two increasing wavelengths"),
        ({"flux_min": 200.0}, "must lie below"),
        ({"line_width": 0.0}, "line_width"),
    ],
)
def test_impossible_configurations_are_named(changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageConfig(**changes)


def test_configuration_round_trip() -> None:
    config = preset("paper", "map2d")
    assert ImageConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="unknown image option colour"):
        ImageConfig.from_dict({**config.to_dict(), "colour": 1})

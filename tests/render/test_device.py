"""The torch versions of drawing and expanding against the kernels: the same bytes, whatever the spectrum."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from specshards.benchmarks.kit.samples import made_up_galaxy, read_spectra
from specshards.render import RENDERERS, ImageConfig, RenderError, preset, renderer
from specshards.render.device import draw
from specshards.render.device.draw import DeviceRenderer
from specshards.render.device.expand import Expand

THREE = ("flux", "derivative", "curvature")
MAPS = [
    {},
    {"limits": "fixed"},
    {"limits": "fixed", "scale": "asinh", "grid": "log"},
    {"limits": "percentile", "scale": "asinh", "size": 160, "block": 2, "order": "patch"},
    {"limits": "percentile", "channels": ("flux", "none", "none"), "order": "boustrophedon"},
    {"limits": "percentile", "scale": "asinh", "channels": ("none", "flux", "flux")},
    {"limits": "fixed", "channels": THREE},
    {"limits": "percentile", "channels": THREE, "grid": "log"},
    {"channels": ("mask", "snr", "flux"), "grid": "log", "block": 2, "order": "patch"},
    {"channels": THREE, "grid": "log", "resample": "linear", "window": (4000.0, 7000.0)},
    {"channels": ("snr", "mask", "none"), "grid": "log", "resample": "linear"},
    {"channels": ("snr",)},
    {"channels": ("mask",), "limits": "fixed"},
    {"channels": THREE, "grid": "stretch"},
    {"channels": THREE, "derivative": "pixel", "bad_pixels": "draw"},
    {"channels": THREE, "derivative": "pixel", "grid": "log"},
    {"channels": ("mask", "snr", "flux"), "grid": "stretch", "block": 16},
    {"grid": "log", "block": 1, "size": 100, "window": (5000.0, 5300.0)},
    {"grid": "log", "block": 40, "size": 100},
    {"limits": "fixed", "bad_pixels": "draw"},
    {"bad_pixels": "draw", "channels": ("snr", "mask", "flux"), "grid": "log"},
]
LINES = [
    {},
    {"limits": "percentile", "percentiles": (10.0, 75.0)},
    {"scale": "asinh", "softening": 0.02, "size": 160},
    {"limits": "percentile", "scale": "asinh", "line_width": 2.9, "margin": 0.0},
    {"line_width": 0.3, "alpha": 1.0, "window": (4000.0, 7000.0), "size": 100},
    {"axis": "spectrum", "bad_pixels": "draw"},
    {"axis": "spectrum", "scale": "asinh", "limits": "percentile", "size": 160, "margin": 0.0},
    {"axis": "spectrum", "window": (4000.0, 7000.0), "line_width": 2.3, "size": 100, "margin": 0.2},
]
CONFIGS = [ImageConfig(**changes) for changes in MAPS] + [
    ImageConfig(image=image, **changes) for image in ("simple", "overlap") for changes in LINES
]
Spectrum = tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray | None]


def named(config: ImageConfig) -> str:
    plain = ImageConfig().to_dict()
    return (
        "-".join(f"{k}={v}" for k, v in config.to_dict().items() if v != plain.get(k)).replace(" ", "") or "default"
    )


def padded(spectra: Sequence[Spectrum], device: str = "cpu") -> list[torch.Tensor]:
    """The arguments of `DeviceRenderer.codes`: padding behind, wavelengths rising."""
    kept = []
    for flux, ivar, wavelength, mask in spectra:
        keep = np.flatnonzero(~(np.asarray(wavelength) <= 0))
        order = keep[::-1] if len(keep) > 1 and wavelength[keep[0]] > wavelength[keep[-1]] else keep
        kept.append([None if values is None else values[order] for values in (flux, ivar, wavelength, mask)])
    shape = len(kept), max(len(flux) for flux, *_ in kept) + 3
    arrays = [np.full(shape, value, kind) for value, kind in ((np.nan, "f4"), (0, "f4"), (-1, "f8"), (True, "?"))]
    for row, spectrum in enumerate(kept):
        for array, values in zip(arrays, spectrum, strict=True):
            array[row, : len(spectrum[0])] = 0 if values is None else values
    weighted = np.array([ivar is not None for _, ivar, _, _ in kept])
    return [torch.from_numpy(array).to(device) for array in (*arrays, weighted)]


def on_device(config: ImageConfig) -> DeviceRenderer:
    drawer = renderer(config).device()
    assert isinstance(drawer, DeviceRenderer), drawer
    return drawer


def check(config: ImageConfig, spectra: Sequence[Spectrum], device: str = "cpu") -> int:
    """Compare a batch with the kernels; returns how many were drawn."""
    drawer = renderer(config)
    codes, drawn = on_device(config).to(device).codes(*padded(spectra, device))
    assert codes.dtype == torch.uint8 and codes.shape == (len(spectra), *drawer.code_shape)
    assert drawn.dtype == torch.bool and drawn.device == codes.device
    for spectrum, found, known in zip(spectra, codes.cpu().numpy(), drawn.tolist(), strict=True):
        try:
            expected = drawer.codes(*spectrum)
        except RenderError:
            expected = None
        assert known == (expected is not None)
        np.testing.assert_array_equal(found, np.zeros_like(found) if expected is None else expected)
    return int(drawn.sum())


def made_up() -> list[Spectrum]:
    """A galaxy, and what can go wrong with it; five of them cannot be drawn on most grids."""
    flux, ivar, wavelength, mask = made_up_galaxy()
    wavelength = wavelength.astype(np.float64)
    rng = np.random.default_rng(5)

    def but(**changes: object) -> Spectrum:
        found = {"flux": flux, "ivar": ivar, "wavelength": wavelength, "mask": mask, **changes}
        return found["flux"], found["ivar"], found["wavelength"], found["mask"]  # type: ignore[return-value]

    holes = rng.random(len(flux)) < 0.4
    ends = mask.copy()
    ends[:300] = ends[1000:1700] = ends[-20:] = True
    odd, spiked = flux.copy(), flux.copy()
    odd[::17], odd[5::23], odd[9::31] = np.nan, np.inf, -np.inf
    spiked[[100, 2000]] = 3e4, -2e4
    cut, thirds = flux.copy(), flux.copy()
    cut[:300] = cut[-500:] = thirds[:100] = thirds[1303:1700] = thirds[2606:2800] = np.nan
    shifted = np.sort(rng.uniform(3400, 11000, len(flux)))
    two = np.ones(len(flux), bool)
    two[[1500, 1502]] = False
    dense = (rng.normal(0, 1, 9000).astype(np.float32), None, np.linspace(5000, 5400, 9000), None)
    short = tuple(values[2000:2040] for values in (flux, ivar, wavelength, mask))
    pair = tuple(values[2000:2002] for values in (flux, ivar, wavelength, mask))
    return [
        but(), but(ivar=None), but(ivar=None, mask=None), but(mask=holes), but(mask=ends), but(flux=odd),
        but(flux=spiked), but(flux=cut), but(flux=thirds),
        but(wavelength=shifted), but(flux=np.full_like(flux, 7)), but(mask=two), dense, short, pair,
        but(flux=flux[::-1], wavelength=wavelength[::-1]), but(ivar=np.where(holes, np.float32(0), ivar)),
        but(flux=flux * np.float32(1e-17)), but(wavelength=wavelength / 3), but(flux=np.full_like(flux, np.nan)),
        but(mask=~mask), but(wavelength=np.where(holes, 5000, wavelength)),
        but(wavelength=np.where(holes, np.nan, wavelength)),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def real_spectra(real_data: Path) -> list[Spectrum]:
    return read_spectra(real_data, 40)


@pytest.mark.parametrize("config", CONFIGS, ids=named)
def test_a_batch_of_real_spectra_equals_the_kernels(real_spectra: list[Spectrum], config: ImageConfig) -> None:
    assert check(config, real_spectra) > 30


@pytest.mark.parametrize("config", CONFIGS, ids=named)
def test_a_batch_of_made_up_spectra_equals_the_kernels(config: ImageConfig) -> None:
    assert check(config, made_up()) > 10


usual = st.floats(-100, 100, width=32)
awkward = st.sampled_from([0.0, -0.0, 1e-45, 7.1, 1e20, np.nan, np.inf, -np.inf])
huge = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from([3.4e38, -3.4e38])
weights = st.floats(2.0**-20, 2.0**20, width=32) | st.sampled_from([0.0, -1.0, 1e-45, 3.4e38, np.nan, np.inf])


@st.composite
def any_spectra(draw: st.DrawFn, flux: st.SearchStrategy[float]) -> Spectrum:
    n = draw(st.integers(2, 60))
    steps = st.floats(0.01, 30) | st.sampled_from([0.5, 700.0])
    wavelength = draw(st.floats(3000, 9000)) + np.cumsum(draw(hnp.arrays(np.float64, n, elements=steps)))
    values = draw(hnp.arrays(np.float32, n, elements=flux))
    ivar = draw(st.none() | hnp.arrays(np.float32, n, elements=weights))
    return values, ivar, wavelength, draw(st.none() | hnp.arrays(np.bool_, n))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CONFIGS), st.lists(any_spectra(usual | awkward | huge), min_size=1, max_size=3))
def test_any_batch_equals_the_kernels(config: ImageConfig, spectra: list[Spectrum]) -> None:
    check(config, spectra)


@pytest.mark.parametrize("image", ["simple", "overlap"])
@pytest.mark.parametrize("spike", [1e3, 1e10, 1e25, 3e38])
def test_a_spike_however_far_outside_the_limits_equals_the_kernels(image: str, spike: float) -> None:
    flux, ivar, wavelength, mask = made_up_galaxy()
    flux = flux * np.float32(1e-17)
    flux[[1000, 1001, 2000, 3000]] = spike, -spike, spike, -spike
    assert check(ImageConfig(image=image, limits="percentile"), [(flux, ivar, wavelength, mask)]) == 1


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[7], CONFIGS[-1]], ids=named)
def test_a_batch_that_is_drawn_in_parts_is_the_same(config: ImageConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    drawer = on_device(config)
    arguments = padded(made_up())
    codes, drawn = drawer.codes(*arguments)
    monkeypatch.setattr(draw, "BUDGET", 2_500_000)
    parts = drawer.codes(*arguments)
    assert torch.equal(parts[0], codes) and torch.equal(parts[1], drawn)


@pytest.mark.parametrize("image", list(RENDERERS))
def test_empty_batches_and_spectra_without_pixels(image: str) -> None:
    drawer = on_device(ImageConfig(image=image))
    arguments = padded([made_up_galaxy()])
    for rows, pixels in ((0, 4), (3, 0), (3, 1)):
        codes, drawn = drawer.codes(*(x[:rows, :pixels] if x.ndim == 2 else x[:rows] for x in arguments))
        assert codes.shape == (min(rows, 1), *drawer.code_shape) and not drawn.any() and not codes.any()


def test_what_is_not_in_order_is_left_to_the_kernels() -> None:
    flux, ivar, wavelength, mask, weighted = padded([made_up_galaxy()])
    for wrong in (wavelength.flip(1), wavelength.roll(100, 1)):
        codes, drawn = on_device(ImageConfig()).codes(flux, ivar, wrong, mask, weighted)
        assert not drawn.any() and not codes.any()


def test_what_stays_on_the_cpu_says_why() -> None:
    for config in (preset(name, "map2d") for name in RENDERERS["map2d"].presets):
        left = set(config.channels) & {"roi", "residual", "significance"}
        drawer = renderer(config).device()
        assert isinstance(drawer, str) == bool(left)
        assert not left or ("rounding" in drawer and left.pop() in drawer)


# Expanding

EXPANDED = [
    *(ImageConfig(size=size, block=block) for size in (224, 160) for block in (1, 2, 3, 4)),
    *(ImageConfig(block=3, size=size, channels=("mask", "snr", "flux")) for size in (224, 160)),
    *(preset(name, "map2d") for name in RENDERERS["map2d"].presets),
    *(preset(name, image) for name in ("paper", "robust") for image in ("simple", "overlap")),
    ImageConfig(block=100, colormap="magma"),
]


def random_codes(config: ImageConfig, count: int = 3) -> np.ndarray:
    shape = (count, *renderer(config).code_shape)
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("config", EXPANDED, ids=named)
def test_expanded_pictures_equal_those_of_the_renderer(config: ImageConfig) -> None:
    drawer, codes = renderer(config), random_codes(config)
    found = Expand(drawer)(torch.from_numpy(codes))
    assert found.shape == (3, 3, config.size, config.size) and found.is_contiguous()
    np.testing.assert_array_equal(found.permute(0, 2, 3, 1).numpy(), drawer.expand_batch(codes))


def test_expand_refuses_what_it_cannot_show_and_leaves_no_trace_in_checkpoints() -> None:
    expand = Expand(renderer(ImageConfig()))
    for wrong in (torch.zeros(2, 75, 75, dtype=torch.uint8), torch.zeros(2, 74, 74)):
        with pytest.raises(ValueError, match="codes must be uint8"):
            expand(wrong)
    assert not expand.state_dict()
    assert expand(torch.zeros(0, 74, 74, dtype=torch.uint8)).shape == (0, 3, 224, 224)


COMPILED = [preset("paper", "map2d"), ImageConfig(channels=("mask", "snr", "flux")), preset("paper", "simple")]


def check_compiled(configs: Sequence[ImageConfig], backend: str, device: str = "cpu") -> None:
    for config in configs:
        expand, codes = Expand(renderer(config)).to(device), torch.from_numpy(random_codes(config, 4)).to(device)
        compiled = torch.compile(expand, fullgraph=True, backend=backend)
        for count in (4, 3):
            assert torch.equal(compiled(codes[:count]), expand(codes[:count]))


def test_expand_is_one_graph() -> None:
    check_compiled(COMPILED, "eager")


@pytest.mark.skipif(not shutil.which("g++") and not shutil.which("clang++"), reason="no C++ compiler to compile with")
def test_expand_compiles() -> None:
    check_compiled(COMPILED[:1], "inductor")


# On a GPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("config", CONFIGS, ids=named)
def test_a_gpu_draws_the_same(config: ImageConfig) -> None:
    assert check(config, made_up(), "cuda") > 10


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_draws_real_spectra_the_same(real_spectra: list[Spectrum]) -> None:
    for config in CONFIGS:
        check(config, real_spectra, "cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_expands_the_same() -> None:
    for config in EXPANDED:
        codes = torch.from_numpy(random_codes(config))
        expand = Expand(renderer(config))
        assert torch.equal(expand.cuda()(codes.cuda()).cpu(), expand.cpu()(codes))
    check_compiled(COMPILED, "inductor", "cuda")

"""The tokenizer: what it must not see, what it must not care about, and that it learns."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from specshards.common.spectrum import Arrays
from specshards.shards.loader.batch import Stack
from specshards.shards.loader.stack import Stacker
from specshards.train.models.layers import patches
from specshards.train.models.tokenizer.config import SIZES, TokenizerConfig
from specshards.train.models.tokenizer.model import Tokenizer, centres
from specshards.train.models.tokenizer.pixels import (
    chi2,
    hide,
    per_object,
    regridded,
    scaled,
    seen_as,
    usable,
    without,
)
from specshards.train.models.tokenizer.wavelengths import WavelengthEncoding

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"width": 64, "layers": 2, "decoder_layers": 2, "heads": 4}


def log_grid(n: int, start: float = 3.58, step: float = 1e-4) -> np.ndarray:
    return 10.0 ** (start + step * np.arange(n))


def sky(wavelength: np.ndarray, temperature: float, line: float) -> np.ndarray:
    """A smooth continuum with an absorption line: something that can be seen at any resolution."""
    continuum = (wavelength / 5000) ** -temperature
    return continuum * (1 - 0.6 * np.exp(-0.5 * ((wavelength - line) / 12) ** 2))


def spectrum(seed: int, n: int = 640, *, start: float = 3.58, step: float = 1e-4, noise: float = 0.02) -> Arrays:
    rng = np.random.default_rng(seed)
    wavelength = log_grid(n, start, step)
    flux = sky(wavelength, rng.uniform(-6, 6), rng.uniform(3900, 4350)) + rng.normal(0, noise, n)
    flux *= 100
    ivar = np.full(n, (100 * noise) ** -2, np.float32)
    return Arrays(flux.astype(np.float32), ivar, wavelength, rng.random(n) > 0.95)


def batch_of(*spectra: Arrays) -> Stack:
    return Stacker("cpu", None)(list(spectra), np.random.default_rng(0))


def tokenizer(seed: int = 0, **more: int) -> Tokenizer:
    torch.manual_seed(seed)
    return Tokenizer(TokenizerConfig(**{**SMALL, **more})).eval()


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    """A small tokenizer that has seen synthetic spectra with pixels of two widths, beginning anywhere."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Tokenizer(TokenizerConfig(**SMALL)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    steps = 400
    for step in range(steps):
        starts = np.random.default_rng(step).uniform(3.58, 3.5801, 12)
        kinds = [{"start": s, "step": (1e-4, 1.5e-4)[i % 2]} for i, s in enumerate(starts)]
        batch = batch_of(*(spectrum(100 * step + i, 384, **kind) for i, kind in enumerate(kinds)))
        given, good = without(batch, hide(batch, 32, 0.15)), batch["ivar"] > 0
        loss = per_object(chi2(model(given), seen_as(batch, given)), good)[0].mean()
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def test_padding_and_batch_mates_change_nothing() -> None:
    model = tokenizer()
    spectra = [
        spectrum(i, n, step=s) for i, (n, s) in enumerate([(640, 1e-4), (333, 2e-4), (1210, 1e-4), (64, 1e-4)])
    ]
    together = batch_of(*spectra)
    drawn = model(together)
    assert drawn.shape == together["flux"].shape
    for i, one in enumerate(spectra):
        alone, n = batch_of(one), len(one[0])
        torch.testing.assert_close(model(alone)[0, :n], drawn[i, :n], rtol=1e-4, atol=1e-5)
        longer = {name: F.pad(alone[name], (0, 480)) for name in ("flux", "ivar", "wavelength")}
        torch.testing.assert_close(model(longer)[0, :n], drawn[i, :n], rtol=1e-4, atol=1e-5)


def test_the_order_of_the_spectra_and_of_the_patches_does_not_matter() -> None:
    model = tokenizer()
    batch = batch_of(*(spectrum(i) for i in range(4)))
    drawn = model(batch)
    order = torch.tensor([2, 0, 3, 1])
    turned = {name: batch[name][order] for name in ("flux", "ivar", "wavelength")}
    torch.testing.assert_close(model(turned), drawn[order], rtol=1e-4, atol=1e-5)
    # A patch says by its wavelengths where it lies, not by its number.
    shuffled = torch.randperm(batch["flux"].shape[1] // 32, generator=torch.Generator().manual_seed(0))
    mixed = {name: patches(batch[name], 32)[:, shuffled].flatten(1) for name in ("flux", "ivar", "wavelength")}
    torch.testing.assert_close(model(mixed), patches(drawn, 32)[:, shuffled].flatten(1), rtol=1e-4, atol=1e-5)


def test_bad_and_hidden_pixels_have_no_influence_at_all() -> None:
    model = tokenizer()
    batch = batch_of(*(spectrum(i) for i in range(3)))
    batch["ivar"][1, 96:150] = 0  # a whole patch, and more than half of the next one
    hidden = hide(batch, 32, 0.3, torch.Generator().manual_seed(0))
    flux = batch["flux"].clone().requires_grad_()
    drawn = model(without({**batch, "flux": flux}, hidden))
    drawn.square().sum().backward()
    assert flux.grad is not None
    unknown = (batch["ivar"] == 0) | hidden
    assert torch.all(flux.grad[unknown] == 0) and torch.any(flux.grad[~unknown] != 0)
    wild = {**batch, "flux": torch.where(unknown, 1e30, batch["flux"])}
    assert torch.equal(model(without(wild, hidden)), drawn)


def test_hidden_patches_are_whole_and_something_is_left() -> None:
    batch = batch_of(*(spectrum(i) for i in range(6)), spectrum(9, 32))
    hidden = hide(batch, 32, 0.5, torch.Generator().manual_seed(1))
    good = batch["ivar"] > 0
    whole = patches(hidden, 32).any(dim=2)
    assert torch.equal(hidden, whole.repeat_interleave(32, dim=1) & good)
    assert not hidden[6].any() and (good & ~hidden).any(dim=1).all() and 0.3 < whole[:6].float().mean() < 0.7
    assert not hide(batch, 32, 1.0).any()


def test_a_spectrum_without_a_good_pixel_is_drawn_as_something_finite() -> None:
    model = tokenizer()
    flux, ivar, wavelength, _ = spectrum(0)
    batch = batch_of((flux, ivar, wavelength, np.ones(len(flux), bool)), spectrum(1))
    drawn = model(batch)
    assert torch.isfinite(drawn).all()
    mean, some = per_object(chi2(drawn, scaled(batch["flux"], batch["ivar"])), batch["ivar"] > 0)
    assert some.tolist() == [False, True] and mean[0] == 0


def test_the_scale_of_the_flux_does_not_matter() -> None:
    model = tokenizer()
    batch = batch_of(spectrum(0))
    bright = {**batch, "flux": batch["flux"] * 1e-17, "ivar": batch["ivar"] * 1e34}
    torch.testing.assert_close(model(bright), model(batch), rtol=1e-4, atol=1e-5)


def test_the_scale_is_the_median_and_for_faint_spectra_their_width() -> None:
    rng = np.random.default_rng(0)
    bright, faint = rng.normal(50, 1, 1001).astype(np.float32), rng.normal(0, 3, 1001).astype(np.float32)
    flux = torch.tensor(np.stack([bright, faint]))
    ivar = torch.ones_like(flux) * 4
    ivar[:, :100] = 0
    found = scaled(flux, ivar)
    assert found.scale[0, 0] == np.median(bright[100:])
    width = 1.4826 * np.median(np.abs(faint[100:] - np.median(faint[100:])))
    assert found.scale[1, 0].item() == pytest.approx(width, rel=1e-5)
    assert torch.all(found.flux[:, :100] == 0) and torch.all(found.error[:, 100:] > 0)
    # ivar of ones is what the loader gives for a survey without errors.
    assert torch.all(scaled(flux, (ivar > 0).float()).error == 0)


def test_wavelengths_are_encoded_as_the_formula_says() -> None:
    encoding = WavelengthEncoding(32, 32, 0.1, 1e6)
    wavelength = np.zeros((2, 100), np.float32)
    wavelength[0, :70], wavelength[1, :96] = log_grid(70), np.linspace(3600, 3700, 96)
    got = encoding(torch.from_numpy(wavelength)).numpy()
    omega = 2 * np.pi / np.logspace(6, -1, 16)
    for i, n in enumerate((70, 96)):
        for t in range(4):
            mine = wavelength[i, 32 * t : min(32 * (t + 1), n)].astype(np.float64)[:, None]
            expected = np.zeros(32)
            if len(mine):
                expected = np.concatenate([np.sin(mine * omega).mean(axis=0), np.cos(mine * omega).mean(axis=0)])
            np.testing.assert_allclose(got[i, t], expected, atol=2e-6)


def test_patches_with_more_than_half_bad_pixels_are_not_used() -> None:
    good = torch.ones(1, 96, dtype=torch.bool)
    good[0, :16], good[0, 32:49] = False, False
    assert usable(patches(good, 32)).tolist() == [[True, False, True]]
    assert usable(patches(good[:, :70], 32)).tolist() == [[True, False, False]]


def test_chi2_is_that_of_numpy() -> None:
    rng = np.random.default_rng(3)
    flux, drawn = rng.normal(1, 0.3, (2, 50)), rng.normal(1, 0.3, (2, 50))
    error = rng.uniform(0.01, 0.2, (2, 50))
    batch = [torch.tensor(x, dtype=torch.float32) for x in (flux, error**-2.0)]
    batch[1][0, :7] = 0
    pixels = scaled(*batch)
    scale = pixels.scale.double().numpy()
    residual = (drawn - flux / scale) / np.hypot(error / scale, 0.05)
    expected = np.where(np.abs(residual) <= 3, residual**2, 6 * np.abs(residual) - 9)
    expected[0, :7] = 0
    got = chi2(torch.tensor(drawn, dtype=torch.float32), pixels, floor=0.05, huber=3.0)
    np.testing.assert_allclose(got.numpy(), expected, rtol=2e-4, atol=1e-5)


def test_wider_pixels_are_weighted_means() -> None:
    batch = batch_of(spectrum(5, 100, noise=0.1))
    pixels = scaled(batch["flux"], batch["ivar"])
    wide, wavelength = regridded(pixels, batch["wavelength"], 4, 3)
    flux, error, good = (x[0].double().numpy() for x in (pixels.flux, pixels.error, pixels.good))
    assert wide.flux.shape == (1, (128 - 4) // 3)
    for j in range(30):
        part = slice(4 + 3 * j, 7 + 3 * j)
        assert bool(wide.good[0, j]) == good[part].all()
        if wide.good[0, j]:
            weight = error[part] ** -2.0
            assert wide.flux[0, j].item() == pytest.approx((flux[part] * weight).sum() / weight.sum(), rel=1e-5)
            assert wide.error[0, j].item() == pytest.approx(weight.sum() ** -0.5, rel=1e-5)
            assert wavelength[0, j].item() == pytest.approx(batch["wavelength"][0, part].mean().item())
    assert not wide.good[0, 32:].any() and torch.all(wavelength[0, 32:] == 0)


def test_its_own_grid_as_a_target_is_its_own_drawing() -> None:
    model = tokenizer()
    batch = batch_of(spectrum(0), spectrum(1, 333))
    batch["ivar"][0, 64:140] = 0
    own, asked = model(batch), model(batch, target=batch["wavelength"])
    there = batch["wavelength"] > 0
    torch.testing.assert_close(own[there], asked[there], rtol=1e-4, atol=1e-5)


def test_it_learns_to_draw_and_to_fill_gaps(trained: Tokenizer) -> None:
    batch = batch_of(*(spectrum(10_000 + i, 384) for i in range(32)))
    unseen = hide(batch, 32, 0.2, torch.Generator().manual_seed(1))
    given = without(batch, unseen)
    pixels = seen_as(batch, given)
    with torch.inference_mode():
        drawn = trained(given)
    level = torch.where(pixels.good, pixels.flux, torch.nan).nanmean(dim=1, keepdim=True).expand_as(drawn)
    # A line in a hidden patch cannot be known; the continuum around it can.
    for where, share in ((pixels.good & ~unseen, 0.2), (unseen, 0.8)):
        mine, constant = (float(per_object(chi2(d, pixels), where)[0].median()) for d in (drawn, level))
        assert mine < share * constant, (mine, constant)


def test_a_grid_shifted_by_half_a_pixel_is_drawn_alike(trained: Tokenizer) -> None:
    batch = batch_of(*(spectrum(20_000 + i, 384) for i in range(16)))
    own = batch["wavelength"]
    shifted = own * 10**0.5e-4
    with torch.inference_mode():
        drawn, moved = trained(batch), trained(batch, target=shifted)
    expected = torch.tensor(
        np.stack([np.interp(s, w, d) for s, w, d in zip(shifted, own, drawn, strict=True)]), dtype=torch.float32
    )
    inside = slice(0, 383)
    error = (moved - expected)[:, inside].square().mean().sqrt()
    others = (drawn - drawn.roll(1, 0))[:, inside].square().mean().sqrt()
    assert error < 0.2 * others


def test_resampling_moves_an_embedding_less_than_another_object_does(trained: Tokenizer) -> None:
    def embedding(batch: Stack) -> Tensor:
        with torch.inference_mode():
            tokens = trained.encoder(batch["flux"], batch["ivar"], batch["wavelength"])
        return (tokens.values * tokens.used[..., None]).sum(dim=1) / tokens.used.sum(dim=1, keepdim=True)

    def seen(i: int, step: float) -> Arrays:
        """The same sky, and the same span of wavelengths, in pixels of another width."""
        rng = np.random.default_rng(i)
        wavelength = log_grid(round(576e-4 / step), 3.58, step)
        flux = 100 * sky(wavelength, rng.uniform(-6, 6), rng.uniform(3900, 4250))
        flux = flux + np.random.default_rng(i + round(step * 1e7)).normal(0, 2, len(flux))
        ivar, mask = np.full(len(flux), 0.25, np.float32), np.zeros(len(flux), np.bool_)
        return Arrays(flux.astype(np.float32), ivar, wavelength, mask)

    fine, coarse = (embedding(batch_of(*(seen(i, step) for i in range(12)))) for step in (1e-4, 1.5e-4))
    moved = (fine - coarse).norm(dim=1)
    others = torch.cdist(fine, fine)[~torch.eye(12, dtype=torch.bool)].view(12, 11)
    assert torch.all(moved < others.median(dim=1).values) and (moved[:, None] < others).float().mean() > 0.75


def test_centres_are_means_of_what_is_there() -> None:
    wavelength = torch.zeros(1, 96)
    wavelength[0, :40] = torch.linspace(4000, 4039, 40)
    np.testing.assert_allclose(centres(wavelength, 32)[0].numpy(), [4015.5, 4035.5, 0])


def test_sizes_are_those_of_the_paper() -> None:
    base = TokenizerConfig(**SIZES["base"])
    assert (base.width, base.layers, base.decoder_layers, base.heads, base.patch) == (512, 6, 6, 8, 32)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in Tokenizer(base).parameters())
    assert 37e6 < parameters < 39e6


def test_it_opens_as_any_model_of_transformers_does(tmp_path: Path) -> None:
    model = tokenizer()
    with torch.no_grad():
        for parameter in model.parameters():  # no two alike: none may come back under another's name
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path)
    again = Tokenizer.from_pretrained(tmp_path)
    weights = again.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    batch = batch_of(spectrum(0))
    torch.testing.assert_close(again(batch), model(batch), rtol=1e-4, atol=1e-5)

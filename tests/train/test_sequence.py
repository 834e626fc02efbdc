"""The one-dimensional transformer: what it must not see, that it learns, and that it can be kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine
from specshards.shards import loader
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.write.build import build
from specshards.train.models.parameters import parameter_groups
from specshards.train.models.sequence import CONFIG, SEQUENCES, WEIGHTS, SequenceConfig, SequenceModel, scaled
from tests.oracles.sequences import batch_of, model, spectrum

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("patch", [16, 32, 24])
def test_padding_and_batch_mates_change_nothing(patch: int) -> None:
    network = model(config=SequenceConfig(layers=2, width=64, heads=4, patch=patch))
    spectra = [spectrum(i, n, i % 2) for i, n in enumerate((700, 333, 1210, 64))]
    together = network(batch_of(*spectra))
    assert together.shape == (4, 3) and together.std(dim=0).min() > 1e-4
    for i, one in enumerate(spectra):
        alone = batch_of(one)
        torch.testing.assert_close(network(alone)[0], together[i], rtol=1e-4, atol=1e-5)
        longer = {**alone, **{name: F.pad(alone[name], (0, 480)) for name in ("flux", "ivar", "wavelength")}}
        torch.testing.assert_close(network(longer)[0], together[i], rtol=1e-4, atol=1e-5)


def test_bad_pixels_have_no_gradient_and_good_ones_have() -> None:
    network = model()
    batch = batch_of(spectrum(1), spectrum(2, good=0.3), spectrum(3, n=300))
    batch["flux"][0, 5] = 1e30  # not believed, because its ivar is 0
    batch["ivar"][0, 5] = 0
    batch["ivar"][1, 64:96] = 0  # whole tokens
    flux = batch["flux"].requires_grad_()
    network(batch).square().sum().backward()
    bad = batch["ivar"] == 0
    assert flux.grad is not None and torch.isfinite(flux.grad).all()
    assert (flux.grad[bad] == 0).all() and (flux.grad[~bad] != 0).float().mean() > 0.99
    changed = {**batch, "flux": torch.where(bad, torch.randn_like(flux) * 1e5, flux.detach())}
    assert torch.equal(network(changed), network(batch))


def test_scale_of_the_flux_does_not_matter_and_equals_numpy() -> None:
    batch = batch_of(spectrum(1), spectrum(2, n=500))
    good = batch["ivar"] > 0
    found = scaled(batch["flux"], good)
    for i in range(2):
        known = batch["flux"][i][good[i]].numpy().astype(np.float64)
        middle = np.sort(known)[(len(known) - 1) // 2]  # torch takes the lower of the two in the middle
        width = 1.4826 * np.sort(np.abs(known - middle))[(len(known) - 1) // 2]
        np.testing.assert_allclose(found[i][good[i]], np.arcsinh((known - middle) / width), rtol=1e-3, atol=1e-4)
    assert not found[~good].any()
    torch.testing.assert_close(scaled(batch["flux"] * 1e-17, good), found, rtol=1e-3, atol=1e-4)
    constant = torch.tensor([[3.0, 3, 3, 3], [1, 1, 1, 9], [0, 0, 0, 0]])
    flat = scaled(constant, torch.tensor([[True] * 4] * 2 + [[False] * 4]))
    torch.testing.assert_close(flat, torch.tensor([[0.0] * 4, [0, 0, 0, float(np.arcsinh(1))], [0.0] * 4]))


def test_a_spectrum_without_a_good_pixel_has_an_answer() -> None:
    flux, ivar, wavelength, mask = spectrum(1)
    lost = (flux, ivar, wavelength, np.ones_like(mask))
    answer = model()(batch_of(lost, spectrum(2)))
    assert torch.isfinite(answer).all()
    torch.testing.assert_close(answer[1], model()(batch_of(spectrum(2)))[0], rtol=1e-4, atol=1e-5)


def test_the_place_of_a_line_counts_by_wavelength_not_by_pixel() -> None:
    """A spectrum that begins ten tokens later has the positions of its wavelengths."""
    encoder = model().encoder
    flux, ivar, wavelength, mask = spectrum(1, n=960)
    whole, cut = (batch_of((flux[s:], ivar[s:], wavelength[s:], mask[s:])) for s in (0, 320))
    places = [encoder.positions(encoder.ends(encoder.patches(b["wavelength"]))[0])[0] for b in (whole, cut)]
    torch.testing.assert_close(places[0][10:], places[1], rtol=0, atol=5e-3)
    assert (places[0][:20] - places[1]).abs().max() > 0.5


def test_it_learns_two_kinds_of_spectra_by_heart() -> None:
    network = model(head_size=2).train()
    batch = batch_of(*(spectrum(i, 700 + 7 * i, i % 2) for i in range(32)))
    kinds = torch.arange(32) % 2
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    first = None
    for _ in range(60):
        loss = F.cross_entropy(network(batch), kinds)
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05 < 0.5 < first
    fresh = batch_of(*(spectrum(100 + i, 800, i % 2) for i in range(40)))
    assert (network.eval()(fresh).argmax(dim=1) == torch.arange(40) % 2).float().mean() > 0.8


def test_it_reads_what_the_loader_gives(spectra_folder: Path, tmp_path: Path) -> None:
    build(ShardConfig(encoding="flux"), spectra_folder, tmp_path / "s", engine=Engine(workers=0))
    network = model()
    with loader.open(tmp_path / "s", "val", 8, view="spectra") as batches, torch.inference_mode():
        for batch in batches.spectra():
            with torch.autocast("cpu", dtype=torch.bfloat16):
                rough = network(batch)
            exact = network(batch)
            assert exact.shape == (8, 3)
            torch.testing.assert_close(rough.float(), exact, rtol=0.1, atol=0.05)


def test_a_saved_model_is_the_same_and_a_broken_one_is_named(tmp_path: Path) -> None:
    network, batch = model(5, head_size=7), batch_of(spectrum(1))
    network.save(tmp_path / "new")
    network.save(tmp_path)
    for folder in (tmp_path / "new", tmp_path):
        again = SequenceModel.load(folder).eval()
        weights = again.state_dict()
        assert again.config == network.config and weights.keys() == network.state_dict().keys()
        assert all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())
        torch.testing.assert_close(again(batch), network(batch), rtol=1e-4, atol=1e-5)
    (tmp_path / CONFIG).write_text('{"layers": 3, "width": 64, "heads": 4, "head_size": 7}')
    with pytest.raises(JobError, match=r"cannot be read.*train it again"):
        SequenceModel.load(tmp_path)
    network.save(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"nothing")
    with pytest.raises(JobError, match=str(tmp_path)):
        SequenceModel.load(tmp_path)
    with pytest.raises(JobError, match="No such file"):
        SequenceModel.load(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="multiple of twice the heads"):
        SequenceConfig(width=100, heads=8)


def test_the_published_size_and_its_groups() -> None:
    assert (SEQUENCES["paper"].layers, SEQUENCES["paper"].heads, SEQUENCES["paper"].width) == (6, 8, 512)
    network = model()
    groups = parameter_groups(network, weight_decay=0.1, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert len(scale) == len(list(network.parameters()))
    assert scale[id(network.head[2].weight)] == 1
    assert scale[id(network.encoder.layers[1].out.weight)] == 0.5
    assert scale[id(network.encoder.embed_flux.weight)] == 0.5**3

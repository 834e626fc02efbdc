"""Attention rolled out, put back onto wavelengths, and drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from transformers import ViTConfig, ViTForImageClassification

from specshards.common.errors import JobError, UsageError
from specshards.ingest.spectra.plots import strong_lines
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.render import ImageConfig, renderer
from specshards.train.models.attention import attend, per_angstrom, rollout
from specshards.train.models.picture import SpectrumModel
from specshards.train.network import open_model
from specshards.train.tasks.text import quantity
from specshards.train.use.explain import TABLE, draw, explain, look
from specshards.train.use.pictures import pictures
from tests.conftest import make_spectrum
from tests.oracles.small_run import IMAGE, small_run, small_shards

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    return small_run(small_shards(spectra_folder, folder / "shards"), folder / "run")


@pytest.mark.parametrize("layers", [1, 4])
def test_rollout_is_the_product_of_the_layers(layers: int) -> None:
    rng = np.random.default_rng(layers)
    attention = rng.dirichlet(np.full(7, 0.3), size=(layers, 2, 3, 7))  # layers, batch, heads, queries, keys
    start = np.stack([np.eye(7)[0], rng.dirichlet(np.full(7, 0.5))])  # a CLS token, and a mean with weights
    found = rollout([torch.from_numpy(weights) for weights in attention], torch.from_numpy(start)).numpy()
    for b in range(2):
        product = np.eye(7)
        for layer in range(layers):
            product = (0.5 * attention[layer, b].mean(axis=0) + 0.5 * np.eye(7)) @ product
        np.testing.assert_allclose(found[b], start[b] @ product, rtol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)


def test_a_token_that_looks_at_itself_alone_sees_nothing_else() -> None:
    found = rollout([torch.eye(5).expand(1, 2, 5, 5)] * 3, torch.tensor([[0.5, 0, 0, 0.25, 0.25]]))
    assert found.tolist() == [[0.5, 0, 0, 0.25, 0.25]]


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float64, (5, 5), elements=st.floats(0, 1)),
    st.sampled_from(["rows", "boustrophedon", "patch", "simple", "overlap"]),
    st.sampled_from(["native", "stretch", "log"]),
    st.floats(3000, 9000), st.floats(0.5, 4),
)  # fmt: skip
def test_no_attention_is_lost_on_the_way_to_wavelengths(weights, layout, grid, start, step) -> None:
    wavelength = start + step * np.arange(1500)
    lines = layout in ("simple", "overlap")
    config = ImageConfig(image=layout, size=80) if lines else ImageConfig(size=80, block=2, order=layout, grid=grid)
    spread = per_angstrom(weights, renderer(config).wavelengths(wavelength))
    assert (np.diff(spread.edges) > 0).all() and (spread.density >= 0).all()
    assert (spread.density * np.diff(spread.edges)).sum() + spread.blank == pytest.approx(weights.sum())


def test_even_attention_is_even_along_a_line_picture() -> None:
    config = ImageConfig(image="simple", size=80)
    spread = per_angstrom(np.full((5, 5), 1 / 25), renderer(config).wavelengths(np.linspace(3000, 11000, 5000)))
    np.testing.assert_allclose(spread.density, 1 / (config.window[1] - config.window[0]), rtol=1e-9)
    np.testing.assert_allclose(spread.relative, 1, rtol=1e-12)
    assert spread.blank == 0


@pytest.mark.parametrize("config", [ImageConfig(), ImageConfig(image="overlap"), ImageConfig(grid="log", block=2)])
def test_even_attention_is_even_and_what_shows_nothing_is_blank(config: ImageConfig) -> None:
    there = renderer(config).wavelengths(4000.0 + np.arange(3000.0))
    spread = per_angstrom(np.full((14, 14), 1 / 196), there)
    np.testing.assert_allclose(spread.relative, 1, rtol=1e-12)
    assert spread.blank == pytest.approx(np.isnan(there).all(axis=0).mean())


def brightness_model(size: int) -> SpectrumModel:
    """One layer whose CLS token attends to bright patches: keys are a patch's brightness, the query is constant."""
    network = ViTForImageClassification(
        ViTConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=size,
            patch_size=16, num_labels=3,
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in network.vit.parameters():
            parameter.zero_()
        embeddings, layer = network.vit.embeddings, network.vit.layers[0]
        # Brightness and its negative beside two large constants: the norm before the layer leaves it nearly as it is.
        embeddings.patch_embeddings.projection.weight[0] = 1 / 256
        embeddings.patch_embeddings.projection.weight[1] = -1 / 256
        embeddings.position_embeddings[..., 2], embeddings.position_embeddings[..., 3] = 10, -10
        layer.layernorm_before.weight.fill_(1)
        layer.attention.k_proj.weight[0, 0] = 50
        layer.attention.q_proj.bias[0] = 8
    return SpectrumModel(network, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).eval()


@pytest.mark.parametrize("order", ["rows", "boustrophedon", "patch"])
@pytest.mark.parametrize("line", [3800.0, 5200.0, 7350.0, 9000.0])
def test_a_model_that_looks_at_a_line_is_seen_to_do_so(order: str, line: float) -> None:
    config = ImageConfig(size=160, block=2, order=order, channels=("flux", "none", "none"))
    wavelength = 10 ** (3.5682 + 1e-4 * np.arange(3909))
    flux = 50 * np.exp(-0.5 * ((wavelength - line) / 15) ** 2)
    drawer = renderer(config)
    picture = drawer.expand(drawer.codes(flux, None, wavelength, None))
    _, weights = attend(brightness_model(160), torch.from_numpy(picture).permute(2, 0, 1)[None])
    spread = per_angstrom(weights[0].numpy(), renderer(config).wavelengths(wavelength))
    at = np.abs(spread.wavelength - line).argmin()
    assert spread.relative[at] == pytest.approx(spread.relative.max()) and spread.relative[at] > 1.5


def test_attention_is_that_of_transformers_and_the_model_is_left_as_it_was(run: Path) -> None:
    _, model = open_model(run)
    model.eval()
    pixels = torch.randint(0, 256, (2, 3, 80, 80), dtype=torch.uint8)
    with torch.inference_mode():
        before = model(pixels)
    implementation = model.network.config._attn_implementation
    logits, weights = attend(model, pixels)
    assert model.network.config._attn_implementation == implementation != "eager"
    assert not model.network.config.output_attentions and not model.network.base_model._forward_hooks
    with torch.inference_mode():
        assert torch.equal(model(pixels), before)
    torch.testing.assert_close(logits, before, rtol=1e-4, atol=1e-5)
    other = ViTForImageClassification.from_pretrained(run, attn_implementation="eager").eval()
    normal = (pixels / 255 - 0.5) / 0.5
    with torch.inference_mode():
        attentions = other(pixel_values=normal, output_attentions=True).attentions
    expected = rollout(attentions, torch.eye(26)[:1].expand(2, 26))[:, 1:]
    expected = expected / expected.sum(dim=1, keepdim=True)
    torch.testing.assert_close(weights.reshape(2, -1), expected, rtol=1e-4, atol=1e-7)
    assert weights.shape == (2, 5, 5)


def test_a_network_without_a_cls_token_is_refused() -> None:
    from transformers import ResNetConfig, ResNetForImageClassification, SwinConfig, SwinForImageClassification

    resnet = ResNetForImageClassification(ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1]))
    swin = SwinForImageClassification(
        SwinConfig(image_size=64, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4)
    )
    for network in (resnet, swin):
        with pytest.raises(UsageError, match=rf"{type(network).__name__}: has no attention from a CLS token"):
            attend(
                SpectrumModel(network, (0.5,) * 3, (0.5,) * 3).eval(), torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
            )


def test_explain_draws_the_first_objects(run: Path, spectra_folder: Path, tmp_path: Path, capsys) -> None:
    out = explain(run, spectra_folder, out=tmp_path / "seen", limit=3, device="cpu")
    files = sorted(path.name for path in out.iterdir())
    assert files == ["000_1000.png", "001_1001.png", "002_1002.png", TABLE]
    table = pq.read_table(out / TABLE).to_pylist()
    assert {row["picture"] for row in table} == {IMAGE.image}
    assert [row["object_id"] for row in table] == ["1000", "1001", "1002"]
    for row in table:
        wavelength, attention = np.array(row["wavelength"]), np.array(row["attention"])
        assert len(wavelength) == 3909 and row["trained_on_mock"] is True
        assert (attention * np.gradient(wavelength)).sum() + row["blank"] == pytest.approx(1, rel=1e-3)
    assert f"{out}: 3 pictures and {TABLE}" in capsys.readouterr().out
    (out / "notes.png").write_bytes(b"mine")
    explain(run, spectra_folder, out=out, limit=1, device="cpu")
    assert sorted(path.name for path in out.iterdir()) == ["000_1000.png", TABLE, "notes.png"]


def test_the_default_folder_is_in_the_run(run: Path, spectra_folder: Path) -> None:
    assert explain(run, spectra_folder, limit=1, device="cpu") == run / "explain"
    assert (run / "explain" / "000_1000.png").is_file()


def sights(run: Path, spectra, folder: Path):
    write_parquet(to_table(spectra), folder / "part-00000.parquet", {})
    card, model = open_model(run)
    (batch,) = pictures(folder, IMAGE, 16)
    return look(card, model.eval(), IMAGE, batch)


def test_lines_stand_at_the_known_redshift_and_titles_are_plain_text(run: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    odd = "../a b\n$x^{<i>"
    labels = {"class": "QSO", "z": 0.7}
    known, unknown = sights(
        run, [make_spectrum(0, rng, object_id=odd, labels=labels), make_spectrum(1, rng, labels={})], tmp_path
    )
    figure = draw(known, mock=True, lines=True)
    marks = {text.get_text(): text.get_position()[0] for text in figure.axes[0].texts}
    rest = dict(strong_lines("QSO"))
    assert marks["Mg II"] == pytest.approx(rest["Mg II"] * 1.7) and "Lyα" not in marks
    title = figure.get_suptitle()
    assert title.startswith("MOCK data, model of MOCK data, lamost ../a b $x^{<i>\npredicted: ")
    assert title.endswith("known: QSO, z = 0.7")
    assert not draw(known, mock=True, lines=False).axes[0].texts
    assert draw(unknown, mock=True, lines=True).get_suptitle().endswith("known: nothing")
    assert unknown.z is not None and unknown.kind in ("STAR", "GALAXY", "QSO")
    explain(run, tmp_path, out=tmp_path / "seen", device="cpu")
    assert (tmp_path / "seen" / "000__a_b_x_i_.png").stat().st_size > 10_000


def test_pictures_come_with_their_spectra(spectra_folder: Path) -> None:
    drawer = renderer(IMAGE)
    met = 0
    for batch in pictures(spectra_folder, IMAGE, 70):
        assert len(batch.spectra) == len(batch.rows) == len(batch.pixel_values)
        for picture, spectrum in zip(batch.pixel_values, batch.spectra, strict=True):
            np.testing.assert_array_equal(drawer.expand(drawer.codes(*spectrum)), picture)
        met += len(batch.rows)
    assert met == 297


def test_mistakes_are_one_line(run: Path, spectra_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--limit 0"):
        explain(run, spectra_folder, limit=0)
    with pytest.raises(UsageError, match="no such folder"):
        explain(tmp_path / "nowhere", spectra_folder)
    (tmp_path / "notes.fits").write_text("no FITS here")
    with pytest.raises(JobError, match=r"no object of 1 could be read \(notes.fits"):
        explain(run, tmp_path / "notes.fits", out=tmp_path / "seen", device="cpu")


@pytest.mark.parametrize(
    ("value", "std", "said"),
    [(5250.3, 172.4, "x = 5250 ± 172 K"), (4.6441, 0.158, "x = 4.64 ± 0.16 K"), (5250.3, float("nan"), "x = 5250 K"),
     (0.25, 0.0, "x = 0.25 K")],
)  # fmt: skip
def test_a_number_is_said_to_the_second_digit_of_its_width(value: float, std: float, said: str) -> None:
    assert quantity("x", value, std, "K") == said

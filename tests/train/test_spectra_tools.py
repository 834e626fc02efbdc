"""Looking into models that read spectra: vectors, and attention token by token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine
from specshards.ingest.mock import MockConfig, write
from specshards.ingest.spectra.plots import strong_lines
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.write.build import build
from specshards.train.__main__ import app
from specshards.train.config import RunOptions, TrainConfig
from specshards.train.fit import fit
from specshards.train.models.attention import per_token
from specshards.train.models.sequence import SequenceConfig, SequenceModel
from specshards.train.network import open_any
from specshards.train.use.embed import embed
from specshards.train.use.explain import TABLE, Sight, draw, explain, look
from specshards.train.use.pictures import pictures, spectra
from specshards.train.use.predict import Predictor
from tests.conftest import call, make_spectrum, near_infrared
from tests.oracles.sequences import batch_of, model, spectrum
from tests.oracles.small_run import IMAGE

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shards(spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tools") / "shards"
    build(
        ShardConfig(image=IMAGE, encoding="flux", samples_per_shard=60), spectra_folder, out, engine=Engine(workers=0)
    )
    return out


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = TrainConfig(
        task="classify,redshift", shards=(str(shards),), backbone="sequence-tiny", epochs=2, batch_size=16
    )
    return fit(config, tmp_path_factory.mktemp("tools") / "run", RunOptions(device="cpu", threads=1, tracker="none"))


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four FITS files with lines at known redshifts, on another grid than the model learnt from."""
    folder = tmp_path_factory.mktemp("fits")
    write(MockConfig("sdss", 4, damaged_fraction=0, seed=3), folder, workers=1)
    return folder


def test_weights_are_the_product_of_what_the_forward_pass_mixes_with(monkeypatch: pytest.MonkeyPatch) -> None:
    network = model(config=SequenceConfig(layers=3, width=64, heads=4, patch=32))
    batch = batch_of(spectrum(1), spectrum(2, n=300), spectrum(3, n=900, good=0.05))
    batch["ivar"][0, 64:128] = 0
    seen = []

    def watched(query, key, value, attn_mask):  # type: ignore[no-untyped-def]
        seen.append((query, key, attn_mask))
        return plain(query, key, value, attn_mask=attn_mask)

    plain = F.scaled_dot_product_attention
    with torch.inference_mode():
        with monkeypatch.context() as patch:
            patch.setattr(F, "scaled_dot_product_attention", watched)
            expected = network(batch)
        logits, weights, _ = network.attend(batch)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)
    tokens = weights.shape[1]
    product = np.broadcast_to(np.eye(tokens), (3, tokens, tokens))
    for query, key, mask in seen:
        q, k = query.double().numpy(), key.double().numpy()
        scores = np.where(mask.numpy(), q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1]), -np.inf)
        share = np.exp(scores - scores.max(axis=3, keepdims=True))
        share = (share / share.sum(axis=3, keepdims=True)).mean(axis=1)
        product = 0.5 * (share + np.eye(tokens)) @ product
    counted = (batch["ivar"].numpy().reshape(3, tokens, -1) > 0).any(axis=2)
    start = counted / counted.sum(axis=1, keepdims=True)
    assert len(seen) == 3 and weights.dtype == torch.float64
    np.testing.assert_allclose(weights.numpy(), (start[:, None] @ product)[:, 0], rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(weights.sum(dim=1), 1, rtol=1e-12)


def test_only_tokens_with_good_pixels_have_weight_and_ends_are_wavelengths() -> None:
    batch = batch_of(spectrum(1, n=700), spectrum(2, n=333))
    batch["ivar"][0, 64:160] = 0
    batch["ivar"][1] = 0
    with torch.inference_mode():
        logits, weights, ends = model().attend(batch)
    good = (batch["ivar"].reshape(2, -1, 32) > 0).any(dim=2)
    assert torch.equal(weights[0] > 0, good[0]) and not good[0, 2:5].any() and not good[1].any()
    assert torch.isfinite(logits).all() and weights[1, 0] == 1 and not weights[1, 1:].any()
    for i, (n, one) in enumerate(((700, spectrum(1, n=700)), (333, spectrum(2, n=333)))):
        starts = np.arange(0, n, 32)
        expected = np.stack([one[2][starts], one[2][np.minimum(starts + 31, n - 1)]], axis=1)
        np.testing.assert_allclose(ends[i, : len(starts)], expected, rtol=1e-6)
        assert not ends[i, len(starts) :].any()


def test_padding_and_batch_mates_change_neither_vectors_nor_weights() -> None:
    network = model()
    spectra = [spectrum(i, n, i % 2) for i, n in enumerate((700, 333, 1210, 64))]
    together = batch_of(*spectra)
    with torch.inference_mode():
        vectors, (_, weights, ends) = network.represent(together), network.attend(together)
        assert vectors.shape == (4, 64) and vectors.std(dim=0).min() > 1e-4
        torch.testing.assert_close(network.head(vectors), network(together))
        for i, one in enumerate(spectra):
            alone = batch_of(one)
            for longer in (0, 480):
                wide = {name: F.pad(alone[name], (0, longer)) for name in ("flux", "ivar", "wavelength")}
                torch.testing.assert_close(network.represent(wide)[0], vectors[i], rtol=1e-4, atol=1e-5)
                _, mine, places = network.attend(wide)
                tokens = min(mine.shape[1], weights.shape[1])
                torch.testing.assert_close(mine[0, :tokens], weights[i, :tokens], rtol=1e-4, atol=1e-7)
                assert not mine[0, tokens:].any() and not weights[i, tokens:].any()
                assert torch.equal(places[0, :tokens], ends[i, :tokens])


@settings(max_examples=80, deadline=None)
@given(
    hnp.arrays(np.float64, 12, elements=st.floats(0.01, 1)), st.integers(1, 32), st.floats(0.5, 3),
    st.sets(st.integers(0, 10), max_size=4), st.booleans(), st.integers(1, 12),
)  # fmt: skip
def test_no_attention_is_lost_and_gaps_have_none(weights, patch, step, gaps, logarithmic, tokens) -> None:
    weights = weights[:tokens]
    pixels = np.arange(tokens * patch)
    wave = 4000 * 1.0003**pixels if logarithmic else 4000 + step * pixels
    gaps = {at for at in gaps if at < tokens - 1} if len(gaps) < (tokens - 1) / 2 else set()  # most steps are none
    for at in gaps:
        wave[(at + 1) * patch :] += 700
    ends = np.pad(wave.reshape(tokens, patch)[:, [0, -1]], ((0, 2), (0, 0)))
    spread = per_token(np.pad(weights, (0, 2)), ends)
    width = np.diff(spread.edges)
    assert (width > 0).all() and len(width) == tokens + len(gaps) and spread.blank == 0
    assert (spread.density * width).sum() == pytest.approx(weights.sum())
    np.testing.assert_allclose(spread.relative[spread.relative > 0], weights * tokens)
    inside = [(spread.edges[:-1] <= low) & (high <= spread.edges[1:]) for low, high in ends[:tokens]]
    assert [(here * spread.density * width).sum() for here in inside] == pytest.approx(weights.tolist())
    assert width[spread.density == 0] == pytest.approx(700, abs=10) and (spread.density == 0).sum() == len(gaps)


def test_even_attention_is_even_over_the_tokens_that_count() -> None:
    ends = np.array([[4000, 4031], [4032, 4063], [4064, 4095], [4096, 4096], [0, 0]], np.float32)
    spread = per_token(np.array([1, 1, 0, 1, 0]) / 3, ends)
    assert spread.edges.tolist() == [3999.5, 4031.5, 4063.5, 4095.5, 4096.5]
    assert spread.wavelength.tolist() == [4015.5, 4047.5, 4079.5, 4096]
    np.testing.assert_allclose(spread.relative, [1, 1, 0, 1])
    np.testing.assert_allclose(spread.density, [1 / 96, 1 / 96, 0, 1 / 3])


@pytest.mark.parametrize("line", [4050.0, 4300.0, 4622.0])
def test_a_model_that_looks_at_a_line_is_seen_to_do_so(line: float) -> None:
    """Keys are a token's mean flux, the query is constant."""
    network = SequenceModel(SequenceConfig(layers=1, width=16, heads=1), 3).eval()
    layer = network.encoder.layers[0]
    with torch.no_grad():
        network.encoder.embed_flux.weight.zero_()
        network.encoder.embed_flux.weight[0] = 3
        for parameter in (network.encoder.embed_wavelength.weight, layer.query_key_value.weight):
            parameter.zero_()
        layer.query_key_value.bias.zero_()
        layer.query_key_value.bias[0] = 8
        layer.query_key_value.weight[16, 0] = 8
    wavelength = 10 ** (3.6 + 1e-4 * np.arange(960))
    flux = 50 * np.exp(-0.5 * ((wavelength - line) / 5) ** 2) + np.random.default_rng(0).normal(0, 0.1, 960)
    batch = batch_of((flux, np.ones(960), wavelength, np.zeros(960, bool)))
    _, weights, ends = network.attend(batch)
    spread = per_token(weights[0].numpy(), ends[0].numpy())
    brightest = spread.edges[spread.relative.argmax() :][:2]
    assert brightest[0] <= line <= brightest[1] and spread.relative.max() > 3


def test_an_embedding_is_what_the_head_sees(run: Path, spectra_folder: Path, tmp_path: Path) -> None:
    table = pq.read_table(embed(run, spectra_folder, out=tmp_path / "e.parquet", device="cpu", batch_size=50))
    assert table.num_rows == 297 and pq.read_table(tmp_path / "e.parquet").equals(table)
    assert pq.read_table(tmp_path / "e_quarantine.parquet").num_rows == 3
    card, network = open_any(run)
    vectors = torch.tensor(table["embedding"].to_pylist())
    assert isinstance(network, SequenceModel) and vectors.shape == (297, 64)
    with torch.inference_mode():
        p = network.head(vectors)[:, :3].softmax(dim=1)
    answers = Predictor.open(run, device="cpu")(spectra_folder)
    assert answers["object_id"].equals(table["object_id"]) and card.model[:16] == table["model"][0].as_py()
    expected = np.stack([answers[f"p_{name}"] for name in ("STAR", "GALAXY", "QSO")], axis=1)
    np.testing.assert_allclose(p, expected, atol=1e-4)


def test_shards_and_spectra_give_the_same_vectors(
    run: Path, shards: Path, spectra_folder: Path, tmp_path: Path
) -> None:
    whole = pq.read_table(embed(run, spectra_folder, out=tmp_path / "e.parquet", device="cpu"))
    vectors = dict(zip(whole["object_id"].to_pylist(), whole["embedding"].to_pylist(), strict=True))
    table = pq.read_table(
        embed(run, shards, split="val", out=tmp_path / "s.parquet", device="cpu", batch_size=13, threads=1)
    )
    assert table.num_rows == Manifest.load(shards).samples("val") > 13
    expected = [vectors[name] for name in table["object_id"].to_pylist()]
    np.testing.assert_allclose(np.array(table["embedding"].to_pylist()), expected, rtol=1e-3, atol=1e-4)


def test_embed_reads_survey_files(run: Path, fits: Path, tmp_path: Path) -> None:
    table = pq.read_table(embed(run, fits, out=tmp_path / "e.parquet", device="cpu", neighbours=2))
    assert table.num_rows == 4 and set(table["survey"].to_pylist()) == {"mock-sdss"}
    assert all(len(found) == 2 for found in table["neighbours"].to_pylist())


def test_explain_draws_survey_files(run: Path, fits: Path, tmp_path: Path, capsys) -> None:
    out = explain(run, fits, out=tmp_path / "seen", limit=3, device="cpu")
    names = sorted(path.name for path in out.iterdir())
    assert len(names) == 4 and names[-1] == TABLE and all(name.endswith(".png") for name in names[:3])
    assert "3 pictures" in capsys.readouterr().out
    assert pq.read_table(out / TABLE)["picture"].to_pylist() == [None] * 3
    (batch,) = pictures(fits, IMAGE, 16)
    for row, (_, ivar, wavelength, mask) in zip(pq.read_table(out / TABLE).to_pylist(), batch.spectra, strict=False):
        where, attention, relative = (np.array(row[name]) for name in ("wavelength", "attention", "relative"))
        tokens = -(-len(wavelength) // 32)
        assert len(where) == len(relative) == tokens and row["blank"] == 0 and row["trained_on_mock"] is True
        assert (attention * np.gradient(where)).sum() == pytest.approx(1, rel=0.05)
        good = np.pad((ivar > 0) & ~mask, (0, -len(mask) % 32)).reshape(tokens, 32).any(axis=1)
        assert ((relative > 0) == good).all() and relative[good].mean() == pytest.approx(1)
        assert wavelength[0] < where[0] < wavelength[31] and (np.diff(where) > 0).all()


@pytest.mark.parametrize(("command", "out"), [("embed", "e.parquet"), ("explain", "seen")])
def test_the_size_of_files_is_bounded_as_asked(
    run: Path, fits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, out: str
) -> None:
    words = [command, "--model", run, "--input", fits, "--device", "cpu", "--out", tmp_path / out]
    call(app, *words, "--max-file-size", "2GB")
    with pytest.raises(UsageError, match="--max-file-size 1kB: give a size"):
        call(app, *words, "--max-file-size", "1kB")
    monkeypatch.setattr("specshards.train.use.commands.most_bytes", {"1MB": 4096}.get)  # these files are small
    with pytest.raises(JobError, match=r"no object of 4 could be read .*--max-file-size"):
        call(app, *words, "--max-file-size", "1MB")


def sights(run: Path, folder: Path) -> list[Sight]:
    card, network = open_any(run)
    (batch,) = spectra(folder, IMAGE.frame, 16)
    return look(card, network.eval(), IMAGE, batch)


def test_the_figure_is_the_spectrum_over_its_attention(run: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    spectra = [make_spectrum(i, rng, n=n, labels={"class": "QSO", "z": 0.7}) for i, n in ((0, 3909), (1, 1500))]
    write_parquet(to_table(spectra), tmp_path / "part-00000.parquet", {})
    long, short = sights(run, tmp_path)
    for sight, made in ((long, spectra[0]), (short, spectra[1])):
        figure = draw(sight, mock=True, lines=True)
        flux, share = figure.axes
        assert sight.picture is None and sight.weights is None and "none is shown" not in share.get_xlabel()
        assert flux.get_xlim() == share.get_xlim() == tuple(sight.spread.edges[[0, -1]])
        assert flux.get_xlim() == pytest.approx(made.wavelength[[0, -1]], abs=2)
        (stairs,) = [patch for patch in share.patches if hasattr(patch, "get_data")]
        np.testing.assert_array_equal(stairs.get_data().values, sight.spread.relative)
        marks = {text.get_text(): text.get_position()[0] for text in flux.texts}
        assert marks["Mg II"] == pytest.approx(dict(strong_lines("QSO"))["Mg II"] * 1.7)
        assert figure.get_suptitle().endswith("known: QSO, z = 0.7")


def test_a_model_of_spectra_reads_what_no_picture_shows(run: Path, tmp_path: Path) -> None:
    write_parquet(to_table(near_infrared(4)), tmp_path / "s.parquet", {})
    (batch,) = pictures(tmp_path / "s.parquet", IMAGE, 16)
    assert not batch.rows and len(batch.quarantine) == 4
    (found,) = spectra(tmp_path / "s.parquet", "observed", 16)
    assert [len(one.flux) for one in found.spectra] == [1900] * 4 and not found.quarantine
    assert pq.read_table(embed(run, tmp_path / "s.parquet", out=tmp_path / "e.parquet", device="cpu")).num_rows == 4
    out = explain(run, tmp_path / "s.parquet", out=tmp_path / "seen", limit=3, device="cpu")
    assert pq.read_table(out / TABLE).num_rows == 3

"""The line-spread function from spectra Parquet to the tokenizer: kept when asked for, learnt from, else off."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from specshards.common.errors import UsageError
from specshards.common.jobs import Engine
from specshards.common.spectrum import Arrays, Spectrum
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.render.frame import framed
from specshards.shards import loader
from specshards.shards.check.verify import verify
from specshards.shards.format import flux
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.loader.stack import stacked
from specshards.shards.write.build import build
from specshards.shards.write.reshard import remake
from specshards.train.config import RunOptions
from specshards.train.models.tokenizer.classifier import SpectrumClassifier
from specshards.train.models.tokenizer.config import SIZES, TokenizerConfig
from specshards.train.models.tokenizer.model import Tokenizer
from specshards.train.models.tokenizer.pixels import without
from specshards.train.tokenizer.comparison import compare
from specshards.train.tokenizer.config import PretrainConfig
from specshards.train.tokenizer.pretrain import pretrain
from specshards.train.tokenizer.reconstruct import reconstruct
from tests.conftest import make_spectrum

pytestmark = pytest.mark.usefixtures("one_thread")

N = 640
OPTIONS = RunOptions(device="cpu", threads=1, tracker="none")
FLUX = ShardConfig(encoding="flux", samples_per_shard=40)


def made() -> list[Spectrum]:
    """Of every three: widths on all pixels, on half of them, none."""
    rng = np.random.default_rng(3)
    spectra = []
    for i in range(60):
        sigma = np.linspace(0.8, 1.3, N).astype(np.float32) * np.float32(1 + i / 60)
        if i % 3 == 1:
            sigma[::2] = np.nan
        spectra.append(replace(make_spectrum(i, rng, n=N), lsf_sigma=None if i % 3 == 2 else sigma))
    return spectra


@pytest.fixture(scope="module")
def spectra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("widths")
    write_parquet(to_table(made()), folder / "part-00000.parquet", {"test": 1}, row_group_rows=20)
    return folder


def shards(spectra: Path, out: Path, config: ShardConfig) -> Manifest:
    return build(config, spectra, out, engine=Engine(workers=0))


@pytest.fixture(scope="module")
def with_lsf(spectra: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "lsf"
    shards(spectra, out, replace(FLUX, lsf=True))
    return out


def test_every_width_comes_back_bit_for_bit(spectra: Path, with_lsf: Path, tmp_path: Path) -> None:
    manifest, given = Manifest.load(with_lsf), made()
    assert (manifest.samples(), manifest.with_lsf) == (60, 40)
    assert "known of 40 of 60 samples" in (with_lsf / "README.md").read_text()
    assert not [check for check in verify(with_lsf, deep=True, engine=Engine(workers=0)) if not check.passed]
    remade = remake([with_lsf], tmp_path / "again", samples_per_shard=30, engine=Engine(workers=0))
    assert remade.with_lsf == 40 and remade.config.lsf
    pictures = remake([with_lsf], tmp_path / "png", encoding="png", engine=Engine(workers=0))
    assert not pictures.config.lsf and not pictures.with_lsf
    for folder in (with_lsf, tmp_path / "again"):
        seen = 0
        for split in ("train", "val", "test"):
            with loader.open(folder, split, 16, view="spectra", shuffle=False, backend="plain") as batches:
                for batch in batches.spectra():
                    for i in np.flatnonzero(batch["valid"]):
                        row = int(batch["key"][i].rpartition("/")[2])
                        sigma = given[row].lsf_sigma
                        expected = np.zeros(N) if sigma is None else np.nan_to_num(sigma)
                        np.testing.assert_array_equal(batch["lsf_sigma"][i, :N].numpy(), expected)
                        seen += 1
        assert seen == 60


def test_off_changes_no_byte(spectra: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    write_parquet(
        to_table([replace(each, lsf_sigma=None) for each in made()]), bare / "part-00000.parquet", {"test": 1},
        row_group_rows=20,
    )  # fmt: skip
    ours, theirs = shards(spectra, tmp_path / "ours", FLUX), shards(bare, tmp_path / "theirs", FLUX)
    assert [shard.sha256 for shard in ours.shards] == [shard.sha256 for shard in theirs.shards]
    assert "lsf" not in ours.dumps() and "lsf" not in json.dumps(FLUX.to_dict())
    none = shards(bare, tmp_path / "none", replace(FLUX, lsf=True))
    assert [shard.sha256 for shard in none.shards] == [shard.sha256 for shard in ours.shards] and not none.with_lsf
    assert "known of none of 60 samples" in (tmp_path / "none" / "README.md").read_text()
    with pytest.raises(UsageError, match="make the shards with ENCODING=flux"):
        ShardConfig(lsf=True)
    assert ShardConfig.from_dict(replace(FLUX, lsf=True).to_dict()).lsf


def test_it_moves_with_the_wavelengths_and_survives_turning_round() -> None:
    wave, one = np.linspace(5000, 4000, 64).astype(np.float32), np.ones(64, np.float32)
    sigma = np.linspace(2, 1, 64).astype(np.float32)
    spectrum = Arrays(one, one, wave, np.zeros(64, bool)).with_lsf(sigma)
    moved, _ = framed("observed", spectrum, None, 0.5, "rest")
    np.testing.assert_allclose(moved.lsf_sigma, 1.5 * sigma, rtol=1e-6)
    np.testing.assert_array_equal(stacked([spectrum])["lsf_sigma"][0], sigma[::-1])
    assert "lsf_sigma" not in stacked([Arrays(*spectrum)]) and spectrum._replace(flux=one).lsf_sigma is None
    record = flux.pack(*spectrum, None, sigma)
    assert flux.has_lsf(record) and not flux.has_lsf(flux.pack(*spectrum))
    np.testing.assert_array_equal(flux.parse(record).lsf_sigma, sigma)
    with pytest.raises(ValueError, match="lengths differ"):
        flux.pack(*spectrum, None, sigma[:-1])


def test_a_tokenizer_without_it_is_what_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    off = Tokenizer(TokenizerConfig(**SIZES["tiny"]))
    assert not [name for name in off.state_dict() if "resolution" in name]
    off.save_pretrained(tmp_path)
    assert "lsf" not in json.loads((tmp_path / "config.json").read_text())
    assert "lsf" not in PretrainConfig(shards=("x",)).to_dict()
    one = torch.ones(2, 64)
    batch = {"flux": torch.randn(2, 64), "ivar": one, "wavelength": torch.linspace(4000, 4100, 64).expand(2, -1)}
    drawn = off(batch)
    assert torch.equal(off({**batch, "lsf_sigma": one}), drawn)
    torch.manual_seed(0)
    on = Tokenizer(TokenizerConfig(**SIZES["tiny"], lsf=True))
    assert torch.equal(on(batch), on({**batch, "lsf_sigma": 0 * one}))
    assert not torch.equal(on(batch), on({**batch, "lsf_sigma": one}))
    assert torch.equal(without({**batch, "lsf_sigma": one}, one > 0)["lsf_sigma"], one)
    # Twice as far and twice as wide is as sharp.
    encode = on.encoder.embed_resolution
    assert encode is not None
    sharp = encode(one, batch["wavelength"], 32)
    torch.testing.assert_close(encode(2 * one, 2 * batch["wavelength"], 32), sharp)
    on(batch).sum().backward()
    assert all(parameter.grad is not None for parameter in on.parameters())


def test_two_kinds_that_only_it_tells_apart_are_learnt() -> None:
    torch.manual_seed(0)
    small = {"width": 32, "layers": 1, "decoder_layers": 1, "heads": 4}
    flux_, one = torch.randn(64, 64), torch.ones(64, 64)
    kind = torch.arange(64) % 2
    wave = torch.linspace(4000, 4100, 64).expand(64, -1)
    batch = {"flux": flux_, "ivar": 4 * one, "wavelength": wave, "lsf_sigma": (1 + 0.2 * kind[:, None]) * one}
    other = {**batch, "flux": torch.randn(64, 64)}
    right = {}
    for lsf in (False, True):
        torch.manual_seed(1)
        model = SpectrumClassifier(TokenizerConfig(**small, lsf=lsf, num_labels=2))
        optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
        for _ in range(60):
            optimizer.zero_grad()
            fresh = {**batch, "flux": torch.randn(64, 64)}
            torch.nn.functional.cross_entropy(model(fresh), kind).backward()
            optimizer.step()
        right[lsf] = float((model(other).argmax(dim=1) == kind).float().mean())
    assert right[True] > 0.95 and right[False] < 0.8


def test_from_pretraining_to_every_tool(
    spectra: Path, with_lsf: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shards(spectra, tmp_path / "without", FLUX)
    config = PretrainConfig(
        shards=(str(with_lsf), str(tmp_path / "without")), size="tiny", epochs=1, batch_size=32, lsf=True
    )
    caplog.set_level("INFO")
    run = pretrain(config, tmp_path / "run", OPTIONS)
    said = "lsf: the line-spread function of 40 of 120 spectra is known, else unknown"
    assert caplog.text.count(said) == 1 and f"{tmp_path / 'without'} made without --lsf" in caplog.text
    assert Tokenizer.from_pretrained(run).config.lsf
    assert "encoder.embed_resolution.unknown" in load_file(run / "model.safetensors")
    compare(run, shards=[str(tmp_path / "without")], device="cpu", threads=1)
    assert "of 0 of 60 spectra is known" in caplog.text
    assert reconstruct(run, spectra, limit=0, device="cpu").is_dir()

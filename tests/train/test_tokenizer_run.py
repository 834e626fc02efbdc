"""From shards of two surveys to a tokenizer, and from the tokenizer to every task and tool."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.shards import loader
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.write.build import build
from specshards.train import loop
from specshards.train.config import RunOptions, TrainConfig
from specshards.train.evaluation.evaluate import evaluate
from specshards.train.fit import fit
from specshards.train.models.tokenizer.classifier import SpectrumClassifier, open_tokenizer
from specshards.train.models.tokenizer.model import Tokenizer
from specshards.train.network import open_any
from specshards.train.tokenizer.config import PretrainConfig
from specshards.train.tokenizer.pretrain import pretrain
from specshards.train.tokenizer.reconstruct import parse_grid, reconstruct
from specshards.train.use.embed import embed
from specshards.train.use.explain import explain
from specshards.train.use.predict import Predictor
from tests.conftest import make_spectrum, near_infrared

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sdss_spectra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 shorter spectra of another survey."""
    folder, rng = tmp_path_factory.mktemp("sdss"), np.random.default_rng(3)
    spectra = [make_spectrum(i, rng, n=1500 + 10 * (i % 7), survey="mock-sdss") for i in range(120)]
    write_parquet(to_table(spectra), folder / "part-00000.parquet", {"test": 1}, row_group_rows=40)
    return folder


@pytest.fixture(scope="module")
def flux_shards(spectra_folder: Path, sdss_spectra: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Mock LAMOST and mock SDSS: grids of two kinds."""
    folders = []
    for name, spectra in (("lamost", spectra_folder), ("sdss", sdss_spectra)):
        out = tmp_path_factory.mktemp("flux") / name
        build(ShardConfig(encoding="flux", samples_per_shard=40), spectra, out, engine=Engine(workers=0))
        folders.append(str(out))
    return folders


@pytest.fixture(scope="module")
def config(flux_shards: list[str]) -> PretrainConfig:
    return PretrainConfig(shards=tuple(flux_shards), size="tiny", epochs=2, batch_size=32, masked=0.2, floor=0.02)


@pytest.fixture(scope="module")
def tokenizer(config: PretrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return pretrain(
        config, tmp_path_factory.mktemp("tokenizer") / "run", RunOptions(device="cpu", threads=1, tracker="none")
    )


def test_batches_hold_several_surveys_and_lengths(flux_shards: list[str]) -> None:
    with loader.open(flux_shards, "train", 32, view="spectra") as batches:
        batch = next(iter(batches.spectra()))
        assert len(set(batch["labels"]["survey"].tolist())) == 2 and len(set(batch["length"].tolist())) > 1


def test_it_learns(tokenizer: Path) -> None:
    history = json.loads((tokenizer / "run.json").read_text())["history"]
    assert [entry["epoch"] for entry in history] == [1, 2]
    assert history[1]["loss"] < history[0]["loss"] and np.isfinite(history[1]["loss_hidden"])
    card = json.loads((tokenizer / "tokenizer.json").read_text())
    assert card["mock"] and card["best"]["metric"] == "loss_hidden" and len(card["data"]) == 2
    assert isinstance(Tokenizer.from_pretrained(tokenizer), Tokenizer)


def test_an_interrupted_run_goes_on_bit_for_bit(
    config: PretrainConfig, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        step = loop._Trainer.step

        def stopping_step(self, window):  # type: ignore[no-untyped-def]
            loss = step(self, window)
            if self.progress.step == 3:
                os.kill(os.getpid(), signal.SIGINT)
            return loss

        patch.setattr(loop._Trainer, "step", stopping_step)
        with pytest.raises(KeyboardInterrupt):
            pretrain(config, tmp_path / "cut", RunOptions(device="cpu", threads=1, tracker="none"))
    pretrain(config, tmp_path / "cut", RunOptions(device="cpu", threads=1, tracker="none"))
    ours, theirs = (load_file(run / "model.safetensors") for run in (tmp_path / "cut", tokenizer))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    histories = [json.loads((run / "run.json").read_text())["history"] for run in (tmp_path / "cut", tokenizer)]
    assert histories[0] == histories[1]


@pytest.mark.parametrize("more", [{"freeze": "backbone"}, {"pool": "attention", "freeze": "backbone"}, {}])
def test_tasks_on_it(tokenizer: Path, flux_shards: list[str], tmp_path: Path, more: dict[str, str]) -> None:
    shards, backbone = (flux_shards[1],), f"tokenizer:{tokenizer}"
    config = TrainConfig(
        task="classify,redshift", shards=shards, backbone=backbone, epochs=1, batch_size=32, lr=1e-3, **more
    )  # type: ignore[arg-type]
    run = fit(config, tmp_path / "run", RunOptions(device="cpu", threads=1, tracker="none"))
    card, model = open_any(run)
    assert isinstance(model, SpectrumClassifier) and card.config == config
    before, after = open_tokenizer(tokenizer).encoder.state_dict(), model.encoder.state_dict()
    kept = all(torch.equal(before[name], after[name]) for name in before)
    assert kept == ("freeze" in more) and (model.pool is not None) == ("pool" in more)
    assert set(evaluate(run, device="cpu", threads=1)["splits"]["val"]) == {"classify", "redshift"}


def test_tools_on_a_task(tokenizer: Path, flux_shards: list[str], sdss_spectra: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        task="classify", shards=(flux_shards[1],), backbone=f"tokenizer:{tokenizer}", pool="attention", epochs=1
    )
    run = fit(config, tmp_path / "run", RunOptions(device="cpu", threads=1, tracker="none"))
    table = Predictor.open(run, device="cpu")(sdss_spectra)
    vectors = pq.read_table(embed(run, sdss_spectra, device="cpu", threads=1))
    assert len(table) == len(vectors) > 0 and vectors.schema.field("embedding").type.list_size == 128
    assert len(list(explain(run, sdss_spectra, limit=2, device="cpu").glob("*.png"))) == 2
    _, model = open_any(run)
    with loader.open(flux_shards, "val", 8, view="spectra", shuffle=False) as batches:
        batch = next(iter(batches.spectra()))
    with torch.inference_mode():
        logits, weights, _ = model.eval().attend(batch)  # type: ignore[union-attr,operator]
        torch.testing.assert_close(logits, model(batch), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(weights), dtype=torch.float64))


def test_reconstruction_of_every_object(tokenizer: Path, sdss_spectra: Path, tmp_path: Path) -> None:
    out = reconstruct(tokenizer, sdss_spectra, out=tmp_path / "own", limit=2, device="cpu")
    table = pq.read_table(out / "reconstructions.parquet").to_pylist()
    assert len(table) == 120 and (out / "reconstructions.png").stat().st_size > 10_000
    for row in table[:20]:
        flux, imputed = np.array(row["flux"]), np.array(row["imputed"])
        assert len(row["wavelength"]) == len(flux) == len(imputed) and np.isfinite(flux).all()
        assert (~imputed).sum() == row["pixels"] and row["chi2"] > 0 and row["anomaly"] == row["chi2_hidden"]
    other = reconstruct(tokenizer, sdss_spectra, grid="3000:9000:2", out=tmp_path / "grid", limit=0, device="cpu")
    for own, row in zip(table[:20], pq.read_table(other / "reconstructions.parquet").to_pylist(), strict=False):
        at, flux = np.array(row["wavelength"]), np.array(row["flux"])
        np.testing.assert_array_equal(at, np.arange(3000, 9001, 2))
        inside = (at >= own["wavelength"][0]) & (at <= own["wavelength"][-1])
        assert np.array_equal(np.isfinite(flux), inside) and np.array(row["imputed"])[~inside].all()
        np.testing.assert_allclose(flux[inside], np.interp(at[inside], own["wavelength"], own["flux"]), rtol=1e-5)
    assert not (other / "reconstructions.png").exists()


def test_reconstruction_of_spectra_that_no_picture_shows(tokenizer: Path, tmp_path: Path) -> None:
    write_parquet(to_table(near_infrared(4)), tmp_path / "s.parquet", {})
    out = reconstruct(tokenizer, tmp_path / "s.parquet", out=tmp_path / "out", device="cpu")
    rows = pq.read_table(out / "reconstructions.parquet").to_pylist()
    assert len(rows) == 4 and all(row["wavelength"][0] == 15_100 for row in rows)


def test_grids_are_parsed_and_slips_named() -> None:
    assert parse_grid("own") is None
    np.testing.assert_allclose(parse_grid("4000:4004:2"), [4000, 4002, 4004])
    dex = parse_grid("4000:4400:1e-3dex")
    assert dex is not None and dex[-1] <= 4400 and np.allclose(np.diff(np.log10(dex)), 1e-3)
    for wrong in ("4000", "5000:4000:1", "a:b:c", "4000:5000:0", "4000:5000:-1dex", "nan:5000:1"):
        with pytest.raises(UsageError, match="give own, or first:last:step"):
            parse_grid(wrong)
    with pytest.raises(UsageError, match="give at most"):
        parse_grid("1:1e9:0.1")


def test_slips_are_one_line(tokenizer: Path, flux_shards: list[str], tmp_path: Path) -> None:
    for more, message in (
        ({"size": "huge"}, "unknown SIZE=huge"), ({"masked": 1.0}, "shares"), ({"huber": 0.0}, "huber=0.0"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            PretrainConfig(shards=("x",), **more)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no tokenizer there; name the OUT of a `make pretrain`"):
        fit(
            TrainConfig(task="classify", shards=(flux_shards[0],), backbone=f"tokenizer:{tmp_path}"),
            tmp_path / "run", RunOptions(device="cpu", tracker="none"),
        )  # fmt: skip
    with pytest.raises(UsageError, match="a tokenizer without a task; `make train MODEL=tokenizer:"):
        open_any(tokenizer)
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (broken / name).write_text((tokenizer / name).read_text())
    (broken / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(JobError, match="cannot be read"):
        open_tokenizer(broken)

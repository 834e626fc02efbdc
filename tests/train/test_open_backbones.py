"""A backbone that another package adds, by one class: a small network of pictures, another of spectra."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine
from specshards.ingest.mock.scale.config import ScaleConfig
from specshards.ingest.mock.scale.job import write_parquet_survey
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.write.build import build
from specshards.train.config import RunOptions, TrainConfig, configure
from specshards.train.evaluation.evaluate import evaluate
from specshards.train.fit import fit
from specshards.train.models.backbone import BACKBONES, Backbone, Plan, open_backbone
from specshards.train.models.parameters import head_parameters
from specshards.train.network import open_any
from specshards.train.use.embed import embed
from specshards.train.use.explain import explain
from specshards.train.use.export import export_hub, export_onnx
from specshards.train.use.predict import Predictor

pytestmark = pytest.mark.usefixtures("one_thread")


class Pixels(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.float() / 255


class Means(nn.Module):
    """The mean flux of 16 parts of each spectrum."""

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        flux = torch.where(batch["ivar"] > 0, batch["flux"], 0)
        scaled = flux / flux.abs().mean(dim=1, keepdim=True).clamp_min(1e-6)
        return nn.functional.adaptive_avg_pool1d(scaled[:, None], 16)[:, 0]


class Spectral(nn.Sequential):
    def represent(self, batch: Mapping[str, Tensor]) -> Tensor:
        vectors: Tensor = self[:-1](batch)
        return vectors


@pytest.fixture(scope="module", autouse=True)
def backbones() -> Iterator[None]:
    """What the modules that another package names as entry points would say."""
    BACKBONES.choose("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BACKBONES, "_things", dict(BACKBONES))

        @BACKBONES.register("small-cnn")
        class SmallCnn(Backbone):
            peak_lr = 3e-3
            options: ClassVar[dict[str, float]] = {"weight_decay": 0.02, "epochs": 3}
            exports = ("onnx",)

            def build(self, plan: Plan) -> nn.Module:
                pooled = (nn.AdaptiveAvgPool2d(4), nn.Flatten())
                return nn.Sequential(
                    Pixels(), nn.Conv2d(3, 8, 7, 4), nn.ReLU(), *pooled, nn.Linear(128, len(plan.outputs))
                )

        @BACKBONES.register("mlp")
        class Mlp(Backbone):
            view = "spectra"
            has_argument = True

            def build(self, plan: Plan) -> nn.Module:
                width = int(self.argument)
                return Spectral(Means(), nn.Linear(16, width), nn.ReLU(), nn.Linear(width, len(plan.outputs)))

        yield


@pytest.fixture(scope="module")
def spectra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("survey")
    write_parquet_survey(ScaleConfig("lamost", n=200, templates=20), out, engine=Engine(workers=0))
    return out / "spectra"


@pytest.fixture(scope="module")
def runs(spectra: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("open")
    found = {}
    for backbone, encoding in (("small-cnn", "png"), ("mlp:24", "flux")):
        shards = out / encoding
        build(ShardConfig(encoding=encoding, samples_per_shard=80), spectra, shards, engine=Engine(workers=0))
        config = TrainConfig(
            task="classify,teff", shards=(str(shards),), backbone=backbone, epochs=1, batch_size=32, precision="fp32"
        )
        found[backbone] = fit(config, out / f"run-{encoding}", RunOptions(device="cpu", tracker="none"))
    return found


@pytest.mark.parametrize("backbone", ["small-cnn", "mlp:24"])
def test_it_is_trained_kept_and_opened_again(backbone: str, runs: dict[str, Path], spectra: Path) -> None:
    run = runs[backbone]
    scores = evaluate(run, splits=["test"], device="cpu")["splits"]["test"]
    assert 0 <= scores["classify"]["all"]["accuracy"] <= 1 and scores["teff"]["all"]["mae"] > 0
    table = Predictor.open(run, device="cpu")(spectra)
    assert len(table) == 200 and np.isfinite(table["teff"].to_numpy()).all()
    card, _ = open_any(run)
    assert card.config.view == ("picture" if backbone == "small-cnn" else "spectra")
    weights = bytearray((run / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    damaged = run.parent / f"damaged-{run.name}"
    damaged.mkdir()
    (damaged / "specshards.json").write_bytes((run / "specshards.json").read_bytes())
    (damaged / "model.safetensors").write_bytes(weights)
    with pytest.raises(JobError, match="checksum"):
        open_any(damaged)


def test_what_it_cannot_do_is_said(runs: dict[str, Path], spectra: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="BACKBONE=small-cnn: has no attention that could be shown"):
        explain(runs["small-cnn"], spectra, device="cpu")
    with pytest.raises(UsageError, match="BACKBONE=small-cnn: says nothing before its answer"):
        embed(runs["small-cnn"], spectra, out=tmp_path / "e.parquet", device="cpu")
    with pytest.raises(UsageError, match="BACKBONE=small-cnn cannot be exported to hub"):
        export_hub(runs["small-cnn"], tmp_path / "hub")
    with pytest.raises(UsageError, match="reads spectra"):
        export_onnx(runs["mlp:24"], tmp_path / "m.onnx")


def test_a_network_that_represents_can_be_embedded(runs: dict[str, Path], spectra: Path, tmp_path: Path) -> None:
    table = pq.read_table(embed(runs["mlp:24"], spectra, out=tmp_path / "e.parquet", device="cpu"))
    assert table.schema.field("embedding").type.list_size == 24


def test_its_learning_rate_and_options_give_way_to_what_is_asked_for() -> None:
    assert TrainConfig(task="teff", shards=("s",), backbone="small-cnn").peak_lr == 3e-3
    assert TrainConfig(task="teff", shards=("s",), backbone="small-cnn", lr=1.0).peak_lr == 1.0
    asked = configure("paper", task="teff", shards=("s",), backbone="small-cnn", epochs=7)
    assert (asked.weight_decay, asked.epochs, asked.lr) == (0.01, 7, 1e-5)
    assert configure(task="teff", shards=("s",), backbone="small-cnn").weight_decay == 0.02


def test_only_its_last_layer_is_its_head() -> None:
    network = open_backbone("mlp:8").build(Plan(("a", "b"), None))  # type: ignore[arg-type]
    assert [tuple(p.shape) for p in head_parameters(network)] == [(2, 8), (2,)]


@pytest.mark.parametrize("name", ["facebook/dino-vitb16", "runs/mlp", "mlp", "small-cnn:8", "nobody:knows"])
def test_what_nobody_registered_is_a_model_of_the_hub_or_a_folder(name: str) -> None:
    assert type(open_backbone(name)).__name__ == "Pretrained" and open_backbone(name).peak_lr == 1e-4

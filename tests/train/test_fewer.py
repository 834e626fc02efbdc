"""Fewer tokens while training: what is left out, what stays exact, and what a run keeps."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import Dinov2Config, Dinov2ForImageClassification, ResNetConfig, ResNetForImageClassification

from specshards.common.errors import UsageError
from specshards.common.jobs import Engine
from specshards.ingest.mock.scale.config import ScaleConfig
from specshards.ingest.mock.scale.job import write_parquet_survey
from specshards.render import ImageConfig, renderer
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.write.build import build as build_shards
from specshards.train.config import RunOptions, TrainConfig
from specshards.train.fit import fit
from specshards.train.meter import Meter, forward_flops
from specshards.train.models.backbone import Plan, open_backbone
from specshards.train.models.fewer import Fewer, resized, some
from specshards.train.network import open_any

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGE = ImageConfig(size=64, block=4, limits="percentile", grid="log")
PIXELS = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fewer")
    write_parquet_survey(ScaleConfig("lamost", n=240, templates=30), folder, engine=Engine(workers=0))
    build_shards(ShardConfig(image=IMAGE, samples_per_shard=80), folder / "spectra", folder / "shards",
                 engine=Engine(workers=0))  # fmt: skip
    return folder / "shards"


def made(backbone: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    return open_backbone(backbone).build(Plan(("a", "b"), IMAGE, **changes))


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("dino")
    config = Dinov2Config(hidden_size=24, num_hidden_layers=3, num_attention_heads=2, image_size=64, patch_size=8)
    torch.manual_seed(0)
    Dinov2ForImageClassification(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("size", "block", "side", "smaller"), [(210, 3, 140, 2), (210, 3, 70, 1), (224, 3, 149, 2), (224, 3, 148, 2)]
)
@pytest.mark.parametrize("channels", [{}, {"channels": ("flux", "derivative", "none")}])
def test_a_smaller_map_is_the_one_that_would_be_drawn(
    size: int, block: int, side: int, smaller: int, channels: dict[str, Any]
) -> None:
    config = ImageConfig(size=size, block=block, **channels)
    flux = np.random.default_rng(2).normal(size=3000).astype(np.float32)
    spectrum = (flux, np.ones_like(flux), np.geomspace(3700, 9000, 3000), np.zeros(3000, bool))
    large, small = (
        torch.from_numpy(np.ascontiguousarray(drawer.expand(drawer.codes(*spectrum)).transpose(2, 0, 1)))[None]
        for drawer in (renderer(config), renderer(replace(config, size=side, block=smaller)))
    )
    assert torch.equal(resized(large, config, side), small)


def test_other_pictures_are_averaged() -> None:
    found = resized(PIXELS, ImageConfig(image="simple", size=64), 32)
    assert found.shape == (3, 3, 32, 32) and found.dtype == torch.float32
    assert found.mean().item() == pytest.approx(PIXELS.float().mean().item(), rel=0.01)
    even = PIXELS[:1, :, :1, :1].expand(1, 3, 64, 64)
    assert torch.allclose(resized(even, IMAGE, 40), even[..., :40, :40].float())


@given(patches=st.integers(1, 60), extra=st.integers(0, 5), keep=st.floats(0.01, 1))
def test_some_tokens_are_of_each_picture_and_each_once(patches: int, extra: int, keep: float) -> None:
    tokens = torch.arange(extra + patches).float()[None, :, None].expand(50, -1, 2)
    found = some(tokens, patches, keep)
    kept = max(1, round(keep * patches))
    assert found.shape == (50, extra + kept, 2) and torch.equal(found[:, :extra], tokens[:, :extra])
    rows = found[:, extra:, 0].sort(dim=1).values
    assert (rows.diff(dim=1) > 0).all() and rows.min() >= extra and rows.max() < extra + patches
    if 4 < kept < patches - 4:
        assert len(rows.unique(dim=0)) > 40


@pytest.mark.parametrize("kind", ["tiny", "dino"])
def test_patches_are_left_out_while_training_alone(kind: str, dino: str) -> None:
    backbone = dino if kind == "dino" else kind
    whole, half = made(backbone), made(backbone, keep_tokens=0.5)
    seen: list[int] = []
    for model in (whole, half):
        layers = next(part for part in model.modules() if isinstance(part, torch.nn.ModuleList))
        layers[0].register_forward_hook(lambda _, args, out: seen.append(args[0].shape[1]))
    assert torch.equal(whole.eval()(PIXELS), half.eval()(PIXELS)) and seen[0] == seen[1]
    patches = seen[0] - 1
    half.train()(PIXELS).sum().backward()
    assert seen[2] == 1 + round(patches / 2)
    assert not torch.equal(half(PIXELS), half(PIXELS))
    assert all(p.grad is not None and p.grad.isfinite().all() for n, p in half.named_parameters() if "mask" not in n)


def test_the_arithmetic_of_training_is_counted() -> None:
    from accelerate import Accelerator

    model = made("tiny", keep_tokens=0.5, sizes=(32, 64))
    meter = Meter(Accelerator(cpu=True), model, "picture", 64, "")
    whole, state = meter.flops, torch.random.get_rng_state()
    found = []
    for epoch in range(4):
        model.fewer.begin_epoch(epoch, 4)
        meter.count(model)
        found.append(meter.flops / whole)
    assert found[0] == found[1] < found[2] == found[3] < 0.8 and not model.fewer.always
    assert torch.equal(torch.random.get_rng_state(), state)  # or a run that goes on would draw others
    assert forward_flops(model, 64, torch.device("cpu")) == whole / 3


def test_sizes_share_the_epochs() -> None:
    fewer = Fewer(1.0, (98, 140, 224), ImageConfig())
    sides = []
    for epoch in range(10):
        fewer.begin_epoch(epoch, 10)
        sides.append(fewer.side)
    assert sides == [98] * 4 + [140] * 3 + [224] * 3
    assert fewer.pictures(PIXELS, training=False) is PIXELS


def test_larger_patches_give_the_same_tokens(dino: str, tmp_path: Path) -> None:
    model, large = made(dino), made(dino, patch=16)
    pixels = torch.rand(2, 3, 8, 8)
    tokens = model.network.base_model.embeddings.patch_embeddings.projection(pixels)
    up = F.interpolate(pixels, size=(16, 16), mode="bilinear", antialias=True, align_corners=False)
    assert torch.allclose(large.network.base_model.embeddings.patch_embeddings.projection(up), tokens, atol=1e-5)
    assert forward_flops(model, 64, torch.device("cpu")) / forward_flops(large, 64, torch.device("cpu")) * 2 > 5
    large.save(tmp_path)
    again = open_backbone(dino).load(tmp_path, Plan(("a", "b"), IMAGE, patch=16))
    assert torch.equal(again.eval()(PIXELS), large.eval()(PIXELS))


def test_a_run_goes_on_bit_for_bit(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(task="classify", shards=(str(shards),), backbone="tiny", epochs=4, batch_size=32,
                         precision="fp32", keep_tokens=0.5, sizes=(32, 64), patch=16)  # fmt: skip
    options = RunOptions(device="cpu", checkpoint_minutes=1e-6)
    fit(config, tmp_path / "whole", options)
    note = Meter.note

    def stop(self: Meter, step: int, *args: Any, **named: Any) -> None:
        note(self, step, *args, **named)
        if step == 9:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Meter, "note", stop)
        fit(config, tmp_path / "cut", options)
    fit(config, tmp_path / "cut", options)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    card, model = open_any(tmp_path / "cut")
    assert card.config.keep_tokens == 0.5 and card.config.sizes == (32, 64) and model.fewer is None  # type: ignore[attr-defined]


def test_what_cannot_be_is_refused(dino: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"sizes=30,64: .*takes multiples of 8 up to the pictures' 64 pixels"):
        made(dino, sizes=(30, 64))
    with pytest.raises(UsageError, match="sizes=128"):
        made(dino, sizes=(128,))
    with pytest.raises(UsageError, match="patches of 24 pixels do not divide"):
        made(dino, patch=24)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1])
    ResNetForImageClassification(config).save_pretrained(tmp_path)
    for name, value in (("keep_tokens", 0.5), ("patch", 16)):
        with pytest.raises(UsageError, match=f"{name}.*has no patches that could be"):
            made(str(tmp_path), **{name: value})
    for name, wrong in (("keep_tokens", 0.0), ("keep_tokens", 1.5), ("sizes", (0,)), ("patch", -1)):
        with pytest.raises(UsageError, match=name):
            TrainConfig(task="classify", shards=("x",), backbone="tiny", **{name: wrong})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="keep_tokens: BACKBONE=sequence is no vision transformer of pictures"):
        TrainConfig(task="classify", shards=("x",), backbone="sequence", keep_tokens=0.5)

"""Shards of the published pictures: each encoding loads the pixels that are drawn, and what is lost stays lost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from specshards.common.errors import UsageError
from specshards.common.jobs import Engine
from specshards.render import ImageConfig, preset, renderer
from specshards.shards import loader
from specshards.shards.format.manifest import MANIFEST, ShardConfig
from specshards.shards.loader.augment import Augment
from specshards.shards.write.build import build
from tests.shards.test_loader import BACKENDS

PAPER = preset("paper", "simple")


@pytest.fixture(scope="module")
def folders(spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("published")
    for name in ("png", "pnm", "jpeg", "flux"):
        config = ShardConfig(image=PAPER, encoding=name, samples_per_shard=150)
        build(config, spectra_folder, out / name, engine=Engine(workers=0))
    return {path.name: path for path in out.iterdir()}


def pictures(folder: Path, backend: str, **options: object) -> dict[str, np.ndarray]:
    with loader.open(folder, "val", 16, backend=backend, **options) as batches:
        return {
            key: picture.permute(1, 2, 0).numpy()
            for batch in batches
            for picture, key in zip(batch["pixel_values"], batch["key"], strict=True)
        }


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_encoding_gives_the_blue_line(folders, backend: str) -> None:
    drawn = pictures(folders["flux"], backend)
    for name in ("png", "pnm"):
        loaded = pictures(folders[name], backend)
        assert loaded.keys() == drawn.keys() and len(drawn) > 10
        for key, picture in loaded.items():
            np.testing.assert_array_equal(picture, drawn[key])
    for key, picture in pictures(folders["jpeg"], backend).items():
        assert np.abs(picture.astype(int) - drawn[key]).mean() < 3
    darkest = min((picture.reshape(-1, 3) for picture in drawn.values()), key=lambda p: p.min())
    np.testing.assert_allclose(darkest[darkest.sum(axis=1).argmin()], (31, 119, 180), atol=3)


def test_a_data_set_says_how_its_lines_were_drawn(folders) -> None:
    image = json.loads((folders["png"] / MANIFEST).read_text())["config"]["image"]
    assert (image["axis"], image["bad_pixels"], image["line_colour"]) == ("spectrum", "draw", "tab:blue")
    with pytest.raises(
        UsageError, match=r"axis spectrum, not window, bad_pixels draw, not skip, .* tab:blue, not black"
    ):
        loader.open(folders["png"], "val", 16, image=ImageConfig(image="simple"))


def test_what_an_augmentation_loses_is_not_drawn_where_no_mask_is_looked_at(folders) -> None:
    plain = pictures(folders["flux"], "plain")
    lost = pictures(folders["flux"], "plain", augment=Augment(mask=0.8))
    ink = {
        name: sum((p < 255).any(2).sum() for p in found.values()) for name, found in (("all", plain), ("lost", lost))
    }
    assert ink["lost"] < 0.9 * ink["all"]
    assert renderer(PAPER).config.bad_pixels == "draw"

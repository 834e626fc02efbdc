"""A model of several tasks, trained in seconds, for the tests of what is done with a trained model."""

from __future__ import annotations

from pathlib import Path

from specshards.common.jobs import Engine
from specshards.render import ImageConfig
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.write.build import build as build_shards
from specshards.train.config import RunOptions, TrainConfig
from specshards.train.fit import fit

#: 25 patches, of 16 pixels.
IMAGE = ImageConfig(size=80, block=1)


def small_shards(spectra: Path, out: Path, image: ImageConfig = IMAGE) -> Path:
    """Shards of small pictures."""
    build_shards(ShardConfig(image=image, samples_per_shard=60), spectra, out, engine=Engine(workers=0))
    return out


def small_run(shards: str | Path, out: Path, task: str = "classify,redshift", epochs: int = 3) -> Path:
    """A `tiny` model of the shards."""
    config = TrainConfig(task=task, shards=(str(shards),), backbone="tiny", epochs=epochs, batch_size=16)
    return fit(config, out, RunOptions(device="cpu", threads=1, tracker="none"))

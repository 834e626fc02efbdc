"""Object stores: spectra from and shards to s3://, against a server on loopback, with the bytes of a local run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from specshards.common.errors import JobError, UsageError
from specshards.common.files import is_remote, location
from specshards.common.jobs import Engine
from specshards.shards import loader
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.loader import stream
from specshards.shards.write.build import build
from specshards.shards.write.reshard import remake
from tests.oracles.data_sets import tree

moto_server = pytest.importorskip("moto.server", reason="moto is not installed")
HERE = Engine(workers=0)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    before = dict(os.environ)
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    location("s3://survey").mkdir(parents=True)
    yield "s3://survey"
    os.environ.clear()
    os.environ.update(before)
    server.stop()


def download(url: str, folder: Path) -> Path:
    where = location(url)
    where.fs.get(where.path, str(folder), recursive=True)
    return folder


def test_shards_in_a_bucket_have_the_bytes_of_local_ones(bucket: str, spectra_folder: Path, tmp_path: Path) -> None:
    config = ShardConfig(samples_per_shard=60)
    for path in spectra_folder.glob("*.parquet"):
        location(f"{bucket}/spectra/{path.name}").write_bytes(path.read_bytes())
    there = f"{bucket}/out/map2d"
    build(config, f"{bucket}/spectra", there, engine=Engine(workers=2))
    build(config, spectra_folder, tmp_path / "here", engine=HERE)
    assert tree(download(there, tmp_path / "there")) == tree(tmp_path / "here")
    assert Manifest.load(location(there)).dumps() == Manifest.load(tmp_path / "here").dumps()
    # Resuming: what is whole is kept, what is lost or damaged is made again.
    location(f"{there}/train/train-000001.tar").unlink()
    location(f"{there}/train/train-000002.tar").write_bytes(b"damaged")
    kept = location(f"{there}/train/train-000003.tar").stat().st_mtime
    build(config, f"{bucket}/spectra", there, engine=HERE)
    assert location(f"{there}/train/train-000003.tar").stat().st_mtime == kept
    assert tree(download(there, tmp_path / "again")) == tree(tmp_path / "here")
    with pytest.raises(UsageError, match="seed: 0 -> 1"):
        build(ShardConfig(samples_per_shard=60, seed=1), f"{bucket}/spectra", there, engine=HERE)
    # Copies leave a bucket and come back.
    remake([there], tmp_path / "copy", samples_per_shard=100, engine=HERE)
    remake([tmp_path / "here"], f"{bucket}/copy", samples_per_shard=100, engine=HERE)
    assert tree(download(f"{bucket}/copy", tmp_path / "back")) == tree(tmp_path / "copy")
    build(ShardConfig(seed=1), f"{bucket}/spectra", there, engine=HERE, force=True)
    build(ShardConfig(seed=1), spectra_folder, tmp_path / "other", engine=HERE)
    assert tree(download(there, tmp_path / "third")) == tree(tmp_path / "other")


def test_what_is_not_there_is_named(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"s3://survey/nothing: no spectra Parquet there"):
        build(ShardConfig(), f"{bucket}/nothing", tmp_path / "out", engine=HERE)
    with pytest.raises(UsageError, match=r"s3://survey/nothing: no manifest\.json there"):
        Manifest.load(location(f"{bucket}/nothing"))
    assert is_remote(location(bucket)) and not is_remote(location("~/x"))
    assert location("~/x") == Path.home() / "x"


@pytest.mark.parametrize("encoding", ["png", "flux"])
def test_streamed_samples_are_those_of_the_loader(
    bucket: str, spectra_folder: Path, tmp_path: Path, encoding: str
) -> None:
    config = ShardConfig(encoding=encoding, samples_per_shard=60)
    there = f"{bucket}/stream-{encoding}"
    build(config, spectra_folder, there, engine=HERE)
    build(config, spectra_folder, tmp_path / "here", engine=HERE)
    expected = {}
    with loader.open(tmp_path / "here", "train", 16) as batches:
        for batch in batches:
            for i, key in enumerate(batch["key"]):
                expected[key] = (batch["pixel_values"][i], {name: v[i].item() for name, v in batch["labels"].items()})
    orders = []
    for rank in (0, 1):
        with stream.open(there, "train", 16, rank=rank, world_size=2, cache=tmp_path / "cache") as batches:
            for _ in range(2):
                seen = []
                for batch in batches:
                    for i, key in enumerate(batch["key"]):
                        pixels, labels = expected[key]
                        assert torch.equal(batch["pixel_values"][i], pixels)
                        assert all(
                            np.array_equal(v[i], labels[n], equal_nan=True) for n, v in batch["labels"].items()
                        )
                        seen.append(key)
                orders.append(seen)
    assert sorted(orders[0] + orders[2]) == sorted(expected) and sorted(orders[1] + orders[3]) == sorted(expected)
    assert orders[0] != orders[1]
    # The second time nothing is fetched: the bucket could be gone. And a local folder needs no cache.
    for record in Manifest.load(location(there)).split("train"):
        record.path(location(there)).unlink()
    with stream.open(there, "train", 64, cache=tmp_path / "cache") as batches:
        assert sum(len(batch["key"]) for batch in batches) == len(expected)
    with stream.open(tmp_path / "here", "train", 64) as batches:
        assert sum(len(batch["key"]) for batch in batches) == len(expected)
    with stream.open(there, "train", 64) as batches, pytest.raises(JobError, match="tar: the archive is missing"):
        list(batches)
    damaged = sorted((tmp_path / "here" / "val").glob("*.tar"))[0]
    location(f"{there}/val/{damaged.name}").write_bytes(damaged.read_bytes()[:-9] + b"123456789")
    with stream.open(there, "val", 64) as batches, pytest.raises(JobError, match="is not what the manifest says"):
        list(batches)


def test_splits_of_a_stream_have_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown split all"):
        stream.open(tmp_path, "all", 8)

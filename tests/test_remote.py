"""Object stores: spectra from and shards to s3://, against a server on loopback, with the bytes of a local run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.errors import UsageError
from ingest.files import is_remote, location
from ingest.jobs import Engine
from shards.build import build
from shards.format import Manifest, ShardConfig
from shards.remake import remake
from tests.test_shards import tree

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
    with pytest.raises(UsageError, match="seed changed"):
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

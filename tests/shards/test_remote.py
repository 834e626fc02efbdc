"""Object stores: spectra from and shards to s3://, against a server on loopback, with the bytes of a local run."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from specshards.common.cache import Cache
from specshards.common.errors import UsageError
from specshards.common.files import is_remote, location
from specshards.common.jobs import Engine
from specshards.shards import loader
from specshards.shards.__main__ import app
from specshards.shards.check.verify import verify
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.write.build import build
from specshards.shards.write.reshard import remake
from tests.oracles.data_sets import tree

moto_server = pytest.importorskip("moto.server", reason="moto is not installed")
HERE = Engine(workers=0)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    before = dict(os.environ)
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "NO_PROXY": "127.0.0.1",
        "SPECSHARDS_CACHE": str(tmp_path_factory.mktemp("cache")),
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


@pytest.fixture(scope="module")
def sets(bucket: str, spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Encoding -> a data set here, and the same in the bucket."""
    made = {}
    for encoding in ("png", "flux"):
        config, here = ShardConfig(encoding=encoding, samples_per_shard=60), tmp_path_factory.mktemp(encoding) / "set"
        build(config, spectra_folder, here, engine=HERE)
        build(config, spectra_folder, f"{bucket}/{encoding}", engine=HERE)
        made[encoding] = here, f"{bucket}/{encoding}"
    return made


@pytest.mark.parametrize("encoding", ["png", "flux"])
def test_epochs_in_a_bucket_are_those_of_a_disk(
    sets: dict[str, tuple[Path, str]], tmp_path: Path, encoding: str
) -> None:
    here, there = sets[encoding]
    cache = Cache(tmp_path / "cache", 1 << 30)
    for number in (0, 1):
        mine = loader.open(there, "train", 16, seed=3, rank=number, world_size=2, cache=cache)
        with mine, loader.open(here, "train", 16, seed=3, rank=number, world_size=2) as local:
            for one, other in zip(islice(mine, 30), islice(local, 30), strict=True):  # three epochs and more
                assert one["key"] == other["key"] and torch.equal(one["pixel_values"], other["pixel_values"])
                assert all(np.array_equal(one["labels"][n], v, equal_nan=True) for n, v in other["labels"].items())
            assert mine.state_dict() == local.state_dict()


def test_a_data_set_in_a_bucket_is_verified(sets: dict[str, tuple[Path, str]], bucket: str) -> None:
    here, there = sets["png"]
    for deep in (False, True):
        checks = verify(location(there), deep=deep, engine=HERE)
        assert checks == verify(here, deep=deep, engine=HERE) and all(check.passed for check in checks)
    remake([here], f"{bucket}/hurt", engine=HERE)
    hurt = location(f"{bucket}/hurt")
    record = Manifest.load(hurt).shards[0]
    tar, index, sidecar = record.files(hurt)
    for path, content, deep, name, said in (
        (tar, tar.read_bytes()[:-512], False, "files", f"{record.name}: "),
        (tar, tar.read_bytes().replace(b"IDAT", b"IDOT"), True, "checksums", f"{record.name}: its sha256"),
        (index, None, False, "files", ".idx: missing"),
        (sidecar, b"PAR1", False, "files", ".parquet: damaged Parquet"),
        (hurt / "train" / "more.tar", b"", False, "strays", "train/more.tar: not of this data set"),
    ):
        whole = path.read_bytes() if path.exists() else None
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        failed = {check.name: check.detail for check in verify(hurt, deep=deep, engine=HERE) if not check.passed}
        assert said in failed[name], failed
        path.unlink(missing_ok=True)
        if whole is not None:
            path.write_bytes(whole)
    assert all(check.passed for check in verify(hurt, engine=HERE))
    (check,) = verify(location(f"{bucket}/none"), engine=HERE)
    assert not check.passed and check.name == "manifest"


@pytest.mark.parametrize("answer", [404, 403, 200])
def test_web_servers_that_list_no_folders_have_data_sets(
    sets: dict[str, tuple[Path, str]], tmp_path: Path, answer: int
) -> None:
    here = sets["png"][0]

    class Files(SimpleHTTPRequestHandler):
        def list_directory(self, path: object) -> None:
            if answer != 200:
                self.send_error(answer)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>welcome</html>")

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=here.parent))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    there = f"http://127.0.0.1:{server.server_address[1]}/{here.name}"
    try:
        with (
            loader.open(there, "train", 64, seed=1, cache=Cache(tmp_path / "cache", 1 << 30)) as mine,
            loader.open(here, "train", 64, seed=1) as local,
        ):
            assert all(torch.equal(a["pixel_values"], b["pixel_values"]) for a, b in zip(mine, local, strict=True))
        checks = {check.name: check for check in verify(location(there), engine=HERE)}
        assert all(check.passed for check in checks.values()) and "there are no lists" in checks["strays"].detail
        record = Manifest.load(here).shards[0]
        moved = record.path(here).rename(tmp_path / "tar")
        checks = {check.name: check for check in verify(location(there), engine=HERE)}
        moved.rename(record.path(here))
        assert not checks["files"].passed and f"{record.name}: missing" in checks["files"].detail
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("encoding", ["png", "flux"])
def test_what_is_in_a_bucket_is_shown(
    sets: dict[str, tuple[Path, str]], tmp_path: Path, encoding: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = []
    for where, out in zip(map(str, sets[encoding]), ("here", "there"), strict=True):
        app(["inspect", where, "--count", "3", "--out", str(tmp_path / f"{out}.png")], standalone_mode=False)
        app(["report", where, "--out", str(tmp_path / f"{out}.html")], standalone_mode=False)
        pages.append((tmp_path / f"{out}.html").read_text())
    local, remote = (
        capsys.readouterr().out.replace(str(tmp_path / "here"), str(tmp_path / "there")).split("train-")[:2]
    )
    assert (tmp_path / "here.png").read_bytes() == (tmp_path / "there.png").read_bytes() and local and remote
    articles = [re.findall(r"<article.*?</article>", page, re.DOTALL) for page in pages]
    assert articles[0] == articles[1] and len(articles[0]) > 12
    app(["report", sets[encoding][1]], standalone_mode=False)
    assert "</html>" in location(f"{sets[encoding][1]}/report.html").read_text()

"""`specshards bench remote`: epochs from a bucket beside epochs from the disk, an S3 server on loopback.

Each turn is a new loader and one epoch, batches that nobody does anything with: from the folder; from the bucket with
an empty cache, so that every shard is fetched; and from the bucket with all of it in the cache. The server (moto)
runs on the same cores, so that what is fetched costs more here than over a network, and less than over a slow one.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer

from specshards.benchmarks.kit.records import Record, interleave
from specshards.benchmarks.kit.report import LOCAL, Out, Quick, Rounds, recording
from specshards.benchmarks.suite.train import make_shards
from specshards.common.cache import Cache
from specshards.common.errors import JobError, UsageError
from specshards.common.files import location
from specshards.shards import loader
from specshards.shards.format.manifest import Manifest

ENCODINGS = ("png", "flux")
_BATCH = 64
_BUCKET = "s3://specshards"
_START = 30.0


@contextmanager
def bucket() -> Iterator[str]:
    """A server of its own process, and the address of an empty bucket.

    Raises:
        UsageError: moto is not installed. JobError: it does not start.
    """
    if find_spec("moto") is None or find_spec("flask") is None:
        raise UsageError("bench remote: wants an S3 server; `.venv/bin/pip install -e '.[dev]'`")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait(port)
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "NO_PROXY": "127.0.0.1",
        }  # fmt: skip
        location(_BUCKET).mkdir(parents=True)
        yield _BUCKET
    finally:
        server.kill()
        server.wait()


def _wait(port: int) -> None:
    end = time.monotonic() + _START
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise JobError("the S3 server did not start within half a minute") from error
            time.sleep(0.1)


def put(folder: Path, there: str) -> str:
    """A copy of a data set at an address."""
    manifest = Manifest.load(folder)
    for record in manifest.shards:
        for path in record.files(folder):
            location(f"{there}/{path.relative_to(folder).as_posix()}").write_bytes(path.read_bytes())
    location(f"{there}/manifest.json").write_bytes((folder / "manifest.json").read_bytes())
    return there


def epoch(folder: str, cache: Cache | None = None) -> int:
    """One epoch of a new loader; its samples."""
    with loader.open(folder, "train", _BATCH, cache=cache) as batches:
        for _ in batches:
            pass
        return batches.samples


def measure(objects: int, rounds: int, scratch: Path) -> list[Record]:
    """Epochs by encoding and place, interleaved."""
    records = []
    folders = make_shards(scratch, objects, ENCODINGS)
    with bucket() as root:
        for encoding, folder in folders.items():
            there = put(folder, f"{root}/{encoding}")
            kept = Cache(scratch / f"kept-{encoding}", 1 << 40)

            def cold(there: str = there) -> int:
                place = scratch / f"cold-{uuid4().hex}"
                try:
                    return epoch(there, Cache(place, 1 << 40))
                finally:
                    shutil.rmtree(place, ignore_errors=True)

            records += interleave(
                f"epoch, {encoding}",
                {"disk": partial(epoch, str(folder)), "bucket, all in the cache": partial(epoch, there, kept),
                 "bucket, nothing in the cache": cold},
                rounds,
            )  # fmt: skip
    return records


def main(
    out: Out = LOCAL / "remote.json",
    objects: Annotated[int, typer.Option(help="Mock objects.", min=40)] = 20_000,
    rounds: Rounds = 5,
    quick: Quick = False,
) -> None:
    """Time epochs from an S3 server on loopback beside epochs from the disk, interleaved."""
    with recording("remote", out, quick) as draft, tempfile.TemporaryDirectory() as scratch:
        if quick:
            objects, rounds = 60, 1
        draft.records = measure(objects, rounds, Path(scratch))
        draft.notes.append("the server runs on the same cores")

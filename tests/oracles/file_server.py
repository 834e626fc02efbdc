"""A server on this machine that does all that servers do, and what the tests of downloads ask of it."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pyarrow.parquet as pq

from specshards.ingest.download.fetch import Policy
from specshards.ingest.download.job import download

QUICK = Policy(parallel=3, retries=3, timeout=0.4, connect_timeout=2, backoff=0.01)
LAMOST = {"obsdate": "2013-11-11", "planid": "GAC116N20B1", "lmjd": 56608, "spid": 15, "fiberid": 92}
LAMOST_PATH = "20131111/GAC116N20B1/spec-56608-GAC116N20B1_sp15-092.fits.gz"


def spectrum(seed: int, blocks: int = 12) -> bytes:
    head = b"SIMPLE  =                    T".ljust(2880)
    return head + np.random.default_rng(seed).bytes(2880 * blocks)


@dataclass
class Request:
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    time: float


@dataclass
class Server:
    """Files by path, and for a path the things that go wrong with its first requests, in order."""

    files: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    trouble: dict[str, list[Callable[[Any, bytes], None]]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    delay: float = 0.0
    ranges: bool = True
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)

    def asked(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """The server, on a free port; its files and troubles may be changed while it runs."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            path = parts.path.lstrip("/")
            with state.lock:
                state.requests.append(Request(path, parse_qs(parts.query), dict(self.headers), time.monotonic()))
                state.at_once += 1
                state.most_at_once = max(state.most_at_once, state.at_once)
                pending = state.trouble.get(path)
                trouble = pending.pop(0) if pending else None
            try:
                with contextlib.suppress(OSError):
                    time.sleep(state.delay)
                    body = state.files.get(path)
                    if trouble is not None:
                        trouble(self, body or b"")
                    elif body is None:
                        answer(404, b"none")(self, b"")
                    else:
                        serve(state, path)(self, body)
            finally:
                with state.lock:
                    state.at_once -= 1

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    state.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield state
    state.closing.set()
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def answer(status: int, body: bytes, **headers: str) -> Callable[[Any, bytes], None]:
    def send(handler: Any, _: bytes) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


def serve(state: Server, path: str, *, if_range: bool = True) -> Callable[[Any, bytes], None]:
    """As a good server does, with ranges and If-Range; `if_range=False` sends the range whatever the version."""

    def send(handler: Any, body: bytes) -> None:
        tag = state.tags.get(path, '"1"')
        match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        same = not if_range or handler.headers.get("If-Range", tag) == tag
        if state.ranges and match and same and int(match[1]) < len(body):
            start = int(match[1])
            content = f"bytes {start}-{len(body) - 1}/{len(body)}"
            answer(206, body[start:], ETag=tag, Content_Range=content)(handler, b"")
        else:
            answer(200, body, ETag=tag)(handler, b"")

    return send


def cut(size: int, tag: str = '"1"', then: Callable[[], object] = lambda: None) -> Callable[[Any, bytes], None]:
    """Promise the whole file, send `size` bytes of it, call `then`, close."""

    def send(handler: Any, body: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("ETag", tag)
        handler.end_headers()
        handler.wfile.write(body[:size])
        handler.wfile.flush()
        then()
        handler.close_connection = True

    return send


def plates(folder: Path, fibers: list[object], name: str = "sdss.csv") -> Path:
    path = folder / name
    lines = [f"266,51602,{fiber},26" for fiber in fibers]
    path.write_text("\n".join(["PLATE,MJD,FiberID,run2d", *lines]) + "\n")
    return path


def spec(fiber: int) -> str:
    return f"26/spectra/lite/0266/spec-0266-51602-{fiber:04d}.fits"


def records(out: Path) -> list[dict[str, Any]]:
    return sorted(pq.read_table(out / "download.parquet").to_pylist(), key=lambda row: row["row"])


def get(server: Server, catalogue: Path, out: Path, **changes: Any) -> Counter[str]:
    arguments = {"survey": "sdss", "policy": QUICK, "base": server.url, "max_bad_fraction": 1, **changes}
    return download(arguments.pop("survey"), catalogue, out, **arguments)


def files(out: Path) -> dict[str, bytes]:
    found = (p for p in out.rglob("*") if p.name.endswith((".fits", ".fits.gz")))
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in found}

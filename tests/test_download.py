"""`ingest download` against a server on this machine that does all that servers do."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import addresses, fetch, record, rows
from ingest.addresses import choose, split_specobjid
from ingest.download import download
from ingest.errors import BadObjectError, JobError, UsageError
from ingest.fetch import Policy
from tests.conftest import ROOT

QUICK = Policy(parallel=3, retries=3, timeout=0.4, connect_timeout=2, backoff=0.01)
TOKEN = "Fs3cr3t+token"


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


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
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


# Paths


SDSS_ROWS = [
    ({"plate": 266, "mjd": 51602, "fiberid": 1, "run2d": 26}, spec(1)),
    ({"plate": "3586", "mjd": "55181", "fiberid": "0001", "run2d": b"v5_13_2 "},
     "v5_13_2/spectra/lite/3586/spec-3586-55181-0001.fits"),
    ({"plate": 10000.0, "mjd": 57346, "fiberid": 1000, "run2d": "v5_13_2"},
     "v5_13_2/spectra/lite/10000/spec-10000-57346-1000.fits"),
    ({"field": 15143, "mjd": 59205, "catalogid": 4544940698, "run2d": "v6_0_4"},
     "v6_0_4/spectra/lite/15143p/59205/spec-15143-59205-04544940698.fits"),
    ({"field": 15000, "mjd": 59146, "catalogid": 4375924756, "run2d": "v6_1_3"},
     "v6_1_3/spectra/lite/015000/59146/spec-015000-59146-4375924756.fits"),
    ({"field": "allepoch", "mjd": 60000, "catalogid": 27021598054114233, "run2d": "v6_1_3"},
     "v6_1_3/spectra/lite/allepoch/60000/spec-allepoch-60000-27021598054114233.fits"),
    ({"field": 15000, "mjd": 59146, "catalogid": 4375924756, "run2d": "v6_2_1"},
     "v6_2_1/spectra/daily/lite/015XXX/015000/59146/spec-015000-59146-4375924756.fits"),
    ({"plate": 1, "mjd": 51602, "fiberid": 1, "run2d": 26, "field": 7, "catalogid": 9},
     "26/spectra/lite/0001/spec-0001-51602-0001.fits"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "path"), SDSS_ROWS)
def test_sdss_paths_are_those_of_the_data_model(row: dict[str, Any], path: str) -> None:
    assert choose("sdss", list(row), base="http://h/b/").address(row).path == path
    assert choose("sdss", list(row), base="http://h/b/").address(row).url == f"http://h/b/{path}"


@pytest.mark.parametrize(
    ("number", "row"),
    [
        # Of real files, and the example in the documentation of pydl's sdss_specobjid.
        ("299492975510054912", {"plate": 266, "mjd": 51602, "fiberid": 13, "run2d": "26"}),
        (10838091580906428416, {"plate": 9626, "mjd": 57875, "fiberid": 651, "run2d": "v5_13_2"}),
        (4565636362342690816, {"plate": 4055, "mjd": 55359, "fiberid": 408, "run2d": "v5_7_0"}),
    ],
)
def test_a_specobjid_alone_names_the_file(number: object, row: dict[str, Any]) -> None:
    assert split_specobjid(number) == row
    given_id = choose("sdss", ["SpecObjID"]).address({"specobjid": number})
    assert given_id == choose("sdss", list(row)).address(row)


def test_a_specobjid_that_a_float_has_rounded_is_refused() -> None:
    with pytest.raises(BadObjectError, match="rounded"):
        split_specobjid(float(4565636362342690816))


LAMOST = {"obsdate": "2013-11-11", "planid": "GAC116N20B1", "lmjd": 56608, "spid": 15, "fiberid": 92}
LAMOST_PATH = "20131111/GAC116N20B1/spec-56608-GAC116N20B1_sp15-092.fits.gz"


def test_lamost_paths_and_addresses() -> None:
    by_path = choose("lamost", [*LAMOST, "obsid"], release="dr5/v3").address({**LAMOST, "obsid": 7})
    # The address of a real file of DR5.
    assert (by_path.key, by_path.url) == ("7", f"https://dr5.lamost.org/v3/sas/fits/{LAMOST_PATH}")
    assert by_path.path == LAMOST_PATH
    by_obsid = choose("lamost", [*LAMOST, "obsid"], token=True).address({**LAMOST, "obsid": "437513049"})
    assert by_obsid.url == "https://www.lamost.org/dr10/v2.0/spectrum/fits/437513049"
    assert by_obsid.path == LAMOST_PATH
    alone = choose("lamost", ["ObsID"]).address({"obsid": 437513049})
    assert alone.path == "4375/437513049.fits.gz"


@pytest.mark.parametrize(
    ("run2d", "release", "root"),
    [
        ("26", None, "https://data.sdss.org/sas/dr17/sdss/spectro/redux"),
        ("v5_13_2", None, "https://data.sdss.org/sas/dr17/eboss/spectro/redux"),
        ("v5_7_0", "dr12", "https://data.sdss.org/sas/dr12/boss/spectro/redux"),
        ("v5_13_2", "dr18", "https://data.sdss.org/sas/dr18/spectro/sdss/redux"),
        ("v6_0_4", None, "https://data.sdss.org/sas/dr18/spectro/boss/redux"),
        ("v6_1_3", None, "https://data.sdss.org/sas/dr19/spectro/boss/redux"),
    ],
)
def test_the_root_follows_reduction_and_release(run2d: str, release: str | None, root: str) -> None:
    assert addresses.sdss_root(run2d, release) == root


VALUES = st.one_of(
    st.none(), st.integers(), st.floats(), st.text(max_size=12), st.binary(max_size=6), st.dates(),
    st.sampled_from(["..", "../..", "/etc", "a/b", "%2e%2e", "v6_0_4", "v6_1_3", "26", "2013-11-11", "٣", "1\n"]),
)  # fmt: skip
NAMES = ("plate", "mjd", "fiberid", "run2d", "field", "catalogid", "obsdate", "planid", "lmjd", "spid", "obsid")


@given(st.sampled_from(["sdss", "lamost"]), st.booleans(), st.fixed_dictionaries(dict.fromkeys(NAMES, VALUES)))
def test_no_row_leads_out_of_the_folder(survey: str, token: bool, row: dict[str, Any]) -> None:
    try:
        address = choose(survey, NAMES, base="http://h/b", token=token).address(row)
    except BadObjectError as error:
        assert "\n" not in error.reason
        return
    assert re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9_.+-]*/)+[A-Za-z0-9][A-Za-z0-9_.+-]*\.fits(\.gz)?", address.path)
    assert ".." not in PurePosixPath(address.path).parts
    assert address.url.startswith("http://h/b/") and address.url.isascii()


@given(
    st.integers(1, 99_999), st.integers(10_000, 99_999), st.integers(1, 9_999),
    st.sampled_from(["26", "v5_13_2"]), st.sampled_from([int, str, float]),
)  # fmt: skip
def test_a_path_holds_its_row(plate: int, mjd: int, fiber: int, run2d: str, kind: type) -> None:
    row = {"plate": kind(plate), "mjd": kind(mjd), "fiberid": kind(fiber), "run2d": run2d}
    match = re.fullmatch(r"(\w+)/spectra/lite/(\d{4,5})/spec-(\d{4,5})-(\d{5})-(\d{4})\.fits",
                         choose("sdss", list(row)).address(row).path)  # fmt: skip
    assert match is not None
    assert (match[1], int(match[2]), int(match[3]), int(match[4]), int(match[5])) == (run2d, plate, plate, mjd, fiber)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"survey": "desi", "columns": ["a"]}, "unknown SURVEY=desi: choose lamost or sdss"),
        ({"survey": "sdss", "columns": ["obsid", "z"]}, "found obsid, z; this looks like a LAMOST catalogue"),
        ({"survey": "lamost", "columns": ["plate", "z"]}, "this looks like an SDSS catalogue: --survey sdss"),
        ({"survey": "sdss", "columns": ["plate", "mjd"]}, "expected plate, mjd, fiberid, run2d, or field"),
        ({"survey": "sdss", "columns": ["specobjid"], "release": "v5"}, "RELEASE=v5: give an SDSS release"),
        ({"survey": "lamost", "columns": ["obsid"], "release": "../x"}, "RELEASE=../x: give a LAMOST release"),
        ({"survey": "sdss", "columns": ["specobjid"], "base": "ftp://x/y"}, "BASE: give an address"),
        ({"survey": "sdss", "columns": ["specobjid"], "base": "https://me:pw@x/y"}, "BASE: give an address"),
        ({"survey": "sdss", "columns": ["specobjid"], "base": "https://x/y?token=1"}, "BASE: give an address"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        choose(**arguments)
    assert "pw@" not in str(caught.value) and "\n" not in str(caught.value)


# Catalogues and lists


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "bars.csv", "parquet", "fits"])
def test_every_kind_of_catalogue_gives_the_same_rows_in_batches(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from astropy.table import Table

    monkeypatch.setattr(rows, "BATCH", 3)
    columns = {name.upper(): [value] * 8 for name, value in LAMOST.items()}
    columns["FIBERID"] = list(range(1, 9))
    columns["OBSID"] = [2**62 + 1 + i for i in range(8)]  # a float would round these
    path = tmp_path / f"catalogue.{kind}"
    if "csv" in kind:
        mark = "|" if kind == "bars.csv" else ","
        lines = [mark.join(map(str, values)) for values in zip(*columns.values(), strict=True)]
        text = "\n".join([mark.join(columns), *lines]).encode()
        path.write_bytes(gzip.compress(text) if kind.endswith("gz") else text)
    elif kind == "parquet":
        pq.write_table(pa.table({**columns, "EXTRA": [0] * 8}), path)
    else:
        Table(columns).write(path)
    opened = rows.open_rows(path)
    assert opened.total == (None if kind == "csv.gz" else 8)
    scheme = choose("lamost", opened.columns)
    batches = list(opened.batches(list(scheme.columns.values())))
    assert max(len(batch["FIBERID"]) for batch in batches) == 3 and "EXTRA" not in batches[0]
    values = [dict(zip(scheme.columns, v, strict=True)) for b in batches for v in zip(*b.values(), strict=True)]
    found = [
        scheme.address(dict(zip(scheme.columns, [row[n] for n in scheme.columns], strict=True))) for row in values
    ]
    assert [a.path for a in found] == [LAMOST_PATH.replace("092", f"{i:03d}") for i in range(1, 9)]
    assert [a.key for a in found] == [str(2**62 + 1 + i) for i in range(8)]


def test_what_is_no_catalogue_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "a.xls").write_bytes(b"")
    for name, message in [("a.parquet", "not a readable table"), ("a.xls", "unknown kind"), ("b.csv", "no such")]:
        with pytest.raises(UsageError, match=message):
            rows.open_rows(tmp_path / name)


def test_checksums_are_found_by_the_end_of_the_path(tmp_path: Path) -> None:
    a, b, c = (hashlib.sha1(text).hexdigest() for text in (b"a", b"b", b"c"))
    (tmp_path / "x.sha1sum").write_text(f"# list\n{a}  ./0266/spec-0266-51602-0001.fits\n{b.upper()} *{spec(2)}\n")
    (tmp_path / "y.sha1sum").write_text(f"{c}  redux/v5_13_2/spectra/lite/0266/spec-0266-51602-0001.fits\n")
    listed = rows.Checksums([tmp_path / "x.sha1sum", tmp_path / "y.sha1sum"])
    assert (listed.of(spec(1)), listed.of(spec(2)), listed.of(spec(3))) == (a, b, None)
    assert listed.of(spec(1).replace("26/", "v5_13_2/", 1)) == c
    (tmp_path / "z").write_text("no list\n")
    with pytest.raises(UsageError, match="z, line 1: expected CHECKSUM  PATH"):
        rows.Checksums([tmp_path / "z"])


# Whole jobs


def test_every_row_is_accounted_for_and_a_second_run_asks_for_nothing_it_has(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files = {spec(i): spectrum(i) for i in range(1, 9)}
    page = b"<!DOCTYPE html><title>Please log in</title>"
    server.files[spec(20)] = page
    server.trouble = {
        spec(2): [answer(500, b"oh"), answer(502, b"oh")],
        spec(3): [cut(5000)],
        spec(4): [answer(302, b"", Location=f"{server.url}/{spec(5)}")],
        spec(10): [answer(410, b"")], spec(11): [answer(403, b"no")], spec(12): [answer(418, b"teapot")],
        spec(13): [answer(500, b"")] * 9, spec(14): [answer(302, b"", Location=f"/{spec(14)}")] * 99,
    }  # fmt: skip
    catalogue = plates(tmp_path, [*range(1, 9), 9, 10, 11, 12, 13, 14, 20, "../1", "", 1])
    out = tmp_path / "out"
    counts = get(server, catalogue, out)
    assert counts == {"done": 8, "kept": 1, "missing": 3, "failed": 6}
    expected = {spec(i): spectrum(i) for i in (1, 2, 3, 5, 6, 7, 8)} | {spec(4): spectrum(5)}
    assert files(out) == expected and not list(out.rglob("*.part*"))
    found = records(out)
    assert [row["row"] for row in found] == list(range(18))
    assert Counter(row["status"] for row in found) == counts
    assert all((row["path"] is None) == (row["status"] in ("missing", "failed")) for row in found)
    assert all(row["bytes"] == len(expected[row["path"]]) for row in found if row["path"])
    reasons = {i: row["reason"] for i, row in enumerate(found)}
    assert (reasons[8], reasons[9], reasons[10], reasons[11]) == ("HTTP 404", "HTTP 410", "HTTP 403", "HTTP 418")
    assert reasons[12] == "HTTP 500, 4 times" and "redirected in circles" in reasons[13]
    assert reasons[14] == "not a FITS file but a web page"
    assert reasons[15] == "fiberid = '../1': not a whole number" and reasons[16] == "fiberid: no value in this row"
    for path, times in ((spec(1), 1), (spec(2), 3), (spec(9), 1), (spec(11), 1), (spec(13), 4), (spec(20), 1)):
        assert len(server.asked(path)) == times, path
    assert {request.headers["User-Agent"] for request in server.requests} == {fetch.USER_AGENT}
    assert fetch.USER_AGENT.startswith("specshards/")
    assert {request.headers["Accept-Encoding"] for request in server.requests} == {"identity"}
    assert not any(request.query for request in server.requests)
    assert "18 rows = 8 done + 1 kept + 3 missing + 6 failed" in capsys.readouterr().out
    server.requests.clear()
    assert get(server, catalogue, out)["kept"] == 9
    assert not {request.path for request in server.requests} & set(expected)
    assert files(out) == expected


def test_too_many_bad_rows_fail_the_job_after_the_record(server: Server, tmp_path: Path) -> None:
    server.files = {spec(1): spectrum(1), spec(2): spectrum(2)}
    catalogue = plates(tmp_path, [1, 2, 3])
    with pytest.raises(JobError, match=r"1 of 3 rows are missing or failed.*mostly: HTTP 404"):
        get(server, catalogue, tmp_path / "out", max_bad_fraction=0.3)
    assert len(records(tmp_path / "out")) == 3
    assert get(server, catalogue, tmp_path / "out", max_bad_fraction=0.34)["missing"] == 1
    assert get(server, catalogue, tmp_path / "out", max_bad_fraction=0, limit=2) == {"kept": 2}


def test_rows_that_lead_elsewhere_write_nothing_there(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "a" / "l.csv"
    path.parent.mkdir()
    bad = ["../../x", "..", "/etc", "a/b", "a\\b", ".hidden", "%2e%2e", "a b"]
    lines = [f"2013-11-11,{plan},56608,15,92" for plan in [*bad, "GAC116N20B1"]]
    path.write_text("\n".join(["obsdate,planid,lmjd,spid,fiberid", *lines]) + "\n")
    server.files[LAMOST_PATH] = gzip.compress(spectrum(1))
    counts = get(server, path, tmp_path / "a" / "out", survey="lamost")
    assert counts == {"failed": len(bad), "done": 1}
    assert {request.path for request in server.requests} == {LAMOST_PATH}
    written = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    extra = {"a/out/download.parquet", "a/out/.download.lock", "a/l.csv"}
    assert written == {f"a/out/{LAMOST_PATH}", *extra}


def test_a_cut_file_goes_on_where_it_was_cut(server: Server, tmp_path: Path) -> None:
    server.files[spec(1)] = body = spectrum(1)
    server.trouble[spec(1)] = [cut(7000)]
    assert get(server, plates(tmp_path, [1]), tmp_path / "out") == {"done": 1}
    first, second = server.asked(spec(1))
    assert "Range" not in first.headers
    assert (second.headers["Range"], second.headers["If-Range"]) == ("bytes=7000-", '"1"')
    assert files(tmp_path / "out") == {spec(1): body}


def test_a_server_without_ranges_sends_it_all_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.files[spec(1)] = body = spectrum(1)
    server.trouble[spec(1)] = [cut(7000)]
    assert get(server, plates(tmp_path, [1]), tmp_path / "out") == {"done": 1}
    assert files(tmp_path / "out") == {spec(1): body}


@pytest.mark.parametrize("if_range", [True, False])
def test_a_file_that_changes_meanwhile_is_never_mixed(server: Server, tmp_path: Path, if_range: bool) -> None:
    server.files[spec(1)] = spectrum(1)
    new = spectrum(2)

    def change() -> None:
        server.files[spec(1)], server.tags[spec(1)] = new, '"2"'

    server.trouble[spec(1)] = [cut(7000, then=change)]
    if not if_range:  # a server that knows ranges but not If-Range
        server.trouble[spec(1)].append(serve(server, spec(1), if_range=False))
    assert get(server, plates(tmp_path, [1]), tmp_path / "out") == {"done": 1}
    assert files(tmp_path / "out") == {spec(1): new}
    assert len(server.asked(spec(1))) == (2 if if_range else 3)


def test_a_part_of_unknown_or_weak_version_starts_again(server: Server, tmp_path: Path) -> None:
    server.files[spec(1)] = body = spectrum(1)
    server.trouble[spec(1)] = [cut(7000, tag='W/"1"')]
    assert get(server, plates(tmp_path, [1]), tmp_path / "out") == {"done": 1}
    assert "Range" not in server.asked(spec(1))[1].headers
    assert files(tmp_path / "out") == {spec(1): body}


def test_a_part_longer_than_the_file_starts_again(server: Server, tmp_path: Path) -> None:
    server.files[spec(1)] = body = spectrum(1)
    part = tmp_path / "out" / f"{spec(1)}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(body * 2)
    part.with_name(f"{part.name}.from").write_text('"1"')
    server.trouble[spec(1)] = [answer(416, b"", Content_Range=f"bytes */{len(body)}")]
    assert get(server, plates(tmp_path, [1]), tmp_path / "out") == {"done": 1}
    assert files(tmp_path / "out") == {spec(1): body}
    assert "Range" not in server.asked(spec(1))[1].headers


@pytest.mark.parametrize("sent", [0, 7000])
def test_a_stalled_server_is_given_up_and_tried_again(server: Server, tmp_path: Path, sent: int) -> None:
    server.files[spec(1)] = body = spectrum(1)
    server.trouble[spec(1)] = [cut(sent, then=lambda: server.closing.wait(5))]
    started = time.monotonic()
    assert get(server, plates(tmp_path, [1]), tmp_path / "out") == {"done": 1}
    assert time.monotonic() - started < 3
    assert files(tmp_path / "out") == {spec(1): body}


def test_a_dripping_server_is_given_up(server: Server, tmp_path: Path) -> None:
    def drip(handler: Any, body: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        for byte in body[:60]:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            if server.closing.wait(0.05):
                return

    server.files[spec(1)] = spectrum(1)
    server.trouble[spec(1)] = [drip] * 9
    policy = Policy(retries=1, timeout=0.4, whole_timeout=0.3, backoff=0.01)
    assert get(server, plates(tmp_path, [1]), tmp_path / "out", policy=policy) == {"failed": 1}
    assert records(tmp_path / "out")[0]["reason"] == "not whole after 0.3 s, 2 times"


def test_retry_after_holds_every_thread_back(server: Server, tmp_path: Path) -> None:
    server.files = {spec(i): spectrum(i, 1) for i in range(1, 7)}
    server.trouble[spec(1)] = [answer(503, b"", Retry_After="1")]
    policy = Policy(parallel=2, retries=3, timeout=5, backoff=0.01, pause=0.05)
    assert get(server, plates(tmp_path, list(range(1, 7))), tmp_path / "out", policy=policy) == {"done": 6}
    first = server.asked(spec(1))[0].time
    # The request of the other thread may be under way already; none may start in the second after.
    assert not [r for r in server.requests if 0.1 < r.time - first < 0.95]
    assert server.asked(spec(1))[1].time - first >= 0.95


def test_retry_after_as_a_date_and_for_too_long(server: Server, tmp_path: Path) -> None:
    assert 0 < fetch._retry_after(time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 100))) <= 100
    assert fetch._retry_after("soon") == fetch._retry_after(None) == fetch._retry_after("-3") == 0
    server.trouble[spec(1)] = [answer(429, b"", Retry_After="86400")]
    with pytest.raises(JobError, match="asks to wait 86400 s"):
        get(server, plates(tmp_path, [1]), tmp_path / "out")


def test_connections_are_bounded_and_used_again(server: Server, tmp_path: Path) -> None:
    server.delay = 0.03
    server.files = {spec(i): spectrum(i, 1) for i in range(1, 21)}
    assert get(server, plates(tmp_path, list(range(1, 21))), tmp_path / "out") == {"done": 20}
    assert server.most_at_once == QUICK.parallel


def test_pause_spaces_requests(server: Server, tmp_path: Path) -> None:
    server.files = {spec(i): spectrum(i, 1) for i in range(1, 6)}
    policy = Policy(parallel=4, timeout=5, pause=0.1)
    get(server, plates(tmp_path, list(range(1, 6))), tmp_path / "out", policy=policy)
    times = sorted(request.time for request in server.requests)
    assert times[-1] - times[0] >= 0.35


def test_rows_of_one_file_fetch_it_once(server: Server, tmp_path: Path) -> None:
    server.delay = 0.05
    server.files = {spec(1): spectrum(1)}
    assert get(server, plates(tmp_path, [1, 1, 2, 1, 2]), tmp_path / "out") == {"done": 1, "kept": 2, "missing": 2}
    assert len(server.requests) == 2


def test_an_id_past_int64_in_a_csv_is_not_rounded(server: Server, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("specObjID,z\n10838091580906428416,0.1\n")
    path = "v5_13_2/spectra/lite/9626/spec-9626-57875-0651.fits"
    server.files[path] = spectrum(1)
    assert get(server, tmp_path / "c.csv", tmp_path / "out") == {"done": 1}


# What arrives


@pytest.mark.parametrize(
    ("body", "headers", "name", "reason"),
    [
        (gzip.compress(spectrum(1)), {}, LAMOST_PATH, None),
        (gzip.compress(spectrum(1)), {"Content_Encoding": "gzip"}, LAMOST_PATH, None),
        (spectrum(1), {}, LAMOST_PATH.removesuffix(".gz"), None),
        (gzip.compress(spectrum(1)[:5000]) + gzip.compress(spectrum(1)[5000:]), {}, LAMOST_PATH, None),
        (gzip.compress(spectrum(1))[:-9], {}, None, "damaged gzip"),
        (gzip.compress(spectrum(1))[:-8] + b"12345678", {}, None, "damaged gzip"),
        (gzip.compress(b"<html>no</html>"), {}, None, "gzip of something that is not a FITS file"),
        (spectrum(1)[:-1], {}, None, "not whole blocks"),
        (b"", {}, None, "not a FITS file"),
        (b'{"error": "token"}', {}, None, "not a FITS file"),
        (b"\n<html>", {"Content_Type": "application/fits"}, None, "not a FITS file but a web page"),
    ],
)
def test_only_a_whole_fits_file_gets_its_name(
    server: Server, tmp_path: Path, body: bytes, headers: dict[str, str], name: str | None, reason: str | None
) -> None:
    pq.write_table(pa.table({key: [value] for key, value in LAMOST.items()}), tmp_path / "c.parquet")
    server.trouble[LAMOST_PATH] = [answer(200, body, **headers)] * 9
    out = tmp_path / "out"
    policy = Policy(retries=1, timeout=2, backoff=0.01)
    counts = get(server, tmp_path / "c.parquet", out, survey="lamost", policy=policy)
    if name is None:
        assert counts == {"failed": 1} and reason in records(out)[0]["reason"]
        assert files(out) == {}
    else:
        assert counts == {"done": 1} and files(out) == {name: body}
        assert get(server, tmp_path / "c.parquet", out, survey="lamost") == {"kept": 1}


def test_checksums_from_a_list_or_a_column_are_held(server: Server, tmp_path: Path) -> None:
    server.files = {spec(i): spectrum(i) for i in (1, 2, 3)}
    good = [hashlib.sha1(spectrum(i)).hexdigest() for i in (1, 2, 3)]
    (tmp_path / "lite.sha1sum").write_text(f"{good[0]}  0266/spec-0266-51602-0001.fits\n{'0' * 40}  {spec(2)}\n")
    counts = get(server, plates(tmp_path, [1, 2, 3]), tmp_path / "a", checksums=[tmp_path / "lite.sha1sum"])
    assert counts == {"done": 2, "failed": 1} and set(files(tmp_path / "a")) == {spec(1), spec(3)}
    assert records(tmp_path / "a")[1]["reason"] == "its sha1 is not the one listed, 4 times"
    table = {"plate": [266] * 4, "mjd": [51602] * 4, "fiberid": [1, 2, 3, 3], "run2d": ["26"] * 4,
             "MD5": [hashlib.md5(spectrum(1)).hexdigest(), "0" * 32, None, "abc"]}  # fmt: skip
    pq.write_table(pa.table(table), tmp_path / "c.parquet")
    assert get(server, tmp_path / "c.parquet", tmp_path / "b") == {"done": 2, "failed": 2}
    reasons = [row["reason"] for row in records(tmp_path / "b")]
    assert reasons[1].startswith("its md5 is not") and reasons[3] == "checksum 'abc' is no md5, sha1 or sha256"


def test_verify_mends_what_is_damaged(server: Server, tmp_path: Path) -> None:
    server.files = {spec(i): spectrum(i) for i in (1, 2)}
    catalogue, out = plates(tmp_path, [1, 2]), tmp_path / "out"
    get(server, catalogue, out)
    (out / spec(2)).write_bytes(spectrum(2)[:-100])
    assert get(server, catalogue, out) == {"kept": 2}
    assert get(server, catalogue, out, verify=True) == {"kept": 1, "done": 1}
    assert files(out) == server.files and len(server.asked(spec(1))) == 1


# Ends


def test_a_server_that_is_not_there_is_told_once_and_soon(server: Server, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(JobError, match=r"127\.0\.0\.1 cannot be reached") as caught:
        get(server, plates(tmp_path, list(range(1, 50))), tmp_path / "out", base="http://127.0.0.1:1")
    assert time.monotonic() - started < 3 and "\n" not in str(caught.value)


def test_a_server_in_trouble_is_left_alone(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_STREAK", 3)
    monkeypatch.setattr(record, "_NONE_THERE", 6)
    server.files = dict.fromkeys([spec(i) for i in range(2, 60)], b"<html>maintenance</html>")
    server.files[spec(1)] = spectrum(1)
    with pytest.raises(JobError, match=r"the last 3 files all failed \(not a FITS file but a web page\)"):
        get(server, plates(tmp_path, list(range(1, 60))), tmp_path / "a", max_bad_fraction=0.9)
    assert len(server.requests) < 20 and set(files(tmp_path / "a")) == {spec(1)}
    server.files.clear()
    server.requests.clear()
    with pytest.raises(JobError, match=r"none of the first 6 files is there \(HTTP 404\); check --release"):
        get(server, plates(tmp_path, list(range(1, 60))), tmp_path / "b", max_bad_fraction=0.9)
    assert len(server.requests) < 20
    assert get(server, plates(tmp_path, list(range(1, 60))), tmp_path / "b") == {"missing": 59}


def test_the_end_of_a_job_wakes_threads_that_wait(server: Server, tmp_path: Path) -> None:
    server.delay = 0.1
    server.trouble = {spec(1): [answer(500, b"")], spec(2): [answer(429, b"", Retry_After="86400")]}
    with pytest.raises(JobError, match="asks to wait"):
        get(server, plates(tmp_path, [1, 2]), tmp_path / "out", policy=Policy(parallel=2, backoff=60))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch-")]


def test_a_full_disk_ends_the_job(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "spec.fits")

    server.files = {spec(i): spectrum(i) for i in range(1, 9)}
    monkeypatch.setattr(fetch, "publish", full)
    with pytest.raises(OSError, match="No space left"):
        get(server, plates(tmp_path, list(range(1, 9))), tmp_path / "out")
    assert not files(tmp_path / "out")
    assert not (tmp_path / "out" / "download.parquet").exists()
    monkeypatch.undo()
    assert get(server, plates(tmp_path, list(range(1, 9))), tmp_path / "out") == {"done": 8}
    assert files(tmp_path / "out") == server.files


PROGRAM = (
    "import typer; from ingest.download import command; from ingest.errors import run_app; "
    "app = typer.Typer(add_completion=False, pretty_exceptions_enable=False); app.command()(command); run_app(app)"
)


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)], cwd=ROOT, env={**os.environ, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_job_stopped_in_the_middle_of_a_file_goes_on_to_the_right_bytes(
    server: Server, tmp_path: Path, sign: int, code: int
) -> None:
    half = threading.Event()

    def hang() -> None:
        half.set()
        server.closing.wait(20)

    server.files = {spec(1): spectrum(1), spec(2): spectrum(2, 400)}
    server.trouble[spec(2)] = [cut(700_000, then=hang)]
    catalogue, out = plates(tmp_path, [1, 2]), tmp_path / "out"
    job = start("--survey", "sdss", "--catalog", catalogue, "--out", out, "--base", server.url)
    part = out / f"{spec(2)}.part"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (half.is_set() and part.is_file() and (out / spec(1)).is_file()):
        time.sleep(0.02)
    time.sleep(0.2)
    with pytest.raises(JobError, match="another download is writing there"):
        get(server, catalogue, out)
    job.send_signal(sign)
    stopped = time.monotonic()
    _, errors = job.communicate(timeout=20)
    assert job.returncode == code and time.monotonic() - stopped < 5
    assert "Traceback" not in errors
    if sign == signal.SIGINT:
        assert "interrupted: what is finished is kept" in errors
    assert not (out / spec(2)).exists() and not (out / "download.parquet").exists()
    kept = part.stat().st_size
    assert get(server, catalogue, out) == {"kept": 1, "done": 1}
    assert files(out) == server.files
    if kept:  # a killed process loses what it had not handed to the system
        assert server.asked(spec(2))[-1].headers["Range"] == f"bytes={kept}-"
    assert sign == signal.SIGKILL or kept == 700_000


def test_the_token_goes_to_the_server_and_nowhere_else(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.csv").write_text("obsid|z\n" + "".join(f"43751304{i}|0\n" for i in range(8)))
    path = "spectrum/fits/43751304{}".format
    packed = gzip.compress(spectrum(1))
    server.trouble = {
        path(0): [answer(302, b"", Location="/moved?token=Fs3cr3t%2Btoken")],
        path(1): [answer(403, b"bad token Fs3cr3t+token")],
        path(2): [answer(200, b"<html>token=Fs3cr3t+token</html>")],
        path(3): [cut(9)] * 9,
        path(4): [answer(302, b"", Location="Fs3cr3t://+token")] * 9,
        path(5): [answer(302, b"", Location="http://127.0.0.1:1/?token=Fs3cr3t%2Btoken")] * 9,
    }
    server.files = {"moved": packed, path(3): packed, path(6): packed, path(7): packed}
    caplog.set_level(logging.DEBUG)
    counts = get(server, tmp_path / "c.csv", tmp_path / "out", survey="lamost", token=TOKEN, release="dr10/v2.0")
    assert counts == {"done": 3, "missing": 1, "failed": 4}
    assert set(files(tmp_path / "out")) == {f"4375/43751304{i}.fits.gz" for i in (0, 6, 7)}
    assert all(request.query == {"token": [TOKEN]} for request in server.requests)
    for environment in ({}, {"SPECSHARDS_DEBUG": "1"}):
        job = start("--survey", "lamost", "--catalog", tmp_path / "c.csv", "--out", tmp_path / "out2", "--base",
                    "http://127.0.0.1:1", SPECSHARDS_LAMOST_TOKEN=TOKEN, **environment)  # fmt: skip
        output, errors = job.communicate(timeout=30)
        assert job.returncode == 1 and "127.0.0.1 cannot be reached" in errors
        assert "Fs3cr3t" not in output + errors
    assert "Fs3cr3t" not in caplog.text and "Fs3cr3t" not in "".join(capsys.readouterr())
    for file in tmp_path.rglob("*"):
        assert "Fs3cr3t" not in str(file) and (not file.is_file() or b"Fs3cr3t" not in file.read_bytes())
    for row in records(tmp_path / "out"):
        assert "Fs3cr3t" not in str(row)
    assert "Fs3cr3t" not in repr(fetch.Fetcher(QUICK, TOKEN))


def test_help_teaches_and_loads_nothing_heavy(tmp_path: Path) -> None:
    job = start("--help", SPECSHARDS_LAMOST_TOKEN=TOKEN, COLUMNS="110")
    output, _ = job.communicate(timeout=30)
    assert job.returncode == 0 and "python -m ingest download --survey sdss" in output and "Fs3cr3t" not in output
    heavy = "import sys, ingest.download; print(sorted({'pyarrow', 'httpx2', 'numpy', 'astropy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", heavy], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parallel", "100"], "PARALLEL=100: give 1 to 32 connections"),
        (["--limit", "0"], "LIMIT=0: give a number of rows"),
        (["--timeout", "0"], "TIMEOUT must be above 0"),
        (["--survey", "lamost"], "this looks like an SDSS catalogue"),
        (["--catalog", "nowhere.csv"], "nowhere.csv: no such catalogue"),
        (["--checksums", "nowhere"], "nowhere: no such list of checksums"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str],
    message: str,
) -> None:  # fmt: skip
    given = ["--survey", "sdss", "--catalog", plates(tmp_path, [1]), "--out", tmp_path / "out", *arguments]
    monkeypatch.setattr(sys, "argv", ["download", *map(str, given)])
    with pytest.raises(SystemExit) as stop:
        exec(PROGRAM, {})
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and errors.startswith("error: ") and message in errors and errors.count("\n") == 1
    assert not (tmp_path / "out").exists()

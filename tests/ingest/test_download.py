"""`ingest download` against a server on this machine that does all that servers do."""

from __future__ import annotations

import gzip
import hashlib
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from specshards.common.errors import JobError
from specshards.ingest.download import fetch
from specshards.ingest.download.fetch import Policy
from tests.oracles.file_server import (
    LAMOST,
    LAMOST_PATH,
    QUICK,
    Server,
    answer,
    cut,
    files,
    get,
    plates,
    records,
    serve,
    spec,
    spectrum,
)


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
    assert written == {f"a/out/{LAMOST_PATH}", "a/out/download.parquet", "a/l.csv"}


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
        (gzip.compress(b"<html>no</html>", mtime=0), {}, None, "gzip of something that is not a FITS file"),
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

"""How a download ends: a server that is gone or in trouble, a full disk, Ctrl-C; and what its command line says."""

from __future__ import annotations

import gzip
import logging
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from specshards.__main__ import main
from specshards.common.errors import JobError
from specshards.ingest.download import fetch, ledger
from specshards.ingest.download.fetch import Policy
from tests.oracles import commands
from tests.oracles.file_server import QUICK, Server, answer, cut, files, get, plates, records, spec, spectrum

TOKEN = "Fs3cr3t+token"


def test_a_server_that_is_not_there_is_told_once_and_soon(server: Server, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(JobError, match=r"127\.0\.0\.1 cannot be reached") as caught:
        get(server, plates(tmp_path, list(range(1, 50))), tmp_path / "out", base="http://127.0.0.1:1")
    assert time.monotonic() - started < 3 and "\n" not in str(caught.value)


def test_a_server_in_trouble_is_left_alone(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_STREAK", 3)
    monkeypatch.setattr(ledger, "_NONE_THERE", 6)
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


def download(*arguments: object) -> list[str]:
    return commands.program("ingest", "download", *arguments)


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
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
    job = commands.start(
        download("--survey", "sdss", "--catalog", catalogue, "--out", out, "--base", server.url),
        output=subprocess.PIPE,
        errors=subprocess.PIPE,
    )
    part = out / f"{spec(2)}.part"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (half.is_set() and part.is_file() and (out / spec(1)).is_file()):
        time.sleep(0.02)
    time.sleep(0.2)
    with pytest.raises(JobError, match="another process is writing there"):
        get(server, catalogue, out)
    job.send_signal(sign)
    stopped = time.monotonic()
    _, errors = job.communicate(timeout=20)
    assert job.returncode == code and time.monotonic() - stopped < 5
    assert "Traceback" not in errors
    if sign != signal.SIGKILL:
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
        job = download("--survey", "lamost", "--catalog", tmp_path / "c.csv", "--out", tmp_path / "out2", "--base",
                       "http://127.0.0.1:1")  # fmt: skip
        done = commands.run(job, SPECSHARDS_LAMOST_TOKEN=TOKEN, **environment)
        assert done.returncode == 1 and "127.0.0.1 cannot be reached" in done.stderr
        assert "Fs3cr3t" not in done.stdout + done.stderr
    assert "Fs3cr3t" not in caplog.text and "Fs3cr3t" not in "".join(capsys.readouterr())
    for file in tmp_path.rglob("*"):
        assert "Fs3cr3t" not in str(file) and (not file.is_file() or b"Fs3cr3t" not in file.read_bytes())
    for row in records(tmp_path / "out"):
        assert "Fs3cr3t" not in str(row)
    assert "Fs3cr3t" not in repr(fetch.Fetcher(QUICK, TOKEN))


def test_help_teaches_and_loads_nothing_heavy(tmp_path: Path) -> None:
    done = commands.run(download("--help"), SPECSHARDS_LAMOST_TOKEN=TOKEN, COLUMNS="110")
    assert done.returncode == 0 and "specshards ingest download --survey sdss" in done.stdout
    assert "Fs3cr3t" not in done.stdout
    loaded = "print(sorted({'pyarrow', 'httpx2', 'numpy', 'astropy'} & set(sys.modules)))"
    heavy = f"import sys, specshards.ingest.download.job; {loaded}"
    assert commands.run(commands.script(heavy)).stdout.strip() == "[]"


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
    monkeypatch.setattr(sys, "argv", ["specshards", "ingest", "download", *map(str, given)])
    with pytest.raises(SystemExit) as stop:
        main()
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and errors.startswith("error: ") and message in errors and errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


def endless(handler: Any, _: bytes) -> None:
    """A body without a length that never ends."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(spectrum(1))
    while True:
        handler.wfile.write(bytes(1 << 20))


def test_a_body_that_does_not_end_is_cut_off_and_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    policy = replace(QUICK, max_file_size=20 << 20)
    bomb = gzip.compress(spectrum(3) + bytes(30 << 20))
    server.trouble = {spec(1): [endless] * 9, spec(2): [answer(200, bytes(30 << 20))] * 9}
    server.files = {spec(3): bomb, spec(4): spectrum(4)}
    out = tmp_path / "out"
    assert get(server, plates(tmp_path, [1, 2, 3, 4]), out, policy=policy, max_bad_fraction=1.0) == {
        "failed": 3, "done": 1,
    }  # fmt: skip
    assert len(server.requests) == 4 and set(files(out)) == {spec(4)}
    reasons = {row["reason"] for row in records(out) if row["status"] == "failed"}
    assert all("more than 20 MiB; raise --max-file-size" in reason for reason in reasons)

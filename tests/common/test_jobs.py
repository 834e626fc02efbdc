"""What becomes of a job when its workers, its scheduler or it itself is killed: it goes on, or ends with one line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import psutil
import pytest
from distributed.system import MEMORY_LIMIT

from specshards.common.dask_cluster import Watch
from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine, parse_memory, run_tasks
from tests.conftest import ROOT
from tests.oracles.engine_tasks import run, square

SQUARES = [number**2 for number in range(8)]


def wait_for(true: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def start(*command: object, cwd: Path = ROOT) -> subprocess.Popen[str]:
    """A program in a session of its own, as from a terminal of its own."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=cwd, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def stop(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


class Cluster:
    """A scheduler in a process of its own, and workers in theirs."""

    def __init__(self, folder: Path, cwd: Path = ROOT) -> None:
        self.file = folder / "scheduler.json"
        self.folder = folder
        self.scheduler = start(
            "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
            "--scheduler-file", self.file, cwd=cwd,
        )  # fmt: skip
        self.workers: list[subprocess.Popen[str]] = []
        wait_for(self.file.exists)
        wait_for(self.file.read_text)

    def add_worker(self) -> None:
        self.workers.append(start(
            "-m", "distributed.cli.dask_worker", "--scheduler-file", self.file, "--nthreads", "1", "--no-dashboard",
            "--local-directory", self.folder,
        ))  # fmt: skip

    @property
    def address(self) -> str:
        return str(json.loads(self.file.read_text())["address"])

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            stop(process)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler without workers."""
    made = Cluster(tmp_path)
    yield made
    made.close()


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    """Where tasks say that they were begun."""
    folder = tmp_path / "traces"
    folder.mkdir()
    return folder


def attempts(traces: Path, number: int) -> int:
    return (traces / f"{number:03d}").read_text().count("\n")


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]


def all_gone(processes: list[psutil.Process]) -> bool:
    return not [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


# Options


@pytest.mark.parametrize("text", ["much", "2", "-4GiB", "64MiB", ""])
def test_a_senseless_memory_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--memory .*: give the memory of one worker, 256MiB or more"):
        parse_memory(text)


def test_memory_is_read_and_has_a_default() -> None:
    assert Engine(2, None, parse_memory("2GiB")).memory_for(2) == 2 << 30
    assert parse_memory("1500 MB") == 1500 * 10**6
    assert Engine(1).memory_for(1) == min(4 << 30, int(0.8 * MEMORY_LIMIT))
    assert Engine(1000).memory_for(1000) == int(0.8 * MEMORY_LIMIT / 1000)


@pytest.mark.parametrize(("engine", "message"), [((2, "tcp://a:1"), "--memory-limit"), ((0, None), "WORKERS=0")])
def test_memory_that_nothing_would_obey_is_refused(engine: tuple[int, str | None], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Engine(*engine, 2 << 30)


def test_the_wait_for_workers_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECSHARDS_WAIT", "90")
    assert Engine().patience == 90
    monkeypatch.setenv("SPECSHARDS_WAIT", "long")
    with pytest.raises(UsageError, match="SPECSHARDS_WAIT=long: give the seconds"):
        Engine()


# Processes of this machine


def test_large_tasks_go_out_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    tasks = [bytes([number]) * 6_000_000 for number in range(3)]
    sizes = run_tasks(len, tasks, Engine(1), describe="large", unit="task", sizes=[1] * 3)
    assert list(sizes) == [6_000_000] * 3
    assert not [warning for warning in recwarn if "graph" in str(warning.message)]


def test_a_worker_killed_once_is_replaced(traces: Path) -> None:
    assert sorted(run("killed_once", traces, 8, Engine(2))) == SQUARES
    assert attempts(traces, 2) >= 2


def test_a_task_that_kills_every_worker_is_named(traces: Path) -> None:
    message = r"^killed_always, no. 2: its worker died 3 times .*; run again with fewer WORKERS"
    with pytest.raises(JobError, match=message):
        run("killed_always", traces, 8, Engine(2))
    assert attempts(traces, 2) == 3


def test_a_worker_past_its_memory_names_the_limit(traces: Path) -> None:
    message = r"greedy, no. 2: its worker went past the memory limit of 300.00 MiB, 3 times; .* more --memory"
    with pytest.raises(JobError, match=message):
        run("greedy", traces, 4, Engine(1, memory=300 << 20))


def test_a_task_without_memory_is_named() -> None:
    with pytest.raises(JobError, match=r"no_memory, no. \d: out of memory; .* run again with more --memory or fewer"):
        run("no_memory", ".", 1, Engine(1))


def test_a_full_disk_stops_what_has_not_begun(traces: Path) -> None:
    with pytest.raises(JobError, match=r"big\.tar: the disk is full"):
        run("disk_full", traces, 40, Engine(2))
    assert len(list(traces.iterdir())) < 8


def test_a_worker_that_cannot_come_back_ends_the_job(traces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import Nanny

    async def never(self: Nanny, exitcode: int) -> None:
        await self._unregister()

    monkeypatch.setattr("specshards.common.dask_cluster._RESTART", 2.0)
    monkeypatch.setattr(Nanny, "_on_worker_exit", never)
    with pytest.raises(JobError, match=r"all worker processes died and none came back; .* fewer WORKERS"):
        run("killed_always", traces, 3, Engine(1))


def command(name: str, folder: Path, n: int, workers: int, scheduler: Path | str = "") -> subprocess.Popen[str]:
    program = "from tests.oracles.engine_tasks import main; main()"
    return start("-c", program, name, folder, n, workers, scheduler)


def only_progress(output: str) -> list[str]:
    """The lines of an output that are not the progress line's."""
    return [line for line in output.replace("\r", "\n").splitlines() if line.strip() and "task/s]" not in line]


@pytest.mark.parametrize("again", [False, True])
def test_interrupt_ends_job_and_workers(traces: Path, again: bool) -> None:
    job = command("endless", traces, 4, 2)
    wait_for(lambda: len(list(traces.iterdir())) == 2)
    processes = family(job)
    assert len(processes) >= 3
    if again:  # a worker that was started later is as deaf as the first
        wait_for(lambda: attempts(traces, 0))
        victim = int((traces / "000").read_text())
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: attempts(traces, 0) == 2)
        processes += family(job)
    os.killpg(job.pid, signal.SIGINT)
    time.sleep(0.3)
    if again:
        os.killpg(job.pid, signal.SIGINT)  # the impatient
    output, _ = job.communicate(timeout=30)
    assert job.returncode == 130, output
    assert only_progress(output) == [
        "error: interrupted: what is finished is kept; run the same command again to go on"
    ]
    wait_for(lambda: all_gone(processes), 5)


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_while_the_workers_start_is_not_lost(traces: Path, sign: signal.Signals, code: int) -> None:
    job = command("endless", traces, 4, 2)
    wait_for(lambda: len(family(job)) >= 3)
    processes = family(job)
    os.kill(job.pid, sign)
    output, _ = job.communicate(timeout=30)
    assert job.returncode == code and "Traceback" not in output, output
    wait_for(lambda: all_gone(processes), 5)


def test_workers_of_a_killed_job_end_by_themselves(traces: Path) -> None:
    job = command("endless", traces, 4, 2)
    wait_for(lambda: len(list(traces.iterdir())) == 2)
    processes = family(job)
    job.kill()
    wait_for(lambda: all_gone(processes), 10)
    stop(job)


# A scheduler elsewhere


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ("tcp://127.0.0.1:1", "tcp://127.0.0.1:1: no Dask scheduler answers there"),
        ("nonsense", "nonsense: no such scheduler file"),
        ("stale.json", r"stale.json \(tcp://127.0.0.1:1\): no Dask scheduler answers there"),
        ("broken.json", "broken.json: not a file of dask scheduler --scheduler-file"),
    ],
)
def test_a_scheduler_that_is_not_there(
    scheduler: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("stale.json").write_text('{"address": "tcp://127.0.0.1:1"}')
    Path("broken.json").write_text("{")
    began = time.monotonic()
    with pytest.raises(JobError, match=message):
        run("square", ".", 3, Engine(2, scheduler))
    assert time.monotonic() - began < 5


def test_workers_that_join_late_get_work(
    cluster: Cluster, traces: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("specshards.common.dask_cluster._QUIET", 0.5)
    monkeypatch.setattr("specshards.common.dask_cluster._LOOK", 0.2)
    results = run_tasks(
        square, [(number, str(traces)) for number in range(60)], Engine(1, str(cluster.file)), describe="late",
        unit="task", sizes=[1] * 60,
    )  # fmt: skip
    timer = threading.Timer(2, cluster.add_worker)
    timer.start()
    assert next(results) == 0
    said = capfd.readouterr().err
    assert said.count(f"waiting for workers of {cluster.file}: none is connected") == 1
    cluster.add_worker()
    assert sorted(results) == [number**2 for number in range(1, 60)]
    timer.join()


def test_work_follows_the_number_of_workers(cluster: Cluster, traces: Path) -> None:
    cluster.add_worker()
    job = command("slow", traces, 40, 1, cluster.file)
    wait_for(lambda: len(list(traces.iterdir())) > 2)
    cluster.add_worker()
    cluster.add_worker()
    output, _ = job.communicate(timeout=60)
    assert job.returncode == 0, output
    pids = {path.read_text().split()[0] for path in traces.iterdir()}
    assert len(pids) == 3 and len(list(traces.iterdir())) == 40


class Mute:
    """As much of a Dask client as is asked for its workers."""

    status = "running"
    scheduler = SimpleNamespace(identity=None)
    workers: ClassVar = {"a": {"status": "paused", "nthreads": 1}}

    def sync(self, *_: object, n_workers: int, callback_timeout: float) -> dict[str, object]:
        return {"total_threads": 1, "workers": self.workers if n_workers else {}}


def test_paused_workers_are_not_waited_for_in_silence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("specshards.common.dask_cluster._QUIET", 0.02)
    watch = Watch(Mute(), "tcp://a:1", 0.05)
    watch.look()
    time.sleep(0.03)
    watch.look()
    assert "waiting for workers of tcp://a:1: all 1 are paused, short of memory" in capsys.readouterr().err
    time.sleep(0.03)
    with pytest.raises(JobError, match="no worker of the Dask scheduler tcp://a:1"):
        watch.look()


def test_a_scheduler_of_another_program(tmp_path: Path) -> None:
    with contextlib.closing(Cluster(tmp_path, cwd=tmp_path)) as cluster:
        cluster.add_worker()
        with pytest.raises(JobError, match=r"does not have this program; start it .* with this checkout's \.venv"):
            run("square", tmp_path, 3, Engine(1, cluster.address))


def test_no_workers_for_too_long(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specshards.common.dask_cluster._LOOK", 0.2)
    with pytest.raises(JobError, match=r"no worker of the Dask scheduler .*scheduler.json for 1 s; .*start workers"):
        run("square", ".", 3, replace(Engine(1, str(cluster.file)), patience=1))


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_scheduler_that_goes_away(cluster: Cluster, traces: Path, sign: signal.Signals) -> None:
    cluster.add_worker()
    job = command("endless", traces, 3, 1, cluster.file)
    wait_for(lambda: list(traces.iterdir()))
    began = time.monotonic()
    cluster.scheduler.send_signal(sign)
    output, _ = job.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert job.returncode == 1
    assert only_progress(output) == [
        f"error: the Dask scheduler {cluster.file} went away; what is finished is kept; "
        "start it and run the same command again"
    ]


def test_interrupt_leaves_a_cluster_to_others(cluster: Cluster, traces: Path, tmp_path: Path) -> None:
    cluster.add_worker()
    job = command("slow", traces, 500, 1, cluster.address)
    wait_for(lambda: len(list(traces.iterdir())) > 1)
    os.killpg(job.pid, signal.SIGINT)
    output, _ = job.communicate(timeout=30)
    assert job.returncode == 130 and "Traceback" not in output, output
    begun = len(list(traces.iterdir()))
    other = tmp_path / "other"
    other.mkdir()
    assert sorted(run("square", other, 8, Engine(1, cluster.address))) == SQUARES
    assert len(list(traces.iterdir())) <= begun + 2  # the rest of the first job was dropped


def test_versions_that_differ_are_told_in_one_line(
    cluster: Cluster, traces: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from distributed import versions

    here = versions.get_versions()
    here["packages"] = {**here["packages"], "msgpack": "0.1", "tornado": "0.2"}
    monkeypatch.setattr(versions, "get_versions", lambda *_: here)
    cluster.add_worker()
    assert sorted(run("square", traces, 8, Engine(1, cluster.address))) == SQUARES
    warned = [line for line in capfd.readouterr().err.splitlines() if "warning" in line.lower()]
    assert len(warned) == 1 and "versions of msgpack, tornado differ" in warned[0]

"""Processes that find each other: whoever is there now and no other, whatever was left in the store."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specshards.common.errors import JobError, UsageError
from specshards.train import meeting
from specshards.train.launch import can_meet
from specshards.train.meeting import agree

#: Two agents, as on two machines, of one process each; the second one is killed once, and started again by its agent
#: alone. Each says whom it has met.
JOB = """
import os, signal, sys, time
import torch
import torch.distributed as dist
from specshards.train.meeting import meet
meet("gloo")
every = [None, None]
dist.all_gather_object(every, int(os.environ["TORCHELASTIC_RESTART_COUNT"]))
with open(sys.argv[1], "a") as file:
    file.write(f"{os.environ['RANK']} {every}\\n")
if os.environ["RANK"] == "1" and len(open(sys.argv[1]).readlines()) < 3:
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)
dist.all_reduce(torch.ones(1))
dist.destroy_process_group()
"""


class Shared:
    """A store between threads."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def set(self, key: str, value: str) -> None:
        """Enter a value."""
        self.values[key] = value

    def get(self, key: str) -> bytes:
        """A value that is there."""
        return self.values[key].encode()

    def check(self, keys: list[str]) -> bool:
        """Whether all are there."""
        return all(key in self.values for key in keys)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_each_round_has_a_name_of_its_own_that_all_know(counts: list[int], random: object) -> None:
    store, before = Shared(), set[str]()
    for count in counts:
        names: list[str] = []
        delays = [random.random() / 100 for _ in range(count)]  # type: ignore[attr-defined]

        def join(rank: int, count: int = count, names: list[str] = names, delays: list[float] = delays) -> None:
            time.sleep(delays[rank])
            names.append(agree(store, rank, count, lambda: time.sleep(1e-4)))

        threads = [threading.Thread(target=join, args=(rank,)) for rank in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(names) == count and len(set(names)) == 1 and names[0] not in before
        before |= set(names)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_process_that_one_machine_starts_again_is_found_by_the_other(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    met, port = tmp_path / "met", free_port()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    together = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "x"]
    command = [*torchrun, *together, "--max-restarts", "2", str(tmp_path / "job.py"), str(met)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    agents = [subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        said = [agent.communicate(timeout=120)[1] for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    assert [agent.returncode for agent in agents] == [0, 0], said
    lines = met.read_text().splitlines()
    assert sorted(lines[:2]) == ["0 [0, 0]", "1 [0, 0]"] and {line[:1] for line in lines[-2:]} == {"0", "1"}
    assert lines[-1][2:] == lines[-2][2:] and len(lines) >= 4


def test_whoever_waits_alone_says_so_and_can_be_ended(tmp_path: Path) -> None:
    code = "from specshards.train import meeting; meeting._SAY = 0.2; from specshards.common import messages; " \
           "messages.show(); meeting.meet('gloo')"  # fmt: skip
    for rank in ("0", "1"):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": str(free_port())}  # fmt: skip
        env = {**os.environ, **place, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        run = subprocess.Popen(
            [sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert run.stdout is not None
        line = run.stdout.readline().decode()
        assert f"waiting for the other processes, 2 in all, at 127.0.0.1:{place['MASTER_PORT']}" in line
        run.send_signal(signal.SIGINT)
        assert run.wait(10) != 0


def test_others_that_do_not_come_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "_GIVE_UP", 0.1)
    waiting = meeting._Waiting("here:1", 3)
    with pytest.raises(JobError, match="the 3 processes did not find each other at here:1; start them again"):
        agree(Shared(), 1, 3, waiting.look)


def test_torchruns_that_do_not_know_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", "GROUP_WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    can_meet()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(UsageError, match=r"SLURM_STEP_NUM_TASKS=2: so many torchruns .* give each --nnodes 2"):
        can_meet()
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    can_meet()

"""How the processes of one launch find each other: by names that nobody has used before.

torch's own way (2.13) reads what is in the store of torchrun as it is: after a restart some of the new processes look
for the addresses of the old. It tells rounds apart by a count of restarts that each machine has for itself.
Here every process brings a word of its own, and the first one answers with all words that it sees: only processes
that are there now can agree. They wait in Python, where a signal ends them.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol
from uuid import uuid4

from torch import distributed

from specshards.common.errors import JobError
from specshards.common.messages import LOGGER

#: Seconds: between looks, before it is said that others are awaited, and until they are given up.
_LOOK, _SAY, _GIVE_UP = 0.05, 10.0, 1800.0
#: Of one try to reach the store.
_REACH = 2.0


class Store(Protocol):
    """What is asked of torch's stores."""

    def set(self, key: str, value: str) -> None:
        """Enter a value."""

    def get(self, key: str) -> bytes:
        """A value that is there."""

    def check(self, keys: list[str]) -> bool:
        """Whether all are there."""


def meet(backend: str) -> None:
    """Make the process group, where there is none yet.

    Raises:
        JobError: the others did not come.
    """
    dist: Any = distributed
    if dist.is_initialized():
        return
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    waiting = _Waiting(f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}", count)
    store = _store(rank, count, waiting)
    name = agree(store, rank, count, waiting.look)
    store.set_timeout(timedelta(seconds=_GIVE_UP))
    dist.init_process_group(backend, store=dist.PrefixStore(name, store), rank=rank, world_size=count)


def agree(store: Store, rank: int, count: int, look: Callable[[], None]) -> str:
    """A name that all processes that are there now have, and none before had.

    Args:
        look: called while others are awaited; may raise.
    """
    word = uuid4().hex
    store.set(f"meet/word/{rank}", word)
    if rank:
        return _follow(store, rank, word, look)
    named: list[str] = []
    name = ""
    while True:
        words = [word, *(_read(store, f"meet/word/{other}") for other in range(1, count))]
        if all(words):
            if words != named:
                named, name = words, uuid4().hex
                store.set("meet/round", json.dumps([name, words]))
            if all(_read(store, f"meet/seen/{name}/{other}") for other in range(1, count)):
                store.set(f"meet/go/{name}", "1")
                return name
        look()


def _follow(store: Store, rank: int, word: str, look: Callable[[], None]) -> str:
    seen = ""
    while True:
        name, words = json.loads(_read(store, "meet/round") or '["", []]')
        if words[rank : rank + 1] == [word]:
            if name != seen:
                seen = name
                store.set(f"meet/seen/{name}/{rank}", "1")
            if _read(store, f"meet/go/{name}"):
                return str(name)
        look()


def _read(store: Store, key: str) -> str:
    return store.get(key).decode() if store.check([key]) else ""


def _store(rank: int, count: int, waiting: _Waiting) -> Any:
    """torchrun's store, or one that the first process keeps."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    kept_here = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and rank == 0
    while not kept_here:
        try:
            socket.create_connection((address, port), timeout=_REACH).close()
            break
        except OSError:  # nobody is there yet
            waiting.look()
    return distributed.TCPStore(address, port, count, kept_here, wait_for_workers=False)  # type: ignore[attr-defined]


class _Waiting:
    """Says what is waited for, once, and gives up in the end."""

    def __init__(self, where: str, count: int) -> None:
        self._where, self._count, self._since, self._said = where, count, time.monotonic(), False

    def look(self) -> None:
        """Wait a moment."""
        passed = time.monotonic() - self._since
        if passed > _GIVE_UP:
            raise JobError(f"the {self._count} processes did not find each other at {self._where}; start them again")
        if passed > _SAY and not self._said:
            LOGGER.info(f"waiting for the other processes, {self._count} in all, at {self._where}")
            self._said = True
        time.sleep(_LOOK)

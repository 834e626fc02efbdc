"""The loader in a process of its own: seconds and memory from opening to the end of an epoch, or of going on in one.

    python -m specshards.benchmarks.survey.loading WARM FOLDER STATE BACKEND HANDLES SECONDS

A small data set, WARM, brings in all libraries first: what is measured is the loader's own. HANDLES is the limit of
open files, 0 for what it is. One JSON object on standard output.

Without the file STATE: opens the train split, takes a first batch and then the epoch, for SECONDS at most, and leaves
in STATE the position in the middle with the keys of the batch that follows. With it: opens, goes there, and compares
that batch.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

BATCH = 256
#: Places of an epoch at which memory is looked at.
_PLACES = 10


def main(warm: Path, folder: Path, state: Path, backend: str, handles: int, seconds: float) -> dict[str, Any]:
    """See the module."""
    if handles:
        resource.setrlimit(resource.RLIMIT_NOFILE, (handles, handles))
    from specshards.shards import loader  # after the limit, as a shell sets it

    with loader.open(warm, "train", BATCH, backend=backend) as warming:
        next(iter(warming))
    before, began = _memory(), time.perf_counter()
    with loader.open(folder, "train", BATCH, backend=backend) as batches:
        opened, opened_memory = time.perf_counter() - began, _memory()
        if state.exists():
            saved = json.loads(state.read_text())
            batches.load_state_dict(saved["state"])
            keys = next(iter(batches))["key"]
            first = time.perf_counter() - began
            return {"open": opened, "first": first, "memory": _memory() - before, "same": keys == saved["keys"]}
        found = {"open": opened, "open_memory": opened_memory - before, "samples": batches.samples, "before": before}
        return found | _epoch(batches, state, began, seconds, before)


def _epoch(batches: Any, state: Path, began: float, seconds: float, before: float) -> dict[str, Any]:
    """The first batch, and the rest of the epoch as far as there is time."""
    seen = np.zeros(sum(manifest.objects for manifest in batches.manifests), np.bool_)
    memory: list[float] = []
    places = {round(len(batches) * (i + 1) / _PLACES) for i in range(_PLACES)}
    count, saved, found = 0, dict[str, Any](), dict[str, Any]()
    started = time.perf_counter()
    for number, batch in enumerate(batches, 1):
        if number == 1:
            found |= {"first": time.perf_counter() - began, "first_memory": _memory() - before}
            started = time.perf_counter()
        if saved and not state.exists():
            state.write_text(json.dumps({"state": saved, "keys": batch["key"]}))
        if not saved and (2 * number >= len(batches) or number == 2):
            saved = batches.state_dict()
        keys = [int(key.partition("/")[2]) for key, valid in zip(batch["key"], batch["valid"], strict=True) if valid]
        seen[keys] = True
        count += len(keys)
        if number in places:
            memory.append(_memory() - before)
        if time.perf_counter() - started > seconds:
            break
    found |= {"epoch": time.perf_counter() - started, "seen": count, "different": int(seen.sum()), "memory": memory}
    return found


def _memory() -> float:
    """Resident MB that are not pages of files (mapped archives, which the system may drop)."""
    memory = psutil.Process().memory_info()
    return float(memory.rss - getattr(memory, "shared", 0)) / 2**20


if __name__ == "__main__":
    small, where, file, kind, most, time_left = sys.argv[1:]
    print(json.dumps(main(Path(small), Path(where), Path(file), kind, int(most), float(time_left))))

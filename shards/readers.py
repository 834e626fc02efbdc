"""Reading a split's samples in batches: what every reader is told and gives, and the one without NVIDIA DALI.

That one (index + mmap + threads) and `shards.dali` give the same stored arrays or spectra and the same labels, every
sample exactly once per epoch over all ranks, and the same number of batches on every rank; the last ones are filled
up by repeating a sample, and say so. They differ in the order when shuffling: DALI shuffles through a buffer, the
plain reader over the whole split.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ingest.errors import JobError
from shards.encoding import Encoding
from shards.format import NPY_HEADER_BYTES
from shards.tar import read_index


@dataclass(frozen=True)
class ReaderConfig:
    """What both readers are told.

    Attributes:
        tars: the split's archives, in reading order.
        samples: number of samples in each of them.
        encoding: of the samples, made for the picture asked for.
        labels: length of the label vector.
    """

    tars: tuple[Path, ...]
    samples: tuple[int, ...]
    encoding: Encoding
    labels: int
    batch_size: int
    shuffle: bool
    seed: int
    rank: int
    world_size: int
    device: str
    threads: int

    @property
    def total(self) -> int:
        """Samples of the split over all ranks."""
        return sum(self.samples)

    @property
    def bounds(self) -> tuple[int, int]:
        """First and past-the-last sample of this rank."""
        return self.total * self.rank // self.world_size, self.total * (self.rank + 1) // self.world_size

    @property
    def mine(self) -> int:
        """Samples of this rank."""
        first, end = self.bounds
        return end - first

    @property
    def batches(self) -> int:
        """Batches per epoch: the same on every rank, enough for the fullest one."""
        fullest = max(
            self.total * (r + 1) // self.world_size - self.total * r // self.world_size
            for r in range(self.world_size)
        )
        return -(-fullest // self.batch_size)


@dataclass(frozen=True)
class RawBatch:
    """What B samples hold, still to be drawn or expanded.

    Attributes:
        stored: uint8 `(B, *encoding.shape)`, a numpy array or, from a GPU, a torch tensor there; where the encoding
            holds spectra, a list of B `Arrays`.
        labels: float64 `(B, L)`.
        sources: for each sample its tar and the name of a member.
    """

    stored: Any
    labels: npt.NDArray[np.float64]
    sources: list[tuple[str, str]] = field(repr=False)


class Reader(Protocol):
    """One split, one rank."""

    def next(self) -> RawBatch:
        """The next batch, epoch after epoch; always full."""

    def state(self) -> dict[str, Any]:
        """JSON-able position: a reader restored from it goes on with the very next batch."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a saved position."""

    def close(self) -> None:
        """Give back files, threads and device memory."""


class PlainReader:
    """Index, memory map and a few threads: no DALI, any platform."""

    def __init__(self, config: ReaderConfig) -> None:
        self._config = config
        self._where = [(tar, i) for tar, n in enumerate(config.samples) for i in range(n)]
        self._indices = [read_index(path.with_suffix(".idx")) for path in config.tars]
        self._maps = [_map(path) for path in config.tars]
        self._pool = ThreadPoolExecutor(config.threads)
        self._epoch = self._batch = 0
        self._order = self._epoch_order()

    def _epoch_order(self) -> npt.NDArray[np.int64]:
        config = self._config
        order = np.arange(config.total)
        if config.shuffle:
            order = np.random.default_rng([config.seed, self._epoch]).permutation(config.total)
        mine = order[slice(*config.bounds)]
        need = config.batches * config.batch_size - len(mine)
        # An empty rank (fewer samples than ranks) still needs something to fill its batches with.
        return np.concatenate([mine, np.repeat(mine[-1:] if len(mine) else order[:1], need)])

    def next(self) -> RawBatch:
        """The next batch of this rank's order."""
        config = self._config
        if self._batch == config.batches:
            self._epoch, self._batch = self._epoch + 1, 0
            self._order = self._epoch_order()
        start = self._batch * config.batch_size
        chosen = [self._where[i] for i in self._order[start : start + config.batch_size]]
        stored, labels = zip(*self._pool.map(self._read, chosen), strict=True)
        sources = [(str(config.tars[t]), self._indices[t][i]["npy"][2]) for t, i in chosen]
        self._batch += 1
        together = list(stored) if config.encoding.shape is None else np.stack(stored)
        return RawBatch(together, np.stack(labels), sources)

    def _read(self, where: tuple[int, int]) -> tuple[Any, npt.NDArray[np.float64]]:
        tar, i = where
        entry, view = self._indices[tar][i], self._maps[tar]
        offset, size, name = entry[self._config.encoding.extension]
        try:
            content = self._config.encoding.decode(view[offset : offset + size])
        except ValueError as error:
            raise damaged(f"{self._config.tars[tar]}: {name} at byte {offset}: {error}") from None
        start = entry["npy"][0] + NPY_HEADER_BYTES
        return content, np.frombuffer(view[start : start + 8 * self._config.labels], "<f8")

    def state(self) -> dict[str, Any]:
        """Epoch and batch."""
        return {"epoch": self._epoch, "batch": self._batch}

    def restore(self, state: dict[str, Any]) -> None:
        """Go there."""
        self._epoch, self._batch = int(state["epoch"]), int(state["batch"])
        self._order = self._epoch_order()

    def close(self) -> None:
        """Stop the threads and unmap the files."""
        self._pool.shutdown(wait=False)
        for view in self._maps:
            view.close()
        self._maps = []


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def open_reader(config: ReaderConfig, backend: str) -> Reader:
    """The reader for `backend`, `dali` or `plain`."""
    if backend == "dali":
        from shards.dali import DaliReader

        return DaliReader(config)
    return PlainReader(config)


def damaged(what: str) -> JobError:
    """The error for a sample that cannot be read, with the mend."""
    return JobError(f"{what}; run `make shards` again: it mends damaged shards")


def dali_is_here() -> bool:
    """Whether NVIDIA DALI can be imported."""
    from importlib.util import find_spec

    try:
        return find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:
        return False


def check_files(tars: Sequence[Path], sizes: Sequence[int]) -> None:
    """Refuse missing and cut archives before the first batch rather than hours later.

    Raises:
        JobError: names the file and the mend.
    """
    for path, size in zip(tars, sizes, strict=True):
        if not path.is_file() or not path.with_suffix(".idx").is_file():
            raise JobError(f"{path}: the archive or its .idx is missing; run `make shards` again")
        if path.stat().st_size != size:
            raise JobError(f"{path}: {path.stat().st_size} bytes, the manifest says {size}; run `make shards` again")

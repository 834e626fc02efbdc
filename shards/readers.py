"""The two ways to read a split's samples in batches: NVIDIA DALI, and index + mmap + threads without it.

Both give the same stored arrays and labels, every sample exactly once per epoch over all ranks, and the same number
of batches on every rank; the last ones are filled up by repeating a sample, and say so. They differ in the order when
shuffling: DALI shuffles through a buffer, the plain reader over the whole split.
"""

from __future__ import annotations

import base64
import mmap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ingest.errors import JobError
from shards.encoding import decode
from shards.format import ENCODINGS, NPY_HEADER_BYTES
from shards.tar import read_index

#: Samples that DALI's shuffle buffer holds: 24 MB of compact PNG.
SHUFFLE_BUFFER = 4096


@dataclass(frozen=True)
class ReaderConfig:
    """What both readers are told.

    Attributes:
        tars: the split's archives, in reading order.
        samples: number of samples in each of them.
        gray: the stored array is `(H, W)`, else `(H, W, 3)`.
        labels: length of the label vector.
    """

    tars: tuple[Path, ...]
    samples: tuple[int, ...]
    encoding: str
    gray: bool
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
    """Stored arrays uint8 `(B, H, W)` or `(B, H, W, 3)`, a numpy array or, from a GPU, a torch tensor there;
    labels float64 `(B, L)`; and for each sample its tar and member name."""

    images: Any
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


class DaliReader:
    """NVIDIA DALI in pipeline mode, with `pad_last_batch` so that no epoch loses or repeats a sample."""

    def __init__(self, config: ReaderConfig) -> None:
        self._config = config
        self._pipeline = self._build(None)

    def _build(self, checkpoint: bytes | None) -> Any:
        import nvidia.dali.fn as fn
        from nvidia.dali import pipeline_def, types

        config = self._config
        gpu = config.device.startswith("cuda")
        device_id = int(config.device.partition(":")[2] or 0) if gpu else None

        @pipeline_def(enable_checkpointing=True)
        def pipeline() -> Any:
            # Typed as a list of outputs only for some ways of calling.
            outputs: Any = fn.readers.webdataset(
                paths=[str(path) for path in config.tars],
                index_paths=[str(path.with_suffix(".idx")) for path in config.tars],
                ext=[ENCODINGS[config.encoding], "npy"],
                missing_component_behavior="error",
                random_shuffle=config.shuffle,
                initial_fill=SHUFFLE_BUFFER,
                seed=config.seed,
                shard_id=config.rank,
                num_shards=config.world_size,
                stick_to_shard=True,
                pad_last_batch=True,
                name="samples",
            )
            image, vector = outputs
            source = fn.get_property(vector, key="source_info")
            # nvJPEG decodes on the GPU; PNG has no decoder there and moves as small code arrays instead.
            on_gpu = gpu and config.encoding == "jpeg"
            # At 224 x 224 nvJPEG's default leaves Huffman decoding to the CPU even in "mixed".
            options: dict[str, Any] = {"hybrid_huffman_threshold": 0} if on_gpu else {}
            pixels = fn.decoders.image(
                image,
                device="mixed" if on_gpu else "cpu",
                output_type=types.GRAY if config.gray else types.RGB,
                **options,
            )
            values = fn.slice(vector, NPY_HEADER_BYTES, 8 * config.labels, axes=[0])
            return (
                pixels.gpu() if gpu and not on_gpu else pixels,
                fn.reinterpret(values, dtype=types.FLOAT64),
                fn.pad(source, fill_value=0),
            )

        built = pipeline(
            batch_size=config.batch_size, num_threads=config.threads, device_id=device_id, seed=config.seed,
            checkpoint=checkpoint,
        )  # fmt: skip
        built.build()
        return built

    def next(self) -> RawBatch:
        """One run of the pipeline; a corrupt sample is a JobError that names its shard."""
        try:
            images, labels, sources = self._pipeline.run()
        except RuntimeError as error:
            raise JobError(_dali_message(error)) from error
        if self._config.device.startswith("cuda"):
            import torch

            # The pipeline reuses its buffers at the next run.
            pixels: Any = torch.utils.dlpack.from_dlpack(images.as_tensor()).clone()
        else:
            pixels = np.array(images.as_tensor())
        if self._config.gray:
            pixels = pixels[..., 0]
        text = np.array(sources.as_tensor())
        return RawBatch(pixels, np.array(labels.as_tensor()), [_split_source(bytes(row)) for row in text])

    def state(self) -> dict[str, Any]:
        """DALI's own checkpoint, as base64 text."""
        return {"dali": base64.b64encode(self._pipeline.checkpoint()).decode("ascii")}

    def restore(self, state: dict[str, Any]) -> None:
        """Build the pipeline again at the checkpoint."""
        self._pipeline = self._build(base64.b64decode(state["dali"]))

    def close(self) -> None:
        """Drop the pipeline, and with it its threads and buffers."""
        self._pipeline = None


def _split_source(info: bytes) -> tuple[str, str]:
    # DALI's source_info is `<tar>:<offset>:<member>`.
    tar, _, member = info.rstrip(b"\0").decode().rsplit(":", 2)
    return tar, member


def _dali_message(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = next((line for line in lines if ".tar" in line or "rror" in line), lines[0] if lines else "unknown")
    return f"DALI could not read a sample: {cause[:300]}; run `make shards` again: it mends damaged shards"


class PlainReader:
    """Index, memory map and a few threads: no DALI, any platform."""

    def __init__(self, config: ReaderConfig) -> None:
        self._config = config
        self._extension = ENCODINGS[config.encoding]
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
        images, labels = zip(*self._pool.map(self._read, chosen), strict=True)
        sources = [(str(config.tars[t]), self._indices[t][i]["npy"][2]) for t, i in chosen]
        self._batch += 1
        return RawBatch(np.stack(images), np.stack(labels), sources)

    def _read(self, where: tuple[int, int]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
        tar, i = where
        entry, view = self._indices[tar][i], self._maps[tar]
        offset, size, name = entry[self._extension]
        try:
            image = decode(view[offset : offset + size], self._config.encoding, self._config.gray)
        except ValueError as error:
            place = f"{self._config.tars[tar]}: {name} at byte {offset}"
            raise JobError(f"{place}: {error}; run `make shards` again: it mends damaged shards") from None
        start = entry["npy"][0] + NPY_HEADER_BYTES
        return image, np.frombuffer(view[start : start + 8 * self._config.labels], "<f8")

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
    return DaliReader(config) if backend == "dali" else PlainReader(config)


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

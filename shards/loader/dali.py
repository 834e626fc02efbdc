"""Decoding batches with NVIDIA DALI: PNG and JPEG on the CPU; on a GPU JPEG with nvJPEG, LZ4 with nvCOMP.

DALI is given bytes and gives back pictures. Which samples, in what order, stays with `shards.loader.order`: DALI's
own webdataset reader shuffles through a small buffer in a fixed order of shards, cannot leave out or name a damaged
sample, and keeps its position in a checkpoint that it accepts for other data too.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from specshards.shards.format.encoding import Encoding
from specshards.shards.loader.decode import Decoder, Payloads, PlainDecoder, Stored


class DaliDecoder:
    """One decoding pipeline, run a batch at a time; a batch that it cannot decode is looked at sample by sample."""

    def __init__(self, encoding: Encoding, batch_size: int, threads: int, device: str) -> None:
        self._encoding, self._batch_size, self._threads, self._device = encoding, batch_size, threads, device
        self._device_id = int(device.partition(":")[2] or 0)
        # PNG has no decoder on the GPU: it moves there as small code arrays instead.
        self._on_gpu = device.startswith("cuda") and encoding.full_size
        self._plain = PlainDecoder(encoding, threads)
        self._pipeline = self._build()

    def _build(self) -> Any:
        import nvidia.dali.fn as fn
        from nvidia.dali import pipeline_def, types

        gray = len(self._encoding.shape or ()) == 2
        # At 224 x 224 nvJPEG's default leaves Huffman decoding to the CPU even in "mixed".
        options: dict[str, Any] = {"hybrid_huffman_threshold": 0} if self._on_gpu else {}

        @pipeline_def
        def pipeline() -> Any:
            payload = fn.external_source(name="payload", dtype=types.UINT8, ndim=1)
            return fn.decoders.image(
                payload, device="mixed" if self._on_gpu else "cpu",
                output_type=types.GRAY if gray else types.RGB, **options,
            )  # fmt: skip

        built = pipeline(
            batch_size=self._batch_size, num_threads=self._threads, prefetch_queue_depth=1,
            device_id=self._device_id if self._on_gpu else None,
        )  # fmt: skip
        built.build()
        return built

    def __call__(self, payloads: Payloads) -> Stored:
        """The pictures, uint8 `(B, *encoding.shape)`: numpy, or for JPEG on a GPU a torch tensor there."""
        shape = (len(payloads), *(self._encoding.shape or ()))
        try:
            for payload in payloads:
                self._encoding.check(payload)
        except ValueError:
            return self._plain(payloads)  # which says of each what is wrong with it
        try:
            if not all(map(len, payloads)):
                raise RuntimeError("an empty payload")  # DALI would stop at it, too
            self._pipeline.feed_input("payload", list(payloads))
            (pictures,) = self._pipeline.run()
            tensor = pictures.as_tensor()
            if not self._on_gpu:
                return np.array(tensor).reshape(shape), {}
            import torch

            # The pipeline writes into the same memory at its next run.
            return torch.utils.dlpack.from_dlpack(tensor).clone().reshape(shape), {}
        except (RuntimeError, ValueError):
            # DALI seldom says which sample it was, and a pipeline that has failed once is of no more use.
            self._pipeline = self._build()
            return self._plain(payloads)

    def close(self) -> None:
        """Drop the pipeline, and with it its threads and buffers."""
        self._pipeline = None
        self._plain.close()


class DaliInflater:
    """LZ4 blocks go to the GPU as they are stored and become arrays there; those of a batch all at once.

    They are walked through on the CPU before (`Encoding.block`), so that each gives as many bytes as it has room for.
    What a flipped bit within a block changes, only the checksum of the tar tells (`verify`), as for `pnm`.
    """

    def __init__(self, encoding: Encoding, batch_size: int, threads: int, device: str) -> None:
        self._encoding = encoding
        self._size = len(encoding.head) + int(np.prod(encoding.shape or ()))
        self._plain = PlainDecoder(encoding, threads)
        self._build = partial(inflating, self._size, batch_size, threads, int(device.partition(":")[2] or 0))
        self._pipeline = self._build()

    def __call__(self, payloads: Payloads) -> Stored:
        """The arrays, uint8 `(B, *encoding.shape)`: a torch tensor on the GPU, or numpy where one is damaged."""
        import torch

        try:
            blocks = [self._encoding.block(payload) for payload in payloads]
            self._pipeline.feed_input("block", blocks)
            (inflated,) = self._pipeline.run()
            whole = torch.utils.dlpack.from_dlpack(inflated.as_tensor()).reshape(len(blocks), self._size)
            head = torch.frombuffer(bytearray(self._encoding.head), dtype=torch.uint8).to(whole.device)
            if not bool((whole[:, : len(head)] == head).all()):
                raise ValueError("not what the picture's bytes begin with")
            # A copy: the pipeline writes into the same memory at its next run.
            stored = whole[:, len(head) :].contiguous().clone()
            return stored.reshape(len(blocks), *(self._encoding.shape or ())), {}
        except ValueError:
            return self._plain(payloads)  # which says of each what is wrong with it
        except RuntimeError:
            self._pipeline = self._build()
            return self._plain(payloads)

    def close(self) -> None:
        """Drop the pipeline, and with it its threads and buffers."""
        self._pipeline = None
        self._plain.close()


def inflating(size: int, batch_size: int, threads: int, device_id: int) -> Any:
    """A built pipeline from `block`, LZ4 on the CPU, to `size` bytes of each on the GPU."""
    import nvidia.dali.fn as fn
    from nvidia.dali import pipeline_def, types

    @pipeline_def
    def pipeline() -> Any:
        block = fn.external_source(name="block", dtype=types.UINT8, ndim=1)
        return fn.decoders.inflate(block.gpu(), shape=[size], dtype=types.UINT8, algorithm="LZ4")

    built = pipeline(batch_size=batch_size, num_threads=threads, prefetch_queue_depth=1, device_id=device_id)
    built.build()
    return built


def make_decoder(encoding: Encoding, backend: str, batch_size: int, threads: int, device: str) -> Decoder:
    """The decoder of a backend; what DALI cannot decode, or nobody need decode, is the same for both."""
    if backend == "dali" and encoding.dali and encoding.header is None:
        return DaliDecoder(encoding, batch_size, threads, device)
    if backend == "dali" and encoding.inflates and device.startswith("cuda"):
        return DaliInflater(encoding, batch_size, threads, device)
    return PlainDecoder(encoding, threads)


def dali_is_here() -> bool:
    """Whether NVIDIA DALI can be imported."""
    try:
        return find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:
        return False

"""From a batch's stored bytes to arrays: threads of our own, or NVIDIA DALI, with the same pixels."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from specshards.shards.format.encoding import Encoding

Payloads = Sequence[npt.NDArray[np.uint8]]
#: A batch as stored: uint8 `(B, *encoding.shape)`, or a list of B spectra; and why not for each that is damaged.
Stored = tuple[Any, dict[int, str]]


class Decoder(Protocol):
    """Decodes batches one at a time; called from one thread."""

    def __call__(self, payloads: Payloads) -> Stored:
        """The batch in order. Where a payload is damaged its place holds zeros, or None for a spectrum."""

    def close(self) -> None:
        """Give back threads and device memory."""


class PlainDecoder:
    """OpenCV, libjpeg-turbo and numpy on a few threads: any platform."""

    def __init__(self, encoding: Encoding, threads: int) -> None:
        self._encoding, self._threads = encoding, threads
        self._pool = ThreadPoolExecutor(threads)

    def __call__(self, payloads: Payloads) -> Stored:
        """Decode in as many runs of neighbours as there are threads: a task per sample would cost more than most."""
        encoding = self._encoding
        if encoding.header is not None:
            return self._slice(payloads, np.frombuffer(encoding.header, np.uint8))
        count = len(payloads)
        stored: Any = [None] * count if encoding.shape is None else np.zeros((count, *encoding.shape), np.uint8)
        wrong: dict[int, str] = {}

        def run(places: range) -> None:
            for i in places:
                try:
                    stored[i] = encoding.decode(payloads[i])
                except ValueError as error:
                    wrong[i] = str(error)

        if encoding.shape is None:
            run(range(count))  # nothing there lets go of the interpreter
        else:
            size = -(-count // self._threads)
            list(self._pool.map(run, [range(i, min(i + size, count)) for i in range(0, count, size)]))
        return stored, wrong

    def _slice(self, payloads: Payloads, header: npt.NDArray[np.uint8]) -> Stored:
        """Nothing to decode: the bytes behind a header that is the same in every sample."""
        shape = self._encoding.shape or ()
        start, total = len(header), len(header) + int(np.prod(shape))
        content = np.zeros((len(payloads), total), np.uint8)
        wrong: dict[int, str] = {}
        for i, payload in enumerate(payloads):
            if len(payload) == total:
                content[i] = payload
            else:
                wrong[i] = f"{len(payload)} bytes instead of {total}"
        for i in np.flatnonzero((content[:, :start] != header).any(axis=1)).tolist():
            wrong.setdefault(i, f"not the header of a picture of {' x '.join(map(str, shape))}")
        return content[:, start:].reshape(len(payloads), *shape), wrong

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=False)

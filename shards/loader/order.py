"""Which sample stands where in an epoch: exactly once each, or as often as weights say, decided by a seed alone.

An epoch is cut into windows of a few shards; shards are shuffled first, then the samples of each window. Reads stay
within a window's files, and any position of an epoch is found without the positions before it: a loader resumes in
no time, and ranks need not talk. Nothing here depends on how many ranks there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_INTS = npt.NDArray[np.int64]
_FLOATS = npt.NDArray[np.float64]

#: Samples that are shuffled together: eight shards of the default size.
WINDOW = 65_536


@dataclass(frozen=True)
class Weights:
    """How often each sample stands in an epoch, on average.

    Attributes:
        shards: float64 `(shards,)`, the sum over the samples of each shard; all of them add up to the epoch's length.
        samples: shard number -> float64 `(n,)`, of each of its samples.
    """

    shards: _FLOATS
    samples: Callable[[int], _FLOATS]


class EpochOrder:
    """The order of one epoch after another.

    With weights every sample stands in an epoch floor(w) or ceil(w) times (systematic resampling), w = its weight.
    With copies, such as several pictures of one object, it stands there so many times more: copy c of the sample at
    place i is number `i * copies + c`.

    Attributes:
        length: samples of an epoch, with their copies.
    """

    def __init__(
        self, counts: Sequence[int], *, shuffle: bool, seed: int, window: int = WINDOW,
        weights: Weights | None = None, copies: int = 1,
    ) -> None:  # fmt: skip
        self._counts = np.asarray(counts, np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._counts)])
        self._shuffle, self._seed, self._window, self._weights = shuffle, seed, window, weights
        self._samples_drawn, self._copies = int(self._starts[-1]), copies
        self.length = self._samples_drawn * copies
        self._epoch = -1
        self._cached = (-1, np.empty(0, np.int64))

    def slice(self, epoch: int, start: int, stop: int) -> _INTS:
        """The samples (places among all, or numbers of their copies) at positions `start` to `stop` of an epoch."""
        if epoch != self._epoch:
            self._plan(epoch)
        first = int(np.searchsorted(self._edges, start, side="right")) - 1
        pieces = []
        while first < len(self._windows) and (begin := int(self._edges[first])) < stop:
            pieces.append(self._samples(first)[max(0, start - begin) : stop - begin])
            first += 1
        return np.concatenate(pieces) if pieces else np.empty(0, np.int64)

    def shards(self, epoch: int, start: int, stop: int) -> list[list[int]]:
        """The shards of each window that has samples at positions `start` to `stop` of an epoch, as they are read."""
        if epoch != self._epoch:
            self._plan(epoch)
        return [
            [int(self._shards[place]) for place in range(*window) if self._drawn[place]]
            for window, begin, end in zip(self._windows, self._edges[:-1], self._edges[1:], strict=True)
            if begin < stop and start < end
        ]

    def _plan(self, epoch: int) -> None:
        """The shards of each window of this epoch, and where each window begins."""
        rng = np.random.default_rng([self._seed, epoch])
        shards = len(self._counts)
        self._shards = rng.permutation(shards) if self._shuffle else np.arange(shards)
        if self._weights is None:
            drawn = self._counts[self._shards]
        else:
            self._offset = float(rng.random())
            self._sums = np.cumsum(self._weights.shards[self._shards])
            edges = np.floor(self._sums + self._offset).astype(np.int64)
            # The sums are rounded; the epoch's length is not.
            edges[np.flatnonzero(self._weights.shards[self._shards])[-1] :] = self._samples_drawn
            drawn = np.diff(np.minimum(edges, self._samples_drawn), prepend=0)
        ends = np.cumsum(drawn)
        self._drawn = drawn
        self._windows: list[tuple[int, int]] = []
        begin = 0
        for number in range(shards):
            reached = int(ends[number] - (ends[begin - 1] if begin else 0))
            if reached >= self._window or number == shards - 1:
                self._windows.append((begin, number + 1))
                begin = number + 1
        self._edges = self._copies * np.array([0, *(ends[stop - 1] for _, stop in self._windows)], np.int64)
        self._epoch, self._cached = epoch, (-1, self._cached[1])

    def _samples(self, window: int) -> _INTS:
        if self._cached[0] != window:
            found = np.concatenate([self._of_shard(position) for position in range(*self._windows[window])])
            if self._copies > 1:
                found = (found[:, None] * self._copies + np.arange(self._copies)).ravel()
            if self._shuffle:
                found = np.random.default_rng([self._seed, self._epoch, window]).permutation(found)
            self._cached = (window, found)
        return self._cached[1]

    def _of_shard(self, position: int) -> _INTS:
        number = int(self._shards[position])
        samples = self._starts[number] + np.arange(self._counts[number])
        if self._weights is None:
            return samples
        drawn = int(self._drawn[position])
        before = self._sums[position - 1] if position else 0.0
        first = int(np.floor(before + self._offset)) if position else 0
        each = self._weights.samples(number)
        edges = np.floor(before + np.cumsum(each) + self._offset).astype(np.int64) - first
        edges = np.clip(edges, 0, drawn)
        edges[np.flatnonzero(each)[-1] if each.any() else 0 :] = drawn
        return np.repeat(samples, np.diff(edges, prepend=0))

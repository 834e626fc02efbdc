"""Nearest neighbours among vectors that need not fit in memory: exact, or by an index whose recall is measured.

Exact search compares every pair: 14 million objects are 10^14 pairs. Above `EXACT_UP_TO` objects usearch's graph
(HNSW, Malkov and Yashunin 2020, doi:10.1109/TPAMI.2018.2889473) names candidates instead, from the vectors' principal
components in float16, and the candidates' distances are computed from the vectors themselves: what is written is a
distance of two vectors in any case. What the graph misses is measured on objects that are searched both ways.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from specshards.train.tasks.metrics import FloatArray, IntArray

#: So many objects are searched exactly: 4 x 10^10 pairs, minutes on a CPU.
EXACT_UP_TO = 200_000

#: Rows and columns of the similarities that are in memory at once: 64 MB; and rows whose candidates are, as float64.
BLOCK, _OTHERS, _ROWS = 2048, 8192, 256

#: Principal components that the index keeps, vectors that they are found from, candidates beyond those asked for,
#: vectors added at once, and objects that are searched both ways.
_COMPONENTS, _SAMPLE, _MORE, _CHUNK, _PROBES = 64, 20_000, 27, 1 << 16, 512

Vectors = npt.NDArray[np.float32]


@dataclass
class Scratch:
    """Vectors, appended to a file and mapped from it: memory does not grow with their number.

    Attributes:
        path: of the file, which is removed at the end.
        width: numbers in a vector, 0 before the first.
    """

    path: Path
    width: int = 0
    _file: Any = field(init=False, repr=False)

    def __enter__(self) -> Scratch:
        """Open the file."""
        self._file = self.path.open("wb")
        return self

    def append(self, vectors: Vectors) -> None:
        """Add float32 `(n, D)`, of one D throughout."""
        self.width = vectors.shape[1]
        self._file.write(np.ascontiguousarray(vectors, np.float32).data)

    def vectors(self) -> Vectors:
        """All of them, float32 `(N, D)`, read-only."""
        self._file.flush()
        if not self._file.tell():
            return np.empty((0, 0), np.float32)
        return np.memmap(self.path, np.float32, "r").reshape(-1, self.width)

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        self._file.close()
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Search:
    """The nearest of `others` to every one of `queries` by cosine distance (1 - cosine, 0 to 2).

    Attributes:
        queries, others: float32 `(N, D)` and `(M, D)`, perhaps mapped from files.
        k: neighbours of each; fewer where there are no more.
        themselves: both are the same rows, and row i is no neighbour of row i.
        device: of the exact search.
        exact: compare every pair; by default up to `EXACT_UP_TO` objects.
        threads: of the index. With one, the same vectors give the same index.
    """

    queries: Vectors
    others: Vectors
    k: int
    themselves: bool
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    exact: bool | None = None
    threads: int | None = None

    @property
    def is_exact(self) -> bool:
        """Whether every pair is compared."""
        if self.exact is None:
            return max(len(self.queries), len(self.others)) <= EXACT_UP_TO
        return self.exact

    @property
    def found(self) -> int:
        """Neighbours of each."""
        return max(0, min(self.k, len(self.others) - self.themselves))

    def blocks(self) -> Iterator[tuple[IntArray, FloatArray]]:
        """Row numbers int64 and distances float64, `(n, found)`, nearest first, for block after block of the queries.

        Candidates are found in float32, or by the index; their distances, and the nearest of them, in float64.
        """
        candidates = self._exactly if self.is_exact or not self.found else self._indexed
        if candidates == self._indexed:
            _ = self._graph  # with a bar of its own
        with tqdm(total=len(self.queries), unit="obj", desc="neighbours", file=sys.stderr, delay=1) as bar:
            for start in range(0, len(self.queries), BLOCK):
                numbers = np.arange(start, min(start + BLOCK, len(self.queries)))
                yield self._measured(numbers, candidates(numbers))
                bar.update(len(numbers))

    def recall(self) -> tuple[int, float]:
        """Objects that were drawn to be searched both ways, and the share of true neighbours that the index found.

        A neighbour is true where it is as near as the last of the exact ones: of equal vectors any will do.
        """
        drawn = np.random.default_rng(0).choice(len(self.queries), min(_PROBES, len(self.queries)), replace=False)
        drawn.sort()
        (_, found), (_, true) = (self._measured(drawn, find(drawn)) for find in (self._indexed, self._exactly))
        return len(drawn), float((found <= true[:, -1:] * (1 + 1e-6) + 1e-14).mean())

    @cached_property
    def _graph(self) -> _Graph:
        return _Graph(self.others, self.threads)

    def _indexed(self, numbers: IntArray) -> IntArray:
        wanted = min(self.found + self.themselves + _MORE, len(self.others))
        places, complete = self._graph.nearest(self.queries[numbers], wanted)
        if self.themselves:
            last = np.argsort(places == numbers[:, None], axis=1, kind="stable")
            places = np.take_along_axis(places, last, axis=1)[:, :-1]
        places[~complete] = np.arange(places.shape[1])
        nearest, _ = self._measured(numbers, places)
        if not complete.all():  # a graph of many equal vectors can have a dead end
            nearest[~complete], _ = self._measured(numbers[~complete], self._exactly(numbers[~complete]))
        return nearest

    @cached_property
    def _mean(self) -> Tensor:
        """About where the others point: without it, the cosines of much alike ones are all 1 to float32."""
        rows = np.linspace(0, len(self.others) - 1, min(BLOCK, len(self.others))).round().astype(np.int64)
        return torch.from_numpy(_unit(self.others[rows]).mean(axis=0)).to(self.device)

    def _centred(self, vectors: Vectors) -> Tensor:
        return F.normalize(_tensor(vectors).to(self.device), dim=1) - self._mean

    def _exactly(self, numbers: IntArray) -> IntArray:
        """The nearest and some more, of which float32 does not know the order."""
        if not self.found:
            return np.empty((len(numbers), 0), np.int64)
        wanted = min(self.found + _MORE, len(self.others) - self.themselves)
        block = self._centred(self.queries[numbers])
        best = block.new_full((len(block), wanted), -torch.inf)
        place = torch.zeros(len(block), wanted, dtype=torch.int64, device=self.device)
        mine = torch.from_numpy(numbers).to(self.device)
        for first in range(0, len(self.others), _OTHERS):
            others = self._centred(self.others[first : first + _OTHERS])
            likeness = block @ others.T - others.square().sum(dim=1) / 2  # falls as the square of the distance rises
            columns = torch.arange(first, first + likeness.shape[1], device=self.device)
            if self.themselves:
                likeness.masked_fill_(columns == mine[:, None], -torch.inf)
            best, chosen = torch.cat([best, likeness], dim=1).topk(wanted, dim=1)
            place = torch.cat([place, columns.expand_as(likeness)], dim=1).gather(1, chosen)
        return place.cpu().numpy()

    def _measured(self, numbers: IntArray, places: IntArray) -> tuple[IntArray, FloatArray]:
        """The nearest `found` of the candidates `places`, int64 `(n, >= found)`, by their distances in float64."""
        parts = [
            self._sorted(numbers[at : at + _ROWS], places[at : at + _ROWS])
            for at in range(0, max(1, len(numbers)), _ROWS)
        ]
        rows, distances = zip(*parts, strict=True)
        return np.concatenate(rows), np.concatenate(distances)

    def _sorted(self, numbers: IntArray, places: IntArray) -> tuple[IntArray, FloatArray]:
        there = np.unique(places)
        vectors = F.normalize(_tensor(self.others[there]).double(), dim=1)
        near = vectors[torch.from_numpy(np.searchsorted(there, places))]
        ours = F.normalize(_tensor(self.queries[numbers]).double(), dim=1)
        distances, order = (1 - (near @ ours[:, :, None])[:, :, 0]).clamp_min(0).sort(dim=1, stable=True)
        chosen = torch.from_numpy(places).gather(1, order)
        return chosen[:, : self.found].numpy(), distances[:, : self.found].numpy()


class _Graph:
    """Candidates for the nearest of `others`, by usearch's index over their principal components."""

    def __init__(self, others: Vectors, threads: int | None) -> None:
        from usearch.index import Index

        self.threads = threads or os.cpu_count() or 1
        rows = np.sort(np.random.default_rng(0).choice(len(others), min(_SAMPLE, len(others)), replace=False))
        sample = _unit(others[rows])
        self.mean = sample.mean(axis=0)
        variances, axes = np.linalg.eigh(np.atleast_2d(np.cov((sample - self.mean).T.astype(np.float64))))
        self.axes = (axes[:, ::-1][:, :_COMPONENTS] / np.sqrt(max(variances.sum(), 1e-30))).astype(np.float32)
        self.index = Index(ndim=self.axes.shape[1], metric="l2sq", dtype="f16", enable_key_lookups=False)
        with tqdm(total=len(others), unit="obj", desc="index", file=sys.stderr, delay=1) as bar:
            for start in range(0, len(others), _CHUNK):
                part = self._projected(others[start : start + _CHUNK])
                self.index.add(np.arange(start, start + len(part)), part, threads=self.threads)
                bar.update(len(part))

    def _projected(self, vectors: Vectors) -> Vectors:
        return (_unit(vectors) - self.mean) @ self.axes

    def nearest(self, queries: Vectors, count: int) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """Row numbers int64 `(n, count)`, and of which rows there are so many."""
        matches: Any = self.index.search(self._projected(queries), count, threads=self.threads)
        return matches.keys.astype(np.int64).reshape(len(queries), count), np.asarray(matches.counts) == count


def _unit(vectors: Vectors) -> Vectors:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(length, np.float32(1e-12))


def _tensor(vectors: Vectors) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(vectors).copy())

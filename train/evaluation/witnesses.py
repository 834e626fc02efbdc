"""Which samples are one witness: visits of one object, and what a group of the split holds.

They resemble each other, so that intervals draw them together: 120 samples of 12 fields tell of 12 fields.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from specshards.common.identity import Hashes, id_hashes
from specshards.common.sky import groups
from specshards.shards.loader.loader import Loader
from specshards.shards.write.split import columns, goes_by_id, split_keys
from specshards.train.tasks.drawn import OBJECT, Drawn
from specshards.train.tasks.metrics import FloatArray, IntArray
from specshards.train.tasks.task import numbers

#: The label of a loader that numbers them.
WITNESS = "witness"


def drawn_of(by: str, labels: Mapping[str, FloatArray], rows: npt.NDArray[np.bool_]) -> Drawn:
    """What the intervals of some rows of a split draw anew."""
    found = witnesses(labels)
    return Drawn(by, int(rows.sum()) if found is None else len(np.unique(found[rows])))


def add_witnesses(loader: Loader) -> str:
    """Number the witnesses of a loader's split, as the label `WITNESS`; returns what they are: `Drawn.by`.

    Raises:
        JobError: a damaged table.
    """
    configs = [manifest.config for manifest in loader.manifests]
    names = {"ra", "dec", "survey", "object_id"}
    for config in configs:
        names |= set(columns(config)) if config.group is not None else set()
    table = loader.sidecar(sorted(names))
    position = np.stack([numbers(table, name) for name in ("ra", "dec")], axis=1)
    ids = id_hashes(table["survey"], table["object_id"])
    kept, has_kept = np.zeros(len(table), np.uint64), np.zeros(len(table), np.bool_)
    start = 0
    for manifest in loader.manifests:
        end = start + manifest.samples(loader.split)
        if manifest.config.group is not None and end > start:
            part = table.slice(start, end - start)
            kept[start:end] = split_keys(part, manifest.config)
            has_kept[start:end] = ~goes_by_id(part, manifest.config)
        start = end
    nowhere = ~_is_placed(position)
    loader.add_label(WITNESS, _numbered(position, (ids, nowhere), (kept, has_kept)).astype(np.float64))
    by = dict.fromkeys(OBJECT if config.group is None else config.group for config in configs)
    return " or ".join(by)


def witnesses(labels: Mapping[str, FloatArray]) -> IntArray | None:
    """The number of each row's witness, int `(N,)`: those of `add_witnesses`, or else visits by position."""
    if WITNESS in labels:
        return labels[WITNESS].astype(np.int64)
    return visits(labels["ra"], labels["dec"]) if {"ra", "dec"} <= set(labels) else None


def visits(ra: FloatArray, dec: FloatArray, ids: Hashes | None = None) -> IntArray | None:
    """For every row the number of its object, int `(N,)`: rows close to each other, also in a chain.

    Rows without a position go by their id, or are objects of their own; None where neither is known at all.

    Args:
        ra, dec: float `(N,)`, degrees, NaN = unknown.
        ids: of `common.identity.id_hashes`, `(N,)`.
    """
    position = np.stack([ra, dec], axis=1)
    known = _is_placed(position)
    if ids is None:
        return _numbered(position) if known.any() else None
    return _numbered(position, (ids, ~known))


def _numbered(position: FloatArray, *tied: tuple[Hashes, npt.NDArray[np.bool_]]) -> IntArray:
    """Chains of rows that are at one place or have one key, among the rows whose key counts, int `(N,)`."""
    n, known = len(position), _is_placed(position)
    # Places first: many rows at the very same one would have a pair for each two of them. NaN are no place.
    places, place = np.unique(position[known], axis=0, return_inverse=True)
    node = len(places) + np.arange(n)
    node[known] = place.reshape(-1)
    spots = np.concatenate([places, np.full((n, 2), np.nan)])
    pairs = [np.empty((2, 0), np.int64)]
    for keys, counts in tied:
        rows = np.flatnonzero(counts)
        order = rows[np.argsort(keys[rows], kind="stable")]
        same = keys[order[1:]] == keys[order[:-1]]
        pairs.append(np.stack([node[order[:-1][same]], node[order[1:][same]]]))
    i, j = np.concatenate(pairs, axis=1)
    return np.asarray(groups(spots[:, 0], spots[:, 1], links=(i, j))[node], np.int64)


def _is_placed(position: FloatArray) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isfinite(position).all(axis=1), np.bool_)

"""Mixing data sets: whether they fit together in one batch, and what share of an epoch each, or a class, is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from specshards.common.cache import Cache
from specshards.common.errors import UsageError
from specshards.common.spectrum import CLASSES
from specshards.render import ImageConfig
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.format.manifest import Manifest, ShardRecord
from specshards.shards.format.nearby import nearby_sidecar
from specshards.shards.loader.order import Weights

BALANCES = ("class",)


def make_weights(
    shards: Sequence[tuple[Path, ShardRecord]],
    datasets: Sequence[int],
    shares: Sequence[float] | None,
    balance: str | None,
    cache: Cache | None = None,
) -> Weights | None:
    """Weights that fill an epoch of as many samples as there are; None where neither is asked for.

    Args:
        shards: folder and record of each shard.
        datasets: the data set that each shard belongs to, counted from 0.
        shares: of each data set in an epoch, in any unit; None leaves them as large as they are.
        balance: `class` gives every class present an equal share (within each data set, where there are `shares`);
            samples without a class are then not drawn.
        cache: of copies of tables that lie elsewhere.

    Raises:
        UsageError: shares that do not fit the data sets, an unknown balance, or nothing left to draw.
    """
    if shares is None and balance is None:
        return None
    if balance not in (None, *BALANCES):
        raise UsageError(f"unknown balance {balance}: choose {', '.join(BALANCES)}")
    sets = max(datasets) + 1
    if shares is not None and (
        len(shares) != sets or not all(s >= 0 and np.isfinite(s) for s in shares) or not any(shares)
    ):
        raise UsageError(f"weights {list(shares)}: give one number, 0 or more, for each of the {sets} data sets")
    names = [*CLASSES, "unlabelled"]
    counts = np.array([[record.classes.get(name, 0) for name in names] for _, record in shards], np.float64)
    owner = np.asarray(datasets)
    each = np.array([counts[owner == d].sum(axis=0) for d in range(sets)])
    table = _table(each, shares, balance)
    if not (each * table).sum():
        raise UsageError("nothing to draw: the data sets with weight have no sample with a class; leave balance out")

    def of_shard(number: int) -> npt.NDArray[np.float64]:
        folder, record = shards[number]
        if balance is None:
            return np.full(record.samples, table[owner[number], 0])
        with nearby_sidecar(record, folder, cache) as path:
            column = pq.read_table(path, columns=["class"])["class"].to_pylist()
        codes = np.array([names.index(name) if name in CLASSES else len(CLASSES) for name in column], np.intp)
        return table[owner[number]][codes]

    return Weights((counts * table[owner]).sum(axis=1), of_shard)


def _table(
    each: npt.NDArray[np.float64], shares: Sequence[float] | None, balance: str | None
) -> npt.NDArray[np.float64]:
    """Weight of a sample by data set and class `(D, C + 1)`, from their numbers, so that the total is kept."""
    total = each.sum()
    wanted = each.copy()
    if balance == "class":
        wanted[:, -1] = 0
        # Over all data sets together, or within each where their shares are given.
        groups = each if shares is not None else np.broadcast_to(each.sum(axis=0), each.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            wanted[:, :-1] = np.nan_to_num(each[:, :-1] / groups[:, :-1])
    if shares is not None:
        rows = wanted.sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            wanted = np.nan_to_num(wanted / rows) * np.asarray(shares, np.float64)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(wanted / wanted.sum() * total / each) if wanted.sum() else wanted


def agreed(
    folders: Sequence[Path], manifests: Sequence[Manifest], images: Sequence[ImageConfig] = (), view: str = "picture"
) -> Manifest:
    """The first manifest, once all agree in what one batch can hold, and that is what is asked for.

    Args:
        images: the pictures that are asked for; none: the one that the data sets were made for.
        view: `picture` or `spectra`; what has no pictures need not agree in them.

    Raises:
        UsageError: names the folder that differs, in what, and the mend.
    """
    first = manifests[0]
    holds_spectra = not ENCODINGS[first.config.encoding].needs_picture
    drawn_here = holds_spectra and (bool(images) or view == "spectra")
    if view == "spectra" and not holds_spectra:
        raise UsageError(
            f"{folders[0]}: holds pictures ({first.config.encoding}); make shards with ENCODING=flux for view spectra"
        )
    if view == "spectra" and images:
        raise UsageError("view spectra draws no picture; leave `image` out")
    if len(images) > 1 and not holds_spectra:
        raise UsageError(
            f"{folders[0]}: holds one picture of each object, drawn already ({first.config.encoding}), and "
            f"{len(images)} are asked for; make shards with ENCODING=flux, which give any"
        )
    for folder, manifest in zip(folders, manifests, strict=True):
        for what, theirs, ours in (
            ("encoding", manifest.config.encoding, first.config.encoding),
            ("image configuration", manifest.config.image, first.config.image),
            ("frame", manifest.config.image.frame, first.config.image.frame),
            ("labels", manifest.labels, first.labels),
            ("classes", manifest.classes, first.classes),
        ):
            if theirs != ours and not (drawn_here and what == "image configuration"):
                raise UsageError(f"{folder}: another {what} than {folders[0]}; make both shard sets alike")
        # Two different splits of one sky would put a train object of one data set into the test set of the other.
        names = ("seed", "split", "split_by", "group", "split_nside")
        other = ", ".join(
            f"{name} {theirs}, not {ours}"
            for name in names
            if (theirs := getattr(manifest.config, name)) != (ours := getattr(first.config, name))
        )
        if other:
            raise UsageError(
                f"{folder}: splits the sky otherwise than {folders[0]} ({other}); make both with one seed, split, "
                "split_by, group and split_nside, or one data set of them with `shards merge`"
            )
    for image in images:
        _drawable(image, first.config.image, folders[0], drawn_here)
    return first


def _drawable(image: ImageConfig, made_for: ImageConfig, folder: Path, drawn_here: bool) -> None:
    """Raise UsageError where shards that were made for one picture cannot give another."""
    if image.frame != made_for.frame:
        raise UsageError(
            f"{folder}: holds spectra in the {made_for.frame} frame, not {image.frame}; make shards "
            f"with --frame {image.frame}"
        )
    if image != made_for and not drawn_here:
        asked, there = asdict(image), asdict(made_for)
        changed = ", ".join(f"{k} {there[k]}, not {asked[k]}" for k in there if there[k] != asked[k])
        raise UsageError(
            f"{folder}: holds pictures that are drawn already, with {changed}; leave `image` out, or make shards "
            "with ENCODING=flux, which give any picture"
        )

"""What a model makes of a spectrum before it answers: vectors, nearest neighbours, and what stands apart."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from specshards.common.errors import UsageError, make_folder
from specshards.common.files import replacing
from specshards.common.messages import LOGGER
from specshards.common.quarantine import write_quarantine
from specshards.ingest.tables import UNSTATED, Stated
from specshards.shards.format.manifest import MANIFEST
from specshards.train.accelerator import make_accelerator
from specshards.train.models.backbone import Backbone
from specshards.train.models.views import over_pictures
from specshards.train.network import open_any
from specshards.train.run import Card
from specshards.train.tasks.metrics import FloatArray, IntArray
from specshards.train.use.inputs import Source, from_shards, from_spectra, nothing_read

#: Rows and columns of the similarities that are in memory at once: 64 MB.
_QUERIES, _OTHERS = 2048, 8192


def embed(
    run: Path,
    inputs: Path,
    *,
    split: str = "val",
    reference: Path | None = None,
    out: Path | None = None,
    neighbours: int = 5,
    batch_size: int = 64,
    device: str = "auto",
    threads: int | None = None,
    most_bytes: int | None = None,
    stated: Stated = UNSTATED,
) -> pa.Table:
    """Embed every object of `inputs`, look up its nearest neighbours, and write both.

    Args:
        run: folder of a trained model.
        inputs: a FITS file, a folder or glob of them, spectra Parquet, or a folder of shards.
        split: of shards.
        reference: table that an earlier `embed` of the same model wrote, such as that of the train split: neighbours
            are looked up there instead of among `inputs`.
        out: Parquet; `<run>/embeddings.parquet` by default. What cannot be drawn goes to `<out>_quarantine.parquet`.
        neighbours: how many, fewer where there are no more; an object is not its own.
        most_bytes: of one survey file; see `ingest.surveys.open_file`.
        stated: of spectra whose files do not say it; see `train.use.inputs.stated_for`.

    Returns:
        One row an object: object_id, survey, source_file, ra, dec; `embedding`, float32: the CLS token after the last
        norm, or what the backbone pools where it has no such token, such as the mean over the tokens of a spectrum;
        of a model of several pictures the mean over them;
        `neighbours`: object ids by cosine distance (1 - cosine, 0 to 2), nearest first; `distances`; `anomaly`: their
        mean, null without a neighbour. It is high for what is unlike anything else there, and says nothing of groups
        larger than `neighbours`. Then `model` (sha256 of the weights, 16 digits) and `trained_on_mock`.

    Raises:
        UsageError: no such model, input, split or reference, or shards of other pictures. JobError: nothing could be
        read.
    """
    out = out or run / "embeddings.parquet"
    if out.suffix != ".parquet":
        raise UsageError(f"--out {out}: give a name that ends in .parquet")
    if neighbours < 1:
        raise UsageError(f"--neighbours {neighbours}: give a positive number")
    card, model = open_any(run)
    known = None if reference is None else _reference(reference, card)
    accelerator = make_accelerator(device)
    network = accelerator.prepare(model.to(accelerator.device)).eval()
    make_folder(out.parent)
    quarantine: list[dict[str, Any]] = []
    if (inputs / MANIFEST).is_file():
        source = from_shards(card, inputs, split, batch_size, str(accelerator.device), threads)
    else:
        source = from_spectra(card, inputs, batch_size, quarantine, most_bytes, stated)
    rows, vectors = _embed(card.config.architecture, network, accelerator, source)
    if not vectors.numel():
        raise nothing_read(inputs, quarantine)
    table = _table(card, rows, vectors, known, neighbours, accelerator.device)
    with replacing(out) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    beside = out.with_name(f"{out.stem}_quarantine.parquet")
    beside.unlink(missing_ok=True)
    if quarantine:
        write_quarantine(quarantine, beside)
    LOGGER.info(_summary(card, table, len(quarantine), out))
    return table


@dataclass(frozen=True)
class _Reference:
    names: npt.NDArray[np.object_]
    vectors: Tensor


def nearest(queries: Tensor, others: Tensor, k: int, *, themselves: bool = False) -> tuple[IntArray, FloatArray]:
    """The `k` nearest rows of `others` to every row of `queries` by cosine distance; exact, in blocks.

    Memory beside the arguments and the result does not grow with their lengths. Found in float32 on the tensors'
    device; the distances of those found, and their order, in float64.

    Args:
        queries: float32 `(N, D)`. others: float32 `(M, D)`.
        themselves: both are the same rows, and row i is no neighbour of row i.

    Returns:
        Row numbers int64 and distances float64, `(N, min(k, M, or M - 1 without themselves))`, nearest first.
    """
    k = min(k, len(others) - themselves)
    rows = np.zeros((len(queries), k), np.int64)
    distances = np.zeros((len(queries), k))
    for start in range(0, len(queries) if k else 0, _QUERIES):
        block = F.normalize(queries[start : start + _QUERIES], dim=1)
        best = block.new_full((len(block), k), -torch.inf)
        place = torch.zeros(len(block), k, dtype=torch.int64, device=block.device)
        for first in range(0, len(others), _OTHERS):
            likeness = block @ F.normalize(others[first : first + _OTHERS], dim=1).T
            if themselves:
                mine = torch.arange(start, start + len(block), device=block.device) - first
                here = torch.nonzero((mine >= 0) & (mine < likeness.shape[1]))[:, 0]
                likeness[here, mine[here]] = -torch.inf
            numbers = torch.arange(first, first + likeness.shape[1], device=block.device).expand_as(likeness)
            best, chosen = torch.cat([best, likeness], dim=1).topk(k, dim=1)
            place = torch.cat([place, numbers], dim=1).gather(1, chosen)
        found = F.normalize(others[place].double(), dim=2)
        exact = 1 - (found @ F.normalize(queries[start : start + _QUERIES].double(), dim=1)[:, :, None])[:, :, 0]
        exact, order = exact.clamp_min(0).sort(dim=1, stable=True)
        rows[start : start + _QUERIES] = place.gather(1, order).cpu().numpy()
        distances[start : start + _QUERIES] = exact.cpu().numpy()
    return rows, distances


def _embed(
    backbone: Backbone, network: nn.Module, accelerator: Accelerator, source: Source
) -> tuple[pa.Table, Tensor]:
    """Identities, and vectors float32 `(N, D)` on the CPU."""
    tables, vectors = [], []
    represent = partial(backbone.represent, network)
    bar = tqdm(unit="obj", desc="embed", file=sys.stderr, delay=1)
    with bar, torch.inference_mode():
        for rows, given in source:
            with accelerator.autocast():
                vectors.append(over_pictures(represent, given).float().cpu())
            tables.append(rows)
            bar.update(len(rows))
    if not tables:
        return pa.table({}), torch.empty(0, 0)
    return pa.concat_tables(tables), torch.cat(vectors)


def _reference(path: Path, card: Card) -> _Reference:
    if not path.is_file():
        raise UsageError(f"--reference {path}: no such file; name a table that `embed` wrote")
    try:
        table = pq.read_table(path, columns=["object_id", "embedding", "model"])
        width = table.schema.field("embedding").type.list_size
        kinds = [("object_id", pa.string()), ("embedding", pa.list_(pa.float32(), width)), ("model", pa.string())]
        table = table.select([name for name, _ in kinds]).cast(pa.schema(kinds))
        if not table.num_rows or table["embedding"].null_count or not np.isfinite(_vectors(table).numpy()).all():
            raise ValueError("no vectors, or some that are missing or not finite")
    except (pa.ArrowException, KeyError, ValueError, AttributeError, OSError) as error:
        raise UsageError(f"--reference {path}: not a table that `embed` wrote ({str(error)[:80]})") from error
    if set(table["model"].to_pylist()) != {card.model[:16]}:
        raise UsageError(f"--reference {path}: of another model; embed the reference with this one")
    return _Reference(np.array(table["object_id"].to_pylist(), object), _vectors(table))


def _vectors(table: pa.Table) -> Tensor:
    column = table["embedding"].combine_chunks()
    return torch.from_numpy(column.flatten().to_numpy().reshape(len(column), -1).copy())


def _table(
    card: Card, rows: pa.Table, vectors: Tensor, known: _Reference | None, neighbours: int, device: torch.device
) -> pa.Table:
    names = np.array(rows["object_id"].to_pylist(), object) if known is None else known.names
    there = vectors.to(device)
    others = there if known is None else known.vectors.to(device)
    places, distances = nearest(there, others, neighbours, themselves=known is None)
    n, k = places.shape
    lists = [pa.array(names[places].ravel(), pa.string()), pa.array(distances.ravel(), pa.float64())]
    offsets = pa.array(np.arange(n + 1) * k, pa.int32())
    columns = {name: rows[name] for name in rows.column_names}
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.numpy().ravel()), vectors.shape[1])
    columns["neighbours"], columns["distances"] = (pa.ListArray.from_arrays(offsets, values) for values in lists)
    columns["anomaly"] = pa.array(distances.mean(axis=1) if k else [None] * n, pa.float64())
    columns["model"] = pa.array([card.model[:16]] * n, pa.string())
    columns["trained_on_mock"] = pa.array([card.mock] * n, pa.bool_())
    return pa.table(columns)


def _summary(card: Card, table: pa.Table, bad: int, out: Path) -> str:
    lines = ["the model learnt from MOCK data: do not use these vectors for science"] if card.mock else []
    width = table.schema.field("embedding").type.list_size
    lines.append(f"{out}: {len(table) + bad:,} objects = {len(table):,} vectors of {width} + {bad:,} in quarantine")
    if table["anomaly"].null_count < len(table):
        lines.append("furthest from their neighbours:")
        odd = table.select(["object_id", "survey", "anomaly"]).sort_by([("anomaly", "descending")]).slice(0, 5)
        lines += [f"  {row['object_id']}  {row['survey']}  {row['anomaly']:.4f}" for row in odd.to_pylist()]
    return "\n".join(lines)

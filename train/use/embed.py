"""What a model makes of a spectrum before it answers: vectors, nearest neighbours, and what stands apart."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from torch import nn
from tqdm import tqdm

from specshards.common.errors import UsageError, make_folder
from specshards.common.files import is_remote, replacing
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
from specshards.train.use.neighbours import BLOCK, Scratch, Search, Vectors

#: Rows of a row group of the table.
_ROWS = 8 * BLOCK


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
    exact: bool | None = None,
) -> Path:
    """Embed every object of `inputs`, look up its nearest neighbours, and write both.

    Vectors go to a file beside `out` as they come, and are mapped from it: memory grows with the identifiers alone,
    and above `neighbours.EXACT_UP_TO` objects with the index, about 350 bytes an object.

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
        exact: compare every pair, however many; by default up to `neighbours.EXACT_UP_TO` objects.

    Returns:
        The table that was written, `out`. One row an object: object_id, survey, source_file, ra, dec; `embedding`,
        float32: the CLS token after the last norm, or what the backbone pools where it has no such token, such as the
        mean over the tokens of a spectrum; of a model of several pictures the mean over them; `neighbours`: ids by
        cosine distance (1 - cosine, 0 to 2), nearest first; `distances`; `anomaly`: their mean, null without a
        neighbour. It is high for what is unlike anything else there, and says nothing of groups larger than
        `neighbours`. Then `model` (sha256 of the weights, 16 digits) and `trained_on_mock`.

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
    accelerator = make_accelerator(device)
    network = accelerator.prepare(model.to(accelerator.device)).eval()
    make_folder(out.parent)
    quarantine: list[dict[str, Any]] = []
    if is_remote(inputs) or (inputs / MANIFEST).is_file():
        source = from_shards(card, inputs, split, batch_size, str(accelerator.device), threads)
    else:
        source = from_spectra(card, inputs, batch_size, quarantine, most_bytes, stated)
    where = None if is_remote(out) else out.parent
    with TemporaryDirectory(prefix=f".{out.stem}-", dir=where) as folder, ExitStack() as stack:
        ours, theirs = (stack.enter_context(Scratch(Path(folder) / name)) for name in ("ours", "theirs"))
        rows = Path(folder) / "rows.parquet"
        names = None if reference is None else _reference(reference, card, theirs)
        if not _embed(card.config.architecture, network, accelerator, source, ours, rows):
            raise nothing_read(inputs, quarantine)
        others = theirs.vectors() if names is not None else ours.vectors()
        names = names or pq.read_table(rows, columns=["object_id"])["object_id"]
        search = Search(
            ours.vectors(), others, neighbours, themselves=reference is None, device=accelerator.device, exact=exact,
            threads=threads,
        )  # fmt: skip
        with replacing(out) as temporary:
            odd = _write(card, rows, names, search, temporary)
        probe = None if search.is_exact or not search.found else search.recall()
    beside = out.with_name(f"{out.stem}_quarantine.parquet")
    beside.unlink(missing_ok=True)
    if quarantine:
        write_quarantine(quarantine, beside)
    LOGGER.info(_summary(card, search, odd, probe, len(quarantine), out))
    return out


def _embed(
    backbone: Backbone, network: nn.Module, accelerator: Accelerator, source: Source, vectors: Scratch, rows: Path
) -> int:
    """Append vectors to one file, write identities to another (`_ROWS` a row group), and count them."""
    represent, count = partial(backbone.represent, network), 0
    waiting: list[pa.Table] = []
    with (
        tqdm(unit="obj", desc="embed", file=sys.stderr, delay=1) as bar,
        ExitStack() as stack,
        torch.inference_mode(),
    ):
        writer: pq.ParquetWriter | None = None
        for identities, given in source:
            with accelerator.autocast():
                vectors.append(over_pictures(represent, given).float().cpu().numpy())
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(rows, identities.schema, compression="zstd"))
            waiting.append(identities)
            if sum(map(len, waiting)) >= _ROWS:
                whole = pa.concat_tables(waiting)
                writer.write_table(whole.slice(0, _ROWS))
                waiting = [whole.slice(_ROWS)]
            count += len(identities)
            bar.update(len(identities))
        if writer is not None:
            writer.write_table(pa.concat_tables(waiting))
    return count


def _reference(path: Path, card: Card, vectors: Scratch) -> pa.ChunkedArray:
    """Names of the objects of an earlier table, whose vectors are appended to a file."""
    if not path.is_file():
        raise UsageError(f"--reference {path}: no such file; name a table that `embed` wrote")
    names, models = [], set()
    try:
        with pq.ParquetFile(path) as file:
            width = file.schema_arrow.field("embedding").type.list_size
            kinds = pa.schema(
                [("object_id", pa.string()), ("embedding", pa.list_(pa.float32(), width)), ("model", pa.string())]
            )
            for batch in file.iter_batches(_ROWS, columns=kinds.names):
                part = pa.table(batch).select(kinds.names).cast(kinds)
                values = part["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, width)
                if len(values) < len(part) or not np.isfinite(values).all():
                    raise ValueError("vectors are missing or not finite")
                vectors.append(values)
                names.append(part["object_id"].combine_chunks())
                models |= set(part["model"].unique().to_pylist())
        if not names:
            raise ValueError("no vectors")
    except (pa.ArrowException, KeyError, ValueError, AttributeError, OSError) as error:
        raise UsageError(f"--reference {path}: not a table that `embed` wrote ({str(error)[:80]})") from error
    if models != {card.model[:16]}:
        raise UsageError(f"--reference {path}: of another model; embed the reference with this one")
    return pa.chunked_array(names)


def _write(card: Card, rows: Path, names: pa.ChunkedArray, search: Search, out: Path) -> list[dict[str, Any]]:
    """Write the table, a row group after the other; the five rows that stand furthest from their neighbours."""
    names = names.cast(pa.large_string()).combine_chunks()
    odd: list[dict[str, Any]] = []
    blocks, done = search.blocks(), 0
    with pq.ParquetFile(rows) as identities, ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for group in range(identities.num_row_groups):
            part = identities.read_row_group(group)
            n = len(part)
            found = list(islice(blocks, -(-n // BLOCK)))
            places, distances = (np.concatenate(each) for each in zip(*found, strict=True))
            table = _table(card, part, search.queries[done : done + n], names, places, distances)
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(out, table.schema, compression="zstd"))
            writer.write_table(table)
            done += n
            if distances.shape[1]:
                odd += (
                    table.select(["object_id", "survey", "anomaly"])
                    .sort_by([("anomaly", "descending")])[:5]
                    .to_pylist()
                )
                odd = sorted(odd, key=lambda row: -row["anomaly"])[:5]
    return odd


def _table(
    card: Card, rows: pa.Table, vectors: Vectors, names: pa.LargeStringArray, places: IntArray, distances: FloatArray
) -> pa.Table:
    n, k = places.shape
    columns = {name: rows[name] for name in rows.column_names}
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    lists = [names.take(pa.array(places.ravel())).cast(pa.string()), pa.array(distances.ravel(), pa.float64())]
    offsets = pa.array(np.arange(n + 1) * k, pa.int32())
    columns["neighbours"], columns["distances"] = (pa.ListArray.from_arrays(offsets, values) for values in lists)
    columns["anomaly"] = pa.array(distances.mean(axis=1) if k else [None] * n, pa.float64())
    columns["model"] = pa.array([card.model[:16]] * n, pa.string())
    columns["trained_on_mock"] = pa.array([card.mock] * n, pa.bool_())
    return pa.table(columns)


def _summary(
    card: Card, search: Search, odd: list[dict[str, Any]], probe: tuple[int, float] | None, bad: int, out: Path
) -> str:
    lines = ["the model learnt from MOCK data: do not use these vectors for science"] if card.mock else []
    n, width = search.queries.shape
    lines.append(f"{out}: {n + bad:,} objects = {n:,} vectors of {width} + {bad:,} in quarantine")
    if probe is not None:
        lines.append(
            f"neighbours are by an index, which found {probe[1]:.1%} of those of {probe[0]:,} objects that were"
            " searched exactly, too; --exact searches all of them exactly"
        )
    if odd:
        lines.append("furthest from their neighbours:")
        lines += [f"  {row['object_id']}  {row['survey']}  {row['anomaly']:.4f}" for row in odd]
    return "\n".join(lines)

"""What a trained model is asked about: files, Parquet or shards of spectra, as it reads them, and whose they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from specshards.common.errors import JobError, UsageError
from specshards.render import ImageConfig
from specshards.shards import loader as shard_loader
from specshards.shards.loader.stack import stacked
from specshards.train.evaluation.evaluate import what_it_reads
from specshards.train.models.layers import model_input, spectra_of
from specshards.train.run import Card
from specshards.train.use.pictures import pictures, spectra

#: What tells an object from others, in every table of answers.
KNOWN = pa.schema(
    [("object_id", pa.string()), ("survey", pa.string()), ("source_file", pa.string()), ("ra", pa.float64()),
     ("dec", pa.float64())]
)  # fmt: skip

#: The columns of `KNOWN`, and what the model reads of the same objects (see `train.models.layers.model_input`).
Source = Iterator[tuple[pa.Table, Any]]


def from_spectra(
    card: Card, inputs: Path, batch_size: int, quarantine: list[dict[str, Any]], most_bytes: int | None = None
) -> Source:
    """Objects of survey files or spectra Parquet, as the model reads them; the others go to `quarantine`.

    Args:
        most_bytes: of one survey file; see `ingest.surveys.open_file`.
    """
    image = ImageConfig.from_dict(card.image)
    asks_redshift = "redshift" in card.config.tasks
    if card.config.view == "spectra":
        for batch in spectra(inputs, image.frame, batch_size, most_bytes, asks_redshift):
            quarantine += batch.quarantine
            if batch.rows:
                arrays = spectra_of(stacked(batch.spectra))
                yield _identity(batch.rows), {name: torch.from_numpy(values) for name, values in arrays.items()}
    else:
        for drawn in pictures(inputs, card.pictures, batch_size, most_bytes, asks_redshift):
            quarantine += drawn.quarantine
            if drawn.rows:
                yield _identity(drawn.rows), torch.from_numpy(drawn.pixel_values).movedim(-1, -3)


def _identity(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([{name: row.get(name) for name in KNOWN.names} for row in rows], KNOWN)


def from_shards(
    card: Card, folder: Path, split: str, batch_size: int, device: str, threads: int | None = None
) -> Source:
    """Samples of one split, in the order of its sidecar.

    Raises:
        UsageError: an empty split, or shards of other pictures that cannot be drawn anew, or of another frame.
    """
    with shard_loader.open(
        folder, split, batch_size, device=device, shuffle=False, threads=threads, **what_it_reads(card)
    ) as loader:
        mine, theirs = ImageConfig.from_dict(card.image).frame, loader.manifests[0].config.image.frame
        if mine != theirs:
            raise UsageError(f"{folder}: spectra in the {theirs} frame; the model learnt from the {mine} frame")
        known = loader.sidecar(KNOWN.names).select(KNOWN.names).cast(KNOWN)
        for number, batch in enumerate(loader):
            part, counts = known.slice(number * batch_size, batch_size), batch["valid"]
            kept = torch.nonzero(counts)[:, 0]
            given = model_input(batch)
            if isinstance(given, torch.Tensor):
                given = given[kept.to(given.device)]
            else:
                given = {name: values[kept.to(values.device)] for name, values in given.items()}
            yield part.take(kept.numpy()), given


def nothing_read(inputs: str | Path, bad: list[dict[str, Any]]) -> JobError:
    """The error for an input without a single usable object, from its quarantine rows."""
    why = f"{bad[0]['file']}: {bad[0]['reason']}" if bad else "nothing in it"
    return JobError(f"INPUT={inputs}: no object of {len(bad)} could be read ({why})")

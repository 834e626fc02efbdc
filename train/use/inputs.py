"""What a trained model is asked about: files, Parquet or shards of spectra, as it reads them, and whose they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from specshards.common.errors import JobError, UsageError
from specshards.common.messages import LOGGER
from specshards.ingest.surveys.stated import check_spectra_stated
from specshards.ingest.surveys.wavelengths import check_stated
from specshards.ingest.tables import UNSTATED, Stated
from specshards.render import ImageConfig
from specshards.shards import loader as shard_loader
from specshards.shards.format.archive import read_sidecars
from specshards.shards.format.manifest import Manifest
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
    card: Card, inputs: Path, batch_size: int, quarantine: list[dict[str, Any]], most_bytes: int | None = None,
    stated: Stated = UNSTATED,
) -> Source:  # fmt: skip
    """Objects of survey files or spectra Parquet, as the model reads them; the others go to `quarantine`.

    Args:
        most_bytes: of one survey file; see `ingest.surveys.open_file`.
        stated: what a user says of spectra whose files do not say it; see `stated_for`.
    """
    image = ImageConfig.from_dict(card.image)
    stated = stated_for(card.data, stated)
    asks_redshift = "redshift" in card.config.tasks
    if card.config.view == "spectra":
        for batch in spectra(inputs, image.frame, batch_size, most_bytes, asks_redshift, stated):
            quarantine += batch.quarantine
            if batch.rows:
                arrays = spectra_of(stacked(batch.spectra))
                yield _identity(batch.rows), {name: torch.from_numpy(values) for name, values in arrays.items()}
    else:
        for drawn in pictures(inputs, card.pictures, batch_size, most_bytes, asks_redshift, stated):
            quarantine += drawn.quarantine
            if drawn.rows:
                yield _identity(drawn.rows), torch.from_numpy(drawn.pixel_values).movedim(-1, -3)


def stated_for(data: Sequence[Mapping[str, Any]], given: Stated = UNSTATED) -> Stated:
    """What is taken of spectra whose files do not say it: what is given, else what was said of the model's own.

    Args:
        data: of the model's card.

    Raises:
        UsageError: what is given cannot be.
    """
    check_stated(given.wavelength_unit, given.medium)
    check_spectra_stated(given)
    learnt = list(dict.fromkeys(Stated.of(said) for each in data for said in each.get("stated", ())))
    if len(learnt) > 1:
        if given == UNSTATED:
            LOGGER.info(
                "the model learnt from spectra that were read in several ways: for files that do not say it, give "
                + ", or ".join(each.typed() for each in learnt)
            )
        return given
    if not learnt:
        return given
    stated = Stated.of({**learnt[0].to_dict(), **given.to_dict()})
    LOGGER.info(f"spectra whose files do not say it are read as those that the model learnt from: {stated.typed()}")
    return stated


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
        known = cut(_identities(folder, loader.manifests[0], split), batch_size)
        for part, batch in zip(known, loader, strict=True):
            counts = batch["valid"]
            kept = torch.nonzero(counts)[:, 0]
            given = model_input(batch)
            if isinstance(given, torch.Tensor):
                given = given[kept.to(given.device)]
            else:
                given = {name: values[kept.to(values.device)] for name, values in given.items()}
            yield part.take(kept.numpy()), given


def _identities(folder: Path, manifest: Manifest, split: str) -> Iterator[pa.Table]:
    """The rows of `KNOWN` of one shard after another: those of a survey would take a gigabyte at once."""
    for record in manifest.split(split):
        shard = replace(manifest, shards=(record,))
        yield read_sidecars([folder], [shard], split, KNOWN.names).select(KNOWN.names).cast(KNOWN)


def cut(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """The rows of tables of one schema, in tables of `size` rows each; the last may be shorter."""
    rest: pa.Table | None = None
    for table in tables:
        rest = table if rest is None else pa.concat_tables([rest, table])
        while len(rest) >= size:
            yield rest.slice(0, size)
            rest = rest.slice(size)
    if rest is not None and len(rest):
        yield rest


def nothing_read(inputs: str | Path, bad: list[dict[str, Any]]) -> JobError:
    """The error for an input without a single usable object, from its quarantine rows."""
    why = f"{bad[0]['file']}: {bad[0]['reason']}" if bad else "nothing in it"
    return JobError(f"INPUT={inputs}: no object of {len(bad)} could be read ({why})")

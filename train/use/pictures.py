"""Objects straight from survey files or spectra Parquet, for a trained model: their spectra, and pictures of them.

Pictures are drawn as shards are; nothing is written. A model that reads spectra is given them as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from specshards.common.quarantine import quarantine_row
from specshards.common.spectrum import Arrays
from specshards.ingest.spectra.objects import Object, objects
from specshards.ingest.tables import UNSTATED, Stated
from specshards.render import ImageConfig, RenderError, renderer
from specshards.render.frame import framed
from specshards.render.prepare import check

T = TypeVar("T")


@dataclass(frozen=True)
class ObjectBatch:
    """B objects.

    Attributes:
        rows: B dictionaries with object_id, survey, ra, dec, source_file and the labels that are known.
        spectra: of the same objects, in the frame asked for.
        quarantine: objects met since the last batch that could not be used: file, row, stage, reason, exception.
            Also objects without a redshift, where the frame is that of rest.
    """

    rows: list[dict[str, Any]]
    spectra: list[Arrays]
    quarantine: list[dict[str, Any]]


@dataclass(frozen=True)
class PictureBatch(ObjectBatch):
    """B objects with their pictures.

    Attributes:
        pixel_values: uint8 `(B, S, S, 3)`, RGB; `(B, pictures, S, S, 3)` of several.
    """

    pixel_values: npt.NDArray[np.uint8]


def spectra(
    inputs: Path, frame: str, batch_size: int, most_bytes: int | None = None, observed_only: bool = False,
    stated: Stated = UNSTATED,
) -> Iterator[ObjectBatch]:  # fmt: skip
    """Every spectrum with two good pixels, wherever they lie; see `ingest.spectra.objects` for the inputs.

    Every object comes out once, in `rows` or in `quarantine`; the last batch may be short, or hold only quarantine.

    Args:
        observed_only: what a file gives in the rest frame is in quarantine.
        stated: what the user says of spectra whose files do not say it.

    Raises:
        UsageError: nothing there.
    """
    quarantine: list[dict[str, Any]] = []
    found = objects(inputs, quarantine, most_bytes, stated)
    for batch, _ in _batches(found, quarantine, frame, batch_size, lambda spectrum: check(*spectrum), observed_only):
        yield batch


def pictures(
    inputs: Path,
    images: ImageConfig | Sequence[ImageConfig],
    batch_size: int,
    most_bytes: int | None = None,
    observed_only: bool = False,
    stated: Stated = UNSTATED,
) -> Iterator[PictureBatch]:
    """Draw every spectrum; otherwise as `spectra`.

    Args:
        images: a picture, or several of one size and frame: a spectrum that one of them cannot show is in quarantine.
    """
    wanted = [images] if isinstance(images, ImageConfig) else list(images)
    drawers = [renderer(image) for image in wanted]

    def draw(spectrum: Arrays) -> list[npt.NDArray[np.uint8]]:
        if any(image.bad_pixels == "draw" for image in wanted):
            check(*spectrum)  # as for shards: without a good pixel there is no object
        return [drawer.codes(*spectrum) for drawer in drawers]

    quarantine: list[dict[str, Any]] = []
    found = objects(inputs, quarantine, most_bytes, stated)
    for batch, codes in _batches(found, quarantine, wanted[0].frame, batch_size, draw, observed_only):
        drawn = []
        for i, drawer in enumerate(drawers):
            stacked = np.stack([each[i] for each in codes]) if codes else np.empty((0, *drawer.code_shape), np.uint8)
            drawn.append(drawer.expand_batch(stacked))
        pixels = drawn[0] if len(drawn) == 1 else np.stack(drawn, axis=1)
        yield PictureBatch(batch.rows, batch.spectra, batch.quarantine, pixels)


def _batches(
    found: Iterator[Object],
    quarantine: list[dict[str, Any]],
    frame: str,
    batch_size: int,
    draw: Callable[[Arrays], T],
    observed_only: bool,
) -> Iterator[tuple[ObjectBatch, list[T]]]:
    """Batches, and what `draw` makes of each spectrum; a RenderError sends the object to quarantine."""
    rows: list[dict[str, Any]] = []
    kept: list[Arrays] = []
    drawn: list[T] = []

    def flush() -> tuple[ObjectBatch, list[T]]:
        batch = ObjectBatch(rows.copy(), kept.copy(), quarantine.copy()), drawn.copy()
        for done in (rows, kept, quarantine, drawn):
            done.clear()
        return batch

    for meta, observed in found:
        try:
            given = meta.get("frame") or "observed"
            if given == "rest" and observed_only:
                raise RenderError("a spectrum in the rest frame, of which this model cannot learn a redshift")
            spectrum, _ = framed(frame, observed, None, meta.get("z"), given, meta.get("velocity"))
            drawn.append(draw(spectrum))
            rows.append(meta)
            kept.append(spectrum)
        except RenderError as error:
            quarantine.append(quarantine_row(meta["source_file"], meta.get("row"), "render", error))
        if len(rows) == batch_size:
            yield flush()
    if rows or quarantine:
        yield flush()

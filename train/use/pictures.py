"""Pictures straight from survey files or spectra Parquet, for prediction: drawn as shards are, nothing written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.common.quarantine import quarantine_row
from specshards.common.spectrum import Arrays
from specshards.ingest.job.plan import find_files
from specshards.ingest.spectra.blocks import iter_blocks
from specshards.ingest.spectra.folder import SpectraFolder, holds_spectra
from specshards.ingest.surveys import open_file
from specshards.render import ImageConfig, RenderError, renderer
from specshards.render.frame import framed


@dataclass(frozen=True)
class PictureBatch:
    """B pictures and what is known of their objects.

    Attributes:
        pixel_values: uint8 `(B, S, S, 3)`, RGB.
        rows: B dictionaries with object_id, survey, ra, dec, source_file and the labels that are known.
        quarantine: objects met since the last batch that could not be read or drawn: file, row, stage, reason,
            exception. Also objects without a redshift, where `image` is of the rest frame.
        spectra: of the same objects, flux, ivar, wavelength and mask as they were drawn; only where asked for.
    """

    pixel_values: npt.NDArray[np.uint8]
    rows: list[dict[str, Any]]
    quarantine: list[dict[str, Any]]
    spectra: list[Arrays] = field(default_factory=list)


def pictures(
    inputs: Path, image: ImageConfig, batch_size: int, *, keep_spectra: bool = False
) -> Iterator[PictureBatch]:
    """Draw every spectrum of a survey file, a folder of them, a glob, or Parquet (ours or MultimodalUniverse's).

    Every object comes out once, in `rows` or in `quarantine`; the last batch may be short, or hold only quarantine.

    Raises:
        UsageError: nothing there.
    """
    drawer = renderer(image)
    codes: list[npt.NDArray[np.uint8]] = []
    rows: list[dict[str, Any]] = []
    quarantine: list[dict[str, Any]] = []
    spectra: list[Arrays] = []

    def flush() -> PictureBatch:
        stacked = np.stack(codes) if codes else np.empty((0, *drawer.code_shape), np.uint8)
        batch = PictureBatch(drawer.expand_batch(stacked), list(rows), list(quarantine), list(spectra))
        for done in (codes, rows, quarantine, spectra):
            done.clear()
        return batch

    for meta, observed in objects(inputs, quarantine):
        try:
            arrays, _ = framed(image.frame, observed, None, meta.get("z"))
            codes.append(drawer.codes(*arrays).copy())
            rows.append(meta)
            if keep_spectra:
                spectra.append(arrays)
        except RenderError as error:
            quarantine.append(quarantine_row(meta["source_file"], meta.get("row"), "render", error))
        if len(codes) == batch_size:
            yield flush()
    if codes or quarantine:
        yield flush()


def objects(inputs: Path, quarantine: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Arrays]]:
    """Every spectrum with what is known of it; what cannot be read goes to `quarantine` as a row."""
    if holds_spectra(inputs):
        yield from _from_parquet(inputs, quarantine)
    else:
        yield from _from_files(str(inputs), quarantine)


def _from_files(inputs: str, quarantine: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Arrays]]:
    root, files = find_files(inputs, "INPUT")
    for name in files:
        try:
            for item in open_file(root / name, source_file=name).objects():
                if isinstance(item, BadObjectError):
                    quarantine.append(quarantine_row(name, item.row, "read", item))
                    continue
                meta = {key: getattr(item, key) for key in ("object_id", "survey", "ra", "dec", "source_file", "row")}
                meta |= {"sn_median": item.sn_median(), **item.labels}
                yield meta, item.arrays()
        except BadObjectError as error:
            quarantine.append(quarantine_row(name, error.row, "read", error))


def _from_parquet(inputs: Path, quarantine: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Arrays]]:
    # Nothing is split here, so an object without a position is as good as any.
    for _, block in iter_blocks(SpectraFolder.scan(inputs), must_be_placed=False):
        quarantine += [quarantine_row(file, row, "read", error) for file, row, error in block.bad]
        for index, meta in enumerate(block.meta.to_pylist()):
            yield {**meta, "row": block.place(index)[1]}, block.arrays(index)

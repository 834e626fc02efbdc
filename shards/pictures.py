"""Pictures straight from survey files or spectra Parquet, for prediction: drawn as shards are, nothing written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.build import find_files, quarantine_row
from ingest.errors import BadObjectError
from ingest.surveys import read_file
from render import ImageConfig, RenderError, renderer
from shards.spectra import Arrays, SpectraFolder, iter_blocks


@dataclass(frozen=True)
class PictureBatch:
    """B pictures and what is known of their objects.

    Attributes:
        pixel_values: uint8 `(B, S, S, 3)`, RGB.
        rows: B dictionaries with object_id, survey, ra, dec, source_file and the labels that are known.
        quarantine: objects met since the last batch that could not be read or drawn: file, row, stage, reason,
            exception.
    """

    pixel_values: npt.NDArray[np.uint8]
    rows: list[dict[str, Any]]
    quarantine: list[dict[str, Any]]


def pictures(inputs: Path, image: ImageConfig, batch_size: int) -> Iterator[PictureBatch]:
    """Draw every spectrum of a FITS file, a folder of them, a glob, or spectra Parquet.

    Every object comes out once, in `rows` or in `quarantine`; the last batch may be short, or hold only quarantine.

    Raises:
        UsageError: nothing there.
    """
    drawer = renderer(image)
    codes: list[npt.NDArray[np.uint8]] = []
    rows: list[dict[str, Any]] = []
    quarantine: list[dict[str, Any]] = []

    def flush() -> PictureBatch:
        stacked = np.stack(codes) if codes else np.empty((0, *drawer.code_shape), np.uint8)
        batch = PictureBatch(drawer.expand_batch(stacked), list(rows), list(quarantine))
        for done in (codes, rows, quarantine):
            done.clear()
        return batch

    for meta, arrays in _objects(inputs, quarantine):
        try:
            codes.append(drawer.codes(*arrays).copy())
            rows.append(meta)
        except RenderError as error:
            quarantine.append(quarantine_row(meta["source_file"], meta.get("row"), "render", error))
        if len(codes) == batch_size:
            yield flush()
    if codes or quarantine:
        yield flush()


def _objects(inputs: Path, quarantine: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Arrays]]:
    parquet = inputs.suffix == ".parquet" or (inputs.is_dir() and any(inputs.glob("*.parquet")))
    yield from _from_parquet(inputs) if parquet else _from_files(str(inputs), quarantine)


def _from_files(inputs: str, quarantine: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Arrays]]:
    root, files = find_files(inputs, "INPUT")
    for name in files:
        try:
            spectrum = read_file(root / name, source_file=name)
        except BadObjectError as error:
            quarantine.append(quarantine_row(name, None, "read", error))
            continue
        meta = {name: getattr(spectrum, name) for name in ("object_id", "survey", "ra", "dec", "source_file")}
        yield {**meta, **spectrum.labels}, (spectrum.flux, spectrum.ivar, spectrum.wavelength, spectrum.mask)


def _from_parquet(inputs: Path) -> Iterator[tuple[dict[str, Any], Arrays]]:
    for group, block in iter_blocks(SpectraFolder.scan(inputs)):
        for index, meta in enumerate(block.meta.to_pylist()):
            yield {**meta, "row": group.first_row + index}, block.arrays(index)

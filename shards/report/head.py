"""The first samples of a shard: a table, and a contact sheet of what a model sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from specshards.common.errors import JobError, UsageError, is_environment, make_folder, shortened
from specshards.common.files import replacing
from specshards.common.remote import opened
from specshards.common.text import aligned
from specshards.render import renderer
from specshards.render.contact_sheet import contact, drawn
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.format.manifest import SPLITS, Manifest, ShardRecord
from specshards.shards.format.nearby import nearby_sidecar
from specshards.shards.format.tar import read_index
from specshards.shards.write.card import split_by

Picture = npt.NDArray[np.uint8]

#: Column -> how its values are printed.
COLUMNS = {
    "key": "", "class": "", "z": ".5f", "sn_median": ".1f", "survey": "", "object_id": "", "ra": ".5f", "dec": ".5f",
    "bytes": ",d", "offset": ",d",
}  # fmt: skip
_MOST = 200
#: Small pictures are enlarged by whole factors to about this side, so that captions fit beneath them.
_SIDE = 224


@dataclass(frozen=True)
class ShardHead:
    """The beginning of a shard.

    Attributes:
        samples: of the tar. split: how the samples are split.
        rows: of `COLUMNS`, one a sample shown, in the tar's order; bytes and offset are the picture's.
        sheet: the PNG.
    """

    record: ShardRecord
    samples: int
    split: str
    rows: tuple[dict[str, Any], ...]
    sheet: Path

    def lines(self) -> Iterator[str]:
        """The table, as text."""
        cells = [list(COLUMNS), *([_cell(row[name], kind) for name, kind in COLUMNS.items()] for row in self.rows)]
        yield from aligned(cells, ())


def read_head(
    folder: Path, *, split: str = "train", shard: int = 0, count: int = 16, out: Path | None = None
) -> ShardHead:
    """Read the first `count` samples of a shard and write their pictures, captioned, to a PNG.

    Args:
        shard: its number, as in its file's name.
        out: the PNG; `<split>-<shard>.png` in the current folder unless given.

    Raises:
        UsageError: no manifest, no such split or shard, or a name that does not end in .png.
        JobError: the shard is damaged.
    """
    if not 1 <= count <= _MOST:
        raise UsageError(f"count={count}: give a number of samples from 1 to {_MOST}")
    manifest = Manifest.load(folder)
    record = _record(manifest, folder, split, shard)
    out = out or Path(f"{Path(record.name).stem}.png")
    if out.suffix.lower() != ".png":
        raise UsageError(f"{out}: give a name that ends in .png")
    try:
        rows, pictures = _read(manifest, record, folder, count)
    except (OSError, ValueError, LookupError, StopIteration, pa.ArrowException, cv2.error) as error:
        if is_environment(error):
            raise
        why = shortened(error, 160)
        raise JobError(f"{folder / record.name}: damaged ({why}); `specshards shards verify` says more") from error
    _write(contact(list(zip(map(_caption, rows), pictures, strict=True))), out)
    return ShardHead(record, record.samples, split_by(manifest), tuple(rows), out)


def _record(manifest: Manifest, folder: Path, split: str, shard: int) -> ShardRecord:
    if split not in SPLITS:
        raise UsageError(f"unknown split {split}: choose {', '.join(SPLITS)}")
    numbers = {int(Path(record.name).stem.rpartition("-")[2]): record for record in manifest.split(split)}
    if shard not in numbers:
        extent = f"{min(numbers)} to {max(numbers)}" if numbers else "none"
        raise UsageError(f"{folder}: no shard {shard} of {split}; there are {len(numbers)}: {extent}")
    return numbers[shard]


def _read(
    manifest: Manifest, record: ShardRecord, folder: Path, count: int
) -> tuple[list[dict[str, Any]], list[Picture]]:
    encoding = ENCODINGS[manifest.config.encoding](renderer(manifest.config.image))
    columns = [name for name in COLUMNS if name not in ("bytes", "offset")]
    with nearby_sidecar(record, folder) as path, pq.ParquetFile(path) as file:
        batch = next(file.iter_batches(count, columns=columns))
    rows, pictures = batch.to_pylist(), []
    with opened(record.path(folder)) as tar:
        for row, members in zip(rows, read_index(record.index(folder)), strict=False):
            row["offset"], row["bytes"], name = members[encoding.extension]
            if name != f"{row['key']}.{encoding.extension}":
                raise ValueError(f"index and sidecar differ: {name}, {row['key']}")
            tar.seek(row["offset"])
            picture = encoding.decode(tar.read(row["bytes"]))
            if encoding.shape is None:
                picture = drawn(encoding.drawer, picture)
            elif not encoding.full_size:
                picture = encoding.drawer.expand(picture)
            factor = max(1, _SIDE // len(picture))
            pictures.append(np.repeat(np.repeat(picture, factor, axis=0), factor, axis=1))
    return rows, pictures


def _caption(row: dict[str, Any]) -> str:
    parts = [row["key"].lstrip("0") or "0", row["class"] or "unlabelled"]
    if row["z"] is not None:
        parts.append(f"z {row['z']:.3f}")
    if row["sn_median"] is not None:
        parts.append(f"S/N {row['sn_median']:.1f}")
    return ", ".join(parts)


def _cell(value: Any, kind: str) -> str:
    return "-" if value is None or value != value else format(value, kind)


def _write(sheet: Picture, out: Path) -> None:
    make_folder(out.parent)
    with replacing(out) as temporary:
        temporary.write_bytes(cv2.imencode(".png", np.ascontiguousarray(sheet[..., ::-1]))[1].tobytes())

"""What `benchmarks.suite.load` loads: the same pictures as our shards, as plain files and as arrays."""

from __future__ import annotations

import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from specshards.benchmarks.peers.worker import picture_path
from specshards.render import ImageConfig
from specshards.shards import loader
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.format.manifest import Manifest

BATCH = 64


@dataclass(frozen=True)
class Data:
    """The same pictures in every form: our shards by encoding, and the files that others start from."""

    folder: Path

    def shards(self, encoding: str) -> Path:
        """Our shard folder."""
        return self.folder / encoding

    @property
    def source(self) -> Path:
        """What `peer_worker` calls SOURCE."""
        return self.folder / "source"

    @property
    def samples(self) -> int:
        """Pictures of the train split."""
        return len(np.load(self.source / "labels.npy", mmap_mode="r"))

    def tars(self, encoding: str) -> list[Path]:
        """The archives of the train split."""
        folder = self.shards(encoding)
        return [record.path(folder) for record in Manifest.load(folder).split("train")]

    def payloads(self, encoding: str) -> dict[int, bytes]:
        """Row -> the stored bytes of its picture."""
        payloads = {}
        for path in self.tars(encoding):
            with tarfile.open(path) as tar:
                for member in tar:
                    stem, _, extension = member.name.partition(".")
                    if extension != "npy":
                        content = tar.extractfile(member)
                        payloads[int(stem)] = content.read() if content else b""
        return payloads


def make_data(folder: Path, image: str, objects: int) -> Data:
    """Mock spectra as shards of every encoding, and their pictures as plain files; what is there already stays."""
    from specshards.ingest.mock.scale.config import ScaleConfig
    from specshards.ingest.mock.scale.job import write_parquet_survey
    from specshards.shards.format.manifest import ShardConfig
    from specshards.shards.write.build import build

    data = Data(folder)
    if not (folder / "spectra.done").exists():
        write_parquet_survey(ScaleConfig("lamost", n=objects), folder)
        (folder / "spectra.done").touch()
    for encoding in ENCODINGS:
        if not (data.shards(encoding) / "manifest.json").exists():
            # Several shards, as a large data set has them: webdataset shares out whole ones among its workers.
            config = ShardConfig(ImageConfig(image=image), encoding, samples_per_shard=max(1, objects // 8))
            build(config, folder / "spectra", data.shards(encoding))
    if not (data.source / "done").exists():
        _write_source(data)
    return data


def _write_source(data: Data) -> None:
    """Our pictures as loose PNG and JPEG files and as arrays; the reference for everyone's pixels."""
    source = data.source
    for form in ("png", "jpeg"):
        (source / form).mkdir(parents=True, exist_ok=True)
    with loader.open(data.shards("png"), "train", BATCH, backend="plain", shuffle=False) as batches:
        size = batches.image.size
        shape = (batches.samples, size, size, 3)
        pictures = np.lib.format.open_memmap(source / "pictures.npy", "w+", np.dtype(np.uint8), shape)
        rows, labels, done = [], [], 0
        for batch in batches:
            valid = batch["valid"]
            count = int(valid.sum())
            pictures[done : done + count] = batch["pixel_values"][valid].permute(0, 2, 3, 1).numpy()
            rows += rows_of(batch)
            labels.append(torch.stack(list(batch["labels"].values()), 1)[valid].numpy())
            done += count
    pictures.flush()
    np.save(source / "labels.npy", np.column_stack([np.array(rows, np.float64), np.concatenate(labels)]))
    with ThreadPoolExecutor() as pool:
        paths = [picture_path(source, "png", row) for row in rows]
        list(pool.map(lambda picture, path: Image.fromarray(picture).save(path), pictures, paths))
    for row, payload in data.payloads("jpeg").items():
        picture_path(source, "jpeg", row).write_bytes(payload)
    (source / "done").touch()


def rows_of(batch: loader.Batch) -> list[int]:
    """The rows that the pictures of a batch were drawn from; repeats left out."""
    keys = [key for key, valid in zip(batch["key"], batch["valid"], strict=True) if valid]
    return [int(key.partition("/")[2]) for key in keys]

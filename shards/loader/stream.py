"""Reading shards where they lie (s3://, https://, any fsspec address): a webdataset pipeline behind a local cache.

for batch in stream.open("s3://bucket/lamost/map2d", "train", batch_size=64, cache="/scratch/shards"):
    batch["pixel_values"]     # as from `shards.loader`
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset as wds
from webdataset.tariterators import group_by_keys, tar_file_expander

from specshards.common.errors import JobError, UsageError
from specshards.common.files import is_remote, location, replacing, sha256
from specshards.common.jobs import cores
from specshards.render import ImageConfig, renderer
from specshards.shards.format.archive import check_codes
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.format.manifest import NPY_HEADER_BYTES, SPLITS, Manifest, ShardRecord, label_npy
from specshards.shards.loader.batch import Batch
from specshards.shards.loader.decode import PlainDecoder
from specshards.shards.loader.paint import Painter

_BUFFER = 4096


class Stream:
    """Iterable over one epoch after another, for data that is not on this machine.

    What it promises: the pixels and labels of `shards.loader`; every sample once an epoch, on one rank; a shard
    enters the cache only with the checksum of the manifest, and is fetched once however often it is read.

    What it cannot promise, and `shards.loader` can: equal numbers of batches on every rank (shards are dealt out
    whole: stop at `batches`, or let the shortest rank decide); a saved position (a restart begins the epoch anew); an
    order that mixes more than a buffer of 4,096 samples and the order of shards; the skipping of a damaged sample.
    Copy the data set to local disk where these matter.
    """

    def __init__(
        self, folder: str | Path, split: str, batch_size: int, *, image: ImageConfig | None, seed: int, rank: int,
        world_size: int, shuffle: bool, cache: Path | None, device: str, verify: bool,
    ) -> None:  # fmt: skip
        """See `open`."""
        self.folder, self.split, self._batch_size, self._shuffle = location(folder), split, batch_size, shuffle
        self.manifest = Manifest.load(self.folder)
        config = self.manifest.config
        if image not in (None, config.image) and ENCODINGS[config.encoding].needs_picture:
            raise UsageError(f"{folder}: holds drawn pictures; leave `image` out, or take shards with ENCODING=flux")
        self._encoding = ENCODINGS[config.encoding](renderer(image or config.image), config.jpeg_quality)
        shards = self.manifest.split(split)
        if not shards:
            raise UsageError(f"{folder}: the {split} split is empty")
        self._records = {record.name: record for record in shards}
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._verify, self._compared = verify, set[Path]()
        self._holder = None if cache else tempfile.TemporaryDirectory(prefix="specshards-")
        self._cache = cache or Path(self._holder.name if self._holder else "")
        self._decoder = PlainDecoder(self._encoding, cores())
        self._painter = Painter(self._encoding, device, None)
        self._label_header = label_npy(np.zeros(len(self.manifest.labels)))[:NPY_HEADER_BYTES]
        self._epoch = 0

    def __iter__(self) -> Iterator[Batch]:
        """One epoch of this rank's shards; the last batch may be short."""
        rng = np.random.default_rng([self._seed, self._epoch])
        names = sorted(self._records)
        if self._shuffle:
            names = [names[i] for i in rng.permutation(len(names))]
        self._epoch += 1
        mine = names[self._rank :: self._world_size]
        stages: list[Any] = [partial(self._open_shards, mine), tar_file_expander, group_by_keys]
        if self._shuffle:
            stages.append(wds.detshuffle(_BUFFER, 256, seed=self._seed, epoch=self._epoch - 1))
        stages.append(wds.batched(self._batch_size, collation_fn=None))
        for samples in wds.DataPipeline(*stages):
            yield self._batch(samples)

    def _open_shards(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Shards from the cache, the next one being fetched while one is read: the first stage of the pipeline."""
        with ThreadPoolExecutor(1) as pool:
            ahead = [pool.submit(self._fetch, self._records[name]) for name in names[:1]]
            for number, name in enumerate(names):
                path = ahead.pop().result()
                if number + 1 < len(names):
                    ahead.append(pool.submit(self._fetch, self._records[names[number + 1]]))
                with path.open("rb") as stream:
                    yield {"url": name, "stream": stream}

    def _fetch(self, record: ShardRecord) -> Path:
        """The local file of a shard; whole, or an error. What lies here already is compared once, too."""
        there = record.path(self.folder)
        here = self._cache / f"{record.sha256[:16]}-{Path(record.name).name}" if is_remote(there) else there
        if here in self._compared:
            return here
        if here.exists() and here.stat().st_size == record.bytes:
            if not self._verify or sha256(here) == record.sha256:
                self._compared.add(here)
                return here
            if here is there:
                raise JobError(f"{there}: is not what the manifest says; copy or make it again")
        if here is there:
            raise JobError(f"{there}: missing, or of another length than the manifest says; copy or make it again")
        here.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(here) as temporary:
                there.fs.get_file(there.path, str(temporary))  # type: ignore[attr-defined]
                if sha256(temporary) != record.sha256:
                    raise JobError(f"{there}: is not what the manifest says; copy or make it again")
            self._compared.add(here)
        except FileNotFoundError:
            raise JobError(f"{there}: the archive is missing; copy or make it again") from None
        return here

    def _batch(self, samples: Sequence[dict[str, Any]]) -> Batch:
        extension, names = self._encoding.extension, self.manifest.labels
        keys = [str(sample["__key__"]) for sample in samples]
        try:
            payloads = [np.frombuffer(sample[extension], np.uint8) for sample in samples]
            if any(sample["npy"][:NPY_HEADER_BYTES] != self._label_header for sample in samples):
                raise ValueError("not a label vector")
            vectors = [np.frombuffer(sample["npy"][NPY_HEADER_BYTES:], "<f8") for sample in samples]
            labels = np.stack(vectors).reshape(len(samples), len(names))
            for i, reason in check_codes(
                labels, names, len(self.manifest.classes), len(self.manifest.surveys)
            ).items():
                raise ValueError(f"{keys[i]}: {reason}")
        except (KeyError, ValueError) as error:
            raise JobError(f"{self.folder}: a sample near {keys[0]} lacks a member ({error})") from None
        stored, wrong = self._decoder(payloads)
        for i, reason in sorted(wrong.items()):
            raise JobError(f"{self.folder}/{samples[i].get('__url__')}: {keys[i]}.{extension}: {reason}")
        columns = torch.from_numpy(np.ascontiguousarray(labels.T))
        return Batch(
            pixel_values=self._painter(stored, keys, np.random.default_rng(0)),
            labels=dict(zip(names, columns, strict=True)),
            key=[f"0/{key}" for key in keys],
            valid=torch.ones(len(keys), dtype=torch.bool),
        )

    def close(self) -> None:
        """Stop the threads; a cache that was not asked for goes, too."""
        self._decoder.close()
        if self._holder is not None:
            self._holder.cleanup()

    def __enter__(self) -> Stream:
        """The stream itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def open(
    folder: str | Path,
    split: str,
    batch_size: int,
    *,
    image: ImageConfig | None = None,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    shuffle: bool | None = None,
    cache: str | Path | None = None,
    device: str = "cpu",
    verify: bool = True,
) -> Stream:
    """Open one split of a data set at any address that fsspec knows; see `Stream` for what to expect.

    Args:
        cache: folder that keeps what was fetched, also for the next run; by default one that goes with the stream.
        verify: compare what lies on this machine already with its checksum, once; what is fetched always is.

    Raises:
        UsageError: no data set there, an empty or unknown split.
        JobError: while iterating, a missing or damaged shard.
    """
    if split not in SPLITS:
        raise UsageError(f"unknown split {split}: choose {', '.join(SPLITS)}")
    if batch_size < 1 or not 0 <= rank < world_size:
        raise UsageError(f"batch_size {batch_size}, rank {rank}, world_size {world_size}: not a possible loader")
    return Stream(
        folder, split, batch_size, image=image, seed=seed, rank=rank, world_size=world_size,
        shuffle=split == "train" if shuffle is None else shuffle,
        cache=None if cache is None else Path(cache).expanduser(), device=device, verify=verify,
    )  # fmt: skip

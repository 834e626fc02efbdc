"""The loader: batches of pictures, or of spectra, and labels from one data set or several, exactly once per epoch.

for batch in loader.open("data/lamost/shards/map2d", "train", batch_size=64):
    batch["pixel_values"]     # uint8 (B, 3, S, S)
    batch["labels"]["z"]      # float64 (B,), NaN = missing
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from specshards.common.cache import Cache
from specshards.common.errors import JobError, UsageError
from specshards.common.messages import LOGGER
from specshards.render import ImageConfig, renderer
from specshards.shards.format.archive import Archive, check_codes, check_files, read_sidecars
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.format.manifest import Manifest, key
from specshards.shards.loader.augment import Augmentation
from specshards.shards.loader.batch import Batch as Batch
from specshards.shards.loader.batch import Decoded
from specshards.shards.loader.batch import SpectraBatch as SpectraBatch
from specshards.shards.loader.dali import make_decoder
from specshards.shards.loader.deal import Deal
from specshards.shards.loader.guard import Unverified, Verification
from specshards.shards.loader.mixing import agreed, make_weights
from specshards.shards.loader.options import LoaderOptions
from specshards.shards.loader.order import EpochOrder
from specshards.shards.loader.paint import CannotDrawError
from specshards.shards.loader.pictures import Painters, asked
from specshards.shards.loader.source import Source
from specshards.shards.loader.stack import Stacker

#: Batches that are made ready while the consumer works on one.
_AHEAD = 2


class Loader:
    """Iterable over the batches of one epoch after another; its state can be saved after any batch.

    Attributes:
        manifests: of the data sets, in the order given.
        images: the pictures of each object, of one size. image: the first of them.
        surveys: names that the `survey` label counts in, over all data sets.
        labels: names of the labels of a batch.
        samples: of an epoch, over all ranks.
        skipped: damaged samples left out so far.
    """

    def __init__(
        self, folders: Sequence[Path], options: LoaderOptions, images: Sequence[str | ImageConfig],
        augment: Augmentation | None, cache: Cache | None = None,
    ) -> None:  # fmt: skip
        """See `open`, which checks the options."""
        self._cache = cache
        self.folders, self.split, self._options, self._augment = tuple(folders), options.split, options, augment
        self.manifests = tuple(Manifest.load(folder) for folder in folders)
        pictures = asked(images, self.manifests[0].config.image)
        first = agreed(self.folders, self.manifests, pictures, options.view)
        self.images = pictures or (first.config.image,)
        self.image = self.images[0]
        #: Samples of one object in an epoch, each with another picture.
        self._each = 1 if options.together else len(self.images)
        self.surveys = tuple(sorted({name for manifest in self.manifests for name in manifest.surveys}))
        self.skipped = 0
        self._added: dict[str, npt.NDArray[np.float64]] = {}
        self._stored_labels = first.labels
        self._survey_maps = [
            np.array([self.surveys.index(name) for name in manifest.surveys], np.float64)
            for manifest in self.manifests
        ]
        stored, quality = ENCODINGS[first.config.encoding], first.config.jpeg_quality
        encodings = [stored(renderer(image), quality) for image in self.images]
        encoding = encodings[0]
        if augment is not None and encoding.full_size:
            what = f"augment: {first.config.encoding.upper()} holds finished pictures"
            raise UsageError(f"{what}; make the shards with ENCODING=flux, png or pnm")
        shards = [
            (folder, manifest, record)
            for folder, manifest in zip(self.folders, self.manifests, strict=True)
            for record in manifest.split(self.split)
        ]
        if not shards:
            raise UsageError(f"{', '.join(map(str, folders))}: the {self.split} split is empty; use more objects")
        tars = [record.path(folder) for folder, _, record in shards]
        check_files(tars, [record.bytes for *_, record in shards])
        self._owner = np.array([self.folders.index(folder) for folder, *_ in shards])
        counts = [record.samples for *_, record in shards]
        chosen = make_weights(
            [(folder, record) for folder, _, record in shards],
            self._owner.tolist(),
            options.weights,
            options.balance,
            cache,
        )
        self._order = EpochOrder(counts, shuffle=options.shuffle, seed=options.seed, weights=chosen,
                                 copies=self._each)  # fmt: skip
        self._deal = Deal(self._order.length, options.batch_size, options.world_size,
                          options.per_step or options.world_size)  # fmt: skip
        self._source = Source([(folder, record) for folder, _, record in shards], cache)
        self._source.check_room(self._order.shards(0, 0, self.samples))
        policy = options.on_error == "stop", options.balance is not None, cache
        self._verification = Verification(shards, encoding.extension, *policy) if options.verify else Unverified()
        if self.split == "train":
            self._verification.add_statistics(zip(self.folders, self.manifests, strict=True))
        self._archive = Archive(
            tars, counts, encoding.extension, first.labels, opened=self._verification.opened,
            opening=self._source.opening,
        )  # fmt: skip
        self._decoder = make_decoder(encoding, options.backend, options.batch_size, options.threads, options.device)
        self._painters = Painters(encodings, options.device, augment)
        self._stacker = Stacker(options.device, augment) if options.view == "spectra" else None
        # A batch is read and decoded in one thread and painted in the next, while the consumer has the one before.
        self._decoding, self._painting = (ThreadPoolExecutor(1, f"shards-{name}") for name in ("decode", "paint"))
        #: With the position after each.
        self._ahead: deque[tuple[Future[Batch | SpectraBatch], int]] = deque()
        self._named: set[str] = set()
        #: Batches done are counted over all ranks.
        self._epoch = self._batch = 0

    @property
    def samples(self) -> int:
        """Samples of an epoch, over all ranks."""
        return self._order.length

    @property
    def objects(self) -> int:
        """Samples of an epoch but for the pictures of each: objects, where none stands in it more than once."""
        return self.samples // self._each

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels of a batch: those of the shards, then those of `add_label`."""
        return (*self._stored_labels, *self._added)

    def add_label(self, name: str, values: npt.NDArray[np.float64]) -> None:
        """Let the batches of the next iteration carry a label that is not in the shards, such as `subclass`.

        It decides no sequence: fingerprint and state stay as they are.

        Args:
            values: float64 `(n,)`, NaN = missing, one for each row of `sidecar`, in its order.

        Raises:
            UsageError: another number of values, or a name that is there already.
        """
        if name in self.labels:
            raise UsageError(f"label {name}: is there already; choose another name")
        values, rows = np.array(values, np.float64), int(self._archive.starts[-1])
        if values.shape != (rows,):
            raise UsageError(f"label {name}: values of shape {values.shape}; give one for each of the {rows:,} rows")
        self._added = {**self._added, name: values}

    def __len__(self) -> int:
        """Batches per epoch: the same on every rank, enough for the fullest one."""
        return len(self._deal)

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the current epoch: all of it, but after `load_state_dict` or an early `break`.

        With view `spectra` the batches are `SpectraBatch`; `spectra` says so to a type checker.
        """
        self._forget()
        ahead, end = self._batch, self._deal.batches
        self._decoding.submit(self._expect, self._epoch, 0 if self._deal.stretches else self._deal.span(ahead)[0])
        while self._batch < end:
            while len(self._ahead) <= _AHEAD and ahead < end:
                number, ahead = ahead + self._options.rank, self._deal.after(ahead)
                span = self._deal.span(number) if number < ahead else (0, 0)
                decoded = self._decoding.submit(self._decode, self._epoch, *span)
                self._ahead.append((self._painting.submit(self._paint, decoded, self._epoch, number), ahead))
            future, done = self._ahead.popleft()
            batch = future.result()
            # Counted before the consumer sees it: a state saved while it works on a batch goes on with the next.
            self._batch = done
            yield cast(Batch, batch)
        self.verified()
        self._epoch, self._batch, self._deal = self._epoch + 1, 0, replace(self._deal, stretches=0)

    def verified(self) -> None:
        """Wait until all that was read so far has been compared with its checksums.

        Call it before something is kept that was learnt from batches; at the end of an epoch it is done anyhow.

        Raises:
            JobError: names the file that differs, and the mend. With `on_error="skip"` it is a warning.
        """
        self._verification.wait()

    def spectra(self) -> Iterator[SpectraBatch]:
        """The same iteration, of a loader with view `spectra`.

        Raises:
            UsageError: the loader draws pictures.
        """
        if self._stacker is None:
            raise UsageError("this loader draws pictures; open it with view spectra")
        return cast(Iterator[SpectraBatch], iter(self))

    def _forget(self) -> None:
        """Drop what was made ready for a position that was left."""
        for future, _ in self._ahead:
            future.cancel()
        self._ahead.clear()

    def _expect(self, epoch: int, start: int) -> None:
        """Have the shards fetched that an epoch needs from a position on."""
        self._source.expect(self._order.shards(epoch, start, self.samples))

    def _decode(self, epoch: int, start: int, stop: int) -> Decoded:
        """The batch of some positions of an epoch."""
        size = self._options.batch_size
        valid = np.arange(size) < stop - start
        # A rank with fewer batches than others still needs something to fill its own with.
        first = min(start, self.samples - 1)
        samples = self._order.slice(epoch, first, max(stop, first + 1))
        samples, picture = np.divmod(np.pad(samples, (0, size - len(samples)), mode="edge"), self._each)
        read = self._archive.read(samples)
        stored, wrong = self._decoder(read.payloads)
        labels, unlabelled = self._archive.labels(read)
        owners = self._owner[read.shards]
        surveys = np.array([len(manifest.surveys) for manifest in self.manifests])[owners]
        unlabelled |= check_codes(labels, self._stored_labels, len(self.manifests[0].classes), surveys)
        added = self._added
        labels[list(unlabelled)] = np.nan
        labels = np.column_stack([labels, *(values[samples] for values in added.values())])
        for i, reason in sorted({**wrong, **unlabelled}.items()):
            self._damaged(f"{self._archive.where(read, i)}: {reason}")
            valid[i], labels[i] = False, np.nan
        if isinstance(stored, list) and wrong:
            whole = next((item for item in stored if item is not None), None)
            if whole is None:
                raise JobError(f"{self._archive.where(read, 0)}: nothing in its batch can be read")
            stored = [whole if item is None else item for item in stored]
        keys = [f"{owner}/{key(row)}" for owner, row in zip(owners.tolist(), read.rows.tolist(), strict=True)]
        self._rename_surveys(labels, owners.tolist())
        which = picture if self._each > 1 else None
        return Decoded(stored, (*self._stored_labels, *added), labels, keys, valid, which)

    def _rename_surveys(self, labels: npt.NDArray[np.float64], owners: Sequence[int]) -> None:
        """From positions in each data set's surveys to positions in the loader's."""
        column = self._stored_labels.index("survey")
        for i, owner in enumerate(owners):
            if not np.isnan(labels[i, column]):
                labels[i, column] = self._survey_maps[owner][int(labels[i, column])]

    def _damaged(self, what: str) -> None:
        """Stop at a damaged sample, or count it and say so the first time."""
        if self._options.on_error == "stop":
            raise JobError(f"{what}; run `make shards` again: it mends damaged shards")
        self.skipped += 1
        if what not in self._named:
            self._named.add(what)
            LOGGER.warning(f"skipped: {what}")

    def _paint(self, decoding: Future[Decoded], epoch: int, number: int) -> Batch | SpectraBatch:
        decoded = decoding.result()
        seed = [self._options.seed, epoch, 0, number]  # whatever the rank; the 0 is that of states of old
        if self._stacker is None:
            pixels = self._pixels(decoded, seed)
            labels, valid = self._columns(decoded)
            batch = Batch(pixel_values=pixels, labels=labels, key=decoded.keys, valid=valid)
            if decoded.picture is not None:
                batch["picture"] = torch.from_numpy(decoded.picture)
            return batch
        stack = self._stacker(decoded.stored, np.random.default_rng(seed))
        labels, valid = self._columns(decoded)
        return SpectraBatch(**stack, labels=labels, key=decoded.keys, valid=valid)

    def _pixels(self, decoded: Decoded, seed: Sequence[int]) -> torch.Tensor:
        """The pictures; what cannot be drawn loses its labels."""
        stored, _, labels, keys, valid, which = decoded
        while True:
            try:
                return self._painters(stored, keys, np.random.default_rng(seed), which)
            except CannotDrawError as error:
                if self._options.on_error == "stop" or len(set(map(id, stored))) == 1:
                    raise
                self._damaged(str(error))
                valid[error.index], labels[error.index] = False, np.nan
                bad = stored[error.index]
                other = next(item for item in stored if item is not bad)
                stored = [other if item is bad else item for item in stored]

    def _columns(self, decoded: Decoded) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        columns = torch.from_numpy(np.ascontiguousarray(decoded.labels.T))
        if self._options.device.startswith("cuda"):
            columns = columns.pin_memory()
        return dict(zip(decoded.names, columns, strict=True)), torch.from_numpy(decoded.valid)

    def _arguments(self) -> dict[str, Any]:
        """All that decides the sequence of batches, but the data."""
        options = asdict(self._options)
        for name in ("device", "backend", "threads", "on_error", "verify", "rank", "world_size", "per_step"):
            del options[name]  # the same batches, whatever they are
        if self._stacker is None:
            del options["view"]  # states of old are of pictures, and name none
        several = {"images": [image.to_dict() for image in self.images], "together": options.pop("together")}
        return {
            **options, "weights": None if options["weights"] is None else list(options["weights"]),
            "image": self.image.to_dict(), "augment": None if self._augment is None else repr(self._augment),
            **(several if len(self.images) > 1 else {}),
        }  # fmt: skip

    def fingerprint(self) -> str:
        """sha256 of all that decides the sequence of batches, over all ranks."""
        return self._fingerprint(self._arguments())

    def _fingerprint(self, arguments: dict[str, Any]) -> str:
        parts = [manifest.fingerprint() for manifest in self.manifests]
        return hashlib.sha256(json.dumps([parts, arguments], sort_keys=True).encode()).hexdigest()

    def state_dict(self) -> dict[str, Any]:
        """JSON-able position: after `load_state_dict` the very next batch follows, on any number of ranks.

        It is the same on every rank. `batch` counts those done over all ranks.
        """
        return {
            "fingerprint": self.fingerprint(), "arguments": self._arguments(), "epoch": self._epoch,
            "batch": self._batch, **({"stretches": self._deal.stretches} if self._deal.stretches else {}),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position.

        Raises:
            UsageError: the state is of other data or other arguments; both values of each are named.
        """
        here, there = self._arguments(), state.get("arguments", {})
        # States of old name their rank, and count its own batches.
        ranks = {name: there[name] for name in ("rank", "world_size") if name in there}
        mine, every = self._fingerprint({**here, **ranks}), int(ranks.get("world_size", 1))
        if state["fingerprint"] != mine:
            changed = [f"{name} {there.get(name)}, here {value}" for name, value in here.items()
                       if there.get(name) != value] or ["the data sets"]  # fmt: skip
            raise UsageError(
                f"the saved loader state is of other data or arguments: {'; '.join(changed)} (fingerprint "
                f"{state['fingerprint'][:12]}, here {mine[:12]}); resume with what it was saved with, or start anew"
            )
        stretches = every if every > 1 else int(state.get("stretches", 0))
        self._deal = replace(self._deal, stretches=stretches)
        self._forget()
        self._epoch, self._batch = int(state["epoch"]), every * int(state["batch"])

    def sidecar(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The split's table, one row a sample: `key` as in the batches, and the columns of the spectra Parquet."""
        return read_sidecars(self.folders, self.manifests, self.split, columns, self._options.verify, self._cache)

    def close(self) -> None:
        """Give back files, threads and device memory."""
        self._forget()
        self._source.close()
        self._verification.close()
        for pool in (self._decoding, self._painting):
            pool.shutdown(wait=True, cancel_futures=True)
        self._decoder.close()
        self._archive.close()

    def __enter__(self) -> Loader:
        """The loader itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

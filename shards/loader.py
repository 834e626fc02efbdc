"""The loader: batches of pictures and labels from one data set or several, exactly once per epoch.

for batch in loader.open("data/lamost/shards/map2d", "train", batch_size=64):
    batch["pixel_values"]     # uint8 (B, 3, S, S)
    batch["labels"]["z"]      # float64 (B,), NaN = missing
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ingest.errors import JobError, UsageError
from ingest.jobs import cores
from render import ImageConfig, Renderer, renderer
from render.device import Expand
from render.device_draw import DeviceRenderer, supports
from shards.encoding import ENCODINGS, Encoding, Flux
from shards.flux import Arrays
from shards.format import SPLITS, Manifest
from shards.readers import RawBatch, ReaderConfig, check_files, dali_is_here, open_reader

BACKENDS = ("dali", "plain")


class Batch(TypedDict):
    """One batch of B samples.

    pixel_values: uint8 `(B, 3, S, S)`, RGB, on the loader's device.
    labels: name -> float64 `(B,)` on the CPU; NaN = missing. `class` is a position in the manifest's `classes`,
        `survey` one in the loader's `surveys`.
    key: `<data set>/<sample key>`, B of them.
    valid: bool `(B,)`; False marks a repeat that fills up the last batch and must not be counted.
    """

    pixel_values: torch.Tensor
    labels: dict[str, torch.Tensor]
    key: list[str]
    valid: torch.Tensor


def open(
    folders: str | Path | Sequence[str | Path],
    split: str,
    batch_size: int,
    *,
    image: ImageConfig | None = None,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    device: str = "cpu",
    backend: str | None = None,
    shuffle: bool | None = None,
    threads: int | None = None,
) -> Loader:
    """Open one split of one or several data sets of the same image configuration.

    Args:
        folders: shard folders (those that hold `manifest.json`).
        split: `train`, `val` or `test`.
        image: the picture; by default the one that the data sets were made for. Another only where they hold spectra
            (encoding `flux`).
        rank, world_size: this process and how many share the epoch.
        device: `cpu`, `cuda` or `cuda:N`; DALI decodes there what it can.
        backend: `dali` or `plain`; by default DALI where it is installed.
        shuffle: by default for `train` only.
        threads: decoding threads; all cores by default.

    Raises:
        UsageError: unknown split or backend, an empty split, data sets that do not fit together, or not `image`.
        JobError: missing or cut files; while iterating, a damaged sample or a spectrum that `image` cannot show.
    """
    many = [folders] if isinstance(folders, str | Path) else list(folders)
    if split not in SPLITS:
        raise UsageError(f"unknown split {split}: choose {', '.join(SPLITS)}")
    backend = backend or ("dali" if dali_is_here() else "plain")
    if backend not in BACKENDS:
        raise UsageError(f"unknown backend {backend}: choose {' or '.join(BACKENDS)}")
    if backend == "dali" and not dali_is_here():
        raise UsageError("NVIDIA DALI is not installed (it exists for Linux only); choose backend plain")
    if batch_size < 1 or not 0 <= rank < world_size:
        raise UsageError(f"batch_size {batch_size}, rank {rank}, world_size {world_size}: not a possible loader")
    return Loader(
        [Path(folder) for folder in many], split, batch_size, image=image, seed=seed, rank=rank,
        world_size=world_size, device=device, backend=backend,
        shuffle=split == "train" if shuffle is None else shuffle, threads=threads or cores(),
    )  # fmt: skip


class Loader:
    """Iterable over the batches of one epoch after another; its state can be saved after any batch.

    Attributes:
        manifests: of the data sets, in the order given.
        image: the picture.
        surveys: names that the `survey` label counts in, over all data sets.
        samples: of the whole split, over all ranks.
    """

    def __init__(
        self, folders: Sequence[Path], split: str, batch_size: int, *, image: ImageConfig | None, seed: int,
        rank: int, world_size: int, device: str, backend: str, shuffle: bool, threads: int,
    ) -> None:  # fmt: skip
        self.folders, self.split, self.device, self.backend = tuple(folders), split, device, backend
        self.manifests = tuple(Manifest.load(folder) for folder in folders)
        first = _agreed(self.folders, self.manifests, image)
        self.image = image or first.config.image
        self.surveys = tuple(sorted({name for manifest in self.manifests for name in manifest.surveys}))
        self._names = first.labels
        self._survey_column = first.labels.index("survey")
        self._survey_maps = [
            np.array([self.surveys.index(name) for name in manifest.surveys], np.float64)
            for manifest in self.manifests
        ]
        encoding = ENCODINGS[first.config.encoding](renderer(self.image), first.config.jpeg_quality)
        shards = [
            (folder, record)
            for folder, manifest in zip(self.folders, self.manifests, strict=True)
            for record in manifest.split(split)
        ]
        if not shards:
            raise UsageError(f"{', '.join(map(str, folders))}: the {split} split is empty; use more objects")
        check_files([r.path(folder) for folder, r in shards], [r.bytes for _, r in shards])
        if shuffle:
            # Data sets stand one after the other in the list; DALI's buffer only mixes neighbours.
            order = np.random.default_rng(seed).permutation(len(shards))
            shards = [shards[i] for i in order]
        self._dataset = {str(r.path(folder)): self.folders.index(folder) for folder, r in shards}
        self._config = ReaderConfig(
            tars=tuple(r.path(folder) for folder, r in shards), samples=tuple(r.samples for _, r in shards),
            encoding=encoding, labels=len(self._names), batch_size=batch_size,
            shuffle=shuffle, seed=seed, rank=rank, world_size=world_size, device=device, threads=threads,
        )  # fmt: skip
        self._pictures = _Pictures(encoding, device)
        self._reader = open_reader(self._config, backend)
        self._batch = 0
        self._epoch = 0

    @property
    def samples(self) -> int:
        """Samples of the split, over all ranks."""
        return self._config.total

    def __len__(self) -> int:
        """Batches per epoch, the same on every rank."""
        return self._config.batches

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the current epoch: all of it, but after `load_state_dict` or an early `break`."""
        while self._batch < len(self):
            raw = self._reader.next()
            batch = self._assemble(raw, self._batch)
            # Counted before the consumer sees it: a state saved while it works on a batch goes on with the next.
            self._batch += 1
            yield batch
        self._epoch, self._batch = self._epoch + 1, 0

    def _assemble(self, raw: RawBatch, number: int) -> Batch:
        datasets = np.array([self._dataset[tar] for tar, _ in raw.sources])
        labels = raw.labels.copy()
        for index, mapping in enumerate(self._survey_maps):
            rows = datasets == index
            labels[rows, self._survey_column] = mapping[labels[rows, self._survey_column].astype(np.intp)]
        size = self._config.batch_size
        counted = min(size, max(0, self._config.mine - number * size))
        keys = [f"{d}/{member.partition('.')[0]}" for d, (_, member) in zip(datasets, raw.sources, strict=True)]
        return Batch(
            pixel_values=self._pictures(raw.stored, keys),
            labels={name: torch.from_numpy(labels[:, i].copy()) for i, name in enumerate(self._names)},
            key=keys,
            valid=torch.arange(size) < counted,
        )

    def fingerprint(self) -> str:
        """sha256 of all that decides the sequence of batches."""
        config = self._config
        parts = [manifest.fingerprint() for manifest in self.manifests]
        arguments = [self.split, self.backend, config.batch_size, config.shuffle, config.seed, config.rank,
                     config.world_size, self.image.to_dict()]  # fmt: skip
        return hashlib.sha256(json.dumps([parts, arguments]).encode()).hexdigest()

    def state_dict(self) -> dict[str, Any]:
        """JSON-able position: after `load_state_dict` the very next batch follows."""
        return {
            "fingerprint": self.fingerprint(), "epoch": self._epoch, "batch": self._batch,
            "reader": self._reader.state(),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position.

        Raises:
            UsageError: the state is of other data or other arguments; DALI itself would take it in silence.
        """
        mine = self.fingerprint()
        if state["fingerprint"] != mine:
            raise UsageError(
                f"the saved loader state is of other data or arguments (fingerprint {state['fingerprint'][:12]}, "
                f"here {mine[:12]}); resume with the same shards, batch size, seed and ranks, or start anew"
            )
        self._epoch, self._batch = int(state["epoch"]), int(state["batch"])
        self._reader.restore(state["reader"])

    def sidecar(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The split's table, one row a sample: `key` as in the batches, and the columns of the spectra Parquet."""
        tables = []
        for index, (folder, manifest) in enumerate(zip(self.folders, self.manifests, strict=True)):
            wanted = None if columns is None else list(dict.fromkeys(["key", *columns]))
            for record in manifest.split(self.split):
                table = pq.read_table(record.sidecar(folder), columns=wanted)
                keys = pa.array([f"{index}/{key}" for key in table["key"].to_pylist()], pa.string())
                tables.append(table.set_column(table.column_names.index("key"), "key", keys))
        return pa.concat_tables(tables, promote_options="default")

    def close(self) -> None:
        """Give back files, threads and device memory."""
        self._reader.close()

    def __enter__(self) -> Loader:
        """The loader itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def _agreed(folders: Sequence[Path], manifests: Sequence[Manifest], image: ImageConfig | None) -> Manifest:
    """The first manifest, once all agree in what one batch can hold, and that is `image`, where one is asked for."""
    first = manifests[0]
    drawn_here = first.config.encoding == Flux.name and image is not None
    for folder, manifest in zip(folders, manifests, strict=True):
        for what, theirs, ours in (
            ("encoding", manifest.config.encoding, first.config.encoding),
            ("image configuration", manifest.config.image, first.config.image),
            ("labels", manifest.labels, first.labels),
            ("classes", manifest.classes, first.classes),
        ):
            if theirs != ours and not (drawn_here and what == "image configuration"):
                raise UsageError(f"{folder}: another {what} than {folders[0]}; make both shard sets alike")
        # Two different splits of one sky would put a train object of one data set into the test set of the other.
        if (manifest.config.seed, manifest.config.split, manifest.config.split_nside) != (
            first.config.seed, first.config.split, first.config.split_nside,
        ):  # fmt: skip
            raise UsageError(
                f"{folder}: splits the sky otherwise than {folders[0]}; make both with one seed and split"
            )
    if image is not None and image != first.config.image and not drawn_here:
        asked, there = image.to_dict(), first.config.image.to_dict()
        changed = ", ".join(f"{k} {there[k]}, not {asked[k]}" for k in there if there[k] != asked[k])
        raise UsageError(
            f"{folders[0]}: holds pictures that are drawn already, with {changed}; leave `image` out, or make shards "
            "with ENCODING=flux, which give any picture"
        )
    return first


class _Pictures:
    """What a reader gives to RGB tensors `(B, 3, S, S)`: Numba on the CPU, the same bits by torch on a GPU."""

    def __init__(self, encoding: Encoding, device: str) -> None:
        self._encoding, self._device = encoding, device
        self._expand = Expand(encoding.drawer).to(device)
        self._draw: DeviceRenderer | None = None
        if encoding.shape is None and device.startswith("cuda") and supports(encoding.drawer.config) is None:
            self._draw = DeviceRenderer(encoding.drawer).to(device)

    def __call__(self, stored: npt.NDArray[np.uint8] | torch.Tensor | list[Arrays], keys: list[str]) -> torch.Tensor:
        drawer, full_size = self._encoding.drawer, self._encoding.full_size
        if isinstance(stored, list):
            if self._draw is not None:
                return self._expand(draw_on_device(self._draw, drawer, stored, keys, self._device))
            stored = render_batch(drawer, stored, keys)
        if isinstance(stored, torch.Tensor):
            return stored.permute(0, 3, 1, 2) if full_size else self._expand(stored)
        rgb = stored if full_size else drawer.expand_batch(stored)
        return torch.from_numpy(rgb).permute(0, 3, 1, 2).to(self._device)


def draw_on_device(
    draw: DeviceRenderer, drawer: Renderer, spectra: Sequence[Arrays], keys: Sequence[str], device: str
) -> torch.Tensor:
    """`render_batch` on a device: codes uint8 `(B, *drawer.code_shape)` there.

    Raises:
        JobError: names the first spectrum that this picture cannot show, and why.
    """
    longest = max(len(flux) for flux, *_ in spectra)
    flux, ivar = (np.zeros((len(spectra), longest), np.float32) for _ in range(2))
    wavelength, mask = np.zeros((len(spectra), longest)), np.ones((len(spectra), longest), np.bool_)
    for i, (f, v, w, m) in enumerate(spectra):
        n = len(f)
        flux[i, :n], wavelength[i, :n], mask[i, :n] = f, w, m
        ivar[i, :n] = 1 if v is None else v
    has_ivar = np.array([v is not None for _, v, _, _ in spectra])
    columns = [torch.from_numpy(x).to(device) for x in (flux, ivar, wavelength, mask, has_ivar)]
    codes, drawn = draw.codes(*columns)
    for i in torch.nonzero(~drawn)[:, 0].tolist():
        # Wavelengths that fall, or padding in front: the CPU's kernel puts them in order, or says what is wrong.
        codes[i] = torch.from_numpy(render_batch(drawer, spectra[i : i + 1], keys[i : i + 1])[0]).to(device)
    return codes


def render_batch(drawer: Renderer, spectra: Sequence[Arrays], keys: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Draw B spectra, at least one: uint8 `(B, *drawer.code_shape)`.

    Args:
        keys: of the spectra, for the error.

    Raises:
        JobError: names the first spectrum that this picture cannot show, and why.
    """
    flux, ivar, wavelength, mask = zip(*spectra, strict=True)
    # Where there is no ivar, something of its length stands in for it.
    weights = [f if i is None else i for f, i in zip(flux, ivar, strict=True)]
    # One grid serves all spectra on it: `log_grid` gives the same array for the same coefficients.
    grids = {id(w): w for w in wavelength}
    starts = dict(zip(grids, np.cumsum([0, *map(len, grids.values())]).tolist(), strict=False))
    codes, errors = drawer.codes_batch(
        np.concatenate(flux), np.concatenate(weights), np.concatenate(list(grids.values())), np.concatenate(mask),
        np.cumsum([0, *map(len, flux)]), np.array([i is not None for i in ivar]),
        np.array([starts[id(w)] for w in wavelength]),
    )  # fmt: skip
    for i, error in sorted(errors.items()):
        raise JobError(
            f"{keys[i]}: cannot be drawn: {error}; ask for the picture that the shards were made for, or make shards "
            "for this one"
        )
    return codes

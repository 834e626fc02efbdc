"""Opening one split of one data set or several: `shards.loader.open`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from specshards.common.cache import Cache
from specshards.common.errors import UsageError
from specshards.common.files import location
from specshards.common.jobs import cores
from specshards.render import ImageConfig
from specshards.shards.loader.augment import Augmentation
from specshards.shards.loader.dali import dali_is_here
from specshards.shards.loader.loader import Loader
from specshards.shards.loader.options import LoaderOptions


def open(
    folders: str | Path | Sequence[str | Path],
    split: str,
    batch_size: int,
    *,
    image: ImageConfig | None = None,
    images: Sequence[str | ImageConfig] = (),
    together: bool = False,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    per_step: int | None = None,
    view: str = "picture",
    device: str = "cpu",
    backend: str | None = None,
    shuffle: bool | None = None,
    weights: Sequence[float] | None = None,
    balance: str | None = None,
    augment: Augmentation | None = None,
    on_error: str = "stop",
    threads: int | None = None,
    verify: bool = True,
    cache: Cache | None = None,
) -> Loader:
    """Open one split of one or several data sets of the same image configuration.

    Args:
        folders: shard folders (those that hold `manifest.json`): paths, or addresses that fsspec knows, such as
            `s3://bucket/folder`, whose shards pass through `cache`.
        split: `train`, `val` or `test`.
        image: the picture; by default the one that the data sets were made for. Another only where they hold spectra
            (encoding `flux`).
        images: several pictures of each object, in place of `image`: each `name` or `name:preset`, in size and frame
            of the data sets, or a configuration. An epoch has as many samples as pictures times objects: every object
            once with every picture, shuffled alike. Only where the data sets hold spectra.
        together: with several images: a batch has `batch_size` objects with all their pictures, `pixel_values`
            `(B, pictures, 3, S, S)`, and an epoch every object once.
        rank, world_size: this process and how many share the epoch. Its batches are dealt in turns: batch i of the
            epoch goes to rank i % world_size. Where the last turn has none for a rank, its batch is not `valid`.
        per_step: batches over all ranks that belong together, as those of one step of an optimiser do: the next ones
            are dealt when these all are. By default one a rank; another number lets other ranks take the same steps.
        view: `picture`, or `spectra`: batches are `SpectraBatch`, each spectrum on its own wavelengths;
            only where the data sets hold spectra.
        device: `cpu`, `cuda` or `cuda:N`; pictures are decoded, drawn and coloured there as far as that is possible.
        backend: `dali` or `plain`; by default DALI where it is installed. The samples, and their order, are the same.
        shuffle: by default for `train` only.
        weights: the share of each data set in an epoch; by default as large as they are. The epoch keeps its length,
            and samples stand in it more than once, or not at all.
        balance: `class` draws each class equally often.
        augment: changes spectra or codes before they are drawn or coloured; see `shards.loader.augment`.
        on_error: `stop` at a damaged sample, or `skip` it: it is marked not `valid`, counted in `skipped`, and named
            once on standard error.
        threads: decoding threads; all cores by default.
        verify: compare every shard that is read with its checksums, once, in a thread of low priority. An epoch ends
            with an error where one differs; `Loader.verified` says so earlier. With `skip` it is a warning. What
            comes from an address is compared before it is read, always.
        cache: of what lies elsewhere (`common.cache.cache_in`); by default the one of the environment,
            `SPECSHARDS_CACHE` and `SPECSHARDS_CACHE_SIZE`.

    Raises:
        UsageError: unknown split, backend or policy, an empty split, data sets that do not fit together, or not
            in the pictures. JobError: missing or cut files; while iterating, a damaged sample or a spectrum that a
            picture cannot show.
    """
    # An address is no Path; only several folders are a sequence.
    many = list(folders) if isinstance(folders, Sequence) and not isinstance(folders, str) else [folders]
    options = LoaderOptions(
        split, batch_size, seed, rank, world_size, view, device, backend or ("dali" if dali_is_here() else "plain"),
        split == "train" if shuffle is None else shuffle, None if weights is None else tuple(weights), balance,
        on_error, threads or cores(), verify, together, per_step,
    )  # fmt: skip
    if image is not None and images:
        raise UsageError("give `image`, or `images`, not both")
    pictures = images if image is None else (image,)
    return Loader([location(folder) for folder in many], options, pictures, augment, cache)

"""The pictures that a loader is asked for: by name, and several of the same spectra in one epoch or one batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from specshards.common.errors import UsageError
from specshards.common.spectrum import Arrays
from specshards.render import ImageConfig, preset
from specshards.render.registry import RENDERERS
from specshards.shards.format.encoding import Encoding
from specshards.shards.loader.augment import Augmentation
from specshards.shards.loader.paint import CannotDrawError, Painter


def named(text: str) -> ImageConfig:
    """The picture `name` or `name:preset`, of the default size, in the observed frame.

    Raises:
        UsageError: no such picture, or no such preset of it.
    """
    name, colon, wanted = (part.strip() for part in text.partition(":"))
    RENDERERS.choose(name)
    if colon and not wanted:
        raise UsageError(f"{text}: no preset behind the colon; write {name}, or {name}:paper")
    try:
        return preset(wanted or "default", name)
    except ValueError as error:
        raise UsageError(f"{text}: {error}") from error


def asked(images: Iterable[str | ImageConfig], made_for: ImageConfig) -> tuple[ImageConfig, ...]:
    """The pictures that are asked for, of one size.

    Args:
        images: pictures, or names as `named` takes them; a name takes size and frame of `made_for`.
        made_for: the picture that the shards were made for.

    Raises:
        UsageError: an unknown name, one picture twice, pictures of several sizes, or one that cannot have this size.
    """
    found: list[ImageConfig] = []
    for image in images:
        if isinstance(image, str):
            try:
                image = replace(named(image), size=made_for.size, frame=made_for.frame)
            except ValueError as error:
                raise UsageError(f"{image}, in the size of the shards: {error}") from error
        if image in found:
            raise UsageError(f"images: {image.image} is there twice, with the same options; name each picture once")
        found.append(image)
    sizes = sorted({image.size for image in found})
    if len(sizes) > 1:
        raise UsageError(f"images of {' and '.join(map(str, sizes))} pixels: give pictures of one size")
    return tuple(found)


class Painters:
    """The pictures of a loader, each by its own `Painter`; see there. For one thread."""

    def __init__(self, encodings: Sequence[Encoding], device: str, augment: Augmentation | None) -> None:
        """One encoding a picture, all of one size; more than one only of spectra."""
        several = len(encodings) > 1
        self._painters = [Painter(encoding, device, None if several else augment) for encoding in encodings]
        self._augment = augment if several else None  # a spectrum is changed once, whatever is drawn of it
        self._gpu, self._size = device.startswith("cuda"), encodings[0].drawer.config.size
        self._scratch = np.empty((0, self._size, self._size, 3), np.uint8)

    def __call__(
        self, stored: Any, keys: Sequence[str], rng: np.random.Generator, which: npt.NDArray[np.int64] | None
    ) -> torch.Tensor:
        """Draw what is stored of B samples, at least one.

        Args:
            which: the picture of each, int `(B,)`; None for all pictures of all of them.

        Returns:
            uint8 `(B, 3, S, S)`, or `(B, pictures, 3, S, S)` for all of several.

        Raises:
            CannotDrawError: names the first spectrum that one of its pictures cannot show.
        """
        if len(self._painters) == 1:
            return self._painters[0](stored, keys, rng)
        spectra: list[Arrays] = stored if self._augment is None else self._augment.spectra(stored, rng)
        return self._all(spectra, keys, rng) if which is None else self._one_each(spectra, keys, rng, which)

    def _all(self, spectra: list[Arrays], keys: Sequence[str], rng: np.random.Generator) -> torch.Tensor:
        if self._gpu:
            return torch.stack([painter(spectra, keys, rng) for painter in self._painters], dim=1)
        out = np.empty((len(self._painters), len(spectra), self._size, self._size, 3), np.uint8)
        for painter, room in zip(self._painters, out, strict=True):
            painter(spectra, keys, rng, room)
        return torch.from_numpy(out).permute(1, 0, 4, 2, 3)

    def _one_each(
        self, spectra: list[Arrays], keys: Sequence[str], rng: np.random.Generator, which: npt.NDArray[np.int64]
    ) -> torch.Tensor:
        count = len(spectra)
        drawn: list[torch.Tensor] = []
        order: list[int] = []
        # On a CPU numpy copies the rows: torch's indexing takes as long over them as the drawing.
        out = np.empty((0 if self._gpu else count, self._size, self._size, 3), np.uint8)
        if not self._gpu and len(self._scratch) < count:
            self._scratch = np.empty_like(out)
        for number, painter in enumerate(self._painters):
            rows = np.flatnonzero(which == number).tolist()
            if not rows:
                continue
            room = None if self._gpu else self._scratch[: len(rows)]
            try:
                part = painter([spectra[i] for i in rows], [keys[i] for i in rows], rng, room)
            except CannotDrawError as error:
                error.index = rows[error.index]
                raise
            if room is None:
                drawn.append(part)
                order += rows
            else:
                out[rows] = room
        if not self._gpu:
            return torch.from_numpy(out).permute(0, 3, 1, 2)
        return torch.cat(drawn)[torch.tensor(np.argsort(order), device=drawn[0].device)]

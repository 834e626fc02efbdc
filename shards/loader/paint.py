"""Stored arrays or spectra to RGB tensors: Numba on the CPU, the same bits by torch on a GPU."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from specshards.common.errors import JobError
from specshards.common.spectrum import Arrays
from specshards.render import Renderer
from specshards.render.device.draw import DeviceRenderer
from specshards.render.device.expand import Expand
from specshards.shards.format.encoding import Encoding
from specshards.shards.loader.augment import Augmentation, without_lost

_LOGGER = logging.getLogger("specshards")


class CannotDrawError(JobError):
    """A spectrum that the picture asked for cannot show; `index` is its place in the batch."""

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index


class Painter:
    """What a decoder gives to RGB tensors uint8 `(B, 3, S, S)` on a device."""

    def __init__(self, encoding: Encoding, device: str, augment: Augmentation | None) -> None:
        self._encoding, self._device, self._augment = encoding, device, augment
        self._gpu = device.startswith("cuda")
        self._expand = Expand(encoding.drawer).to(device)
        draw = torch_module(encoding.drawer) if encoding.shape is None and self._gpu else None
        self._draw = None if draw is None else draw.to(device)

    def __call__(
        self, stored: Any, keys: Sequence[str], rng: np.random.Generator, out: npt.NDArray[np.uint8] | None = None
    ) -> torch.Tensor:
        """Draw, expand and colour a batch.

        Args:
            stored: uint8 `(B, *encoding.shape)`, numpy or a tensor, or B spectra.
            out: uint8 `(B, S, S, 3)` to draw spectra into, on a CPU; what is returned is then a view of it.

        Raises:
            CannotDrawError: names the first spectrum that the picture cannot show.
        """
        drawer = self._encoding.drawer
        if isinstance(stored, list):
            spectra = stored if self._augment is None else self._augment.spectra(stored, rng)
            if self._augment is not None and drawer.config.bad_pixels == "draw":
                spectra = without_lost(spectra, stored)
            if self._draw is not None:
                return self._expand(draw_on_device(self._draw, drawer, spectra, keys, self._device))
            stored = render_batch(drawer, spectra, keys)
        elif self._augment is not None and not self._encoding.full_size:
            stored = self._augment.codes(stored.cpu().numpy() if isinstance(stored, torch.Tensor) else stored, rng)
        if self._gpu:
            there = self.to_device(stored)
            return there.permute(0, 3, 1, 2) if self._encoding.full_size else self._expand(there)
        rgb = stored if self._encoding.full_size else drawer.expand_batch(stored, out)
        return torch.from_numpy(rgb).permute(0, 3, 1, 2)

    def to_device(self, stored: npt.NDArray[np.uint8] | torch.Tensor) -> torch.Tensor:
        """Moved without waiting: from pinned memory, so that the copy overlaps with work."""
        if isinstance(stored, torch.Tensor):
            return stored
        return torch.from_numpy(stored).pin_memory().to(self._device, non_blocking=True)


def torch_module(drawer: Renderer) -> DeviceRenderer | None:
    """What draws the picture on a device; None, with the reason in the log, where `render_batch` has to."""
    draw = drawer.device()
    if isinstance(draw, str):
        _LOGGER.info("%s; it is drawn on the CPU", draw)
        return None
    return draw


def draw_on_device(
    draw: DeviceRenderer, drawer: Renderer, spectra: Sequence[Arrays], keys: Sequence[str], device: str
) -> torch.Tensor:
    """`render_batch` on a device: codes uint8 `(B, *drawer.code_shape)` there.

    Raises:
        CannotDrawError: names the first spectrum that this picture cannot show, and why.
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
        CannotDrawError: names the first spectrum that this picture cannot show, and why.
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
        raise CannotDrawError(
            f"{keys[i]}: cannot be drawn: {error}; leave such spectra out with on_error=skip, ask for another "
            "picture, or make shards for this one",
            i,
        )
    return codes

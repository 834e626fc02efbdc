"""What a loader gives: pictures, or spectra on their own wavelengths, with labels, keys and what counts."""

from __future__ import annotations

from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt
import torch


class Batch(TypedDict):
    """One batch of B samples.

    pixel_values: uint8 `(B, 3, S, S)`, RGB, on the loader's device; `(B, pictures, 3, S, S)` of a loader that gives
        several pictures of each object together.
    labels: name -> float64 `(B,)` on the CPU (pinned, where the device is a GPU); NaN = missing. `class` is a
        position in the manifest's `classes`, `survey` one in the loader's `surveys`.
    key: `<data set>/<sample key>`, B of them.
    valid: bool `(B,)`; False marks a repeat that fills up the last batch, or a damaged sample: not to be counted.
    picture: int64 `(B,)`, on the CPU, a position in the loader's `images`; only where an epoch has several pictures
        of each object, one in each sample.
    """

    pixel_values: torch.Tensor
    labels: dict[str, torch.Tensor]
    key: list[str]
    valid: torch.Tensor
    picture: NotRequired[torch.Tensor]


class Stack(TypedDict):
    """B spectra of up to N pixels, in increasing wavelength, filled up with zeros behind their ends.

    flux: float32 `(B, N)`, as the survey gave it, 0 where that is not finite. A bad pixel keeps its flux.
    ivar: float32 `(B, N)`, 0 = bad pixel or padding; where the survey gives no ivar, 1 = good.
    wavelength: float32 `(B, N)`, Angstrom, 0 = padding. Rounding to float32 moves a pixel by less than 0.02 km/s.
    length: int64 `(B,)`, pixels of each spectrum.
    lsf_sigma: float32 `(B, N)`, sigma of the line-spread function, Angstrom, 0 = unknown or padding; only where the
        shards were made with `--lsf` and a spectrum of the batch has one.
    """

    flux: torch.Tensor
    ivar: torch.Tensor
    wavelength: torch.Tensor
    length: torch.Tensor
    lsf_sigma: NotRequired[torch.Tensor]


class SpectraBatch(Stack):
    """One batch of B spectra, on the loader's device; `labels`, `key` and `valid` are those of `Batch`."""

    labels: dict[str, torch.Tensor]
    key: list[str]
    valid: torch.Tensor


class Decoded(NamedTuple):
    """A batch as stored: arrays or spectra; labels float64 `(B, len(names))` and their names; keys; which count.

    `picture`: of each sample, where there are several, int64 `(B,)`.
    """

    stored: Any
    names: tuple[str, ...]
    labels: npt.NDArray[np.float64]
    keys: list[str]
    valid: npt.NDArray[np.bool_]
    picture: npt.NDArray[np.int64] | None = None

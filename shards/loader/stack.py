"""Spectra side by side, each on its own wavelengths: what a loader with `view="spectra"` gives, and a grid for all.

for batch in loader.open("data/lamost/shards/map2d", "train", 64, view="spectra").spectra():
    batch["flux"], batch["ivar"], batch["wavelength"]     # float32 (B, N), 0 behind `length`
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import starmap
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from numba import njit

from specshards.common.spectrum import Arrays
from specshards.render.prepare import fill_gaps
from specshards.render.resample import log_edges, to_bins
from specshards.shards.loader.augment import Augmentation
from specshards.shards.loader.batch import Stack

#: N of a batch is a multiple of this, so that few shapes occur, and patches of 8, 16 or 32 pixels divide it.
MULTIPLE = 32


class Stacker:
    """Spectra of any lengths and grids to tensors on a device."""

    def __init__(self, device: str, augment: Augmentation | None) -> None:
        self._device, self._augment = device, augment

    def __call__(self, spectra: list[Arrays], rng: np.random.Generator) -> Stack:
        """At least one spectrum; changed by the augmentation first, where there is one."""
        arrays = stacked(spectra if self._augment is None else self._changed(self._augment, spectra, rng))
        return cast(Stack, {name: self._there(values) for name, values in arrays.items()})

    @staticmethod
    def _changed(augment: Augmentation, spectra: list[Arrays], rng: np.random.Generator) -> list[Arrays]:
        # What changes the flux leaves the line-spread function as it is, unless the pixels are others.
        return [
            after if len(after.flux) != len(before.flux) else after.with_lsf(before.lsf_sigma)
            for before, after in zip(spectra, starmap(Arrays, augment.spectra(spectra, rng)), strict=True)
        ]

    def _there(self, values: npt.NDArray[Any]) -> torch.Tensor:
        tensor = torch.from_numpy(values)
        if not self._device.startswith("cuda"):
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)


def stack(
    spectra: Sequence[Arrays],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """flux, ivar, wavelength and length of B spectra, at least one; see `Stack`.

    Pixels without a wavelength (not finite, 0 or below: padding of others) are left out, and wavelengths that fall
    are turned round.
    """
    found = stacked(spectra)
    return found["flux"], found["ivar"], found["wavelength"], found["length"]


def stacked(spectra: Sequence[Arrays]) -> dict[str, npt.NDArray[Any]]:
    """`stack` by name; with `lsf_sigma`, as `Stack` says, where any of the spectra has a line-spread function."""
    ordered = [_in_order(each if isinstance(each, Arrays) else Arrays(*each)) for each in spectra]
    length = np.array([len(flux) for flux, *_ in ordered], np.int64)
    longest = max(1, -(-int(length.max()) // MULTIPLE)) * MULTIPLE
    flux, ivar, wavelength = (np.zeros((len(ordered), longest), np.float32) for _ in range(3))
    sigma = None
    for i, spectrum in enumerate(ordered):
        n = len(spectrum.flux)
        flux[i, :n] = np.where(np.isfinite(spectrum.flux), spectrum.flux, 0)
        ivar[i, :n] = np.where(spectrum.good(), spectrum.weight(), 0)
        wavelength[i, :n] = spectrum.wavelength
        if (known := spectrum.lsf_sigma) is not None:
            sigma = np.zeros_like(flux) if sigma is None else sigma
            sigma[i, :n] = np.where((known > 0) & (known < np.inf), known, 0)
    found: dict[str, npt.NDArray[Any]] = {"flux": flux, "ivar": ivar, "wavelength": wavelength, "length": length}
    return found if sigma is None else {**found, "lsf_sigma": sigma}


def _in_order(spectrum: Arrays) -> Arrays:
    flux, ivar, wavelength, mask = spectrum
    # A comparison with NaN is false; what rises from above zero to below infinity has no gap in it.
    rises = len(wavelength) and wavelength[0] > 0 and wavelength[-1] < np.inf
    if rises and (wavelength[1:] > wavelength[:-1]).all():
        return spectrum
    order = np.argsort(wavelength, kind="stable")
    order = order[np.isfinite(wavelength[order]) & (wavelength[order] > 0)]
    sigma = None if spectrum.lsf_sigma is None else spectrum.lsf_sigma[order]
    turned = Arrays(flux[order], None if ivar is None else ivar[order], wavelength[order], mask[order])
    return turned.with_lsf(sigma)


def log_bins(low: float, high: float, step: float) -> npt.NDArray[np.float64]:
    """Edges of as many bins, equally wide in log wavelength, as are nearest to `step` in log10: float64, Angstrom."""
    return log_edges((low, high), max(1, round(np.log10(high / low) / step)))


def resample(batch: Stack, edges: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The spectra of a batch on one grid: mean flux density of the good pixels in each bin.

    Args:
        batch: on the CPU.
        edges: of the bins, float64 `(count + 1,)`, increasing, Angstrom.

    Returns:
        flux float32 `(B, count)`, and bool `(B, count)`: True where good pixels cover more than half of the bin. The
        flux of other bins lies on a straight line between the good ones around, level at the ends; a row without a
        good bin has no meaning.
    """
    flux, ivar, wavelength = (x.numpy() for x in (batch["flux"], batch["ivar"], batch["wavelength"]))
    out = np.zeros((len(flux), len(edges) - 1), np.float32)
    good = np.zeros(out.shape, np.bool_)
    _rows(flux, ivar, wavelength.astype(np.float64), batch["length"].numpy(), edges, out, good)
    return out, good


@njit(nogil=True, cache=True, error_model="numpy")
def _rows(flux, ivar, wavelength, length, edges, out, good):  # type: ignore[no-untyped-def]
    count = len(edges) - 1
    weight, share = np.empty(count, np.float32), np.empty(count, np.float32)
    for i in range(len(flux)):
        n = length[i]
        if n < 2:
            continue
        f, v, w = flux[i, :n], ivar[i, :n], wavelength[i, :n]
        to_bins(f, v, w, v > 0, edges, out[i], weight, good[i], share)
        fill_gaps(out[i], good[i])

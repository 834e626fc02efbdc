"""From a spectrum as a survey wrote it to what a renderer draws: window, order, good pixels."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from render.config import RenderError

#: Held by whoever runs a parallel kernel: Numba's `workqueue` layer, the only one on some systems, aborts the process
#: when two threads enter one at the same time.
PARALLEL = threading.Lock()

Flux = npt.NDArray[np.float32]
Good = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def prepare(
    flux: npt.NDArray[Any],
    ivar: npt.NDArray[Any] | None,
    wavelength: npt.NDArray[Any],
    mask: npt.NDArray[Any] | None,
    window: tuple[float, float],
) -> tuple[Flux, Floats, Good]:
    """The part of a spectrum inside `window`, in increasing wavelength.

    Args:
        flux, ivar, wavelength, mask: `(N,)` each; wavelength in Angstrom, mask True = bad. `ivar` and `mask` may be
            None. Pixels with wavelength <= 0 are padding and dropped.

    Returns:
        flux float32 `(n,)`, wavelength float64 `(n,)`, and good bool `(n,)`: finite flux, not masked, ivar > 0.

    Raises:
        RenderError: lengths that differ, wavelengths that are not finite or not monotonic, fewer than two good
            pixels inside the window.
    """
    with np.errstate(over="ignore"):  # what float32 cannot hold is not finite, and bad
        flux = np.ascontiguousarray(flux, np.float32)
    wavelength = np.ascontiguousarray(wavelength, np.float64)
    if flux.ndim != 1 or wavelength.ndim != 1:
        raise RenderError(f"flux and wavelength have {flux.ndim} and {wavelength.ndim} dimensions instead of one")
    for name, values in (("ivar", ivar), ("wavelength", wavelength), ("mask", mask)):
        if values is not None and len(values) != len(flux):
            raise RenderError(f"lengths differ: flux {len(flux)}, {name} {len(values)}")
    good = np.isfinite(flux)
    if mask is not None:
        good &= ~np.asarray(mask, np.bool_)
    if ivar is not None:
        good &= (np.asarray(ivar) > 0) & np.isfinite(ivar)
    if not good.any():
        raise RenderError("all pixels masked, without information (ivar = 0) or not finite")
    if not np.isfinite(wavelength).all():
        raise RenderError("wavelengths are not finite")
    if wavelength.min() <= 0:
        real = wavelength > 0
        flux, wavelength, good = flux[real], wavelength[real], good[real]
    if len(wavelength) and wavelength[0] > wavelength[-1]:
        flux, wavelength, good = flux[::-1], wavelength[::-1], good[::-1]
    if not _increasing(wavelength):
        raise RenderError("wavelengths are neither increasing nor decreasing")
    first, end = np.searchsorted(wavelength, window[0], "left"), np.searchsorted(wavelength, window[1], "right")
    flux, wavelength, good = flux[first:end], wavelength[first:end], good[first:end]
    if good.sum() < 2:
        raise RenderError(f"fewer than two good pixels between {window[0]:g} and {window[1]:g} A")
    return np.ascontiguousarray(flux), np.ascontiguousarray(wavelength), np.ascontiguousarray(good)


def target(out: npt.NDArray[np.uint8] | None, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """A new array of `shape`, or the caller's `out` if it is one: kernels write without looking.

    Raises:
        ValueError: `out` is not uint8, C-contiguous and of `shape`.
    """
    if out is None:
        return np.empty(shape, np.uint8)
    if out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError(f"out must be a C-contiguous uint8 array of shape {shape}, not {out.dtype} {out.shape}")
    return out


@njit(nogil=True, cache=True)
def _increasing(values):  # type: ignore[no-untyped-def]
    for i in range(1, len(values)):  # noqa: SIM110 - numba has no generator expressions
        if not values[i] > values[i - 1]:
            return False
    return True


@njit(nogil=True, cache=True)
def limits(flux, good):  # type: ignore[no-untyped-def]
    """Lowest and highest good flux, float32; there is at least one good pixel."""
    low, high = np.float32(np.inf), np.float32(-np.inf)
    for i in range(len(flux)):
        if good[i]:
            low, high = min(low, flux[i]), max(high, flux[i])
    return low, high


@njit(nogil=True, cache=True)
def fill_gaps(flux, good):  # type: ignore[no-untyped-def]
    """Replace the bad pixels of `flux`, in place: a straight line between good neighbours, level at the ends.

    Positions stay, so that a bad pixel does not shift the rest of a map.
    """
    n, last = len(flux), -1
    for i in range(n):
        if not good[i]:
            continue
        for k in range(last + 1, i):
            if last < 0:
                flux[k] = flux[i]
            else:
                slope = (np.float64(flux[i]) - np.float64(flux[last])) / (i - last)
                flux[k] = np.float32(slope * (k - last) + flux[last])
        last = i
    for k in range(last + 1, n):
        flux[k] = flux[last]

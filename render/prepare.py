"""From a spectrum as a survey wrote it to what a renderer draws: window, order, good pixels.

The kernels report a status instead of raising, so that a batch goes on behind a spectrum that cannot be drawn; 0 is
drawn, the others are the reasons that `reason` puts in words.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from specshards.render.config import PATCH, ImageConfig, RenderError

#: Held by whoever runs a parallel kernel: Numba's `workqueue` layer, the only one on some systems, aborts the process
#: when two threads enter one at the same time.
PARALLEL = threading.Lock()

Flux = npt.NDArray[np.float32]
Good = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
#: flux, ivar, wavelength, mask as the kernels take them; ivar or mask of length 0 where there is none.
KernelArrays = tuple[Flux, Flux, Floats, Good]

DRAWN, NO_GOOD_PIXEL, WAVELENGTH_NOT_FINITE, NOT_MONOTONIC, OUTSIDE, TOO_MANY = range(6)

_NO_IVAR = np.empty(0, np.float32)
_NO_MASK = np.empty(0, np.bool_)


def as_arrays(
    flux: npt.NDArray[Any], ivar: npt.NDArray[Any] | None, wavelength: npt.NDArray[Any], mask: npt.NDArray[Any] | None
) -> KernelArrays:
    """One spectrum as contiguous arrays of the kernels' types, without a copy where it is that already.

    Raises:
        RenderError: more than one dimension, or lengths that differ.
    """
    flux, weights, bad = as_columns(flux, ivar, mask)
    wavelength = np.ascontiguousarray(wavelength, np.float64)
    if wavelength.shape != flux.shape:
        raise RenderError(
            f"flux and wavelength have {flux.ndim} and {wavelength.ndim} dimensions instead of one"
            if wavelength.ndim != 1
            else f"lengths differ: flux {len(flux)}, wavelength {len(wavelength)}"
        )
    return flux, weights, wavelength, bad


def as_columns(
    flux: npt.NDArray[Any], ivar: npt.NDArray[Any] | None, mask: npt.NDArray[Any] | None
) -> tuple[Flux, Flux, Good]:
    """`as_arrays` of all but the wavelength."""
    flux = _float32(flux)
    weights = _NO_IVAR if ivar is None else _float32(ivar)
    bad = _NO_MASK if mask is None else np.ascontiguousarray(mask, np.bool_)
    if flux.ndim != 1:
        raise RenderError(f"flux has {flux.ndim} dimensions instead of one")
    for name, given, values in (("ivar", ivar, weights), ("mask", mask, bad)):
        if given is not None and values.shape != flux.shape:
            raise RenderError(f"lengths differ: flux {len(flux)}, {name} {len(values)}")
    return flux, weights, bad


def _float32(values: npt.NDArray[Any]) -> Flux:
    values = np.asarray(values)
    if values.dtype == np.float32:
        return np.ascontiguousarray(values)
    with np.errstate(over="ignore"):  # what float32 cannot hold is not finite, and bad
        return np.ascontiguousarray(values, np.float32)


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
    status, inside, _, where, good = select(*as_arrays(flux, ivar, wavelength, mask), *window, False)
    if status != DRAWN:
        raise reason(status, ImageConfig(window=window), len(inside))
    return inside, where, good


def check(
    flux: npt.NDArray[Any], ivar: npt.NDArray[Any] | None, wavelength: npt.NDArray[Any], mask: npt.NDArray[Any] | None
) -> None:
    """Whether a spectrum can be used at all, in whatever window: two good pixels, wavelengths that rise or fall.

    Raises:
        RenderError: as for `prepare`, of a window without end.
    """
    status, *_ = select(*as_arrays(flux, ivar, wavelength, mask), 0.0, np.inf, False)
    if status == OUTSIDE:
        raise RenderError("fewer than two good pixels")
    if status != DRAWN:
        raise reason(status, ImageConfig(), len(flux))


def blocks_for(config: ImageConfig, pixels: int) -> list[int]:
    """The blocks of a map of this size and order that leave a cell for each of so many pixels, smallest first."""
    fits = [block for block in range(1, config.size // 2 + 1) if (config.size // block) ** 2 >= pixels]
    return [block for block in fits if config.order != "patch" or PATCH % block == 0]


def rounded(low: float, high: float, digits: int) -> tuple[float, float]:
    """A window around two wavelengths above 0, of so many digits."""
    scale = 10.0 ** (np.floor(np.log10(low)) + 1 - digits)
    return float(np.floor(low / scale) * scale), float(np.ceil(high / scale) * scale)


def reason(status: int, config: ImageConfig, pixels: int, wavelength: npt.NDArray[Any] | None = None) -> RenderError:
    """What a kernel's status says, and which option would help.

    Args:
        pixels: of the spectrum, inside the window. wavelength: of all its pixels.
    """
    low, high = config.window
    blocks = blocks_for(config, pixels)
    smaller = f"--block {blocks[-1]} or " if blocks else ""
    judged = config.bad_pixels == "skip"
    return RenderError(
        {
            NO_GOOD_PIXEL: "all pixels masked, without information (ivar = 0) or not finite"
            if judged
            else "no finite flux",
            WAVELENGTH_NOT_FINITE: "wavelengths are not finite",
            NOT_MONOTONIC: "wavelengths are neither increasing nor decreasing",
            OUTSIDE: f"fewer than two good pixels between {low:g} and {high:g} A{_elsewhere(config, wavelength)}",
            TOO_MANY: f"{pixels} pixels do not fit {config.cells} x {config.cells} cells; take {smaller}--grid log",
        }[status]
    )


def _elsewhere(config: ImageConfig, wavelength: npt.NDArray[Any] | None) -> str:
    """Where a spectrum lies that has no pixel in the window; few digits, so that those of a survey say the same."""
    if wavelength is None or not len(known := wavelength[np.isfinite(wavelength) & (wavelength > 0)]):
        return ""
    low, high = rounded(float(known.min()), float(known.max()), 2)
    if low < config.window[1] and config.window[0] < high:
        return ""
    return f": the spectrum has {low:g} to {high:g}; take --window {low:g},{high:g}"


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


class Places(NamedTuple):
    """Where each of B spectra lies in arrays that hold them end to end.

    Attributes:
        offsets: int64 `(B + 1,)`; spectrum i is flux, ivar and mask from offsets[i] to offsets[i + 1].
        waves: int64 `(B,)`, where its wavelengths begin; spectra of one grid share them.
        weighted: bool `(B,)`; False where ivar says nothing.
    """

    offsets: npt.NDArray[np.int64]
    waves: npt.NDArray[np.int64]
    weighted: Good


@njit(nogil=True, cache=True)
def one_of(i, flux, ivar, wavelength, mask, places):  # type: ignore[no-untyped-def]
    """Spectrum i of a batch, as `select` takes it; views."""
    first, end, wave = places.offsets[i], places.offsets[i + 1], places.waves[i]
    weights = ivar[first:end] if places.weighted[i] else ivar[:0]
    return flux[first:end], weights, wavelength[wave : wave + end - first], mask[first:end]


@njit(nogil=True, cache=True)
def select(flux, ivar, wavelength, mask, low, high, weigh):  # type: ignore[no-untyped-def]
    """What lies from `low` to `high` Angstrom, in increasing wavelength.

    Args:
        flux, ivar float32, wavelength float64, mask bool, `(N,)`; ivar or mask `(0,)` where there is none.
        weigh: whether ivar is wanted.

    Returns:
        status, flux float32 `(n,)` (a copy), ivar float32 `(n,)` (0 where bad; 1 for good pixels where none is given;
        `(0,)` where not wanted), wavelength float64 `(n,)`, good bool `(n,)`.
    """
    status, all_flux, all_ivar, all_mask = DRAWN, flux, ivar, mask
    if not _increasing(wavelength):
        status, flux, ivar, wavelength, mask = _in_order(flux, ivar, wavelength, mask)
    first = np.searchsorted(wavelength, low, side="left")
    end = max(np.searchsorted(wavelength, high, side="right"), first)
    if status != DRAWN:
        first = end = 0
    picked, good = np.empty(end - first, np.float32), np.empty(end - first, np.bool_)
    _copy(flux[first:end], picked)
    given, masked = ivar[first:end] if len(ivar) else ivar, mask[first:end] if len(mask) else mask
    count = _judge(picked, given, masked, good)
    weights = np.empty(end - first if weigh else 0, np.float32)
    for i in range(len(weights)):
        weights[i] = (given[i] if len(given) else np.float32(1)) if good[i] else np.float32(0)
    if count < 2:
        status = OUTSIDE if status == DRAWN else status
        # Why exactly is worth a second look only here.
        if _judge(all_flux, all_ivar, all_mask, np.empty(len(all_flux), np.bool_)) == 0:
            status = NO_GOOD_PIXEL
    return status, picked, weights, wavelength[first:end], good


@njit(nogil=True, cache=True)
def _copy(values, out):  # type: ignore[no-untyped-def]
    # As a loop it becomes a memcpy; Numba's slice assignment is thirty times slower.
    for i in range(len(values)):
        out[i] = values[i]


@njit(nogil=True, cache=True)
def _judge(flux, ivar, mask, good):  # type: ignore[no-untyped-def]
    """Mark the good pixels and count them; without branches, so as vectors."""
    largest = np.float32(np.finfo(np.float32).max)
    # A comparison with NaN is false.
    for i in range(len(flux)):
        good[i] = abs(flux[i]) <= largest
    for i in range(len(ivar)):
        good[i] &= (ivar[i] > 0) & (ivar[i] <= largest)
    for i in range(len(mask)):
        good[i] &= not mask[i]
    count = 0
    for i in range(len(good)):
        count += good[i]
    return count


@njit(nogil=True, cache=True)
def _increasing(wavelength):  # type: ignore[no-untyped-def]
    """Whether every wavelength is positive, finite and above the one before."""
    wrong = 0
    for i in range(1, len(wavelength)):
        wrong += not (wavelength[i] > wavelength[i - 1])
    return wrong == 0 and (len(wavelength) == 0 or (wavelength[0] > 0 and wavelength[-1] < np.inf))


@njit(nogil=True, cache=True)
def _in_order(flux, ivar, wavelength, mask):  # type: ignore[no-untyped-def]
    """Without padding, and turned round where the wavelengths fall; a status other than DRAWN if that is not it."""
    status = DRAWN
    if not np.isfinite(wavelength).all():
        status = WAVELENGTH_NOT_FINITE
    real = wavelength > 0
    flux, wavelength = flux[real], wavelength[real]
    if len(ivar):
        ivar = ivar[real]
    if len(mask):
        mask = mask[real]
    if len(wavelength) > 1 and wavelength[0] > wavelength[-1]:
        flux, wavelength = flux[::-1].copy(), wavelength[::-1].copy()
        ivar, mask = ivar[::-1].copy(), mask[::-1].copy()
    if status == DRAWN and not _increasing(wavelength):
        status = NOT_MONOTONIC
    return status, flux, ivar, wavelength, mask


@njit(nogil=True, cache=True)
def fill_gaps(flux, good):  # type: ignore[no-untyped-def]
    """Replace the bad pixels of `flux`, in place: a straight line between good neighbours, level at the ends.

    Positions stay, so that a bad pixel does not shift the rest of a map.
    """
    n, last, bad = len(flux), -1, 0
    for i in range(n):
        bad += not good[i]
    for i in range(n if bad else 0):
        if not good[i]:
            continue
        if last < i - 1:
            for k in range(last + 1, i):
                if last < 0:
                    flux[k] = flux[i]
                else:
                    slope = (np.float64(flux[i]) - np.float64(flux[last])) / (i - last)
                    flux[k] = np.float32(slope * (k - last) + flux[last])
        last = i
    for k in range(last + 1, n if bad else 0):
        flux[k] = flux[last]

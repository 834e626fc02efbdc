"""From survey arrays to the good pixels in the window: order, mask, padding, scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit


class RenderError(ValueError):
    """This spectrum cannot be drawn; the message is the reason, in one line."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The pixels in the window in order of wavelength, and the flux range of the good ones.

    Bad pixels keep their place: flux there is not defined until `fill_bad` has run.
    """

    wavelength: npt.NDArray[np.float64]
    flux: npt.NDArray[np.float32]
    good: npt.NDArray[np.bool_]
    low: float
    high: float


def prepare(
    flux: npt.ArrayLike,
    ivar: npt.ArrayLike | None,
    wavelength: npt.ArrayLike,
    mask: npt.ArrayLike | None,
    window: tuple[float, float],
) -> Prepared:
    """The window of one spectrum; bad = mask | ivar <= 0 | flux or ivar not finite.

    Raises:
        RenderError: nothing to draw, or arrays that contradict each other.
    """
    arrays = _as_arrays(flux, ivar, wavelength, mask)
    n = len(arrays[0])
    prepared_wavelength, prepared_flux = np.empty(n), np.empty(n, np.float32)
    good = np.empty(n, np.bool_)
    ordered, inside, finite, usable, low, high = _scan(*arrays, *window, prepared_wavelength, prepared_flux, good)
    where = f"in the window {window[0]:g}-{window[1]:g} A"
    if ordered < 0:
        raise RenderError(
            "wavelengths not finite" if ordered == _NOT_FINITE else "wavelengths not increasing/decreasing"
        )
    if inside == 0:
        raise RenderError(f"no pixels {where}")
    if finite == 0:
        raise RenderError(f"no finite flux {where}")
    if usable == 0:
        raise RenderError("all pixels masked")
    if usable < 2:
        raise RenderError(f"fewer than two good pixels {where}")
    return Prepared(prepared_wavelength[:inside], prepared_flux[:inside], good[:inside], low, high)


def _as_arrays(
    flux: npt.ArrayLike, ivar: npt.ArrayLike | None, wavelength: npt.ArrayLike, mask: npt.ArrayLike | None
) -> tuple[
    npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float64], npt.NDArray[np.bool_]
]:  # fmt: skip
    """Native, writable, contiguous copies, so that the kernels compile once; an absent array is an empty one."""
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and so a bad pixel
        values = np.array(flux, np.float32, order="C")
        weights = np.array(() if ivar is None else ivar, np.float32, order="C")
    grid = np.array(wavelength, np.float64, order="C")
    bad = np.array(() if mask is None else mask, np.bool_, order="C")
    if values.ndim != 1 or len(values) == 0:
        raise RenderError(f"flux has shape {values.shape}, not one row of pixels")
    for name, array, absent in (
        ("lambda", grid, False),
        ("ivar", weights, ivar is None),
        ("mask", bad, mask is None),
    ):
        if array.ndim != 1 or (len(array) != len(values) and not absent):
            raise RenderError(f"lengths differ: flux {len(values)}, {name} {'x'.join(map(str, array.shape))}")
    return values, weights, grid, bad


_NOT_FINITE, _NOT_ORDERED = -1, -2


@njit(nogil=True, cache=True)
def _scan(flux, ivar, wavelength, mask, start, stop, out_wavelength, out_flux, out_good):  # type: ignore[no-untyped-def]
    """Copy the window in order of wavelength.

    Returns (0 or what is wrong with the grid, pixels inside, finite ones, good ones, lowest and highest good flux).
    """
    n = len(flux)
    first = last = np.nan
    for i in range(n):
        if not np.isfinite(wavelength[i]):
            return _NOT_FINITE, 0, 0, 0, 0.0, 0.0
        if wavelength[i] > 0:
            if np.isnan(first):
                first = wavelength[i]
            last = wavelength[i]
    backwards = last < first
    inside = finite = usable = 0
    low, high, previous = np.inf, -np.inf, 0.0
    for j in range(n):
        i = n - 1 - j if backwards else j
        here = wavelength[i]
        if here <= 0:
            continue
        if here <= previous:
            return _NOT_ORDERED, 0, 0, 0, 0.0, 0.0
        previous = here
        if here < start or here > stop:
            continue
        value = flux[i]
        good = np.isfinite(value)
        finite += good
        if len(ivar):
            good = good and np.isfinite(ivar[i]) and ivar[i] > 0
        if len(mask):
            good = good and not mask[i]
        if good:
            low, high = min(low, value), max(high, value)
            usable += 1
        out_wavelength[inside], out_flux[inside], out_good[inside] = here, value, good
        inside += 1
    return 0, inside, finite, usable, low, high


@njit(nogil=True, cache=True)
def fill_bad(wavelength, flux, good):  # type: ignore[no-untyped-def]
    """Put the linear interpolation between good neighbours, the nearest good value at the ends, in bad pixels."""
    n = len(flux)
    left = -1
    for i in range(n):
        if good[i]:
            left = i
            continue
        right = i + 1
        while right < n and not good[right]:
            right += 1
        for k in range(i, right):
            if left < 0:
                flux[k] = flux[right]
            elif right == n:
                flux[k] = flux[left]
            else:
                t = (wavelength[k] - wavelength[left]) / (wavelength[right] - wavelength[left])
                flux[k] = np.float64(flux[left]) * (1 - t) + np.float64(flux[right]) * t
            good[k] = True
        left = right - 1

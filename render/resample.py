"""From a spectrum's own pixels to another grid: mean over bins, value at their centres, or a plain stretch."""

from __future__ import annotations

import numpy as np
from numba import njit

from specshards.render.prepare import Floats

LARGEST = float(np.finfo(np.float32).max)


def log_edges(window: tuple[float, float], count: int) -> Floats:
    """Borders of `count` bins, equally wide in log wavelength: float64 `(count + 1,)`, Angstrom, from end to end."""
    return np.geomspace(window[0], window[1], count + 1)


@njit(nogil=True, cache=True, error_model="numpy")
def to_bins(flux, ivar, wavelength, good, edges, out_flux, out_ivar, out_good, out_share):  # type: ignore[no-untyped-def]
    """Mean flux density of the good pixels in each bin: flux times width is conserved where all pixels are good.

    A pixel reaches from midpoint to midpoint with its neighbours, the first and the last one as far out as in.
    Sums are float64, bin by bin and in pixel order, so that one thread a bin gives the same bits.

    Args:
        flux, ivar: float32 `(n,)`, n >= 2, finite where good. A good pixel with ivar 0 makes its bins' ivar 0.
        wavelength: float64 `(n,)`, increasing, Angstrom.
        good: bool `(n,)`.
        edges: float64 `(count + 1,)`, increasing, Angstrom.
        out_flux: float32 `(count,)`, as all outputs; 0 in a bin without a good pixel.
        out_ivar: of that mean, errors taken as independent; 0 in a bin without a good pixel.
        out_good: bool, True where good pixels cover more than half of the bin.
        out_share: share of the bin's width that good pixels cover.

    Returns:
        (first, end): the bins that the spectrum touches; those outside are empty. (0, 0) where it touches none.
    """
    n = len(flux)
    first = end = 0
    i, left, right = 0, 1.5 * wavelength[0] - 0.5 * wavelength[1], _border(wavelength, 0)
    for j in range(len(edges) - 1):
        low, high = edges[j], edges[j + 1]
        while right <= low and i < n - 1:
            i, left, right = i + 1, right, _border(wavelength, i + 1)
        if left < high and right > low:
            first, end = (first if end else j), j + 1
        covered, total, variance = 0.0, 0.0, 0.0
        while True:
            width = min(right, high) - max(left, low)
            if width > 0 and good[i]:
                covered += width
                total += width * flux[i]
                variance += width * width / ivar[i]
            if right >= high or i == n - 1:
                break
            i, left, right = i + 1, right, _border(wavelength, i + 1)
        share = covered / (high - low)
        out_flux[j] = total / covered if covered > 0 else 0
        out_ivar[j] = min(covered * covered / variance, LARGEST) if covered > 0 else 0
        out_good[j] = share > 0.5
        out_share[j] = share
    return first, end


@njit(nogil=True, cache=True)
def _border(wavelength, i):  # type: ignore[no-untyped-def]
    """Where pixel i ends and the next one begins."""
    n = len(wavelength)
    if i < n - 1:
        return 0.5 * wavelength[i] + 0.5 * wavelength[i + 1]
    return 1.5 * wavelength[n - 1] - 0.5 * wavelength[n - 2]


@njit(nogil=True, cache=True, error_model="numpy")
def to_centres(flux, ivar, wavelength, good, edges, out_flux, out_ivar, out_good, out_share):  # type: ignore[no-untyped-def]
    """Flux at each bin's centre, the geometric mean of its edges, on a straight line between the pixels around it.

    Arguments and result are those of `to_bins`. Good only between two good pixels, and the share is 1 there, else 0,
    as are flux and ivar. The spectrum reaches from its first to its last pixel's wavelength.
    """
    first = end = 0
    i = 0
    for j in range(len(edges) - 1):
        centre = np.sqrt(edges[j] * edges[j + 1])
        while i < len(flux) - 2 and wavelength[i + 1] < centre:
            i += 1
        inside = wavelength[i] <= centre <= wavelength[i + 1]
        if inside:
            first, end = (first if end else j), j + 1
        known = inside and good[i] and good[i + 1]
        out_good[j], out_share[j] = known, known
        out_flux[j] = out_ivar[j] = 0
        if known:
            before, after = np.float64(flux[i]), np.float64(flux[i + 1])
            t = (centre - wavelength[i]) / (wavelength[i + 1] - wavelength[i])
            out_flux[j] = before + t * (after - before)
            left, right = np.float64(ivar[i]), np.float64(ivar[i + 1])
            if left > 0 and right > 0:
                out_ivar[j] = min(left * right / ((1 - t) ** 2 * right + t**2 * left), LARGEST)
    return first, end


@njit(nogil=True, cache=True, error_model="numpy")
def stretch(flux, wavelength, out):  # type: ignore[no-untyped-def]
    """Flux at `len(out)` equally spaced wavelengths from the first to the last pixel, between pixels linear.

    The paper's option; equals `numpy.interp` at `numpy.linspace` in float64, rounded once.

    Args:
        flux: float32 `(n,)`, gaps filled, n >= 2.
        wavelength: float64 `(n,)`, increasing, Angstrom.
        out: float32 `(count,)`, overwritten.
    """
    last, count = len(flux) - 1, len(out)
    start, stop = wavelength[0], wavelength[last]
    step = (stop - start) / max(count - 1, 1)
    i = 0
    for k in range(count):
        x = k * step + start
        if k == count - 1 and k > 0:
            x = stop
        while i < last and wavelength[i + 1] <= x:
            i += 1
        if i == last:
            out[k] = flux[last]
            continue
        before, after = np.float64(flux[i]), np.float64(flux[i + 1])
        out[k] = (after - before) / (wavelength[i + 1] - wavelength[i]) * (x - wavelength[i]) + before

"""What a channel can show beside flux: derivatives, S/N, lines above their continuum, regions of interest.

All take flux float32 `(n,)` with its gaps filled, wavelength float64 `(n,)` in Angstrom, increasing, n >= 2, and good
bool `(n,)`. Scratch arrays are the caller's and may hold anything; of these sizes, or larger in either direction:
floats float64 `(3, n + 1)`, ints int32 `(3, n + 1)`, keys uint32 `(3, n)`, with 50 for a smaller n.
"""

from __future__ import annotations

from fractions import Fraction
from operator import mul

import numpy as np
import numpy.typing as npt
from numba import njit

from specshards.render.percentile import LARGEST, MAD_SIGMA, percentiles, scatter

LIGHT_KMS = 299792.458
#: Pixels further than this many sigma from the first continuum are left out of the second.
CLIP = 3.0
#: Share of a window's good pixels that its second mean needs. At least half of all pixels are left, and windows that
#: cover each pixel once or twice are enough, so that some window always has this quarter.
LEAST_LEFT = 0.25
#: `significance` codes +- this many sigma, and all beyond, as 255 and 1.
FULL_SIGMA = 50.0
CODE_SCALE = 127 / float(np.arcsinh(FULL_SIGMA / 2))
#: Regions of interest: samples of the smoothing filter and of the rolling median, regions kept (the paper's code).
SMOOTH, MEDIAN, KEPT = 25, 50, 50


def _savitzky_golay(samples: int, degree: int) -> npt.NDArray[np.float64]:
    """Row i: the weights that give the value at sample i of the polynomial fitted to `samples` evenly spaced ones.

    The hat matrix P (P'P)^-1 P' in whole numbers, rounded once: a BLAS would round it as its kernel for this machine
    does, and pictures would differ between machines. P has the polynomials of Gram (1883), whose P'P is diagonal.

    Args:
        samples: odd.

    Returns:
        float64 `(samples, samples)`.
    """
    places = range(-(samples // 2), samples // 2 + 1)
    polynomials: list[list[Fraction]] = []
    for power in range(degree + 1):
        new = [Fraction(x**power) for x in places]
        for old in polynomials:
            share = sum(map(mul, new, old), Fraction()) / sum(map(mul, old, old), Fraction())
            new = [a - share * b for a, b in zip(new, old, strict=True)]
        polynomials.append(new)
    norms = [sum(map(mul, row, row), Fraction()) for row in polynomials]
    hat = [
        [float(sum((row[i] * row[k] / n for row, n in zip(polynomials, norms, strict=True)), Fraction()))
         for k in range(samples)]
        for i in range(samples)
    ]  # fmt: skip
    return np.array(hat)


SAVGOL = _savitzky_golay(SMOOTH, 3)


@njit(nogil=True, cache=True)
def _narrow(value):  # type: ignore[no-untyped-def]
    """To float32, the largest one instead of infinity."""
    return np.float32(min(max(value, -LARGEST), LARGEST))


@njit(nogil=True, cache=True, error_model="numpy")
def gradient(values, wavelength, out):  # type: ignore[no-untyped-def]
    """Derivative per Angstrom: `numpy.gradient` on an uneven grid in float64, rounded to float32.

    Between equal values it is 0, where numpy's three weights leave a rounding error that a scale of its own would
    blow up to a picture.

    Args:
        values: float32 `(n,)`, n >= 2.
        out: float32 `(n,)`, overwritten; not `values`.
    """
    last = len(values) - 1
    out[0] = _narrow((np.float64(values[1]) - values[0]) / (wavelength[1] - wavelength[0]))
    out[last] = _narrow((np.float64(values[last]) - values[last - 1]) / (wavelength[last] - wavelength[last - 1]))
    for i in range(1, last):
        left, right = wavelength[i] - wavelength[i - 1], wavelength[i + 1] - wavelength[i]
        before = -right / (left * (left + right)) * values[i - 1]
        here = (right - left) / (left * right) * values[i]
        after = left / (right * (left + right)) * values[i + 1]
        level = values[i - 1] == values[i] and values[i] == values[i + 1]
        out[i] = np.float32(0) if level else _narrow(before + here + after)


@njit(nogil=True, cache=True)
def signal_to_noise(flux, ivar, good, out):  # type: ignore[no-untyped-def]
    """S/N of each pixel from 0 to 100 as a code that gives half its range to S/N below 25; bad pixels 0.

    Args:
        ivar: float32 `(n,)`.
        out: uint8 `(n,)`, overwritten: S/N 1 is 25, 10 is 80, 100 and more is 255.
    """
    for i in range(len(flux)):
        ratio = flux[i] * np.sqrt(ivar[i]) if good[i] else np.float32(0)
        out[i] = np.uint8(np.float32(25.5) * np.sqrt(min(max(ratio, np.float32(0)), np.float32(100))))


@njit(nogil=True, cache=True)
def residual(flux, good, wavelength, width, out, floats, ints, keys):  # type: ignore[no-untyped-def]
    """Flux minus its continuum: the mean of the good pixels within `width`, taken twice.

    The second mean leaves out what lies more than 3 sigma from the first, so that a line does not drag it; sigma is
    1.4826 times the median of the first residual's absolute value. A strong line shifts the first mean of all pixels
    within reach: where less than a quarter of them is left, the continuum is a straight line, pixel by pixel, between
    the nearest means, and level at the ends; so it is where `width` holds no good pixel at all.

    Args:
        good: at least one True.
        width: Angstrom, half of it on either side.
        out: float32 `(n,)`, overwritten.
        floats, ints, keys: scratch, see the module.
    """
    n = len(flux)
    first, end, counts = ints[0, :n], ints[1, :n], ints[2, : n + 1]
    sums, continuum, least = floats[0, : n + 1], floats[1, :n], floats[2, :n]
    _windows(wavelength, 0.5 * width, 0.0, first, end)
    out[:] = 0
    least[:] = 1
    _sum_close(flux, good, out, np.inf, sums, counts)
    _running_mean(sums, counts, first, end, least, continuum)
    size = keys[2].view(np.float32)[:n]
    for i in range(n):
        out[i] = _narrow(flux[i] - continuum[i])
        size[i] = abs(out[i])
        least[i] = max(LEAST_LEFT * (counts[end[i]] - counts[first[i]]), 1.0)
    middle, _ = percentiles(size, good, 50.0, 50.0, keys[0])
    _sum_close(flux, good, out, CLIP * MAD_SIGMA * middle, sums, counts)
    _running_mean(sums, counts, first, end, least, continuum)
    for i in range(n):
        out[i] = _narrow(flux[i] - continuum[i])


@njit(nogil=True, cache=True)
def _windows(wavelength, half, relative, first, end):  # type: ignore[no-untyped-def]
    """Pixels first <= k < end around each pixel: within `half` Angstrom plus `relative` times its wavelength."""
    low = high = 0
    for i in range(len(wavelength)):
        reach = half + relative * wavelength[i]
        while wavelength[low] < wavelength[i] - reach:
            low += 1
        while high < len(wavelength) and wavelength[high] <= wavelength[i] + reach:
            high += 1
        first[i], end[i] = low, high


@njit(nogil=True, cache=True)
def _sum_close(flux, good, distance, limit, sums, counts):  # type: ignore[no-untyped-def]
    """Running sum and count of the good pixels no further than `limit` from the continuum."""
    total, count = 0.0, np.int32(0)
    sums[0], counts[0] = total, count
    for i in range(len(flux)):
        used = good[i] and abs(distance[i]) <= limit
        total += np.float64(flux[i]) if used else 0.0
        count += np.int32(used)
        sums[i + 1], counts[i + 1] = total, count


@njit(nogil=True, cache=True, error_model="numpy")
def _running_mean(sums, counts, first, end, least, out):  # type: ignore[no-untyped-def]
    """Means over the windows; those of fewer pixels than `least` lie on a straight line between their neighbours."""
    last, n = -1, len(out)
    for i in range(n):
        count = counts[end[i]] - counts[first[i]]
        if count < least[i]:
            continue
        out[i] = (sums[end[i]] - sums[first[i]]) / count
        for k in range(last + 1, i):
            out[k] = out[i] if last < 0 else out[last] + (out[i] - out[last]) / (i - last) * (k - last)
        last = i
    for k in range(last + 1, n):
        out[k] = out[last]


@njit(nogil=True, cache=True, error_model="numpy")
def significance(residual, ivar, good, wavelength, width_kms, has_ivar, out, floats, ints, keys):  # type: ignore[no-untyped-def]
    """How many sigma the residual stands out over a line's width: sum(residual ivar) / sqrt(sum(ivar)), coded.

    The sums take the good pixels within half of `width_kms` on either side, also around a bad pixel. The code of s
    sigma is 128 + 127 asinh(s / 2) / asinh(25), rounded: 0 sigma, or nothing to sum, is 128; 50 and more is 255; -50
    and less is 1.

    Args:
        residual: float32 `(n,)`, as `residual` makes it.
        ivar: float32 `(n,)`, not read unless `has_ivar`; else all pixels have one, 1 / scatter(residual)^2, and
            where nothing scatters nothing stands out.
        good: at least one True.
        width_kms: km/s.
        out: uint8 `(n,)`, overwritten.
        floats, ints, keys: scratch, see the module.
    """
    n = len(residual)
    first, end = ints[0, :n], ints[1, :n]
    signal, weight = floats[0, : n + 1], floats[1, : n + 1]
    _windows(wavelength, 0.0, 0.5 * width_kms / LIGHT_KMS, first, end)
    common = 0.0
    if not has_ivar:
        sigma = scatter(residual, good, keys)
        common = 1 / sigma**2 if sigma > 0 else 0.0
    up_to, weight_up_to = 0.0, 0.0
    signal[0] = weight[0] = 0.0
    for i in range(n):
        one = (np.float64(ivar[i]) if has_ivar else common) if good[i] else 0.0
        up_to += one * residual[i] if good[i] else 0.0
        weight_up_to += one
        signal[i + 1], weight[i + 1] = up_to, weight_up_to
    for i in range(n):
        total = weight[end[i]] - weight[first[i]]
        sigmas = (signal[end[i]] - signal[first[i]]) / np.sqrt(total) if total > 0 else 0.0
        out[i] = _significance_code(sigmas)


@njit(nogil=True, cache=True)
def _significance_code(sigmas):  # type: ignore[no-untyped-def]
    x = 0.5 * abs(sigmas)
    step = int(min(CODE_SCALE * np.log(x + np.sqrt(x * x + 1)), 127.0) + 0.5)  # asinh(x), several times faster
    return np.uint8(128 + step if sigmas > 0 else 128 - step)


@njit(nogil=True, cache=True)
def regions(flux, wavelength, threshold, in_sigma, out, floats, ints, keys):  # type: ignore[no-untyped-def]
    """Regions of interest: runs of pixels where smoothed flux stands off its rolling median, the 50 strongest.

    Steps and figures are those of Spectromer's plotting code: Savitzky-Golay filter (25 samples, cubic), median of
    50 samples, strength = |equivalent width| of the deviation over the median. Fewer than 50 pixels have none.

    Args:
        threshold: of the absolute deviation, in flux units, or times its robust scatter where `in_sigma`.
        out: bool `(n,)`, overwritten.
        floats, ints, keys: scratch, see the module.
    """
    n = len(flux)
    out[:] = False
    if n < MEDIAN:
        return
    deviation, median = floats[0, :n], floats[1, :n]
    begin, stop = MEDIAN // 2, n - MEDIAN // 2 + 1
    smooth(flux, deviation)
    rolling_median(deviation, floats[2, :MEDIAN], median)
    for i in range(begin, stop):
        deviation[i] -= median[i]
    if in_sigma:
        rounded = keys[2].view(np.float32)[begin:stop]
        for i in range(begin, stop):
            rounded[i - begin] = _narrow(deviation[i])
            out[i] = True  # for a moment: all of these count
        threshold = threshold * scatter(rounded, out[begin:stop], keys)
    for i in range(begin, stop):
        out[i] = abs(deviation[i]) > threshold
    _keep_strongest(deviation, median, wavelength, out, ints[0], ints[1], floats[2])


@njit(nogil=True, cache=True)
def smooth(flux, out):  # type: ignore[no-untyped-def]
    """Savitzky-Golay filter, 25 samples, cubic: float64 `(n,)`, n >= 25; the ends from the cubic of the last 25."""
    n, half = len(flux), SMOOTH // 2
    for i in range(half):
        out[i] = out[n - 1 - i] = 0.0
        for k in range(SMOOTH):
            out[i] += SAVGOL[i, k] * flux[k]
            out[n - 1 - i] += SAVGOL[SMOOTH - 1 - i, k] * flux[n - SMOOTH + k]
    inner = out[half : n - half]
    inner[:] = 0.0
    for k in range(SMOOTH):  # tap by tap: the inner loop is one of vectors
        shifted = flux[k : k + len(inner)]
        for i in range(len(inner)):
            inner[i] += SAVGOL[half, k] * shifted[i]


@njit(nogil=True, cache=True)
def rolling_median(values, window, out):  # type: ignore[no-untyped-def]
    """Median of the samples i - 25 to i + 24, as pandas centres a window of 50; where they do not fit, `out` stays.

    Args:
        values, out: float64 `(n,)`, n >= 50.
        window: float64 `(50,)`, scratch: the samples in order.
    """
    half = MEDIAN // 2
    window[:] = values[:MEDIAN]
    window.sort()
    out[half] = 0.5 * window[half - 1] + 0.5 * window[half]
    for start in range(1, len(values) - MEDIAN + 1):
        gone, new = values[start - 1], values[start + MEDIAN - 1]
        at = np.int32(0)
        for k in range(MEDIAN):
            at += np.int32(window[k] < gone)
        while at + 1 < MEDIAN and window[at + 1] < new:
            window[at] = window[at + 1]
            at += 1
        while at > 0 and window[at - 1] > new:
            window[at] = window[at - 1]
            at -= 1
        window[at] = new
        out[start + half] = 0.5 * window[half - 1] + 0.5 * window[half]


@njit(nogil=True, cache=True, error_model="numpy")
def _keep_strongest(deviation, median, wavelength, flags, starts, ends, strengths):  # type: ignore[no-untyped-def]
    """Clear the flags of all runs but the `KEPT` of largest absolute equivalent width."""
    count, inside = 0, False
    for i in range(len(flags)):
        if flags[i] and not inside:
            starts[count] = i
            count += 1
        if flags[i]:
            ends[count - 1] = i
        inside = flags[i]
    if count <= KEPT:
        return
    for r in range(count):
        strengths[r] = _equivalent_width(deviation, median, wavelength, starts[r], ends[r])
        flags[starts[r] : ends[r] + 1] = False
    for _ in range(KEPT):
        best = 0
        for r in range(1, count):
            if strengths[r] > strengths[best]:
                best = r
        flags[starts[best] : ends[best] + 1] = True
        strengths[best] = -1.0


@njit(nogil=True, cache=True, error_model="numpy")
def _equivalent_width(deviation, median, wavelength, first, last):  # type: ignore[no-untyped-def]
    """|integral of deviation / median|, Angstrom, by trapezia; infinite where a median is 0."""
    total = 0.0
    for k in range(first, last + 1):
        if median[k] == 0:
            return np.inf
        if k > first:
            mean = 0.5 * (deviation[k - 1] / median[k - 1] + deviation[k] / median[k])
            total += mean * (wavelength[k] - wavelength[k - 1])
    return abs(total)

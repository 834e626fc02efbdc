"""Percentiles of float32 spectra without sorting them: bisection of the values' bits.

Positive floats order as their bits do, read as int32, and negative ones the other way round: turned, every float32
has an int32 key of the same order. The key at a given rank is found bit by bit: each step counts the keys below a
guess, one pass that the compiler turns into vector instructions, and no data whatever makes it slower.
"""

from __future__ import annotations

import numpy as np
from numba import njit

#: Key of bad pixels, behind that of every finite float and of infinity.
LAST = np.int32(0x7FFFFFFF)
LOWEST = np.int32(-0x80000000)
LARGEST = float(np.finfo(np.float32).max)
#: Standard deviation of a normal distribution in units of its median absolute deviation.
MAD_SIGMA = 1.4826


@njit(nogil=True, cache=True)
def percentiles(flux, good, low, high, scratch):  # type: ignore[no-untyped-def]
    """The `low`-th and the `high`-th percentile of the good pixels, equal to `numpy.percentile` in float64.

    Args:
        flux: float32 `(n,)`, finite where good; -0.0 counts as 0.0.
        good: bool `(n,)`, at least one True.
        low, high: 0 to 100, in any order.
        scratch: uint32 `(n,)` or longer, overwritten.

    Returns:
        Two float64, between neighbours by numpy's `linear` method.
    """
    keys = scratch.view(np.int32)[: len(flux)]
    count = _fill_keys(flux, good, keys)
    below_low, low_share = _position(low, count)
    below_high, high_share = _position(high, count)
    key_low, key_high = _select(keys, below_low, below_high)
    next_low, next_high = _following(keys, key_low, below_low, key_high, below_high)
    return (
        _between(_value(key_low, keys), _value(next_low, keys), low_share),
        _between(_value(key_high, keys), _value(next_high, keys), high_share),
    )


@njit(nogil=True, cache=True)
def scatter(values, good, scratch):  # type: ignore[no-untyped-def]
    """Robust standard deviation of the good values: 1.4826 times their median absolute deviation from their median.

    Args:
        values: float32 `(n,)`, finite where good.
        good: bool `(n,)`, at least one True.
        scratch: uint32 `(2, n)` or larger, overwritten.
    """
    median, _ = percentiles(values, good, 50.0, 50.0, scratch[0])
    distance = scratch[1].view(np.float32)[: len(values)]
    for i in range(len(values)):
        distance[i] = min(abs(values[i] - np.float32(median)), LARGEST)
    middle, _ = percentiles(distance, good, 50.0, 50.0, scratch[0])
    return MAD_SIGMA * middle


@njit(nogil=True, cache=True)
def _fill_keys(flux, good, keys):  # type: ignore[no-untyped-def]
    """Keys of the good pixels, `LAST` for bad ones; returns how many are good."""
    bits = flux.view(np.int32)
    count = np.int32(0)
    for i in range(len(flux)):
        key = _turn(bits[i]) if bits[i] != LOWEST else np.int32(0)  # -0.0 gets the key of 0.0
        keys[i] = key if good[i] else LAST
        count += np.int32(good[i])
    return count


@njit(nogil=True, cache=True)
def _turn(bits):  # type: ignore[no-untyped-def]
    """From a float's bits to its key, and back."""
    return bits if bits >= 0 else np.int32(bits ^ LAST)


@njit(nogil=True, cache=True)
def _position(percent, count):  # type: ignore[no-untyped-def]
    """Rank of the value before a percentile, and the share of the way to the next, as numpy rounds them."""
    virtual = (count - 1) * (percent / 100)
    rank = min(int(virtual), count - 1)
    return rank, virtual - rank


@njit(nogil=True, cache=True)
def _select(keys, rank_low, rank_high):  # type: ignore[no-untyped-def]
    """The keys at two ranks: each is the largest with no more keys below it than its rank."""
    low, high = LOWEST, LOWEST
    for step in range(31, -1, -1):
        guess_low, guess_high = np.int32(low + (1 << step)), np.int32(high + (1 << step))
        below_low, below_high = np.int32(0), np.int32(0)
        for i in range(len(keys)):
            below_low += np.int32(keys[i] < guess_low)
            below_high += np.int32(keys[i] < guess_high)
        if below_low <= rank_low:
            low = guess_low
        if below_high <= rank_high:
            high = guess_high
    return low, high


@njit(nogil=True, cache=True)
def _following(keys, low, rank_low, high, rank_high):  # type: ignore[no-untyped-def]
    """The keys one rank further: the same again where it occurs often enough, else the next larger one."""
    upto_low, upto_high = np.int32(0), np.int32(0)
    above_low, above_high = LAST, LAST
    for i in range(len(keys)):
        upto_low += np.int32(keys[i] <= low)
        upto_high += np.int32(keys[i] <= high)
        above_low = min(above_low, keys[i] if keys[i] > low else LAST)
        above_high = min(above_high, keys[i] if keys[i] > high else LAST)
    # The largest value has nothing behind it but `LAST`, and numpy repeats it.
    next_low = low if upto_low > rank_low + 1 or above_low == LAST else above_low
    next_high = high if upto_high > rank_high + 1 or above_high == LAST else above_high
    return next_low, next_high


@njit(nogil=True, cache=True)
def _value(key, scratch):  # type: ignore[no-untyped-def]
    """The float of a key, float64; by way of `scratch[0]`, since Numba reads bits in arrays only."""
    scratch[0] = _turn(key)
    return np.float64(scratch.view(np.float32)[0])


@njit(nogil=True, cache=True)
def _between(before, after, share):  # type: ignore[no-untyped-def]
    """numpy's interpolation, from whichever end is nearer."""
    if share >= 0.5:
        return after - (after - before) * (1 - share)
    return before + (after - before) * share

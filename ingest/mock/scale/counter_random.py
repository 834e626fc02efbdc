"""Random numbers inside Numba kernels that depend on a key and a counter alone.

A key names what is drawn (seed, survey, purpose, number of the object); `bits(key, i)` is the i-th 64-bit word of its
stream, in any order, on any machine, by any process. Words come from the finaliser of splitmix64 (Steele, Lea & Flood
2014, OOPSLA), normal numbers from a ziggurat of 256 layers (Marsaglia & Tsang 2000, J. Stat. Soft. 5, 8).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

#: A place in a stream: uint64 `(2,)`, the key and the number of words taken so far.
Stream = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_A, _MIX_B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_U1, _U8, _U9, _U11, _U27, _U30, _U31 = (np.uint64(n) for n in (1, 8, 9, 11, 27, 30, 31))
_BYTE, _MANTISSA = np.uint64(0xFF), np.uint64(0x7FFFFF)
_SLOW = np.uint64(0x5851F42D4C957F2D)
_UNIT = 2.0**-53

_LAYERS, _EDGE, _AREA = 256, 3.6541528853610088, 4.92867323397465e-3


def _ziggurat() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint64], npt.NDArray[np.float64]]:
    """Width of one mantissa step, mantissas that need no test, and density at the edge, of each layer."""
    scale = float(2**23)
    width, quick, density = (np.zeros(_LAYERS) for _ in range(3))
    base = _AREA / np.exp(-0.5 * _EDGE**2)
    x = last = _EDGE
    quick[0], quick[1] = _EDGE / base * scale, 0.0
    width[0], width[-1] = base / scale, _EDGE / scale
    density[0], density[-1] = 1.0, np.exp(-0.5 * _EDGE**2)
    for i in range(_LAYERS - 2, 0, -1):
        x = float(np.sqrt(-2.0 * np.log(_AREA / x + np.exp(-0.5 * x**2))))
        quick[i + 1] = x / last * scale
        density[i], width[i] = np.exp(-0.5 * x**2), x / scale
        last = x
    return width.astype(np.float32), quick.astype(np.uint64), density


_SIGN = np.array([1.0, -1.0], np.float32)
_WIDTH, _QUICK, _DENSITY = _ziggurat()


@njit(nogil=True, cache=True, inline="always")
def _mix(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> _U30)) * _MIX_A
    x = (x ^ (x >> _U27)) * _MIX_B
    return x ^ (x >> _U31)


@njit(nogil=True, cache=True)
def stream_key(seed: int, survey: int, purpose: int, number: int) -> np.uint64:
    """The key of a stream: four whole numbers of 0 or more, each of which changes it."""
    key = _mix(np.uint64(seed) + _GOLDEN)
    key = _mix(key + (np.uint64(survey) << _U8) + np.uint64(purpose) + _GOLDEN)
    return _mix(key ^ (np.uint64(number) * _GOLDEN + _U1))


@njit(nogil=True, cache=True, inline="always")
def bits(key: np.uint64, i: np.uint64) -> np.uint64:
    """Word `i` of a stream: 64 random bits."""
    return _mix(key + (i + _U1) * _GOLDEN)


@njit(nogil=True, cache=True, inline="always")
def normal_of(word: np.uint64) -> np.float32:
    """A standard normal number from the lower 32 bits of a word; the upper 32 are free for something else."""
    layer = word & _BYTE
    mantissa = (word >> _U9) & _MANTISSA
    x = np.float32(np.int32(mantissa)) * _WIDTH[layer]
    if mantissa >= _QUICK[layer]:
        x = _slow_normal(word, x)
    return x * _SIGN[(word >> _U8) & _U1]  # no branch: it would go wrong every other time


@njit(nogil=True, cache=True, inline="never")
def _slow_normal(word: np.uint64, x: np.float32) -> np.float32:
    """What one number in eighty needs: the tail, the curved edge of a layer, or a fresh start. Without a sign."""
    layer, key, i = word & _BYTE, _mix(word ^ _SLOW), np.uint64(0)
    while True:
        first, second = unit(bits(key, i)), unit(bits(key, i + _U1))
        fresh = bits(key, i + _U1 + _U1)
        i += _U1 + _U1 + _U1
        if layer == 0:
            tail = -np.log(1.0 - first) / _EDGE
            if -2.0 * np.log(1.0 - second) >= tail * tail:
                return np.float32(_EDGE + tail)
            continue  # the tail is drawn anew, the layer is not
        lower, upper = _DENSITY[layer], _DENSITY[layer - _U1]
        if lower + first * (upper - lower) < np.exp(-0.5 * np.float64(x) ** 2):
            return x
        layer = fresh & _BYTE
        mantissa = (fresh >> _U9) & _MANTISSA
        x = np.float32(mantissa) * _WIDTH[layer]
        if mantissa < _QUICK[layer]:
            return x


@njit(nogil=True, cache=True, inline="always")
def unit(word: np.uint64) -> np.float64:
    """A uniform number in [0, 1) from the upper 53 bits of a word."""
    return np.float64(word >> _U11) * _UNIT


@njit(nogil=True, cache=True)
def uniform(stream: Stream, low: float, high: float) -> float:
    """The next uniform number in [low, high)."""
    stream[1] += _U1
    return low + (high - low) * unit(bits(stream[0], stream[1]))


@njit(nogil=True, cache=True)
def integer(stream: Stream, low: int, high: int) -> int:
    """The next whole number from low up to, not including, high."""
    return low + min(int(uniform(stream, 0.0, 1.0) * (high - low)), high - low - 1)


@njit(nogil=True, cache=True)
def normal(stream: Stream, mean: float, sigma: float) -> float:
    """The next normal number."""
    stream[1] += _U1
    return mean + sigma * np.float64(normal_of(bits(stream[0], stream[1])))


@njit(nogil=True, cache=True)
def poisson(stream: Stream, mean: float) -> int:
    """The next Poisson number; for small means."""
    count, product, limit = 0, uniform(stream, 0.0, 1.0), np.exp(-mean)
    while product > limit:
        count += 1
        product *= uniform(stream, 0.0, 1.0)
    return count


@njit(nogil=True, cache=True)
def normals(key: np.uint64, out: npt.NDArray[np.float32]) -> None:
    """Fill `out` (n,) with standard normal numbers: words 0 to n - 1 of the stream."""
    for i in range(len(out)):
        out[i] = normal_of(bits(key, np.uint64(i)))

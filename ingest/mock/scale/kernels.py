"""From a template to an observed spectrum in some 100 microseconds: what `ingest.mock.instrument` does, in Numba.

The same noise model: photon noise of object and sky plus read noise over the throughput, every sigma stated by
`ivar`; bad columns, cosmic rays, strong sky lines, a lost edge. Smooth curves are computed on every eighth pixel, and
the two medians that set flux and S/N on every seventh: both are part of the truth, not errors on it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from specshards.ingest.mock.instrument import LOG_STEP, SITE_FIRST, site
from specshards.ingest.mock.lines import LYMAN_SERIES
from specshards.ingest.mock.scale.counter_random import (
    bits,
    integer,
    normal_of,
    normals,
    poisson,
    stream_key,
    uniform,
)
from specshards.ingest.mock.scale.draws import BLEMISHES, CLOUDS, NOISE
from specshards.ingest.mock.scale.templates import Bank

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

MAX_SIZE = 4700
"""No spectrum has more pixels, a margin for the clouds' kernel included."""

_KNOT, _SAMPLE = 8, 7
_LYMAN_ALPHA, _LYMAN_LIMIT = 1215.67, 911.75
_SMOOTH = np.exp(-0.5 * (np.arange(-6, 7) / 1.7) ** 2)
_SMOOTH = (_SMOOTH / np.sqrt(np.sum(_SMOOTH**2))).astype(np.float32)
_U8, _U16, _U32 = np.uint64(8), np.uint64(16), np.uint64(32)
_EVEN_BYTES, _PAIR = np.uint64(0x00FF00FF), np.uint64(0xFFFF)
# The sum of four random bytes has the mean 510 and this sigma: near enough to normal for how sigma itself scatters.
_SCATTER = np.float32(0.04 / np.sqrt(4.0 * (256.0**2 - 1.0) / 12.0))
_HALF, _SIXTH, _ONE, _ZERO = (np.float32(value) for value in (0.5, 1.0 / 6.0, 1.0, 0.0))


class Site(NamedTuple):
    """A survey's site and spectrograph on the grid that holds all of its grids; float32 `(n,)` but for the last two.

    `inverse` is 1 / throughput, `read` the read noise's share of the variance; `x` the place along the spectrum and
    `bump` the dichroic's, for the calibration; `dust` the extinction law; `forest` `(3, n)` the optical depth of the
    mean Lyman forest; `bright` bool, strong sky lines.
    """

    wave: Floats
    inverse: Floats
    read: Floats
    sky: Floats
    x: Floats
    bump: Floats
    dust: Floats
    forest: Floats
    bright: Flags


class Buffers(NamedTuple):
    """What one call writes: flat arrays over all pixels, spectrum after spectrum, and one number a spectrum."""

    flux: Floats
    ivar: Floats
    wave: Floats
    mask: Flags
    sn_median: Floats

    @classmethod
    def make(cls, pixels: int, spectra: int) -> Buffers:
        """New buffers of the sizes given."""
        flux, ivar, wave = (np.empty(pixels, np.float32) for _ in range(3))
        return cls(flux, ivar, wave, np.empty(pixels, np.bool_), np.empty(spectra, np.float32))


@lru_cache(maxsize=2)
def site_arrays(survey: str) -> Site:
    """The arrays of `Site` for a survey."""
    wave, throughput, sky = site(survey)
    forest = np.stack([share * 0.0018 * (wave / line) ** 3.92 for line, share in LYMAN_SERIES])
    bump = np.exp(-0.5 * ((wave - 5930.0) / 60.0) ** 2)
    dust = -0.4 * np.log(10.0) * 3.1 * (5500.0 / wave) ** 1.2
    return Site(
        _single(wave), _single(1.0 / throughput), _single(0.04 / throughput**2), _single(sky),
        _single((wave - 6500.0) / 3000.0), _single(bump), _single(dust), _single(forest), np.asarray(sky > 8.0),
    )  # fmt: skip


def _single(values: npt.NDArray[np.float64]) -> Floats:
    return np.ascontiguousarray(values, np.float32)


@njit(nogil=True, cache=True)
def median(values: Floats) -> np.float32:
    """The median of `values` (n,), n > 0; their order is lost. Means of two are taken as numpy takes them."""
    half = len(values) // 2
    low, high = 0, len(values) - 1
    while low < high:
        pivot, i, j = values[(low + high) // 2], low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if half <= j:
            high = j
        elif half >= i:
            low = i
        else:
            break
    if len(values) % 2 == 1:
        return values[half]
    below = values[0]
    for i in range(1, half):
        below = max(below, values[i])
    return (below + values[half]) * _HALF


@njit(nogil=True, cache=True)
def _shift(row: Any, bank: Bank, out: Floats) -> None:
    """The row's template at its redshift, on its grid."""
    kind, fineness = row.kind, bank.fineness[row.kind]
    place = (row.first * LOG_STEP - np.log10(1.0 + row.z) - bank.log0[kind]) / LOG_STEP * fineness
    whole = int(place)
    begin = bank.start[kind] + row.template * bank.size[kind] + whole
    part = np.float32(place - whole)
    template = bank.flux[begin : begin + fineness * len(out) + 1]
    if fineness == 1:
        for j in range(len(out)):
            out[j] = template[j] + part * (template[j + 1] - template[j])
    else:
        for j in range(len(out)):
            out[j] = template[2 * j] + part * (template[2 * j + 1] - template[2 * j])


@njit(nogil=True, cache=True)
def _absorb(key: np.uint64, z: float, site: Site, at: int, clouds: Floats, out: Floats) -> None:
    """The Lyman forest before a quasar at `z`; the clouds depend on `key` and wavelength alone."""
    wave = site.wave[at : at + len(out)]
    reach = np.searchsorted(wave, np.float32(_LYMAN_ALPHA * (1.0 + z)))
    if reach == 0:
        return
    field = clouds[: at + reach + 12]
    normals(key, field)  # from the grid's beginning, so that each visit sees the same clouds
    for j in range(reach):
        cloud = _ZERO
        for k in range(13):
            cloud += _SMOOTH[k] * field[at + j + k]
        depth = site.forest[0, at + j]
        if wave[j] < 1025.72 * (1.0 + z):
            depth += site.forest[1, at + j]
        if wave[j] < 972.54 * (1.0 + z):
            depth += site.forest[2, at + j]
        tau = depth * np.exp(np.float32(1.5) * cloud) / np.float32(1.7)
        if wave[j] < _LYMAN_LIMIT * (1.0 + z):
            tau += np.float32(1.2 + 0.3 * (_LYMAN_LIMIT * (1.0 + z) / wave[j] - 1.0))
        out[j] *= np.exp(-tau)


@njit(nogil=True, cache=True)
def _respond(row: Any, site: Site, at: int, out: Floats) -> None:
    """Dust on the way and the smooth error of the flux calibration, exact on every eighth pixel."""
    ebv, tilt, bend, bump = (np.float32(row.ebv), np.float32(row.tilt), np.float32(row.bend), np.float32(row.bump))
    here = _ONE
    for begin in range(0, len(out) + _KNOT, _KNOT):
        k = at + begin
        x = site.x[k]
        there = np.exp(ebv * site.dust[k] + (tilt + bend * x) * x + bump * site.bump[k])
        if begin > 0:
            step = (there - here) * np.float32(1.0 / _KNOT)
            for j in range(begin - _KNOT, min(begin, len(out))):
                out[j] *= here
                here += step
        here = there


@njit(nogil=True, cache=True)
def _noise(row: Any, key: np.uint64, site: Site, at: int, truth: Floats, sigma: Floats, few: Floats,
           flux: Floats, ivar: Floats) -> None:  # fmt: skip
    """Scale the noiseless `truth`, find each pixel's `sigma`, draw `flux`, state `ivar`."""
    n = len(truth)
    samples = few[: (n + _SAMPLE - 1) // _SAMPLE]
    for j in range(len(samples)):
        samples[j] = truth[_SAMPLE * j]
    unit = _ONE / median(samples)
    faint = np.float32(min(max(9.0 / row.sn, 0.06), 4.0))  # sky over object
    inverse, read, sky = site.inverse[at : at + n], site.read[at : at + n], site.sky[at : at + n]
    for j in range(n):
        truth[j] *= unit
        sigma[j] = np.sqrt((max(truth[j], _ZERO) + faint * sky[j]) * inverse[j] + faint * read[j])
    for j in range(len(samples)):
        samples[j] = truth[_SAMPLE * j] / sigma[_SAMPLE * j]
    scale = np.float32(row.scale)
    level = scale * median(samples) / np.float32(row.sn)
    for j in range(n):
        word = bits(key, np.uint64(j))
        upper = word >> _U32
        pairs = (upper & _EVEN_BYTES) + ((upper >> _U8) & _EVEN_BYTES)
        total = np.int32((pairs >> _U16) + (pairs & _PAIR))
        flux[j] = normal_of(word)
        ivar[j] = np.float32(total - 510) * _SCATTER
    for j in range(n):
        e = ivar[j]
        sigma[j] *= level * (_ONE + e * (_ONE + e * (_HALF + e * _SIXTH)))  # exp(e): exposures differ by pixel
        truth[j] *= scale
        flux[j] = truth[j] + sigma[j] * flux[j]
        ivar[j] = _ONE / (sigma[j] * sigma[j])


@njit(nogil=True, cache=True)
def _blemish(key: np.uint64, survey: int, bright: Flags, sigma: Floats, flux: Floats, ivar: Floats,
             mask: Flags) -> None:  # fmt: skip
    """Bad columns, a lost edge, cosmic rays, and the mask: what the readers make of the FITS mock's."""
    n = len(flux)
    stream = np.array([key, np.uint64(0)])
    for j in range(n):
        mask[j] = survey == 1 and bright[j]
    if survey == 1 and uniform(stream, 0.0, 1.0) < 0.3:  # no sky fibre at the blue end
        mask[: integer(stream, 5, 60)] = True
    for _ in range(poisson(stream, 2.0)):
        begin, width = integer(stream, 0, n), integer(stream, 1, 3)
        height, lost = np.float32(uniform(stream, 8.0, 60.0)), uniform(stream, 0.0, 1.0) < 0.5
        for j in range(begin, min(begin + width, n)):
            flux[j] += height * sigma[j]
            mask[j] = True
            if lost:
                ivar[j] = _ZERO
    for _ in range(poisson(stream, 3.0)):
        begin, width = integer(stream, 0, n), integer(stream, 1, 6)
        ivar[begin : begin + width] = _ZERO
        if uniform(stream, 0.0, 1.0) < 0.3:
            flux[begin : begin + width] = _ZERO
    if uniform(stream, 0.0, 1.0) < 0.03:
        begin, width = integer(stream, 0, n), integer(stream, n // 12, n // 4)
        ivar[begin : begin + width] = _ZERO
    if survey == 0 and uniform(stream, 0.0, 1.0) < 0.5:
        begin = n - integer(stream, 3, 11)
        flux[begin:] = _ZERO
        ivar[begin:] = _ZERO
    for j in range(n):
        mask[j] |= ivar[j] == _ZERO


@njit(nogil=True, cache=True)
def _median_sn(flux: Floats, ivar: Floats, mask: Flags, scratch: Floats) -> np.float32:
    """Median over good pixels of flux x sqrt(ivar), as `common.spectrum.Spectrum.sn_median` defines it."""
    count = 0
    for j in range(len(flux)):
        scratch[count] = flux[j] * np.sqrt(ivar[j])
        count += not mask[j]
    return median(scratch[:count])


@njit(nogil=True, cache=True)
def expose(seed: int, survey: int, rows: Any, bank: Bank, site: Site, out: Buffers, truth: Floats) -> None:
    """Observe `rows` (n,) of dtype `draws.ROW` into `out`, spectrum after spectrum.

    `truth` float32 `(MAX_SIZE,)` is scratch, and holds the last row's noiseless flux in its first `size` pixels.
    """
    sigma, scratch, clouds = (np.empty(MAX_SIZE, np.float32), np.empty(MAX_SIZE, np.float32),
                              np.empty(MAX_SIZE, np.float32))  # fmt: skip
    end = 0
    for i in range(len(rows)):
        row = rows[i]
        begin, end, at, n = end, end + row.size, row.first - SITE_FIRST, row.size
        shape, wide = truth[:n], sigma[:n]
        flux, ivar, mask = out.flux[begin:end], out.ivar[begin:end], out.mask[begin:end]
        out.wave[begin:end] = site.wave[at : at + n]
        _shift(row, bank, shape)
        if row.kind == 2:
            _absorb(stream_key(seed, survey, CLOUDS, row.object), row.z, site, at, clouds, shape)
        _respond(row, site, at, shape)
        _noise(row, stream_key(seed, survey, NOISE, row.row), site, at, shape, wide, scratch, flux, ivar)
        bright = site.bright[at : at + n]
        _blemish(stream_key(seed, survey, BLEMISHES, row.row), survey, bright, wide, flux, ivar, mask)
        out.sn_median[i] = _median_sn(flux, ivar, mask, scratch)

"""Maps of more than flux: what each channel of a `map2d` can show, in the cells of the flux it belongs to."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from specshards.render.config import CHANNELS
from specshards.render.features import gradient, regions, residual, signal_to_noise, significance
from specshards.render.grid import on_grid
from specshards.render.prepare import DRAWN, one_of, select
from specshards.render.scale import FIXED, channel_codes, colour_codes, extremes, limits

FLUX, DERIVATIVE, CURVATURE, ROI, RESIDUAL, SIGNIFICANCE, MASK, SNR, NONE = range(len(CHANNELS))
#: What a region of interest shows: the light green of the paper's code.
MARK = 50


@njit(nogil=True, cache=True)
def draw_channels(flux, ivar, wavelength, mask, settings, scale, out):  # type: ignore[no-untyped-def]
    """One spectrum to the codes of its channels: status, and the number of pixels in the window.

    Args:
        flux, ivar, wavelength, mask: as `render.prepare.as_arrays` returns them.
        out: uint8 `(cells, cells, channels)`, overwritten when the status is DRAWN. Cells without a value are 0, but
            255 in the channel of masked pixels.
    """
    has_ivar = len(ivar) > 0
    status, flux, ivar, wavelength, good = select(flux, ivar, wavelength, mask, settings.low, settings.high, True)
    pixels = len(flux)
    if status != DRAWN:
        return status, pixels
    cells = out.shape[0] * out.shape[1]
    status, flux, ivar, wavelength, good, share, first, end = on_grid(flux, ivar, wavelength, good, settings, cells)
    if status != DRAWN:
        return status, pixels
    flux, ivar, wavelength, good = flux[first:end], ivar[first:end], wavelength[first:end], good[first:end]
    flat, codes = out.reshape(cells, out.shape[2]), np.empty(end - first, np.uint8)
    for channel in range(out.shape[2]):
        kind = settings.channels[channel]
        if kind == MASK:
            _show_bad(good, share[first:end] if len(share) else share, codes)
        elif kind == SNR:
            if has_ivar:
                signal_to_noise(flux, ivar, good, codes)
            else:
                codes[:] = 0
        else:
            _show(kind, flux, ivar, wavelength, good, has_ivar, settings, scale, out.shape[2] == 1, codes)
        blank = np.uint8(255 if kind == MASK else settings.empty)
        for i in range(cells):
            cell = settings.place[i] if len(settings.place) else i
            flat[cell, channel] = codes[i - first] if first <= i < end else blank
    return DRAWN, pixels


@njit(nogil=True, cache=True)
def _show_bad(good, share, codes):  # type: ignore[no-untyped-def]
    """255 where bad; on the log grid, the share of the bin that no good pixel covers."""
    for i in range(len(good)):
        codes[i] = (
            np.uint8(255.5 - 255 * min(share[i], np.float32(1))) if len(share) else np.uint8(0 if good[i] else 255)
        )


@njit(nogil=True, cache=True)
def _show(kind, flux, ivar, wavelength, good, has_ivar, settings, scale, coloured, codes):  # type: ignore[no-untyped-def]
    """Codes of the channels that are made from flux."""
    n = len(flux)
    floats, ints = np.empty((3, max(n + 1, 50))), np.empty((3, max(n + 1, 50)), np.int32)
    keys, values = np.empty((3, max(n, 50)), np.uint32), flux.copy()
    if kind in (NONE, ROI):
        codes[:] = 0
        if kind == ROI:
            flags = np.empty(n, np.bool_)
            regions(flux, wavelength, settings.threshold, settings.in_sigma, flags, floats, ints, keys)
            for i in range(n):
                codes[i] = MARK if flags[i] else 0
        return
    steps = np.arange(n).astype(np.float64) if settings.per_pixel else wavelength
    if kind == DERIVATIVE:
        gradient(flux, steps, values)
    elif kind == CURVATURE:
        slope = np.empty(n, np.float32)
        gradient(flux, steps, slope)
        gradient(slope, steps, values)
    elif kind in (RESIDUAL, SIGNIFICANCE):
        residual(flux, good, wavelength, settings.continuum_width, values, floats, ints, keys)
        if kind == SIGNIFICANCE:
            above = values.copy()
            significance(above, ivar, good, wavelength, settings.line_width_kms, has_ivar, codes, floats, ints, keys)
            return
    low, high = limits(values, good, scale)
    if scale.limits == FIXED and kind != FLUX:
        lowest, highest = extremes(values, good)
        low, high = np.float64(lowest), np.float64(highest)
    if coloured:
        colour_codes(values, low, high, scale, codes)
    else:
        channel_codes(values, low, high, scale, codes)


@njit(nogil=True, cache=True, parallel=True)
def draw_channels_batch(flux, ivar, wavelength, mask, places, settings, scale, out, states):  # type: ignore[no-untyped-def]
    """`draw_channels` of B spectra end to end in the arrays; see `Renderer.codes_batch`."""
    for i in prange(len(states)):
        f, v, w, m = one_of(i, flux, ivar, wavelength, mask, places)
        states[i], _ = draw_channels(f, v, w, m, settings, scale, out[i])

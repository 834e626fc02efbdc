"""Spectra for the kernels behind the options of `map2d`: any that hypothesis finds, and noisy ones with lines."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from specshards.benchmarks.kit.samples import read_spectra

PROPERTY = settings(max_examples=120, deadline=None)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
awkward = st.sampled_from([-3.4e38, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, 1.0000001, 3.4e38])


@cache
def read_real(real_data: Path):
    """(flux with its gaps filled, ivar, wavelength, good) of real spectra, float32 but for the wavelength."""
    spectra = []
    for flux, ivar, wavelength, mask in read_spectra(real_data, 30):
        wavelength = wavelength.astype(np.float64)
        ivar = np.ones(len(flux), np.float32) if ivar is None else ivar.astype(np.float32)
        good = np.isfinite(flux) & ~mask & (ivar > 0) & np.isfinite(ivar)
        keep = wavelength > 0
        assert (np.diff(wavelength[keep]) > 0).all()
        if good[keep].sum() > 100:
            at = np.arange(len(flux))
            filled = np.interp(at, at[good], flux[good]).astype(np.float32)
            spectra.append((filled[keep], ivar[keep], wavelength[keep], good[keep]))
    assert len(spectra) > 20
    return spectra


def scratch(n: int):
    """Scratch arrays of the features, full of rubbish: what they hold must not matter."""
    n = max(n, 50)
    return np.full((3, n + 1), np.nan), np.full((3, n + 1), -7, np.int32), np.full((3, n), 12345, np.uint32)


@st.composite
def spectra(draw, elements=finite, smallest: int = 2, largest: int = 80):
    n = draw(st.integers(smallest, largest))
    wavelength = 4000 + np.cumsum(draw(hnp.arrays(np.float64, n, elements=st.floats(0.5, 30))))
    flux = draw(hnp.arrays(np.float32, n, elements=elements))
    ivar = draw(hnp.arrays(np.float32, n, elements=st.floats(2.0**-20, 2.0**20, width=32)))
    good = draw(hnp.arrays(np.bool_, n))
    good[draw(st.integers(0, n - 1))] = True
    return flux, ivar, wavelength, good


def noisy(n: int = 400, seed: int = 0):
    """Continuum, noise and two lines: (flux, ivar, wavelength, good)."""
    rng = np.random.default_rng(seed)
    wavelength = 10 ** (3.6 + 2e-4 * np.arange(n))
    flux = 20 + 3 * np.sin(wavelength / 200) + rng.normal(0, 0.5, n)
    for at, height in ((0.3, 30), (0.7, -12)):
        flux += height * np.exp(-0.5 * ((np.arange(n) - at * n) / 3) ** 2)
    ivar = np.full(n, 4, np.float32)
    return flux.astype(np.float32), ivar, wavelength, rng.random(n) > 0.1


def _assemble(flux: np.ndarray, masked: np.ndarray, dead: np.ndarray, start: float, step: float):
    n = len(flux)
    wavelength = (start + step * np.arange(n)).astype(np.float32)
    return flux, np.where(dead[:n], 0, 1).astype(np.float32), wavelength, masked[:n]


#: What no survey would send: not a number, masked, without a weight, falling wavelengths.
wild_spectra = st.builds(
    _assemble,
    hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)),
    hnp.arrays(np.bool_, 60),
    hnp.arrays(np.bool_, 60),
    st.floats(3000, 9000),
    st.floats(-50, 50).filter(lambda s: abs(s) > 0.1),
)

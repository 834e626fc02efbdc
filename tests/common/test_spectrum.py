"""One definition of a good pixel, whoever asks: numpy, the kernels, torch, a stored record, a batch."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specshards.common.spectrum import CLASSES, LABELS, MEASURED_LABELS, NUMERIC_LABELS, Arrays, good_pixels
from specshards.ingest.spectra.schema import SCHEMA
from specshards.render.device import values
from specshards.render.prepare import as_arrays, select
from specshards.shards.format.flux import pack, parse
from specshards.shards.loader.stack import stack
from specshards.shards.report.samples import usable
from tests.conftest import make_spectrum

NUMBER = st.sampled_from([math.nan, math.inf, -math.inf, -1.0, -0.0, 0.0, 1e-45, 0.5, 3.4e38])
PIXELS = st.lists(st.tuples(NUMBER, NUMBER, st.booleans()), min_size=4, max_size=40)


def is_good(flux: float, ivar: float | None, masked: bool) -> bool:
    """The definition, for one pixel, in words of Python."""
    return not masked and math.isfinite(flux) and (ivar is None or (math.isfinite(ivar) and ivar > 0))


@settings(deadline=None)
@given(PIXELS, st.booleans())
def test_everybody_means_the_same_by_a_good_pixel(pixels: list[tuple[float, float, bool]], has_ivar: bool) -> None:
    flux, weights = (np.array([pixel[i] for pixel in pixels], np.float32) for i in (0, 1))
    mask = np.array([pixel[2] for pixel in pixels])
    ivar, wavelength = weights if has_ivar else None, 4000.0 + np.arange(len(pixels))
    spectrum = Arrays(flux, ivar, wavelength, mask)
    good = np.array([is_good(f, v if has_ivar else None, m) for f, v, m in pixels])
    np.testing.assert_array_equal(spectrum.good(), good)
    whole = replace(
        make_spectrum(0, np.random.default_rng(0)),
        flux=flux,
        ivar=weights,
        wavelength=wavelength,
        mask=mask,
        has_ivar=has_ivar,
    )
    np.testing.assert_array_equal(whole.good(), good)
    np.testing.assert_array_equal(usable(spectrum), good)
    np.testing.assert_array_equal(parse(pack(flux, ivar, wavelength, mask)).good(), good)
    np.testing.assert_array_equal(stack([spectrum])[1][0, : len(flux)] > 0, good)
    _, _, _, _, kernel = select(*as_arrays(*spectrum), 3000.0, 9000.0, False)
    np.testing.assert_array_equal(kernel, good)
    batch = [torch.from_numpy(column)[None] for column in (flux, weights, wavelength, mask)]
    device, drawn = values.select(*batch, torch.tensor([has_ivar]), 3000.0, 9000.0)
    assert drawn.item() == (good.sum() >= 2)
    np.testing.assert_array_equal(device.good[0].numpy(), good & drawn.item())


def test_without_ivar_or_mask_a_finite_flux_is_good() -> None:
    flux = np.array([1.0, np.nan, -np.inf, 0.0], np.float32)
    np.testing.assert_array_equal(good_pixels(flux, None, None), [True, False, False, True])
    np.testing.assert_array_equal(Arrays(flux, None, flux, np.zeros(4, np.bool_)).weight(), np.ones(4))


def test_a_spectrum_without_ivar_has_no_signal_to_noise() -> None:
    spectrum = make_spectrum(0, np.random.default_rng(0))
    assert spectrum.sn_median() is not None and spectrum.arrays().ivar is spectrum.ivar
    spectrum.has_ivar = False
    assert spectrum.sn_median() is None and spectrum.arrays().ivar is None


def test_the_order_of_the_label_vector_is_that_of_the_format() -> None:
    assert " ".join(LABELS) == (
        "class survey z z_err zwarning teff teff_err logg logg_err feh feh_err sn_median ra dec"
    )
    assert (*MEASURED_LABELS, "zwarning") == NUMERIC_LABELS and CLASSES == ("STAR", "GALAXY", "QSO")
    assert set(LABELS) | {"subclass"} <= set(SCHEMA.names)

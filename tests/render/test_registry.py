"""An image type of another package: it is checked, drawn, expanded and shown as our own are, by what it says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from specshards.benchmarks.kit.samples import made_up_galaxy
from specshards.render import RENDERERS, ImageConfig, RenderError, preset, presets, renderer
from specshards.render.contact_sheet import every_image
from specshards.render.device.expand import Expand
from tests.oracles.other_package import Bars, Level, registered


@pytest.fixture
def bars() -> Iterator[ImageConfig]:
    with registered(RENDERERS, "bars", Bars):
        yield ImageConfig(image="bars", size=100)


def test_names_stand_in_one_order_whatever_was_imported_first() -> None:
    assert list(RENDERERS)[:3] == ["simple", "overlap", "map2d"]
    assert presets()[:4] == ("default", "paper", "paper-red", "paper-derivatives") and len(presets()) == 11


def test_it_is_a_name_for_the_configuration_and_takes_the_options_that_it_says(bars: ImageConfig) -> None:
    assert ImageConfig.from_dict(bars.to_dict()) == bars
    assert preset("wide", "bars").window == (3000.0, 11000.0) and presets()[-1] == "wide"
    for wrong, message in (
        ({"image": "map3d"}, "unknown IMAGE=map3d: choose simple, overlap, map2d, .*bars"),
        ({"image": "bars", "limits": "fixed"}, "limits=fixed is for map2d; bars takes minmax or percentile"),
        ({"image": "bars", "grid": "log"}, "grid=log is for map2d; leave it out for bars"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            ImageConfig(**wrong)
    with pytest.raises(ValueError, match="wide is for bars; for simple choose default, aligned, paper, robust"):
        preset("wide", "simple")


def test_one_and_many_spectra_are_drawn_and_expanded_alike(bars: ImageConfig) -> None:
    drawer = renderer(bars)
    flux, ivar, wavelength, mask = made_up_galaxy()
    codes = drawer.codes(flux, ivar, wavelength, mask)
    offsets = np.array([0, len(flux), 2 * len(flux)])
    many, errors = drawer.codes_batch(*(np.tile(x, 2) for x in (flux, ivar, wavelength, mask)), offsets)
    np.testing.assert_array_equal(many, [codes, codes])
    assert not errors and codes.max() > 200
    picture = drawer.expand(codes)
    np.testing.assert_array_equal(picture[:96, :96, 1], codes.repeat(12, 0).repeat(12, 1))
    np.testing.assert_array_equal(drawer.expand_batch(many)[1], picture)
    np.testing.assert_array_equal(Expand(drawer)(torch.from_numpy(many))[1].permute(1, 2, 0).numpy(), picture)
    with pytest.raises(RenderError, match="all pixels masked"):
        drawer.codes(flux, ivar, wavelength, ~mask)
    assert 3536 < np.nanmin(drawer.wavelengths(wavelength)) < np.nanmax(drawer.wavelengths(wavelength)) < 10414


def test_without_a_torch_module_it_says_so_by_name(bars: ImageConfig) -> None:
    assert renderer(bars).device() == "bars has no torch module"


def test_its_own_torch_module_draws_it() -> None:
    with registered(RENDERERS, "level", Level):
        drawer = renderer(ImageConfig(image="level"))
        flux, ivar, wavelength, mask = made_up_galaxy()
        tensors = [torch.from_numpy(x)[None] for x in (flux, ivar, wavelength.astype(np.float64), mask)]
        codes, drawn = drawer.device().codes(*tensors, torch.ones(1, dtype=torch.bool))
        assert drawn.all()
        np.testing.assert_array_equal(codes[0].numpy(), drawer.codes(flux, ivar, wavelength, mask))


def test_a_sheet_of_every_image_shows_it_where_it_wants_to_be_seen(bars: ImageConfig) -> None:
    ours = ["simple", "overlap", "simple, paper", "simple, robust", "overlap, paper", "map2d"]
    with registered(RENDERERS, "level", Level):
        titles = [title for title, _ in every_image(64)]
    assert titles[:4] == ["simple", "overlap", "bars", "simple, paper"] and titles[6] == "bars, wide"
    assert [title for title in titles if "bars" not in title][:6] == ours and "level" not in titles

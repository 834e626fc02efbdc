"""One spectrum in, one uint8 picture out: pure functions, Numba kernels, no files.

    drawer = renderer(ImageConfig(image="map2d"))
    codes = drawer.codes(flux, ivar, wavelength, mask)     # what a shard stores
    rgb = drawer.expand(codes)                             # (224, 224, 3)

Nothing but flux, ivar, wavelength and mask enters, so nothing about the label can reach the picture.

    config          which picture, and how it is scaled: `ImageConfig` and its presets
    registry        the image types by name, also those of other packages
    base            what every renderer does: check, draw, expand
    simple, overlap, map2d      the three pictures
    prepare         window, order and good pixels of a spectrum
    scale           limits, and from flux to a code
    percentile      percentiles without sorting
    lines           anti-aliased polylines, for `simple` and `overlap`
    grid            which value stands in which cell of a `map2d`
    resample        from a spectrum's pixels to another grid
    channels        what the channels of a `map2d` show
    features        how those beside flux are computed
    expand          codes to RGB on the CPU
    frame           spectra in the rest frame, where that is asked for
    device          all of it as torch operations, where the model is
    wavelengths     which wavelength each pixel shows
    contact_sheet   many pictures on a sheet; `specshards render gallery`
    simd            wide loads and stores for Numba
"""

from __future__ import annotations

from specshards.render.base import Renderer
from specshards.render.config import ImageConfig, RenderError, preset, presets
from specshards.render.registry import RENDERERS

__all__ = ["RENDERERS", "ImageConfig", "RenderError", "Renderer", "preset", "presets", "renderer"]


def renderer(config: ImageConfig) -> Renderer:
    """The renderer of `config.image`."""
    return RENDERERS[config.image](config)

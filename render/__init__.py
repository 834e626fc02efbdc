"""One spectrum in, one uint8 picture out: pure functions, Numba kernels, no files.

    drawer = renderer(ImageConfig(image="map2d"))
    codes = drawer.codes(flux, ivar, wavelength, mask)     # what a shard stores
    rgb = drawer.expand(codes)                             # (224, 224, 3)

Nothing but flux, ivar, wavelength and mask enters, so nothing about the label can reach the picture.
"""

from __future__ import annotations

from render.base import Renderer
from render.config import IMAGES, PRESETS, ImageConfig, RenderError, preset
from render.map2d import Map2d
from render.overlap import Overlap
from render.simple import Simple

__all__ = ["IMAGES", "PRESETS", "ImageConfig", "RenderError", "Renderer", "preset", "renderer"]


_RENDERERS: dict[str, type[Renderer]] = {"simple": Simple, "overlap": Overlap, "map2d": Map2d}


def renderer(config: ImageConfig) -> Renderer:
    """The renderer of `config.image`."""
    return _RENDERERS[config.image](config)

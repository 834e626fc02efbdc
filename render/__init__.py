"""One spectrum in, one uint8 picture out: pure functions of arrays and a frozen configuration.

draw = renderer(ImageConfig(image="map2d"))
codes = draw.codes(flux, ivar, wavelength, mask)    # compact uint8 array, what a shard stores
picture = draw.expand(codes)                        # RGB, size x size x 3
"""

from __future__ import annotations

from render.base import Renderer
from render.config import IMAGES, ImageConfig
from render.map2d import Map2d
from render.overlap import Overlap
from render.prepare import RenderError
from render.simple import Simple

__all__ = ["IMAGES", "ImageConfig", "RenderError", "Renderer", "renderer"]

_RENDERERS: dict[str, type[Renderer]] = {"simple": Simple, "overlap": Overlap, "map2d": Map2d}


def renderer(config: ImageConfig) -> Renderer:
    """The renderer of `config.image`: cheap to make, picklable, safe to share between threads."""
    return _RENDERERS[config.image](config)

"""One spectrum in, one uint8 picture out: pure functions, Numba kernels, no files.

    drawer = renderer(ImageConfig(image="map2d"))
    codes = drawer.codes(flux, ivar, wavelength, mask)     # what a shard stores
    rgb = drawer.expand(codes)                             # (224, 224, 3)

Nothing but flux, ivar, wavelength and mask enters, so nothing about the label can reach the picture.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from render.config import IMAGES, ImageConfig, RenderError
from render.map2d import Map2d
from render.overlap import Overlap
from render.simple import Simple

__all__ = ["IMAGES", "ImageConfig", "RenderError", "Renderer", "renderer"]


class Renderer(Protocol):
    """What every image type does.

    Attributes:
        code_shape: of the stored array: `(cells, cells)`, `(size, size)` or `(size, size, 3)`, uint8.
        lut: uint8 `(256, 3)`, RGB of every code, or None where codes are gray levels or RGB already.
        block: side of one code's square in the picture.
        pad: pixels left free at the left and at the top.
        empty: code of the strip that whole blocks leave free.
    """

    config: ImageConfig
    code_shape: tuple[int, ...]
    lut: npt.NDArray[np.uint8] | None
    block: int
    pad: int
    empty: int

    def codes(
        self,
        flux: npt.NDArray[Any],
        ivar: npt.NDArray[Any] | None,
        wavelength: npt.NDArray[Any],
        mask: npt.NDArray[Any] | None,
        out: npt.NDArray[np.uint8] | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Draw one spectrum; RenderError says why it cannot be drawn."""

    def expand(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """One stored array to RGB, uint8 `(size, size, 3)`."""

    def expand_batch(
        self, codes: npt.NDArray[np.uint8], out: npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[np.uint8]:
        """B stored arrays to RGB, uint8 `(B, size, size, 3)`."""


_RENDERERS: dict[str, type] = {"simple": Simple, "overlap": Overlap, "map2d": Map2d}


def renderer(config: ImageConfig) -> Renderer:
    """The renderer of `config.image`."""
    drawer: Renderer = _RENDERERS[config.image](config)
    return drawer

"""`overlap`: three equal wavelength segments over each other in red, green and blue (Spectromer, A&A 709, A122)."""

from __future__ import annotations

import numpy as np
from numba import njit

from render.base import Codes, Renderer
from render.config import ImageConfig
from render.lines import coverage
from render.prepare import Floats, Flux, Good, target
from render.simple import line_of

#: matplotlib's `red`, `green` and `blue`, from the bluest segment to the reddest.
COLOURS = np.array([[255, 0, 0], [0, 128, 0], [0, 0, 255]], np.float32)


class Overlap(Renderer):
    """Each third of the window spans the picture's full width; one flux scale serves all three.

    Lines are drawn one after another over white, each with the same opacity.
    """

    def __init__(self, config: ImageConfig) -> None:
        super().__init__(config)
        self.code_shape = (config.size, config.size, 3)

    def _draw(self, flux: Flux, wavelength: Floats, good: Good, out: Codes) -> None:
        size = self.config.size
        x, y = line_of(flux, wavelength, good, self.config)
        canvas = np.full(self.code_shape, 255, np.float32)
        cover = np.empty((size, size), np.float32)
        edges = np.searchsorted(x, [0, 1 / 3, 2 / 3, np.nextafter(1, 2)])
        for third in range(3):
            part = slice(edges[third], edges[third + 1])
            if edges[third + 1] - edges[third] < 2:
                continue  # a survey that ends before this third has no line there
            coverage((3 * x[part] - third) * size, y[part] * size, self.config.line_width, cover)
            _blend(canvas, cover, COLOURS[third], np.float32(self.config.alpha))
        np.floor(canvas + np.float32(0.5), out=canvas)
        out[...] = canvas

    def expand(self, codes: Codes) -> Codes:
        """The codes themselves are the picture."""
        return codes

    def expand_batch(self, codes: Codes, out: Codes | None = None) -> Codes:
        """The codes themselves are the pictures; copied into `out` where it is given."""
        if out is None:
            return codes
        target(out, codes.shape)[...] = codes
        return out


@njit(nogil=True, cache=True)
def _blend(canvas, cover, colour, alpha):  # type: ignore[no-untyped-def]
    for row in range(cover.shape[0]):
        for column in range(cover.shape[1]):
            share = min(max(cover[row, column], np.float32(0)), np.float32(1)) * alpha
            if share > 0:
                for k in range(3):
                    canvas[row, column, k] += (colour[k] - canvas[row, column, k]) * share

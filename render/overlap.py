"""overlap: three equal thirds of the window drawn over each other in red, green and blue."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from render.base import U8, Renderer, checked_out
from render.config import ImageConfig
from render.prepare import prepare
from render.simple import coverage, to_pixels

# Bluest third first. Matplotlib's "green", which the paper's code names, is half as bright as the full primary.
COLORS = np.array([[255, 0, 0], [0, 128, 0], [0, 0, 255]], np.float32)
ALPHA = 0.5


class Overlap(Renderer):
    """Each third of the window spans the full width; one y scale, that of `simple`, for all three."""

    def __init__(self, config: ImageConfig) -> None:
        super().__init__(config)
        self.code_shape = (config.size, config.size, 3)

    def _draw(
        self,
        flux: npt.ArrayLike,
        ivar: npt.ArrayLike | None,
        wavelength: npt.ArrayLike,
        mask: npt.ArrayLike | None,
        out: U8,
    ) -> None:
        s = prepare(flux, ivar, wavelength, mask, self.config.window)
        x, y = np.empty(len(s.flux), np.float32), np.empty(len(s.flux), np.float32)
        size, width = self.config.size, self.config.line_width
        edges = np.linspace(*self.config.window, 4)
        shares = []
        for start, stop in zip(edges[:-1], edges[1:], strict=True):
            n = to_pixels(s.wavelength, s.flux, s.good, start, stop, s.low, s.high, size, width, x, y)
            shares.append(coverage(x[:n], y[:n], size, width))
        _blend(shares[0], shares[1], shares[2], out)

    def expand(self, codes: U8) -> U8:
        """A copy: the codes are RGB already."""
        return self._checked_codes(codes, self.code_shape).copy()

    def expand_batch(self, codes: U8, out: U8 | None = None) -> U8:
        """A copy: the codes are RGB already."""
        batch = self._checked_codes(codes, (len(codes), *self.code_shape))
        out = checked_out(out, batch.shape)
        np.copyto(out, batch)
        return out


@njit(nogil=True, cache=True)
def _blend(first, second, third, out):  # type: ignore[no-untyped-def]
    """The three lines over white, in this order, each with opacity ALPHA times its coverage."""
    alpha = np.float32(ALPHA)
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            for channel in range(3):
                value = np.float32(255)
                value += (COLORS[0, channel] - value) * alpha * first[row, column]
                value += (COLORS[1, channel] - value) * alpha * second[row, column]
                value += (COLORS[2, channel] - value) * alpha * third[row, column]
                out[row, column, channel] = np.uint8(
                    min(max(value + np.float32(0.5), np.float32(0)), np.float32(255))
                )

"""What every renderer offers, and the part of it that all of them share."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, prange

from render.config import ImageConfig

U8 = npt.NDArray[np.uint8]

# Of Numba's threading layers the one that is always present ("workqueue") ends the process when two Python threads
# enter parallel kernels at once. A batch uses every core anyway, so callers wait for each other here.
_PARALLEL = threading.Lock()


class Renderer(ABC):
    """Draws spectra as one kind of picture.

    `codes` is the compact array that a shard stores, `expand` makes RGB of it:
    RGB = lut[codes] (or codes in three channels where `lut` is None), each cell repeated `block` x `block`, the
    whole `pad` pixels from the top and left edge, the border in lut[0].
    """

    block: int = 1
    pad: int = 0
    code_shape: tuple[int, ...]

    def __init__(self, config: ImageConfig) -> None:
        self.config = config

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.config,)

    @property
    def lut(self) -> U8 | None:
        """Colour table, uint8 (256, 3); None where codes are gray levels or RGB already."""
        return None

    def codes(
        self,
        flux: npt.ArrayLike,
        ivar: npt.ArrayLike | None,
        wavelength: npt.ArrayLike,
        mask: npt.ArrayLike | None,
        out: U8 | None = None,
    ) -> U8:
        """The picture in compact form, uint8 of `code_shape`.

        Args:
            flux: flux per pixel; computed in float32.
            ivar: inverse variance; a pixel with ivar <= 0 or not finite is bad. None: not known.
            wavelength: Angstrom, increasing or decreasing; pixels at or below 0 are padding and dropped.
            mask: True marks a bad pixel. None: not known.
            out: array to fill, C-contiguous uint8 of `code_shape`.

        Raises:
            RenderError: this spectrum cannot be drawn; the message is the reason, in one line.
        """
        out = checked_out(out, self.code_shape)
        self._draw(flux, ivar, wavelength, mask, out)
        return out

    @abstractmethod
    def _draw(
        self,
        flux: npt.ArrayLike,
        ivar: npt.ArrayLike | None,
        wavelength: npt.ArrayLike,
        mask: npt.ArrayLike | None,
        out: U8,
    ) -> None:
        """Fill `out` with the codes."""

    def expand(self, codes: U8) -> U8:
        """Codes to RGB, uint8 (size, size, 3), a new array."""
        cells = self._checked_codes(codes, self.code_shape)
        out = np.empty((self.config.size, self.config.size, 3), np.uint8)
        _expand_one(cells, self._table(), self.block, self.pad, out)
        return out

    def expand_batch(self, codes: U8, out: U8 | None = None) -> U8:
        """A batch of codes to RGB, uint8 (B, size, size, 3), on all cores; the same bytes as `expand`."""
        batch = self._checked_codes(codes, (len(codes), *self.code_shape))
        out = checked_out(out, (len(codes), self.config.size, self.config.size, 3))
        if len(batch):
            with _PARALLEL:
                _expand_all(batch, self._table(), self.block, self.pad, out)
        return out

    def _table(self) -> U8:
        return _GRAY if self.lut is None else self.lut

    @staticmethod
    def _checked_codes(codes: U8, shape: tuple[int, ...]) -> U8:
        if codes.dtype != np.uint8 or codes.shape != shape:
            raise ValueError(f"codes are {codes.dtype} {codes.shape}, not uint8 {shape}")
        return np.ascontiguousarray(codes)


_GRAY: U8 = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)


def checked_out(out: U8 | None, shape: tuple[int, ...]) -> U8:
    """`out` if it can take the result, or a new array."""
    if out is None:
        return np.empty(shape, np.uint8)
    if out.dtype != np.uint8 or out.shape != shape or not out.flags.c_contiguous:
        raise ValueError(f"out is {out.dtype} {out.shape}, not C-contiguous uint8 {shape}")
    return out


@njit(nogil=True, cache=True)
def _expand_one(cells, lut, block, pad, out):  # type: ignore[no-untyped-def]
    height, width = cells.shape
    size = out.shape[0]
    blank, blanks = size, 0
    for row in range(height):
        first = pad + row * block
        x = 0
        while x < pad:
            out[first, x, 0], out[first, x, 1], out[first, x, 2] = lut[0, 0], lut[0, 1], lut[0, 2]
            x += 1
        for column in range(width):
            code = cells[row, column]
            red, green, blue = lut[code, 0], lut[code, 1], lut[code, 2]
            for _ in range(block):
                out[first, x, 0], out[first, x, 1], out[first, x, 2] = red, green, blue
                x += 1
        while x < size:
            out[first, x, 0], out[first, x, 1], out[first, x, 2] = lut[0, 0], lut[0, 1], lut[0, 2]
            x += 1
        for y in range(first + 1, first + block):
            out[y] = out[first]
    for y in range(size):
        if y < pad or y >= pad + height * block:
            for x in range(size):
                out[y, x, 0], out[y, x, 1], out[y, x, 2] = lut[0, 0], lut[0, 1], lut[0, 2]


@njit(nogil=True, cache=True, parallel=True)
def _expand_all(cells, lut, block, pad, out):  # type: ignore[no-untyped-def]
    for i in prange(len(cells)):
        _expand_one(cells[i], lut, block, pad, out[i])

"""What every image type does: prepare once, draw into a checked array, expand what was stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from render.config import ImageConfig
from render.prepare import Floats, Flux, Good, prepare, target

Codes = npt.NDArray[np.uint8]


class Renderer(ABC):
    """One image type with its configuration; made once, used for many spectra, cheap to send to a worker.

    Attributes:
        code_shape: of the stored array: `(cells, cells)`, `(size, size)` or `(size, size, 3)`, uint8.
        lut: uint8 `(256, 3)`, RGB of every code, or None where codes are gray levels or RGB already.
        block: side of one code's square in the picture.
        pad: pixels left free at the left and at the top.
        empty: code of the strip that whole blocks leave free.
    """

    code_shape: tuple[int, ...]
    lut: Codes | None = None
    block = 1
    pad = 0
    empty = 0

    def __init__(self, config: ImageConfig) -> None:
        self.config = config

    def codes(
        self,
        flux: npt.NDArray[Any],
        ivar: npt.NDArray[Any] | None,
        wavelength: npt.NDArray[Any],
        mask: npt.NDArray[Any] | None,
        out: Codes | None = None,
    ) -> Codes:
        """Draw one spectrum: uint8 of `code_shape`, into `out` where it is given.

        Args:
            flux, ivar, wavelength, mask: `(N,)` each; wavelength in Angstrom, mask True = bad.

        Raises:
            RenderError: it cannot be drawn; the message is the reason. ValueError: `out` does not fit.
        """
        spectrum = prepare(flux, ivar, wavelength, mask, self.config.window)
        out = target(out, self.code_shape)
        self._draw(*spectrum, out)
        return out

    @abstractmethod
    def _draw(self, flux: Flux, wavelength: Floats, good: Good, out: Codes) -> None:
        """Draw what `prepare` returned into `out`."""

    def expand(self, codes: Codes) -> Codes:
        """One stored array to RGB, uint8 `(size, size, 3)`."""
        return self.expand_batch(codes[None])[0]

    @abstractmethod
    def expand_batch(self, codes: Codes, out: Codes | None = None) -> Codes:
        """B stored arrays to RGB, uint8 `(B, size, size, 3)`, into `out` where it is given."""

"""Spectra in the frame that a picture is of: as they were observed, or with the redshift taken out.

The rest frame is a choice that has to be made (`ImageConfig.frame`), because it draws a label into every picture: who
uses what was made of them must know the redshift already. Training refuses it for the redshift itself.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.common.spectrum import Arrays, Grid, log_grid
from specshards.render import RenderError


def framed(
    frame: str, spectrum: Arrays, grid: Grid | None, redshift: float | None, given: str = "observed"
) -> tuple[Arrays, Grid | None]:
    """A spectrum and its grid, in `frame`.

    Args:
        frame: `observed` gives both back as they are; `rest` divides the wavelengths by 1 + z.
        spectrum: flux, ivar, wavelength (Angstrom) and mask, `(N,)` each.
        grid: coefficients from which `log_grid` gives these wavelengths, or None.
        redshift: z of the object; None or NaN where nobody knows it.
        given: the frame that the wavelengths are in.

    Raises:
        RenderError: the rest frame of an object without a redshift; the observed frame of a spectrum in the rest
            frame.
    """
    if given == "rest" and frame != "rest":
        raise RenderError("a spectrum in the rest frame, which knows its redshift, among observed ones; --frame rest")
    if frame == given:
        return spectrum, grid
    if redshift is None or not -1 < redshift < math.inf:
        raise RenderError("no redshift, which the rest frame divides wavelengths by")
    flux, ivar, wavelength, mask = spectrum
    moved: npt.NDArray[Any]
    if grid is None:
        moved = (wavelength / (1 + redshift)).astype(wavelength.dtype)
    else:
        # A spectrum that is stored by its coefficients must give the very wavelengths that were drawn.
        grid = grid[0] - float(np.log10(1 + redshift)), grid[1]
        moved = log_grid(*grid, len(flux))
    return Arrays(flux, ivar, moved, mask), grid

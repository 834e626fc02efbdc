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

#: km/s.
LIGHT = 299_792.458


def framed(
    frame: str,
    spectrum: Arrays,
    grid: Grid | None,
    redshift: float | None,
    given: str = "observed",
    velocity: float | None = None,
) -> tuple[Arrays, Grid | None]:
    """A spectrum and its grid, in `frame`.

    Args:
        frame: that is wanted: `rest` divides the wavelengths of an observed spectrum by 1 + z; `observed` multiplies
            those of one in the rest frame by 1 + velocity / c, or 1 + z where no velocity is known. Where neither is,
            it stays as it is: nobody can move it.
        spectrum: flux, ivar, wavelength (Angstrom) and mask, `(N,)` each; a line-spread function moves with them.
        grid: coefficients from which `log_grid` gives these wavelengths, or None.
        redshift: z of the object; None or NaN where nobody knows it.
        given: the frame that the wavelengths are in.
        velocity: that wavelengths in the rest frame were divided by, km/s; None or NaN where nobody knows it.

    Raises:
        RenderError: the rest frame of an observed object without a redshift.
    """
    if frame == given:
        return spectrum, grid
    known = redshift is not None and -1 < redshift < math.inf
    if given == "rest":
        if velocity is not None and -LIGHT < velocity < math.inf:
            factor = 1 / (1 + velocity / LIGHT)
        elif known and redshift is not None:
            factor = 1 / (1 + redshift)
        else:
            return spectrum, grid
    elif known and redshift is not None:
        factor = 1 + redshift
    else:
        raise RenderError("no redshift, which the rest frame divides wavelengths by")
    flux, ivar, wavelength, mask = spectrum
    moved: npt.NDArray[Any]
    if grid is None:
        moved = (wavelength / factor).astype(wavelength.dtype)
    else:
        # A spectrum that is stored by its coefficients must give the very wavelengths that were drawn.
        grid = grid[0] - float(np.log10(factor)), grid[1]
        moved = log_grid(*grid, len(flux))
    width = getattr(spectrum, "lsf_sigma", None)  # which a plain tuple has not
    sigma = None if width is None else (width / factor).astype(np.float32)
    return Arrays(flux, ivar, moved, mask).with_lsf(sigma), grid

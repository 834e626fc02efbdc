"""What tables of MultimodalUniverse hold beside flux, ivar and mask, and do not explain: found in its build scripts.

Source: `scripts/{apogee,desi,galah,sdss}/build_parent_sample.py` in github.com/MultimodalUniverse/MultimodalUniverse.

- `lsf_sigma`, the line-spread function: in pixels of DESI (one number for all) and SDSS (`wdisp`), in Angstrom of
  APOGEE, which is called a very rough estimate there. Of GALAH it is the width of a fit to something else, and not
  taken.
- `restframe` is true of all of APOGEE, whose Hugging Face data set lost the column: there it is null.
- GALAH's wavelengths, beside which `norm_lambda` stands, are those of its files: in air.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.ingest.surveys.common import number

#: Fields of a spectrum that are read besides.
LSF = "lsf_sigma"
_OF_GALAH = "norm_lambda"
_IN_PIXELS, _IN_ANGSTROM = ("sdss", "desi"), ("apogee",)
#: Columns with the velocity by which wavelengths at rest were divided, km/s.
_VELOCITIES = ("radial_velocity", "vhelio_avg", "velocity")


def medium(fields: Collection[str]) -> str | None:
    """The medium of a table of spectra with these fields, in lower case, which says nothing of it; None: usual."""
    return "air" if _OF_GALAH in fields else None


def frame(survey: str, has_column: bool) -> str | None:
    """The frame of a row whose column of frames is null; None where nobody can tell."""
    return "rest" if survey == "apogee" and has_column else None


def velocity(labels: Mapping[str, Any]) -> float | None:
    """The velocity of a row at rest, km/s, by its further labels."""
    found = (number(labels.get(name)) for name in _VELOCITIES)
    return next((value for value in found if value is not None), None)


def lsf_sigma(values: npt.NDArray[Any], wavelength: npt.NDArray[Any], survey: str) -> npt.NDArray[np.float64] | None:
    """A line-spread function in Angstrom: float64 `(N,)`, NaN where it is no width; None where its unit is not known.

    Args:
        values: as a table has it. wavelength: Angstrom, both `(N,)`. survey: whose it is.
    """
    if len(values) != len(wavelength) or len(values) < 2:
        return None
    sigma = np.where(values > 0, values, np.nan).astype(np.float64)
    if survey in _IN_PIXELS:
        return sigma * np.gradient(wavelength.astype(np.float64))
    return sigma if survey in _IN_ANGSTROM else None

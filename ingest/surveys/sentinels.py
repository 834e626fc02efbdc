"""Fluxes of -9999, -999 and the like, which say that a pixel has no value."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.ingest.surveys.common import SENTINELS

#: The remark on spectra with such pixels.
NO_VALUE = "have pixels of -999, -9999 or the like for no value, which are masked"
_SENTINELS = np.array(sorted(SENTINELS))
_LEAST = float(_SENTINELS.max())


def missing(flux: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where a flux is such a number: bool, the shape of `flux`.

    Nowhere, where the data go there themselves: where more pixels lie within half of that number of it than have it.
    """
    none = np.zeros(flux.shape, np.bool_)
    with np.errstate(invalid="ignore"):
        if not (flux <= _LEAST).any():
            return none
        for value in np.unique(flux[np.isin(flux, _SENTINELS)]):
            alike = flux == value
            near = (np.abs(flux - value) < abs(value) / 2) & ~alike & ~np.isin(flux, _SENTINELS)
            if np.count_nonzero(near) < np.count_nonzero(alike):
                none |= alike
    return none

"""Numbers of others, and what the published code does otherwise: what its code or a record says, and nothing else.

The code is github.com/astromer-science/spectromer (MIT), read and run, not copied. The text of the paper was not at
hand when this was written: a table has a number here only where that number is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A number of somebody else's.

    Attributes:
        whose: in words. about: why it cannot be put beside ours without a thought.
    """

    value: float
    whose: str
    about: str


_PLACE = "which picture and which data set it belongs to is not known here"
ACCURACY = Published(0.990, "A&A 709, A122", _PLACE)
R2_REDSHIFT = Published(0.992, "A&A 709, A122", _PLACE)
WANG = Published(
    0.965, "Wang et al. 2022, with photometry",
    "it learnt from photometry too; whether of support vectors or of a random forest is not known here",
)  # fmt: skip
ASTROCLIP = Published(0.990, "AstroCLIP", "its own objects and its own training")
SZNET_QSO = Published(0.0171, "Bayesian SZNet, quasars", "its own quasars; its own predicted distributions")

#: Edges of the bins of Table 5 in snMedian; the lower end is included.
SN_EDGES = (0.0, 1.0, 2.0, 5.0, 7.0, 10.0, 20.0, 30.0, 40.0, 50.0, math.inf)
#: Columns of Table 5: title -> classes.
SN_COLUMNS = {"all classes": ("STAR", "GALAXY", "QSO"), "GALAXY": ("GALAXY",), "QSO": ("QSO",), "STAR": ("STAR",)}
#: The shares of the published split, and its backbone.
SPLIT = (0.6, 0.2, 0.2)
BACKBONE = "facebook/dino-vitb16"

CATASTROPHES = (
    "Here: the share of the objects with a class whose |z' - z| / (1 + z) times c is below 1000 km/s (galaxies and "
    "stars) or 3000 km/s (quasars).",
    "The published script (reg_verify_predictions.py) takes 0.00334 and 0.01001, which are 1001.3 and 3000.9 km/s.",
    "It first drops every object whose label is exactly 0, so that its percentages can be formed.",
    "Its columns combined and GALAXY+QSO are the mean of two shares, that of galaxies and stars (for the second, "
    "of galaxies) and that of quasars, however many objects each has; the column of all classes here is a share of "
    "objects.",
    "It drops objects without snMedian from the bins only; they count in the last row here, too.",
)  # fmt: skip
CRPS = (
    "crps_gaussian_z is the published code's: every answer becomes a normal distribution of one width, the standard "
    "deviation of the residuals in z, and is scored in z. The width is learnt from the truths that it is scored by.",
    "The published script takes that one width for the classes, too (row sigma of all), and first drops objects "
    "whose label is exactly 0. The row own sigma has the width of the quasars' own residuals.",
    "crps is of the distribution that the model itself predicts, in ln(1 + z); of a point, as the paper's recipe "
    "trains, it is the mean absolute error there. The two cannot be compared with each other.",
)  # fmt: skip

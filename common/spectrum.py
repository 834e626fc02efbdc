"""One spectrum: its arrays, which pixels are good, and what may be known of its object."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
WavelengthArray = npt.NDArray[np.float32] | npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
#: coeff0 and coeff1 of `log_grid`.
Grid = tuple[float, float]

CLASSES = ("STAR", "GALAXY", "QSO")


class Label(NamedTuple):
    """A number that may be known of an object: its column, and how people are told it.

    Attributes:
        name: of the column. title: for people. form: how the value is formatted. unit: or empty.
        has_error: whether `<name>_err` is a column, too.
    """

    name: str
    title: str
    form: str
    unit: str = ""
    has_error: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of the value, and that of its error where there is one."""
        return (self.name, f"{self.name}_err") if self.has_error else (self.name,)


#: Every number that a survey or a catalogue may give of an object.
NUMBERS = (
    Label("z", "z", ".5f"),
    Label("zwarning", "zwarning", "d", has_error=False),
    Label("teff", "Teff", ".0f", "K"),
    Label("logg", "log g", ".2f"),
    Label("feh", "[Fe/H]", ".2f"),
)
SIGNAL_TO_NOISE = Label("sn_median", "S/N", ".1f", has_error=False)
#: Measured values and their errors: float32 in Parquet.
MEASURED_LABELS = tuple(name for label in NUMBERS if label.has_error for name in label.columns)
#: Numbers that a catalogue may give, beside `class` and `subclass`.
NUMERIC_LABELS = (*MEASURED_LABELS, "zwarning")
#: The label vector of a sample, float64, NaN = missing. `class` and `survey` are places in lists of names.
LABELS = (
    "class", "survey", *(name for label in NUMBERS for name in label.columns), SIGNAL_TO_NOISE.name, "ra", "dec",
)  # fmt: skip

#: Grids kept: at 31 KB each, 8 MB. A survey has one or a few hundred of them.
_GRIDS = 256


@lru_cache(maxsize=_GRIDS)
def log_grid(coeff0: float, coeff1: float, n: int) -> npt.NDArray[np.float64]:
    """The wavelengths 10^(coeff0 + coeff1 i), Angstrom: float64 `(n,)`, read-only, because it is shared.

    Whatever reads or draws a spectrum takes them from here, so that all agree in every bit.
    """
    with np.errstate(over="ignore"):  # coefficients of a damaged file, which is refused later
        wavelength = np.asarray(10.0 ** (coeff0 + coeff1 * np.arange(n)), np.float64)
    wavelength.setflags(write=False)
    return wavelength


def good_pixels(flux: npt.NDArray[Any], ivar: npt.NDArray[Any] | None, mask: npt.NDArray[Any] | None) -> BoolArray:
    """Pixels that carry information: finite flux, finite ivar above 0, not masked. bool, shape of `flux`.

    Args:
        flux, ivar, mask: of one shape; None for ivar or mask says that the survey gives none, and rules out nothing.
    """
    good = np.isfinite(flux)
    if ivar is not None:
        good &= (ivar > 0) & (ivar < np.inf)
    if mask is not None:
        good &= ~mask
    return good


class Arrays(NamedTuple):
    """The pixels of one spectrum, `(N,)` each.

    Attributes:
        flux: float32, the survey's unit. ivar: float32, its inverse square; None where the survey gives none.
        wavelength: float32 or float64, Angstrom. mask: bool, True = bad.
    """

    flux: FloatArray
    ivar: FloatArray | None
    wavelength: WavelengthArray
    mask: BoolArray

    def good(self) -> BoolArray:
        """`good_pixels`: bool `(N,)`."""
        return good_pixels(self.flux, self.ivar, self.mask)

    def weight(self) -> FloatArray:
        """ivar as it is, also of bad pixels; 1 where the survey gives none. float32 `(N,)`."""
        return np.ones(len(self.flux), np.float32) if self.ivar is None else self.ivar


@dataclass(slots=True)
class Spectrum:
    """One spectrum between a survey file and a Parquet row.

    Attributes:
        flux, ivar: float32 `(N,)`, the survey's flux unit and its inverse square; ivar 0 means no information.
        wavelength: float32 `(N,)`, Angstrom, vacuum, observed frame, heliocentric, increasing.
        mask: bool `(N,)`, True = bad.
        wave_coeff0, wave_coeff1: log10(wavelength) = coeff0 + coeff1 * i, where that holds, else None.
        labels: any of `class`, `subclass`, `z`, ... (None or absent = missing).
        survey_sn: the survey's own signal-to-noise values under their own names.
        row: which row of a file of many spectra it was; None for a file of one.
        is_listed: whether a catalogue lists it.
        extra: what selection cuts may ask for and the schema does not keep (`instrument`, `targettype`).
        label_source: where the labels came from: `header`, `table` (HDU 2) or `catalogue`.
        has_ivar: False where the survey gives none: `ivar` says nothing then, and there is no S/N.
    """

    object_id: str
    survey: str
    release: str | None
    ra: float
    dec: float
    flux: FloatArray
    ivar: FloatArray
    wavelength: FloatArray
    mask: BoolArray
    layout: str
    source_file: str
    wave_coeff0: float | None = None
    wave_coeff1: float | None = None
    label_source: str | None = None
    labels: dict[str, Any] = field(default_factory=dict)
    survey_sn: dict[str, float | None] = field(default_factory=dict)
    row: int | None = None
    is_listed: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    has_ivar: bool = True

    def arrays(self) -> Arrays:
        """Its pixels; views."""
        return Arrays(self.flux, self.ivar if self.has_ivar else None, self.wavelength, self.mask)

    def good(self) -> BoolArray:
        """`good_pixels`: bool `(N,)`."""
        return self.arrays().good()

    def sn_median(self) -> float | None:
        """Median over the good pixels of flux x sqrt(ivar), the same for every survey; None without any, or ivar."""
        if not self.has_ivar:
            return None
        good = self.good()
        snr = self.flux[good] * np.sqrt(self.ivar[good])
        if not len(snr):
            return None
        # numpy.median, without the third of its time that it spends on looking for NaN.
        middle = len(snr) // 2
        if len(snr) % 2:
            return float(np.partition(snr, middle)[middle])
        low, high = np.partition(snr, (middle - 1, middle))[middle - 1 : middle + 1]
        return float((low + high) / 2)

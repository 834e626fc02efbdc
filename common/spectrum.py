"""One spectrum: its arrays, which pixels are good, and what may be known of its object."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
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
#: At the end of the layout of spectra without ivar, by which those that were stored are known.
NO_IVAR = "-no-ivar"
#: What surveys write for a missing number: -9999 and its relatives (-999, -9999.9), and nothing else so far below 0.
MISSING_UP_TO = -999.0


class Range(NamedTuple):
    """The values that a number may have.

    Attributes:
        low, high: both may be reached. never: between them, and yet what catalogues write for a missing value.
        is_whole: whether it is an integer.
    """

    low: float
    high: float
    never: tuple[float, ...] = ()
    is_whole: bool = False

    def has(self, value: float) -> bool:
        """Whether a number is possible; NaN is not."""
        return self.low <= value <= self.high and value not in self.never and not (self.is_whole and value % 1)

    def holds(self, values: npt.NDArray[np.float64]) -> BoolArray:
        """`has` of each value: bool, shape of `values`."""
        possible = (values >= self.low) & (values <= self.high)
        for value in self.never:
            possible &= values != value
        if self.is_whole:
            possible &= values == np.floor(values)
        return np.asarray(possible, np.bool_)

    def __str__(self) -> str:
        """For people."""
        kind = "whole numbers " if self.is_whole else ""
        low = "above 0" if 0 < self.low < 1e-300 else f"{self.low:.10g}"
        odd = f" but {', '.join(f'{value:.10g}' for value in self.never)}" if self.never else ""
        return f"{kind}{low} to {self.high:.10g}{odd}"


class Label(NamedTuple):
    """A number that may be known of an object: its column, what it can be, and how people are told it.

    Attributes:
        name: of the column. title: for people. form: how the value is formatted.
        range: of any real object; what lies outside is missing.
        unit: or empty. has_error: whether `<name>_err` is a column, too.
    """

    name: str
    title: str
    form: str
    range: Range
    unit: str = ""
    has_error: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of the value, and that of its error where there is one."""
        return (self.name, f"{self.name}_err") if self.has_error else (self.name,)

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Of `columns`. An error is above 0; one as large as the whole range says nothing."""
        return (self.range, Range(5e-324, self.range.high - self.range.low))[: len(self.columns)]


#: Every number that a survey or a catalogue may give of an object. The ranges leave room around the records:
#: z: the fastest star known to come nearer has -2,285 km/s (J0927-6335; El-Badry et al. 2023), the galaxies with the
#:   largest blueshifts about -700 km/s, near M86; -0.02 is -6,000 km/s. The farthest galaxy with a spectrum has 14.44
#:   (MoM-z14; Naidu et al. 2025).
#: zwarning: bits of an int32; SDSS and DESI define fewer.
#: teff: the coldest brown dwarf has 250 to 285 K (WISE 0855-0714; Luhman 2014), the hottest white dwarf 250,000 K
#:   (RX J0439.8-6809; Werner and Rauch 2015). 99999 is a catalogue's way to say nothing; no fit gives it.
#: logg: the largest supergiants are near -1, the heaviest white dwarf has 9.3 (ZTF J1901+1458; Caiazzo et al. 2021).
#: feh: the iron-poorest star is below -7.1 (SMSS J0313-6708; Keller et al. 2014); the surfaces of chemically peculiar
#:   A stars reach +1 to +2.
NUMBERS = (
    Label("z", "z", ".5f", Range(-0.02, 20.0)),
    Label("zwarning", "zwarning", "d", Range(0, 2**31 - 1, is_whole=True), has_error=False),
    Label("teff", "Teff", ".0f", Range(200.0, 300_000.0, never=(99_999.0,)), "K"),
    Label("logg", "log g", ".2f", Range(-2.0, 10.0)),
    Label("feh", "[Fe/H]", ".2f", Range(-10.0, 2.0)),
)
#: Of a pixel. A million takes 1e12 photons in it, which no detector holds and no survey adds up.
SIGNAL_TO_NOISE = Label("sn_median", "S/N", ".1f", Range(-1e6, 1e6), has_error=False)
POSITION = (
    Label("ra", "RA", ".5f", Range(0.0, 360.0), "deg", has_error=False),
    Label("dec", "Dec", ".5f", Range(-90.0, 90.0), "deg", has_error=False),
)
#: Columns of surveys' own signal-to-noise values.
SURVEY_SN = ("snru", "snrg", "snrr", "snri", "snrz", "sn_median_all")
#: The column of `survey_sn_of`.
SN_SURVEY = "sn_survey"
_BANDS = SURVEY_SN[:5]
#: Column -> what is possible in it; part of fingerprints, as it is. `LIMITS` is all that there is.
RANGES = {
    **{
        name: limits
        for label in (*NUMBERS, SIGNAL_TO_NOISE, *POSITION)
        for name, limits in zip(label.columns, label.ranges, strict=True)
    },
    **dict.fromkeys(SURVEY_SN, SIGNAL_TO_NOISE.range),
}
#: The same, with the columns that came after the first fingerprints.
LIMITS = {**RANGES, SN_SURVEY: SIGNAL_TO_NOISE.range}
_WORDS = ("class", "subclass")
#: Measured values and their errors: float32 in Parquet.
MEASURED_LABELS = tuple(name for label in NUMBERS if label.has_error for name in label.columns)
#: Numbers that a catalogue may give, beside `class` and `subclass`.
NUMERIC_LABELS = (*MEASURED_LABELS, "zwarning")
#: The label vector of a sample, float64, NaN = missing. `class` and `survey` are places in lists of names.
LABELS = (
    "class", "survey", *(name for label in NUMBERS for name in label.columns), SIGNAL_TO_NOISE.name,
    *(label.name for label in POSITION),
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

    @property
    def lsf_sigma(self) -> FloatArray | None:
        """Sigma of the line-spread function, float32 `(N,)`, Angstrom, NaN = unknown; None: see `with_lsf`."""
        return None

    def with_lsf(self, sigma: FloatArray | None) -> Arrays:
        """The same arrays with a line-spread function, float32 `(N,)`; as they are for None."""
        if sigma is None:
            return self
        known = ResolvedArrays(*self)
        known.sigma = sigma
        return known


class ResolvedArrays(Arrays):
    """`Arrays` with a line-spread function: to all that draws pixels they are the same four arrays."""

    sigma: FloatArray | None = None

    @property
    def lsf_sigma(self) -> FloatArray | None:
        """See `Arrays`; None after `_replace`, which does not know what becomes of it."""
        return self.sigma


def sift(values: dict[str, Any]) -> dict[str, Any]:
    """Set to None what no object can have: numbers outside `LIMITS` and what is no number, another class.

    Args:
        values: labels by name, as a file gives them; those without a rule stay. Whole numbers become int.

    Returns:
        What was taken away, but for the usual ways to write a missing number.
    """
    gone = {}
    for name, said in values.items():
        if said is None:
            continue
        if (limits := LIMITS.get(name)) is not None:
            if type(said) is float and limits.has(said) and not limits.is_whole:  # nearly always
                continue
            try:
                number = math.inf if isinstance(said, bool | np.bool_) else float(said)
            except (TypeError, ValueError, OverflowError):
                number = math.inf
            if limits.has(number):
                values[name] = int(number) if limits.is_whole else number
                continue
            is_missing = not number > MISSING_UP_TO  # NaN, too
        elif name in _WORDS and not (said in CLASSES if name == "class" else isinstance(said, str)):
            is_missing = False
        else:
            continue
        values[name] = None
        if not is_missing:
            gone[name] = said
    return gone


def tells_sn_survey(names: Collection[str]) -> bool:
    """Whether columns of these names are enough for `survey_sn_of`."""
    return SN_SURVEY in names or "sn_median_all" in names or set(_BANDS) <= set(names)


def survey_sn_of(values: Mapping[str, Any]) -> float | None:
    """The survey's own median S/N, as Spectromer (A&A 709, A122) counts objects by it; None where it cannot be told.

    SDSS publishes one (`sn_median_all`, snMedian of its catalogues). Of LAMOST's five it is the root of the sum of
    their squares, as the authors' code has it, and needs all five. Computed of what float32 holds, so that it is the
    same from a file and from the columns of spectra Parquet (`common.label_columns.with_sn_survey`).

    Args:
        values: of `SURVEY_SN` and `SN_SURVEY` those that are known; the latter is taken as it is.
    """
    for name in (SN_SURVEY, "sn_median_all"):
        if (said := values.get(name)) is not None:
            return float(np.float32(said))
    bands = [values.get(name) for name in _BANDS]
    total = 0.0
    for band in bands:
        if band is None:
            return None
        total += float(np.float32(band)) ** 2
    return math.sqrt(total)


@dataclass(frozen=True)
class Fit:
    """What a file tells of the fit that labels of its survey are of; catalogues may give the same labels.

    Attributes:
        failed: why none of them is taken; None where the fit is good.
        labels: ours. columns: of catalogues, in lower case.
    """

    failed: str | None
    labels: tuple[str, ...]
    columns: frozenset[str]


@dataclass(slots=True)
class Spectrum:
    """One spectrum between a survey file and a Parquet row.

    Attributes:
        flux, ivar: float32 `(N,)`, in `flux_scale` x `flux_unit` and its inverse square; ivar 0 means no information.
            A reader may give float64: `ingest.surveys.common.checked` makes them fit.
        wavelength: float32 `(N,)`, Angstrom, vacuum, heliocentric, increasing; a reader may give another unit, or
            air, and say so, for `checked` to convert.
        mask: bool `(N,)`, True = bad.
        wave_coeff0, wave_coeff1: log10(wavelength) = coeff0 + coeff1 * i, where that holds, else None.
        labels: any of `class`, `subclass`, `z`, ..., and any further label of the object, a number, a truth value or
            a text under a name of its own (`common.further`); None or absent = missing.
        survey_sn: the survey's own signal-to-noise values under their own names, and `sn_survey` where something
            else than these says it.
        row: which row of a file of many spectra it was; None for a file of one.
        is_listed: whether a catalogue lists it.
        extra: what selection cuts may ask for and the schema does not keep (`instrument`, `targettype`).
        label_source: where the labels came from: `header`, `table` (HDU 2) or `catalogue`.
        has_ivar: False where the survey gives none: `ivar` says nothing then, and there is no S/N.
        impossible: label -> what was given and no object can have; see `sift`.
        flux_unit: as astropy reads it, such as `1e-17 erg / (Angstrom s cm2)`, or `relative`; None is the survey's.
        flux_scale: the physical flux is flux x flux_scale, in `flux_unit`.
        wavelength_unit, medium: of the wavelengths as a reader gives them: a name of `ingest.surveys.wavelengths`,
            and `vacuum` or `air`.
        wave_source: what the wavelengths were in the file, where they were converted: `nm`, `air`, `nm, air`.
        remarks: what the summary of a job should say of it, in words that follow "of so many samples"; see `told`.
        fit: what the file tells of the fit behind labels that a catalogue may give, too; None where it does not.
        frame: of the wavelengths: `observed`, or `rest` where the file has divided them by 1 + z.
        velocity: km/s, heliocentric or barycentric; rest-frame wavelengths were divided by 1 + velocity / c. None
            where it is not known, or the frame is observed.
        lsf_sigma: float32 `(N,)`, sigma of the line-spread function, Angstrom, NaN where unknown; None without any.
        units: of further labels, as astropy reads them; may be one dictionary for all spectra of a file.
    """

    object_id: str
    survey: str
    release: str | None
    ra: float
    dec: float
    flux: npt.NDArray[Any]
    ivar: npt.NDArray[Any]
    wavelength: npt.NDArray[Any]
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
    impossible: dict[str, Any] = field(default_factory=dict)
    flux_unit: str | None = None
    flux_scale: float = 1.0
    wavelength_unit: str = "angstrom"
    medium: str = "vacuum"
    wave_source: str | None = None
    frame: str = "observed"
    remarks: tuple[str, ...] = ()
    fit: Fit | None = None
    velocity: float | None = None
    lsf_sigma: npt.NDArray[Any] | None = None
    units: Mapping[str, str] = field(default_factory=dict)

    def told(self) -> tuple[str, ...]:
        """`remarks`, and which labels of a failed fit are missing: a catalogue may have those of another one."""
        if self.fit is None or self.fit.failed is None:
            return self.remarks
        lost = [name for name in self.fit.labels if self.labels.get(name) is None]
        names = " and ".join([", ".join(lost[:-1]), lost[-1]] if lost[1:] else lost)
        verb = "are" if lost[1:] else "is"
        return (*self.remarks, f"{self.fit.failed}: its {names} {verb} not taken") if lost else self.remarks

    def sift(self) -> None:
        """Make missing what no object can have (see the function `sift`), and an error without its value."""
        self.impossible |= sift(self.labels) | sift(self.survey_sn)
        for label in NUMBERS:
            error = label.columns[-1]
            if label.has_error and self.labels.get(label.name) is None and error in self.labels:
                self.labels[error] = None

    def arrays(self) -> Arrays:
        """Its pixels; views."""
        known = Arrays(self.flux, self.ivar if self.has_ivar else None, self.wavelength, self.mask)
        return known.with_lsf(self.lsf_sigma)

    def good(self) -> BoolArray:
        """`good_pixels`: bool `(N,)`."""
        return self.arrays().good()

    def sn_survey(self) -> float | None:
        """`survey_sn_of` its survey's values."""
        return survey_sn_of(self.survey_sn)

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

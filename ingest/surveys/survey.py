"""What is known of a survey, said beside its reader, and the registry of all surveys.

    register(Survey("mysurvey", (Reader(recognise, read),), keys=("star_id",)))

A module of another package does the same, and names itself as an entry point:

    [project.entry-points."specshards.surveys"]
    mysurvey = "my_package.mysurvey"
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError, UsageError
from specshards.common.registry import Registry
from specshards.common.spectrum import Spectrum
from specshards.ingest.limits import MOST_BYTES
from specshards.ingest.surveys.addresses import Addresses

#: The window of optical spectra, Angstrom: that of a picture by default (`render.ImageConfig.window`).
OPTICAL = (3536.7, 10413.6)

#: The catalogue of a mock survey, within its folder.
MOCK_CATALOGUE = "mock_catalogue.csv"


@dataclass(frozen=True)
class Reader:
    """A family of file layouts.

    Attributes:
        recognise: the name of the layout of an open file, None for a file of somebody else's. `file` is what `takes`
            says.
        read: of a file, its layout and the name to record of it: a `Spectrum` for each object, a `BadObjectError` for
            each that cannot be used. Raises `BadObjectError` for a whole file.
        takes: which files it is asked of: `fits` (it is given a `FitsFile`), `table` (Parquet and HDF5: a
            `TableFile`), or `text` (CSV and other text, VOTable, npz: an `ingest.plain.PlainTable`).
        survey_of: whose spectra a recognised file holds, where the layout is of no one survey.
        most_bytes: how large a FITS file may be, uncompressed, unless the user allows more.
    """

    recognise: Callable[[Any], str | None]
    read: Callable[[Any, str, str], Iterator[Spectrum | BadObjectError]]
    takes: Literal["fits", "table", "text"] = "fits"
    survey_of: Callable[[Any], str] | None = None
    most_bytes: int = MOST_BYTES


@dataclass(frozen=True)
class Unsaid:
    """Where the labels of a survey's catalogues say nothing, as other columns of the row tell.

    Attributes:
        columns: what it looks at, in lower case; the labels are among them.
        where: of those that there are, float64 `(n,)` by name, NaN = missing: a column of labels -> bool `(n,)`, the
            rows in which it says nothing.
        doubt: of the names of those that there are, what is to be said of objects whose file does not tell, either
            (`Spectrum.fit`), in words that follow "of so many samples"; None for nothing.
        again: of the same columns, the rows that repeat another row's object and are left out, bool `(n,)`; None for
            none.
    """

    columns: tuple[str, ...]
    where: Callable[[Mapping[str, npt.NDArray[np.float64]]], Mapping[str, npt.NDArray[np.bool_]]]
    doubt: Callable[[Collection[str]], str | None] = lambda names: None
    again: Callable[[Mapping[str, npt.NDArray[np.float64]]], npt.NDArray[np.bool_] | None] = lambda columns: None


@dataclass(frozen=True)
class Survey:
    """A survey.

    Attributes:
        name: what `SURVEY=` and `--survey` take, and the column `survey`.
        readers: of its files, in the order in which they are asked.
        keys: columns of its catalogues that name the object, in lower case, in the order of preference.
        aliases: label columns of its catalogues, in lower case -> ours, beside the usual spellings.
        unsaid: where those labels say nothing.
        labels: further labels that its readers give, or its catalogues have: name in lower case -> unit, or "". They
            are kept without `--labels`.
        flux_unit: of its spectra, as astropy reads it; `RELATIVE` where flux is not calibrated. None: not known.
        cuts: selection cuts by name, as `--where` takes them.
        columns: what its readers put into `Spectrum.extra` for cuts, and whether that is text or a number.
        programmes: other names of it in the column `survey` of tables.
        table_evidence: how sure it is that a table without `survey` is its own, by the column names in lower case; 0
            is not at all, and the surest survey has it.
        companions: of a file's name, those of other files in its folder that a reader may open with it.
        addresses: where it publishes a spectrum, for `specshards ingest download`.
        mock: writes a mock survey with its catalogue `MOCK_CATALOGUE`: given the folder, number of files, seed and
            number of processes (None: all cores).
        parts: of a joint data set, the surveys that it is merged from; it has no readers.
        priority: the readers of a higher one are asked first; those of equal ones as they were registered.
        default_image: fields of `render.ImageConfig` that suit its spectra, where a user does not say them, such as
            `{"window": (15100.0, 17000.0), "block": 2}`. Without a window it is that of the spectra themselves.
    """

    name: str
    readers: tuple[Reader, ...] = ()
    keys: tuple[str, ...] = ("object_id",)
    aliases: Mapping[str, str] = field(default_factory=dict)
    unsaid: Unsaid | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    flux_unit: str | None = None
    cuts: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, Literal["text", "number"]] = field(default_factory=dict)
    programmes: tuple[str, ...] = ()
    table_evidence: Callable[[Mapping[str, str]], int] = lambda names: 0
    companions: Callable[[str], tuple[str, ...]] | None = None
    addresses: Addresses | None = None
    mock: Callable[[Path, int, int, int | None], object] | None = None
    parts: tuple[str, ...] = ()
    priority: int = 0
    default_image: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the fields."""
        if bool(self.readers) == bool(self.parts):
            raise UsageError(f"SURVEY={self.name}: needs either readers or parts")

    @property
    def origin(self) -> str:
        """Where its first reader was defined."""
        read = self.readers[0].read if self.readers else None
        return f"{getattr(read, '__module__', self.name)}.{getattr(read, '__qualname__', '')}"


SURVEYS: Registry[Survey] = Registry(
    "SURVEY",
    "specshards.surveys",
    [
        *(
            f"specshards.ingest.surveys.{name}"
            for name in (
                *("lamost", "sdss", "desi", "slomost", "apogee", "galah", "gaia", "vandels"),
                *("sixdfgs", "twodf", "aaomega", "deep2", "mastar", "miles", "stelib", "eso", "hst", "jwst"),
            )
        ),
        "specshards.ingest.generic.images",
        "specshards.ingest.generic.tables",
        "specshards.ingest.generic.specutils",
    ],
)


def register(survey: Survey) -> Survey:
    """Make a survey known under its name.

    Raises:
        UsageError: another survey has the name.
    """
    return SURVEYS.register(survey.name)(survey)


def with_files() -> list[Survey]:
    """The surveys that have files of their own: all but the joint ones."""
    return [survey for survey in SURVEYS.values() if survey.readers]


def check_survey(name: str | None) -> None:
    """UsageError when there is no reader for a survey; None stands for any."""
    if name is None or (name in SURVEYS and SURVEYS[name].readers):
        return
    if name in SURVEYS:
        raise UsageError(f"SURVEY={name} is {' and '.join(SURVEYS[name].parts)}; read one of them at a time")
    raise UsageError(f"unknown SURVEY={name}: choose {', '.join(sorted(survey.name for survey in with_files()))}")


def foreign(survey: str | None) -> str:
    """How the reason ends for which a part of a joint survey sets an object of another part aside."""
    return f", not of {survey}"


def survey_of(name: str | None) -> Survey | None:
    """The survey that a column `survey` names, mock or not; None for one that is not known."""
    return SURVEYS.get((name or "").removeprefix("mock-"))

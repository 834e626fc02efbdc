"""One reader per family of file layouts, chosen by what is in the file, never by its name or release.

A reader is a module with

    SURVEY: str                                   whose files these are
    recognise(file) -> str | None                 which of its layouts this is
    read(file, layout, source_file)               yields a Spectrum for each object in the file, and a BadObjectError
                                                  for each that cannot be used; raises BadObjectError for a whole file

where `file` is a `FitsFile` or, for the readers of `TABLES`, a `TableFile`. A table may hold any survey's spectra, so
those readers also have

    survey_of(file) -> str                        whose spectra these are, or `unknown`

To add a survey, write the module and name it below; `docs/bring-your-own-survey.md` has an example of thirty lines.

    lamost                  LAMOST low-resolution spectra, two image layouts and the table layout
    sdss                    SDSS, BOSS and eBOSS `spec` and `spec-lite` files
    sdss_legacy             `spSpec` files of SDSS DR1 to DR7
    desi                    DESI coadds and the redrock files beside them
    multimodal_universe     Parquet and HDF5 tables of MultimodalUniverse
    common                  what every reader needs: missing values, grids, the last checks

From a survey's name to its Parquet leads `ingest.job.survey`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from specshards.common.errors import BadObjectError, UsageError, is_environment
from specshards.common.spectrum import Spectrum
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.surveys import desi, lamost, multimodal_universe, sdss, sdss_legacy
from specshards.ingest.tables import TableFile


class Reader(Protocol):
    """What a module of this package offers."""

    SURVEY: str

    def recognise(self, file: Any) -> str | None:
        """The layout of an open file, or None for one of somebody else's."""

    def read(self, file: Any, layout: str, source_file: str) -> Iterator[Spectrum | BadObjectError]:
        """Every object of the file."""


class TableReader(Reader, Protocol):
    """What a module for tables offers besides."""

    def survey_of(self, file: TableFile) -> str:
        """Whose spectra a recognised table holds."""


_AReader = TypeVar("_AReader", bound=Reader)

FITS: tuple[Reader, ...] = (lamost, sdss, sdss_legacy, desi)
TABLES: tuple[TableReader, ...] = (multimodal_universe,)
SUFFIXES = (".fits", ".fit", ".fits.gz", ".fit.gz", ".parquet", ".hdf5", ".h5")
SURVEYS = tuple(sorted({reader.SURVEY for reader in FITS}))


@dataclass
class Opened:
    """One input file, recognised: its layout and its objects.

    Attributes:
        survey, layout: of the reader that knows it.
        file: what `read` reads from; its `parser` says, afterwards, who parsed it.
    """

    survey: str
    layout: str
    file: Any
    reader: Reader
    source_file: str

    @property
    def parser(self) -> str:
        """`direct`, `astropy`, `parquet` or `hdf5`: what has parsed the file so far."""
        return str(self.file.parser)

    def objects(self) -> Iterator[Spectrum | BadObjectError]:
        """Every object: a spectrum, or why it is none.

        Raises:
            BadObjectError: the whole file is unusable. OSError: the environment (permission), not the file.
        """
        try:
            for item in self.reader.read(self.file, self.layout, self.source_file):
                if isinstance(item, BadObjectError):
                    item.layout = item.layout or self.layout
                yield item
        except Exception as error:
            raise _blamed(error, self.layout) from (error.__cause__ or error)


def companions(name: str) -> tuple[str, ...]:
    """Paths of other files that a reader may open together with the file `name` (relative paths, as given)."""
    folder, _, file = name.rpartition("/")
    return tuple(f"{folder}/{other}".lstrip("/") for other in desi.companions(file))


def check_survey(survey: str | None) -> None:
    """UsageError when there is no reader for `survey`; None stands for any."""
    if survey is not None and survey not in SURVEYS:
        raise UsageError(f"unknown SURVEY={survey}: choose {', '.join(SURVEYS)}")


def open_file(path: Path, survey: str | None = None, source_file: str | None = None) -> Opened:
    """Open a survey file and tell what it is.

    Args:
        survey: refuse files of any other survey; None takes whatever is known.
        source_file: what to record as provenance (the path by default).

    Raises:
        BadObjectError: damaged, empty or foreign; the reason is one line. OSError: the environment (permission).
    """
    try:
        opened = _open(path, survey, source_file or str(path))
    except Exception as error:
        raise _blamed(error, None) from (error.__cause__ or error)
    if survey is not None and survey != opened.survey.removeprefix("mock-"):
        reason = f"a {opened.survey} file ({opened.layout}) in a {survey} run"
        raise BadObjectError(reason, layout=opened.layout)
    return opened


def _open(path: Path, survey: str | None, source_file: str) -> Opened:
    with path.open("rb", buffering=0) as raw:
        head = raw.read(8)
        if not TableFile.starts_as_table(head):
            fits = FitsFile.read(raw, head, path)
            reader, layout = _recognised(fits, FITS)
            return Opened(reader.SURVEY, layout, fits, reader, source_file)
    table = TableFile.open(path)
    table.survey = survey
    table_reader, layout = _recognised(table, TABLES)
    return Opened(table_reader.survey_of(table), layout, table, table_reader, source_file)


def _recognised(file: FitsFile | TableFile, readers: Sequence[_AReader]) -> tuple[_AReader, str]:
    for reader in readers:
        layout = reader.recognise(file)
        if layout is not None:
            return reader, layout
    raise BadObjectError(f"no known layout: {describe(file)}")


def read_file(path: Path, survey: str | None = None, source_file: str | None = None) -> Spectrum:
    """Read the one spectrum of a file; arguments and errors as of `open_file`.

    Raises:
        BadObjectError: the file or its object is unusable, or it holds several.
    """
    objects = list(open_file(path, survey, source_file).objects())
    if len(objects) != 1:
        raise BadObjectError(f"holds {len(objects)} spectra, not one")
    if isinstance(objects[0], BadObjectError):
        raise objects[0]
    return objects[0]


def describe(file: FitsFile | TableFile) -> str:
    """What is in a file that no reader knows, in a few words."""
    if isinstance(file, TableFile):
        names = sorted(file.names)
        return f"{file.parser} of {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
    parts = []
    for index in range(min(len(file), 6)):
        hdu = file[index]
        name = str(hdu.header.get("EXTNAME") or ("PRIMARY" if index == 0 else f"HDU {index}")).strip()
        if hdu.names:
            shown = sorted(hdu.names)[:4]
            parts.append(f"{name} table of {', '.join(shown)}{', ...' if len(hdu.names) > 4 else ''}")
        else:
            parts.append(f"{name} {'x'.join(map(str, hdu.shape)) or 'without data'}")
    return "; ".join(parts) + ("; ..." if len(file) > 6 else "")


def _blamed(error: Exception, layout: str | None) -> BadObjectError:
    """What a damaged file makes the parser raise, as that one file's fault; the environment's fault is raised."""
    if isinstance(error, BadObjectError):
        error.layout = error.layout or layout
        return error
    if is_environment(error):
        raise error
    detail = " ".join(str(error).split()) or "no detail"
    return BadObjectError(f"unreadable file: {type(error).__name__}: {detail[:200]}", layout=layout)

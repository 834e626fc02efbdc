"""Surveys: what is known of each, and its files opened by what is in them, never by name or release.

A survey is a module that registers a `Survey` beside the functions that read its files; nothing else knows it by
name. `docs/bring-your-own-survey.md` has an example of thirty lines, also for another package.

    survey                  `Survey`, `Reader`, and the registry `SURVEYS`
    lamost                  LAMOST low-resolution spectra, two image layouts and the table layout
    lamost_mrs              LAMOST medium-resolution spectra, two arms
    sdss                    SDSS, BOSS and eBOSS `spec` and `spec-lite` files
    sdss_legacy             `spSpec` files of SDSS DR1 to DR7
    sdss_plate              `spPlate` files, every fibre of a plate, and `spZbest` beside them
    sdss_others             images of one object; templates and fits, which are no observations
    sdss_astra              stars of SDSS-V, BOSS and APOGEE (`mwmStar`, `mwmVisit`)
    sdss_rows               a row of SDSS's redshifts: labels, ids, what is no object
    elodie                  Teff, log g and [Fe/H] of SDSS stars
    desi                    DESI coadds and exposures, three arms
    desi_columns            coadds of the early release, one row a pixel
    desi_labels             the redrock files beside them
    slomost                 SDSS and LAMOST, merged
    apogee                  APOGEE apStar, aspcapStar and apVisit files
    galah                   the four arms of GALAH spectra
    gaia                    sampled XP and RVS spectra of Gaia
    multimodal_universe     Parquet and HDF5 tables of MultimodalUniverse, of any survey
    mmu_columns             what the columns of such a table are called
    mmu_extras              what these tables hold besides: frames, velocities, line-spread functions
    sixdfgs                 6dFGS
    twodf                   2dFGRS
    aaomega                 frames of 2dfdr
    deep2                   DEEP2 and DEEP3 spec1d
    mastar, miles, stelib   stellar libraries
    eso, hst, jwst          phase 3 and XQR-30; STIS and COS; NIRSpec, NIRISS, NIRCam and MIRI
    errors                  which column holds the errors of a flux
    axis                    wavelengths along an axis of an image, positions of a header
    orders                  the orders of an echelle, joined
    vandels                 VANDELS spectra, text
    flux                    flux and ivar that fit float32, and their unit
    sentinels               fluxes of -999 and the like, which are none
    wavelengths             units of wavelength, air to vacuum
    stated                  what a user states of spectra whose files do not say it
    headers                 what a FITS header says of unit and medium
    lists                   columns of lists as arrays
    further                 further labels of tables of spectra
    spellings               what tables call our labels
    declared                what a table says of its units
    unread                  files that no reader takes: whose they are all the same, or why they are set aside
    common                  what every reader needs: missing values, grids, the last checks
    addresses               what a survey says of where it publishes a spectrum
    lamost_addresses        where LAMOST does
    sdss_addresses          where SDSS does

From a survey's name to its Parquet leads `ingest.job.survey`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from specshards.common.errors import BadObjectError, is_environment
from specshards.common.spectrum import Spectrum
from specshards.common.text import escaped
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.ids import id_text
from specshards.ingest.limits import MOST_BYTES, too_large
from specshards.ingest.listing import open_input
from specshards.ingest.plain import PlainTable
from specshards.ingest.plain.text import GZIP, opened
from specshards.ingest.stems import stem_of
from specshards.ingest.surveys import unread
from specshards.ingest.surveys.multimodal_universe import READER as ANY_TABLE
from specshards.ingest.surveys.multimodal_universe import UNKNOWN
from specshards.ingest.surveys.survey import SURVEYS, Reader, Survey, check_survey, foreign, register, with_files
from specshards.ingest.tables import UNSTATED, Stated, TableFile

__all__ = [
    "SUFFIXES", "SURVEYS", "TEXT_SUFFIXES", "Opened", "Reader", "Survey", "check_survey", "companions_of", "describe",
    "open_file", "read_file", "register", "takes_text",
]  # fmt: skip

Takes = Literal["fits", "table", "text"]
SUFFIXES = (".fits", ".fit", ".fits.gz", ".fit.gz", ".parquet", ".hdf5", ".h5")
#: Of tables of text, VOTables and npz, which a folder may also hold for other reasons.
TEXT_SUFFIXES = tuple(
    f".{name}{end}" for name in ("csv", "tsv", "txt", "dat", "ascii", "asc", "ecsv", "vot", "votable", "xml", "npz")
    for end in ("", ".gz")
)  # fmt: skip


@dataclass
class Opened:
    """One input file, recognised: its layout and its objects.

    Attributes:
        survey, layout: of the reader that knows it.
        file: what `read` reads from; its `parser` says, afterwards, who parsed it.
        only: of a file of several surveys, the one whose objects are wanted; None wants all.
    """

    survey: str
    layout: str
    file: Any
    reader: Reader
    source_file: str
    only: str | None = None

    @property
    def parser(self) -> str:
        """`direct`, `astropy`, `parquet`, `hdf5`, or the kind of a `PlainTable`: what has parsed the file so far."""
        return str(self.file.parser)

    @property
    def is_generic(self) -> bool:
        """Whether it is read as one of nobody known, whose objects may have no name but the file's."""
        return self.survey in SURVEYS and SURVEYS[self.survey].priority < 0

    def objects(self) -> Iterator[Spectrum | BadObjectError]:
        """Every object: a spectrum without the labels that no object can have, or why it is none.

        Raises:
            BadObjectError: the whole file is unusable. OSError: the environment (permission), not the file.
        """
        try:
            for item in self.reader.read(self.file, self.layout, self.source_file):
                if isinstance(item, BadObjectError):
                    item.layout = item.layout or self.layout
                    yield item
                elif self.only is not None and item.survey != self.only:
                    reason = f"of {item.survey}{foreign(self.only)}"
                    yield BadObjectError(reason, layout=self.layout, row=item.row, selected_out=True)
                else:
                    item.sift()
                    yield _named(item)
        except Exception as error:
            raise _blamed(error, self.layout) from (error.__cause__ or error)


def _named(spectrum: Spectrum) -> Spectrum | BadObjectError:
    """`spectrum` when its id is one, exact text, whatever reader it is from."""
    if spectrum.object_id == stem_of(spectrum.source_file):
        return spectrum  # the name of a file is one whatever it is: nan.csv, 1.0.csv
    try:
        name = id_text(spectrum.object_id, "object_id")
        if name is None:
            raise BadObjectError("no object_id")
    except BadObjectError as error:
        error.layout, error.row = spectrum.layout, spectrum.row
        return error
    spectrum.object_id = name
    return spectrum


def companions_of() -> Callable[[str], list[str]]:
    """A function that, of a file's path, gives those of other files that a reader may open together with it.

    It asks the surveys that are known now: looking them up takes longer than asking, and there are millions of files.
    """
    finders = [survey.companions for survey in SURVEYS.values() if survey.companions is not None]

    def find(name: str) -> list[str]:
        folder, _, file = name.rpartition("/")
        return [f"{folder}/{other}".lstrip("/") for finder in finders for other in finder(file)]

    return find


def open_file(
    path: Path,
    survey: str | None = None,
    source_file: str | None = None,
    stated: Stated = UNSTATED,
    most_bytes: int | None = None,
    parts: Sequence[str] = (),
) -> Opened:
    """Open a survey file and tell what it is.

    Args:
        survey: refuse files of any other survey; None takes whatever is known.
        source_file: what to record as provenance (the path by default, `escaped`).
        stated: what the user says of the wavelengths of tables.
        most_bytes: how large a FITS file may be, uncompressed; by default as its layout says.
        parts: of the joint survey that `survey` is a part of: what is of the others alone is refused as
            `selected_out`, and a table must say itself whose it is. One that holds several parts is opened.

    Raises:
        BadObjectError: damaged, empty, foreign or too large; the reason is one line. OSError: the environment.
    """
    try:
        opened = _open(path, None if parts else survey, source_file or escaped(str(path)), stated, most_bytes)
    except Exception as error:
        raise _blamed(error, None) from (error.__cause__ or error)
    if survey is None or survey == opened.survey.removeprefix("mock-"):
        return opened
    whose = {name.removeprefix("mock-") for name in opened.survey.split(" and ")}
    if whose <= set(parts):
        if survey in whose:
            return opened
        reason = f"of {' and '.join(sorted(whose))}{foreign(survey)}"
        raise BadObjectError(reason, layout=opened.layout, selected_out=True)
    if parts and whose == {UNKNOWN}:
        reason = f"does not say whether it is of {' or '.join(parts)}: give the table a column survey"
        raise BadObjectError(reason, layout=opened.layout)
    if survey in whose:
        opened.only = survey
        return opened
    known = sorted(whose & set(SURVEYS))
    mend = f"; SURVEY={known[0]} reads it" if known else ""
    raise BadObjectError(f"a {opened.survey} file ({opened.layout}) in a {survey} run{mend}", layout=opened.layout)


def _open(path: Path, survey: str | None, source_file: str, stated: Stated, most_bytes: int | None) -> Opened:
    file: FitsFile | TableFile | PlainTable
    takes: Takes
    with open_input(path) as raw:
        head = raw.read(8)
        if TableFile.starts_as_table(head):
            file, takes = TableFile.open(path), "table"
        elif _is_plain(path, head):
            file, takes = PlainTable.open(path, most_bytes or MOST_BYTES), "text"
        else:
            file, takes = FitsFile.read(raw, head, path, most_bytes or MOST_BYTES), "fits"
    file.stated = stated
    if not isinstance(file, FitsFile):
        file.survey = survey
    for name, reader in _readers(takes):
        layout = reader.recognise(file)
        if layout is not None:
            if isinstance(file, FitsFile) and SURVEYS[name].priority < 0 and survey != name:
                _refuse_damaged(file, layout, name)
            limit = most_bytes or reader.most_bytes
            if isinstance(file, FitsFile) and len(file.content) > limit:
                raise too_large("it has", limit, layout)
            return Opened(reader.survey_of(file) if reader.survey_of else name, layout, file, reader, source_file)
    if takes == "text":  # hardly ever a spectrum: a list, a catalogue, a log
        names = () if isinstance(file, FitsFile) else file.names
        if any(name.strip().lower().startswith("freq") for name in names):
            raise BadObjectError(
                "frequencies are not read: write wavelengths in their place; see docs/any-spectrum.md",
                selected_out=True,
            )
        raise BadObjectError(
            f"a table without wavelengths: a catalogue? give it with --catalog. It is {describe(file)}; "
            "see docs/any-spectrum.md",
            selected_out=True, kind="a table without wavelengths: a catalogue? give it with --catalog",
        )  # fmt: skip
    if not isinstance(file, PlainTable) and (why := unread.no_spectra(file)) is not None:
        raise BadObjectError(why, selected_out=True)
    mend = "; see docs/any-spectrum.md"
    if takes == "fits" and find_spec("specutils") is None:
        mend += '; specutils may know it: pip install "specshards[specutils]"'
    raise BadObjectError(f"no known layout: {describe(file)}{mend}")


def _refuse_damaged(file: FitsFile, layout: str, name: str) -> None:
    """BadObjectError for a file of a survey that is read here, which a reader of nobody's spectra would take."""
    if (found := unread.whose(file)) is None:
        return
    survey, evidence = found
    raise BadObjectError(
        f"evidently of {survey} ({evidence}), but no file that its reader takes: damaged, or another product? It is "
        f"{describe(file)}; SURVEY={name} takes it as a spectrum of nobody known",
        layout=layout, kind=f"evidently of {survey}, but no file that its reader takes: damaged, or another product?",
    )  # fmt: skip


def _is_plain(path: Path, head: bytes) -> bool:
    """Whether a file is opened as a plain table: neither FITS, Parquet nor HDF5 by its first bytes, nor by its name.

    What is called FITS and is none is a damaged file, not a table.
    """
    if path.name.lower().endswith(SUFFIXES) or head.startswith(b"SIMPLE"):
        return False
    if not head.startswith(GZIP):
        return True
    with opened(path, MOST_BYTES) as unpacked:
        return not unpacked.read(6).startswith(b"SIMPLE")


def takes_text(survey: str | None) -> bool:
    """Whether files of text are to be looked at for a survey; None stands for any."""
    surveys = with_files() if survey is None else [SURVEYS[survey]]
    return any(reader.takes == "text" for one in surveys for reader in one.readers)


def _readers(takes: Takes) -> list[tuple[str, Reader]]:
    """The readers and their surveys, in the order in which they are asked; tables of any survey come first."""
    readers = [(0, "", ANY_TABLE)] if takes == "table" else []
    for survey in with_files():
        readers += [(survey.priority, survey.name, one) for one in survey.readers if one.takes == takes]
    return [(name, reader) for _, name, reader in sorted(readers, key=lambda item: -item[0])]


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


def describe(file: FitsFile | TableFile | PlainTable) -> str:
    """What is in a file that no reader knows, in a few words."""
    if not isinstance(file, FitsFile):
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

"""Files that no survey's reader takes: whose they are all the same, or why they hold no spectra.

What is evidently a survey's and not what its reader takes is damaged, or another of its products: a reader of spectra
of nobody known would give it another medium, or no errors. It is refused, unless a user asks for that reader.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.surveys.common import number, text
from specshards.ingest.surveys.survey import with_files
from specshards.ingest.tables import TableFile

CATALOGUE = "a catalogue, no spectra: give it with --catalog"
_TEMPLATES = "templates of stellar populations, not observations"
_STACK = "the mean of many objects' spectra, not an observation of one"

#: Images of GALAH that no other survey has beside its flux, and where its arms begin, Angstrom.
_GALAH = re.compile(r"(?i)input_sigma|no_sky\w*|relative_error|teluric|scattered|cross_talk|resolution_profile")
_ARMS = ((4_600.0, 4_850.0), (5_500.0, 5_800.0), (6_350.0, 6_650.0), (7_400.0, 7_800.0))
_DESI = re.compile(r"[BRZ]_(WAVELENGTH|FLUX|IVAR|MASK|RESOLUTION)|BRZ_(WAVELENGTH|FLUX|IVAR)")
_TELESCOPES = {"SDSS 2.5": "sdss", "LAMOST": "lamost", "GUOSHOUJING": "lamost"}
_SDSS = {"loglam", "and_mask", "or_mask", "wdisp"}
#: Columns of pixels; a table with any of them is none of labels alone.
_PIXELS = re.compile(r"flux|ivar|wave(length)?|wl|lambda|loglam|lam|model|and_?mask|or_?mask|spectrum|spec")
_POSITIONS = {"ra", "dec", "target_ra", "target_dec"}


def whose(file: FitsFile) -> tuple[str, str] | None:
    """The survey that a file is evidently of, and what says so; None where nothing does."""
    header = file[0].header
    extensions = [(text(file[i].header.get("EXTNAME")) or "") for i in range(len(file))]
    start = number(header.get("CRVAL1"))
    if start is not None and any(low < start < high for low, high in _ARMS):
        if found := next((name for name in extensions if _GALAH.fullmatch(name)), None):
            return "galah", f"an image {found} and an axis from {start:g} Angstrom"
        instrument = text(header.get("INSTRUME")) or ""
        if instrument.upper().startswith("HERMES-2DF"):  # there is another HERMES, at the Mercator telescope
            return "galah", f"INSTRUME {instrument} and an axis from {start:g} Angstrom"
    telescope = text(header.get("TELESCOP")) or ""
    is_star = (text(header.get("OBJID")) or "").startswith(("2M", "AP"))
    if is_star and (header.get("NVISITS") is not None or telescope.lower() in ("apo25m", "lco25m")):
        return "apogee", f"OBJID {text(header.get('OBJID'))}"
    if found := next((name for name in extensions if _DESI.fullmatch(name)), None):
        return "desi", f"an image {found}"
    survey = next((name for start, name in _TELESCOPES.items() if telescope.upper().startswith(start)), None)
    if survey is not None:
        return survey, f"TELESCOP {telescope}"
    if any(name in ("COADD_B", "COADD_R") for name in extensions):
        return "lamost", "an extension COADD of LAMOST's medium resolution"
    if any(len(_SDSS & file[i].names) >= 2 for i in range(1, min(len(file), 3))):
        return "sdss", "columns loglam and and_mask, or their like"
    return None


def no_spectra(file: FitsFile | TableFile) -> str | None:
    """Why a file that no reader takes is to be set aside; None where it may be a damaged spectrum."""
    if isinstance(file, TableFile):
        return CATALOGUE if _is_catalogue([name.lower() for name in file.schema.names]) else None
    if whose(file) is not None:
        return None
    hdus = [file[i] for i in range(len(file))]
    tables = [hdu for hdu in hdus if hdu.names]
    has_images = any(not hdu.names and len(hdu.shape) for hdu in hdus)
    if tables and not has_images:
        return CATALOGUE if all(_is_catalogue(hdu.names) for hdu in tables) else None
    if any(hdu.names >= {"age", "mstar"} for hdu in tables):
        return _TEMPLATES
    return _STACK if any(hdu.names >= {"nallobj", "nobj"} for hdu in tables) else None


def _is_catalogue(names: Collection[str]) -> bool:
    """Whether columns (in lower case) name objects, and none of them is of pixels."""
    keys = {key for survey in with_files() for key in survey.keys} | _POSITIONS
    return bool(keys & set(names)) and not any(_PIXELS.fullmatch(name) for name in names)

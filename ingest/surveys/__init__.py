"""One reader per family of file layouts, chosen by what is in the file, never by its name or release.

A reader is a module with

    recognise(hdus: HDUList) -> str | None      which of its layouts this is
    read(hdus: HDUList, layout: str, source_file: str) -> Spectrum
        raises BadObjectError with a one-line reason

To add a survey, write the module and name it in `SURVEYS`.
"""

from __future__ import annotations

import gzip
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

from astropy.utils.exceptions import AstropyUserWarning

from ingest.errors import BadObjectError, UsageError, is_environment
from ingest.schema import Spectrum
from ingest.surveys import lamost, sdss

SURVEYS: dict[str, ModuleType] = {"lamost": lamost, "sdss": sdss}
SUFFIXES = (".fits", ".fit", ".fits.gz", ".fit.gz")


def reader(survey: str) -> ModuleType:
    """The reader module of `survey`; UsageError when there is none."""
    try:
        return SURVEYS[survey]
    except KeyError:
        raise UsageError(f"unknown SURVEY={survey}: choose {' or '.join(sorted(SURVEYS))}") from None


def identify(hdus: Any) -> tuple[str, str] | None:
    """`(survey, layout)` of an open FITS file by its structure, or None for a foreign file."""
    for survey, module in SURVEYS.items():
        layout = module.recognise(hdus)
        if layout is not None:
            return survey, layout
    return None


def read_file(path: Path, survey: str | None = None, source_file: str | None = None) -> Spectrum:
    """Read one spectrum from a survey file.

    Args:
        survey: refuse files of any other survey; None takes whatever is known.
        source_file: what to record as provenance (the path by default).

    Raises:
        BadObjectError: damaged, empty, foreign or unusable; the reason is one line.
        OSError: the environment (permission), not the file.
    """
    try:
        return _read(path, survey, source_file or str(path))
    except BadObjectError:
        raise
    except AstropyUserWarning as error:
        raise BadObjectError("file cut short: fewer bytes than its headers promise") from error
    except Exception as error:
        if is_environment(error):
            raise
        # Anything else a damaged file makes the FITS layer raise is that one file's fault.
        detail = " ".join(str(error).split()) or "no detail"
        raise BadObjectError(f"unreadable FITS: {type(error).__name__}: {detail[:200]}") from error


def _read(path: Path, survey: str | None, source_file: str) -> Spectrum:
    from astropy.io import fits

    payload = _payload(path)
    if len(payload) < 2880 or not payload.startswith(b"SIMPLE"):
        raise BadObjectError("empty file" if not payload else "not a FITS file")
    with warnings.catch_warnings():
        # An odd header is no news to the user: what cannot be read from it has a reason of its own.
        warnings.simplefilter("ignore", AstropyUserWarning)
        # A file cut short still opens with only this warning; its missing pixels must not read as data.
        warnings.filterwarnings("error", message=".*may have been truncated.*")
        with fits.open(BytesIO(payload), memmap=False, lazy_load_hdus=False) as hdus:
            known = identify(hdus)
            if known is None:
                raise BadObjectError("no known layout: not a spectrum file of " + " or ".join(SURVEYS))
            found, layout = known
            if survey is not None and found != survey:
                raise BadObjectError(f"a {found} file ({layout}) in a {survey} run", layout=layout)
            spectrum: Spectrum = SURVEYS[found].read(hdus, layout, source_file)
            return spectrum


def _payload(path: Path) -> bytes:
    raw = path.read_bytes()
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadObjectError(f"damaged gzip: {error}") from error

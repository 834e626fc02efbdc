"""How large a file may be: bounds that are checked before anything is allocated.

A few kilobytes can promise terabytes: gzip makes a thousand of one, a sparse file none at all, and a header says what
it likes. What a spectrum needs is known, so what asks for far more is damaged or hostile.
"""

from __future__ import annotations

import math

from specshards.common.errors import BadObjectError, UsageError

#: Bytes of one file without its compression. The largest of one spectrum that is known has 60 MB.
MOST_BYTES = 512 << 20
#: Pixels of one spectrum; an echelle spectrograph's orders in one have some 500,000.
MOST_PIXELS = 1 << 20
#: Spectra of one FITS file; a coadd of DESI has up to some thousands.
MOST_ROWS = 1 << 18
#: Bytes of one header, 80 a card.
MOST_HEADER = 4 << 20
#: Bytes of a footer of Parquet.
MOST_FOOTER = 64 << 20
#: Bytes of a chunk of HDF5, which is unpacked whole.
MOST_CHUNK = 128 << 20
#: What compression can do: deflate makes 1,032 bytes of one, and a filter on top of it some more.
MOST_RATIO = 1 << 13


def parse_size(text: str) -> int:
    """Bytes from text such as `2GB`; UsageError where it is none."""
    from dask.utils import parse_bytes

    try:
        size = float(parse_bytes(text))
    except (ValueError, TypeError):
        size = math.nan
    if not 1 << 20 <= size <= 1 << 50:
        raise UsageError(f"--max-file-size {text}: give a size such as 2GB, 1MB at least")
    return int(size)


def too_large(what: str, limit: int, layout: str | None = None) -> BadObjectError:
    """The error of a file of which `what` more than `limit` bytes."""
    return BadObjectError(f"{what} more than {shown(limit)}; raise --max-file-size", layout=layout)


def shown(size: int) -> str:
    """Bytes for people: `512 MiB`."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB")):
        if size >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size:,} bytes"


def check_array(size: int) -> None:
    """BadObjectError for an array of more bytes than are ever read at once."""
    if size > MOST_BYTES:
        raise BadObjectError(f"an array of {shown(size)}; {shown(MOST_BYTES)} at most are read at once")


def check_pixels(count: int) -> None:
    """BadObjectError for more pixels than a spectrum has."""
    if count > MOST_PIXELS:
        raise BadObjectError(f"{count:,} pixels; a spectrum has {MOST_PIXELS:,} at most")

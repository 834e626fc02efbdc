"""Redshifts of DESI, in a `redrock-*` (in early releases `zbest-*`) file beside that of the spectra.

Source: the DESI data model of `redrock-*.fits` (REDSHIFTS) and of the early `zbest-*.fits` (ZBEST, which has
positions, too).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from specshards.common.errors import BadObjectError
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.limits import MOST_ROWS
from specshards.ingest.listing import beside
from specshards.ingest.surveys.common import error, label, position, said_class, text

#: Columns by which such a table is known, in lower case.
COLUMNS = {"targetid", "z", "spectype", "zwarn"}


class Redshift(NamedTuple):
    """Of one target: its labels, and its position where the table has one (degrees, else NaN)."""

    labels: Mapping[str, Any]
    ra: float = math.nan
    dec: float = math.nan


def companions(name: str) -> tuple[str, ...]:
    """Names that the labels of a coadd may have, in the order of preference."""
    for prefix in ("coadd-", "spectra-"):
        if name.startswith(prefix):
            stem = name.removeprefix(prefix).removesuffix(".gz")
            return tuple(f"{kind}-{stem}{end}" for kind in ("redrock", "zbest") for end in ("", ".gz"))
    return ()


def redshifts(path: Path | None) -> dict[int, Redshift]:
    """By TARGETID, from the file beside a coadd; empty without one.

    Raises:
        BadObjectError: it is unreadable.
    """
    other = None if path is None else beside(path, companions(path.name))
    if other is None:
        return {}
    try:
        table = FitsFile.open(other)[1]
        if table.shape[0] > MOST_ROWS:
            raise BadObjectError(f"{table.shape[0]:,} rows")
        names = ("TARGETID", "Z", "ZERR", "ZWARN", "SPECTYPE", "SUBTYPE")
        columns = [table.column(name) for name in names]
        place = ("TARGET_RA", "TARGET_DEC")
        has_place = {name.lower() for name in place} <= table.names
        places = zip(*map(table.column, place), strict=True) if has_place else [(None, None)] * len(columns[0])
    except (BadObjectError, KeyError, IndexError) as fault:
        raise BadObjectError(f"its labels in {other.name} are unreadable: {fault}") from fault
    if columns[0].dtype.kind not in "iu":
        raise BadObjectError(f"its labels in {other.name} have a TARGETID that is not a column of integers")
    found = {}
    for (targetid, z, z_err, zwarn, kind, subtype), place in zip(zip(*columns, strict=True), places, strict=True):
        labels = {
            "class": said_class(kind), "subclass": text(subtype), "z": label(z), "z_err": error(z_err),
            "zwarning": label(zwarn),
        }  # fmt: skip
        try:
            found[int(targetid)] = Redshift(labels, *position(*place))
        except BadObjectError:  # a position of nowhere is none
            found[int(targetid)] = Redshift(labels)
    return found

"""What a survey says of where it publishes a spectrum, and checked pieces of a path.

Pure functions of one catalogue row. Every piece of a path is a checked number or a plain name, so that no value in a
catalogue can lead out of the folder of downloads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from specshards.common.errors import BadObjectError

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
_DIGITS = re.compile(r"[0-9]{1,20}(\.0*)?")


@dataclass(frozen=True)
class Address:
    """Where one spectrum comes from and goes to.

    Attributes:
        key: the survey's name of the spectrum, for the record.
        path: relative path below the folder of downloads, with `/`.
        url: the address, without a token.
    """

    key: str
    path: str
    url: str


@dataclass(frozen=True)
class Scheme:
    """How the rows of one catalogue become addresses.

    Attributes:
        layout: the way to an address, for the record: `sdss` (plates and fields), `specobjid`, `lamost` (by path),
            `obsid`.
        columns: for each name used here, the catalogue's own spelling of it.
        address: of a row, given under the names used here. Raises `BadObjectError` for a value that is missing, or
            nothing that belongs in a path.
        takes_token: whether the server asks for the user's token.
    """

    layout: str
    columns: Mapping[str, str]
    address: Callable[[Mapping[str, Any]], Address]
    takes_token: bool = False


@dataclass(frozen=True)
class Addresses:
    """Where a survey publishes its spectra.

    Attributes:
        catalogue: what its catalogue is called: `an SDSS catalogue`.
        expected: the columns that name a spectrum, in words.
        scheme: of the columns of a catalogue (name in lower case -> its spelling), the base address (None for the
            survey's server), the release (None for the default), and whether there is a token: the scheme, or None
            where a column is missing. Raises `UsageError` for a release that is none.
        telling: columns that only its catalogues have.
        aliases: other names of columns -> those used here.
    """

    catalogue: str
    expected: str
    scheme: Callable[[Mapping[str, str], str | None, str | None, bool], Scheme | None]
    telling: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)


def plain(row: Mapping[str, Any], name: str) -> str:
    """A value that can stand in a path: letters, digits and `_ . + -`, no dot in front.

    Raises:
        BadObjectError: it is missing or holds anything else.
    """
    value = text_of(row, name)
    if not _PLAIN.fullmatch(value):
        raise BadObjectError(f"{name} = {value[:40]!r}: not a plain name")
    return value


def is_whole(value: str) -> bool:
    """Whether a text is a whole number, as catalogues write it."""
    return _DIGITS.fullmatch(value) is not None


def whole(row: Mapping[str, Any], name: str, least: int, most: int | None = None) -> int:
    """A whole number within limits, from a number or its text.

    Raises:
        BadObjectError: it is missing, not a whole number, or out of the limits.
    """
    value = text_of(row, name)
    if not is_whole(value):
        raise BadObjectError(f"{name} = {value[:40]!r}: not a whole number")
    number = int(value.split(".")[0])
    if number < least or (most is not None and number > most):
        raise BadObjectError(f"{name} = {number}: outside {least} to {most or 'any'}")
    return number


def text_of(row: Mapping[str, Any], name: str) -> str:
    """A value as stripped text.

    Raises:
        BadObjectError: it is missing, or a float that has lost digits.
    """
    value = row.get(name)
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if isinstance(value, float) and value.is_integer():
        if abs(value) >= 2**53:
            raise BadObjectError(f"{name} = {value}: rounded by its float column; give it as text or integer")
        value = int(value)
    result = "" if value is None else str(value).strip()
    if not result or result == "nan":
        raise BadObjectError(f"{name}: no value in this row")
    return result

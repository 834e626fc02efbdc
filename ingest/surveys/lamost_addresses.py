"""Where LAMOST publishes a low-resolution spectrum.

Source: http://www.lamost.org/dr10/v2.0/doc/lr-data-production-description
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from specshards.common.errors import BadObjectError, UsageError
from specshards.ingest.surveys.addresses import Address, Addresses, Scheme, plain, text_of, whole

_COLUMNS = ("obsdate", "planid", "lmjd", "spid", "fiberid")
_RELEASE = re.compile(r"dr([0-9]{1,2})(/v[0-9]+(\.[0-9]+)?)?")
_DEFAULT = "dr10/v2.0"


def scheme(names: Mapping[str, str], base: str | None, release: str | None, token: bool) -> Scheme | None:
    """By obsid when there is a token, else by path where the catalogue has its pieces; see `Addresses.scheme`."""
    published = root(release)  # a wrong release must show before the first file
    by_path = all(name in names for name in _COLUMNS)
    if not by_path and "obsid" not in names:
        return None
    columns = {name: names[name] for name in (*_COLUMNS, "obsid") if name in names}
    if "obsid" in names and (token or not by_path):
        return Scheme("obsid", columns, lambda row: _by_obsid(row, base or published), takes_token=True)
    files = base or f"{published}/sas/fits"
    return Scheme("lamost", columns, lambda row: _by_path(row, files))


def _by_path(row: Mapping[str, Any], files: str) -> Address:
    name = path(row)
    key = str(row["obsid"]) if row.get("obsid") is not None else name.rsplit("/", 1)[1].split(".")[0]
    return Address(key, name, f"{files}/{quote(name)}")


def _by_obsid(row: Mapping[str, Any], server: str) -> Address:
    obsid = whole(row, "obsid", 1)
    try:
        name = path(row)
    except BadObjectError:
        # The leading digits are the plate's: one folder a plate keeps folders at a few thousand files.
        name = f"{obsid // 100_000}/{obsid}.fits.gz"
    return Address(str(obsid), name, f"{server}/spectrum/fits/{obsid}")


def path(row: Mapping[str, Any]) -> str:
    """Path of a spectrum: `20131111/GAC116N20B1/spec-56608-GAC116N20B1_sp15-092.fits.gz`."""
    day, plan = _day(row, "obsdate"), plain(row, "planid")
    mjd, sp, fiber = whole(row, "lmjd", 1, 99_999), whole(row, "spid", 0, 99), whole(row, "fiberid", 0, 999)
    return f"{day}/{plan}/spec-{mjd}-{plan}_sp{sp:02d}-{fiber:03d}.fits.gz"


def root(release: str | None = None) -> str:
    """Address of a release, such as `dr10/v2.0` (the default) or `dr5/v3`.

    Raises:
        UsageError: no such release.
    """
    release = release or _DEFAULT
    match = _RELEASE.fullmatch(release)
    if match is None or int(match[1]) < 1:
        raise UsageError(f"RELEASE={release}: give a LAMOST release with its version, such as {_DEFAULT}")
    if int(match[1]) < 6:
        return f"https://dr{match[1]}.lamost.org{match[2] or ''}"
    return f"https://www.lamost.org/{release}"


def _day(row: Mapping[str, Any], name: str) -> str:
    """A date as YYYYMMDD, which the folders of LAMOST are named by; its catalogues write YYYY-MM-DD."""
    digits = text_of(row, name)[:10].replace("-", "")
    try:
        if len(digits) != 8 or not digits.isascii():
            raise ValueError
        datetime.datetime.strptime(digits, "%Y%m%d")
    except ValueError:
        raise BadObjectError(f"{name} = {text_of(row, name)[:40]!r}: not a date such as 2013-11-11") from None
    return digits


ADDRESSES = Addresses(
    "a LAMOST catalogue",
    f"obsid, or {', '.join(_COLUMNS)}",
    scheme,
    telling=("obsid",),
    aliases={
        "fiber": "fiberid", "fiber_id": "fiberid", "sp_id": "spid", "plan_id": "planid", "obs_date": "obsdate",
        "obs_id": "obsid",
    },
)  # fmt: skip

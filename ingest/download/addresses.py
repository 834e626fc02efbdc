"""Where the surveys publish a spectrum: from a catalogue row to the survey's own path, and the address of it.

Pure functions of one row. Every piece of a path is a checked number or a plain name, so that no value in a catalogue
can lead out of the folder of downloads.

Sources of the layouts:

- SDSS plates: https://data.sdss.org/datamodel/files/BOSS_SPECTRO_REDUX/RUN2D/spectra/PLATE4/spec.html
- SDSS-V fields: the path definitions of every release, https://sdss-access.readthedocs.io/en/latest/paths.html
  (`specLite` in `data/dr18.cfg`, `dr19.cfg` and `dr20.cfg` of https://github.com/sdss/tree)
- LAMOST: http://www.lamost.org/dr10/v2.0/doc/lr-data-production-description
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from specshards.common.errors import BadObjectError, UsageError
from specshards.ingest.surveys import lamost, sdss

SURVEYS = (lamost.SURVEY, sdss.SURVEY)

#: Reductions of SDSS-I and -II spectra; they lie beside those of BOSS and eBOSS on the server, not among them.
_LEGACY = ("26", "103", "104")
_PLATE = ("plate", "mjd", "fiberid", "run2d")
_FIELD = ("field", "mjd", "catalogid", "run2d")
_LAMOST = ("obsdate", "planid", "lmjd", "spid", "fiberid")
_ALIASES = {
    "fiber": "fiberid", "fiber_id": "fiberid", "fieldid": "field", "catalog_id": "catalogid",
    "specobj_id": "specobjid", "sp_id": "spid", "plan_id": "planid", "obs_date": "obsdate", "obs_id": "obsid",
}  # fmt: skip
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
_DIGITS = re.compile(r"[0-9]{1,20}(\.0*)?")
_SDSS_RELEASE = re.compile(r"dr([0-9]{1,2})")
_LAMOST_RELEASE = re.compile(r"dr([0-9]{1,2})(/v[0-9]+(\.[0-9]+)?)?")
_LAMOST_DEFAULT = "dr10/v2.0"


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
    """How the rows of one catalogue become addresses; made by `choose`.

    Attributes:
        layout: `sdss` (plates and fields) or `specobjid`; `lamost` (by path) or `obsid`.
        columns: for each name used here, the catalogue's own spelling of it.
        base: address that paths are below, without a slash at the end; None for the survey's own server.
        release: the data release, or None for the default one.
    """

    layout: str
    columns: Mapping[str, str]
    base: str | None = None
    release: str | None = None

    def address(self, row: Mapping[str, Any]) -> Address:
        """The address of one row, given under the names used here.

        Raises:
            BadObjectError: a value is missing, or nothing that belongs in a path.
        """
        if self.layout == "obsid":
            return self._by_obsid(row)
        if self.layout == "lamost":
            path, root = lamost_path(row), f"{lamost_root(self.release)}/sas/fits"
            key = str(row["obsid"]) if row.get("obsid") is not None else path.rsplit("/", 1)[1].split(".")[0]
        else:
            path, root, key = self._sdss(row)
        return Address(key, path, f"{self.base or root}/{quote(path)}")

    def _sdss(self, row: Mapping[str, Any]) -> tuple[str, str, str]:
        if self.layout == "specobjid":
            row = split_specobjid(row.get("specobjid"))
        path = sdss_field_path(row) if is_sdss_v(row.get("run2d")) else sdss_plate_path(row)
        return path, sdss_root(plain(row, "run2d"), self.release), path.rsplit("/", 1)[1].removesuffix(".fits")

    def _by_obsid(self, row: Mapping[str, Any]) -> Address:
        obsid = whole(row, "obsid", 1)
        try:
            path = lamost_path(row)
        except BadObjectError:
            # The leading digits are the plate's: one folder a plate keeps folders at a few thousand files.
            path = f"{obsid // 100_000}/{obsid}.fits.gz"
        return Address(str(obsid), path, f"{self.base or lamost_root(self.release)}/spectrum/fits/{obsid}")


def choose(
    survey: str, columns: Sequence[str], *, base: str | None = None, release: str | None = None, token: bool = False
) -> Scheme:
    """The scheme for a catalogue with these columns, in any case.

    LAMOST spectra are fetched by obsid when there is a token, else by path where the catalogue has its pieces.

    Raises:
        UsageError: an unknown survey, a column that is missing, a base or release that is none.
    """
    if survey not in SURVEYS:
        raise UsageError(f"unknown SURVEY={survey}: choose {' or '.join(SURVEYS)}")
    base = None if base is None else check_base(base)
    # The root functions know what a release looks like; a wrong one must show before the first file.
    lamost_root(release) if survey == lamost.SURVEY else sdss_root("26", release)
    names: dict[str, str] = {}
    used: tuple[str, ...]
    for column in columns:
        lower = column.strip().lstrip("#").strip().lower()
        names.setdefault(_ALIASES.get(lower, lower), column)
    if survey == lamost.SURVEY:
        by_path = all(name in names for name in _LAMOST)
        layout, used = ("obsid" if "obsid" in names and (token or not by_path) else "lamost"), (*_LAMOST, "obsid")
        complete = by_path or "obsid" in names
    else:
        complete = all(name in names for name in _PLATE) or all(name in names for name in _FIELD)
        layout, used = ("sdss", (*_PLATE, *_FIELD)) if complete else ("specobjid", ("specobjid",))
        complete = complete or "specobjid" in names
    if not complete:
        raise UsageError(_missing(survey, names, columns))
    return Scheme(layout, {name: names[name] for name in dict.fromkeys(used) if name in names}, base, release)


def _missing(survey: str, names: Mapping[str, str], columns: Sequence[str]) -> str:
    found = ", ".join(columns[:12]) + (", ..." if len(columns) > 12 else "")
    if survey == sdss.SURVEY:
        wanted, other = f"{', '.join(_PLATE)}, or {', '.join(_FIELD)}, or specobjid", "obsid" in names
        mend = "this looks like a LAMOST catalogue: --survey lamost" if other else "add them to the catalogue"
    else:
        wanted, other = f"obsid, or {', '.join(_LAMOST)}", "plate" in names or "specobjid" in names
        mend = "this looks like an SDSS catalogue: --survey sdss" if other else "add them to the catalogue"
    return f"no columns that name a {survey} spectrum: expected {wanted}; found {found}; {mend}"


def check_base(base: str) -> str:
    """A base address, checked and without a slash at the end.

    Raises:
        UsageError: it is no plain http or https address.
    """
    try:
        parts = urlsplit(base)
        plain_web = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        plain_web = False
    if not plain_web or parts.query or parts.fragment or parts.username or not base.isprintable() or " " in base:
        # Not shown: what is wrong may be a password or a token in it.
        raise UsageError("BASE: give an address such as https://data.sdss.org/sas/dr17/eboss/spectro/redux, "
                         "without user name, question mark or token")  # fmt: skip
    return base.rstrip("/")


def is_sdss_v(run2d: object) -> bool:
    """Whether this reduction is one of SDSS-V, whose files are named by field and catalogid."""
    return str(run2d).strip().startswith("v6")


def sdss_plate_path(row: Mapping[str, Any]) -> str:
    """Path of an SDSS-I to -IV spectrum: `26/spectra/lite/0266/spec-0266-51602-0001.fits`.

    `spec-PLATE4-MJD-FIBER4.fits`, both padded to four digits (eBOSS plates pass 9999):
    https://data.sdss.org/datamodel/files/BOSS_SPECTRO_REDUX/RUN2D/spectra/PLATE4/spec.html
    """
    run2d, plate = plain(row, "run2d"), whole(row, "plate", 1, 99_999)
    mjd, fiber = whole(row, "mjd", 1, 99_999), whole(row, "fiberid", 1, 9_999)
    return f"{run2d}/spectra/lite/{plate:04d}/spec-{plate:04d}-{mjd}-{fiber:04d}.fits"


def sdss_field_path(row: Mapping[str, Any]) -> str:
    """Path of an SDSS-V spectrum, by `specLite` of DR18, DR19 and DR20.

    - v6_0_1 to v6_0_4 (DR18): the field unpadded and with a `p` in the folder, the catalogid padded to 11 digits:
      `v6_0_4/spectra/lite/15143p/59205/spec-15143-59205-04544940698.fits`
    - later v6_0 and v6_1 (DR19): the field padded to six digits, the catalogid unpadded:
      `v6_1_3/spectra/lite/015000/59146/spec-015000-59146-4375924756.fits`
    - v6_2 and later (DR20): as DR19, below `daily` and a folder of a thousand fields:
      `v6_2_1/spectra/daily/lite/015XXX/015000/59146/spec-015000-59146-4375924756.fits`

    Fields such as `allepoch` keep their name. https://sdss-access.readthedocs.io/en/latest/paths.html
    """
    run2d, mjd, catalogid = plain(row, "run2d"), whole(row, "mjd", 1, 99_999), whole(row, "catalogid", 1)
    raw = _text(row, "field")
    number = whole(row, "field", 0, 999_999) if _DIGITS.fullmatch(raw) else None
    if run2d in ("v6_0_1", "v6_0_2", "v6_0_3", "v6_0_4"):
        field = plain(row, "field") if number is None else str(number)
        return f"{run2d}/spectra/lite/{field}p/{mjd}/spec-{field}-{mjd}-{catalogid:011d}.fits"
    field = plain(row, "field") if number is None else f"{number:06d}"
    if run2d.startswith(("v6_0", "v6_1")):
        folder = "spectra/lite"
    else:
        folder = f"spectra/daily/lite/{field if number is None else f'{number // 1000:03d}XXX'}"
    return f"{run2d}/{folder}/{field}/{mjd}/spec-{field}-{mjd}-{catalogid}.fits"


def split_specobjid(value: object) -> dict[str, Any]:
    """Plate, mjd, fiberid and run2d out of a specObjID of DR8 to DR17 (a 64-bit number).

    From the top: 14 bits plate, 12 fiberid, 14 mjd - 50000, 14 run2d (vN_M_P as (N - 5) x 10000 + 100 M + P):
    https://pydl.readthedocs.io/en/0.6.0/api/pydl.pydlutils.sdss.sdss_specobjid.html
    """
    number = whole({"specobjid": value}, "specobjid", 1, 2**64 - 1)
    code = number >> 10 & 0x3FFF
    run2d = str(code) if str(code) in _LEGACY else f"v{code // 10_000 + 5}_{code // 100 % 100}_{code % 100}"
    return {
        "plate": number >> 50, "fiberid": number >> 38 & 0xFFF, "mjd": (number >> 24 & 0x3FFF) + 50_000,
        "run2d": run2d,
    }  # fmt: skip


def sdss_root(run2d: str, release: str | None = None) -> str:
    """Address that the SDSS paths of a reduction are below, on the public Science Archive Server.

    Without a release: DR17 for plates, and for SDSS-V the release of the reduction. The tree changed with the
    surveys: `sdss/`, `boss/` (to DR12) and `eboss/spectro/redux` (to DR17), `spectro/sdss|boss/redux` since DR18.

    Raises:
        UsageError: no such release.
    """
    fields = is_sdss_v(run2d)
    newest = "dr18" if run2d.startswith("v6_0") else "dr19" if run2d.startswith("v6_1") else "dr20"
    release = release or (newest if fields else "dr17")
    match = _SDSS_RELEASE.fullmatch(release)
    if match is None or int(match[1]) < 8:
        raise UsageError(f"RELEASE={release}: give an SDSS release such as dr17")
    if int(match[1]) >= 18:
        tree = f"spectro/{'boss' if fields else 'sdss'}/redux"
    elif run2d in _LEGACY:
        tree = "sdss/spectro/redux"
    else:
        tree = f"{'boss' if int(match[1]) <= 12 else 'eboss'}/spectro/redux"
    return f"https://data.sdss.org/sas/{release}/{tree}"


def lamost_path(row: Mapping[str, Any]) -> str:
    """Path of a LAMOST low-resolution spectrum: `20131111/GAC116N20B1/spec-56608-GAC116N20B1_sp15-092.fits.gz`."""
    day, plan = _day(row, "obsdate"), plain(row, "planid")
    mjd, sp, fiber = whole(row, "lmjd", 1, 99_999), whole(row, "spid", 0, 99), whole(row, "fiberid", 0, 999)
    return f"{day}/{plan}/spec-{mjd}-{plan}_sp{sp:02d}-{fiber:03d}.fits.gz"


def lamost_root(release: str | None = None) -> str:
    """Address of a LAMOST release, such as `dr10/v2.0` (the default) or `dr5/v3`.

    Raises:
        UsageError: no such release.
    """
    release = release or _LAMOST_DEFAULT
    match = _LAMOST_RELEASE.fullmatch(release)
    if match is None or int(match[1]) < 1:
        raise UsageError(f"RELEASE={release}: give a LAMOST release with its version, such as {_LAMOST_DEFAULT}")
    if int(match[1]) < 6:
        return f"https://dr{match[1]}.lamost.org{match[2] or ''}"
    return f"https://www.lamost.org/{release}"


def plain(row: Mapping[str, Any], name: str) -> str:
    """A value that can stand in a path: letters, digits and `_ . + -`, no dot in front.

    Raises:
        BadObjectError: it is missing or holds anything else.
    """
    text = _text(row, name)
    if not _PLAIN.fullmatch(text):
        raise BadObjectError(f"{name} = {text[:40]!r}: not a plain name")
    return text


def whole(row: Mapping[str, Any], name: str, least: int, most: int | None = None) -> int:
    """A whole number within limits, from a number or its text.

    Raises:
        BadObjectError: it is missing, not a whole number, or out of the limits.
    """
    text = _text(row, name)
    if not _DIGITS.fullmatch(text):
        raise BadObjectError(f"{name} = {text[:40]!r}: not a whole number")
    number = int(text.split(".")[0])
    if number < least or (most is not None and number > most):
        raise BadObjectError(f"{name} = {number}: outside {least} to {most or 'any'}")
    return number


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if isinstance(value, float) and value.is_integer():
        if abs(value) >= 2**53:
            raise BadObjectError(f"{name} = {value}: rounded by its float column; give it as text or integer")
        value = int(value)
    text = "" if value is None else str(value).strip()
    if not text or text == "nan":
        raise BadObjectError(f"{name}: no value in this row")
    return text


def _day(row: Mapping[str, Any], name: str) -> str:
    """A date as YYYYMMDD, which the folders of LAMOST are named by; its catalogues write YYYY-MM-DD."""
    digits = _text(row, name)[:10].replace("-", "")
    try:
        if len(digits) != 8 or not digits.isascii():
            raise ValueError
        datetime.datetime.strptime(digits, "%Y%m%d")
    except ValueError:
        raise BadObjectError(f"{name} = {_text(row, name)[:40]!r}: not a date such as 2013-11-11") from None
    return digits

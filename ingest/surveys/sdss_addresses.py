"""Where SDSS publishes a spectrum.

Sources:

- plates: https://data.sdss.org/datamodel/files/BOSS_SPECTRO_REDUX/RUN2D/spectra/PLATE4/spec.html
- SDSS-V fields: the path definitions of every release, https://sdss-access.readthedocs.io/en/latest/paths.html
  (`specLite` in `data/dr18.cfg`, `dr19.cfg` and `dr20.cfg` of https://github.com/sdss/tree)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from specshards.common.errors import UsageError
from specshards.ingest.surveys.addresses import Address, Addresses, Scheme, is_whole, plain, text_of, whole

#: Reductions of SDSS-I and -II spectra; they lie beside those of BOSS and eBOSS on the server, not among them.
_LEGACY = ("26", "103", "104")
_PLATE = ("plate", "mjd", "fiberid", "run2d")
_FIELD = ("field", "mjd", "catalogid", "run2d")
_RELEASE = re.compile(r"dr([0-9]{1,2})")


def scheme(names: Mapping[str, str], base: str | None, release: str | None, token: bool) -> Scheme | None:
    """By plate or by field, else by specobjid; see `Addresses.scheme`."""
    root("26", release)  # a wrong release must show before the first file

    def by_names(row: Mapping[str, Any]) -> Address:
        path = field_path(row) if is_sdss_v(row.get("run2d")) else plate_path(row)
        key = path.rsplit("/", 1)[1].removesuffix(".fits")
        return Address(key, path, f"{base or root(plain(row, 'run2d'), release)}/{quote(path)}")

    if all(name in names for name in _PLATE) or all(name in names for name in _FIELD):
        columns = {name: names[name] for name in dict.fromkeys((*_PLATE, *_FIELD)) if name in names}
        return Scheme("sdss", columns, by_names)
    if "specobjid" in names:
        columns = {"specobjid": names["specobjid"]}
        return Scheme("specobjid", columns, lambda row: by_names(split_specobjid(row.get("specobjid"))))
    return None


def is_sdss_v(run2d: object) -> bool:
    """Whether this reduction is one of SDSS-V, whose files are named by field and catalogid."""
    return str(run2d).strip().startswith("v6")


def plate_path(row: Mapping[str, Any]) -> str:
    """Path of an SDSS-I to -IV spectrum: `26/spectra/lite/0266/spec-0266-51602-0001.fits`.

    `spec-PLATE4-MJD-FIBER4.fits`, both padded to four digits (eBOSS plates pass 9999):
    https://data.sdss.org/datamodel/files/BOSS_SPECTRO_REDUX/RUN2D/spectra/PLATE4/spec.html
    """
    run2d, plate = plain(row, "run2d"), whole(row, "plate", 1, 99_999)
    mjd, fiber = whole(row, "mjd", 1, 99_999), whole(row, "fiberid", 1, 9_999)
    return f"{run2d}/spectra/lite/{plate:04d}/spec-{plate:04d}-{mjd}-{fiber:04d}.fits"


def field_path(row: Mapping[str, Any]) -> str:
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
    raw = text_of(row, "field")
    number = whole(row, "field", 0, 999_999) if is_whole(raw) else None
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


def root(run2d: str, release: str | None = None) -> str:
    """Address that the SDSS paths of a reduction are below, on the public Science Archive Server.

    Without a release: DR17 for plates, and for SDSS-V the release of the reduction. The tree changed with the
    surveys: `sdss/`, `boss/` (to DR12) and `eboss/spectro/redux` (to DR17), `spectro/sdss|boss/redux` since DR18.

    Raises:
        UsageError: no such release.
    """
    fields = is_sdss_v(run2d)
    newest = "dr18" if run2d.startswith("v6_0") else "dr19" if run2d.startswith("v6_1") else "dr20"
    release = release or (newest if fields else "dr17")
    match = _RELEASE.fullmatch(release)
    if match is None or int(match[1]) < 8:
        raise UsageError(f"RELEASE={release}: give an SDSS release such as dr17")
    if int(match[1]) >= 18:
        tree = f"spectro/{'boss' if fields else 'sdss'}/redux"
    elif run2d in _LEGACY:
        tree = "sdss/spectro/redux"
    else:
        tree = f"{'boss' if int(match[1]) <= 12 else 'eboss'}/spectro/redux"
    return f"https://data.sdss.org/sas/{release}/{tree}"


ADDRESSES = Addresses(
    "an SDSS catalogue",
    f"{', '.join(_PLATE)}, or {', '.join(_FIELD)}, or specobjid",
    scheme,
    telling=("plate", "specobjid"),
    aliases={
        "fiber": "fiberid", "fiber_id": "fiberid", "fieldid": "field", "catalog_id": "catalogid",
        "specobj_id": "specobjid",
    },
)  # fmt: skip

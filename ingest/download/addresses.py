"""From a catalogue to the addresses of its spectra, as its survey publishes them (`ingest.surveys.addresses`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from specshards.common.errors import UsageError
from specshards.ingest.surveys.addresses import Addresses, Scheme
from specshards.ingest.surveys.survey import SURVEYS


def choose(
    survey: str, columns: Sequence[str], *, base: str | None = None, release: str | None = None, token: bool = False
) -> Scheme:
    """The scheme for a catalogue with these columns, in any case.

    Raises:
        UsageError: an unknown survey, a column that is missing, a base or release that is none.
    """
    published = {name: entry.addresses for name, entry in SURVEYS.items() if entry.addresses is not None}
    if survey not in published:
        raise UsageError(f"unknown SURVEY={survey}: choose {' or '.join(published)}")
    base = None if base is None else check_base(base)
    scheme = published[survey].scheme(_names(columns, published[survey]), base, release, token)
    if scheme is not None:
        return scheme
    mend = "add them to the catalogue"
    for name, addresses in published.items():
        if name != survey and any(column in _names(columns, addresses) for column in addresses.telling):
            mend = f"this looks like {addresses.catalogue}: --survey {name}"
    present = ", ".join(columns[:12]) + (", ..." if len(columns) > 12 else "")
    raise UsageError(
        f"no columns that name a {survey} spectrum: expected {published[survey].expected}; found {present}; {mend}"
    )


def _names(columns: Sequence[str], addresses: Addresses) -> Mapping[str, str]:
    """The survey's names of the columns -> their spelling."""
    names: dict[str, str] = {}
    for column in columns:
        lower = column.strip().lstrip("#").strip().lower()
        names.setdefault(addresses.aliases.get(lower, lower), column)
    return names


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

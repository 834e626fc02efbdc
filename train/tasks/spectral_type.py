"""The coarse spectral type in what surveys write as subclass."""

from __future__ import annotations

import re

TYPES = "OBAFGKMLT"


def spectral_type(subclass: str) -> str | None:
    """The coarse type in a survey's subclass: `F` of `F5`, `dM3` or `A1V`; other kinds by their first word.

    A luminosity prefix (d, g, sd, esd, usd) is dropped. `WD`, `Carbon`, `STARFORMING`, `AGN` and the like are types
    of their own; None for an empty text and for LAMOST's `Non`.
    """
    text = subclass.strip()
    letter = re.match(rf"(?:[ud]?s?d|esd|g)?([{TYPES}])(?=[\d\sIV.:(+/em]|$)", text)
    if letter:
        return letter.group(1)
    word = re.match(r"[A-Za-z]+", text)
    return word.group(0).upper() if word and word.group(0) != "Non" else None

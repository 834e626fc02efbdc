"""The spectra of a file, as a user has them who says what it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.said import Stated
from specshards.ingest.surveys import open_file


def spectra(path: Path, **stated: Any) -> list[Spectrum]:
    """Every spectrum; a bad one is raised."""
    found = []
    for item in open_file(path, stated=Stated(**stated)).objects():
        if isinstance(item, BadObjectError):
            raise item
        found.append(item)
    return found

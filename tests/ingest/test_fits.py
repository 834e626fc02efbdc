"""The direct FITS parser against astropy: on every real file, and on thousands of damaged ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from specshards.common.spectrum import Spectrum
from specshards.ingest.fits.direct import FitsFile, _SurpriseError
from specshards.ingest.surveys import SUFFIXES, open_file
from tests.oracles.oracle import differences, readings

FOLDERS = ("lamost/dr10", "lamost/dr8_repeat_visits", "lamost/dr7_low_sn", "lamost/dr5", "lamost/dr1",
           "sdss/boss_eboss", "sdss/boss_galaxies", "sdss/dr16_lite", "sdss/dr8_galaxies", "sdss/full", "sdss/mixed",
           "sdss/dr7_spSpec", "desi")  # fmt: skip


def objects(path: Path) -> tuple[list[Spectrum], str]:
    opened = open_file(path)
    return [item for item in opened.objects() if isinstance(item, Spectrum)], opened.parser


@pytest.mark.parametrize("parser", ["direct", "astropy"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_real_file_reads_as_astropy_reads_it(
    real_data: Path, folder: str, parser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if parser == "astropy":

        def surprised(self: FitsFile) -> None:
            raise _SurpriseError

        monkeypatch.setattr(FitsFile, "_walk", surprised)
    paths = sorted(p for p in (real_data / folder).rglob("*") if p.name.endswith(SUFFIXES))
    if folder == "desi":
        paths = [p for p in paths if p.name.startswith("coadd-")]
    assert paths
    wrong, parsers = {}, Counter()
    for path in paths:
        spectra, used = objects(path)
        parsers[used] += 1
        expected = readings(path, path)
        found = [differences(s, r) for s, r in zip(spectra, expected, strict=True)]
        if any(found):
            wrong[path.name] = found
    assert not wrong
    assert parsers == {parser: len(paths)}

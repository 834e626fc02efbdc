"""What a header says against its layout makes a bad object; what real headers say does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.surveys import open_file
from tests.oracles.survey_files import FLUX, WAVE, desi_coadd, lamost_image, lamost_table, sdss_spec

SOUND = [
    {}, {"VACUUM": True}, {"AIRORVAC": "vac"}, {"BUNIT": ""}, {"VACUUM": ""}, {"CTYPE1": "LINEAR"},
    {"CTYPE1": "-9999"}, {"BUNIT": "who knows"},
]  # fmt: skip
AIR: list[dict[str, Any]] = [
    {"VACUUM": False},
    {"VACUUM": "F"},
    {"VACUUM": 0},
    {"AIRORVAC": "air"},
    {"CTYPE1": "AWAV"},
]


def lamost(path: Path) -> Path:
    return lamost_image(path, "Flux, Inverse, Wavelength, Andmask, Ormask", WAVE)


WRITERS = {"lamost-image": lamost, "lamost-table": lamost_table, "sdss": sdss_spec, "desi": desi_coadd}
USUAL = {"sdss": "1E-17 erg/cm^2/s/Ang", "desi": "10**-17 erg/(s cm2 Angstrom)"}


def read(path: Path) -> Spectrum | BadObjectError:
    try:
        return next(iter(open_file(path).objects()))
    except BadObjectError as error:
        return error


def changed(path: Path, hdu: int | str, cards: dict[str, Any]) -> Path:
    with fits.open(path, mode="update") as file:
        for key, value in cards.items():
            file[hdu].header[key] = value
    return path


@pytest.mark.parametrize("survey", WRITERS)
@pytest.mark.parametrize("cards", AIR + SOUND, ids=str)
def test_a_header_that_says_air(survey: str, cards: dict[str, Any], tmp_path: Path) -> None:
    path = changed(WRITERS[survey](tmp_path / "x.fits"), "B_WAVELENGTH" if survey == "desi" else 0, cards)
    item = read(path)
    if cards in AIR:
        assert isinstance(item, BadObjectError) and "wavelengths in air" in item.reason
    else:
        assert isinstance(item, Spectrum), item


@pytest.mark.parametrize("survey", WRITERS)
@pytest.mark.parametrize("unit", ["erg/cm^2/s/Ang", "1E-16 erg/cm^2/s/Ang", "Jy", "W/m2/um", "erg/s/cm2/Hz"])
def test_a_header_with_another_unit_of_flux(survey: str, unit: str, tmp_path: Path) -> None:
    hdu = "B_FLUX" if survey == "desi" else 0
    path = changed(WRITERS[survey](tmp_path / "x.fits"), hdu, {"BUNIT": unit})
    item = read(path)
    assert isinstance(item, BadObjectError) and f"BUNIT = {unit!r}" in item.reason
    if survey in USUAL:
        for usual in (USUAL[survey], "1.0E-17 erg/cm/s/Ang"):
            assert isinstance(read(changed(path, hdu, {"BUNIT": usual})), Spectrum)
        assert isinstance(read(changed(path, hdu, {"BUNIT": "ADU"})), BadObjectError)


@pytest.mark.parametrize("survey", ["lamost-table", "sdss"])
def test_a_column_with_another_unit(survey: str, tmp_path: Path) -> None:
    path = WRITERS[survey](tmp_path / "x.fits")
    assert isinstance(read(changed(path, 1, {"TUNIT2": "Jy"})), Spectrum), "of another column"
    item = read(changed(path, 1, {"TUNIT1": "Jy"}))
    assert isinstance(item, BadObjectError) and "TUNIT1 = 'Jy'" in item.reason
    good = {"sdss": USUAL["sdss"]}.get(survey, "relative")
    item = read(changed(path, 1, {"TUNIT1": good}))
    assert isinstance(item, Spectrum)
    np.testing.assert_array_equal(item.flux, FLUX.astype(np.float32))

"""Impossible wavelengths: refused by the reader that sees them, whatever else is right in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import log_grid
from specshards.ingest.surveys import read_file
from specshards.ingest.surveys.common import ANY_GRID, GridLimits, checked
from tests.conftest import make_spectrum
from tests.oracles.survey_files import FLUX, IVAR, WAVE, N, lamost_image, lamost_table, sdss_spec

DR1 = "Flux Inverse Subcontinuum Andmask Ormask"
IMAGE = "Flux, Inverse, Wavelength, Andmask, Ormask"


def sp_spec(path: Path, **header: Any) -> Path:
    """A legacy SDSS file."""
    rows = np.stack([FLUX, FLUX, IVAR**-0.5, np.zeros(N), np.zeros(N)]).astype(">f4")
    hdu = fits.PrimaryHDU(rows)
    hdu.header.update({
        "ARRAY3": "ERROR", "SPEC_CLN": 1, "OBJTYPE": "GALAXY", "PLATEID": 266, "MJD": 51602, "FIBERID": 13,
        "RAOBJ": 146.9, "DECOBJ": -0.7, "Z": 0.1, "Z_ERR": 1e-5, "Z_WARNIN": 0, "NGOOD": N, "COEFF0": 3.5682,
        "COEFF1": 1e-4, **header,
    })  # fmt: skip
    hdu.writeto(path)
    return path


def refused(path: Path) -> None:
    with pytest.raises(BadObjectError, match=r"impossible grid|no COEFF0 and COEFF1"):
        read_file(path)


@pytest.mark.parametrize("coeff1", [1e3, 0.01, 1e-9, 1e-5, 2e-4, -1e-4, 0.0])
def test_impossible_steps(tmp_path: Path, coeff1: float) -> None:
    """The layouts that have their wavelengths from the header, and those that repeat them there."""
    assert read_file(sp_spec(tmp_path / "right.fits")).wave_coeff1 == 1e-4
    refused(lamost_image(tmp_path / "dr1.fits", DR1, np.ones(N), COEFF1=coeff1))
    refused(sp_spec(tmp_path / "spspec.fits", COEFF1=coeff1))
    refused(lamost_image(tmp_path / "image.fits", IMAGE, WAVE, COEFF1=coeff1))
    refused(lamost_table(tmp_path / "table.fits", COEFF1=coeff1))


@pytest.mark.parametrize("coeff0", [0.0, 3.0, 3.55, 3.97, 4.5, 1e3])
def test_impossible_beginnings(tmp_path: Path, coeff0: float) -> None:
    refused(lamost_image(tmp_path / "dr1.fits", DR1, np.ones(N), COEFF0=coeff0))
    refused(lamost_image(tmp_path / "image.fits", IMAGE, WAVE, COEFF0=coeff0))
    refused(lamost_table(tmp_path / "table.fits", COEFF0=coeff0))
    if coeff0 not in (3.55, 3.97):  # 3548 Angstrom, and to 10,230: as BOSS
        refused(sp_spec(tmp_path / "spspec.fits", COEFF0=coeff0))


@pytest.mark.parametrize("scale", [10.0, 1.1, 1.0001, 0.1])
def test_scales_that_contradict_the_coefficients(tmp_path: Path, scale: float) -> None:
    """BSCALE of the image and TSCAL of the column change the wavelengths, and the header knows better."""
    path = lamost_image(tmp_path / "image.fits", IMAGE, WAVE)
    insert(path, 0, "BSCALE", scale)
    refused(path)
    path = lamost_table(tmp_path / "table.fits")
    insert(path, 1, "TSCAL3", scale)
    refused(path)
    path = sdss_spec(tmp_path / "spec.fits")
    insert(path, 1, "TSCAL2", scale)
    refused(path)


def insert(path: Path, index: int, keyword: str, value: float) -> None:
    """Put a card before the END of HDU `index`, without touching the data."""
    content = bytearray(path.read_bytes())
    end = 0
    for _ in range(index + 1):
        end = content.index(b"END".ljust(80), end + 1)
    assert content[end + 80 : end + 160].isspace()
    content[end : end + 160] = f"{keyword:<8}= {value:>20}".ljust(80).encode() + b"END".ljust(80)
    path.write_bytes(content)


def test_an_sdss_spectrum_may_begin_behind_its_grid(tmp_path: Path) -> None:
    """As in real files, where the ends without data are cut off."""
    path = sdss_spec(tmp_path / "spec.fits")
    with fits.open(path, "update") as hdus:
        hdus[0].header["COEFF0"] = 3.5682 - 41e-4
    assert read_file(path).wave_coeff0 is None
    with fits.open(path, "update") as hdus:
        hdus[0].header["COEFF0"] = 3.5682 - 41.5e-4
    refused(path)


@given(
    start=st.floats(1.0, 1e8), step=st.floats(1e-8, 1.0), n=st.integers(2, 50), spoiled=st.integers(0, 60),
    value=st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e30]),
)  # fmt: skip
def test_what_passes_is_possible(start: float, step: float, n: int, spoiled: int, value: float) -> None:
    with np.errstate(over="ignore"):
        wave = (start * (1 + step) ** np.arange(n)).astype("f4")
    if spoiled < n:
        wave[spoiled] = value
    spectrum = make_spectrum(0, np.random.default_rng(0), n=n, wavelength=wave, wave_coeff0=None, wave_coeff1=None)
    try:
        passed = checked(spectrum).wavelength.astype("f8")
    except BadObjectError as error:
        assert error.reason.startswith("impossible grid")
        return
    assert np.isfinite(passed).all() and (np.diff(passed) > 0).all()
    assert ANY_GRID.lowest <= passed[0] and passed[-1] <= ANY_GRID.highest


@given(coeff0=st.floats(-10, 40), coeff1=st.floats(-1.0, 1e3, exclude_min=True), n=st.integers(2, 50))
def test_coefficients_are_checked_as_the_wavelengths_are(coeff0: float, coeff1: float, n: int) -> None:
    """The shorter way for a grid that its coefficients describe refuses what the longer one does."""
    with np.errstate(over="ignore"):
        wave = log_grid(coeff0, coeff1, n).astype("f4")
    outcomes = []
    for grid in ((coeff0, coeff1), (None, None)):
        spectrum = make_spectrum(
            0, np.random.default_rng(0), n=n, wavelength=wave, wave_coeff0=grid[0], wave_coeff1=grid[1]
        )
        try:
            checked(spectrum, GridLimits(100.0, 1e7, 2e-7, 10.0))
            outcomes.append(True)
        except BadObjectError:
            outcomes.append(False)
    assert outcomes[0] == outcomes[1]

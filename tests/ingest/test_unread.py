"""A survey's damaged file is not read as a spectrum of nobody known; what holds no spectra is set aside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table

from specshards.common.errors import BadObjectError
from specshards.ingest.surveys import open_file
from tests.ingest.made import apogee, galah
from tests.ingest.made.star import Star

SUN = Star(5772.0, 4.4, 0.0, 0.0, -33.0, 10.5, -5.25)
AXIS = {"CRVAL1": 4000.0, "CDELT1": 1.0, "CRPIX1": 1.0, "CUNIT1": "Angstrom"}


def without(path: Path, *names: str) -> Path:
    """The file without the HDUs of these names."""
    with fits.open(path) as hdus:
        kept = fits.HDUList([hdu.copy() for hdu in hdus if hdu.name.lower() not in names])
    kept.writeto(path, overwrite=True)
    return path


def image(path: Path, **header: object) -> Path:
    hdu = fits.PrimaryHDU(np.ones(2000, ">f4"))
    hdu.header.update({**AXIS, **header})
    hdu.writeto(path)
    return path


def galah_without_error(folder: Path) -> Path:
    rng = np.random.default_rng(1)
    return without(galah.write_star(folder, galah.sobject_id(7), SUN, rng, arms=(1,))[0], "relative_error")


def galah_first_image(folder: Path) -> Path:
    path = galah_without_error(folder)
    with fits.open(path) as hdus:
        fits.HDUList([hdus[0].copy()]).writeto(path, overwrite=True)
    return path


def pixels(folder: Path) -> Path:
    """SDSS's table of pixels, its labels and errors lost."""
    table = Table({"loglam": np.linspace(3.6, 3.9, 500), "flux": np.ones(500), "and_mask": np.zeros(500, int)})
    table.write(folder / "a.fits")
    return folder / "a.fits"


def desi(folder: Path) -> Path:
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(np.arange(3600.0, 5800), name="B_WAVELENGTH"),
            fits.ImageHDU(np.ones(2200), name="B_FLUX")]  # fmt: skip
    hdus[2].header.update(AXIS)
    fits.HDUList(hdus).writeto(folder / "a.fits")
    return folder / "a.fits"


@pytest.mark.parametrize(
    ("survey", "make"),
    [
        ("galah", galah_without_error),
        ("galah", galah_first_image),
        ("sdss", pixels),
        ("sdss", lambda folder: image(folder / "a.fits", TELESCOP="SDSS 2.5-M")),
        ("lamost", lambda folder: image(folder / "a.fits", TELESCOP="LAMOST")),
        ("apogee", lambda folder: image(folder / "a.fits", TELESCOP="apo25m", OBJID="2M01183798+8403419")),
        ("desi", desi),
    ],
)
def test_a_damaged_file_of_a_survey_is_not_of_nobody_known(
    survey: str, make: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = make(tmp_path)
    with pytest.raises(BadObjectError) as error:
        open_file(path)
    assert error.value.reason.startswith(f"evidently of {survey} (") and not error.value.selected_out
    assert error.value.kind.startswith(f"evidently of {survey}, but no file that its reader takes")
    name = "table" if survey == "sdss" and make is pixels else "spectrum1d"
    assert f"SURVEY={name} takes it" in error.value.reason
    assert open_file(path, name).survey == name  # whoever asks for it has it


def test_whole_files_and_nobodys_are_read_as_before(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    assert open_file(galah.write_star(tmp_path, galah.sobject_id(7), SUN, rng)[0]).survey == "galah"
    apogee.write(tmp_path / "apogee", 1, 0)
    (star,) = (tmp_path / "apogee").rglob("a[ps]Star*.fits")
    assert open_file(star).survey == "apogee"
    assert open_file(image(tmp_path / "own.fits", INSTRUME="HERMES", CRVAL1=4700.0)).survey == "spectrum1d"


def test_catalogues_and_templates_are_set_aside(tmp_path: Path) -> None:
    Table({"obsid": [1, 2], "teff": [5000, 6000]}).write(tmp_path / "catalogue.fits")
    Table({"objid": [1], "ra": [1.0], "dec": [2.0], "flux_g": [3.0]}).write(tmp_path / "tractor.fits")
    pq.write_table(pa.table({"TARGETID": [1.0], "Z": [0.5]}), tmp_path / "catalogue.parquet")
    metadata = fits.BinTableHDU(Table({"age": [1.0], "mstar": [2.0]}), name="METADATA")
    templates = [fits.PrimaryHDU(np.ones((50, 3))), fits.ImageHDU(np.ones(50), name="MODELS"), metadata]
    fits.HDUList(templates).writeto(tmp_path / "templates.fits")
    Table({"obsid": [1], "flux": [np.ones(50)]}).write(tmp_path / "damaged.fits")
    for name, why in {
        "catalogue.fits": "a catalogue, no spectra", "tractor.fits": "a catalogue, no spectra",
        "catalogue.parquet": "a catalogue, no spectra", "templates.fits": "templates of stellar populations",
    }.items():  # fmt: skip
        with pytest.raises(BadObjectError, match=why) as error:
            open_file(tmp_path / name)
        assert error.value.selected_out, name
    with pytest.raises(BadObjectError, match=r"no known layout|without wavelengths") as error:
        open_file(tmp_path / "damaged.fits")
    assert not error.value.selected_out


def test_catalogues_of_real_data_are_set_aside(real_data: Path) -> None:
    for name in ("desi/fastspecfit/tractor-1054p567.fits", "desi/fastspecfit/SSP_Padova_CKC14z_Kroupa_Z0.0190.fits",
                 "desi/fastspecfit/stack-LRG.fits", "faults/masked_integers_catalogue.fits",
                 "faults/float_targetid_catalogue.parquet"):  # fmt: skip
        with pytest.raises(BadObjectError, match=r"catalogue, no spectra|templates|the mean of many") as error:
            open_file(real_data / name)
        assert error.value.selected_out, name

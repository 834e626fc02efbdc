"""GALAH: four files of one star are one spectrum in vacuum; what is missing of it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from specshards.common.errors import BadObjectError
from specshards.common.jobs import Engine
from specshards.ingest.job.build import IngestConfig, build
from specshards.ingest.surveys import read_file
from specshards.ingest.surveys.wavelengths import vacuum_of_air
from tests.ingest.made import damage
from tests.ingest.made import galah as made
from tests.ingest.made.star import Star

HERE = Engine(workers=0)
RNG = np.random.default_rng(4)
SUN = Star(5772.0, 4.4, 0.0, 0.0, -33.0, 10.5, -5.25)
NAME = made.sobject_id(7)


def _arms(paths: list[Path], error: str) -> tuple[Any, Any, Any]:
    """Flux, ivar and vacuum wavelengths as astropy has them."""
    found = []
    for path in paths:
        with fits.open(path) as hdus:
            header, flux = hdus[0].header, hdus[0].data.astype("f4")
            relative = hdus[error].data.astype("f8")
            sigma = np.abs(flux.astype("f8")) * relative
            wave = header["CRVAL1"] + header["CDELT1"] * np.arange(len(flux))
        ivar = np.divide(1.0, sigma**2, out=np.zeros(len(flux)), where=sigma > 0)
        found.append((flux, ivar.astype("f4"), vacuum_of_air(wave).astype("f4")))
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))  # type: ignore[return-value]


def test_0_0_is_no_position(tmp_path: Path) -> None:
    nowhere = {"RA_ICRS": 0.0, "DEC_ICRS": 0.0}
    paths = made.write_star(tmp_path, NAME, SUN, RNG, **nowhere)
    assert (read_file(paths[0]).ra, read_file(paths[0]).dec) == (10.5, -5.25)
    paths = made.write_star(tmp_path, NAME, SUN, RNG, **nowhere, RA_OBS=0.0, DEC_OBS=0.0)
    assert np.isnan([read_file(paths[0]).ra, read_file(paths[0]).dec]).all()


@pytest.mark.parametrize(("layout", "error"), [("dr4", "relative_error"), ("dr3", "input_sigma")])
def test_four_arms_are_one_spectrum(tmp_path: Path, layout: str, error: str) -> None:
    paths = made.write_star(tmp_path, NAME, SUN, RNG, layout=layout)
    spectrum = read_file(paths[0])
    flux, ivar, wave = _arms(paths, error)
    np.testing.assert_array_equal(spectrum.flux, flux)
    np.testing.assert_array_equal(spectrum.ivar, ivar)
    np.testing.assert_array_equal(spectrum.wavelength, wave)
    assert (spectrum.layout, spectrum.object_id) == (f"galah-{layout}", NAME)
    assert spectrum.wave_source == "air" and spectrum.frame == "observed" and not spectrum.remarks
    assert spectrum.mask[17] and spectrum.ivar[17] == 0, "a relative error of 0 is no information"
    assert spectrum.labels["radial_velocity"] == -33.0 and (spectrum.ra, spectrum.dec) == (10.5, -5.25)
    if layout == "dr4":
        sigma = spectrum.lsf_sigma
        assert sigma is not None and len(sigma) == len(flux)
        # The standard deviation of exp(-ln 2 |2 x / fwhm|^2.5), by a sum.
        x = np.linspace(-2, 2, 200_001)
        profile = np.exp(-np.log(2) * np.abs(2 * x / (made.ARMS[0][0] / 28_000 * 1.3)) ** 2.5)
        assert sigma[0] == pytest.approx(np.sqrt((profile * x**2).sum() / profile.sum()), rel=1e-5)
    else:
        assert spectrum.lsf_sigma is None
    for path in paths[1:]:
        with pytest.raises(BadObjectError, match="read with the first one") as told:
            read_file(path)
        assert told.value.selected_out


def test_a_missing_arm_is_said_and_a_wrong_one_refused(tmp_path: Path) -> None:
    paths = made.write_star(tmp_path, NAME, SUN, RNG, arms=(2, 3))
    spectrum = read_file(paths[0])
    assert spectrum.object_id == NAME and len(spectrum.flux) == 2 * made.N
    missing = [remark.partition(" arm")[0] for remark in spectrum.remarks]
    assert missing == ["no file of the blue", "no file of the infrared"]
    other = Star(5000.0, 3.0, 0.0, 0.0, 0.0, 99.0, 5.0)
    made.write_star(tmp_path, NAME, other, RNG, arms=(4,))
    with pytest.raises(BadObjectError, match=r"infrared arm.*another object"):
        read_file(paths[0])
    made.write_star(tmp_path, NAME, SUN, RNG, arms=(4,), WAV_OK=0)
    assert "WAV_OK" in read_file(paths[0]).remarks[-1] and len(read_file(paths[0]).flux) == 2 * made.N
    (tmp_path / f"{NAME}4.fits").write_bytes(paths[1].read_bytes()[:9000])
    with pytest.raises(BadObjectError, match=f"{NAME}4.fits, is unreadable"):
        read_file(paths[0])
    renamed = paths[0].rename(tmp_path / "spectrum.fits")
    with pytest.raises(BadObjectError, match="no sobject_id"):
        read_file(renamed)


def test_damaged_files_end_as_reasons_or_as_what_astropy_reads(tmp_path: Path) -> None:
    def oracle(path: Path) -> tuple[Any, Any]:
        header = fits.getheader(path, 0)
        wave = header["CRVAL1"] + header.get("CDELT1", np.nan) * (
            np.arange(header["NAXIS1"]) + 1 - max(header.get("CRPIX1", 1), 1)
        )
        return damage.image(path, 0).astype("f4"), vacuum_of_air(wave)

    (path,) = made.write_star(tmp_path, NAME, SUN, RNG, arms=(2,))
    (tmp_path / "x").mkdir()
    assert damage.check(path, oracle, tmp_path / "x", "galah") > 10


def test_a_folder_with_its_catalogue_becomes_parquet(tmp_path: Path) -> None:
    files = made.write(tmp_path / "made", 4, seed=1)
    content = files.catalogue.read_text().replace(",0,", ",1,", 1)  # flag_sp of the first
    files.catalogue.write_text(content)
    summary = build(
        IngestConfig(survey="galah"), str(files.spectra), tmp_path / "out", catalogue=files.catalogue, engine=HERE
    )
    assert summary.samples == 4 and not summary.bad
    rows = pq.read_table(tmp_path / "out" / "spectra").to_pylist()
    assert [row["teff"] is None for row in sorted(rows, key=lambda row: row["object_id"])] == [True] + [False] * 3
    assert all(row["feh"] is not None or row["teff"] is None for row in rows)
    assert sum(row["mg_fe"] is None for row in rows) == 1 and all("rv_galah" in row for row in rows)

"""APOGEE: combined, normalised and single spectra equal a plain astropy reading; flags of pixels and parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from specshards.common.errors import BadObjectError
from specshards.common.jobs import Engine
from specshards.common.spectrum import Spectrum
from specshards.ingest.job.build import IngestConfig, build
from specshards.ingest.surveys import SURVEYS, open_file, read_file
from tests.ingest.made import apogee as made
from tests.ingest.made import damage
from tests.ingest.made.star import Star

HERE = Engine(workers=0)
RNG = np.random.default_rng(4)
SUN = Star(5772.0, 4.4, 0.0, 0.0, -33.0, 10.5, -5.25)


@pytest.mark.parametrize("visits", [1, 2])
def test_a_combined_spectrum_is_that_of_row_0_at_rest(tmp_path: Path, visits: int) -> None:
    path = made.ap_star(tmp_path / "anything.fits", SUN, RNG, visits)
    spectrum = read_file(path)
    with fits.open(path) as hdus:
        flux, sigma = (np.atleast_2d(hdus[i].data)[0].astype("f4") for i in (1, 2))
        wave = 10 ** (hdus[1].header["CRVAL1"] + hdus[1].header["CDELT1"] * np.arange(8575))
    np.testing.assert_array_equal(spectrum.flux, flux)
    np.testing.assert_array_equal(spectrum.wavelength, wave.astype("f4"))
    ivar = np.where(sigma < 1e10, 1 / sigma.astype("f8") ** 2, 0).astype("f4")
    np.testing.assert_array_equal(spectrum.ivar, ivar)
    assert (spectrum.layout, spectrum.survey, spectrum.frame) == ("apogee-apstar", "apogee", "rest")
    assert spectrum.object_id == made.name_of(SUN) and spectrum.velocity == -33.0
    assert (spectrum.ra, spectrum.dec) == (10.5, -5.25) and spectrum.flux_unit == "1e-17 erg / (Angstrom s cm2)"
    assert spectrum.wave_coeff0 == 4.179 and spectrum.wave_coeff1 == 6e-6 and spectrum.medium == "vacuum"
    # The template of the velocity fit is a point of a grid, and no measurement.
    assert spectrum.labels["rv_teff"] == 5000.0 and spectrum.labels.get("teff") is None


def test_only_bits_that_condemn_a_pixel_in_every_visit_mask_it(tmp_path: Path) -> None:
    mask = read_file(made.ap_star(tmp_path / "a.fits", SUN, RNG, visits=2)).mask
    assert not mask[1000:1010].any(), "a sky line is a warning"
    assert mask[1100] and mask[~made.IN_CHIP].all()
    assert not mask[2000:2020].any(), "bad in one visit, good in the other: row 0 of the mask is their OR"
    assert mask.sum() == 1 + (~made.IN_CHIP).sum()


def test_a_normalised_spectrum_brings_its_parameters_where_its_flags_allow(tmp_path: Path) -> None:
    spectrum = read_file(made.aspcap_star(tmp_path / "a.fits", SUN, RNG))
    assert spectrum.layout == "apogee-aspcapstar" and spectrum.flux_unit == "relative" and spectrum.frame == "rest"
    assert spectrum.labels["teff"] == pytest.approx(5772, abs=100) and spectrum.labels["teff_err"] == 20.0
    assert spectrum.labels["feh"] is not None and spectrum.labels["mg_fe"] is not None
    assert spectrum.labels["m_h"] == 0.0 and spectrum.units["m_h"] == "dex"
    assert spectrum.object_id == made.name_of(SUN) and spectrum.velocity == -33.0
    assert not spectrum.good()[~made.IN_CHIP].any() and spectrum.good()[made.IN_CHIP].all()
    warned = read_file(made.aspcap_star(tmp_path / "b.fits", SUN, RNG, ASPCAPFLAG=1 << 7)).labels
    assert warned["teff"] is not None, "STAR_WARN is a warning"
    hot = read_file(made.aspcap_star(tmp_path / "c.fits", SUN, RNG, ASPCAPFLAG=1 << 16)).labels
    assert hot.get("teff") is None and hot["logg"] is not None, "TEFF_BAD"
    bad = read_file(made.aspcap_star(tmp_path / "d.fits", SUN, RNG, ASPCAPFLAG=1 << 23, STARFLAG=0)).labels
    assert not {"teff", "logg", "feh", "m_h", "mg_fe"} & {k for k, v in bad.items() if v is not None}, "STAR_BAD"


def _visit_oracle(path: Path) -> tuple[Any, Any]:
    flux, wave = damage.image(path, 1), damage.image(path, 4)
    return flux.reshape(-1)[::-1], wave.reshape(-1)[::-1]


def _check_visit(path: Path) -> Spectrum:
    spectrum = read_file(path)
    flux, wave = _visit_oracle(path)
    np.testing.assert_array_equal(spectrum.flux, flux.astype("f4"))
    np.testing.assert_array_equal(spectrum.wavelength, wave.astype("f4"))
    sigma = damage.image(path, 2).reshape(-1)[::-1].astype("f8")
    np.testing.assert_array_equal(spectrum.ivar, (1 / sigma**2).astype("f4"))
    bits = damage.image(path, 3).reshape(-1)[::-1]
    np.testing.assert_array_equal(spectrum.mask, bits & 0x40FF != 0)
    assert (np.diff(spectrum.wavelength) > 0).all() and spectrum.frame == "observed" and spectrum.velocity is None
    return spectrum


def test_a_visit_is_three_chips_as_at_the_telescope(tmp_path: Path) -> None:
    spectrum = _check_visit(made.ap_visit(tmp_path / "v.fits", SUN, RNG))
    assert spectrum.labels["radial_velocity"] == -33.0 and "not corrected" in spectrum.remarks[0]
    sky = made.ap_visit(tmp_path / "s.fits", SUN, RNG, OBJTYPE="SKY")
    with pytest.raises(BadObjectError, match="sky fibre") as told:
        read_file(sky)
    assert told.value.selected_out


def test_a_real_visit_equals_astropy(real_data: Path) -> None:
    for path in sorted((real_data / "layouts" / "apogee_apVisit").iterdir()):
        spectrum = _check_visit(path)
        assert spectrum.object_id == "2M01183798+8403419" and len(spectrum.flux) == 3 * 4096
        assert spectrum.ra == pytest.approx(19.658251) and spectrum.dec == pytest.approx(84.061646)


def test_damaged_files_end_as_reasons_or_as_what_astropy_reads(tmp_path: Path) -> None:
    def star(path: Path) -> tuple[Any, Any]:
        with fits.open(path) as hdus:
            start, step = (hdus[1].header.get(key, hdus[0].header.get(key)) for key in ("CRVAL1", "CDELT1"))
            first = hdus[1].header.get("CRPIX1", hdus[0].header.get("CRPIX1", 1))
            flux = np.atleast_2d(hdus[1].data)[0].astype("f4")
        return flux, 10 ** (start + (1 - first) * step + step * np.arange(len(flux)))

    (tmp_path / "x").mkdir()
    assert damage.check(made.ap_star(tmp_path / "a.fits", SUN, RNG, 1), star, tmp_path / "x", "apogee") > 10
    assert damage.check(made.aspcap_star(tmp_path / "b.fits", SUN, RNG), star, tmp_path / "x", "apogee") > 10
    assert damage.check(made.ap_visit(tmp_path / "c.fits", SUN, RNG), _visit_oracle, tmp_path / "x", "apogee") > 10


def test_a_folder_with_its_catalogue_becomes_parquet(tmp_path: Path) -> None:
    files = made.write(tmp_path / "made", 5, seed=1)
    with fits.open(files.catalogue, mode="update") as hdus:
        hdus[1].data["ASPCAPFLAG"][0] = 1 << 23
    (files.spectra / "allStar.fits").write_bytes(files.catalogue.read_bytes())  # as a download has it, beside them
    summary = build(
        IngestConfig(survey="apogee"), str(files.spectra), tmp_path / "out", catalogue=files.catalogue, engine=HERE
    )
    assert summary.samples == 5 and not summary.bad
    rows = pq.read_table(tmp_path / "out" / "spectra").to_pylist()
    assert sorted(row["teff"] is None for row in rows) == [False] * 4 + [True]
    assert all(row["frame"] == "rest" and row["class"] == "STAR" for row in rows)
    assert all((row["mg_fe"] is None) == (row["m_h"] is None) == (row["teff"] is None) for row in rows)
    schema = pq.read_schema(next((tmp_path / "out" / "spectra").iterdir()))
    assert schema.field("mg_fe").metadata[b"unit"] == b"dex" and schema.field("rv_teff").metadata[b"unit"] == b"K"
    assert all(row["velocity"] == pytest.approx(row["radial_velocity"]) for row in rows)


def test_a_star_with_several_rows_of_allstar_has_the_one_that_is_no_duplicate(tmp_path: Path) -> None:
    files = made.write(tmp_path / "made", 3, seed=1)
    with fits.open(files.catalogue) as hdus:
        table = hdus[1].data
        again = np.concatenate([table[:1], table])
        again["EXTRATARG"][0], again["TEFF"][0], expected = 1 << 4, 9999.0, float(table["TEFF"][0])
        star = str(table["APOGEE_ID"][0]).strip()
        fits.BinTableHDU(again).writeto(tmp_path / "twice.fits")
    config = IngestConfig(survey="apogee")
    build(config, str(files.spectra), tmp_path / "out", catalogue=tmp_path / "twice.fits", engine=HERE)
    rows = pq.read_table(tmp_path / "out" / "spectra").to_pylist()
    assert [row["teff"] for row in rows if row["object_id"] == star] == [pytest.approx(expected)]


def test_a_table_of_nobody_here_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    log = {"CRVAL1": 3.6, "CDELT1": 1e-4, "OBJID": "x", "NVISITS": 1}
    images = [fits.ImageHDU(np.ones(8575, "f4")) for _ in range(3)]
    for hdu in images:
        hdu.header.update({"CRVAL1": 3.6, "CDELT1": 1e-4})
    primary = fits.PrimaryHDU()
    primary.header.update(log)
    fits.HDUList([primary, *images]).writeto(path)
    assert all(reader.recognise(_opened(path)) is None for reader in SURVEYS["apogee"].readers)


def _opened(path: Path) -> Any:
    from specshards.ingest.fits.direct import FitsFile

    return FitsFile.open(path)


def test_ids_of_files_are_told_by_their_headers(tmp_path: Path) -> None:
    path = made.ap_star(tmp_path / "a.fits", SUN, RNG, 1)
    with fits.open(path, mode="update") as hdus:
        hdus[0].header["OBJID"] = " "
    with pytest.raises(BadObjectError, match="OBJID"):
        list(open_file(path).objects())

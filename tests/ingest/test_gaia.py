"""Gaia: sampled XP and RVS spectra of every format of DataLink equal what was written, and real ones astropy."""

from __future__ import annotations

import ast
import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table

from specshards.common.errors import BadObjectError
from specshards.common.jobs import Engine
from specshards.common.spectrum import Spectrum
from specshards.ingest.job.build import IngestConfig, build
from specshards.ingest.surveys import open_file
from tests.ingest.made import damage
from tests.ingest.made import gaia as made

HERE = Engine(workers=0)


def _spectra(path: Path) -> list[Spectrum]:
    items = list(open_file(path).objects())
    assert not [item for item in items if isinstance(item, BadObjectError)], items
    return [item for item in items if isinstance(item, Spectrum)]


@pytest.mark.parametrize("end", ["csv", "ecsv", "fits", "xml"])
@pytest.mark.parametrize("kind", ["xp", "rvs"])
def test_every_format_gives_the_same_spectra(tmp_path: Path, end: str, kind: str) -> None:
    table, stars = made.table(3, kind=kind)
    table["flux"][1][5] = np.nan
    found = _spectra(made.write_table(tmp_path / f"any.{end}", table))
    for i, (one, star) in enumerate(zip(found, stars, strict=True)):
        assert one.object_id == str(made.source_id(i)) and one.row == i, "to the last digit"
        flux, error = table["flux"][i].astype("f8"), table["flux_error"][i].astype("f8")
        np.testing.assert_allclose(one.flux * np.float64(one.flux_scale), flux, rtol=1.5e-7)
        ivar = np.where(np.isfinite(flux), 1 / error**2, 0)
        np.testing.assert_allclose(one.ivar / np.float64(one.flux_scale) ** 2, ivar, rtol=2e-7)
        assert (one.ra, one.dec) == pytest.approx((star.ra, star.dec)) and one.good().sum() == len(flux) - (i == 1)
        if kind == "xp":
            assert (one.layout, one.frame, one.flux_unit) == ("gaia-xp-sampled", "observed", "W / (nm m2)")
            np.testing.assert_array_equal(one.wavelength, (made.XP * 10).astype("f4"))
            assert one.flux_scale == pytest.approx(1e-19), "1e-17 erg/s/cm2/A"
        else:
            assert (one.layout, one.frame, one.flux_unit) == ("gaia-rvs", "rest", "relative")
            np.testing.assert_allclose(one.wavelength, made.RVS * 10, rtol=1e-7)


@pytest.mark.parametrize("end", ["csv", "ecsv"])
def test_real_sampled_spectra_equal_a_plain_reading(real_data: Path, end: str) -> None:
    (path,) = (real_data / "layouts" / "gaia_xp_sampled").glob(f"*.{end}")
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    csv.field_size_limit(1 << 20)
    rows = list(csv.DictReader(lines))
    for one, row in zip(_spectra(path), rows, strict=True):
        assert one.object_id == row["source_id"] and one.ra == float(row["ra"]) and one.dec == float(row["dec"])
        scale = 1e-19
        flux = (np.array(ast.literal_eval(row["flux"])) / scale).astype("f4")
        np.testing.assert_allclose(one.flux, flux, rtol=1e-7)
        error = np.array(ast.literal_eval(row["flux_error"])) / scale
        np.testing.assert_allclose(one.ivar, 1 / error**2, rtol=2e-7)
        assert one.wavelength[0] == 3360 and one.wavelength[-1] == 10200 and one.good().all()


def test_files_of_one_source_have_their_id_beside_the_samples(tmp_path: Path) -> None:
    table, stars = made.table(2)
    individual = Table({"wavelength": made.XP, "flux": table["flux"][0], "flux_error": table["flux_error"][0]})
    path = tmp_path / "XP_SAMPLED-Gaia DR3 5853498713190525697.csv"
    individual.write(path, format="ascii.csv")
    (one,) = _spectra(path)
    assert one.object_id == "5853498713190525697" and one.layout == "gaia-xp-sampled" and np.isnan(one.ra)
    path = path.rename(tmp_path / "spectrum.csv")
    with pytest.raises(BadObjectError, match="no source_id"):
        raise next(item for item in open_file(path).objects() if isinstance(item, BadObjectError))
    # COMBINED: a table a source, with parameters.
    text = made_combined(table, stars)
    (tmp_path / "combined.xml").write_text(text)
    first, second = _spectra(tmp_path / "combined.xml")
    assert (first.object_id, second.object_id) == (str(made.source_id(0)), str(made.source_id(1)))
    np.testing.assert_allclose(second.flux * second.flux_scale, table["flux"][1], rtol=1e-6)
    assert second.ra == pytest.approx(stars[1].ra)


def made_combined(table: Table, stars: list[Any]) -> str:
    resources = []
    for i, star in enumerate(stars):
        rows = "".join(
            f"<TR><TD>{w}</TD><TD>{f!r}</TD><TD>{e!r}</TD></TR>"
            for w, f, e in zip(made.XP, table["flux"][i].tolist(), table["flux_error"][i].tolist(), strict=True)
        )
        resources.append(
            f'<RESOURCE type="results"><TABLE><PARAM name="source_id" datatype="long" value="{made.source_id(i)}"/>'
            f'<PARAM name="ra" datatype="double" value="{star.ra}"/>'
            f'<PARAM name="dec" datatype="double" value="{star.dec}"/>'
            '<FIELD name="wavelength" datatype="double" unit="nm"/><FIELD name="flux" datatype="float" '
            'unit="W.m**-2.nm**-1"/><FIELD name="flux_error" datatype="float" unit="W.m**-2.nm**-1"/>'
            f"<DATA><TABLEDATA>{rows}</TABLEDATA></DATA></TABLE></RESOURCE>"
        )
    body = "".join(resources)
    return (
        f'<?xml version="1.0"?><VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">{body}</VOTABLE>'
    )


def test_coefficients_name_what_samples_them(real_data: Path) -> None:
    for path in sorted((real_data / "layouts" / "gaia_xp_continuous").iterdir()):
        try:
            items = list(open_file(path).objects())
        except BadObjectError as error:
            assert "gaiaxpy" in str(error)
            continue
        assert items and all(not isinstance(item, BadObjectError) and len(item.flux) == 343 for item in items)


def test_a_cut_row_and_a_short_list_are_bad_rows_of_their_own(tmp_path: Path) -> None:
    table, _ = made.table(3)
    path = made.write_table(tmp_path / "x.csv", table)
    lines = path.read_text().splitlines()
    first, _, rest = lines[2].partition('"(')
    lines[2] = f'{first}"({rest.partition(", ")[2]}'  # its flux has one value less
    path.write_text("\n".join(lines) + "\n")
    good, bad, last = open_file(path).objects()
    assert isinstance(good, Spectrum) and isinstance(last, Spectrum)
    assert isinstance(bad, BadObjectError) and bad.row == 1 and "342" in str(bad)


def test_damaged_fits_ends_as_reasons_or_as_what_astropy_reads(tmp_path: Path) -> None:
    def oracle(path: Path) -> tuple[Any, Any]:
        with fits.open(path) as hdus:
            return hdus[1].data["flux"][0].astype("f8"), made.XP * 10

    table, _ = made.table(2)
    (tmp_path / "x").mkdir()
    assert damage.check(made.write_table(tmp_path / "a.fits", table), oracle, tmp_path / "x", "gaia") > 5


def test_a_download_with_its_catalogue_becomes_parquet(tmp_path: Path) -> None:
    files = made.write(tmp_path / "made", 6)
    summary = build(
        IngestConfig(survey="gaia"), str(files.spectra), tmp_path / "out", catalogue=files.catalogue, engine=HERE
    )
    assert summary.samples == 6 and not summary.bad
    rows = pq.read_table(tmp_path / "out" / "spectra").to_pylist()
    assert all(3000 < row["teff"] < 8000 and row["logg"] is not None for row in rows)
    assert all(-5 < row["mh_gspphot"] < 2 and row["parallax"] > 0 for row in rows)

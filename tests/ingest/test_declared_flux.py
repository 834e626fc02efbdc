"""What a table says of its flux is kept or refused: a unit, a scale, and what bad pixels hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.surveys import open_file
from specshards.ingest.surveys.flux import RELATIVE, SDSS_UNIT, cgs_factor

WAVE = np.linspace(3800.0, 9200.0, 200)
CGS = "erg / (Angstrom s cm2)"


def read(path: Path, flux: Any, ivar: Any, survey: str = "sdss", mask: Any = None, **columns: Any) -> Any:
    """The one item of a table with one row."""
    floats = pa.list_(pa.float64())
    parts = {"flux": flux, "ivar": ivar, "lambda": WAVE}
    fields = [pa.field(name, floats) for name in parts if parts[name] is not None]
    values = [pa.array([parts[field.name]], floats) for field in fields]
    if mask is not None:
        fields.append(pa.field("mask", pa.list_(pa.bool_())))
        values.append(pa.array([mask], fields[-1].type))
    spectrum = pa.StructArray.from_arrays(values, fields=fields)
    table = {"object_id": ["a"], "survey": [survey], "ra": [1.0], "dec": [2.0], "spectrum": spectrum}
    pq.write_table(pa.table({**table, **{name: [value] for name, value in columns.items()}}), path)
    (item,) = open_file(path).objects()
    return item


def cgs(spectrum: Spectrum, unknown: float) -> np.ndarray[Any, Any]:
    """Physical flux; a flux of no known unit is in `unknown` erg/s/cm2/A."""
    factor = unknown if spectrum.flux_unit is None else cgs_factor(spectrum.flux_unit)
    assert factor is not None
    return np.asarray(spectrum.flux.astype(np.float64) * spectrum.flux_scale * factor)


@pytest.mark.parametrize("garbage", [5.0, 1e30, np.inf, np.nan, -3.0])
@pytest.mark.parametrize("survey", ["sdss", "desi", "lamost"])
@pytest.mark.parametrize("how", ["ivar", "mask"])
def test_what_stands_in_a_bad_pixel_changes_no_flux(garbage: float, survey: str, how: str, tmp_path: Path) -> None:
    flux, ivar = np.full(200, 2e-17), np.full(200, 1e36)
    flux[7] = garbage
    if how == "ivar":
        ivar[7] = 0
    spectrum = read(tmp_path / "x.parquet", flux, None if how == "mask" else ivar, survey,
                    np.arange(200) == 7 if how == "mask" else None)  # fmt: skip
    assert spectrum.flux_unit is None and spectrum.flux_scale == 1e-17
    good = spectrum.good() if how == "ivar" else ~spectrum.mask
    assert good.sum() == 199
    np.testing.assert_allclose(cgs(spectrum, 1.0)[good], 2e-17, rtol=1e-6)


@pytest.mark.parametrize("survey", ["sdss", "desi"])
@pytest.mark.parametrize("level", [1e-19, 1e-17, 1e-3, 1.0, 1e4])
@pytest.mark.parametrize("scale", [None, 1.0, 1e-17, 1e-3, 10.0])
@pytest.mark.parametrize("unit", [None, CGS, SDSS_UNIT, "1e-20 erg/s/cm2/A"])
def test_the_physical_flux_is_the_inputs(
    survey: str, level: float, scale: float | None, unit: str | None, tmp_path: Path
) -> None:
    flux = level * np.linspace(1, 3, 200)
    columns: dict[str, Any] = {} if scale is None else {"flux_scale": scale}
    columns |= {} if unit is None else {"flux_unit": unit}
    spectrum = read(tmp_path / "x.parquet", flux, np.full(200, 100 / level**2), survey, **columns)
    is_usual = unit is None and level * (scale or 1.0) > 1e-9
    assert is_usual == (spectrum.flux_unit == SDSS_UNIT) or unit == SDSS_UNIT
    one = (
        1e-17
        if is_usual
        else 1.0
        if unit is None
        else units.Unit(unit.replace("erg/s/cm2/A", CGS)).to(units.Unit(CGS))
    )
    np.testing.assert_allclose(cgs(spectrum, 1.0), flux * (scale or 1.0) * one, rtol=1e-6)
    np.testing.assert_allclose(spectrum.flux * np.sqrt(spectrum.ivar), flux * 10 / level, rtol=1e-5)


@pytest.mark.parametrize(
    ("said", "unit"),
    [
        ("counts", "ct"), ("ADU", "adu"), ("normalized", RELATIVE), ("Normalised", RELATIVE), ("ergs/s/cm2/A", CGS),
        ("dimensionless", RELATIVE), ("nanomaggies", "nmgy"), ("e-/s", "electron / s"), ("FLAM", CGS),
        ("erg/s/cm2/a", CGS), ("1e-17 erg/sec/cm2/A", SDSS_UNIT), ("1.0E-17 ergs/cm**2/s/A", SDSS_UNIT),
        ("10^{-17} erg/s/cm2/A", SDSS_UNIT), ("counts/s", "ct / s"), ("DN", "DN"), ("mJy", "mJy"),
    ],
)  # fmt: skip
def test_a_declared_unit_is_kept(said: str, unit: str, tmp_path: Path) -> None:
    spectrum = read(tmp_path / "x.parquet", np.full(200, 20.0), np.ones(200), flux_unit=said)
    assert spectrum.flux_unit == unit


@pytest.mark.parametrize("said", ["furlong", "Flux (1e-17)", "x 1e-17 erg/s/cm2/A", "log10(erg/s)", "1e-17", "nm"])
def test_a_declared_unit_that_nobody_knows_is_refused(said: str, tmp_path: Path) -> None:
    item = read(tmp_path / "x.parquet", np.full(200, 20.0), np.ones(200), flux_unit=said)
    assert isinstance(item, BadObjectError) and repr(said) in item.reason and "\n" not in item.reason


@pytest.mark.parametrize("said", ["10^-17", "-1", "", -1.0, 0.0, np.nan, np.inf, -9999.0, True])
def test_a_scale_that_is_none_is_refused(said: Any, tmp_path: Path) -> None:
    item = read(tmp_path / "x.parquet", np.full(200, 20.0), np.ones(200), flux_scale=said, flux_unit=CGS)
    assert isinstance(item, BadObjectError) and f"flux_scale is {said!r}" in item.reason


@pytest.mark.parametrize("said", ["1e-17", "10^-17"])
def test_a_scale_in_the_metadata_counts(said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    read(path, np.full(200, 20.0), np.ones(200), flux_unit=CGS)
    pq.write_table(pq.read_table(path).replace_schema_metadata({"FLUX_SCALE": said}), path)
    (item,) = open_file(path).objects()
    if said == "1e-17":
        assert isinstance(item, Spectrum)
        np.testing.assert_allclose(cgs(item, 1.0), 20e-17, rtol=1e-6)
    else:
        assert isinstance(item, BadObjectError) and f"flux_scale is {said!r}" in item.reason


def test_a_scale_as_text_is_read_and_a_missing_one_is_1(tmp_path: Path) -> None:
    for said, scale in (("1e-17 ", 1e-17), (None, 1.0)):
        spectrum = read(tmp_path / "x.parquet", np.full(200, 20.0), np.ones(200), flux_scale=said, flux_unit=CGS)
        np.testing.assert_allclose(cgs(spectrum, 1.0), 20 * scale, rtol=1e-6)

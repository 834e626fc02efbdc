"""Units of wavelengths: by what is declared, or by range, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from specshards.common.errors import BadObjectError, UsageError
from specshards.common.jobs import Engine
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.job.build import build as ingest
from specshards.ingest.spectra.blocks import iter_blocks
from specshards.ingest.spectra.folder import SpectraFolder
from specshards.ingest.surveys.common import checked
from specshards.ingest.surveys.wavelengths import judged, to_angstrom, unit_of, vacuum_of_air
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.write.build import build as draw
from tests.conftest import make_spectrum
from tests.oracles.grids import WAVE, table, waves

HERE = Engine(workers=0)


FORMS: dict[str, tuple[np.ndarray[Any, Any], list[str]]] = {
    "nm": (WAVE / 10, ["nm", "nanometer", "Nanometers"]),
    "um": (WAVE / 1e4, ["um", "micron", "µm", "microns"]),
    "m": (WAVE / 1e10, ["m"]),
    "log10": (np.log10(WAVE), ["log10(Angstrom)", "dex(Angstrom)", "log(angstrom)", "log10 angstrom"]),
    "ln": (np.log(WAVE), ["ln(Angstrom)", "ln(AA)"]),
}


@pytest.mark.parametrize("unit", FORMS)
def test_declared_units_are_converted_and_said(unit: str, tmp_path: Path) -> None:
    values, names = FORMS[unit]
    for name in names:
        pq.write_table(table(values, {"unit": name}), tmp_path / "x.parquet")
        for spectrum in waves(tmp_path / "x.parquet"):
            np.testing.assert_allclose(spectrum.wavelength, WAVE, rtol=1e-7)
            assert spectrum.wave_source == unit and spectrum.wavelength.dtype == np.float32


@pytest.mark.parametrize("unit", ["nm", "um", "log10", "ln"])
def test_undeclared_ones_are_refused_in_one_line_and_settled_by_an_option(unit: str, tmp_path: Path) -> None:
    values, _ = FORMS[unit]
    path, out = tmp_path / "x.parquet", tmp_path / "out"
    pq.write_table(table(values), path)
    for command in (lambda: ingest(IngestConfig(), str(path), out, engine=HERE),
                    lambda: draw(ShardConfig(), path, out, engine=HERE)):  # fmt: skip
        with pytest.raises(
            UsageError, match=rf"x.parquet: wavelengths from .* look like .*{unit}.*--wavelength-unit"
        ):
            command()
        assert not out.exists(), "a mistake claims no folder"
    ingest(IngestConfig(wavelength_unit=unit), str(path), out, engine=HERE)
    manifest = draw(ShardConfig(wavelength_unit=unit), path, tmp_path / "shards", engine=HERE)
    assert manifest.samples() == 6 and Manifest.load(tmp_path / "shards").config.wavelength_unit == unit
    ((_, block),) = iter_blocks(SpectraFolder.scan(out / "spectra"))
    np.testing.assert_allclose(block.arrays(0).wavelength, WAVE, rtol=1e-7)
    assert block.meta["wave_source"].to_pylist() == [unit] * 6


def test_plain_angstrom_is_untouched(tmp_path: Path) -> None:
    wave = WAVE.astype(np.float32)
    pq.write_table(table(wave.astype(np.float64)), tmp_path / "x.parquet")
    (spectrum, *_) = waves(tmp_path / "x.parquet")
    np.testing.assert_array_equal(spectrum.wavelength, wave)
    assert spectrum.wave_source is None
    made = make_spectrum(0, np.random.default_rng(0))
    before = made.wavelength
    assert checked(made).wavelength is before


@pytest.mark.parametrize(
    ("low", "high", "unit"),
    [
        (3800, 9500, "angstrom"), (1150, 5700, "angstrom"), (2989, 5560, "angstrom"), (9800, 25_000, "angstrom"),
        (15_100, 17_000, "angstrom"), (6000, 53_000, "angstrom"), (380, 955, None), (300, 2500, None),
        (1000, 2500, None), (905, 1187, None), (3.5, 4.0, None), (8.2, 9.2, None), (0.38, 0.95, None),
        (0.6, 5.3, None), (3.8e-7, 9.5e-7, None), (1.0, 1e9, None),
    ],
)  # fmt: skip
def test_ranges_that_leave_no_doubt(low: float, high: float, unit: str | None) -> None:
    if unit is None:
        with pytest.raises(BadObjectError):
            judged(low, high, None)
    else:
        assert judged(low, high, None) == unit


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(1000, 2500, "angstrom or nm"), (3.5, 4.0, "um or log10"), (8.2, 9.2, "um or ln"), (380, 955, "like nm:"),
     (3.8e-7, 9.5e-7, "like m:")],
)  # fmt: skip
def test_ambiguous_ranges_say_what_they_may_be(low: float, high: float, words: str) -> None:
    with pytest.raises(BadObjectError, match=words):
        judged(low, high, None)


@pytest.mark.parametrize(
    ("declared", "low", "high"),
    [("nm", 3800, 9500), ("angstrom", 380, 955), ("um", 3800, 9500), ("log10", 3800, 9500), ("ln", 3.58, 3.98)],
)
def test_a_declared_unit_that_the_range_contradicts_is_refused(declared: str, low: float, high: float) -> None:
    with pytest.raises(BadObjectError, match=f"declared to be {declared}.*--wavelength-unit"):
        judged(low, high, declared)


def test_the_users_word_overrules_the_files(tmp_path: Path) -> None:
    pq.write_table(table(WAVE, {"unit": "nm"}), tmp_path / "x.parquet")
    with pytest.raises(BadObjectError, match="declared to be nm but look like angstrom"):
        waves(tmp_path / "x.parquet")
    assert waves(tmp_path / "x.parquet", wavelength_unit="angstrom")[0].wave_source is None
    pq.write_table(table(WAVE, {"unit": "GHz"}), tmp_path / "x.parquet")
    with pytest.raises(UsageError, match="'GHz', no unit of wavelength"):
        SpectraFolder.scan(tmp_path / "x.parquet")
    for changes in ({"wavelength_unit": "furlong"}, {"medium": "water"}):
        with pytest.raises(UsageError, match="choose"):
            IngestConfig(**changes)
        with pytest.raises(UsageError, match="choose"):
            ShardConfig(**changes)


def test_declared_in_the_other_places(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    nm, path = WAVE / 10, tmp_path / "x.parquet"
    plain = table(nm)
    for metadata in ({"wavelength_unit": "nm"}, {"PANDAS_ATTRS": json.dumps({"wavelength_unit": "nm"})}):
        pq.write_table(plain.replace_schema_metadata(metadata), path)
        assert waves(path)[0].wave_source == "nm"
    pq.write_table(table(nm, {"ARROW:extension:metadata": json.dumps({"unit": "nm"})}), path)
    assert waves(path)[0].wave_source == "nm"
    flat = plain.flatten().rename_columns(
        [name.replace("spectrum.", "spectrum_") for name in plain.flatten().column_names]
    )
    from astropy.table import Table

    described = Table({"spectrum_lambda": np.stack([nm] * 6), "spectrum_flux": np.ones((6, 400))})
    described["spectrum_lambda"].unit, described["spectrum_flux"].unit = "nm", "erg / (s cm2 Angstrom)"
    from astropy.table.meta import get_yaml_from_table

    note = "\n".join(get_yaml_from_table(described))
    pq.write_table(flat.replace_schema_metadata({"table_meta_yaml": note}), path)
    spectrum = waves(path)[0]
    assert (spectrum.wave_source, spectrum.flux_unit) == ("nm", "erg / (Angstrom s cm2)")
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        for name in ("spectrum_flux", "spectrum_ivar", "spectrum_lambda"):
            file[name] = np.stack(flat[name].to_pylist())
        for name in ("ra", "dec"):
            file[name] = flat[name].to_numpy()
        file["object_id"] = np.array(flat["object_id"].to_pylist(), "S8")
        file["spectrum_lambda"].attrs["unit"] = "nm"
        file["spectrum_flux"].attrs["unit"] = "mJy"
    spectrum = waves(tmp_path / "x.hdf5")[0]
    assert (spectrum.wave_source, spectrum.flux_unit) == ("nm", "mJy")
    pq.write_table(flat.rename_columns([n.replace("_lambda", "_loglam") for n in flat.column_names]), path)
    with pytest.raises(BadObjectError, match="declared to be log10 but look like nm"):
        waves(path)


def test_logarithms_of_what_is_none_are_refused() -> None:
    assert not np.isfinite(to_angstrom(np.array([3800.0]), "log10")).any()
    assert unit_of(None) is None and unit_of("  ") is None


def test_the_faulty_file_is_refused(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "faults" / "nm.parquet"
    with pytest.raises(UsageError, match=r"nm.parquet: wavelengths from 380.189 to 954.773 look like nm"):
        ingest(IngestConfig(), str(path), tmp_path / "out", engine=HERE)
    assert ingest(IngestConfig(wavelength_unit="nm"), str(path), tmp_path / "out", engine=HERE).samples == 4


@pytest.mark.parametrize("key", ["Unit", "UNIT", "tunit", "wave_unit", "Lambda_Unit", "wavelength_units"])
def test_a_unit_is_found_whatever_its_key_is_called(key: str, tmp_path: Path) -> None:
    wave, path = np.linspace(5000, 28_000, 400), tmp_path / "x.parquet"
    pq.write_table(table(wave, {key: "nm"}), path)
    np.testing.assert_allclose(waves(path)[0].wavelength, wave * 10, rtol=1e-6)
    if "unit" not in key.lower().split("_")[:1] and key != "tunit":  # of a table, `unit` alone says nothing
        pq.write_table(table(wave).replace_schema_metadata({key: "nm"}), path)
        np.testing.assert_allclose(waves(path)[0].wavelength, wave * 10, rtol=1e-6)
        pq.write_table(table(wave).replace_schema_metadata({"PANDAS_ATTRS": json.dumps({key: "nm"})}), path)
        assert waves(path)[0].wave_source == "nm"


def test_the_users_word_is_for_tables_that_say_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(table(WAVE, {"unit": "Angstrom", "medium": "vacuum"}), folder / "a.parquet")
    nm = table(WAVE / 10)
    pq.write_table(nm.set_column(0, "object_id", pa.array([f"p{i}" for i in range(6)])), folder / "b.parquet")
    config = IngestConfig(wavelength_unit="nm", medium="air")
    ingest(config, str(folder), tmp_path / "out", engine=HERE)
    found = {}
    for _, block in iter_blocks(SpectraFolder.scan(tmp_path / "out" / "spectra")):
        for i, name in enumerate(block.meta["object_id"].to_pylist()):
            found[name] = block.arrays(i).wavelength
    np.testing.assert_allclose(found["o0"], WAVE, rtol=1e-7)
    np.testing.assert_allclose(found["p0"], vacuum_of_air(WAVE), rtol=1e-7)


@pytest.mark.parametrize(
    ("low", "high", "stated"),
    [(380, 920, "um"), (3800, 9200, "nm"), (380, 920, "angstrom"), (3800, 9200, "log10"), (3.5, 4.0, "ln")],
)
def test_the_users_word_must_be_possible(low: float, high: float, stated: str, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(table(np.linspace(low, high, 400)), path)
    with pytest.raises(BadObjectError, match=f"{stated}, which --wavelength-unit says"):
        waves(path, wavelength_unit=stated)
    with pytest.raises(UsageError, match=f"x.parquet: .*{stated}, which --wavelength-unit says"):
        ingest(IngestConfig(wavelength_unit=stated), str(path), tmp_path / "out", engine=HERE)


def test_a_unit_that_is_declared_and_stated_is_no_slip(tmp_path: Path) -> None:
    wave, path = np.linspace(2850, 4100, 400), tmp_path / "x.parquet"
    pq.write_table(table(wave, {"unit": "nm"}), path)
    np.testing.assert_allclose(waves(path, wavelength_unit="nm")[0].wavelength, wave * 10, rtol=1e-6)

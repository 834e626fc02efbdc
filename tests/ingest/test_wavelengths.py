"""Wavelengths: units by what is declared or by range, or refused; air to vacuum; the rest frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from specshards.common.errors import BadObjectError, JobError, UsageError
from specshards.common.jobs import Engine
from specshards.common.spectrum import Spectrum
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.job.build import build as ingest
from specshards.ingest.spectra.blocks import iter_blocks
from specshards.ingest.spectra.folder import SpectraFolder
from specshards.ingest.surveys import open_file
from specshards.ingest.surveys.common import checked
from specshards.ingest.surveys.wavelengths import judged, to_angstrom, unit_of, vacuum_of_air
from specshards.ingest.tables import Stated
from specshards.render.config import ImageConfig
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.write.build import build as draw
from specshards.train.use.pictures import pictures
from tests.conftest import make_spectrum

HERE = Engine(workers=0)
WAVE = np.linspace(3800, 9500, 400)


def table(wave: np.ndarray[Any, Any], metadata: dict[str, str] | None = None, rows: int = 6, **more: Any) -> pa.Table:
    """Spectra with one grid; the field `lambda` has the metadata."""
    floats, n = pa.list_(pa.float64()), len(wave)
    fields = [pa.field("flux", floats), pa.field("ivar", floats), pa.field("lambda", floats, metadata=metadata)]
    flux = np.random.default_rng(0).normal(100, 2, (rows, n))
    parts = [list(flux), [np.full(n, 0.25)] * rows, [wave] * rows]
    spectra = pa.StructArray.from_arrays([pa.array(part, floats) for part in parts], fields=fields)
    return pa.table({"object_id": [f"o{i}" for i in range(rows)], "survey": ["x"] * rows,
                     "ra": [7.0 * i for i in range(rows)], "dec": [-5.0] * rows, "spectrum": spectra,
                     **more})  # fmt: skip


def waves(path: Path, **stated: str) -> list[Spectrum]:
    items = list(open_file(path, stated=Stated(**stated)).objects())
    for item in items:
        if isinstance(item, BadObjectError):
            raise item
    return [item for item in items if isinstance(item, Spectrum)]


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


def piskunov(air: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Air to vacuum by the inverse that N. Piskunov fitted for VALD, good to 4e-9 of the wavelength."""
    s = (1e4 / air) ** 2
    index = (
        1 + 0.00008336624212083 + 0.02408926869968 / (130.1065924522 - s) + 0.0001599740894897 / (38.92568793293 - s)
    )
    return air * index


def test_air_to_vacuum_agrees_with_others() -> None:
    def ciddor(vacuum: float) -> float:
        """The published equation, of the vacuum wavelength in micrometres."""
        s2 = (1e4 / vacuum) ** 2
        return vacuum / (1 + 1e-8 * (5792105.0 / (238.0185 - s2) + 167917.0 / (57.362 - s2)))

    for air in np.geomspace(2001, 25_000, 60):
        root = brentq(lambda vacuum, air=air: ciddor(vacuum) - air, air, air + 20, xtol=1e-11)
        assert vacuum_of_air(air) == pytest.approx(root, abs=1e-8)
    optical = np.linspace(3000, 11_000, 200)
    np.testing.assert_allclose(vacuum_of_air(optical), piskunov(optical), rtol=6e-9)
    # NIST Atomic Spectra Database: air and vacuum of H alpha, H beta, Na D2, D1 and Hg 5460.
    lines = {6562.79: 6564.60, 4861.35: 4862.71, 5889.950954: 5891.583264, 5895.924237: 5897.558147}
    for air, vacuum in lines.items():
        assert vacuum_of_air(air) == pytest.approx(vacuum, abs=1e-2 if air > 6000 or air < 5000 else 2e-4)


@given(st.lists(st.floats(500, 30_000), min_size=2, max_size=30))
def test_air_to_vacuum_keeps_the_order(values: list[float]) -> None:
    air = np.unique(np.array(values))
    vacuum = vacuum_of_air(air)
    assert (np.diff(vacuum) > 0).all() and (vacuum >= air).all()
    np.testing.assert_array_equal(vacuum[air < 2000], air[air < 2000])


def test_air_is_declared_or_said_and_converted_once(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(table(WAVE, {"medium": "air"}), path)
    (declared, *_) = waves(path)
    pq.write_table(table(WAVE), path)
    (said, *_) = waves(path, medium="air")
    for spectrum in (declared, said):
        np.testing.assert_array_equal(spectrum.wavelength, vacuum_of_air(WAVE).astype(np.float32))
        assert spectrum.wave_source == "air"
    both = checked(make_spectrum(0, np.random.default_rng(0), n=400, wavelength=WAVE / 10, wavelength_unit="nm",
                                 medium="air", wave_coeff0=3.5, wave_coeff1=1e-4))  # fmt: skip
    np.testing.assert_array_equal(both.wavelength, declared.wavelength)
    assert both.wave_source == "nm, air" and both.wave_coeff0 is both.wave_coeff1 is None
    draw(ShardConfig(medium="air"), path, tmp_path / "out", engine=HERE)
    with pytest.raises(UsageError, match=r"medium: air -> "):
        draw(ShardConfig(), path, tmp_path / "out", engine=HERE)


@pytest.mark.parametrize("how", ["boolean", "text", "metadata"])
def test_a_rest_frame_is_declared_and_never_mixed_in(how: str, tmp_path: Path) -> None:
    more = {"boolean": {"restframe": [True] * 6}, "text": {"frame": ["rest"] * 6}}.get(how, {})
    made = table(WAVE, {"frame": "rest"} if how == "metadata" else None, **more, z=[0.1] * 6)
    path = tmp_path / "x.parquet"
    pq.write_table(made, path)
    assert {spectrum.frame for spectrum in waves(path)} == {"rest"}
    with pytest.raises(JobError, match=r"6 of 6 spectra could not be used.*rest frame"):
        draw(ShardConfig(), path, tmp_path / "observed", engine=HERE)
    rest = ShardConfig(image=ImageConfig(frame="rest"))
    assert draw(rest, path, tmp_path / "rest", engine=HERE).samples() == 6
    # Not shifted a second time: the same picture as of the same numbers taken for observed.
    pq.write_table(table(WAVE, z=[0.1] * 6), path)
    draw(ShardConfig(), path, tmp_path / "plain", engine=HERE)
    for one, other in zip(*(sorted((tmp_path / name).rglob("*.tar")) for name in ("rest", "plain")), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_model_of_observed_spectra_is_not_given_those_in_the_rest_frame(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    pq.write_table(table(WAVE, restframe=[True] * 5 + [False]), tmp_path / "x.parquet")
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        flat = table(WAVE)["spectrum"].combine_chunks()
        for i, name in enumerate(("flux", "ivar", "lambda")):
            file[f"spectrum_{name}"] = np.stack(flat.field(i).to_pylist())
        file["restframe"] = np.array([True] * 5 + [False])
        file["object_id"] = np.array([f"o{i}" for i in range(6)], "S8")
    for name in ("x.parquet", "x.hdf5"):
        for image, kept in ((ImageConfig(), 1), (ImageConfig(frame="rest"), 5)):
            batches = list(pictures(tmp_path / name, image, 10))
            assert sum(len(batch.rows) for batch in batches) == kept, name
            assert sum(len(batch.quarantine) for batch in batches) == 6 - kept, name


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


REST = [True, 1, 1.0, "True", "T", "yes", "rest", "Rest-frame", "REST", "emitted", "restframe", "rest frame", b"rest"]
OBSERVED = [False, 0, 0.0, "F", "no", "observed", "Observer", "obs-frame", None, float("nan"), "barycentric", "icrs"]


@pytest.mark.parametrize("column", ["frame", "restframe"])
@pytest.mark.parametrize(("said", "frame"), [*((v, "rest") for v in REST), *((v, "observed") for v in OBSERVED)])
def test_spellings_of_the_frame(column: str, said: Any, frame: str, tmp_path: Path) -> None:
    pq.write_table(table(WAVE, **{column: [said] * 6}), tmp_path / "x.parquet")
    assert {spectrum.frame for spectrum in waves(tmp_path / "x.parquet")} == {frame}


@pytest.mark.parametrize("key", ["frame", "FRAME", "restframe", "rest_frame", "Rest-Frame"])
def test_spellings_of_the_frame_in_metadata(key: str, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    for said in ("rest", "restframe", "rest-frame", "true", "emitted"):
        pq.write_table(table(WAVE).replace_schema_metadata({key: said}), path)
        assert waves(path)[0].frame == "rest"
    pq.write_table(table(WAVE).replace_schema_metadata({"PANDAS_ATTRS": json.dumps({key: True})}), path)
    assert waves(path)[0].frame == "rest"
    pq.write_table(table(WAVE).replace_schema_metadata({key: "false"}), path)
    assert waves(path)[0].frame == "observed"


@pytest.mark.parametrize("said", ["sideways", 2, 237])
def test_a_frame_that_nobody_knows_is_refused(said: Any, tmp_path: Path) -> None:
    pq.write_table(table(WAVE, frame=[said] * 6), tmp_path / "x.parquet")
    with pytest.raises(BadObjectError, match=rf"frame of the wavelengths is {said!r}, neither rest nor observed"):
        waves(tmp_path / "x.parquet")


@pytest.mark.parametrize("key", ["medium", "MEDIUM", "AIRORVAC", "air_or_vacuum"])
def test_spellings_of_the_medium(key: str, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    spellings = {"air": ["air", "AIR", "standard air", "air (STP)", "in air", "AWAV", "air wavelengths"],
                 None: ["vac", "Vacuum", "in vacuum", "vacuum wavelengths"]}  # fmt: skip
    for source, many in spellings.items():
        for said in many:
            for made in (table(WAVE, {key: said}), table(WAVE).replace_schema_metadata({key: said})):
                pq.write_table(made, path)
                assert waves(path)[0].wave_source == source
                assert waves(path, medium="vacuum")[0].wave_source == source, "what is declared holds"
    pq.write_table(table(WAVE, {"VACUUM": "F"}), path)
    assert waves(path)[0].wave_source == "air"


def test_a_reader_may_spell_the_medium_and_not_invent_one() -> None:
    made = make_spectrum(0, np.random.default_rng(0), n=400, wavelength=WAVE, medium="standard air")
    made.wave_coeff0 = made.wave_coeff1 = None
    np.testing.assert_array_equal(checked(made).wavelength, vacuum_of_air(WAVE).astype(np.float32))
    with pytest.raises(BadObjectError, match="'water', neither air nor vacuum"):
        checked(make_spectrum(0, np.random.default_rng(0), n=400, wavelength=WAVE, medium="water"))


@pytest.mark.parametrize("said", ["water", "helium", "air or vacuum", "not air"])
def test_a_medium_that_nobody_knows_is_refused_and_settled_by_an_option(said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(table(WAVE, {"medium": said}), path)
    for command in (lambda: ingest(IngestConfig(), str(path), tmp_path / "out", engine=HERE),
                    lambda: draw(ShardConfig(), path, tmp_path / "out", engine=HERE)):  # fmt: skip
        with pytest.raises(UsageError, match=rf"x.parquet: .*declared to be in '{said}', neither.*--medium"):
            command()
    assert waves(path, medium="air")[0].wave_source == "air"

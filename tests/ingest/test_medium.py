"""Air to vacuum: what is declared or said is converted once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from specshards.common.errors import BadObjectError, UsageError
from specshards.common.jobs import Engine
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.job.build import build as ingest
from specshards.ingest.surveys.common import checked
from specshards.ingest.surveys.wavelengths import vacuum_of_air
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.write.build import build as draw
from tests.conftest import make_spectrum
from tests.oracles.grids import WAVE, table, waves

HERE = Engine(workers=0)


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
    # Morton 2000, ApJS 130, 403, equation 8: of Birch and Downs 1994, as the IAU and VALD have it.
    # Below 2300 A, where neither was measured, they part by up to 3e-7.
    vacuum = np.geomspace(2300, 25_000, 200)
    s2 = (1e4 / vacuum) ** 2
    morton = 1 + 8.34254e-5 + 2.406147e-2 / (130 - s2) + 1.5998e-4 / (38.9 - s2)
    np.testing.assert_allclose(vacuum_of_air(vacuum / morton), vacuum, rtol=6e-9)
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

"""MultimodalUniverse's tables of stars: frames, velocities, line widths and labels as their scripts mean them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.surveys import open_file
from specshards.ingest.surveys.wavelengths import vacuum_of_air

N = 300


Labels = dict[str, Any]


def _table(start: float, step: float, labels: Labels, more: dict[str, Any] | None = None) -> pa.Table:
    wave = start + step * np.arange(N)
    rng = np.random.default_rng(2)
    spectra = [
        {"flux": rng.normal(10, 1, N), "ivar": np.full(N, 4.0), "lambda": wave, "mask": np.zeros(N, bool),
         "lsf_sigma": np.full(N, 0.8), **(more or {})}
        for _ in next(iter(labels.values()))
    ]  # fmt: skip
    return pa.table({"spectrum": pa.array(spectra), **labels})


def _read(path: Path, table: pa.Table) -> list[Spectrum]:
    pq.write_table(table, path)
    items = list(open_file(path).objects())
    assert not [item for item in items if isinstance(item, BadObjectError)], items
    return [item for item in items if isinstance(item, Spectrum)]


def test_apogee_is_at_rest_with_its_velocity_and_all_its_labels(tmp_path: Path) -> None:
    labels = {
        "object_id": ["2M0001", "2M0002"], "teff": [4800.0, 5100.0], "teff_err": [30.0, 20.0],
        "logg": [2.5, 3.0], "m_h": [-0.2, 0.1], "m_h_err": [0.01, 0.01], "alpha_m": [0.1, 0.0],
        "fe_h": [-0.21, 0.11], "mg_fe": [0.1, 0.0],
        "radial_velocity": [-34.25, 19.0], "restframe": pa.array([True, None], pa.bool_()), "ra": [1.0, 2.0],
        "dec": [3.0, 4.0],
    }  # fmt: skip
    first, second = _read(tmp_path / "a.parquet", _table(15200.0, 0.3, labels))
    assert first.survey == second.survey == "apogee"
    assert first.frame == second.frame == "rest", "the copy of Hugging Face has lost the column, and says null"
    assert (first.velocity, second.velocity) == (-34.25, 19.0)
    assert first.lsf_sigma is not None and first.lsf_sigma == pytest.approx(0.8)
    assert first.labels["feh"] == pytest.approx(-0.21) and first.labels["teff_err"] == 30.0
    assert first.labels["m_h"] == -0.2 and first.labels["alpha_m"] == 0.1 and first.labels["mg_fe"] == 0.1
    assert first.labels["radial_velocity"] == -34.25


def test_lines_in_pixels_become_angstrom(tmp_path: Path) -> None:
    labels = {"object_id": ["39627"], "ZWARN": [0], "Z": [0.5], "EBV": [0.01], "ra": [1.0], "dec": [3.0]}
    (one,) = _read(tmp_path / "a.parquet", _table(3600.0, 0.5, labels))
    assert one.survey == "desi" and one.frame == "observed" and one.velocity is None
    np.testing.assert_allclose(one.lsf_sigma, 0.4, rtol=1e-5)


def test_galah_is_in_air_and_its_errors_are_those_of_its_labels(tmp_path: Path) -> None:
    labels = {
        "object_id": ["170418003701205"], "teff": [5700.0], "e_teff": [80.0], "fe_h": [-0.3], "e_fe_h": [0.05],
        "alpha_fe": [0.1], "vbroad": [9.0], "Mg_fe": [0.2], "flag_sp": [0], "rv": [10.0], "ra": [1.0], "dec": [2.0],
    }  # fmt: skip
    (one,) = _read(tmp_path / "a.parquet", _table(4713.0, 0.046, labels, {"norm_lambda": np.arange(N) * 1.0}))
    assert one.survey == "galah" and one.wave_source == "air" and one.frame == "observed"
    np.testing.assert_allclose(one.wavelength, vacuum_of_air(4713 + 0.046 * np.arange(N)), rtol=1e-7)
    assert one.labels["feh"] == -0.3 and one.labels["feh_err"] == 0.05 and one.labels["teff_err"] == 80.0
    assert one.labels["mg_fe"] == 0.2 and one.lsf_sigma is None


def test_a_table_of_nobody_known_keeps_no_line_widths_of_an_unknown_unit(tmp_path: Path) -> None:
    labels = {"object_id": ["a"], "ra": [1.0], "dec": [2.0]}
    (one,) = _read(tmp_path / "a.parquet", _table(4713.0, 0.5, labels))
    assert one.lsf_sigma is None and one.frame == "observed"

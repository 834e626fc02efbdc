"""The rest frame is declared: its spectra are moved back where it is known by how much, and show no redshift."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from specshards.common.errors import BadObjectError
from specshards.common.jobs import Engine
from specshards.render.config import ImageConfig
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.write.build import build as draw
from specshards.train.use.pictures import pictures
from tests.oracles.grids import WAVE, table, waves

HERE = Engine(workers=0)


@pytest.mark.parametrize("how", ["boolean", "text", "metadata"])
def test_a_rest_frame_is_declared_and_moved_or_kept(how: str, tmp_path: Path) -> None:
    more = {"boolean": {"restframe": [True] * 6}, "text": {"frame": ["rest"] * 6}}.get(how, {})
    made = table(WAVE, {"frame": "rest"} if how == "metadata" else None, **more, z=[0.1] * 6)
    path = tmp_path / "x.parquet"
    pq.write_table(made, path)
    assert {spectrum.frame for spectrum in waves(path)} == {"rest"}
    observed = draw(ShardConfig(), path, tmp_path / "observed", engine=HERE)
    assert (observed.samples(), observed.at_rest) == (6, 6)  # moved back by their z, and counted
    rest = ShardConfig(image=ImageConfig(frame="rest"))
    assert draw(rest, path, tmp_path / "rest", engine=HERE).samples() == 6
    # Not shifted a second time: the same picture as of the same numbers taken for observed.
    pq.write_table(table(WAVE, z=[0.1] * 6), path)
    draw(ShardConfig(), path, tmp_path / "plain", engine=HERE)
    for one, other in zip(*(sorted((tmp_path / name).rglob("*.tar")) for name in ("rest", "plain")), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_model_of_redshifts_is_not_given_spectra_in_the_rest_frame(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    pq.write_table(table(WAVE, restframe=[True] * 5 + [False]), tmp_path / "x.parquet")
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        flat = table(WAVE)["spectrum"].combine_chunks()
        for i, name in enumerate(("flux", "ivar", "lambda")):
            file[f"spectrum_{name}"] = np.stack(flat.field(i).to_pylist())
        file["restframe"] = np.array([True] * 5 + [False])
        file["object_id"] = np.array([f"o{i}" for i in range(6)], "S8")
    for name in ("x.parquet", "x.hdf5"):
        rest = ImageConfig(frame="rest")
        for image, observed_only, kept in ((ImageConfig(), True, 1), (ImageConfig(), False, 6), (rest, False, 5)):
            batches = list(pictures(tmp_path / name, image, 10, observed_only=observed_only))
            assert sum(len(batch.rows) for batch in batches) == kept, name
            assert sum(len(batch.quarantine) for batch in batches) == 6 - kept, name


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

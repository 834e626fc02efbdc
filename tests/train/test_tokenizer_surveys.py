"""One tokenizer over surveys of very different grids: 343 pixels of Gaia to 16,384 of GALAH, observed and at rest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from specshards.common.jobs import Engine
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.job.build import build as ingest
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.write.build import build
from specshards.train.config import RunOptions
from specshards.train.tokenizer.baselines import MOST_BINS
from specshards.train.tokenizer.comparison import compare
from specshards.train.tokenizer.config import PretrainConfig
from specshards.train.tokenizer.pretrain import pretrain
from tests.conftest import make_spectrum
from tests.ingest.made import apogee, gaia, galah

pytestmark = pytest.mark.usefixtures("one_thread")

HERE = Engine(workers=0)
EACH = 6
CONFIG = ShardConfig(encoding="flux", split=(0.5, 0.25, 0.25), split_by="row", samples_per_shard=32, lsf=True)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Shards of three surveys' made files, and of two made grids: name -> folder."""
    folder, rng = tmp_path_factory.mktemp("surveys"), np.random.default_rng(0)
    found = {}
    for name, made in (("apogee", apogee.write), ("galah", galah.write), ("gaia", gaia.write)):
        spectra = made(folder / f"{name}-files", EACH, 1).spectra
        ingest(IngestConfig(survey=name), str(spectra), folder / name, engine=HERE)
        found[name] = folder / name / "spectra"
    linear = (3600 + 0.8 * np.arange(7781)).astype(np.float32)
    grid = {"wavelength": linear, "wave_coeff0": None, "wave_coeff1": None}
    for name, n, more in (("mock-desi", len(linear), grid), ("mock-lamost", 3900, {})):
        (folder / name).mkdir()
        table = to_table([make_spectrum(i, rng, n=n, survey=name, **more) for i in range(EACH)])
        write_parquet(table, folder / name / "part-00000.parquet", {"test": 1})
        found[name] = folder / name
    for name, spectra in found.items():
        build(CONFIG, spectra, folder / f"{name}-shards", engine=HERE, said=(), allow_empty_split=True)
    return {name: str(folder / f"{name}-shards") for name in found}


def test_they_are_learnt_together(shards: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    config = PretrainConfig(
        shards=tuple(shards.values()), size="tiny", epochs=1, batch_size=8, masked=0.2, floor=0.02, lsf=True
    )
    run = pretrain(config, tmp_path / "run", RunOptions(device="cpu", threads=1, tracker="none"))
    manifests = {name: Manifest.load(Path(folder)) for name, folder in shards.items()}
    assert {name: manifest.samples() for name, manifest in manifests.items()} == dict.fromkeys(shards, EACH)
    # The combined spectra of APOGEE are at rest, and GALAH's files tell the width of a line.
    assert manifests["apogee"].at_rest == EACH and manifests["galah"].with_lsf == EACH
    assert caplog.text.count(f"{EACH} spectra are of files in the rest frame: moved back by velocity") == 1
    assert "lsf: the line-spread function of" in caplog.text
    entry = json.loads((run / "run.json").read_text())["history"][0]
    assert np.isfinite([entry["loss"], entry["loss_hidden"]]).all()
    record = json.loads((run / "tokenizer.json").read_text())["data"]
    assert [each["folder"] for each in record] == list(shards.values())

    content = compare(run, device="cpu", threads=1, limit=64)
    assert content["methods"]["pca"]["bins"] <= MOST_BINS
    here = {name: manifest.samples("val") for name, manifest in manifests.items() if manifest.samples("val")}
    assert len(here) > 2
    for name, count in here.items():
        scores = content["scores"][f"survey {name}"]
        assert scores["seen"]["count"] == count
        for method in ("constant", "median", "pca", "tokenizer", "copy"):
            assert np.isfinite(scores["seen"][method]["mean"]), (name, method)

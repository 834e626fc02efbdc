"""The page on soil: a wide table becomes a data set without a sky, and a model that beats the best constant."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from specshards.shards.format.manifest import SPLITS, Manifest
from specshards.train.config import RunOptions, TrainConfig
from specshards.train.evaluation.evaluate import evaluate
from specshards.train.fit import fit
from specshards.train.use.predict import Predictor
from tests.conftest import ROOT
from tests.oracles import commands

pytestmark = pytest.mark.usefixtures("one_thread")


def test_organic_carbon_of_fields_that_were_not_seen(tmp_path: Path) -> None:
    runpy.run_path(str(ROOT / "docs" / "examples" / "soil.py"))["make"](
        str(tmp_path / "soil.csv"), sites=30, samples=6
    )
    table, out = tmp_path / "soil.csv", tmp_path / "soil"
    rows = csv.read_csv(table)
    depth = rows["2210"].to_numpy() / (rows["2110"].to_numpy() + rows["2310"].to_numpy())
    assert np.corrcoef(depth, rows["clay"].to_numpy())[0, 1] < -0.98, "clay shows, for one who would learn it"
    made = commands.run(commands.program(
        "shards", "make", "--survey", "table", "--data", table, "--out", out, "--group", "site",
        "--name", "mock-soil", "--wavelength-unit", "nm", "--window", "3500,25000", "--size", 64, "--block", 4,
        "--split", "0.6,0.2,0.2", "--workers", 0,
    ))  # fmt: skip
    assert made.returncode == 0, made.stderr
    folder = next(path.parent for path in out.rglob("manifest.json"))
    manifest = Manifest.load(folder)
    assert manifest.mock and manifest.samples() == 180
    tables = [[pq.read_table(r.sidecar(folder)) for r in manifest.split(split)] for split in SPLITS]
    sites = [{site for table in split for site in table["site"].to_pylist()} for split in tables]
    assert sum(map(len, sites)) == len(set.union(*sites)) == 30, "a field is on one side"
    config = TrainConfig(
        task="organic_carbon", shards=(str(folder),), backbone="tiny", epochs=12, batch_size=16, precision="fp32"
    )
    run = fit(config, tmp_path / "run", RunOptions(device="cpu", tracker="none"))
    scores = evaluate(run, splits=["test"], device="cpu")["splits"]["test"]["organic_carbon"]
    assert scores["drawn"] == {"by": "site", "count": len(sites[2])} and scores["objects"] > 5 * len(sites[2])
    assert f"95% intervals are drawn by site, {len(sites[2])} of them" in (run / "report.md").read_text()
    assert f"calibrated on {len(sites[1])} values of site, fewer than 19" in (run / "report.html").read_text()
    assert scores["all"]["r2"] > 0.8 > 0.1 > scores["baselines"]["constant"]["r2"]
    answers = Predictor.open(run, device="cpu")(folder)
    assert len(answers) == 180 and np.isfinite(answers["organic_carbon"].to_numpy()).all()
    assert answers["ra"].null_count == 180 and answers["trained_on_mock"][0].as_py()

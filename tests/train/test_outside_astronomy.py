"""The page on soil: a wide table becomes a data set without a sky, and a model that beats the best constant."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from specshards.common.errors import UsageError
from specshards.ingest.said import Stated
from specshards.shards.format.manifest import SPLITS, Manifest
from specshards.train.config import RunOptions, TrainConfig
from specshards.train.evaluation.evaluate import evaluate
from specshards.train.fit import fit
from specshards.train.use.embed import embed
from specshards.train.use.explain import explain
from specshards.train.use.inputs import stated_for
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


def test_a_model_remembers_what_was_said_of_its_spectra(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A table of wavenumbers whose columns say nothing: predict reads it as ingest was told to."""
    rng, axis = np.random.default_rng(1), np.linspace(4000, 9990, 120)
    lines = ["jar,sugar," + ",".join(f"{x:.0f}" for x in axis)]
    for jar in range(60):
        sugar = rng.uniform(1, 5)
        flux = 2 + sugar * np.exp(-0.5 * ((axis - 6000) / 300) ** 2) + rng.normal(0, 0.01, len(axis))
        lines.append(f"jar-{jar},{sugar:.3f}," + ",".join(f"{y:.4f}" for y in flux))
    honey, out = tmp_path / "honey.csv", tmp_path / "honey"
    honey.write_text("\n".join(lines) + "\n", encoding="utf-8")
    made = commands.run(commands.program(
        "shards", "make", "--survey", "table", "--data", honey, "--out", out, "--name", "honey",
        "--wavelength-unit", "cm-1", "--size", 64, "--block", 4, "--split", "0.6,0.2,0.2", "--workers", 0,
    ))  # fmt: skip
    assert made.returncode == 0, made.stderr
    caplog.set_level("INFO")
    folder = next(path.parent for path in out.rglob("manifest.json"))
    manifest = Manifest.load(folder)
    assert manifest.stated == ({"wavelength_unit": "cm-1", "name": "honey"},)
    assert replace(manifest, stated=()).fingerprint() == manifest.fingerprint(), "as without the record"
    config = TrainConfig(
        task="sugar", shards=(str(folder),), backbone="tiny", epochs=1, batch_size=16, precision="fp32"
    )
    run = fit(config, tmp_path / "run", RunOptions(device="cpu", tracker="none"))
    model = Predictor.open(run, device="cpu")
    columns = ["object_id", "survey", "sugar"]
    learnt = model(folder).select(columns).sort_by("object_id").to_pydict()
    anew = model(honey).select(columns).sort_by("object_id").to_pydict()
    assert anew["survey"] == learnt["survey"] == ["honey"] * 60 and anew["object_id"] == learnt["object_id"]
    assert np.allclose(anew["sugar"], learnt["sugar"], rtol=1e-5)
    assert "read as those that the model learnt from: --wavelength-unit cm-1 --name honey" in caplog.text
    assert set(pq.read_table(embed(run, honey, device="cpu"))["survey"].to_pylist()) == {"honey"}
    seen = pq.read_table(explain(run, honey, limit=1, device="cpu") / "attention.parquet")
    assert seen["survey"].to_pylist() == ["honey"] and 10_000 < seen["wavelength"][0].as_py()[0] < 25_000
    done = commands.run(commands.program(
        "train", "predict", "--model", run, "--input", honey, "--device", "cpu", "--out", tmp_path / "sugar.csv",
        "--name", "syrup", "--wavelength-unit", "nm",
    ))  # fmt: skip
    assert "--wavelength-unit nm --name syrup" in done.stdout + done.stderr, "what is said now wins"


def test_statements_that_differ_are_not_chosen_among() -> None:
    honey, soil = {"name": "honey"}, {"name": "soil", "wavelength_unit": "nm"}
    assert stated_for([{"stated": [honey]}, {}]) == Stated(name="honey")
    assert stated_for([{"stated": [honey]}], Stated(unit="mJy")) == Stated(name="honey", unit="mJy")
    assert stated_for([{"stated": [honey]}, {"stated": [soil]}]) == Stated()
    with pytest.raises(UsageError, match="wavelength_unit=furlong"):
        stated_for([], Stated(wavelength_unit="furlong"))

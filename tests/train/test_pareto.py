"""Configurations by accuracy and cost: which is beaten, what a list may say, and a small one trained."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine
from specshards.ingest.mock.scale.config import ScaleConfig
from specshards.ingest.mock.scale.job import write_parquet_survey
from specshards.render import ImageConfig
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.write.build import build
from specshards.train.__main__ import app
from specshards.train.pareto import Grid, Line, Point, marked, read_list

pytestmark = pytest.mark.usefixtures("one_thread")
values = st.one_of(st.integers(0, 4).map(float), st.just(math.nan))


def point(cost: float, one: float, two: float) -> Point:
    return Point("x", "", (0,), cost, 1.0, {"a": [one], "b": [two]}, {"a": None, "b": None})


@given(st.lists(st.tuples(st.integers(1, 4).map(float), values, values), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(cells: list[tuple[float, float, float]]) -> None:
    found = marked([point(*cell) for cell in cells], {"a": True, "b": False})

    def worth(cell: tuple[float, float, float]) -> tuple[float, float, float]:
        cost, more, less = cell
        return cost, math.inf if math.isnan(more) else -more, math.inf if math.isnan(less) else less

    for one, mine in zip(found, map(worth, cells), strict=True):
        beaten = any(
            all(x <= y for x, y in zip(other, mine, strict=True)) and other != mine for other in map(worth, cells)
        )
        assert one.front != beaten


def test_a_list_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# all\n*: --epochs 2\nwhole:\nhalf: --ema .9  # of them\n\n*: --epochs 3\nlong: --ema .9\n")
    assert read_list(path) == [
        Line("whole", "--epochs 2"), Line("half", "--epochs 2 --ema .9"), Line("long", "--epochs 3 --ema .9"),
    ]  # fmt: skip
    for text, wrong in (
        ("", "no configuration there"), ("half --keep-tokens 0.5", "line 1: give `name: --option value`"),
        ("a: \na: --epochs 2", "line 2: a second a"), ("a/b: --epochs 2", "a name is letters"),
        ("a: --seed 3", "line 1: --seed is said to `train pareto` itself"), ("a: --shards=x", "--shards=x is said"),
        ("a: 'x", "line 1: No closing quotation"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(UsageError, match=wrong):
            read_list(path)
    with pytest.raises(UsageError, match="cannot be read as text"):
        read_list(tmp_path)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pareto")
    write_parquet_survey(ScaleConfig("lamost", n=200, templates=30), folder, engine=Engine(workers=0))
    image = ImageConfig(size=64, block=4, limits="percentile", grid="log")
    build(ShardConfig(image=image), folder / "spectra", folder / "shards", engine=Engine(workers=0))
    return folder / "shards"


def test_a_list_is_trained_and_told(
    shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(command: list[str]) -> SimpleNamespace:
        assert command[:4] == [sys.executable, "-m", "specshards", "train"]
        app(command[4:], standalone_mode=False)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", here)  # a process of its own takes seconds to begin
    path, out = tmp_path / "list.txt", tmp_path / "out"
    common = "--backbone tiny --batch-size 32 --tracker none --workers 1 --precision fp32"
    path.write_text(f"*: {common}\nwhole: --epochs 2\nhalf: --epochs 2 --patch 16 --keep-tokens 0.5\n")
    words = ["pareto", str(path), "--task", "classify", "--shards", str(shards), "--out", str(out), "--device", "cpu",
             "--by", "r2,accuracy"]  # fmt: skip
    app(words, standalone_mode=False)
    said = capfd.readouterr().out
    assert "run 2 of 2: half, seed 0" in said and "classify: accuracy" in said and f"{out / 'pareto.md'}" in said
    content = json.loads((out / "pareto.json").read_text())
    assert content["mock"] and [p["name"] for p in content["points"]] == ["whole", "half"]
    for each in content["points"]:
        record = json.loads((out / f"{each['name']}-0" / "run.json").read_text())
        scores = json.loads((out / f"{each['name']}-0" / "metrics.json").read_text())["splits"]["val"]["classify"]
        assert each["values"]["classify"] == [scores["all"]["accuracy"]]
        assert each["intervals"]["classify"] == scores["intervals"]["accuracy"]
        spent = sum(entry["samples"] * entry["gflop"] for entry in record["history"]) / 1e6
        assert each["petaflop"] == record["petaflop"] == pytest.approx(spent)
    page = (out / "pareto.md").read_text()
    assert page.startswith("# classify: accuracy and cost\n\n**MOCK data.**") and "| half | " in page
    assert "<svg" in (out / "pareto.svg").read_text()
    # More seeds of the front alone; what is finished stays.
    before = (out / "whole-0" / "model.safetensors").stat().st_mtime_ns
    front = [p["name"] for p in content["points"] if p["front"]]
    app([*words, "--front-seeds", "1"], standalone_mode=False)
    assert (out / "whole-0" / "model.safetensors").stat().st_mtime_ns == before
    seeds = {p["name"]: p["seeds"] for p in json.loads((out / "pareto.json").read_text())["points"]}
    assert seeds == {name: [0, 1] if name in front else [0] for name in ("whole", "half")}


def test_a_run_that_fails_is_named(tmp_path: Path) -> None:
    grid = Grid("classify", str(tmp_path / "none"), [Line("a", "--backbone tiny")], tmp_path / "out")
    with pytest.raises(JobError, match=r"a-0: this run failed \(\d+\); the same command goes on"):
        grid.train([0])
    assert grid.points([0]) == []

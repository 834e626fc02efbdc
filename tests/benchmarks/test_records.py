"""Records of benchmarks: their files, tables and plots, and two of them side by side."""

from __future__ import annotations

import json
import math
import re
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import specshards.benchmarks.__main__ as suite
from specshards.benchmarks.kit import plot, tables
from specshards.benchmarks.kit.comparison import WITHIN, compare, read
from specshards.benchmarks.kit.machine import Machine
from specshards.benchmarks.kit.records import UNITS, Record, Run, load, write
from specshards.common.errors import JobError, UsageError
from tests.conftest import ROOT, call

HERE = Machine("a CPU", 2, "Linux", "3.11.7", {"numpy": "2.4.6"}, 8_000_000_000, "", "", 0.1)

# Files


texts = st.text(st.characters(codec="utf-8"), max_size=20)
numbers = st.floats(0, 1e12, allow_subnormal=False)
records = st.builds(
    Record, texts, texts, st.lists(numbers, max_size=4).map(tuple), st.sampled_from([*UNITS, "parsec"]), texts,
    st.none() | numbers, st.dictionaries(texts, numbers, max_size=2),
)  # fmt: skip
machines = st.builds(Machine, texts, st.integers(1, 512), texts, texts, st.dictionaries(texts, texts, max_size=3),
                     st.none() | st.integers(0, 2**50), texts, texts, st.none() | numbers)  # fmt: skip
runs = st.builds(
    Run, texts, texts, machines, st.lists(records, max_size=4, unique_by=lambda r: (r.group, r.name)).map(tuple),
    texts, st.none() | numbers, st.sampled_from(["", "mock", "real"]), st.lists(texts, max_size=2).map(tuple),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(run=runs)
def test_a_file_gives_the_run_back(run: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("run") / "run.json"
    write(run, path)
    assert load(path) == run
    tables.page(run)


def test_records_of_the_repository_are_readable() -> None:
    folder = ROOT / "benchmarks" / "results"
    found = read(folder / "2-core-cpu")
    assert {run.name for run in found} == {"render", "encode", "ingest", "shards", "load", "train"}
    assert all(r.values or r.note for run in [*found, *read(folder)] for r in run.records)


def content(**changes: Any) -> str:
    record = {"group": "g", "name": "n", "values": [1.0], "unit": "s", "note": "", "bytes": None, "about": {}}
    run = {"format": 1, "name": "x", "command": "c", "started": "", "seconds": None, "data": "", "notes": [],
           "machine": {"cpu": "", "cores": 1, "system": "", "python": ""}, "records": [record]}  # fmt: skip
    return json.dumps({**run, **changes})


FOREIGN = {
    "half": content()[:150], "empty": "", "binary": "\0\1", "list": "[]", "other": '{"a": 1}',
    "number": content(seconds="long"), "later": content(format=2), "unknown": content(colour="red"),
    "value": content(records=[{"group": "g", "name": "n", "values": ["1"]}]),
    "nan": content(records=[{"group": "g", "name": "n", "values": [math.nan]}]),
    "negative": content(records=[{"group": "g", "name": "n", "values": [-1.0]}]),
    "without a name": content(records=[{"group": "g", "values": [1.0]}]), "records": content(records=3),
    "machine": content(machine=[]), "text": content(name=3), "about": content(
        records=[{"group": "g", "name": "n", "values": [1.0], "about": {"a": "b"}}]),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_a_damaged_file_is_told_in_one_line(name: str, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(content())
    assert load(good).records[0].median == 1
    bad.write_text(FOREIGN[name])
    with pytest.raises(UsageError, match=re.escape(str(bad))) as error:
        call(suite.app, "compare", good, bad)
    assert "\n" not in str(error.value)


# Tables and plots


MIXED = (
    Record("read", "ours", (2e-6, 1e-6, 4e-6), bytes=100.0), Record("read", "theirs | a<b>", (4e-4, 5e-4)),
    Record("read", "left out", (), note="not run: no GPU"), Record("memory", "1000 files", (199.4,), "MB"),
    Record("wait", "tiny", (0.25, 0.0), "share"), Record("speed", "ViT", (120.0,), "TFLOP/s"),
    Record("nothing", "$x_1$", (), note="not run: no GPU"), Record("zero", "all", (0.0, 0.0)),
)  # fmt: skip


def test_a_table_of_mixed_units_says_each_rightly() -> None:
    text = tables.table(MIXED)
    rows = {cells[1].strip(): [c.strip() for c in cells[2:-1]]
            for line in text.splitlines() if len(cells := re.split(r"(?<!\\)\|", line)) > 2}  # fmt: skip
    assert rows["ours"] == ["2.00", "1.00 to 4.00", "3", "500,000", "1.00", "100", "1.00"]
    assert rows["theirs \\| a&lt;b>"] == ["450", "400 to 500", "2", "2,222", "225", "", ""]
    assert rows["left out"][0] == rows["$x_1$"][0] == "not run: no GPU"
    assert rows["1000 files"] == ["199", "199 to 199", "1", "1.00"] and "median MB" in text
    assert rows["tiny"] == ["12.5", "0 to 25.0", "2", "1.00"] and "median %" in text
    assert rows["ViT"][0] == "120" and "median TFLOP/s" in text
    assert rows["all"] == ["0", "0 to 0", "2", "-", "-"] and "nan" not in text
    widths = [{line.replace("\\|", "").count("|") for line in part.splitlines() if "|" in line}
              for part in text.split("**")[2::2]]  # fmt: skip
    assert all(len(width) == 1 for width in widths)


@given(value=st.floats(1e-9, 1e12))
def test_a_figure_keeps_three_digits(value: float) -> None:
    assert float(tables.figure(value).replace(",", "")) == pytest.approx(value, rel=5.1e-3)


def test_a_plot_shows_the_medians(tmp_path: Path) -> None:
    run = Run("mixed", "c", HERE, MIXED, data="mock")
    panels = plot._figure(run).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["read", "memory", "wait", "speed", "zero"]
    assert [bar.get_width() for bar in panels[0].patches] == pytest.approx([2, 450])
    assert [axes.get_xscale() for axes in panels] == ["log", "linear", "linear", "linear", "linear"]
    assert [axes.get_xlabel() for axes in panels[:2]] == ["us/object, logarithmic", "MB"]
    words = [text.get_text() for text in plot._figure(run).texts]
    assert "not run: no GPU: left out; $x_1$" in words and "mixed, MOCK data" in words
    plot.draw(replace(run, records=MIXED[2:3]), tmp_path / "none.png")
    assert (tmp_path / "none.png").stat().st_size > 1000


# Comparisons


@settings(max_examples=60, deadline=None)
@given(run=runs)
def test_a_run_is_within_its_own_spread(run: Run) -> None:
    found = compare([run], [run])
    assert len(found.pairs) == sum(bool(r.values) for r in run.records)
    assert all(pair.verdict == WITHIN and pair.loss == 1 and pair.ratio in (1, None) for pair in found.pairs)
    assert not found.only_a and not found.only_b and not found.worse_than(1.0)


spreads = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=5).map(tuple)


@given(one=spreads, two=spreads, unit=st.sampled_from(list(UNITS)))
def test_verdicts(one: tuple[float, ...], two: tuple[float, ...], unit: str) -> None:
    (pair,), (back,) = (
        compare(*([Run("x", "", HERE, (Record("g", "n", v, unit),))] for v in sides)).pairs
        for sides in ((one, two), (two, one))
    )
    apart = all(b < a for a in one for b in two) or all(b > a for a in one for b in two)
    assert (pair.verdict == WITHIN) == (not apart) == (back.verdict == WITHIN)
    if apart:
        less = statistics.median(two) < statistics.median(one)
        assert pair.verdict == (UNITS[unit].lower if less else UNITS[unit].higher) != back.verdict
        assert (pair.loss > 1) == (less == UNITS[unit].more_is_better) == (back.loss == 1)
    assert pair.ratio == pytest.approx(statistics.median(two) / statistics.median(one))


def test_a_comparison_as_typed(tmp_path: Path) -> None:
    other = replace(HERE, cpu="another | CPU", cores=4, packages={"numpy": "2.5"}, load=3.5)
    both = [Record("g", "same", (1e-3, 2e-3)), Record("g", "slow", (1e-3, 2e-3)), Record("g", "fast", (1e-3, 2e-3))]
    a = [*both, Record("g", "gone", (1.0,)), Record("g", "on a GPU", (), note="not run: no GPU")]
    b = [replace(both[0], values=(1.5e-3,)), replace(both[1], values=(3e-3,)), replace(both[2], values=(5e-4,)),
         Record("g", "new", (1.0,)), Record("g", "on a GPU", (1.0,))]  # fmt: skip
    write(Run("x", "", HERE, tuple(a)), tmp_path / "a" / "x.json")
    write(Run("x", "", other, tuple(b)), tmp_path / "b.json")
    text = call(suite.app, "compare", tmp_path / "a", tmp_path / "b.json")
    machine, _, rows = text.partition("|  | unit")
    assert "- cpu: a CPU (A), another \\| CPU (B)\n" in machine and "- numpy: 2.4.6 (A), 2.5 (B)\n" in machine
    assert "- cores: 2 (A), 4 (B)\n" in machine and "memory" not in machine
    assert "- B was busy when it began: load average 3.5\n" in machine
    for line in ("| g: same | us/object | 1,500 | 1,500 | 1.00 | 2, 1 | within spread |",
                 "| g: slow | us/object | 1,500 | 3,000 | 2.00 | 2, 1 | slower |",
                 "| g: fast | us/object | 1,500 | 500 | 0.333 | 2, 1 | faster |"):  # fmt: skip
        assert line in rows
    assert "Only in A:\n\n- g: gone\n" in rows and "Only in B:\n\n- g: new\n- g: on a GPU (there: not run" in rows
    limits = "compare", tmp_path / "a", tmp_path / "b.json", "--fail-above"
    assert call(suite.app, *limits, 2.1)
    with pytest.raises(JobError, match=r"^1 of 3 more than 1.2 times worse: g: slow 2.00$"):
        call(suite.app, *limits, 1.2)
    write(Run("y", "", HERE, (both[0],)), tmp_path / "a" / "y.json")
    with pytest.raises(UsageError, match=r"x.json and y.json both have g: same"):
        read(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    for missing in (tmp_path / "empty", tmp_path / "none.json"):
        with pytest.raises(UsageError, match="make bench"):
            read(missing)

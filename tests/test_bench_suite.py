"""Every benchmark runs end to end on a few objects; records, tables, plots and comparisons say what was measured."""

from __future__ import annotations

import json
import math
import re
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import benchmarks.__main__ as suite
from benchmarks import encode, ingest, load, plot, render, shards, tables, train
from benchmarks.comparison import WITHIN, compare, read
from benchmarks.machine import Machine
from benchmarks.process import Job, job_records, worker_counts
from benchmarks.records import UNITS, Record, Run, interleave, write
from benchmarks.records import load as load_run
from benchmarks.report import QUICK_NOTE, gather, save
from ingest.errors import JobError, UsageError
from ingest.jobs import cores
from shards.encoding import ENCODINGS
from tests.conftest import ROOT

APPS = {"render": render.app, "encode": encode.app, "ingest": ingest.app, "shards": shards.app, "load": load.app,
        "train": train.app}  # fmt: skip
HERE = Machine("a CPU", 2, "Linux", "3.11.7", {"numpy": "2.4.6"}, 8_000_000_000, "", "", 0.1)


def call(app: Any, *arguments: object) -> str:
    """Standard output of a command; what it raises is raised."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    if done.exception is not None:
        raise done.exception
    return done.stdout


# Every benchmark, small


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.mark.parametrize("name", APPS)
@pytest.mark.usefixtures("one_thread")
def test_a_benchmark_leaves_its_three_files(name: str, folder: Path) -> None:
    out = folder / f"{name}.json"
    printed = call(APPS[name], "--quick", "--out", out, *(["--data", folder / "none"] if name == "ingest" else []))
    run = load_run(out)
    assert run.name == name and QUICK_NOTE in run.notes and run.data == "mock" and "MOCK" in printed
    assert run.machine.cores == cores() and run.machine.memory and run.seconds and run.started
    assert all(r.values or r.note.startswith("not run: ") for r in run.records)
    assert all(math.isfinite(value) and value >= 0 for r in run.records for value in r.values)
    written = out.with_suffix(".md").read_text()
    assert all(tables.cell(text) in written for r in run.records for text in (r.group, r.name))
    assert f"]({name}.png)" in written and out.with_suffix(".png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    CHECKS.get(name, lambda run: None)(run)
    assert f"## {name}" in gather(folder, list(APPS)).read_text()


def check_ingest(run: Run) -> None:
    (job,) = [r for r in run.records if r.group == "job"]
    assert job.name == "LAMOST gz, 4 files, 1 worker" and "LAMOST gz: 4 mock files" in run.notes
    assert (job.about["objects"], job.about["workers"]) == (4, 1)
    # A gzipped LAMOST spectrum, and it with its labels in a Parquet file of four.
    assert 10_000 < job.about["input_bytes"] < 200_000 and job.bytes and 10_000 < job.bytes < 200_000
    (peak,) = [r for r in run.records if r.unit == "MB"]
    assert 50 < peak.median < 2000


def check_shards(run: Run) -> None:
    (job,) = [r for r in run.records if r.group == "job"]
    assert job.name == "map2d png, 20 objects, 1 worker" and job.about == {"objects": 20, "workers": 1}
    assert job.bytes and job.bytes > 74 * 74 / 8
    assert sum(r.group == "stage" for r in run.records) == 4 + len(shards.KINDS) + len(ENCODINGS)


def check_load(run: Run) -> None:
    ours = [r for r in run.records if r.name.startswith("specshards")]
    assert len(ours) >= len(ENCODINGS) and all(r.about == {"threads": cores(), "batch": 64} for r in ours)
    assert all(r.bytes and r.bytes > 3000 for r in ours)
    assert {r.note for r in run.records if not r.values} == {"not run: without --peers"}


def check_train(run: Run) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ready, real = [r for r in run.records if r.group == f"train on {device}, batch 4"][:2]
    (wait,) = [r for r in run.records if r.group.startswith("data wait, train on cpu")]
    assert ready.about["batch"] == 4
    if device == "cpu":
        assert wait.median == max(0.0, 1 - ready.median / real.median)
        left_out = [r for r in run.records if not r.values]
        assert {r.note for r in left_out} == {"not run: no GPU"}
        assert {f"loader alone, {name}" for name in ENCODINGS} < {r.name for r in left_out}
        assert {r.group.partition(",")[0] for r in left_out} == {
            "load on cuda", "train on cuda", "data wait", "TFLOP/s", "MFU",
        }  # fmt: skip


CHECKS = {"ingest": check_ingest, "shards": check_shards, "load": check_load, "train": check_train}


def test_all_in_a_row_as_typed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "run", "--quick", "--only", "encode", "--out", str(tmp_path / "x")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "[1/1] encode: encodings" in done.stdout, done.stderr
    assert load_run(tmp_path / "x" / "encode.json").command.startswith("python -m benchmarks.encode --out ")
    assert {path.name for path in (tmp_path / "x").iterdir()} == {
        "encode.json", "encode.md", "encode.png", "README.md"
    }  # fmt: skip


def test_what_is_finished_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    asked = []

    def fake(command: list[str]) -> int:
        asked.append(command[2:])
        if "benchmarks.load" in command:
            raise KeyboardInterrupt
        save(Run("render", "typed", HERE, (Record("g", "n", (1.0,)),)), Path(command[command.index("--out") + 1]))
        return 0

    monkeypatch.setattr(suite, "_process", fake)
    with pytest.raises(KeyboardInterrupt):
        suite.run("render,load,train", tmp_path, peers=True)
    assert asked == [["benchmarks.render", "--out", str(tmp_path / "render.json")],
                     ["benchmarks.load", "--out", str(tmp_path / "load.json"), "--peers"]]  # fmt: skip
    assert "`typed`" in (tmp_path / "README.md").read_text() and "--only load,train" in capsys.readouterr().err
    monkeypatch.setattr(suite, "_process", lambda command: 2)
    with pytest.raises(JobError, match="render ended with exit code 2"):
        suite.run("render", tmp_path)
    with pytest.raises(UsageError, match=r"a name that ends in \.json"):
        call(render.app, "--quick", "--out", tmp_path / "render.md")
    with pytest.raises(UsageError, match="no benchmark nothing; choose render, encode"):
        suite.run("render,nothing", tmp_path)


# Whole jobs: what a model of the cost is fitted on


def test_jobs_are_every_size_and_number_of_workers(tmp_path: Path) -> None:
    many = worker_counts()
    assert many[0] == 1 and many[-1] == cores() and worker_counts(1) == [1]
    made = shards.jobs({5000: tmp_path / "a", 20_000: tmp_path / "b"})
    names = [job.name for job in made]
    assert len(set(names)) == len(names)
    for size, where in ((5000, "a"), (20_000, "b")):
        for count in many:
            (job,) = [j for j in made if (j.title, j.objects, j.workers) == ("map2d png", size, count)]
            assert job.name == f"map2d png, {size:,} objects, {count} worker{'s' * (count > 1)}"
            words = job.command(tmp_path / "out")
            options = dict(zip(words[4::2], words[5::2], strict=True))
            assert options == {"--spectra": str(tmp_path / where), "--out": str(tmp_path / "out"), "--image": "map2d",
                               "--workers": str(count), "--encoding": "png"}  # fmt: skip
    for encoding in ENCODINGS:
        assert [j for j in made if (j.title, j.objects, j.workers) == (f"map2d {encoding}", 20_000, many[-1])]

    files = [tmp_path / f"{i}.fits.gz" for i in range(3)]
    for i, path in enumerate(files):
        path.write_bytes(b"x" * (i + 1))
    made = ingest.jobs({"LAMOST gz": files}, (4, 8), tmp_path / "links")
    assert {job.name for job in made} >= {"LAMOST gz, 4 files, 1 worker", "LAMOST gz, 8 files, 1 worker"}
    assert len(made) == 2 * len(many)
    for job in made:
        words = job.command(tmp_path / "out")
        linked = [path for path in Path(words[words.index("--data") + 1]).rglob("*") if path.is_file()]
        assert len(linked) == job.objects and words[words.index("--workers") + 1] == str(job.workers)
        assert dict(job.about)["input_bytes"] == sum(path.stat().st_size for path in linked) / job.objects


def script(code: str) -> Any:
    return lambda out: [sys.executable, "-c", f"import pathlib, sys; out = pathlib.Path({str(out)!r}); {code}"]


def test_a_job_is_weighed_and_counted(tmp_path: Path) -> None:
    write_it = script("(out / 'a').mkdir(parents=True); (out / 'a' / 'b').write_bytes(b'x' * 300); print('said')")
    job = Job("map2d png", "objects", 10, 2, write_it, lambda out: 10, (("input_bytes", 7.0),))
    other = replace(job, title="map2d pnm", workers=1)
    records = job_records([job, other], 2, tmp_path)
    assert [r.name for r in records] == ["map2d png, 10 objects, 2 workers", "map2d pnm, 10 objects, 1 worker"]
    assert records[0].about == {"objects": 10, "workers": 2, "input_bytes": 7}
    assert all(r.group == "job" and r.bytes == 30 and len(r.values) == 2 for r in records)
    assert not list(tmp_path.iterdir())
    with pytest.raises(JobError, match="accounts for 9 objects"):
        job_records([replace(job, count=lambda out: 9)], 1, tmp_path)
    with pytest.raises(JobError, match=r"failed: the reason$"):
        job_records([replace(job, command=script("print('more'); sys.exit('error: the reason')"))], 1, tmp_path)


def test_contenders_take_turns() -> None:
    seen = []
    records = interleave("g", {n: lambda n=n: len(seen.append(n) or "ab") for n in "ab"}, 2, after=seen.append)
    assert seen == list("aabb") * 3 and [(r.name, len(r.values)) for r in records] == [("a", 2), ("b", 2)]
    assert [len(r.values) for r in interleave("g", {"a": lambda: 1}, 2, warm=False)] == [2]


def test_what_follows_from_training_times() -> None:
    about = {"batch": 64.0, "flop": 1e11}
    pair = [Record("train on cuda, batch 64", f"ViT, {n}", v, about=about)
            for n, v in (("cached batches", (1e-3, 2e-3)), ("loader", (2e-3, 1e-3)))]  # fmt: skip
    wait, *rest = train.derived(pair, "NVIDIA GeForce RTX 4090")
    assert wait.name == "ViT" and wait.values == (0.5, 0.0)
    rates = {(r.group.partition(",")[0], r.name): r.values for r in rest}
    assert rates["TFLOP/s", "ViT, cached batches"] == pytest.approx((100, 50))
    assert rates["MFU", "ViT, loader"] == pytest.approx((50 / 165.2, 100 / 165.2))
    unknown = [r for r in train.derived(pair, "NVIDIA T4") if r.group.startswith("MFU")]
    assert len(unknown) == 2 and all(not r.values and "the bf16 peak of NVIDIA T4 is not known" in r.note
                                     for r in unknown)  # fmt: skip
    peaks = {"NVIDIA A100-SXM4-80GB": 312, "NVIDIA H100 80GB HBM3": 989, "NVIDIA H200": 989}
    assert {name: train.peak_of(name) and train.peak_of(name) // 1e12 for name in peaks} == peaks
    assert train.peak_of("NVIDIA H100 PCIe") is None and train.peak_of("NVIDIA GeForce RTX 4090 Laptop GPU") is None


@pytest.mark.usefixtures("one_thread")
def test_the_loader_alone_goes_on_over_epochs(tmp_path: Path) -> None:
    folders = train._shards(tmp_path, 60, ("png", "flux"))
    found = train.alone_records(folders, 8, 1, steps=20, device="cpu")  # an epoch has six
    assert [r.name for r in found] == ["loader alone, png", "loader alone, flux"]
    assert all(r.group == "load on cpu, batch 8" and r.about == {"batch": 8} and r.median > 0 for r in found)


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
    assert load_run(path) == run
    tables.page(run)


def test_records_of_the_repository_are_readable() -> None:
    found = read(ROOT / "benchmarks" / "results")
    assert len(found) >= 8 and all(r.values or r.note for run in found for r in run.records)


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
    assert load_run(good).records[0].median == 1
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
        assert (pair.loss > 1) == (less == (unit == "TFLOP/s")) == (back.loss == 1)
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
    machine, _, rows = text.partition("| | unit")
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


# make


def make(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "-n", "-o", ".venv/.made", *words], cwd=ROOT, capture_output=True, text=True)


def test_make_targets() -> None:
    assert ".venv/bin/python -m benchmarks run" in make("bench").stdout
    for name in APPS:
        assert f".venv/bin/python -m benchmarks.{name}" in make(f"bench-{name}").stdout
    done = make("bench-compare", "a.json", "benchmarks/results")
    assert done.returncode == 0 and "-m benchmarks compare a.json benchmarks/results" in done.stdout, done.stderr
    for words in ((), ("a.json",), ("a", "b", "c")):
        done = subprocess.run(["make", "-o", ".venv/.made", "bench-compare", *words], cwd=ROOT, capture_output=True,
                              text=True)  # fmt: skip
        assert done.returncode == 2 and "usage: make bench-compare A.json B.json" in done.stderr

"""Every benchmark runs end to end on a few objects; records, tables, plots and comparisons say what was measured."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import specshards.benchmarks.__main__ as suite
from specshards.benchmarks.kit import tables
from specshards.benchmarks.kit.machine import Machine
from specshards.benchmarks.kit.process import Job, job_records, worker_counts
from specshards.benchmarks.kit.records import Record, Run, interleave
from specshards.benchmarks.kit.records import load as load_run
from specshards.benchmarks.kit.report import QUICK_NOTE, gather, save
from specshards.benchmarks.suite import ingest, shards, train
from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import cores
from specshards.shards.format.encoding import ENCODINGS
from tests.conftest import ROOT, call
from tests.oracles import commands

HERE = Machine("a CPU", 2, "Linux", "3.11.7", {"numpy": "2.4.6"}, 8_000_000_000, "", "", 0.1)


# Every benchmark, small


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.mark.parametrize("name", [*suite.GROUPS, "several", "survey", "verify", "listing", "remote"])
@pytest.mark.usefixtures("one_thread")
def test_a_benchmark_leaves_its_three_files(name: str, folder: Path) -> None:
    out = folder / f"{name}.json"
    printed = call(
        suite.app, name, "--quick", "--out", out, *(["--data", folder / "none"] if name == "ingest" else [])
    )
    run = load_run(out)
    assert run.name == name and QUICK_NOTE in run.notes and run.data == "mock" and "MOCK" in printed
    assert run.machine.cores == cores() and run.machine.memory and run.seconds and run.started
    assert all(r.values or r.note.startswith("not run: ") for r in run.records)
    assert all(math.isfinite(value) and value >= 0 for r in run.records for value in r.values)
    written = out.with_suffix(".md").read_text()
    assert all(tables.cell(text) in written for r in run.records for text in (r.group, r.name))
    assert f"]({name}.png)" in written and out.with_suffix(".png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    CHECKS.get(name, lambda run: None)(run)
    assert (
        f"## {name}"
        in gather(folder, [*suite.GROUPS, "several", "survey", "verify", "listing", "remote"]).read_text()
    )


@pytest.mark.usefixtures("one_thread")
def test_what_a_seal_costs(tmp_path: Path) -> None:
    call(suite.app, "shards", "--seal", "--quick", "--out", tmp_path / "seal.json")
    found = {(r.group, r.name): r for r in load_run(tmp_path / "seal.json").records}
    for step in ("ingest", "shards"):
        assert all(found[f"seal: {step}", name].values for name in ("with a seal", "without"))


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
    done = commands.run(commands.program("bench", "run", "--quick", "--only", "encode", "--out", tmp_path / "x"))
    assert done.returncode == 0 and "[1/1] encode: encodings" in done.stdout, done.stderr
    assert load_run(tmp_path / "x" / "encode.json").command.startswith("specshards bench encode --out ")
    assert {path.name for path in (tmp_path / "x").iterdir()} == {
        "encode.json", "encode.md", "encode.png", "README.md"
    }  # fmt: skip


def test_what_is_finished_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    asked = []

    def fake(command: list[str]) -> int:
        asked.append(command[4:])
        if "load" in command:
            raise KeyboardInterrupt
        save(Run("render", "typed", HERE, (Record("g", "n", (1.0,)),)), Path(command[command.index("--out") + 1]))
        return 0

    monkeypatch.setattr(suite, "_process", fake)
    with pytest.raises(KeyboardInterrupt):
        suite.run("render,load,train", tmp_path, peers=True)
    assert asked == [["render", "--out", str(tmp_path / "render.json")],
                     ["load", "--out", str(tmp_path / "load.json"), "--peers"]]  # fmt: skip
    assert "`typed`" in (tmp_path / "README.md").read_text() and "--only load,train" in capsys.readouterr().err
    monkeypatch.setattr(suite, "_process", lambda command: 2)
    with pytest.raises(JobError, match="render ended with exit code 2"):
        suite.run("render", tmp_path)
    with pytest.raises(UsageError, match=r"a name that ends in \.json"):
        call(suite.app, "render", "--quick", "--out", tmp_path / "render.md")
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
            options = dict(zip(words[5::2], words[6::2], strict=True))
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
    folders = train.make_shards(tmp_path, 60, ("png", "flux"))
    found = train.alone_records(folders, 8, 1, steps=20, device="cpu")  # an epoch has six
    assert [r.name for r in found] == ["loader alone, png", "loader alone, flux"]
    assert all(r.group == "load on cpu, batch 8" and r.about == {"batch": 8} and r.median > 0 for r in found)


# make


def make(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "-n", "-o", ".venv/.made", *words], cwd=ROOT, capture_output=True, text=True)


def test_make_targets() -> None:
    assert ".venv/bin/python -m specshards bench run" in make("bench").stdout
    for name in suite.GROUPS:
        assert f".venv/bin/python -m specshards bench {name}" in make(f"bench-{name}").stdout
    done = make("bench-compare", "a.json", "benchmarks/results")
    assert done.returncode == 0 and "-m specshards bench compare a.json benchmarks/results" in done.stdout, (
        done.stderr
    )
    for words in ((), ("a.json",), ("a", "b", "c")):
        done = subprocess.run(["make", "-o", ".venv/.made", "bench-compare", *words], cwd=ROOT, capture_output=True,
                              text=True)  # fmt: skip
        assert done.returncode == 2 and "usage: make bench-compare A.json B.json" in done.stderr

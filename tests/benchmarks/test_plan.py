"""The cost model: finds the cost it was given again, and its plan adds up."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from specshards.benchmarks import __main__ as suite
from specshards.benchmarks.kit import machine
from specshards.benchmarks.kit.records import Record, Run, load, write
from specshards.benchmarks.plan.cost import RESOURCES, Costs, Hardware, JobTime, stages, whole
from specshards.benchmarks.plan.plan import duration, mixture
from specshards.common.errors import UsageError
from tests.conftest import call

HERE = machine.Machine("a processor", 8, "Linux", "3.11")
SIZES, WORKERS = (5_000, 20_000), (1, 2)
seconds = st.floats(1e-6, 1e-2)
machines = st.builds(Hardware, st.integers(1, 128), st.floats(1e7, 1e10), st.floats(10, 1e5))


def jobs(job: JobTime, title: str, **about: float) -> list[Record]:
    return [
        Record("job", f"{title}, {n} objects, {w} workers", (job.seconds(n, w) / n,), bytes=4000.0,
               about={"objects": n, "workers": w, **about})
        for n in SIZES for w in WORKERS
    ]  # fmt: skip


def measured() -> dict[str, list[Record]]:
    """Records as the suite leaves them."""
    job = JobTime(3.0, 1e-5, 2e-4)
    load = [Record("load map2d", f"specshards {b}, png", (t,), about={"threads": 2}) for b, t in
            (("dali", 6e-5), ("plain", 5e-5))]  # fmt: skip
    slow = Record("job", "map2d jpeg, 20000 objects, 2 workers", (4e-4,), bytes=29e3,
                  about={"objects": 20_000, "workers": 2})  # fmt: skip
    # What is in another group, or was not run, is no job.
    others = [Record("stage", "map2d png", (9.0,)), Record("job", "map2d png, 1 worker", (), note="not run: why")]
    return {
        "ingest": jobs(JobTime(2.0, 1e-5, 8e-4), "LAMOST gz", input_bytes=80e3),
        "shards": [*others, *jobs(job, "map2d png"), slow], "load": load,
    }  # fmt: skip


@given(start=st.floats(0.1, 10), shared=seconds, own=seconds)
def test_the_fit_finds_the_cost_that_jobs_were_made_with(start: float, shared: float, own: float) -> None:
    job = JobTime(start, shared, own)
    found = JobTime.fit(jobs(job, "x"))
    for objects, workers in ((5_000, 1), (20_000, 2), (200_000, 2), (14_000_000, 16)):
        assert found.seconds(objects, workers) == pytest.approx(job.seconds(objects, workers), rel=1e-4)


def test_no_cost_is_below_nothing_where_the_jobs_contradict_each_other() -> None:
    # Twice the objects in less than twice the time, and two workers slower than one.
    records = [
        Record("job", "x", (s / n,), about={"objects": n, "workers": w})
        for n, w, s in ((1000, 1, 9.0), (1000, 2, 10.0), (4000, 1, 9.5), (4000, 2, 10.5))
    ]
    found = JobTime.fit(records)
    assert min(found.start, found.shared, found.own) >= 0
    assert all(found.seconds(n, w) == pytest.approx(10, rel=0.1) for n in (1000, 4000) for w in (1, 2))


def test_one_size_or_one_number_of_workers_is_not_enough() -> None:
    records = jobs(JobTime(1, 1e-5, 1e-4), "x")
    for some in (records[:2], records[::2], []):
        with pytest.raises(UsageError, match="two sizes and two numbers"):
            JobTime.fit(some)


def test_a_plan_reads_the_records_that_it_stands_on() -> None:
    costs = Costs.of(measured(), {"lamost": 1.0}, "png")
    assert costs.ingest.seconds(1e6, 1) == pytest.approx(2 + 810)
    assert costs.shards.seconds(1e6, 2) == pytest.approx(3 + 110)
    assert costs.load == pytest.approx(1.2e-4)  # DALI, as by default, on two threads
    assert (costs.file, costs.parquet, costs.sample) == (80e3, 4000, 4000)
    slow = Costs.of({**measured(), "load": [Record("l", "specshards dali, jpeg", (2e-4,), about={"threads": 2})]},
                    {"lamost": 1.0}, "jpeg")  # fmt: skip
    assert slow.shards.seconds(20_000, 2) == pytest.approx(8) and slow.shards.shared == costs.shards.shared
    assert slow.sample == 29e3


@pytest.mark.parametrize(
    ("survey", "encoding", "what"), [("desi", "png", "bench-ingest"), ("lamost", "pnm", "writes pnm"),
                                     ("lamost", "jpeg", "bench-load")]
)  # fmt: skip
def test_a_record_that_is_missing_is_named(survey: str, encoding: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        Costs.of(measured(), {survey: 1.0}, encoding)


@given(machine=machines, objects=st.integers(1, 10**8), epochs=st.integers(1, 100))
def test_a_plan_adds_up_and_more_never_costs_more(machine: Hardware, objects: int, epochs: int) -> None:
    costs = Costs.of(measured(), {"lamost": 1.0}, "png")
    parts = stages(costs, machine, objects, epochs)
    assert [stage.name for stage in parts] == ["ingest", "shards", "one epoch", f"{epochs} epochs"]
    assert whole(parts) == pytest.approx(sum(stage.total for stage in parts) - parts[2].total)
    assert parts[3].total == pytest.approx(epochs * parts[2].total)
    for stage in parts:
        assert stage.total == max(stage.seconds.values()) == stage.seconds[stage.limit]
    for resource in RESOURCES:
        after = stages(costs, machine.doubled(resource), objects, epochs)
        for stage, then in zip(parts, after, strict=True):
            assert stage.total / 2 <= then.total * (1 + 1e-9) <= stage.total * (1 + 2e-9)
            if stage.limit != resource:
                assert then.total == stage.total
    assume(objects < 10**7)
    assert whole(stages(costs, machine, 2 * objects, epochs)) > whole(parts)


def test_what_limits_is_what_there_is_least_of() -> None:
    costs = Costs.of(measured(), {"lamost": 1.0}, "png")
    rich = Hardware(cores=10**6, disk=1e15, images=1e12)
    for poor, limit in (
        (replace(rich, cores=1), "cores"),
        (replace(rich, disk=1e3), "disk"),
        (replace(rich, images=1), "gpu"),
    ):
        assert stages(costs, poor, 10**6, 1)[2].limit == limit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records as the suite leaves them, and another one that the plan must pass over."""
    found = tmp_path_factory.mktemp("records")
    for name, its in measured().items():
        write(Run(name, "c", HERE, tuple(its), started="2026-01-02", data="mock"), found / f"{name}.json")
    other = Record("start-up of a million samples", "dali", (1.0,))
    write(Run("load", "c", HERE, (other,), started="2026-01-03", data="mock"), found / "load-startup.json")
    return found


def said(*words: object) -> str:
    return call(suite.app, "plan", *words)


def test_the_plan_as_typed(folder: Path) -> None:
    text = said("--objects", "14e6", "--gpu", "rtx4090", "--cores", 16, "--disk", "nvme", "--survey", "lamost",
                "--records", folder)  # fmt: skip
    rows = rows_of(text)
    # 14e6 x (1e-5 + 8e-4 / 16) + 2 s; 14e6 x (0.8 + 0.1 / 3) / 360 to 856 a second, 30 times.
    assert rows["ingest"][:2] == ["14.0 min", "cores"] and rows["ingest"][5:7] == ["1.1 TB", "56.0 GB"]
    assert rows["one epoch"][:2] == ["3.8 h to 9.0 h", "gpu"] and rows["30 epochs"][0] == "4.7 d to 11.2 d"
    assert rows["30 epochs"][-1] == "2.4 d to 5.6 d" and rows["30 epochs"][-3:-1] == ["4.7 d to 11.2 d"] * 2
    assert "Assumed:" in text and "nine days" in text and f"the 8 of {HERE.cpu}" in text and "2.0 s, and" in text


def test_the_plan_of_the_run_that_it_is_anchored_on_is_that_run(folder: Path) -> None:
    """The paper's: 14 million objects, 60% trained on and 20% looked at, 30 epochs, nine days; 23% of the peak."""
    text = said("--objects", "14e6", "--gpu", "rtx4090", "--split", "0.6,0.2,0.2", "--survey", "lamost",
                "--records", folder)  # fmt: skip
    assert rows_of(text)["30 epochs"][0] == "3.8 d to 9.0 d" and "360 to 856 samples/s" in text
    assert "23% to 55% of 165 TFLOP/s" in text and "0.67 training samples for each object" in text


def test_the_bytes_of_both_surveys_count(tmp_path: Path) -> None:
    runs = measured()
    runs["ingest"] += jobs(JobTime(4.0, 2e-5, 2e-4), "SDSS", input_bytes=200e3)
    both = Costs.of(runs, mixture("lamost=0.75, sdss=0.25"), "png")
    assert both.file == pytest.approx(110e3) and both.ingest.own == pytest.approx(6.5e-4)
    assert both.ingest.seconds(1e6, 4) == pytest.approx(4 + 12.5 + 162.5)
    assert mixture("lamost,sdss") == {"lamost": 0.5, "sdss": 0.5} and mixture("sdss") == {"sdss": 1.0}
    for wrong in ("", "lamost=0.7", "lamost=a,sdss=b", "lamost=2,sdss=-1"):
        with pytest.raises(UsageError, match="shares that come to 1"):
            mixture(wrong)


def rows_of(text: str) -> dict[str, list[str]]:
    return {cells[1].strip(): [c.strip() for c in cells[2:-1]]
            for line in text.splitlines() if len(cells := line.split("|")) > 2}  # fmt: skip


def test_what_was_measured_wins_over_what_is_assumed(folder: Path) -> None:
    text = said("--objects", "1e6", "--gpu", 1000, "--disk", 100, "--survey", "lamost", "--records", folder)
    assert "GPU: 1,000 samples/s, as given" in text and "disk: 100 MB/s, as given" in text


@pytest.mark.parametrize(
    ("words", "what"),
    [(["--gpu", "abacus"], "unknown --gpu abacus: give one of rtx4090, "), (["--disk", "tape"], "unknown --disk"),
     (["--gpu", "-3"], "unknown --gpu"), (["--objects", "0"], "at least one object"),
     (["--survey", "hst"], "no record of hst"), (["--split", "1,2"], "shares of train, val and test"),
     (["--survey", "lamost,sdss"], "no record of sdss"), (["--records", "/nowhere"], "run `make bench` first")],
)  # fmt: skip
def test_a_plan_that_cannot_be_made_says_why(words: list[str], what: str, folder: Path) -> None:
    with pytest.raises(UsageError, match=re.escape(what)):
        said("--records", folder, *words)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59, "59.0 s"), (61, "1.0 min"), (86400, "24.0 h"), (172800, "2.0 d")]
)
def test_a_duration_is_told_in_the_unit_that_reads_best(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.usefixtures("one_thread")
def test_the_plan_against_what_jobs_take(folder: Path, tmp_path: Path) -> None:
    small = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("ingest", "shards", "load")}
    for name, content in small.items():
        for record in content["records"]:
            record["about"] |= {"objects": 48 if record["about"].get("objects") == SIZES[1] else 12}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    sdss = [{**r, "name": r["name"].replace("LAMOST gz", "SDSS")} for r in small["ingest"]["records"]]
    small["ingest"]["records"] += sdss
    (tmp_path / "ingest.json").write_text(json.dumps(small["ingest"]))
    words = "--quick", "--records", tmp_path, "--data", tmp_path / "none", "--out", tmp_path / "scale.json"
    call(suite.app, "scale", *words)
    run = load(tmp_path / "scale.json")
    assert [r.name.partition(",")[0] for r in run.records] == ["LAMOST gz", "SDSS", "map2d png", "load map2d png"]
    for r in run.records:
        took, planned = (float(x) for x in re.findall(r"took ([\d.]+) s, planned ([\d.]+) s", r.note)[0])
        assert took == pytest.approx(r.median * r.about["objects"], abs=0.06) and planned >= 0

"""A survey through every command: its rows, what is watched of a command, and how records of several sizes grow."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import specshards.benchmarks.__main__ as suite
from specshards.benchmarks.kit.machine import Machine
from specshards.benchmarks.kit.records import Run
from specshards.benchmarks.kit.report import save
from specshards.benchmarks.survey import growth, rows, survey
from specshards.benchmarks.survey.road import Road, Row
from specshards.benchmarks.survey.watch import watch
from specshards.common.errors import UsageError
from specshards.ingest.spectra.folder import SpectraFolder
from specshards.ingest.spectra.schema import SCHEMA
from tests.conftest import call

HERE = Machine("a CPU", 2, "Linux", "3.11.7")


def test_a_longer_survey_begins_with_a_shorter_one(tmp_path: Path) -> None:
    for name, count in (("short", 300), ("long", rows.PART_ROWS + 10)):
        (tmp_path / name).mkdir()
        for part in range(-(-count // rows.PART_ROWS)):
            rows.write_part(part, count, tmp_path / name)
    short, long = (pq.read_table(tmp_path / name) for name in ("short", "long"))
    assert short.equals(long.slice(0, 300)) and long.schema.equals(SCHEMA) and len(long) == rows.PART_ROWS + 10
    assert SpectraFolder.scan(tmp_path / "long").rows == len(long)
    assert len(set(long["object_id"].to_pylist())) == len(long)
    assert set(long["class"].to_pylist()) == set(rows.CLASSES) and long["teff"].null_count
    # A row takes about a hundred bytes.
    size = sum(path.stat().st_size for path in (tmp_path / "long").iterdir())
    assert size < 200 * len(long)


def test_places_are_of_the_sky_and_some_are_visited_again() -> None:
    ra, dec = rows.places(np.arange(20_000, dtype=np.uint64))
    assert ((ra >= 0) & (ra < 360)).all() and (dec > -10.1).all() and (dec < 60.1).all()
    assert 0.07 < 1 - len(np.unique(ra)) / len(ra) < 0.11


def test_what_a_command_and_its_children_take_is_seen() -> None:
    child = "import time; held = bytearray(b'x') * (150 << 20); time.sleep(2)"
    code = (
        f"import subprocess, sys; files = [open('/dev/null') for _ in range(40)]; "
        f"subprocess.run([sys.executable, '-c', {child!r}], check=True); print('done')"
    )
    found = watch([sys.executable, "-c", code])
    assert (found.code, found.said.strip(), found.stopped) == (0, "done", "") and found.seconds > 2
    assert found.largest > 150 and found.together > found.largest and found.own > 150 and found.handles >= 40


def test_a_command_that_takes_too_much_is_stopped() -> None:
    held = "import time; held = bytearray(b'x') * (200 << 20); time.sleep(60)"
    assert watch([sys.executable, "-c", held], most_megabytes=100).stopped.startswith("stopped at ")
    assert watch([sys.executable, "-c", held], most_seconds=0.5).stopped == "stopped after 1 s"
    assert watch([sys.executable, "-c", "raise SystemExit('error: no')"]).error == "error: no"


def test_a_stage_that_fails_is_a_row_and_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    road = Road(10, tmp_path, 0)
    (row,) = road.run(["verify"])  # there is nothing there
    assert row.seconds is None and "manifest.json" in row.error and row.largest > 20
    assert Road(10, tmp_path, 0).rows()[0] == row and not list(Road(10, tmp_path, 0).run(["verify"]))
    (unmade,) = road.run(["loader"])  # nor can its inputs be made
    assert unmade.seconds is None and "manifest.json" in unmade.error
    record = survey.records([row])[0]
    assert not record.values and record.note == f"failed: {row.error}"


def test_growth_is_the_exponent_between_two_sizes(tmp_path: Path) -> None:
    for size in (10_000, 1_000_000):
        found = [Row("build", "build", size, size * 2e-4, 300.0, 500.0, 200.0, 40), Row("verify", "verify", size,
                 None if size > 10_000 else 1.0, 100.0 * size / 10_000, 100.0, 90.0, 5, error="it grew")]  # fmt: skip
        run = Run("survey", "c", HERE, tuple(survey.records(found)), data="mock")
        save(run, tmp_path / f"x-survey-{size}.json")
    growth.write(tmp_path / "x-survey-10000.json")
    page = (tmp_path / "x-survey-growth.md").read_text()
    cells = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]]
             for line in page.splitlines() if line.startswith("|")}  # fmt: skip
    assert cells["build"] == ["2.00", "200", "1.00", "300", "300", "0.00", "40", "40"]
    assert cells["verify"] == ["1.00", "failed", "", "100", "10,000", "1.00", "5", "5"]
    assert (tmp_path / "x-survey-growth.png").read_bytes()[:4] == b"\x89PNG"


def test_options_are_checked_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no stage cook; choose rows, build"):
        call(suite.app, "survey", "--stages", "rows,cook", "--scratch", tmp_path / "s")
    with pytest.raises(UsageError, match="GB of disk"):
        call(suite.app, "survey", "--objects", "1e12", "--scratch", tmp_path / "s")

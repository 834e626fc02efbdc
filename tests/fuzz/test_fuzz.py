"""A slice of the fuzz run, and that the harness sees faults where there are some."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.__main__ import main
from tests.fuzz.damage import damaged
from tests.fuzz.judge import OWN, judge
from tests.fuzz.layouts import MADE
from tests.fuzz.run import Plan, Watched, replay, run
from tests.oracles.survey_files import lamost_table


def test_a_slice(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPECSHARDS_REAL_DATA", raising=False)
    code = main(["--budget", "12", "--seed", "18", "--workers", "2", "--keep", str(tmp_path / "kept")])
    shown = capsys.readouterr().out
    assert code == 0, shown
    for layout in MADE:
        assert layout in shown


def test_the_same_numbers_give_the_same_damage(tmp_path: Path) -> None:
    content = lamost_table(tmp_path / "a.fits").read_bytes()
    for number in range(40):
        one, other = (damaged(content, True, np.random.default_rng([1, number])) for _ in range(2))
        assert one == other


def test_a_wrong_value_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that spoils a pixel, and a sealed file with another file's values."""
    from specshards.ingest.spectra.schema import to_table, write_parquet
    from specshards.ingest.surveys import lamost
    from tests.conftest import make_spectrum

    path = lamost_table(tmp_path / "a.fits")
    assert judge(path, "lamost-table", path).outcome == "sample"
    right = lamost.floats

    def wrong(values: object) -> object:
        result = right(values).copy()
        result[5] *= 1.001
        return result

    monkeypatch.setattr(lamost, "floats", wrong)
    assert judge(path, "lamost-table", path)[:2] == ("wrong", "flux")
    monkeypatch.undo()
    made = MADE[OWN](tmp_path)
    other = [make_spectrum(i, np.random.default_rng(3), n=300, survey="sdss") for i in range(6)]
    write_parquet(to_table(other), tmp_path / "other.parquet", {})
    assert judge(made, OWN, made).outcome == "sample"
    assert judge(tmp_path / "other.parquet", OWN, made)[:2] == ("wrong", "object 0 is another one")


def test_a_crash_and_a_hang_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lamost_table(tmp_path / "a.fits")
    asked = {"path": str(path), "layout": "lamost-table", "original": str(path)}
    watched = Watched(0, tmp_path)
    assert watched._ask(asked).outcome == "sample"
    assert watched._process is not None
    os.kill(watched._process.pid, 11)
    assert watched._ask(asked).outcome == "crash"
    assert watched._ask(asked).outcome == "sample"
    assert watched._process is not None
    os.kill(watched._process.pid, 19)  # stopped
    monkeypatch.setattr("tests.fuzz.run.PATIENCE", 0.5)
    assert watched._ask(asked).outcome == "hang"
    watched.stop()


def test_what_fails_is_kept_and_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.run.FAULTS", ("refused",))
    plan = Plan(budget=20, variants=8, seed=3, workers=1, layouts=("mmu-flat",), keep=tmp_path / "kept")
    _, failures = run(plan)
    kept = sorted((tmp_path / "kept").glob("*/a.parquet"))
    assert len(failures) == len({path.parent for path in kept}) > 0
    assert replay(kept[0], "mmu-flat").outcome == "refused"

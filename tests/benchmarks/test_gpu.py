"""`benchmarks/gpu.sh` as far as a CPU goes: the same code, tiny."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from specshards.benchmarks.kit.records import load
from specshards.benchmarks.suite import gpu
from specshards.common.errors import UsageError
from specshards.shards.format.encoding import ENCODINGS

ROOT = Path(__file__).parents[2]


@pytest.mark.usefixtures("one_thread")
def test_a_dry_run_leaves_a_record_a_part_and_skips_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "IMAGES", ("map2d",))
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 1, "", "no such backbone"))
    gpu.main(out=tmp_path / "out", scratch=tmp_path / "data", device="cpu")
    runs = {name: load(tmp_path / "out" / f"{name}.json") for name in gpu.PARTS}
    rows = {name: {r.name: r for r in run.records} for name, run in runs.items()}
    for name in ENCODINGS:
        assert rows["pixels"][f"map2d, {name}"].values == (0.0,)
        assert rows["resume"][name].values == (0.0,) and rows["resume"][name].note != "of 0 batches"
        assert rows["load"][f"map2d, {name}, threads 1"].median > 0
    for name in ("PNG", "JPEG 2000, lossless", "TIFF, LZW", "LZ4"):
        assert rows["formats"][name].note.startswith("the same bits") and rows["formats"][name].bytes
    assert rows["train"]["tiny, loader"].median > 0
    # What fails is a row, and the record of the others stands.
    assert not rows["tune"]["tiny"].values and "no such backbone" in rows["tune"]["tiny"].note
    capsys.readouterr()
    gpu.main(out=tmp_path / "out", scratch=tmp_path / "data", device="cpu", parts="pixels,load")
    assert capsys.readouterr().out.count("is there; remove it to measure again") == 2
    with pytest.raises(UsageError, match="no part speed; choose pixels"):
        gpu.main(parts="load,speed")


def test_what_would_outlast_the_call_is_left_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def part(setup: gpu.Setup, draft: gpu.Draft) -> None:
        draft.records += gpu.tried(setup, "group", "row", lambda: [gpu.Record("group", "row", (1.0,))])

    monkeypatch.setattr(gpu, "PARTS", {name: (part, 5.0) for name in ("a", "b")})
    gpu.main(parts="a,b", out=tmp_path, scratch=tmp_path / "data", device="cuda", minutes=4)
    assert "no time for b" in capsys.readouterr().out and not (tmp_path / "b.json").exists()
    assert load(tmp_path / "a.json").records[0].values == (1.0,)
    gpu.main(parts="a,b", out=tmp_path, scratch=tmp_path / "data", device="cuda", minutes=0)
    assert "no time left in this call" in load(tmp_path / "b.json").records[0].note


def test_the_script_finds_the_command() -> None:
    script = ROOT / "benchmarks" / "gpu.sh"
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run([script, "--help"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "--backbone" in done.stdout, done.stderr

"""`verify`: a sound data set passes, and one fault at a time fails the check that is about it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine
from specshards.shards import __main__ as command
from specshards.shards.check.shard import Spread
from specshards.shards.check.verify import Check, verify
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.format.manifest import Manifest, ShardConfig, ShardRecord
from specshards.shards.write.build import build
from tests.oracles.faults import FAULTS, Copy, missing_index, row_missing_from_quarantine, truncated_tar

HERE = Engine(workers=0)


@pytest.fixture
def copy(sets: Callable[[str], Path], tmp_path: Path) -> Copy:
    shutil.copytree(sets("png"), tmp_path / "set")
    return Copy(tmp_path / "set")


def failed(checks: tuple[Check, ...]) -> dict[str, str]:
    assert all("\n" not in check.detail and check.detail for check in checks)
    return {check.name: check.detail for check in checks if not check.passed}


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_a_sound_set_passes_every_check(sets: Callable[[str], Path], encoding: str) -> None:
    folder = sets(encoding)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    fast, deep = verify(folder), verify(folder, deep=True, engine=HERE)
    assert failed(fast) == failed(deep) == {}
    names = ["manifest", "account", "files", "strays", "classes", "info"]
    assert [check.name for check in fast] == [*names, "balance"]
    names += ["checksums", "tar", "index", "images", "labels", "keys", "identity", "split"]
    names += ["sky", "statistics", "mixing", "balance"]
    assert [check.name for check in deep] == names
    assert [check.name for check in deep if check.note] == ["mixing", "balance"]
    details = {check.name: check.detail for check in deep}
    assert details["account"] == "300 objects = 297 samples + 3 quarantined"
    assert details["keys"] == "297 keys, no two alike"
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_workers_find_what_this_process_finds(copy: Copy) -> None:
    for record in copy.manifest.shards[::2]:
        copy.flip(record.path(copy.folder), copy.sample(record, 1)["png"][0] + 50)
    checks = verify(copy.folder, deep=True, engine=HERE)
    assert verify(copy.folder, deep=True, engine=Engine(2)) == checks
    assert re.search(r"manifest \(and \d more shards\); run the same", failed(checks)["checksums"])


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_fails_its_check_and_no_other(copy: Copy, name: str) -> None:
    damage, fast, deep, names = FAULTS[name]
    damage(copy)
    found = failed(verify(copy.folder))
    assert list(found) == fast, found
    found = failed(verify(copy.folder, deep=True, engine=HERE))
    assert list(found) == deep, found
    for detail in found.values():
        assert re.search(names, detail), detail


def test_a_rerun_mends_damage(copy: Copy, spectra_folder: Path) -> None:
    truncated_tar(copy)
    missing_index(copy)
    row_missing_from_quarantine(copy)
    flipped = copy.record("val")
    copy.flip(flipped.path(copy.folder), copy.sample(flipped, 0)["png"][0])
    assert list(failed(verify(copy.folder, deep=True, engine=HERE))) == ["account", "files", "checksums", "images"]
    build(copy.manifest.config, spectra_folder, copy.folder, engine=HERE)
    assert failed(verify(copy.folder, deep=True, engine=HERE)) == {}


def test_temporaries_are_noted_and_damaged_shards_left_out(copy: Copy) -> None:
    (copy.folder / "train" / ".train-000001.tar.tmp").write_bytes(b"x")
    copy.record().path(copy.folder).unlink()
    checks = {check.name: check for check in verify(copy.folder, deep=True, engine=HERE)}
    assert checks["strays"].passed and checks["strays"].note and ".train-000001.tar.tmp" in checks["strays"].detail
    assert checks["labels"].passed and "damaged shards not read: 1" in checks["labels"].detail
    assert checks["statistics"].note and "not every train shard" in checks["statistics"].detail


def test_spread_is_one_for_the_order_of_the_input_and_small_for_a_random_one() -> None:
    rng = np.random.default_rng(0)
    n = 40_960

    def spread(rows: np.ndarray) -> Spread:
        return sum((Spread.of(part, n) for part in np.split(rows, 10)), Spread())

    random = spread(rng.permutation(n))
    assert random.random == pytest.approx(1 / 256, rel=0.01) and random.share == pytest.approx(1 / 256, rel=0.3)
    assert spread(np.arange(n)).share > 0.999
    # Stretches of four pieces of the input each.
    pieces = rng.permutation(np.arange(n).reshape(-1, 64)).reshape(-1)
    assert spread(pieces).share == pytest.approx(1 / 4, rel=0.2)


def test_an_unmixed_order_fails(tmp_path: Path) -> None:
    from specshards.shards.check.dataset import Overall
    from specshards.shards.check.shard import Findings

    config, rows = ShardConfig(), 256
    records = [ShardRecord("train", f"train/train-{n:06d}.tar", rows, 1, "", "", "") for n in range(10)]
    manifest = Manifest(config, "", 10 * rows, 0, (), (), tuple(records), {}, False)
    for order, passed in ((np.arange(2560), False), (np.random.default_rng(0).permutation(2560), True)):
        overall = Overall(tmp_path, manifest, records)
        for record, part in zip(records, np.split(order, 10), strict=True):
            overall.take(Findings(record, rows=part, spread=Spread.of(part, 2560)))
        check = {check.name: check for check in overall.checks()}["mixing"]
        assert check.passed == passed and ("not mixed" in check.detail) != passed


def test_the_command_prints_a_line_a_check_and_fails_with_them(copy: Copy) -> None:
    run = CliRunner().invoke
    done = run(command.app, ["verify", str(copy.folder), "--deep", "--workers", "0"])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert sum(line.startswith(("ok    ", "note  ")) for line in lines) == 18 and "18 checks passed" in lines[-1]
    missing_index(copy)
    done = run(command.app, ["verify", str(copy.folder)])
    assert isinstance(done.exception, JobError) and "1 of 7 checks failed: files" in str(done.exception)
    assert "FAIL  files     train/train-000001.idx: missing" in done.output
    done = run(command.app, ["verify", str(copy.folder), "--deep", "--memory", "1KB"])
    assert isinstance(done.exception, UsageError) and "memory of one worker" in str(done.exception)
    with pytest.raises(UsageError, match="no such folder"):
        verify(copy.folder / "nowhere")

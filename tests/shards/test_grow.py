"""A data set that grows, that two want to write, that is killed; and visits that lie across a cell's border."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine
from specshards.common.sky import LINK_ARCSEC, close_pairs
from specshards.ingest.spectra.schema import healpix_29, to_table, write_parquet
from specshards.shards.format.manifest import SPLITS, Manifest, ShardConfig
from specshards.shards.write.build import build
from specshards.shards.write.split import assign_splits
from specshards.shards.write.visits import keep_together, near_border
from tests.conftest import make_spectrum
from tests.oracles import commands
from tests.oracles.data_sets import tree

HERE = Engine(workers=0)


def spectra_file(path: Path, numbers: range, *, seed: int = 3, **changes: object) -> None:
    rng = np.random.default_rng([seed, numbers.start])
    spectra = [make_spectrum(i, rng, n=1500, **changes) for i in numbers]
    path.parent.mkdir(exist_ok=True, parents=True)
    write_parquet(to_table(spectra), path, {}, row_group_rows=20)


def files_of(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in tree(folder).items() if name.split("/")[0] in SPLITS}


def test_a_new_release_gets_shards_of_its_own(tmp_path: Path) -> None:
    spectra, out = tmp_path / "spectra", tmp_path / "out"
    spectra_file(spectra / "dr2.parquet", range(0, 80))
    first = build(ShardConfig(), spectra, out, engine=HERE)
    before = files_of(out)
    # Its name sorts in front of what is there, and its survey too.
    spectra_file(spectra / "dr1.parquet", range(100, 140), survey="mock-a")
    second = build(ShardConfig(), spectra, out, engine=HERE)
    after = files_of(out)
    assert before.items() < after.items()
    assert (second.objects, second.samples()) == (120, 120) and second.surveys == ("mock-lamost", "mock-a")
    assert [s for s in second.shards if s in first.shards] == list(first.shards)
    rows = [r for name in after if name.endswith("parquet") for r in pq.read_table(out / name).to_pylist()]
    assert sorted(row["source_row"] for row in rows) == list(range(120))
    assert all((row["survey"] == "mock-a") == (row["source_row"] >= 80) for row in rows)
    # The same from any interruption: only the new shards are made again.
    (out / "manifest.json").unlink()
    next((out / "train").glob("train-000004.tar")).unlink()
    assert build(ShardConfig(), spectra, out, engine=HERE).dumps() == second.dumps() and files_of(out) == after
    # Once more, and nothing to do.
    spectra_file(spectra / "dr3.parquet", range(200, 220))
    third = build(ShardConfig(), spectra, out, engine=Engine(workers=2))
    assert after.items() < files_of(out).items() and third.objects == 140
    assert build(ShardConfig(), spectra, out, engine=HERE).dumps() == third.dumps()
    from specshards.shards.check.verify import verify

    assert [check for check in verify(out, deep=True, engine=HERE) if not check.passed] == []


def test_what_has_shards_may_not_change_or_go(tmp_path: Path) -> None:
    spectra, out = tmp_path / "spectra", tmp_path / "out"
    for name in ("a", "b"):
        spectra_file(spectra / f"{name}.parquet", range(20))
    build(ShardConfig(), spectra, out, engine=HERE)
    spectra_file(spectra / "a.parquet", range(1, 21))
    with pytest.raises(UsageError, match=r"the input changed.*FORCE=1"):
        build(ShardConfig(), spectra, out, engine=HERE)
    (spectra / "a.parquet").unlink()
    with pytest.raises(UsageError, match="the input changed"):
        build(ShardConfig(), spectra, out, engine=HERE)
    assert build(ShardConfig(), spectra, out, engine=HERE, force=True).objects == 20
    (out / ".ledger" / "plan.json").write_text("{}")
    with pytest.raises(UsageError, match="not a shard folder of this version"):
        build(ShardConfig(), spectra, out, engine=HERE)


def borders(config: ShardConfig, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions within half an arcsecond of a border between cells of different splits, all over the sky."""
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(0, 360, 400 * count), np.degrees(np.arcsin(rng.uniform(-1, 1, 400 * count)))
    # Walk north until the split changes, then halve the step.
    low, high = dec.copy(), np.minimum(dec + 1.0, 90)
    changes = assign_splits(healpix_29(ra, low), config) != assign_splits(healpix_29(ra, high), config)
    ra, low, high = ra[changes][:count], low[changes][:count], high[changes][:count]
    start = assign_splits(healpix_29(ra, low), config)
    while (high - low).max() > 0.5 / 3600:
        middle = (low + high) / 2
        same = assign_splits(healpix_29(ra, middle), config) == start
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return ra, low


def test_objects_near_a_border_are_found_and_kept_together() -> None:
    config = ShardConfig()
    ra, dec = borders(config, 300)
    both_ra, both_dec = np.concatenate([ra, ra]), np.concatenate([dec, dec + 0.6 / 3600])
    assert near_border(healpix_29(both_ra, both_dec), config).all()
    own = assign_splits(healpix_29(both_ra, both_dec), config)
    assert (own[:300] != own[300:]).all()
    rows = np.arange(600)
    moved = keep_together((rows, both_ra, both_dec, own), {}, 0)
    final = np.array([moved.get(i, own[i]) for i in range(600)])
    left, right = close_pairs(both_ra, both_dec, LINK_ARCSEC)
    assert len(left) >= 300 and (final[left] == final[right]).all()
    # The first of a group is never moved, and where its rows are written already they stay.
    assert min(moved) >= 300
    later = keep_together((rows, both_ra, both_dec, own), {}, 300)
    assert later == moved
    # Away from borders few objects are looked at.
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, 20_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 20_000)))
    assert near_border(healpix_29(ra, dec), config).mean() < 0.06
    assert not near_border(np.array([-1]), config).any()


def test_visits_across_a_border_share_a_split_also_when_they_come_later(tmp_path: Path) -> None:
    config = ShardConfig()
    ra, dec = borders(config, 10)
    rng = np.random.default_rng(0)
    made = [make_spectrum(i, rng, n=800) for i in range(40)]
    for i in range(40):
        made[i] = replace(made[i], ra=float(ra[i % 10]), dec=float(dec[i % 10] + (i // 10) * 0.5 / 3600))
    (tmp_path / "spectra").mkdir()
    write_parquet(to_table(made[:20]), tmp_path / "spectra" / "b.parquet", {}, row_group_rows=5)
    build(config, tmp_path / "spectra", tmp_path / "out", engine=HERE)
    write_parquet(to_table(made[20:]), tmp_path / "spectra" / "a.parquet", {}, row_group_rows=5)
    build(config, tmp_path / "spectra", tmp_path / "out", engine=HERE)
    places: dict[float, set[str]] = {}
    for split in SPLITS:
        for path in (tmp_path / "out" / split).glob("*.parquet"):
            for value in pq.read_table(path)["ra"].to_pylist():
                places.setdefault(value, set()).add(split)
    assert len(places) == 10 and all(len(splits) == 1 for splits in places.values())


def test_two_writers_in_one_folder(tmp_path: Path) -> None:
    spectra_file(tmp_path / "spectra" / "a.parquet", range(20))
    code = f"""
import time
from pathlib import Path
from specshards.shards.write.job import locked
with locked(Path({str(tmp_path / "out")!r})):
    print("locked", flush=True)
    time.sleep(60)
"""
    holder = commands.start(commands.script(code), output=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
    with pytest.raises(JobError, match="another process is writing there"):
        build(ShardConfig(), tmp_path / "spectra", tmp_path / "out", engine=HERE)
    # The lock goes with the process, however that ends.
    holder.kill()
    holder.wait()
    assert build(ShardConfig(), tmp_path / "spectra", tmp_path / "out", engine=HERE).samples() == 20


def test_killed_at_any_moment_the_rerun_ends_in_the_same_bytes(tmp_path: Path) -> None:
    for part in range(4):
        spectra_file(tmp_path / "spectra" / f"{part}.parquet", range(100 * part, 100 * part + 100))
    config = ShardConfig(samples_per_shard=20)
    build(config, tmp_path / "spectra", tmp_path / "whole", engine=HERE)
    out = tmp_path / "killed"
    command = commands.program("shards", "build", "--spectra", tmp_path / "spectra", "--out", out,
                               "--samples-per-shard", 20, "--workers", 2)  # fmt: skip
    rng = random.Random(5)
    for _ in range(4):
        process = commands.start(command)
        until = time.monotonic() + 60
        done = len(list(out.glob(".ledger/0*.json")))
        while len(list(out.glob(".ledger/0*.json"))) < done + rng.randint(1, 4) and time.monotonic() < until:
            if process.poll() is not None:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    # The workers of a killed job may still be at their last shard.
    (out / "train").mkdir(exist_ok=True)
    (out / "train" / ".train-000000.tar.0badcafe.tmp").write_bytes(b"half")
    build(config, tmp_path / "spectra", out, engine=HERE)
    assert tree(out) == tree(tmp_path / "whole") and not list(out.rglob("*.tmp"))
    records = {p.name: p.read_text() for p in (out / ".ledger").glob("*.json")}
    assert records == {p.name: p.read_text() for p in (tmp_path / "whole" / ".ledger").glob("*.json")}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_is_one_line_and_nothing_is_lost(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True
    ).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        spectra_file(tmp_path / "spectra" / "a.parquet", range(200))
        command = commands.program("shards", "build", "--spectra", tmp_path / "spectra", "--out", disk / "out",
                                   "--samples-per-shard", 50, "--workers", 2)  # fmt: skip
        done = commands.run(command)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert done.returncode == 1 and len(errors) == 1 and "the disk is full" in errors[0]
        assert "Traceback" not in done.stderr and not (disk / "out" / "manifest.json").exists()
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        assert commands.run(command).returncode == 0
        build(ShardConfig(samples_per_shard=50), tmp_path / "spectra", tmp_path / "whole", engine=HERE)
        assert tree(disk / "out") == tree(tmp_path / "whole")
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def test_a_newer_manifest_is_refused_by_all(tmp_path: Path) -> None:
    spectra_file(tmp_path / "spectra" / "a.parquet", range(20))
    build(ShardConfig(), tmp_path / "spectra", tmp_path / "out", engine=HERE)
    content = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (tmp_path / "out" / "manifest.json").write_text(json.dumps({**content, "format_version": 2, "more": 1}))
    with pytest.raises(JobError, match="format version 2, this program reads up to 1; update it"):
        Manifest.load(tmp_path / "out")

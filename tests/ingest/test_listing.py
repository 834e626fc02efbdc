"""Long lists of files: the plan is the one that a list in memory gives, and no process holds all names."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sqlite3
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specshards.common.errors import JobError, UsageError
from specshards.common.text import escaped, unescaped
from specshards.ingest.files import find_files, list_files
from specshards.ingest.job import plan as plans
from specshards.ingest.job.config import IngestConfig
from specshards.ingest.job.plan import make_plan
from specshards.ingest.job.tasks import Account, Tasks
from specshards.ingest.listing_names import NameList
from specshards.ingest.stems import depth_of, repeated, stem_of

FOLDERS, STEMS = ("", "a/", "b/", "a/c/", "\udcff/", "é/"), ("x", "y", "\\q", "n\n", "\u202e", "z z", "Z.fits", "")
NAMES = st.lists(
    st.builds(lambda *parts: "".join(map(str, parts)), st.sampled_from(FOLDERS), st.sampled_from(STEMS),
              st.integers(0, 9), st.sampled_from((".fits", ".csv", ".FITS.gz"))),
    unique=True, max_size=25,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=9), st.text(st.characters(exclude_categories=["Cs"]), max_size=9))
def test_a_name_comes_back_from_its_text(raw: bytes, text: str) -> None:
    for name in (os.fsdecode(raw), text):
        assert unescaped(escaped(name)) == name


@settings(max_examples=80, deadline=None)
@given(NAMES, st.data())
def test_a_list_on_disk_is_the_list(names: list[str], data: st.DataObject) -> None:
    listed, plain = NameList(names), sorted(names)
    assert list(listed) == plain and len(listed) == len(plain) and listed.first(3) == plain[:3]
    assert sorted(listed.unsorted()) == plain
    again = repeated(plain)
    assert {name for name in plain if name in listed.repeats} == again and bool(listed.repeats) == bool(again)
    assert listed.repeats.depth == depth_of(plain)
    if plain:
        places = sorted(data.draw(st.sets(st.integers(0, len(plain) - 1))))
        assert list(listed.take(np.array(places, np.int64))) == [plain[i] for i in places]


def plainly(root: Path, names: list[str], earlier: dict[str, int], per_part: int, seed: int) -> list[tuple]:
    """The parts as a list in memory gives them; `earlier` are the known files and their parts, in reading order."""
    known = [name for name in earlier if name in names]
    new = [name for name in sorted(names) if name not in earlier]
    number = 1 + max(earlier.values(), default=-1)
    new = [new[i] for i in np.random.default_rng([seed, number]).permutation(len(new))]
    parts: dict[int, list[str]] = {}
    for name in known:
        parts.setdefault(earlier[name], []).append(name)
    for i, name in enumerate(new):
        parts.setdefault(number + i // per_part, []).append(name)
    found = []
    for part, files in sorted(parts.items()):
        stamps = []
        for name in files:
            path = root / name
            said = f"{path.stat().st_size} {path.stat().st_mtime_ns}" if path.exists() else "error 2"
            stamps.append(hashlib.blake2b(said.encode(), digest_size=8).digest())
        whole = "\0".join(map(escaped, files)).encode() + b"".join(stamps)
        size = sum((root / name).stat().st_size for name in files if (root / name).exists())
        found.append((part, tuple(files), size, hashlib.sha256(whole).hexdigest()))
    return found


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(NAMES, st.integers(1, 5)), min_size=1, max_size=3), st.integers(0, 3), st.integers(1, 30))
def test_the_plan_is_the_one_of_a_list_in_memory(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[list[str], int]], seed: int, rows: int
) -> None:
    folder = tmp_path_factory.mktemp("plan")
    earlier: dict[str, int] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "_ROWS", rows)
        patch.setattr(plans, "_BLOCK", rows)
        patch.setattr(plans, "_FAR", (0.0, 1.0)[seed % 2])
        for names, per_part in steps:
            for i, name in enumerate(names[::2]):
                (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / "data" / name).write_text("x" * i)
            found = make_plan(
                folder / "data", NameList(names), folder / "plan.parquet", files_per_part=per_part, seed=seed
            )
            told = [(part.number, part.files, part.bytes, part.stamp) for part in found]
            assert told == plainly(folder / "data", names, earlier, per_part, seed)
            earlier = {name: part.number for part in found for name in part.files}
            table = pq.read_table(folder / "plan.parquet")
            assert table["file"].to_pylist() == list(map(escaped, earlier)) and found.files == len(names)
            assert table["part"].to_pylist() == list(earlier.values())


def spectra(count: int) -> Iterator[str]:
    """Names, not files."""
    return (f"{i % 997:04d}/spec-{i:08d}.fits" for i in range(count))


def test_memory_is_flat_in_the_number_of_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "_row", lambda _, __, name: (name.encode(), 0, bytes(8)))
    monkeypatch.setattr(plans, "_ROWS", 512)
    monkeypatch.setattr(plans, "_BLOCK", 512)
    peaks = []
    for count in (4_000, 30_000):
        gc.collect()
        tracemalloc.start()
        names = NameList(spectra(count))
        plan = make_plan(tmp_path, names, tmp_path / f"{count}.parquet", files_per_part=512, seed=0)
        tasks = Tasks(IngestConfig("sdss"), tmp_path, plan, None, tmp_path, names.repeats)
        assert sum(task.size for task in tasks) == len(names) == count and not names.repeats
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 12 * 26_000  # four bytes are the order; a name as `str` takes 70, and 8 in a list


def test_a_plan_with_a_file_twice_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "plan.parquet"
    first = make_plan(tmp_path, ["a.fits", "b.fits"], path, files_per_part=1, seed=0)
    table = pq.read_table(path)
    pq.write_table(table.take([0, 0]), path)
    caplog.set_level("INFO")
    assert list(make_plan(tmp_path, ["a.fits", "b.fits"], path, files_per_part=1, seed=0)) == list(first)
    assert "made again" in caplog.text


def test_no_room_to_sort_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Iterator[object]:
        raise sqlite3.OperationalError("database or disk is full")
        yield

    monkeypatch.setattr(plans, "_stamped", full)
    with pytest.raises(JobError, match=r"no room to sort the list of files \(database or disk is full\); set TMPDIR"):
        make_plan(tmp_path, ["a.fits"], tmp_path / "plan.parquet", files_per_part=1, seed=0)


def test_folders_with_the_names_of_files_are_found_where_they_are_empty(tmp_path: Path) -> None:
    for name in ("e.fits/x.txt", "f.fits/g.fits/a.fits", "h.fits/i.fits/n.txt", "k.fits/l/m.parquet", "a.fits"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "lost.fits").symlink_to(tmp_path / "nowhere")
    whole = ["a.fits", "e.fits", "f.fits/g.fits/a.fits", "h.fits", "h.fits/i.fits", "k.fits/l/m.parquet", "lost.fits"]
    assert find_files(str(tmp_path))[1] == whole
    listed = list(list_files(str(tmp_path))[1])
    assert sorted(listed) == whole
    with pytest.raises(UsageError, match="no such file"):
        list_files(str(tmp_path / "none"))


def test_a_record_that_is_gone_is_told(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, ["a.fits"], tmp_path / "plan.parquet", files_per_part=1, seed=0)
    tasks = Tasks(IngestConfig(), tmp_path, plan, None, tmp_path, frozenset())
    with pytest.raises(JobError, match=r"part-00000\.json: gone or damaged .*run the same command again"):
        Account(tasks.results())


def test_stems_are_those_of_the_expression() -> None:
    names = ["a/b.fits.gz", "A.FITS", "x.tar.gz", ".fits", "a..csv", "b\\c.h5", "n.fits\n", "ſ.fitſ", "a.b/c", "hdf5"]
    assert [stem_of(name) for name in names] == ["b", "A", "x.tar", "", "a.", "c", "n\n", "ſ", "c", "hdf5"]
    assert json.dumps([stem_of(name, 2) for name in names[:2]]) == '["a/b", "A"]'

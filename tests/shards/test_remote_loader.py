"""Batches of a data set elsewhere are those of the local one, by way of a small cache; states go both ways."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from specshards.common import remote
from specshards.common.cache import Cache
from specshards.common.errors import JobError, UsageError
from specshards.common.files import location
from specshards.common.jobs import Engine
from specshards.shards import loader
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.loader import loader as loader_module
from specshards.shards.loader import source as source_module
from specshards.shards.loader.order import EpochOrder
from specshards.shards.write.build import build

OPTIONS: dict[str, Any] = {"backend": "plain", "threads": 1}


@pytest.fixture(scope="module")
def here(spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some fifteen train shards."""
    out = tmp_path_factory.mktemp("remote") / "here"
    build(ShardConfig(samples_per_shard=20), spectra_folder, out, engine=Engine(workers=0))
    return out


@pytest.fixture
def there(here: Path) -> Iterator[str]:
    yield put(here)
    MemoryFileSystem.store.clear()


def put(folder: Path, to: str = "memory://bucket/set") -> str:
    for path in folder.rglob("*"):
        if path.is_file():
            location(f"{to}/{path.relative_to(folder).as_posix()}").write_bytes(path.read_bytes())
    return to


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of two or three shards."""
    monkeypatch.setattr(loader_module, "EpochOrder", partial(EpochOrder, window=40))
    monkeypatch.setattr(remote, "PAUSES", (0.001,) * 3)


def same(mine: Any, theirs: Any) -> None:
    for one, other in zip(mine, theirs, strict=True):
        assert one["key"] == other["key"] and torch.equal(one["pixel_values"], other["pixel_values"])
        assert torch.equal(one["valid"], other["valid"])
        assert all(torch.equal(one["labels"][n].nan_to_num(-1), v.nan_to_num(-1)) for n, v in other["labels"].items())


def shard_bytes(folder: Path) -> int:
    return max(record.bytes for record in Manifest.load(folder).shards)


def test_epochs_are_those_of_the_local_set_within_the_cache(here: Path, there: str, tmp_path: Path) -> None:
    cache = Cache(tmp_path, 7 * shard_bytes(here))
    largest = 0

    def watched(batches: Any) -> Iterator[Any]:
        nonlocal largest
        for batch in batches:
            # A sum may count a file and the one that takes its place meanwhile: thrice in a row it does not.
            sums = [sum(p.stat().st_size for p in tmp_path.glob("[!.]*") if p.exists()) for _ in range(3)]
            largest = max(largest, min(sums))
            yield batch

    for options in ({"balance": "class"}, {}):
        with (
            loader.open(here, "train", 16, **options, **OPTIONS) as local,
            loader.open(there, "train", 16, **options, **OPTIONS, cache=cache) as far,
        ):
            assert far.fingerprint() == local.fingerprint()
            for _ in range(2):
                same(local, watched(far))
    assert 0 < largest <= cache.limit
    shards = len(Manifest.load(here).split("train"))
    assert cache.fetched > 2 * shards, "a cache too small for all fetches some again"
    large = Cache(tmp_path.parent / f"{tmp_path.name}-large", 1 << 30)
    with loader.open(there, "train", 16, **OPTIONS, cache=large) as far:
        for _ in range(2):
            same(loader.open(here, "train", 16, **OPTIONS), islice(far, len(far)))
            far.load_state_dict({**far.state_dict(), "epoch": 0, "batch": 0})
        for _ in range(100):  # tables are compared in the background
            if large.fetched >= 3 * shards:
                break
            time.sleep(0.1)
        assert large.fetched == 3 * shards, "tar, index and table: each once"
    # What is in the cache needs no network; the manifest alone is read anew.
    for record in Manifest.load(here).split("train"):
        record.path(location(there)).write_bytes(b"gone" * (record.bytes // 4))
    with loader.open(there, "train", 16, **OPTIONS, cache=Cache(large.folder, 1 << 30)) as far:
        same(loader.open(here, "train", 16, **OPTIONS), far)


def test_a_state_goes_on_there_and_back(here: Path, there: str, tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1 << 30)
    for first, second in ((here, there), (there, here)):
        with (
            loader.open(first, "train", 16, **OPTIONS, cache=cache) as begun,
            loader.open(second, "train", 16, **OPTIONS, cache=cache) as resumed,
        ):
            list(islice(begun, 5))
            resumed.load_state_dict(begun.state_dict())
            same(begun, resumed)
            same(begun, resumed)


def test_several_sets_and_ranks_from_several_places(here: Path, there: str, tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1 << 30)
    other = shutil.copytree(here, tmp_path / "other")
    for rank in range(2):
        options = {**OPTIONS, "rank": rank, "world_size": 2, "weights": (1, 3)}
        with (
            loader.open([here, other], "train", 16, **options) as local,
            loader.open([there, other], "train", 16, **options, cache=cache) as mixed,
        ):
            same(local, mixed)
            assert mixed.sidecar().equals(local.sidecar())


def test_shards_are_fetched_in_the_order_in_which_they_are_needed(
    there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch, order = MemoryFileSystem.get_file, []

    def noted(self: Any, rpath: str, *arguments: Any, **options: Any) -> None:
        order.append(rpath.rpartition("/")[2])
        fetch(self, rpath, *arguments, **options)

    monkeypatch.setattr(MemoryFileSystem, "get_file", noted)
    monkeypatch.setattr(source_module, "_THREADS", 1)
    with loader.open(there, "train", 16, **OPTIONS, verify=False, cache=Cache(tmp_path, 1 << 30)) as far:
        windows = far._order.shards(0, 0, far.samples)
        names = [far._source._shards[number][1].name.partition("/")[2] for window in windows for number in window]
        first = next(iter(far))
        assert first["key"] and len([name for name in order if name.endswith(".tar")]) < len(names)
        list(far)
    tars = [name for name in order if name.endswith(".tar")]
    assert sorted(tars) == sorted(names)
    for window in windows:  # windows one after another; within one the reader may be ahead of the thread
        count = len(window)
        assert sorted(tars[:count]) == sorted(names[:count])
        tars, names = tars[count:], names[count:]


def test_a_cache_without_room_for_what_is_read_at_once_is_refused(here: Path, there: str, tmp_path: Path) -> None:
    said = r"may take [\d,]+ bytes, and shards that are shuffled together take [\d,]+; give SPECSHARDS_CACHE_SIZE="
    with pytest.raises(UsageError, match=said):
        loader.open(there, "train", 16, **OPTIONS, cache=Cache(tmp_path, shard_bytes(here)))


def test_what_is_wrong_there_is_one_line(here: Path, there: str, tmp_path: Path) -> None:
    tar = sorted((here / "train").glob("*.tar"))[1]
    far, options = location(f"{there}/train/{tar.name}"), {**OPTIONS, "cache": Cache(tmp_path, 1 << 30)}
    far.write_bytes(tar.read_bytes()[:-9] + b"123456789")
    with loader.open(there, "train", 16, **options) as batches, pytest.raises(JobError, match=f"{far}: is not what"):
        list(batches)
    far.write_bytes(tar.read_bytes()[:-9])
    with pytest.raises(JobError, match=rf"{far}: \d+ bytes, the manifest says \d+; copy or make it again"):
        loader.open(there, "train", 16, **options)
    far.unlink()
    with pytest.raises(JobError, match=f"{far}: the archive or its .idx is missing; copy or make it again"):
        loader.open(there, "train", 16, **options)
    for address, said in (
        ("memory://nowhere", "memory://nowhere: no manifest.json there"),
        ("gs://bucket/x", "gs://bucket/x: Please install gcsfs"),
        ("nonsense://bucket/x", "nonsense://bucket/x: .*nonsense"),
    ):
        with pytest.raises(UsageError, match=said):
            loader.open(address, "train", 16, **options)


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12), st.booleans(), st.integers(1, 100),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
)  # fmt: skip
def test_the_shards_that_are_announced_are_those_that_are_read(
    counts: list[int], shuffle: bool, window: int, ends: tuple[float, float]
) -> None:
    order = EpochOrder(counts, shuffle=shuffle, seed=1, window=window)
    start, stop = (int(end * order.length) for end in sorted(ends))
    starts = [sum(counts[:i]) for i in range(len(counts) + 1)]
    read = {i for s in order.slice(2, start, stop) for i in range(len(counts)) if starts[i] <= s < starts[i + 1]}
    said = [number for one in order.shards(2, start, stop) for number in one]
    assert read <= set(said) and len(said) == len(set(said))
    assert start or stop < order.length or sorted(said) == list(range(len(counts)))

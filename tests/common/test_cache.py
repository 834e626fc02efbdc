"""The cache of files from addresses: right bytes, bounded, shared, patient, and none of anybody else's files."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specshards.common import remote
from specshards.common.cache import Cache, Remote, cache_in
from specshards.common.errors import JobError, UsageError
from specshards.common.files import location
from specshards.common.remote import GivenUpError


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSES", (0.001,) * 3)


@pytest.fixture
def store() -> Iterator[Callable[[str, bytes], Remote]]:
    def put(name: str, content: bytes) -> Remote:
        there = location(f"memory://store/{name}")
        there.write_bytes(content)
        return Remote(there, hashlib.sha256(content).hexdigest(), name, len(content))

    yield put
    MemoryFileSystem.store.clear()


def copies(folder: Path) -> int:
    """Bytes in a cache."""
    return sum(path.stat().st_size for path in folder.iterdir())


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=40), st.integers(90, 400))
def test_any_use_gives_the_bytes_within_the_limit(
    store: Any, tmp_path_factory: pytest.TempPathFactory, uses: list[tuple[int, bool]], limit: int
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    (folder / "notes.txt").write_bytes(b"x" * 1000)  # of the user, who gave a folder of theirs
    contents = [bytes([65 + i]) * (10 * (i + 1)) for i in range(8)]
    files = [store(f"{i}.tar", content) for i, content in enumerate(contents)]
    both = Cache(folder, limit), Cache(folder, limit)
    for number, second in uses:
        with both[second].holding(files[number], {f.name: i for i, f in enumerate(files)}.get) as path:
            assert path.read_bytes() == contents[number]
        assert copies(folder) - 1000 <= limit
    assert (folder / "notes.txt").read_bytes() == b"x" * 1000


def test_what_is_needed_last_goes_first(store: Any, tmp_path: Path) -> None:
    cache, files = Cache(tmp_path, 350), [store(f"{i}.tar", bytes([i]) * 100) for i in range(5)]
    need = {files[1].name: 7, files[2].name: 3}.get
    for file in files[:3]:
        with cache.holding(file, need):
            pass
    here = lambda: [file.label for file in files if (tmp_path / file.name).exists()]  # noqa: E731
    assert here() == ["0.tar", "1.tar", "2.tar"]
    with cache.holding(files[3], need):  # 0 is not needed
        assert here() == ["1.tar", "2.tar", "3.tar"]
        with cache.holding(files[4], need):  # 3 is not either, but is held; of the others 1 is needed later
            assert here() == ["2.tar", "3.tar", "4.tar"]


def test_several_readers_fetch_a_file_once(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch, count = MemoryFileSystem.get_file, []

    def slow(self: Any, *arguments: Any, **options: Any) -> None:
        count.append(arguments)
        time.sleep(0.1)
        fetch(self, *arguments, **options)

    monkeypatch.setattr(MemoryFileSystem, "get_file", slow)
    file = store("a.tar", b"a" * 1000)
    caches = [Cache(tmp_path, 10_000) for _ in range(2)]  # locks are those of open files: as two processes

    def read(i: int) -> bytes:
        with caches[i % 2].holding(file) as path:
            return path.read_bytes()

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(read, range(6))) == {b"a" * 1000}
    assert len(count) == 1 == sum(cache.fetched for cache in caches)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_what_a_killed_process_left_or_a_disk_changed_does_no_harm(store: Any, tmp_path: Path) -> None:
    file = store("a.tar", b"a" * 100)
    (tmp_path / f".{file.name}.100.part").write_bytes(b"zzz")
    with Cache(tmp_path, 1000).holding(file) as path:
        assert path.read_bytes() == b"a" * 100
    for damage in (b"a" * 99, b"a" * 99 + b"b"):  # cut, and changed
        path.write_bytes(damage)
        with Cache(tmp_path, 1000).holding(file) as path:
            assert path.read_bytes() == b"a" * 100
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    path.unlink()
    path.mkdir()
    with (
        pytest.raises(JobError, match=f"{file.name}: a folder in the place of a copy; remove it"),
        Cache(tmp_path, 1000).holding(file),
    ):
        pass


def test_errors_that_pass_are_waited_for_and_others_are_one_line(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch, errors = MemoryFileSystem.get_file, []

    def failing(self: Any, rpath: str, lpath: str, **options: Any) -> None:
        if errors:
            Path(lpath).write_bytes(b"half")
            raise errors.pop()
        fetch(self, rpath, lpath, **options)

    monkeypatch.setattr(MemoryFileSystem, "get_file", failing)
    cache, file = Cache(tmp_path, 1000), store("a.tar", b"a" * 100)

    def says(what: str) -> None:
        with pytest.raises(JobError, match=f"{re.escape(str(file.there))}: {what}"), cache.holding(file):
            pass
        assert not list(tmp_path.iterdir())

    errors[:] = [ConnectionError("refused")] * 4
    says("cannot be read .refused., tried 4 times; see to the network")
    errors[:] = [PermissionError("Access Denied")]
    says("no permission .Access Denied.; see to the credentials")
    errors[:] = [type("NoCredentialsError", (Exception,), {})("Unable to locate credentials")]
    says("cannot be read .Unable to locate credentials.; see to the credentials")
    errors[:] = [TimeoutError("slow"), OSError("reset"), RuntimeError("of a library")]
    with cache.holding(file) as path:
        assert path.read_bytes() == b"a" * 100 and not errors
    path.unlink()
    file.there.write_bytes(b"b" * 100)
    says("is not what the manifest says")
    file.there.unlink()
    says("is missing")
    with (
        pytest.raises(UsageError, match="100 bytes, more than the cache may take"),
        Cache(tmp_path, 99).holding(file),
    ):
        pass


def test_a_reader_that_is_stopped_leaves_a_cache_as_good_as_before(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch, stop = MemoryFileSystem.get_file, threading.Event()

    def half(self: Any, rpath: str, lpath: str, callback: Any = None, **options: Any) -> None:
        if callback is not None:
            Path(lpath).write_bytes(b"a" * 50)
            stop.set()
            callback.relative_update(50)
        fetch(self, rpath, lpath, **options)

    monkeypatch.setattr(MemoryFileSystem, "get_file", half)
    file = store("a.tar", b"a" * 100)
    with pytest.raises(GivenUpError), Cache(tmp_path, 1000).holding(file, stop=stop):
        pass
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(MemoryFileSystem, "get_file", fetch)
    with Cache(tmp_path, 1000).holding(file) as path:
        assert path.read_bytes() == b"a" * 100


def test_folder_and_size_are_said_or_sensible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache_in.cache_clear()
    cache = cache_in(None, None)
    assert cache.folder == tmp_path / "specshards" and 0 < cache.limit <= 64 << 30
    assert cache_in(str(tmp_path / "a"), "200GB").limit == 200 * 10**9
    for size in ("much", "-1GB", "1kB"):
        with pytest.raises(UsageError, match=f"SPECSHARDS_CACHE_SIZE={size}: give a size such as 200GB"):
            cache_in(None, size)

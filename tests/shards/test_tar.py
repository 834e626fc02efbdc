"""The tar writer against Python's tarfile, and its index against DALI's own tool."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specshards.shards.format.tar import TarWriter, header, read_index


def write(path: Path, samples: list[tuple[bytes, bytes]]) -> TarWriter:
    with TarWriter(path) as tar:
        for row, (image, label) in enumerate(samples):
            tar.add(f"{row:010d}", [("png", image), ("npy", label)])
    return tar


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=1500), st.binary(max_size=600)), max_size=5))
def test_tarfile_reads_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, samples) -> None:
    path = tmp_path_factory.mktemp("tar") / "t.tar"
    writer = write(path, samples)
    with tarfile.open(path) as tar:
        members = tar.getmembers()
        payloads = [tar.extractfile(m).read() for m in members]
    assert payloads == [payload for sample in samples for payload in sample]
    assert all((m.mtime, m.uid, m.gid, m.mode, m.uname) == (0, 0, 0, 0o644, "") for m in members)
    assert path.stat().st_size == writer.size
    raw = path.read_bytes()
    for sample, entry in zip(samples, read_index(path.with_suffix(".idx")), strict=True):
        for payload, extension in zip(sample, ("png", "npy"), strict=True):
            offset, size, _ = entry[extension]
            assert raw[offset : offset + size] == payload


def test_index_equals_that_of_dali(tmp_path: Path) -> None:
    wds2idx = pytest.importorskip("wds2idx", reason="NVIDIA DALI is not installed")
    write(tmp_path / "t.tar", [(b"x" * n, b"y" * (3 * n)) for n in (1, 511, 512, 513)])
    subprocess.run([sys.executable, wds2idx.__file__, tmp_path / "t.tar", tmp_path / "theirs.idx"], check=True)
    assert (tmp_path / "t.idx").read_text() == (tmp_path / "theirs.idx").read_text()


def test_nothing_is_left_after_an_exception(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), TarWriter(tmp_path / "t.tar") as tar:
        tar.add("0000000000", [("png", b"x")])
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_impossible_members_are_refused() -> None:
    with pytest.raises(ValueError, match="100 characters"):
        header("a" * 101, 1)
    with pytest.raises(ValueError, match="USTAR"):
        header("a", 8**11)


def test_a_cut_index_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "t.tar", [(b"x", b"y")] * 3)
    index = tmp_path / "t.idx"
    index.write_text("\n".join(index.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(ValueError, match="not a whole DALI index"):
        read_index(index)

"""Files and memory of the loader are bounded, whatever the number and sizes of shards."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from specshards.common.errors import JobError
from specshards.common.spectrum import LABELS
from specshards.shards.format import archive, handles
from specshards.shards.format.archive import Archive
from specshards.shards.format.handles import HANDLES, Handles
from specshards.shards.format.manifest import key, label_npy
from specshards.shards.format.tar import TarWriter

COUNTS = [1, 2, 40, 1, 7] * 40


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Sample n holds the text of n, and n as its redshift."""
    folder, paths, row = tmp_path_factory.mktemp("tars"), [], 0
    for number, count in enumerate(COUNTS):
        with TarWriter(folder / f"{number:06d}.tar") as tar:
            for _ in range(count):
                vector = np.full(len(LABELS), np.nan)
                vector[LABELS.index("z")] = row / 1e4
                tar.add(key(row), [("png", str(row).encode() * (1 + row % 300)), ("npy", label_npy(vector))])
                row += 1
        paths.append(tar.path)
    return paths


def test_reads_the_same_however_little_is_kept(tars: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """200 tars in any order, twice of some; no descriptor stays open, and few maps and indices."""
    monkeypatch.setattr(archive, "_KEPT", 150)
    monkeypatch.setattr(archive, "HANDLES", kept := Handles(most=5))
    read, rng = Archive(tars, COUNTS, "png", LABELS), np.random.default_rng(0)
    read.read(np.arange(sum(COUNTS)))  # and what libraries open when they are first used
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(20):
        asked = rng.integers(0, sum(COUNTS), 64)
        samples = read.read(asked)
        assert samples.rows.tolist() == asked.tolist()
        assert [bytes(payload) for payload in samples.payloads] == [str(n).encode() * (1 + n % 300) for n in asked]
        assert read.labels(samples)[0][:, LABELS.index("z")].tolist() == (asked / 1e4).tolist()
        assert len(kept) <= 5 and len(list(Path("/dev/fd").iterdir())) == before
        assert sum(len(index.table) + 4 for index in read._indices.values()) <= 150
    read.close()
    assert not len(kept) and not read._indices


def test_no_descriptor_left_is_no_damage(tars: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(tars[0]))

    monkeypatch.setattr(handles.os, "open", none_left)
    with pytest.raises(JobError, match=r"too many files are open in this process; raise its limit \(`ulimit -n"):
        Archive(tars, COUNTS, "png", LABELS).read(np.array([0]))


def test_a_tar_that_was_made_again_is_read_anew(tmp_path: Path) -> None:
    def write(payload: bytes) -> None:
        with TarWriter(tmp_path / "a.tar") as tar:
            tar.add(key(0), [("png", payload), ("npy", label_npy(np.zeros(len(LABELS))))])

    write(b"old")
    read = Archive([tmp_path / "a.tar"], [1], "png", LABELS)
    assert bytes(read.read(np.array([0])).payloads[0]) == b"old"
    write(b"another length")
    HANDLES.clear()
    assert bytes(read.read(np.array([0])).payloads[0]) == b"another length"
    read.close()

"""`shards inspect`: the first samples of a shard as a table and as pictures, and what is wrong named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from specshards.common.errors import JobError, UsageError
from specshards.render import ImageConfig, renderer
from specshards.shards import __main__ as command
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.format.manifest import Manifest
from specshards.shards.report.head import COLUMNS, read_head
from tests.oracles.faults import Copy, missing_index


@pytest.fixture
def copy(sets: Callable[[str], Path], tmp_path: Path) -> Copy:
    shutil.copytree(sets("png"), tmp_path / "set")
    return Copy(tmp_path / "set")


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_inspect_shows_samples_as_table_and_pictures(
    sets: Callable[[str], Path], tmp_path: Path, encoding: str
) -> None:
    folder = sets(encoding)
    head = read_head(folder, count=7, out=tmp_path / "new" / "a.png")
    record = Manifest.load(folder).split("train")[0]
    sidecar = pq.read_table(record.sidecar(folder)).slice(0, 7).to_pylist()
    assert [row["key"] for row in head.rows] == [row["key"] for row in sidecar]
    assert all(row[name] == side[name] for row, side in zip(head.rows, sidecar, strict=True) for name in ("z", "ra"))
    lines = list(head.lines())
    assert lines[0].split() == list(COLUMNS)
    assert len(lines) == 8 and sidecar[0]["object_id"] in lines[1]
    sheet: Any = cv2.imread(str(tmp_path / "new" / "a.png"))
    assert sheet.shape == (2 * 250, 5 * 232 - 8, 3)
    drawer = renderer(ImageConfig())
    decode = ENCODINGS[encoding](drawer).decode
    content = record.path(folder).read_bytes()
    first = decode(content[head.rows[0]["offset"] :][: head.rows[0]["bytes"]])
    picture = first if encoding == "jpeg" else drawer.expand(drawer.codes(*first) if encoding == "flux" else first)
    np.testing.assert_array_equal(sheet[19:241, 1:223], picture[1:-1, 1:-1, ::-1])


def test_inspect_names_what_is_wrong(copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(command.app, ["inspect", str(copy.folder), "--count", "3"])
    assert done.exit_code == 0 and "3 of" in done.output and (tmp_path / "train-000000.png").is_file()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"shard": 77}, "no shard 77 of train; there are"),
        ({"split": "dev"}, "unknown split dev"),
        ({"count": 0}, "count=0"),
        ({"out": tmp_path / "a.jpg"}, "ends in .png"),
    ]
    for arguments, message in wrong:
        with pytest.raises(UsageError, match=message):
            read_head(copy.folder, **arguments)
    copy.flip(copy.record().path(copy.folder), copy.sample(copy.record(), 0)["png"][0])
    with pytest.raises(JobError, match=r"train-000000\.tar: damaged .*verify"):
        read_head(copy.folder)
    missing_index(copy)
    with pytest.raises(JobError, match="damaged"):
        read_head(copy.folder, shard=1)

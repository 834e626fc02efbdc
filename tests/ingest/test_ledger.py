"""What an ingest wrote of itself, damaged or from a stranger: made again, or refused in one line; no traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from specshards.common.errors import JobError
from specshards.common.jobs import Engine
from specshards.ingest.job.build import IngestConfig, build
from specshards.ingest.mock.scale.config import ScaleConfig
from specshards.ingest.mock.scale.job import write_parquet_survey
from tests.oracles.data_sets import tree
from tests.oracles.mmu_tables import mock, sdss_table

HERE = Engine(workers=0)
TEXTS = ("", "{", "[]", "null", "7", '"text"', "{}", "[" * 100_000, '{"a": ' * 5000, "\0", '{"a": 1, "a": 2}')


def again(table: Path, out: Path, **more: Any) -> None:
    build(IngestConfig("sdss"), str(table), out, engine=HERE, **more)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "sdss.parquet"
    pq.write_table(sdss_table(mock(12)), path)
    return path


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text("specobjid,class\n" + "".join(f"{1000 + i},STAR\n" for i in range(12)))
    return path


@pytest.mark.parametrize("name", ["parts/part-00000.json", "summary.json", "catalogue.json"])
def test_what_is_damaged_is_made_again(name: str, table: Path, catalogue: Path, tmp_path: Path) -> None:
    again(table, tmp_path / "out", catalogue=catalogue)
    before, path = tree(tmp_path / "out"), tmp_path / "out" / "ingest" / name
    for text in TEXTS:
        path.write_text(text)
        again(table, tmp_path / "out", catalogue=catalogue)
        assert tree(tmp_path / "out") == before


def changed(content: Any) -> list[Any]:
    """The content, with each of its fields in turn something else."""
    others: tuple[Any, ...] = (None, "x", -1.5, [], {"x": {"y": 1}}, [[1]])
    return [{**content, name: other} for name in content for other in others if content[name] != other]


def test_a_record_of_other_types_is_made_again(table: Path, catalogue: Path, tmp_path: Path) -> None:
    again(table, tmp_path / "out", catalogue=catalogue)
    for name in ("parts/part-00000.json", "catalogue.json"):
        path = tmp_path / "out" / "ingest" / name
        whole = path.read_text()
        for content in changed(json.loads(whole)):
            path.write_text(json.dumps(content))
            again(table, tmp_path / "out", catalogue=catalogue)
            assert json.loads(path.read_text()).keys() == json.loads(whole).keys()


def test_a_claim_that_cannot_be_read_is_one_line(table: Path, tmp_path: Path) -> None:
    again(table, tmp_path / "out")
    for text in TEXTS:
        if text != "{}":  # a claim of nothing, which is something else
            (tmp_path / "out" / "ingest" / "config.json").write_text(text)
            with pytest.raises(JobError, match=r"config\.json: not what this program writes"):
                again(table, tmp_path / "out")


def test_a_plan_that_cannot_be_read_is_made_again(table: Path, tmp_path: Path) -> None:
    again(table, tmp_path / "out")
    before, path = tree(tmp_path / "out"), tmp_path / "out" / "ingest" / "plan.parquet"
    plan = pq.read_table(path)
    odd = [
        pa.table({"file": ["x"]}), pa.table({"part": [1, 2]}), plan.drop(["part"]),
        plan.set_column(3, "part", pa.nulls(len(plan), pa.int32())),
        plan.set_column(3, "part", pa.array([2**31 - 1] * len(plan), pa.int32())),
        plan.set_column(3, "part", pa.array([-1] * len(plan), pa.int32())),
        plan.set_column(3, "part", pa.array(["x"] * len(plan))),
    ]  # fmt: skip
    for content in (b"", b"PAR1", path.read_bytes()[:-9], *odd):
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            pq.write_table(content, path)
        again(table, tmp_path / "out")
        assert tree(tmp_path / "out") == before


def test_a_record_of_a_mock_survey_is_made_again(tmp_path: Path) -> None:
    config = ScaleConfig("sdss", n=20, templates=4)
    write_parquet_survey(config, tmp_path / "out", engine=HERE)
    before = tree(tmp_path / "out")
    (path,) = (tmp_path / "out" / "ingest").glob("part-*.json")
    for text in TEXTS:
        path.write_text(text)
        write_parquet_survey(config, tmp_path / "out", engine=HERE)
        assert tree(tmp_path / "out") == before

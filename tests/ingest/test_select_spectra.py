"""Subsets of spectra: copied bit for bit, and nothing lost on the way."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import specshards.ingest.catalogue.subset
from specshards.common.errors import JobError, UsageError
from specshards.ingest.catalogue.config import SelectConfig
from specshards.ingest.catalogue.subset import select
from specshards.ingest.spectra.blocks import iter_blocks
from specshards.ingest.spectra.folder import SpectraFolder
from specshards.ingest.spectra.schema import SCHEMA, to_table, write_parquet
from tests.conftest import make_spectrum
from tests.oracles.catalogues import ids, lamost, write


@pytest.fixture
def spectra(tmp_path: Path) -> Path:
    """Spectra of two surveys in two files, with NaN in flux and missing labels."""
    rng = np.random.default_rng(3)
    made = [
        make_spectrum(
            i, rng, n=20 + i % 5, survey="mock-sdss" if i % 4 == 0 else "mock-lamost",
            survey_sn={"snrg": None if i % 10 == 9 else float(i % 30)}, layout=f"layout-{i * 7 % 60}",
        )
        for i in range(420)
    ]  # fmt: skip
    for spectrum in made:
        spectrum.flux[3] = np.nan
    made[7].labels["class"] = None
    folder = tmp_path / "in"
    folder.mkdir()
    write_parquet(to_table(made[:300]), folder / "part-00000.parquet", {"seed": 1}, row_group_rows=300)
    write_parquet(to_table(made[300:]), folder / "part-00001.parquet", {"seed": 1}, row_group_rows=64)
    return folder


def raw(rows: Iterable[dict[str, Any]]) -> list[bytes]:
    """Rows with their arrays as bytes, so that NaN equals itself."""
    keep = []
    for row in rows:
        arrays = [
            np.array(row["spectrum"][f.name], f.type.value_type.to_pandas_dtype())
            for f in SCHEMA.field("spectrum").type
        ]
        keep.append(
            repr({k: v for k, v in row.items() if k != "spectrum"}).encode() + b"".join(a.tobytes() for a in arrays)
        )
    return keep


def test_spectra_are_copied_bit_for_bit(spectra: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specshards.ingest.catalogue.subset, "_SPECTRA_ROWS", 16)
    monkeypatch.setattr(specshards.ingest.catalogue.subset, "_PART_GROUPS", 3)
    account = select(spectra, tmp_path / "out", SelectConfig(40, where="snrg > 2 or class == 'QSO'"))
    source = pa.concat_tables([pq.read_table(path) for path in sorted(spectra.iterdir())]).to_pylist()
    parts = sorted((tmp_path / "out").iterdir())
    copy = pa.concat_tables([pq.read_table(path) for path in parts]).to_pylist()
    kept = {row["object_id"] for row in copy}
    assert raw(copy) == raw(row for row in source if row["object_id"] in kept)
    assert len(copy) == account.selected == len(kept) and account.listed == 420
    assert account.reasons["no class: none of STAR, GALAXY, QSO"] == 1
    assert [path.name for path in parts] == [f"part-{i:05d}.parquet" for i in range(-(-len(copy) // 48))]
    groups = [group.rows for group in SpectraFolder.scan(tmp_path / "out").groups]
    assert set(groups[:-1]) == {16} and pq.read_schema(parts[0]).equals(SCHEMA)
    config = json.loads(pq.read_schema(parts[0]).metadata[b"specshards.config"])
    assert config["ingest"] == [{"seed": 1}] and config["select"]["per_class"] == 40


def test_a_subset_of_spectra_makes_shards(spectra: Path, tmp_path: Path) -> None:
    select(spectra, tmp_path / "out", SelectConfig(30))
    folder = SpectraFolder.scan(tmp_path / "out")
    assert folder.rows == 6 * 30 and folder.surveys == ("mock-lamost", "mock-sdss")
    assert [group.rows for group in folder.groups] == [128, 52]
    by_id = {row["object_id"]: row for path in spectra.iterdir() for row in pq.read_table(path).to_pylist()}
    for _, block in iter_blocks(folder):
        for i, key in enumerate(block.meta["object_id"].to_pylist()):
            flux = np.array(by_id[key]["spectrum"]["flux"], np.float32)
            assert block.arrays(i)[0].tobytes() == flux.tobytes()  # type: ignore[union-attr]


def test_bytes_do_not_depend_on_how_the_input_is_cut_up(spectra: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    whole = pa.concat_tables([pq.read_table(path) for path in sorted(spectra.iterdir())])
    whole = whole.filter(pa.compute.not_equal(whole["object_id"], "1007"))  # it has no class, and is not chosen
    for part, start in enumerate(range(0, 419, 150)):
        table = whole.slice(start, 150)
        layouts = table["layout"].cast(pa.string()).dictionary_encode()  # numbered otherwise than in the first folder
        table = table.set_column(table.column_names.index("layout"), "layout", layouts).cast(SCHEMA)
        write_parquet(table, other / f"part-{part:05d}.parquet", {"seed": 1}, row_group_rows=11)
    for source, out in ((spectra, "a"), (other, "b")):
        select(source, tmp_path / out, SelectConfig(35))
    a, b = (sorted((tmp_path / name).iterdir()) for name in "ab")
    assert [path.read_bytes() for path in a] == [path.read_bytes() for path in b] and len(a) == 1


def test_of_spectra_a_survey_can_be_taken(spectra: Path, tmp_path: Path) -> None:
    account = select(spectra, tmp_path / "out", SelectConfig(30, survey="lamost", where="snrg is not null"))
    assert account.groups["mock-sdss", "STAR"] == (35, 0, 0) and account.groups["mock-lamost", "STAR"][2] == 30
    assert account.reasons["not of lamost"] == 105 and SpectraFolder.scan(tmp_path / "out", "lamost").rows == 90
    # These spectra lack every S/N but snrg, so that nothing of them is within the paper's cut.
    with pytest.raises(JobError, match="no object is selected"):
        select(spectra, tmp_path / "other", SelectConfig(30, cuts="paper", survey="lamost"))
    assert not (tmp_path / "other").exists()


def test_an_output_in_use_is_refused_and_force_replaces_only_parts(spectra: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / ".select-old").mkdir(parents=True)
    (out / ".select-old" / "part-00000.parquet").write_bytes(b"of a run that was killed")
    select(spectra, out, SelectConfig(50))
    (out / "notes.txt").write_text("mine")
    (out / "part-00077.parquet").write_bytes(b"old")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert sorted(before) == ["notes.txt", "part-00000.parquet", "part-00077.parquet"]
    with pytest.raises(UsageError, match="holds something already"):
        select(spectra, out, SelectConfig(10))
    with pytest.raises(JobError, match="no object is selected"):
        select(spectra, out, SelectConfig(10, where="z > 99"), force=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    select(spectra, out, SelectConfig(10), force=True)
    assert sorted(path.name for path in out.iterdir()) == ["notes.txt", "part-00000.parquet"]
    assert len(ids(out / "part-00000.parquet", "object_id")) == 60


def test_stopped_once_the_subset_is_whole_or_on_the_way_it_goes_on(
    spectra: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(specshards.ingest.catalogue.subset, "_PART_GROUPS", 1)
    config, whole, out = SelectConfig(100), tmp_path / "whole", tmp_path / "out"
    counts = select(spectra, whole, config)
    parts = {path.name: path.read_bytes() for path in whole.iterdir()}
    assert len(parts) > 2
    moves, move = iter([True, False]), os.replace

    def stops(source: Path, target: Path) -> None:
        if str(target).startswith(f"{out}/part-") and not next(moves):
            raise KeyboardInterrupt
        move(source, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "replace", stops)
        select(spectra, out, config)
    assert [path.name for path in out.iterdir()] == ["part-00000.parquet"]
    with pytest.raises(UsageError, match="holds something already"):  # another subset
        select(spectra, out, SelectConfig(50))
    shutil.copytree(spectra, tmp_path / "fewer")
    (tmp_path / "fewer" / "part-00000.parquet").unlink()
    with pytest.raises(UsageError, match="holds something already"):  # of other spectra
        select(tmp_path / "fewer", out, config)
    for there in (1, len(parts)):
        caplog.clear()
        assert select(spectra, out, config) == counts
        assert {path.name: path.read_bytes() for path in out.iterdir()} == parts
        assert f"{there} of the subset's {len(parts)} files there already" in caplog.text
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds something already"):
        select(spectra, out, config)


def test_a_failure_on_the_way_leaves_what_was_there(spectra: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    select(spectra, out, SelectConfig(20))
    before = (out / "part-00000.parquet").read_bytes()
    path = spectra / "part-00001.parquet"
    data = bytearray(path.read_bytes())
    columns = [pq.read_metadata(path).row_group(1).column(i) for i in range(12)]
    flux = next(column for column in columns if column.path_in_schema.startswith("spectrum.flux"))
    data[flux.data_page_offset : flux.data_page_offset + 100] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(JobError, match=r"part-00001\.parquet: damaged Parquet"):
        select(spectra, out, SelectConfig(), force=True)
    assert [p.name for p in out.iterdir()] == ["part-00000.parquet"]
    assert (out / "part-00000.parquet").read_bytes() == before


def test_an_id_repeats_at_one_place_of_a_survey_or_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    made = [
        make_spectrum(i, rng, n=20, object_id=str(i // 2), survey=("mock-sdss", "mock-lamost")[i % 2])
        for i in range(8)
    ]
    write_parquet(to_table(made), folder / "part-00000.parquet", {})
    assert select(folder, tmp_path / "out", SelectConfig(9)).selected == 8
    visit = make_spectrum(0, rng, n=20, object_id="3", survey="mock-sdss", ra=made[6].ra, dec=made[6].dec + 1e-3)
    write_parquet(to_table([visit]), folder / "p.parquet", {})
    assert select(folder, tmp_path / "out", SelectConfig(9), force=True).selected == 9
    assert "repeated visits: 1 object has 2 spectra" in caplog.text
    visit.dec += 0.01
    write_parquet(to_table([visit]), folder / "p.parquet", {})
    with pytest.raises(UsageError, match=r"1 id names objects at different places, 2 spectra \(such as 3 of mock"):
        select(folder, tmp_path / "out", SelectConfig(9), force=True)


def test_what_is_no_catalogue_and_no_spectra_is_refused(spectra: Path, tmp_path: Path) -> None:
    out, config = tmp_path / "out", SelectConfig(3, survey="lamost")
    (tmp_path / "empty").mkdir()
    write(lamost({"STAR": 3}), tmp_path / "empty" / "c.txt.parquet").rename(tmp_path / "foreign.parquet")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 not really")
    for source, message in (
        (tmp_path / "none.csv", "no such catalogue"), (tmp_path / "empty", "no spectra Parquet there"),
        (tmp_path / "damaged.parquet", "not a readable table"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            select(source, out if source.is_dir() else tmp_path / "o.parquet", config)
    (tmp_path / "foreign.parquet").rename(tmp_path / "empty" / "foreign.parquet")
    with pytest.raises(UsageError, match="not spectra Parquet of"):
        select(tmp_path / "empty", out, config)
    for inside in (spectra / "small", spectra.parent):
        with pytest.raises(UsageError, match="must lie apart"):
            select(spectra, inside, config, force=True)
    with pytest.raises(UsageError, match="give --out a folder"):
        select(spectra, tmp_path / "o.parquet", config)
    with pytest.raises(UsageError, match="instrument, which the cut asks for"):
        select(spectra, out, SelectConfig(3, cuts="paper", survey="sdss"))
    assert not out.exists()

"""Damage to spectra Parquet after ingest: refused in one line, made again, or harmless; never other values."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.job.build import build as ingest
from specshards.ingest.seal import Footer, chunk_places, is_intact, seal
from specshards.ingest.spectra.blocks import iter_blocks
from specshards.ingest.spectra.folder import SpectraFolder, read_positions
from specshards.ingest.spectra.schema import SCHEMA, to_table, write_parquet
from specshards.ingest.tables import TableFile
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.write.build import build as draw
from tests.conftest import make_spectrum
from tests.oracles.data_sets import tree
from tests.oracles.mmu_tables import mock, sdss_table

HERE = Engine(workers=0)


def own(path: Path, count: int = 12, pixels: int = 150, **changes: Any) -> Path:
    rng = np.random.default_rng(0)
    spectra = [make_spectrum(i, rng, n=pixels, **changes) for i in range(count)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(to_table(spectra), path, {}, row_group_rows=5)
    return path


def values(where: Path) -> list[Any]:
    """All that is read, as plain values."""
    source = SpectraFolder.scan(where)
    found: list[Any] = [source.surveys, *(column.tolist() for column in read_positions(source.folder, where.name))]
    for _, block in iter_blocks(source):
        found.append(block.meta.to_pylist())
        for i in range(len(block)):
            found.append([None if part is None else part.tobytes() for part in block.arrays(i)])
    return found


def flips(content: bytes, count: int, seed: int) -> list[tuple[str, bytes]]:
    """Half of them single bits, half whole bytes; a quarter in the last 4 kB, where seal and footer are."""
    rng = np.random.default_rng(seed)
    damaged = []
    for number in range(count):
        first = max(0, len(content) - 4096) if number % 4 == 0 else 0
        at = int(rng.integers(first, len(content)))
        mask = 1 << int(rng.integers(8)) if number % 2 else int(rng.integers(1, 256))
        damaged.append((f"byte {at} xor {mask}", content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :]))
    return damaged


@pytest.mark.parametrize("has_grid", [True, False])
def test_no_flip_gives_other_values(has_grid: bool, tmp_path: Path) -> None:
    grid = {} if has_grid else {"wave_coeff0": None, "wave_coeff1": None}
    path = own(tmp_path / "part-00000.parquet", **grid)
    expected, content = values(path), path.read_bytes()
    refused = 0
    ends = [
        (f"end {i}", content[:-i] + bytes([content[-i] ^ 2]) + content[len(content) - i + 1 :]) for i in range(1, 30)
    ]
    for name, damaged in [*flips(content, 400, seed=int(has_grid)), *ends]:
        path.write_bytes(damaged)
        try:
            assert values(path) == expected, name
        except (JobError, UsageError) as error:
            assert str(path) in str(error) and "\n" not in str(error), name
            assert "ingest it again" in str(error), name
            refused += 1
    # Wavelengths that coefficients give are not read, so that damage to them is none.
    assert refused > (150 if has_grid else 380)


def test_every_byte_is_under_a_seal_or_harmless_and_others_read_the_file(tmp_path: Path) -> None:
    path = own(tmp_path / "a.parquet")
    table = pq.read_table(path, page_checksum_verification=True)
    assert table.schema.remove_metadata().equals(SCHEMA) and len(table) == 12
    with path.open("rb") as file:
        footer = Footer.read(file)
    assert footer.chunks is not None
    places = chunk_places(pq.read_metadata(path))
    assert [(int(c["start"]), int(c["bytes"])) for c in footer.chunks] == places
    assert 4 + sum(length for _, length in places) + len(footer.content) + 8 == path.stat().st_size
    assert is_intact(path, footer.digest) and not is_intact(path, "0" * 64)
    with pytest.raises(ValueError, match="sealed already"):
        seal(path)


def test_shards_of_damaged_spectra_are_refused_or_the_same(tmp_path: Path) -> None:
    path = own(tmp_path / "spectra" / "part-00000.parquet", 24, 80)
    content = path.read_bytes()
    whole = draw(ShardConfig(), path.parent, tmp_path / "whole", engine=HERE)
    expected, other = tree(tmp_path / "whole"), tmp_path / "other"
    refused = 0
    for name, damaged in flips(content, 40, seed=5):
        path.write_bytes(damaged)
        shutil.rmtree(other, ignore_errors=True)
        try:
            again = draw(ShardConfig(), path.parent, other, engine=HERE)
        except (JobError, UsageError) as error:
            refused += 1
            assert str(path) in str(error)
        else:
            assert again.input_fingerprint == whole.input_fingerprint and tree(other) == expected, name
    assert refused > 10


def test_a_broken_seal_is_noticed_and_a_file_written_anew_has_none(tmp_path: Path) -> None:
    path = own(tmp_path / "a.parquet")
    content, expected = path.read_bytes(), values(path)
    at = content.rindex(b"SPECSEAL")
    path.write_bytes(content[: at + 3] + b"X" + content[at + 4 :])
    with pytest.raises(JobError, match=r"a.parquet: damaged Parquet: its seal is broken"):
        SpectraFolder.scan(path)
    path.write_bytes(content)
    pq.write_table(pq.read_table(path), path, row_group_size=5)  # with our metadata, by somebody else
    assert values(path) == expected
    assert not any(group.is_sealed for group in SpectraFolder.scan(path).groups)


def test_a_rerun_of_ingest_makes_a_damaged_part_again(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4):
        pq.write_table(sdss_table(mock(6)).set_column(0, "spectrum", sdss_table(mock(6))["spectrum"])
                       .set_column(sdss_table(mock(1)).column_names.index("object_id"), "object_id",
                                   pa.array([f"{number}-{i}" for i in range(6)])),
                       tmp_path / "in" / f"{number}.parquet")  # fmt: skip
    config = IngestConfig(files_per_part=2)
    ingest(config, str(tmp_path / "in"), tmp_path / "out", engine=HERE)
    parts = sorted((tmp_path / "out" / "spectra").glob("*.parquet"))
    before = [part.read_bytes() for part in parts]
    digests = [json.loads(p.read_text())["spectra_digest"] for p in (tmp_path / "out/ingest/parts").glob("*.json")]
    assert len(parts) == 2 and all(len(digest) == 64 for digest in digests)
    stamps = [part.stat().st_mtime_ns for part in parts]
    damaged = bytearray(before[1])
    damaged[len(damaged) // 3] ^= 16
    parts[1].write_bytes(bytes(damaged))
    ingest(config, str(tmp_path / "in"), tmp_path / "out", engine=HERE)
    assert [part.read_bytes() for part in parts] == before
    assert parts[0].stat().st_mtime_ns == stamps[0], "a whole part is kept"


def foreign(path: Path, **options: Any) -> Path:
    pq.write_table(sdss_table(mock(40)), path, row_group_size=10, compression="none", use_dictionary=False, **options)
    return path


def test_others_parquet_without_checksums_has_its_content_in_the_fingerprint(tmp_path: Path) -> None:
    path = foreign(tmp_path / "x.parquet")
    first = draw(ShardConfig(), path, tmp_path / "first", engine=HERE)
    assert draw(ShardConfig(), path, tmp_path / "again", engine=HERE).dumps() == first.dumps()
    content = bytearray(path.read_bytes())
    at = bytes(content).index(mock(1)[0].flux[100:108].tobytes())
    content[at + 1] ^= 8
    path.write_bytes(bytes(content))
    other = draw(ShardConfig(), path, tmp_path / "other", engine=HERE)
    assert SpectraFolder.scan(path).digests != {} and other.input_fingerprint != first.input_fingerprint
    # Its footer is what it was: a rerun has to look at the content, or would mix old and new spectra.
    for lost in (False, True):
        if lost:
            next((tmp_path / "first").rglob("train-*.tar")).unlink()
        with pytest.raises(UsageError, match=r"made otherwise \(the input changed: x\.parquet\)"):
            draw(ShardConfig(), path, tmp_path / "first", engine=HERE)
    draw(ShardConfig(), path, tmp_path / "first", engine=HERE, force=True)
    assert tree(tmp_path / "first") == tree(tmp_path / "other")


def test_others_page_checksums_are_verified(tmp_path: Path) -> None:
    path = foreign(tmp_path / "x.parquet", write_page_checksum=True)
    content = bytearray(path.read_bytes())
    content[bytes(content).index(mock(1)[0].flux[100:108].tobytes()) + 1] ^= 8
    path.write_bytes(bytes(content))
    with pytest.raises(JobError, match=r"x.parquet: damaged Parquet"):
        draw(ShardConfig(), path, tmp_path / "out", engine=HERE)


def version_1(path: Path, pixels: int = 150) -> Path:
    """As the first version wrote it: six columns less, no seal."""
    new = ["flux_unit", "flux_scale", "wave_source", "frame", "velocity", "lsf_sigma"]
    rng = np.random.default_rng(0)
    table = to_table([make_spectrum(i, rng, n=pixels) for i in range(20)]).drop_columns(new)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"specshards.schema_version": "1", "specshards.program_version": "0.1.0", "specshards.config": "{}"}
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=5)
    return path


def test_version_1_is_read_and_its_shards_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from specshards.ingest.catalogue.config import SelectConfig
    from specshards.ingest.catalogue.subset import select

    path = version_1(tmp_path / "spectra" / "part-00000.parquet")
    source = SpectraFolder.scan(path.parent)
    footer = TableFile.open(path).footer
    assert footer.chunks is None and source.versions == {path.name: 1}
    out = tmp_path / "out"
    made = draw(ShardConfig(), path.parent, out, engine=HERE)
    records = {p: p.read_text() for p in (out / ".ledger").glob("0*.json")}
    columns = pq.read_schema(next((out / "train").glob("*.parquet"))).names
    assert "flux_scale" not in columns and all(json.loads(text)["content"] == {} for text in records.values())
    drawn: list[Callable[..., Any]] = []
    monkeypatch.setattr("specshards.shards.write.build._draw", lambda *of: drawn.append(of[0]))
    assert draw(ShardConfig(), path.parent, out, engine=HERE).dumps() == made.dumps() and not drawn
    monkeypatch.undo()
    # What is added now is of the new version, beside the old.
    own(tmp_path / "spectra" / "part-00001.parquet", 1, object_id="new")
    assert draw(ShardConfig(), path.parent, out, engine=HERE).objects == 21
    assert {p: p.read_text() for p in records} == records
    select(path.parent, tmp_path / "chosen", SelectConfig(per_class=2))
    chosen = pq.read_table(next((tmp_path / "chosen").rglob("*.parquet")))
    assert chosen.schema.remove_metadata().equals(SCHEMA) and set(chosen["flux_scale"].to_pylist()) == {1.0}
    assert Manifest.load(out).objects == 21

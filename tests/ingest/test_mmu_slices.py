"""MultimodalUniverse tables that are too long for one piece: row groups in slices, long rows, HDF5."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import specshards.ingest.tables
from specshards.common.errors import BadObjectError, JobError
from specshards.common.spectrum import Spectrum
from specshards.ingest.spectra import folder as shard_spectra
from specshards.ingest.spectra.blocks import read_blocks
from specshards.ingest.spectra.folder import SpectraFolder
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.ingest.surveys import multimodal_universe as mmu
from specshards.ingest.surveys import open_file
from specshards.ingest.tables import SLICE_ROWS, TableFile
from specshards.render import ImageConfig
from specshards.shards.__main__ import make_survey
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.write.plan import cut_tasks
from specshards.train.use.pictures import pictures
from tests.oracles.mmu_tables import arrays_of, mock, sdss_table


def slice_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    true_slices = TableFile.slices

    def slices(self: TableFile, *args: Any, **options: Any) -> Iterable[pa.Table]:
        for table in true_slices(self, *args, **options):
            if table.column_names != ["object_id"]:  # which is looked at before any spectrum is read
                sizes.append(len(table))
            yield table

    monkeypatch.setattr(TableFile, "slices", slices)
    return sizes


@pytest.mark.parametrize("own", [False, True])
def test_a_huge_row_group_is_read_in_slices_and_shared_out(
    own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spectra = mock(50, 40) * 100
    for index, name in enumerate(map(str, range(5000))):
        spectra[index] = make_copy(spectra[index], name)
    if own:
        write_parquet(to_table(spectra), tmp_path / "x.parquet", {}, row_group_rows=5000)
    else:
        pq.write_table(sdss_table(spectra), tmp_path / "x.parquet", row_group_size=5000)
    source = SpectraFolder.scan(tmp_path / "x.parquet")
    assert [group.rows for group in source.groups] == [5000]
    tasks = cut_tasks(source.groups, ShardConfig())
    assert sorted(group.rows for task in tasks for group in task) == [904, 2048, 2048]
    assert tasks == cut_tasks(SpectraFolder.scan(tmp_path / "x.parquet").groups, ShardConfig())
    sizes = slice_sizes(monkeypatch)
    blocks = [b for task in tasks for g in task for b in read_blocks(source.folder, g, source.surveys)]
    assert max(sizes) <= SLICE_ROWS and sum(sizes) == 5000
    assert sorted(row for block in blocks for row in block.rows.tolist()) == list(range(5000))
    for block in blocks:
        assert block.meta["object_id"].to_pylist() == [str(row) for row in block.rows]
        np.testing.assert_array_equal(block.arrays(3)[0], spectra[int(block.rows[3])].flux)


@pytest.mark.parametrize("shape", ["struct", "list of structs", "flat", "fixed"])
def test_a_piece_may_start_and_end_inside_a_slice(shape: str, tmp_path: Path) -> None:
    made = mock(30, 40)
    pq.write_table(sdss_table(made, shape), tmp_path / "x.parquet")
    source = SpectraFolder.scan(tmp_path / "x.parquet")
    for piece in source.groups[0].cut(13):
        (block,) = read_blocks(source.folder, piece, source.surveys)
        assert block.rows.tolist() == list(range(piece.skip, piece.skip + piece.rows))
        for index, spectrum in enumerate(made[piece.skip : piece.skip + piece.rows]):
            assert block.meta["object_id"][index].as_py() == spectrum.object_id
            for mine, theirs in zip(block.arrays(index), ("flux", "ivar", "wavelength", "mask"), strict=True):
                np.testing.assert_array_equal(mine, getattr(spectrum, theirs))


def make_copy(spectrum: Spectrum, name: str) -> Spectrum:
    copy = Spectrum(**{key: getattr(spectrum, key) for key in Spectrum.__slots__})
    copy.object_id = name
    return copy


def test_long_rows_make_short_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(sdss_table(mock(60)), tmp_path / "x.parquet")
    monkeypatch.setattr(specshards.ingest.tables, "SLICE_BYTES", 40_000)  # a row of 307 pixels takes some 4 kB
    sizes = slice_sizes(monkeypatch)
    assert sum(1 for _ in open_file(tmp_path / "x.parquet").objects()) == 60
    assert 2 <= max(sizes) <= 12 and sum(sizes) == 60


@pytest.fixture
def hdf5(tmp_path: Path) -> tuple[Path, list[Spectrum]]:
    """As the raw files of MultimodalUniverse's SDSS: every catalogue column, bytes with blanks, big-endian floats."""
    spectra = mock(300, 60)
    spectra[7].mask = np.ones(60, bool)
    path = tmp_path / "001-of-001.hdf5"
    with h5py.File(path, "w") as file:
        for name, values in arrays_of(spectra).items():
            file[f"spectrum_{name}"] = values.astype(">f4") if name == "flux" else values
        file["object_id"] = np.array([f"{s.object_id:>22}".encode() for s in spectra])
        file["CLASS"] = np.array([s.labels["class"].encode() + b"  " for s in spectra])
        file["SURVEY"] = np.full(300, b"boss  ")
        file["ZWARNING"] = np.full(300, 4)
        file["Z"] = np.array([s.labels["z"] for s in spectra])
        file["SPECTROFLUX"] = np.ones((300, 5), np.float32)
        file["ra"], file["dec"] = [s.ra for s in spectra], [s.dec for s in spectra]
    return path, spectra


def test_hdf5_is_read_in_slices_with_its_labels(
    hdf5: tuple[Path, list[Spectrum]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, spectra = hdf5
    sizes = slice_sizes(monkeypatch)
    opened = open_file(path, "sdss")
    assert (opened.survey, opened.layout, opened.parser) == ("sdss", mmu.HDF5, "hdf5")
    items = list(opened.objects())
    assert max(sizes) <= SLICE_ROWS and len(items) == 300
    for index, (item, spectrum) in enumerate(zip(items, spectra, strict=True)):
        if index == 7:
            assert isinstance(item, BadObjectError) and item.row == 7 and "masked" in item.reason
            continue
        assert isinstance(item, Spectrum)
        np.testing.assert_array_equal(item.flux, spectrum.flux)
        assert item.flux.dtype == np.float32 and item.flux.dtype.isnative
        assert (item.object_id, item.survey, item.row) == (spectrum.object_id, "sdss", index)
        assert (item.labels["class"], item.labels["zwarning"]) == (spectrum.labels["class"], 4)


def test_hdf5_goes_through_ingest_to_shards(hdf5: tuple[Path, list[Spectrum]], tmp_path: Path) -> None:
    make_survey("sdss", tmp_path / "out", data=str(hdf5[0]), workers=0)
    manifest = Manifest.load(tmp_path / "out" / "shards" / "map2d")
    assert manifest.samples() == 299 and manifest.surveys == ("sdss",)
    batches = list(pictures(hdf5[0], ImageConfig(), 400))
    assert sum(len(batch.rows) for batch in batches) == 299
    assert [row["row"] for batch in batches for row in batch.quarantine] == [7]
    with pytest.raises(JobError, match="HDF5, which is ingested first"):
        shard_spectra.SpectraFolder.scan(hdf5[0])

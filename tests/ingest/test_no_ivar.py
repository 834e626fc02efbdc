"""Spectra without errors, such as tables of two columns, count as good where they were stored, too."""

from __future__ import annotations

from pathlib import Path

from specshards.common.spectrum import NO_IVAR
from specshards.ingest.spectra.blocks import iter_blocks
from specshards.ingest.spectra.folder import SpectraFolder
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.ingest.surveys import open_file


def test_pixels_without_errors_are_not_pixels_without_information(tmp_path: Path) -> None:
    table = tmp_path / "one.csv"
    table.write_text("wave,flux\n" + "".join(f"{4000 + 10 * i},{1 + i / 100}\n" for i in range(100)))
    (found,) = open_file(table).objects()
    assert not isinstance(found, Exception) and not found.has_ivar
    found.ra, found.dec = 10.0, 20.0
    stored = to_table([found])
    assert str(stored["layout"][0]) == f"{found.layout}{NO_IVAR}"
    (tmp_path / "spectra").mkdir()
    write_parquet(stored, tmp_path / "spectra" / "part-00000.parquet", {})
    ((_, block),) = iter_blocks(SpectraFolder.scan(tmp_path / "spectra"))
    arrays = block.arrays(0)
    assert arrays.ivar is None and not arrays.mask.any() and (arrays.flux == found.flux).all()

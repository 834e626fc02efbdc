"""Spectra without errors, such as tables of two columns, count as good where they were stored, too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import NO_IVAR, Spectrum
from specshards.ingest.spectra.blocks import iter_blocks
from specshards.ingest.spectra.folder import SpectraFolder
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.ingest.surveys import open_file
from tests.conftest import REAL


def test_pixels_without_errors_are_not_pixels_without_information(tmp_path: Path) -> None:
    table = tmp_path / "one.csv"
    table.write_text("wave,flux\n" + "".join(f"{4000 + 10 * i},{1 + i / 100}\n" for i in range(100)))
    (found,) = open_file(table).objects()
    assert not isinstance(found, Exception) and not found.has_ivar
    found.ra, found.dec = 10.0, 20.0
    stored = to_table([found])
    assert np.isnan(stored["spectrum"][0].as_py()["ivar"]).all()
    assert str(stored["layout"][0]) == f"{found.layout}{NO_IVAR}"
    (tmp_path / "spectra").mkdir()
    write_parquet(stored, tmp_path / "spectra" / "part-00000.parquet", {})
    ((_, block),) = iter_blocks(SpectraFolder.scan(tmp_path / "spectra"))
    arrays = block.arrays(0)
    assert arrays.ivar is None and not arrays.mask.any() and (arrays.flux == found.flux).all()


@pytest.mark.skipif(not (REAL / "layouts").is_dir(), reason="no real files of layouts")
def test_no_real_file_without_errors_is_stored_with_some() -> None:
    layouts: set[str] = set()
    for path in sorted((REAL / "layouts").rglob("*")):
        if not path.is_file() or path.stat().st_size > 4_000_000:
            continue
        try:
            found = [one for one, _ in zip(open_file(path).objects(), range(2), strict=False)]
        except BadObjectError:
            continue
        for one in found:
            if isinstance(one, Spectrum):
                stored = to_table([one]).to_pylist()[0]
                assert one.has_ivar != bool(np.isnan(stored["spectrum"]["ivar"]).all()), path
                assert one.has_ivar != stored["layout"].endswith(NO_IVAR), path
                layouts |= set() if one.has_ivar else {one.layout}
    assert layouts >= {"6dfgs-table", "miles-star", "stelib-star", "eso-uves-image", "iraf-multispec"}, layouts

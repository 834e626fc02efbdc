"""Tables whose directory contradicts itself: one reason each, and the process goes on."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from specshards.common.errors import BadObjectError
from specshards.ingest import probe
from specshards.ingest.fits.astropy import AstropyHdu
from specshards.ingest.tables import TableFile


def table(path: Path) -> Path:
    pq.write_table(pa.table({"object_id": ["a", "b"], "spectrum_flux": [[1.0, 2.0], [3.0]]}), path)
    return path


def contradict(path: Path) -> Path:
    """In the schema the lists are no longer lists, of which the footer has counted levels: pyarrow ends at that."""
    content = bytearray(path.read_bytes())
    at = content.index(b"\x35\x02\x18\x0dspectrum_flux", len(content) - 4000)
    content[at + 1] = 0x42
    path.write_bytes(content)
    return path


def test_a_footer_that_contradicts_itself_does_not_end_the_process(tmp_path: Path) -> None:
    good, bad = table(tmp_path / "good.parquet"), contradict(table(tmp_path / "bad.parquet"))
    for _ in range(2):  # each one that is asked of ends with the footer, and another one starts
        with pytest.raises(BadObjectError, match="damaged Parquet: its footer contradicts itself"):
            list(TableFile.open(bad).slices(["spectrum_flux"]))
        with pytest.raises(BadObjectError, match="its footer contradicts itself"):
            TableFile.open(bad).checksum(["spectrum_flux"], (), 0)
        (whole,) = TableFile.open(good).slices(["spectrum_flux"])
        assert whole["spectrum_flux"].to_pylist() == [[1.0, 2.0], [3.0]]


def test_what_lies_in_the_folder_of_a_command_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyarrow.py").write_text("raise SystemExit('the user\\'s own')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(probe, "_process", None)
    assert probe.can_be_asked(TableFile.open(table(tmp_path / "good.parquet")).footer.content)


def test_a_process_that_was_forked_asks_for_itself(tmp_path: Path) -> None:
    footer = TableFile.open(table(tmp_path / "good.parquet")).footer.content
    assert probe.can_be_asked(footer) and probe._process is not None
    child = os.fork()
    if child == 0:
        os._exit(0 if probe.can_be_asked(footer) and probe._process[1] == os.getpid() else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_an_array_of_hdf5_that_is_listed_and_not_there(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for name in ("object_id", "spectrum_flux", "spectrum_ivar", "spectrum_lambda"):
            file[name] = np.ones((2, 5))
    content = (tmp_path / "a.hdf5").read_bytes()
    (tmp_path / "a.hdf5").write_bytes(content.replace(b"spectrum_ivar", b"spectpum_ivar"))
    with pytest.raises(BadObjectError, match=r"spect\wum_\w+ is listed, and cannot be opened"):
        TableFile.open(tmp_path / "a.hdf5")


@pytest.mark.parametrize("fields", [1e300, 10**6, -1, "x"])
def test_a_table_of_no_possible_number_of_columns(fields: object) -> None:
    hdu = fits.BinTableHDU.from_columns([fits.Column("a", "D", array=[1.0])])
    hdu.header["TFIELDS"] = fields
    with pytest.raises(BadObjectError, match="a table has 999 columns at most"):
        _ = AstropyHdu(1, hdu, lambda *_: None, lambda _: hdu).names

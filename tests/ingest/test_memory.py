"""Files that promise far more than they hold: refused before anything is allocated, whatever the format."""

from __future__ import annotations

import gzip
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from specshards.common.errors import JobError, UsageError
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.limits import parse_size
from tests.conftest import ROOT, call
from tests.ingest.test_grids import sp_spec
from tests.oracles.survey_files import WAVE, desi_coadd, lamost_image, lamost_table, sdss_spec

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured as Linux tells it")
GB = 1 << 30
READ = """
import resource, sys, time
from pathlib import Path
from specshards.common.errors import BadObjectError
from specshards.ingest.surveys import open_file
resource.setrlimit(resource.RLIMIT_AS, (64 << 30, 64 << 30))
try:
    items = list(open_file(Path(sys.argv[1]), most_bytes=int(sys.argv[2]) or None).objects())
    print(len(items), next((i.reason for i in items if isinstance(i, BadObjectError)), "read"))
except BadObjectError as error:
    print(error.reason)
# Not ru_maxrss, which begins with that of the process that started this one.
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10)
"""


def read(path: Path, most_bytes: int = 0) -> tuple[str, int]:
    """What becomes of a file in a process of its own, and the most memory that it had, bytes."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path), str(most_bytes)], capture_output=True, text=True, check=False,
        cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outcome, peak = done.stdout.splitlines()
    return outcome, int(peak)


def bomb(path: Path, head: bytes, zeros: int) -> Path:
    """Gzip of `head` and so many zeros, without ever having them."""
    packer = zlib.compressobj(1, wbits=31)
    with path.open("wb") as sink:
        sink.write(packer.compress(head))
        block = bytes(1 << 22)
        for _ in range(zeros >> 22):
            sink.write(packer.compress(block))
        sink.write(packer.flush())
    return path


def enlarged(path: Path, keyword: bytes, value: int) -> bytes:
    """The file with the first card of that name set to `value`; what follows its header is kept."""
    content = path.read_bytes()
    at = content.index(keyword.ljust(8) + b"=")
    return content[:at] + f"{keyword.decode():<8}= {value:>20}".ljust(80).encode() + content[at + 80 :]


def test_a_bomb_of_zeros_is_given_up_at_once(tmp_path: Path) -> None:
    outcome, peak = read(bomb(tmp_path / "zeros.fits.gz", b"", GB))
    assert outcome == "not a FITS file" and peak < 0.3 * GB


def test_a_bomb_with_a_header_is_cut_at_the_limit(tmp_path: Path) -> None:
    path = lamost_image(tmp_path / "a.fits", "Flux, Inverse, Wavelength, Andmask, Ormask", WAVE)
    head = enlarged(path, b"NAXIS1", GB // 20)[:5760]
    packed = bomb(tmp_path / "b.fits.gz", head, GB)
    outcome, peak = read(packed)
    assert outcome == "it uncompresses to more than 512 MiB; raise --max-file-size" and peak < GB
    outcome, peak = read(packed, 64 << 20)
    assert "more than 64 MiB" in outcome and peak < 0.4 * GB


def test_what_is_allowed_is_read(tmp_path: Path) -> None:
    path = lamost_table(tmp_path / "a.fits")
    packed = tmp_path / "a.fits.gz"
    packed.write_bytes(gzip.compress(path.read_bytes() + bytes(700_000)))
    assert read(packed, 1 << 20)[0] == "1 read"
    packed.write_bytes(gzip.compress(path.read_bytes() + bytes(1 << 20)))
    assert "more than 1 MiB" in read(packed, 1 << 20)[0]


SPARSE: dict[str, Callable[[Path], tuple[Path, bytes]]] = {
    "lamost-image": lambda p: (lamost_image(p, "Flux, Inverse, Wavelength, Andmask, Ormask", WAVE), b"NAXIS1"),
    "lamost-dr1": lambda p: (lamost_image(p, "Flux Inverse Subcontinuum Andmask Ormask", WAVE), b"NAXIS1"),
    "sdss-spec": lambda p: (sdss_spec(p), b"NAXIS2"),
    "sdss-spspec": lambda p: (sp_spec(p), b"NAXIS1"),
    "desi-coadd": lambda p: (desi_coadd(p), b"NAXIS2"),
}


@pytest.mark.parametrize("layout", SPARSE)
@pytest.mark.parametrize("size", [100 << 20, 25 * GB])
def test_sparse_files_with_valid_headers(tmp_path: Path, layout: str, size: int) -> None:
    """A hole of 25 GB takes no disk; nor may it take memory."""
    path, keyword = SPARSE[layout](tmp_path / "a.fits")
    content = path.read_bytes()
    at = content.index(keyword.ljust(8) + b"=")
    before = int(content[at + 10 : at + 30])
    path.write_bytes(enlarged(path, keyword, before * (size // len(content))))
    with path.open("r+b") as file:
        file.truncate(size - size % 2880 + 2880)
    outcome, peak = read(path)
    assert outcome != "1 read" and peak < 0.9 * GB, (outcome, peak)


def test_a_tail_of_nothing(tmp_path: Path) -> None:
    path = lamost_table(tmp_path / "a.fits")
    with path.open("r+b") as file:
        file.truncate(25 * GB)
    outcome, peak = read(path)
    assert "no header after HDU 1" in outcome and peak < 0.4 * GB


def test_a_header_without_end(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(b"SIMPLE  =                    T".ljust(80))
    with path.open("r+b") as file:
        file.truncate(25 * GB)
    outcome, peak = read(path)
    assert "no END" in outcome and peak < 0.4 * GB


@pytest.mark.parametrize("kind", ["shape", "chunk", "filter", "rows"])
def test_hdf5_that_promises(tmp_path: Path, kind: str) -> None:
    import h5py

    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        n = {"shape": 10**12, "chunk": 1 << 28, "filter": 1 << 26, "rows": 100}[kind]
        rows = 10**10 if kind == "rows" else 2
        for name in ("spectrum_flux", "spectrum_ivar", "spectrum_lambda"):
            chunks = (1, min(n, 1 << 28)) if kind in ("chunk", "filter") else (1, 100)
            packing = {"compression": "gzip", "compression_opts": 9} if kind == "filter" else {}
            data = file.create_dataset(name, (rows, n), "f4", chunks=chunks, **packing)
            if kind == "filter" and name == "spectrum_flux":
                data[0, :] = np.zeros(n, "f4")
        file.create_dataset("object_id", (rows,), "i8", chunks=(min(100, rows),))
    outcome, peak = read(path)
    assert not outcome.endswith("read") and peak < 0.6 * GB, (outcome, peak)


def test_hdf5_reads_no_other_file(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["flux"] = np.ones((2, 5))
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file["object_id"] = np.arange(2)
        file["spectrum_flux"] = h5py.ExternalLink("other.hdf5", "flux")
        file["spectrum_lambda"] = np.ones((2, 5))
    outcome, _ = read(path)
    assert outcome.startswith(("no known layout", "a catalogue, no spectra"))


def test_a_parquet_row_of_a_billion_values(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    n = 1 << 25
    zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(n, "f4")), n)
    table = pa.table({"object_id": ["1"], "spectrum_flux": zeros, "spectrum_lambda": zeros})
    table = table.cast(pa.schema([("object_id", pa.string()), ("spectrum_flux", pa.list_(pa.float32())),
                                  ("spectrum_lambda", pa.list_(pa.float32()))]))  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 1 << 20
    outcome, peak = read(tmp_path / "a.parquet")
    assert "values" in outcome and peak < 0.5 * GB, (outcome, peak)


def test_sizes() -> None:
    assert parse_size("2GB") == 2 * 10**9 and parse_size("1GiB") == GB
    assert IngestConfig().max_file_size is None
    for text in ("", "many", "-1GB", "12", "nan", "inf", "1e40GB"):
        with pytest.raises(UsageError, match="--max-file-size"):
            parse_size(text)


def test_a_packed_catalogue_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from specshards.ingest.catalogue import rows

    path = tmp_path / "labels.fits.gz"
    table = Table({"obsid": [1, 2], "z": [0.1, 0.2]})
    table.write(tmp_path / "labels.fits")
    path.write_bytes(gzip.compress((tmp_path / "labels.fits").read_bytes()))
    assert rows.open_rows(path).total == 2
    monkeypatch.setattr(rows, "MOST_CATALOGUE", 1 << 20)
    bomb(path, (tmp_path / "labels.fits").read_bytes(), 8 << 20)
    with pytest.raises(UsageError, match="more than 1 MiB; unpack it with gunzip"):
        rows.open_rows(path)


def test_a_catalogue_of_one_endless_line(tmp_path: Path) -> None:
    from specshards.ingest.catalogue import rows

    path = tmp_path / "labels.csv"
    path.write_bytes(b"obsid,z\n1," + b"7" * (64 << 20))
    with pytest.raises(UsageError, match="not a readable table"):
        list(rows.open_rows(path).batches(["obsid", "z"]))


def test_inspect_takes_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from specshards.ingest import __main__ as ingest

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.fits.gz"
    path.write_bytes(gzip.compress(lamost_table(tmp_path / "a.fits").read_bytes() + bytes(3 << 19)))
    with pytest.raises(JobError, match="more than 1 MiB; raise --max-file-size"):
        call(ingest.app, "inspect", path, "--max-file-size", "1MiB")
    with pytest.raises(UsageError, match="--max-file-size much: give a size such as 2GB"):
        call(ingest.app, "inspect", path, "--max-file-size", "much")


def test_a_tile_that_is_a_bomb(tmp_path: Path) -> None:
    """DESI's masks are images in gzipped tiles, and each tile unpacks to whatever it likes."""
    path = desi_coadd(tmp_path / "coadd-a.fits", rows=1, compression="GZIP_1")
    assert read(path)[0] == "1 read"
    packed = bomb(tmp_path / "tile", b"", GB).read_bytes()
    with fits.open(path, disable_image_compression=True) as hdus:
        mask = hdus["B_MASK"]
        column = fits.Column("COMPRESSED_DATA", "1PB()", array=np.array([np.frombuffer(packed, np.uint8)], object))
        new = fits.BinTableHDU.from_columns([column], name="B_MASK")
        new.header.update({k: v for k, v in mask.header.items() if k.startswith(("Z", "BZERO", "BSCALE"))})
        hdus["B_MASK"] = new
        hdus.writeto(tmp_path / "coadd-b.fits")
    outcome, peak = read(tmp_path / "coadd-b.fits")
    assert outcome == "a compressed image has a tile that is larger than all of it" and peak < 0.4 * GB

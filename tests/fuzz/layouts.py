"""A whole file of each layout that the readers know: made here, and real ones where there are any."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from astropy.io import fits

from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.ingest.surveys import open_file
from tests.conftest import make_spectrum
from tests.fuzz.judge import OWN, judge
from tests.ingest.test_desi_spectra import columns as desi_columns
from tests.ingest.test_mrs import made as lamost_mrs
from tests.ingest.test_plate import plate as sdss_plate
from tests.oracles.mmu_tables import sdss_table, spectrum_columns
from tests.oracles.survey_files import FLUX, IVAR, WAVE, N, desi_coadd, lamost_image, lamost_table, sdss_spec

IMAGE, DR1 = "Flux, Inverse, Wavelength, Andmask, Ormask", "Flux Inverse Subcontinuum Andmask Ormask"
REDROCK = "desi-redrock"
#: Real files of a layout, below the folder of real data, and how many of them.
REAL = {
    "lamost-table": ("lamost/dr10/*.fits.gz", 2), "lamost-image": ("lamost/dr8_repeat_visits/*", 2),
    "lamost-image-dr1": ("lamost/dr1/*", 2), "sdss-spec-lite": ("sdss/boss_galaxies/*", 2),
    "sdss-spec": ("sdss/dr8_galaxies/*", 2), "sdss-spspec": ("sdss/dr7_spSpec/*", 2),
    "desi-coadd": ("desi/picca/coadd-*.fits", 1),
    "lamost-mrs": ("layouts/lamost_mrs/*", 1), "sdss-spplate": ("layouts/sdss_spPlate/*", 1),
    "desi-columns": ("layouts/desi_coadd_sv0/coadd-*", 1),
    "desi-spectra": ("layouts/desi_spectra_compressed_mask/*.fits", 1),
}  # fmt: skip


class Seed(NamedTuple):
    """A whole file to damage.

    Attributes:
        beside: the coadd that is read with it, of a redrock file.
    """

    layout: str
    path: Path
    beside: Path | None = None

    @property
    def is_fits(self) -> bool:
        """Whether it has headers of cards."""
        return self.path.suffix == ".fits"


def sp_spec(path: Path) -> Path:
    """A legacy SDSS file."""
    rows = np.stack([FLUX, FLUX, IVAR**-0.5, np.zeros(N), np.zeros(N)]).astype(">f4")
    hdu = fits.PrimaryHDU(rows)
    hdu.header.update({
        "ARRAY3": "ERROR", "SPEC_CLN": 1, "OBJTYPE": "GALAXY", "PLATEID": 266, "MJD": 51602, "FIBERID": 13,
        "RAOBJ": 146.9, "DECOBJ": -0.7, "Z": 0.1, "Z_ERR": 1e-5, "Z_WARNIN": 0, "NGOOD": N, "COEFF0": 3.5682,
        "COEFF1": 1e-4,
    })  # fmt: skip
    hdu.writeto(path)
    return path


def _redrock(path: Path) -> Path:
    columns = [
        fits.Column("TARGETID", "K", array=39_600_000_000_000_000 + np.arange(3)),
        fits.Column("Z", "D", array=[0.1, 0.2, 0.3]), fits.Column("ZERR", "D", array=[1e-5] * 3),
        fits.Column("ZWARN", "K", array=[0] * 3), fits.Column("SPECTYPE", "6A", array=["GALAXY", "QSO", "STAR"]),
        fits.Column("SUBTYPE", "20A", array=["", "", "G"]),
    ]  # fmt: skip
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="REDSHIFTS")]).writeto(path)
    return path


def _spectra(n: int = 4) -> list[Any]:
    rng = np.random.default_rng(2)
    return [make_spectrum(i, rng, n=300, survey="sdss") for i in range(n)]


def _hdf5(path: Path) -> Path:
    import h5py

    columns = spectrum_columns(_spectra(), "fixed")
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file.create_dataset(name, data=np.stack(values.to_numpy(zero_copy_only=False)))
        file["object_id"], file["ra"], file["dec"] = np.arange(4) + 10, np.arange(4.0), np.arange(4.0)
        file["Z"] = np.full(4, 0.1)
    return path


def _table(path: Path, shape: str) -> Path:
    pq.write_table(sdss_table(_spectra(), shape), path)
    return path


def _own(path: Path) -> Path:
    write_parquet(to_table(_spectra(6)), path, {"fuzz": 1}, row_group_rows=3)
    return path


MADE: dict[str, Callable[[Path], Path]] = {
    "lamost-table": lambda folder: lamost_table(folder / "a.fits"),
    "lamost-image": lambda folder: lamost_image(folder / "a.fits", IMAGE, WAVE),
    "lamost-image-dr1": lambda folder: lamost_image(folder / "a.fits", DR1, np.ones(N)),
    "sdss-spec-lite": lambda folder: sdss_spec(folder / "a.fits"),
    "sdss-spec": lambda folder: sdss_spec(folder / "a.fits", upper=True, named=False),
    "sdss-spspec": lambda folder: sp_spec(folder / "a.fits"),
    "desi-coadd": lambda folder: desi_coadd(folder / "coadd-a.fits", rows=2),
    "desi-spectra": lambda folder: desi_coadd(folder / "coadd-b.fits", rows=2, compression="GZIP_1"),
    "desi-columns": lambda folder: desi_columns(folder / "coadd-c.fits"),
    "lamost-mrs": lambda folder: lamost_mrs(folder / "a.fits"),
    "sdss-spplate": lambda folder: sdss_plate(folder, zbest=False),
    REDROCK: lambda folder: _redrock(folder / "redrock-a.fits"),
    "mmu-struct": lambda folder: _table(folder / "a.parquet", "struct"),
    "mmu-list": lambda folder: _table(folder / "a.parquet", "list of structs"),
    "mmu-flat": lambda folder: _table(folder / "a.parquet", "flat"),
    "mmu-hdf5": lambda folder: _hdf5(folder / "a.hdf5"),
    OWN: lambda folder: _own(folder / "a.parquet"),
}


def seeds(scratch: Path, real: Path | None) -> Iterator[Seed]:
    """Whole files of all layouts, uncompressed, in folders below `scratch`."""
    for layout, make in MADE.items():
        folder = scratch / layout
        folder.mkdir(parents=True)
        beside = desi_coadd(folder / "coadd-a.fits") if layout == REDROCK else None
        yield Seed(layout, make(folder), beside)
    for layout, (pattern, count) in REAL.items() if real is not None else ():
        for number, path in enumerate(sorted(real.glob(pattern))[:count]):
            content = path.read_bytes()
            content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
            copy = scratch / f"{layout}-real" / f"{number}.fits"
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(content)
            yield Seed(layout, copy)


def is_known(seed: Seed) -> bool:
    """Whether the readers take the whole file; a fuzz run over a file that is refused whole shows nothing."""
    if seed.layout == OWN:
        return judge(seed.path, OWN, seed.path).outcome == "sample"
    return any(not isinstance(item, Exception) for item in open_file(seed.beside or seed.path).objects())

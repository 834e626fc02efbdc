"""LAMOST medium-resolution files, both shapes of their tables, against astropy alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from specshards.common.errors import BadObjectError
from specshards.ingest.surveys import open_file, read_file
from tests.oracles import damage
from tests.oracles.survey_files import HEADER

REAL = "layouts/lamost_mrs/med-58625-TD192102N424113K01_sp12-076.fits.gz"
STARTS = {"B": 3.69, "R": 3.797}


def made(path: Path, arms: str = "BR", vectors: bool = False, n: int = 300, **header: Any) -> Path:
    """A file of medium resolution; with `vectors` as since DR8: one row, WAVELENGTH for LOGLAM."""
    rng = np.random.default_rng(4)
    primary = fits.PrimaryHDU()
    primary.header.update(HEADER | {"COEFF0": None, "COEFF1": None, "HELIO": True} | header)
    del primary.header["COEFF0"], primary.header["COEFF1"]
    hdus = [primary]
    for arm in arms:
        loglam = STARTS[arm] + 1e-5 * np.arange(n)
        mask = np.zeros(n, "i2")
        mask[7] = 4
        columns = {
            "FLUX": rng.normal(500, 20, n).astype("f4"), "IVAR": np.full(n, 0.0025, "f4"),
            "WAVELENGTH" if vectors else "LOGLAM": (10.0**loglam if vectors else loglam).astype("f8"),
            "ANDMASK": mask, "ORMASK": mask,
        }  # fmt: skip
        kinds = {"f": "E", "i": "I"}
        table = fits.BinTableHDU.from_columns(
            [
                fits.Column(k, f"{n if vectors else ''}{'D' if v.dtype == 'f8' else kinds[v.dtype.kind]}",
                            array=v[None] if vectors else v)
                for k, v in columns.items()
            ],
            name=f"COADD_{arm}",
        )  # fmt: skip
        table.header["SNR"] = 26.5 if arm == "B" else 44.7
        hdus.append(table)
    exposure = fits.BinTableHDU.from_columns(
        [fits.Column(k, "E", array=np.ones(5)) for k in ("FLUX", "IVAR", "LOGLAM", "PIXMASK")], name="B-84420148"
    )
    fits.HDUList([*hdus, exposure]).writeto(path)
    return path


def test_real_file_is_what_astropy_reads(real_data: Path) -> None:
    spectrum = read_file(real_data / REAL)
    with fits.open(real_data / REAL) as hdus:
        blue, red = hdus["COADD_B"].data, hdus["COADD_R"].data
        joined = {name: np.concatenate([blue[name], red[name]]) for name in ("FLUX", "IVAR", "LOGLAM", "ANDMASK")}
        header = hdus[0].header
        ratios = [hdus[name].header["SNR"] for name in ("COADD_B", "COADD_R")]
    assert (spectrum.layout, spectrum.object_id) == ("lamost-mrs", str(header["OBSID"]))
    assert np.array_equal(spectrum.flux, joined["FLUX"]) and np.array_equal(spectrum.ivar, joined["IVAR"])
    assert np.array_equal(spectrum.wavelength, (10.0 ** joined["LOGLAM"].astype("f8")).astype("f4"))
    assert np.array_equal(spectrum.mask, (joined["ANDMASK"] != 0) | (joined["IVAR"] == 0))
    assert (spectrum.ra, spectrum.dec, spectrum.release) == (header["RA"], header["DEC"], "dr7")
    assert [spectrum.labels["snr_b"], spectrum.labels["snr_r"]] == ratios
    assert spectrum.labels["class"] is None and spectrum.remarks == ()


@pytest.mark.parametrize("vectors", [False, True])
def test_both_shapes_of_tables_give_two_arms(tmp_path: Path, vectors: bool) -> None:
    spectrum = read_file(made(tmp_path / "m.fits", vectors=vectors))
    assert spectrum.layout == "lamost-mrs" and len(spectrum.flux) == 600  # not the table layout, of one arm
    assert np.flatnonzero(spectrum.mask).tolist() == [7, 307]
    assert spectrum.wavelength[300] - spectrum.wavelength[299] > 1000
    assert spectrum.labels["class"] == "STAR" and spectrum.labels["snr_r"] == 44.7


def test_a_lost_arm_is_told_or_refused(tmp_path: Path) -> None:
    alone = read_file(made(tmp_path / "r.fits", arms="R", COMBIN_B=False))
    assert alone.remarks == ("have no co-added B arm",) and len(alone.flux) == 300
    with pytest.raises(BadObjectError, match="COMBIN_B = T, and there is no COADD_B; cut short"):
        read_file(made(tmp_path / "b.fits", arms="R", COMBIN_B=True))
    with pytest.raises(BadObjectError, match="single exposures only") as caught:
        read_file(made(tmp_path / "e.fits", arms=""))
    assert caught.value.selected_out and caught.value.layout == "lamost-mrs"
    with pytest.raises(BadObjectError, match="no object in it"):
        read_file(made(tmp_path / "s.fits", FIBERTYP="Sky"))
    assert "not heliocentric" in read_file(made(tmp_path / "h.fits", HELIO=False)).remarks[0]


def test_damage_ends_as_one_line_or_as_the_whole(tmp_path: Path) -> None:
    path = made(tmp_path / "m.fits", COMBIN_B=True, COMBIN_R=True)
    assert open_file(path).layout == "lamost-mrs"
    assert damage.wrong(path, tmp_path) == []

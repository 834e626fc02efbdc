"""Real files, each compared with a plain astropy reading of the same file."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from specshards.common.errors import BadObjectError, JobError, UsageError
from specshards.common.jobs import Engine
from specshards.ingest.job.build import IngestConfig, build
from specshards.ingest.surveys import read_file

HERE = Engine(workers=0)


def some(folder: Path, count: int = 12) -> list[Path]:
    files = sorted(p for p in folder.iterdir() if ".fit" in p.name)
    return files[:: max(1, len(files) // count)]


@pytest.mark.parametrize("folder", ["dr10", "dr8_repeat_visits", "dr7_low_sn", "dr5", "dr1"])
def test_lamost_equals_astropy(real_data: Path, folder: str) -> None:
    for path in some(real_data / "lamost" / folder):
        spectrum = read_file(path, "lamost")
        with fits.open(path) as hdus:
            header = hdus[0].header
            if folder == "dr10":
                row = hdus[1].data[0]
                flux, ivar, wave = row["FLUX"], row["IVAR"], row["WAVELENGTH"]
            else:
                flux, ivar, wave = hdus[0].data[:3]
            if folder == "dr1":
                wave = 10.0 ** (header["COEFF0"] + header["COEFF1"] * np.arange(header["NAXIS1"]))
        np.testing.assert_array_equal(spectrum.flux, flux.astype("f4"))
        np.testing.assert_array_equal(spectrum.ivar, ivar.astype("f4"))
        np.testing.assert_allclose(spectrum.wavelength, wave, rtol=1e-7)
        assert spectrum.wavelength.dtype == np.float32 and spectrum.flux.dtype.isnative
        assert 3690 < spectrum.wavelength[0] < 3710 and 9000 < spectrum.wavelength[-1] < 9110
        assert (spectrum.wave_coeff0, spectrum.wave_coeff1) == (header["COEFF0"], header["COEFF1"])
        assert spectrum.mask[spectrum.ivar == 0].all()
        assert spectrum.ra == pytest.approx(header["RA"])
        if header["Z"] == -9999:
            assert spectrum.labels["z"] is None and spectrum.labels["class"] is None
        else:
            assert spectrum.labels["z"] == header["Z"] and spectrum.labels["class"] == header["CLASS"]


@pytest.mark.parametrize("folder", ["boss_eboss", "boss_galaxies", "dr16_lite", "dr8_galaxies", "full", "mixed"])
def test_sdss_equals_astropy(real_data: Path, folder: str) -> None:
    for path in some(real_data / "sdss" / folder, 6):
        spectrum = read_file(path, "sdss")
        with fits.open(path) as hdus:
            pixels = {name.lower(): hdus[1].data[name] for name in hdus[1].data.names}
            labels = {name.upper(): hdus[2].data[name][0] for name in hdus[2].data.names}
        np.testing.assert_array_equal(spectrum.flux, pixels["flux"].astype("f4"))
        np.testing.assert_allclose(spectrum.wavelength, 10.0 ** pixels["loglam"].astype("f8"), rtol=1e-7)
        assert spectrum.object_id == str(labels["SPECOBJID"]).strip()
        assert spectrum.labels["class"] == labels["CLASS"].strip()
        assert spectrum.labels["z"] == pytest.approx(float(labels["Z"]))
        assert spectrum.labels["zwarning"] == labels["ZWARNING"]
        # Fibre-level bits cover whole good spectra; the reader must not take them for bad pixels.
        assert spectrum.mask.mean() < 0.5
        is_fitted = labels["CLASS"].strip() == "STAR" and labels["ELODIE_DOF"] > 0
        assert spectrum.labels.get("teff") == (pytest.approx(labels["ELODIE_TEFF"]) if is_fitted else None)


def test_sky_fibres_are_never_samples(real_data: Path) -> None:
    for path in sorted((real_data / "sdss" / "sky_fibres").iterdir()):
        with pytest.raises(BadObjectError, match="sky fibre") as caught:
            read_file(path)
        assert caught.value.selected_out


def test_foreign_and_empty_files_have_a_reason(real_data: Path) -> None:
    desi = real_data / "desi"
    foreign = [
        *desi.rglob("QSO_cat*"),
        *(desi / "fastspecfit").glob("[!cr]*"),
        *(real_data / "damaged").glob("s*[et].fits"),
    ]
    assert len(foreign) == 10
    for path in foreign:
        with pytest.raises(BadObjectError, match=r"no known|a catalogue|templates|the mean of|a fit by"):
            read_file(path)
    for path in (real_data / "damaged").glob("*.fits.fits"):
        assert read_file(path).layout == "lamost-table"


@pytest.mark.parametrize("suffix", [".fits", ".fits.gz"])
@pytest.mark.parametrize("keep", [0, 100, 5000, 60000])
def test_files_cut_short_are_quarantined(real_data: Path, tmp_path: Path, suffix: str, keep: int) -> None:
    whole = next((real_data / "lamost" / "dr10").glob("*.fits.gz")).read_bytes()
    content = whole if suffix == ".fits.gz" else gzip.decompress(whole)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(content[: min(keep, len(content) - 3000)])
    with pytest.raises(BadObjectError):
        read_file(path)


def test_every_byte_lost_from_the_end_is_noticed(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "sdss" / "boss_galaxies" / "spec-3650-55244-0041.fits"
    content = source.read_bytes()
    path = tmp_path / "cut.fits"
    for keep in range(2880, len(content) // 2, 17_000):
        path.write_bytes(content[:keep])
        with pytest.raises(BadObjectError):
            read_file(path)


def test_stars_whose_catalogue_contradicts_their_file_are_counted(real_data: Path, tmp_path: Path) -> None:
    """Four K stars of their files are A, F or G in the catalogue; three of them a look at the spectrum decides."""
    folder = tmp_path / "files"
    folder.mkdir()
    wanted, said = (), {}
    for path in sorted((real_data / "lamost" / "dr10").iterdir()):
        header = fits.getheader(path)
        said[str(header["OBSID"])] = str(header["SUBCLASS"]).strip()[:1]
        if said[str(header["OBSID"])] == "K" or len(said) <= 40:
            (folder / path.name).symlink_to(path)
            wanted = (*wanted, str(header["OBSID"]))
    catalogue = real_data / "lamost" / "dr10_stellar_catalogue.csv"
    rows = {line.split(",")[0]: line.split(",")[2][:1] for line in catalogue.read_text().splitlines()[1:]}
    expected = Counter(
        f"type {said[name]} in the file, {rows[name]} in the catalogue" for name in wanted if said[name] != rows[name]
    )
    config = IngestConfig("lamost", files_per_part=25)
    summary = build(config, str(folder), tmp_path / "out", catalogue=catalogue, engine=HERE)
    assert summary.conflicts == expected and sum(expected.values()) >= 4
    assert "type K in the file, A in the catalogue" in summary.table()
    written = json.loads((tmp_path / "out" / "ingest" / "summary.json").read_text())
    assert written["conflicts"] == expected


def test_the_account_adds_up_and_labels_come_from_the_catalogue(real_data: Path, tmp_path: Path) -> None:
    catalogue = real_data / "lamost" / "dr10_stellar_catalogue.csv"
    config = IngestConfig("lamost", limit=60, files_per_part=25)
    summary = build(config, str(real_data / "lamost" / "dr10"), tmp_path, catalogue=catalogue, engine=HERE)
    assert (summary.files, summary.samples, summary.quarantined, summary.matched) == (60, 60, 0, 60)
    table = pq.ParquetDataset(sorted((tmp_path / "spectra").glob("*.parquet"))).read()
    assert table.num_rows == 60 and table["teff"].null_count == 0
    rows = {line.split(",")[0]: line.split(",") for line in catalogue.read_text().splitlines()[1:]}
    for row in table.select(["object_id", "teff", "z", "class", "label_source"]).to_pylist():
        theirs = rows[row["object_id"]]
        assert row["teff"] == pytest.approx(float(theirs[4])) and row["z"] == pytest.approx(
            float(theirs[9]), abs=1e-7
        )
        assert row["class"] == theirs[1] and row["label_source"] == "catalogue"


def test_output_does_not_depend_on_workers_or_interruption(real_data: Path, tmp_path: Path) -> None:
    data = str(real_data / "lamost" / "dr8_repeat_visits")
    config = IngestConfig("lamost", limit=40, files_per_part=10)
    build(config, data, tmp_path / "a", engine=HERE)
    build(config, data, tmp_path / "b", engine=Engine(workers=2))
    (tmp_path / "b" / "spectra" / "part-00001.parquet").unlink()
    (tmp_path / "b" / "ingest" / "parts" / "part-00002.json").unlink()
    build(config, data, tmp_path / "b", engine=HERE)
    for path in sorted((tmp_path / "a" / "spectra").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / "spectra" / path.name).read_bytes()


def test_another_input_in_the_same_folder_is_refused(real_data: Path, tmp_path: Path) -> None:
    build(IngestConfig("lamost", limit=5), str(real_data / "lamost" / "dr5"), tmp_path, engine=HERE)
    other = str(real_data / "lamost" / "dr1")
    with pytest.raises(UsageError, match="FORCE=1"):
        build(IngestConfig("lamost", limit=5), other, tmp_path, engine=HERE)
    build(IngestConfig("lamost", limit=5), other, tmp_path, engine=HERE, force=True)
    assert json.loads((tmp_path / "ingest" / "summary.json").read_text())["layouts"]["lamost-image-dr1"][
        "classes"
    ] == {"STAR": 5}


def test_too_many_bad_files_fail_the_job(real_data: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="2 of 5 objects are bad"):
        build(IngestConfig("lamost"), str(real_data / "damaged"), tmp_path, engine=HERE)
    quarantine = pq.read_table(tmp_path / "ingest" / "quarantine.parquet").to_pylist()
    assert len(quarantine) == 2 and all(row["reason"] and row["exception"] for row in quarantine)

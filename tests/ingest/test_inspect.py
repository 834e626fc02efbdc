"""`specshards ingest inspect`: facts against plain readings, pictures that decode, one line for what is no use."""

from __future__ import annotations

import gc
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from astropy.io import fits

from specshards.common.cli import run_app
from specshards.common.spectrum import Spectrum
from specshards.ingest import inspect as view
from specshards.ingest.facts import describe_grid
from specshards.ingest.mock import MockConfig, write
from specshards.ingest.spectra import plots
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.ingest.tables import TableFile
from tests.conftest import make_spectrum
from tests.oracles import commands
from tests.oracles.oracle import desi, lamost
from tests.oracles.survey_files import FLUX, WAVE, N, lamost_table, sdss_spec


@pytest.fixture
def inspect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command in an empty folder, with the project's error rules: exit code, output, errors."""
    here = tmp_path / "here"
    here.mkdir()
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(view.command)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.chdir(here)
        monkeypatch.setattr(sys, "argv", ["inspect", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run_app(app)
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


def colours(png: Path) -> int:
    """Number of colours of a picture that must decode, be of some size and not be blank."""
    image = cv2.imread(str(png))
    assert image is not None and image.shape[0] > 200 and image.shape[1] > 400
    return len(np.unique(image.reshape(-1, 3), axis=0))


def said(out: str, name: str) -> list[str]:
    """The texts of one fact, in order."""
    return re.findall(rf"^ *{re.escape(name)} +(.*)$", out, re.MULTILINE)


def table(out: str, number: int = 0) -> dict[str, dict[str, str]]:
    """A table of a folder's account: layout -> column -> text."""
    lines = out[out.index("layout") :].split("\n\n")[number].splitlines()
    head, *rows = (re.split(r"  +", line) for line in lines)
    return {row[0]: dict(zip(head, row, strict=False)) for row in rows}


def test_the_facts_of_a_lamost_file(tmp_path: Path, inspect: Any) -> None:
    mask, flux = np.zeros(N), FLUX.copy()
    mask[10:50], flux[60] = 4.0, np.nan
    path = lamost_table(tmp_path / "spec-a.fits", {"ANDMASK": mask, "FLUX": flux})
    code, out, err = inspect(path)
    assert (code, err) == (0, "")
    assert said(out, "what") == ["lamost, layout lamost-table, release dr5"]
    assert said(out, "file") == [f"{path}, {path.stat().st_size:,} bytes, direct parser"]
    assert said(out, "objects") == ["1: 1 usable, 0 set aside, 0 bad"]
    assert "object 701002" in out
    assert said(out, "position") == ["RA 12.500000, Dec +41.000000 deg (ICRS)"]
    assert said(out, "labels") == ["class STAR, subclass G7, z -0.0005 +- 3e-05 (label source: header)"]
    assert said(out, "pixels")[0].startswith(f"400, {WAVE[0]:.2f} to {WAVE[-1]:.2f} Angstrom")
    assert said(out, "grid") == ["log10, coeff0 3.5682, coeff1 0.0001 (from the file)"]
    assert said(out, "good") == [f"{100 * (N - 41) / N:.1f} per cent of the pixels"]
    kept = np.delete(FLUX, [*range(10, 50), 60])
    assert said(out, "S/N") == [f"sn_median {np.median(kept * 2):.2f} a pixel; the survey's own: snrg 5.20"]
    assert said(out, "drawn") == ["row 0, in spec-a.png"]
    assert colours(tmp_path / "here" / "spec-a.png") > 20
    assert sorted(p.name for p in tmp_path.iterdir()) == ["here", "spec-a.fits"]  # nothing beside the data


def test_the_facts_of_an_sdss_file(tmp_path: Path, inspect: Any) -> None:
    code, out, _ = inspect(sdss_spec(tmp_path / "s.fits"), "--png", "sub/x.png")
    assert code == 0 and "object 299492975510054912" in out
    assert said(out, "labels") == ["class GALAXY, z 0.12 +- 3e-05, zwarning 0 (label source: table)"]
    assert "sn_median_all 16.20" in said(out, "S/N")[0]
    assert said(out, "drawn") == ["row 0, in sub/x.png"] and colours(tmp_path / "here" / "sub" / "x.png") > 20


def test_our_own_parquet_and_one_of_its_rows(tmp_path: Path, inspect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    groups, slices = [], TableFile.slices

    def watched(self: TableFile, columns: Any, inside: Any = (), group: int | None = None, start: int = 0) -> Any:
        groups.append(group)
        return slices(self, columns, inside, group, start)

    monkeypatch.setattr(TableFile, "slices", watched)
    rng = np.random.default_rng(1)
    spectra = [make_spectrum(i, rng, n=300) for i in range(30)]
    spectra[2].labels |= {"teff": 5772.0, "teff_err": 40.0, "logg": 4.44, "feh": -0.5}
    spectra[17].mask[:] = True
    path = tmp_path / "part-00000.parquet"
    write_parquet(to_table(spectra), path, {}, row_group_rows=7)
    code, out, _ = inspect(path)
    assert code == 0 and said(out, "what") == ["mock-lamost, layout spectra-parquet, release mock"]
    assert said(out, "objects") == ["30; of the 5 looked at: 5 usable, 0 set aside, 0 bad"]
    assert re.findall(r"^row (\d+) +object (\d+)$", out, re.M) == [(str(i), str(1000 + i)) for i in range(5)]
    assert "teff 5772 +- 40 K, logg 4.44 dex, feh -0.5 dex" in said(out, "labels")[2]
    assert said(out, "from")[3] == "mock-lamost, lamost-table, spec-00003.fits"
    assert "label source: header" in said(out, "labels")[0] and "coeff0 3.5682" in said(out, "grid")[0]
    groups.clear()
    code, out, _ = inspect(path, "--row", 23)
    assert groups[-1] == 3 and not {0, 1, 2} & set(groups)  # what lies before is not decoded
    assert code == 0 and re.findall(r"^row (\d+) +object (\d+)$", out, re.M) == [("23", "1023")]
    assert f"RA {spectra[23].ra:.6f}" in out and f"sn_median {spectra[23].sn_median():.2f}" in out
    code, out, err = inspect(path, "--row", 17)
    assert (code, out) == (1, "") and "row 17: bad: all pixels masked" in err and err.count("\n") == 1
    code, _, err = inspect(path, "--row", 30)
    assert code == 2 and err == f"error: --row 30: {path} has rows 0 to 29\n"


def test_a_table_without_ivar_gets_no_signal_to_noise(tmp_path: Path, inspect: Any) -> None:
    columns = {"object_id": ["a", "b"], "spectrum_flux": [list(FLUX)] * 2, "spectrum_wavelength": [list(WAVE)] * 2}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    code, out, _ = inspect(tmp_path / "t.parquet")
    assert code == 0 and said(out, "what") == ["unknown, layout mmu-flat-no-ivar-no-mask, release not said"]
    assert said(out, "S/N")[0].startswith("no sn_median without ivar") and "none here" in said(out, "position")[0]
    assert said(out, "grid")[0] == "log10, coeff0 3.5682, coeff1 0.0001 (measured)"
    assert colours(tmp_path / "here" / "t.png") > 20


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "foreign", "sky", "parquet", "spectra"])
def test_what_cannot_be_used_is_one_line(tmp_path: Path, inspect: Any, kind: str) -> None:
    path, reason = tmp_path / "x.fits", {"sky": "set aside: sky fibre", "foreign": "no known layout: PRIMARY 3x4"}
    if kind == "foreign":
        fits.PrimaryHDU(np.zeros((3, 4))).writeto(path)
    elif kind == "sky":
        sdss_spec(path, ZWARNING=1)
    elif kind == "parquet":
        pq.write_table(pa.table({"obsid": [1], "teff": [5000.0]}), path)
        reason[kind] = "set aside: a catalogue, no spectra"
    elif kind == "spectra":
        write_parquet(to_table([make_spectrum(0, np.random.default_rng(0))]), path, {})
        path.write_bytes(path.read_bytes()[:-100])
    else:
        whole = lamost_table(tmp_path / "whole.fits").read_bytes()
        path.write_bytes({"text": b"not FITS\n" * 9, "empty": b"", "truncated": whole[:4000]}[kind])
    code, out, err = inspect(path)
    assert code == 1 and out == "" and err.startswith(f"error: {path}: ") and err.count("\n") == 1
    assert "nothing in it can be used" in err and reason.get(kind, "bad: ") in err
    assert not list((tmp_path / "here").iterdir())


def test_mistakes_are_told_in_one_line(tmp_path: Path, inspect: Any) -> None:
    path = lamost_table(tmp_path / "a.fits")
    (tmp_path / "none").mkdir()
    for arguments, message in (
        (["nowhere"], "PATH=nowhere: no such file or folder"),
        ([tmp_path / "none"], "no spectra there"),
        ([path, "--png", "a.jpg"], "--png a.jpg: give a name that ends in .png"),
        ([path, "--row", -1], "--row -1: rows are counted from 0"),
        ([path, "--row", 1], f"--row 1: {path} has rows 0 to 0"),
        ([tmp_path, "--row", 0], "--row 0: rows are counted from 0, in one file"),
        ([tmp_path, "--n", 61], "--n 61: give a number of spectra from 0 to 60"),
        ([tmp_path, "--max-files", 0], "give at least one file"),
    ):
        code, out, err = inspect(*arguments)
        assert (code, out) == (2, "") and message in err and err.count("\n") == 1


def test_the_table_of_a_folder_adds_up(tmp_path: Path, inspect: Any) -> None:
    folder = tmp_path / "mock"
    result = write(MockConfig("lamost", n_files=120, seed=3), folder, workers=1)
    classes: Counter[str] = Counter()
    positions, lowest, failed = 0, np.inf, 0
    for path in folder.rglob("*.fits*"):
        try:
            with fits.open(path) as hdus:
                header = hdus[0].header
                rows = (
                    hdus[0].data
                    if hdus[0].data is not None
                    else [hdus[1].data[0][name] for name in ("FLUX", "IVAR", "WAVELENGTH", "ANDMASK")]
                )
                reading = lamost(header, rows)
            if not (~reading["mask"] & np.isfinite(reading["flux"])).any():
                raise ValueError("no good pixels")
        except Exception:
            failed += 1
            continue
        classes[reading["label"] or "unlabelled"] += 1
        positions, lowest = positions + 1, min(lowest, float(reading["wave"][0]))
    assert failed == result.n_damaged > 0 and positions == 120 - failed
    code, out, _ = inspect(folder, "--n", 4, "--png", "grid.png")
    rows = table(out)
    total = rows.pop("total")
    assert code == 0 and total["files"] == total["objects"] == "120" and total["bad"] == str(failed)
    assert sum(int(row["files"]) for row in rows.values()) == 120
    assert {name: int(total[name]) for name in classes} == classes
    assert f"120 files, 120 objects: {positions} usable, 0 set aside, {failed} bad" in out
    assert sum(map(int, re.findall(r"^ +(\d+)   bad: ", out, re.M))) == failed
    ranges = out.split("\n\n")[1]
    assert f"{lowest:.1f} to " in ranges and len(ranges.splitlines()) == len(rows) - ("unrecognised" in rows) + 1
    assert f"4 random spectra of {positions} in mock, in grid.png" in out
    assert colours(tmp_path / "here" / "grid.png") > 20


def test_what_is_known_of_the_objects_of_a_folder(tmp_path: Path, inspect: Any) -> None:
    rng = np.random.default_rng(5)
    spectra = [make_spectrum(i, rng, n=200 + i) for i in range(12)]
    for i, spectrum in enumerate(spectra):
        spectrum.ivar *= i + 1
        spectrum.labels["teff"] = 5000.0 if i < 5 else None
        spectrum.labels["z"] = 0.1 if i < 7 else None
    spectra[4].wavelength, spectra[4].wave_coeff0 = np.linspace(3500, 9000, 204, dtype="f4"), None
    for part in (0, 1):
        write_parquet(to_table(spectra[part::2]), tmp_path / f"part-{part}.parquet", {})
    code, out, _ = inspect(tmp_path)
    assert code == 0 and table(out)["total"]["files"] == "2" and table(out)["total"]["objects"] == "12"
    row = table(out, 1)["spectra-parquet"]
    assert row["Angstrom"] == "3500.0 to 9000.0" and row["pixels"] == "200 to 211"
    sn = np.percentile([np.median(s.flux * np.sqrt(s.ivar)) for s in spectra], [25, 50, 75])
    assert row["S/N quartiles"] == " / ".join(f"{value:.1f}" for value in sn)
    known = [row[f"with {name}"] for name in ("class", "z", "teff", "logg", "position")]
    assert known == ["12", "7", "5", "0", "12"]


def test_a_sample_of_many_files_is_seeded_and_said(tmp_path: Path, inspect: Any) -> None:
    for i in range(9):
        lamost_table(tmp_path / f"spec-{i}.fits", OBSID=i + 1)
    code, out, _ = inspect(tmp_path / "spec-*.fits", "--max-files", 4, "--n", 0)
    assert code == 0 and "a random 4 of 9 files (seed 0; more with --max-files)" in out
    assert table(out)["total"]["files"] == "4" and not list((tmp_path / "here").iterdir())
    account = [view.Contents(3, seed) for seed in (0, 0, 1)]
    for one in account:
        for i in range(9):
            one.look(tmp_path / f"spec-{i}.fits")
    drawn = [[spectrum.object_id for spectrum in one.drawn] for one in account]
    assert drawn[0] == drawn[1] and drawn[0] != drawn[2] and len(set(drawn[0])) == 3


def test_a_folder_in_which_nothing_can_be_used_fails(tmp_path: Path, inspect: Any) -> None:
    (tmp_path / "x.fits").write_bytes(b"no")
    code, out, err = inspect(tmp_path)
    assert code == 1 and table(out)["unrecognised"]["bad"] == "1"
    assert err == f"error: {tmp_path}: nothing in its 1 files can be used\n"


def test_only_what_is_drawn_stays_in_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part in range(3):
        spectra = [make_spectrum(i, rng, n=50) for i in range(100)]
        write_parquet(to_table(spectra), tmp_path / f"{part}.parquet", {}, row_group_rows=20)
    del spectra
    before = sum(isinstance(item, Spectrum) for item in gc.get_objects())
    account = view.Contents(4)
    for part in range(3):
        account.look(tmp_path / f"{part}.parquet")
    gc.collect()
    assert account.total().samples == 300 and len(account.drawn) == 4
    assert sum(isinstance(item, Spectrum) for item in gc.get_objects()) - before <= 4 + 5 + 1


def test_a_spike_does_not_set_the_scale_but_a_line_does() -> None:
    spectrum = make_spectrum(1, np.random.default_rng(0))
    low, high, beyond = plots.flux_limits(spectrum.arrays())
    assert beyond == 0 and low < spectrum.flux.min() and spectrum.flux.max() < high < 130
    spectrum.flux[1000] = 1e5
    assert plots.flux_limits(spectrum.arrays()) == (pytest.approx(low), pytest.approx(high), 1)
    spectrum.flux[2000:2006] = 400.0
    assert plots.flux_limits(spectrum.arrays())[1] > 400 and plots.flux_limits(spectrum.arrays())[2] == 1
    figure = plots.one(spectrum, "")
    assert figure.axes[0].get_ylim()[1] < 500 and "1 good pixels beyond it" in figure.axes[0].get_xlabel()


def test_the_picture_says_mock_marks_lines_and_shades_masked_pixels() -> None:
    spectrum = make_spectrum(1, np.random.default_rng(0), labels={"class": "GALAXY", "z": 0.1})
    spectrum.mask[500:700] = True
    figure = plots.one(spectrum, "")
    (axes,) = figure.axes
    assert figure.get_suptitle() == "MOCK data, lamost 1001  ·  GALAXY  ·  z = 0.1"
    marks = {text.get_text(): text.get_position()[0] for text in axes.texts}
    assert marks["Hα"] == pytest.approx(6564.61 * 1.1) and marks["[O III]"] == pytest.approx(5008.24 * 1.1)
    shaded = axes.collections[0].get_paths()
    assert len(shaded) == 1
    ends = shaded[0].get_extents()
    assert spectrum.wavelength[499] < ends.x0 < spectrum.wavelength[500]
    assert spectrum.wavelength[699] < ends.x1 < spectrum.wavelength[700]
    spectrum.labels["z"] = None
    assert not plots.one(spectrum, "").axes[0].texts


def test_grids_are_told_apart() -> None:
    index = np.arange(3000)
    grids = {
        "linear, step 0.8 Angstrom": 3600 + 0.8 * index,
        "log10, coeff0 3.6, coeff1 0.0001": 10 ** (3.6 + 1e-4 * index),
        "irregular, steps of ": 3600 + index + 2e-4 * index**2,
    }
    for text, wave in grids.items():
        spectrum = make_spectrum(0, np.random.default_rng(0), n=3000, wavelength=wave.astype("f4"), wave_coeff0=None)
        assert describe_grid(spectrum).startswith(text)


def test_help_loads_nothing_heavy_and_drawing_no_window(tmp_path: Path) -> None:
    path = lamost_table(tmp_path / "a.fits")
    code = (
        "import sys; from pathlib import Path; from specshards.ingest import inspect; "
        "print(sorted({'numpy', 'matplotlib', 'pyarrow', 'astropy'} & set(sys.modules))); "
        f"inspect.inspect_file(Path({str(path)!r}), Path({str(tmp_path / 'a.png')!r})); "
        "print('pyplot', 'matplotlib.pyplot' in sys.modules)"
    )
    done = commands.run(commands.script(code))
    assert done.stdout.startswith("[]\n") and done.stdout.endswith("pyplot False\n"), done.stderr
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_a_real_desi_coadd(real_data: Path, inspect: Any, tmp_path: Path) -> None:
    folder = real_data / "desi" / "fastspecfit"
    path = folder / "coadd-4-80613-thru20210324.fits"
    with fits.open(path) as hdus:
        readings = desi(hdus, path)
    code, out, _ = inspect(path)
    assert code == 0 and said(out, "objects")[0].startswith(f"{len(readings)}: ")
    reading = readings[0]
    assert f"object {reading['object_id']}" in out
    assert f"class {reading['label']}, z {reading['z']:.6g}" in said(out, "labels")[0]
    assert said(out, "pixels")[0].startswith("7,781, 3600.00 to 9824.00") and "label source: redrock" in out
    assert said(out, "grid")[0].startswith("linear, step 0.8 ")
    sn = np.median((reading["flux"] * np.sqrt(reading["ivar"]))[~reading["mask"]])
    assert said(out, "S/N")[0].startswith(f"sn_median {sn:.2f} ")
    assert colours(tmp_path / "here" / f"{path.stem}.png") > 20
    code, out, _ = inspect(real_data / "desi" / "picca" / "coadd-main-dark-9144.fits", "--row", 0)
    assert code == 0 and said(out, "objects") == ["2; of the 1 looked at: 1 usable, 0 set aside, 0 bad"]
    code, _, err = inspect(folder / "redrock-4-80613-thru20210324.fits")
    assert code == 1 and "desi-redrock: nothing in it can be used: set aside: redshifts, no spectra" in err


def test_a_real_folder(real_data: Path, inspect: Any, tmp_path: Path) -> None:
    folder = real_data / "sdss" / "sky_fibres"
    code, out, _ = inspect(folder, "--n", 2)
    assert code == 1 and table(out)["total"]["set aside"] == str(len(list(folder.iterdir())))
    folder = real_data / "sdss" / "dr8_galaxies"
    labels = [fits.getdata(path, 2) for path in sorted(folder.glob("*.fits"))]
    code, out, _ = inspect(folder)
    kinds = Counter(row["CLASS"][0].strip() for row in labels)
    assert code == 0 and {name: int(table(out)["total"][name]) for name in kinds} == kinds
    assert colours(tmp_path / "here" / "dr8_galaxies.png") > 20

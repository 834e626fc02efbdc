"""Units, channels and words of the user for tables of nobody known, and memory that is flat."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from specshards.common.errors import BadObjectError, UsageError
from specshards.ingest import __main__ as ingest
from specshards.ingest.job.build import IngestConfig
from tests.conftest import ROOT, call
from tests.ingest.test_plain import ERROR, FLUX, WAVE, N, lines, wide, written
from tests.oracles.opened import spectra

NM = np.arange(350, 2500, 10)


def heads(path: Path, first: str, names: list[str]) -> np.ndarray[Any, Any]:
    """A wide table of semicolons whose first heading is `first`."""
    values = wide(path, names, **{"id": list("abcde")})
    path.write_text(path.read_text().replace("id", first, 1).replace(",", ";"))
    return values


@pytest.mark.parametrize(
    ("first", "unit"),
    [("Sample ID/Wavenumber (nm)", "nm"), ("id/nm", "nm"), ("wavelength [µm]", "um"), ("Wavenumber", "cm-1"),
     ("sample/wavelength (1/cm)", "cm-1")],
)  # fmt: skip
def test_a_heading_says_the_unit(first: str, unit: str, tmp_path: Path) -> None:
    """Brackets win over the word, and a second row of wavelengths is no sample."""
    grid = {"nm": np.linspace(14730, 1314, 40), "um": np.linspace(1.3, 14.7, 40)}.get(
        unit, np.linspace(679, 7606, 40)
    )
    values = heads(tmp_path / "a.csv", first, [f"{n:.4f}" for n in grid])
    one = spectra(tmp_path / "a.csv")[0]
    angstrom = {"nm": 10 * grid, "um": 1e4 * grid}.get(unit, 1e8 / grid)
    order = np.argsort(angstrom)
    np.testing.assert_allclose(one.wavelength, angstrom[order], rtol=1e-4)
    np.testing.assert_array_equal(one.flux, values[0][order].astype(np.float32))
    assert "guess by its range" not in " ".join(one.told())
    text = (tmp_path / "a.csv").read_text().splitlines()
    text.insert(1, "again (c-1);" + ";".join(f"{1e4 / n:.3g}" for n in grid))
    with pytest.raises(BadObjectError, match="a second heading") as caught:
        spectra(written(tmp_path / "b.csv", "\n".join(text) + "\n"))
    assert caught.value.selected_out


def test_a_column_of_another_length_is_no_unit(tmp_path: Path) -> None:
    wide(tmp_path / "a.csv", [str(n) for n in NM], **{"particle size (um)": list(range(5))})
    assert spectra(tmp_path / "a.csv")[0].wavelength[0] == 3500


@pytest.mark.parametrize(("low", "high"), [(4000, 10000), (600, 1800), (868, 1771), (1314, 14730)])
def test_angstrom_is_no_guess_of_a_laboratory(low: int, high: int, tmp_path: Path) -> None:
    grid = np.linspace(low, high, 50)
    wide(tmp_path / "a.csv", [f"{n:.2f}" for n in grid])
    written(tmp_path / "b.csv", lines(grid, grid / 3 + 1, sep=",", head="wave,reflectance\n"))
    for name in ("a.csv", "b.csv"):
        with pytest.raises(BadObjectError, match=r"--wavelength-unit.*see docs/any-spectrum\.md") as caught:
            spectra(tmp_path / name)
        assert "\n" not in caught.value.reason and not caught.value.selected_out
    assert spectra(tmp_path / "a.csv", wavelength_unit="cm-1")[0].wave_source == "cm-1"


def test_numbered_channels_need_wavelengths(tmp_path: Path) -> None:
    for names in ([str(n) for n in range(600)], [f"wl{n}" for n in range(1, 601)], [str(n) for n in range(2, 602)]):
        values = wide(tmp_path / "a.csv", names, Brix=list(range(5)))
        with pytest.raises(
            BadObjectError, match=r"600 columns .* are numbered channels, .* --wavelengths first:last:step"
        ):
            spectra(tmp_path / "a.csv")
        one = spectra(tmp_path / "a.csv", wavelengths="1100:2298:2", wavelength_unit="nm")[0]
        np.testing.assert_allclose(one.wavelength, 10 * np.arange(1100, 2299, 2), rtol=1e-6)
        np.testing.assert_array_equal(one.flux, values[0].astype(np.float32))
        assert one.labels["brix"] == 0
        with pytest.raises(BadObjectError, match=r"2300:2 are 601, the columns .* are 600"):
            spectra(tmp_path / "a.csv", wavelengths="1100:2300:2", wavelength_unit="nm")
    # An index without a name in front, as pandas writes it.
    text = (tmp_path / "a.csv").read_text().replace("Brix", "", 1)
    assert len(spectra(written(tmp_path / "b.csv", text), wavelengths="10000:4010:-10", wavelength_unit="cm-1")) == 5
    samples = lines(np.linspace(900, 1700, 30), *[np.arange(30.0)] * 40, sep=",")
    head = "Wavelength (nm)," + ",".join(map(str, range(40))) + "\n"
    with pytest.raises(BadObjectError, match=r"a column for each of many samples: --columns Wavelength \(nm\),0"):
        spectra(written(tmp_path / "c.csv", head + samples))
    np.savez(tmp_path / "r.npz", spectra=np.stack([FLUX] * 3), spec_errs=np.stack([ERROR] * 3))
    with pytest.raises(BadObjectError, match="--wavelengths first:last:step"):
        spectra(tmp_path / "r.npz")
    found = spectra(tmp_path / "r.npz", wavelengths=f"4000:{4000 + N - 1}:1", wavelength_unit="angstrom")
    assert len(found) == 3 and found[2].wavelength[-1] == 4000 + N - 1
    with pytest.raises(BadObjectError, match="are 11, the pixels 200"):
        spectra(tmp_path / "r.npz", wavelengths="4000:4010:1")
    for wrong in ("1100:2298", "1:2:0", "a:b:c", "5:1:1", "0:10:3", "1:inf:1"):
        with pytest.raises(UsageError, match="wavelengths="):
            IngestConfig(wavelengths=wrong)
    assert "wavelengths" not in IngestConfig().to_dict()


def test_images_of_linetools(tmp_path: Path, real_data: Path) -> None:
    """JSON in the header says unit and medium; values are those of astropy."""
    path = real_data / "layouts" / "generic_table" / "spec_example_2.fits"
    (one,) = spectra(path)
    with fits.open(path) as hdus:
        np.testing.assert_array_equal(one.wavelength, hdus["WAVELENGTH"].data.astype(np.float32))
        np.testing.assert_array_equal(one.flux, hdus["FLUX"].data)
        sigma = hdus["ERROR"].data
        np.testing.assert_allclose(one.ivar[sigma > 0], 1 / np.square(sigma[sigma > 0], dtype=np.float64), rtol=1e-6)
        assert one.flux_unit == "relative" and not one.told()
        hdus[0].header["METADATA"] = '{"airvac": "air"}'
        hdus.writeto(tmp_path / "air.fits")
        hdus[0].header["UNITS"] = '{"wave": '
        hdus.writeto(tmp_path / "bad.fits")
    assert spectra(tmp_path / "air.fits")[0].wavelength[-1] > one.wavelength[-1]
    with pytest.raises(BadObjectError, match="look like angstrom or nm"):
        spectra(tmp_path / "bad.fits")


def test_the_first_of_several_tables_is_said(tmp_path: Path) -> None:
    table = Table({"wave": WAVE, "flux": FLUX}, units={"wave": "Angstrom"})
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(table), fits.BinTableHDU(table)]).writeto(tmp_path / "a.fits")
    (one,) = spectra(tmp_path / "a.fits")
    assert "first of 2 tables of spectra" in " ".join(one.told())


def test_inspect_takes_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is declared, stated and guessed, of each."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "a.csv", lines(WAVE, FLUX, ERROR, sep=",", head="p,q (mJy),r\n"))
    out = call(ingest.app, "inspect", "a.csv", "--columns", "p,q,r", "--wavelength-unit", "angstrom", "--medium",
               "air", "--frame", "rest", "--name", "mine")  # fmt: skip
    lines_said = out.splitlines()
    said = {line[2:11].strip(): line[11:].strip() for line in lines_said if line[:2] == "  "}
    assert said["from"].startswith("mine, table-csv")
    assert said["columns"] == "wavelength p (stated), flux q (mJy) (stated), error r (stated)"
    assert (said["flux unit"], said["frame"]) == ("mJy, declared", "rest, stated")
    assert (said["wave unit"], said["medium"]) == ("Angstrom, stated", "air, stated")
    wide(tmp_path / "b.csv", [str(n) for n in NM])
    out = call(ingest.app, "inspect", "b.csv", "--unit", "relative")
    assert "215 columns, 350 to 2490 (named)" in out and "nanometre, guessed" in out and "relative, stated" in out
    wide(tmp_path / "c.csv", [str(n) for n in range(600)])
    out = call(ingest.app, "inspect", "c.csv", "--wavelengths", "1100:2298:2", "--wavelength-unit", "nm")
    assert "600 columns, 0 to 599 (stated)" in out
    with pytest.raises(UsageError, match="frame=moon"):
        call(ingest.app, "inspect", "a.csv", "--frame", "moon")


SLICES = """
import sys
from pathlib import Path
from specshards.ingest.plain import PlainTable
table = PlainTable.open(Path(sys.argv[1]))
print(sum(rows.rows for rows in table.slices(128) if rows.text("note")[0].startswith("a")))
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured as Linux tells it")
def test_memory_is_flat_in_the_size_of_a_table(tmp_path: Path) -> None:
    """Wide rows of text, read once and twice as many; quotes hold commas."""
    rng, peaks = np.random.default_rng(0), []
    row = ",".join(f"{value:.6f}" for value in rng.random(1000))
    head = "sample,note," + ",".join(map(str, range(350, 1350))) + "\n"
    for rows in (4_000, 12_000):
        with (tmp_path / "a.csv").open("w") as file:
            file.write(head)
            file.writelines(f's{i},"a ""b"", c",{row}\n' for i in range(rows))
        outcome, peak = _measured(tmp_path / "a.csv")
        assert outcome == f"{rows}"
        peaks.append(peak)
    assert peaks[1] < peaks[0] + (48 << 20), peaks


def _measured(path: Path) -> tuple[str, int]:
    done = subprocess.run([sys.executable, "-c", SLICES, path], capture_output=True, text=True, check=True, cwd=ROOT)
    outcome, peak = done.stdout.splitlines()
    return outcome, int(peak)

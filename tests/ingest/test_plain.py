"""Tables of nobody known: CSV, text, ECSV, VOTable, npz and FITS, in every form, and what cannot be understood."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from specshards.common.errors import BadObjectError, UsageError
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.plain import PlainTable
from specshards.ingest.surveys import open_file
from specshards.ingest.surveys.wavelengths import vacuum_of_air
from tests.oracles.opened import spectra

N = 200
WAVE = np.linspace(4000.0, 7000.0, N)
FLUX = np.round(10 + np.sin(WAVE / 90), 6)
ERROR = np.where(np.arange(N) % 50 == 0, 0.0, 0.5)
GUESSED_UNIT = "unit of wavelength: Angstrom is a guess"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def lines(*columns: Any, sep: str = " ", head: str = "") -> str:
    rows = "\n".join(sep.join(repr(float(v)) for v in row) for row in zip(*columns, strict=True))
    return f"{head}{rows}\n"


FORMS: dict[str, Callable[[Path], Any]] = {
    "a.csv": lambda p: p.write_text(lines(WAVE, FLUX, ERROR, sep=",", head="Wavelength [A],Flux (mJy),Flux_Err\n")),
    "a.txt": lambda p: p.write_text(lines(WAVE, FLUX, ERROR, head="# lambda flux err\n# angstroms mJy mJy\n")),
    "a.dat.gz": lambda p: p.write_bytes(gzip.compress(lines(WAVE, FLUX, ERROR).encode())),
    "semicolon.csv": lambda p: p.write_text(
        lines(WAVE, FLUX, ERROR, sep=";", head="wl;flux;sigma\n").replace(".", ",")
    ),
    "a.ecsv": lambda p: Table(
        {"wave": WAVE / 10, "flux": FLUX, "error": ERROR}, units={"wave": "nm", "flux": "mJy"}
    ).write(p),
    "a.xml": lambda p: Table({"wave": WAVE, "flux": FLUX, "error": ERROR}, units={"wave": "Angstrom"}).write(
        p, format="votable"
    ),
    "a.npz": lambda p: np.savez(p, wavelength=WAVE, flux=FLUX, ivar=np.where(ERROR > 0, 4.0, 0.0)),
    "a.fits": lambda p: Table({"WAVE": WAVE, "FLUX": FLUX, "ERR": ERROR}, units={"WAVE": "Angstrom"}).write(p),
    "down.csv": lambda p: p.write_text(
        lines(WAVE[::-1], FLUX[::-1], ERROR[::-1], sep=",", head="wave (A),flux,err\n")
    ),
    "log.csv": lambda p: p.write_text(lines(np.log10(WAVE), FLUX, ERROR, sep=",", head="loglam,flux,err\n")),
    "rows.csv": lambda p: p.write_text(
        "id,wave,flux,err,m_h\n" + "".join(
            f'00{i},"{WAVE.tolist()}","{tuple(FLUX.tolist())}","{ERROR.tolist()}",{0.1 * i}\n' for i in range(3)
        )
    ),
    "rows.fits": lambda p: Table(
        {"id": ["000", "001"], "wave": [WAVE] * 2, "flux": [FLUX] * 2, "error": [ERROR] * 2, "M_H": [0.0, 0.1]}
    ).write(p),
    "rows.npz": lambda p: np.savez(
        p, wave=WAVE, flux=np.stack([FLUX] * 3), err=np.stack([ERROR] * 3), m_h=[0, 0.1, 0.2], id=["000", "001", "2"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_numbers_that_were_written(name: str, tmp_path: Path) -> None:
    FORMS[name](tmp_path / name)
    found = spectra(tmp_path / name)
    for number, one in enumerate(found):
        np.testing.assert_allclose(one.wavelength, WAVE, rtol=2e-7)
        np.testing.assert_array_equal(one.flux, FLUX.astype(np.float32))
        np.testing.assert_array_equal(one.ivar, np.where(ERROR > 0, 4.0, 0.0).astype(np.float32))
        np.testing.assert_array_equal(one.mask, ERROR == 0)
        assert (one.survey, one.frame, one.has_ivar) == ("table", "observed", True)
        if name.startswith("rows"):
            assert one.object_id == (f"00{number}" if number < 2 else one.object_id)
            assert one.labels["m_h"] == pytest.approx(0.1 * number)
        else:
            assert one.object_id == name.partition(".")[0]
    assert len(found) == (len(found) if name.startswith("rows") else 1)
    told = " ".join(found[0].told())
    assert (GUESSED_UNIT in told) == (
        name not in ("a.csv", "down.csv", "a.txt", "a.ecsv", "a.xml", "a.fits", "log.csv")
    )
    assert ("by their places" in told) == (name == "a.dat.gz")
    if name in ("a.csv", "a.txt", "a.ecsv"):
        assert found[0].flux_unit == "mJy"


def test_values_are_those_of_astropy(real_data: Path) -> None:
    path = real_data / "layouts" / "ascii" / "sample_sdss.txt"
    (one,) = spectra(path)
    table = Table.read(path, format="ascii.no_header", comment="#")
    np.testing.assert_array_equal(one.wavelength, np.asarray(table["col1"], np.float32))
    np.testing.assert_array_equal(one.flux, np.asarray(table["col2"], np.float32))
    sigma = np.asarray(table["col3"])
    np.testing.assert_array_equal(one.mask, sigma == 0)
    assert one.flux_unit is None and "no unit known here" in " ".join(one.told())


def wide(path: Path, names: list[str], rows: int = 5, **more: list[Any]) -> np.ndarray[Any, Any]:
    values = np.round(np.random.default_rng(1).uniform(0.1, 0.9, (rows, len(names))), 5)
    head = [*more, *names]
    body = [",".join([*(str(column[i]) for column in more.values()), *map(str, values[i])]) for i in range(rows)]
    path.write_text("\n".join([",".join(head), *body]) + "\n")
    return values


def test_a_class_of_other_things_is_a_further_label(tmp_path: Path) -> None:
    kinds = ["Luvisol, haplic", "STAR", "", "unknown", "galaxy"]
    wide(tmp_path / "soil.csv", [str(n) for n in range(350, 2500, 10)], **{"class": [f'"{k}"' for k in kinds]})
    found = spectra(tmp_path / "soil.csv", name="soil", wavelength_unit="nm")
    assert [one.labels.get("class") for one in found] == [None, "STAR", None, None, "GALAXY"]
    assert [one.labels.get("class_") for one in found] == ["Luvisol, haplic", None, None, None, None]
    told = "have a class that is none of the sky's, kept as class_"
    assert [told in one.remarks for one in found] == [True, False, False, False, False]


def test_wide_tables(tmp_path: Path) -> None:
    """Names in every way; all other columns are labels, the id is as written."""
    grid = np.arange(350, 2500, 10)
    labels = {"sample": [f"0{i}" for i in range(5)], "Organic Carbon (g/kg)": [1.5, "", 2, 3, -9999],
              "site": ["a", "b", "a", "c", ""]}  # fmt: skip
    for form in ("{}", "{}nm", "wl_{}", "X{}", "spc.{}", "R_{} nm"):
        values = wide(tmp_path / "soil.csv", [form.format(n) for n in grid], **labels)
        found = spectra(tmp_path / "soil.csv", name="soil")
        assert [one.object_id for one in found] == labels["sample"]
        assert [one.labels["organic_carbon"] for one in found] == [1.5, None, 2, 3, None]
        assert [one.labels["site"] for one in found] == ["a", "b", "a", "c", None]
        assert found[0].units["organic_carbon"] == "g/kg" and found[0].survey == "soil"
        np.testing.assert_allclose(found[2].wavelength, 10.0 * grid)
        np.testing.assert_array_equal(found[2].flux, values[2].astype(np.float32))
        assert ("guess" in " ".join(found[0].told())) == ("nm" not in form)
    wide(tmp_path / "soil.csv", [str(n) for n in grid[::-1]])
    assert (np.diff(spectra(tmp_path / "soil.csv")[0].wavelength) > 0).all()


def test_wavenumbers(tmp_path: Path) -> None:
    grid = np.arange(4000, 400, -4)
    values = wide(tmp_path / "ftir.csv", [f"{n} cm-1" for n in grid])
    one = spectra(tmp_path / "ftir.csv")[0]
    np.testing.assert_allclose(one.wavelength, 1e8 / grid, rtol=1e-6)
    np.testing.assert_array_equal(one.flux, values[0].astype(np.float32))
    assert one.wave_source == "cm-1"
    wide(tmp_path / "ftir.csv", [str(n) for n in grid])
    with pytest.raises(
        BadObjectError, match=r"look like nm: .*--wavelength-unit nm or cm-1; see docs/any-spectrum.md"
    ):
        spectra(tmp_path / "ftir.csv")
    again = spectra(tmp_path / "ftir.csv", wavelength_unit="cm-1")[0]
    np.testing.assert_array_equal(again.wavelength, one.wavelength)


def test_what_a_user_states(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", lines(WAVE, FLUX, ERROR, FLUX + 1, sep=",", head="p,q,r,flux\n"))
    (one,) = spectra(path, columns="p,q,r", unit="erg/s/cm2/AA", medium="air", frame="rest", name="mine")
    np.testing.assert_allclose(one.wavelength, vacuum_of_air(WAVE), rtol=2e-7)
    assert (one.flux_unit, one.frame, one.survey) == ("erg / (Angstrom s cm2)", "rest", "mine")
    np.testing.assert_allclose(one.flux * one.flux_scale, FLUX, rtol=1e-6)
    (again,) = spectra(path, columns="wavelength=1,flux=4")
    np.testing.assert_array_equal(again.flux, (FLUX + 1).astype(np.float32))
    assert not again.has_ivar
    with pytest.raises(BadObjectError, match="no column nope, which --columns names: it has p, q, r, flux"):
        spectra(path, columns="nope,q")
    for wrong, why in (
        ({"columns": "a,b,c,d"}, "after wavelength, flux and error"), ({"columns": "a=b"}, "a is no role"),
        ({"columns": "w,f,e,ivar=i"}, "not both"), ({"unit": "furlong"}, "unit=furlong: no unit of flux"),
        ({"frame": "moon"}, "frame=moon: choose observed, rest"),
        ({"name": "sdss"}, "name=sdss: is a survey that is"),
        ({"name": "My Soil"}, "a short name"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=why):
            IngestConfig(**wrong)  # type: ignore[arg-type]
    assert not {"columns", "unit", "frame", "name"} & IngestConfig().to_dict().keys()


def test_what_is_no_spectrum_is_set_aside_and_what_is_half_a_one_is_refused(tmp_path: Path) -> None:
    aside = {
        "readme.txt": "Read me.\n\nThese are spectra of the sky, by us.\n",
        "list.csv": "id,ra,dec,z\n1,2,3,4\n5,6,7,8\n",
        "log.txt": "12:00 began\n12:05 a much longer line\nend\n", "page.xml": "<?xml version='1.0'?><html></html>\n",
        "pc.csv": ",".join(f"pc_{i}" for i in range(1, 31)) + "\n" + ",".join(["0.5"] * 30) + "\n",
    }  # fmt: skip
    for name, text in aside.items():
        with pytest.raises(BadObjectError) as caught:
            spectra(written(tmp_path / name, text))
        assert caught.value.selected_out, (name, caught.value)
    half = {
        "w.csv": ("wave,a,b\n" + "4000,1,2\n4001,2,3\n" * 9, "no column that is called flux"),
        "u.csv": (lines(np.linspace(1000, 2400, N), FLUX, sep=",", head="wave,flux\n"), "--wavelength-unit"),
        "x.csv": (lines(np.roll(WAVE, 7), FLUX, sep=",", head="wave,flux\n"), "not finite, positive and increasing"),
    }
    for name, (text, why) in half.items():
        with pytest.raises(BadObjectError, match=why) as caught:
            spectra(written(tmp_path / name, text))
        assert not caught.value.selected_out
    np.savez(tmp_path / "p.npz", flux=np.array([{"a": 1}], object))
    with pytest.raises(BadObjectError, match="Python objects"):
        spectra(tmp_path / "p.npz")


@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.dat.gz", "a.ecsv", "a.xml", "a.npz", "rows.csv", "a.fits"])
def test_damage_is_one_line_and_no_wrong_number(name: str, tmp_path: Path) -> None:
    """Cut anywhere, bytes changed, blocks of zeros: the spectrum that was written, a reason, or one that says it."""
    FORMS[name](tmp_path / name)
    whole, rng = (tmp_path / name).read_bytes(), random.Random(name)
    path = tmp_path / "damaged" / name
    path.parent.mkdir()
    for trial in range(60):
        at, content = rng.randrange(len(whole)), bytearray(whole)
        if trial % 3 == 0:
            content = content[:at]
        elif trial % 3 == 1:
            content[at] = rng.randrange(256)
        else:
            content[at : at + 200] = bytes(len(content[at : at + 200]))
        path.write_bytes(content)
        try:
            items = list(open_file(path).objects())
        except BadObjectError as error:
            assert "\n" not in error.reason and error.reason
            continue
        for item in items:
            if isinstance(item, BadObjectError) or trial % 3:
                continue
            n = len(item.wavelength)  # of a file that was cut: what was written, or it is said
            is_said = "may have been cut" in " ".join(item.told())
            np.testing.assert_allclose(item.wavelength[: n - 1], WAVE[: n - 1], rtol=2e-7)
            assert is_said or np.allclose(item.flux, FLUX[:n], rtol=1e-6)


def test_large_tables_are_read_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not kept gives the same rows, and kinds of the whole column."""
    from specshards.ingest.plain import table

    path = tmp_path / "big.csv"
    text = "id,a,b\n" + "".join(f"{i:05d},{i if i != 4999 else 0.5},{'x' if i == 9 else i}\n" for i in range(5000))
    path.write_text(text)
    monkeypatch.setattr(table, "_KEPT", 0)
    monkeypatch.setattr("specshards.ingest.plain.text._BLOCK", 4096)
    opened = PlainTable.open(path)
    parts = list(opened.slices(100))
    assert sum(part.rows for part in parts) == opened.rows == 5000
    assert {part.column("a").dtype.kind for part in parts} == {"f"}
    assert {part.column("b").dtype.kind for part in parts} == {"O"}
    assert np.concatenate([part.text("id") for part in parts]).tolist() == [f"{i:05d}" for i in range(5000)]
    assert opened.column("a").tolist() == [float(i) for i in range(4999)] + [0.5]


def test_vandels(real_data: Path, tmp_path: Path) -> None:
    """Real files by hand; a made one keeps every good pixel and its place."""
    sigma = np.full(1098, 2e-19)
    sigma[:5] = 0
    wave, flux = 4803.8 + 5.0 * np.arange(1098), 1e-19 * np.arange(1098)
    (made,) = spectra(written(tmp_path / "CDFS1.dat", lines(wave, flux, sigma, head="#  wl flam flam_err\n")))
    assert (made.survey, made.object_id, int(made.good().sum())) == ("vandels", "CDFS1", 1093)
    for path in sorted((real_data / "labelled" / "vandels").glob("UDS28*.dat"))[:5]:
        (one,) = spectra(path)
        hand = np.loadtxt(path)
        np.testing.assert_array_equal(one.wavelength, hand[:, 0].astype(np.float32))
        good = np.isfinite(hand[:, 1]) & (hand[:, 2] > 0)
        np.testing.assert_array_equal(one.good(), good)
        np.testing.assert_allclose(one.flux[good] * np.float64(one.flux_scale), hand[good, 1], rtol=1e-6)


def test_fits_header_of_a_table(tmp_path: Path) -> None:
    hdu = fits.BinTableHDU(Table({"loglam": np.log10(WAVE), "flux": FLUX, "ivar": np.full(N, 4.0)}))
    hdu.header.update({"RA": 10.0, "DEC": -5.0, "Z": 0.1, "BUNIT": "1e-17 erg/s/cm2/A", "VACUUM": True})
    hdu.writeto(tmp_path / "a.fits")
    (one,) = spectra(tmp_path / "a.fits")
    assert (one.ra, one.dec, one.labels["z"]) == (10.0, -5.0, 0.1)
    assert one.flux_unit == "1e-17 erg / (Angstrom s cm2)" and not one.told()

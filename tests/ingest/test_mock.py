"""The mock survey: real layouts, known truth, same bytes however it is written."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from specshards.common.errors import UsageError
from specshards.ingest.mock import CATALOGUE, DAMAGES, MockConfig, MockResult, plan, truth, write, write_with_progress
from specshards.ingest.mock.files.fitsbytes import card
from specshards.ingest.mock.lines import H_ALPHA, air_to_vacuum, hydrogen
from tests.oracles import commands

Mock = tuple[MockConfig, MockResult]
N = 240
SURVEYS = ("lamost", "sdss")


@pytest.fixture(scope="module", params=SURVEYS)
def survey(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mock:
    """A mock survey of each kind, written by two processes."""
    config = MockConfig(request.param, n_files=N, seed=3)
    return config, write(config, tmp_path_factory.mktemp(request.param), workers=2)


def digests(folder: Path) -> dict[str, str]:
    """Path -> sha256 of every file in a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read(path: Path) -> dict[str, Any]:
    """Flux, ivar, wave, andmask and the headers of one mock file, with astropy; any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fits.open(path, memmap=False) as hdus:
            hdus.verify("exception")
            head = hdus[0].header
            for hdu in hdus:
                str(hdu.header)
            found: dict[str, Any] = {"head": dict(head), "names": [hdu.name for hdu in hdus]}
            if "EXTEN0" in head:
                rows = hdus[0].data.astype("f8")
                found |= {"flux": rows[0], "ivar": rows[1], "third": rows[2], "mask": rows[3]}
                found["wave"] = 10 ** (head["COEFF0"] + head["COEFF1"] * np.arange(rows.shape[1]))
                return found
            table = hdus[1]
            found["columns"] = table.columns.names
            names = {name.lower(): name for name in table.columns.names}
            data = {name: np.ravel(table.data[real]).astype("f8") for name, real in names.items()}
            found |= {"flux": data["flux"], "ivar": data["ivar"]}
            if "loglam" in data:
                found |= {"wave": 10 ** data["loglam"], "mask": data["and_mask"], "model": data["model"]}
                row = hdus[2].data[0]
                found["labels"] = {name: row[name] for name in hdus[2].columns.names}
            else:
                found |= {"wave": data["wavelength"], "mask": data["andmask"], "third": data["normalization"]}
            return found


def test_counts_and_catalogue(survey: Mock) -> None:
    """n_files counts damaged files too; the catalogue has one row for each file with an id and a class."""
    config, result = survey
    files = [path for path in result.folder.rglob("*.fits*") if path.is_file()]
    assert len(files) == result.n_files == N
    entries = plan(config)
    damages = [entry.damage for entry in entries if entry.damage]
    assert len(damages) == result.n_damaged == 3
    assert damages and set(damages) <= set(DAMAGES)
    kinds = [entry.kind for entry in entries]
    assert all(kinds.count(kind) > 0.12 * N for kind in ("STAR", "GALAXY", "QSO"))
    assert result.catalogue == result.folder / CATALOGUE
    with result.catalogue.open(newline="") as file:
        rows = list(csv.DictReader(file))
    key = "obsid" if config.survey == "lamost" else "specobjid"
    assert len({row[key] for row in rows}) == len(rows) > 0.8 * N
    for row in rows:
        is_star = row["class"] == "STAR"
        assert is_star == (row["teff"] != "") == (row["logg"] != "") == (row["feh"] != "")
        assert -11 < float(row["dec"]) < 61 and 0 <= float(row["ra"]) < 360


def test_every_whole_file_opens_and_follows_its_layout(survey: Mock) -> None:
    """Astropy reads every undamaged file without a warning, and finds what the real files have."""
    config, result = survey
    layouts = set()
    for entry in plan(config):
        if entry.damage:
            continue
        layouts.add(entry.layout)
        found = read(result.folder / entry.name)
        head = found["head"]
        assert head["ORIGIN"].startswith("specshards mock")
        assert found["flux"].shape == found["ivar"].shape == found["wave"].shape
        assert np.isfinite(found["flux"]).all() and (found["ivar"] >= 0).all()
        if config.survey == "lamost":
            assert ("OBSID" in head) == ("DATA_V" in head) == ("SNRG" in head) == (entry.layout != "dr1")
            assert ("SN_G" in head) == (entry.layout == "dr1")
            assert {"RA", "DEC", "LMJD", "PLANID", "SPID", "FIBERID", "DESIG", "COEFF0", "Z_ERR"} <= set(head)
            assert 3900 <= found["flux"].size <= 3909 and head["COEFF0"] == 3.5682
            assert head["CLASS"] in ("STAR", "GALAXY", "QSO", "Unknown")
            assert (head["Z"] == -9999.0) == (head["CLASS"] == "Unknown")
            if entry.layout == "table":
                assert found["columns"] == [
                    "FLUX",
                    "IVAR",
                    "WAVELENGTH",
                    "ANDMASK",
                    "ORMASK",
                    "NORMALIZATION",
                ]
            elif entry.layout == "dr1":
                assert abs(np.median(found["third"]) - 1.0) < 0.2
            else:
                np.testing.assert_allclose(found["third"], found["wave"], rtol=1e-6)
        else:
            upper = entry.layout == "upper"
            expected = ["flux", "loglam", "ivar", "and_mask", "or_mask", "wdisp", "sky", "model"]
            assert found["columns"] == ([name.upper() for name in expected] if upper else expected)
            assert found["names"][1] == ("" if upper else "COADD")
            assert 3800 <= found["flux"].size <= 4600
            labels = found["labels"]
            assert abs(found["wave"][0] - 10 ** head["COEFF0"]) < 0.02
            assert {
                "CLASS",
                "SUBCLASS",
                "Z",
                "Z_ERR",
                "ZWARNING",
                "SN_MEDIAN_ALL",
                "PLUG_RA",
                "PLUG_DEC",
            } <= set(labels)
            number = int(labels["SPECOBJID"])
            assert number > 2**63 and number >> 50 == labels["PLATE"]
            assert (entry.kind == "SKY") == bool(labels["ZWARNING"] & 1)
            if entry.layout.startswith("specobj"):
                assert labels["TARGETTYPE"].strip() == ("SKY" if entry.kind == "SKY" else "SCIENCE")
    assert len(layouts) == 4


def test_noise_agrees_with_ivar(survey: Mock) -> None:
    """(flux - truth)^2 ivar has the median 0.455 and the mean 1 of a chi-square of one degree of freedom."""
    config, result = survey
    collected = []
    for entry in plan(config)[:60]:
        if entry.damage:
            continue
        found, known = read(result.folder / entry.name), truth(config, entry.index)
        assert known.entry == entry
        np.testing.assert_allclose(found["wave"], known.wave, rtol=2e-6)
        hit = (found["mask"].astype(np.int64) & (1 << 18 if config.survey == "sdss" else 1)) != 0
        good = (found["ivar"] > 0) & ~hit
        assert good.mean() > 0.5
        collected.append((found["flux"] - known.flux)[good] ** 2 * found["ivar"][good])
    chi2 = np.concatenate(collected)
    assert abs(np.median(chi2) - 0.455) < 0.01
    assert abs(np.mean(chi2) - 1.0) < 0.01


def test_halpha_where_it_belongs(survey: Mock) -> None:
    """H-alpha of star-forming galaxies peaks within a pixel and a half of 6564.61 (1+z)."""
    config, result = survey
    seen = 0
    for entry in plan(config):
        if entry.kind != "GALAXY" or entry.damage or seen == 4:
            continue
        known = truth(config, entry.index)
        at = H_ALPHA * (1 + known.z)
        if not known.subclass.startswith("STAR") or at > 8600:
            continue
        found = read(result.folder / entry.name)
        near = np.abs(found["wave"] / at - 1) < 1.5e-3  # leaves [NII] out
        if not (found["ivar"][near] > 0).all() or np.median(found["flux"] * np.sqrt(found["ivar"])) < 10:
            continue
        assert abs(found["wave"][near][np.argmax(found["flux"][near])] / at - 1) < 1.5 * 2.4e-4
        seen += 1
    assert seen >= 2


def test_repeat_visits(survey: Mock) -> None:
    """A second visit: the same object within 0.5 arcsec, the same z, another night, other noise."""
    config, result = survey
    entries = plan(config)
    pairs = [(entries[entry.object_index], entry) for entry in entries if entry.visit == 2]
    assert abs(len(pairs) / (N - len(pairs)) - config.repeat_fraction) < 0.02
    for one, two in pairs[:8]:
        a, b = truth(config, one.index), truth(config, two.index)
        east = (a.ra - b.ra) * np.cos(np.deg2rad(a.dec))
        assert 0 < 3600 * np.hypot(east, a.dec - b.dec) < 0.5
        assert (a.class_, a.z) == (b.class_, b.z) or a.class_ == "SKY"
        assert one.mjd != two.mjd and one.name != two.name and one.object_index == two.object_index
        flux = [read(result.folder / entry.name)["flux"][1000:1100] for entry in (one, two)]
        assert not np.array_equal(*flux)


@pytest.mark.parametrize("name", SURVEYS)
def test_same_bytes_for_any_number_of_workers(tmp_path: Path, name: str) -> None:
    """One process or two, with and without a foreign file beside: the same files."""
    config = MockConfig(name, n_files=60, seed=11)
    counts: list[int] = []
    write(config, tmp_path / "one", workers=1, progress=counts.append)
    write(config, tmp_path / "two", workers=2)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert counts[-1] == 60 and counts == sorted(counts)
    write(MockConfig(name, n_files=60, seed=12), tmp_path / "other", workers=1)
    shared = set(digests(tmp_path / "one").values()) & set(digests(tmp_path / "other").values())
    assert shared <= _constant(tmp_path / "one")


def test_a_script_without_a_main_guard_may_use_processes(tmp_path: Path) -> None:
    """A worker must not run the script that started it again; one with a guard it may, for what that registers."""
    call = f'print(write(MockConfig("sdss", n_files=60), Path({str(tmp_path / "out")!r}), workers=2).n_files)'
    script = tmp_path / "survey.py"
    script.write_text(f"from pathlib import Path\nfrom specshards.ingest.mock import MockConfig, write\n{call}\n")
    done = commands.run([sys.executable, str(script)])
    assert (done.returncode, done.stdout) == (0, "60\n"), done.stderr


def _constant(folder: Path) -> set[str]:
    """Digests of files that hold nothing of the seed: the empty file and the text file."""
    return {
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.fits*")
        if not path.read_bytes() or path.read_bytes().startswith(b"This is")
    }


@pytest.mark.parametrize("name", SURVEYS)
def test_each_damage_is_what_it_says(tmp_path: Path, name: str) -> None:
    """Six kinds of damage, in turn; none of them is in the catalogue."""
    config = MockConfig(name, n_files=60, seed=5, damaged_fraction=0.2)
    result = write(config, tmp_path, workers=1)
    assert result.n_damaged == 12
    for entry in plan(config):
        path = tmp_path / entry.name
        if entry.damage == "empty":
            assert path.stat().st_size == 0
        elif entry.damage == "text":
            assert path.suffix == ".fits" and b"specshards mock" in path.read_bytes()
        elif entry.damage == "truncated":
            data = path.read_bytes()
            if path.suffix == ".gz":
                with pytest.raises(EOFError):
                    gzip.decompress(data)
            else:
                assert len(data) > 2880 and len(data) % 2880 != 0
        elif entry.damage == "primary only":
            with fits.open(path) as hdus:
                assert len(hdus) == 1 and hdus[0].data is None
        elif entry.damage == "all NaN":
            with fits.open(path) as hdus:
                data = hdus[0].data[0] if hdus[0].data is not None else hdus[1].data.field(0)
                assert np.isnan(data).all()
        elif entry.damage == "no ivar":
            assert not read(path)["ivar"].any()
    assert {entry.damage for entry in plan(config)} == {None, *DAMAGES}


def test_reuse_replace_and_foreign_files(tmp_path: Path) -> None:
    """The same config leaves the folder alone; another one replaces our files and no one else's."""
    config = MockConfig("lamost", n_files=20)
    first = write(config, tmp_path, workers=1)
    mine = tmp_path / "MOCK0001" / "notes.txt"
    mine.write_text("keep me")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.fits*")}
    assert write(config, tmp_path, workers=1) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.fits*")} == before
    assert not list(tmp_path.rglob("*.part")) and not list(tmp_path.rglob("*.partial.json"))

    next(iter(before)).unlink()  # incomplete: written anew
    write(config, tmp_path, workers=1)
    assert set(tmp_path.rglob("*.fits*")) == set(before)

    write(MockConfig("sdss", n_files=20), tmp_path, workers=1)
    assert mine.read_text() == "keep me"
    assert not list(tmp_path.rglob("*MOCK*.fits*")) and len(list(tmp_path.rglob("*.fits"))) == 20
    assert json.loads((tmp_path / "mock.json").read_text())["config"]["survey"] == "sdss"


def test_a_foreign_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    """Nothing of someone else's is written over, and a foreign mock.json is not trusted."""
    config = MockConfig("sdss", n_files=3)
    foreign = tmp_path / plan(config)[1].name
    foreign.parent.mkdir()
    foreign.write_text("not yours")
    with pytest.raises(FileExistsError, match="in the way"):
        write(config, tmp_path, workers=1)
    with pytest.raises(UsageError, match="in the way"):
        write_with_progress(config, tmp_path, workers=1)
    assert foreign.read_text() == "not yours"

    outside = tmp_path / "precious.txt"
    outside.write_text("here")
    folder = tmp_path / "mock"
    folder.mkdir()
    (folder / "mock.json").write_text(json.dumps({"version": 0, "files": ["../precious.txt"]}))
    with pytest.raises(ValueError, match="outside"):
        write(config, folder, workers=1)
    assert outside.exists()
    (folder / "mock.json").write_text("{")
    with pytest.raises(ValueError, match="no list of a mock survey"):
        write(config, folder, workers=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"survey": "desi"},
        {"survey": "sdss", "n_files": 0},
        {"survey": "sdss", "seed": -1},
        {"survey": "sdss", "damaged_fraction": 0.9},
        {"survey": "sdss", "repeat_fraction": -0.1},
    ],
)
def test_config_is_checked(wrong: dict[str, Any]) -> None:
    """A wrong value is one line."""
    with pytest.raises(ValueError) as error:
        MockConfig(**wrong)
    assert "\n" not in str(error.value)


def test_physics() -> None:
    """Line positions, and labels that can be read off the spectrum in the right direction."""
    assert abs(float(air_to_vacuum(6562.79)) - H_ALPHA) < 0.03
    assert abs(hydrogen(2, 3) - H_ALPHA) < 0.3
    with pytest.raises(IndexError):
        truth(MockConfig("sdss", n_files=3), 3)
    with pytest.raises(ValueError, match="does not fit"):
        card("TOOLONGKEY", 1)

    config = MockConfig("lamost", n_files=400)
    stars = [truth(config, entry.index) for entry in plan(config) if entry.kind == "STAR"]

    def level(star: Any, low: float, high: float) -> float:
        wave = star.wave / (1 + star.z)
        return float(np.mean(star.flux[(wave > low) & (wave < high)]))

    teff = np.array([star.teff for star in stars])
    colour = np.array([np.log(level(star, 4500, 4600) / level(star, 7400, 7500)) for star in stars])
    assert np.corrcoef(np.log(teff), colour)[0, 1] > 0.9
    sunlike = [star for star in stars if 5200 < star.teff < 6200]
    feh = np.array([star.feh for star in sunlike])
    blend = np.array([level(star, 5265, 5277) / level(star, 5290, 5310) for star in sunlike])
    assert np.corrcoef(feh, blend)[0, 1] < -0.7

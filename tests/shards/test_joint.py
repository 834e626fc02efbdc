"""A joint survey from one's own files: each part takes what is its own, and sets aside what is the other's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from specshards.common.errors import JobError, UsageError
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.job.survey import catalogues_of, ingest_survey
from specshards.ingest.surveys import SURVEYS
from specshards.shards import __main__ as command
from specshards.shards.format.manifest import Manifest

PARTS = ("sdss", "lamost")
N = {"sdss": 24, "lamost": 30}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder with files of SDSS and of LAMOST, of mock surveys without their damaged files."""
    folder = tmp_path_factory.mktemp("both")
    for name in PARTS:
        mock = SURVEYS[name].mock
        assert mock is not None
        mock(folder / name, N[name], 3, 0)
    return folder


def summary(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "ingest" / "summary.json").read_text()))


def joint(part: str, data: Path, out: Path, **options: Any) -> dict[str, Any]:
    """The account of one part of a joint set."""
    ingest_survey(IngestConfig(survey=part, joint="slomost"), out, data=str(data), **options)
    return summary(out)


def test_own_files_of_both_in_one_folder(files: Path, tmp_path: Path) -> None:
    catalogues = ",".join(str(files / name / "mock_catalogue.csv") for name in PARTS)
    command.make_survey("slomost", tmp_path, data=str(files), catalog=Path(catalogues), workers=0)
    both = Manifest.load(tmp_path / "shards" / "map2d")
    assert both.surveys == ("mock-lamost", "mock-sdss")
    samples = 0
    for name, other in (PARTS, PARTS[::-1]):
        account = summary(tmp_path / name)
        assert account["reasons"][f"of {other}, not of {name}"] > 0
        aside = pq.read_table(tmp_path / name / "ingest" / "quarantine.parquet")
        assert account["files"] == account["samples"] + len(aside)
        assert account["matched"] > 0.8 * N[name]  # each part took its own catalogue
        samples += account["samples"]
    assert both.samples() == samples


def test_real_files_of_both(real_data: Path, tmp_path: Path) -> None:
    for part in ("sdss/dr16_lite", "lamost/dr8_repeat_visits"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / part.partition("/")[0]).symlink_to(real_data / part)
    sdss, lamost = (joint(part, tmp_path / "data", tmp_path / "out" / part) for part in PARTS)
    assert sdss["files"] == lamost["files"] == sdss["samples"] + lamost["samples"]
    assert sdss["reasons"] == {"of lamost, not of sdss": lamost["samples"]}
    assert lamost["reasons"] == {"of sdss, not of lamost": sdss["samples"]}


def test_data_of_one_survey_is_one_line(files: Path, tmp_path: Path) -> None:
    message = (
        r"^DATA=\S+: nothing of lamost is in it, and SURVEY=slomost is sdss and lamost: add files of lamost, or take"
    )
    (tmp_path / "junk.fits").write_bytes(b"no file of anybody's" * 300)  # says nothing of whose it is
    (tmp_path / "sdss").symlink_to(files / "sdss")
    with pytest.raises(JobError, match=message + " SURVEY=sdss$"):
        joint("lamost", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out" / "ingest" / "config.json").exists()  # the right command is not refused


def test_the_guard_is_of_the_parts_own_files(files: Path, tmp_path: Path) -> None:
    """Bad files of the smaller part do not drown in the other's, and files that are nobody's do not condemn it."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "lamost").symlink_to(files / "lamost")
    whole = [path for path in sorted((files / "sdss").rglob("*.fits")) if _is_whole(path)][:6]
    for index, path in enumerate(whole):
        with fits.open(path) as hdus:
            if index == 0:
                hdus[1].data["ivar"][:] = 0
            hdus.writeto(data / path.name)
    with pytest.raises(JobError, match=r"1 of 6 objects of sdss are bad, more than --max-bad-fraction 0.05"):
        joint("sdss", data, tmp_path / "strict")
    (data / whole[0].name).write_bytes(b"no file of anybody's" * 300)
    account = joint("sdss", data, tmp_path / "out")
    assert account["samples"] == 5


def _is_whole(path: Path) -> bool:
    with fits.open(path) as hdus:
        return len(hdus) > 2 and hdus[2].data is not None and hdus[2].data["zwarning"][0] == 0


def _table(path: Path, **columns: list[Any]) -> None:
    wave = 3600 * 10 ** (1e-4 * np.arange(3800))
    n = len(next(iter(columns.values())))
    path.parent.mkdir(exist_ok=True)
    flux = [np.random.default_rng(i).normal(10, 1, 3800).tolist() for i in range(n)]
    spectra = {"spectrum_flux": flux, "spectrum_ivar": [[1.0] * 3800] * n, "spectrum_lambda": [wave.tolist()] * n}
    pq.write_table(pa.table({"object_id": [str(10 + i) for i in range(n)], **columns, **spectra}), path)


def test_rows_of_a_table_go_to_the_survey_that_they_name(tmp_path: Path) -> None:
    _table(
        tmp_path / "data" / "both.parquet",
        survey=["sdss", "lamost", "lamost", "boss"],
        ra=[1.0, 2.0, 3.0, 4.0],
        dec=[5.0] * 4,
    )
    assert joint("sdss", tmp_path / "data", tmp_path / "s")["samples"] == 2
    assert joint("lamost", tmp_path / "data", tmp_path / "l")["reasons"] == {"of sdss, not of lamost": 2}


def test_a_table_that_does_not_say_whose_it_is_is_nobodys(tmp_path: Path) -> None:
    _table(tmp_path / "whose.parquet", ra=[1.0], dec=[5.0])
    with pytest.raises(
        JobError, match=r"does not say whether it is of sdss or lamost: give the table a column survey"
    ):
        joint("sdss", tmp_path, tmp_path / "out")


def test_each_part_takes_the_catalogue_that_has_its_key(tmp_path: Path) -> None:
    names = {
        "l.csv": "obsid,teff",
        "s.csv": "specObjID,teff",
        "both.csv": "obsid,specobjid,teff",
        "no.csv": "name,teff",
    }
    l, s, both, no = (tmp_path / name for name in names)  # noqa: E741
    for name, columns in names.items():
        (tmp_path / name).write_text(f"{columns}\n")
    assert catalogues_of(PARTS, None) == {}
    assert catalogues_of(PARTS, l) == {"lamost": l}
    assert catalogues_of(PARTS, Path(f"{l}, {s}")) == {"lamost": l, "sdss": s}
    assert catalogues_of(PARTS, both) == {"lamost": both, "sdss": both}
    with pytest.raises(
        UsageError, match=r"no.csv: no key column of any of sdss \(specobjid or .*\), lamost \(obsid\): found name"
    ):
        catalogues_of(PARTS, Path(f"{l},{no}"))
    with pytest.raises(UsageError, match=r"CATALOG: \S+both.csv and \S+l.csv both have obsid, of lamost"):
        catalogues_of(PARTS, Path(f"{l},{both}"))
    with pytest.raises(UsageError, match=r"m.csv: no such catalogue"):
        catalogues_of(PARTS, Path(f"{l},m.csv"))


def test_catalogues_are_looked_at_before_anything_is_made(files: Path, tmp_path: Path) -> None:
    (tmp_path / "no.csv").write_text("name,teff\n")
    with pytest.raises(UsageError, match="no key column of any of sdss"):
        command.make_survey("slomost", tmp_path / "out", data=str(files), catalog=tmp_path / "no.csv", workers=0)
    with pytest.raises(UsageError, match="--listed-only: needs a --catalog of sdss, too"):
        catalogue = files / "lamost" / "mock_catalogue.csv"
        command.make_survey(
            "slomost", tmp_path / "out", data=str(files), catalog=catalogue, listed_only=True, workers=0
        )
    assert not (tmp_path / "out").exists()


def test_a_set_of_one_survey_is_told_as_before() -> None:
    assert "joint" not in IngestConfig(survey="sdss").to_dict()

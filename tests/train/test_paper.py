"""`specshards train paper` from shards to its report: what is trained, kept, refused and said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import r2_score
from typer.testing import CliRunner

from specshards.common.errors import UsageError
from specshards.common.jobs import Engine
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.render import ImageConfig
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.make import SurveyInput
from specshards.shards.write.build import build
from specshards.train import __main__ as train
from specshards.train.config import RunOptions
from specshards.train.paper import run as paper_run
from specshards.train.paper.config import PaperConfig
from specshards.train.paper.objects import Objects
from specshards.train.paper.plan import data_sets, notes, plan
from specshards.train.paper.run import paper
from tests.conftest import call, make_spectrum

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = RunOptions(device="cpu", threads=1, tracker="none")
SPLIT = (0.6, 0.2, 0.2)
STARS = {"teff": 5000.0, "logg": 4.0, "feh": -0.5}


@pytest.fixture(scope="module")
def spectra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 short spectra; the stars among them have stellar labels, and so does one galaxy."""
    return sample(tmp_path_factory.mktemp("spectra"), range(120))


def sample(folder: Path, numbers: range) -> Path:
    rng = np.random.default_rng(5)
    made = []
    for i in numbers:
        one = make_spectrum(
            i, rng, n=400, survey_sn={"snru": 3.0, "snrg": 4.0, "snrr": 0.0, "snri": 0.0, "snrz": 0.0}
        )
        if i % 3 == 0 or i == 1:
            one.labels.update({name: value * (1 + 0.1 * rng.normal()) for name, value in STARS.items()})
        made.append(one)
    write_parquet(to_table(made), folder / "part-00000.parquet", {"test": 1}, row_group_rows=40)
    return folder


@pytest.fixture(scope="module")
def flux(spectra: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shards(spectra, tmp_path_factory.mktemp("sets") / "flux", "flux", image=ImageConfig(size=64))


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 60 other objects."""
    spectra = sample(tmp_path_factory.mktemp("more"), range(120, 180))
    return shards(spectra, tmp_path_factory.mktemp("sets") / "more", "flux", image=ImageConfig(size=64))


def shards(spectra: Path, out: Path, encoding: str, **options: Any) -> Path:
    build(ShardConfig(encoding=encoding, split=SPLIT, **options), spectra, out, engine=Engine(workers=0))
    return out


def asked(folder: Path, **given: Any) -> PaperConfig:
    small = {"quick": True, "shards": (str(folder),), "max_steps": 1, "batch_size": 8}
    return PaperConfig.configure(**{**small, **given})


@pytest.fixture(scope="module")
def finished(flux: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures, redshift and Teff."""
    out = tmp_path_factory.mktemp("paper")
    paper(asked(flux, pictures=("simple", "mega"), tables=("1", "r2", "5", "6", "9", "estimators")), out, OPTIONS)
    return out


def test_what_the_tables_ask_for_is_trained_and_answered_once_an_object(finished: Path, flux: Path) -> None:
    name = "mock-lamost"
    runs = sorted(path.name for path in (finished / "runs").iterdir())
    assert runs == sorted(
        [f"{name}-{task}-{p}" for task in ("redshift", "teff") for p in ("simple", "mega")]
        + [f"{name}-redshift-sequence"]
    )
    config = json.loads((finished / "runs" / f"{name}-redshift-mega" / "run.json").read_text())["config"]
    assert config["images"] == ["simple:paper", "overlap:paper", "map2d:paper"]
    assert (config["schedule"], config["target"], config["normalise"], config["select"]) == (
        "linear", "max", "0.5", "r2,accuracy",
    )  # fmt: skip
    assert (
        json.loads((finished / "runs" / f"{name}-teff-simple" / "run.json").read_text())["config"]["only"] == "STAR"
    )
    table = pq.read_table(finished / "answers.parquet").to_pylist()
    tests = Manifest.load(flux).samples("test")
    by_run: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in table:
        by_run.setdefault((row["task"], row["picture"]), []).append(row)
    assert {key: len(rows) for key, rows in by_run.items()} == dict.fromkeys(by_run, tests)
    assert {picture for task, picture in by_run if task == "redshift"} == {
        "simple",
        "mega",
        "sequence",
        "svm",
        "forest",
    }
    # Another class's temperature is no star's.
    assert {row["class"] for row in by_run["teff", "simple"] if row["truth"] is not None} == {"STAR"}
    assert {row["sn_survey"] for row in table} == {5.0}


def test_the_report_says_what_the_answers_say(finished: Path) -> None:
    content = json.loads((finished / "paper.json").read_text())
    assert content["mock"] is True
    assert set(content["tables"]) == {"counts", "r2", "sn", "teff", "crps", "estimators"}
    rows = [row for row in pq.read_table(finished / "answers.parquet").to_pylist() if row["task"] == "redshift"]
    for method, column in {"simple": 0, "mega": 3}.items():
        true, answer = (np.array([row[k] for row in rows if row["picture"] == method]) for k in ("truth", "answer"))
        cell = content["tables"]["r2"]["rows"][0]["cells"][column]
        assert cell["value"] == pytest.approx(r2_score(true, answer))
        assert cell["count"] == len(true)
        # Of a point, the CRPS in ln(1 + z) is its error there, whatever axis it was learnt on.
        found = next(r for r in content["tables"]["crps"]["rows"] if r["name"].endswith("crps in ln(1 + z), all"))
        assert found["cells"][column]["value"] == pytest.approx(np.abs(np.log1p(answer) - np.log1p(true)).mean())
    missing = content["tables"]["r2"]["rows"][0]["cells"][1]
    assert missing["value"] is None
    assert missing["notes"] == ["not asked for"]
    # Every object has an snMedian of 5.
    filled = [row["name"] for row in content["tables"]["sn"]["rows"] if row["cells"][0]["count"]]
    assert [name.partition(": ")[2] for name in filled] == ["5 to 7", "all"]
    methods = {row["name"]: row["cells"][0] for row in content["tables"]["estimators"]["rows"]}
    assert all(methods[name]["value"] is not None for name in ("random forest", "support vectors", "1-D transformer"))


def test_every_cell_says_what_is_not_comparable(finished: Path) -> None:
    content = json.loads((finished / "paper.json").read_text())
    said = content["tables"]["r2"]["rows"][0]["cells"][0]["notes"]
    for words in (
        "mock data", "fewer than 100 objects", "split by sky", "backbone tiny", "epochs 2, not 30", "max_steps 1",
        "largest of the train split",
    ):  # fmt: skip
        assert any(words in line for line in said), words
    assert content["summary"][0].startswith("In ")
    # The methods beside it were not trained like this, and each says what it was.
    beside = {row["name"]: row["cells"][0]["notes"] for row in content["tables"]["estimators"]["rows"][:7]
              if row["cells"][0]["count"]}  # fmt: skip
    for name in ("random forest", "support vectors"):
        assert not any(word in line for line in beside[name] for word in ("backbone", "epochs", "largest"))
        assert any("at most 2,000 train spectra; support vectors of at most 2,000" in line for line in beside[name])
    (trained,) = (line for line in beside["1-D transformer"] if line.startswith("trained otherwise"))
    assert "epochs 2, not 30" in trained
    assert "lr" not in trained
    # One step was taken: the second epoch of the two never began.
    assert {(run["epochs"], run["epochs_asked_for"]) for run in content["runs"]} == {(1, 2)}


def test_the_same_command_trains_nothing_again(
    finished: Path, flux: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "paper.json").read_bytes()
    weights = {path: path.stat().st_mtime_ns for path in (finished / "runs").glob("*/model.safetensors")}
    monkeypatch.setattr(paper_run, "score", None)  # nor is the test split looked at again
    monkeypatch.setattr(paper_run, "fit_classical", None)
    call(train.app, "paper", "--out", finished, "--shards", flux, "--quick", "--max-steps", 1, "--batch-size", 8,
         "--pictures", "simple,mega", "--tables", "1,r2,5,6,9,estimators", "--device", "cpu", "--workers", 1,
         "--tracker", "none")  # fmt: skip
    assert (finished / "paper.json").read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in weights} == weights


def test_other_options_in_the_same_folder_are_refused(finished: Path, flux: Path) -> None:
    with pytest.raises(
        UsageError, match=r"epochs: 2 -> 3.*; choose another OUT, or remove that folder to replace it"
    ):
        paper(asked(flux, pictures=("simple",), tables=("r2",), epochs=3), finished, OPTIONS)


def test_what_was_interrupted_goes_on(flux: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = asked(flux, pictures=("map2d",), tables=("accuracy", "7"))
    real, seen = paper_run.fit, []

    def stopped(config: Any, out: Path, options: Any) -> Path:
        if config.task == "logg" and not seen:
            seen.append(out)
            raise KeyboardInterrupt
        return real(config, out, options)

    monkeypatch.setattr(paper_run, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        paper(config, tmp_path, OPTIONS)
    assert not (tmp_path / "paper.json").exists()
    kept = (tmp_path / "runs" / "mock-lamost-classify-map2d" / "model.safetensors").stat().st_mtime_ns
    paper(config, tmp_path, OPTIONS)
    assert (tmp_path / "runs" / "mock-lamost-classify-map2d" / "model.safetensors").stat().st_mtime_ns == kept
    assert set(json.loads((tmp_path / "paper.json").read_text())["tables"]) == {"accuracy", "logg"}


def planned(config: PaperConfig) -> tuple[Any, dict[str, Objects]]:
    sets = data_sets(config.shards, config)
    objects = {each.name: Objects.read([Path(f) for f in each.folders], each.manifests) for each in sets}
    return plan(config, sets, objects), objects


def test_shards_of_pictures_give_the_one_that_they_hold(spectra: Path, tmp_path: Path) -> None:
    png = shards(spectra, tmp_path / "png", "png", image=ImageConfig(size=80, block=1))
    found, _ = planned(asked(png))
    assert {run.picture for run in found.runs} == {"map2d"}
    assert all(run.config.images == () for run in found.runs)
    assert not found.classical
    assert "make them with ENCODING=flux" in found.absent["mock-lamost", "", "mega"]
    assert "make them with ENCODING=flux" in found.absent["mock-lamost", "", "forest"]


def test_several_sets_are_trained_on_alone_and_together(flux: Path, more: Path, tmp_path: Path) -> None:
    both = (str(flux), str(more))
    config = asked(flux, shards=both, sets="all", pictures=("simple",), tables=("accuracy",))
    found, objects = planned(config)
    names = ["mock-lamost", "mock-lamost 2", "mock-lamost together"]
    assert list(objects) == names
    assert [run.name for run in found.runs] == [f"{name}-classify-simple" for name in names]
    assert [len(run.config.shards) for run in found.runs] == [1, 1, 2]
    assert len(planned(asked(flux, shards=both))[0].runs) == 22  # quick: together alone
    paper(asked(flux, shards=both, sets="all", tables=("1",)), tmp_path / "out", OPTIONS)
    said = json.loads((tmp_path / "out" / "paper.json").read_text())["summary"]
    assert [line for line in said if line.startswith("Data set")] == [
        f"Data set {name}: {folder}." for name, folder in zip(names, [*both, " and ".join(both)], strict=True)
    ]


def test_a_split_by_row_says_what_leaks(spectra: Path, tmp_path: Path) -> None:
    rows = shards(spectra, tmp_path / "rows", "flux", split_by="row")
    config = asked(rows)
    (each,) = data_sets(config.shards, config)
    objects = Objects.read([rows], each.manifests)
    lines = notes(config, each, objects)["mock-lamost", "data"]
    tests = Manifest.load(rows).samples("test")
    assert any(f"0 of {tests} test spectra are of an object of the train split" in line for line in lines)
    assert not any("no object is on two sides" in line for line in lines)


def test_the_help_shows_the_values_that_hold() -> None:
    said = CliRunner().invoke(train.app, ["paper", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    for option, value in {
        "epochs": "30",
        "lr": "1e-05",
        "seed": "42",
        "batch-size": "64",
        "normalise": "0.5",
    }.items():
        (line,) = (line for line in said.splitlines() if f"--{option} " in line)
        after = said[said.index(line) :].partition("[")[2].partition("]")[0]
        assert after == value, option


def test_the_paper_s_choices_hold_unless_others_are_given() -> None:
    config = PaperConfig.configure(shards=("x",))
    assert (config.epochs, config.lr, config.batch_size, config.seed) == (30, 1e-5, 64, 42)
    assert config.backbone == "facebook/dino-vitb16"
    assert PaperConfig.configure(shards=("x",), quick=True).backbone == "tiny"
    assert PaperConfig.configure(shards=("x",), quick=True, epochs=5).epochs == 5
    assert PaperConfig.configure("modern", shards=("x",)).layer_decay == 0.75
    assert PaperConfig.configure(shards=("x",), tables=("9", "5")).wanted == ("sn", "crps")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pictures": ("photo",)}, "unknown --pictures photo: choose simple, overlap, map2d, mega"),
        ({"tables": ("2",)}, "unknown --tables 2: choose 1, 5, 6, 7, 8, 9, counts"),
        ({"sets": "some"}, "unknown --sets some: choose all, each, joint"),
    ],
)
def test_a_mistake_is_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PaperConfig.configure(shards=("x",), **given)


def test_an_empty_test_split_is_told_before_anything_is_trained(spectra: Path, tmp_path: Path) -> None:
    build(ShardConfig(encoding="flux", split=(0.8, 0.2, 0.0)), spectra, tmp_path / "s", engine=Engine(workers=0))
    with pytest.raises(UsageError, match="the test split is empty; use more objects"):
        paper(asked(tmp_path / "s"), tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


def test_without_shards_a_mock_of_both_surveys_is_made(
    flux: Path, more: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def make(survey: str, source: SurveyInput, out: Path, config: ShardConfig) -> None:
        seen.append((survey, source.data, source.chosen.limit, config.encoding, config.split))
        for part, made in (("sdss", flux), ("lamost", more)):
            shutil.copytree(made, out / part / "shards" / "map2d")

    monkeypatch.setattr(paper_run, "make", make)
    first = paper(PaperConfig.configure(quick=True, mock_files=24, tables=("1",)), tmp_path, OPTIONS)
    assert seen == [("slomost", None, 24, "flux", SPLIT)]
    rows = json.loads((tmp_path / "paper.json").read_text())["tables"]["counts"]["rows"]
    assert [row["cells"][4] for row in rows] == [180]
    assert "mock data" in first[1]

"""Baselines from the spectra: what they learn, from what, in which order, and beside which pictures."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine
from specshards.common.spectrum import Spectrum
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.shards import loader as shard_loader
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.loader.stack import resample
from specshards.shards.write.build import build
from specshards.train.config import TrainConfig
from specshards.train.evaluation import classical
from specshards.train.evaluation.classical import Classical, fit_classical
from specshards.train.evaluation.features import CLIP, normalise
from specshards.train.evaluation.predictions import FILE, IDENTITY, Answers, places
from specshards.train.tasks.metrics import regression
from specshards.train.tasks.multitask import make_tasks
from specshards.train.tasks.task import Task
from tests.conftest import make_spectrum

HERE = Engine(workers=0)
COUNT = 300


@pytest.fixture(scope="module", autouse=True)
def few_trees() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classical, "TREES", 20)
        yield


def truth(index: int) -> dict[str, object]:
    """Of object 1000 + index: a star's type and temperature, which every fifth lacks."""
    kind = "AFG"[index % 3]
    return {"class": "STAR", "subclass": f"{kind}{index % 9}", "z": None,
            "teff": None if index % 5 == 0 else 8500.0 - 1500 * (index % 3) - 10 * (index % 50)}  # fmt: skip


def star(index: int, rng: np.random.Generator, survey: str = "mock-lamost", n: int = 1300, start: float = 3.5682):
    """A continuum that tilts with the temperature; a line that the type has; some pixels lost."""
    wavelength = 10.0 ** (start + 3e-4 * np.arange(n))
    cold = (index % 3) + (index % 50) / 150
    flux = 100 * (wavelength / 6000) ** (cold - 1) * (1 - 0.5 * np.exp(-0.5 * ((wavelength - 5000) / 20) ** 2) * cold)
    flux = (rng.uniform(0.5, 20) * (flux + rng.normal(0, 2, n))).astype(np.float32)
    mask = rng.random(n) < 0.03
    flux[mask] = 1e7
    return make_spectrum(
        index, rng, n=n, survey=survey, wavelength=wavelength.astype(np.float32), flux=flux, mask=mask,
        wave_coeff0=start, wave_coeff1=3e-4, labels=truth(index),
    )  # fmt: skip


def write_spectra(spectra: Sequence[Spectrum], folder: Path) -> Path:
    folder.mkdir()
    write_parquet(to_table(spectra), folder / "part-00000.parquet", {"test": 1}, row_group_rows=20)
    return folder


@pytest.fixture(scope="module")
def stars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(11)
    return write_spectra([star(i, rng) for i in range(COUNT)], tmp_path_factory.mktemp("stars") / "spectra")


@pytest.fixture(scope="module")
def flux(stars: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("classical") / "flux"
    build(ShardConfig(encoding="flux", samples_per_shard=60), stars, out, engine=HERE)
    return str(out)


def tasks_of(folder: str, names: str = "subclass,teff") -> tuple[Task, ...]:
    with shard_loader.open(folder, "train", 8) as train:
        return make_tasks(TrainConfig(task=names, shards=(folder,)), [Manifest.load(Path(folder))], train.sidecar)


@pytest.fixture(scope="module")
def fitted(flux: str) -> Classical:
    return fit_classical(tasks_of(flux), [flux], threads=1)


@pytest.mark.parametrize("split", ["val", "test", "train"])
def test_answers_are_right_and_in_the_order_of_the_sidecar(fitted: Classical, flux: str, split: str) -> None:
    points = fitted.predict(split)
    assert set(points) == {"knn", "forest", "svm"}
    with shard_loader.open(flux, split, 8) as batches:
        index = [int(name) - 1000 for name in batches.sidecar(["object_id"])["object_id"].to_pylist()]
    assert len(index) > 15
    kinds = np.array([i % 3 for i in index])
    teff = np.array([truth(i)["teff"] for i in index], float)
    known = np.isfinite(teff)
    for by_task in points.values():
        assert set(by_task) == {"subclass", "teff"}
        assert by_task["subclass"].dtype == np.float64 and (by_task["subclass"] == kinds).mean() > 0.95
        # Every spectrum has an answer, also those whose label is missing.
        assert np.isfinite(by_task["teff"]).all() and len(by_task["teff"]) == len(index)
        assert regression(teff[known], by_task["teff"][known], redshift=False)["r2"] > 0.9


def test_the_features_and_the_neighbours_are_those_of_a_plain_reading(fitted: Classical, flux: str) -> None:
    grid = fitted.record["grid"]
    edges = np.geomspace(grid["low"], grid["high"], grid["bins"] + 1)
    spectra: dict[str, list[np.ndarray]] = {"train": [], "val": []}
    for split, rows in spectra.items():
        with shard_loader.open(flux, split, 1, view="spectra", shuffle=False) as batches:
            for batch in batches.spectra():
                values, good = resample(batch, edges)
                assert values.max() < 1e6, "a lost pixel's flux has got into the grid"
                rows.append(np.clip(values[0] / np.median(values[0][good[0]]), *CLIP))
    with shard_loader.open(flux, "train", 8) as train:
        used = [row["teff"] is not None or row["subclass"] is not None
                for row in train.sidecar(["teff", "subclass"]).to_pylist()]  # fmt: skip
    pca = PCA(50, svd_solver="full").fit(np.array(spectra["train"], np.float64)[used])
    expected = pca.transform(np.array(spectra["val"]))
    found = fitted.features("val")
    signs = np.sign((expected * found).sum(axis=0))
    # Components of nearly equal variance may turn among themselves: the first ones are what they are.
    np.testing.assert_allclose(found[:, :3] * signs[:3], expected[:, :3], rtol=0.01, atol=0.05)
    np.testing.assert_allclose((found**2).sum(axis=1), (expected**2).sum(axis=1), rtol=0.02)
    np.testing.assert_allclose(fitted.record["pca"]["explained_variance"], pca.explained_variance_ratio_, rtol=0.02)

    options = fitted.record["choices"]["knn"]["teff"]["chosen"]
    train = fitted.features("train").astype(np.float64)
    with shard_loader.open(flux, "train", 8) as batches:
        teff = np.array(batches.sidecar(["teff"])["teff"].to_pylist(), float)
    train, teff = train[np.isfinite(teff)], teff[np.isfinite(teff)]
    scale = train.std(axis=0) ** options["power"]
    distance = np.linalg.norm((found[:, None] - train) / scale, axis=2)
    nearest = np.argsort(distance, axis=1)[:, : options["n_neighbors"]]
    weight = 1 / np.take_along_axis(distance, nearest, axis=1)
    answer = (weight * teff[nearest]).sum(axis=1) / weight.sum(axis=1)
    np.testing.assert_allclose(fitted.predict("val")["knn"]["teff"], answer, rtol=1e-4)


def test_the_record_says_what_was_used_and_how_it_was_chosen(fitted: Classical, flux: str) -> None:
    record = json.loads(json.dumps(fitted.record, allow_nan=False))
    manifest = Manifest.load(Path(flux))
    assert record["mock"] is True and record["train_used"] == record["train_objects"] == manifest.samples("train")
    assert record["pca"]["components"] == 50 and 0.3 < sum(record["pca"]["explained_variance"]) <= 1
    assert record["seconds"] > 0 and record["data"][0]["fingerprint"] == manifest.fingerprint()
    labelled = manifest.label_stats["teff"].count
    assert labelled < record["train_used"]
    for name, grid in classical.GRIDS.items():
        choice = record["choices"][name]["teff"]
        assert choice["train_used"] == labelled and record["choices"][name]["subclass"]["train_used"] > labelled
        errors = [entry["mae"] for entry in choice["tried"]]
        assert len(errors) == len(grid) and choice["by"] == "mae on validation"
        assert choice["chosen"] == grid[int(np.argmin(errors))]
        scores = [entry["macro_f1"] for entry in record["choices"][name]["subclass"]["tried"]]
        assert record["choices"][name]["subclass"]["chosen"] == grid[int(np.argmax(scores))]


def test_the_test_split_is_not_looked_at_and_a_seed_repeats_all(flux: str, fitted: Classical, tmp_path: Path) -> None:
    shutil.copytree(flux, tmp_path / "s")
    shutil.rmtree(tmp_path / "s" / "test")
    tasks = tasks_of(flux)
    again = fit_classical(tasks, [str(tmp_path / "s")], threads=1)
    for name, by_task in again.predict("val").items():
        for task, point in by_task.items():
            np.testing.assert_allclose(point, fitted.predict("val")[name][task], rtol=1e-6)
    with pytest.raises(JobError, match="missing"):
        again.predict("test")
    few = [fit_classical(tasks, [flux], threads=1, limit=40, seed=seed) for seed in (1, 1, 2)]
    points = [one.predict("val")["knn"]["teff"] for one in few]
    np.testing.assert_allclose(points[0], points[1], rtol=1e-6)
    assert not np.allclose(points[0], points[2], rtol=1e-6)


def test_caps_are_kept_and_said(
    flux: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(classical, "MOST_FOR_SVM", 20)
    fitted = fit_classical(tasks_of(flux, "teff"), [flux], threads=1, limit=30)
    assert "on 30 of " in (said := capsys.readouterr().out) and "limit 30; support vectors 20" in said
    assert said.startswith("MOCK data")
    used = {name: choice["teff"]["train_used"] for name, choice in fitted.record["choices"].items()}
    assert used == {"knn": 30, "forest": 30, "svm": 20} and fitted.record["pca"]["components"] == 29
    with pytest.raises(UsageError, match="limit 1: give at least 2"):
        fit_classical(tasks_of(flux, "teff"), [flux], limit=1)


def test_of_a_large_split_a_stated_sample_is_answered(
    flux: str, fitted: Classical, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(classical, "MOST_ANSWERED", 10)
    monkeypatch.setattr(classical, "_ANSWERED", 4)
    sidecar = fitted.sidecar("val", IDENTITY)
    n, whole = len(sidecar), fitted.predict("val")
    fitted.write(tmp_path, ["val"])
    assert f"answered: 10 of {n} val spectra, drawn by seed 0" in capsys.readouterr().out
    answers = Answers.read(tmp_path)
    assert answers.record["answered"] == {"val": {"objects": n, "answered": 10}} and answers.table.num_rows == 60
    for name, by_task in answers.beside("val", sidecar).items():
        for task, point in by_task.items():
            known = np.isfinite(point)
            assert known.sum() == 10
            np.testing.assert_allclose(point[known], whole[name][task][known], rtol=1e-6)
    with pytest.raises(UsageError, match="have no answer there"):  # of other objects: no sample of theirs
        answers.beside("val", sidecar.slice(1))
    monkeypatch.setattr(classical, "MOST_TO_CHOOSE", 12)
    few = fit_classical(tasks_of(flux, "teff"), [flux], threads=1, limit=40)
    assert few.record["validation"] == {"objects": n, "used": 12}
    assert f"chosen on 12 of {n} validation spectra" in capsys.readouterr().out


names = st.lists(
    st.tuples(st.sampled_from(["a", "b", None]), st.text("01\n", max_size=2), st.text("01\n", max_size=2)),
    max_size=12, unique_by=lambda row: (row[0] or "", *row[1:]),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(there=names, data=st.data(), sample=st.booleans())
def test_rows_are_found_by_their_names(there: list[Any], data: st.DataObject, sample: bool) -> None:
    """As a dictionary of the names finds them."""
    wanted = data.draw(st.one_of(st.permutations(there), names))
    block, sidecar = (pa.table([pa.array(column, pa.string()) for column in zip(*rows, strict=True)] or [
        pa.array([], pa.string())] * 3, names=list(IDENTITY)) for rows in (there, wanted))  # fmt: skip
    where = {tuple(name or "" for name in row): i for i, row in enumerate(there)}
    expected = [where.get(tuple(name or "" for name in row), -1) for row in wanted]
    found = len([place for place in expected if place >= 0])
    if found < len(wanted) and not (sample and found == len(there)):
        with pytest.raises(UsageError, match=f"{len(wanted) - found} of {len(wanted)} objects"):
            places(block, sidecar, "val", Path("p"), sample=sample)
    else:
        assert places(block, sidecar, "val", Path("p"), sample=sample).tolist() == expected


def test_without_validation_the_first_of_each_grid_is_taken(stars: Path, tmp_path: Path) -> None:
    build(ShardConfig(encoding="flux", split=(0.8, 0.0, 0.2)), stars, tmp_path / "s", engine=HERE)
    fitted = fit_classical(tasks_of(str(tmp_path / "s"), "teff"), [str(tmp_path / "s")], threads=1)
    for name, grid in classical.GRIDS.items():
        assert fitted.record["choices"][name]["teff"]["chosen"] == grid[0]
        assert fitted.record["choices"][name]["teff"]["by"] == "the first"
    assert len(fitted.predict("test")["svm"]["teff"]) > 15


def test_one_class_alone_is_answered(flux: str) -> None:
    points = fit_classical(tasks_of(flux, "classify"), [flux], threads=1).predict("val")
    assert all((by_task["classify"] == 0).all() for by_task in points.values())


def test_pictures_and_labels_that_nobody_has_are_refused(flux: str, stars: Path, tmp_path: Path) -> None:
    build(ShardConfig(), stars, tmp_path / "png", engine=HERE)
    with pytest.raises(UsageError, match="make shards with ENCODING=flux"):
        fit_classical(tasks_of(flux), [str(tmp_path / "png")])
    unlabelled = [star(i, np.random.default_rng(i)) for i in range(0, 200, 5)]
    build(ShardConfig(encoding="flux"), write_spectra(unlabelled, tmp_path / "u"), tmp_path / "us", engine=HERE)
    with pytest.raises(UsageError, match="fewer than two train objects have a teff"):
        fit_classical(tasks_of(flux, "teff"), [str(tmp_path / "us")])


def test_the_grid_is_what_the_surveys_share(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    blue = [star(i, rng, n=1000) for i in range(100)]
    red = [star(200 + i, rng, "mock-sdss", start=3.65) for i in range(100)]
    odd = [star(400, rng, "mock-desi", n=50, start=3.9), star(401, rng, "mock-desi", n=50, start=3.9)]
    build(ShardConfig(encoding="flux"), write_spectra(blue + red + odd, tmp_path / "a"), tmp_path / "s", engine=HERE)
    fitted = fit_classical(tasks_of(str(tmp_path / "s"), "teff"), [str(tmp_path / "s")], threads=1)
    grid = fitted.record["grid"]
    # Three of a hundred pixels are lost: the first and last good ones lie a little inside.
    low, high = 10**3.65, 10 ** (3.5682 + 3e-4 * 999)
    assert low <= grid["low"] < low * 1.003 and high / 1.003 < grid["high"] <= high
    assert abs(grid["bins"] - np.log10(grid["high"] / grid["low"]) / 3e-4) <= 0.5
    assert {"mock-lamost", "mock-sdss"} <= set(grid["ranges"])
    apart = blue + [star(200 + i, rng, "mock-sdss", start=3.9) for i in range(100)]
    build(ShardConfig(encoding="flux"), write_spectra(apart, tmp_path / "b"), tmp_path / "t", engine=HERE)
    with pytest.raises(UsageError, match=r"share no range of wavelengths \(mock-lamost \d+ to \d+ A, mock-sdss"):
        fit_classical(tasks_of(str(tmp_path / "t"), "teff"), [str(tmp_path / "t")], threads=1)


def test_a_row_is_divided_by_its_median_and_clipped() -> None:
    nothing = np.zeros(4, bool)
    flux = np.array([[2, 4, 6, 500], [-8, -4, -4, 100], [0, 0, 0, 5], [7, 7, 7, 7], [9, 9, 9, 9]], np.float32)
    good = np.array([[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1], nothing, [1, 1, 1, 1]], bool)
    expected = [[0.5, 1, 1.5, 10], [-2, -1, -1, 10], [0, 0, 0, 5], [1, 1, 1, 1], [1, 1, 1, 1]]
    np.testing.assert_allclose(normalise(flux, good), expected)


# --- beside the pictures


@pytest.fixture(scope="module")
def run(fitted: Classical, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    assert fitted.write(out) == out / FILE
    return out


@pytest.mark.parametrize("split", ["val", "test"])
def test_pictures_of_the_same_spectra_are_answered_in_their_own_order(
    run: Path, fitted: Classical, stars: Path, tmp_path: Path, split: str
) -> None:
    build(ShardConfig(samples_per_shard=30), stars, tmp_path / "png", engine=HERE)
    with shard_loader.open(tmp_path / "png", split, 8) as pictures:
        sidecar = pictures.sidecar(IDENTITY)
    own = fitted.sidecar(split, IDENTITY)["object_id"].to_pylist()
    theirs = sidecar["object_id"].to_pylist()
    assert own != theirs and sorted(own) == sorted(theirs)
    for name, by_task in Answers.read(run).beside(split, sidecar).items():
        for task, point in by_task.items():
            expected = dict(zip(own, fitted.predict(split)[name][task], strict=True))
            np.testing.assert_array_equal(point, [expected[one] for one in theirs])


def test_another_split_and_doubles_are_refused(run: Path, stars: Path, tmp_path: Path) -> None:
    build(ShardConfig(seed=1), stars, tmp_path / "other", engine=HERE)
    answers = Answers.read(run)
    with shard_loader.open(tmp_path / "other", "val", 8) as pictures:
        sidecar = pictures.sidecar(IDENTITY)
        with pytest.raises(UsageError, match=r"\d+ of \d+ objects of the val split have no answer .* one seed"):
            answers.beside("val", sidecar)
    mine = answers.table.filter(pa.compute.equal(answers.table["split"], "val"))
    block = mine.slice(0, len(mine) // 6).select(IDENTITY)
    assert answers.beside("val", block)["knn"]["teff"].shape == (len(block),)
    with pytest.raises(UsageError, match=r"the shards: mock-lamost 1.* is there twice"):
        answers.beside("val", pa.concat_tables([block, block.slice(0, 1)]))
    with pytest.raises(UsageError, match="no answers for the train split"):
        answers.beside("train", block)


def test_what_is_written_is_whole_and_no_model(run: Path, fitted: Classical, tmp_path: Path) -> None:
    table = pq.read_table(run / FILE)
    assert table.column_names == ["key", *IDENTITY, "split", "baseline", "task", "point"]
    counts = Counter(zip(*(table[name].to_pylist() for name in ("split", "baseline", "task")), strict=True))
    assert len(counts) == 12 and sum(counts.values()) == table.num_rows
    assert [path.name for path in run.iterdir()] == [FILE]
    assert Answers.read(run).record == json.loads(json.dumps(fitted.record))
    with pytest.raises(UsageError, match="fit the baselines first"):
        Answers.read(tmp_path)
    (tmp_path / FILE).write_bytes(b"PAR1 no table")
    with pytest.raises(JobError, match="not answers of this program"):
        Answers.read(tmp_path)

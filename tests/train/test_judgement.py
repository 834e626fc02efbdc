"""What `measure` makes of a model's predictions: scores by group, with intervals; baselines learnt from train."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy import stats
from sklearn.metrics import recall_score

from specshards.common.json import finite
from specshards.shards.format.manifest import LabelStats, ShardConfig
from specshards.train.evaluation.conformal import calibrate
from specshards.train.evaluation.measure import SN_BINS, measure
from specshards.train.evaluation.score import Scored
from specshards.train.evaluation.witnesses import WITNESS, add_witnesses
from specshards.train.tasks.classification import Classify
from specshards.train.tasks.constant import Baselines
from specshards.train.tasks.drawn import few_to_calibrate, said
from specshards.train.tasks.regression import Redshift, Regression, regression

CLASSES = ("STAR", "GALAXY", "QSO")


def sidecar() -> pa.Table:
    return pa.table(
        {
            "survey": ["a"] * 5 + ["b"] * 4,
            "class": ["STAR", "STAR", "STAR", "GALAXY", None, "QSO", "QSO", "GALAXY", None],
        }
    )


def test_baselines_are_the_majority_over_all_and_by_survey() -> None:
    task = Classify(CLASSES, "classify")
    baselines = Baselines.learn(task, sidecar())
    assert baselines.counts == {
        "all": 7, "survey a": 4, "survey b": 3, "class STAR": 3, "class GALAXY": 2, "class QSO": 2,
    }  # fmt: skip
    answers = baselines.predict(["a", "b", "never seen"])
    assert answers["constant"].tolist() == [0, 0, 0] and answers["survey_only"].tolist() == [0, 2, 0]
    assert Baselines.from_dict(baselines.to_dict()) == baselines


def test_a_model_that_only_knows_surveys_equals_the_survey_baseline() -> None:
    task = Classify(CLASSES, "classify")
    baselines = Baselines.learn(task, sidecar())
    surveys = np.array(["a", "a", "b", "b", "b"], dtype=object)
    true = np.array([0.0, 1.0, 2.0, np.nan, 2.0])
    point = baselines.predict(list(surveys))["survey_only"]
    labels = {"class": true, "sn_median": np.array([1.0, 3.0, 30.0, 3.0, np.nan])}
    scores = measure(task, Scored({"point": point}, labels, surveys, 0.0), baselines)
    assert scores["objects"] == 5 and scores["labelled"] == 4
    assert scores["all"]["accuracy"] == scores["baselines"]["survey_only"]["accuracy"] == 0.75
    assert scores["baselines"]["constant"]["accuracy"] == 0.25
    assert [scores["by_survey"][s]["count"] for s in "ab"] == [2, 2]
    assert {name: v["count"] for name, v in scores["by_sn"].items()} == {"below 2": 1, "2 to 5": 1, "20 and more": 1}


def labels_of(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, n).astype(float)
    return {
        "class": kind, "z": np.abs(rng.normal(0.5, 0.5, n)) * (kind > 0), "teff": rng.normal(6000, 900, n),
        "sn_median": np.exp(rng.normal(2, 1, n)), "ra": rng.uniform(0, 360, n), "dec": rng.uniform(-5, 60, n),
    }  # fmt: skip


def classified(n: int, seed: int = 0) -> tuple[Classify, Scored, Baselines]:
    labels = labels_of(n, seed)
    logits = np.random.default_rng(seed + 1).normal(size=(n, 3)) + 2 * np.eye(3)[labels["class"].astype(int)]
    task = Classify(CLASSES, "classify")
    surveys = np.array(["lamost", "sdss"], dtype=object)[np.arange(n) % 2]
    return task, Scored(task.decode(torch.from_numpy(logits)), labels, surveys, 0.5), Baselines(0.0, {"sdss": 1.0})


def regressed(n: int, name: str = "redshift", head: str = "gaussian") -> tuple[Regression, Scored, Baselines]:
    labels = labels_of(n)
    kind = Redshift if name == "redshift" else regression(name)
    label, known = kind.label, labels[kind.label]
    label_stats = LabelStats(n, float(known.mean()), float(known.std()), float(known.min()), float(known.max()))
    task = kind.scaled_by(label_stats, name, head, 64)
    known = labels[label] = np.where(np.arange(n) % 10 == 3, np.nan, known)
    axis = task.scaled(torch.from_numpy(np.nan_to_num(known, nan=1.0)))
    noisy = axis + 0.2 * torch.from_numpy(np.random.default_rng(5).normal(size=n))
    logits = torch.stack([noisy, torch.full((n,), 2 * np.log(0.2), dtype=torch.float64)], dim=1)[:, : task.head_size]
    columns = {**task.decode(logits), **task.calibration(logits, known)}
    surveys = np.array(["lamost"] * n, dtype=object)
    return task, Scored(columns, labels, surveys, 0.1), Baselines(float(np.nanmean(known)), {})


def test_judging_classes_gives_intervals_reliability_and_recall_by_sn() -> None:
    task, scored, baselines = classified(900)
    forest = np.where(np.arange(900) < 500, scored.labels["class"], np.nan)
    scores = measure(task, scored, baselines, extra={"random_forest": forest})
    for name in task.headline:
        low, high = scores["intervals"][name]
        assert low < scores["all"][name] < high and high - low < 0.1
    assert sum(b["count"] for b in scores["reliability"]) == 900
    answered = scores["baselines"]["random_forest"]
    assert (answered["accuracy"], answered["count"]) == (1, 500)
    true, point, sn = scored.labels["class"], scored.columns["point"], scored.labels["sn_median"]
    for i, kind in enumerate(CLASSES):
        for name, (low, high) in SN_BINS.items():
            inside = (sn >= low) & (sn < high) & (true == i)
            found = scores["class_by_sn"][kind].get(name, {"count": 0})
            assert found["count"] == inside.sum()
            if inside.any():
                expected = recall_score(true[inside], point[inside], labels=[i], average="macro")
                assert found["recall"] == pytest.approx(expected)


@pytest.mark.parametrize(("name", "head"), [("redshift", "gaussian"), ("redshift", "mse"), ("teff", "gaussian")])
def test_judging_numbers_gives_intervals_residuals_and_pit(name: str, head: str) -> None:
    task, scored, baselines = regressed(1000, name, head)
    scores = measure(task, scored, baselines)
    assert scores["labelled"] == 900 == scores["all"]["count"]
    assert set(scores["intervals"]) == set(task.headline) and "rmse" in task.headline
    for metric, (low, high) in scores["intervals"].items():
        assert low <= scores["all"][metric] <= high, metric
    assert ("pit" in scores) == (head != "mse")
    if head != "mse":
        assert sum(scores["pit"]) == 900 and stats.chisquare(scores["pit"]).pvalue > 0.001
    true = scored.labels[task.label]
    error = scored.columns["point"] - true
    error = (error / (1 + true) if name == "redshift" else error)[np.isfinite(true)]
    boxes = scores["residuals"]
    assert sum(b["count"] for b in boxes) == 900
    assert min(b["p5"] for b in boxes) >= error.min() and max(b["p95"] for b in boxes) <= error.max()
    assert all(("non_catastrophic" in v) == (name == "redshift") for v in scores["by_sn"].values())


def test_repeated_visits_widen_the_interval() -> None:
    task, scored, baselines = classified(400)
    again = np.tile(np.arange(400), 5)
    labels = {name: values[again] for name, values in scored.labels.items()}
    labels["dec"] = labels["dec"] + np.repeat(np.arange(5), 400) * 0.3 / 3600  # visits are not at the very same place
    visits = Scored({k: v[again] for k, v in scored.columns.items()}, labels, scored.surveys[again], 0.0)
    apart = {**labels, "ra": np.linspace(0, 359, 2000), "dec": np.zeros(2000)}

    def width(which: Scored) -> float:
        low, high = measure(task, which, baselines)["intervals"]["accuracy"]
        return high - low

    assert width(visits) == pytest.approx(width(scored), rel=0.25)
    assert width(replace(visits, labels=apart)) == pytest.approx(width(scored) / 5**0.5, rel=0.25)
    nowhere = {**labels, "ra": np.full(2000, np.nan)}
    assert width(replace(visits, labels=nowhere)) < 0.7 * width(scored)
    here = {**labels, "ra": np.zeros(2000), "dec": np.zeros(2000)}
    assert np.isnan(width(replace(visits, labels=here)))


def test_judging_nobody_is_all_nan() -> None:
    for task, scored, baselines in (classified(12), regressed(12)):
        labels = {**scored.labels, task.label: np.full(12, np.nan)}
        scores = measure(task, replace(scored, labels=labels, loss=float("nan")), baselines)
        assert scores["labelled"] == 0 and scores["by_sn"] == {} and not scores.get("class_by_sn")
        assert finite(scores)["intervals"] == {name: [None, None] for name in task.headline}


class Rows:
    """As much of a loader as is asked for the witnesses of its split."""

    split = "test"

    def __init__(self, table: pa.Table, *groups: tuple[str | None, int]) -> None:
        self.table, self.labels = table, {}  # type: ignore[var-annotated]
        self.manifests = [
            SimpleNamespace(config=ShardConfig(group=group), samples=lambda split, n=n: n) for group, n in groups
        ]

    def sidecar(self, names: list[str]) -> pa.Table:
        return self.table.select([name for name in names if name in self.table.column_names])

    def add_label(self, name: str, values: np.ndarray) -> None:
        self.labels[name] = values


def same(values: np.ndarray) -> list[int]:
    """For each row the first that it is one witness with."""
    return [values.tolist().index(value) for value in values.tolist()]


def test_witnesses_are_objects_or_what_the_split_keeps_together() -> None:
    nan = float("nan")
    table = pa.table({
        "survey": ["s"] * 6, "object_id": ["a", "b", "a", "b", "c", "d"],
        "ra": [nan, 10.0, nan, 50.0, 10.0, None], "dec": [nan, 0.0, nan, 0.0, 0.0001, None],
        "site": ["x", "x", "y", None, "z", None],
    })  # fmt: skip
    loader = Rows(table, (None, 6))
    assert add_witnesses(loader) == "object"  # type: ignore[arg-type]
    assert same(loader.labels[WITNESS]) == [0, 1, 0, 3, 1, 5], "by place, without one by id"
    loader = Rows(table, ("site", 6))
    assert add_witnesses(loader) == "site"  # type: ignore[arg-type]
    assert same(loader.labels[WITNESS]) == [0, 0, 0, 3, 0, 5], "and all that hangs together by sites"
    loader = Rows(table, (None, 2), ("site", 4))
    assert add_witnesses(loader) == "object or site"  # type: ignore[arg-type]
    assert same(loader.labels[WITNESS]) == [0, 1, 0, 3, 1, 5]


def test_groups_widen_intervals_and_few_have_none() -> None:
    task, scored, baselines = regressed(1000)
    nowhere = {**scored.labels, "ra": np.full(1000, np.nan), "dec": np.full(1000, np.nan)}
    true = scored.labels[task.label] + np.repeat(np.random.default_rng(0).normal(0, 2000, 20), 50)

    def found(groups: int) -> dict[str, Any]:
        labels = {**nowhere, task.label: true, WITNESS: np.arange(1000) * groups // 1000.0}
        return measure(task, replace(scored, labels=labels, drawn_by="site"), baselines)

    alone, sites = (found(n)["intervals"]["mae"] for n in (1000, 20))
    assert sites[1] - sites[0] > 3 * (alone[1] - alone[0])
    assert found(20)["drawn"] == {"by": "site", "count": 20}
    assert said(found(20)) == "95% intervals are drawn by site, 20 of them"
    few = found(4)
    assert np.isnan(few["intervals"]["mae"]).all() and np.isfinite(few["all"]["mae"])
    assert said(few) == "no intervals: they would be drawn by site, and 4 of them are too few"
    labels = {**nowhere, WITNESS: np.arange(1000) // 100.0}
    record = calibrate([task], {task.name: replace(scored, labels=labels, drawn_by="site")})[task.name]
    assert (record["by"], record["groups"]) == ("site", 10)
    assert "calibrated on 10 values of site, fewer than 19" in few_to_calibrate(record)
    assert "groups" not in calibrate([task], {task.name: scored})[task.name]

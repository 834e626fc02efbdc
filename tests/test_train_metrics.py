"""Metrics against torchmetrics and against numbers worked out by hand; baselines learnt from train alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional import r2_score
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_recall,
)

from train import metrics
from train.baselines import Baselines
from train.scoring import Scored, finite, judge
from train.tasks import Classification

CLASSES = ("STAR", "GALAXY", "QSO")


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=60))
def test_classification_agrees_with_torchmetrics(pairs: list[tuple[int, int]]) -> None:
    true, predicted = np.array(pairs).T
    ours = metrics.classification(true, predicted, CLASSES)
    t, p = torch.from_numpy(true), torch.from_numpy(predicted)
    assert ours["accuracy"] == pytest.approx(float(multiclass_accuracy(p, t, 3, average="micro")))
    assert ours["macro_f1"] == pytest.approx(float(multiclass_f1_score(p, t, 3, average="macro")), abs=1e-6)
    assert ours["confusion"] == multiclass_confusion_matrix(p, t, 3).tolist()
    recall = multiclass_recall(p, t, 3, average="none").tolist()
    for i, name in enumerate(CLASSES):
        if ours["per_class"][name]["count"]:
            assert ours["per_class"][name]["recall"] == pytest.approx(recall[i])


def test_regression_by_hand() -> None:
    true = np.array([0.0, 1.0, 1.0, 3.0])
    predicted = np.array([0.001, 1.2, 1.004, 2.0])
    result = metrics.regression(true, predicted, redshift=True, classes=np.array([0.0, 1.0, 2.0, np.nan]))
    dz = np.array([0.001, 0.1, 0.002, -0.25])
    assert result["mean_abs_dz"] == pytest.approx(np.abs(dz).mean())
    assert result["nmad"] == pytest.approx(1.4826 * 0.0495)  # median 0.0015; deviations .0005, .0005, .0985, .2515
    assert result["outliers"] == 0.25
    # 300 km/s of a star and 600 km/s of a quasar pass, 30,000 km/s of a galaxy does not; no class, no verdict.
    assert result["non_catastrophic"] == pytest.approx(2 / 3)
    assert result["r2"] == pytest.approx(float(r2_score(torch.from_numpy(predicted), torch.from_numpy(true))))


def test_the_limit_of_a_catastrophe_depends_on_the_class() -> None:
    dz = 2000 / metrics.LIGHT_SPEED
    shares = [
        metrics.regression(np.zeros(1), np.full(1, dz), redshift=True, classes=np.array([float(i)]))[
            "non_catastrophic"
        ]
        for i in range(3)
    ]
    assert shares == [0, 0, 1]


def test_nothing_to_measure_is_nan_and_null_in_json() -> None:
    empty = np.zeros(0)
    result = metrics.regression(empty, empty, redshift=True, classes=empty)
    assert result["count"] == 0 and np.isnan(result["nmad"]) and np.isnan(result["r2"])
    assert finite(result)["nmad"] is None
    assert np.isnan(metrics.classification(empty.astype(int), empty.astype(int), CLASSES)["macro_f1"])


def sidecar() -> pa.Table:
    return pa.table(
        {
            "survey": ["a"] * 5 + ["b"] * 4,
            "class": ["STAR", "STAR", "STAR", "GALAXY", None, "QSO", "QSO", "GALAXY", None],
        }
    )


def test_baselines_are_the_majority_over_all_and_by_survey() -> None:
    task = Classification(CLASSES)
    baselines = Baselines.learn(task, sidecar())
    assert baselines.counts == {
        "all": 7, "survey a": 4, "survey b": 3, "class STAR": 3, "class GALAXY": 2, "class QSO": 2,
    }  # fmt: skip
    answers = baselines.predict(["a", "b", "never seen"])
    assert answers["constant"].tolist() == [0, 0, 0] and answers["survey_only"].tolist() == [0, 2, 0]
    assert Baselines.from_dict(baselines.to_dict()) == baselines


def test_a_model_that_only_knows_surveys_equals_the_survey_baseline() -> None:
    task = Classification(CLASSES)
    baselines = Baselines.learn(task, sidecar())
    surveys = np.array(["a", "a", "b", "b", "b"], dtype=object)
    true = np.array([0.0, 1.0, 2.0, np.nan, 2.0])
    point = baselines.predict(list(surveys))["survey_only"]
    labels = {"class": true, "sn_median": np.array([1.0, 3.0, 30.0, 3.0, np.nan])}
    scores = judge(task, Scored({"point": point}, labels, surveys, 0.0), baselines)
    assert scores["objects"] == 5 and scores["labelled"] == 4
    assert scores["all"]["accuracy"] == scores["baselines"]["survey_only"]["accuracy"] == 0.75
    assert scores["baselines"]["constant"]["accuracy"] == 0.25
    assert [scores["by_survey"][s]["count"] for s in "ab"] == [2, 2]
    assert {name: v["count"] for name, v in scores["by_sn"].items()} == {"below 2": 1, "2 to 5": 1, "20 and more": 1}

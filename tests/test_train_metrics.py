"""Metrics against torchmetrics, scikit-learn, SciPy and numbers by hand; baselines learnt from train alone."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss, recall_score
from torchmetrics.functional import r2_score
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_recall,
)

from shards.format import LabelStats
from train import metrics
from train.baselines import Baselines
from train.classification import Classification
from train.heads import GaussianHead, HistogramHead, PointHead
from train.judgement import SN_BINS, headline, judge
from train.regression import Regression
from train.scoring import Scored, finite

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


def guesses(seed: int, n: int, k: int, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and truths drawn from them: calibrated when `sharpness` is 1."""
    rng = np.random.default_rng(seed)
    fair = rng.dirichlet(np.full(k, 0.7), n)
    true = (rng.random(n)[:, None] > fair.cumsum(axis=1)[:, :-1]).sum(axis=1)
    told = np.maximum(fair, 1e-12) ** sharpness
    return true, told / told.sum(axis=1, keepdims=True)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 300), st.integers(2, 6))
def test_probabilities_agree_with_sklearn_and_torchmetrics(seed: int, n: int, k: int) -> None:
    true, told = guesses(seed, n, k, 1.5)
    ours = metrics.probabilistic(true, told)
    assert ours["nll"] == pytest.approx(log_loss(true, told, labels=range(k)), rel=1e-6)
    ece = multiclass_calibration_error(torch.from_numpy(told), torch.from_numpy(true), k, n_bins=15)
    assert ours["ece"] == pytest.approx(float(ece), abs=1e-5)
    assert ours["brier"] == pytest.approx(((told - np.eye(k)[true]) ** 2).sum(axis=1).mean())


def test_a_calibrated_model_is_found_calibrated_and_a_boaster_is_not() -> None:
    assert metrics.probabilistic(*guesses(1, 100_000, 3))["ece"] < 0.005
    assert metrics.probabilistic(*guesses(1, 100_000, 3, 3.0))["ece"] > 0.05


def test_certainty_that_is_wrong_is_finite_and_nobody_is_nan() -> None:
    wrong = metrics.probabilistic(np.array([0]), np.array([[0.0, 1.0]]))
    assert 700 < wrong["nll"] < 710 and wrong["ece"] == 1 and wrong["brier"] == 2
    nobody = metrics.probabilistic(np.zeros(0, int), np.zeros((0, 3)))
    assert set(nobody) == set(wrong) and all(np.isnan(value) for value in nobody.values())


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 400))
def test_reliability_agrees_with_sklearn(seed: int, n: int) -> None:
    true, told = guesses(seed, n, 3)
    bins = metrics.reliability(true, told)
    accuracy, confidence = calibration_curve(told.argmax(axis=1) == true, told.max(axis=1), n_bins=10)
    filled = [b for b in bins if b["count"]]
    np.testing.assert_allclose([b["accuracy"] for b in filled], accuracy)
    np.testing.assert_allclose([b["confidence"] for b in filled], confidence)
    assert sum(b["count"] for b in bins) == n and len(bins) == 10
    assert all(b["low"] < b["confidence"] <= b["high"] for b in filled)


def test_the_pit_of_the_right_gaussian_is_even_and_of_a_narrow_one_a_bowl() -> None:
    truth = np.random.default_rng(0).normal(2, 3, 20_000)
    even = metrics.pit_histogram(np.append(stats.norm(2, 3).cdf(truth), [np.nan, 1 + 1e-12]))
    assert sum(even) == 20_001 and stats.chisquare(even).pvalue > 0.01
    bowl = metrics.pit_histogram(stats.norm(2, 2).cdf(truth))
    assert min(bowl[0], bowl[-1]) > 2 * max(bowl[8:12])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([0.0, 0.0, 0.1, 0.5, 1.0, 2.0, 5.0]) | st.floats(-1, 9), max_size=80))
def test_residual_boxes_hold_every_object_once(values: list[float]) -> None:
    true = np.array(values)
    error = np.random.default_rng(len(values)).normal(size=len(values))
    boxes = metrics.residual_boxes(true, error)
    assert sum(box["count"] for box in boxes) == len(true) and len(boxes) <= 10
    for box in boxes:
        below = np.less_equal if box is boxes[-1] else np.less
        inside = (true >= box["low"]) & below(true, box["high"])
        assert inside.sum() == box["count"]
        for name, percent in (("p5", 5), ("q1", 25), ("median", 50), ("q3", 75), ("p95", 95)):
            assert box[name] == pytest.approx(stats.scoreatpercentile(error[inside], percent))


@pytest.mark.parametrize(("n", "full"), [(1000, [100] * 10), (40, [10] * 4), (3, [3])])
def test_boxes_of_different_values_are_equally_full(n: int, full: list[int]) -> None:
    boxes = metrics.residual_boxes(np.random.default_rng(0).normal(size=n), np.zeros(n))
    assert [box["count"] for box in boxes] == full


def mean_of(values: np.ndarray):  # type: ignore[no-untyped-def]
    return lambda rows: {"mean": float(values[rows].mean())}


def test_bootstrap_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng, inside = np.random.default_rng(0), 0
    for seed in range(400):
        sample = rng.normal(1, 2, 80)
        low, high = metrics.bootstrap(mean_of(sample), 80, seed=seed)["mean"]
        inside += low < 1 < high
    assert 0.91 < inside / 400 < 0.975  # 95% but for chance (1.1%) and the few objects of each sample


def test_bootstrap_agrees_with_theory_and_scipy_and_is_the_same_again() -> None:
    sample = np.random.default_rng(1).normal(1, 2, 400)
    ours = metrics.bootstrap(mean_of(sample), 400, rounds=2000)["mean"]
    theirs = stats.bootstrap((sample,), np.mean, n_resamples=2000, method="percentile", rng=2).confidence_interval
    np.testing.assert_allclose(ours, [theirs.low, theirs.high], atol=0.02)
    np.testing.assert_allclose(ours, sample.mean() + np.array([-1.96, 1.96]) * sample.std() / 20, atol=0.02)
    assert ours == metrics.bootstrap(mean_of(sample), 400, rounds=2000)["mean"]


def test_visits_of_one_object_are_one_witness() -> None:
    sample = np.random.default_rng(1).normal(size=300)
    alone = np.diff(metrics.bootstrap(mean_of(sample), 300)["mean"])
    four_times = np.repeat(sample, 4)
    order = np.random.default_rng(2).permutation(1200)
    groups = np.repeat(np.arange(300) * 7, 4)[order]
    together = np.diff(metrics.bootstrap(mean_of(four_times[order]), 1200, groups=groups)["mean"])
    naive = np.diff(metrics.bootstrap(mean_of(four_times), 1200)["mean"])
    assert together == pytest.approx(alone, rel=0.2) and naive == pytest.approx(alone / 2, rel=0.2)


def test_bootstrap_of_too_little_is_nan_and_undefined_rounds_are_left_out() -> None:
    assert np.isnan(metrics.bootstrap(mean_of(np.ones(1)), 1)["mean"]).all()
    one_object = metrics.bootstrap(mean_of(np.arange(5.0)), 5, groups=np.zeros(5, int))
    assert np.isnan(one_object["mean"]).all()
    never_wrong = metrics.bootstrap(mean_of(np.ones(40)), 40)
    assert np.isnan(never_wrong["mean"]).all(), "40 right answers are no proof that all are right"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        never = metrics.bootstrap(lambda rows: {"x": float("nan")}, 9)
        sometimes = metrics.bootstrap(lambda rows: {"x": float(rows[0]) if rows[0] > 4 else float("nan")}, 9)
    assert np.isnan(never["x"]).all() and sometimes["x"] == [5, 8]


def test_bootstrap_of_a_million_objects_draws_less_often() -> None:
    calls = 0

    def measure(rows: np.ndarray) -> dict[str, float]:
        nonlocal calls
        calls += 1
        assert len(rows) == 1_000_000
        return {"x": 1.0}

    metrics.bootstrap(measure, 1_000_000)
    assert calls == 50


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.floats(-3, 3), st.sampled_from([12, 64]))
def test_a_histograms_cdf_and_crps_agree_with_scipy(seed: int, value: float, bins: int) -> None:
    head = HistogramHead(-1, 2, bins)
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 2, (1, bins)))
    edges = head.edges.numpy()
    density = stats.rv_histogram((logits.softmax(dim=1).numpy()[0], edges), density=False)
    at = torch.tensor([value], dtype=torch.float64)
    assert float(head.cdf(logits, at)) == pytest.approx(float(density.cdf(value)), abs=1e-9)
    expected = crps(density.cdf, value, [*edges, value])
    assert float(head.crps(logits, at)) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.floats(-4, 4), st.floats(-3, 3), st.floats(-6, 6))
def test_a_gaussians_cdf_and_crps_agree_with_scipy(mean: float, log_variance: float, value: float) -> None:
    logits = torch.tensor([[mean, log_variance]], dtype=torch.float64)
    at, truth = torch.tensor([value], dtype=torch.float64), stats.norm(mean, np.exp(0.5 * log_variance))
    assert float(GaussianHead().cdf(logits, at)) == pytest.approx(float(truth.cdf(value)), abs=1e-9)
    steps = [*np.linspace(truth.mean() - 9 * truth.std(), truth.mean() + 9 * truth.std(), 37), value]
    assert float(GaussianHead().crps(logits, at)) == pytest.approx(crps(truth.cdf, value, steps), rel=1e-5, abs=1e-7)


def crps(cdf, value: float, steps: list[float]) -> float:  # type: ignore[no-untyped-def]
    """Its definition, integrated piece by piece between the steps."""
    places = np.unique(steps)
    return sum(
        integrate.fixed_quad(lambda t: (cdf(t) - (t >= value)) ** 2, low, high, n=12)[0]
        for low, high in pairwise(places)
    )


def test_a_point_has_no_pit_and_its_crps_is_its_error() -> None:
    logits, value = torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, 1.5])
    assert torch.isnan(PointHead().cdf(logits, value)).all()
    assert PointHead().crps(logits, value).tolist() == [2, 0.5]


def test_values_drawn_from_a_histogram_have_an_even_pit() -> None:
    head, rng = HistogramHead(0, 1, 32), np.random.default_rng(3)
    logits = torch.from_numpy(rng.normal(0, 2, 32)).expand(20_000, -1)
    drawn = stats.rv_histogram((logits[0].softmax(0).numpy(), head.edges.numpy()), density=False).rvs(
        size=20_000, random_state=4
    )
    pit = head.cdf(logits, torch.from_numpy(drawn)).numpy()
    assert stats.chisquare(metrics.pit_histogram(pit)).pvalue > 0.01


# What `judge` makes of all that


def labels_of(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, n).astype(float)
    return {
        "class": kind, "z": np.abs(rng.normal(0.5, 0.5, n)) * (kind > 0), "teff": rng.normal(6000, 900, n),
        "sn_median": np.exp(rng.normal(2, 1, n)), "ra": rng.uniform(0, 360, n), "dec": rng.uniform(-5, 60, n),
    }  # fmt: skip


def classified(n: int, seed: int = 0) -> tuple[Classification, Scored, Baselines]:
    labels = labels_of(n, seed)
    logits = np.random.default_rng(seed + 1).normal(size=(n, 3)) + 2 * np.eye(3)[labels["class"].astype(int)]
    task = Classification(CLASSES)
    surveys = np.array(["lamost", "sdss"], dtype=object)[np.arange(n) % 2]
    return task, Scored(task.decode(torch.from_numpy(logits)), labels, surveys, 0.5), Baselines(0.0, {"sdss": 1.0})


def regressed(n: int, name: str = "redshift", head: str = "gaussian") -> tuple[Regression, Scored, Baselines]:
    labels = labels_of(n)
    label = "z" if name == "redshift" else name
    known = labels[label]
    label_stats = LabelStats(n, float(known.mean()), float(known.std()), float(known.min()), float(known.max()))
    task = Regression.fit(name, label_stats, head, 64)
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
    scores = judge(task, scored, baselines, extra={"random_forest": forest})
    for name in headline(task):
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
    scores = judge(task, scored, baselines)
    assert scores["labelled"] == 900 == scores["all"]["count"]
    assert set(scores["intervals"]) == set(headline(task)) and "rmse" in headline(task)
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
        low, high = judge(task, which, baselines)["intervals"]["accuracy"]
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
        scores = judge(task, replace(scored, labels=labels, loss=float("nan")), baselines)
        assert scores["labelled"] == 0 and scores["by_sn"] == {} and not scores.get("class_by_sn")
        assert finite(scores)["intervals"] == {name: [None, None] for name in headline(task)}

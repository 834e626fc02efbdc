"""Metrics against torchmetrics, scikit-learn, SciPy and numbers by hand."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss
from torchmetrics.functional import r2_score
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_recall,
)

from specshards.common.json import finite
from specshards.train.tasks import metrics
from specshards.train.tasks.heads import GaussianHead, HistogramHead, PointHead

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

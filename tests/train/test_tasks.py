"""Losses that never see a missing label, heads that give back what they were told, scalings that invert."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specshards.common.errors import UsageError
from specshards.common.spectrum import LABELS
from specshards.render import ImageConfig
from specshards.shards.format.manifest import LabelStats, Manifest, ShardConfig, ShardRecord, combine_stats
from specshards.train.config import HEADS, TrainConfig, configure
from specshards.train.tasks.classification import Classification, Classify, Subclass, spectral_type
from specshards.train.tasks.coded import Coded
from specshards.train.tasks.heads import GaussianHead, HistogramHead, PointHead
from specshards.train.tasks.multitask import make_tasks, masked_loss, split_logits, task_from_dict
from specshards.train.tasks.regression import Redshift, Regression, regression
from specshards.train.tasks.task import Task

STATS = LabelStats(count=1000, mean=0.4, std=0.6, min=-0.002, max=4.5)


def redshift(head: str = "histogram") -> Regression:
    return Redshift.scaled_by(STATS, "redshift", head)


TASKS: list[Task] = [
    Classify(("STAR", "GALAXY", "QSO"), "classify"),
    Subclass(("A", "F", "G"), "subclass", (0.2, 0.5, 0.3), "weights"),
    Subclass(("A", "F", "G"), "subclass", (0.2, 0.5, 0.3), "logits"),
    *(redshift(head) for head in HEADS[1:]),
]


def _make(config: TrainConfig, manifests: list[Manifest], subclasses: list[str | None] | None = None) -> Task:
    return make_tasks(config, manifests, lambda columns: pa.table({"subclass": subclasses or []}))[0]


def manifest(stats: dict[str, LabelStats] | None = None, classes: dict[str, int] | None = None) -> Manifest:
    empty = combine_stats([])
    shard = ShardRecord("train", "train/train-000000.tar", 1, 1, "", "", "", classes or {"STAR": 5, "QSO": 2})
    return Manifest(
        config=ShardConfig(image=ImageConfig()), input_fingerprint="", objects=1, quarantined=0,
        classes=("STAR", "GALAXY", "QSO"), surveys=("mock",), shards=(shard,), mock=True,
        label_stats={name: (stats or {}).get(name, empty) for name in LABELS},
    )  # fmt: skip


@settings(deadline=None)
@given(st.data(), st.integers(1, 12), st.sampled_from(TASKS))
def test_only_labelled_samples_that_are_not_padding_count(data: st.DataObject, n: int, task: Task) -> None:
    known = torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    valid = torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    logits = torch.tensor(rng.normal(size=(n, task.head_size)), dtype=torch.float32, requires_grad=True)
    label = torch.tensor(rng.integers(0, 3, n), dtype=torch.float64)
    masked = torch.where(known, label, float("nan"))
    total, count = masked_loss(task, logits, masked, valid)
    total.backward()
    counts = known & valid
    assert int(count) == int(counts.sum())
    assert logits.grad is not None and torch.isfinite(logits.grad).all()
    assert (logits.grad[~counts] == 0).all()
    expected = task.sample_loss(logits.detach()[counts], label[counts].float()).sum()
    torch.testing.assert_close(total.detach(), expected, rtol=1e-4, atol=1e-5)


def test_a_batch_without_labels_has_a_zero_loss_and_a_gradient() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    total, count = masked_loss(TASKS[0], logits, torch.full((4,), torch.nan), torch.ones(4, dtype=torch.bool))
    total.backward()
    assert float(total.detach()) == 0 and int(count) == 0 and (logits.grad == 0).all()


@settings(deadline=None)
@given(st.floats(-1, 3), st.sampled_from([32, 128, 300]), st.booleans())
def test_a_histogram_gives_back_the_value_it_was_told(value: float, bins: int, mode: bool) -> None:
    head = HistogramHead(-1, 3, bins)
    target = head.target(torch.tensor([value], dtype=torch.float64))
    assert float(target.sum()) == pytest.approx(1)
    logits = target.clamp_min(1e-30).log()
    assert float(head.point(logits, mode=mode)) == pytest.approx(value, abs=0.02 * head.width)
    q16, q50, q84 = head.quantiles(logits)[0].tolist()
    assert q16 < q50 < q84 and q50 == pytest.approx(value, abs=0.1 * head.width)
    assert (q84 - q16) / 2 == pytest.approx(0.8 * head.width, rel=0.2)
    assert float(head.std(logits)) == pytest.approx(math.hypot(0.75, 12**-0.5) * head.width, rel=0.02)


def test_the_mode_is_not_drawn_towards_another_peak() -> None:
    head = HistogramHead(0, 1, 128)
    two = 0.7 * head.target(torch.tensor([0.2])) + 0.3 * head.target(torch.tensor([0.9]))
    logits = two.clamp_min(1e-30).log()
    assert float(head.point(logits, mode=True)) == pytest.approx(0.2, abs=1e-3)
    assert float(head.point(logits, mode=False)) == pytest.approx(0.41, abs=1e-3)


def test_labels_outside_the_train_range_count_as_its_ends() -> None:
    head = HistogramHead(0, 1, 64)
    assert torch.equal(head.target(torch.tensor([7.0])), head.target(torch.tensor([1.0])))


def test_gaussian_and_point_heads_against_torch() -> None:
    logits, target = torch.randn(50, 2), torch.randn(50)
    theirs = torch.nn.functional.gaussian_nll_loss(logits[:, 0], target, logits[:, 1].exp(), reduction="none", eps=0)
    # beta-NLL: a sample counts as much as its predicted standard deviation, which learns nothing by it.
    expected = theirs * logits[:, 1].exp().sqrt()
    torch.testing.assert_close(GaussianHead().loss(logits, target), expected)
    leaf = logits.clone().requires_grad_()
    GaussianHead().loss(leaf, target).sum().backward()
    error = leaf.detach()[:, 0] - target
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad[:, 0], error * (-0.5 * leaf.detach()[:, 1]).exp())
    torch.testing.assert_close(PointHead().loss(logits[:, :1], target), (logits[:, 0] - target) ** 2)
    assert torch.isnan(PointHead().std(logits[:, :1])).all()
    q16, q50, q84 = GaussianHead().quantiles(torch.zeros(1, 2))[0].tolist()
    assert (q16, q50, q84) == pytest.approx((-0.9945, 0, 0.9945), abs=1e-3)


@settings(deadline=None)
@given(st.floats(-0.5, 9), st.sampled_from([Redshift, regression("teff")]))
def test_scaling_inverts(value: float, kind: type[Regression]) -> None:
    task = kind.scaled_by(STATS, "a task", "mse")
    label = torch.tensor([value], dtype=torch.float64)
    assert float(task.physical(task.scaled(label))) == pytest.approx(value, abs=1e-9)


def test_redshift_is_scaled_so_that_an_error_on_the_axis_is_dz() -> None:
    task = redshift()
    for z in (0.0, 0.5, 3.0):
        near = torch.tensor([z, z + 1e-4 * (1 + z)], dtype=torch.float64)
        assert float(task.scaled(near).diff()) * task.scale == pytest.approx(1e-4, rel=1e-3)


@pytest.mark.parametrize("head", HEADS[1:])
def test_decoded_columns_are_in_the_labels_unit(head: str) -> None:
    task = redshift(head)
    truth = torch.tensor([0.1, 1.0, 3.3], dtype=torch.float64)
    axis = task.scaled(truth)
    logits = {
        "histogram": lambda: task._head.target(axis).clamp_min(1e-30).log(),  # type: ignore[attr-defined]
        "gaussian": lambda: torch.stack([axis, torch.full((3,), -8.0)], dim=1),
        "mse": lambda: axis[:, None],
    }[head]()
    columns = task.decode(logits)
    assert set(columns) == {"point", "z_std", "z_q16", "z_q50", "z_q84"}
    np.testing.assert_allclose(columns["point"], truth, atol=1e-3)
    if head == "mse":
        assert np.isnan(columns["z_std"]).all()
    else:
        assert (columns["z_q16"] < columns["point"]).all() and (columns["point"] < columns["z_q84"]).all()
        np.testing.assert_allclose((columns["z_q84"] - columns["z_q16"]) / 2, columns["z_std"], rtol=0.25)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_survives_its_record(task: Task) -> None:
    assert task_from_dict(task.to_dict()) == task


def test_an_unknown_task_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown TASK=foo: choose classify, subclass, redshift"):
        _make(TrainConfig(task="foo", shards=("there",)), [manifest()])


def test_a_task_without_labels_names_the_shards() -> None:
    message = (
        r"^some/shards: no object of the train split has a teff, so TASK=teff cannot be learnt; make the shards with "
        r"a catalogue \(CATALOG=\) that has it: docs/ingest.md, Labels$"
    )
    with pytest.raises(UsageError, match=message):
        _make(TrainConfig(task="teff", shards=("some/shards",)), [manifest()])


def test_one_class_alone_is_warned_about(capsys: pytest.CaptureFixture[str]) -> None:
    stats = {"class": LabelStats(5, 0, 0, 0, 0)}
    _make(TrainConfig(task="classify", shards=("s",)), [manifest(stats, {"STAR": 5, "unlabelled": 3})])
    assert "every labelled object of the train split is a STAR" in capsys.readouterr().err


def test_statistics_of_several_data_sets_are_combined() -> None:
    one, two = LabelStats(10, 0.0, 0.1, -0.01, 0.2), LabelStats(30, 2.0, 0.5, 1.0, 5.0)
    task = _make(TrainConfig(task="redshift", shards=("a", "b")), [manifest({"z": one}), manifest({"z": two})])
    assert isinstance(task, Regression) and (task.low, task.high) == (-0.01, 5.0)


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"lr": -1.0}, {"head": "spline"}, {"layer_decay": 0.0}, {"shards": ()}, {"warmup": 1.0}]
)
def test_a_wrong_configuration_is_a_usage_error(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        replace(TrainConfig(task="classify", shards=("s",)), **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("F5", "F"), ("A1V", "A"), ("G2", "G"), ("dM3", "M"), ("gK5", "K"), ("K0III", "K"), ("sdM1", "M"), ("M", "M"),
        ("A0 (12345)", "A"), ("B6IV", "B"), ("WD", "WD"), ("Carbon", "CARBON"), ("CV", "CV"),
        ("AGN BROADLINE", "AGN"),
        ("STARFORMING", "STARFORMING"), ("Am", "A"), ("", None), ("  ", None), ("Non", None),
        ("GALAXY", "GALAXY"), ("L5.5", "L"),
    ],
)  # fmt: skip
def test_a_spectral_type_is_the_letter_of_a_subclass(text: str, kind: str | None) -> None:
    assert spectral_type(text) == kind


def test_the_types_of_the_train_split_are_learnt_and_rare_ones_left_out() -> None:
    subclasses = ["G2"] * 20 + ["A1V"] * 12 + ["F5"] * 30 + ["O9"] * 3 + ["WD"] * 11 + [None] * 5
    assert Subclass.present(subclasses) == {"A": 12, "F": 30, "G": 20, "WD": 11}
    task = _make(TrainConfig(task="subclass", shards=("s",)), [manifest()], subclasses)
    assert isinstance(task, Classification) and task.classes == ("A", "F", "G", "WD")
    found = task.targets(pa.table({"subclass": ["F0", "O9", None, "WD"]}))
    np.testing.assert_array_equal(found, [1, np.nan, np.nan, 3])


def test_adjusted_logits_undo_the_shares_of_the_classes() -> None:
    task = Subclass(("A", "F"), "subclass", (0.9, 0.1), "logits")
    # Where the truth follows the shares and the picture says nothing, equal logits are the best answer.
    logits = torch.zeros(1000, 2, requires_grad=True)
    target = (torch.arange(1000) >= 900).float()
    task.sample_loss(logits, target).sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.sum(dim=0), torch.zeros(2), atol=1e-3, rtol=0)


def test_weights_let_each_class_count_alike() -> None:
    task = Subclass(("A", "F", "G"), "subclass", (0.75, 0.25, 0.0), "weights")
    losses = task.sample_loss(torch.zeros(4, 3), torch.tensor([0.0, 0.0, 0.0, 1.0]))
    assert float(losses[:3].sum()) == pytest.approx(float(losses[3])) and float(losses.mean()) == pytest.approx(
        math.log(3)
    )


def test_outputs_are_split_by_task() -> None:
    tasks = [TASKS[0], redshift("gaussian")]
    parts = split_logits(tasks, torch.arange(10.0).reshape(2, 5))
    assert [part.tolist() for part in parts] == [[[0, 1, 2], [5, 6, 7]], [[3, 4], [8, 9]]]


def test_a_preset_gives_way_to_what_is_asked_for() -> None:
    config = configure("paper", task="teff", shards=("x",), epochs=3)
    assert config.lr == 1e-5 and config.weight_decay == 0.01 and config.epochs == 3
    with pytest.raises(UsageError, match="unknown PRESET=old: choose paper or modern"):
        configure("old", task="teff", shards=("x",))


@given(
    values=st.lists(st.none() | st.sampled_from(["STAR", "QSO", "", "x"]), max_size=30), cut=st.integers(0, 30),
    is_dictionary=st.booleans(),
)  # fmt: skip
def test_a_coded_column_says_what_its_texts_say(values: list[str | None], cut: int, is_dictionary: bool) -> None:
    kind = pa.dictionary(pa.int8(), pa.string()) if is_dictionary else pa.string()
    column = pa.chunked_array([pa.array(part, kind) for part in (values[:cut], values[cut:])])
    coded = Coded.of(column)
    assert coded.names().tolist() == values and coded.codes.dtype == np.int32
    assert coded.counts() == Counter(value for value in values if value is not None)
    assert coded.among(["QSO", "no"]).tolist() == [value == "QSO" for value in values]
    lengths = [np.nan if value is None else len(value) for value in values]
    np.testing.assert_array_equal(coded.numbers(len), np.array(lengths, float))
    rows = np.arange(len(values)) % 2 == 0
    assert coded.counts(rows) == Counter(value for value in values[::2] if value is not None)


def test_what_no_row_says_is_no_code() -> None:
    nothing = pa.chunked_array([pa.nulls(3)])
    for column, n in ((nothing, 3), (nothing.cast(pa.string()), 3), (pa.chunked_array([], pa.string()), 0)):
        coded = Coded.of(column)
        assert coded.names().tolist() == [None] * n and not coded.counts() and np.isnan(coded.numbers(len)).all()
    yes = Coded.of(pa.chunked_array([[True, None, False]]), lambda value: str(value).lower())
    assert yes.names().tolist() == ["true", None, "false"]

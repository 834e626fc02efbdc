"""The order of an epoch: exactly once, or as weights say; found at any position; the same however it is asked for."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specshards.common.errors import UsageError
from specshards.shards.format.manifest import ShardRecord
from specshards.shards.loader.mixing import make_weights
from specshards.shards.loader.order import EpochOrder, Weights

COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@given(COUNTS, st.booleans(), st.integers(0, 5), st.integers(1, 100), st.integers(0, 3))
def test_an_epoch_holds_every_sample_once(
    counts: list[int], shuffle: bool, seed: int, window: int, epoch: int
) -> None:
    order = EpochOrder(counts, shuffle=shuffle, seed=seed, window=window)
    whole = order.slice(epoch, 0, order.length)
    assert order.length == sum(counts) and sorted(whole.tolist()) == list(range(sum(counts)))
    assert shuffle or whole.tolist() == sorted(whole.tolist())


@settings(deadline=None)
@given(COUNTS, st.integers(1, 60), st.data())
def test_any_position_is_found_without_those_before(counts: list[int], window: int, data: st.DataObject) -> None:
    def new() -> EpochOrder:
        return EpochOrder(counts, shuffle=True, seed=3, window=window)

    asked = new()
    whole = {epoch: new().slice(epoch, 0, sum(counts)).tolist() for epoch in range(3)}
    for _ in range(6):
        epoch = data.draw(st.integers(0, 2))
        start, stop = sorted(data.draw(st.tuples(*[st.integers(0, sum(counts))] * 2)))
        assert asked.slice(epoch, start, stop).tolist() == whole[epoch][start:stop]
        assert new().slice(epoch, start, stop).tolist() == whole[epoch][start:stop]


@settings(deadline=None)
@given(COUNTS, st.integers(1, 60), st.integers(0, 4), st.data())
def test_weights_draw_each_sample_its_weight_rounded(
    counts: list[int], window: int, epoch: int, data: st.DataObject
) -> None:
    total = sum(counts)
    raw = np.array(data.draw(st.lists(st.floats(0, 8), min_size=total, max_size=total)))
    if raw.sum() < 1e-3:
        raw[0] = 1
    each = raw / raw.sum() * total
    starts = np.cumsum([0, *counts])
    pieces = [each[a:b] for a, b in pairwise(starts)]
    weights = Weights(np.array([p.sum() for p in pieces]), pieces.__getitem__)
    order = EpochOrder(counts, shuffle=True, seed=1, window=window, weights=weights)
    whole = order.slice(epoch, 0, order.length)
    assert len(whole) == total
    drawn = np.bincount(whole, minlength=total)
    assert (drawn >= np.floor(each - 1e-6)).all() and (drawn <= np.ceil(each + 1e-6)).all()
    half = order.slice(epoch, total // 2, total)
    np.testing.assert_array_equal(half, whole[total // 2 :])


def test_shuffling_mixes_shards_and_changes_every_epoch() -> None:
    order = EpochOrder([100] * 50, shuffle=True, seed=0, window=1000)
    first, second = (order.slice(epoch, 0, 5000) for epoch in (0, 1))
    assert (first != second).mean() > 0.99
    # A batch of 64 from a window of ten shards comes from nearly all of them.
    assert len(set((first[:64] // 100).tolist())) >= 8


def records(tmp_path: Path, classes: list[dict[str, int]]) -> list[tuple[Path, ShardRecord]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = []
    for number, counts in enumerate(classes):
        name = f"train/train-{number:06d}.tar"
        column = [None if c == "unlabelled" else c for c, n in counts.items() for _ in range(n)]
        (tmp_path / "train").mkdir(exist_ok=True)
        pq.write_table(pa.table({"class": pa.array(column, pa.string())}), (tmp_path / name).with_suffix(".parquet"))
        found.append((tmp_path, ShardRecord("train", name, len(column), 1, "", "", "", counts)))
    return found


def shares(tmp_path: Path, weights: list[float] | None, balance: str | None) -> dict[tuple[int, str], float]:
    """The share of an epoch by data set and class."""
    classes = [{"STAR": 90, "GALAXY": 10}, {"STAR": 50, "QSO": 2, "unlabelled": 48}, {"GALAXY": 30, "STAR": 70}]
    shards = records(tmp_path, classes)
    owner = [0, 0, 1]
    made = make_weights(shards, owner, weights, balance)
    order = EpochOrder([100] * 3, shuffle=True, seed=0, weights=made)
    names = [c for counts in classes for c, n in counts.items() for _ in range(n)]
    found: dict[tuple[int, str], float] = {}
    for i in order.slice(0, 0, order.length).tolist():
        place = (owner[i // 100], names[i])
        found[place] = found.get(place, 0) + 1 / order.length
    return found


def test_data_sets_are_mixed_in_the_shares_asked_for(tmp_path: Path) -> None:
    found = shares(tmp_path, [1, 3], None)
    assert abs(sum(v for (d, _), v in found.items() if d == 1) - 0.75) < 0.01
    found = shares(tmp_path, [0, 1], None)
    assert {d for d, _ in found} == {1}


def test_classes_are_balanced_and_the_unlabelled_left_out(tmp_path: Path) -> None:
    found = shares(tmp_path, None, "class")
    for name in ("STAR", "GALAXY", "QSO"):
        assert abs(sum(v for (_, c), v in found.items() if c == name) - 1 / 3) < 0.01
    assert not any(c == "unlabelled" for _, c in found)
    both = shares(tmp_path, [1, 1], "class")
    assert abs(both[1, "STAR"] - 0.25) < 0.01 and abs(both[0, "QSO"] - 1 / 6) < 0.01


def test_impossible_weights_are_named(tmp_path: Path) -> None:
    shards = records(tmp_path, [{"unlabelled": 3}])
    for weights, balance, message in (
        ([1.0, 2.0], None, "one number"), ([-1.0], None, "one number"), ([0.0], None, "one number"),
        (None, "survey", "unknown balance"), (None, "class", "nothing to draw"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            make_weights(shards, [0], weights, balance)

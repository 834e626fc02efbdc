"""One epoch on several ranks: the batches of one rank, dealt in turns; a state goes on with any number of ranks."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from specshards.shards import loader
from specshards.shards.loader.augment import Augment
from specshards.shards.loader.deal import Deal
from specshards.shards.loader.loader import Loader


@given(
    samples=st.integers(1, 200), size=st.integers(1, 9), per_step=st.integers(1, 7), stretches=st.integers(0, 4),
    ranks=st.lists(st.integers(1, 6), min_size=1, max_size=6),
)  # fmt: skip
def test_every_position_is_dealt_once_however_often_the_ranks_change(
    samples: int, size: int, per_step: int, stretches: int, ranks: list[int]
) -> None:
    seen: list[int] = []
    done, turn = 0, 0
    deals = [Deal(samples, size, n, per_step, stretches) for n in ranks]
    while done < deals[0].batches:
        deal = deals[turn % len(deals)]
        after = deal.after(done)
        assert done < after <= done + deal.ranks and done // per_step == (after - 1) // per_step
        for number in range(done, after):
            start, stop = deal.span(number)
            assert stop - start <= size
            seen += range(start, stop)
        done, turn = after, turn + 1
    assert sorted(seen) == list(range(samples)) and done == deals[0].batches
    assert stretches or seen == list(range(samples))
    for deal in deals:
        done, turns = 0, 0
        while done < deal.batches:
            done, turns = deal.after(done), turns + 1
        assert turns == len(deal)


def _opened(folder: Path, ranks: int, **options: Any) -> list[Loader]:
    options = {"augment": Augment(noise=1), "view": "spectra", **options}
    return [loader.open(folder, "train", 16, rank=r, world_size=ranks, **options) for r in range(ranks)]


def _whole(batches: list[Any]) -> list[tuple[list[str], torch.Tensor]]:
    """What is new in each batch, in their order; those that are empty are left out."""
    found = []
    for batch in batches:
        keys = [key for key, valid in zip(batch["key"], batch["valid"], strict=True) if valid]
        if keys:
            found.append((keys, batch["flux"][: len(keys)]))
    return found


def _turns(ranks: list[Loader], most: int | None = None) -> list[Any]:
    """The batches of the rest of an epoch, or of some turns, as they are dealt."""
    iterators = [islice(each.spectra(), most) for each in ranks]
    return [batch for turn in zip(*iterators, strict=True) for batch in turn]


def test_ranks_together_see_the_batches_of_one(sets: Any) -> None:
    """With what an augmentation draws; and a step of three batches is one on any number of ranks."""
    (alone,) = _opened(sets("flux"), 1)
    expected = _whole(list(alone.spectra()))
    for count, per_step in ((3, None), (2, 3), (4, 3), (5, 2)):
        ranks = _opened(sets("flux"), count, per_step=per_step)
        batches = _turns(ranks)
        assert len(batches) == count * len(ranks[0]) and len({json.dumps(r.state_dict()) for r in ranks}) == 1
        found = _whole(batches)
        assert [keys for keys, _ in found] == [keys for keys, _ in expected]
        assert all(torch.equal(ours, theirs) for (_, ours), (_, theirs) in zip(found, expected, strict=True))


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_a_state_of_three_ranks_goes_on_with_any_other_number(sets: Any, ranks: int) -> None:
    three = _opened(sets("flux"), 3)
    before = _whole(_turns(three, 2))
    state = json.loads(json.dumps(three[2].state_dict()))
    others = _opened(sets("flux"), ranks)
    for each in others:
        each.load_state_dict(state)
    after = _whole(_turns(others))
    rest = _whole(_turns(three))
    assert [keys for keys, _ in after] == [keys for keys, _ in rest] and before
    assert all(torch.equal(ours, theirs) for (_, ours), (_, theirs) in zip(after, rest, strict=True))
    everything = three[0].sidecar(["class"])["key"].to_pylist()
    assert sorted(key for keys, _ in before + after for key in keys) == sorted(everything)
    # The epoch after it is the same, too.
    assert [keys for keys, _ in _whole(_turns(others))] == [keys for keys, _ in _whole(_turns(three))]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_state_of_old_goes_on_in_its_own_order(sets: Any, ranks: int) -> None:
    """Each of three ranks had a stretch of the epoch, counted its own batches, and was named in the fingerprint."""
    (alone,) = _opened(sets("flux"), 1)
    order = [key for keys, _ in _whole(list(alone.spectra())) for key in keys]
    stretches = [order[len(order) * r // 3 : len(order) * (r + 1) // 3] for r in range(3)]
    arguments = {**alone.state_dict()["arguments"], "rank": 1, "world_size": 3}
    old = {"fingerprint": alone._fingerprint(arguments), "arguments": arguments, "epoch": 0, "batch": 2}
    others = _opened(sets("flux"), ranks)
    for each in others:
        each.load_state_dict(old)
    first = _whole(_turns(others, 3 // ranks))
    state = others[0].state_dict()  # in the middle of such an epoch, as this program saves it
    for each in others:
        each.load_state_dict(json.loads(json.dumps(state)))
    found = [keys for keys, _ in first + _whole(_turns(others))]
    assert found[:3] == [stretch[32:48] for stretch in stretches]
    assert sorted(key for keys in found for key in keys) == sorted(key for s in stretches for key in s[32:])
    following = [keys for keys, _ in _whole(_turns(others))]
    assert following == [keys for keys, _ in _whole(list(alone.spectra()))]

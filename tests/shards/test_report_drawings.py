"""What the page of a data set draws and counts: no extreme is lost, and order does not matter."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from specshards.shards.format.png import encode_compact
from specshards.shards.report import plots
from specshards.shards.report.statistics import ChosenSample, Reason, SampleChooser, bin_edges, quarantine_reasons


def test_many_reasons_become_few_and_still_add_up(tmp_path: Path) -> None:
    def write(reasons: list[str]) -> list[Reason]:
        table = {"file": ["a"] * len(reasons), "row": [None] * len(reasons), "stage": ["read"] * len(reasons)}
        pq.write_table(pa.table({**table, "reason": reasons}), tmp_path / "quarantine.parquet")
        return quarantine_reasons(tmp_path)

    assert write(["x 1", "x 2", "x 1"]) == [("read", "x 1", 2, "a"), ("read", "x 2", 1, "a")]
    assert write([f"pixel {i // 2} of 3.5e-3" for i in range(60)]) == [("read", "pixel # of #", 60, "a")]
    letters = [chr(97 + i // 676) + chr(97 + i // 26 % 26) + chr(97 + i % 26) for i in range(3000)]
    found = write(letters)
    assert len(found) == 1001 and sum(n for _, _, n, _ in found) == 3000 and found[-1][1] == "other reasons"


@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 400))
@settings(max_examples=40, deadline=None)
def test_the_choice_does_not_depend_on_the_order(seed: int, keep: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    picks = np.stack([np.arange(n), rng.integers(0, 9, n), rng.permutation(n), rng.integers(0, 3, n)], axis=1)
    order, group = rng.random(n), rng.integers(0, 3, n)
    chosen = []
    for _ in range(2):
        choice = SampleChooser(keep)
        for part in np.array_split(rng.permutation(n), rng.integers(1, 6)):
            for number in range(3):
                mine = part[group[part] == number]
                choice.offer((number,), order[mine], picks[mine])
        chosen.append(choice.in_turn())
    assert chosen[0] == chosen[1] and len(chosen[0]) == min(keep, n)
    first = {number: np.flatnonzero(group == number) for number in range(3)}
    best = [ChosenSample(*picks[mine[np.argmin(order[mine])]].tolist()) for mine in first.values() if len(mine)]
    assert list(chosen[0][: len(best)]) == best[:keep]


@given(hnp.arrays(np.float64, st.integers(1, 300), elements=st.floats(-1e6, 1e6)), st.booleans(), st.integers(-3, 6))
@settings(deadline=None)
def test_frames_hold_the_values_at_round_numbers(values: np.ndarray, log: bool, power: int) -> None:
    values = values * 10.0**power
    edges = bin_edges(values, log)
    assert (np.diff(edges) > 0).all() and 2 <= len(edges) <= 110
    on = values[values > 0] if log else values
    if len(on):
        beyond = (on < edges[0]).sum() + (on > edges[-1]).sum()
        assert beyond <= 2 + 0.002 * len(on)


@given(st.integers(0, 2**32), st.integers(1, 500), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_no_extreme_pixel_is_lost_in_the_drawing(seed: int, n: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    wave, flux, good = np.sort(rng.uniform(3000, 9000, n)), rng.normal(size=n), rng.random(n) < 0.7
    edges = np.linspace(3500, 8500, columns + 1)
    ends, middles = plots.outline(wave, flux, good, edges)
    points = {(w, f) for line in ends for w, f in line}
    for low, high in pairwise(edges):
        here = np.flatnonzero(good & (wave >= low) & (wave < high))
        if len(here):
            for i in (here[np.argmin(flux[here])], here[np.argmax(flux[here])]):
                assert (wave[i], flux[i]) in points
    assert all(w == sorted(w) for line in ends if (w := [x for x, _ in line]))
    assert [len(line) > 0 for line in ends] == [True] * len(middles)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))), st.booleans())
@settings(max_examples=60, deadline=None)
def test_compact_pictures_are_lossless(picture: np.ndarray, few: bool) -> None:
    picture = picture // 60 * 60 if few else picture
    decoded = cv2.imdecode(np.frombuffer(encode_compact(picture), np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(decoded, picture)

"""Scores of a split that is decoded piece by piece, on one process or several: the numbers of the whole at once."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from specshards.shards.format.manifest import LabelStats
from specshards.train.evaluation import score as scoring
from specshards.train.evaluation.conformal import calibrate
from specshards.train.evaluation.measure import measure
from specshards.train.evaluation.score import Scored, score
from specshards.train.tasks.classification import Classify, Subclass
from specshards.train.tasks.constant import Baselines
from specshards.train.tasks.regression import Redshift, regression
from specshards.train.tasks.task import Task
from specshards.train.use.inputs import cut

STATS = LabelStats(100, 0.5, 0.5, 0.0, 3.0)
TASKS: dict[str, Task] = {
    "histogram": Redshift.scaled_by(STATS, "redshift", "histogram", 32),
    "gaussian": regression("teff").scaled_by(STATS, "teff"),
    "classes": Classify(("STAR", "GALAXY", "QSO"), "classify"),
}


class Split:
    """A loader of one process's part of made objects: the outputs of the model are what it shows of them."""

    surveys = ("lamost", "sdss")

    def __init__(self, task: Task, rows: np.ndarray, samples: int, batch: int, batches: int) -> None:
        self._task, self._rows, self.samples, self._batch, self._batches = task, rows, samples, batch, batches
        self._more: dict[str, np.ndarray] = {}

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self._more)

    def add_label(self, name: str, values: np.ndarray) -> None:
        self._more[name] = values

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Any:
        labels, outputs = made(self._task, self.samples)
        for start in range(0, len(self) * self._batch, self._batch):
            rows = self._rows[start : start + self._batch]
            valid = np.arange(self._batch) < len(rows)
            rows = np.pad(rows, (0, self._batch - len(rows)), constant_values=0)
            yield {
                "pixel_values": outputs[rows], "valid": torch.from_numpy(valid), "key": [],
                "labels": {k: torch.from_numpy(v[rows]) for k, v in {**labels, **self._more}.items()},
            }  # fmt: skip


def made(task: Task, n: int) -> tuple[dict[str, np.ndarray], Tensor]:
    """Labels of n objects, some of them missing, and what a model says of them."""
    rng = np.random.default_rng(n)
    kind = rng.integers(0, 3, n).astype(float)
    labels = {
        "class": kind, "survey": rng.integers(0, 2, n).astype(float), "sn_median": rng.uniform(1, 30, n),
        "ra": rng.uniform(0, 360, n), "dec": rng.uniform(-60, 60, n),
        task.target: np.where(rng.random(n) < 0.1, np.nan, kind if isinstance(task, Classify) else kind + 0.1),
    }  # fmt: skip
    return labels, torch.from_numpy(rng.normal(size=(n, task.head_size))).float()


class Processes:
    """What `score` asks of an accelerator, for R threads that stand for processes."""

    def __init__(self, count: int) -> None:
        self.count, self._barrier, self._parts = count, threading.Barrier(count), [torch.empty(0)] * count
        self.most_moved = 0

    def of(self, rank: int) -> Any:
        def gather(tensor: Tensor) -> Tensor:
            self._parts[rank] = tensor
            self._barrier.wait()
            everyone = torch.cat(self._parts)
            self.most_moved = max(self.most_moved, everyone.numel())
            self._barrier.wait()
            return everyone

        return SimpleNamespace(
            num_processes=self.count, is_main_process=rank == 0, device=torch.device("cpu"), gather=gather,
            autocast=nullcontext, reduce=lambda sums: gather(sums[None]).sum(dim=0),
        )  # fmt: skip


def scored(task: Task, n: int, batch: int, ranks: int, *, mixed: bool = False) -> tuple[list[Any], Processes]:
    """What each process is given; `mixed`: batches go to them in turn, else each has one piece of the split."""
    rows = np.arange(n)
    parts = [rows[rows // batch % ranks == r] if mixed else rows[n * r // ranks : n * (r + 1) // ranks]
             for r in range(ranks)]  # fmt: skip
    batches = max(1, -(-max(map(len, parts)) // batch))
    card: Any = SimpleNamespace(tasks=(task,), config=SimpleNamespace(views="mean"), several=())
    processes, found = Processes(ranks), [None] * ranks

    def run(rank: int) -> None:
        split: Any = Split(task, parts[rank], n, batch, batches)
        found[rank] = score(nn.Identity(), card, split, processes.of(rank))  # type: ignore[call-overload]

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found, processes


@pytest.fixture(autouse=True)
def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "model_input", lambda batch: batch["pixel_values"])


def same(a: Any, b: Any) -> None:
    """Two records are the same to rounding."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            same(a[name], b[name])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for pair in zip(a, b, strict=True):
            same(*pair)
    else:
        assert a == pytest.approx(b, rel=1e-5, abs=1e-7, nan_ok=True) if isinstance(a, float) else a == b


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(sorted(TASKS)), n=st.integers(1, 400), batch=st.integers(1, 64), ranks=st.integers(1, 3),
    mixed=st.booleans(),
)  # fmt: skip
def test_pieces_and_processes_give_the_numbers_of_the_whole(
    name: str, n: int, batch: int, ranks: int, mixed: bool
) -> None:
    task = TASKS[name]
    labels, outputs = made(task, n)
    columns = {**task.decode(outputs), **task.calibration(outputs, labels[task.target])}
    surveys = np.array(Split.surveys, object)[labels["survey"].astype(int)]
    known = np.isfinite(labels[task.target])
    whole = Scored(columns, labels, surveys, float("nan"))
    (ours, *others), _ = scored(task, n, batch, ranks, mixed=mixed)
    assert not any(others)
    got = ours[task.name]
    assert all(np.array_equal(got.labels[name], labels[name], equal_nan=True) for name in labels)
    baselines = Baselines(0.5, {"sdss": 1.0})
    expected, found = (measure(task, each, baselines) for each in (whole, got))
    loss = float(task.sample_loss(outputs[known], torch.from_numpy(labels[task.target][known]).float()).mean())
    same(found, {**expected, "loss": loss})
    if known.any():
        same(calibrate((task,), {task.name: got}), calibrate((task,), {task.name: whole}))


@given(sizes=st.lists(st.integers(0, 9), max_size=9), size=st.integers(1, 7))
def test_tables_are_cut_anew_in_their_order(sizes: list[int], size: int) -> None:
    rows = np.arange(sum(sizes))
    tables = [pa.table({"row": part}) for part in np.split(rows, np.cumsum(sizes)[:-1])]
    parts = [part["row"].to_pylist() for part in cut(tables, size)]
    assert [row for part in parts for row in part] == rows.tolist() and all(len(part) == size for part in parts[:-1])
    assert all(0 < len(part) <= size for part in parts)


def test_what_is_kept_of_an_object_does_not_grow_with_the_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs are decoded some thousand at a time, and columns alone go from process to process, one at a time."""
    monkeypatch.setattr(scoring, "_DECODED", 256)
    many = Subclass(tuple(f"K{i}" for i in range(300)), "subclass")
    pieces: list[int] = []
    for task in (many, TASKS["histogram"]):
        judged = type(task).judged
        monkeypatch.setattr(type(task), "judged", lambda self, logits, target, judged=judged: (
            pieces.append(len(logits)), judged(self, logits, target))[1])  # fmt: skip
        (ours, *_), processes = scored(task, 2000, 32, 2)
        assert max(pieces) < 256 + 32 and len(ours[task.name].columns) <= 8
        assert processes.most_moved <= 2 * 1024

"""The loader benchmark runs end to end on a few objects, and does not compare loaders of other pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from specshards.benchmarks.kit.tables import table
from specshards.benchmarks.peers.worker import Check
from specshards.benchmarks.suite.load import Contender, measure
from specshards.benchmarks.suite.load_data import Data, make_data
from specshards.benchmarks.suite.load_startup import link_many, probe
from specshards.common.errors import JobError
from specshards.shards import loader
from specshards.shards.loader.dali import dali_is_here


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return make_data(tmp_path_factory.mktemp("bench-load"), "map2d", 80)


def test_every_contender_runs_and_the_peers_that_did_not_say_so(data: Data) -> None:
    records = measure(data, "map2d", rounds=1, seconds=0, workers=[0], peers_in=None)
    run = [r for r in records if r.values]
    names = [r.name for r in run]
    for expected in (
        "specshards plain, flux", "webdataset, RGB PNG, 0 workers", "loose files, RGB JPEG, 0 workers",
        "ceiling: cached batches", "ceiling: decode loop, png", "ceiling: read through, pnm",
    ):  # fmt: skip
        assert expected in names
    assert ("specshards dali, png" in names) == dali_is_here()
    assert all(r.median > 0 for r in run) and table(run).count("\n") == len(run) + 3
    assert all("pixels equal" in r.note or "PSNR" in r.note for r in run if not r.name.startswith("ceiling"))
    left_out = [r for r in records if not r.values]
    assert {r.name.partition(",")[0] for r in left_out} == {"litdata", "MosaicML streaming"}
    assert all(r.note.startswith("not run") for r in left_out)


def test_other_pictures_are_refused(data: Data) -> None:
    pictures, labels = (np.load(data.source / f"{name}.npy") for name in ("pictures", "labels"))
    pixels, rows = torch.from_numpy(pictures).permute(0, 3, 1, 2), labels[:, 0].astype(int).tolist()

    def check(pixels: torch.Tensor, rows: list[int]) -> dict[str, float]:
        found = Check(data.source)
        found.add(pixels, rows)
        return found.result()

    same, swapped, cut = check(pixels, rows), check(pixels.flip(0), rows), check(pixels[1:], rows[1:])
    assert (same["missing"], same["unequal"], same["samples"]) == (0, 0, len(rows))
    Contender("same", lambda: 1, lambda: same).compared()
    for wrong in (swapped, cut):
        with pytest.raises(JobError, match="other pictures"):
            Contender("wrong", lambda: 1, lambda wrong=wrong: wrong).compared()
    with pytest.raises(ValueError, match="float32"):
        check(pixels.float(), rows)


def test_linked_shards_make_a_larger_data_set(data: Data, tmp_path: Path) -> None:
    one = data.shards("png")
    total = link_many(one, tmp_path / "many", 100)
    with loader.open(tmp_path / "many", "train", 16, backend="plain") as batches:
        assert batches.samples == total >= 100
        assert sum(int(batch["valid"].sum()) for batch in batches) == total
    found = probe(one, tmp_path / "many", "plain", 3)
    assert 0 < found["open"] < found["first"] and "VmRSS later" in found

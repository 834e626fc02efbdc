"""Several pictures of the same spectra: each object once with each, or all together, the very pixels of each."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.render import ImageConfig, preset
from specshards.shards import loader
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.loader.augment import Augment
from specshards.shards.loader.dali import dali_is_here
from specshards.shards.loader.order import EpochOrder, Weights
from specshards.shards.write.build import build
from tests.conftest import make_spectrum

SIZE = 48
NAMES = ("simple:paper", "overlap", "map2d:survey-free")
IMAGES = tuple(replace(preset(*name), size=SIZE) for name in (("paper", "simple"), ("default", "overlap"),
                                                              ("survey-free", "map2d")))  # fmt: skip
BACKENDS = ["plain", pytest.param("dali", marks=pytest.mark.skipif(not dali_is_here(), reason="no DALI here"))]


@pytest.fixture(scope="module")
def shards(spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("images") / "flux"
    config = ShardConfig(image=ImageConfig(size=SIZE, grid="log"), encoding="flux", samples_per_shard=60)
    build(config, spectra_folder, out, engine=Engine(workers=0))
    return out


def by_sample(batches) -> dict[tuple[str, int], torch.Tensor]:
    """(key, picture) -> pixels of what counts."""
    found = {}
    for batch in batches:
        for i in torch.nonzero(batch["valid"])[:, 0].tolist():
            name = batch["key"][i], int(batch["picture"][i])
            assert name not in found, "an object twice with one picture"
            found[name] = batch["pixel_values"][i]
    return found


@pytest.fixture(scope="module")
def alone(shards: Path) -> dict[tuple[str, int], torch.Tensor]:
    """The train split, one picture at a time."""
    found = {}
    for number, image in enumerate(IMAGES):
        with loader.open(shards, "train", 16, image=image, shuffle=False) as batches:
            for batch in batches:
                found |= {(key, number): batch["pixel_values"][i] for i, key in enumerate(batch["key"])}
    return found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("world_size", [1, 3])
def test_every_object_once_with_every_picture_over_all_ranks(shards, alone, backend: str, world_size: int) -> None:
    ranks = [
        loader.open(shards, "train", 16, images=NAMES, rank=r, world_size=world_size, backend=backend)
        for r in range(world_size)
    ]
    assert ranks[0].images == IMAGES and ranks[0].samples == 3 * ranks[0].objects == len(alone)
    first: list[list[str]] = []
    for _ in range(2):
        epochs = [list(rank) for rank in ranks]
        assert {len(epoch) for epoch in epochs} == {len(ranks[0])}
        found = by_sample(batch for epoch in epochs for batch in epoch)
        assert found.keys() == alone.keys()
        assert all(torch.equal(found[name], alone[name]) for name in found)
        first.append([key for epoch in epochs for batch in epoch for key in batch["key"]])
        assert all(len(set(batch["picture"].tolist())) > 1 for batch in epochs[0][:-1]), "pictures are not mixed"
    assert first[0] != first[1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_pictures_together(shards, alone, backend: str) -> None:
    with loader.open(shards, "train", 16, images=NAMES, together=True, shuffle=False, backend=backend) as batches:
        keys = batches.sidecar(["class"])["key"].to_pylist()
        assert batches.samples == batches.objects == len(keys)
        got: list[str] = []
        for batch in batches:
            assert batch["pixel_values"].shape == (16, 3, 3, SIZE, SIZE) and "picture" not in batch
            for i in torch.nonzero(batch["valid"])[:, 0].tolist():
                got.append(batch["key"][i])
                for number in range(3):
                    assert torch.equal(batch["pixel_values"][i, number], alone[batch["key"][i], number])
    assert got == keys


@pytest.mark.parametrize("after", [0, 5, "epoch"])
def test_a_saved_state_goes_on_with_the_very_next_batch(shards, after: int | str) -> None:
    def told(batches) -> list[tuple[list[str], list[int], bytes]]:
        return [(b["key"], b["picture"].tolist(), b["pixel_values"].contiguous().numpy().tobytes()) for b in batches]

    options = {"images": NAMES, "augment": Augment(noise=1)}
    with (
        loader.open(shards, "train", 16, **options) as running,
        loader.open(shards, "train", 16, **options) as resumed,
    ):
        iterator = iter(running)
        list(iterator if after == "epoch" else islice(iterator, int(after)))
        state = running.state_dict()
        rest = told(running if after == "epoch" else iterator)
        resumed.load_state_dict(state)
        assert told(resumed) == rest
    for other in ({"images": NAMES[:2]}, {"images": NAMES[::-1]}, {"images": NAMES, "together": True}, {}):
        foreign = loader.open(shards, "train", 16, augment=Augment(noise=1), **other)
        with foreign, pytest.raises(UsageError, match="of other data or arguments"):
            foreign.load_state_dict(state)


def test_one_picture_is_as_if_the_shards_were_made_for_it(shards) -> None:
    with (
        loader.open(shards, "val", 16, images=["simple:paper"], shuffle=True) as named,
        loader.open(shards, "val", 16, image=IMAGES[0], shuffle=True) as given,
    ):
        assert named.fingerprint() == given.fingerprint()
        for a, b in zip(named, given, strict=True):
            assert a["key"] == b["key"] and "picture" not in a and torch.equal(a["pixel_values"], b["pixel_values"])


def test_a_spectrum_is_changed_once_for_all_its_pictures(shards) -> None:
    """Noise that is drawn anew for each picture would show another spectrum in each."""
    seen: list[int] = []

    class Counting(Augment):
        def spectra(self, spectra, rng):
            seen.append(len(spectra))
            return super().spectra(spectra, rng)

    twice = ["overlap", replace(IMAGES[1], line_width=0.7)]
    with loader.open(shards, "val", 8, images=twice, together=True, augment=Counting(noise=1)) as batches:
        batch = next(iter(batches))
    assert set(seen) == {8}
    first, second = batch["pixel_values"][:, 0].float(), batch["pixel_values"][:, 1].float()
    assert np.corrcoef(first.flatten(), second.flatten())[0, 1] > 0.99


def test_labels_added_and_weights_go_by_object(shards) -> None:
    with loader.open(shards, "train", 16, images=NAMES, balance="class") as batches:
        rows = batches.sidecar(["class"])
        batches.add_label("row", np.arange(len(rows), dtype=float))
        keys, seen = rows["key"].to_pylist(), Counter[str]()
        for batch in batches:
            for i in torch.nonzero(batch["valid"])[:, 0].tolist():
                assert keys[int(batch["labels"]["row"][i])] == batch["key"][i]
                seen[batch["key"][i]] += 1
    assert sum(seen.values()) == 3 * len(keys) and all(n % 3 == 0 for n in seen.values())


def test_what_one_picture_cannot_show_is_named_or_skipped(tmp_path: Path, capsys) -> None:
    rng = np.random.default_rng(0)
    spectra = [make_spectrum(i, rng) for i in range(24)]
    short = make_spectrum(24, rng, n=600)  # its last pixel lies below the second window
    write_parquet(to_table([*spectra, short]), tmp_path / "part-00000.parquet", {})
    config = ShardConfig(image=ImageConfig(size=SIZE, grid="log"), encoding="flux", split=(1.0, 0.0, 0.0))
    build(config, tmp_path, tmp_path / "flux", engine=Engine(workers=0))
    images = ["simple", ImageConfig(image="overlap", size=SIZE, window=(5000.0, 9000.0))]
    batches = loader.open(tmp_path / "flux", "train", 8, images=images)
    with batches, pytest.raises(JobError, match="0/0000000024: cannot be drawn"):
        list(batches)
    for together, count in ((False, 49), (True, 24)):  # with the picture that shows it, or not at all
        with loader.open(tmp_path / "flux", "train", 8, images=images, together=together, on_error="skip") as batches:
            assert sum(int(batch["valid"].sum()) for batch in batches) == count and batches.skipped == 1
    assert "skipped: 0/0000000024" in capsys.readouterr().err


def test_what_cannot_be_asked_for_is_one_line(shards, sets) -> None:
    for images, message in (
        (["bars"], "IMAGE=bars"),
        (["simple:quality"], "simple:quality: PRESET=quality is for map2d"),
        (["simple:"], "no preset behind the colon"),
        (["simple:none"], "unknown PRESET=none"),
        (["simple", "simple:default"], "simple is there twice"),
        (["simple", ImageConfig(size=80)], "give pictures of one size"),
        (["simple", ImageConfig(size=SIZE, frame="rest")], "observed frame, not rest"),
    ):
        with pytest.raises(UsageError, match=message):
            loader.open(shards, "val", 8, images=images)
    with pytest.raises(UsageError, match="not both"):
        loader.open(shards, "val", 8, images=["simple"], image=IMAGES[0])
    with pytest.raises(
        UsageError, match=r"drawn already \(png\), and 2 are asked for; make shards with ENCODING=flux"
    ):
        loader.open(sets("png"), "val", 8, images=["map2d", "simple"])
    with pytest.raises(UsageError, match="drawn already, with image map2d, not simple"):
        loader.open(sets("png"), "val", 8, images=["simple"])
    with pytest.raises(UsageError, match="draws no picture"):
        loader.open(shards, "val", 8, images=["simple"], view="spectra")
    with loader.open(sets("png"), "val", 8, images=["map2d"]) as batches:
        assert batches.image == ImageConfig()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 4), st.integers(1, 40), st.booleans(),
    st.booleans(), st.integers(0, 3),
)  # fmt: skip
def test_an_epoch_has_every_copy_of_every_sample(
    counts: list[int], copies: int, window: int, shuffle: bool, weighted: bool, epoch: int
) -> None:
    total = sum(counts)
    even = Weights(np.array(counts, float), lambda number: np.ones(counts[number]))
    order = EpochOrder(counts, shuffle=shuffle, seed=1, window=window, copies=copies,
                       weights=even if weighted else None)  # fmt: skip
    assert order.length == total * copies
    found = order.slice(epoch, 0, order.length)
    assert sorted(found.tolist()) == list(range(total * copies))
    at = total * copies // 3
    np.testing.assert_array_equal(np.concatenate([order.slice(epoch, 0, at), order.slice(epoch, at, 9999)]), found)
    plain = EpochOrder(counts, shuffle=shuffle, seed=1, window=window, weights=even if weighted else None)
    if not shuffle:
        np.testing.assert_array_equal(found[::copies] // copies, plain.slice(epoch, 0, total))


@pytest.mark.parametrize("together", [False, True])
def test_pictures_of_a_device_are_put_in_order_as_on_a_cpu(shards, together: bool) -> None:
    """What a GPU does with pictures that lie there already, without a GPU."""
    with (
        loader.open(shards, "val", 16, images=NAMES, together=together, shuffle=True) as here,
        loader.open(shards, "val", 16, images=NAMES, together=together, shuffle=True) as there,
    ):
        there._painters._gpu = True
        for a, b in zip(here, there, strict=True):
            assert torch.equal(a["pixel_values"], b["pixel_values"])

"""What a loader may be told: to resume anywhere, to skip what is damaged, to weigh, and to change what it loads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch

from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine
from specshards.render import ImageConfig, renderer
from specshards.shards import loader
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.loader.augment import Augment
from specshards.shards.loader.dali import dali_is_here
from specshards.shards.write.build import build
from tests.oracles.data_sets import damage

BACKENDS = [
    pytest.param("dali", marks=pytest.mark.skipif(not dali_is_here(), reason="NVIDIA DALI exists for Linux only")),
    "plain",
]


@pytest.fixture(scope="module")
def folders(spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("policy")
    for name in ("png", "pnm", "lz4", "jpeg", "flux"):
        build(ShardConfig(encoding=name, samples_per_shard=60), spectra_folder, out / name, engine=Engine(workers=0))
    return {path.name: path for path in out.iterdir()}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_resume_at_every_batch_equals_the_uninterrupted_sequence(
    folders: dict[str, Path], backend: str, world_size: int
) -> None:
    for rank in range(world_size):
        options = {"backend": backend, "rank": rank, "world_size": world_size, "seed": 5, "balance": "class"}
        with loader.open(folders["png"], "train", 32, **options) as whole:
            states, sequence = [whole.state_dict()], []
            for _ in range(3):
                for batch in whole:
                    sequence.append((batch["key"], batch["valid"].tolist(), batch["pixel_values"].sum().item()))
                    states.append(whole.state_dict())
        with loader.open(folders["png"], "train", 32, **options) as resumed:
            count = len(resumed)
            for at, state in enumerate(states[: count + 2]):
                resumed.load_state_dict(json.loads(json.dumps(state)))
                # A state of the end of an epoch has nothing left of it, so a third look is needed at most.
                rest = list(islice(chain.from_iterable(resumed for _ in range(3)), 3))
                found = [(b["key"], b["valid"].tolist(), b["pixel_values"].sum().item()) for b in rest]
                assert found == sequence[at : at + 3]


def test_the_order_is_the_same_for_every_backend_and_encoding(folders: dict[str, Path]) -> None:
    found = []
    for name, folder in folders.items():
        for backend in ("dali", "plain") if dali_is_here() else ("plain",):
            with loader.open(folder, "train", 32, backend=backend) as batches:
                found.append([key for batch in batches for key in batch["key"]])
                assert (name, backend) and found[-1] == found[0]


def test_a_refused_state_names_what_differs_with_both_values(folders: dict[str, Path]) -> None:
    with loader.open(folders["png"], "train", 16) as batches:
        state = batches.state_dict()
    with (
        loader.open(folders["png"], "train", 16, seed=2, balance="class") as other,
        pytest.raises(
            UsageError, match=r"seed 0, here 2; balance None, here class \(fingerprint \w{12}, here \w{12}"
        ),
    ):
        other.load_state_dict(state)
    with (
        loader.open(folders["pnm"], "train", 16) as other,
        pytest.raises(UsageError, match=r"arguments: the data sets \(fingerprint"),
    ):
        other.load_state_dict(state)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("encoding", ["png", "pnm", "lz4", "jpeg", "flux"])
@pytest.mark.parametrize("part", ["picture", "labels"])
def test_a_damaged_sample_is_named_or_skipped_and_counted(
    spectra_folder: Path, tmp_path: Path, backend: str, encoding: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    build(ShardConfig(encoding=encoding), spectra_folder, out, engine=Engine(workers=0))
    extension = {"png": "png", "pnm": "pgm", "lz4": "pgm.lz4", "jpeg": "jpg", "flux": "flux.npy"}[encoding]
    tar, key, offset = damage(out, extension, extension if part == "picture" else "npy")
    with (
        loader.open(out, "train", 16, backend=backend) as batches,
        pytest.raises(JobError, match=rf"^{tar}: {key}\.{extension} at byte {offset}: .*make shards"),
    ):
        list(batches)
    capsys.readouterr()
    with loader.open(out, "train", 16, backend=backend, on_error="skip") as batches:
        for epoch in (1, 2):
            seen = [key for b in batches for key, ok in zip(b["key"], b["valid"], strict=True) if ok]
            assert len(seen) == len(set(seen)) == batches.samples - 1 and f"0/{key}" not in seen
            assert batches.skipped == epoch
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: skipped")]
    assert len(said) == 1 and f"{tar}: {key}.{extension} at byte {offset}" in said[0]


def test_an_index_that_does_not_fit_is_named(spectra_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(ShardConfig(), spectra_folder, out, engine=Engine(workers=0))
    index = sorted((out / "train").glob("*.idx"))[0]
    good = index.read_text()
    lines = good.splitlines()
    for bad in (
        "v1.1" + good[4:], "\n".join(lines[:-1]) + "\n", good.replace("png", "gif"), good.replace(" npy", ""), "",
        good.replace(lines[3].split()[1], "99999999999"), good.replace(lines[3].split()[1], "-4"), "\x00\xff" * 50,
    ):  # fmt: skip
        index.write_text(bad)
        with loader.open(out, "train", 16) as batches, pytest.raises(JobError, match=rf"^{index}: not the index"):
            list(batches)
    index.unlink()
    with pytest.raises(JobError, match=r"the archive or its \.idx is missing"):
        loader.open(out, "train", 16)


def test_augmented_spectra_have_the_noise_asked_for_and_repeat_with_the_seed() -> None:
    n = 40_000
    rng = np.random.default_rng(0)
    flux, ivar = np.full(n, 100, np.float32), np.full(n, 0.25, np.float32)
    ivar[:100] = 0
    spectrum = (flux, ivar, np.arange(n) + 3600.0, ivar == 0)
    ((changed, weight, _, mask),) = Augment(noise=1.5, mask=0.5).spectra([spectrum], rng)
    assert weight is not None
    np.testing.assert_array_equal(changed[:100], 100)
    assert abs((changed[100:] - 100).std() - 3) < 0.05 and abs(weight[200] - 0.25 / 3.25) < 1e-6
    # The errors that ivar now states are those of the old noise and the new together.
    assert mask[:100].all() and 0 < mask[100:].mean() < 0.51 and not spectrum[3][100:].any()
    ((again, *_),) = Augment(noise=1.5, mask=0.5).spectra([spectrum], np.random.default_rng(0))
    np.testing.assert_array_equal(again, changed)
    scaled = [Augment(scale=0.1).spectra([spectrum], rng)[0][0][0] / 100 for _ in range(300)]
    assert abs(np.log(scaled).std() - 0.1) < 0.02
    assert Augment(noise=1).spectra([(flux, None, spectrum[2], spectrum[3])], rng)[0][1] is None


def test_a_tilt_is_the_smooth_curve_that_numpy_draws() -> None:
    wavelength = 10.0 ** (3.57 + 1e-4 * np.arange(3900))
    spectrum = (np.ones(3900, np.float32), np.full(3900, 4, np.float32), wavelength, np.zeros(3900, bool))
    ((flux, ivar, _, _),) = Augment(tilt=0.2).spectra([spectrum], np.random.default_rng(5))
    rng = np.random.default_rng(5)
    rng.standard_normal()  # the scale, of which there is none
    heights = 0.2 * rng.standard_normal(3) / (1, 2, 3)
    expected = np.exp(np.polynomial.chebyshev.chebval(np.linspace(-1, 1, 3900), [0, *heights]))
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(flux, expected, rtol=1e-5)
    np.testing.assert_allclose(ivar * flux**2, 4, rtol=1e-5)  # the S/N stays


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loader_augments_anew_every_epoch_and_alike_after_a_resume(folders: dict[str, Path], backend: str) -> None:
    augment = Augment(noise=1, scale=0.05, mask=0.2)
    with loader.open(folders["flux"], "train", 32, backend=backend, augment=augment, shuffle=False) as batches:
        states, first = [], []
        for batch in batches:
            first.append(batch)
            states.append(batches.state_dict())
        second = next(iter(batches))
        assert second["key"] == first[0]["key"] and not torch.equal(second["pixel_values"], first[0]["pixel_values"])
        batches.load_state_dict(states[1])
        again = next(iter(batches))
        assert again["key"] == first[2]["key"] and torch.equal(again["pixel_values"], first[2]["pixel_values"])
    with pytest.raises(UsageError, match="noise, scale and tilt change the spectrum"):
        list(loader.open(folders["png"], "train", 32, backend=backend, augment=augment))
    with pytest.raises(UsageError, match="JPEG holds finished pictures"):
        loader.open(folders["jpeg"], "train", 32, backend=backend, augment=augment)


def test_codes_lose_one_stretch_and_any_hook_will_do(folders: dict[str, Path]) -> None:
    @dataclass(frozen=True)
    class Upside:
        def spectra(self, spectra, rng):
            return spectra

        def codes(self, codes, rng):
            return codes[:, ::-1].copy()

    drawer = renderer(ImageConfig())
    codes = np.full((50, *drawer.code_shape), 9, np.uint8)
    lost = Augment(mask=0.5).codes(codes, np.random.default_rng(0)).reshape(50, -1) == 0
    assert (np.diff(lost.astype(int), axis=1) == 1).sum(axis=1).max() <= 1 and 0.2 < lost.mean() < 0.3
    with (
        loader.open(folders["pnm"], "val", 8) as plain,
        loader.open(folders["pnm"], "val", 8, augment=Upside()) as up,
    ):
        for one, other in zip(plain, up, strict=True):
            height = drawer.code_shape[0] * 3
            assert torch.equal(
                one["pixel_values"][:, :, :height].flip(2)[:, :, ::3], other["pixel_values"][:, :, 2:height:3]
            )


def test_options_that_cannot_be_are_named(folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="unknown on_error retry"):
        loader.open(folders["png"], "train", 8, on_error="retry")
    with pytest.raises(UsageError, match="unknown balance survey"):
        loader.open(folders["png"], "train", 8, balance="survey")
    with pytest.raises(UsageError, match="noise 0 to 10"):
        Augment(noise=-1)

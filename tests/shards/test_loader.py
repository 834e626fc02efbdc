"""The loader's promises: exactly once, equal batches per rank, exact resume, the same pixels from every backend."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from specshards.benchmarks.kit.samples import made_up_galaxy
from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine
from specshards.ingest.spectra.blocks import iter_blocks
from specshards.ingest.spectra.folder import SpectraFolder
from specshards.render import ImageConfig, preset, renderer
from specshards.shards import loader
from specshards.shards.format.manifest import Manifest, ShardConfig, label_npy
from specshards.shards.format.tar import TarWriter, read_index
from specshards.shards.loader import paint
from specshards.shards.loader.dali import dali_is_here
from specshards.shards.write.build import build
from specshards.train.use.pictures import pictures
from tests.conftest import make_spectrum

BACKENDS = [
    pytest.param("dali", marks=pytest.mark.skipif(not dali_is_here(), reason="NVIDIA DALI exists for Linux only")),
    "plain",
]


@pytest.fixture(scope="module")
def folders(spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("loader")
    for image in ("map2d", "simple", "overlap"):
        config = ShardConfig(image=ImageConfig(image=image), samples_per_shard=60)
        build(config, spectra_folder, out / image, engine=Engine(workers=0))
    for name in ("jpeg", "pnm", "lz4", "flux"):
        build(ShardConfig(encoding=name, samples_per_shard=60), spectra_folder, out / name, engine=Engine(workers=0))
    rgb = ShardConfig(image=ImageConfig(image="overlap"), encoding="pnm", samples_per_shard=60)
    build(rgb, spectra_folder, out / "overlap pnm", engine=Engine(workers=0))
    return {path.name: path for path in out.iterdir()}


def keys_of(batches) -> list[str]:
    return [key for batch in batches for key, valid in zip(batch["key"], batch["valid"], strict=True) if valid]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("world_size", [1, 3])
def test_every_sample_exactly_once_an_epoch(folders, backend: str, shuffle: bool, world_size: int) -> None:
    ranks = [
        loader.open(folders["map2d"], "train", 16, rank=r, world_size=world_size, backend=backend, shuffle=shuffle)
        for r in range(world_size)
    ]
    everything = sorted(ranks[0].sidecar(["class"])["key"].to_pylist())
    for _ in range(3):
        epochs = [list(rank) for rank in ranks]
        assert len({len(epoch) for epoch in epochs}) == 1 and len(epochs[0]) == len(ranks[0])
        assert sorted(key for epoch in epochs for key in keys_of(epoch)) == everything
        assert all(batch["pixel_values"].shape == (16, 3, 224, 224) for epoch in epochs for batch in epoch)


@pytest.mark.parametrize("backend", BACKENDS)
def test_epochs_differ_when_shuffled_and_a_seed_repeats_them(folders, backend: str) -> None:
    def epochs(seed: int) -> list[list[str]]:
        with loader.open(folders["map2d"], "train", 16, seed=seed, backend=backend) as batches:
            return [keys_of(batches) for _ in range(2)]

    first, second = epochs(0)
    assert first != second and epochs(0) == [first, second] and epochs(1)[0] != first


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("after", [0, 1, 5, "epoch"])
def test_a_saved_state_goes_on_with_the_very_next_batch(folders, backend: str, after: int | str) -> None:
    running = loader.open(folders["map2d"], "train", 16, backend=backend)
    count = len(running) if after == "epoch" else int(after)
    iterator = iter(running)
    for _ in range(count):
        next(iterator)
    if after == "epoch":
        assert next(iterator, None) is None
    state = running.state_dict()
    rest = [batch["key"] for batch in (iterator if after != "epoch" else running)] + [b["key"] for b in running]
    resumed = loader.open(folders["map2d"], "train", 16, backend=backend)
    resumed.load_state_dict(state)
    assert [b["key"] for b in resumed] + [b["key"] for b in resumed] == rest


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_foreign_state_is_refused(folders, backend: str) -> None:
    state = loader.open(folders["map2d"], "train", 16, backend=backend).state_dict()
    for other in ({"batch_size": 8}, {"seed": 1}, {"shuffle": False}):
        target = loader.open(folders["map2d"], "train", **{"batch_size": 16, "backend": backend, **other})
        with pytest.raises(UsageError, match="fingerprint"):
            target.load_state_dict(state)


def test_labels_are_those_that_the_manifest_names(folders: dict[str, Path], tmp_path: Path) -> None:
    """Another list of labels, in another order, as another version may write them."""
    manifest = Manifest.load(folders["pnm"])
    records = []
    for record in manifest.split("val"):
        content = record.path(folders["pnm"]).read_bytes()
        tar = tmp_path / record.name
        tar.parent.mkdir(exist_ok=True)
        with TarWriter(tar) as writer:
            for sample in read_index(record.index(folders["pnm"])):
                picture, labels = (content[start : start + size] for start, size, _ in (sample["pgm"], sample["npy"]))
                key = sample["npy"][2].partition(".")[0]
                vector = np.array([float(key), *np.load(io.BytesIO(labels))])
                writer.add(key, [("pgm", picture), ("npy", label_npy(vector))])
        records.append(replace(record, bytes=writer.size, sha256=writer.sha256, index_sha256=writer.index_sha256))
    new = replace(manifest, labels=("number", *manifest.labels), shards=tuple(records))
    (tmp_path / "manifest.json").write_text(new.dumps())
    with loader.open(folders["pnm"], "val", 8) as batches:
        expected = {key: z for batch in batches for key, z in zip(batch["key"], batch["labels"]["z"], strict=True)}
    with loader.open(tmp_path, "val", 8) as batches:
        for batch in batches:
            assert batch["labels"]["number"].tolist() == [float(key.partition("/")[2]) for key in batch["key"]]
            assert batch["labels"]["z"].tolist() == [expected[key] for key in batch["key"]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("image", ["map2d", "simple", "overlap", "jpeg", "pnm", "overlap pnm", "lz4", "flux"])
def test_pixels_and_labels_are_those_of_the_renderer(folders, spectra_folder: Path, backend: str, image: str) -> None:
    drawer = renderer(ImageConfig(image="map2d" if image in ("jpeg", "pnm", "lz4", "flux") else image.split()[0]))
    expected, labels = {}, {}
    for group, block in iter_blocks(SpectraFolder.scan(spectra_folder)):
        for i in range(len(block)):
            if group.first_row + i not in (5, 120, 299):
                key = f"0/{group.first_row + i:010d}"
                expected[key] = drawer.expand(drawer.codes(*block.arrays(i)).copy())
                labels[key] = block.labels[i]
    count = 0
    for batch in loader.open(folders[image], "val", 8, backend=backend):
        for i, key in enumerate(batch["key"]):
            picture = batch["pixel_values"][i].permute(1, 2, 0).numpy()
            if image == "jpeg":
                assert np.abs(picture.astype(int) - expected[key]).mean() < 4
            else:
                np.testing.assert_array_equal(picture, expected[key])
            vector = np.array([values[i] for values in batch["labels"].values()])
            np.testing.assert_array_equal(vector, labels[key])
            count += bool(batch["valid"][i])
    assert count == loader.open(folders[image], "val", 8, backend=backend).samples


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "name",
    [
        "paper",
        "robust",
        "survey-free",
        "quality",
        "lines",
        "patch",
        "simple",
        "overlap",
        "paper simple",
        "paper overlap",
    ],
)
def test_shards_of_spectra_give_any_picture(folders, spectra_folder: Path, backend: str, name: str) -> None:
    named, _, kind = name.partition(" ")
    image = ImageConfig(image=name, size=64) if name in ("simple", "overlap") else preset(named, kind or "map2d")
    drawer = renderer(image)
    expected = {}
    for group, block in iter_blocks(SpectraFolder.scan(spectra_folder)):
        for i in range(len(block)):
            if group.first_row + i not in (5, 120, 299):
                expected[f"0/{group.first_row + i:010d}"] = drawer.expand(drawer.codes(*block.arrays(i)))
    with loader.open(folders["flux"], "val", 8, backend=backend, image=image) as batches:
        assert batches.image == image
        for batch in batches:
            for picture, key in zip(batch["pixel_values"], batch["key"], strict=True):
                np.testing.assert_array_equal(picture.permute(1, 2, 0).numpy(), expected[key])


@pytest.mark.parametrize("name", ["default", "quality"])
def test_a_batch_is_drawn_as_its_spectra_are_one_by_one(name: str) -> None:
    rng = np.random.default_rng(0)
    made = [make_spectrum(i, rng, n=n) for i, n in enumerate((3909, 3751, 3909, 3600))]
    for spectrum in made:
        spectrum.mask[rng.integers(0, 3600, 200)] = True
    spectra = [(s.flux, None if i == 1 else s.ivar, s.wavelength.astype(kind), s.mask)
               for i, (s, kind) in enumerate(zip(made, ("f8", "f4", "f4", "f8"), strict=True))]  # fmt: skip
    drawer = renderer(preset(name, "map2d"))
    together = paint.render_batch(drawer, spectra, list("abcd"))
    np.testing.assert_array_equal(together, np.stack([drawer.codes(*spectrum) for spectrum in spectra]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_picture_that_cannot_be_had_is_refused(folders, backend: str) -> None:
    other = ImageConfig(block=2)
    for name in ("map2d", "jpeg", "pnm"):
        with pytest.raises(UsageError, match="block 3, not 2; leave `image` out, or make shards with ENCODING=flux"):
            loader.open(folders[name], "val", 8, backend=backend, image=other)
        assert loader.open(folders[name], "val", 8, backend=backend, image=ImageConfig()).image == ImageConfig()
    state = loader.open(folders["flux"], "val", 8, backend=backend).state_dict()
    with pytest.raises(UsageError, match="fingerprint"):
        loader.open(folders["flux"], "val", 8, backend=backend, image=other).load_state_dict(state)
    # Ten values along each side hold no spectrum of 3909 pixels.
    with (
        loader.open(folders["flux"], "val", 8, backend=backend, image=ImageConfig(size=32)) as batches,
        pytest.raises(JobError, match=r"0/\d{10}: cannot be drawn: 3909 pixels .* make shards for this one"),
    ):
        list(batches)


@pytest.mark.parametrize("backend", BACKENDS)
def test_shards_of_spectra_made_for_different_pictures_can_be_joined(
    folders, spectra_folder: Path, tmp_path: Path, backend: str
) -> None:
    image = ImageConfig(image="overlap", size=32)
    config = ShardConfig(image=image, encoding="flux", samples_per_shard=100)
    build(config, spectra_folder, tmp_path / "b", engine=Engine(workers=0))
    with pytest.raises(UsageError, match="image configuration"):
        loader.open([folders["flux"], tmp_path / "b"], "val", 8, backend=backend)
    with loader.open([folders["flux"], tmp_path / "b"], "val", 8, backend=backend, image=image) as both:
        keys = keys_of(both)
        assert len(keys) == both.samples == len(set(keys))


@pytest.mark.parametrize("image", ["map2d", "simple", "overlap"])
def test_what_a_device_draws_is_what_the_cpu_draws(image: str) -> None:
    drawer = renderer(ImageConfig(image=image))
    flux, ivar, wavelength, mask = made_up_galaxy()
    mask[300:330] = True
    spectra = [
        (flux, ivar, wavelength, mask), (flux[:2000], None, wavelength[:2000], mask[:2000]),
        (flux[::-1], ivar[::-1], wavelength[::-1], mask[::-1]),
    ]  # fmt: skip
    keys = ["0/a", "0/b", "0/c"]
    there = paint.draw_on_device(drawer.device(), drawer, spectra, keys, "cpu")
    np.testing.assert_array_equal(there.numpy(), paint.render_batch(drawer, spectra, keys))
    with pytest.raises(JobError, match="0/b: cannot be drawn: all pixels masked"):
        bad = [spectra[0], (flux, ivar, wavelength, np.ones(3909, bool))]
        paint.draw_on_device(drawer.device(), drawer, bad, keys, "cpu")


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_data_sets_in_one_epoch(folders, spectra_folder: Path, tmp_path: Path, backend: str) -> None:
    build(ShardConfig(samples_per_shard=100), spectra_folder, tmp_path / "b", engine=Engine(workers=0))
    both = loader.open([folders["map2d"], tmp_path / "b"], "train", 32, backend=backend)
    keys = keys_of(both)
    assert len(keys) == len(set(keys)) == both.samples
    assert sorted(keys) == sorted(both.sidecar()["key"].to_pylist())
    assert {key.split("/")[0] for key in keys[:32]} == {"0", "1"}


def test_data_sets_that_do_not_fit_are_refused(folders, spectra_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="image configuration"):
        loader.open([folders["map2d"], folders["simple"]], "train", 8)
    build(ShardConfig(seed=3), spectra_folder, tmp_path / "b", engine=Engine(workers=0))
    with pytest.raises(UsageError, match="splits the sky otherwise"):
        loader.open([folders["map2d"], tmp_path / "b"], "train", 8)
    with pytest.raises(UsageError, match="unknown split"):
        loader.open(folders["map2d"], "validation", 8)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("encoding", ["png", "pnm", "jpeg", "flux"])
def test_damaged_shards_are_named(folders, spectra_folder: Path, tmp_path: Path, backend: str, encoding: str) -> None:
    out = tmp_path / "b"
    build(ShardConfig(encoding=encoding), spectra_folder, out, engine=Engine(workers=0))
    tar = sorted((out / "train").glob("*.tar"))[0]
    content = tar.read_bytes()
    tar.write_bytes(content[:-512])
    with pytest.raises(JobError, match=tar.name):
        loader.open(out, "train", 8, backend=backend)
    broken = bytearray(content)
    broken[512:700] = bytes(188)
    tar.write_bytes(broken)
    with pytest.raises(JobError, match=rf"{out}/train.*make shards"):
        list(loader.open(out, "train", 8, backend=backend))


def test_pictures_of_a_folder_account_for_every_object(spectra_folder: Path) -> None:
    batches = list(pictures(spectra_folder, ImageConfig(), 64))
    assert sum(len(b.rows) for b in batches) == 297 and sum(len(b.quarantine) for b in batches) == 3
    assert all(b.pixel_values.shape == (len(b.rows), 224, 224, 3) for b in batches)


def test_pictures_of_real_files_equal_those_of_the_shards(real_data: Path) -> None:
    inputs = real_data / "lamost" / "dr1"
    batches = list(pictures(inputs, ImageConfig(), 32))
    assert sum(len(b.rows) for b in batches) == 59
    assert {row["survey"] for b in batches for row in b.rows} == {"lamost"}

"""Batches of spectra on their own wavelengths, and labels that the shards do not hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine
from specshards.common.spectrum import Arrays
from specshards.ingest.spectra.blocks import iter_blocks
from specshards.ingest.spectra.folder import SpectraFolder
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.render import ImageConfig
from specshards.shards import loader
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.loader.augment import Augment
from specshards.shards.loader.batch import SpectraBatch
from specshards.shards.loader.stack import MULTIPLE, Stacker, log_bins, resample
from specshards.shards.report.head import read_head
from specshards.shards.write.build import build
from specshards.shards.write.reshard import remake
from tests.conftest import make_spectrum, near_infrared
from tests.oracles.data_sets import damage

HERE = Engine(workers=0)


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 spectra of another survey: a linear grid without coefficients, of changing length, with bad pixels."""
    folder = tmp_path_factory.mktemp("other")
    rng = np.random.default_rng(3)
    spectra = []
    for i in range(60):
        n = 2000 + 37 * i
        mask, ivar = rng.random(n) < 0.05, np.full(n, 0.3, np.float32)
        ivar[rng.random(n) < 0.05] = 0
        changes = {"wavelength": (3600 + 0.8 * np.arange(n)).astype(np.float32), "mask": mask, "ivar": ivar,
                   "wave_coeff0": None, "wave_coeff1": None, "object_id": str(9000 + i)}  # fmt: skip
        spectra.append(make_spectrum(i, rng, n=n, survey="mock-desi", **changes))
        spectra[-1].flux[[7, 900]] = np.nan, np.inf
    write_parquet(to_table(spectra), folder / "part-00000.parquet", {"test": 1}, row_group_rows=20)
    return folder


@pytest.fixture(scope="module")
def folders(spectra_folder: Path, other_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("spectra-shards")
    for name, config, source in (
        ("png", ShardConfig(samples_per_shard=60), spectra_folder),
        ("flux", ShardConfig(encoding="flux", samples_per_shard=60), spectra_folder),
        ("other", ShardConfig(image=ImageConfig(image="simple"), encoding="flux"), other_folder),
    ):
        build(config, source, out / name, engine=HERE)
    return {path.name: path for path in out.iterdir()}


def taken_from(*folders: Path) -> dict[str, Arrays]:
    """Key -> arrays, from the Parquet."""
    found = {}
    for index, folder in enumerate(folders):
        for group, block in iter_blocks(SpectraFolder.scan(folder)):
            for i in range(len(block)):
                found[f"{index}/{group.first_row + i:010d}"] = block.arrays(i)
    return found


def assert_is(batch: SpectraBatch, i: int, arrays: Arrays) -> None:
    flux, ivar, wavelength, mask = arrays
    n = len(flux)
    assert batch["length"][i] == n and batch["flux"].dtype == batch["ivar"].dtype == torch.float32
    finite = np.isfinite(flux)
    np.testing.assert_array_equal(batch["flux"][i, :n].numpy(), np.where(finite, flux, 0))
    np.testing.assert_array_equal(batch["wavelength"][i, :n].numpy(), wavelength.astype(np.float32))
    weight = np.ones(n) if ivar is None else ivar
    np.testing.assert_array_equal(batch["ivar"][i, :n].numpy(), np.where(finite & ~mask & (weight > 0), weight, 0))
    for name in ("flux", "ivar", "wavelength"):
        assert not batch[name][i, n:].any()  # type: ignore[literal-required]


def test_surveys_of_different_grids_share_batches(
    folders: dict[str, Path], spectra_folder: Path, other_folder: Path
) -> None:
    expected = taken_from(spectra_folder, other_folder)
    with loader.open([folders["flux"], folders["other"]], "train", 16, view="spectra") as batches:
        seen, mixed = [], 0
        for batch in batches.spectra():
            assert "pixel_values" not in batch
            n = batch["flux"].shape[1]
            assert n % MULTIPLE == 0 and n - int(batch["length"].max()) in range(MULTIPLE)
            mixed += len({key[0] for key in batch["key"]}) == 2
            for i, key in enumerate(batch["key"]):
                assert_is(batch, i, expected[key])
                if batch["valid"][i]:
                    seen.append(key)
        assert sorted(seen) == sorted(batches.sidecar(["class"])["key"].to_pylist()) and mixed > 5


def test_the_sequence_and_the_labels_are_those_of_the_pictures(folders: dict[str, Path]) -> None:
    options = {"seed": 4, "balance": "class"}
    with (
        loader.open(folders["flux"], "train", 32, **options) as pictures,
        loader.open(folders["flux"], "train", 32, view="spectra", **options) as spectra,
    ):
        for one, other in zip(pictures, spectra.spectra(), strict=True):
            assert one["key"] == other["key"] and torch.equal(one["valid"], other["valid"])
            for name, values in one["labels"].items():
                torch.testing.assert_close(values, other["labels"][name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("world_size", [1, 3])
def test_ranks_share_an_epoch_and_resume_in_it(folders: dict[str, Path], world_size: int) -> None:
    keys: list[str] = []
    for rank in range(world_size):
        options = {"view": "spectra", "rank": rank, "world_size": world_size, "augment": Augment(noise=1, mask=0.2)}
        with loader.open(folders["flux"], "train", 16, **options) as whole:
            states, sequence = [whole.state_dict()], []
            for batch in whole.spectra():
                sequence.append((batch["key"], batch["flux"].sum().item(), batch["ivar"].sum().item()))
                states.append(whole.state_dict())
                keys += [key for key, valid in zip(batch["key"], batch["valid"], strict=True) if valid]
        with loader.open(folders["flux"], "train", 16, **options) as resumed:
            for at in (0, 1, len(sequence) - 1):
                resumed.load_state_dict(json.loads(json.dumps(states[at])))
                rest = list(islice(chain.from_iterable(resumed.spectra() for _ in range(2)), 2))
                found = [(b["key"], b["flux"].sum().item(), b["ivar"].sum().item()) for b in rest]
                assert found[: len(sequence) - at] == sequence[at : at + 2]
            assert len(sequence) == len(resumed)
    with loader.open(folders["flux"], "train", 16) as pictures:
        assert sorted(keys) == sorted(pictures.sidecar(["class"])["key"].to_pylist())


def test_a_state_of_pictures_is_no_state_of_spectra(folders: dict[str, Path]) -> None:
    with (
        loader.open(folders["flux"], "train", 16) as pictures,
        loader.open(folders["flux"], "train", 16, view="spectra") as spectra,
    ):
        assert "view" not in pictures.state_dict()["arguments"]
        with pytest.raises(UsageError, match="view None, here spectra"):
            spectra.load_state_dict(pictures.state_dict())
        with pytest.raises(UsageError, match="fingerprint"):
            pictures.load_state_dict(spectra.state_dict())


def test_augmented_spectra_are_those_of_the_hook(folders: dict[str, Path], spectra_folder: Path) -> None:
    class Doubled:
        def spectra(self, spectra: Sequence[Arrays], rng: np.random.Generator) -> list[Arrays]:
            lost = np.zeros(len(spectra[0][0]), bool)
            lost[100:200] = True
            return [(2 * f, v, w, m | lost) for f, v, w, m in spectra]

    expected = taken_from(spectra_folder)
    with loader.open(folders["flux"], "val", 8, view="spectra", augment=Doubled()) as batches:
        for batch in batches.spectra():
            for i, key in enumerate(batch["key"]):
                flux, ivar, wavelength, mask = expected[key]
                lost = mask.copy()
                lost[100:200] = True
                assert_is(batch, i, (2 * flux, ivar, wavelength, lost))


def test_what_cannot_be_shown_as_spectra_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=r"holds pictures \(png\); make shards with ENCODING=flux"):
        loader.open(folders["png"], "train", 8, view="spectra")
    with pytest.raises(UsageError, match="draws no picture"):
        loader.open(folders["flux"], "train", 8, view="spectra", image=ImageConfig(size=64))
    with pytest.raises(UsageError, match="unknown view lines: choose picture or spectra"):
        loader.open(folders["flux"], "train", 8, view="lines")
    with loader.open(folders["flux"], "train", 8) as pictures, pytest.raises(UsageError, match="view spectra"):
        pictures.spectra()
    # What is never drawn need not agree: the other set's pictures are of another kind.
    with pytest.raises(UsageError, match="image configuration"):
        loader.open([folders["flux"], folders["other"]], "train", 8)


def test_a_damaged_spectrum_is_skipped(spectra_folder: Path, tmp_path: Path) -> None:
    build(ShardConfig(encoding="flux"), spectra_folder, tmp_path / "out", engine=HERE)
    _, key, _ = damage(tmp_path / "out", "flux.npy", "flux.npy")
    with loader.open(tmp_path / "out", "train", 16, view="spectra", on_error="skip") as batches:
        batches.add_label("mine", np.arange(batches.samples, dtype=float))
        gone = 0
        for batch in batches.spectra():
            assert torch.isfinite(batch["flux"]).all() and (batch["length"] == 3909).all()
            for i, name in enumerate(batch["key"]):
                if name == f"0/{key}":
                    assert not batch["valid"][i] and all(v[i].isnan() for v in batch["labels"].values())
                    gone += 1
        assert gone == batches.skipped >= 1


# --- labels that the shards do not hold


@pytest.mark.parametrize("options", [
    {}, {"shuffle": False}, {"world_size": 3, "rank": 2}, {"balance": "class"}, {"weights": (1.0, 3.0)},
    {"view": "spectra"},
])  # fmt: skip
def test_an_added_label_goes_with_its_row(folders: dict[str, Path], options: dict[str, object]) -> None:
    with loader.open([folders["flux"], folders["other"]], "train", 32, image=None if "view" in options else
                     ImageConfig(), **options) as batches:  # fmt: skip
        keys = batches.sidecar(["class"])["key"].to_pylist()
        values = np.arange(len(keys), dtype=float)
        values[::7] = np.nan
        before = batches.fingerprint()
        batches.add_label("subclass", values)
        batches.add_label("again", -values)
        assert batches.fingerprint() == before and batches.labels[-2:] == ("subclass", "again")
        expected = dict(zip(keys, values.tolist(), strict=True))
        padded = 0
        for batch in chain(batches, batches):
            assert tuple(batch["labels"]) == batches.labels
            found = batch["labels"]["subclass"]
            assert found.dtype == torch.float64
            # Padding repeats a sample, label and all; only `valid` tells it from one.
            np.testing.assert_array_equal(found.numpy(), [expected[key] for key in batch["key"]])
            np.testing.assert_array_equal(batch["labels"]["again"].numpy(), -found.numpy())
            padded += int((~batch["valid"]).sum())
        assert padded


def test_a_label_that_does_not_fit_is_refused(folders: dict[str, Path]) -> None:
    with loader.open(folders["png"], "val", 8) as batches:
        with pytest.raises(UsageError, match=r"label mine: values of shape \(3,\); give one for each of the \d+"):
            batches.add_label("mine", np.zeros(3))
        with pytest.raises(UsageError, match="label teff: is there already"):
            batches.add_label("teff", np.zeros(batches.samples))
        batches.add_label("mine", np.zeros(batches.samples))
        with pytest.raises(UsageError, match="label mine: is there already"):
            batches.add_label("mine", np.zeros(batches.samples))


# --- stacking and the common grid


def a_spectrum(n: int, seed: int, kind: str) -> Arrays:
    rng = np.random.default_rng(seed)
    flux = rng.normal(5, 3, n).astype(np.float32)
    flux[rng.random(n) < 0.1] = rng.choice([np.nan, np.inf, -np.inf])
    ivar = rng.choice([0.0, 0.25, 4.0, np.nan], n).astype(np.float32)
    wavelength = np.cumsum(rng.uniform(0.5, 2, n)) + 3600
    mask = rng.random(n) < 0.2
    if kind == "falling":
        wavelength = wavelength[::-1].copy()
    if kind == "padded":
        wavelength[-(n // 4) :] = -1
    return Arrays(flux, None if kind == "no ivar" else ivar, wavelength, mask)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(8, 200), st.sampled_from(["plain", "falling", "padded", "no ivar"])),
                min_size=1, max_size=6), st.integers(0, 10_000))  # fmt: skip
def test_any_spectra_stack(shapes: list[tuple[int, str]], seed: int) -> None:
    spectra = [a_spectrum(n, seed + i, kind) for i, (n, kind) in enumerate(shapes)]
    batch = Stacker("cpu", None)(spectra, np.random.default_rng(0))
    for i, ((flux, ivar, wavelength, mask), (n, kind)) in enumerate(zip(spectra, shapes, strict=True)):
        rows = np.arange(n)[::-1] if kind == "falling" else np.arange(n - n // 4 if kind == "padded" else n)
        weight = None if ivar is None else np.nan_to_num(ivar[rows])
        assert_is({**batch, "labels": {}, "key": [], "valid": batch["length"] > 0}, i,
                  (flux[rows], weight, wavelength[rows], mask[rows]))  # fmt: skip
        here = batch["wavelength"][i, : int(batch["length"][i])]
        assert (here[1:] > here[:-1]).all()


def test_the_common_grid_holds_the_mean_flux_of_good_pixels() -> None:
    rng = np.random.default_rng(1)
    n = 600
    wavelength = 4000.0 + np.arange(n)
    flux, ivar = rng.normal(10, 1, n).astype(np.float32), np.ones(n, np.float32)
    ivar[200:260] = 0
    flux[200:260] = 1e6
    batch = Stacker("cpu", None)([(flux, ivar, wavelength, np.zeros(n, bool))], rng)
    edges = np.arange(3989.5, 4600, 10)  # pixel i reaches from i - 0.5 to i + 0.5: ten of them a bin
    found, good = resample(batch, edges)
    expected = [
        np.mean(flux[max(0, i * 10 - 10) : i * 10][ivar[max(0, i * 10 - 10) : i * 10] > 0])
        if ivar[max(0, i * 10 - 10) : i * 10].any() else np.nan
        for i in range(len(edges) - 1)
    ]  # fmt: skip
    known = np.isfinite(expected)
    assert not known[0]  # lies before the first pixel
    np.testing.assert_array_equal(good[0], known)
    np.testing.assert_allclose(found[0][known], np.array(expected)[known], rtol=1e-5)
    inside = np.interp(np.arange(len(known)), np.flatnonzero(known), found[0][known])
    np.testing.assert_allclose(found[0], inside, rtol=1e-5)
    bins = log_bins(4000, 9000, 3e-4)
    np.testing.assert_allclose(np.diff(np.log10(bins)), np.log10(9 / 4) / (len(bins) - 1), rtol=1e-9)
    assert abs(np.log10(bins[1] / bins[0]) - 3e-4) < 1e-6 and (bins[0], bins[-1]) == (4000, 9000)


def test_a_spectrum_that_no_picture_of_the_data_set_shows_is_kept_and_read(tmp_path: Path) -> None:
    """Four near-infrared spectra, as of APOGEE; and what cannot be used in any window."""
    spectra = near_infrared(4) + near_infrared(4)
    masked, lonely, torn, padded = spectra[4:]
    masked.mask[:] = True
    lonely.ivar[1:] = 0
    torn.wavelength[100] = 15_101
    padded.wavelength[-3:] = 0
    write_parquet(to_table(spectra), tmp_path / "spectra.parquet", {})
    config = ShardConfig(encoding="flux", split=(1.0, 0.0, 0.0))
    manifest = build(config, tmp_path / "spectra.parquet", tmp_path / "flux", engine=HERE, max_bad_fraction=1)
    assert manifest.samples() == 5
    rows = pq.read_table(tmp_path / "flux" / "quarantine.parquet").to_pylist()
    assert {row["row"]: (row["stage"], row["reason"]) for row in rows} == {
        4: ("render", "all pixels masked, without information (ivar = 0) or not finite"),
        5: ("render", "fewer than two good pixels"),
        6: ("render", "wavelengths are neither increasing nor decreasing"),
    }
    with loader.open(tmp_path / "flux", "train", 8, view="spectra", shuffle=False) as batches:
        (batch,) = batches.spectra()
    assert batch["valid"].sum() == 5 and batch["wavelength"][0, :2].tolist() == [15_100.0, 15_101.0]
    with loader.open(tmp_path / "flux", "train", 8) as pictures, pytest.raises(JobError, match="fewer than two good"):
        list(pictures)
    wide = ImageConfig(image="simple", window=(15_000.0, 17_000.0))
    with loader.open(tmp_path / "flux", "train", 8, image=wide) as pictures:
        assert sum(int(batch["valid"].sum()) for batch in pictures) == 5
    remake([tmp_path / "flux"], tmp_path / "again", engine=HERE)
    assert Manifest.load(tmp_path / "again").samples() == 5
    sheet = read_head(tmp_path / "flux", out=tmp_path / "head.png").sheet
    assert sheet.stat().st_size > 1000

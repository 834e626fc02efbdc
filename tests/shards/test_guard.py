"""Damage that no decoder notices is found before anything that was learnt from it is kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from specshards.common.errors import JobError
from specshards.common.jobs import Engine
from specshards.common.spectrum import LABELS
from specshards.shards import loader
from specshards.shards.format.manifest import NPY_HEADER_BYTES, Manifest
from specshards.shards.loader.guard import Guard
from specshards.shards.write.reshard import remake
from specshards.train import checkpoint, loop
from specshards.train.config import RunOptions, TrainConfig
from specshards.train.fit import fit
from tests.oracles.faults import Copy
from tests.oracles.small_run import small_shards

QUICK = {"backend": "plain", "threads": 1}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def copy(sets: Callable[[str], Path], tmp_path: Path) -> Copy:
    shutil.copytree(sets("png"), tmp_path / "set")
    return Copy(tmp_path / "set")


def read(folder: Path, **options: Any) -> dict[str, list[float]]:
    """Key -> its label vector, of the train split."""
    with loader.open(folder, "train", 64, **{**QUICK, **options}) as batches:
        return {
            key: [float(column[i]) for column in batch["labels"].values()]
            for batch in batches
            for i, key in enumerate(batch["key"])
        }


def swap_labels(copy: Copy) -> Path:
    """Give two samples of a shard each other's label vector; sizes, names and headers stay."""
    record = copy.record()
    tar = record.path(copy.folder)
    content = bytearray(tar.read_bytes())
    samples = [copy.sample(record, number)["npy"] for number in range(record.samples)]
    vectors = [content[at : at + size] for at, size, _ in samples]
    classes = [np.frombuffer(vector, "<f8", offset=NPY_HEADER_BYTES)[0] for vector in vectors]
    other = next(i for i in range(len(classes)) if classes[i] != classes[0])
    for place, vector in ((0, vectors[other]), (other, vectors[0])):
        at, size, _ = samples[place]
        content[at : at + size] = vector
    tar.write_bytes(content)
    return tar


def test_every_flipped_bit_is_found_or_changes_nothing(copy: Copy) -> None:
    """In label vectors, indices and headers of tars, where a decoder has nothing to say."""
    before = read(copy.folder)
    rng = np.random.default_rng(0)
    silent = 0
    for number in range(60):
        record = copy.manifest.split("train")[number % len(copy.manifest.split("train"))]
        path = record.path(copy.folder) if number % 2 else record.index(copy.folder)
        content = path.read_bytes()
        if number % 2:
            at, size, _ = copy.sample(record, int(rng.integers(record.samples)))["npy"]
            place = at + int(rng.integers(-512, size))
        else:
            place = int(rng.integers(len(content)))
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        silent += read_or_none(copy.folder, verify=False) is not None
        with pytest.raises(JobError) as error:
            read(copy.folder)
        assert str(path) in str(error.value) or str(record.path(copy.folder)) in str(error.value)
        assert "\n" not in str(error.value) and "again" in str(error.value)
        path.write_bytes(content)
    assert silent > 10, "without the checksums many of them are noticed by nobody"
    assert str(read(copy.folder)) == str(before)


def read_or_none(folder: Path, **options: Any) -> dict[str, list[float]] | None:
    try:
        return read(folder, **options)
    except (JobError, ValueError):
        return None


def test_what_is_not_read_is_not_looked_at(copy: Copy) -> None:
    swap_labels(copy)
    with loader.open(copy.folder, "val", 16, **QUICK) as batches:
        assert sum(int(batch["valid"].sum()) for batch in batches) == batches.samples
    assert str(read(copy.folder, verify=False)) != ""


def test_skip_warns_of_what_it_cannot_skip(copy: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    tar = swap_labels(copy)
    read(copy.folder, on_error="skip")
    assert f"other damage may pass: {tar}: not the bytes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m["label_stats"]["z"].update(mean=m["label_stats"]["z"]["mean"] * 1.001), "label_stats of z"),
        (
            lambda m: m["label_stats"]["sn_median"].update(count=m["label_stats"]["sn_median"]["count"] - 1),
            "label_st",
        ),
        (lambda m: m["classes"].reverse(), "(classes or surveys were changed|label_stats of class)"),
        (lambda m: m["labels"].__setitem__(slice(2, 4), m["labels"][3:1:-1]), "labels, classes or surveys"),
    ],
    ids=["mean", "count", "classes", "labels"],
)
def test_a_manifest_that_was_tampered_with_is_refused(
    copy: Copy, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    copy.edit_manifest(change)
    with pytest.raises(JobError, match=rf"manifest\.json: .*{said}"):
        read(copy.folder)


def test_a_damaged_table_is_not_read(copy: Copy) -> None:
    record = copy.record()
    copy.flip(record.sidecar(copy.folder), 200)
    said = rf"{record.sidecar(copy.folder).name}: not the bytes"
    with loader.open(copy.folder, "train", 16, **QUICK) as batches, pytest.raises(JobError, match=said):
        batches.sidecar(["z"])


def test_a_guard_stops_when_it_is_closed() -> None:
    guard = Guard()
    seen: list[int] = []
    for number in range(3):
        guard.add(lambda number=number: str(seen.append(number) or ""))
    guard.wait()
    assert sorted(seen) == [0, 1, 2]
    guard.add(lambda: "x: is wrong")
    with pytest.raises(JobError, match="x: is wrong"):
        guard.wait()
    guard.close()


def test_faulty_label_vectors_are_set_aside_by_a_copy(copy: Copy, tmp_path: Path) -> None:
    """Written wrong from the start, so that every checksum is right."""
    record = copy.record("val")

    def wrong_class(row: dict[str, Any], labels: np.ndarray) -> None:
        labels[LABELS.index("class")] = 7

    def wrong_survey(row: dict[str, Any], labels: np.ndarray) -> None:
        labels[LABELS.index("survey")] = -1

    def another_z(row: dict[str, Any], labels: np.ndarray) -> None:
        labels[LABELS.index("z")] += 1

    for number, change in enumerate((wrong_class, wrong_survey, another_z)):
        copy.rewrite(record, number, change)
    copy.flip(record.path(copy.folder), copy.sample(record, 3)["npy"][0] + 70)
    copy.sign()
    bad = pq.read_table(record.sidecar(copy.folder))["source_row"].to_pylist()[:4]
    made = remake([copy.folder], tmp_path / "out", engine=Engine(workers=0))
    rows = {row["row"]: row["reason"] for row in pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()}
    assert made.quarantined == copy.manifest.quarantined + 4 and set(bad) <= set(rows)
    reasons = [rows[row] for row in bad]
    assert "class number 7" in reasons[0] and "survey number -1" in reasons[1]
    assert "not what its table says" in reasons[2] and reasons[3] == "not a label vector"
    # A loader names them, too.
    said = "not a label vector: class number 7"
    with loader.open(copy.folder, "val", 4, verify=False, **QUICK) as batches, pytest.raises(JobError, match=said):
        list(batches)


@pytest.fixture(scope="module")
def small(spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_shards(spectra_folder, tmp_path_factory.mktemp("guard") / "shards")


def learn(shards: Path, out: Path, **options: Any) -> Path:
    config = TrainConfig(task="classify", shards=(str(shards),), backbone="tiny", epochs=2, batch_size=32)
    return fit(config, out, RunOptions(device="cpu", threads=1, tracker="none", backend="plain", **options))


def test_nothing_learnt_from_changed_shards_is_kept(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path / "set")
    whole = learn(tmp_path / "set", tmp_path / "whole")
    tar = swap_labels(Copy(tmp_path / "set"))
    with pytest.raises(JobError, match=rf"{tar}: not the bytes"):
        learn(tmp_path / "set", tmp_path / "run")
    assert not [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    # Without the comparison the swap goes through.
    assert (learn(tmp_path / "set", tmp_path / "blind", verify=False) / "metrics.json").is_file()
    # Mended, the same command ends as if nothing had been.
    shutil.copy(small / "train" / tar.name, tar)
    learn(tmp_path / "set", tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_run_does_not_go_on_with_shards_that_changed(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small, tmp_path / "set")
    train_epoch = loop._Trainer.train_epoch

    def once(self: Any) -> None:
        if self.progress.epoch:
            raise KeyboardInterrupt
        train_epoch(self)

    monkeypatch.setattr(loop._Trainer, "train_epoch", once)
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "set", tmp_path / "run")
    monkeypatch.undo()
    first = (tmp_path / "run" / "metrics.json").read_bytes()
    tar = swap_labels(Copy(tmp_path / "set"))
    with pytest.raises(JobError, match=rf"{tar}: not the bytes"):
        learn(tmp_path / "set", tmp_path / "run")
    assert (tmp_path / "run" / "metrics.json").read_bytes() == first
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "running"
    # Shards that were made anew, with a manifest of their own, are other data.
    manifest = Manifest.load(tmp_path / "set")
    changed = replace(manifest, input_fingerprint="0" * 64)
    (tmp_path / "set" / "manifest.json").write_text(changed.dumps())
    with pytest.raises(Exception, match="have changed"):
        learn(tmp_path / "set", tmp_path / "run")
    assert checkpoint.latest(tmp_path / "run") is not None

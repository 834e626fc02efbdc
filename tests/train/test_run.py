"""Training from end to end on small real shards: learning, stopping, going on, judging, predicting, refusing."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, ViTConfig, ViTForImageClassification, ViTModel

from specshards.common.errors import JobError, UsageError
from specshards.common.files import write_text
from specshards.common.jobs import Engine
from specshards.render import ImageConfig
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.write.build import build as build_shards
from specshards.train import checkpoint, loop
from specshards.train.config import RunOptions, TrainConfig
from specshards.train.evaluation import score as scoring
from specshards.train.evaluation.evaluate import evaluate
from specshards.train.fit import fit
from specshards.train.models.parameters import parameter_groups
from specshards.train.models.picture import build, load
from specshards.train.run import CARD, Card
from specshards.train.use.predict import Predictor, predict
from tests.oracles import commands
from tests.oracles.data_sets import damage
from tests.oracles.rounding import assert_equal_but_for_rounding
from tests.oracles.small_run import IMAGE, small_shards

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shards(spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("train") / "shards"
    return str(small_shards(spectra_folder, out))


@pytest.fixture(scope="module")
def config(shards: str) -> TrainConfig:
    return TrainConfig(task="classify", shards=(shards,), backbone="tiny", epochs=2, batch_size=16)


@pytest.fixture(scope="module")
def trained(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(replace(config, epochs=6), tmp_path_factory.mktemp("runs") / "classify", RunOptions(device="cpu"))


@pytest.fixture(scope="module")
def regressed(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "redshift"
    return fit(replace(config, task="redshift", epochs=6), out, RunOptions(device="cpu"))


def test_tiny_learns_and_says_so_beside_the_baseline(trained: Path) -> None:
    content = json.loads((trained / "metrics.json").read_text())
    scores = content["splits"]["val"]["classify"]
    assert list(content["splits"]) == ["val"], "training must not touch the test split"
    assert content["mock"] is True and scores["all"]["count"] == scores["labelled"] > 0
    assert scores["all"]["macro_f1"] > 0.9 > 0.5 > scores["baselines"]["constant"]["macro_f1"]
    assert set(scores["by_survey"]) == {"mock-lamost"}
    assert "MOCK" in (trained / "report.md").read_text() and (trained / "figure_val_classify.png").is_file()
    assert not (trained / "checkpoints").exists()


def test_redshift_beats_the_mean_label(regressed: Path) -> None:
    scores = json.loads((regressed / "metrics.json").read_text())["splits"]["val"]["redshift"]
    assert scores["all"]["mean_abs_dz"] < 0.5 * scores["baselines"]["constant"]["mean_abs_dz"]
    assert set(scores["by_class"]) == {"STAR", "GALAXY", "QSO"}


def test_the_output_opens_with_transformers(trained: Path) -> None:
    network = AutoModelForImageClassification.from_pretrained(trained)
    assert network.config.id2label == {0: "STAR", 1: "GALAXY", 2: "QSO"}
    model = load(trained).eval()
    pixels = torch.randint(0, 256, (2, 3, 80, 80), dtype=torch.uint8)
    scale = json.loads((trained / "preprocessor_config.json").read_text())
    normal = (pixels / 255 - torch.tensor(scale["image_mean"]).view(3, 1, 1)) / torch.tensor(scale["image_std"]).view(
        3, 1, 1
    )
    with torch.inference_mode():
        torch.testing.assert_close(model(pixels), network.eval()(pixel_values=normal).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stop_at", ["inside an epoch", "at its last batch", "in validation"])
def test_an_interrupted_run_goes_on_bit_for_bit(
    config: TrainConfig, tmp_path: Path, stop_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(config, tmp_path / "whole", RunOptions(device="cpu"))
    per_epoch = json.loads((whole / "run.json").read_text())["steps"] // config.epochs
    at = {"inside an epoch": 4, "at its last batch": per_epoch, "in validation": None}[stop_at]

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        step, score = loop._Trainer.step, scoring.score

        def stopping_step(self, window):  # type: ignore[no-untyped-def]
            loss = step(self, window)
            if self.progress.step == at:
                interrupt()
            return loss

        def stopping_score(*args):  # type: ignore[no-untyped-def]
            if at is None:
                interrupt()
            return score(*args)

        patch.setattr(loop._Trainer, "step", stopping_step)
        patch.setattr("specshards.train.fit.score", stopping_score)
        with pytest.raises(KeyboardInterrupt):
            fit(config, tmp_path / "cut", RunOptions(device="cpu"))
    assert json.loads((tmp_path / "cut" / "run.json").read_text())["status"] == "running"
    cut = fit(config, tmp_path / "cut", RunOptions(device="cpu"))
    ours, theirs = load_file(cut / "model.safetensors"), load_file(whole / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs) and ours.keys() == theirs.keys()
    histories = [json.loads((run / "run.json").read_text())["history"] for run in (cut, whole)]
    assert histories[0] == histories[1]


def test_a_complete_run_is_left_alone_and_another_one_refused(trained: Path, config: TrainConfig) -> None:
    before = (trained / "model.safetensors").stat().st_mtime_ns
    fit(replace(config, epochs=6), trained, RunOptions(device="cpu"))
    assert (trained / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match=r"holds a run made otherwise \(epochs: 6 -> 2\)"):
        fit(config, trained, RunOptions(device="cpu"))
    with pytest.raises(UsageError, match="task: classify -> redshift"):
        fit(replace(config, task="redshift", epochs=6), trained, RunOptions(device="cpu"))


def test_changed_shards_are_refused(trained: Path, config: TrainConfig, spectra_folder: Path, tmp_path: Path) -> None:
    build_shards(ShardConfig(image=IMAGE, seed=1), spectra_folder, tmp_path / "other", engine=Engine(workers=0))
    with pytest.raises(UsageError, match=r"shards: .* -> .*other"):
        fit(replace(config, epochs=6, shards=(str(tmp_path / "other"),)), trained, RunOptions(device="cpu"))


def test_a_folder_of_other_things_is_not_a_run(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear diary")
    with pytest.raises(UsageError, match="not empty and not a run"):
        fit(config, tmp_path, RunOptions(device="cpu"))


def test_a_damaged_checkpoint_is_one_line(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(loop._Trainer, "validate", lambda self: self.save(stop=True))
        with pytest.raises(KeyboardInterrupt):
            fit(config, tmp_path / "run", RunOptions(device="cpu"))
    next((tmp_path / "run" / "checkpoints").glob("*/model.safetensors")).write_bytes(b"not a tensor")
    with pytest.raises(JobError, match="damaged"):
        fit(config, tmp_path / "run", RunOptions(device="cpu"))


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, torchs = tmp_path / "step.tmp", "PytorchStreamWriter failed writing file data/3\nmore"
    rusts = "I/O error: No space left on device (os error 28)"
    full = OSError(28, "No space left on device", str(folder))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 0))
        for error in (RuntimeError(torchs), SafetensorError(rusts), full):
            with pytest.raises(JobError, match="the disk is full") as caught, checkpoint.writing(folder):
                raise error
            assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(JobError, match=r"cannot be written \(Py[^\n]*data/3\);"), checkpoint.writing(folder):
        raise RuntimeError(torchs)


def test_a_damaged_sample_stops_the_training_or_is_skipped_and_counted(
    config: TrainConfig, spectra_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_shards(spectra_folder, tmp_path / "shards")
    tar, key, offset = damage(tmp_path / "shards", "png", "png")
    mine = replace(config, shards=(str(tmp_path / "shards"),), epochs=1)
    with pytest.raises(JobError, match=rf"^{tar}: {key}\.png at byte {offset}: "):
        fit(mine, tmp_path / "stop", RunOptions(device="cpu"))
    fit(mine, tmp_path / "skip", RunOptions(device="cpu", on_error="skip"))
    said = capsys.readouterr()
    assert "damaged samples skipped, over all epochs: 1 (1 of train)" in said.out
    assert f"skipped: {tar}: {key}.png at byte {offset}" in said.err


def test_evaluate_adds_the_test_split(trained: Path) -> None:
    before = json.loads((trained / "metrics.json").read_text())["splits"]["val"]["classify"]
    content = evaluate(trained, device="cpu", batch_size=7)
    assert set(content["splits"]) == {"val", "test"} and content["training"]["epochs"] == 6
    # Another batch size pads otherwise: counts and hits must not notice, probabilities by a rounding at most.
    after = content["splits"]["val"]["classify"]
    assert_equal_but_for_rounding(after["all"], before["all"])
    assert after["loss"] == pytest.approx(before["loss"], rel=1e-4)
    assert "## test" in (trained / "report.md").read_text() and (trained / "figure_test_classify.png").is_file()


def test_an_empty_split_is_left_out_and_said(
    trained: Path, spectra_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ShardConfig(image=IMAGE, split=(0.5, 0.5, 0.0))
    build_shards(few, spectra_folder, tmp_path / "few", engine=Engine(workers=0))
    content = evaluate(trained, shards=[str(tmp_path / "few")], device="cpu")
    assert list(content["splits"]) == ["val"] and "the test split is empty" in capsys.readouterr().out
    with pytest.raises(UsageError, match="nothing in test"):
        evaluate(trained, splits=["test"], shards=[str(tmp_path / "few")], device="cpu")
    evaluate(trained, device="cpu")  # the next test reads the figures of the run's own data


def test_a_data_set_that_has_taken_the_place_of_another_is_told(
    trained: Path, spectra_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, place = shutil.copytree(trained, tmp_path / "run"), tmp_path / "place"
    card = Card.read(run / CARD)
    shutil.copytree(card.data[0]["folder"], place)
    write_text(run / CARD, replace(card, data=({**card.data[0], "folder": str(place)},)).dumps())
    evaluate(run, splits=["val"], device="cpu")
    said = f"{place}: not the data set any more that this model learnt from"
    assert said not in capsys.readouterr().out
    shutil.rmtree(place)
    build_shards(ShardConfig(image=IMAGE, seed=5), spectra_folder, place, engine=Engine(workers=0))
    evaluate(run, splits=["val"], device="cpu")
    assert said in capsys.readouterr().out
    assert all(str(place) in (run / name).read_text() for name in ("report.md", "report.html"))
    assert "not the data set any more" in (run / "report.md").read_text()


def test_evaluate_refuses_pictures_of_another_kind(trained: Path, spectra_folder: Path, tmp_path: Path) -> None:
    line = ShardConfig(image=ImageConfig(image="simple", size=80))
    build_shards(line, spectra_folder, tmp_path / "simple", engine=Engine(workers=0))
    with pytest.raises(UsageError, match="pictures made otherwise"):
        evaluate(trained, splits=["val"], shards=[str(tmp_path / "simple")], device="cpu")


def test_predict_accounts_for_every_object(trained: Path, spectra_folder: Path, tmp_path: Path) -> None:
    account = predict(trained, spectra_folder, out=tmp_path / "p.parquet", device="cpu")
    table = pq.read_table(tmp_path / "p.parquet")
    assert account.predicted == table.num_rows
    assert pq.ParquetFile(tmp_path / "p.parquet").num_row_groups == 1  # however many batches
    again = Predictor.open(trained, device="cpu", batch_size=50)(spectra_folder)
    assert_equal_but_for_rounding(again.to_pylist(), table.to_pylist())
    bad = pq.read_table(tmp_path / "p_quarantine.parquet")
    assert (table.num_rows, bad.num_rows) == (297, 3) and all(bad["reason"].to_pylist())
    p = np.stack([table[f"p_{name}"].to_numpy() for name in ("STAR", "GALAXY", "QSO")])
    np.testing.assert_allclose(p.sum(axis=0), 1, atol=1e-9)
    assert table["predicted_class"].to_pylist() == [("STAR", "GALAXY", "QSO")[i] for i in p.argmax(axis=0)]
    assert set(table["trained_on_mock"].to_pylist()) == {True}


def test_redshift_predictions_as_csv(regressed: Path, spectra_folder: Path, tmp_path: Path) -> None:
    predict(regressed, spectra_folder, out=tmp_path / "p.csv", device="cpu", batch_size=50)
    table = pa_csv.read_csv(tmp_path / "p.csv")
    assert table.num_rows == 297 and {"z", "z_std", "z_q16", "z_q50", "z_q84", "z_lo68", "z_hi68"} <= set(
        table.column_names
    )


def test_only_unreadable_input_fails(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.fits").write_text("no FITS here")
    with pytest.raises(JobError, match=r"no object of 1 could be read \(notes.fits"):
        predict(trained, tmp_path / "notes.fits", out=tmp_path / "p.parquet", device="cpu")
    with pytest.raises(UsageError, match="no such folder"):
        predict(tmp_path / "nowhere", tmp_path, device="cpu")
    with pytest.raises(UsageError, match=r"\.parquet or \.csv"):
        predict(trained, tmp_path, out=tmp_path / "p.xlsx", device="cpu")


def test_an_unreachable_hub_is_one_line_with_the_ways_out(shards: str, tmp_path: Path) -> None:
    command = commands.program("train", "fit", "--task", "classify", "--shards", shards, "--out", tmp_path / "run")
    done = commands.run(command, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "cache"))
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1 and len(lines) == 1
    assert "facebook/dino-vitb16" in lines[0] and "BACKBONE=folder" in lines[0] and "BACKBONE=tiny" in lines[0]


SMALL = ViTConfig(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=64, patch_size=16,
    num_labels=3,
)  # fmt: skip


@pytest.mark.parametrize("kind", ["bare", "classifier"])
@pytest.mark.parametrize("size", [64, 96])
def test_a_backbone_folder_keeps_its_encoder_and_gets_a_fresh_head(tmp_path: Path, kind: str, size: int) -> None:
    source = ViTModel(SMALL) if kind == "bare" else ViTForImageClassification(SMALL)
    source.save_pretrained(tmp_path / "backbone")
    encoder = source if kind == "bare" else source.vit
    model = build(str(tmp_path / "backbone"), 3, size)
    for name, tensor in encoder.state_dict().items():
        if "pooler" not in name and "position_embeddings" not in name:
            assert torch.equal(model.network.vit.state_dict()[name], tensor)
    if kind == "classifier":
        assert not torch.equal(model.network.classifier.weight, source.classifier.weight)
    model.save(tmp_path / "saved")
    pixels = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    assert load(tmp_path / "saved")(pixels).shape == (1, 3)


def test_a_backbone_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    ViTModel(SMALL).save_pretrained(tmp_path / "vit")
    with pytest.raises(
        UsageError, match="patches of 16 pixels do not divide pictures of 100; make shards with ARGS='--size 96'"
    ):
        build(str(tmp_path / "vit"), 3, 100)
    with pytest.raises(UsageError, match=r"no config\.json"):
        build(str(tmp_path), 3, 64)
    with pytest.raises(UsageError, match="no such folder"):
        build("./missing", 3, 64)
    broken = ViTModel(SMALL).state_dict()
    del broken["layers.0.mlp.fc1.weight"]
    ViTModel(SMALL).save_pretrained(tmp_path / "broken", state_dict=broken)
    with pytest.raises(UsageError, match="1 weights are missing"):
        build(str(tmp_path / "broken"), 3, 64)


def test_deeper_layers_learn_slower_and_vectors_do_not_decay() -> None:
    model = build("tiny", 3, 224)
    groups = parameter_groups(model, weight_decay=0.1, layer_decay=0.5)
    place = {id(p): group for group in groups for p in group["params"]}
    assert len(place) == sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    network = model.network
    assert place[id(network.classifier.weight)]["lr_scale"] == 1
    assert place[id(network.classifier.bias)]["weight_decay"] == 0
    assert place[id(network.vit.layernorm.weight)]["lr_scale"] == 0.5
    assert place[id(network.vit.layers[0].mlp.fc1.weight)]["lr_scale"] == 0.5**4
    assert place[id(network.vit.embeddings.position_embeddings)] == {
        **place[id(network.vit.embeddings.position_embeddings)], "lr_scale": 0.5**5, "weight_decay": 0.0,
    }  # fmt: skip

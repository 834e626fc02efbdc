"""Runs on pictures drawn while training: one as if the shards were made for it, several with their mean answers."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine
from specshards.render import ImageConfig, preset
from specshards.shards import loader
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.write.build import build
from specshards.train import loop
from specshards.train.config import RunOptions, TrainConfig, configure
from specshards.train.evaluation.evaluate import evaluate
from specshards.train.evaluation.other_runs import add_runs
from specshards.train.fit import fit
from specshards.train.models.views import by_picture, over_pictures
from specshards.train.network import open_any
from specshards.train.report.modelcard import modelcard
from specshards.train.run import Card
from specshards.train.use.embed import embed
from specshards.train.use.explain import explain
from specshards.train.use.export import export_onnx
from specshards.train.use.pictures import pictures
from specshards.train.use.predict import Predictor
from tests.oracles.rounding import assert_equal_but_for_rounding

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("simple:paper", "overlap")
SIZE = 48
SIMPLE = replace(preset("paper", "simple"), size=SIZE)
OVERLAP = ImageConfig(image="overlap", size=SIZE)
HERE = RunOptions(device="cpu", threads=1, tracker="none")


@pytest.fixture(scope="module")
def folders(spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Spectra sharded for a map, and the drawn pictures of one kind; a third of the objects is validated on."""
    out = tmp_path_factory.mktemp("images")
    kinds = {"flux": ("flux", ImageConfig(size=SIZE, grid="log")), "overlap": ("png", OVERLAP)}
    for name, (encoding, image) in kinds.items():
        config = ShardConfig(image=image, encoding=encoding, samples_per_shard=60, split=(0.5, 0.3, 0.2))
        build(config, spectra_folder, out / name, engine=Engine(workers=0))
    return {name: str(out / name) for name in kinds}


@pytest.fixture(scope="module")
def config(folders: dict[str, str]) -> TrainConfig:
    tasks = "classify,redshift"
    return TrainConfig(task=tasks, shards=(folders["flux"],), backbone="tiny", epochs=2, batch_size=32, images=NAMES)


@pytest.fixture(scope="module")
def trained(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = fit(config, tmp_path_factory.mktemp("runs") / "mega", HERE)
    evaluate(run, device="cpu", threads=1)
    return run


@pytest.fixture(scope="module")
def logits(trained: Path, folders: dict[str, str]) -> dict[str, torch.Tensor]:
    """What the network says of each object of the test split, `(pictures, outputs)`, one picture at a time."""
    _, model = open_any(trained)
    found: dict[str, list[torch.Tensor]] = {}
    with torch.inference_mode():
        for image in (SIMPLE, OVERLAP):
            with loader.open(folders["flux"], "test", 16, image=image, threads=1) as batches:
                for batch in batches:
                    for i, out in enumerate(model.eval()(batch["pixel_values"])):
                        if batch["valid"][i]:
                            found.setdefault(batch["key"][i], []).append(out)
    return {key: torch.stack(both) for key, both in found.items()}


def test_one_picture_is_as_if_the_shards_were_made_for_it(folders: dict[str, str], tmp_path: Path) -> None:
    """The same weights, bit for bit, and the same answers."""
    same = {"task": "classify", "backbone": "tiny", "epochs": 1, "batch_size": 32}
    drawn = fit(TrainConfig(shards=(folders["flux"],), images=("overlap",), **same), tmp_path / "drawn", HERE)
    stored = fit(TrainConfig(shards=(folders["overlap"],), **same), tmp_path / "stored", HERE)
    a, b = (load_file(run / "model.safetensors") for run in (drawn, stored))
    assert all(torch.equal(a[name], b[name]) for name in a)
    content = [json.loads((run / "specshards.json").read_text()) for run in (drawn, stored)]
    assert content[0]["image"] == content[1]["image"] == OVERLAP.to_dict() and "images" not in content[0]
    assert "images" not in content[1]["config"] and "views" not in content[0]["config"]
    # Spectra are drawn as the model learnt them, whatever their shards were made for.
    first, second = evaluate(drawn, device="cpu"), evaluate(stored, shards=[folders["flux"]], device="cpu")
    assert first["splits"] == second["splits"] and "by_picture" not in first["splits"]["val"]["classify"]
    assert evaluate(drawn, shards=[folders["overlap"]], device="cpu")["splits"] == first["splits"]


def test_every_object_counts_once_and_every_picture_stands_beside_it(trained: Path, folders: dict[str, str]) -> None:
    content = json.loads((trained / "metrics.json").read_text())
    manifest = Manifest.load(Path(folders["flux"]))
    for split in ("val", "test"):
        for scores in content["splits"][split].values():
            assert scores["objects"] == scores["all"]["count"] == manifest.samples(split)
            assert set(scores["by_picture"]) == set(NAMES)
            assert all(alone["count"] == manifest.samples(split) for alone in scores["by_picture"].values())
    report = (trained / "report.md").read_text()
    assert "An answer is the mean of the outputs over the pictures simple:paper, overlap of one object" in report
    assert "By picture, each answering alone" in report and "By picture" in (trained / "report.html").read_text()
    assert json.loads((trained / "run.json").read_text())["steps"] == 2 * -(-2 * manifest.samples("train") // 32)


def test_the_card_holds_all_pictures(trained: Path) -> None:
    card = Card.read(trained / "specshards.json")
    assert card.pictures == (SIMPLE, OVERLAP) and card.several == NAMES and card.image == SIMPLE.to_dict()
    for images in ([SIMPLE.to_dict()], [OVERLAP.to_dict(), SIMPLE.to_dict()], [{"image": "bars"}]):
        content = json.loads((trained / "specshards.json").read_text()) | {"images": images}
        del content["checksum"]
        path = trained.parent / "other.json"
        path.write_text(json.dumps(content))
        with pytest.raises(JobError, match="not a card of this program"):
            Card.read(path)


def test_an_answer_is_the_mean_of_the_outputs(trained: Path, folders: dict[str, str], logits) -> None:
    (task, _) = Card.read(trained / "specshards.json").tasks
    table = Predictor.open(trained, device="cpu", batch_size=11)(folders["flux"])
    found = {row["object_id"]: row["p_QSO"] for row in table.to_pylist() if row["split"] == "test"}
    with loader.open(folders["flux"], "test", 16, threads=1) as batches:
        rows = batches.sidecar(["object_id"]).to_pylist()
    assert len(found) == len(rows) == len(logits)
    for row in rows:
        mean = logits[row["key"]].mean(dim=0)[: task.head_size]
        assert found[row["object_id"]] == pytest.approx(float(mean.softmax(dim=0)[2]), rel=1e-4)


def test_metrics_are_those_of_the_answers(trained: Path, folders: dict[str, str], logits) -> None:
    card = Card.read(trained / "specshards.json")
    task = card.tasks[0]
    scores = json.loads((trained / "metrics.json").read_text())["splits"]["test"]["classify"]
    with loader.open(folders["flux"], "test", 16, threads=1) as batches:
        truth = {
            k: int(c) for b in batches for k, c in zip(b["key"], b["labels"]["class"].nan_to_num(-1), strict=True)
        }
    true = np.array([truth[key] for key in logits])
    outputs = torch.stack(list(logits.values()))[:, :, : task.head_size]
    mean = outputs.mean(dim=1)
    assert scores["all"]["accuracy"] == pytest.approx((mean.argmax(dim=1).numpy() == true).mean())
    for i, name in enumerate(NAMES):
        hits = outputs[:, i].argmax(dim=1).numpy() == true
        assert scores["by_picture"][name]["accuracy"] == pytest.approx(hits.mean())
    loss = torch.nn.functional.cross_entropy(mean, torch.from_numpy(true))
    assert scores["loss"] == pytest.approx(float(loss), rel=1e-4)


def test_each_picture_by_itself_chooses_the_epoch(config: TrainConfig, tmp_path: Path) -> None:
    one = replace(config, task="classify", epochs=1)
    entries, losses = {}, {}
    for views in ("mean", "each"):
        run = fit(replace(one, views=views), tmp_path / views, HERE)
        (entries[views],) = json.loads((run / "run.json").read_text())["history"]
        losses[views] = json.loads((run / "metrics.json").read_text())["splits"]["val"]["classify"]
    alone = [v["macro_f1"] for v in losses["each"]["by_picture"].values()]
    assert entries["each"]["macro_f1"] == pytest.approx(np.mean(alone))
    assert entries["mean"]["macro_f1"] == losses["mean"]["all"]["macro_f1"] == losses["each"]["all"]["macro_f1"]
    # Cross entropy is convex in the outputs: that of the mean is below the mean of the two.
    assert entries["mean"]["loss_classify"] < entries["each"]["loss_classify"]


def test_an_interrupted_run_goes_on_bit_for_bit(config: TrainConfig, trained: Path, tmp_path: Path) -> None:
    step = loop._Trainer.step
    with pytest.MonkeyPatch.context() as patch:

        def stopping_step(self, window):  # type: ignore[no-untyped-def]
            loss = step(self, window)
            if self.progress.step == 4:
                os.kill(os.getpid(), signal.SIGINT)
            return loss

        patch.setattr(loop._Trainer, "step", stopping_step)
        with pytest.raises(KeyboardInterrupt):
            fit(config, tmp_path / "run", HERE)
    with pytest.raises(UsageError, match="images"):
        fit(replace(config, images=NAMES[::-1]), tmp_path / "run", HERE)
    fit(config, tmp_path / "run", HERE)
    whole, stopped = (load_file(run / "model.safetensors") for run in (trained, tmp_path / "run"))
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_predictions_from_files_are_those_of_shards(trained: Path, spectra_folder: Path, folders) -> None:
    model = Predictor.open(trained, device="cpu", batch_size=50)
    files = {row["object_id"]: row for row in model(spectra_folder).to_pylist()}
    shards = {row["object_id"]: row for row in model(folders["flux"]).drop_columns("split").to_pylist()}
    assert len(files) == 297
    assert_equal_but_for_rounding([files[name] for name in sorted(files)], [shards[name] for name in sorted(files)])


def test_what_is_done_with_a_model_of_several_pictures(
    trained: Path, spectra_folder: Path, folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = {}
    for name, source in (("files", spectra_folder), ("shards", Path(folders["flux"]))):
        table = pq.read_table(
            embed(trained, source, split="test", out=tmp_path / f"{name}.parquet", device="cpu", batch_size=50)
        )
        vectors[name] = {row["object_id"]: np.array(row["embedding"]) for row in table.to_pylist()}
    for name, vector in vectors["shards"].items():
        np.testing.assert_allclose(vector, vectors["files"][name], rtol=1e-4, atol=1e-5)
    card, model = open_any(trained)
    alone = []
    for image in (SIMPLE, OVERLAP):
        (batch,) = pictures(spectra_folder, image, 400)
        with torch.inference_mode():
            pixels = torch.from_numpy(batch.pixel_values[:20]).permute(0, 3, 1, 2)
            alone.append(card.config.architecture.represent(model.eval(), pixels).numpy())
    for row, vector in zip(batch.rows, np.mean(alone, axis=0), strict=False):
        np.testing.assert_allclose(vectors["files"][row["object_id"]], vector, rtol=1e-3, atol=1e-4)
    capsys.readouterr()
    explain(trained, spectra_folder, out=tmp_path / "first", limit=1, device="cpu")
    assert "the model answers from simple:paper alone, 1 of 2 pictures" in capsys.readouterr().out
    explain(trained, spectra_folder, out=tmp_path / "second", limit=1, device="cpu", picture="overlap")
    assert "from overlap alone" in capsys.readouterr().out
    tables = [pq.read_table(tmp_path / name / "attention.parquet") for name in ("first", "second")]
    assert not tables[0].equals(tables[1])
    assert [table["picture"].to_pylist() for table in tables] == [["simple:paper"], ["overlap"]]
    with pytest.raises(UsageError, match="--picture bars: the model has simple:paper, overlap"):
        explain(trained, spectra_folder, device="cpu", picture="bars")
    text = modelcard(trained)
    assert "as 2 pictures (`simple` and `overlap`, 48 × 48 pixels" in text
    assert "Picture overlap: image overlap" in text and "mean of the logits over its 2 pictures" in text
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    export_onnx(trained, tmp_path / "model.onnx")
    said = capsys.readouterr().out
    assert "average the logits over simple:paper, overlap" in said and "8 real pictures" in said


def test_another_run_beside_it_answers_with_its_own_pictures(
    trained: Path, folders: dict[str, str], tmp_path: Path
) -> None:
    other = fit(
        TrainConfig(task="classify", shards=(folders["overlap"],), backbone="tiny", epochs=1, batch_size=32),
        tmp_path / "other", HERE,
    )  # fmt: skip
    own = evaluate(other, splits=["test"], device="cpu")["splits"]["test"]["classify"]["all"]["accuracy"]
    add_runs(other, [trained], device="cpu", threads=1)
    scores = evaluate(other, splits=["test"], device="cpu")["splits"]["test"]["classify"]
    theirs = json.loads((trained / "metrics.json").read_text())["splits"]["test"]["classify"]["all"]["accuracy"]
    assert scores["all"]["accuracy"] == own and scores["baselines"]["mega"]["accuracy"] == theirs


def test_mistakes_are_one_line_and_leave_no_folder(folders: dict[str, str], tmp_path: Path) -> None:
    for images, message in (
        (("bars",), "unknown IMAGE=bars"),
        (("simple", "simple:default"), "simple is there twice"),
        (("map2d:none",), "map2d:none: unknown PRESET=none: for map2d choose default, paper, "),
        (("simple:papre",), "unknown PRESET=papre: for simple choose default, aligned, paper, robust$"),
    ):
        with pytest.raises(UsageError, match=message):
            TrainConfig(task="classify", shards=("x",), images=images)
    with pytest.raises(UsageError, match="BACKBONE=sequence-tiny reads spectra"):
        configure(task="classify", shards=("x",), backbone="sequence-tiny", images=("simple",))
    with pytest.raises(UsageError, match="unknown views both: choose mean, each"):
        TrainConfig(task="classify", shards=("x",), views="both")
    drawn = TrainConfig(task="classify", shards=(folders["overlap"],), backbone="tiny", images=NAMES)
    with pytest.raises(UsageError, match="make shards with ENCODING=flux"):
        fit(drawn, tmp_path / "out", HERE)
    for one in ((), ("simple:paper",)):
        with pytest.raises(UsageError, match="views=each: is for several pictures of an object; name them in images"):
            fit(replace(drawn, images=one, views="each"), tmp_path / "out", HERE)
    assert not (tmp_path / "out" / "run.json").exists()


def test_evaluate_refuses_shards_that_hold_one_of_them(trained: Path, folders: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="drawn already; the model reads simple:paper and overlap"):
        evaluate(trained, splits=["val"], shards=[folders["overlap"]], device="cpu")
    with pytest.raises(UsageError, match="give shards made with ENCODING=flux"):
        Predictor.open(trained, device="cpu")(folders["overlap"])


def test_views_of_one_picture_are_the_answer_itself() -> None:
    given = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2)

    def answer(x: torch.Tensor) -> torch.Tensor:
        return x.double().mean(dim=(1, 2, 3))[:, None]

    assert torch.equal(over_pictures(answer, given), answer(given)) and by_picture(answer, given).shape == (2, 1, 1)
    both = torch.stack([given, given + 10], dim=1)
    torch.testing.assert_close(over_pictures(answer, both), (answer(given) + 5).float())

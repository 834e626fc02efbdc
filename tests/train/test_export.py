"""A model for other programs: ONNX beside torch, and a folder for the hub whose card says what is measured."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from huggingface_hub import ModelCard
from transformers import AutoModelForImageClassification
from typer.testing import CliRunner

from specshards.common.errors import JobError, UsageError
from specshards.common.json import unsigned
from specshards.shards import loader as shard_loader
from specshards.train.evaluation.evaluate import evaluate
from specshards.train.network import open_model
from specshards.train.report.modelcard import modelcard
from specshards.train.use import commands
from specshards.train.use import export as export_module
from specshards.train.use.export import export_hub, export_onnx
from specshards.train.use.pictures import pictures
from specshards.train.use.predict import Predictor
from tests.oracles.rounding import assert_equal_but_for_rounding
from tests.oracles.small_run import IMAGE, small_run, small_shards

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    return small_run(small_shards(spectra_folder, folder / "shards"), folder / "run")


@pytest.fixture(scope="module")
def evaluated(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with its test split scored."""
    run = tmp_path_factory.mktemp("export") / "evaluated"
    shutil.copytree(trained, run)
    evaluate(run, device="cpu", threads=1)
    return run


@pytest.fixture(scope="module")
def onnx_file(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    return export_onnx(trained, tmp_path_factory.mktemp("onnx") / "model.onnx")


def test_onnx_says_what_torch_says(trained: Path, onnx_file: Path, spectra_folder: Path, tmp_path: Path) -> None:
    import onnxruntime

    path = onnx_file
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,), (answer,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape[1:]) == ("pixel_values", "tensor(uint8)", [3, 80, 80])
    assert answer.name == "logits" and given.shape[0] == answer.shape[0] == "batch"
    card, model = open_model(trained)
    (batch,) = pictures(spectra_folder, IMAGE, 400)
    pixels = np.ascontiguousarray(batch.pixel_values.transpose(0, 3, 1, 2))
    for n in (1, 2, 37):
        with torch.inference_mode():
            expected = model.eval()(torch.from_numpy(pixels[:n])).numpy()
        np.testing.assert_allclose(session.run(None, {"pixel_values": pixels[:n]})[0], expected, rtol=1e-3, atol=1e-4)
    about = json.loads(session.get_modelmeta().custom_metadata_map["specshards"])
    assert about["model"] == card.model and about["mock"] is True and about["image"]["size"] == 80
    assert [task["name"] for task in about["tasks"]] == ["classify", "redshift"] and str(tmp_path.parent) not in str(
        about
    )
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("tolerance", [1e-4, 1e-12])
def test_onnx_is_compared_with_torch_and_not_kept_where_it_differs(
    trained: Path, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tolerance: float,
) -> None:  # fmt: skip
    monkeypatch.setattr(export_module, "TOLERANCE", tolerance)
    monkeypatch.setattr(export_module, "_write_onnx", lambda card, model, path: shutil.copy(onnx_file, path))
    if tolerance > 1e-6:
        export_onnx(trained, tmp_path / "model.onnx")
        said = capsys.readouterr().out
        assert "5 random and 8 real pictures" in said and said.startswith("model of MOCK data: ")
        assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
        return
    with pytest.raises(JobError, match="the ONNX file was not kept"):
        export_onnx(trained, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_named(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(UsageError, match=r"ONNX needs onnxscript: `\.venv/bin/pip install -c constraints\.txt -e"):
        export_onnx(trained, tmp_path / "model.onnx")


def texts(folder: Path) -> str:
    return "\n".join(path.read_text() for path in folder.rglob("*") if path.suffix in (".json", ".md"))


def test_a_hub_folder_opens_and_answers_as_the_run_does(
    evaluated: Path, spectra_folder: Path, tmp_path: Path
) -> None:
    hub = export_hub(evaluated, tmp_path / "hub")
    network = AutoModelForImageClassification.from_pretrained(hub, local_files_only=True)
    assert network.config.num_labels == 131
    theirs, ours = Predictor.open(hub, device="cpu"), Predictor.open(evaluated, device="cpu")
    assert_equal_but_for_rounding(theirs(spectra_folder).to_pylist(), ours(spectra_folder).to_pylist())
    assert (hub / "model.safetensors").read_bytes() == (evaluated / "model.safetensors").read_bytes()
    names = {path.name for path in hub.iterdir()}
    assert {"README.md", "config.json", "model.safetensors", "preprocessor_config.json", "specshards.json",
            "metrics.json", "figure_test_classify.png"} <= names  # fmt: skip
    assert "checkpoints" not in names and "run.json" not in names
    assert str(evaluated.parent.parent) not in texts(hub), "paths of this machine are nobody's business"
    assert (
        json.loads((hub / "metrics.json").read_text())["splits"]
        == json.loads((evaluated / "metrics.json").read_text())["splits"]
    )
    export_hub(evaluated, tmp_path / "hub")  # again, over itself


def test_folders_of_this_machine_stay_unnamed(evaluated: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    content = unsigned(json.loads((run / "specshards.json").read_text()))
    content["config"]["backbone"] = "/home/somebody/models/dino"
    (run / "specshards.json").write_text(json.dumps(content))
    hub = export_hub(run, tmp_path / "a-name")
    assert "somebody" not in texts(hub) and "(dino)" in (hub / "README.md").read_text()
    data = ModelCard.load(hub / "README.md").data
    assert data.model_name == "a-name" and data.base_model is None
    content["config"]["backbone"] = "facebook/dino-vitb16"
    (run / "specshards.json").write_text(json.dumps(content))
    assert ModelCard(modelcard(run)).data.base_model == "facebook/dino-vitb16"


def test_transformers_alone_gives_the_models_answer(evaluated: Path, spectra_folder: Path, tmp_path: Path) -> None:
    """The second recipe of the card, word for word."""
    hub = export_hub(evaluated, tmp_path / "hub")
    (batch,) = pictures(spectra_folder, IMAGE, 400)
    code = (hub / "README.md").read_text().split("```python\n")[2].split("```")[0]
    scope: dict[str, object] = {"rgb": batch.pixel_values[0]}
    exec(code.replace("this-folder", str(hub)), scope)
    _, model = open_model(evaluated)
    with torch.inference_mode():
        expected = model.eval()(torch.from_numpy(batch.pixel_values[:1]).permute(0, 3, 1, 2))
    torch.testing.assert_close(scope["logits"], expected, rtol=1e-3, atol=1e-3)


def test_the_cards_numbers_are_those_of_the_metrics(evaluated: Path, tmp_path: Path) -> None:
    hub = export_hub(evaluated, tmp_path / "hub")
    data = ModelCard.load(hub / "README.md").data.to_dict()
    assert data["license"] == "mit" and data["pipeline_tag"] == "image-classification"
    assert {"astronomy", "spectroscopy", "mock-data", "classify", "redshift"} <= set(data["tags"])
    assert data["datasets"] == ["mock-lamost"] and {"accuracy", "f1", "r_squared"} <= set(data["metrics"])
    scores = json.loads((hub / "metrics.json").read_text())["splits"]["test"]
    (index,) = data["model-index"]
    assert [result["task"]["name"] for result in index["results"]] == ["classify", "redshift"]
    names = {"f1": "macro_f1", "r_squared": "r2"}
    compared = 0
    for result in index["results"]:
        mine = scores[result["task"]["name"]]
        assert result["dataset"]["split"] == "test" and "MOCK" in result["dataset"]["name"]
        assert result["dataset"]["args"] == {"objects": mine["objects"], "labelled": mine["labelled"]}
        for metric in result["metrics"]:
            name = names.get(metric["type"], metric["type"])
            assert metric["value"] == mine["all"][name]
            for baseline, value in metric.get("args", {}).get("baselines", {}).items():
                assert value == mine["baselines"][baseline][name]
                compared += 1
    assert compared >= 10
    accuracy = scores["classify"]["all"]["accuracy"]
    assert f"{accuracy:.4f}" in (hub / "README.md").read_text()


def test_the_cards_table_of_outputs_reads_the_logits(evaluated: Path, spectra_folder: Path) -> None:
    rows = re.findall(r"^\| (\d+) to (\d+) \| (\w+) \| (.*) \|$", modelcard(evaluated), re.M)
    outputs = {task: (slice(int(first), int(last) + 1), meaning) for first, last, task, meaning in rows}
    network = AutoModelForImageClassification.from_pretrained(evaluated).eval()
    (batch,) = pictures(spectra_folder, IMAGE, 400)
    pixels = torch.from_numpy(batch.pixel_values[:20]).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        logits = network(pixel_values=(pixels - 0.5) / 0.5).logits
    assert [n for part, _ in outputs.values() for n in range(part.start, part.stop)] == list(range(logits.shape[1]))
    part, meaning = outputs["classify"]
    answers = Predictor.open(evaluated, device="cpu")(spectra_folder).slice(0, 20)
    for name, p in zip(meaning.removeprefix("logits of ").split(", "), logits[:, part].softmax(1).T, strict=True):
        np.testing.assert_allclose(p, answers[f"p_{name}"].to_numpy(), rtol=1e-3, atol=1e-4)
    part, meaning = outputs["redshift"]
    told = re.fullmatch(r"logits of a histogram of (\d+) bins of \(ln\(1 \+ z\) - (\S+)\) / (\S+)", meaning)
    assert told is not None and int(told[1]) == part.stop - part.start
    task = open_model(evaluated)[0].tasks[1].to_dict()
    assert (float(told[2]), float(told[3])) == pytest.approx((task["centre"], task["scale"]), rel=1e-5)


def test_the_card_says_where_the_training_and_the_scoring_end(trained: Path, evaluated: Path) -> None:
    with shard_loader.open(trained.parent / "shards", "train", 8) as train:
        z = [row["z"] for row in train.sidecar(["z"]).to_pylist()]
    for run, split, unscored in ((trained, "val", ["test"]), (evaluated, "test", [])):
        card = ModelCard(modelcard(run))
        limits = re.search(r"^- redshift: train objects from (\S+) to ([\d.]*\d)[.;]", card.text, re.M)
        assert limits is not None
        assert (float(limits[1]), float(limits[2])) == pytest.approx((min(z), max(z)), rel=1e-3)
        assert re.findall(r"^- Not scored: (.*)\.$", card.text, re.M) == unscored
        assert {result["dataset"]["split"] for result in card.data.to_dict()["model-index"][0]["results"]} == {split}
        # Numbers of the split that chose the epoch say so.
        assert ("flatter the model" in card.text) == (split == "val")


def test_names_cannot_write_markup(evaluated: Path, tmp_path: Path) -> None:
    run = tmp_path / "<b>run"
    shutil.copytree(evaluated, run)
    for name in ("specshards.json", "metrics.json"):
        content = unsigned(json.loads((run / name).read_text()))
        content["data"][0]["surveys"] = ["<script>x</script>\n# no heading | `"]
        (run / name).write_text(json.dumps(content))
    text = modelcard(run)
    body = text.split("---\n", 2)[2]
    assert "<script>" not in body and "\n# no heading" not in body
    assert ModelCard(text).data.to_dict()["datasets"] == ["<script>x</script>\n# no heading | `"]


def test_metrics_of_other_weights_are_refused(evaluated: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    content = unsigned(json.loads((run / "metrics.json").read_text()))
    (run / "metrics.json").write_text(json.dumps({**content, "model": "0" * 64}))
    with pytest.raises(UsageError, match="not of the model that is there now; run `make evaluate"):
        modelcard(run)
    (run / "metrics.json").write_text("{")
    with pytest.raises(JobError, match="not readable"):
        modelcard(run)
    (run / "metrics.json").unlink()
    with pytest.raises(UsageError, match=r"no metrics\.json there"):
        export_hub(run, tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_a_folder_of_other_things_is_left_alone(evaluated: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear diary")
    with pytest.raises(UsageError, match="holds other files"):
        export_hub(evaluated, tmp_path)
    with pytest.raises(UsageError, match="is the run itself"):
        export_hub(evaluated, evaluated)


def test_the_commands_reach_what_they_name(evaluated: Path, spectra_folder: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    for command in (commands.explain, commands.embed, commands.export):
        app.command()(command)
    runner = CliRunner()

    def call(*arguments: object) -> None:
        result = runner.invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output

    common = ("--model", evaluated, "--input", spectra_folder, "--device", "cpu")
    call("explain", *common, "--limit", 1, "--no-lines", "--out", tmp_path / "seen")
    call("embed", *common, "--neighbours", 2, "--out", tmp_path / "e.parquet")
    call("export", "--model", evaluated, "--to", "hub", "--out", tmp_path / "hub")
    assert (tmp_path / "seen" / "000_1000.png").is_file() and (tmp_path / "e.parquet").is_file()
    assert (tmp_path / "hub" / "README.md").is_file()
    with pytest.raises(UsageError, match="unknown --to gguf"):
        call("export", "--model", evaluated, "--to", "gguf")
    with pytest.raises(UsageError, match="no INPUT given"):
        call("embed", "--model", evaluated, "--input", " ")

"""Folders that others made: read as they were written, or refused in one line; nothing in them is executed."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specshards.common.errors import JobError, UsageError
from specshards.common.files import sha256
from specshards.common.json import signed, unsigned
from specshards.common.quarantine import read_quarantine
from specshards.shards.report.make import write_page
from specshards.shards.write.job import Claim
from specshards.shards.write.reshard import remake
from specshards.shards.write.task import TaskResult
from specshards.train import checkpoint, loop
from specshards.train.config import RunOptions, TrainConfig
from specshards.train.evaluation.evaluate import evaluate
from specshards.train.evaluation.predictions import IDENTITY, Answers
from specshards.train.fit import fit
from specshards.train.models.picture import build
from specshards.train.network import open_any
from specshards.train.run import Card
from tests.oracles.small_run import small_run, small_shards
from tests.shards.test_manifest import places, put

pytestmark = pytest.mark.usefixtures("one_thread")


class Bomb:
    """A pickle that leaves a trace where it is opened."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.fixture(scope="module")
def shards(spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_shards(spectra_folder, tmp_path_factory.mktemp("hostile") / "shards")


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(shards, tmp_path_factory.mktemp("hostile") / "run", epochs=1)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def said(error: Any) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


CARDS: list[tuple[str, Any, str]] = [
    ("mock", "no", "mock: 'no' is not true or false"),
    ("model", None, "model: None is not text"),
    ("data", [{}], "data[0].folder: is missing"),
    ("image.size", "80", "image.size: '80' is not a whole number"),
    ("image.size", 10**7, "size=10000000"),
    ("config.batch_size", -1, "BATCH_SIZE=-1"),
    ("config.bins", 1e9, "config.bins"),
    ("config.unknown", 1, "config.'unknown': is not known"),
    ("tasks", [], "tasks"),
    ("tasks.0.classes", ["STAR"], "not classes with their shares"),
    ("tasks.0.name", "theft", "theft"),
    ("tasks.1.scale", 0, "not a scale"),
    ("tasks.1.low", 1e9, "not a scale"),
    ("tasks.1.scale", "1", "redshift.scale: '1' is not a number"),
    ("baselines.classify.constant", "x", "baselines"),
    ("baselines", {}, "baselines"),
    ("conformal.classify.scores", {"0.68": "1"}, "conformal.classify.scores.0.68"),
    ("best", [], "best"),
    ("files", {"../x": "0"}, "'../x' is not the file"),
]


@pytest.mark.parametrize(("place", "value", "words"), CARDS, ids=[f"{p}={str(v)[:20]}" for p, v, _ in CARDS])
def test_a_card_that_was_tampered_with_is_refused(run: Path, place: str, value: Any, words: str) -> None:
    content = unsigned(json.loads((run / "specshards.json").read_text()))
    (run / "specshards.json").write_text(json.dumps(signed(put(content, place, value))))
    with pytest.raises(JobError) as error:
        open_any(run)
    assert words in said(error) and str(run / "specshards.json") in said(error)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5), st.just([]),
    st.just({}),
    st.sampled_from(["../x", "tiny", "tokenizer:/", "classify", -1, 0, 10**18]),
)  # fmt: skip


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_card_is_read_or_refused(trained: Path, tmp_path: Path, data: Any) -> None:
    content = unsigned(json.loads((trained / "specshards.json").read_text()))
    for _ in range(data.draw(st.integers(1, 2))):
        # A level such as 0.68, and the name of a file, have the dot that separates the steps of a place.
        every = [place for place in places(content) if "scores." not in place and "files." not in place]
        content = put(content, data.draw(st.sampled_from(every)), data.draw(VALUES))
    path = tmp_path / "card.json"
    path.write_text(json.dumps(signed(content) if data.draw(st.booleans()) else content))
    try:
        card = Card.read(path)
    except JobError as error:
        assert "\n" not in str(error) and str(error).startswith(str(path))
    else:
        assert card.tasks is not None


def test_a_model_whose_files_changed_is_refused(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    for change in ({"num_hidden_layers": 3}, {"hidden_act": "relu"}, {"layer_norm_eps": 0.1}):
        (run / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(JobError, match=r"'config\.json' is not the file that it speaks of"):
            open_any(run)
    (run / "config.json").unlink()
    with pytest.raises(JobError, match=r"'config\.json' is not the file"):
        open_any(run)


def backbone(folder: Path, trained: Path, **changes: Any) -> Path:
    """A folder of a transformers model."""
    folder.mkdir()
    config = json.loads((trained / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    shutil.copy(trained / "model.safetensors", folder)
    return folder


def test_no_pickle_and_no_code_of_a_model_folder_is_run(trained: Path, tmp_path: Path) -> None:
    good = backbone(tmp_path / "good", trained)
    assert build(str(good), 3, 80) is not None
    pickled = backbone(tmp_path / "pickled", trained)
    (pickled / "model.safetensors").unlink()
    (pickled / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "trace")))
    coded = backbone(
        tmp_path / "coded", trained, model_type="mine", auto_map={"AutoModelForImageClassification": "evil.Model"}
    )
    (coded / "evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'trace')!r})\n")
    kernel = backbone(tmp_path / "kernel", trained, _attn_implementation="somebody/kernel")
    index = backbone(tmp_path / "index", trained)
    (index / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../pickled/x.safetensors"}}))
    (index / "model.safetensors").unlink()
    for folder, words in (
        (pickled, "pytorch_model.bin, which may run any program"), (coded, "auto_map asks for program code"),
        (kernel, "code of the hub"), (index, "is not the name of a file of weights"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match="not a usable image model") as error:
            build(str(folder), 3, 80)
        assert words in said(error)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("config", ["", "[]", "{", '{"model_type": 5}', '{"model_type": "vit", "hidden_size": "x"}'])
def test_a_configuration_that_is_none_is_refused(trained: Path, tmp_path: Path, config: str) -> None:
    folder = backbone(tmp_path / "model", trained)
    (folder / "config.json").write_text(config)
    with pytest.raises(UsageError, match="not a usable image model") as error:
        build(str(folder), 3, 80)
    said(error)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("optimizer.pt", b"not a pickle"), ("rank-0.pt", b""), ("state.json", b"[]"), ("state.json", b"{"),
        ("optimizer.pt", None), ("rank-0.pt", None), ("model.safetensors", b"\xff" * 100),
        ("state.json", b'{"step": "x"}'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("signed", [True, False])
def test_a_checkpoint_of_a_stranger_is_refused(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None, signed: bool
) -> None:
    def stop(self: Any) -> None:
        self.save(stop=True)

    config = TrainConfig(task="classify", shards=(str(shards),), backbone="tiny", epochs=1, batch_size=32)
    options = RunOptions(device="cpu", threads=1, tracker="none", backend="plain")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop._Trainer, "train_epoch", stop)
        fit(config, tmp_path / "run", options)
    folder = checkpoint.latest(tmp_path / "run")
    assert folder is not None
    (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "trace")) if content is None else content)
    if signed and name != "state.json":
        state = json.loads((folder / "state.json").read_text())
        state["files"][name] = sha256(folder / name)
        (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(JobError, match="damaged") as error:
        fit(config, tmp_path / "run", options)
    assert str(folder) in said(error) and not (tmp_path / "trace").exists()


def test_a_flipped_bit_in_a_checkpoint_is_found(shards: Path, tmp_path: Path) -> None:
    network = torch.nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(network.parameters())

    class Loader:
        def state_dict(self) -> dict[str, Any]:
            return {"fingerprint": "x", "epoch": 0, "batch": 0}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            pass

    from accelerate import Accelerator

    checkpoint.save(tmp_path, {"step": 1, "epoch": 0}, network, optimizer, Loader(), Accelerator(cpu=True))
    folder = checkpoint.latest(tmp_path)
    assert folder is not None
    assert checkpoint.restore(folder, network, optimizer, Loader(), 0) == {"step": 1, "epoch": 0}
    for path in sorted(folder.iterdir()):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        if path.name != "state.json":
            path.write_bytes(content)
            with pytest.raises(JobError, match=f"damaged .{path.name}: not the file"):
                checkpoint.restore(folder, network, optimizer, Loader(), 0)
            content[len(content) // 2] ^= 1
            path.write_bytes(content)


def test_metrics_and_records_of_something_else_are_refused(run: Path, shards: Path) -> None:
    for text in ("[]", "{", '{"model": 5}', '{"a": 1, "a": 2}', "[" * 100_000):
        (run / "metrics.json").write_text(text)
        with pytest.raises(JobError, match="not readable") as error:
            evaluate(run, device="cpu", threads=1)
        said(error)
    config = TrainConfig(task="classify,redshift", shards=(str(shards),), backbone="tiny", epochs=1, batch_size=16)
    options = RunOptions(device="cpu", threads=1, tracker="none")
    for text in ("[]", "{", '{"config": [], "data": [], "status": "complete", "history": []}', "{}"):
        (run / "run.json").write_text(text)
        with pytest.raises(JobError, match=r"not of a run|not what this program writes") as error:
            fit(config, run, options)
        said(error)


@pytest.mark.parametrize("name", ["specshards.json", "metrics.json"])
def test_a_digit_that_changed_is_refused(run: Path, name: str) -> None:
    """A scale, a threshold or a metric of one flipped bit is a number like any other: other science, in silence."""
    content = bytearray((run / name).read_bytes())
    whole = json.loads(content)
    digits = [at for at, letter in enumerate(content) if letter in b"2345"]
    for at in digits[:: len(digits) // 12]:
        content[at] ^= 1
        if json.loads(content) != whole:  # the last digits may be more than a float holds
            (run / name).write_bytes(content)
            with pytest.raises(JobError, match=f"{name}: not (a card|readable)") as error:
                evaluate(run, device="cpu", threads=1) if name == "metrics.json" else open_any(run)
            said(error)
        content[at] ^= 1


def test_tables_of_something_else_are_refused(run: Path, shards: Path, tmp_path: Path) -> None:
    path = run / "baselines.parquet"
    wrong = [
        pa.table({"x": [1]}), pa.table({}),
        pa.table({name: [1] for name in (*IDENTITY, "key", "split", "baseline", "task", "point")}),
    ]  # fmt: skip
    for table in wrong:
        for metadata in ({}, {b"specshards.baselines": b"[]"}, {b"specshards.baselines": b"{"}):
            pq.write_table(table.replace_schema_metadata(metadata), path)
            with pytest.raises(JobError, match="not answers of this program") as error:
                Answers.read(run)
            said(error)
    path.write_bytes(b"PAR1")
    with pytest.raises(JobError, match="not answers of this program"):
        Answers.read(run)
    from specshards.train.use.embed import embed

    vector = pa.array([[np.nan, 1.0]], pa.list_(pa.float32(), 2))
    for table in (
        pa.table({"x": [1]}), pa.table({"object_id": ["a"], "embedding": [1.0], "model": ["b"]}),
        pa.table({"object_id": ["a"], "embedding": vector, "model": ["b"]}),
    ):  # fmt: skip
        pq.write_table(table, tmp_path / "reference.parquet")
        with pytest.raises(UsageError, match="not a table that `embed` wrote"):
            embed(run, shards, reference=tmp_path / "reference.parquet", out=tmp_path / "e.parquet", device="cpu")


def test_quarantines_and_tables_of_another_kind_are_refused(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(shards, folder)
    path = folder / "quarantine.parquet"
    good = path.read_bytes()
    for content in (pa.table({"x": [1]}), pa.table({"file": [1], "row": ["a"], "stage": [1], "reason": [None]})):
        pq.write_table(content, path)
        with pytest.raises(JobError, match="not a quarantine of this program"):
            read_quarantine(path)
        for read in (lambda: remake([folder], tmp_path / "out"), lambda: write_page(folder)):
            with pytest.raises(JobError, match=r"quarantine\.parquet: not ") as error:
                read()
            said(error)
    path.write_bytes(good)
    sidecar = next((folder / "train").glob("*.parquet"))
    table = pq.read_table(sidecar)
    for wrong in (
        table.drop_columns(["_healpix_29"]), table.drop_columns(["source_row"]),
        table.set_column(1, "source_row", pa.array(["x"] * len(table))),
        table.set_column(table.column_names.index("z"), "z", pa.array([["x"]] * len(table))),
    ):  # fmt: skip
        pq.write_table(wrong, sidecar)
        with pytest.raises(JobError, match="says more") as error:
            write_page(folder)
        said(error)
        with pytest.raises(JobError, match="is not what the manifest says"):
            remake([folder], tmp_path / "out")


def test_a_ledger_of_a_stranger_counts_for_nothing(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(shards, folder)
    record = folder / ".ledger" / "000000.json"
    text = record.read_text()
    good = json.loads(text)
    assert TaskResult.loads(text).dumps() == text
    rng = np.random.default_rng(0)
    every = [place for place in places(good) if place != "checksum"]
    for place in rng.permutation(every)[:60]:
        for value in ("../x.tar", -1, None, [], 10**20):
            changed = put(good, str(place), value)
            if changed != good:
                with pytest.raises((ValueError, KeyError, TypeError)):
                    TaskResult.loads(json.dumps(changed))
    unsigned = {key: value for key, value in good.items() if key != "checksum"}
    with pytest.raises(ValueError, match="is not the name of a shard"):
        TaskResult.loads(json.dumps(put(unsigned, "shards.0.name", "../../x.tar")))
    plan = folder / ".ledger" / "plan.json"
    content = json.loads(plan.read_text())
    assert Claim.load(folder) is not None
    for place, value in (("config", []), ("inputs", [1]), ("moved", {"x": 1}), ("moved", {"1": 7}), ("surveys", "x")):
        plan.write_text(json.dumps(put(copy.deepcopy(content), place, value)))
        assert Claim.load(folder) is None

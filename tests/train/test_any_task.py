"""Any column as a task: numbers and texts of the tables beside the shards, and what cannot be learnt of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specshards.common.errors import UsageError
from specshards.common.jobs import Engine
from specshards.ingest.mock.scale.config import ScaleConfig
from specshards.ingest.mock.scale.job import write_parquet_survey
from specshards.shards.format.archive import read_sidecars
from specshards.shards.format.manifest import Manifest
from specshards.shards.write import card
from specshards.shards.write.split import group_column
from specshards.train.config import RunOptions, TrainConfig
from specshards.train.evaluation.evaluate import evaluate
from specshards.train.fit import fit
from specshards.train.report.modelcard import modelcard
from specshards.train.run import Card
from specshards.train.tasks.column import Column, check_frames, check_sets, find, spelled, task_of
from specshards.train.tasks.multitask import make_tasks, task_from_dict
from specshards.train.tasks.regression import Redshift
from specshards.train.tasks.task import Task
from specshards.train.tasks.transforms import TRANSFORMS
from specshards.train.use.predict import Predictor
from tests.oracles.small_run import small_shards

pytestmark = pytest.mark.usefixtures("one_thread")

ODD = "c/n <b>|x"


@pytest.fixture(scope="module")
def spectra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Spectra with columns of every sort, drawn by chance: no test asks that they are learnt well."""
    out = tmp_path_factory.mktemp("survey")
    write_parquet_survey(ScaleConfig("lamost", n=240, templates=20), out, engine=Engine(workers=0))
    for path in sorted((out / "spectra").glob("part-*.parquet")):
        table = pq.read_table(path)
        n = len(table)
        i = np.arange(n)
        rng = np.random.default_rng(3)
        mass = np.where(i % 40 == 0, np.where(i % 80 == 0, 0.0, -9999.0), 10 ** rng.uniform(8, 12, n))
        further: dict[str, pa.Array] = {
            "stellar_mass": pa.array(np.where(i % 41 == 1, np.inf, mass)),
            "plate": pa.array(100 + i % 3),
            "soil_class": pa.array([None if k % 9 == 0 else "rare one" if k % 60 == 1 else
                                    "sandy loam" if k % 2 else "clay" for k in range(n)]),
            "is_wet": pa.array((i % 2 == 0).tolist()),
            "same": pa.array(np.full(n, 3.5)),
            "names": pa.array([f"n{k}" for k in range(n)]),
            ODD: pa.array(rng.normal(size=n)),
        }  # fmt: skip
        for name, values in further.items():
            table = table.append_column(name, values)
        pq.write_table(table, path)
    return out / "spectra"


@pytest.fixture(scope="module")
def shards(spectra: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_shards(spectra, tmp_path_factory.mktemp("any") / "shards"))


@pytest.fixture(scope="module")
def config(shards: str) -> TrainConfig:
    return TrainConfig(
        task=f"stellar_mass,soil_class,is_wet,plate,{ODD},teff", shards=(shards,), backbone="tiny", epochs=1,
        batch_size=32, precision="fp32", target="log10(stellar_mass)", categories="plate",
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(config, tmp_path_factory.mktemp("run") / "run", RunOptions(device="cpu", tracker="none"))


def made(config: TrainConfig) -> tuple[Task, ...]:
    """The tasks of a configuration on its shards."""
    folders = [Path(folder) for folder in config.shards]
    manifests = [Manifest.load(folder) for folder in folders]
    return make_tasks(config, manifests, lambda names: read_sidecars(folders, manifests, "train", names))


def test_what_is_learnt_is_what_the_column_says(config: TrainConfig, shards: str) -> None:
    tasks = {task.name: task for task in made(config)}
    manifest = Manifest.load(Path(shards))
    sidecar = read_sidecars([Path(shards)], [manifest], "train", ["stellar_mass", "soil_class", "is_wet", "plate"])
    mass = np.array(sidecar["stellar_mass"].to_pylist())
    has_log = np.isfinite(mass) & (mass > 0)
    task = tasks["stellar_mass"]
    np.testing.assert_array_equal(task.targets(sidecar), np.where(has_log, mass, np.nan))
    record = task.to_dict()
    assert record["centre"] == pytest.approx(np.log10(mass[has_log]).mean())
    assert record["scale"] == pytest.approx(np.log10(mass[has_log]).std())
    assert task.left_out(sidecar) == {
        "not a value (-9999 and the like)": (mass == -9999).sum(), "infinite": np.isinf(mass).sum(),
        "without log10(stellar_mass)": (mass == 0).sum(),
    }  # fmt: skip
    assert tasks["soil_class"].output_names(True) == ["soil_class: clay", "soil_class: sandy loam"]
    rare = sidecar["soil_class"].to_pylist().count("rare one")
    assert rare and tasks["soil_class"].left_out(sidecar) == {"of 1 other class": rare}
    assert tasks["is_wet"].output_names(False) == ["false", "true"]
    assert tasks["plate"].output_names(False) == ["100", "101", "102"]
    for task in tasks.values():
        again = task_from_dict(json.loads(json.dumps(task.to_dict())))
        assert again.to_dict() == task.to_dict() and task.conflict(again) is None


def test_a_run_says_all_about_them_as_about_named_tasks(run: Path, spectra: Path) -> None:
    scores = evaluate(run, splits=["val", "test"], device="cpu")["splits"]["val"]
    mass = scores["stellar_mass"]
    assert mass["labelled"] + sum(mass["left_out"].values()) == mass["objects"]
    assert mass["all"]["mae_log"] > 0 and {"r2_log", "rmse", "crps", "coverage68"} <= set(mass["all"])
    assert mass["baselines"]["constant"]["mae_log"] is not None and mass["by_survey"] and mass["by_class"]
    assert set(scores["soil_class"]["all"]["per_class"]) == {"clay", "sandy loam"}
    assert scores["teff"]["all"]["mae"] is not None
    report, page = (run / "report.md").read_text(), (run / "report.html").read_text()
    assert "left out" in report and "MAE (log)" in page and "In stellar_mass itself" in page
    assert "<b>" not in report and "<b>" not in page and "c/n &lt;b" in page
    assert (run / "figure_val_c%2fn%20%3cb%3e%7cx.png").is_file() and "figure_val_c%252fn%2520%253cb" in report
    text = modelcard(run)
    assert "log10(stellar_mass)" in text and "<b>" not in text.split("---", 2)[2]
    counts = Card.read(run / "specshards.json").baselines["stellar_mass"].counts
    assert counts["without log10(stellar_mass)"] > 0
    table = Predictor.open(run, device="cpu")(spectra)
    assert {"stellar_mass", "stellar_mass_std", "stellar_mass_lo68", "predicted_soil_class", "p_soil_class_clay",
            "p_is_wet_true", "predicted_plate", "p_plate_101", ODD, "teff"} <= set(table.column_names)  # fmt: skip
    low, point, high = (np.array(table[f"stellar_mass{end}"]) for end in ("_lo68", "", "_hi68"))
    assert (low > 0).all() and (low <= point).all() and (point <= high).all()


def test_a_finished_run_is_known_again(config: TrainConfig, run: Path) -> None:
    before = (run / "model.safetensors").stat().st_mtime_ns
    assert fit(config, run, RunOptions(device="cpu", tracker="none")) == run
    assert (run / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"task": "soil_clas"}, r"^unknown TASK=soil_clas .did you mean soil_class.*, stellar_mass$"),
        ({"task": "same"}, "every same of the train split is 3.5: nothing to learn"),
        ({"task": "names"}, "no class has 10 objects in the train split, so TASK=names cannot be learnt"),
        ({"task": "object_id"}, "unknown TASK=object_id"),
        ({"task": "z,redshift"}, "TASK=redshift: would fill the column z, which TASK=z too"),
        ({"task": "teff", "categories": "teff"}, "categories=teff: TASK=teff is no column of numbers"),
        ({"task": "redshift", "target": "log10"}, r"target=log10: TASK=redshift learns ln\(1 \+ z\) already"),
        ({"task": "soil_class", "target": "log10"}, "TASK=soil_class learns no number"),
        ({"task": "stellar_mass", "select": "macro_f1"}, "give one of mae, r2, rmse, crps"),
    ],
)
def test_what_cannot_be_learnt_is_one_line(shards: str, wrong: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        made(TrainConfig(shards=(shards,), backbone="tiny", **wrong))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"target": "log10(age)"}, r"target=log10\(age\): TASK=mass learns no age"),
        ({"target": "sqrt"}, r"unknown target sqrt: choose auto, z, max, log10"),
        ({"categories": "plate"}, "categories=plate: TASK=mass learns no plate"),
    ],
)
def test_an_option_about_no_column_of_the_run_is_refused(wrong: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig(task="mass", shards=("s",), backbone="tiny", **wrong)  # type: ignore[arg-type]


def test_sets_together_have_one_meaning_and_one_unit(shards: str) -> None:
    bare = Manifest.load(Path(shards))

    def of(kind: str, unit: str | None) -> Manifest:
        return replace(bare, further={"mg_fe": {"kind": kind, "unit": unit}})

    sidecar = pa.table({"mg_fe": [0.1, None, 0.3]})

    def found(*manifests: Manifest) -> Column:
        return find("mg_fe", ("a", "b"), manifests, lambda names: sidecar.select(names))

    one, other = of("number", "dex"), of("number", "%")
    assert found(one, bare) == found(one, one) == Column("mg_fe", "number", "dex")
    with pytest.raises(UsageError, match="mg_fe is in dex in a and in % in b; bring them to one unit"):
        found(one, other)
    task = task_of(Column("mg_fe", "number", "dex"))("mg_fe", 0.0, 1.0, 0.5, 1.0)
    with pytest.raises(UsageError, match=r"b: mg_fe is in % there; TASK=mg_fe learnt it in dex"):
        check_sets([task], ["b"], [other])
    shifted = replace(bare, shards=tuple(replace(record, at_rest=2) for record in bare.split("val")[:1]))
    with pytest.raises(UsageError, match="b: 2 spectra are in the rest frame, where no redshift shows for TASK="):
        check_sets([Redshift.scaled_by(bare.label_stats["z"], "redshift")], ["b"], [shifted])
    with pytest.raises(UsageError, match="a number in one and a text in another"):
        found(one, of("text", None))


def test_a_column_that_some_tables_lack_is_missing_there(shards: str, tmp_path: Path) -> None:
    manifest = Manifest.load(Path(shards))
    record = manifest.split("train")[0]
    table = pq.read_table(record.sidecar(Path(shards)))
    record.sidecar(tmp_path).parent.mkdir()
    pq.write_table(table.drop_columns(["plate"]), record.sidecar(tmp_path))
    one = replace(manifest, shards=(record,))
    both = [tmp_path, Path(shards)], [one, one], "train"
    found = read_sidecars(*both, ["plate"], verify=False)["plate"].to_pylist()
    assert found == [None] * len(table) + table["plate"].to_pylist()
    with pytest.raises(UsageError, match=r"has no column nothing; the spectra had none"):
        read_sidecars(*both, ["plate", "nothing"], verify=False)


def test_a_redshift_is_not_learnt_where_files_were_in_the_rest_frame(shards: str) -> None:
    manifest = Manifest.load(Path(shards))

    def sidecar(names: object) -> pa.Table:
        return pa.table({"frame": ["observed", "rest", "rest"], "z": [0.1, 0.2, 0.3], "mass": [1.0, 2.0, 3.0]})

    with pytest.raises(
        UsageError, match="2 spectra are in the rest frame, where no redshift shows, so TASK=redshift"
    ):
        make_tasks(TrainConfig(task="redshift", shards=(shards,), backbone="tiny"), [manifest], sidecar)
    assert make_tasks(TrainConfig(task="mass", shards=(shards,), backbone="tiny"), [manifest], sidecar)


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(["log10", "ln"]), st.floats(1e-30, 1e30), st.floats(-1e4, 1e4))
def test_a_logarithm_is_numpys_and_never_overflows(name: str, label: float, value: float) -> None:
    transform = TRANSFORMS[name]
    expected = {"log10": np.log10, "ln": np.log}[name](label)
    for said in (label, np.array([label]), torch.tensor([label], dtype=torch.float64)):
        on_axis = transform.forward(said)  # type: ignore[type-var]
        assert float(np.ravel(on_axis)[0]) == pytest.approx(expected, rel=1e-12, abs=1e-12)
        assert float(np.ravel(transform.inverse(on_axis))[0]) == pytest.approx(label, rel=1e-10)
    assert 0 < transform.inverse(value) < float("inf")


def test_many_classes_are_counted_and_drawn_in_part() -> None:
    classes = tuple(f"k{i}" for i in range(150))
    task = task_of(Column("kind", "text"))(classes, "kind")  # type: ignore[arg-type]
    true = np.arange(600) % 150.0
    scores = task.measure({"point": true}, {task.target: true})
    assert scores["accuracy"] == 1 and "confusion" not in scores and len(scores["per_class"]) == 150
    assert len(task.draw(true, true, np.full(600, np.nan)).axes[0].get_xticks()) == 31


def test_names_of_columns_are_understood_as_they_were_spelled(tmp_path: Path) -> None:
    def said(*further: str) -> list[Manifest]:
        return [cast(Manifest, SimpleNamespace(further={name: {"kind": "number", "unit": None} for name in further}))]

    config = TrainConfig(task="SOC (%),pH", shards=("x",), target="log10(SOC (%))", categories="pH")
    ours = spelled(config, said("soc", "ph"))
    assert (ours.task, ours.target, ours.categories) == ("soc,ph", "log10(soc)", "ph")
    assert spelled(ours, said("soc", "ph")) is ours and spelled(config, said("other")) is config

    def nothing(columns: Sequence[str]) -> pa.Table:
        raise KeyError(columns)

    with pytest.raises(UsageError, match=r"did you mean ph\?") as near:
        find("phh", ["x"], said("ph"), nothing)
    assert "LABELS=" not in str(near.value), "it is there"
    with pytest.raises(UsageError, match="LABELS=zzz at ingest"):
        find("zzz", ["x"], said("ph"), nothing)
    assert group_column(["field_no", "site"], "Field No.", "x") == "field_no"
    with pytest.raises(UsageError, match="--group plot: there is no such column; there are site"):
        group_column(["site"], "plot", "x")


def test_a_redshift_of_spectra_at_rest_is_refused_before_splits_are_opened() -> None:
    rest, config = cast(Manifest, SimpleNamespace(at_rest=3)), TrainConfig(task="redshift", shards=("x",))
    with pytest.raises(UsageError, match="x: 3 spectra are in the rest frame, where no redshift shows"):
        check_frames(config, [rest])
    check_frames(replace(config, only="STAR"), [rest])
    check_frames(replace(config, task="teff"), [rest])


def test_the_account_names_further_columns(shards: str) -> None:
    manifest = Manifest.load(Path(shards))
    said = card.further(manifest)
    assert "further columns, each of which TASK= takes: " in said and "stellar_mass" in said
    none = replace(manifest, shards=tuple(replace(shard, classes={}) for shard in manifest.shards))
    assert "no sample has a class" in card.further(none) and "no sample has a class" not in said

"""Tokenizer and simple methods side by side: right numbers, the same questions for all, and nothing hidden seen."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.shards import loader
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.loader.batch import Stack
from specshards.shards.write.build import build
from specshards.train.config import RunOptions
from specshards.train.models.tokenizer.classifier import open_tokenizer
from specshards.train.models.tokenizer.config import SIZES, TokenizerConfig
from specshards.train.models.tokenizer.model import Tokenizer
from specshards.train.models.tokenizer.pixels import hide, scaled
from specshards.train.tokenizer import comparison
from specshards.train.tokenizer.baselines import Constant, Drawer, Principal, RunningMedian, copy
from specshards.train.tokenizer.comparison import compare, measure, summary, trials
from specshards.train.tokenizer.config import PretrainConfig
from specshards.train.tokenizer.pretrain import HIDDEN, pretrain
from tests.conftest import make_spectrum
from tests.oracles.curves import curves, some_spectra, stack_of
from tests.oracles.rounding import assert_equal_but_for_rounding

pytestmark = pytest.mark.usefixtures("one_thread")

PATCH = 32

#: Mock surveys: pixels, log10 of the first wavelength, step, error over flux.
SURVEYS = {"mock-blue": (500, 3.60, 2e-4, 0.02), "mock-red": (460, 3.63, 2e-4, 0.05)}


def generators() -> tuple[torch.Generator, torch.Generator]:
    return torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)


@pytest.mark.parametrize("floor", [0.0, 0.05])
def test_the_number_is_that_of_float64_numpy(floor: float) -> None:
    batch = some_spectra(8)
    batch["ivar"][6:] = (batch["ivar"][6:] > 0).float()  # of a survey that gives no errors
    batch["ivar"][5] = 0

    def draw(given: Stack) -> torch.Tensor:
        return 0.9 * batch["flux"] + 3

    found = measure([batch], {c: {"it": draw} for c in comparison.COLUMNS}, PATCH, floor)
    hidden = trials(batch, PATCH, *generators())["hidden"].scored.numpy()
    noise = torch.randn(batch["flux"].shape, generator=generators()[1]).double().numpy()
    for i in range(8):
        flux, ivar = batch["flux"][i].double().numpy(), batch["ivar"][i].double().numpy()
        good = ivar > 0
        if not good.any():
            assert all(np.isnan(found[column]["it"][i]) for column in found)
            continue
        middle = np.quantile(flux[good], 0.5, method="lower")
        width = 1.4826 * np.quantile(np.abs(flux[good] - middle), 0.5, method="lower")
        scale = max(middle, width)
        error = np.where(good, np.where(good, ivar, 1) ** -0.5, 0)
        variance = error**2 + (floor * scale) ** 2 if i < 6 else np.full(len(flux), scale**2)
        square = (0.9 * flux + 3 - flux) ** 2
        assert found["seen"]["it"][i] == pytest.approx((square / np.where(good, variance, 1))[good].mean(), rel=1e-4)
        some = hidden[i]
        assert 0 < some.sum() < good.sum() and good[some].all()
        assert found["hidden"]["it"][i] == pytest.approx(
            (square / np.where(good, variance, 1))[some].mean(), rel=1e-4
        )
        if i >= 6:
            assert np.isnan(found["noise"]["it"][i])
            continue
        square = (0.9 * flux + 3 - (flux - noise[i] * error)) ** 2
        variance = np.where(good, 2 * error**2 + (floor * scale) ** 2, 1)
        assert found["noise"]["it"][i] == pytest.approx((square / variance)[good].mean(), rel=1e-4)


def test_truth_copy_and_what_lies_between_score_as_the_formula_says() -> None:
    rng = np.random.default_rng(7)
    truth = 50 * curves(rng, 400, 512)
    error = rng.uniform(0.5, 20, truth.shape)
    batch = stack_of(truth + rng.normal(size=truth.shape) * error, error)
    right = torch.from_numpy(truth).float()

    def middle(given: Stack) -> torch.Tensor:
        return 0.5 * right + 0.5 * given["flux"]

    ways: dict[str, Drawer] = {"truth": lambda _: right, "copy": copy, "middle": middle}
    found = summary(measure([batch], dict.fromkeys(comparison.COLUMNS, ways), PATCH, 0.0))
    unhidden = int((~trials(batch, PATCH, *generators())["hidden"].scored.any(dim=1)).sum())
    assert [found[c]["count"] for c in comparison.COLUMNS] == [400, 400 - unhidden, 400] and unhidden < 20
    expected = {
        "seen": {"truth": 1, "copy": 0, "middle": 0.25}, "hidden": {"truth": 1},
        "noise": {"truth": 1, "copy": 2, "middle": 1.25},
    }  # fmt: skip
    for column, values in expected.items():
        for name, value in values.items():
            assert found[column][name]["mean"] == pytest.approx(value, abs=0.02), (column, name)
    noisy = trials(batch, PATCH, *generators())["noise"].given
    np.testing.assert_allclose(noisy["ivar"], batch["ivar"] / 2)
    assert ((noisy["flux"] - right) * noisy["ivar"].sqrt()).std() == pytest.approx(1, abs=0.01)


@pytest.fixture(scope="module")
def drawers() -> dict[str, Drawer]:
    torch.manual_seed(0)
    network = Tokenizer(TokenizerConfig(**SIZES["tiny"])).eval()

    def by_tokenizer(batch: Stack) -> torch.Tensor:
        with torch.inference_mode():
            return network(batch) * scaled(batch["flux"], batch["ivar"]).scale

    learnt = Principal.learn(lambda: [some_spectra(40, seed=9)], 12, 0.0)
    return {"constant": Constant(0.0), "median": RunningMedian(15), "pca": learnt, "tokenizer": by_tokenizer}


@pytest.mark.parametrize("name", ["constant", "median", "pca", "tokenizer"])
def test_no_method_sees_what_is_hidden_or_bad(drawers: dict[str, Drawer], name: str) -> None:
    batch = some_spectra()
    trial = trials(batch, PATCH, *generators())["hidden"]
    assert trial.scored.any(dim=1).all() and ((trial.given["ivar"] > 0) & ~trial.scored).any(dim=1).all()
    lost = trial.scored | (batch["ivar"] == 0)
    other = {**batch, "flux": torch.where(lost, batch["flux"] + 1e6, batch["flux"])}
    again = trials(other, PATCH, *generators())["hidden"]  # type: ignore[arg-type]
    assert torch.equal(again.scored, trial.scored)
    before, after = (drawers[name](t.given) for t in (trial, again))
    assert torch.isfinite(before).all() and torch.equal(before, after)
    # Nor is it trials alone that hides: a method believes the ivar.
    assert torch.equal(drawers[name]({**trial.given, "flux": other["flux"]}), before)  # type: ignore[arg-type]
    seen = {**batch, "flux": torch.where(lost, batch["flux"], 1.1 * batch["flux"])}
    assert not torch.equal(drawers[name](trials(seen, PATCH, *generators())["hidden"].given), before)  # type: ignore[arg-type]


def test_what_cannot_be_scored_is_not_counted_and_what_is_no_number_is() -> None:
    batch = some_spectra(4, 64)
    batch["ivar"][0, :32] = 0  # one patch: hidden, and nothing left to draw from, or not hidden
    batch["ivar"][1] = 0

    def nothing(given: Stack) -> torch.Tensor:
        return torch.full_like(given["flux"], torch.nan)

    for seed in range(8):
        trial = trials(batch, PATCH, torch.Generator().manual_seed(seed), torch.Generator())["hidden"]
        assert not trial.scored[0].any() and not trial.scored[1].any()
    values = measure([batch], {c: {"it": nothing} for c in comparison.COLUMNS}, PATCH, 0.0)
    assert summary(values)["seen"] == {"count": 3, "it": {"mean": math.inf, "median": math.inf}}
    assert summary(values, np.array([False, True, False, False]))["seen"] == {"count": 0, "it": {}}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folders = []
    for number, (survey, (n, start, step, error)) in enumerate(SURVEYS.items()):
        rng = np.random.default_rng(20 + number)
        folder, out = (tmp_path_factory.mktemp(survey) / name for name in ("spectra", "shards"))
        folder.mkdir()
        spectra = []
        for i, curve in enumerate(curves(rng, 150 - 50 * number, n, start, step)):
            scale = rng.uniform(5, 500)
            flux = scale * (curve + rng.normal(0, error, n))
            spectra.append(make_spectrum(
                i, rng, n=n, survey=survey, flux=flux.astype(np.float32), mask=rng.random(n) < 0.05,
                ivar=np.full(n, (scale * error) ** -2, np.float32),
                wavelength=(10.0 ** (start + step * np.arange(n))).astype(np.float32),
                wave_coeff0=start, wave_coeff1=step,
            ))  # fmt: skip
        write_parquet(to_table(spectra), folder / "part-00000.parquet", {"test": 1}, row_group_rows=20)
        build(ShardConfig(encoding="flux", samples_per_shard=60), folder, out, engine=Engine(workers=0))
        folders.append(str(out))
    return folders


@pytest.fixture(scope="module")
def run(shards: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = PretrainConfig(shards=tuple(shards), size="tiny", epochs=2, batch_size=16, masked=0.2, floor=0.01)
    return pretrain(
        config, tmp_path_factory.mktemp("tokenizer") / "run", RunOptions(device="cpu", threads=1, tracker="none")
    )


def test_a_run_is_compared_on_validation(
    run: Path, shards: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = [str(tmp_path / str(i)) for i in range(2)]
    for folder, copied in zip(shards, moved, strict=True):
        shutil.copytree(folder, copied)
        shutil.rmtree(Path(copied) / "test")  # is not touched
    content = compare(run, shards=moved, device="cpu", threads=1)
    assert content == json.loads((run / "comparison_val.json").read_text())
    assert not list(run.glob("comparison_test*")) and not list(run.glob(".*"))
    printed = capsys.readouterr().out
    assert printed.startswith("MOCK data\n") and "other data" not in printed
    manifests = [Manifest.load(Path(folder)) for folder in shards]
    counts = [manifest.samples("val") for manifest in manifests]
    scores = content["scores"]
    assert list(scores) == ["all", "survey mock-blue", "survey mock-red"] and min(counts) > 3
    for column, methods in comparison_methods().items():
        blue, red, everything = (scores[g][column] for g in ("survey mock-blue", "survey mock-red", "all"))
        assert [blue["count"], red["count"], everything["count"]] == [*counts, sum(counts)]
        assert set(everything) == {"count", *methods}
        for name in methods:
            parts = np.average([blue[name]["mean"], red[name]["mean"]], weights=counts)
            assert everything[name]["mean"] == pytest.approx(parts)
            assert f"{everything[name]['mean']:,.4g} ({everything[name]['median']:,.4g})" in printed
    # What training said of the same model on the same spectra; its floor for hidden patches is of another scale.
    record = json.loads((run / "run.json").read_text())
    best = next(e for e in record["history"] if e["epoch"] == record["best"]["epoch"])
    assert scores["all"]["seen"]["tokenizer"]["mean"] == pytest.approx(best["loss"], rel=1e-4)
    assert scores["all"]["hidden"]["tokenizer"]["mean"] == pytest.approx(of_hidden_patches(run, shards), rel=1e-3)
    assert scores["all"]["hidden"]["tokenizer"]["mean"] == pytest.approx(best["loss_hidden"], rel=0.03)
    # Three degrees of freedom and noise: components find them, a constant does not, and a copy knows nothing.
    means = {
        column: {m: v["mean"] for m, v in scores["all"][column].items() if m != "count"} for column in scores["all"]
    }
    for column in ("seen", "hidden", "noise"):
        assert 0.5 < means[column]["pca"] < 1.3 < means[column]["constant"]
    assert means["seen"]["copy"] == 0 and 1.7 < means["noise"]["copy"] < 2
    pca = content["methods"]["pca"]
    train = sum(manifest.samples("train") for manifest in manifests)
    assert pca["components"] == 128 and pca["train_objects"] == train
    for column, window in content["methods"]["median"]["window"].items():
        tried = content["methods"]["median"]["tried"][column]
        assert 0.95 * train < tried["count"] <= train and tried[str(window)]["mean"] == min(
            tried[str(w)]["mean"] for w in comparison.WINDOWS
        )


def of_hidden_patches(run: Path, shards: list[str]) -> float:
    """The mean for the tokenizer and the patches that `Drawing.validate` hides, another way."""
    network = open_tokenizer(run)
    generator, means = torch.Generator().manual_seed(0), []
    with loader.open(shards, "val", 16, view="spectra", threads=1) as batches, torch.inference_mode():
        for batch in batches.spectra():
            hidden = hide(batch, PATCH, HIDDEN, generator)
            good = (batch["ivar"] > 0).numpy()
            for i in np.flatnonzero(batch["valid"].numpy() & (good & hidden.numpy()).any(axis=1)):
                one = {name: batch[name][i : i + 1].clone() for name in ("flux", "ivar", "wavelength")}
                scale = float(scaled(one["flux"], one["ivar"]).scale)
                flux, ivar = one["flux"][0].double().numpy(), one["ivar"][0].double().numpy()
                one["ivar"][0, hidden[i]] = 0
                drawn = (network(one) * scaled(one["flux"], one["ivar"]).scale)[0].double().numpy()
                where = good[i] & hidden[i].numpy()
                means.append(((drawn - flux)[where] ** 2 / (1 / ivar[where] + (0.01 * scale) ** 2)).mean())
    return float(np.mean(means))


def comparison_methods() -> dict[str, list[str]]:
    simple = ["constant", "median", "pca", "tokenizer"]
    return {"seen": [*simple, "copy"], "hidden": simple, "noise": [*simple, "copy"]}


def test_the_test_split_by_name_less_to_learn_from_and_other_data(
    run: Path, shards: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first = compare(run, shards=shards[:1], split="test", device="cpu", threads=1, limit=30)
    assert "other data than the tokenizer learnt from" in capsys.readouterr().out
    assert first["other_data"] and list(first["scores"]) == ["all", "survey mock-blue"]
    assert first["scores"]["all"]["seen"]["count"] == Manifest.load(Path(shards[0])).samples("test")
    assert first["methods"]["pca"]["train_objects"] == 30 and first["methods"]["pca"]["components"] == 29
    assert (run / "comparison_test.json").is_file()
    again = compare(run, shards=shards[:1], split="test", device="cpu", threads=1, limit=30)
    assert_equal_but_for_rounding(again, first)
    rough = compare(run, shards=shards[:1], split="test", device="cpu", threads=1, limit=30, floor=0.5)
    means = [c["scores"]["all"]["seen"]["constant"]["mean"] for c in (rough, first)]
    assert (rough["floor"], first["floor"]) == (0.5, 0.01) and 0 < means[0] < means[1] / 2


def test_what_cannot_be_compared_is_named(run: Path, shards: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown split train: choose val or test"):
        compare(run, split="train")
    with pytest.raises(UsageError, match="limit 1: give at least 2"):
        compare(run, limit=1)
    with pytest.raises(UsageError, match="floor 1: give a share"):
        compare(run, floor=1)
    with pytest.raises(UsageError, match="no tokenizer there; name the OUT of a `make pretrain`"):
        compare(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(JobError, match=r"not the weights that tokenizer\.json speaks of"):
        compare(broken, device="cpu")
    (broken / "tokenizer.json").write_text("{}")
    with pytest.raises(
        JobError, match=r"tokenizer\.json: not a card of this program \(config: is missing\); pretrain it again"
    ):
        compare(broken, device="cpu")

"""Tokenizer and simple methods side by side: right numbers, the same questions for all, and nothing hidden seen."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import median_filter

from ingest.errors import JobError, UsageError
from ingest.jobs import Engine
from ingest.schema import to_table, write_parquet
from shards import loader
from shards.batch import Stack
from shards.build import build
from shards.format import Manifest, ShardConfig
from tests.conftest import make_spectrum
from train.tokenizer import comparison
from train.tokenizer.classifier import open_tokenizer
from train.tokenizer.comparison import compare, measure, summary, trials
from train.tokenizer.config import SIZES, TokenizerConfig
from train.tokenizer.drawers import Constant, Drawer, Principal, RunningMedian, copy, decompose, fill, running_median
from train.tokenizer.model import Tokenizer
from train.tokenizer.pixels import hide, scaled
from train.tokenizer.pretrain import HIDDEN, PretrainConfig, pretrain

pytestmark = pytest.mark.usefixtures("one_thread")

PATCH = 32
#: Mock surveys: pixels, log10 of the first wavelength, step, error over flux.
SURVEYS = {"mock-blue": (500, 3.60, 2e-4, 0.02), "mock-red": (460, 3.63, 2e-4, 0.05)}


def stack_of(flux: Any, error: Any, start: float = 3.6, step: float = 1e-4, bad: Any = False) -> Stack:
    """Spectra `(B, N)` of one grid, N a multiple of 32."""
    flux = torch.as_tensor(np.asarray(flux, np.float32))
    ivar = torch.as_tensor(np.where(bad, 0, np.broadcast_to(error, flux.shape) ** -2.0).astype(np.float32))
    grid = torch.as_tensor((10.0 ** (start + step * np.arange(flux.shape[1]))).astype(np.float32))
    return Stack(flux=flux, ivar=ivar, wavelength=grid.expand(flux.shape).contiguous(),
                 length=torch.full((len(flux),), flux.shape[1]))  # fmt: skip


def curves(rng: np.random.Generator, count: int, n: int, start: float = 3.6, step: float = 1e-4) -> np.ndarray:
    """Noiseless spectra of three degrees of freedom, near 1."""
    x = (start + step * np.arange(n) - 3.6) / 0.1
    shapes = np.stack([np.sin(7 * x), np.cos(3 * x), np.exp(-0.5 * ((x - 0.4) / 0.05) ** 2)])
    return 1 + rng.normal(0, 0.1, (count, 3)) @ shapes


def some_spectra(count: int = 6, n: int = 320, seed: int = 0) -> Stack:
    rng = np.random.default_rng(seed)
    error = rng.uniform(0.02, 0.2, (count, n)) * 50
    flux = 50 * curves(rng, count, n) + rng.normal(size=(count, n)) * error
    return stack_of(flux, error, bad=rng.random((count, n)) < 0.1)


def generators() -> tuple[torch.Generator, torch.Generator]:
    return torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 90), st.sampled_from([1, 3, 5, 15, 51]), st.integers(0, 1000))
def test_the_running_median_is_that_of_scipy(n: int, window: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=n)
    size = window if window <= n else n - (n % 2 == 0)
    np.testing.assert_array_equal(running_median(values, window), median_filter(values, size=size, mode="reflect"))


def test_the_median_goes_straight_through_what_it_does_not_see() -> None:
    batch = some_spectra()
    line = 3 * batch["wavelength"] - 11_000
    unseen = (batch["ivar"] == 0) | (torch.arange(320) // 32 % 3 == 1)
    rough = torch.where(unseen, torch.tensor(1e9), line)
    batch = Stack(
        flux=rough, ivar=torch.where(unseen, 0, 1.0), wavelength=batch["wavelength"], length=batch["length"]
    )
    drawn = RunningMedian(5)(batch)
    inside = slice(10, 310)  # the ends are mirrored
    np.testing.assert_allclose(drawn[:, inside], line[:, inside], rtol=2e-4)
    assert drawn.abs().max() < 1e5


def test_the_constant_is_the_weighted_mean() -> None:
    batch = some_spectra()
    flux, ivar = batch["flux"].double().numpy(), batch["ivar"].double().numpy()
    expected = (flux * ivar).sum(axis=1) / ivar.sum(axis=1)
    np.testing.assert_allclose(Constant(0.0)(batch), np.repeat(expected[:, None], 320, axis=1), rtol=1e-5)
    scale = scaled(batch["flux"], batch["ivar"]).scale.double().numpy()
    weight = np.where(ivar > 0, 1 / (1 / np.where(ivar > 0, ivar, 1) + (0.3 * scale) ** 2), 0)
    np.testing.assert_allclose(
        Constant(0.3)(batch)[:, 0], (flux * weight).sum(axis=1) / weight.sum(axis=1), rtol=1e-5
    )


@pytest.mark.parametrize("shape", [(20, 70), (70, 20)])
def test_components_of_complete_data_are_those_of_the_singular_values(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    flux = rng.normal(size=shape) * np.linspace(3, 1, shape[1]) + 5
    share = np.full(len(flux), 1 / len(flux))
    before = flux.copy()
    fill(flux, np.ones(shape, bool), np.ones(len(flux)))
    assert (flux == before).all()
    mean, components, variance = decompose(flux, share, 8)
    _, singular, rows = np.linalg.svd(flux - flux.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(mean, flux.mean(axis=0))
    np.testing.assert_allclose(variance, singular[:8] ** 2 / (len(flux) - 1))
    np.testing.assert_allclose(np.abs((components * rows[:8]).sum(axis=1)), 1)
    assert len(decompose(flux, share, 1000)[2]) == min(shape[0] - 1, shape[1])
    uneven = rng.dirichlet(np.ones(len(flux)))
    values = np.linalg.eigvalsh(np.cov(flux.T, aweights=uneven, ddof=0))[::-1] * len(flux) / (len(flux) - 1)
    np.testing.assert_allclose(decompose(flux, uneven, 8)[2], values[:8])


def test_same_spectra_have_no_component_and_are_drawn_as_their_mean() -> None:
    batch = stack_of(np.tile(np.linspace(1, 2, 64), (5, 1)), 0.1)
    same = Principal.learn(lambda: [batch], 8, 0.0)
    assert len(same.variance) == 0
    np.testing.assert_allclose(same(batch), batch["flux"], rtol=1e-5)
    with pytest.raises(UsageError, match="no train spectrum has a good pixel"):
        Principal.learn(lambda: [stack_of(np.ones((2, 64)), 1.0, bad=True)], 8, 0.0)


def test_missing_bins_are_filled_from_what_the_others_say() -> None:
    rng = np.random.default_rng(4)
    truth = curves(rng, 120, 300)
    good = rng.random(truth.shape) < 0.8
    good[:40, 200:], good[40:60, :80] = False, False
    good[:, 150] = False
    flux = np.where(good, truth, 1e6)
    fill(flux, good, np.full(120, 1e-4))
    known = good.any(axis=0)
    wrong, by_mean = flux - truth, np.where(good, 0, truth.mean(axis=0) - truth)
    assert (flux[good] == truth[good]).all()
    assert np.abs(wrong[:, known]).mean() < 0.05 * np.abs(by_mean[:, known]).mean()
    assert np.abs(wrong[:, 150]).max() < 0.5


def test_coefficients_are_those_of_regularised_least_squares_on_the_seen_pixels() -> None:
    """Off the grid of the bins, with other errors at every pixel; against least squares of an augmented system."""
    rng = np.random.default_rng(5)
    train = stack_of(curves(rng, 60, 480) + rng.normal(0, 0.02, (60, 480)), 0.02)
    found = Principal.learn(lambda: [train], 9, 0.0)
    assert len(found.variance) == 9 and len(found.mean) == 480 and found.missing == 0
    n = 300
    wavelength = 10 ** (3.6031 + 1.37e-4 * np.arange(n))
    weight = np.where(rng.random(n) < 0.3, 0, rng.uniform(1, 1e4, n))
    flux = curves(rng, 1, n, 3.6031, 1.37e-4)[0] + rng.normal(0, 0.05, n)
    centre = np.log(np.sqrt(found.edges[1:] * found.edges[:-1]))
    rows = [np.interp(np.log(wavelength), centre, row) for row in (found.mean, *found.components)]
    mean, basis = rows[0], np.stack(rows[1:])
    left = np.concatenate([(basis * np.sqrt(weight)).T, np.diag(found.variance**-0.5)])
    right = np.concatenate([np.sqrt(weight) * (flux - mean), np.zeros(9)])
    expected = mean + np.linalg.lstsq(left, right)[0] @ basis
    np.testing.assert_allclose(found.draw(flux, weight, wavelength), expected, rtol=1e-6)
    beyond = np.concatenate([wavelength, [2e5]])
    more = found.draw(np.append(flux, 1e9), np.append(weight, 1.0), beyond)
    np.testing.assert_allclose(more[:-1], expected, rtol=1e-6)


def test_one_grid_for_surveys_that_see_other_wavelengths() -> None:
    rng = np.random.default_rng(6)
    blue = stack_of(curves(rng, 80, 320), 0.01)
    red = stack_of(curves(rng, 80, 320, 3.62), 0.01, start=3.62)
    faint = stack_of(curves(rng, 80, 320) + rng.normal(0, 3, (80, 320)), 3.0)
    wide = stack_of(curves(rng, 80, 512), 0.01)
    both = Principal.learn(lambda: iter([blue, red, faint, wide]), 6, 0.0)
    assert len(both.mean) == 520 and both.objects == 320
    assert both.missing == pytest.approx((3 * 200 + 8) / (4 * 520), abs=1e-3)
    np.testing.assert_allclose(np.log10(both.edges[[0, -1]]), [3.59995, 3.65195], atol=1e-6)
    whole = stack_of(curves(rng, 50, 512), 0.01)
    half = Stack(flux=whole["flux"], ivar=whole["ivar"] * (torch.arange(512) < 320), wavelength=whole["wavelength"],
                 length=whole["length"])  # fmt: skip
    scale = scaled(half["flux"], half["ivar"]).scale
    error = ((both(half) - whole["flux"])[:, 320:] / scale).abs()
    by_mean = (torch.from_numpy(both.mean[320:512]) * scale - whole["flux"][:, 320:]).abs() / scale
    assert error.mean() < 0.5 * by_mean.mean()


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
    return pretrain(config, tmp_path_factory.mktemp("tokenizer") / "run", device="cpu", threads=1, log="none")


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
    assert compare(run, shards=shards[:1], split="test", device="cpu", threads=1, limit=30) == first


def test_what_cannot_be_compared_is_named(run: Path, shards: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown split train: choose val or test"):
        compare(run, split="train")
    with pytest.raises(UsageError, match="limit 1: give at least 2"):
        compare(run, limit=1)
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
        JobError, match=r"tokenizer\.json: not a card of this program \('config'\); pretrain it again"
    ):
        compare(broken, device="cpu")

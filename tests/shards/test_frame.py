"""The rest frame: a choice, written down, and refused where it gives the answer away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import specshards.shards.__main__ as command
from specshards.common.errors import UsageError
from specshards.common.jobs import Engine
from specshards.common.spectrum import Arrays, Spectrum, log_grid
from specshards.ingest.spectra.plots import strong_lines
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.render import ImageConfig, RenderError, preset
from specshards.render.config import CHANNEL_SETS, FRAMES
from specshards.render.frame import framed
from specshards.shards import loader
from specshards.shards.check.verify import verify
from specshards.shards.format.manifest import SPLITS, Manifest, ShardConfig
from specshards.shards.report.make import write_page
from specshards.shards.write.build import build
from specshards.train.config import RunOptions
from specshards.train.evaluation.evaluate import evaluate
from specshards.train.network import open_any
from specshards.train.tokenizer.config import PretrainConfig
from specshards.train.tokenizer.pretrain import pretrain
from specshards.train.use.explain import draw, look
from specshards.train.use.pictures import pictures
from specshards.train.use.predict import PredictionCounts, Predictor
from tests.conftest import call, make_spectrum
from tests.oracles.small_run import IMAGE, small_run, small_shards

pytestmark = pytest.mark.usefixtures("one_thread")
LINE = 5008.24  # [O III], Angstrom in vacuum
LOG = replace(preset("survey-free", "map2d"), channels=CHANNEL_SETS["red"])
REST = replace(IMAGE, grid="log", frame="rest")


def arrays(n: int = 50) -> Arrays:
    ones = np.ones(n, np.float32)
    return Arrays(ones, ones, np.linspace(4000, 9000, n), np.zeros(n, np.bool_))


@given(
    st.floats(-0.9, 1100), st.sampled_from([np.float32, np.float64]), st.floats(3.4, 3.7), st.floats(1e-5, 1e-3),
    st.integers(1, 4000),
)  # fmt: skip
def test_wavelengths_are_divided_by_one_plus_z(
    z: float, kind: type[np.floating], coeff0: float, coeff1: float, n: int
) -> None:
    flux, ivar, wavelength, mask = arrays()
    (same, ivar2, moved, mask2), none = framed("rest", (flux, ivar, wavelength.astype(kind), mask), None, z)
    assert none is None and moved.dtype == kind and (same is flux, ivar2 is ivar, mask2 is mask) == (True,) * 3
    np.testing.assert_allclose(moved, wavelength.astype(kind).astype(np.float64) / (1 + z), rtol=1e-6)
    drawn, grid = framed("rest", (flux[:1].repeat(n), None, log_grid(coeff0, coeff1, n), mask), (coeff0, coeff1), z)
    assert grid is not None
    np.testing.assert_array_equal(drawn[2], log_grid(*grid, n))
    np.testing.assert_allclose(drawn[2], 10 ** (coeff0 + coeff1 * np.arange(n)) / (1 + z), rtol=1e-12)


@given(st.none() | st.floats())
def test_the_observed_frame_asks_for_nothing(z: float | None) -> None:
    spectrum, grid = arrays(), (3.5, 1e-4)
    assert framed("observed", spectrum, grid, z) == (spectrum, grid)


@pytest.mark.parametrize("z", [None, np.nan, -1.0, -3.0, np.inf])
def test_the_rest_frame_asks_for_a_redshift(z: float | None) -> None:
    with pytest.raises(RenderError, match="no redshift"):
        framed("rest", arrays(), None, z)


def with_line(index: int, rng: np.random.Generator, *, gridded: bool) -> Spectrum:
    """One strong line at rest; every seventh object has no redshift."""
    made = make_spectrum(index, rng)
    z = 0.01 * (index % 30)
    made.flux = np.ones_like(made.flux)
    made.flux[np.abs(made.wavelength / (1 + z) - LINE) < 6] = 100
    labels = {**made.labels, "z": None if index % 7 == 6 else z}
    grid = {} if gridded else {"wave_coeff0": None, "wave_coeff1": None}
    return replace(made, labels=labels, **grid)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=[True, False], ids=["coefficients", "wavelengths"])
def lines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("lines"), np.random.default_rng(5)
    made = [with_line(i, rng, gridded=request.param) for i in range(70)]
    write_parquet(to_table(made), folder / "part.parquet", {}, row_group_rows=20)
    return folder


def brightest(folder: Path) -> list[int]:
    """The cell of the brightest value of every picture."""
    found = []
    for split in filter(Manifest.load(folder).samples, SPLITS):
        with loader.open(folder, split, 8, backend="plain", shuffle=False, threads=1) as batches:
            for batch in batches:
                cells = batch["pixel_values"][batch["valid"]][:, 0, 1::3, 1::3][:, : LOG.cells, : LOG.cells]
                found += cells.flatten(1).argmax(1).tolist()
    return found


def make(spectra: Path, out: Path, image: ImageConfig, encoding: str = "png") -> Manifest:
    config = ShardConfig(image=image, encoding=encoding, samples_per_shard=20)
    return build(config, spectra, out, engine=Engine(workers=0), max_bad_fraction=0.5)


def test_a_line_stands_where_it_does_in_the_laboratory(lines: Path, tmp_path: Path) -> None:
    at_rest = make(lines, tmp_path / "rest", replace(LOG, frame="rest"))
    observed = make(lines, tmp_path / "observed", LOG)
    assert (observed.samples(), observed.quarantined) == (70, 0)
    assert (at_rest.samples(), at_rest.quarantined) == (60, 10)
    reasons = pq.read_table(tmp_path / "rest" / "quarantine.parquet")["reason"].to_pylist()
    assert reasons == ["no redshift, which the rest frame divides wavelengths by"] * 10
    cells = brightest(tmp_path / "rest")
    edges = np.geomspace(*LOG.window, LOG.cells**2 + 1)
    here = int(np.searchsorted(edges, LINE)) - 1
    assert len(cells) == 60 and max(abs(cell - here) for cell in cells) <= 6
    assert len(set(brightest(tmp_path / "observed"))) > 20


def test_the_loader_draws_what_was_drawn(lines: Path, tmp_path: Path) -> None:
    image = replace(LOG, frame="rest")
    for encoding in ("png", "flux"):
        make(lines, tmp_path / encoding, image, encoding)
    seen = []
    for encoding in ("png", "flux"):
        with loader.open(tmp_path / encoding, "train", 8, backend="plain", shuffle=False, threads=1) as batches:
            seen.append([batch["pixel_values"].numpy() for batch in batches])
    for a, b in zip(*seen, strict=True):
        np.testing.assert_array_equal(a, b)
    with loader.open(tmp_path / "flux", "train", 8, shuffle=False, view="spectra", backend="plain") as batches:
        for batch in batches:
            for i in range(int(batch["valid"].sum())):
                bright = batch["wavelength"][i][batch["flux"][i] > 50]
                assert np.abs(bright.numpy() - LINE).max() < 6.1


def test_what_is_written_down(lines: Path, tmp_path: Path) -> None:
    assert "frame" not in ImageConfig().to_dict() and REST.to_dict()["frame"] == "rest"
    assert all(ImageConfig.from_dict(replace(REST, frame=f).to_dict()).frame == f for f in FRAMES)
    make(lines, tmp_path / "x", REST)
    assert Manifest.load(tmp_path / "x").config.image == REST
    with pytest.raises(UsageError, match=r"image\.frame: rest -> observed"):
        make(lines, tmp_path / "x", replace(REST, frame="observed"))
    page = write_page(tmp_path / "x").read_text()
    assert "<svg" in page and "rest" in page


def test_data_sets_of_two_frames_are_kept_apart(lines: Path, tmp_path: Path) -> None:
    both = [tmp_path / frame for frame in FRAMES]
    for folder in both:
        make(lines, folder, replace(LOG, frame=folder.name), "flux")
    for choice in ({}, {"view": "spectra"}, {"image": LOG}):
        with pytest.raises(UsageError, match=r"rest: another (frame|image configuration)"):
            loader.open(both, "train", 8, **choice)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="holds spectra in the rest frame, not observed"):
        loader.open(both[1], "train", 8, image=LOG)
    config = PretrainConfig(shards=(str(both[1]),), size="tiny", epochs=1)
    with pytest.raises(UsageError, match="a tokenizer reads those as they were observed"):
        pretrain(config, tmp_path / "tokenizer", RunOptions(device="cpu", threads=1, tracker="none"))


def test_as_typed(lines: Path, tmp_path: Path) -> None:
    words = "build", "--spectra", lines, "--out", tmp_path / "x", "--workers", 0, "--max-bad-fraction", 0.5
    call(command.app, *words, "--frame", "rest")
    assert Manifest.load(tmp_path / "x").config.image.frame == "rest"
    call(command.app, *words, "--frame", "rest", "--window", "1200,9000", "--force")
    assert Manifest.load(tmp_path / "x").config.image == ImageConfig(frame="rest", window=(1200, 9000))
    for wrong in ("1200", "a,b", "1,2,3", ""):
        with pytest.raises(UsageError, match=r"give 2 numbers, as 3536\.7,10413\.6"):
            call(command.app, *words, "--window", wrong)
    with pytest.raises(UsageError, match="give two increasing wavelengths"):
        call(command.app, *words, "--window", "9000,1200")
    with pytest.raises(UsageError, match="frame=moved: choose observed or rest"):
        call(command.app, *words, "--frame", "moved")


# Training


@pytest.fixture(scope="module")
def rest(spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_shards(spectra_folder, tmp_path_factory.mktemp("frame") / "rest", REST)


@pytest.fixture(scope="module")
def run(rest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(rest, tmp_path_factory.mktemp("frame") / "run", "classify", 1)


def test_the_redshift_is_not_learnt_from_itself(rest: Path, tmp_path: Path) -> None:
    for task in ("redshift", "classify,redshift"):
        with pytest.raises(UsageError, match="TASK=redshift would learn; make shards in the observed frame"):
            small_run(rest, tmp_path / "run", task)
    assert not (tmp_path / "run" / "specshards.json").exists()


def test_spectra_are_moved_as_the_shards_were(run: Path, rest: Path, spectra_folder: Path) -> None:
    model = Predictor.open(run, device="cpu")
    tables = [model(source).sort_by("object_id") for source in (spectra_folder, rest)]
    assert tables[0].num_rows == tables[1].num_rows == 297
    for name in ("p_STAR", "p_GALAXY", "p_QSO"):
        np.testing.assert_allclose(*(table[name].to_numpy() for table in tables), atol=1e-3)


def test_no_answer_without_a_redshift(run: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    made = [make_spectrum(i, rng) for i in range(4)]
    made[2].labels["z"] = None
    write_parquet(to_table(made), tmp_path / "part.parquet", {})
    account = PredictionCounts()
    table = pa.concat_tables(Predictor.open(run, device="cpu").batches(tmp_path, account))
    assert table["object_id"].to_pylist() == ["1000", "1001", "1003"]
    assert [row["reason"] for row in account.quarantine] == [
        "no redshift, which the rest frame divides wavelengths by"
    ]


def test_a_model_is_asked_in_its_own_frame(run: Path, spectra_folder: Path, tmp_path: Path) -> None:
    observed = small_shards(spectra_folder, tmp_path / "observed", replace(REST, frame="observed"))
    for ask in (lambda: evaluate(run, shards=(str(observed),), device="cpu"),
                lambda: Predictor.open(run, device="cpu")(observed)):  # fmt: skip
        with pytest.raises(UsageError, match=r"learnt from \(frame\)|in the observed frame"):
            ask()


def test_what_is_explained_is_in_the_frame(run: Path, spectra_folder: Path) -> None:
    card, model = open_any(run)
    batch = next(pictures(spectra_folder, REST, 3))
    sight = look(card, model, REST, batch)[2]
    assert sight.row["class"] == "QSO" and sight.row["z"] == pytest.approx(0.202)
    axes = draw(sight, mock=True, lines=True).axes
    marked = {float(line.get_xdata()[0]) for line in axes[0].lines if line.get_linestyle() == ":"}
    left, right = axes[0].get_xlim()
    assert right == pytest.approx(sight.spectrum[2].max(), rel=0.05) and right < 9100 / 1.15
    assert marked == {rest for _, rest in strong_lines("QSO") if left < rest < right}
    assert any("rest frame" in part.get_xlabel() for part in axes)


# Files in the rest frame


@given(
    st.floats(-2000, 200_000), st.sampled_from([np.float32, np.float64]), st.floats(3.4, 3.7), st.floats(1e-5, 1e-3)
)  # fmt: skip
def test_a_velocity_brings_back_what_was_observed(
    velocity: float, kind: type[np.floating], coeff0: float, coeff1: float
) -> None:
    flux, ivar, wavelength, mask = arrays()
    (_, _, moved, _), _ = framed(
        "observed", Arrays(flux, ivar, wavelength.astype(kind), mask), None, 3.0, "rest", velocity
    )
    np.testing.assert_allclose(moved, wavelength * (1 + velocity / 299792.458), rtol=1e-6)
    drawn, grid = framed(
        "observed", Arrays(flux, ivar, log_grid(coeff0, coeff1, 50), mask), (coeff0, coeff1), None, "rest", velocity
    )
    assert grid is not None
    np.testing.assert_array_equal(drawn.wavelength, log_grid(*grid, 50))
    np.testing.assert_allclose(
        drawn.wavelength, log_grid(coeff0, coeff1, 50) * (1 + velocity / 299792.458), rtol=1e-12
    )


def test_a_redshift_does_too_and_without_either_nothing_moves() -> None:
    spectrum = arrays()
    for velocity in (None, np.nan, np.inf):
        moved, _ = framed("observed", spectrum, None, 0.5, "rest", velocity)
        np.testing.assert_allclose(moved.wavelength, spectrum.wavelength * 1.5)
        for z in (None, np.nan):
            assert framed("observed", spectrum, (3.5, 1e-4), z, "rest", velocity) == (spectrum, (3.5, 1e-4))
    assert framed("rest", spectrum, None, None, "rest", 100.0)[0] is spectrum


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every third spectrum is of the rest frame: with a velocity, with a redshift, with neither."""
    folder, rng = tmp_path_factory.mktemp("mixed"), np.random.default_rng(5)
    made = [with_line(i, rng, gridded=False) for i in range(60)]
    for i in range(0, 60, 3):
        z = 0.01 * (i % 30)
        kind = i % 9 // 3
        made[i] = replace(
            made[i], frame="rest", wavelength=(made[i].wavelength / (1 + z)).astype(np.float32),
            velocity=float(z * 299792.458) if kind == 0 else None,
            labels={**made[i].labels, "z": z if kind == 1 else None},
        )  # fmt: skip
    write_parquet(to_table(made), folder / "part.parquet", {}, row_group_rows=20)
    return folder


def test_they_are_counted_and_moved_back(mixed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = make(mixed, tmp_path / "flux", LOG, "flux")
    assert (manifest.samples(), manifest.at_rest, manifest.quarantined) == (60, 20, 0)
    assert Manifest.load(tmp_path / "flux").dumps() == manifest.dumps() and '"at_rest"' in manifest.dumps()
    line = "20 of 60 samples are of files in the rest frame: moved back by their velocity or redshift where one is"
    assert line in caplog.text and line in (tmp_path / "flux" / "README.md").read_text()
    away = 0
    for split in filter(manifest.samples, SPLITS):
        with loader.open(tmp_path / "flux", split, 8, shuffle=False, view="spectra", backend="plain") as batches:
            for batch in batches:
                for i in np.flatnonzero(batch["valid"]):
                    row = int(batch["key"][i].rpartition("/")[2])
                    line_at = batch["wavelength"][i][batch["flux"][i] > 50].mean()
                    away += abs(float(line_at) - LINE * (1 + 0.01 * (row % 30))) > 8
    # Of those without velocity and redshift, one in three of them, but for z near 0, nobody can say where they were.
    assert away == sum(1 for i in range(0, 60, 3) if i % 9 == 6 and i % 30)


def test_verify_counts_them_again(mixed: Path, tmp_path: Path) -> None:
    manifest = make(mixed, tmp_path, LOG, "flux")
    here = Engine(workers=0)
    assert all(check.passed for check in verify(tmp_path, deep=True, engine=here))
    shards = [replace(record, at_rest=record.at_rest // 2, with_lsf=1) for record in manifest.shards]
    (tmp_path / "manifest.json").write_text(replace(manifest, shards=tuple(shards)).dumps())
    wrong = {check.name: check.detail for check in verify(tmp_path, deep=True, engine=here) if not check.passed}
    assert "rows in the rest frame" in wrong["labels"] and "0 samples with an LSF" in wrong["images"]


def test_no_redshift_is_learnt_or_answered_of_them(mixed: Path, spectra_folder: Path, tmp_path: Path) -> None:
    make(mixed, tmp_path / "set", IMAGE)
    with pytest.raises(UsageError, match="spectra are in the rest frame"):
        small_run(tmp_path / "set", tmp_path / "run", "redshift")
    usual = small_shards(spectra_folder, tmp_path / "usual", IMAGE)
    model = Predictor.open(small_run(usual, tmp_path / "z", "redshift", 1), device="cpu")
    account = PredictionCounts()
    answers = pa.concat_tables(model.batches(mixed, account))
    assert answers.num_rows == 40 and len(account.quarantine) == 20
    assert {row["reason"] for row in account.quarantine} == {
        "a spectrum in the rest frame, of which this model cannot learn a redshift"
    }

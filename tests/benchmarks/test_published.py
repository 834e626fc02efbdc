"""The comparison with the paper's public code: what it runs, keeps and says; with that code itself where it is."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

import specshards.benchmarks.__main__ as suite
from specshards.benchmarks.kit.records import load
from specshards.benchmarks.kit.samples import made_up_galaxy
from specshards.benchmarks.peers.published import (
    PRESETS,
    alike,
    example,
    measure,
    ours,
    plotter,
    real_spectra,
)
from specshards.common.errors import UsageError
from specshards.ingest.mock import MockConfig, write
from tests.conftest import call

#: Stands for the published code: its interface, with our drawings by matplotlib behind it.
STAND_IN = """
from PIL import Image
import numpy as np
from specshards.benchmarks.peers.matplotlib_reference import draw
from specshards.benchmarks.peers.published import ours
from specshards.common.spectrum import Arrays
from specshards.render import preset

class SpectraPlotter:
    def __init__(self, options):
        self.opt = options

    def plot_spectra(self, spectra):
        o = self.opt
        assert o.blocksize == 3 and o.fillorder == "standard" and not (o.interpolate or o.map2droi)
        image = "overlap" if o.overlapsplit else "map2d" if o.map2d else "simple"
        flux, wavelength = spectra["flux"].values.astype("f4"), spectra["wavelength"].values
        assert 3536.714 < wavelength.min() and wavelength.max() < 10413.58
        spectrum = Arrays(flux, None, wavelength, np.zeros(len(flux), bool))
        if o.map2dnormal or o.map2dnormaldev:
            return Image.fromarray(ours(spectrum, "map2d", "paper-red" if o.map2dnormal else "paper-derivatives"))
        picture = draw(spectrum, preset("paper", image))
        return Image.fromarray(picture).convert("RGBA").resize((256, 256), Image.Resampling.NEAREST)
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / "spectra_plotter.py").write_text(STAND_IN)
    return folder


def test_the_record_has_every_picture_and_survey_and_the_table_can_be_made_of_it(clone: Path, tmp_path: Path) -> None:
    for survey in ("lamost", "sdss"):
        write(MockConfig(survey=survey, n_files=4, seed=1), tmp_path / survey)
    out, sheet, shown = tmp_path / "record.json", tmp_path / "sheet.png", tmp_path / "example.png"
    folders = f"{tmp_path / 'lamost'},{tmp_path / 'sdss'}"
    printed = call(
        suite.app, "compare-published", "--plotter", clone, "--data", folders, "--count", 3, "--out", out,
        "--sheet", sheet, "--example", shown,
    )  # fmt: skip
    run, surveys = load(out), ("mock-lamost", "mock-sdss")
    assert [(r.group, r.name) for r in run.records] == [
        (f"{image}, {survey}", name) for image in PRESETS for name in PRESETS[image] for survey in surveys
    ]
    for record in run.records:
        assert len(record.values) == 3 and record.unit == "correlation"
        assert record.name != "paper" or (min(record.values) > 0.9 and record.about["ssim_least"] > 0.8)
    assert "sha256" in run.notes[0] and "mock-lamost: MOCK0001 3, mock-sdss" in run.notes[1] and "MOCK" in printed
    assert cv2.imread(str(sheet)).shape[1] > 9 * 224 and cv2.imread(str(shown)).shape[1] > 3 * 224


def test_what_is_no_clone_is_named(tmp_path: Path, clone: Path) -> None:
    with pytest.raises(UsageError, match=r"no spectra_plotter.py there; give a clone of astromer-science/spectromer"):
        plotter(tmp_path)
    (tmp_path / "spectra_plotter.py").write_text("import no_such_module")
    with pytest.raises(UsageError, match=r"spectra_plotter.py: cannot be used \(ModuleNotFoundError: No module"):
        plotter(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no "):
        real_spectra([tmp_path / "empty"], 3)
    with pytest.raises(UsageError, match="give --data"):
        call(suite.app, "compare-published", "--plotter", clone)


def test_structural_similarity_is_that_of_torchmetrics() -> None:
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    rng = np.random.default_rng(0)
    a = cv2.GaussianBlur(rng.integers(0, 256, (224, 224, 3), dtype=np.uint8), (0, 0), 3)
    b = np.clip(a.astype(int) + rng.integers(-30, 30, a.shape), 0, 255).astype(np.uint8)
    pair = [torch.from_numpy(x.astype(float)).permute(2, 0, 1)[None] for x in (a, b)]
    expected = float(ssim(*pair, data_range=255.0))
    assert alike(a, b)[1] == pytest.approx(expected, abs=2e-3) and alike(a, a) == pytest.approx((1, 1))
    assert alike(a, b)[0] == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.fixture(scope="module")
def published() -> Path:
    folder = os.environ.get("SPECSHARDS_SPECTROMER")
    if not folder:
        pytest.skip("SPECSHARDS_SPECTROMER names no clone of astromer-science/spectromer")
    return Path(folder)


def test_the_published_code_itself_draws_what_we_draw(published: Path, real_data: Path) -> None:
    spectra = real_spectra([real_data / "sdss", real_data / "lamost"], 8)
    assert len({one.folder for one in spectra}) >= 8
    records, _ = measure(spectra, plotter(published))
    for record in records:
        if record.name.startswith("paper"):
            assert record.median > 0.98 and min(record.values) > 0.95
        if record.name.startswith("paper-"):
            assert min(record.values) > (1 - 1e-9 if record.name == "paper-red" else 0.999)


def test_the_published_code_itself_draws_what_we_draw_of_a_made_up_spectrum(published: Path) -> None:
    draw = plotter(published)
    for image, presets in PRESETS.items():
        mine = ours(made_up_galaxy(), image, "paper")
        assert alike(mine, draw(made_up_galaxy(), presets["paper"]))[0] > 0.99
    assert example(draw).shape[1] > 3 * 224

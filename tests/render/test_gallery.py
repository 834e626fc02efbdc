"""`specshards render gallery`: contact sheets of files and Parquet, and a sensible choice of what they show."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from specshards.benchmarks.kit.samples import made_up_galaxy
from specshards.render import ImageConfig, RenderError, preset, renderer
from specshards.render.contact_sheet import every_image, sheet, spread, table
from tests.conftest import ROOT
from tests.oracles import commands


def gallery(*arguments: object) -> subprocess.CompletedProcess[str]:
    return commands.run(commands.program("render", "gallery", *arguments))


def test_a_sheet_holds_the_pictures_themselves() -> None:
    spectra = [("first", made_up_galaxy(1)), ("second", made_up_galaxy(2))]
    images = every_image(224)
    page = table(spectra, images)
    for column, (_, config) in enumerate(images):
        for row, (_, spectrum) in enumerate(spectra):
            y, x = 18 + row * (224 + 18 + 8) + 18, column * (224 + 8)
            drawer = renderer(config)
            expected = drawer.expand(drawer.codes(*spectrum))
            np.testing.assert_array_equal(page[y + 1 : y + 223, x + 1 : x + 223], expected[1:-1, 1:-1])
    assert sheet(spectra * 4, ImageConfig(), columns=3).shape == (3 * 250, 3 * 232 - 8, 3)


def test_a_preset_is_that_of_all_images_that_have_it() -> None:
    paper = every_image(64, "paper")
    assert [title for title, _ in paper] == ["simple, paper", "overlap, paper", "map2d, paper"]
    assert all(config == replace(preset("paper", config.image), size=64) for _, config in paper)
    assert [title for title, _ in every_image(64, "aligned")] == ["simple, aligned", "overlap, aligned"]
    assert [title for title, _ in every_image(64, "lines")] == ["map2d, lines"]


def test_what_cannot_be_drawn_is_said_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    flux, ivar, wavelength, mask = made_up_galaxy()
    bad, good = (flux, ivar, wavelength, ~mask), (flux, ivar, wavelength, mask)
    with pytest.raises(RenderError) as reason:
        renderer(ImageConfig()).codes(*bad)
    lines = []
    write = cv2.putText

    def writing(page: np.ndarray, text: str, at: tuple[int, int], font: int, size: float, *more: object) -> None:
        """Draws, and takes down what is written in the place of a picture."""
        (width, height), _ = cv2.getTextSize(text, font, size, 1)
        before = page.copy()
        write(page, text, at, font, size, *more)
        if page.shape == (224, 224, 3):
            x, y = at
            assert 0 <= x < x + width <= 224 and 0 <= y - height < y <= 224, f"{text} does not fit"
            assert (page != before)[y - height : y, x : x + width].any()
            lines.append(text)

    monkeypatch.setattr(cv2, "putText", writing)
    page = sheet([("masked", bad), ("whole", good)], ImageConfig())
    assert " ".join(lines) == str(reason.value)
    assert set(page[150:241, 1:223].ravel()) == {225} and page[19:150, 1:223].min() < 120
    np.testing.assert_array_equal(page[19:241, 233:455], sheet([("whole", good)], ImageConfig())[19:241, 1:223])


def test_the_chosen_spectra_differ_in_class_and_snr() -> None:
    found = [("STAR", float(i)) for i in range(100)] + [("QSO", 5.0), ("QSO", float("nan")), ("GALAXY", 7.0)]
    chosen = spread(found, 7)
    assert sorted(found[i][0] for i in chosen) == ["GALAXY", "QSO", "QSO", "STAR", "STAR", "STAR", "STAR"]
    stars = [found[i][1] for i in chosen if found[i][0] == "STAR"]
    assert stars == [0.0, 33.0, 66.0, 99.0]
    assert sorted(spread(found, 1000)) == list(range(103))


def test_parquet_in_every_image_type_and_in_one(spectra_folder: Path, tmp_path: Path) -> None:
    done = gallery(spectra_folder, "--out", tmp_path / "all.png", "--count", 3, "--among", 50)
    assert done.returncode == 0, done.stderr
    assert "3 of 50 spectra" in done.stdout
    assert cv2.imread(str(tmp_path / "all.png")).shape[0] == 18 + 3 * 250
    # One preset of all that have it: simple, overlap and map2d.
    paper = gallery(spectra_folder, "--preset", "paper", "--out", tmp_path / "p.png", "--count", 2, "--among", 5)
    assert paper.returncode == 0, paper.stderr
    assert cv2.imread(str(tmp_path / "p.png")).shape == (18 + 2 * 250, 3 * 232 - 8, 3)
    one = gallery(spectra_folder, "--image", "map2d", "--preset", "lines", "--out", tmp_path / "one.png")
    assert one.returncode == 0 and cv2.imread(str(tmp_path / "one.png")).shape == (500, 5 * 232 - 8, 3)


def test_real_survey_files(real_data: Path, tmp_path: Path) -> None:
    done = gallery(real_data / "lamost" / "dr1", "--out", tmp_path / "a.png", "--image", "simple", "--size", 64)
    assert done.returncode == 0 and "10 of 59 spectra" in done.stdout, done.stderr + done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "nowhere"),
        ((ROOT / "docs", "--image", "map3d"), "unknown IMAGE=map3d"),
        ((ROOT / "docs", "--image", "simple", "--preset", "lines"), "PRESET=lines is for map2d"),
        ((ROOT / "docs", "--preset", "papre"), "unknown PRESET=papre: choose default, paper,"),
        ((ROOT / "docs", "--count", "0"), "give positive numbers"),
    ],
)
def test_mistakes_are_one_line(arguments, message: str, tmp_path: Path) -> None:
    done = gallery(*arguments, "--out", tmp_path / "x.png")
    assert done.returncode != 0 and message in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "x.png").exists()

"""The picture that suits the spectra, where nobody says one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import specshards.shards.__main__ as command
from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine
from specshards.common.spectrum import Spectrum
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.ingest.surveys.survey import OPTICAL, SURVEYS, Reader, Survey
from specshards.render import ImageConfig, RenderError, preset, renderer
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.write.build import build
from specshards.shards.write.job import Claim
from specshards.shards.write.suited import suits_all
from tests.conftest import call, make_spectrum

pytestmark = pytest.mark.usefixtures("one_thread")
OWN: dict[str, Mapping[str, Any]] = {
    "near": {"window": (15_100.0, 17_000.0), "block": 2}, "arms": {"window": (4_700.0, 7_900.0), "grid": "log"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def surveys(monkeypatch: pytest.MonkeyPatch) -> None:
    """`near`, whose spectra are infrared, and `arms`, which have gaps."""
    reader = Reader(lambda file: None, lambda *_: iter(()))
    len(SURVEYS)
    for name, wanted in OWN.items():
        monkeypatch.setitem(vars(SURVEYS)["_things"], name, Survey(name, (reader,), default_image=wanted))


def spectra(survey: str, low: float, high: float, n: int, count: int = 24) -> list[Spectrum]:
    """On a linear grid, of other objects than those of another survey."""
    rng = np.random.default_rng(n)
    wave = np.linspace(low, high, n, dtype=np.float32)
    free = {"wave_coeff0": None, "wave_coeff1": None, "survey": survey, "layout": survey}
    made = [make_spectrum(i, rng, n=n, wavelength=wave.copy(), **free) for i in range(count)]
    return [replace(one, object_id=f"{survey}-{i}") for i, one in enumerate(made)]


def made(folder: Path, *many: Sequence[Spectrum], words: Sequence[object] = ()) -> Manifest:
    """What the command makes of them, a file of spectra each."""
    (folder / "spectra").mkdir(parents=True, exist_ok=True)
    for i, some in enumerate(many):
        write_parquet(to_table(some), folder / "spectra" / f"{i}.parquet", {}, row_group_rows=8)
    call(command.app, "build", "--spectra", folder / "spectra", "--out", folder / "out", "--workers", 0,
         "--split", "1,0,0", *words)  # fmt: skip
    return Manifest.load(folder / "out")


def test_one_survey(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    near = spectra("near", 15_101, 16_999, 8_575)
    manifest = made(tmp_path, near)
    assert manifest.config.image == ImageConfig(window=(15_100, 17_000), block=2)
    assert (manifest.samples(), manifest.quarantined) == (24, 0)
    said = "picture of 15,100 to 17,000 A, as suits near: 112 x 112 cells of 2 x 2 pixels, a pixel of the spectrum"
    assert said in caplog.text and Claim.load(tmp_path / "out").suited == ("window", "block")  # type: ignore[union-attr]
    again = made(tmp_path)
    assert again.dumps() == manifest.dumps() and not Manifest.load(tmp_path / "out").quarantined
    # Others that join do not change what is there; a new data set of both has both.
    write_parquet(to_table(spectra("arms", 4_713, 7_887, 4_000)), tmp_path / "spectra" / "9.parquet", {})
    with pytest.raises(JobError, match="fewer than two good pixels between 15100 and 17000 A: the spectrum has 4700"):
        made(tmp_path)
    both = made(tmp_path, words=("--force",)).config.image
    assert both == ImageConfig(window=(4_700, 17_000), grid="log", block=2)


def test_a_users_own_word_wins(tmp_path: Path) -> None:
    near = spectra("near", 15_101, 16_999, 4_000, 8)
    image = made(tmp_path / "a", near, words=("--window", "15200,16000", "--image", "simple")).config.image
    assert image == ImageConfig(image="simple", window=(15_200, 16_000))
    image = made(tmp_path / "b", near, words=("--block", 3, "--preset", "survey-free")).config.image
    assert image == replace(preset("survey-free", "map2d"), window=(15_100, 17_000))
    with pytest.raises(JobError, match=r"8 times: .* the spectrum has 15000 to 17000; take --window 15000,17000"):
        made(tmp_path / "c", near, words=("--preset", "paper"))
    assert made(tmp_path / "d", near, words=("--window", "15000,17000")).quarantined == 0
    with pytest.raises(UsageError, match=r"image\.window"):
        made(tmp_path / "d", words=("--window", "15000,16000"))


@pytest.mark.parametrize("survey", ["mock-lamost", "sdss"])
def test_what_had_a_picture_keeps_it(tmp_path: Path, survey: str) -> None:
    rng = np.random.default_rng(1)
    usual = [make_spectrum(i, rng, survey=survey) for i in range(20)]
    for name in ("map2d", "simple"):
        manifest = made(tmp_path / name, usual, words=("--image", name))
        assert manifest.config.image == ImageConfig(image=name) and ImageConfig.window == OPTICAL
        claim = Claim.load(tmp_path / name / "out")
        assert claim is not None and "suited" not in claim.to_dict()
        config = ShardConfig(image=ImageConfig(image=name), split=(1.0, 0.0, 0.0))
        plain = build(config, tmp_path / name / "spectra", tmp_path / name / "plain", engine=Engine(workers=0))
        assert plain.dumps() == manifest.dumps()


def test_spectra_of_nobody_known(tmp_path: Path) -> None:
    soil = spectra("soil", 3_500, 25_000, 2_151)
    image = made(tmp_path / "map2d", soil).config.image
    assert image == ImageConfig(window=(3_500, 25_000), block=4)
    assert renderer(image).code_shape == (56, 56)
    assert made(tmp_path / "line", soil, words=("--image", "overlap")).config.image.block == ImageConfig.block
    few = made(tmp_path / "few", spectra("soil", 3_360, 10_200, 343), words=("--seed", 1)).config.image
    assert few == ImageConfig(window=(3_360, 10_200), block=11)
    # One strange spectrum among many sets no window.
    odd = [*spectra("soil", 3_500, 25_000, 2_151, 95), *spectra("odd", 200_000, 250_000, 2_151, 1)]
    odd[-1] = replace(odd[-1], survey="soil")
    with pytest.raises(JobError, match="the spectrum has 200000 to 250000; take --window 200000,250000"):
        made(tmp_path / "odd", odd, words=("--max-bad-fraction", 0))
    assert made(tmp_path / "odd", words=("--max-bad-fraction", 0.1)).config.image == image


def test_what_does_not_fit_gives_way(tmp_path: Path) -> None:
    many = spectra("desi", 3_600, 9_824, 7_781)
    assert made(tmp_path / "more", many).config.image == ImageConfig(block=2)
    assert made(tmp_path / "said", many, words=("--block", 3)).config.image == ImageConfig(grid="log")
    with pytest.raises(JobError, match=r"7781 pixels do not fit 74 x 74 cells; take --block 2 or --grid log"):
        made(tmp_path / "both", many, words=("--block", 3, "--grid", "native"))
    small = renderer(ImageConfig(size=48))
    one = many[0].arrays()
    with pytest.raises(RenderError, match="do not fit 16 x 16 cells; take --grid log"):
        small.codes(*one)
    elsewhere = spectra("sdss", 15_101, 16_999, 3_000)
    assert made(tmp_path / "window", elsewhere).config.image.window == (15_100, 17_000)


def test_several_surveys_share_the_union(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    near, usual = spectra("near", 15_101, 16_999, 8_575), spectra("sdss", 3_800, 9_200, 3_843)
    manifest = made(tmp_path, near, usual, words=("--seed", 1))
    assert manifest.config.image == ImageConfig(window=(OPTICAL[0], 17_000), grid="log", block=2)
    assert (manifest.samples(), manifest.quarantined) == (48, 0)
    # A cell is 1.25e-4 in ln(wavelength); in the middle of near a pixel is 0.221 of 16,050 A, of sdss 1.41 of 6,500.
    assert "each one wavelength for every survey (0.97 A at 7,754 A), with so many pixels" in caplog.text
    assert "9.1 of near, 0.58 of sdss" in caplog.text
    parts = suits_all(ImageConfig(), ("sdss", "near"), ())
    assert parts == manifest.config.image and suits_all(ImageConfig(), ("sdss", "lamost"), ()) == ImageConfig()
    assert suits_all(ImageConfig(image="simple"), ("sdss", "near"), ()).window == parts.window
    assert suits_all(ImageConfig(), ("arms",), {"grid"}) == ImageConfig(window=(4_700, 7_900))
    whose = [
        name for one in manifest.shards for name in pq.read_table(one.sidecar(tmp_path / "out"))["survey"].to_pylist()
    ]
    assert set(whose) == {"near", "sdss"}

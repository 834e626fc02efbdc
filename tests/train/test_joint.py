"""Several data sets as one: what they have in common is counted and said; what does not fit is refused at once."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specshards.common.errors import UsageError
from specshards.common.jobs import Engine
from specshards.common.spectrum import Spectrum
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.render import ImageConfig
from specshards.shards.format.archive import read_sidecars
from specshards.shards.format.manifest import SPLITS, Manifest, ShardConfig
from specshards.shards.write.build import build
from specshards.train.config import RunOptions, TrainConfig
from specshards.train.evaluation.evaluate import evaluate
from specshards.train.fit import fit
from specshards.train.joint import Joint
from specshards.train.paper import run as paper_run
from specshards.train.paper.config import PaperConfig
from specshards.train.paper.run import paper
from tests.conftest import make_spectrum

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = RunOptions(device="cpu", threads=1, tracker="none")
SMALL = ImageConfig(size=64)


def visits(number: int, prefix: str, objects: int = 40) -> list[Spectrum]:
    """The same places on the sky, seen once more half an arcsecond away, under ids of their own."""
    rng = np.random.default_rng(number)
    where = [{"ra": 10.0, "dec": 0.1 * i + number * 0.5 / 3600} for i in range(objects)]
    return [make_spectrum(i, rng, n=400, object_id=f"{prefix}{i}", **place) for i, place in enumerate(where)]


def made(folder: Path, spectra: list[Spectrum], **options: Any) -> str:
    """Shards, named as `make shards` names them."""
    out = folder / "shards" / "map2d"
    write_parquet(to_table(spectra), _new(folder / "spectra") / "a.parquet", {}, row_group_rows=20)
    config = ShardConfig(**{"image": SMALL, "split": (0.6, 0.2, 0.2), **options})
    build(config, folder / "spectra", out, engine=Engine(workers=0))
    return str(out)


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two sets that are split by row, of the same objects."""
    folder = tmp_path_factory.mktemp("rows")
    return tuple(  # type: ignore[return-value]
        made(folder / name, visits(number, name), split_by="row", encoding="flux")
        for number, name in enumerate(("first", "second"))
    )


def by_hand(folders: tuple[str, ...]) -> tuple[int, int]:
    """Test spectra whose object, told by its tenth of a degree, is in train; test spectra."""
    places: dict[str, list[int]] = {}
    for split in SPLITS:
        for folder in folders:
            table = read_sidecars([Path(folder)], [Manifest.load(Path(folder))], split, ["dec"])
            places.setdefault(split, []).extend(round(dec * 10) for dec in table["dec"].to_pylist())
    return sum(place in places["train"] for place in places["test"]), len(places["test"])


def test_what_sets_leak_together_is_counted_over_both(rows: tuple[str, str]) -> None:
    manifests = [Manifest.load(Path(folder)) for folder in rows]
    assert all(one.leaks is not None and one.leaks.test_seen == 0 for one in manifests)  # each alone is clean
    joint = Joint.count(rows, manifests)
    assert (joint.leaks.test_seen, joint.leaks.test) == by_hand(rows)
    assert joint.leaks.test_seen > 3
    assert joint.shared == 0


def test_a_training_and_its_report_say_what_sets_leak_together(
    rows: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen, tests = by_hand(rows)
    config = TrainConfig(task="classify", shards=rows, images=("map2d",), backbone="tiny", epochs=1, batch_size=16,
                         max_steps=1)  # fmt: skip
    run = fit(config, tmp_path / "run", OPTIONS)
    assert f"{seen} of {tests} test spectra" in caplog.messages[0]
    assert caplog.messages[0].startswith("together: ")
    evaluate(run, splits=("test",), device="cpu", threads=1)
    for page in ("report.md", "report.html"):
        assert f"{seen} of {tests} test spectra" in (run / page).read_text(encoding="utf-8")


def test_the_paper_says_what_sets_leak_together(rows: tuple[str, str], tmp_path: Path) -> None:
    seen, tests = by_hand(rows)
    first = paper(PaperConfig.configure(quick=True, shards=rows, tables=("1",)), tmp_path, OPTIONS)
    said = next(line for line in first if line.startswith("Not comparable"))
    assert f"split by row, as published: {seen} of {tests} test spectra are of an object of the train split" in said
    assert "no object is on two sides" not in said


def test_spectra_under_one_id_in_two_sets_are_counted(tmp_path: Path) -> None:
    whole = made(tmp_path / "whole", visits(0, "n"))
    part = made(tmp_path / "part", [replace(s, survey="mock-lamost") for s in visits(0, "n")[:25]])
    both = [Manifest.load(Path(folder)) for folder in (whole, part)]
    joint = Joint.count((whole, part), both)
    assert joint.leaks.divided == 0  # by sky, with one seed
    assert joint.shared == 50
    assert "50 spectra have an id that another of the data sets has too" in joint.lines[0]


def test_one_data_set_twice_is_refused(rows: tuple[str, str], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(rows[0], copy)
    for twice, words in (
        ((rows[0], rows[0]), "is there twice"),
        ((rows[0], str(copy)), "holds the same data set as"),
    ):
        config = TrainConfig(task="classify", shards=twice, images=("map2d",), backbone="tiny")
        with pytest.raises(UsageError, match=f"{words}.*name it once"):
            fit(config, tmp_path / "run", OPTIONS)
        with pytest.raises(UsageError, match=f"{words}.*name it once"):
            paper(PaperConfig.configure(quick=True, shards=twice, sets="each"), tmp_path / "paper", OPTIONS)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "paper").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoding": "png"}, "another encoding than"),
        ({"seed": 5, "encoding": "flux"}, "splits the sky otherwise than .*seed 5, not 0"),
        ({"split_by": "sky", "encoding": "flux"}, "split_by sky, not row"),
        ({"image": ImageConfig(size=64, frame="rest"), "encoding": "flux"}, "another frame than"),
    ],
)
def test_sets_that_do_not_fit_together_are_refused_before_any_training(
    rows: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], words: str
) -> None:
    other = made(tmp_path / "other", visits(3, "o"), **{"split_by": "row", **options})
    monkeypatch.setattr(paper_run, "fit", lambda *_: pytest.fail("trained"))
    with pytest.raises(UsageError, match=words):
        paper(PaperConfig.configure(shards=(rows[0], other)), tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


def test_the_progress_line_waits_for_data_at_most_all_the_time(tmp_path: Path) -> None:
    import time

    from accelerate import Accelerator
    from torch import Tensor, nn

    from specshards.train.meter import Meter

    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.float().mean()

    meter = Meter(Accelerator(cpu=True), Mean(), "picture", 8, "")
    shares = []
    for _ in meter.timed([1, 2]):
        time.sleep(0.01)
        meter.seen += 1
        shares.append(meter.rates())
    assert all(0 <= rates["data_wait"] < 0.9 for rates in shares)  # type: ignore[operator]
    assert all(rates["samples_per_second"] < 101 for rates in [*shares, meter.rates()])  # type: ignore[operator]

"""Splits by sky, by object, by row: what falls together, what leaks and is said, what stays where it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from specshards.common.errors import UsageError
from specshards.common.jobs import Engine
from specshards.common.spectrum import Spectrum
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.job.build import build as ingest
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.render import ImageConfig
from specshards.shards import loader
from specshards.shards.__main__ import app
from specshards.shards.check.verify import verify
from specshards.shards.format.leaks import Leaks
from specshards.shards.format.manifest import SPLITS, Manifest, ShardConfig
from specshards.shards.report.make import write_page
from specshards.shards.write.build import build
from specshards.shards.write.reshard import remake
from specshards.train.run import data_record
from tests.conftest import make_spectrum
from tests.oracles.data_sets import tree
from tests.oracles.mmu_tables import spectrum_columns

HERE = Engine(workers=0)
ARCSEC = 1 / 3600
SHARES = (0.6, 0.2, 0.2)
BY_ROW = ShardConfig(ImageConfig(size=64), split=SHARES, split_by="row")
BY_OBJECT = replace(BY_ROW, split_by="object")


def visits(objects: int, each: int = 2, apart: float = 0.5, first: int = 0) -> list[Spectrum]:
    """Visits of objects that are a tenth of a degree from one another; every spectrum has an id and a file."""
    rng = np.random.default_rng(first)
    made = []
    for i in range(objects):
        for visit in range(each):
            row = first + i * each + visit
            dec = 0.1 * (first + i) / each + visit * apart * ARCSEC
            made.append(make_spectrum(row, rng, n=400, ra=10.0, dec=dec))
    return made


def write(path: Path, made: list[Spectrum], groups: int = 25) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(to_table(made), path, {}, row_group_rows=groups)
    return path.parent


def split_of(out: Path, *columns: str) -> dict[object, set[str]]:
    """What a sample says in some columns (its id by default) -> the splits in which it is."""
    found: dict[object, set[str]] = {}
    for split in SPLITS:
        for path in (out / split).glob("*.parquet"):
            for row in pq.read_table(path, columns=list(columns or ("object_id",))).to_pylist():
                found.setdefault(tuple(row.values()), set()).add(split)
    return found


def passed(out: Path) -> dict[str, tuple[bool, str]]:
    checks = verify(out, deep=True, engine=HERE)
    return {check.name: (check.passed, check.detail) for check in checks if check.name != "mixing"}  # of so few rows


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.0, 1.0, 5.0]), st.booleans(),
                          st.integers(0, 1), st.integers(0, 2)), max_size=14))  # fmt: skip
def test_leaks_are_those_of_a_slow_loop(rows: list[tuple[int, float, bool, int, int]]) -> None:
    """An object is an id, or what lies within two arcseconds, in a chain; some have no position."""
    dec = np.array([place + shift * ARCSEC if known else np.nan for place, shift, known, _, _ in rows])
    ids = np.array([10 * place + other for place, _, _, other, _ in rows], np.uint64)
    splits = np.array([split for *_, split in rows], np.int8)
    objects = list(range(len(rows)))
    for _ in rows:
        for i in range(len(rows)):
            for j in range(i):
                if ids[i] == ids[j] or abs(dec[i] - dec[j]) < 2 * ARCSEC:
                    objects[i] = objects[j] = min(objects[i], objects[j])
    members = [[i for i in range(len(rows)) if objects[i] == one] for one in set(objects)]
    several = [m for m in members if len(m) > 1]
    seen = [i for m in members for i in m if any(splits[k] == 0 for k in m)]
    found = Leaks.count(np.where(np.isnan(dec), np.nan, 7.0), dec, ids, splits)
    assert found == Leaks(
        len(several), sum(len({splits[i] for i in m}) > 1 for m in several),
        sum(splits == 1), sum(splits[i] == 1 for i in seen), sum(splits == 2), sum(splits[i] == 2 for i in seen),
    )  # fmt: skip


def test_by_row_visits_fall_apart_and_everyone_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, out = write(tmp_path / "in" / "a.parquet", visits(100)), tmp_path / "out"
    manifest = build(BY_ROW, folder, out, engine=HERE)
    where = {int(name) - 1000: splits for (name,), splits in split_of(out).items()}
    pairs = [(*where[2 * i], *where[2 * i + 1]) for i in range(100)]
    both = [(a, b) for pair in pairs for a, b in (pair, pair[::-1])]
    leaks = manifest.leaks
    assert leaks is not None and (leaks.visited, leaks.divided) == (100, sum(a != b for a, b in pairs))
    assert leaks.test == manifest.samples("test") and leaks.test_seen == both.count(("test", "train"))
    assert leaks.val == manifest.samples("val") and leaks.val_seen == both.count(("val", "train"))
    # As independent draws would fall: 1 - (.36 + .04 + .04) of the pairs are torn apart.
    assert 40 <= leaks.divided <= 72 and 100 <= manifest.samples("train") <= 140
    assert caplog.text.count(leaks.text) == 1
    assert f"split by row: {leaks.divided} of 100 objects with several spectra have them in more" in leaks.text
    for page in (out / "README.md", write_page(out)):
        assert leaks.text.removeprefix("split ") in page.read_text(encoding="utf-8")
    shown = CliRunner().invoke(app, ["inspect", str(out), "--count", "1", "--out", str(tmp_path / "a.png")])
    assert leaks.text in " ".join(shown.stdout.split())
    checks = passed(out)
    assert all(ok for ok, _ in checks.values()) and checks["sky"][1] == leaks.text
    assert checks["split"][1] == "every sample is where split_by row puts it"
    assert Manifest.load(out).dumps() == manifest.dumps()


def test_by_sky_nothing_is_written_that_was_not_before(sets: Callable[[str], Path]) -> None:
    content = json.loads((sets("png") / "manifest.json").read_text())
    assert "leaks" not in content and "split_by" not in content["config"]
    assert Manifest.load(sets("png")).dumps() == (sets("png") / "manifest.json").read_text()
    assert passed(sets("png"))["split"] == (True, "every sample is where split_by sky puts it")


def test_by_row_the_order_of_files_and_the_workers_do_not_matter(tmp_path: Path) -> None:
    made = visits(60)
    # Two of one id and file, as rows of a table have them.
    made += [replace(s, object_id="twice", source_file="t.fits", dec=80.0) for s in visits(30, first=500)]
    one = write(tmp_path / "one" / "a.parquet", made)
    build(BY_ROW, one, tmp_path / "a", engine=HERE)
    where = split_of(tmp_path / "a")
    assert where.pop(("twice",)) == set(SPLITS) and all(len(splits) == 1 for splits in where.values())
    build(BY_ROW, one, tmp_path / "b", engine=Engine(workers=2))
    assert tree(tmp_path / "b") == tree(tmp_path / "a")
    # In other files, in another order, below other folders.
    moved = [replace(s, source_file=f"elsewhere/{s.source_file}") for s in made[::-1]]
    other = write(tmp_path / "two" / "b.parquet", moved[100:], 9)
    write(other / "a.parquet", moved[:100], 40)
    build(BY_ROW, other, tmp_path / "c", engine=HERE)
    again = split_of(tmp_path / "c")
    assert again.pop(("twice",)) == set(SPLITS) and again == where
    assert passed(tmp_path / "c")["split"][0]


@pytest.mark.parametrize("config", [BY_ROW, BY_OBJECT], ids=["row", "object"])
def test_a_grown_data_set_keeps_its_splits(config: ShardConfig, tmp_path: Path) -> None:
    out, folder = tmp_path / "out", write(tmp_path / "in" / "b.parquet", visits(60))
    build(config, folder, out, engine=HERE)
    before, kept = split_of(out), tree(out)
    # Further visits of the same objects, and others, in a file that comes first by its name.
    more = [replace(s, object_id=f"n{s.object_id}", source_file=f"n{s.source_file}") for s in visits(70)]
    write(folder / "a.parquet", more)
    manifest = build(config, folder, out, engine=HERE)
    after = split_of(out)
    assert before.items() <= after.items() and len(after) == 120 + 140
    assert {k: v for k, v in kept.items() if k.endswith(".tar")}.items() <= tree(out).items()
    assert [detail for ok, detail in passed(out).values() if not ok] == []
    if config.split_by == "object":
        assert {len(splits) for splits in split_of(out, "dec").values()} == {1}
    else:
        build(config, folder, tmp_path / "anew", engine=HERE)
        assert split_of(tmp_path / "anew") == after
        leaks = manifest.leaks
        assert leaks is not None and leaks.visited == 70 and leaks == Manifest.load(tmp_path / "anew").leaks


def test_by_object_visits_fall_together_across_borders_and_by_id(tmp_path: Path) -> None:
    """Cells are 13 arcseconds wide: visits 1.5 arcseconds apart are often on both sides of a border."""
    made = visits(150, each=3, apart=1.5)
    for i in range(0, 450, 9):  # two visits of one id, eight arcseconds from each other, and one beside the second
        made[i + 1] = replace(made[i + 1], object_id=made[i].object_id, dec=made[i].dec + 8 * ARCSEC)
        made[i + 2] = replace(made[i + 2], dec=made[i].dec + 9 * ARCSEC)
    folder, out = write(tmp_path / "in" / "a.parquet", made), tmp_path / "out"
    manifest = build(BY_OBJECT, folder, out, engine=HERE)
    near: dict[object, set[str]] = {}
    for (_, dec), splits in split_of(out, "object_id", "dec").items():
        near.setdefault(round(dec / 0.1 * 3), set()).update(splits)
    assert len(near) == 150 and all(len(splits) == 1 for splits in near.values())
    assert manifest.leaks is None and manifest.config.to_dict()["split_by"] == "object"
    checks = passed(out)
    assert all(ok for ok, _ in checks.values()) and "or where another visit of it is" in checks["split"][1]
    assert manifest.samples("train") / 450 == pytest.approx(0.6, abs=0.12)
    assert "split by object" in (out / "README.md").read_text().lower()


def test_objects_without_a_position_go_by_their_id(tmp_path: Path) -> None:
    """A table without ra and dec: by sky and by object its rows go by id."""
    made = visits(60)
    names = [f"o{i // 2}" for i in range(120)]
    table = {**spectrum_columns(made, "struct"), "object_id": names, "survey": ["mine"] * 120}
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(table), tmp_path / "in" / "a.parquet")
    build(BY_OBJECT, tmp_path / "in", tmp_path / "object", engine=HERE)
    build(replace(BY_ROW, split_by="sky"), tmp_path / "in", tmp_path / "sky", engine=HERE)
    where = split_of(tmp_path / "object")
    assert split_of(tmp_path / "sky") == where
    assert len(where) == 60 and all(len(splits) == 1 for splits in where.values())
    manifest = build(BY_ROW, tmp_path / "in", tmp_path / "row", engine=HERE)
    assert manifest.leaks is not None and manifest.leaks.visited == 60 and 20 < manifest.leaks.divided < 46
    for name in ("sky", "object", "row"):
        assert [detail for ok, detail in passed(tmp_path / name).values() if not ok] == []
        write_page(tmp_path / name)
        remake([tmp_path / name], tmp_path / f"{name}-copy", engine=HERE)
        assert split_of(tmp_path / f"{name}-copy", "key") == split_of(tmp_path / name, "key")


def test_other_sets_of_it_and_joint_ones(tmp_path: Path) -> None:
    folder = write(tmp_path / "in" / "a.parquet", visits(60))
    by = {
        name: build(replace(BY_ROW, split_by=name), folder, tmp_path / name, engine=HERE) for name in ("sky", "row")
    }
    remake([tmp_path / "row"], tmp_path / "copy", samples_per_shard=20, engine=HERE)
    assert split_of(tmp_path / "copy") == split_of(tmp_path / "row")
    assert Manifest.load(tmp_path / "copy").leaks == by["row"].leaks
    back = remake([tmp_path / "row"], tmp_path / "back", split_by="sky", engine=HERE)
    assert split_of(tmp_path / "back") == split_of(tmp_path / "sky") and back.leaks is None
    half = remake([tmp_path / "row"], tmp_path / "half", where="z < 0.05", engine=HERE)
    assert half.leaks is not None and half.leaks.test == half.samples("test") < by["row"].samples("test")
    others = [replace(s, object_id=f"n{s.object_id}", survey="mock-sdss") for s in visits(60)]
    build(BY_ROW, write(tmp_path / "more" / "a.parquet", others), tmp_path / "sdss", engine=HERE)
    joint = remake([tmp_path / "row", tmp_path / "sdss"], tmp_path / "joint", engine=HERE)
    assert joint.leaks is not None and joint.leaks.visited == 60 and joint.leaks.divided > by["row"].leaks.divided
    assert split_of(tmp_path / "joint").items() >= split_of(tmp_path / "row").items()
    assert all(ok for ok, _ in passed(tmp_path / "joint").values())
    with pytest.raises(UsageError, match=r"another split_by .* than"):
        remake([tmp_path / "sky", tmp_path / "sdss"], tmp_path / "no", engine=HERE)
    remake([tmp_path / "sky", tmp_path / "sdss"], tmp_path / "yes", split_by="object", engine=HERE)
    assert {len(splits) for splits in split_of(tmp_path / "yes", "dec").values()} == {1}
    with pytest.raises(UsageError, match="split_by row, not sky"):
        loader.open([tmp_path / "sky", tmp_path / "sdss"], "train", 8)


def test_verify_finds_samples_that_are_elsewhere_and_leaks_that_are_not_these(tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(BY_ROW, write(tmp_path / "in" / "a.parquet", visits(40)), out, engine=HERE)
    text = (out / "manifest.json").read_text()
    content = json.loads(text)
    seed, seen = content["config"]["seed"], content["leaks"]["test_seen"]
    (out / "manifest.json").write_text(json.dumps({**content, "config": {**content["config"], "seed": seed + 1}}))
    ok, detail = passed(out)["split"]
    assert not ok and ".tar 00000000" in detail and "not where split_by row puts it" in detail
    (out / "manifest.json").write_text(json.dumps({**content, "leaks": {**content["leaks"], "test_seen": seen - 1}}))
    ok, detail = passed(out)["sky"]
    assert not ok and "leaks" in detail and passed(out)["split"][0]


def test_a_split_that_would_be_empty_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder = write(tmp_path / "in" / "a.parquet", visits(1))
    for config in (BY_ROW, BY_OBJECT):
        with pytest.raises(UsageError, match="split of 2 objects would be empty"):
            build(config, folder, tmp_path / "out", engine=HERE)
        assert not (tmp_path / "out").exists()
    # Of one object visited often there is nothing to divide by object, and by row there is.
    folder = write(tmp_path / "often" / "a.parquet", visits(1, each=40, apart=0.01))
    with pytest.raises(UsageError, match="would be empty"):
        build(BY_OBJECT, folder, tmp_path / "out", engine=HERE)
    made = build(BY_ROW, folder, tmp_path / "out", engine=HERE)
    assert made.leaks is not None and made.leaks.test_seen == made.samples("test") > 0
    # Where every object has one spectrum, or one is kept, nothing leaks.
    best = build(replace(BY_ROW, best_of="object"), write(tmp_path / "two" / "a.parquet", visits(40)),
                 tmp_path / "best", engine=HERE)  # fmt: skip
    assert best.leaks is not None and best.leaks.text == "split by row: no object has spectra in more than one split"
    assert best.samples() == 40 and "leaks" not in data_record(["best"], [best])[0]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="split_by=star: choose sky, object, row"):
        ShardConfig(split_by="star")
    with pytest.raises(UsageError, match="split_nside=128: of split_by=sky, not of row"):
        ShardConfig(split_by="row", split_nside=128)


def test_a_training_says_what_leaks_and_so_do_its_reports(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from specshards.train.config import RunOptions, TrainConfig
    from specshards.train.evaluation.evaluate import evaluate
    from specshards.train.fit import fit

    manifest = build(BY_ROW, write(tmp_path / "in" / "a.parquet", visits(30)), tmp_path / "set", engine=HERE)
    assert manifest.leaks is not None
    caplog.clear()
    config = TrainConfig(task="classify", shards=(str(tmp_path / "set"),), backbone="tiny", epochs=1, batch_size=16)
    run = fit(config, tmp_path / "run", RunOptions(device="cpu"))
    assert caplog.messages[0] == f"set: {manifest.leaks.text}"
    evaluate(run, splits=("test",), device="cpu")
    for page in ("report.md", "report.html"):
        assert manifest.leaks.text in (run / page).read_text(encoding="utf-8")


def test_real_repeat_visits_by_row_are_counted_by_hand(real_data: Path, tmp_path: Path) -> None:
    """LAMOST DR8: 172 spectra, several of a star; every pair of positions compared by the law of cosines."""
    ingest(IngestConfig("lamost"), str(real_data / "lamost" / "dr8_repeat_visits"), tmp_path, engine=HERE)
    manifest = build(replace(BY_ROW, image=ImageConfig()), tmp_path / "spectra", tmp_path / "out", engine=HERE)
    rows = [
        (row["ra"], row["dec"], split)
        for split in SPLITS
        for path in (tmp_path / "out" / split).glob("*.parquet")
        for row in pq.read_table(path, columns=["ra", "dec"]).to_pylist()
    ]
    ra, dec = np.radians([row[0] for row in rows]), np.radians([row[1] for row in rows])
    split = np.array([row[2] for row in rows])
    cosine = np.sin(dec) * np.sin(dec[:, None]) + np.cos(dec) * np.cos(dec[:, None]) * np.cos(ra - ra[:, None])
    near = np.degrees(np.arccos(np.clip(cosine, -1, 1))) < 2 * ARCSEC
    np.fill_diagonal(near, True)
    near = np.linalg.matrix_power(near.astype(int), 8) > 0  # chains
    stars = {tuple(np.flatnonzero(line).tolist()) for line in near}
    assert sum(map(len, stars)) == 172
    several = [list(star) for star in stars if len(star) > 1]
    in_train = (near & (split == "train")).any(axis=1)
    assert manifest.leaks == Leaks(
        len(several), sum(len(set(split[star])) > 1 for star in several),
        (split == "val").sum(), (in_train & (split == "val")).sum(),
        (split == "test").sum(), (in_train & (split == "test")).sum(),
    )  # fmt: skip
    assert len(several) == 63 and manifest.leaks.divided > 0 and manifest.leaks.test_seen > 0

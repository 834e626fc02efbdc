"""Objects without a sky: splits by id and by a group, from spectra to predictions, and what is said of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specshards.common.errors import JobError, UsageError
from specshards.common.identity import id_hashes, judge
from specshards.common.jobs import Engine
from specshards.common.spectrum import Spectrum
from specshards.ingest.spectra.schema import healpix_29, to_table, write_parquet
from specshards.render import ImageConfig
from specshards.shards import loader
from specshards.shards.check.verify import verify
from specshards.shards.format.counts import SplitCounts
from specshards.shards.format.manifest import SPLITS, Manifest, ShardConfig
from specshards.shards.report.head import read_head
from specshards.shards.report.make import write_page
from specshards.shards.write.build import build
from specshards.shards.write.reshard import remake
from specshards.shards.write.split import split_keys, splits_of
from specshards.shards.write.visits import moved_rows, share_out
from specshards.train.joint import Joint
from specshards.train.run import data_record
from tests.conftest import make_spectrum
from tests.oracles.data_sets import tree
from tests.oracles.mmu_tables import spectrum_columns

HERE = Engine(workers=0)
SKY = ShardConfig(ImageConfig(size=64), split=(0.6, 0.2, 0.2))
BY_PLATE = replace(SKY, group="plate")
ARCSEC = 1 / 3600
NAN = float("nan")


def made(n: int, first: int = 0, **changes: object) -> list[Spectrum]:
    """Two spectra an object; every other object has no position. Three objects a plate, some on none."""
    rng = np.random.default_rng(first)
    found = []
    for i in range(n):
        thing = (first + i) // 2
        place = {"ra": NAN, "dec": NAN} if thing % 2 else {"ra": 10.0, "dec": 0.3 * thing}
        spectrum = make_spectrum(first + i, rng, n=400, object_id=f"o{thing}", **place, **changes)
        spectrum.labels["plate"] = None if thing % 10 == 9 else float(thing // 3)
        found.append(spectrum)
    return found


def write(path: Path, spectra: list[Spectrum]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(to_table(spectra), path, {}, row_group_rows=25)
    return path.parent


def split_of(out: Path, column: str = "object_id") -> dict[object, set[str]]:
    found: dict[object, set[str]] = {}
    for split in SPLITS:
        for path in (out / split).glob("*.parquet"):
            for value in pq.read_table(path, columns=[column])[column].to_pylist():
                found.setdefault(value, set()).add(split)
    return found


def faults(out: Path) -> list[str]:
    return [each.detail for each in verify(out, deep=True, engine=HERE) if not each.passed and each.name != "mixing"]


def said_everywhere(out: Path, words: str) -> None:
    write_page(out)
    assert words in (out / "report.html").read_text(encoding="utf-8")
    assert words in (out / "README.md").read_text(encoding="utf-8")
    head = read_head(out, count=4, out=out.parent / "head.png")
    assert words in head.split and len(list(head.lines())) == 5


ROWS = st.lists(
    st.tuples(st.integers(0, 6), st.booleans(), st.sampled_from([0.0, 1.0, 5.0]), st.integers(0, 4)), min_size=1,
    max_size=40,
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(ROWS, st.sampled_from(["sky", "object", "group"]), st.integers(0, 40), st.integers(0, 3))
def test_no_id_nor_group_is_in_two_splits(
    rows: list[tuple[int, bool, float, int]], rule: str, cut: int, seed: int
) -> None:
    """With and without a position, in groups and in none, ids that repeat, on both sides of the border dec = 0."""
    config = ShardConfig(split=(0.4, 0.3, 0.3), seed=seed, **{"group": {"group": "g"}, "sky": {}}.get(
        rule, {"split_by": rule}))  # fmt: skip
    ids = [f"i{one}" for one, *_ in rows]
    ra = np.array([45.0 + one if known else NAN for one, known, *_ in rows])
    dec = np.array([(shift - 1) * ARCSEC + 3 * (one % 2) if known else NAN for one, known, shift, _ in rows])
    groups = [None if group == 4 else float(group) for *_, group in rows]
    known = np.isfinite(ra)
    cells = np.full(len(rows), -1)
    cells[known] = healpix_29(ra[known], dec[known])
    table = pa.table({
        "survey": ["s"] * len(rows), "object_id": ids, "ra": ra, "dec": dec, "g": pa.array(groups, pa.float64()),
        "_healpix_29": pa.array(cells, mask=~known),
    })  # fmt: skip

    def repeats_of(n: int) -> object:
        part = table.slice(0, n)
        hashes = id_hashes(part["survey"], part["object_id"])
        return judge(hashes, np.arange(n), ra[:n], dec[:n], lambda wanted: [("s", ids[i]) for i in wanted])

    def splits(n: int, first_new: int, fixed: dict[int, int]) -> dict[int, int]:
        tables = [(np.arange(i, min(i + 7, n)), table.slice(i, min(7, n - i))) for i in range(0, n, 7)]
        return moved_rows(tables, config, fixed, first_new, repeats_of(n), allow_empty=True)  # type: ignore[arg-type]

    moved = splits(len(rows), 0, {})
    found = splits_of(table, config)
    for row, split in moved.items():
        found[row] = split
    assert len(found) == len(rows) and set(found.tolist()) <= {0, 1, 2}
    assert all(len(set(found[np.array(ids) == one].tolist())) == 1 for one in set(ids))
    if rule == "group":
        of = np.array([-1 if group is None else group for group in groups])
        assert all(len(set(found[of == one].tolist())) == 1 for one in set(of.tolist()) - {-1})
    # Rows that were written stay, and a group stays where it is.
    old = min(cut, len(rows))
    if old:
        before = splits(old, 0, {})
        grown = before | splits(len(rows), old, before)
        assert {row: split for row, split in grown.items() if row < old} == before
        if rule == "group":
            later = splits_of(table, config)
            for row, split in grown.items():
                later[row] = split
            assert all(len(set(later[of == one].tolist())) == 1 for one in set(of.tolist()) - {-1})


def test_few_values_are_shared_out() -> None:
    """Ten sites, and shares of a tenth: a hash would leave one of three splits without a site, half of the time."""
    config = ShardConfig(group="site")
    assert share_out(np.full(10, 48), config).tolist() == [2, 1, *[0] * 8]
    assert share_out(np.array([400, 5, 5]), config).tolist() == [2, 1, 0]
    assert sorted(share_out(np.arange(1, 40), config).tolist()).count(0) > 20
    assert set(share_out(np.array([7, 9]), replace(config, split=(0.5, 0.0, 0.5))).tolist()) == {0, 2}
    with pytest.raises(UsageError, match=r"--group site: 2 values .* and 3 splits"):
        share_out(np.array([7, 9]), config)


def test_a_number_is_its_text_in_another_file() -> None:
    table = {"survey": ["s"] * 3, "object_id": ["a", "b", "c"]}
    numbers = pa.table({**table, "plate": pa.array([5.0, None, 0.25])})
    texts = pa.table({**table, "plate": ["5", "", "0.25"]})
    assert (split_keys(numbers, BY_PLATE) == split_keys(texts, BY_PLATE)).all()
    assert (split_keys(numbers, BY_PLATE)[1] == split_keys(numbers.drop_columns(["plate"]), BY_PLATE)[1]).all()


def test_by_sky_what_has_no_position_goes_by_its_id(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write(tmp_path / "in" / "a.parquet", made(120))
    manifest = build(SKY, folder, tmp_path / "out", engine=HERE)
    assert manifest.samples() == 120 and manifest.split_counts == SplitCounts(60)
    words = "60 of 120 samples have no position, and go by object_id"
    assert caplog.text.count(words) == 1
    where = split_of(tmp_path / "out")
    assert len(where) == 60 and all(len(splits) == 1 for splits in where.values())
    assert len({*map(frozenset, where.values())}) == 3
    assert faults(tmp_path / "out") == []
    said_everywhere(tmp_path / "out", words)
    assert "60 of 120 samples have no position." in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    # The same whatever the workers, and in sets that are made of it.
    build(SKY, folder, tmp_path / "two", engine=Engine(workers=2))
    assert tree(tmp_path / "two") == tree(tmp_path / "out")
    copy = remake([tmp_path / "out"], tmp_path / "copy", samples_per_shard=40, engine=HERE)
    assert split_of(tmp_path / "copy") == where and copy.split_counts == manifest.split_counts
    # More of the same ids, now with a position: they follow.
    write(
        tmp_path / "in" / "b.parquet", [replace(s, ra=10.0, dec=30.0 + i) for i, s in enumerate(made(8)) if i % 4 > 1]
    )
    build(SKY, folder, tmp_path / "out", engine=HERE)
    assert all(len(splits) == 1 for splits in split_of(tmp_path / "out").values()) and faults(tmp_path / "out") == []
    counts = json.loads((tmp_path / "copy" / "manifest.json").read_text())["split_counts"]
    assert counts == {"by_id": 60, "by_group": 0, "groups": 0}
    with loader.open(tmp_path / "copy", "train", 8) as batches:
        assert np.isnan(np.concatenate([np.asarray(b["labels"]["ra"]) for b in batches])).any()
    joint = Joint.count([tmp_path / "copy", tmp_path / "two"], [copy, manifest])
    assert joint.shared == 240 and joint.leaks.divided == 0


def test_no_position_at_all(tmp_path: Path) -> None:
    spectra = [replace(s, ra=NAN, dec=NAN) for s in made(60)]
    manifest = build(SKY, write(tmp_path / "in" / "a.parquet", spectra), tmp_path / "out", engine=HERE)
    assert manifest.split_counts == SplitCounts(60) and faults(tmp_path / "out") == []
    said_everywhere(tmp_path / "out", "split by object_id: no sample has a position"[9:])
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "No positions" in page and "objects on the sky" not in page
    other = build(replace(SKY, split_by="object"), tmp_path / "in", tmp_path / "object", engine=HERE)
    assert split_of(tmp_path / "object") == split_of(tmp_path / "out") and other.split_counts == SplitCounts(60)
    rows = build(replace(SKY, split_by="row"), tmp_path / "in", tmp_path / "row", engine=HERE)
    assert rows.split_counts is None and rows.leaks is not None and rows.leaks.visited == 30


def test_where_all_have_positions_nothing_new_is_written(tmp_path: Path) -> None:
    spectra = [s for s in made(120) if s.ra == s.ra]
    build(SKY, write(tmp_path / "in" / "a.parquet", spectra), tmp_path / "out", engine=HERE)
    content = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert "split_counts" not in content and not {"group", "split_by"} & content["config"].keys()


def test_by_a_group(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write(tmp_path / "in" / "a.parquet", made(120))
    manifest = build(BY_PLATE, folder, tmp_path / "out", engine=HERE)
    assert manifest.split_counts == SplitCounts(12, 108, 20)
    words = "split by plate: 108 samples of 20 values, each in one split; 12 samples without a value by object_id"
    assert words in caplog.text
    plates = split_of(tmp_path / "out", "plate")
    plates.pop(None)
    assert len(plates) == 20 and all(len(splits) == 1 for splits in plates.values())
    assert all(len(splits) == 1 for splits in split_of(tmp_path / "out").values())
    assert faults(tmp_path / "out") == []
    said_everywhere(tmp_path / "out", words[9:])
    build(BY_PLATE, folder, tmp_path / "two", engine=Engine(workers=2))
    assert tree(tmp_path / "two") == tree(tmp_path / "out")
    # Grown: a plate stays where it is.
    write(tmp_path / "in" / "b.parquet", made(40, first=120))
    write(tmp_path / "in" / "c.parquet", [replace(s, object_id=f"n{s.object_id}") for s in made(30)])
    build(BY_PLATE, folder, tmp_path / "out", engine=HERE)
    after = split_of(tmp_path / "out", "plate")
    assert plates.items() <= after.items() and faults(tmp_path / "out") == []
    # Made of it: by sky again, and back.
    sky = remake([tmp_path / "out"], tmp_path / "sky", split_by="sky", engine=HERE)
    assert sky.config.group is None and sky.leaks is None and sky.split_counts is not None
    back = remake([tmp_path / "sky"], tmp_path / "back", group="plate", engine=HERE)
    assert back.config == replace(BY_PLATE, split=(0.6, 0.2, 0.2)) and faults(tmp_path / "back") == []
    with pytest.raises(UsageError, match=r"another split_by .* than"):
        remake([tmp_path / "out", tmp_path / "sky"], tmp_path / "no", engine=HERE)
    with pytest.raises(UsageError, match="group None, not plate"):
        loader.open([tmp_path / "out", tmp_path / "sky"], "train", 8)


def test_visits_that_a_group_tears_apart_are_counted(tmp_path: Path) -> None:
    """One place under two ids, on two plates: no id is in two splits, but the object may be."""
    spectra = made(120)
    for i, spectrum in enumerate(spectra):
        spectrum.object_id, spectrum.ra, spectrum.dec = f"s{i}", 10.0, 0.3 * (i // 2)
        spectrum.labels["plate"] = f"p{(i // 6) + 100 * (i % 2)}"
    manifest = build(BY_PLATE, write(tmp_path / "in" / "a.parquet", spectra), tmp_path / "out", engine=HERE)
    assert manifest.leaks is not None and manifest.leaks.visited == 60 and manifest.leaks.divided > 10
    assert faults(tmp_path / "out") == []
    said_everywhere(tmp_path / "out", "60 objects with several spectra have them in more than one split")
    record = data_record(["x"], [manifest])[0]
    assert record["leaks"].startswith("split by plate: ")


def test_a_column_that_is_not_there_and_contradictions(tmp_path: Path) -> None:
    folder = write(tmp_path / "in" / "a.parquet", made(20))
    with pytest.raises(UsageError, match=r"--group field: there is no such column; there are .*plate"):
        build(replace(SKY, group="field"), folder, tmp_path / "out", engine=HERE)
    assert not (tmp_path / "out" / ".ledger" / "plan.json").exists()
    with pytest.raises(UsageError, match="group=plate: takes the place of split_by"):
        ShardConfig(group="plate", split_by="row")
    with pytest.raises(UsageError, match="name of a column"):
        ShardConfig(group=" ")


def test_others_parquet_by_a_group_and_without_positions(tmp_path: Path) -> None:
    spectra = made(60)
    classes = ["STAR", "GALAXY", "QSO"]
    table = {
        **spectrum_columns(spectra, "struct"), "object_id": [f"o{i}" for i in range(60)], "survey": ["mine"] * 60,
        "class": [classes[i // 20] for i in range(60)],
    }  # fmt: skip
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(table), tmp_path / "in" / "a.parquet")
    manifest = build(replace(SKY, group="class"), tmp_path / "in", tmp_path / "out", engine=HERE)
    assert manifest.split_counts == SplitCounts(0, 60, 3) and faults(tmp_path / "out") == []
    assert all(len(splits) == 1 for splits in split_of(tmp_path / "out", "class").values())


def test_verify_finds_a_group_in_two_splits_and_counts_that_are_not_these(tmp_path: Path) -> None:
    build(BY_PLATE, write(tmp_path / "in" / "a.parquet", made(60)), tmp_path / "out", engine=HERE)
    path = tmp_path / "out" / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "split_counts": {**content["split_counts"], "groups": 2}}))
    assert any("split_counts: the samples do not have these" in fault for fault in faults(tmp_path / "out"))
    path.write_text(json.dumps({**content, "split_counts": {**content["split_counts"], "by_id": 60}}))
    with pytest.raises(JobError, match="split_counts"):
        Manifest.load(tmp_path / "out")
    path.write_text(json.dumps({**content, "config": {**content["config"], "seed": 3}}))
    assert any("not where group plate puts it" in fault for fault in faults(tmp_path / "out"))

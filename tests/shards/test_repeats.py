"""One id, several spectra: visits are counted, an id at two places is set aside, the best visit can be kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specshards.common.errors import JobError, UsageError
from specshards.common.identity import SAME_ARCSEC, Repeats, among, id_hashes, judge, repeated
from specshards.common.jobs import Engine
from specshards.common.spectrum import Spectrum
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.job.build import build as ingest
from specshards.ingest.spectra.folder import SpectraFolder
from specshards.ingest.spectra.repeats import Identities, find_repeats
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.shards.check.verify import verify
from specshards.shards.format.manifest import SPLITS, Manifest, ShardConfig
from specshards.shards.make import SurveyInput, make
from specshards.shards.write import build as build_module
from specshards.shards.write.build import build
from specshards.shards.write.repeats import Decided, lesser_visits
from specshards.shards.write.reshard import remake
from tests.conftest import make_spectrum
from tests.oracles.data_sets import tree
from tests.oracles.mmu_tables import spectrum_columns

HERE = Engine(workers=0)
ARCSEC = 1 / 3600


def spectra(
    names: Sequence[str],
    dec: Sequence[float],
    sn: Sequence[float] | None = None,
    survey: str = "mock-lamost",
    seed: int = 0,
) -> list[Spectrum]:
    """Objects at right ascension 10 and these declinations."""
    rng = np.random.default_rng(seed)
    made = [make_spectrum(i, rng, n=1500, object_id=name, ra=10.0, dec=float(dec[i]), survey=survey)
            for i, name in enumerate(names)]  # fmt: skip
    for i, value in enumerate(sn or ()):
        made[i].ivar[:] = (value / np.median(made[i].flux)) ** 2
    return made


def write(path: Path, made: Sequence[Spectrum], groups: int = 7) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(to_table(made), path, {}, row_group_rows=groups)
    return path.parent


def sidecars(out: Path) -> list[dict[str, Any]]:
    found = [
        row for split in SPLITS for path in (out / split).glob("*.parquet") for row in pq.read_table(path).to_pylist()
    ]
    return sorted(found, key=lambda row: row["source_row"])


def kept(out: Path) -> list[int]:
    return [row["source_row"] for row in sidecars(out)]


def passed(out: Path) -> dict[str, tuple[bool, str]]:
    return {check.name: (check.passed, check.detail) for check in verify(out, deep=True, engine=HERE)}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.text(max_size=20)), max_size=60), st.integers(1, 7))
def test_hashes_are_those_of_survey_and_id(pairs: list[tuple[str, str]], step: int) -> None:
    rows = [*pairs, *pairs[::2]]
    surveys, ids = (pa.chunked_array([pa.array([row[i] for row in rows], pa.string())]) for i in (0, 1))
    hashes = id_hashes(surveys, ids)
    by_pair = dict(zip(rows, hashes.tolist(), strict=True))
    assert [by_pair[row] for row in rows] == hashes.tolist() and len(set(by_pair.values())) == len(by_pair)
    # However the rows are cut into chunks and slices.
    cut = [
        id_hashes(surveys.slice(i, step).dictionary_encode(), ids.slice(i, step)) for i in range(0, len(rows), step)
    ]
    assert np.concatenate([np.empty(0, np.uint64), *cut]).tolist() == hashes.tolist()
    assert repeated([hashes]).tolist() == sorted({h for h in hashes.tolist() if hashes.tolist().count(h) > 1})


def test_rows_without_an_id_are_like_no_other() -> None:
    ids = pa.chunked_array([pa.array(["a", None, None, "a"])])
    hashes = id_hashes(pa.chunked_array([pa.array(["s"] * 4)]), ids, first_row=5)
    assert hashes[0] == hashes[3] and len(set(hashes.tolist())) == 3


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 3.0, 9.0, 200.0, None]), st.booleans()), max_size=12)
)
def test_visits_and_ambiguous_ids_are_those_of_a_slow_loop(rows: list[tuple[int, float | None, bool]]) -> None:
    """Also where ids of different objects have one hash."""
    dec = np.array([np.nan if arcsec is None else arcsec * ARCSEC for _, arcsec, _ in rows])
    names = [("s", f"{number}{other}") for number, _, other in rows]
    hashes = np.array([number for number, _, _ in rows], np.uint64)
    places = np.flatnonzero(among(hashes, repeated([hashes])))
    found = judge(hashes[places], places, np.where(np.isnan(dec), np.nan, 7.0)[places], dec[places],
                  lambda wanted: [names[i] for i in wanted])  # fmt: skip
    groups: dict[Any, list[int]] = {}
    # A hash that two ids share is only looked at where places differ.
    far = {
        h for h in hashes.tolist() if np.ptp([d for d in dec[hashes == h] if d == d] or [0]) > SAME_ARCSEC * ARCSEC
    }
    for i, name in enumerate(names):
        groups.setdefault((hashes[i], name) if hashes[i] in far else hashes[i], []).append(i)
    apart, again = [], []
    for members in groups.values():
        known = [dec[i] for i in members if dec[i] == dec[i]]
        if known and max(abs(d - known[0]) for d in known) > SAME_ARCSEC * ARCSEC:
            apart += members
        else:
            again += [(members[0], i) for i in members[1:]]
    assert found.apart.tolist() == sorted(apart)
    assert sorted(zip(found.first.tolist(), found.again.tolist(), strict=True)) == sorted(again)
    assert found.visits == len(again) + found.objects == len({i for pair in again for i in pair})


def test_an_id_at_two_places_goes_to_quarantine(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = spectra(["a", "x", "x", "b", "x", "b"], [0, 1, 2, 3, 1, 3 + 4 * ARCSEC])
    folder = write(tmp_path / "in" / "a.parquet", made)
    with pytest.raises(
        JobError, match=r"1 id names objects at different places, 3 spectra \(such as x of mock-lamost"
    ):
        build(ShardConfig(), folder, tmp_path / "out", engine=HERE, allow_empty_split=True)
    assert not (tmp_path / "out" / ".ledger" / "plan.json").exists()
    manifest = build(
        ShardConfig(), folder, tmp_path / "out", engine=HERE, allow_empty_split=True, max_bad_fraction=0.5
    )
    assert (manifest.samples(), manifest.quarantined, kept(tmp_path / "out")) == (3, 3, [0, 3, 5])
    rows = pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()
    assert {row["reason"] for row in rows} == {"object_id x names an object at another place, too"}
    assert "repeated visits: 1 object has 2 spectra" in caplog.text
    assert "x of mock-lamost at 10.0000 +1.0000, 10.0000 +2.0000); all of them go to quarantine" in caplog.text
    assert passed(tmp_path / "out")["identity"] == (True, "1 object has 2 samples under one id, each at one place")
    # The same from any interruption, with the same words.
    before = tree(tmp_path / "out")
    next((tmp_path / "out").glob("*/*.tar")).unlink()
    caplog.clear()
    again = build(ShardConfig(), folder, tmp_path / "out", engine=HERE, allow_empty_split=True, max_bad_fraction=0.5)
    assert again.dumps() == manifest.dumps() and "all of them go to quarantine" in caplog.text
    assert {k: v for k, v in tree(tmp_path / "out").items() if "ledger" not in k} == {
        k: v for k, v in before.items() if "ledger" not in k
    }


def test_visits_of_one_id_fall_in_one_split(tmp_path: Path) -> None:
    """Also where they lie further apart than different ids may, on both sides of a border between cells."""
    names, dec = [f"o{i // 2}" for i in range(400)], []
    for i in range(200):
        dec += [i * 0.05, i * 0.05 + 8 * ARCSEC]
    out = tmp_path / "out"
    folder, config = write(tmp_path / "in/a.parquet", spectra(names, dec)), ShardConfig(split=(0.4, 0.3, 0.3))
    build(replace(config, split_nside=2048), folder, out, engine=HERE)
    where: dict[str, set[str]] = {}
    for split in SPLITS:
        for path in (out / split).glob("*.parquet"):
            for name in pq.read_table(path)["object_id"].to_pylist():
                where.setdefault(name, set()).add(split)
    assert len(where) == 200 and all(len(splits) == 1 for splits in where.values())


def test_verify_finds_an_id_at_two_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "in" / "a.parquet", spectra(["a", "x", "c", "x", "y", "y"], [0, 1, 2, 3, 4, 4]))
    monkeypatch.setattr(build_module, "decide", lambda *_: Decided({}, Repeats()))
    build(ShardConfig(), folder, tmp_path / "out", engine=HERE)
    is_sound, detail = passed(tmp_path / "out")["identity"]
    assert not is_sound and "1 id names objects at different places, 2 spectra (such as x of mock-lamost at" in detail
    assert "make the shards again" in detail and detail.count(".tar 000000000") == 2


def table(names: Sequence[str], dec: Sequence[float]) -> pa.Table:
    made = spectra(names, dec)
    columns = {"object_id": names, "survey": ["mine"] * len(names), "ra": [10.0] * len(names), "dec": list(dec)}
    return pa.table({**spectrum_columns(made, "struct"), **columns})


def test_the_summary_of_an_ingest_says_both(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also of parts that do not know of each other."""
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    pq.write_table(table(["a", "x", "b"], [0.0, 1.0, 2.0]), data / "1.parquet")
    pq.write_table(table(["x", "b", "c"], [5.0, 2.0, 3.0]), data / "2.parquet")
    config = IngestConfig(files_per_part=1)
    with pytest.raises(
        JobError, match=r"1 id names objects at different places, 2 spectra \(such as x of mine at 10\.0"
    ):
        ingest(config, str(data), out, engine=HERE)
    ingest(config, str(data), out, engine=HERE, max_bad_fraction=0.5)
    assert (
        "repeated visits: 1 object has 2 spectra\n" in caplog.text and "`shards build` sets them aside" in caplog.text
    )
    said = json.loads((out / "ingest/summary.json").read_text())["repeats"]
    assert (said["objects"], said["visits"], said["copies"], said["ambiguous"], said["apart"]) == (1, 2, 0, 1, 2)
    manifest = build(
        ShardConfig(), out / "spectra", out / "shards", engine=HERE, allow_empty_split=True, max_bad_fraction=0.5
    )
    assert (manifest.samples(), manifest.quarantined) == (4, 2)


def test_exact_copies_are_counted(tmp_path: Path) -> None:
    made = spectra(["a", "b", "b", "c", "c"], [0, 1, 1, 2, 2])
    again = [replace(made[i]) for i in (0, 3)]
    again[1].flux = again[1].flux.copy()
    again[1].flux[7] += 1  # the median of the S/N is the same
    folder = write(tmp_path / "in" / "a.parquet", [*made, *again, replace(made[0])])
    assert find_repeats(SpectraFolder.scan(folder)).copies == 2
    write(tmp_path / "in" / "b.parquet", made)
    repeats = find_repeats(SpectraFolder.scan(folder))
    assert (repeats.objects, repeats.visits, repeats.copies) == (3, 13, 7)
    assert repeats.lines() == ["repeated visits: 3 objects have 13 spectra; 7 exact copies of another"]


def test_the_same_files_given_twice_are_exact_copies(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for name in ("1", "2"):
        pq.write_table(table(["a", "b"], [0.0, 1.0]), data / f"{name}.parquet")
    repeats = ingest(IngestConfig(), str(data), out, engine=HERE).repeats
    assert repeats is not None and (repeats.objects, repeats.visits, repeats.copies) == (2, 4, 2)


BEST = ShardConfig(best_of="object")


def test_the_visit_of_highest_sn_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["a", "b", "a", "c", "b", "a", "d", "e", "f", "f"]
    near = [0, 1, 3 * ARCSEC, 2, 1, 0, 2 + ARCSEC, 5, 6, 6]
    made = spectra(names, near, [10, 20, 30, 40, 20, 5, 50, 1, 0, 7])
    made[8].ivar[:], made[8].mask[:] = 0, True  # no S/N: last, though it is the first row
    folder = write(tmp_path / "in" / "a.parquet", made)
    manifest = build(BEST, folder, tmp_path / "out", engine=HERE)
    # a: row 2; b: a tie, the first; c and d lie within two arcseconds: d; e alone; f: the one with S/N.
    assert kept(tmp_path / "out") == [1, 2, 6, 7, 9]
    assert (manifest.objects, manifest.samples(), manifest.left_out, manifest.quarantined) == (10, 5, 5, 0)
    assert "--best-of object: 5 other visits of 4 objects left out" in caplog.text
    assert "10 spectra = 5 samples + 0 quarantined + 5 left out: other visits (--best-of object)" in caplog.text
    assert all(good for good, _ in passed(tmp_path / "out").values())


def many(seed: int = 1) -> list[Spectrum]:
    rng = np.random.default_rng(seed)
    number = rng.integers(0, 40, 150)
    return spectra([f"o{n}" for n in number], (number * 0.3).tolist(), rng.uniform(5, 50, 150).tolist())


def test_best_visits_are_the_same_bytes_however_they_are_made(tmp_path: Path) -> None:
    folder = write(tmp_path / "in" / "a.parquet", many(), groups=16)
    config = replace(BEST, samples_per_shard=40)
    alone = build(config, folder, tmp_path / "alone", engine=HERE)
    others = build(config, folder, tmp_path / "two", engine=Engine(workers=2))
    assert alone.dumps() == others.dumps() and len(alone.shards) >= 4 and alone.samples() == 40
    names = [row["object_id"] for row in sidecars(tmp_path / "alone")]
    assert len(set(names)) == len(names)
    (tmp_path / "two" / "manifest.json").unlink()
    next((tmp_path / "two" / "train").glob("*.tar")).unlink()
    (tmp_path / "two" / ".ledger" / "000001.json").unlink()
    assert build(config, folder, tmp_path / "two", engine=HERE).dumps() == alone.dumps()


def test_verify_finds_what_is_not_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "decide", lambda *_: Decided({}, Repeats()))
    folder = write(tmp_path / "in" / "a.parquet", spectra(["a", "a", "b"], [0, 0, 1]))
    build(BEST, folder, tmp_path / "out", engine=HERE, allow_empty_split=True)
    is_sound, detail = passed(tmp_path / "out")["identity"]
    assert not is_sound and "1 object has 2 samples under one id, each at one place, where only the best" in detail


_VISIT = st.tuples(st.integers(0, 5), st.integers(0, 8), st.sampled_from([np.nan, 1.0, 2.0, 3.0]), st.booleans())


@given(st.lists(_VISIT, max_size=25))
def test_the_best_visits_are_those_of_a_slow_loop(rows: list[tuple[int, int, float, bool]]) -> None:
    names = [f"{number}{place // 3}" for number, place, _, _ in rows]  # one id, one place: within three steps
    dec = np.array([place // 3 + (place % 3) * 1.5 * ARCSEC for _, place, _, _ in rows])
    ra, sn = np.full(len(rows), 10.0), np.array([one[2] for one in rows], np.float32)
    hashes = id_hashes(*(pa.chunked_array([pa.array(column, pa.string())]) for column in (["s"] * len(rows), names)))
    suspects = np.flatnonzero(among(hashes, repeated([hashes])))
    repeats = judge(hashes[suspects], suspects, ra[suspects], dec[suspects], lambda wanted: [("", "")] * len(wanted))
    lesser, objects = lesser_visits(Identities(hashes, ra, dec, sn), repeats)
    group = list(range(len(rows)))
    for _ in rows:  # long enough for every chain
        for i in range(len(rows)):
            for j in range(len(rows)):
                if names[i] == names[j] or abs(dec[i] - dec[j]) < 2 * ARCSEC:
                    group[i] = group[j] = min(group[i], group[j])
    members = [[i for i in range(len(rows)) if group[i] == g] for g in set(group)]
    best = {max(some, key=lambda i: (-np.inf if np.isnan(sn[i]) else sn[i], -i)) for some in members}
    assert lesser.tolist() == sorted(set(range(len(rows))) - best)
    assert objects == sum(len(some) > 1 for some in members)


def test_text_that_is_no_id_is_one_bad_object(tmp_path: Path) -> None:
    pq.write_table(table(["a", "7.0", "a", "7.0"], [0.0, 1.0, 0.0, 2.0]), tmp_path / "t.parquet")
    manifest = build(ShardConfig(split=(1, 0, 0)), tmp_path / "t.parquet", tmp_path / "out", engine=HERE,
                     max_bad_fraction=0.5)  # fmt: skip
    assert (manifest.samples(), manifest.quarantined) == (2, 2)
    reasons = pq.read_table(tmp_path / "out" / "quarantine.parquet")["reason"].to_pylist()
    assert all("holds '7.0', the text of a float" in reason for reason in reasons)


def test_best_of_is_refused_where_it_cannot_be_right(tmp_path: Path) -> None:
    folder, out = write(tmp_path / "in" / "a.parquet", many()), tmp_path / "out"
    build(BEST, folder, out, engine=HERE, allow_empty_split=True)
    before = tree(out)
    write(tmp_path / "in" / "b.parquet", many(2))
    with pytest.raises(UsageError, match=r"--best-of object: a better visit may be among .* another OUT"):
        build(BEST, folder, out, engine=HERE, allow_empty_split=True)
    assert tree(out) == before
    with pytest.raises(UsageError, match="best_of: object -> None"):
        build(ShardConfig(), folder, out, engine=HERE, allow_empty_split=True)
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(table(["a", "b"], [0.0, 1.0]), foreign)
    with pytest.raises(UsageError, match=r"foreign\.parquet: has no sn_median"):
        build(BEST, foreign, tmp_path / "other", engine=HERE, allow_empty_split=True)
    with pytest.raises(UsageError, match=r"--best-of object: SURVEY=slomost is merged from"):
        make("slomost", SurveyInput(), tmp_path / "joint", BEST, engine=HERE)
    with pytest.raises(UsageError, match="best_of=star: give `object`"):
        ShardConfig(best_of="star")


def test_a_config_without_it_is_written_as_before() -> None:
    assert (
        "best_of" not in ShardConfig().to_dict() and ShardConfig.from_dict(ShardConfig().to_dict()) == ShardConfig()
    )
    assert ShardConfig.from_dict(BEST.to_dict()) == BEST


def test_what_is_added_and_contradicts_is_set_aside_and_what_is_written_stays(tmp_path: Path) -> None:
    folder, out = write(tmp_path / "in" / "b.parquet", spectra(["a", "b", "c"], [0, 1, 2])), tmp_path / "out"
    first = build(ShardConfig(), folder, out, engine=HERE, allow_empty_split=True)
    write(tmp_path / "in" / "a.parquet", spectra(["a", "c", "d"], [0, 50, 3], seed=3))
    second = build(ShardConfig(), folder, out, engine=HERE, allow_empty_split=True, max_bad_fraction=0.4)
    assert kept(out) == [0, 1, 2, 3, 5] and second.quarantined == 1
    assert [shard for shard in second.shards if shard in first.shards] == list(first.shards)
    assert (
        build(
            ShardConfig(), folder, out, engine=Engine(workers=1), allow_empty_split=True, max_bad_fraction=0.4
        ).dumps()
        == second.dumps()
    )
    is_sound, detail = passed(out)["identity"]
    assert is_sound and detail == "1 object has 2 samples under one id, each at one place"


def test_merged_sets_are_looked_at_together(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, ids, dec in (("1", ["a", "b", "c", "e"], [0, 1, 2, 9]), ("2", ["a", "c", "d"], [0, 50, 3])):
        build(BEST, write(tmp_path / name / "a.parquet", spectra(ids, dec, seed=int(name))), tmp_path / f"set{name}",
              engine=HERE, allow_empty_split=True)  # fmt: skip
    sets = [tmp_path / "set1", tmp_path / "set2"]
    with pytest.raises(JobError, match="1 id names objects at different places"):
        remake(sets, tmp_path / "out", engine=HERE, allow_empty_split=True)
    caplog.clear()
    manifest = remake(sets, tmp_path / "out", engine=HERE, allow_empty_split=True, max_bad_fraction=0.5)
    assert (manifest.objects, manifest.samples(), manifest.quarantined) == (7, 5, 2)
    assert kept(tmp_path / "out") == [0, 1, 3, 4, 6] and manifest.config.best_of is None
    assert "repeated visits: 1 object has 2 spectra" in caplog.text
    assert all(good for good, _ in passed(tmp_path / "out").values())
    one = remake(sets[:1], tmp_path / "one", engine=HERE, allow_empty_split=True, where="z >= 0")
    assert one.config.best_of == "object" and one.left_out == 0
    assert Manifest.load(tmp_path / "one").config == one.config


def test_a_real_table_with_an_id_at_two_places(real_data: Path, tmp_path: Path) -> None:
    manifest = build(ShardConfig(), real_data / "faults/dup.parquet", tmp_path / "out", engine=HERE)
    assert (manifest.objects, manifest.samples(), manifest.quarantined) == (40, 38, 2)
    repeats = ingest(IngestConfig(), str(real_data / "faults/dup.parquet"), tmp_path / "in", engine=HERE).repeats
    assert repeats is not None and repeats.ambiguous == 1
    assert "dup-1 of mysurvey at 3.0000 -4.9000, 6.0000 -4.8000" in repeats.shown()

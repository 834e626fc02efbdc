"""Subsets: balanced, nested, the same whatever the order and the format; whole rows, and every row accounted for."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st

import specshards.ingest.catalogue.choose
import specshards.ingest.catalogue.rows
import specshards.ingest.catalogue.subset
from specshards.common.errors import UsageError
from specshards.ingest.catalogue.choose import SelectionCounts, Smallest, priorities
from specshards.ingest.catalogue.config import SelectConfig, number_of
from specshards.ingest.catalogue.select import command
from specshards.ingest.catalogue.subset import select
from specshards.ingest.ids import id_texts
from tests.oracles.catalogues import KINDS, ids, lamost, write

BIG = 11537156405737052160  # a real specObjID beyond int64


def chosen(source: Path, per_class: int | None, seed: int = 0, **config: Any) -> list[str]:
    """The ids chosen from a LAMOST catalogue."""
    out = source.with_name("chosen.parquet")
    select(source, out, SelectConfig(per_class, survey="lamost", seed=seed, **config), force=True)
    return ids(out)


def test_counts_are_exact_and_short_classes_come_whole(tmp_path: Path) -> None:
    columns = lamost({"STAR": 300, "GALAXY": 41, "QSO": 40, "Unknown": 9})
    source = write(columns, tmp_path / "c.parquet")
    account = select(source, tmp_path / "o.parquet", SelectConfig(41, where="z >= 0.020", survey="lamost"))
    table = pq.read_table(tmp_path / "o.parquet")
    within = Counter(columns["class"][20:])
    assert Counter(table["class"].to_pylist()) == {kind: min(41, within[kind]) for kind in KINDS}
    assert account.groups == {
        ("lamost", kind): (n, within[kind or "Unknown"], min(41, within[kind]) if kind else 0)
        for kind, n in (("STAR", 300), ("GALAXY", 41), ("QSO", 40), (None, 9))
    }
    assert account.reasons == {
        "outside the cut (z >= 0.020)": 20, "no class: none of STAR, GALAXY, QSO": within["Unknown"],
        "beyond 41 of their class and survey": within["STAR"] - 41,
    }  # fmt: skip
    assert account.listed == 390 == account.selected + account.not_selected
    said = account.table()
    assert "all of them, fewer than 41" in next(line for line in said.splitlines() if "QSO" in line)
    assert "fewer" not in next(line for line in said.splitlines() if "STAR" in line)
    assert said.splitlines()[-1] == f"390 rows = {len(table)} selected + {390 - len(table)} not selected"


def test_rows_are_copied_whole_in_their_order(tmp_path: Path) -> None:
    source = write(lamost({"STAR": 50, "GALAXY": 50}), tmp_path / "c.parquet")
    kept = chosen(source, 10)
    whole = pq.read_table(source)
    expected = whole.filter(pa.compute.is_in(id_texts(whole["obsid"], "obsid", "c"), pa.array(kept)))
    assert len(kept) == 20 and pq.read_table(tmp_path / "chosen.parquet").equals(expected)


def test_the_choice_knows_neither_order_nor_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = lamost({"STAR": 200, "GALAXY": 100, "QSO": 30})
    plain = chosen(write(columns, tmp_path / "c.parquet"), 25)
    order = np.random.default_rng(0).permutation(330)
    shuffled = {name: [column[i] for i in order] for name, column in columns.items()}
    again = chosen(write(shuffled, tmp_path / "s.parquet"), 25)
    assert plain != again and sorted(plain) == sorted(again) and len(plain) == 75
    monkeypatch.setattr(specshards.ingest.catalogue.subset, "_CATALOGUE_ROWS", 64)
    contents = set()
    for batch in (1, 7, 100, 1000):
        monkeypatch.setattr(specshards.ingest.catalogue.rows, "BATCH", batch)
        assert chosen(tmp_path / "c.parquet", 25) == plain
        assert pq.ParquetFile(tmp_path / "chosen.parquet").metadata.row_group(0).num_rows == 64
        contents.add((tmp_path / "chosen.parquet").read_bytes())
    assert len(contents) == 1


def test_larger_contains_smaller_and_seeds_differ(tmp_path: Path) -> None:
    source = write(lamost({"STAR": 500, "QSO": 60}), tmp_path / "c.parquet")
    sizes = [set(chosen(source, n)) for n in (5, 20, 59, 60, 400, 1000)]
    assert all(small < large for small, large in pairwise(sizes)) and len(sizes[-1]) == 560
    other = set(chosen(source, 20, seed=1))
    assert len(other) == 40 and 0 < len(other & sizes[1]) < 40


def test_added_objects_displace_only_what_they_must(tmp_path: Path) -> None:
    columns = lamost({"STAR": 300})
    before = chosen(write(columns, tmp_path / "c.parquet"), 50)
    more = lamost({"STAR": 40}, first=9000)
    after = chosen(write({k: more[k] + columns[k] for k in columns}, tmp_path / "d.parquet"), 50)
    new = [key for key in after if int(key) >= 9000]
    assert new and set(after) - set(new) < set(before) and len(after) == 50
    # Those that stay are the smallest of those that were there.
    hashes = dict(zip(before, priorities(0, before).tolist(), strict=True))
    assert set(sorted(before, key=hashes.__getitem__)[: 50 - len(new)]) == set(after) - set(new)


def test_the_hash_stays_what_it_is() -> None:
    # Data sets that were published with a seed and a number must be chosen again by later versions.
    assert priorities(0, ["1", str(BIG)]).tolist() == [5509842535781378034, 11330880361270637271]
    assert priorities(1, ["1"]).tolist() != priorities(0, ["1"]).tolist() and len(priorities(0, [])) == 0


@pytest.mark.parametrize("kind", ["csv", "fits", "fits-text", "parquet", "parquet-text"])
def test_ids_beyond_int64_choose_the_same_in_every_format(tmp_path: Path, kind: str) -> None:
    # 2048 is the distance of neighbouring floats there: a detour by float would make ids repeat.
    keys = [BIG + i for i in range(60)]
    columns: dict[str, list[Any]] = {
        "CLASS": [f"{KINDS[i % 3]:<6}" for i in range(60)],
        "RA": [i / 7 for i in range(60)],
    }
    suffix, _, as_text = kind.partition("-")
    path = tmp_path / f"c.{suffix}"
    if suffix == "fits":
        column = np.array([f"{key:>22}" for key in keys]) if as_text else np.array(keys, np.uint64)
        Table({"SPECOBJID": column, **columns}).write(path)
    elif suffix == "parquet":
        column = [f" {key}" for key in keys] if as_text else pa.array(keys, pa.uint64())
        pq.write_table(pa.table({"SPECOBJID": column, **columns}), path)
    else:
        write({"SPECOBJID": keys, **columns}, path)
    select(path, tmp_path / "o.parquet", SelectConfig(7, survey="sdss"))
    hashes = priorities(0, [str(key) for key in keys])
    expected = [i for k in range(3) for i in sorted(range(k, 60, 3), key=lambda i: hashes[i])[:7]]
    assert ids(tmp_path / "o.parquet", "SPECOBJID") == [str(keys[i]) for i in sorted(expected)]


@pytest.mark.parametrize("kind", ["csv", "fits", "parquet"])
def test_the_papers_cut_of_lamost_drops_missing_values(tmp_path: Path, kind: str) -> None:
    columns = lamost({"STAR": 20})
    for row, name in enumerate(("z", "z_err", *(f"snr{band}" for band in "ugriz"))):
        columns[name][row] = -9999.0
    columns["z"][8], columns["z"][9] = -0.0012, -9999
    columns["note"][10] = "-9999"
    source = write(columns, tmp_path / f"c.{kind}")
    expected = [str(100 + i) for i in range(20) if i > 6 and i != 9]
    assert chosen(source, 30, cuts="paper") == expected and len(chosen(source, 30)) == 20


def test_the_papers_cut_of_lamost_drops_blanks_and_words(tmp_path: Path) -> None:
    columns = lamost({"STAR": 6})
    columns["z"][:5] = [None, "nan", "NULL", " ", " 0.5 "]
    assert chosen(write(columns, tmp_path / "c.csv"), 30, cuts="paper") == ["104", "105"]


@pytest.mark.parametrize("kind", ["csv", "fits", "parquet"])
def test_the_papers_cut_of_sdss_with_padded_text(tmp_path: Path, kind: str) -> None:
    rows = [
        ("BOSS  ", "SCIENCE ", 0), ("SDSS  ", "SCIENCE ", 0), ("BOSS", "SKY     ", 0), ("BOSS  ", "SCIENCE", 4),
        ("BOSS  ", "        ", 0), ("BOSS", "SCIENCE", 0),
    ]  # fmt: skip
    instruments, targets, warnings = (list(column) for column in zip(*rows, strict=True))
    columns = {
        "SPECOBJID": [f"{i:>22}" for i in range(6)], "CLASS": ["QSO   "] * 6, "ZWARNING": warnings,
        "INSTRUMENT": instruments, "TARGETTYPE": targets, "SURVEY": ["boss", "eboss"] * 3,
    }  # fmt: skip
    source = write(columns, tmp_path / f"c.{kind}")
    account = select(source, tmp_path / "o.parquet", SelectConfig(9, cuts="paper", survey="sdss"))
    assert ids(tmp_path / "o.parquet", "SPECOBJID") == ["0", "5"]
    # --survey says whose catalogue it is; its column `survey` is of the survey's own programmes.
    assert account.groups == {("sdss", "QSO"): (6, 2, 2)}


def test_aliases_serve_the_cut_the_class_and_the_key(tmp_path: Path) -> None:
    columns = {
        "TARGETID": [1, 2, 3, 4], "SPECTYPE": ["QSO", "galaxy", "STAR", "STAR"], "ZWARN": [0, 4, 0, 0],
        "ZERR": [1e-5, 1e-5, 2e-5, 1.0], "SURVEY": ["main", "sv3", "main", "main"],
    }  # fmt: skip
    source = write(columns, tmp_path / "c.parquet")
    for where in ("zwarning == 0 and z_err < 0.1", "ZWARN == 0 and zerr < 0.1"):
        select(source, tmp_path / "o.parquet", SelectConfig(5, where=where, survey="desi"), force=True)
        assert ids(tmp_path / "o.parquet", "TARGETID") == ["1", "3"]
    # Without --survey, its column tells them apart.
    account = select(source, tmp_path / "o.parquet", SelectConfig(1), force=True)
    # A column of the very name comes before another name for it.
    write({**columns, "ZWARNING": [4, 0, 4, 4]}, source)
    select(source, tmp_path / "p.parquet", SelectConfig(5, where="zwarning == 0", survey="desi"))
    assert ids(tmp_path / "p.parquet", "TARGETID") == ["2"]
    assert account.groups == {("main", "STAR"): (2, 2, 1), ("main", "QSO"): (1, 1, 1), ("sv3", "GALAXY"): (1, 1, 1)}


def test_without_a_number_only_the_cut_applies(tmp_path: Path) -> None:
    columns = lamost({"STAR": 30, "Unknown": 10})
    columns["obsid"][20] = None
    source = write(columns, tmp_path / "c.csv")
    account = select(source, tmp_path / "o.parquet", SelectConfig(where="z >= 0.010", survey="lamost"))
    assert ids(tmp_path / "o.parquet") == [str(100 + i) for i in range(10, 40) if i != 20]
    assert account.reasons == {"no obsid": 1, "outside the cut (z >= 0.010)": 10}
    assert "fewer" not in account.table()


def test_original_types_survive(tmp_path: Path) -> None:
    rows = 40
    table = pa.table(
        {
            "obsid": pa.array(range(rows), pa.int32()), "class": pa.array(["STAR", "QSO"] * 20).dictionary_encode(),
            "mags": pa.array([[i, None] for i in range(rows)], pa.list_(pa.float32())),
            "when": pa.array(range(rows), pa.timestamp("s")), "raw": pa.array([b"\xff"] * rows),
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "c.parquet", row_group_size=7)
    assert len(chosen(tmp_path / "c.parquet", 20)) == rows
    copy = pq.read_table(tmp_path / "chosen.parquet")
    assert copy.schema.remove_metadata().equals(pq.read_table(tmp_path / "c.parquet").schema.remove_metadata())
    assert copy.to_pylist() == table.to_pylist()


def test_arrays_and_types_of_fits_survive(tmp_path: Path) -> None:
    ragged = np.empty(3, object)
    ragged[:] = [np.array([1.5], np.float32), np.array([], np.float32), np.array([2, 3], np.float32)]
    columns = {
        "OBSID": np.arange(3, dtype=np.int32), "CLASS": np.array(["STAR", "QSO   ", "STAR"]),
        "MAG": np.arange(15, dtype=np.float32).reshape(3, 5), "COV": np.arange(18.0).reshape(3, 3, 2),
        "OK": np.array([True, False, True]), "WORDS": np.array([["a", "b "], ["", "c"], ["d", "e"]]),
        "RAGGED": ragged, "COUNT": np.array([0, 2**32 - 1, 5], np.uint32),
    }  # fmt: skip
    Table(columns).write(tmp_path / "c.fits")
    # The surveys fill text up with blanks, astropy with zeros.
    content = (tmp_path / "c.fits").read_bytes()
    assert content.count(b"QSO\0\0\0") == 1
    (tmp_path / "c.fits").write_bytes(content.replace(b"QSO\0\0\0", b"QSO   "))
    select(tmp_path / "c.fits", tmp_path / "o.parquet", SelectConfig(survey="lamost"))
    copy = pq.read_table(tmp_path / "o.parquet")
    assert copy.to_pydict() == {
        **{name: column.tolist() for name, column in columns.items()}, "CLASS": ["STAR", "QSO", "STAR"],
        "WORDS": [["a", "b"], ["", "c"], ["d", "e"]], "RAGGED": [[1.5], [], [2.0, 3.0]],
    }  # fmt: skip
    kinds = {name: copy.schema.field(name).type for name in ("OBSID", "OK", "COUNT")}
    assert kinds == {"OBSID": pa.int32(), "OK": pa.bool_(), "COUNT": pa.uint32()}


def test_a_subset_that_is_there_already_is_no_error_and_another_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that was killed after its last byte: the same command ends well."""
    source, out = write(lamost({"STAR": 30, "QSO": 9}), tmp_path / "c.parquet"), tmp_path / "o.parquet"
    account = select(source, out, SelectConfig(5, survey="lamost"))
    before = out.read_bytes()
    assert select(source, out, SelectConfig(5, survey="lamost")) == account and out.read_bytes() == before
    assert "1 of the subset's 1 file there already" in caplog.text
    other = write(lamost({"STAR": 31, "QSO": 9}), tmp_path / "other.parquet")
    for asked, config in ((source, SelectConfig(4, survey="lamost")), (other, SelectConfig(5, survey="lamost"))):
        with pytest.raises(UsageError, match="holds something already"):
            select(asked, out, config)
    assert out.read_bytes() == before
    out.write_bytes(before[:100])
    with pytest.raises(UsageError, match="holds something already"):
        select(source, out, SelectConfig(5, survey="lamost"))


def test_text_of_a_csv_is_copied_as_it_is_spelled(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("obsid,class,a,b\n007,STAR,NaN,1.50\n8,STAR,,NULL\n")
    select(tmp_path / "c.csv", tmp_path / "o.parquet", SelectConfig(survey="lamost"))
    rows = pq.read_table(tmp_path / "o.parquet").to_pylist()
    assert rows[0] == {"obsid": "007", "class": "STAR", "a": "NaN", "b": "1.50"}
    assert rows[1] == {"obsid": "8", "class": "STAR", "a": None, "b": "NULL"}


@pytest.mark.parametrize("per_class", [None, 1, 10])
@pytest.mark.parametrize("kinds", [("STAR", "STAR"), ("STAR", "QSO")])
def test_an_id_that_repeats_is_refused(tmp_path: Path, per_class: int | None, kinds: tuple[str, str]) -> None:
    columns = {"obsid": [5, 77, 77], "class": ["GALAXY", *kinds]}
    source = write(columns, tmp_path / "c.parquet")
    with pytest.raises(UsageError, match=r"c\.parquet: obsid repeats in 2 rows \(such as 77\)"):
        chosen(source, per_class)
    assert not (tmp_path / "chosen.parquet").exists()


def test_a_repeat_of_which_the_cut_leaves_one_is_none(tmp_path: Path) -> None:
    columns = {"obsid": [5, 77, 77], "class": ["GALAXY", "STAR", "STAR"], "z": [0.1, 0.1, -9999]}
    assert chosen(write(columns, tmp_path / "c.parquet"), 5, where="z is not null") == ["5", "77"]


def test_ids_with_one_hash_are_different_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        specshards.ingest.catalogue.choose, "priorities", lambda seed, keys: np.full(len(keys), 3, np.uint64)
    )
    assert len(chosen(write(lamost({"STAR": 9}), tmp_path / "c.parquet"), 4)) == 4


@settings(max_examples=25, deadline=None)
@given(
    counts=st.lists(st.integers(0, 40), min_size=8, max_size=8).filter(lambda c: sum(c[:3]) + sum(c[4:7]) > 0),
    per_class=st.integers(1, 45),
)
def test_of_each_class_and_survey_as_many_as_there_are_up_to_the_number(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], per_class: int
) -> None:
    kinds = [(survey, kind) for survey in ("lamost", "sdss") for kind in (*KINDS, "SKY")]
    rows = [pair for pair, n in zip(kinds, counts, strict=True) for _ in range(n)]
    folder = tmp_path_factory.mktemp("property")
    source = folder / "c.parquet"
    columns = {"object_id": range(len(rows)), "survey": [s for s, _ in rows], "class": [k for _, k in rows]}
    pq.write_table(pa.table({name: list(column) for name, column in columns.items()}), source)
    account = select(source, folder / "o.parquet", SelectConfig(per_class))
    table = pq.read_table(folder / "o.parquet")
    found = Counter(zip(table["survey"].to_pylist(), table["class"].to_pylist(), strict=True))
    expected = {pair: min(n, per_class) for pair, n in zip(kinds, counts, strict=True) if n and pair[1] != "SKY"}
    assert found == expected and account.selected + account.not_selected == sum(counts)


@settings(max_examples=50, deadline=None)
@given(
    batches=st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=60), min_size=1, max_size=12),
    limit=st.one_of(st.none(), st.integers(1, 30)),
)
def test_the_smallest_are_those_of_a_sort_in_bounded_memory(batches: list[list[int]], limit: int | None) -> None:
    smallest = Smallest(limit)
    if limit is not None:
        smallest._most = 2 * limit
    first = 0
    for batch in batches:
        smallest.add(np.array(batch, np.uint64), np.arange(first, first + len(batch)))
        first += len(batch)
        if limit is not None:
            assert sum(len(part) for part, _ in smallest._kept) <= 2 * limit + 1
    every = [value for batch in batches for value in batch]
    expected = sorted(range(first), key=lambda i: (every[i], i))[:limit]
    assert smallest.rows().tolist() == expected and smallest.seen == first


@pytest.mark.parametrize(
    ("out", "config", "message"),
    [
        ("o.csv", {}, "give --out a name that ends in .parquet"),
        ("c.parquet", {}, "--from and --out must lie apart"),
        (
            "o.parquet",
            {"survey": "desi"},
            "no column targetid or target_id or object_id, the object's id; there are obsid",
        ),
        ("o.parquet", {"survey": None}, "no column survey; name it with --survey"),
        ("o.parquet", {"where": "teff > 1"}, "no column teff, which the cut asks for"),
        ("o.parquet", {"per_class": 3}, "no column class, which --per-class needs"),
    ],
)
def test_what_cannot_be_selected_is_refused(tmp_path: Path, out: str, config: dict[str, Any], message: str) -> None:
    columns = lamost({"STAR": 3})
    del columns["class"]
    source = write(columns, tmp_path / "c.parquet")
    with pytest.raises(UsageError, match=message) as caught:
        select(source, tmp_path / out, SelectConfig(**{"survey": "lamost", **config}))
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == [source]


def test_numbers_of_a_class_have_names() -> None:
    assert [number_of(n) for n in (None, "medium", "small", "12")] == [None, 200_000, 30_000, 12]
    with pytest.raises(UsageError, match=r"--per-class large: give a number, medium \(200,000\) or small \(30,000\)"):
        number_of("large")
    for wrong in ({"per_class": 0}, {"seed": -1}, {"survey": "nowhere"}, {"cuts": "mine"}, {"where": "z >"}):
        with pytest.raises(UsageError):
            SelectConfig(**wrong)  # type: ignore[arg-type]


def test_the_command_says_what_became_of_the_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(lamost({"STAR": 8, "QSO": 2}), tmp_path / "c.csv")
    command(source, tmp_path / "deep" / "o.parquet", survey="lamost", where="snrg > 0", per_class="5")
    said = capsys.readouterr().out
    assert "10 rows = 7 selected + 3 not selected" in said and f"{tmp_path / 'deep' / 'o.parquet'}: 7 rows" in said
    assert SelectionCounts({}, {}, None).table().splitlines()[-1] == "0 rows = 0 selected + 0 not selected"

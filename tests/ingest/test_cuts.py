"""Filters: what SQLite would choose, whatever is written; what is none is one line; nothing is ever run."""

from __future__ import annotations

import pickle
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specshards.common.errors import UsageError
from specshards.common.jobs import Engine
from specshards.ingest.catalogue.config import SelectConfig
from specshards.ingest.catalogue.cuts import parse
from specshards.ingest.catalogue.subset import select
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.job.build import build as ingest
from specshards.ingest.spectra.schema import SCHEMA
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.write.build import build
from specshards.shards.write.reshard import remake
from tests.oracles.survey_files import lamost_table

HERE = Engine(workers=0)

NUMBERS, WORDS = ("a", "b", "u-g"), ("grade", "kind")
numbers = st.one_of(st.integers(-9, 9).map(float), st.sampled_from([0.5, 1e3, 0.1]))
words = st.sampled_from(["STAR", "QSO", "it's", "class", "nullx", "and", 'say "x"', "A B"])


def shown(word: str) -> str:
    return "'" + word.replace("'", "''") + "'"


def column(name: str) -> str:
    return name if name.isidentifier() else f"`{name}`"


terms = st.recursive(
    st.one_of(st.sampled_from(NUMBERS).map(column), numbers.map(repr)),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        inner.map(lambda t: f"-({t})"),
    ),
    max_leaves=4,
)
asked = st.sampled_from(NUMBERS).map(column)
signs = st.sampled_from(["=", "==", "!=", "<>", "<", "<=", ">", ">="])
comparisons = st.one_of(
    st.tuples(asked, signs, terms).map(" ".join),
    st.tuples(st.sampled_from(WORDS), st.sampled_from(["==", "!=", "<"]), words.map(shown)).map(" ".join),
    st.tuples(st.one_of(asked, st.sampled_from(WORDS)), st.sampled_from(["is null", "is not null"])).map(" ".join),
    st.tuples(st.sampled_from(WORDS), st.sampled_from(["in", "not in"]), st.lists(words, min_size=1)).map(
        lambda t: f"{t[0]} {t[1]} ({', '.join(map(shown, t[2]))})"
    ),
    st.tuples(asked, st.sampled_from(["in", "NOT IN"]), st.lists(numbers, min_size=1)).map(
        lambda t: f"{t[0]} {t[1]} ({', '.join(map(repr, t[2]))})"
    ),
)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or", "AND"]), inner).map(lambda t: f"({t[0]}) {t[1]} {t[2]}"),
        inner.map(lambda t: f"not ({t})"),
    ),
    max_leaves=6,
)
rows = st.lists(
    st.tuples(*[st.one_of(st.none(), numbers)] * 3, *[st.one_of(st.none(), words)] * 2),
    min_size=1, max_size=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(conditions, rows)
def test_a_filter_chooses_what_sqlite_does(text: str, table: list[tuple[Any, ...]]) -> None:
    names = (*NUMBERS, *WORDS)
    with sqlite3.connect(":memory:") as base:
        base.execute(
            f"CREATE TABLE t (n INTEGER, {', '.join(f'`{n}` REAL' for n in NUMBERS)}, grade TEXT, kind TEXT)"
        )
        base.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", [(i, *row) for i, row in enumerate(table)])
        expected = {n for (n,) in base.execute(f"SELECT n FROM t WHERE {text}")}
    cut = parse(text)
    columns = {name: [row[names.index(name)] for row in table] for name in cut.columns}
    assert set(np.flatnonzero(cut.keeps(columns, len(table))).tolist()) == expected
    assert (
        pickle.loads(pickle.dumps(cut)).keeps(columns, len(table)).tolist() == cut.keeps(columns, len(table)).tolist()
    )
    assert parse(pickle.loads(pickle.dumps(cut)).text) == cut


_PIECES = "z class 'a' 1 ( ) , not and in is null - + < == True \" ' ` [ .5 1e999 / 0 # ;"
pieces = st.sampled_from([*_PIECES.split(), "\n"])


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(pieces).map(" ".join)))
def test_any_text_is_a_filter_or_one_line(text: str) -> None:
    try:
        cut = parse(text)
    except UsageError as error:
        assert len(str(error).splitlines()) == 1 and "write for example" in str(error)
    else:
        assert len(cut.keeps({name: ["1", None] for name in cut.columns}, 2)) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("z == True", "true is no value: write 1 or 0"),
        ("z in (1,'a')", "'a' is text, z is a number"),
        ("class + 1 > 2", "class is text, what is reckoned with is a number"),
        ("class > 3", "3.0 is a number, class is text"),
        ("snrg == 'high'", "'high' is text, snrg is a number"),
        ("grade == 'a' and grade > 1", "1.0 is a number, grade is text"),
        ("-" * 5000 + "z > 1", "longer than 2,000 operators"),
        ("not " * 200 + "z > 1", "nested more than 50 times"),
        ("(" * 5000 + "z" + ")" * 5000 + "> 1", "nested more than 50 times"),
        (" or ".join(["z > 1"] * 3000), "longer than 2,000 operators"),
        ("z > 1e999", "1e999 is larger than numbers are exact"),
        ("plate == 299492975510054912", "compare it as text, in quotes"),
        ("plate == 39627658392569345.0", "compare it as text, in quotes"),
        ("plate == 3962765839256934.5e1", "compare it as text, in quotes"),
        ("subclass == '--'", "'--' says that a value is missing: write is null"),
        ("subclass in ('K5', 'None')", "'None' says that a value is missing"),
        ("class == 'AGN'", "'AGN' is no class: STAR, GALAXY, QSO, or is null"),
        ("abs(z) > 1", "no functions: abs("),
        ("getenv('HOME') == 'a'", "no functions: getenv("),
        ("class == 'STAR", 'cannot use "\'STAR" there'),
        ("z == null", "write is null or is not null"),
        ("z in ()", "an empty list"),
        ("z in 5", "expected a list in parentheses after in, found '5'"),
        ("(z > 1) > 2", "a condition cannot be compared or reckoned with"),
        ("z > 1; drop table t", "cannot use '; drop table t' there"),
        ("z > 1 -- 2 ..", "cannot use '..' there"),
    ],
)
def test_what_is_no_filter_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert message in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 500


def keeps(text: str, **columns: list[Any]) -> list[bool]:
    return parse(text).keeps(columns, len(next(iter(columns.values())))).tolist()


def test_words_within_quotes_stay() -> None:
    said = ["class", "null", "None", "STAR", "it's", 'a "b"']
    assert keeps("subclass == 'class'", subclass=said) == [True, *[False] * 5]
    assert keeps("subclass == 'it''s' or subclass == \"it's\"", subclass=said) == [*[False] * 4, True, False]
    assert keeps('subclass == "a ""b"""', subclass=said) == [*[False] * 5, True]
    assert keeps('CLASS == "STAR"', **{"class": ["STAR", "star"]}) == [True, True]


def test_what_has_no_value_does_not_pass() -> None:
    assert keeps("snrg/0 > 1", snrg=[1.0, 0.0, None]) == [False] * 3
    assert keeps("not snrg/0 > 1", snrg=[1.0, 0.0, None]) == [False] * 3
    assert keeps("a > 1", a=[float("nan"), -9999.0, float("inf"), "2", " ", "N/A"]) == [
        False, False, True, True, False, False,
    ]  # fmt: skip
    assert keeps("z < 100 or z is null", z=[0.5, 99.0, 9999.0]) == [True] * 3  # no object has them: missing
    assert keeps("z < 100", z=[0.5, 99.0, 9999.0]) == [True, False, False]
    assert keeps("a is null", a=["", "x", None]) == [True, False, True]


def test_a_word_where_a_number_is_compared_is_named() -> None:
    with pytest.raises(
        UsageError, match="grade is compared with numbers and holds 'A'; compare it with text in quotes"
    ):
        keeps("grade > 0.5", grade=["1", "A"])
    with pytest.raises(UsageError, match=r"mags holds list<item: double>, where one number or text a row belongs"):
        keeps("mags > 0.5", mags=[[1.0], [2.0]])


def test_unknown_columns_are_named_with_near_ones() -> None:
    with pytest.raises(UsageError, match=r"no column tef in the spectra; near: teff; there are class, ") as caught:
        parse("tef > 1 and class == 'STAR'").check_columns({"teff", "class", "z"}, " in the spectra")
    assert "\n" not in str(caught.value)


def test_a_filter_chooses_the_same_in_every_command(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    z = [0.1, 0.1000001, 0.09999999, 0.3, -9999.0]
    for i, value in enumerate(z):
        lamost_table(data / f"{i}.fits", OBSID=i + 1, Z=value, RA=40.0 * i, CLASS="GALAXY")
    where = "z <= 0.1 and z >= 0.1"
    ingest(IngestConfig("lamost", where=where), str(data), tmp_path / "a", engine=HERE)
    ingest(IngestConfig("lamost"), str(data), tmp_path / "b", engine=HERE)
    select(tmp_path / "b" / "spectra", tmp_path / "c", SelectConfig(where=where))
    build(ShardConfig(samples_per_shard=9), tmp_path / "b" / "spectra", tmp_path / "d", engine=HERE)
    remake([tmp_path / "d"], tmp_path / "e", where=where, engine=HERE, allow_empty_split=True)
    (tmp_path / "c.csv").write_text(
        "obsid,z,class\n" + "".join(f"{i + 1},{value},GALAXY\n" for i, value in enumerate(z))
    )
    select(tmp_path / "c.csv", tmp_path / "f" / "f.parquet", SelectConfig(where=where, survey="lamost"))
    found = [
        sorted(str(v) for path in (tmp_path / place).rglob("*.parquet") if "ingest" not in path.parts
               for name in ("object_id", "obsid") if name in pq.read_schema(path).names
               for v in pq.read_table(path)[name].to_pylist())
        for place in ("a/spectra", "c", "e", "f")
    ]  # fmt: skip
    assert found[0] and "1" in found[0] and "4" not in found[0] and all(ids == found[0] for ids in found), found


def test_every_column_of_the_schema_can_be_asked_for() -> None:
    for field in SCHEMA:
        if field.name != "spectrum":
            assert parse(f"{field.name} is not null").columns == (field.name,)


def test_columns_of_arrow_serve_as_well_as_lists() -> None:
    table = pa.table({"a": pa.chunked_array([[1, 2], [None]]), "b": pa.array(["x", "y", "x"]).dictionary_encode()})
    cut = parse("a >= 1 and b == 'x'")
    assert cut.keeps({name: table[name] for name in "ab"}, 3).tolist() == [True, False, False]
    assert parse("a > 1").keeps({"a": table["a"].slice(0, 0)}, 0).tolist() == []


BIG = 39627658392569344  # of a DESI TARGETID; its neighbours are the same float64


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.string()])
@pytest.mark.parametrize("where", ["a == b", "a - b == 0", "a > 3e16", "a*1 == 5", "a in (1, 3e16)", "not (a <> b)"])
def test_integers_that_a_float_rounds_are_refused(kind: pa.DataType, where: str) -> None:
    columns = {name: pa.array([BIG + i, 5]).cast(kind) for i, name in enumerate("ab")}
    with pytest.raises(UsageError, match=r"holds 3962765839256934., beyond 2\^53.*compare it with text") as caught:
        parse(where).keeps(columns, 2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_large_integers_compare_with_small_numbers_and_text(kind: pa.DataType) -> None:
    columns = {"a": pa.array([BIG + 1, 5, -1]).cast(kind)}
    assert parse("a > 0").keeps(columns, 3).tolist() == [True, True, False]
    assert parse("0 < a and a in (5, 6)").keeps(columns, 3).tolist() == [False, True, False]
    assert parse(f"a == '{BIG + 1}'").keeps(columns, 3).tolist() == [True, False, False]
    assert parse(f"a == '{BIG}'").keeps(columns, 3).tolist() == [False] * 3
    assert parse("a is not null").keeps(columns, 3).tolist() == [True] * 3


def test_a_catalogues_large_integers_are_refused_in_build_too(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    lamost_table(tmp_path / "data" / "1.fits", OBSID=1)
    (tmp_path / "c.csv").write_text(f"obsid,z,a,b\n1,0.1,{BIG},{BIG + 1}\n")
    with pytest.raises(UsageError, match=r"a holds 39627658392569344, beyond 2\^53"):
        ingest(
            IngestConfig("lamost", where="a == b"), str(tmp_path / "data"), tmp_path / "out",
            catalogue=tmp_path / "c.csv", engine=HERE,
        )  # fmt: skip


VELOCITIES = [-1200.0, -99.0, -999.0, -9999.0, -99999.0, -9999.9, 4.0, None]


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.string()])
def test_only_the_known_sentinels_are_missing_in_any_column(kind: pa.DataType) -> None:
    columns = {"rv": pa.array(VELOCITIES).cast(kind), "note": pa.array(["x"] * 8)}
    assert parse("rv < -500").keeps(columns, 8).tolist() == [True, *[False] * 7]
    known = [True, True, *[False] * 4, True, False]
    # Whether it is missing does not depend on the rest of the filter.
    for where in ("rv is not null", "rv is not null and rv < 5", "rv is not null and rv != 'x'", "not rv is null"):
        assert parse(where).keeps(columns, 8).tolist() == known, where


def test_a_class_is_normalised_wherever_it_is_asked_for(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    said = ["Galaxy", "GALAXY", "galaxy ", "AGN", "", "STAR"]
    for i in range(len(said)):
        lamost_table(data / f"{i}.fits", OBSID=i + 1, RA=40.0 * i, CLASS="Unknown")
    rows = "".join(f"{i + 1},0.1,{value}\n" for i, value in enumerate(said))
    (tmp_path / "c.csv").write_text(f"obsid,z,class\n{rows}")
    for n, (where, expected) in enumerate(
        [("class == 'GALAXY'", 3), ("class is null", 2), ("class in ('star ')", 1)]
    ):
        config = IngestConfig("lamost", where=where)
        summary = ingest(config, str(data), tmp_path / f"b{n}", catalogue=tmp_path / "c.csv", engine=HERE)
        counts = select(tmp_path / "c.csv", tmp_path / f"s{n}.parquet", SelectConfig(where=where, survey="lamost"))
        assert summary.samples == counts.selected == expected

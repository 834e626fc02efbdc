"""`sn_survey`, the survey's own median S/N: from files and catalogues, in spectra, shards and filters."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from specshards.common.errors import UsageError
from specshards.common.jobs import Engine
from specshards.common.label_columns import with_sn_survey
from specshards.common.spectrum import LIMITS, RANGES, SURVEY_SN, survey_sn_of
from specshards.ingest import inspect
from specshards.ingest.catalogue.config import SelectConfig
from specshards.ingest.catalogue.subset import select
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.job.build import build as ingest
from specshards.ingest.spectra.schema import SCHEMA, spectra_writer
from specshards.ingest.surveys import read_file
from specshards.render import ImageConfig
from specshards.shards.format.archive import read_sidecars
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.write.build import build
from specshards.shards.write.reshard import remake
from tests.oracles.survey_files import lamost_table, sdss_spec

HERE = Engine(workers=0)
BANDS = dict(zip(("SNRU", "SNRG", "SNRR", "SNRI", "SNRZ"), (3.1, 20.25, 31.4, 35.0, 22.9), strict=True))
OF_BANDS = float(np.float32(np.sqrt(np.sum(np.float32([*BANDS.values()]).astype(float) ** 2))))
numbers = st.one_of(st.none(), st.floats(-1e6, 1e6, width=32))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five LAMOST files; the second lacks one band, the others have 1, 3, 4 and 5 times the S/N of `BANDS`."""
    folder = tmp_path_factory.mktemp("sn")
    (folder / "files").mkdir()
    for i in range(5):
        bands = {name: -9999.0 if (i, name) == (1, "SNRI") else (i + 1) * value for name, value in BANDS.items()}
        lamost_table(folder / "files" / f"{i}.fits", OBSID=100 + i, RA=10.0 + 20 * i, **bands)
    ingest(IngestConfig(survey="lamost", row_group_rows=2), str(folder / "files"), folder / "data", engine=HERE)
    return folder


def rows(folder: Path) -> dict[str, float | None]:
    """Of spectra Parquet."""
    names = ["object_id", "sn_survey"]
    table = pa.concat_tables(pq.read_table(path, columns=names) for path in sorted(folder.glob("part-*")))
    return dict(zip(table["object_id"].to_pylist(), table["sn_survey"].to_pylist(), strict=True))


def old_spectra(spectra: Path, out: Path) -> Path:
    """The same spectra as an earlier program wrote them, without the column."""
    out.mkdir()
    for path in spectra.iterdir():
        table = pq.read_table(path).drop_columns(["sn_survey"])
        with pq.ParquetWriter(out / path.name, table.schema) as writer:
            writer.write_table(table, row_group_size=2)
    return out


def sidecars(folder: Path) -> dict[str, float | None]:
    found = [pq.read_table(path) for path in sorted(folder.glob("*/*.parquet"))]
    assert all(table.schema.field("sn_survey").type == pa.float32() for table in found)
    table = pa.concat_tables(found, promote_options="default")
    return dict(zip(table["object_id"].to_pylist(), table["sn_survey"].to_pylist(), strict=True))


def test_of_five_bands_it_is_the_root_of_the_sum_of_squares(made: Path) -> None:
    found = rows(made / "data" / "spectra")
    assert found.pop("101") is None
    assert found == {str(100 + i): pytest.approx((i + 1) * OF_BANDS, rel=1e-6) for i in (0, 2, 3, 4)}
    assert found["100"] == OF_BANDS


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[numbers] * 6), min_size=1, max_size=5))
def test_a_file_and_its_columns_tell_the_same(values: list[tuple[float | None, ...]]) -> None:
    columns = {name: [row[i] for row in values] for i, name in enumerate(SURVEY_SN)}
    table = pa.table({name: pa.array(column, pa.float32()) for name, column in columns.items()})
    found = with_sn_survey(table)["sn_survey"].to_pylist()
    for row, value in zip(values, found, strict=True):
        known = dict(zip(SURVEY_SN, row, strict=True))
        alone = survey_sn_of(known)
        assert value == (None if alone is None else float(np.float32(alone)))
        if row[5] is None and None not in row[:5]:
            assert value == pytest.approx(math.hypot(*(v or 0 for v in row[:5])), rel=1e-6)


def test_tables_without_any_of_the_columns_have_none() -> None:
    assert with_sn_survey(pa.table({"z": [1.0, 2.0]}))["sn_survey"].to_pylist() == [None, None]


def test_what_fingerprints_are_made_of_is_as_it_was() -> None:
    assert "sn_survey" not in RANGES and {**RANGES, "sn_survey": RANGES["sn_median"]} == LIMITS


def test_sdss_publishes_it(tmp_path: Path) -> None:
    spectrum = read_file(sdss_spec(tmp_path / "a.fits", SN_MEDIAN_ALL=7.25))
    assert spectrum.sn_survey() == 7.25
    assert "sn_survey 7.25" in inspect.facts(spectrum)["S/N"]
    assert read_file(sdss_spec(tmp_path / "b.fits", drop=("SN_MEDIAN_ALL",))).sn_survey() is None


@pytest.fixture(scope="module")
def shards(made: Path) -> Path:
    config = ShardConfig(image=ImageConfig(image="map2d"), samples_per_shard=2)
    build(config, made / "data" / "spectra", made / "shards", engine=HERE, allow_empty_split=True)
    return made / "shards"


def test_the_tables_of_shards_have_it_also_of_older_spectra(made: Path, shards: Path) -> None:
    new = sidecars(shards)
    assert new == rows(made / "data" / "spectra")
    old = old_spectra(made / "data" / "spectra", made / "old")
    config = ShardConfig(image=ImageConfig(image="map2d"), samples_per_shard=2)
    build(config, old, made / "shards-of-old", engine=HERE, allow_empty_split=True)
    assert sidecars(made / "shards-of-old") == new
    schemas = [pq.read_schema(next((made / name).glob("*/*.parquet"))).names for name in ("shards", "shards-of-old")]
    assert schemas[0] == schemas[1]


def old_shards(shards: Path, out: Path) -> Path:
    """The same shards as an earlier program wrote them."""
    import hashlib
    import json
    import shutil

    shutil.copytree(shards, out)
    content = json.loads((out / "manifest.json").read_text())
    for record in content["shards"]:
        path = (out / record["name"]).with_suffix(".parquet")
        pq.write_table(pq.read_table(path).drop_columns(["sn_survey"]), path)
        record["sidecar_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (out / "manifest.json").write_text(json.dumps(content))
    return out


def test_older_shards_are_read_as_if_they_had_it(made: Path, shards: Path) -> None:
    old = old_shards(shards, made / "old-shards")
    manifests = [Manifest.load(shards), Manifest.load(old)]
    for split in ("train", "val", "test"):
        for columns in (["object_id", "sn_survey"], ["sn_survey", "snrg"], ["snrg"], None):
            new, same = (
                read_sidecars([folder], [manifest], split, columns) if manifest.split(split) else None
                for folder, manifest in zip((shards, old), manifests, strict=True)
            )
            assert new is None or (new.equals(same) and new.column_names == same.column_names)  # type: ignore[union-attr]
    chosen = sidecars_of_filter(old, made / "chosen-old", "snMedian > 100")
    assert chosen == sidecars_of_filter(shards, made / "chosen-new", "SNMEDIAN > 100") and len(chosen) == 3


def sidecars_of_filter(source: Path, out: Path, where: str) -> dict[str, float | None]:
    remake([source], out, where=where, engine=HERE, allow_empty_split=True)
    return sidecars(out)


@pytest.mark.parametrize("name", ["sn_survey", "snMedian", "snmedian"])
def test_filters_know_it_under_both_names(made: Path, tmp_path: Path, name: str) -> None:
    config = IngestConfig(survey="lamost", where=f"{name} > 200 or {name} is null")
    ingest(config, str(made / "files"), tmp_path / "data", engine=HERE)
    assert rows(tmp_path / "data" / "spectra").keys() == {"101", "103", "104"}
    for source in (made / "data" / "spectra", old_spectra(made / "data" / "spectra", tmp_path / "old")):
        out = tmp_path / f"chosen-{source.name}"
        select(source, out, SelectConfig(where=f"{name} > 200"))
        assert rows(out).keys() == {"103", "104"}


def csv(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def joined(made: Path, out: Path, text: str, **options: str) -> dict[str, dict[str, float | None]]:
    catalogue = csv(out / "catalogue.csv", text)
    config = IngestConfig(survey="lamost", **options)  # type: ignore[arg-type]
    ingest(config, str(made / "files"), out / "data", catalogue=catalogue, engine=HERE)
    table = pa.concat_tables(map(pq.read_table, sorted((out / "data" / "spectra").iterdir())))
    return {row["object_id"]: row for row in table.select(["object_id", *SURVEY_SN, "sn_survey"]).to_pylist()}


def test_a_catalogue_with_it_wins(made: Path, tmp_path: Path) -> None:
    text = "obsid,z,snMedian\n100,0,7.5\n101,0,8.5\n102,0,-9999\n103,0,\n"
    found = {name: row["sn_survey"] for name, row in joined(made, tmp_path, text).items()}
    assert found["100"] == 7.5 and found["101"] == 8.5
    assert found["102"] == pytest.approx(3 * OF_BANDS) and found["104"] == pytest.approx(5 * OF_BANDS)
    again = {name: row["sn_survey"] for name, row in joined(made, sub(tmp_path), text, where="snMedian < 8").items()}
    assert again == {"100": 7.5}


def sub(path: Path) -> Path:
    (path / "again").mkdir()
    return path / "again"


def test_all_bands_of_a_catalogue_or_none(made: Path, tmp_path: Path) -> None:
    """Bands of two reductions make no S/N; one band of a catalogue leaves the file's as they are."""
    text = "obsid,snru,snrg,snrr,snri,snrz\n100,1,2,2,4,0\n101,1,2,2,4,-9999\n102,1,2,2,4,0\n"
    found = joined(made, tmp_path, text)
    assert found["100"]["sn_survey"] == 5.0 and found["100"]["snrg"] == 2.0
    assert found["101"]["sn_survey"] is None and found["101"]["snrg"] == pytest.approx(2 * 20.25)
    one = joined(made, sub(tmp_path), "obsid,z,snrg\n100,0,2\n101,0,2\n102,0,2\n103,0,2\n")
    assert one["100"]["snrg"] == pytest.approx(20.25) and one["100"]["sn_survey"] == OF_BANDS
    with pytest.raises(UsageError, match="no label column"):
        joined(made, sub(tmp_path / "again"), "obsid,snrg\n100,2\n")


def test_catalogues_are_chosen_from_by_it(tmp_path: Path) -> None:
    text = "obsid,class,snru,snrg,snrr,snri,snrz\n1,STAR,1,2,2,4,0\n2,STAR,1,2,2,4,-9999\n3,STAR,3,4,0,0,12\n"
    source = csv(tmp_path / "lamost.csv", text)
    assert chosen(source, tmp_path, "lamost", "snMedian >= 5") == ["1", "3"]
    assert chosen(source, tmp_path, "lamost", "sn_survey > 5") == ["3"]
    source = csv(tmp_path / "sdss.csv", "specObjID,class,SN_MEDIAN_ALL\n11,STAR,4\n12,QSO,\n13,STAR,9\n")
    assert chosen(source, tmp_path, "sdss", "snMedian > 5") == ["13"]
    source = csv(tmp_path / "casjobs.csv", "specObjID,class,snMedian\n11,STAR,4\n12,QSO,\n13,STAR,9\n")
    assert chosen(source, tmp_path, "sdss", "sn_survey > 5") == ["13"]
    with pytest.raises(UsageError, match="no column sn_survey"):
        chosen(csv(tmp_path / "x.csv", "obsid,class,snrg\n1,STAR,2\n"), tmp_path, "lamost", "snMedian > 5")


def chosen(source: Path, folder: Path, survey: str, where: str) -> list[str]:
    select(source, folder / "out.parquet", SelectConfig(survey=survey, where=where), force=True)
    table = pq.read_table(folder / "out.parquet")
    return [str(value) for value in table[table.column_names[0]].to_pylist()]


def test_our_own_parquet_keeps_what_a_catalogue_said(made: Path, tmp_path: Path) -> None:
    """It is not made anew of the columns beside it."""
    path = next(iter(sorted((made / "data" / "spectra").iterdir())))
    table = pq.read_table(path)
    place = table.column_names.index("sn_survey")
    table = table.set_column(place, table.schema.field(place), pa.array([3.0] * len(table), pa.float32()))
    with spectra_writer(tmp_path / "part.parquet", {}) as writer:
        writer.write_table(table.cast(SCHEMA))
    build(ShardConfig(), tmp_path / "part.parquet", tmp_path / "shards", engine=HERE, allow_empty_split=True)
    assert set(sidecars(tmp_path / "shards").values()) == {3.0}


def test_real_files_as_the_headers_say(real_data: Path) -> None:
    for folder in ("dr10", "dr7_low_sn", "dr5"):
        for path in sorted((real_data / "lamost" / folder).glob("*.fits*"))[:12]:
            with fits.open(path) as hdus:
                header = hdus[0].header
                keys = [f"SNR{b}" if f"SNR{b}" in header else f"SN_{b}" for b in "UGRIZ"]
                values = np.array([header[key] for key in keys], float)
            expected = None if (values == -9999).any() else np.sqrt((values**2).sum())
            found = read_file(path, "lamost").sn_survey()
            assert found is None if expected is None else found == pytest.approx(expected, rel=1e-6)
    for path in sorted((real_data / "sdss" / "full").glob("*.fits*")):
        with fits.open(path) as hdus:
            names = {name.upper(): name for name in hdus[2].data.names}
            expected = float(hdus[2].data[names["SN_MEDIAN_ALL"]][0])
        assert read_file(path, "sdss").sn_survey() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("column", "values", "where"),
    [
        ("snrg", (1000, 1000, 2, "", 1000), "snrg > 500"),  # the file of the fourth has 4 times 20.25
        ("sn_median", (1000, 1000, 2, "", 1000), "sn_median > 500"),  # ours, which the catalogue calls its own so
        ("survey", ("boss", "boss", "eboss", "", "boss"), "survey == 'boss'"),
        ("ra", (10.001, 30.001, 50.0, "", 90.001), "ra > 90 or ra < 50 and ra > 10.0005"),
    ],
)
def test_a_filter_compares_what_the_catalogue_gives_in_build_as_in_select(
    made: Path, tmp_path: Path, column: str, values: tuple[object, ...], where: str
) -> None:
    catalogue = tmp_path / "c.csv"
    lines = [f"{100 + i},STAR,{value}" for i, value in enumerate(values)]
    catalogue.write_text("\n".join([f"obsid,class,{column}", *lines]) + "\n")
    select(catalogue, tmp_path / "chosen.parquet", SelectConfig(survey="lamost", where=where))
    config = IngestConfig(survey="lamost", where=where)
    summary = ingest(config, str(made / "files"), tmp_path / "data", catalogue=catalogue, engine=HERE)
    found = rows(tmp_path / "data" / "spectra")
    assert set(found) == set(pq.read_table(tmp_path / "chosen.parquet")["obsid"].to_pylist()) == {"100", "101", "104"}
    # The spectra keep what their files say, and `sn_survey` is of five bands of one source.
    before = rows(made / "data" / "spectra")
    assert found == {name: before[name] for name in found}
    said = (
        f"its {column} is what the filter compares, where it gives one; the spectra keep the {column} of their files"
    )
    assert said in summary.table()
    assert "not used" not in summary.table()


def test_where_the_catalogue_gives_no_value_the_file_is_asked(made: Path, tmp_path: Path) -> None:
    catalogue = tmp_path / "c.csv"
    catalogue.write_text("obsid,class,snrg\n100,STAR,1\n102,STAR,\n103,STAR,-9999\n104,STAR,99999999\n")
    config = IngestConfig(survey="lamost", where="snrg > 20")
    summary = ingest(config, str(made / "files"), tmp_path / "data", catalogue=catalogue, engine=HERE)
    assert set(rows(tmp_path / "data" / "spectra")) == {"101", "102", "103", "104"}  # 101 is not listed
    assert "not used" not in summary.table()


def test_bands_that_make_up_the_whole_are_kept_and_nothing_is_to_be_said(made: Path, tmp_path: Path) -> None:
    catalogue = tmp_path / "c.csv"
    text = "".join(f"{100 + i},STAR,3,4,0,0,{12 * i}\n" for i in range(5))
    catalogue.write_text(f"obsid,class,snru,snrg,snrr,snri,snrz\n{text}")
    config = IngestConfig(survey="lamost", where="snrz > 20")
    summary = ingest(config, str(made / "files"), tmp_path / "data", catalogue=catalogue, engine=HERE)
    found = rows(tmp_path / "data" / "spectra")
    assert found.keys() == {"102", "103", "104"} and found["104"] == pytest.approx(math.hypot(5, 48))
    assert "what the filter compares" not in summary.table()

"""Further labels: from files and tables through Parquet and shards to the manifest, whatever they are called."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from astropy.units import Unit

from specshards.common.errors import JobError, UsageError
from specshards.common.further import MOST_FURTHER, STANDARD, FurtherColumn, further_name, united
from specshards.common.jobs import Engine
from specshards.common.spectrum import Spectrum
from specshards.ingest.catalogue.columns import choose
from specshards.ingest.catalogue.config import SelectConfig
from specshards.ingest.catalogue.further import Wish
from specshards.ingest.catalogue.labels import Catalogue
from specshards.ingest.catalogue.prepared import prepare
from specshards.ingest.catalogue.subset import select
from specshards.ingest.inspect import inspect_file
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.job.build import build as ingest
from specshards.ingest.spectra.blocks import iter_blocks
from specshards.ingest.spectra.folder import SpectraFolder
from specshards.ingest.spectra.schema import SCHEMA, spectra_writer, to_table, write_parquet
from specshards.shards.check.commands import inspect
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.report.further import count_further
from specshards.shards.report.make import write_page
from specshards.shards.write.build import build as draw
from specshards.shards.write.reshard import remake
from tests.conftest import make_spectrum
from tests.oracles import commands
from tests.oracles.survey_files import lamost_table

HERE = Engine(workers=0)
ALL = ShardConfig(split=(1.0, 0.0, 0.0), split_by="object")


def write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    write_parquet(table, path, {}, 4)


def spectra(count: int, labels: Sequence[dict[str, Any]], first: int = 0, **units: str) -> list[Spectrum]:
    rng = np.random.default_rng(first)
    made = [make_spectrum(first + i, rng, n=150) for i in range(count)]
    for i, spectrum in enumerate(made):
        spectrum.labels |= labels[i % len(labels)]
        spectrum.units = units
    return made


def sidecar(folder: Path) -> pa.Table:
    tables = [pq.read_table(path) for path in sorted(folder.glob("*/*.parquet"))]
    return pa.concat_tables(tables, promote_options="default").sort_by("source_row")


def test_names_of_the_schema_are_standard() -> None:
    assert set(SCHEMA.names) < STANDARD
    assert [further_name(said) for said in ("[Mg/Fe]", " pH.H2O ", "M_H", "ra", "key", "%")] == [
        "mg_fe", "ph_h2o", "m_h", "ra_", "key_", "column",
    ]  # fmt: skip


def test_any_label_has_a_column_and_a_unit(tmp_path: Path) -> None:
    labels = [
        {"Mg_Fe": 0.25, "plate": 7, "is_member": True, "site": " a ", "nothing": None, "mixed": 5, "big": 2**60 + 1},
        {"Mg_Fe": -9999.0, "plate": None, "is_member": np.False_, "site": "", "mixed": "x", "z": 0.5},
        {"Mg_Fe": float("inf"), "plate": np.float32(0.5), "site": b"b"},
    ]
    table = to_table(spectra(3, labels, Mg_Fe="dex"))
    assert table.column_names[len(SCHEMA.names) :] == ["big", "is_member", "mg_fe", "mixed", "plate", "site"]
    found = table.select(["big", "is_member", "mg_fe", "mixed", "plate", "site"]).to_pydict()
    assert found == {
        "big": [str(2**60 + 1), None, None], "is_member": ["true", "false", None], "mg_fe": [0.25, None, None],
        "mixed": ["5", "x", None], "plate": [7.0, None, 0.5], "site": ["a", None, "b"],
    }  # fmt: skip
    assert table.schema.field("mg_fe").metadata == {b"unit": b"dex"} and table["z"][1].as_py() == 0.5
    write_parquet(table, tmp_path / "a.parquet", {})
    assert SpectraFolder.scan(tmp_path).further["mg_fe"] == FurtherColumn("number", "dex")


def test_a_column_that_comes_late_is_written_as_if_it_had_been_there(tmp_path: Path) -> None:
    early, late = to_table(spectra(4, [{"x": 1.5}])), to_table(spectra(4, [{"x": "word", "y": 2}], 4))
    with spectra_writer(tmp_path / "late.parquet", {}) as writer:
        for start in (0, 2):
            writer.write_table(early.slice(start, 2), 2)
        writer.write_table(late, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["late.parquet"]
    file = pq.ParquetFile(tmp_path / "late.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [2] * 4
    assert file.read(["x", "y"]).to_pydict() == {"x": ["1.5"] * 4 + ["word"] * 4, "y": [None] * 4 + [2.0] * 4}
    folder = SpectraFolder.scan(tmp_path)
    for _, block in iter_blocks(folder):
        for i, row in enumerate(block.rows.tolist()):
            np.testing.assert_array_equal(
                block.arrays(i).flux, (early, late)[row // 4]["spectrum"][row % 4]["flux"].values
            )


def test_files_of_a_folder_differ_and_shards_and_manifest_have_all(tmp_path: Path) -> None:
    write(to_table(spectra(6, [{"mass": 2.5, "kind": 3}], mass="kg")), tmp_path / "s" / "a.parquet")
    write(to_table(spectra(6, [{"kind": "b", "only": 1}], 6)), tmp_path / "s" / "b.parquet")
    made = draw(ALL, tmp_path / "s", tmp_path / "out", engine=HERE, allow_empty_split=True)
    assert made.further == {
        "kind": {"kind": "text", "unit": None}, "mass": {"kind": "number", "unit": "kg"},
        "only": {"kind": "number", "unit": None},
    }  # fmt: skip
    assert Manifest.load(tmp_path / "out").dumps() == made.dumps()
    table = sidecar(tmp_path / "out")
    assert table["kind"].to_pylist() == ["3"] * 6 + ["b"] * 6 and table["mass"].to_pylist() == [2.5] * 6 + [None] * 6
    for path in (tmp_path / "out").glob("*/*.parquet"):
        assert pq.read_schema(path).field("mass").metadata[b"unit"] == b"kg"
    again = remake([tmp_path / "out"], tmp_path / "some", where="mass > 2 and kind == '3'", engine=HERE)
    assert again.samples() == 6 and again.further == made.further
    old = draw(ALL, own(tmp_path / "plain"), tmp_path / "old", engine=HERE, allow_empty_split=True)
    assert "further" not in json.loads(old.dumps())
    assert remake([tmp_path / "old", tmp_path / "out"], tmp_path / "both", engine=HERE).further == made.further


def test_inspect_and_the_page_count_further_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = [{"mass": 2.5, "<site>": "a"}, {"mass": None, "<site>": "b"}, {"mass": 1.0, "<site>": None}]
    write(to_table(spectra(9, labels, mass="kg")), tmp_path / "s" / "a.parquet")
    made = draw(ALL, tmp_path / "s", tmp_path / "out", engine=HERE, allow_empty_split=True)
    counts = count_further(tmp_path / "out", made)
    assert counts == [("mass", "kg", 6, ""), ("site", "", 6, "2")]
    inspect(tmp_path / "out", count=1, out=tmp_path / "x.png")
    shown = " ".join(capsys.readouterr().out.split())
    assert "further column unit samples values mass kg 6 numbers site 6 2" in shown
    text = write_page(tmp_path / "out").read_text()
    assert "further columns of all samples" in text and "further column" in text
    next((tmp_path / "out" / "train").glob("*.parquet")).write_bytes(b"PAR1")
    with pytest.raises(JobError, match="`specshards shards verify` says more"):
        count_further(tmp_path / "out", made)
    assert count_further(tmp_path, replace(made, further={})) == []


def test_labels_of_a_job_of_several_workers_that_was_killed_are_the_same_bytes(tmp_path: Path) -> None:
    """A further column of a catalogue, kept by name, in parts that meet it or do not."""
    (tmp_path / "data").mkdir()
    lines = ["obsid,mass,site"]
    for number in range(24):
        lamost_table(tmp_path / "data" / f"{number:02d}.fits", OBSID=1000 + number)
        has_any = number % 3 == 0
        lines.append(f"{1000 + number},{number / 8 if has_any else ''},{'ab'[number % 2] if has_any else ''}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    config = IngestConfig("lamost", labels="mass,site", files_per_part=2, row_group_rows=2)
    call = {"catalogue": tmp_path / "labels.csv"}
    ingest(config, str(tmp_path / "data"), tmp_path / "whole", engine=HERE, **call)
    code = (
        "from pathlib import Path\n"
        "from specshards.common.jobs import Engine\n"
        "from specshards.ingest.job.build import IngestConfig, build\n"
        "if __name__ == '__main__':\n"
        "    build(IngestConfig('lamost', labels='mass,site', files_per_part=2, row_group_rows=2), "
        f"{str(tmp_path / 'data')!r}, Path({str(tmp_path / 'killed')!r}), "
        f"catalogue=Path({str(tmp_path / 'labels.csv')!r}), engine=Engine(workers=0))\n"
    )
    process = commands.start(commands.script(code))
    while process.poll() is None and len(list((tmp_path / "killed").glob("ingest/parts/*.json"))) < 3:
        time.sleep(0.001)
    process.kill()
    process.wait()
    ingest(config, str(tmp_path / "data"), tmp_path / "killed", engine=Engine(workers=2), **call)
    files = {path.name: path.read_bytes() for path in (tmp_path / "whole" / "spectra").glob("*.parquet")}
    assert len(files) == 12
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "killed" / "spectra").glob("*.parquet")}
    assert SpectraFolder.scan(tmp_path / "killed" / "spectra").further.keys() == {"mass", "site"}


def own(folder: Path) -> Path:
    write(to_table(spectra(6, [{}], 20)), folder / "a.parquet")
    return folder


def test_two_units_or_too_many_columns_are_refused_in_one_line(tmp_path: Path) -> None:
    for name, unit in (("a", "kg"), ("b", "g")):
        write_parquet(to_table(spectra(2, [{"mass": 2.5}], mass=unit)), tmp_path / f"{name}.parquet", {})
    with pytest.raises(UsageError, match="mass is in kg in one file and in g in another"):
        SpectraFolder.scan(tmp_path)
    with pytest.raises(UsageError, match=r"257 further columns, more than 256; .* --labels"):
        united([{f"c{i}": FurtherColumn("number") for i in range(MOST_FURTHER + 1)}])


def test_scalar_columns_of_others_tables_are_carried(tmp_path: Path) -> None:
    table = to_table(spectra(4, [{}])).drop_columns(
        ["_healpix_29", "source_file", "flux_scale", "frame", "layout", "feh"]
    )
    more = {
        "fe_h": [-0.5, None, 0.1, 0.2], "e_fe_h": [0.1] * 4, "Mg_Fe": [1.0, -9999.0, 2.0, 3.0],
        "gaia_source_id": [2**60 + 1] * 4, "is_ok": [True, False, None, True], "note": ["x"] * 4,
        "nested": [[1.0]] * 4, "count": [1, 2, 3, 2**60], "_healpix_16": [1] * 4,
    }  # fmt: skip
    for name, column in more.items():
        table = table.append_column(name, pa.array(column))
    place = table.column_names.index("Mg_Fe")
    table = table.set_column(place, pa.field("Mg_Fe", pa.float64(), metadata={"unit": "dex"}), table["Mg_Fe"])
    (tmp_path / "t").mkdir()
    pq.write_table(table.replace_schema_metadata(None), tmp_path / "t" / "theirs.parquet")
    made = draw(ALL, tmp_path / "t", tmp_path / "out", engine=HERE, allow_empty_split=True)
    assert made.further["mg_fe"] == {"kind": "number", "unit": "dex"}
    assert set(made.further) == {"count", "e_fe_h", "fe_h", "gaia_source_id", "is_ok", "mg_fe", "note"}
    rows = sidecar(tmp_path / "out").to_pydict()
    assert rows["mg_fe"] == [1.0, None, 2.0, 3.0] and rows["gaia_source_id"] == [str(2**60 + 1)] * 4
    assert rows["is_ok"] == ["true", "false", None, "true"] and rows["count"] == [1.0, 2.0, 3.0, None]
    assert rows["fe_h"] == [-0.5, None, 0.1, 0.2] and rows["feh"][0] == -0.5


def lamost(folder: Path, count: int = 4) -> Path:
    """Files of LAMOST's table layout with OBSID 1, 2, ..."""
    folder.mkdir()
    for i in range(count):
        lamost_table(folder / f"spec-{i + 1}.fits", obsid=i + 1)
    return folder


def columns(out: Path, *names: str) -> dict[str, Any]:
    table = pq.read_table(out / "spectra").sort_by("object_id")
    return {name: table[name].to_pylist() for name in names}


MORE = {
    "obsid": [1, 2, 3, 4], "Mg_Fe": [0.5, -9999.0, 0.25, 1.5], "is_good": [True, False, True, True],
    "kind": ["a", "b", "", "n/a"], "designation": ["00012", "3", "x", "4"], "teff": [5000.0, 5100.0, 5200.0, 5300.0],
}  # fmt: skip


@pytest.mark.parametrize("ends", ["csv", "fits", "ecsv", "vot", "parquet"])
def test_further_columns_of_catalogues_are_kept_with_their_units(tmp_path: Path, ends: str) -> None:
    table = Table({name: values for name, values in MORE.items()})
    table["Mg_Fe"].unit, table["teff"].unit = "km / s", "K"
    path = tmp_path / f"catalogue.{ends}"
    if ends == "parquet":
        arrow = pa.table(MORE)
        place = arrow.column_names.index("Mg_Fe")
        arrow = arrow.set_column(place, pa.field("Mg_Fe", pa.float64(), metadata={"unit": "km/s"}), arrow["Mg_Fe"])
        pq.write_table(arrow, path)
    else:
        table.write(path, format={"csv": "csv", "fits": "fits", "ecsv": "ascii.ecsv", "vot": "votable"}[ends])
    config = IngestConfig(survey="lamost", labels="mg_fe, kind,is_good", where="mg_fe > 0.3 or kind == 'q'")
    summary = ingest(config, str(lamost(tmp_path / "data")), tmp_path / "out", catalogue=path, engine=HERE)
    assert summary.samples == 2 and "designation; keep them with --labels" in summary.table()
    assert columns(tmp_path / "out", "mg_fe", "kind", "teff") == {
        "mg_fe": [0.5, 1.5], "kind": ["a", None], "teff": [5000.0, 5300.0]
    }  # fmt: skip
    everything = IngestConfig(survey="lamost", labels="all")
    ingest(everything, str(tmp_path / "data"), tmp_path / "all", catalogue=path, engine=HERE)
    assert columns(tmp_path / "all", "mg_fe", "kind", "is_good", "designation") == {
        "mg_fe": [0.5, None, 0.25, 1.5], "kind": ["a", "b", None, None],
        "is_good": ["true", "false", "true", "true"],
        "designation": ["00012", "3", "x", "4"],
    }  # fmt: skip
    unit = pq.read_schema(next((tmp_path / "all" / "spectra").iterdir())).field("mg_fe").metadata
    said = (unit or {}).get(b"unit", b"").decode()
    assert said == "" if ends == "csv" else Unit(said) == Unit("km / s")


def test_units_of_labels_are_converted_or_refused_and_wrong_names_are_one_line(tmp_path: Path) -> None:
    data = str(lamost(tmp_path / "data"))
    for unit, wrong in (("kK", None), ("kg", "teff is in kg, of which no K can be made")):
        table = Table({"obsid": [1, 2, 3, 4], "teff": [5.0, 5.1, 5.2, 5.3]})
        table["teff"].unit = unit
        table.write(tmp_path / f"{unit}.ecsv", format="ascii.ecsv")
        config = IngestConfig(survey="lamost")
        if wrong is None:
            ingest(config, data, tmp_path / unit, catalogue=tmp_path / f"{unit}.ecsv", engine=HERE)
            assert columns(tmp_path / unit, "teff")["teff"] == pytest.approx([5000.0, 5100.0, 5200.0, 5300.0])
        else:
            with pytest.raises(UsageError, match=wrong):
                ingest(config, data, tmp_path / unit, catalogue=tmp_path / f"{unit}.ecsv", engine=HERE)
    config = IngestConfig(survey="lamost", labels="mgfe")
    (tmp_path / "c.csv").write_text("obsid,mg_fe\n1,2\n")
    with pytest.raises(UsageError, match=r"--labels mgfe: no such column in .*c.csv; near: mg_fe"):
        ingest(config, data, tmp_path / "no", catalogue=tmp_path / "c.csv", engine=HERE)
    with pytest.raises(UsageError, match="--labels mgfe: no such label in the spectra"):
        ingest(config, data, tmp_path / "no", engine=HERE)


def test_labels_of_tables_that_are_kept_filtered_and_joined_by_id(tmp_path: Path) -> None:
    theirs = to_table(spectra(4, [{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": "x"}])).drop_columns(
        ["_healpix_29", "source_file", "flux_scale", "frame", "layout"]
    )
    (tmp_path / "t").mkdir()
    pq.write_table(theirs.replace_schema_metadata(None), tmp_path / "t" / "theirs.parquet")
    (tmp_path / "c.csv").write_text("name,mass\n1000,0.5\n1001,0.25\n1002,7\n1003,8\n")
    config = IngestConfig(labels="a,mass", where="a > 2")
    made = ingest(config, str(tmp_path / "t"), tmp_path / "out", catalogue=tmp_path / "c.csv", engine=HERE)
    assert made.samples == 2 and columns(tmp_path / "out", "a", "mass") == {"a": [3.0, 3.0], "mass": [0.25, 8.0]}
    assert "b" not in pq.read_schema(next((tmp_path / "out" / "spectra").iterdir())).names


def test_select_and_inspect_know_further_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(to_table(spectra(6, [{"mass": 2.5, "kind": 3}, {"mass": 7.5}], mass="kg")), tmp_path / "s" / "a.parquet")
    write(to_table(spectra(6, [{"kind": "b", "only": 1}], 6)), tmp_path / "s" / "b.parquet")
    select(tmp_path / "s", tmp_path / "chosen", SelectConfig(where="mass > 5 or kind == 'b'"))
    table = pq.read_table(tmp_path / "chosen")
    assert table["mass"].to_pylist() == [7.5] * 3 + [None] * 6 and table["kind"].to_pylist() == [None] * 3 + ["b"] * 6
    assert SpectraFolder.scan(tmp_path / "chosen").further["mass"] == FurtherColumn("number", "kg")
    with pytest.raises(UsageError, match=r"no column masse.*near: mass"):
        select(tmp_path / "s", tmp_path / "not", SelectConfig(where="masse > 5"))
    inspect_file(tmp_path / "s" / "a.parquet", tmp_path / "x.png", row=0)
    assert "kind 3, mass 2.5 kg" in capsys.readouterr().out


def test_the_key_of_a_catalogue_may_be_the_name_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("spectrum,z,flag\na/b.fits.gz,0.5,3\nCDFS_1.dat,0.25,4\nlast,1,2\n")
    catalogue = Catalogue(prepare(tmp_path / "c.csv", None, tmp_path / "work", wish=Wish("all")))
    for object_id, file, flag in (
        ("b", "x", 3.0),
        ("CDFS_1.dat", "x", 4.0),
        ("1", "last.csv", 2.0),
        ("2", "x", None),
    ):
        (spectrum,) = spectra(1, [{}])
        spectrum.object_id, spectrum.source_file = object_id, file
        assert catalogue.apply(spectrum) == (flag is not None) and spectrum.labels.get("flag") == flag


def test_real_labels_of_vandels_join_by_file_name(tmp_path: Path) -> None:
    folder = Path(os.environ.get("SPECSHARDS_REAL_DATA", "../shared/data")) / "labelled" / "vandels"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    catalogue = Catalogue(prepare(folder / "labels.csv", None, tmp_path, wish=Wish("redshift_flag")))
    truth = Table.read(folder / "labels.csv", format="csv")
    for row in truth:
        (spectrum,) = spectra(1, [{}])
        spectrum.object_id, spectrum.source_file = row["spectrum"], f"{row['spectrum']}.dat"
        assert catalogue.apply(spectrum)
        assert (spectrum.labels["z"], spectrum.labels["redshift_flag"]) == (row["z"], row["redshift_flag"])


def test_positions_alone_are_a_catalogue_of_spectra_without_a_survey(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("object_id,ra,dec\n1000,10.5,-3\n")
    catalogue = Catalogue(prepare(tmp_path / "c.csv", None, tmp_path / "work"))
    (spectrum,) = spectra(1, [{}])
    spectrum.ra = spectrum.dec = float("nan")
    assert catalogue.apply(spectrum) and (spectrum.ra, spectrum.dec) == (10.5, -3.0)
    with pytest.raises(UsageError, match="no label column"):
        choose(tmp_path / "c.csv", ["obsid", "ra", "dec"], "lamost")

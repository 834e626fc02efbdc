"""After a job that was refused, or that did not end: the corrected command works, and its spectra are not drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine
from specshards.ingest.catalogue.config import SelectConfig
from specshards.ingest.catalogue.subset import select
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.job.build import build as ingest
from specshards.ingest.spectra.objects import objects
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.render import ImageConfig
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.write.build import build as draw
from tests.conftest import make_spectrum
from tests.oracles.mmu_tables import mock, sdss_table

HERE = Engine(workers=0)


def own(folder: Path) -> None:
    rng = np.random.default_rng(0)
    (folder / "spectra").mkdir()
    write_parquet(to_table([make_spectrum(i, rng) for i in range(20)]), folder / "spectra" / "a.parquet", {})


def test_shards_of_which_nothing_came_refuse_nobody(tmp_path: Path) -> None:
    own(tmp_path)
    out = tmp_path / "out"
    with pytest.raises(JobError, match="20 of 20 spectra"):
        draw(
            ShardConfig(ImageConfig(window=(20000.0, 30000.0))),
            tmp_path / "spectra",
            out,
            engine=HERE,
            allow_empty_split=True,
        )
    draw(ShardConfig(), tmp_path / "spectra", out, engine=HERE, allow_empty_split=True)
    assert Manifest.load(out).samples() == 20
    assert pq.read_table(out / "quarantine.parquet").num_rows == 0
    with pytest.raises(UsageError, match="holds shards made otherwise"):
        draw(ShardConfig(seed=1), tmp_path / "spectra", out, engine=HERE, allow_empty_split=True)


def test_shards_of_which_some_are_there_are_kept(tmp_path: Path) -> None:
    own(tmp_path)
    out = tmp_path / "out"
    draw(ShardConfig(), tmp_path / "spectra", out, engine=HERE, allow_empty_split=True)
    (out / "manifest.json").unlink()  # as a kill before the end leaves it
    with pytest.raises(UsageError, match="holds shards made otherwise"):
        draw(ShardConfig(seed=1), tmp_path / "spectra", out, engine=HERE, allow_empty_split=True)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "sdss.parquet"
    path.parent.mkdir()
    pq.write_table(sdss_table(mock(12)), path)
    return path


def test_an_ingest_that_was_refused_takes_the_option_that_it_advises(table: Path, tmp_path: Path) -> None:
    whole = pq.read_table(table)
    spectrum = whole["spectrum"].combine_chunks()
    parts = [spectrum.field(i) for i in range(spectrum.type.num_fields)]
    names = [field.name for field in spectrum.type]
    at = names.index("lambda")
    fields = list(spectrum.type)
    angstrom = [fields[i].with_metadata({"unit": "angstrom"}) if i == at else fields[i] for i in range(len(fields))]
    place = whole.schema.get_field_index("spectrum")
    pq.write_table(whole.set_column(place, "spectrum", pa.StructArray.from_arrays(parts, fields=angstrom)), table)
    values = parts[at].flatten().to_numpy()
    parts[at] = pa.ListArray.from_arrays(parts[at].offsets, pa.array(np.where(values > 0, values / 10, values)))
    names_of_nm = [f"'{name}n'" for name in range(len(whole))]
    other = whole.set_column(place, "spectrum", pa.StructArray.from_arrays(parts, names=names))
    other = other.set_column(whole.schema.get_field_index("object_id"), "object_id", pa.array(names_of_nm))
    pq.write_table(other, table.with_name("nm.parquet"))
    out = tmp_path / "out"
    with pytest.raises(JobError, match="objects are bad"):
        ingest(IngestConfig("sdss"), str(table.parent), out, engine=HERE)
    summary = ingest(IngestConfig("sdss", wavelength_unit="nm"), str(table.parent), out, engine=HERE)
    assert summary.samples == 24
    with pytest.raises(UsageError, match="holds spectra made otherwise"):
        ingest(IngestConfig("sdss"), str(table.parent), out, engine=HERE)


def refused(tmp_path: Path, match: str) -> None:
    """Every command that uses the spectra of `tmp_path/out`, by whatever name, says why not."""
    spectra = tmp_path / "out" / "spectra"
    (tmp_path / "link").unlink(missing_ok=True)
    (tmp_path / "link").symlink_to(spectra)
    for where in (spectra, spectra / "part-00000.parquet", tmp_path / "link"):
        with pytest.raises(UsageError, match=match):
            draw(ShardConfig(), where, tmp_path / "shards", engine=HERE, allow_empty_split=True)
        with pytest.raises(UsageError, match=match):
            select(where, tmp_path / "chosen", SelectConfig())
        with pytest.raises(UsageError, match=match):
            list(objects(where, []))
    assert not (tmp_path / "shards").exists()


def test_spectra_of_a_refused_ingest_are_not_drawn(table: Path, tmp_path: Path) -> None:
    catalogue = tmp_path / "labels.csv"
    catalogue.write_text("specobjid,class\n" + "".join(f"{777000 + i},STAR\n" for i in range(12)))
    with pytest.raises(JobError, match="lists only 0 of 12"):
        ingest(IngestConfig("sdss"), str(table), tmp_path / "out", catalogue=catalogue, engine=HERE)
    refused(tmp_path, r"was refused \(.*lists only 0 of 12.*run it again")
    ingest(IngestConfig("sdss"), str(table), tmp_path / "out", engine=HERE)
    draw(ShardConfig(), tmp_path / "out" / "spectra", tmp_path / "shards", engine=HERE, allow_empty_split=True)


def test_spectra_of_an_ingest_that_did_not_end_are_not_drawn(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ingest(IngestConfig("sdss"), str(table), out, engine=HERE)
    summary = out / "ingest" / "summary.json"
    whole = summary.read_text()
    for text in (None, "", "[" * 100000, "[]"):
        summary.unlink() if text is None else summary.write_text(text)
        refused(tmp_path, "did not end: run it again")
    content = json.loads(whole)
    del content["refused"]  # of an earlier version
    summary.write_text(json.dumps(content))
    draw(ShardConfig(), out / "spectra", tmp_path / "shards", engine=HERE, allow_empty_split=True)
    (out / "ingest").rename(tmp_path / "elsewhere")
    (out / "ingest").mkdir()  # somebody's
    draw(ShardConfig(), out / "spectra", tmp_path / "shards", engine=HERE, allow_empty_split=True)


def test_a_summary_is_gone_while_an_ingest_runs(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    ingest(IngestConfig("sdss"), str(table), out, engine=HERE)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("specshards.ingest.job.build.make_plan", killed)
    with pytest.raises(KeyboardInterrupt):
        ingest(IngestConfig("sdss"), str(table), out, engine=HERE)
    refused(tmp_path, "did not end: run it again")

"""MultimodalUniverse tables: the same spectra in its shapes and in ours give the same pictures and labels."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from specshards.common.errors import BadObjectError, JobError, UsageError
from specshards.common.jobs import Engine
from specshards.common.spectrum import LABELS, Spectrum
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.job.build import build as ingest
from specshards.ingest.spectra.blocks import iter_blocks
from specshards.ingest.spectra.folder import SpectraFolder
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.ingest.surveys import multimodal_universe as mmu
from specshards.ingest.surveys import open_file, read_file
from specshards.render import ImageConfig, renderer
from specshards.shards.__main__ import make_survey
from specshards.shards.format.encoding import Png
from specshards.shards.format.manifest import SPLITS, Manifest, ShardConfig
from specshards.shards.write.build import build
from specshards.shards.write.reshard import remake
from specshards.train.use.pictures import pictures
from tests.oracles.mmu_tables import mock, padded, sdss_table

HERE = Engine(workers=0)
Samples = dict[str, tuple[bytes, dict[str, float]]]


def drawn(folder: Path) -> Samples:
    """object_id -> PNG and labels, from the tars."""
    found = {}
    for split in SPLITS:
        for path in sorted((folder / split).glob("*.tar")):
            ids = pq.read_table(path.with_suffix(".parquet"))["object_id"].to_pylist()
            with tarfile.open(path) as tar:
                members = [tar.extractfile(member).read() for member in tar]  # type: ignore[union-attr]
            for name, png, npy in zip(ids, members[::2], members[1::2], strict=True):
                found[name] = png, dict(zip(LABELS, np.load(io.BytesIO(npy)).tolist(), strict=True))
    return found


def assert_same(mine: Samples, theirs: Samples) -> None:
    assert mine.keys() == theirs.keys() and mine
    for name, (png, labels) in mine.items():
        assert png == theirs[name][0], name
        np.testing.assert_array_equal(list(labels.values()), list(theirs[name][1].values()), name)


def real_files(real_data: Path, where: str, survey: str, n: int, folder: Path) -> list[Spectrum]:
    """Copy `n` readable files to `folder` and read them."""
    folder.mkdir()
    spectra = []
    for path in sorted(p for p in (real_data / where).glob("*.fits*") if p.is_file()):
        try:
            spectra.append(read_file(path, survey))
        except BadObjectError:
            continue
        shutil.copy(path, folder)
        if len(spectra) == n:
            return spectra
    pytest.skip(f"no {n} readable files in {where}")


@pytest.fixture(scope="module")
def sdss(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Spectrum], Samples]:
    out = tmp_path_factory.mktemp("sdss")
    spectra = real_files(real_data, "sdss/boss_galaxies", "sdss", 12, out / "files")
    make_survey("sdss", out, data=str(out / "files"), workers=0)
    return spectra, drawn(out / "shards" / "map2d")


@pytest.mark.parametrize("shape", ["struct", "list of structs", "flat", "fixed"])
def test_real_sdss_draws_the_same_without_ingest(
    shape: str, sdss: tuple[list[Spectrum], Samples], tmp_path: Path
) -> None:
    spectra, ours = sdss
    pq.write_table(sdss_table(spectra, shape), tmp_path / "x.parquet")
    make_survey("sdss", tmp_path / "out", data=str(tmp_path / "x.parquet"), workers=0)
    assert_same(ours, drawn(tmp_path / "out" / "shards" / "map2d"))
    assert not (tmp_path / "out" / "spectra").exists()


def test_real_sdss_through_ingest_is_the_same_too(
    sdss: tuple[list[Spectrum], Samples], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spectra, ours = sdss
    pq.write_table(sdss_table(spectra), tmp_path / "x.parquet")
    make_survey("sdss", tmp_path / "out", data=str(tmp_path / "x.parquet"), n=1, workers=0)
    assert (tmp_path / "out" / "spectra").exists() and mmu.STRUCT in capsys.readouterr().out
    assert_same(ours, drawn(tmp_path / "out" / "shards" / "map2d"))


def test_real_lamost_without_ivar_says_so_both_ways(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spectra = real_files(real_data, "lamost/dr10", "lamost", 8, tmp_path / "files")
    n = max(len(s.flux) for s in spectra)
    flux, wave = ([getattr(s, name) for s in spectra] for name in ("flux", "wavelength"))
    table = pa.table({
        "spectrum_flux": list(padded(flux, 0.0, n)), "spectrum_wavelength": list(padded(wave, 0.0, n)),
        "obsid": [f"b'{s.object_id}'" for s in spectra], "teff": [5000.0] * 7 + [-9999.0],
        "ra": [s.ra for s in spectra], "dec": [s.dec for s in spectra],
        "snrg": [s.survey_sn["snrg"] for s in spectra],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "x.parquet")
    make_survey("lamost", tmp_path / "out", data=str(tmp_path / "x.parquet"), workers=0)
    assert "8 spectra in layout mmu-flat-no-ivar-no-mask; ivar is absent" in capsys.readouterr().out
    found = drawn(tmp_path / "out" / "shards" / "map2d")
    drawer = renderer(ImageConfig())
    for spectrum in spectra:
        png, labels = found[spectrum.object_id]
        expected = drawer.codes(spectrum.flux, None, spectrum.wavelength, None)
        np.testing.assert_array_equal(Png(drawer).decode(png), expected)
        assert np.isnan(labels["sn_median"]) and labels["class"] != labels["class"]
    assert [np.isnan(found[s.object_id][1]["teff"]) for s in spectra] == [False] * 7 + [True]
    make_survey("lamost", tmp_path / "ingested", data=str(tmp_path / "x.parquet"), n=1, workers=0)
    assert_same(found, drawn(tmp_path / "ingested" / "shards" / "map2d"))
    (part,) = (tmp_path / "ingested" / "spectra").glob("*.parquet")
    ivar = pq.read_table(part)["spectrum"].combine_chunks().field("ivar").values.to_numpy()
    assert np.isnan(ivar).all(), "an ivar that nobody measured"


def labels_of(table: pa.Table, path: Path) -> list[dict[str, Any]]:
    pq.write_table(table, path)
    return [item.labels for item in open_file(path).objects() if isinstance(item, Spectrum)]


@pytest.mark.parametrize(
    ("names", "folder", "marks", "expected"),
    [
        (("ZWARNING", "Z_ERR"), ".", "", [1, 0, None]),  # SDSS: True = bad
        (("ZWARN", "ZERR"), ".", "huggingface", [0, 1, None]),  # DESI as its script writes it: True = good
        (("ZWARN", "ZERR"), "dataset/Norder=1/Dir=0", "", [1, 0, None]),  # DESI in HATS: not negated
        (("ZWARN", "ZERR"), "dataset/Norder=1/Dir=0", "_healpix_29", [1, 0, None]),
        (("ZWARN", "ZERR"), ".", "_healpix_29", [1, 0, None]),  # copied out of its catalogue
        (("ZWARN", "ZERR"), ".", "", [None] * 3),  # nobody can tell
        (("ZWARN", "ZERR"), ".", "huggingface _healpix_29", [None] * 3),
    ],
)
def test_the_sense_of_boolean_warnings(
    names: tuple[str, str], folder: str, marks: str, expected: list[int | None], tmp_path: Path
) -> None:
    spectra = mock(3)
    changes: dict[str, Any] = {
        "ZWARNING": None,
        "Z_ERR": None,
    }
    changes |= {names[0]: pa.array([True, False, None]), names[1]: pa.array([0.1, float("nan"), -1.0])}
    changes |= {"_healpix_29": [0, 1, 2]} if "_healpix_29" in marks else {}
    path = tmp_path / folder / "x.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    table = sdss_table(spectra, **changes)
    labels = labels_of(table.replace_schema_metadata({"huggingface": "{}"} if "huggingface" in marks else None), path)
    assert [row["zwarning"] for row in labels] == expected
    said = [item.impossible.get("zwarning") for item in open_file(path).objects() if isinstance(item, Spectrum)]
    assert said == ([True, False, None] if expected == [None] * 3 else [None] * 3), "what is not read is counted"
    assert [row["z_err"] for row in labels] == [0.1, None, None]
    assert open_file(path).survey == ("sdss" if names[0] == "ZWARNING" else "desi")


def test_integer_warnings_keep_their_bits(tmp_path: Path) -> None:
    table = sdss_table(mock(3), ZWARNING=None, ZWARN=pa.array([0, 4, 2048]))
    labels = labels_of(table, tmp_path / "x.parquet")
    assert [row["zwarning"] for row in labels] == [0, 4, 2048]


def test_padding_and_null_pixels_never_become_pixels(tmp_path: Path) -> None:
    (spectrum,) = mock(1)
    table = sdss_table([spectrum], "flat", Z=[-9999.0], CLASS=["b'QSO   '"])
    flux = table["spectrum_flux"].to_pylist()
    flux[0][10] = None
    at = table.column_names.index("spectrum_flux")
    table = table.set_column(at, "spectrum_flux", pa.array(flux, pa.list_(pa.float64())))
    pq.write_table(table, tmp_path / "x.parquet")
    (item,) = open_file(tmp_path / "x.parquet").objects()
    assert isinstance(item, Spectrum)
    np.testing.assert_array_equal(item.wavelength, spectrum.wavelength)
    assert item.mask.tolist() == [i == 10 for i in range(300)] and item.ivar[10] == 0 and np.isnan(item.flux[10])
    assert item.object_id == spectrum.object_id and item.labels["z"] is None


def unusable() -> tuple[pa.Table, int]:
    """Twelve rows, of which five cannot be used: null, padding alone, masked, without position, without id."""
    spectra = mock(12)
    spectra[2].wavelength = np.full(300, -1, np.float32)
    spectra[3].mask = np.ones(300, bool)
    table = sdss_table(spectra)
    valid = pa.array([i != 1 for i in range(12)])
    nulled = pa.StructArray.from_arrays(
        [table["spectrum"].combine_chunks().field(i) for i in range(5)],
        names=["flux", "ivar", "lambda", "mask", "lsf_sigma"], mask=pa.compute.invert(valid),
    )  # fmt: skip
    ra = [370.0 if i == 4 else s.ra for i, s in enumerate(spectra)]
    dec = [-9999.0 if i == 4 else s.dec for i, s in enumerate(spectra)]
    ids = ["b'   '" if i == 5 else s.object_id for i, s in enumerate(spectra)]
    changes = {"spectrum": nulled, "ra": ra, "dec": dec, "object_id": ids}
    for name, values in changes.items():
        table = table.set_column(table.column_names.index(name), name, pa.chunked_array([pa.array(values)]))
    return table, 5


def test_unusable_rows_are_quarantined_with_file_row_and_reason(tmp_path: Path) -> None:
    table, n_bad = unusable()
    (tmp_path / "in").mkdir()
    pq.write_table(sdss_table(mock(3)), tmp_path / "in" / "a.parquet")
    pq.write_table(table, tmp_path / "in" / "b.parquet")
    manifest = build(ShardConfig(), tmp_path / "in", tmp_path / "out", engine=HERE, max_bad_fraction=1)
    assert (manifest.objects, manifest.samples(), manifest.quarantined) == (15, 15 - n_bad, n_bad)
    rows = pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()
    assert [(row["file"], row["row"]) for row in rows] == [("b.parquet", i) for i in range(1, 6)]
    for row, word in zip(rows, ("null", "padding", "masked", "no usable position", "no object_id"), strict=True):
        assert word in row["reason"], row
    with pytest.raises(JobError, match=f"{n_bad} of 15"):
        build(ShardConfig(), tmp_path / "in", tmp_path / "again", engine=HERE)
    # Merged behind another set they keep their places: those are of the table, not of the set.
    (tmp_path / "first").mkdir()
    pq.write_table(sdss_table(mock(4)), tmp_path / "first" / "c.parquet")
    build(ShardConfig(), tmp_path / "first", tmp_path / "before", engine=HERE, allow_empty_split=True)
    remake([tmp_path / "before", tmp_path / "out"], tmp_path / "both", engine=HERE)
    assert pq.read_table(tmp_path / "both" / "quarantine.parquet").to_pylist() == rows


def test_prediction_needs_no_position(tmp_path: Path) -> None:
    table, _ = unusable()
    pq.write_table(table.drop_columns(["ra", "dec"]), tmp_path / "x.parquet")
    batches = list(pictures(tmp_path / "x.parquet", ImageConfig(), 5))
    assert [row["row"] for batch in batches for row in batch.rows] == [0, 4, 6, 7, 8, 9, 10, 11]
    assert [row["row"] for batch in batches for row in batch.quarantine] == [1, 2, 3, 5]


def test_a_hats_collection_gives_each_row_once(tmp_path: Path) -> None:
    spectra = mock(9)
    catalogue, margin = tmp_path / "mmu" / "mmu", tmp_path / "mmu" / "mmu_10arcs"
    for folder, kind in ((catalogue, "object"), (margin, "margin")):
        (folder / "dataset" / "Norder=2" / "Dir=0" / "Npix=7").mkdir(parents=True)
        (folder / "hats.properties").write_text(f"#HATS\nobs_collection=mmu\ndataproduct_type={kind}\n")
        (folder / "skymap.fits").write_bytes(b"SIMPLE")
        (folder / "partition_info.csv").write_text("Norder,Npix\n")
        pq.write_table(sdss_table(spectra[:5]), folder / "dataset" / "Norder=2" / "Dir=0" / "Npix=3.parquet")
    dataset = catalogue / "dataset"
    pq.write_table(sdss_table(spectra[5:], "flat"), dataset / "Norder=2" / "Dir=0" / "Npix=7" / "part0.parquet")
    pq.write_table(sdss_table(spectra[:1]), dataset / "data_thumbnail.parquet")
    pq.write_metadata(sdss_table(spectra[:1]).schema, dataset / "_metadata")
    pq.write_table(sdss_table(spectra[:1]), dataset / "_copy.parquet")
    make_survey("sdss", tmp_path / "out", data=str(tmp_path / "mmu"), workers=0)
    assert drawn(tmp_path / "out" / "shards" / "map2d").keys() == {s.object_id for s in spectra}
    assert Manifest.load(tmp_path / "out" / "shards" / "map2d").objects == 9


def test_the_survey_comes_from_the_columns_and_must_agree(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(sdss_table(mock(3)), path)
    with pytest.raises(UsageError, match="holds spectra of sdss, not of desi"):
        make_survey("desi", tmp_path / "out", data=str(path), workers=0)
    with pytest.raises(BadObjectError, match=r"a sdss file .* in a desi run"):
        open_file(path, "desi")
    pq.write_table(sdss_table(mock(4), survey=["boss  ", "EBOSS", "galah", None]), path)
    assert SpectraFolder.scan(path).surveys == ("galah", "sdss")
    nameless = sdss_table(mock(3), ZWARNING=None, Z_ERR=None)
    pq.write_table(nameless, path)
    assert SpectraFolder.scan(path).surveys == ("unknown",)
    named, other = SpectraFolder.scan(path, "weave"), SpectraFolder.scan(path, "4most")
    assert named.surveys == ("weave",) and named.fingerprint != other.fingerprint
    ((_, block),) = iter_blocks(named)
    assert set(block.meta["survey"].to_pylist()) == {"weave"}
    assert open_file(path, "desi").survey == "desi" and open_file(path).survey == "unknown"


def test_our_own_parquet_is_told_from_theirs(tmp_path: Path) -> None:
    write_parquet(to_table(mock(3)), tmp_path / "x.parquet", {})
    with pytest.raises(BadObjectError, match="shards build --spectra"):
        open_file(tmp_path / "x.parquet")
    make_survey("lamost", tmp_path / "out", data=str(tmp_path / "x.parquet"), workers=0,
                allow_empty_split=True)  # fmt: skip
    assert Manifest.load(tmp_path / "out" / "shards" / "map2d").surveys == ("mock-lamost",)
    pq.write_table(pa.table({"flux": [1.0]}), tmp_path / "y.parquet")
    with pytest.raises(BadObjectError, match="no known layout: parquet of flux"):
        open_file(tmp_path / "y.parquet")


@pytest.mark.parametrize(
    ("name", "values"), [("z", [-1.0, -2.0]), ("redshift", [0.1, 0.2]), ("SPECTYPE", ["QSO"] * 2)]
)
def test_two_columns_of_one_label_are_refused(tmp_path: Path, name: str, values: list[Any]) -> None:
    table = sdss_table(mock(2))
    pq.write_table(table.append_column(name, pa.array(values)), tmp_path / "t.parquet")
    with pytest.raises(
        BadObjectError, match=r"^columns \w+ and \w+ both mean (z|class); rename or drop all but one$"
    ):
        open_file(tmp_path / "t.parquet")


def test_a_survey_that_only_the_columns_tell_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spectra = mock(2)
    table = sdss_table(spectra).drop_columns(["ZWARNING", "Z_ERR"])
    for name, value in {"teff": 5000.0, "logg": 4.5, "feh": -1.0}.items():
        table = table.append_column(name, pa.array([value, value]))
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data" / "t.parquet")
    words = "are taken for lamost by the columns of their table; name the survey to be sure"
    summary = ingest(IngestConfig(), str(tmp_path / "data"), tmp_path / "a", engine=Engine(workers=0))
    assert summary.converted == {words: 2} and f"of 2 samples {words}" in capsys.readouterr().out
    summary = ingest(IngestConfig("lamost"), str(tmp_path / "data"), tmp_path / "b", engine=Engine(workers=0))
    assert summary.converted == {}
    table = table.append_column("survey", pa.array(["nobody"] * 2))
    (tmp_path / "said").mkdir()
    pq.write_table(table, tmp_path / "said" / "t.parquet")
    assert ingest(IngestConfig(), str(tmp_path / "said"), tmp_path / "c", engine=Engine(workers=0)).converted == {}

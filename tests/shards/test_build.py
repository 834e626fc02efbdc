"""The shard job: the account, determinism, resume, split, and other people's readers."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset as wds
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine
from specshards.common.spectrum import LABELS
from specshards.ingest.spectra.blocks import iter_blocks
from specshards.ingest.spectra.folder import SpectraFolder
from specshards.ingest.spectra.schema import healpix_29, to_table, write_parquet
from specshards.render import ImageConfig, renderer
from specshards.shards import __main__ as command
from specshards.shards.format.manifest import (
    NPY_HEADER_BYTES,
    SPLITS,
    LabelStats,
    Manifest,
    ShardConfig,
    combine_stats,
    label_npy,
)
from specshards.shards.write.build import build
from specshards.shards.write.split import assign_splits
from tests.conftest import make_spectrum
from tests.oracles.data_sets import tree

HERE = Engine(workers=0)


@pytest.fixture(scope="module")
def shard_folder(spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "map2d"
    build(ShardConfig(samples_per_shard=60), spectra_folder, out, engine=HERE)
    return out


def samples(folder: Path, split: str) -> Iterator[dict[str, object]]:
    tars = [str(path) for path in sorted((folder / split).glob("*.tar"))]
    yield from wds.WebDataset(tars, shardshuffle=False).decode()


def test_every_object_is_a_sample_or_a_quarantine_row(shard_folder: Path) -> None:
    manifest = Manifest.load(shard_folder)
    assert (manifest.objects, manifest.samples(), manifest.quarantined) == (300, 297, 3)
    quarantine = pq.read_table(shard_folder / "quarantine.parquet").to_pylist()
    assert [row["row"] for row in quarantine] == [5, 120, 299]
    assert all("mask" in row["reason"] and row["stage"] == "render" for row in quarantine)
    keys = [int(sample["__key__"]) for split in SPLITS for sample in samples(shard_folder, split)]
    assert sorted(keys) == sorted(set(range(300)) - {5, 120, 299})
    assert manifest.mock and sum(manifest.class_counts("train").values()) == manifest.samples("train")


def test_webdataset_reads_pictures_and_labels_that_match_the_sidecar(
    shard_folder: Path, spectra_folder: Path
) -> None:
    source = SpectraFolder.scan(spectra_folder)
    drawer = renderer(ImageConfig())
    codes = {}
    for group, block in iter_blocks(source):
        for i in range(len(block)):
            if group.first_row + i not in (5, 120, 299):
                codes[group.first_row + i] = drawer.codes(*block.arrays(i)).copy()
    sidecar = {
        row["key"]: row
        for split in SPLITS
        for path in sorted((shard_folder / split).glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    }
    tars = [str(path) for split in SPLITS for path in sorted((shard_folder / split).glob("*.tar"))]
    seen = 0
    for sample in wds.WebDataset(tars, shardshuffle=False).decode("l8"):
        row = sidecar[sample["__key__"]]
        np.testing.assert_array_equal(sample["png"], codes[row["source_row"]])
        labels = dict(zip(LABELS, sample["npy"], strict=True))
        assert labels["z"] == row["z"] and ("STAR", "GALAXY", "QSO")[int(labels["class"])] == row["class"]
        assert np.isnan(labels["teff"]) and row["teff"] is None
        assert (labels["ra"], labels["dec"]) == (row["ra"], row["dec"])
        seen += 1
    assert seen == 297


def test_bytes_do_not_depend_on_workers_or_interruption(
    spectra_folder: Path, shard_folder: Path, tmp_path: Path
) -> None:
    config = ShardConfig(samples_per_shard=60)
    build(config, spectra_folder, tmp_path / "two", engine=Engine(workers=2))
    assert tree(tmp_path / "two") == tree(shard_folder)
    # What a kill can leave: a missing file, a damaged one, a lost record, a half-written temporary, no manifest.
    tars = sorted((tmp_path / "two" / "train").glob("*.tar"))
    tars[0].unlink()
    damaged = bytearray(tars[1].read_bytes())
    damaged[700] ^= 1
    tars[1].write_bytes(damaged)
    (tmp_path / "two" / ".ledger" / "000002.json").unlink()
    (tmp_path / "two" / "manifest.json").unlink()
    build(config, spectra_folder, tmp_path / "two", engine=HERE)
    assert tree(tmp_path / "two") == tree(shard_folder)


@pytest.mark.parametrize("encoding", ["pnm", "jpeg", "flux"])
def test_bytes_of_every_encoding_do_not_depend_on_workers(
    spectra_folder: Path, tmp_path: Path, encoding: str
) -> None:
    config = ShardConfig(encoding=encoding, samples_per_shard=100)
    for workers in (0, 2):
        build(config, spectra_folder, tmp_path / str(workers), engine=Engine(workers=workers))
    assert tree(tmp_path / "0") == tree(tmp_path / "2")


def test_options_change_what_the_preset_says(spectra_folder: Path, tmp_path: Path) -> None:
    command.build(
        spectra_folder, tmp_path, preset="robust", block=2, order="boustrophedon", channels="derivatives",
        grid="log", scale="linear", encoding="pnm", workers=0,
    )  # fmt: skip
    expected = ImageConfig(limits="percentile", block=2, order="boustrophedon", grid="log",
                           channels=("flux", "derivative", "curvature"))  # fmt: skip
    config = Manifest.load(tmp_path).config
    assert (config.image, config.encoding) == (expected, "pnm")
    with pytest.raises(UsageError, match="unknown channel teff"):
        command.build(spectra_folder, tmp_path / "b", channels="flux,teff,snr", workers=0)
    with pytest.raises(UsageError, match="limits=none"):
        command.build(spectra_folder, tmp_path / "b", limits="none", workers=0)


def test_a_changed_configuration_or_input_is_refused(spectra_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(ShardConfig(), spectra_folder, out, engine=HERE)
    with pytest.raises(UsageError, match=r"seed: 0 -> 1.*FORCE=1"):
        build(ShardConfig(seed=1), spectra_folder, out, engine=HERE)
    before = Manifest.load(out)
    build(ShardConfig(seed=1), spectra_folder, out, engine=HERE, force=True)
    assert Manifest.load(out).fingerprint() != before.fingerprint()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match="not a shard folder"):
        build(ShardConfig(), spectra_folder, tmp_path / "mine", engine=HERE)


def test_too_many_undrawable_spectra_fail_but_say_why(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    spectra = [make_spectrum(i, rng) for i in range(20)]
    for spectrum in spectra[:10]:
        spectrum.mask[:] = True
    (tmp_path / "spectra").mkdir()
    write_parquet(to_table(spectra), tmp_path / "spectra" / "part-00000.parquet", {})
    with pytest.raises(JobError, match="10 of 20 spectra"):
        build(ShardConfig(), tmp_path / "spectra", tmp_path / "out", engine=HERE)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert pq.read_table(tmp_path / "out" / "quarantine.parquet").num_rows == 10


def test_wrong_parquet_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no spectra Parquet"):
        SpectraFolder.scan(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 this is not it")
    with pytest.raises(JobError, match=r"a\.parquet"):
        SpectraFolder.scan(tmp_path)
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    with pytest.raises(JobError, match="no column _healpix_29"):
        SpectraFolder.scan(tmp_path)


def test_split_keeps_close_visits_together_and_its_shares() -> None:
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, 50_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 50_000)))
    config = ShardConfig()
    first = assign_splits(healpix_29(ra, dec), config)
    again = assign_splits(healpix_29(ra + 0.3 / 3600, dec), config)
    # A cell's border runs through a pair 0.3" apart about once in ten thousand.
    assert (first != again).mean() < 5e-4
    shares = np.bincount(first, minlength=3) / len(first)
    np.testing.assert_allclose(shares, config.split, atol=0.02)
    other = assign_splits(healpix_29(ra, dec), ShardConfig(seed=1))
    assert (first != other).mean() > 0.2


def test_repeat_visits_of_real_stars_never_straddle(real_data: Path, tmp_path: Path) -> None:
    from specshards.ingest.job.build import IngestConfig
    from specshards.ingest.job.build import build as ingest

    ingest(IngestConfig("lamost"), str(real_data / "lamost" / "dr8_repeat_visits"), tmp_path, engine=HERE)
    build(ShardConfig(split=(0.5, 0.25, 0.25)), tmp_path / "spectra", tmp_path / "out", engine=HERE)
    place: dict[tuple[float, float], set[str]] = {}
    for split in SPLITS:
        for path in (tmp_path / "out" / split).glob("*.parquet"):
            for row in pq.read_table(path, columns=["ra", "dec"]).to_pylist():
                place.setdefault((round(row["ra"], 3), round(row["dec"], 3)), set()).add(split)
    assert len(place) < 172 and all(len(splits) == 1 for splits in place.values())


def test_label_statistics_are_of_the_train_split(shard_folder: Path) -> None:
    manifest = Manifest.load(shard_folder)
    z = np.array([s["npy"][LABELS.index("z")] for s in samples(shard_folder, "train")])
    stats = manifest.label_stats["z"]
    assert stats.count == len(z) == manifest.samples("train")
    np.testing.assert_allclose([stats.mean, stats.std, stats.min, stats.max], [z.mean(), z.std(), z.min(), z.max()])
    assert manifest.label_stats["teff"].count == 0 and np.isnan(manifest.label_stats["teff"].mean)


def test_manifest_round_trip_and_newer_version(shard_folder: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(shard_folder)
    assert manifest.dumps() == (shard_folder / "manifest.json").read_text()
    content = json.loads(manifest.dumps())
    content["format_version"] = 2
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(JobError, match="version 2"):
        Manifest.load(tmp_path)
    with pytest.raises(UsageError, match="make shards"):
        Manifest.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("place", "key"),
    [
        (lambda content: content, "cadence"),
        (lambda content: content["config"], "config.cadence"),
        (lambda content: content["config"]["image"], "config.image.cadence"),
        (lambda content: content["shards"][-1], "shards.cadence"),
        (lambda content: content["label_stats"]["z"], "label_stats.cadence"),
    ],
)
def test_a_key_of_a_newer_program_is_named(
    shard_folder: Path, tmp_path: Path, place: Callable[[dict[str, Any]], dict[str, Any]], key: str
) -> None:
    content = json.loads((shard_folder / "manifest.json").read_text())
    content["program_version"] = "9.0"
    place(content)["cadence"] = 1
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    said = rf": {re.escape(key)} is a key of a newer version \(written by 9\.0, .*; update this program$"
    with pytest.raises(JobError, match=said):
        Manifest.load(tmp_path)


@given(st.lists(hnp.arrays(np.float64, st.integers(0, 20), elements=st.floats(-1e3, 1e3)), min_size=1, max_size=5))
def test_statistics_of_parts_combine_to_those_of_the_whole(parts: list[np.ndarray]) -> None:
    stats = [LabelStats(len(p), p.mean(), p.std(), p.min(), p.max()) if len(p) else combine_stats([]) for p in parts]
    whole, combined = np.concatenate(parts), combine_stats(stats)
    assert combined.count == len(whole)
    if len(whole):
        np.testing.assert_allclose(
            [combined.mean, combined.std, combined.min, combined.max],
            [whole.mean(), whole.std(), whole.min(), whole.max()], rtol=1e-9, atol=1e-6,
        )  # fmt: skip


def test_label_vector_has_the_fixed_header() -> None:
    vector = np.arange(float(len(LABELS)))
    payload = label_npy(vector)
    assert len(payload) == NPY_HEADER_BYTES + 8 * len(LABELS)
    np.testing.assert_array_equal(np.load(io.BytesIO(payload), allow_pickle=False), vector)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoding": "gif"}, "unknown ENCODING=gif"),
        ({"jpeg_quality": 80}, "jpeg_quality=80"),
        ({"split": (0.5, 0.5, 0.5)}, "add up to 1"),
        ({"split_nside": 63}, "power of two"),
        ({"samples_per_shard": 0}, "samples_per_shard=0"),
    ],
)
def test_impossible_configurations_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ShardConfig(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["png", "pnm", "jpeg", "flux"])
def test_nothing_about_the_label_reaches_the_picture(tmp_path: Path, encoding: str) -> None:
    rng = np.random.default_rng(2)
    honest = [make_spectrum(i, rng) for i in range(30)]
    other = [
        replace(
            s, object_id=f"9{s.object_id}", source_file=f"QSO-z{i}.fits",
            labels={"class": "QSO", "z": 0.5 + i, "teff": 4000.0 + i}, label_source="catalogue",
        )
        for i, s in enumerate(honest)
    ]  # fmt: skip
    payloads = []
    for name, spectra in (("honest", honest), ("other", other)):
        (tmp_path / name).mkdir()
        write_parquet(to_table(spectra), tmp_path / name / "part.parquet", {}, row_group_rows=10)
        out = tmp_path / f"{name}-shards"
        build(ShardConfig(encoding=encoding), tmp_path / name, out, engine=HERE)
        extension = {"png": "png", "pnm": "pgm", "jpeg": "jpg", "flux": "flux.npy"}[encoding]
        tars = [str(path) for path in sorted(out.glob("*/*.tar"))]
        payloads.append({s["__key__"]: s[extension] for s in wds.WebDataset(tars, shardshuffle=False)})
    assert len(payloads[0]) == 30 and payloads[0] == payloads[1]


def test_too_many_bad_objects_say_what_is_wrong_with_most(spectra_folder: Path, tmp_path: Path) -> None:
    config = ShardConfig(image=ImageConfig(size=32))
    with pytest.raises(
        JobError, match=r"300 of 300 .* 297 times: 3909 pixels do not fit 10 x 10 cells; take --grid log"
    ):
        build(config, spectra_folder, tmp_path / "small", engine=HERE)
    assert not (tmp_path / "small" / "manifest.json").exists()

"""Vectors of spectra, their nearest neighbours, and what stands apart."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specshards.common.errors import JobError, UsageError
from specshards.common.quarantine import QUARANTINE_SCHEMA
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.render import ImageConfig
from specshards.shards.format.manifest import Manifest
from specshards.train.network import open_model
from specshards.train.use import embed as embed_module
from specshards.train.use import neighbours as neighbours_module
from specshards.train.use.neighbours import Scratch, Search
from specshards.train.use.pictures import pictures
from specshards.train.use.predict import predict
from tests.conftest import make_spectrum
from tests.oracles.small_run import IMAGE, small_run, small_shards

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shards(spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_shards(spectra_folder, tmp_path_factory.mktemp("embed") / "shards")


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(shards, tmp_path_factory.mktemp("embed") / "run")


def embed(*args, **options) -> pa.Table:
    return pq.read_table(embed_module.embed(*args, **options))


def vectors(table: pa.Table) -> np.ndarray:
    return np.array(table["embedding"].to_pylist())


def by_hand(queries: np.ndarray, others: np.ndarray, themselves: bool) -> np.ndarray:
    """Cosine distances of every pair, float64, infinite for an object and itself."""
    a, b = (x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1)[:, None] for x in (queries, others))
    distances = 1 - a @ b.T
    if themselves:
        np.fill_diagonal(distances, np.inf)
    return distances


def searched(queries, others, k: int, themselves: bool, **options) -> tuple[np.ndarray, np.ndarray]:
    rows, distances = zip(*Search(queries, others, k, themselves, **options).blocks(), strict=True)
    return np.concatenate(rows), np.concatenate(distances)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.booleans(), st.integers(0, 2**31))
def test_neighbours_are_those_of_a_brute_force(n: int, m: int, k: int, themselves: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries = rng.normal(size=(n, 5)).astype(np.float32)
    others = queries if themselves else rng.normal(size=(m, 5)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:  # blocks that end anywhere
        patch.setattr(neighbours_module, "BLOCK", 7)
        patch.setattr(neighbours_module, "_OTHERS", 11)
        rows, distances = searched(queries, others, k, themselves)
    exact = by_hand(queries, others, themselves)
    there = min(k, len(others) - themselves)
    assert rows.shape == distances.shape == (n, there)
    np.testing.assert_allclose(distances, np.sort(exact, axis=1)[:, :there], atol=1e-6)
    np.testing.assert_allclose(distances, np.take_along_axis(exact, rows, axis=1), atol=1e-12)
    assert all(len(set(row)) == there for row in rows.tolist())


@pytest.mark.parametrize("spread", [1e-2, 1e-4])
def test_vectors_that_are_much_alike_have_their_true_neighbours(spread: float) -> None:
    rng = np.random.default_rng(3)
    vectors = (rng.normal(size=24) + spread * rng.normal(size=(3000, 24))).astype(np.float32)
    unit = vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    distances = 1 - unit @ unit.T
    np.fill_diagonal(distances, np.inf)
    true = np.sort(distances, axis=1)[:, :5]
    for exact in (True, False):
        search = Search(vectors, vectors, 5, themselves=True, exact=exact, threads=1)
        found = np.concatenate([each for _, each in search.blocks()])
        close = np.abs(found - true) <= 1e-5 * true + 1e-13
        assert close.all() if exact else close.mean() > 0.9
    assert search.recall()[1] == pytest.approx(close.all(axis=1).mean(), abs=0.1)


def test_equal_vectors_are_at_distance_zero() -> None:
    same = np.ones((4, 3), np.float32) * np.array([[1.0], [2.0], [5.0], [0.1]], np.float32)
    for exact in (True, False):
        rows, distances = searched(same, same, 2, True, exact=exact)
        assert distances.max() < 1e-12 and all(i not in row for i, row in enumerate(rows.tolist()))


@pytest.mark.parametrize(("n", "m", "k"), [(5000, None, 5), (700, 5000, 3), (1, None, 5), (3, None, 5), (40, 2, 5)])
def test_the_index_finds_what_an_exact_search_finds(n: int, m: int | None, k: int) -> None:
    rng = np.random.default_rng(n)
    basis = rng.normal(size=(6, 40))
    queries, others = (
        (3 + np.tanh(rng.normal(size=(size, 6)) @ basis) + rng.normal(scale=0.02, size=(size, 40))).astype(np.float32)
        for size in (n, m or n)
    )
    others = queries if m is None else others
    rows, distances = searched(queries, others, k, m is None, exact=False, threads=1)
    again = searched(queries, others, k, m is None, exact=False, threads=1)
    exact_rows, exact_distances = searched(queries, others, k, m is None, exact=True)
    assert rows.shape == exact_rows.shape and (rows == again[0]).all()
    assert (distances >= exact_distances - 1e-6).all()  # distances are those of the vectors, whoever finds them
    if rows.size:
        found = (distances <= exact_distances[:, -1:] + 1e-7).mean()
        assert found > 0.97
        drawn, recall = Search(queries, others, k, m is None, exact=False, threads=1).recall()
        assert drawn == min(n, 512) and recall > 0.97


def test_many_equal_vectors_have_neighbours_all_the_same() -> None:
    rng = np.random.default_rng(1)
    few = rng.normal(size=(3, 8)).astype(np.float32)
    many = few[rng.integers(0, 3, 2500)]
    rows, distances = searched(many, many, 5, True, exact=False, threads=1)  # several may miss some
    assert all(len(set(row)) == 5 and i not in row for i, row in enumerate(rows.tolist()))
    assert distances.max() < 1e-6


def test_an_embedding_is_what_the_last_layer_sees(run: Path, spectra_folder: Path, tmp_path: Path) -> None:
    table = embed(run, spectra_folder, out=tmp_path / "e.parquet", device="cpu", batch_size=50)
    assert table.num_rows == 297 and table.schema.field("embedding").type == pa.list_(pa.float32(), 96)
    assert pq.read_table(tmp_path / "e.parquet").equals(table)
    card, model = open_model(run)
    model.eval()
    (batch,) = pictures(spectra_folder, IMAGE, 400)
    with torch.inference_mode():
        expected = model(torch.from_numpy(batch.pixel_values).permute(0, 3, 1, 2))
        logits = model.network.classifier(torch.from_numpy(vectors(table).astype(np.float32)))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert table["object_id"].to_pylist() == [row["object_id"] for row in batch.rows]
    assert set(table["trained_on_mock"].to_pylist()) == {True} and table["model"][0].as_py() == card.model[:16]
    assert pq.read_table(tmp_path / "e_quarantine.parquet").num_rows == 3


def test_everybody_writes_one_quarantine(run: Path, shards: Path, spectra_folder: Path, tmp_path: Path) -> None:
    embed(run, spectra_folder, out=tmp_path / "e.parquet", device="cpu")
    predict(run, spectra_folder, out=tmp_path / "p.parquet", device="cpu")
    embedded, predicted, unshown = (
        pq.read_table(path)
        for path in (
            tmp_path / "e_quarantine.parquet",
            tmp_path / "p_quarantine.parquet",
            shards / "quarantine.parquet",
        )
    )
    assert embedded.schema.equals(QUARANTINE_SCHEMA) and unshown.schema.equals(QUARANTINE_SCHEMA)
    assert predicted.equals(embedded) and len(predicted) == len(unshown) == 3
    places = list(zip(predicted["file"].to_pylist(), predicted["row"].to_pylist(), strict=True))
    assert places == sorted(places)


def test_the_table_holds_the_neighbours(run: Path, spectra_folder: Path, tmp_path: Path) -> None:
    table = embed(run, spectra_folder, out=tmp_path / "e.parquet", neighbours=4, device="cpu")
    names = np.array(table["object_id"].to_pylist())
    exact = by_hand(vectors(table), vectors(table), True)
    order = np.sort(exact, axis=1)[:, :4]
    np.testing.assert_allclose(np.array(table["distances"].to_pylist()), order, atol=1e-6)
    np.testing.assert_allclose(table["anomaly"].to_numpy(), order.mean(axis=1), atol=1e-6)
    for i, found in enumerate(table["neighbours"].to_pylist()):
        assert names[i] not in found and len(set(found)) == 4
        places = [int(np.flatnonzero(names == name)[0]) for name in found]
        np.testing.assert_allclose(exact[i, places], order[i], atol=1e-6)


def test_shards_and_spectra_give_the_same_vectors(
    run: Path, shards: Path, spectra_folder: Path, tmp_path: Path
) -> None:
    spectra = embed(run, spectra_folder, out=tmp_path / "e.parquet", device="cpu")
    found = dict(zip(spectra["object_id"].to_pylist(), vectors(spectra), strict=True))
    manifest = Manifest.load(shards)
    for split in ("train", "val", "test"):
        # A batch size that leaves padding in the last batch.
        table = embed(run, shards, split=split, out=tmp_path / "s.parquet", device="cpu", batch_size=13, threads=1)
        assert table.num_rows == manifest.samples(split) == len(set(table["object_id"].to_pylist()))
        expected = np.array([found[name] for name in table["object_id"].to_pylist()])
        np.testing.assert_allclose(vectors(table), expected, rtol=1e-3, atol=1e-4)


def test_an_index_is_told_with_what_it_misses(
    run: Path, spectra_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    exact = embed(run, spectra_folder, out=tmp_path / "a.parquet", device="cpu")
    monkeypatch.setattr(neighbours_module, "EXACT_UP_TO", 100)
    monkeypatch.setattr(neighbours_module, "BLOCK", 16)
    monkeypatch.setattr(embed_module, "BLOCK", 16)
    monkeypatch.setattr(embed_module, "_ROWS", 64)
    indexed = embed(run, spectra_folder, out=tmp_path / "b.parquet", device="cpu", batch_size=50, threads=1)
    np.testing.assert_allclose(vectors(indexed), vectors(exact), rtol=1e-3, atol=1e-4)
    assert indexed["object_id"].equals(exact["object_id"]) and indexed.schema.equals(exact.schema)
    near, nearest = (np.array(table["distances"].to_pylist()) for table in (indexed, exact))
    np.testing.assert_allclose(near, nearest, atol=1e-6)
    assert "by an index, which found 9" in caplog.text or "by an index, which found 100.0%" in caplog.text
    assert pq.ParquetFile(tmp_path / "b.parquet").num_row_groups == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.parquet", "a_quarantine.parquet", "b.parquet", "b_quarantine.parquet",
    ]  # fmt: skip


def test_memory_does_not_grow_with_the_vectors(tmp_path: Path) -> None:
    with Scratch(tmp_path / "vectors") as scratch:
        for _ in range(20):
            scratch.append(np.random.default_rng(0).normal(size=(5000, 64)).astype(np.float32))
        mapped = scratch.vectors()
        assert isinstance(mapped, np.memmap) and mapped.shape == (100_000, 64)
        tracemalloc.start()
        next(Search(mapped, mapped, 5, True).blocks())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < mapped.nbytes / 2 and not (tmp_path / "vectors").exists()


def odd_ones(rng: np.random.Generator) -> list:
    """A spectrum with its pixels in disorder, and one upside down."""
    scrambled = make_spectrum(3001, rng, object_id="scrambled")
    scrambled.flux[:] = rng.permutation(scrambled.flux)
    flipped = make_spectrum(3002, rng, object_id="flipped")
    flipped.flux[:] = 200 - flipped.flux
    return [scrambled, flipped]


def test_odd_spectra_stand_apart(run: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    spectra = [make_spectrum(2000 + i, rng) for i in range(90)] + odd_ones(rng)
    write_parquet(to_table(spectra), tmp_path / "part-00000.parquet", {})
    table = embed(run, tmp_path, out=tmp_path / "out" / "e.parquet", device="cpu")
    order = table.sort_by([("anomaly", "descending")])["object_id"].to_pylist()
    assert set(order[:2]) == {"scrambled", "flipped"}


def test_neighbours_in_a_reference(run: Path, shards: Path, tmp_path: Path) -> None:
    reference = tmp_path / "train.parquet"
    known = embed(run, shards, split="train", out=reference, device="cpu", threads=1)
    rng = np.random.default_rng(4)
    (tmp_path / "new").mkdir()
    write_parquet(to_table([make_spectrum(7, rng), *odd_ones(rng)]), tmp_path / "new" / "part-00000.parquet", {})
    table = embed(run, tmp_path / "new", reference=reference, out=tmp_path / "e.parquet", neighbours=3, device="cpu")
    exact = np.sort(by_hand(vectors(table), vectors(known), False), axis=1)[:, :3]
    np.testing.assert_allclose(np.array(table["distances"].to_pylist()), exact, atol=1e-6)
    assert {name for row in table["neighbours"].to_pylist() for name in row} <= set(known["object_id"].to_pylist())
    anomaly = table["anomaly"].to_pylist()
    assert anomaly[0] < min(anomaly[1:])
    card = json.loads((run / "specshards.json").read_text())
    other = known.set_column(known.column_names.index("model"), "model", pa.array(["0" * 16] * len(known)))
    pq.write_table(other, tmp_path / "other.parquet")
    assert card["model"][:16] != "0" * 16
    with pytest.raises(UsageError, match="of another model"):
        embed(run, tmp_path / "new", reference=tmp_path / "other.parquet", device="cpu")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "wrong.parquet")
    with pytest.raises(UsageError, match="not a table that `embed` wrote"):
        embed(run, tmp_path / "new", reference=tmp_path / "wrong.parquet", device="cpu")


def test_a_lonely_object_has_no_neighbours(run: Path, tmp_path: Path) -> None:
    write_parquet(to_table([make_spectrum(0, np.random.default_rng(0))]), tmp_path / "part-00000.parquet", {})
    (row,) = embed(run, tmp_path, out=tmp_path / "out.parquet", device="cpu").to_pylist()
    assert row["neighbours"] == [] and row["anomaly"] is None and len(row["embedding"]) == 96


def test_mistakes_are_one_line(run: Path, shards: Path, spectra_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.parquet"):
        embed(run, spectra_folder, out=tmp_path / "e.csv")
    with pytest.raises(UsageError, match="--neighbours 0"):
        embed(run, spectra_folder, neighbours=0)
    with pytest.raises(UsageError, match="unknown split all"):
        embed(run, shards, split="all", device="cpu")
    with pytest.raises(UsageError, match="no such file"):
        embed(run, shards, reference=tmp_path / "none.parquet")
    other = small_shards(spectra_folder, tmp_path / "simple", ImageConfig(image="simple", size=80))
    with pytest.raises(UsageError, match="holds pictures that are drawn already"):
        embed(run, other, device="cpu")
    (tmp_path / "notes.fits").write_text("no FITS here")
    with pytest.raises(JobError, match=r"no object of 1 could be read \(notes.fits"):
        embed(run, tmp_path / "notes.fits", out=tmp_path / "e.parquet", device="cpu")

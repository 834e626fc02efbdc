"""A single deep field, and other data sets that a coarse split leaves without validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine
from specshards.common.sky import LINK_ARCSEC
from specshards.ingest.spectra.schema import healpix_29, to_table, write_parquet
from specshards.shards.check.verify import verify
from specshards.shards.format.manifest import SPLITS, Manifest, ShardConfig
from specshards.shards.write.build import build
from specshards.shards.write.cells import FINEST, fine_enough
from specshards.shards.write.reshard import remake
from specshards.shards.write.split import assign_splits
from tests.conftest import make_spectrum
from tests.oracles.data_sets import tree

HERE = Engine(workers=0)


def field(count: int, width: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Positions within a square of some degrees."""
    rng = np.random.default_rng(seed)
    return 53.1 + rng.uniform(0, width, count), -27.8 + rng.uniform(0, width, count)


def spectra_at(path: Path, ra: np.ndarray, dec: np.ndarray, first: int = 0) -> None:
    rng = np.random.default_rng(first)
    made = [make_spectrum(first + i, rng, n=800) for i in range(len(ra))]
    made = [replace(s, ra=float(a), dec=float(d)) for s, a, d in zip(made, ra, dec, strict=True)]
    path.parent.mkdir(exist_ok=True, parents=True)
    write_parquet(to_table(made), path, {}, row_group_rows=20)


def counts(manifest: Manifest) -> list[int]:
    return [manifest.samples(split) for split in SPLITS]


def once(healpix: np.ndarray) -> Callable[[], Iterator[pa.Table]]:
    return lambda: (pa.table({"_healpix_29": part}) for part in np.array_split(healpix, 3))


def test_a_deep_field_is_divided_as_the_split_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ra, dec = field(199, 0.2)
    # The second visit of every fifth object.
    ra, dec = np.concatenate([ra, ra[::5]]), np.concatenate([dec, dec[::5] + 0.5 / 3600])
    assert len(set(assign_splits(healpix_29(ra, dec), ShardConfig()))) == 1
    spectra_at(tmp_path / "spectra" / "a.parquet", ra, dec)
    made = build(ShardConfig(), tmp_path / "spectra", tmp_path / "out", engine=HERE)
    said = capsys.readouterr()
    assert "those of 0.92 degrees would give val 0 of 239 objects" in said.out + said.err
    train, val, test = counts(made)
    assert val >= 12 and test >= 12 and train > 100 and made.config.split_nside > 64
    assert [check.detail for check in verify(tmp_path / "out", deep=True, engine=HERE) if not check.passed] == []
    # Again, by workers, and after a stop: the same bytes.
    build(ShardConfig(), tmp_path / "spectra", tmp_path / "other", engine=Engine(workers=2))
    assert tree(tmp_path / "other") == tree(tmp_path / "out")
    (tmp_path / "out" / "manifest.json").unlink()
    assert build(ShardConfig(), tmp_path / "spectra", tmp_path / "out", engine=HERE).dumps() == made.dumps()
    # What comes later, all over the sky, keeps what is there.
    before = tree(tmp_path / "out")
    rng = np.random.default_rng(5)
    spectra_at(tmp_path / "spectra" / "b.parquet", rng.uniform(0, 360, 40), rng.uniform(-60, 60, 40), 500)
    grown = build(ShardConfig(), tmp_path / "spectra", tmp_path / "out", engine=HERE)
    assert grown.config == made.config and grown.samples() == made.samples() + 40
    kept = {name: digest for name, digest in before.items() if name.split("/")[0] in SPLITS}
    assert kept.items() < tree(tmp_path / "out").items()
    # A copy of it is split as it was.
    copied = remake([tmp_path / "other"], tmp_path / "copy", encoding="pnm", engine=HERE)
    assert counts(copied) == [train, val, test] and copied.config.split_nside == made.config.split_nside


def test_an_empty_split_is_refused_unless_asked(tmp_path: Path) -> None:
    # One object many times: there is nothing to divide.
    ra, dec = np.full(30, 53.1), np.full(30, -27.8)
    spectra_at(tmp_path / "spectra" / "a.parquet", ra, dec)
    with pytest.raises(UsageError, match=r"split of 30 objects would be empty; .*--allow-empty-split"):
        build(ShardConfig(), tmp_path / "spectra", tmp_path / "out", engine=HERE)
    assert not (tmp_path / "out").exists()
    made = build(ShardConfig(), tmp_path / "spectra", tmp_path / "out", engine=HERE, allow_empty_split=True)
    assert made.config.split_nside == 64 and sorted(counts(made)) == [0, 0, 30]
    made = build(ShardConfig(split=(1, 0, 0)), tmp_path / "spectra", tmp_path / "all", engine=HERE)
    assert counts(made) == [30, 0, 0]
    with pytest.raises(UsageError, match="would be empty"):
        remake([tmp_path / "all"], tmp_path / "again", split=(0.5, 0.25, 0.25), engine=HERE)


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_objects_than_splits_need_a_word(tmp_path: Path, count: int) -> None:
    spectra_at(tmp_path / "spectra" / "a.parquet", *field(count, 30.0))
    with pytest.raises(UsageError, match=f"split of {count} objects would be empty"):
        build(ShardConfig(), tmp_path / "spectra", tmp_path / "out", engine=HERE)
    made = build(ShardConfig(), tmp_path / "spectra", tmp_path / "out", engine=HERE, allow_empty_split=True)
    assert made.samples() == count


def test_objects_that_cannot_be_drawn_may_leave_a_split_empty(tmp_path: Path) -> None:
    ra, dec = np.random.default_rng(2).uniform(0, 60, (2, 40))
    splits = assign_splits(healpix_29(ra, dec), ShardConfig())
    assert set(splits) == {0, 1, 2}
    rng = np.random.default_rng(0)
    made = [make_spectrum(i, rng, n=800, ra=float(ra[i]), dec=float(dec[i])) for i in range(40)]
    for i in np.flatnonzero(splits == 1):
        made[i].mask[:] = True
    (tmp_path / "spectra").mkdir()
    write_parquet(to_table(made), tmp_path / "spectra" / "a.parquet", {}, row_group_rows=20)
    with pytest.raises(JobError, match=r"the val split of .* samples is empty"):
        build(ShardConfig(), tmp_path / "spectra", tmp_path / "out", engine=HERE, max_bad_fraction=1.0)
    assert not (tmp_path / "out" / "manifest.json").exists()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(10, 3000))
def test_a_survey_keeps_the_usual_cells(seed: int, count: int) -> None:
    """All over the sky, every object in a cell of its own: cells are finer only where a split would be empty."""
    rng = np.random.default_rng(seed)
    healpix = healpix_29(rng.uniform(0, 360, count), np.degrees(np.arcsin(rng.uniform(-1, 1, count))))
    config = ShardConfig(seed=seed)
    chosen = fine_enough(config, once(healpix), "x", allow_empty=True)
    assert chosen == config
    if count >= 200:
        assert fine_enough(config, once(healpix), "x") == config


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.sampled_from([0.02, 0.1, 0.3, 1.0]), st.integers(100, 2000))
@example(seed=516, width=0.02, count=100)
def test_a_field_of_any_size_gets_every_split(seed: int, width: float, count: int) -> None:
    healpix = healpix_29(*field(count, width, seed))
    try:
        chosen = fine_enough(ShardConfig(seed=seed), once(healpix), "x")
    except UsageError:  # a field of a few dozen of the finest cells, none of which falls to one of the splits
        assert width < 0.1
        for nside in (64 << power for power in range(9)):
            assert (
                np.bincount(assign_splits(healpix, ShardConfig(seed=seed, split_nside=nside)), minlength=3).min() == 0
            )
        return
    found = np.bincount(assign_splits(healpix, chosen), minlength=3)
    assert found.min() >= 1 and 64 <= chosen.split_nside <= FINEST
    # A cell stays much wider than what visits of one object may lie apart.
    assert 58.6 * 3600 / chosen.split_nside > 6 * LINK_ARCSEC

"""The page of data sets of every encoding, and of those with nothing to show; what it says of loading them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specshards.common.jobs import Engine
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.ingest.surveys.multimodal_universe import NO_IVAR
from specshards.render import renderer
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.loader.dali import dali_is_here
from specshards.shards.report.page import page
from specshards.shards.report.snippets import FOLDER, snippets
from specshards.shards.write.build import build
from tests.conftest import make_spectrum
from tests.oracles.report_page import Page, sidecars

HERE = Engine(workers=0)


def test_flux_shards_bring_their_spectra(sets: Callable[[str], Path]) -> None:
    folder = sets("flux")
    text = page(folder, Manifest.load(folder))
    assert text.count('class="middle"') == 60 and "Share of 297 spectra, of 297, drawn at random" in text
    assert "Teff: none of the objects has one." in text and ">redshift<" in text
    shown = Page(text).tables["wavelengths by survey"]
    assert shown[1][0] == "mock-lamost" and shown[1][2].startswith("3,700 ") and shown[1][5] == "100.0%"
    assert 'role="note"><strong>MOCK data.' in text


def test_no_label_and_no_sample_at_all(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    without = {"labels": {}, "ivar": np.full(900, np.nan, np.float32), "layout": f"lamost{NO_IVAR}"}  # no S/N either
    bare = [make_spectrum(i, rng, n=900, survey="lamost", **without) for i in range(12)]
    for name in ("spectra", "none"):
        (tmp_path / name).mkdir()
    write_parquet(to_table(bare), tmp_path / "spectra" / "a.parquet", {})
    masked = [make_spectrum(i, rng, n=900, mask=np.ones(900, bool)) for i in range(5)]
    write_parquet(to_table(masked), tmp_path / "none" / "a.parquet", {})
    build(ShardConfig(), tmp_path / "spectra", tmp_path / "bare", engine=HERE)
    text = page(tmp_path / "bare", Manifest.load(tmp_path / "bare"))
    for title in ("redshift", "median S/N per pixel", "Teff"):
        assert f"{title}: none of the objects has one." in text
    assert not re.search(
        r"\bnan\b", re.sub(r"base64,[^\"]*", "", text.partition("<h3>This program")[0]), re.IGNORECASE
    )
    build(
        ShardConfig(), tmp_path / "none", tmp_path / "empty", engine=HERE, max_bad_fraction=1, allow_empty_split=True
    )
    text = page(tmp_path / "empty", Manifest.load(tmp_path / "empty"))
    assert "5 spectra = 0 samples + 5 in quarantine" in text and "No spectrum could be read." in text


def test_a_page_stays_small_whatever_is_stored(sets: Callable[[str], Path]) -> None:
    folder = sets("jpeg")
    text = page(folder, Manifest.load(folder))
    assert 12 <= text.count("data:image/jpeg;base64,") == text.count("<article") <= 60
    assert len(text) < 1_500_000


@pytest.mark.parametrize("encoding", list(ENCODINGS))
def test_what_is_said_of_loading_runs(sets: Callable[[str], Path], encoding: str) -> None:
    folder = sets(encoding)
    manifest = Manifest.load(folder)
    said = snippets(manifest)
    rows = {row["key"]: row for split, row in sidecars(folder) if split == "train"}

    def run(name: str) -> dict[str, Any]:
        scope: dict[str, Any] = {}
        exec(compile(said[name].replace(FOLDER, str(folder)), name, "exec"), scope)
        return scope

    ours = run("This program")["batch"]
    assert ours["pixel_values"].shape == (64, 3, 224, 224) and ours["key"][0].partition("/")[2] in rows
    theirs = run("webdataset")
    row = rows[theirs["key"]]
    assert theirs["labels"]["z"] == row["z"] and theirs["labels"]["ra"] == row["ra"]
    if not dali_is_here():
        pytest.skip("NVIDIA DALI is not installed")
    dali = run("NVIDIA DALI")
    first = np.asarray(dali["values"].at(0))
    assert first.shape == (len(manifest.labels),) and first[manifest.labels.index("ra")] in {
        r["ra"] for r in rows.values()
    }
    kind = ENCODINGS[encoding](renderer(manifest.config.image))
    if kind.shape is None:
        assert len(dali["spectra"]) == 64 and len(dali["spectra"][0][0]) == 3909
    elif kind.inflates:
        assert len(dali["codes"]) == 64 and dali["codes"][0].shape == kind.shape
    else:
        assert np.asarray(dali["pictures"].at(0)).squeeze().shape == kind.shape

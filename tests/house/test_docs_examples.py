"""What the pages promise beside commands: the reader in 40 lines, the example of a survey, figures, names, links."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import json
import re
import subprocess
import sys
import tarfile
import tomllib
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from astropy.io import fits

from specshards.benchmarks.plan import figures
from specshards.common.jobs import Engine
from specshards.ingest.spectra.schema import PROGRAM_VERSION, to_table, write_parquet
from specshards.ingest.surveys import SURVEYS, open_file
from specshards.render import ImageConfig
from specshards.shards import loader
from specshards.shards.format.manifest import SPLITS, Manifest, ShardConfig
from specshards.shards.write.build import build
from tests.conftest import ROOT, make_spectrum

HERE = Engine(workers=0)
READER = ROOT / "docs" / "examples" / "read_shards.py"
RGB = ImageConfig(channels=("flux", "derivative", "curvature"))
#: Data sets of every encoding, and of every way from codes to RGB.
SETS = {
    "png": ShardConfig(),
    "pnm": ShardConfig(encoding="pnm"),
    "lz4": ShardConfig(encoding="lz4"),
    "jpeg": ShardConfig(encoding="jpeg"),
    "flux": ShardConfig(encoding="flux"),
    "rgb png": ShardConfig(image=RGB),
    "rgb pnm": ShardConfig(image=RGB, encoding="pnm"),
    "red": ShardConfig(image=ImageConfig(channels=("flux", "none", "none"))),
    "simple": ShardConfig(image=ImageConfig(image="simple")),
    "overlap": ShardConfig(image=ImageConfig(image="overlap"), encoding="pnm"),
    "fixed": ShardConfig(image=ImageConfig(limits="fixed", flux_min=-40, flux_max=200)),
    "fixed asinh": ShardConfig(image=ImageConfig(limits="fixed", scale="asinh", flux_min=-40, flux_max=200)),
}


def block(page: str, language: str, containing: str) -> str:
    text = (ROOT / "docs" / page).read_text()
    return next(code for code in re.findall(rf"```{language}\n(.*?)```", text, re.S) if containing in code)


# The format's page, and the reader that was written from it


@pytest.fixture(scope="module")
def reader() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("read_shards", READER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def spectra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Spectra on a grid with coefficients, on one without, and one that cannot be drawn."""
    folder = tmp_path_factory.mktemp("spectra")
    rng = np.random.default_rng(3)
    made = [make_spectrum(i, rng) for i in range(40)]
    made = [replace(s, wave_coeff0=None, wave_coeff1=None) if i >= 20 else s for i, s in enumerate(made)]
    made[7].mask[:] = True
    made[8].flux[100], made[8].ivar[100], made[8].mask[100] = np.nan, 0, True
    made[9].labels["class"] = None
    write_parquet(to_table(made), folder / "part.parquet", {}, row_group_rows=10)
    return folder


@pytest.fixture(scope="module")
def sets(spectra: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("sets")
    for name, config in SETS.items():
        build(replace(config, samples_per_shard=20, split=(0.6, 0.2, 0.2)), spectra, out / name, engine=HERE)
    return {name: out / name for name in SETS}


def test_the_reader_is_short_and_needs_numpy_alone() -> None:
    text = READER.read_text()
    assert text.count("\n") <= 40
    tree = ast.walk(ast.parse(text))
    found = {
        name.partition(".")[0]
        for node in tree
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
        if name
    }
    assert found - set(sys.stdlib_module_names) == {"numpy"}


def painted(codes: np.ndarray[Any, Any], image: dict[str, Any]) -> np.ndarray[Any, Any]:
    """RGB of codes `(H, W, 1 or 3)`, as the section "From codes to RGB" has it."""
    if image["image"] != "map2d":
        return np.broadcast_to(codes, (*codes.shape[:2], 3))
    size, block = image["size"], image["block"]
    blank = np.zeros(3, np.uint8)
    if len(image["channels"]) == 1:
        table = mpl.colormaps[image["colormap"]](range(256), bytes=True)[:, :3]
        codes, blank = table[codes[..., 0]], table[code_of_zero(image)]
    elif codes.shape[2] == 1:
        codes = codes * np.array([name == "flux" for name in image["channels"]], np.uint8)
    picture = np.broadcast_to(blank, (size, size, 3)).copy()
    cells = codes.repeat(block, axis=0).repeat(block, axis=1)
    picture[: len(cells), : len(cells)] = cells
    return picture


def code_of_zero(image: dict[str, Any]) -> int:
    if image["limits"] != "fixed":
        return 0
    share = np.float32((0 - image["flux_min"]) / (image["flux_max"] - image["flux_min"]))
    if image["scale"] == "linear":
        return int(np.clip(share * np.float32(256), 0, 255))
    a = image["softening"]
    levels = a * np.sinh(np.arange(1, 256) / 256 * np.arcsinh(1 / a))
    return int((levels.astype(np.float32) <= share).sum())


@pytest.mark.parametrize("name", SETS)
def test_a_reader_of_the_page_alone_sees_what_the_loader_sees(
    name: str, sets: dict[str, Path], reader: types.ModuleType
) -> None:
    folder, seen = sets[name], 0
    image = json.loads((folder / "manifest.json").read_text())["config"]["image"]
    view = "spectra" if name == "flux" else "picture"
    for split in SPLITS:
        mine = reader.samples(folder, split)
        with loader.open(folder, split, 16, shuffle=False, backend="plain", view=view, threads=1) as batches:
            for batch in batches:
                for i in range(int(batch["valid"].sum())):
                    key, content, labels = next(mine)
                    assert batch["key"][i] == f"0/{key}" and labels.keys() == batch["labels"].keys()
                    theirs = {label: float(values[i]) for label, values in batch["labels"].items()}
                    np.testing.assert_equal(labels, theirs)
                    seen += 1
                    if name == "flux":
                        same_spectrum(content, batch, i)  # type: ignore[arg-type]
                    elif name == "jpeg":
                        assert content[:2] == b"\xff\xd8"
                    else:
                        if name == "lz4":  # a frame that any LZ4 library opens, of a picture that the reader decodes
                            inside = pa.CompressedInputStream(pa.BufferReader(content), "lz4").read()
                            content = reader.decode("pgm", inside)
                        pixels = batch["pixel_values"][i].permute(1, 2, 0).numpy()
                        np.testing.assert_array_equal(painted(content, image), pixels)
        assert next(mine, None) is None
    assert seen == 39


def same_spectrum(content: dict[str, Any], batch: dict[str, torch.Tensor], i: int) -> None:
    n = int(batch["length"][i])
    flux = np.where(np.isfinite(content["flux"]), content["flux"], 0)
    np.testing.assert_array_equal(flux, batch["flux"][i, :n])
    np.testing.assert_array_equal(content["ivar"], batch["ivar"][i, :n])
    np.testing.assert_array_equal(content["lambda"].astype(np.float32), batch["wavelength"][i, :n])


def test_the_reader_says_when_a_survey_gives_no_ivar(tmp_path: Path, reader: types.ModuleType) -> None:
    wavelength = np.linspace(4000, 9000, 500)
    rows = [
        {"object_id": f"{i}", "survey": "mine", "ra": 9.0 * i, "dec": 0.0,
         "spectrum": {"flux": np.arange(500.0) + i, "lambda": wavelength}}
        for i in range(20)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    build(ShardConfig(encoding="flux"), tmp_path / "a.parquet", tmp_path / "out", engine=HERE)
    for _, content, labels in reader.samples(tmp_path / "out"):
        assert not content["has_ivar"] and set(content["ivar"].tolist()) == {1.0} and np.isnan(labels["sn_median"])
        np.testing.assert_array_equal(content["lambda"], wavelength.astype(np.float32))


def test_the_reader_as_a_script(sets: dict[str, Path]) -> None:
    done = subprocess.run([sys.executable, str(READER), str(sets["png"]), "val"], capture_output=True, text=True)
    assert done.returncode == 0 and "'sn_median': " in done.stdout and done.stdout.startswith("00000000")


@pytest.mark.parametrize("name", ["png", "pnm", "lz4", "flux"])
def test_bytes_are_where_the_page_says(name: str, sets: dict[str, Path]) -> None:
    folder = sets[name]
    text = (folder / "manifest.json").read_bytes()
    manifest = json.loads(text)
    assert hashlib.sha256(text).hexdigest() == Manifest.load(folder).fingerprint()
    for shard in manifest["shards"]:
        tar = (folder / shard["name"]).read_bytes()
        index = (folder / shard["name"]).with_suffix(".idx").read_bytes()
        sums = hashlib.sha256(tar).hexdigest(), hashlib.sha256(index).hexdigest()
        assert sums == (shard["sha256"], shard["index_sha256"]) and len(tar) == shard["bytes"]
        assert len(tar) % 10240 == 0 and tar[257:265] == b"ustar\x0000" and tar[100:108] == b"0000644\0"
        first, *lines = index.decode().splitlines()
        assert first == f"v1.2 {shard['samples']}" and len(lines) == shard["samples"]
        table = pq.read_table((folder / shard["name"]).with_suffix(".parquet")).to_pylist()
        for line, row in zip(lines, table, strict=True):
            extension, at, size, member, npy, start, length, labels = line.split(" ")
            assert (member, npy, labels) == (f"{row['key']}.{extension}", "npy", f"{row['key']}.npy")
            assert int(row["key"]) == row["source_row"] and length == str(128 + 8 * len(manifest["labels"]))
            header = tar[int(at) - 512 : int(at)]
            assert header[:100].rstrip(b"\0").decode() == member and int(header[124:135], 8) == int(size)
            blank = header[:148] + b" " * 8 + header[156:]
            assert int(header[148:154], 8) == sum(blank) and header[154:157] == b"\0 0"
            vector = np.frombuffer(tar, "<f8", len(manifest["labels"]), int(start) + 128)
            stored = [row[label] for label in manifest["labels"]]
            stored[0] = None if row["class"] is None else manifest["classes"].index(row["class"])
            stored[1] = manifest["surveys"].index(row["survey"])
            np.testing.assert_array_equal(vector, [np.nan if value is None else value for value in stored])
    with tarfile.open(folder / manifest["shards"][0]["name"]) as archive:
        assert all(member.mtime == member.uid == member.gid == 0 and member.isreg() for member in archive)


def test_splits_follow_the_pages_arithmetic(sets: dict[str, Path]) -> None:
    manifest = json.loads((sets["png"] / "manifest.json").read_text())
    moved = json.loads((sets["png"] / ".ledger" / "plan.json").read_text())["moved"]
    config, mask, seen = manifest["config"], 2**64 - 1, 0
    edges = np.cumsum(config["split"])
    for shard in manifest["shards"]:
        table = pq.read_table((sets["png"] / shard["name"]).with_suffix(".parquet"))
        for row, healpix in zip(table["source_row"].to_pylist(), table["_healpix_29"].to_pylist(), strict=True):
            x = (healpix >> 2 * (29 - int(np.log2(config["split_nside"])))) + 0x9E3779B97F4A7C15 * (
                config["seed"] + 1
            )
            x = (((x & mask) ^ ((x & mask) >> 30)) * 0xBF58476D1CE4E5B9) & mask
            x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
            x ^= x >> 31
            own = SPLITS[int(np.searchsorted(edges[:-1], x / 2**64, side="right"))]
            assert shard["split"] == own or str(row) in moved
            seen += 1
    assert seen == 39


def test_every_key_of_a_manifest_is_in_the_page(sets: dict[str, Path]) -> None:
    page = (ROOT / "docs" / "shard-format.md").read_text()
    manifest = json.loads((sets["png"] / "manifest.json").read_text())
    keys = {
        *manifest,
        *manifest["config"],
        *manifest["shards"][0],
        *manifest["label_stats"]["z"],
        *manifest["labels"],
    }
    assert not [key for key in keys if f"`{key}`" not in page]
    quarantine = pq.read_schema(sets["png"] / "quarantine.parquet").names
    info = json.loads((sets["png"] / "_info.json").read_text())["splits"]["train"]
    assert not [key for key in (*quarantine, *info) if f"`{key}`" not in page]


# Your own survey


def test_the_example_of_a_new_survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = block("bring-your-own-survey.md", "python", "MYSURVEY")
    assert code.count("\n") <= 48
    monkeypatch.setattr(SURVEYS, "_things", dict(SURVEYS))
    exec(compile(code, "bring-your-own-survey.md", "exec"), types.ModuleType("mysurvey").__dict__)
    wave, sigma = np.linspace(600, 700, 50), np.full(50, 2.0)
    sigma[3] = 0
    columns = [fits.Column(name, "E", array=values) for name, values in
               (("WAVE", wave), ("COUNTS", wave - 500), ("SIGMA", sigma))]  # fmt: skip
    primary = fits.PrimaryHDU()
    primary.header.update({"ID": "a1", "RA": 10.0, "DEC": -5.0, "Z": 0.5, "CLASS": "GALAXY"})
    fits.HDUList([primary, fits.BinTableHDU.from_columns(columns)]).writeto(tmp_path / "x.fits")
    opened = open_file(tmp_path / "x.fits")
    (spectrum,) = opened.objects()
    assert (opened.survey, opened.layout, spectrum.object_id) == ("mysurvey", "mysurvey-red", "a1")
    assert (
        spectrum.wavelength[0] == 6000 and spectrum.ivar[0] == 0.25 and np.flatnonzero(spectrum.mask).tolist() == [3]
    )
    assert spectrum.labels == {"class": "GALAXY", "z": 0.5}


@pytest.fixture(scope="module")
def counts(spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """A folder that holds the spectra where the recipes look for them, and its class counts."""
    where = tmp_path_factory.mktemp("recipes")
    (where / "data" / "dr10").mkdir(parents=True)
    (where / "data" / "dr10" / "spectra").symlink_to(spectra_folder)
    return where, {"STAR": 100, "GALAXY": 100, "QSO": 100}


def test_pyarrow_counts_classes(counts: tuple[Path, dict[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(counts[0])
    code = block("ingest.md", "python", "pyarrow").strip().splitlines()
    found = eval(code[-1], {"ds": ds})
    assert {row["values"]: row["counts"] for row in found.to_pylist()} == counts[1]


def test_duckdb_counts_classes(counts: tuple[Path, dict[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    duckdb = pytest.importorskip("duckdb")
    monkeypatch.chdir(counts[0])
    assert dict(duckdb.sql(block("ingest.md", "sql", "duckdb")).fetchall()) == counts[1]


def test_polars_counts_classes(counts: tuple[Path, dict[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    polars = pytest.importorskip("polars")
    monkeypatch.chdir(counts[0])
    code = block("ingest.md", "python", "polars").strip().splitlines()
    assert dict(eval(code[-1], {"pl": polars}).rows()) == counts[1]


# Figures, citation


@pytest.mark.parametrize("page", figures.PAGES)
def test_the_figures_of_a_page_are_those_of_the_records(page: str) -> None:
    text = (ROOT / page).read_text()
    assert "<!-- figures " in text
    assert figures.renewed(text) == text, "run `specshards bench figures`"


def test_the_citation_is_whole() -> None:
    content = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert content["cff-version"] == "1.2.0" and content["message"] and content["title"]
    assert content["authors"] == [{"name": "The specshards developers"}]
    assert content["version"] == PROGRAM_VERSION and content["license"] == "MIT"
    assert [reference["type"] for reference in content["references"]] == ["article"] * 3
    assert all(
        reference["title"] and reference["authors"] and reference["year"] for reference in content["references"]
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == PROGRAM_VERSION and project["license"] == "MIT"
    assert f"## {PROGRAM_VERSION}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize(
    "package",
    sorted(
        path.parent.relative_to(ROOT).as_posix()
        for room in ("common", "ingest", "render", "shards", "train", "benchmarks")
        for path in (ROOT / room).rglob("__init__.py")
    ),
)
def test_a_package_says_what_each_of_its_modules_is(package: str) -> None:
    folder = ROOT / package
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    lines = re.findall(r"^(?: {4})?(\w+(?:, \w+)*) {2,}\S", text, re.M)
    named = {name for line in lines for name in line.split(", ")}
    there = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    assert named == there - {"__init__", "__main__"}

"""Another package adds a survey, a renderer, an encoding, a task and a backbone: nothing here is edited."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from specshards.common.errors import JobError
from specshards.shards.format.manifest import Manifest
from tests.conftest import ROOT

MODULES = {
    "survey": """
import numpy as np

from specshards.common.spectrum import Spectrum
from specshards.ingest.surveys import Reader, Survey, register
from specshards.ingest.surveys.common import checked, class_label, native, number, position, text


def recognise(file):
    return "nightsky-red" if len(file) > 1 and file[1].names >= {"wave", "counts", "sigma"} else None


def read(file, layout, source_file):
    header, table = file[0].header, file[1]
    sigma = native(table.column("SIGMA"), np.float64)
    ivar = np.divide(1.0, sigma**2, out=np.zeros_like(sigma), where=sigma > 0).astype(np.float32)
    ra, dec = position(header.get("RA"), header.get("DEC"))
    yield checked(Spectrum(
        object_id=text(header.get("ID")), survey="nightsky", release=None, ra=ra, dec=dec, layout=layout,
        source_file=source_file, flux=native(table.column("COUNTS"), np.float32), ivar=ivar, mask=ivar == 0,
        wavelength=10 * native(table.column("WAVE"), np.float32), label_source="header",
        labels={"class": class_label(header.get("CLASS")), "z": number(header.get("Z"))},
    ))


register(Survey("nightsky", (Reader(recognise, read),), keys=("id",), flux_unit="counts",
                cuts={"near": "z < 0.055"}))
""",
    "renderer": '''
import numpy as np

from specshards.render.base import Renderer
from specshards.render.prepare import DRAWN, select
from specshards.render.registry import RENDERERS


@RENDERERS.register("mosaic")
class Mosaic(Renderer):
    """64 good flux values at equal steps, in gray cells."""

    gallery = ()

    def __init__(self, config):
        super().__init__(config)
        self.code_shape, self.block = (8, 8), config.size // 8

    def _draw(self, spectrum, out):
        status, flux, _, _, good = select(*spectrum, *self.config.window, False)
        if status == DRAWN:
            flux = flux[good][np.linspace(0, good.sum() - 1, 64).astype(int)]
            out[...] = (255 * (flux - flux.min()) / max(np.ptp(flux), 1e-30)).reshape(8, 8)
        return status, len(flux)

    def _wavelengths(self, flux, ivar, inside, good):
        cells = inside[np.linspace(0, len(inside) - 1, 64).astype(int)].reshape(8, 8)
        picture = np.full((1, self.config.size, self.config.size), np.nan)
        picture[0, : 8 * self.block, : 8 * self.block] = cells.repeat(self.block, 0).repeat(self.block, 1)
        return picture
''',
    "encoding": """
import zlib

import numpy as np

from specshards.shards.format.encoding import ENCODINGS, Encoding


@ENCODINGS.register("deflate")
class Deflate(Encoding):
    about, extension = "the codes, deflated", "zz"

    def encode(self, codes, spectrum, grid):
        return zlib.compress(codes.tobytes())

    def decode(self, payload):
        try:
            return np.frombuffer(zlib.decompress(bytes(payload)), np.uint8).reshape(self.shape)
        except zlib.error as error:
            raise ValueError(f"not deflated codes ({error})") from error
""",
    "task": """
from specshards.train.tasks.regression import regression
from specshards.train.tasks.task import TASKS

TASKS.register("brightness")(regression("sn_median", unit="sigma"))
""",
    "backbone": """
from specshards.train.models.backbone import BACKBONES, Backbone
from torch import nn


class Pixels(nn.Module):
    def forward(self, pixels):
        return pixels.float() / 255


@BACKBONES.register("small-cnn")
class SmallCnn(Backbone):
    peak_lr = 1e-3

    def build(self, plan):
        pooled = (nn.AdaptiveAvgPool2d(4), nn.Flatten())
        return nn.Sequential(Pixels(), nn.Conv2d(3, 16, 7, 4), nn.ReLU(), *pooled, nn.Linear(256, len(plan.outputs)))
""",
}
ON_A_DEVICE = """
from specshards.render import ImageConfig, renderer
print(renderer(ImageConfig(image="mosaic", size=224)).device())
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The package is installed into a folder that Python finds, before this checkout."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "nightsky").mkdir()
    (folder / "nightsky" / "__init__.py").write_text("")
    groups = []
    for name, code in MODULES.items():
        (folder / "nightsky" / f"{name}.py").write_text(code)
        groups.append(f'[project.entry-points."specshards.{name}s"]\nnightsky = "nightsky.{name}"\n')
    project = '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
    project += '[project]\nname = "nightsky"\nversion = "1"\n[tool.setuptools]\npackages = ["nightsky"]\n'
    (folder / "pyproject.toml").write_text(project + "".join(groups))
    site = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(site), str(folder)], check=True, capture_output=True)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT / "src")]), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    wave = np.linspace(560, 740, 900)
    for i in range(80):
        rng = np.random.default_rng(i)
        sigma = np.full(900, 2.0)
        sigma[300:310] = 0
        columns = [fits.Column("WAVE", "E", array=wave), fits.Column("SIGMA", "E", array=sigma),
                   fits.Column("COUNTS", "E", array=50 + i + rng.normal(0, 2, 900))]  # fmt: skip
        primary = fits.PrimaryHDU()
        primary.header.update({"ID": f"a{i}", "RA": 4.5 * i, "DEC": -5.0, "Z": 1e-3 * i, "CLASS": "GALAXY"})
        fits.HDUList([primary, fits.BinTableHDU.from_columns(columns)]).writeto(folder / f"{i}.fits")
    return folder


def test_each_is_made_shards_of_and_trained_with(environment: dict[str, str], files: Path, tmp_path: Path) -> None:
    def make(*words: str) -> str:
        command = ["make", "-o", ".venv/.made", f"PYTHON={sys.executable}", *words]
        done = subprocess.run(command, cwd=ROOT, env=apart, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # What `make test` was given is not meant for them.
    given = ("ARGS", "MAKEFLAGS", "MAKEOVERRIDES")
    apart = {name: value for name, value in environment.items() if name not in given}
    shards = tmp_path / "data" / "shards" / "mosaic"
    make("shards", "SURVEY=nightsky", f"DATA={files}", "CUTS=near", "IMAGE=mosaic", "ENCODING=deflate", "WORKERS=2",
         f"OUT={tmp_path / 'data'}")  # fmt: skip
    manifest = json.loads((shards / "manifest.json").read_text())
    assert sum(shard["samples"] for shard in manifest["shards"]) == 55 and manifest["surveys"] == ["nightsky"]
    with pytest.raises(JobError, match="IMAGE=mosaic is of a package that is not installed here"):
        Manifest.load(shards)
    verify = [sys.executable, "-m", "specshards", "shards", "verify", str(shards), "--deep", "--workers", "0"]
    done = subprocess.run(verify, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "run"
    make("train", "TASK=brightness", "BACKBONE=small-cnn", f"SHARDS={shards}", "EPOCHS=1", f"OUT={run}",
         "ARGS=--device cpu --tracker none --batch-size 16 --workers 1")  # fmt: skip
    make("predict", f"MODEL={run}", f"INPUT={files}", f"OUT={tmp_path / 'p.parquet'}", "ARGS=--device cpu")
    assert pq.read_table(tmp_path / "p.parquet").num_rows == 80


def test_a_renderer_without_a_device_twin_says_so_by_name(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", ON_A_DEVICE]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "mosaic" in done.stdout, done.stdout + done.stderr

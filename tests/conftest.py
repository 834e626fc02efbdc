"""Shared fixtures: the folder of real survey files, spectra made on the spot, their data sets, a server of files."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner

from specshards.common import messages
from specshards.common.spectrum import Spectrum
from specshards.ingest.spectra.schema import to_table, write_parquet

if TYPE_CHECKING:
    from tests.oracles.file_server import Server

ROOT = Path(__file__).parent.parent
REAL = Path(os.environ.get("SPECSHARDS_REAL_DATA", ROOT.parent / "shared" / "data"))

# A job in the background of a shell starts with Ctrl-C ignored, and so would every process that a test starts: those
# that are interrupted to see what they do would go on. What has a handler here is at its default in a new process.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def shown_messages() -> None:
    """Tests see what a command's user sees, also of jobs that they start as a library does."""
    messages.show()


#: What the project itself registers; what a test or a snippet of a page adds is gone after its file of tests.
_SURVEYS = {
    "lamost", "sdss", "desi", "slomost", "apogee", "galah", "gaia", "mastar", "miles", "stelib", "sixdfgs", "twodf",
    "aaomega", "deep2", "vandels", "eso", "hst", "jwst", "table", "spectrum1d", "specutils",
}  # fmt: skip
REGISTERED = {
    "specshards.render.registry": ("RENDERERS", {"simple", "overlap", "map2d"}),
    "specshards.shards.format.encoding": ("ENCODINGS", {"png", "pnm", "lz4", "jpeg", "flux"}),
    "specshards.ingest.surveys.survey": ("SURVEYS", _SURVEYS),
    "specshards.train.tasks.task": ("TASKS", {"classify", "subclass", "redshift", "teff", "logg", "feh"}),
    "specshards.train.models.backbone": (
        "BACKBONES",
        {"tiny", "pretrained", "sequence", "sequence-tiny", "tokenizer"},
    ),
}


@pytest.fixture(autouse=True, scope="module")
def own_registries() -> Iterator[None]:
    """Each file of tests begins with what the project registers."""
    yield
    for module, (name, own) in REGISTERED.items():
        if module in sys.modules:
            registry = getattr(sys.modules[module], name)
            if name == "SURVEYS":  # of which there are many: those that are defined here
                own = {key for key, one in registry.items() if one.parts or one.origin.startswith("specshards.")}
            for other in set(registry) - own:
                del registry._things[other]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch's threads wait for each other at every layer: on a busy machine two are many times slower than one."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real survey files; tests that need it skip where it is absent."""
    if not (REAL / "lamost").is_dir():
        pytest.skip(f"no real survey files in {REAL}; set SPECSHARDS_REAL_DATA to their folder")
    return REAL


def make_spectrum(
    index: int, rng: np.random.Generator, *, n: int = 3909, survey: str = "mock-lamost", **changes: object
) -> Spectrum:
    """A smooth spectrum with an absorption line whose depth depends on its class."""
    wavelength = (10.0 ** (3.5682 + 1e-4 * np.arange(n))).astype(np.float32)
    code = index % 3
    flux = 100 + (code - 1) * 40 * (wavelength - 6000) / 3000 - 30 * np.exp(-0.5 * ((wavelength - 5500) / 40) ** 2)
    flux = (flux + rng.normal(0, 2, n)).astype(np.float32)
    values = {
        "object_id": str(1000 + index), "survey": survey, "release": "mock", "ra": float(rng.uniform(0, 360)),
        "dec": float(np.degrees(np.arcsin(rng.uniform(-0.1, 0.9)))), "flux": flux,
        "ivar": np.full(n, 0.25, np.float32), "wavelength": wavelength, "mask": np.zeros(n, bool),
        "layout": "lamost-table", "source_file": f"spec-{index:05d}.fits", "wave_coeff0": 3.5682, "wave_coeff1": 1e-4,
        "labels": {"class": ("STAR", "GALAXY", "QSO")[code], "z": 0.1 * code + 1e-3 * (index % 50)},
        "label_source": "header",
    }  # fmt: skip
    return Spectrum(**{**values, **changes})  # type: ignore[arg-type]


def near_infrared(count: int) -> list[Spectrum]:
    """Spectra from 15,100 to 17,000 Angstrom, as APOGEE has them: outside the window of every usual picture."""
    rng = np.random.default_rng(1)
    grid = {"wave_coeff0": None, "wave_coeff1": None}
    where = 15_100 + np.arange(1900, dtype=np.float32)
    return [make_spectrum(i, rng, n=1900, wavelength=where.copy(), **grid) for i in range(count)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server on this machine, without the proxies that this machine may have."""
    from tests.oracles.file_server import running

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with running() as state:
        yield state


@pytest.fixture(scope="session")
def spectra_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 spectra in two Parquet files of small row groups, among them 3 that cannot be drawn."""
    folder = tmp_path_factory.mktemp("spectra")
    rng = np.random.default_rng(7)
    spectra = [make_spectrum(i, rng) for i in range(300)]
    for index in (5, 120, 299):
        spectra[index].mask[:] = True
    for part, start in enumerate((0, 160)):
        chunk = spectra[start : 160 if part == 0 else 300]
        write_parquet(to_table(chunk), folder / f"part-{part:05d}.parquet", {"test": 1}, row_group_rows=20)
    return folder


@pytest.fixture(scope="session")
def sets(spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Encoding -> the data set of `spectra_folder` in it, 297 mock samples without Teff; built once, to be read."""
    from specshards.common.jobs import Engine
    from specshards.shards.format.manifest import ShardConfig
    from specshards.shards.write.build import build

    made: dict[str, Path] = {}

    def of(encoding: str) -> Path:
        if encoding not in made:
            made[encoding] = tmp_path_factory.mktemp("sets") / encoding
            config = ShardConfig(encoding=encoding, samples_per_shard=60)
            build(config, spectra_folder, made[encoding], engine=Engine(workers=0))
        return made[encoding]

    return of


def call(app: Any, *arguments: object) -> str:
    """Standard output of a command; what it raises is raised."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    if done.exception is not None:
        raise done.exception
    return done.stdout

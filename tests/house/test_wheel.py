"""The wheel, installed by itself: the README's commands and snippets, beside files of the user's with our names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.oracles.commands import write_user_files

ROOMS = ("common", "ingest", "render", "shards", "train", "benchmarks")


def pip(*arguments: object) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    words = [sys.executable, "-m", "pip", *map(str, arguments), *options]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made from a copy, because setuptools leaves its work beside the sources and takes up what it finds there."""
    copy, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("src", *ROOMS):
        leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=leave)
    pip("wheel", "--no-build-isolation", "--wheel-dir", out, copy)
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages that holds the wheel's alone, and the checkout's compiled kernels."""
    target = tmp_path_factory.mktemp("site")
    pip("install", "--target", target, "--no-compile", wheel)
    for room in ROOMS:
        for source in (ROOT / room).rglob("*.py"):  # Numba takes a kernel of a source with the same size and time
            kernels = list((source.parent / "__pycache__").glob(f"{source.stem}.*.nb[ic]"))
            if kernels:
                installed = target / "specshards" / source.relative_to(ROOT)
                shutil.copystat(source, installed)
                (installed.parent / "__pycache__").mkdir(exist_ok=True)
                for kernel in kernels:
                    shutil.copy(kernel, installed.parent / "__pycache__")
    return target


def test_the_wheel_holds_one_package_with_its_data_and_no_tests(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {"specshards/__init__.py", "specshards/__main__.py", "specshards/py.typed"}
    for room in ROOMS:
        files = [path for path in (ROOT / room).rglob("*") if path.suffix == ".py" or path.parent.name == "templates"]
        expected |= {f"specshards/{path.relative_to(ROOT).as_posix()}" for path in files if path.is_file()}
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    for package, patterns in tool["package-data"].items():
        folder = ROOT / "src" / package.replace(".", "/")
        data = {path.relative_to(folder).as_posix() for pattern in patterns for path in folder.glob(pattern)}
        assert data, f"{package} has no {patterns}"
        expected |= {f"{package.replace('.', '/')}/{name}" for name in data}
    assert names == expected


def snippets(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.S | re.M)


#: Ends with the origin of each module that a snippet has imported.
WHERE = """
import sys
for module in list(sys.modules.values()):
    if (getattr(module, "__file__", None) or "").endswith(".py") and module.__name__.split(".")[0] == "specshards":
        print("from", module.__file__)
"""

CARD = """
import re
from pathlib import Path
from specshards.shards import loader
from specshards.train.report.modelcard import modelcard
with loader.open("data/lamost/shards/map2d", "train", batch_size=2) as batches:
    rgb = next(iter(batches))["pixel_values"][0].permute(1, 2, 0).numpy()
ours, plain = re.findall(r"^```python\\n(.*?)^```$", modelcard(Path("runs/first")), re.S | re.M)
ours = ours.replace("spectra/*.fits", "data/lamost/spectra/*.parquet")
exec(ours.replace("this-folder", "runs/first") + plain.replace("this-folder", "runs/first"))
print(table.num_rows, "answers,", *logits.shape)
"""


def test_what_the_readme_shows_works_beside_the_users_own_files(site: Path, tmp_path: Path) -> None:
    folder = write_user_files(tmp_path)

    def run(*words: str) -> str:
        # The folder of the wheel stands before that of the checkout, which the environment of the tests knows too.
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300,
                              env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"})  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "Usage: specshards ROOM COMMAND" in run(sys.executable, "-m", "specshards", "--help")
    script = str(site / "bin" / "specshards")
    run(sys.executable, script, "shards", "make", "--survey", "lamost", "--n", "60", "--workers", "0",
        "--out", "data/lamost")  # fmt: skip
    assert (folder / "data" / "lamost" / "shards" / "map2d" / "report.html").is_file()
    run(sys.executable, "-m", "specshards", "train", "fit", "--task", "classify", "--shards",
        "data/lamost/shards/map2d", "--backbone", "tiny", "--epochs", "1", "--batch-size", "16", "--device", "cpu",
        "--tracker", "none", "--out", "runs/first")  # fmt: skip
    (reader,) = [code for code in snippets((ROOT / "README.md").read_text()) if "loader.open" in code]
    printed = run(sys.executable, "-c", reader + CARD + WHERE).splitlines()
    assert re.fullmatch(r"\d+ answers, 1 3", next(line for line in printed if "answers" in line))
    origins = [line.removeprefix("from ") for line in printed if line.startswith("from ")]
    assert len(origins) > 50 and all(origin.startswith(str(site)) for origin in origins)

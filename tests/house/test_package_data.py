"""A wheel has every file that the program reads beside its modules."""

from __future__ import annotations

import tomllib

from specshards.benchmarks.plan.plan import KEPT
from specshards.benchmarks.suite.load import REQUIREMENTS
from tests.conftest import ROOT

ROOMS = ("common", "ingest", "render", "shards", "train", "benchmarks")


def test_templates_and_kept_records_are_package_data() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packed = {
        path.resolve() for package, globs in patterns.items() for glob in globs
        for path in (ROOT / "src" / package.replace(".", "/")).resolve().glob(glob)
    }  # fmt: skip
    templates = {path.resolve() for room in ROOMS for path in (ROOT / room).rglob("templates/*.*")}
    records = {path.resolve() for path in KEPT.glob("*.json")}
    assert len(templates) >= 8 and len(records) == 6
    assert templates | records | {REQUIREMENTS.resolve()} <= packed
